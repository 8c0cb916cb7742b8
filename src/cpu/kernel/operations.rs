//! The operations of programs on one lane, and the functions that apply them to all lanes.

use std::marker::PhantomData;

use super::isa::Target;
use super::lanes::{Function, Lanewise, mask};
use super::number::{Integer, Number, Real};
use super::program::{Binary, Ternary, Unary};
use crate::kernel::tree::{Comparison, Intrinsic, Type};

/// Defines operations by their operands, result and body.
macro_rules! lanewise {
    ($($name:ident<$t:ident: $bound:path>($a:ident: $A:ty, $b:tt: $B:ty, $c:tt: $C:ty) -> $R:ty { $body:expr })+) => {$(
        struct $name<$t>(PhantomData<$t>);

        impl<$t: $bound> Lanewise for $name<$t> {
            type A = $A;
            type B = $B;
            type C = $C;
            type R = $R;
            #[inline(always)]
            fn apply($a: $A, $b: $B, $c: $C) -> $R {
                $body
            }
        }
    )+};
}

/// Bits of a value, whatever its type.
trait Bits: Copy + Default {
    fn select(self, other: Self, mask: i32) -> Self;
}

impl Bits for u32 {
    #[inline(always)]
    fn select(self, other: Self, mask: i32) -> Self {
        if mask != 0 { self } else { other }
    }
}

impl Bits for u64 {
    #[inline(always)]
    fn select(self, other: Self, mask: i32) -> Self {
        if mask != 0 { self } else { other }
    }
}

/// Numbers whose sums and products are computed as the language says.
trait Ring: Number {
    fn sum(self, other: Self) -> Self;
    fn difference(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
}

macro_rules! rings {
    ($($number:ty: $sum:path, $difference:path, $product:path;)+) => {$(
        impl Ring for $number {
            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                $sum(self, other)
            }
            #[inline(always)]
            fn difference(self, other: Self) -> Self {
                $difference(self, other)
            }
            #[inline(always)]
            fn product(self, other: Self) -> Self {
                $product(self, other)
            }
        }
    )+};
}

rings! {
    i32: Integer::add, Integer::subtract, Integer::multiply;
    i64: Integer::add, Integer::subtract, Integer::multiply;
    f32: std::ops::Add::add, std::ops::Sub::sub, std::ops::Mul::mul;
    f64: std::ops::Add::add, std::ops::Sub::sub, std::ops::Mul::mul;
}

