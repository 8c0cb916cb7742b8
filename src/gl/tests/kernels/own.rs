//! Index spaces, scalars, slices and results that are written in part.

use super::*;
use crate::backend::Backend;

const TEXT: &str = "
!@kernel(dims=3, local_size=auto)
subroutine fill(i, j, k, n, m, l, a)
  integer, value :: i, j, k, n, m, l
  integer, intent(inout) :: a(0:n-1, 0:m-1, 0:l-1)
  a(i, j, k) = a(i, j, k) + i + 100*j + 10000*k
end subroutine

!@kernel(dims=3, base=1)
!@reduce(+: total)
subroutine sum3(i, j, k, n, m, l, a, total)
  integer, value :: i, j, k, n, m, l
  integer, intent(in) :: a(n, m, l)
  integer, intent(inout) :: total
  total = total + a(i, j, k) * (i + 3*j + 7*k)
end subroutine

!@kernel(dims=2)
!@reduce(max: most)
subroutine most2(i, j, n, m, a, most)
  integer, value :: i, j, n, m
  integer, intent(in) :: a(0:n-1, 0:m-1)
  integer, intent(out) :: most
  most = max(most, a(i, j) - i)
end subroutine

!@kernel(local_size=auto)
subroutine scalars(i, d, flag, r, k, y, z)
  integer, value :: i, k
  real(8), value :: d
  logical, value :: flag
  real, value :: r
  real(8), intent(out) :: y(0:*)
  real, intent(out) :: z(0:*)
  if (mod(i, 3) == 0) y(i) = merge(d, 2*d, flag) + k
  if (mod(i, 5) == 0) z(i) = r * k
end subroutine

!@kernel(dims=1)
subroutine sizes(i, x, s)
  integer, value :: i
  real, intent(in) :: x(:)
  integer, intent(out) :: s(0:*)
  s(i) = size(x)
end subroutine

!@kernel(dims=2, base=1)
subroutine naive(i, j, n, a, b, c)
  integer, value :: i, j, n
  real, intent(in) :: a(n, n), b(n, n)
  real, intent(out) :: c(n, n)
  real :: total
  integer :: p
  total = 0
  do p = 1, n
    total = total + a(i, p) * b(p, j)
  end do
  c(i, j) = total
end subroutine
";

#[test]
fn three_dimensions_and_scalars_of_every_type() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random) = (unit(TEXT), Random::new(21));
    for [n, m, l] in [[13, 7, 5], [1, 40, 9], [65, 1, 3]] {
        let mut given = [n, m, l].map(|size| int(size as i64)).to_vec();
        given.push(ints(&mut random, n * m * l + 3, 1000));
        checker.check((&unit, "fill"), &[n, m, l], given, 0.0, |it| {
            let a = &mut it[3].ints()[..n * m * l];
            let value = |at| at % n + 100 * (at / n % m) + 10000 * (at / n / m);
            a.iter_mut().enumerate().for_each(|(at, a)| *a += value(at) as i32);
        });
    }
    let n = 601;
    for flag in [false, true] {
        let scalars = [Value::Real64(0.1), Value::Logical(flag), Value::Real32(1.5), Value::Int32(-7)];
        let mut given = scalars.map(Given::Scalar).to_vec();
        given.extend([Given::Doubles(vec![9.0; n]), Given::Reals(vec![8.0; n])]);
        checker.check((&unit, "scalars"), &[n], given, 0.0, |it| {
            let value = if flag { 0.1 } else { 0.2 } - 7.0;
            it[4].doubles().iter_mut().step_by(3).for_each(|y| *y = value);
            it[5].reals().iter_mut().step_by(5).for_each(|z| *z = -10.5);
        });
    }
    assert_eq!(checker.checked, 5 * 3);
}

/// Launches of so many points that an invocation computes several.
#[test]
fn large_launches_compute_every_point_once() {
    let Some(engine) = super::super::first_engine() else { return };
    let unit = unit(TEXT);
    let run = |name: &str, extents: &[usize], given: &mut [Given]| {
        launch(&engine, (&unit, name), extents, given, Parameters::Uniform).unwrap();
    };
    let [n, m, l] = [1031, 67, 61];
    assert!(n * m * l > 1 << 22);
    let mut given = [n, m, l].map(|size| int(size as i64)).to_vec();
    given.push(Given::Ints(vec![5; n * m * l]));
    run("fill", &[n, m, l], &mut given);
    let value = |at: usize| (5 + at % n + 100 * (at / n % m) + 10000 * (at / n / m)) as i32;
    assert!((0..).zip(given[3].ints().iter()).all(|(at, a)| *a == value(at)));

    let n = (1 << 22) + 77;
    let mut given = [Given::Reals(vec![1.0; 3]), Given::Ints(vec![-1; n])];
    run("sizes", &[n], &mut given);
    assert!(given[1].ints().iter().all(|s| *s == 3));
}

