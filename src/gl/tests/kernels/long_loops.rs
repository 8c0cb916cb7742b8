//! Loops of more iterations than llvmpipe makes: they are computed, or reported.

use super::*;
use crate::error::Error;

const TEXT: &str = "
!@kernel
subroutine counted(i, n, x)
  integer, value :: i, n
  integer, intent(inout) :: x(0:*)
  integer :: k, total
  total = 0
  do k = 1, n
    total = total + ieor(k, i)
  end do
  x(i) = total + k
end subroutine

!@kernel(contract=off)
subroutine conditional(i, n, x)
  integer, value :: i, n
  integer, intent(inout) :: x(0:*)
  integer :: k, total
  total = 0
  k = 0
  do while (k < n)
    k = k + 1
    if (k == 70000 * i) exit
    total = total + ieor(k, i)
  end do
  x(i) = total + k
end subroutine

!@kernel
subroutine nested(i, n, x)
  integer, value :: i, n
  integer, intent(inout) :: x(0:*)
  integer :: j, k, total
  total = 0
  do j = 1, n / 1000
    do k = 1, 1000
      total = total + ieor(k + j, i)
    end do
  end do
  x(i) = total
end subroutine

!@kernel
!@reduce(+: total)
subroutine summed(i, n, x, total)
  integer, value :: i, n
  integer, intent(in) :: x(0:*)
  integer, intent(inout) :: total
  integer :: k
  do k = 1, n / 4
    total = total + ieor(k, x(i))
  end do
end subroutine

!@kernel
subroutine cycled(i, n, x)
  integer, value :: i, n
  integer, intent(inout) :: x(0:*)
  integer :: k
  do k = 1, n
    if (mod(k, 2) == 0) cycle
    x(i) = x(i) + 1
  end do
end subroutine
";

/// What the kernels compute in point `i`.
fn expected(name: &str, i: i32, n: i32) -> i32 {
    let mut total = 0i32;
    let mut add = |value: i32| total = total.wrapping_add(value);
    match name {
        "counted" => {
            (1..=n).for_each(|k| add(k ^ i));
            add(n + 1);
        }
        "conditional" => {
            let last = if i > 0 { n.min(70_000 * i) } else { n };
            let added = if i > 0 && last == 70_000 * i { last - 1 } else { last };
            (1..=added).for_each(|k| add(k ^ i));
            add(last);
        }
        _ => (1..=n / 1000).for_each(|j| (1..=1000).for_each(|k| add((k + j) ^ i))),
    }
    total
}

#[test]
fn loops_of_many_iterations_are_whole() {
    let Some(mut checker) = Checker::new() else { return };
    let unit = unit(TEXT);
    for n in [65_535, 65_536, 100_000, 200_000] {
        for name in ["counted", "conditional", "nested"] {
            // Points that leave the second loop never, at once, and late.
            let points = if name == "conditional" { 3 } else { 9 };
            let given = vec![int(n.into()), Given::Ints(vec![-1; points])];
            checker.check((&unit, name), &[points], given, 0.0, |it| {
                *it[1].ints() = (0..points as i32).map(|i| expected(name, i, n)).collect();
            });
        }
    }
    let n = 200_000;
    let given = vec![int(n), Given::Ints(vec![3, 4, 5]), Given::Ints(vec![7])];
    checker.check((&unit, "summed"), &[3], given, 0.0, |it| {
        let sum = |x: i32| (1..=n as i32 / 4).fold(0i32, |all, k| all.wrapping_add(k ^ x));
        let all = [3, 4, 5].map(sum).iter().fold(7i32, |all, it| all.wrapping_add(*it));
        *it[2].ints() = vec![all];
    });
    assert_eq!(checker.checked, 3 * 13);
}

/// A device either makes all iterations, or the launch fails and leaves the arrays as they were.
#[test]
fn loops_that_a_driver_ends_are_an_error() {
    let Some(checker) = Checker::new() else { return };
    let unit = unit(TEXT);
    for (name, n) in
        [("counted", 3_000_000), ("conditional", 3_000_000), ("nested", 3_000_000), ("cycled", 200_000)]
    {
        let mut given = vec![int(n.into()), Given::Ints(vec![-1; 2])];
        match launch(&checker.engine, (&unit, name), &[2], &mut given, Parameters::Uniform) {
            Ok(_) => {
                let value = |i| if name == "cycled" { n / 2 - 1 } else { expected(name, i, n) };
                assert_eq!(*given[1].ints(), [value(0), value(1)], "{name}");
            }
            Err(Error::Unsupported { what, .. }) => {
                let message = format!(
                    "kernel \"{name}\": so many iterations of its loops, which the driver ends early"
                );
                assert_eq!(what, message);
                assert_eq!(*given[1].ints(), [-1, -1], "{name}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
}