lanewise! {
    Sum<T: Ring>(a: T, b: T, _: ()) -> T { a.sum(b) }
    Difference<T: Ring>(a: T, b: T, _: ()) -> T { a.difference(b) }
    Product<T: Ring>(a: T, b: T, _: ()) -> T { a.product(b) }
    ProductSum<T: Ring>(a: T, b: T, c: T) -> T { a.product(b).sum(c) }
    ProductDifference<T: Ring>(a: T, b: T, c: T) -> T { a.product(b).difference(c) }
    DifferenceProduct<T: Ring>(a: T, b: T, c: T) -> T { c.difference(a.product(b)) }
    Equal<T: Number>(a: T, b: T, _: ()) -> i32 { mask(a == b) }
    NotEqual<T: Number>(a: T, b: T, _: ()) -> i32 { mask(a != b) }
    Less<T: Number>(a: T, b: T, _: ()) -> i32 { mask(a < b) }
    LessEqual<T: Number>(a: T, b: T, _: ()) -> i32 { mask(a <= b) }
    Greater<T: Number>(a: T, b: T, _: ()) -> i32 { mask(a > b) }
    GreaterEqual<T: Number>(a: T, b: T, _: ()) -> i32 { mask(a >= b) }
    Min<T: Number>(a: T, b: T, _: ()) -> T { if a < b { a } else { b } }
    Max<T: Number>(a: T, b: T, _: ()) -> T { if a > b { a } else { b } }
    NonZero<T: Integer>(a: i32, b: T, _: ()) -> i32 { a & mask(b != T::default()) }
    ToInt32<T: Number>(a: T, _: (), _: ()) -> i32 { a.to_i32() }
    ToInt64<T: Number>(a: T, _: (), _: ()) -> i64 { a.to_i64() }
    ToReal32<T: Number>(a: T, _: (), _: ()) -> f32 { a.to_f32() }
    ToReal64<T: Number>(a: T, _: (), _: ()) -> f64 { a.to_f64() }

    Quotient<T: Integer>(a: T, b: T, _: ()) -> T { a.divide(b) }
    Modulus<T: Integer>(a: T, b: T, _: ()) -> T { a.modulus(b) }
    Modulo<T: Integer>(a: T, b: T, _: ()) -> T { a.modulo(b) }
    Sign<T: Integer>(a: T, b: T, _: ()) -> T { a.sign(b) }
    Dim<T: Integer>(a: T, b: T, _: ()) -> T { a.dim(b) }
    And<T: Integer>(a: T, b: T, _: ()) -> T { a & b }
    Or<T: Integer>(a: T, b: T, _: ()) -> T { a | b }
    ExclusiveOr<T: Integer>(a: T, b: T, _: ()) -> T { a ^ b }
    AndNot<T: Integer>(a: T, b: T, _: ()) -> T { a & !b }
    Shift<T: Integer>(a: T, b: i32, _: ()) -> T { a.shift(b) }
    TestBit<T: Integer>(a: T, b: i32, _: ()) -> i32 { mask(a.test_bit(b)) }
    Power<T: Integer>(a: T, b: i32, _: ()) -> T { a.power(b) }
    Negative<T: Integer>(a: T, _: (), _: ()) -> T { a.negate() }
    Absolute<T: Integer>(a: T, _: (), _: ()) -> T { a.absolute() }
    Complement<T: Integer>(a: T, _: (), _: ()) -> T { !a }
    Decrement<T: Integer>(a: T, _: (), _: ()) -> T { a.add(!T::default()) }
    FromMemory<T: Integer>(a: T, _: (), _: ()) -> i32 { mask(a != T::default()) }
    ToMemory<T: Integer>(a: i32, _: (), _: ()) -> i32 { a & 1 }

    RealQuotient<T: Real>(a: T, b: T, _: ()) -> T { a / b }
    RealModulus<T: Real>(a: T, b: T, _: ()) -> T { a % b }
    RealModulo<T: Real>(a: T, b: T, _: ()) -> T { a.modulo(b) }
    RealSign<T: Real>(a: T, b: T, _: ()) -> T { a.sign(b) }
    RealDim<T: Real>(a: T, b: T, _: ()) -> T { a.dim(b) }
    RealPower<T: Real>(a: T, b: i32, _: ()) -> T { a.power(b) }
    PowerReal<T: Real>(a: T, b: T, _: ()) -> T { a.power_real(b) }
    Atan2<T: Real>(a: T, b: T, _: ()) -> T { a.atan2(b) }
    RealNegative<T: Real>(a: T, _: (), _: ()) -> T { -a }
    RealAbsolute<T: Real>(a: T, _: (), _: ()) -> T { a.absolute() }
    Sqrt<T: Real>(a: T, _: (), _: ()) -> T { a.sqrt() }
    Truncate<T: Real>(a: T, _: (), _: ()) -> T { a.truncate() }
    IsNan<T: Real>(a: T, _: (), _: ()) -> i32 { mask(a.is_nan()) }
    Floor32<T: Real>(a: T, _: (), _: ()) -> i32 { a.floor().to_i32() }
    Floor64<T: Real>(a: T, _: (), _: ()) -> i64 { a.floor().to_i64() }
    Ceiling32<T: Real>(a: T, _: (), _: ()) -> i32 { a.ceiling().to_i32() }
    Ceiling64<T: Real>(a: T, _: (), _: ()) -> i64 { a.ceiling().to_i64() }
    Nint32<T: Real>(a: T, _: (), _: ()) -> i32 { a.round().to_i32() }
    Nint64<T: Real>(a: T, _: (), _: ()) -> i64 { a.round().to_i64() }
    Exp<T: Real>(a: T, _: (), _: ()) -> T { a.exp() }
    Log<T: Real>(a: T, _: (), _: ()) -> T { a.log() }
    Log10<T: Real>(a: T, _: (), _: ()) -> T { a.log10() }
    Sin<T: Real>(a: T, _: (), _: ()) -> T { a.sin() }
    Cos<T: Real>(a: T, _: (), _: ()) -> T { a.cos() }
    Tan<T: Real>(a: T, _: (), _: ()) -> T { a.tan() }
    Asin<T: Real>(a: T, _: (), _: ()) -> T { a.asin() }
    Acos<T: Real>(a: T, _: (), _: ()) -> T { a.acos() }
    Atan<T: Real>(a: T, _: (), _: ()) -> T { a.atan() }
    Sinh<T: Real>(a: T, _: (), _: ()) -> T { a.sinh() }
    Cosh<T: Real>(a: T, _: (), _: ()) -> T { a.cosh() }
    Tanh<T: Real>(a: T, _: (), _: ()) -> T { a.tanh() }

    Same<T: Bits>(a: T, _: (), _: ()) -> T { a }
    Select<T: Bits>(a: T, b: T, c: i32) -> T { a.select(b, c) }
    False<T: Bits>(_a: (), _: (), _: ()) -> T { T::default() }
}

