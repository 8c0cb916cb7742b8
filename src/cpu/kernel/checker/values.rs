//! The arithmetic of the language on single values. It is that of the engine's lanes, so results have the same bits.

use crate::cpu::kernel::number::{Integer, Number, Real};
use crate::kernel::tree::{Comparison, Intrinsic, Operator, Type, UnaryOperator, Value};

/// What a variable without a value counts as after that was reported.
pub fn zero(ty: Type) -> Value {
    match ty {
        Type::Int32 => Value::Int32(0),
        Type::Int64 => Value::Int64(0),
        Type::Real32 => Value::Real32(0.0),
        Type::Real64 => Value::Real64(0.0),
        Type::Logical => Value::Logical(false),
    }
}

/// The value of a logical expression.
pub fn truth(value: Value) -> bool {
    matches!(value, Value::Logical(true))
}

/// The value of an integer expression; a logical one is 0 or 1.
pub fn integer(value: Value) -> i64 {
    match value {
        Value::Logical(value) => value.into(),
        other => other.integer().unwrap_or(0),
    }
}

/// An operator with one operand.
pub fn unary(operator: UnaryOperator, value: Value) -> Value {
    match (operator, value) {
        (UnaryOperator::Negate, Value::Int32(it)) => Value::Int32(it.negate()),
        (UnaryOperator::Negate, Value::Int64(it)) => Value::Int64(it.negate()),
        (UnaryOperator::Negate, Value::Real32(it)) => Value::Real32(-it),
        (UnaryOperator::Negate, Value::Real64(it)) => Value::Real64(-it),
        (UnaryOperator::Not, Value::Logical(it)) => Value::Logical(!it),
        (_, other) => other,
    }
}

fn integers<T: Integer>(operator: Operator, a: T, b: T) -> T {
    match operator {
        Operator::Add => a.add(b),
        Operator::Subtract => a.subtract(b),
        Operator::Multiply => a.multiply(b),
        _ => a.divide(b),
    }
}

fn reals<T: Real>(operator: Operator, a: T, b: T) -> T {
    match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        _ => a / b,
    }
}

/// An operator with two operands of one type.
pub fn binary(operator: Operator, left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Int32(a), Value::Int32(b)) => Value::Int32(integers(operator, a, b)),
        (Value::Int64(a), Value::Int64(b)) => Value::Int64(integers(operator, a, b)),
        (Value::Real32(a), Value::Real32(b)) => Value::Real32(reals(operator, a, b)),
        (Value::Real64(a), Value::Real64(b)) => Value::Real64(reals(operator, a, b)),
        (Value::Logical(a), Value::Logical(b)) => Value::Logical(match operator {
            Operator::And => a && b,
            Operator::Or => a || b,
            Operator::Equivalent => a == b,
            _ => a != b,
        }),
        (other, _) => other,
    }
}

fn compared<T: PartialOrd>(comparison: Comparison, a: T, b: T) -> bool {
    match comparison {
        Comparison::Equal => a == b,
        Comparison::NotEqual => a != b,
        Comparison::Less => a < b,
        Comparison::LessEqual => a <= b,
        Comparison::Greater => a > b,
        Comparison::GreaterEqual => a >= b,
    }
}

/// A comparison of two values of one type.
pub fn compare(comparison: Comparison, left: Value, right: Value) -> Value {
    Value::Logical(match (left, right) {
        (Value::Real32(a), Value::Real32(b)) => compared(comparison, a, b),
        (Value::Real64(a), Value::Real64(b)) => compared(comparison, a, b),
        _ => compared(comparison, integer(left), integer(right)),
    })
}

/// A power with an integer exponent.
pub fn power(base: Value, exponent: i32) -> Value {
    match base {
        Value::Int32(it) => Value::Int32(Integer::power(it, exponent)),
        Value::Int64(it) => Value::Int64(Integer::power(it, exponent)),
        Value::Real32(it) => Value::Real32(Real::power(it, exponent)),
        Value::Real64(it) => Value::Real64(Real::power(it, exponent)),
        Value::Logical(_) => base,
    }
}

/// A power of reals.
pub fn power_real(base: Value, exponent: Value) -> Value {
    match (base, exponent) {
        (Value::Real32(a), Value::Real32(b)) => Value::Real32(a.power_real(b)),
        (Value::Real64(a), Value::Real64(b)) => Value::Real64(a.power_real(b)),
        (other, _) => other,
    }
}

fn converted<T: Number>(ty: Type, value: T) -> Value {
    match ty {
        Type::Int32 | Type::Logical => Value::Int32(value.to_i32()),
        Type::Int64 => Value::Int64(value.to_i64()),
        Type::Real32 => Value::Real32(value.to_f32()),
        Type::Real64 => Value::Real64(value.to_f64()),
    }
}

