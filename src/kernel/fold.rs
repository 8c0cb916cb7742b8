//! Operations on constants: for kinds, bounds and cases. Everything else is left to the back ends.

use super::tree::{Comparison, Intrinsic, Operator, Type, UnaryOperator, Value};

/// Why an operation on constants has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The result does not fit its type.
    Overflow,
    /// A division by zero.
    Division,
}

/// The result of an operation on constants. Nothing, if it is not folded.
pub(super) type Folded = Option<Result<Value, Fault>>;

/// An integer as a value of `ty`.
pub(super) fn integer(ty: Type, value: i128) -> Result<Value, Fault> {
    match ty {
        Type::Int64 => i64::try_from(value).map(Value::Int64).map_err(|_| Fault::Overflow),
        _ => i32::try_from(value).map(Value::Int32).map_err(|_| Fault::Overflow),
    }
}

fn real32(value: f32) -> Result<Value, Fault> {
    if value.is_finite() { Ok(Value::Real32(value)) } else { Err(Fault::Overflow) }
}

fn real64(value: f64) -> Result<Value, Fault> {
    if value.is_finite() { Ok(Value::Real64(value)) } else { Err(Fault::Overflow) }
}

/// An operator with one operand.
pub(super) fn unary(operator: UnaryOperator, value: Value) -> Folded {
    Some(match (operator, value) {
        (UnaryOperator::Negate, Value::Int32(it)) => integer(Type::Int32, -i128::from(it)),
        (UnaryOperator::Negate, Value::Int64(it)) => integer(Type::Int64, -i128::from(it)),
        (UnaryOperator::Negate, Value::Real32(it)) => Ok(Value::Real32(-it)),
        (UnaryOperator::Negate, Value::Real64(it)) => Ok(Value::Real64(-it)),
        (UnaryOperator::Not, Value::Logical(it)) => Ok(Value::Logical(!it)),
        _ => return None,
    })
}

/// An operator with two operands of one type.
pub(super) fn binary(operator: Operator, left: Value, right: Value) -> Folded {
    if let (Some(a), Some(b)) = (left.integer(), right.integer()) {
        let (a, b) = (i128::from(a), i128::from(b));
        let value = match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide if b == 0 => return Some(Err(Fault::Division)),
            Operator::Divide => a / b,
            _ => return None,
        };
        return Some(integer(left.ty(), value));
    }
    Some(match (left, right) {
        (Value::Real32(a), Value::Real32(b)) => match operator {
            Operator::Add => real32(a + b),
            Operator::Subtract => real32(a - b),
            Operator::Multiply => real32(a * b),
            Operator::Divide if b == 0.0 => Err(Fault::Division),
            Operator::Divide => real32(a / b),
            _ => return None,
        },
        (Value::Real64(a), Value::Real64(b)) => match operator {
            Operator::Add => real64(a + b),
            Operator::Subtract => real64(a - b),
            Operator::Multiply => real64(a * b),
            Operator::Divide if b == 0.0 => Err(Fault::Division),
            Operator::Divide => real64(a / b),
            _ => return None,
        },
        (Value::Logical(a), Value::Logical(b)) => Ok(Value::Logical(match operator {
            Operator::And => a && b,
            Operator::Or => a || b,
            Operator::Equivalent => a == b,
            Operator::NotEquivalent => a != b,
            _ => return None,
        })),
        _ => return None,
    })
}

/// A comparison of two constants of one type.
pub(super) fn compare(comparison: Comparison, left: Value, right: Value) -> Folded {
    let order = match (left, right) {
        (Value::Real32(a), Value::Real32(b)) => a.partial_cmp(&b),
        (Value::Real64(a), Value::Real64(b)) => a.partial_cmp(&b),
        _ => left.integer().zip(right.integer()).map(|(a, b)| a.cmp(&b)),
    }?;
    Some(Ok(Value::Logical(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterEqual => order.is_ge(),
    })))
}

/// An integer power of an integer. Real powers are left to the back ends.
pub(super) fn power(base: Value, exponent: i64) -> Folded {
    let ty = base.ty();
    let base = i128::from(base.integer()?);
    if exponent < 0 {
        return Some(match base {
            0 => Err(Fault::Division),
            1 => integer(ty, 1),
            -1 => integer(ty, if exponent % 2 == 0 { 1 } else { -1 }),
            _ => integer(ty, 0),
        });
    }
    let small = u32::try_from(exponent).ok().filter(|exponent| *exponent < 128);
    Some(match (base, small) {
        (0 | 1, Some(0)) => integer(ty, 1),
        (0 | 1, _) => integer(ty, base),
        (-1, _) => integer(ty, if exponent % 2 == 0 { 1 } else { -1 }),
        (_, Some(exponent)) => match base.checked_pow(exponent) {
            Some(value) => integer(ty, value),
            None => Err(Fault::Overflow),
        },
        (_, None) => Err(Fault::Overflow),
    })
}

