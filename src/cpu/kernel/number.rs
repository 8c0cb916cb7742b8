//! The arithmetic of the language for one number of each type.

use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Rem, Sub};

/// A number of a register.
pub trait Number: Copy + Default + PartialOrd {
    /// Conversions: integers to reals round to nearest even, reals to integers truncate, a longer integer keeps the low
    /// bits.
    fn to_i32(self) -> i32;
    fn to_i64(self) -> i64;
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
}

/// Integers. All operations wrap, and none traps.
pub trait Integer:
    Number + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self>
{
    fn add(self, other: Self) -> Self;
    fn subtract(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn divide(self, other: Self) -> Self;
    fn negate(self) -> Self;
    fn absolute(self) -> Self;
    fn modulus(self, other: Self) -> Self;
    fn modulo(self, other: Self) -> Self;
    fn sign(self, other: Self) -> Self;
    fn dim(self, other: Self) -> Self;
    fn shift(self, by: i32) -> Self;
    fn test_bit(self, position: i32) -> bool;
    fn power(self, exponent: i32) -> Self;
}

/// Reals.
pub trait Real:
    Number
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Rem<Output = Self>
    + Neg<Output = Self>
{
    fn is_nan(self) -> bool;
    fn absolute(self) -> Self;
    fn modulo(self, other: Self) -> Self;
    fn sign(self, other: Self) -> Self;
    fn dim(self, other: Self) -> Self;
    fn power(self, exponent: i32) -> Self;
    fn power_real(self, exponent: Self) -> Self;
    fn atan2(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    fn truncate(self) -> Self;
    fn floor(self) -> Self;
    fn ceiling(self) -> Self;
    fn round(self) -> Self;
    fn exp(self) -> Self;
    fn log(self) -> Self;
    fn log10(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn tan(self) -> Self;
    fn asin(self) -> Self;
    fn acos(self) -> Self;
    fn atan(self) -> Self;
    fn sinh(self) -> Self;
    fn cosh(self) -> Self;
    fn tanh(self) -> Self;
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Number for $number {
            #[inline(always)]
            fn to_i32(self) -> i32 {
                self as i32
            }
            #[inline(always)]
            fn to_i64(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

numbers!(i32 i64 f32 f64);

macro_rules! integers {
    ($($integer:ty, $unsigned:ty);*) => {$(
        impl Integer for $integer {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn subtract(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn divide(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            #[inline(always)]
            fn negate(self) -> Self {
                self.wrapping_neg()
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                self.wrapping_abs()
            }
            #[inline(always)]
            fn modulus(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            #[inline(always)]
            fn modulo(self, other: Self) -> Self {
                let rest = self.modulus(other);
                if rest != 0 && (rest < 0) != (other < 0) { rest.wrapping_add(other) } else { rest }
            }
            #[inline(always)]
            fn sign(self, other: Self) -> Self {
                let size = self.wrapping_abs();
                if other < 0 { size.wrapping_neg() } else { size }
            }
            #[inline(always)]
            fn dim(self, other: Self) -> Self {
                let difference = self.wrapping_sub(other);
                if difference > 0 { difference } else { 0 }
            }
            #[inline(always)]
            fn shift(self, by: i32) -> Self {
                let bits = <$unsigned>::BITS;
                let count = by.unsigned_abs();
                let value = self as $unsigned;
                // The shifts' own masking keeps them defined; what is too long is dropped below.
                let shifted = if by < 0 { value.wrapping_shr(count) } else { value.wrapping_shl(count) };
                if count >= bits { 0 } else { shifted as $integer }
            }
            #[inline(always)]
            fn test_bit(self, position: i32) -> bool {
                (position as u32) < <$unsigned>::BITS && self.wrapping_shr(position as u32) & 1 != 0
            }
            #[inline(always)]
            fn power(self, exponent: i32) -> Self {
                if exponent < 0 {
                    return match self {
                        1 => 1,
                        -1 if exponent & 1 != 0 => -1,
                        -1 => 1,
                        _ => 0,
                    };
                }
                self.wrapping_pow(exponent as u32)
            }
        }
    )*};
}

integers!(i32, u32; i64, u64);

macro_rules! reals {
    ($($real:ty: $exp:path;)*) => {$(
        impl Real for $real {
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$real>::is_nan(self)
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                self.abs()
            }
            /// A zero has the sign of `other`.
            #[inline(always)]
            fn modulo(self, other: Self) -> Self {
                let rest = self % other;
                if rest == 0.0 {
                    return (0.0 as $real).copysign(other);
                }
                if (rest < 0.0) != (other < 0.0) { rest + other } else { rest }
            }
            #[inline(always)]
            fn sign(self, other: Self) -> Self {
                self.copysign(other)
            }
            #[inline(always)]
            fn dim(self, other: Self) -> Self {
                let difference = self - other;
                if difference <= 0.0 { 0.0 } else { difference }
            }
            #[inline(always)]
            fn power(self, exponent: i32) -> Self {
                let (mut base, mut count, mut product) = (self, exponent.unsigned_abs(), 1.0);
                let mut is_first = true;
                while count != 0 {
                    if count & 1 != 0 {
                        product = if is_first { base } else { product * base };
                        is_first = false;
                    }
                    count >>= 1;
                    base *= base;
                }
                if exponent < 0 { 1.0 / product } else { product }
            }
            #[inline(always)]
            fn power_real(self, exponent: Self) -> Self {
                self.powf(exponent)
            }
            #[inline(always)]
            fn atan2(self, other: Self) -> Self {
                <$real>::atan2(self, other)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$real>::sqrt(self)
            }
            #[inline(always)]
            fn truncate(self) -> Self {
                self.trunc()
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$real>::floor(self)
            }
            #[inline(always)]
            fn ceiling(self) -> Self {
                self.ceil()
            }
            #[inline(always)]
            fn round(self) -> Self {
                <$real>::round(self)
            }
            #[inline(always)]
            fn log(self) -> Self {
                self.ln()
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn log10(self) -> Self {
                <$real>::log10(self)
            }
            #[inline(always)]
            fn sin(self) -> Self {
                <$real>::sin(self)
            }
            #[inline(always)]
            fn cos(self) -> Self {
                <$real>::cos(self)
            }
            #[inline(always)]
            fn tan(self) -> Self {
                <$real>::tan(self)
            }
            #[inline(always)]
            fn asin(self) -> Self {
                <$real>::asin(self)
            }
            #[inline(always)]
            fn acos(self) -> Self {
                <$real>::acos(self)
            }
            #[inline(always)]
            fn atan(self) -> Self {
                <$real>::atan(self)
            }
            #[inline(always)]
            fn sinh(self) -> Self {
                <$real>::sinh(self)
            }
            #[inline(always)]
            fn cosh(self) -> Self {
                <$real>::cosh(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                <$real>::tanh(self)
            }
        }
    )*};
}

reals! {
    f32: exp;
    f64: f64::exp;
}

/// The exponential function, without branches and without fused operations, so that it is vectorised and has the same
/// bits with every instruction set. The error is below 1 unit in the last place.
///
/// `x` is `k ln 2 + r` with |r| <= ln 2 / 2, where ln 2 is cut into a part whose products with `k` are exact and the rest
/// (W. J. Cody and W. Waite, Software Manual for the Elementary Functions, 1980). The power series of `exp(r)` ends with
/// the seventh term, which is below half a unit in the last place.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding it rounds to whole numbers, which are then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Results outside are infinite or zero. A NaN stays one.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let k = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let whole = rounded - ROUND;
    let r = x - whole * LN2_HIGH - whole * LN2_LOW;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        sum = sum * r + coefficient;
    }
    let result = (r * r * sum + r) + 1.0;
    // In two steps, as 2**k may be no normal number.
    let power = |k: i32| f32::from_bits((k.wrapping_add(127) << 23) as u32);
    let half = k >> 1;
    result * power(half) * power(k.wrapping_sub(half))
}