/// A number as one of another type.
pub fn convert(ty: Type, value: Value) -> Value {
    match value {
        Value::Int32(it) => converted(ty, it),
        Value::Int64(it) => converted(ty, it),
        Value::Real32(it) => converted(ty, it),
        Value::Real64(it) => converted(ty, it),
        Value::Logical(_) => value,
    }
}

/// An intrinsic function of integers. Nothing, if it has a result of another type.
fn of_integers<T: Integer>(intrinsic: Intrinsic, a: T, b: T, count: i32) -> T {
    match intrinsic {
        Intrinsic::Abs => a.absolute(),
        Intrinsic::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        Intrinsic::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
        Intrinsic::Mod => a.modulus(b),
        Intrinsic::Modulo => a.modulo(b),
        Intrinsic::Sign => a.sign(b),
        Intrinsic::Dim => a.dim(b),
        Intrinsic::And => a & b,
        Intrinsic::Or => a | b,
        Intrinsic::ExclusiveOr => a ^ b,
        Intrinsic::Complement => !a,
        Intrinsic::Shift => a.shift(count),
        _ => a,
    }
}

/// An intrinsic function of reals whose result is one.
fn of_reals<T: Real>(intrinsic: Intrinsic, a: T, b: T) -> T {
    match intrinsic {
        Intrinsic::Abs => a.absolute(),
        Intrinsic::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        Intrinsic::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
        Intrinsic::Sqrt => a.sqrt(),
        Intrinsic::Exp => a.exp(),
        Intrinsic::Log => a.log(),
        Intrinsic::Log10 => a.log10(),
        Intrinsic::Sin => a.sin(),
        Intrinsic::Cos => a.cos(),
        Intrinsic::Tan => a.tan(),
        Intrinsic::Asin => a.asin(),
        Intrinsic::Acos => a.acos(),
        Intrinsic::Atan => a.atan(),
        Intrinsic::Atan2 => a.atan2(b),
        Intrinsic::Sinh => a.sinh(),
        Intrinsic::Cosh => a.cosh(),
        Intrinsic::Tanh => a.tanh(),
        Intrinsic::Truncate => a.truncate(),
        Intrinsic::Floor => a.floor(),
        Intrinsic::Ceiling => a.ceiling(),
        Intrinsic::Nint => a.round(),
        Intrinsic::Mod => a % b,
        Intrinsic::Modulo => a.modulo(b),
        Intrinsic::Sign => a.sign(b),
        Intrinsic::Dim => a.dim(b),
        _ => a,
    }
}

/// An intrinsic function with a result of type `ty`.
pub fn intrinsic(intrinsic: Intrinsic, ty: Type, operands: &[Value; 3]) -> Value {
    let [first, second, third] = *operands;
    let position = || i32::try_from(integer(second)).unwrap_or(i32::MAX);
    match (intrinsic, first, second) {
        (Intrinsic::Merge, ..) => {
            if truth(third) {
                first
            } else {
                second
            }
        }
        (Intrinsic::IsNan, Value::Real32(a), _) => Value::Logical(a.is_nan()),
        (Intrinsic::IsNan, Value::Real64(a), _) => Value::Logical(a.is_nan()),
        (Intrinsic::TestBit, Value::Int32(a), _) => Value::Logical(a.test_bit(position())),
        (Intrinsic::TestBit, Value::Int64(a), _) => Value::Logical(a.test_bit(position())),
        (Intrinsic::Shift, Value::Int64(a), _) => Value::Int64(of_integers(intrinsic, a, a, position())),
        (_, Value::Int32(a), _) => {
            let b = if let Value::Int32(b) = second { b } else { a };
            Value::Int32(of_integers(intrinsic, a, b, position()))
        }
        (_, Value::Int64(a), _) => {
            let b = if let Value::Int64(b) = second { b } else { a };
            Value::Int64(of_integers(intrinsic, a, b, 0))
        }
        (_, Value::Real32(a), _) => {
            let b = if let Value::Real32(b) = second { b } else { a };
            result(ty, of_reals(intrinsic, a, b), Value::Real32)
        }
        (_, Value::Real64(a), _) => {
            let b = if let Value::Real64(b) = second { b } else { a };
            result(ty, of_reals(intrinsic, a, b), Value::Real64)
        }
        (_, other, _) => other,
    }
}

/// The result of a function of reals: an integer for `floor` and its like.
fn result<T: Number>(ty: Type, value: T, real: impl FnOnce(T) -> Value) -> Value {
    if ty.is_integer() { converted(ty, value) } else { real(value) }
}