/// A function for each type: for integers and logical values, and for reals.
macro_rules! by_type {
    ($ty:expr, $make:ident: $operation:ident) => {
        Some(match $ty {
            Type::Int32 | Type::Logical => T::$make::<$operation<i32>>(),
            Type::Int64 => T::$make::<$operation<i64>>(),
            Type::Real32 => T::$make::<$operation<f32>>(),
            Type::Real64 => T::$make::<$operation<f64>>(),
        })
    };
    ($ty:expr, integers $make:ident: $operation:ident) => {
        match $ty {
            Type::Int32 | Type::Logical => Some(T::$make::<$operation<i32>>()),
            Type::Int64 => Some(T::$make::<$operation<i64>>()),
            Type::Real32 | Type::Real64 => None,
        }
    };
    ($ty:expr, reals $make:ident: $operation:ident) => {
        match $ty {
            Type::Real32 => Some(T::$make::<$operation<f32>>()),
            Type::Real64 => Some(T::$make::<$operation<f64>>()),
            _ => None,
        }
    };
    ($ty:expr, $make:ident: $integer:ident, $others:ident: $real:ident) => {
        Some(match $ty {
            Type::Int32 | Type::Logical => T::$make::<$integer<i32>>(),
            Type::Int64 => T::$make::<$integer<i64>>(),
            Type::Real32 => T::$others::<$real<f32>>(),
            Type::Real64 => T::$others::<$real<f64>>(),
        })
    };
    ($ty:expr, bits $operation:ident) => {
        Some(match $ty.bytes() {
            8 => T::chunks::<$operation<u64>>(),
            _ => T::chunks::<$operation<u32>>(),
        })
    };
}

/// The function of an operation with one operand of type `ty`.
pub fn unary<T: Target>(what: Unary, ty: Type) -> Option<Function> {
    match what {
        Unary::Negate => by_type!(ty, chunks: Negative, chunks: RealNegative),
        Unary::Not => Some(T::chunks::<Complement<i32>>()),
        Unary::Copy => by_type!(ty, bits Same),
        Unary::False => Some(T::chunks::<False<u32>>()),
        Unary::FromMemory => Some(T::chunks::<FromMemory<i32>>()),
        Unary::ToMemory => Some(T::chunks::<ToMemory<i32>>()),
        Unary::Decrement => by_type!(ty, integers chunks: Decrement),
        Unary::Convert(Type::Int32 | Type::Logical) => by_type!(ty, chunks: ToInt32),
        Unary::Convert(Type::Int64) => by_type!(ty, chunks: ToInt64),
        Unary::Convert(Type::Real32) => by_type!(ty, chunks: ToReal32),
        Unary::Convert(Type::Real64) => by_type!(ty, chunks: ToReal64),
        Unary::Intrinsic(intrinsic, result) => match (intrinsic, result) {
            (Intrinsic::Abs, _) => by_type!(ty, chunks: Absolute, chunks: RealAbsolute),
            (Intrinsic::Complement, _) => by_type!(ty, integers chunks: Complement),
            (Intrinsic::Sqrt, _) => by_type!(ty, reals chunks: Sqrt),
            (Intrinsic::Truncate, _) => by_type!(ty, reals chunks: Truncate),
            (Intrinsic::IsNan, _) => by_type!(ty, reals chunks: IsNan),
            (Intrinsic::Floor, Type::Int64) => by_type!(ty, reals chunks: Floor64),
            (Intrinsic::Floor, _) => by_type!(ty, reals chunks: Floor32),
            (Intrinsic::Ceiling, Type::Int64) => by_type!(ty, reals chunks: Ceiling64),
            (Intrinsic::Ceiling, _) => by_type!(ty, reals chunks: Ceiling32),
            (Intrinsic::Nint, Type::Int64) => by_type!(ty, reals chunks: Nint64),
            (Intrinsic::Nint, _) => by_type!(ty, reals chunks: Nint32),
            (Intrinsic::Exp, _) if ty == Type::Real32 => Some(T::chunks::<Exp<f32>>()),
            (Intrinsic::Exp, _) => by_type!(ty, reals each: Exp),
            (Intrinsic::Log, _) => by_type!(ty, reals each: Log),
            (Intrinsic::Log10, _) => by_type!(ty, reals each: Log10),
            (Intrinsic::Sin, _) => by_type!(ty, reals each: Sin),
            (Intrinsic::Cos, _) => by_type!(ty, reals each: Cos),
            (Intrinsic::Tan, _) => by_type!(ty, reals each: Tan),
            (Intrinsic::Asin, _) => by_type!(ty, reals each: Asin),
            (Intrinsic::Acos, _) => by_type!(ty, reals each: Acos),
            (Intrinsic::Atan, _) => by_type!(ty, reals each: Atan),
            (Intrinsic::Sinh, _) => by_type!(ty, reals each: Sinh),
            (Intrinsic::Cosh, _) => by_type!(ty, reals each: Cosh),
            (Intrinsic::Tanh, _) => by_type!(ty, reals each: Tanh),
            _ => None,
        },
    }
}