/// A number as one of another type.
pub(super) fn convert(ty: Type, value: Value) -> Folded {
    if value.ty() == ty {
        return Some(Ok(value));
    }
    let whole = |value: f64| {
        let value = value.trunc();
        if value.abs() < 1e19 { integer(ty, value as i128) } else { Err(Fault::Overflow) }
    };
    Some(match (ty, value) {
        (Type::Int32 | Type::Int64, Value::Int32(_) | Value::Int64(_)) => {
            integer(ty, value.integer().unwrap_or(0).into())
        }
        (Type::Int32 | Type::Int64, Value::Real32(it)) => whole(it.into()),
        (Type::Int32 | Type::Int64, Value::Real64(it)) => whole(it),
        (Type::Real32, Value::Int32(it)) => Ok(Value::Real32(it as f32)),
        (Type::Real32, Value::Int64(it)) => Ok(Value::Real32(it as f32)),
        (Type::Real32, Value::Real64(it)) => real32(it as f32),
        (Type::Real64, Value::Int32(it)) => Ok(Value::Real64(it.into())),
        (Type::Real64, Value::Int64(it)) => Ok(Value::Real64(it as f64)),
        (Type::Real64, Value::Real32(it)) => Ok(Value::Real64(it.into())),
        _ => return None,
    })
}

/// An intrinsic function of integers and of logical values.
pub(super) fn intrinsic(intrinsic: Intrinsic, ty: Type, values: &[Value]) -> Folded {
    if let (Intrinsic::Merge, [one, other, Value::Logical(mask)]) = (intrinsic, values) {
        return Some(Ok(if *mask { *one } else { *other }));
    }
    let first = *values.first()?;
    let a = i128::from(first.integer()?);
    let b = values.get(1).and_then(|value| value.integer()).map(i128::from);
    let bits = first.ty().bytes() as u32 * 8;
    let masked = |value: i128| {
        let value = value as u64;
        if bits == 32 { i128::from(value as u32 as i32) } else { i128::from(value as i64) }
    };
    let value = match (intrinsic, b) {
        (Intrinsic::Abs, _) => a.abs(),
        (Intrinsic::Complement, _) => !a,
        (Intrinsic::Min, Some(b)) => a.min(b),
        (Intrinsic::Max, Some(b)) => a.max(b),
        (Intrinsic::Mod | Intrinsic::Modulo, Some(0)) => return Some(Err(Fault::Division)),
        (Intrinsic::Mod, Some(b)) => a % b,
        (Intrinsic::Modulo, Some(b)) => (a % b + b) % b,
        (Intrinsic::Sign, Some(b)) => {
            if b >= 0 {
                a.abs()
            } else {
                -a.abs()
            }
        }
        (Intrinsic::Dim, Some(b)) => (a - b).max(0),
        (Intrinsic::And, Some(b)) => a & b,
        (Intrinsic::Or, Some(b)) => a | b,
        (Intrinsic::ExclusiveOr, Some(b)) => a ^ b,
        (Intrinsic::Shift, Some(b)) if b.unsigned_abs() >= bits.into() => 0,
        (Intrinsic::Shift, Some(b)) if b >= 0 => masked(a << b),
        (Intrinsic::Shift, Some(b)) => {
            let unsigned = if bits == 32 { u64::from(a as u32) } else { a as u64 };
            masked(i128::from(unsigned >> -b))
        }
        (Intrinsic::TestBit, Some(b)) => {
            return Some(Ok(Value::Logical((0..i128::from(bits)).contains(&b) && a >> b & 1 == 1)));
        }
        _ => return None,
    };
    Some(integer(ty, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_fold_as_fortran_computes() {
        let fold = |it, a, b| intrinsic(it, Type::Int32, &[Value::Int32(a), Value::Int32(b)]);
        let int = |value| Some(Ok(Value::Int32(value)));
        assert_eq!(fold(Intrinsic::Mod, -5, 3), int(-2));
        assert_eq!(fold(Intrinsic::Modulo, -5, 3), int(1));
        assert_eq!(fold(Intrinsic::Modulo, 5, -3), int(-1));
        assert_eq!(fold(Intrinsic::Shift, 1, 31), int(i32::MIN));
        assert_eq!(fold(Intrinsic::Shift, -1, -28), int(15));
        assert_eq!(fold(Intrinsic::Shift, 1, 32), int(0));
        assert_eq!(fold(Intrinsic::Sign, -3, 0), int(3));
        assert_eq!(fold(Intrinsic::Mod, 1, 0), Some(Err(Fault::Division)));
        assert_eq!(fold(Intrinsic::TestBit, -1, 31), Some(Ok(Value::Logical(true))));
        assert_eq!(power(Value::Int32(2), 31), Some(Err(Fault::Overflow)));
        assert_eq!(power(Value::Int32(-2), 31), int(i32::MIN));
        assert_eq!(power(Value::Int32(-1), -3), int(-1));
        assert_eq!(power(Value::Int32(0), 0), int(1));
        assert_eq!(binary(Operator::Divide, Value::Int32(-7), Value::Int32(2)), int(-3));
        assert_eq!(
            binary(Operator::Add, Value::Int32(i32::MAX), Value::Int32(1)),
            Some(Err(Fault::Overflow))
        );
    }

    #[test]
    fn conversions_truncate_and_round() {
        assert_eq!(convert(Type::Int32, Value::Real64(-2.9)), Some(Ok(Value::Int32(-2))));
        assert_eq!(convert(Type::Int32, Value::Real32(3e9)), Some(Err(Fault::Overflow)));
        assert_eq!(convert(Type::Real32, Value::Int32(16_777_217)), Some(Ok(Value::Real32(16_777_216.0))));
        assert_eq!(convert(Type::Real32, Value::Real64(1e300)), Some(Err(Fault::Overflow)));
        assert_eq!(convert(Type::Real32, Value::Logical(true)), None);
    }
}
