//! Launches of kernels from Rust.

use sparkle::ffi::status::sparkle_status;
use sparkle::{Device, Error, Kernel};

use crate::{STATES, ok, own, with_failure};

/// A sum over so many points that the results of blocks are large.
const SUM: &str = "
!@kernel(base=1)
!@reduce(+: total)
subroutine f(i, n, x, total, y)
  integer, value :: i, n
  integer, intent(in) :: x(n)
  integer, intent(inout) :: total
  integer, intent(out) :: y(n)
  total = total + x(i)
  y(i) = 3 * x(i)
end subroutine
";

/// The same with an array for each point, so that the registers of a block are large.
const PRIVATE: &str = "
!@kernel(base=1)
!@reduce(+: total)
subroutine f(i, n, x, total, y)
  integer, value :: i, n
  integer, intent(in) :: x(n)
  integer, intent(inout) :: total
  integer, intent(out) :: y(n)
  integer :: many(16384)
  many(5) = x(i)
  many(16384) = 2 * x(i)
  total = total + many(5)
  y(i) = many(16384) + many(5)
end subroutine
";

/// Fails each large allocation of a launch.
pub fn launches(device: &str) {
    let sizes =
        if device == "cpu" { vec![(SUM, 3_000_000), (PRIVATE, 3_000_000)] } else { vec![(SUM, 100_000)] };
    let (mut noticed, mut checked) = (0, 0);
    for threads in if device == "cpu" { 1..=2 } else { 1..=1 } {
        ok(sparkle::ffi::library::sparkle_set_num_threads(threads));
        for (state, reset) in STATES {
            for &(text, n) in &sizes {
                let x: Vec<i32> = (0..n).map(|i| i % 10).collect();
                let sum: i32 = x.iter().sum();
                let mut y = vec![-1; n as usize];
                for which in 1.. {
                    reset();
                    y.fill(-1);
                    let (mut total, mut result) = (7, None);
                    let mut launch = || {
                        result = Some(Device::open(device).and_then(|device| {
                            let kernel = Kernel::from_source(text, "f")?;
                            let mut args = [n.into(), (&x).into(), (&mut total).into(), (&mut y).into()];
                            device.launch(&kernel, &[n as usize], &mut args)
                        }));
                        sparkle_status::SPARKLE_OK
                    };
                    let (_, count) = with_failure(which, &mut launch);
                    let failed = count >= which;
                    let what = format!("{device}, {threads} threads, {state}: failure {which} of {count}");
                    match result.unwrap() {
                        Ok(_) => {
                            assert_eq!(total, 7 + sum, "{what}");
                            assert!(x.iter().zip(&y).all(|(x, y)| *y == 3 * x), "{what}");
                        }
                        Err(Error::OutOfMemory { what: said, .. }) if failed => {
                            assert!(!said.is_empty() && total == 7 && y.iter().all(|it| *it == -1), "{what}");
                            noticed += 1;
                        }
                        Err(error) => panic!("{what}: {error}"),
                    }
                    checked += 1;
                    if !failed {
                        break;
                    }
                }
            }
        }
    }
    own(|| println!("{device}: {checked} launches, {noticed} failures noticed"));
    assert!(noticed >= if device == "cpu" { 12 } else { 2 }, "{noticed}");
}