/// The function of an operation with two operands, the first of type `ty`.
pub fn binary<T: Target>(what: Binary, ty: Type) -> Option<Function> {
    match what {
        Binary::Add => by_type!(ty, chunks: Sum),
        Binary::Subtract => by_type!(ty, chunks: Difference),
        Binary::Multiply => by_type!(ty, chunks: Product),
        Binary::Divide => by_type!(ty, each: Quotient, chunks: RealQuotient),
        Binary::Compare(Comparison::Equal) => by_type!(ty, chunks: Equal),
        Binary::Compare(Comparison::NotEqual) => by_type!(ty, chunks: NotEqual),
        Binary::Compare(Comparison::Less) => by_type!(ty, chunks: Less),
        Binary::Compare(Comparison::LessEqual) => by_type!(ty, chunks: LessEqual),
        Binary::Compare(Comparison::Greater) => by_type!(ty, chunks: Greater),
        Binary::Compare(Comparison::GreaterEqual) => by_type!(ty, chunks: GreaterEqual),
        Binary::PowerInteger => by_type!(ty, each: Power, each: RealPower),
        Binary::PowerReal => by_type!(ty, reals each: PowerReal),
        Binary::AndNot => Some(T::chunks::<AndNot<i32>>()),
        Binary::NonZero => by_type!(ty, integers chunks: NonZero),
        Binary::Intrinsic(intrinsic) => match intrinsic {
            Intrinsic::Min => by_type!(ty, chunks: Min),
            Intrinsic::Max => by_type!(ty, chunks: Max),
            Intrinsic::Mod => by_type!(ty, each: Modulus, each: RealModulus),
            Intrinsic::Modulo => by_type!(ty, each: Modulo, each: RealModulo),
            Intrinsic::Sign => by_type!(ty, chunks: Sign, chunks: RealSign),
            Intrinsic::Dim => by_type!(ty, chunks: Dim, chunks: RealDim),
            Intrinsic::And => by_type!(ty, integers chunks: And),
            Intrinsic::Or => by_type!(ty, integers chunks: Or),
            Intrinsic::ExclusiveOr => by_type!(ty, integers chunks: ExclusiveOr),
            Intrinsic::Shift => by_type!(ty, integers chunks: Shift),
            Intrinsic::TestBit => by_type!(ty, integers chunks: TestBit),
            Intrinsic::Atan2 => by_type!(ty, reals each: Atan2),
            _ => None,
        },
    }
}

/// The function of an operation with three operands of type `ty`.
pub fn ternary<T: Target>(what: Ternary, ty: Type) -> Option<Function> {
    match what {
        Ternary::MultiplyAdd => by_type!(ty, chunks: ProductSum),
        Ternary::MultiplySubtract => by_type!(ty, chunks: ProductDifference),
        Ternary::SubtractProduct => by_type!(ty, chunks: DifferenceProduct),
        Ternary::Select => by_type!(ty, bits Select),
    }
}

/// The function of an operation whose first operand, of type `ty`, is the same in all lanes, if there is one.
pub fn binary_with<T: Target>(what: Binary, ty: Type) -> Option<Function> {
    match what {
        Binary::Add => by_type!(ty, chunks_with: Sum),
        Binary::Multiply => by_type!(ty, chunks_with: Product),
        _ => None,
    }
}

/// As [`binary_with`], with three operands.
pub fn ternary_with<T: Target>(what: Ternary, ty: Type) -> Option<Function> {
    match what {
        Ternary::MultiplyAdd => by_type!(ty, chunks_with: ProductSum),
        Ternary::MultiplySubtract => by_type!(ty, chunks_with: ProductDifference),
        Ternary::SubtractProduct => by_type!(ty, chunks_with: DifferenceProduct),
        Ternary::Select => None,
    }
}
