//! Launches so long that workgroups take blocks of points in turn, on a device that tells its compute units.

use super::super::faulty::Machine;
use super::super::guards::guarded_on;
use super::*;
use crate::kernel::glsl::{self, Options};

const TEXT: &str = "
!@kernel(dims=1)
subroutine saxpy(i, n, a, x, y)
  integer, value :: i, n
  real, value :: a
  real, intent(in) :: x(0:n-1)
  real, intent(inout) :: y(0:n-1)
  y(i) = y(i) + a * x(i)
end subroutine

!@kernel(dims=1, base=1, contract=off)
subroutine several(i, n, low, x, y, z, f)
  integer, value :: i, n, low
  integer, intent(in) :: x(n)
  integer, intent(inout) :: y(low:*)
  integer, intent(out) :: z(n)
  logical, intent(out) :: f(n)
  integer :: t
  if (mod(i, 3) == 0) y(low + i - 1) = y(low + i - 1) + 100
  t = x(i) + y(low + i - 1)
  y(low + i - 1) = t
  z(i) = y(low + i - 1) + 1
  f(i) = t > 5
end subroutine

!@kernel(dims=1)
subroutine indirect(i, n, p, y)
  integer, value :: i, n
  integer, intent(in) :: p(0:n-1)
  integer, intent(inout) :: y(0:n-1)
  y(p(i)) = y(p(i)) + i
end subroutine

!@kernel(dims=1)
subroutine looped(i, n, y)
  integer, value :: i, n
  integer, intent(inout) :: y(0:n-1)
  integer :: k
  do k = 1, 3
    y(i) = y(i) + k
  end do
end subroutine
";

/// The text of a kernel as the engine writes it for long launches.
fn text(unit: &Unit, name: &str) -> String {
    let options = Options { streamed: true, coarsening: 2, ..Options::default() };
    glsl::write(unit, unit.kernel(name).unwrap(), &options).unwrap().unwrap().text
}

#[test]
fn stores_come_late_where_nothing_reads_them() {
    let unit = unit(TEXT);
    let saxpy = text(&unit, "saxpy");
    let (loads, stores) =
        (saxpy.find("late0_1);").unwrap(), saxpy.find("sparkle_store(int(point + 0u)").unwrap());
    assert!(loads < stores, "{saxpy}");
    // z reads y, so only z and f are stored late.
    let several = text(&unit, "several");
    let store = &several[several.find("void sparkle_store").unwrap()..];
    assert!(store.contains("z[") && store.contains("f[") && !store.contains("y["), "{several}");
    // The address is not known outside of the body.
    assert!(!text(&unit, "indirect").contains("sparkle_store"));
    // Loops are not streamed.
    assert!(!text(&unit, "looped").contains("uint block"));
}

#[test]
fn streamed_launches_compute_every_point_once() {
    let machine = Machine { compute_units: Some(3), ..Machine::default() };
    let Some((engine, guards)) = guarded_on(machine) else { return };
    let unit = unit(TEXT);
    let mut random = Random::new(31);
    // Several blocks for each of the twelve workgroups, and a part of one.
    for n in [1 << 22, (1 << 22) + 8191, (1 << 22) + 1] {
        let run = |name: &str, given: &mut [Given], parameters| {
            launch(&engine, (&unit, name), &[n], given, parameters).unwrap();
        };
        let ints = |random: &mut Random| (0..n).map(|_| random.between(-9, 9) as i32).collect::<Vec<_>>();
        for parameters in [Parameters::Uniform, Parameters::Buffer, Parameters::Inline] {
            let (x, y) = (random.integers(n, 50), random.integers(n, 50));
            let expected: Vec<f32> = y.iter().zip(&x).map(|(y, x)| y + 3.0 * x).collect();
            let mut given = [int(n as i64), real(3.0), Given::Reals(x), Given::Reals(y)];
            run("saxpy", &mut given, parameters);
            assert!(*given[3].reals() == expected, "{parameters:?}");
        }
        let (x, y) = (ints(&mut random), ints(&mut random));
        let sum = |at: usize| x[at] + y[at] + if (at + 1).is_multiple_of(3) { 100 } else { 0 };
        let zeros = vec![0; n];
        let arrays = [&x, &y, &zeros, &zeros].map(|it| Given::Ints(it.clone()));
        let mut given = [int(n as i64), int(7)].into_iter().chain(arrays).collect::<Vec<_>>();
        run("several", &mut given, Parameters::Uniform);
        assert!(given[3].ints().iter().enumerate().all(|(at, y)| *y == sum(at)));
        assert!(given[4].ints().iter().enumerate().all(|(at, z)| *z == sum(at) + 1));
        assert!(given[5].ints().iter().enumerate().all(|(at, f)| (*f != 0) == (sum(at) > 5)));
        let p: Vec<i32> = (0..n as i32).rev().collect();
        let mut given = [int(n as i64), Given::Ints(p), Given::Ints(y.clone())];
        run("indirect", &mut given, Parameters::Uniform);
        assert!(given[2].ints().iter().enumerate().all(|(at, it)| *it == y[at] + (n - 1 - at) as i32));
    }
    assert!(guards.broken().is_empty(), "{:?}", guards.broken());
}