/// At the lowest rate everything is cut as short as it can be.
#[test]
fn slices_compute_the_same() {
    let Some(checker) = Checker::new() else { return };
    let (unit, mut random) = (unit(TEXT), Random::new(22));
    let group = checker.engine.share_group().unwrap();
    group.set_rate(1e5);
    let run = |name: &str, extents: &[usize], given: &mut Vec<Given>, is_cut: bool| {
        let timing = launch(&checker.engine, (&unit, name), extents, given, Parameters::Uniform).unwrap();
        assert!(timing.dispatches > 1 || !is_cut, "{name}: {timing:?}");
    };
    // The first launch of each kernel knows only the device's rate.
    for ([n, m, l], is_first) in [([64, 8, 50], true), ([33, 21, 17], false), ([300, 5, 3], false)] {
        let mut given = [n, m, l].map(|size| int(size as i64)).to_vec();
        given.push(ints(&mut random, n * m * l, 1000));
        given.push(Given::Ints(vec![11]));
        let a = given[3].ints().clone();
        let value =
            |(at, a): (usize, &i32)| a * (1 + at % n + 3 * (1 + at / n % m) + 7 * (1 + at / n / m)) as i32;
        let sum: i32 = a.iter().enumerate().map(value).sum();
        run("sum3", &[n, m, l], &mut given, is_first);
        assert_eq!(given[4], Given::Ints(vec![11 + sum]));

        given.truncate(4);
        run("fill", &[n, m, l], &mut given, is_first);
        let value = |at: usize| (at % n + 100 * (at / n % m) + 10000 * (at / n / m)) as i32;
        let expected: Vec<i32> = a.iter().enumerate().map(|(at, a)| a + value(at)).collect();
        assert_eq!(given[3], Given::Ints(expected));
    }
    let (n, m) = (100, 700);
    let mut given = vec![int(100), int(700), ints(&mut random, n * m, 1 << 20), Given::Ints(vec![i32::MAX])];
    let most = given[2].ints().iter().enumerate().map(|(at, a)| a - (at % n) as i32).max();
    run("most2", &[n, m], &mut given, true);
    assert_eq!(given[3], Given::Ints(vec![most.unwrap()]), "what intent(out) held does not count");

    let n = 50;
    let mut given =
        vec![int(50), reals(&mut random, n * n), reals(&mut random, n * n), reals(&mut random, n * n)];
    let (a, b) = (given[1].reals().clone(), given[2].reals().clone());
    run("naive", &[n, n], &mut given, true);
    for (at, c) in given[3].reals().iter().enumerate() {
        let terms = (0..n).map(|p| f64::from(a[at % n + n * p]) * f64::from(b[p + n * (at / n)]));
        assert_eq!(f64::from(*c), terms.sum::<f64>());
    }
    // Guesses about a kernel's loops must not reach the budgets of convolutions.
    assert_eq!(group.rate(), 1e5);
}

#[test]
fn lengths_are_those_of_the_arrays() {
    let Some(engine) = super::super::first_engine() else { return };
    let unit = unit(TEXT);
    for len in [1, 2, 1000] {
        let mut given = vec![Given::Reals(vec![0.0; len]), Given::Ints(vec![-1; 10])];
        launch(&engine, (&unit, "sizes"), &[9], &mut given, Parameters::Uniform).unwrap();
        let mut expected = vec![len as i32; 9];
        expected.push(-1);
        assert_eq!(given[1], Given::Ints(expected));
    }
    let mut given = [Given::Reals(vec![]), Given::Ints(vec![-1; 10])];
    let error = launch(&engine, (&unit, "sizes"), &[9], &mut given, Parameters::Uniform).unwrap_err();
    assert!(error.to_string().contains("the size of \"x\", which is empty"), "{error}");
    assert_eq!(given[1], Given::Ints(vec![-1; 10]));
}

/// Through the engine's own face: the name and the times.
#[test]
fn a_run_has_a_name_and_times() {
    let Some(engine) = super::super::first_engine() else { return };
    let unit = file("language/saxpy.f90");
    let (x, mut y) = ([1.0f32, 2.0, 3.0], [10.0f32, 20.0, 30.0]);
    let mut args = [3.into(), 2.0f32.into(), (&x).into(), (&mut y).into()];
    let launch = Launch::new(&unit, 0, &[3], &mut args).unwrap();
    let (name, timing) = engine.launch(&launch).unwrap();
    assert!(&*name == "saxpy" && timing.dispatches == 1 && timing.wall >= timing.kernel);
    assert_eq!(y, [12.0, 24.0, 36.0]);
}
