//! The fixed tree of reductions.

use crate::kernel::tree::{REDUCTION_BLOCK, ReductionOperator, Type, Value};

use super::lanes::{CHUNK, Function};
use super::number::{Integer, Real};

/// A value of any type, as its bits.
pub type Cell = u64;

/// The bits of a value.
pub fn cell(value: Value) -> Cell {
    match value {
        Value::Int32(value) => value as u32 as u64,
        Value::Int64(value) => value as u64,
        Value::Real32(value) => value.to_bits().into(),
        Value::Real64(value) => value.to_bits(),
        Value::Logical(value) => value.into(),
    }
}

/// Combines a block of a register's lanes, which it overwrites, and gives one value. `function` is the operator's.
///
/// # Safety
/// There are [`REDUCTION_BLOCK`] elements of the type, and this CPU has the function's instruction set.
pub unsafe fn lanes(function: Function, operator: ReductionOperator, ty: Type, values: *mut u8) -> Cell {
    let mut stride = REDUCTION_BLOCK / 2;
    while stride >= CHUNK {
        // SAFETY: the upper half ends with the elements that are left.
        unsafe { function(values, values, values.add(stride * ty.bytes()), values, stride) };
        stride /= 2;
    }
    let mut cells = [0; CHUNK];
    for (lane, cell) in cells.iter_mut().enumerate() {
        // SAFETY: there are so many elements.
        *cell = unsafe {
            match ty.bytes() {
                8 => *values.cast::<u64>().add(lane),
                _ => (*values.cast::<u32>().add(lane)).into(),
            }
        };
    }
    while stride > 0 {
        for k in 0..stride {
            cells[k] = pair(operator, ty, cells[k], cells[k + stride]);
        }
        stride /= 2;
    }
    cells[0]
}

/// Combines a block of values, the first of them last, and gives one. Blocks that are shorter have identities at their
/// end.
pub fn block(operator: ReductionOperator, ty: Type, values: &[Cell; REDUCTION_BLOCK]) -> Cell {
    match ty {
        Type::Int32 | Type::Logical => {
            let values = values.map(|it| it as u32 as i32);
            cell(Value::Int32(tree(values, |a, b| integer(operator, a, b))))
        }
        Type::Int64 => cell(Value::Int64(tree(values.map(|it| it as i64), |a, b| integer(operator, a, b)))),
        Type::Real32 => {
            let values = values.map(|it| f32::from_bits(it as u32));
            cell(Value::Real32(tree(values, |a, b| real(operator, a, b))))
        }
        Type::Real64 => cell(Value::Real64(tree(values.map(f64::from_bits), |a, b| real(operator, a, b)))),
    }
}

/// `left op right`.
pub fn pair(operator: ReductionOperator, ty: Type, left: Cell, right: Cell) -> Cell {
    match ty {
        Type::Int32 | Type::Logical => {
            cell(Value::Int32(integer(operator, left as u32 as i32, right as u32 as i32)))
        }
        Type::Int64 => cell(Value::Int64(integer(operator, left as i64, right as i64))),
        Type::Real32 => {
            let [left, right] = [left, right].map(|it| f32::from_bits(it as u32));
            cell(Value::Real32(real(operator, left, right)))
        }
        Type::Real64 => cell(Value::Real64(real(operator, f64::from_bits(left), f64::from_bits(right)))),
    }
}

fn tree<T: Copy>(mut values: [T; REDUCTION_BLOCK], combine: impl Fn(T, T) -> T) -> T {
    let mut stride = REDUCTION_BLOCK / 2;
    while stride > 0 {
        for k in 0..stride {
            values[k] = combine(values[k], values[k + stride]);
        }
        stride /= 2;
    }
    values[0]
}

fn integer<T: Integer>(operator: ReductionOperator, a: T, b: T) -> T {
    match operator {
        ReductionOperator::Add => a.add(b),
        ReductionOperator::Multiply => a.multiply(b),
        ReductionOperator::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        ReductionOperator::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
        ReductionOperator::And => a & b,
        ReductionOperator::Or => a | b,
    }
}

fn real<T: Real>(operator: ReductionOperator, a: T, b: T) -> T {
    match operator {
        ReductionOperator::Add => a + b,
        ReductionOperator::Multiply => a * b,
        ReductionOperator::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        ReductionOperator::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
        // Not of reals.
        ReductionOperator::And | ReductionOperator::Or => a,
    }
}
