//! Special values, and real arithmetic that rounds, beside gfortran bit by bit.

use super::fortran::Library;
use super::*;

/// Calls a subroutine for each point: index, count and arrays of reals.
macro_rules! point_by_point {
    ($library:expr, $name:literal, $n:expr, $($array:expr),+) => {{
        let address = $library.subroutine($name);
        for i in 1..=$n as i32 {
            // SAFETY: the subroutine has these dummies, and the arrays have n elements.
            unsafe {
                let subroutine: unsafe extern "C" fn(i32, i32, $(point_by_point!(@ty $array)),+) =
                    std::mem::transmute(address);
                subroutine(i, $n as i32, $($array.as_mut_ptr()),+);
            }
        }
    }};
    (@ty $array:expr) => { *mut f32 };
}

/// NaN has many representations, of which each machine makes its own.
fn quiet(values: &[f32]) -> Vec<u32> {
    values.iter().map(|it| if it.is_nan() { f32::NAN.to_bits() } else { it.to_bits() }).collect()
}

const SPECIAL: &str = "
module special_kernels
  use, intrinsic :: iso_fortran_env, only: int32, real32
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan
  implicit none
contains
  !@kernel(base=1, contract=off)
  pure subroutine special(i, n, x, y, least, most, some, relu, product, is)
    integer(int32), value :: i, n
    real(real32), intent(in) :: x(n), y(n)
    real(real32), intent(inout) :: least(n), most(n), some(n), relu(n), product(n), is(n)
    least(i) = min(x(i), y(i))
    most(i) = max(x(i), y(i))
    some(i) = merge(x(i), y(i), x(i) < y(i))
    relu(i) = x(i)
    if (x(i) < 0) relu(i) = 0
    product(i) = x(i) * y(i) + abs(y(i)) - sign(x(i), y(i)) / 3.0 + sqrt(x(i))
    is(i) = 0
    if (ieee_is_nan(x(i) - y(i))) is(i) = is(i) + 1
    if (x(i) == y(i)) is(i) = is(i) + 2
    if (x(i) /= y(i)) is(i) = is(i) + 4
    if (.not. x(i) >= y(i)) is(i) = is(i) + 8
    if (x(i) <= y(i) .or. x(i) > y(i)) is(i) = is(i) + 16
  end subroutine special
end module special_kernels
";

#[test]
fn special_values() {
    let some = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1.0,
        -1.5,
        1e-40,
        -1e-45,
        f32::MAX,
        f32::MIN_POSITIVE,
    ];
    let pairs = || some.iter().flat_map(|x| some.iter().map(move |y| (*x, *y)));
    let (mut x, mut y): (Vec<f32>, Vec<f32>) = pairs().unzip();
    let n = x.len();
    let outputs = || vec![Item::Fs(vec![-9.0; n]); 6];
    let items = [vec![Item::I(n as i32), Item::Fs(x.clone()), Item::Fs(y.clone())], outputs()].concat();
    let ours = run(SPECIAL, "special", &[n], &items);
    let expected = |f: fn(f32, f32) -> f32| quiet(&pairs().map(|(x, y)| f(x, y)).collect::<Vec<_>>());
    assert_eq!(quiet(ours[3].reals()), expected(|x, y| if x < y { x } else { y }));
    assert_eq!(quiet(ours[4].reals()), expected(|x, y| if x > y { x } else { y }));
    assert_eq!(quiet(ours[5].reals()), expected(|x, y| if x < y { x } else { y }));
    assert_eq!(quiet(ours[6].reals()), expected(|x, _| if x < 0.0 { 0.0 } else { x }));
    let Some(library) = Library::build_text(SPECIAL, "special_kernels") else { return };
    let [mut a, mut b, mut c, mut d, mut e, mut f] = [(); 6].map(|()| vec![-9.0f32; n]);
    point_by_point!(library, "special", n, x, y, a, b, c, d, e, f);
    for (position, theirs) in [a, b, c, d, e, f].iter().enumerate() {
        assert_eq!(quiet(ours[3 + position].reals()), quiet(theirs), "array {position}");
    }
}

const ROUNDED: &str = "
module rounded_kernels
  use, intrinsic :: iso_fortran_env, only: int32, real32
  implicit none
contains
  !@kernel(base=1)
  pure subroutine rounded(i, n, x, y)
    integer(int32), value :: i, n
    real(real32), intent(in) :: x(n)
    real(real32), intent(inout) :: y(n)
    real(real32) :: sum, product
    integer(int32) :: j
    sum = y(i) * x(i) + 0.1
    product = x(i) - sum * y(i)
    do j = 1, 9
      sum = sum + x(mod(i + 7 * j, n) + 1) * 0.3
      product = product * 0.9 - x(modulo(i - j, n) + 1) / 3.0
      if (product > sum) cycle
      product = product + sum * sum
    end do
    y(i) = sum / (abs(product) + 0.7) + sqrt(abs(sum)) * 2.0 - x(i) ** 3
  end subroutine rounded
end module rounded_kernels
";

/// Sums of products are not fused, and nothing is reordered.
#[test]
fn rounding_is_that_of_each_operation() {
    let n = 3001;
    let reals = |seed| numbers(n, seed).into_iter().map(|it| it as f32 / 2e9).collect::<Vec<_>>();
    let (mut x, mut y) = (reals(51), reals(52));
    let items = [Item::I(n as i32), Item::Fs(x.clone()), Item::Fs(y.clone())];
    let ours = run(ROUNDED, "rounded", &[n], &items);
    assert!(ours[2].reals().iter().all(|it| it.is_finite()) && ours[2].reals() != y);
    let Some(library) = Library::build_text(ROUNDED, "rounded_kernels") else { return };
    point_by_point!(library, "rounded", n, x, y);
    assert_eq!(quiet(ours[2].reals()), quiet(&y));
}
