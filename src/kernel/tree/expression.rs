//! Expressions of the tree.

use super::{Type, VariableId};
use crate::kernel::span::Span;

/// An index into [`Code::expressions`](super::Code::expressions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpressionId(pub u32);

/// An expression. All are scalar.
#[derive(Debug, Clone)]
pub struct Expression {
    /// What it computes.
    pub operation: Operation,
    /// The type of its result.
    pub ty: Type,
    /// How many points share its value.
    pub uniformity: Uniformity,
    /// Its source.
    pub span: Span,
}

/// For which points a value, or a decision, is the same: those that evaluate it together in one pass through the
/// code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Uniformity {
    /// For all points of a launch.
    Launch,
    /// For the points of a workgroup.
    Group,
    /// It may differ from point to point.
    #[default]
    Varying,
}

/// What an expression computes. The types of operands are stated where they are not those of the result.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// A constant of the expression's type.
    Constant(Value),
    /// The value of a variable or element.
    Load(Place),
    /// An operator with one operand.
    Unary(UnaryOperator, ExpressionId),
    /// An operator with two operands of one type.
    Binary(Operator, ExpressionId, ExpressionId),
    /// A comparison: two operands of one numeric type, a logical result. Comparisons with NaN are false, except
    /// [`Comparison::NotEqual`].
    Compare(Comparison, ExpressionId, ExpressionId),
    /// A power with an exponent of type `Int32`. For each bit of the absolute exponent, from the lowest: if it is
    /// set, `y = y*x` (the first time `y = x`), then `x = x*x`. A real result with a negative exponent is `1/y`.
    /// Integers wrap; with a negative exponent, 1 gives 1, -1 gives 1 or -1, 0 an unspecified value, and all others
    /// 0. An exponent of 0 gives 1.
    PowerInteger(ExpressionId, ExpressionId),
    /// A power of two real numbers.
    PowerReal(ExpressionId, ExpressionId),
    /// Conversion of a number to the expression's type: integers to reals round to nearest even, reals to integers
    /// truncate, `Int64` to `Int32` keeps the low bits. Logical values are never converted.
    Convert(ExpressionId),
    /// An intrinsic function.
    Intrinsic(Intrinsic, Vec<ExpressionId>),
    /// A function of the file, by index into [`Unit::procedures`](super::Unit::procedures). One operand for each
    /// dummy.
    Call(usize, Vec<ExpressionId>),
    /// The number of elements of a buffer argument, `Int32`.
    Length(VariableId),
    /// The point's index within its workgroup, from 0, on this axis from 0.
    LocalIndex(usize),
    /// The index of the point's workgroup, from 0, on this axis from 0.
    GroupIndex(usize),
}

/// A constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// An `Int32`.
    Int32(i32),
    /// An `Int64`.
    Int64(i64),
    /// A `Real32`.
    Real32(f32),
    /// A `Real64`.
    Real64(f64),
    /// A `Logical`.
    Logical(bool),
}

impl Value {
    /// Its type.
    pub fn ty(self) -> Type {
        match self {
            Value::Int32(_) => Type::Int32,
            Value::Int64(_) => Type::Int64,
            Value::Real32(_) => Type::Real32,
            Value::Real64(_) => Type::Real64,
            Value::Logical(_) => Type::Logical,
        }
    }

    /// The number, if it is an integer.
    pub fn integer(self) -> Option<i64> {
        match self {
            Value::Int32(value) => Some(value.into()),
            Value::Int64(value) => Some(value),
            _ => None,
        }
    }
}

/// An operator with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOperator {
    /// `-x` of a number.
    Negate,
    /// `.not. x` of a logical value.
    Not,
}

/// An operator with two operands of the result's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `a + b`.
    Add,
    /// `a - b`.
    Subtract,
    /// `a * b`.
    Multiply,
    /// `a / b`.
    Divide,
    /// `a .and. b`; `b` is evaluated only if `a` is true.
    And,
    /// `a .or. b`; `b` is evaluated only if `a` is false.
    Or,
    /// `a .eqv. b`.
    Equivalent,
    /// `a .neqv. b`.
    NotEquivalent,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `a == b`.
    Equal,
    /// `a /= b`.
    NotEqual,
    /// `a < b`.
    Less,
    /// `a <= b`.
    LessEqual,
    /// `a > b`.
    Greater,
    /// `a >= b`.
    GreaterEqual,
}

/// An intrinsic function. Operands have the result's type where nothing else is said. `int`, `real` and `dble` are
/// [`Operation::Convert`]; `huge`, `tiny` and `epsilon` are constants; `size`, `lbound` and `ubound` are expressions
/// of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intrinsic {
    /// `abs(x)`. The smallest integer stays as it is.
    Abs,
    /// `min(a, b)`: `a` if `a < b`, else `b`, as gfortran and the SSE instruction compute it. Longer lists are nested
    /// from the left.
    Min,
    /// `max(a, b)`: `a` if `a > b`, else `b`. Longer lists are nested from the left.
    Max,
    /// Square root, correctly rounded on the CPU.
    Sqrt,
    /// Exponential function.
    Exp,
    /// Natural logarithm.
    Log,
    /// Decimal logarithm.
    Log10,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
    /// Tangent.
    Tan,
    /// Arc sine.
    Asin,
    /// Arc cosine.
    Acos,
    /// Arc tangent.
    Atan,
    /// `atan2(y, x)`.
    Atan2,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Hyperbolic tangent.
    Tanh,
    /// The greatest integer that is not above a real operand. The result is an integer.
    Floor,
    /// The least integer that is not below a real operand. The result is an integer.
    Ceiling,
    /// The nearest integer to a real operand; halves go away from zero. The result is an integer.
    Nint,
    /// `x` without its fraction, `aint(x)`.
    Truncate,
    /// `mod(a, p)` = `a - p*trunc(a/p)`.
    Mod,
    /// `modulo(a, p)`: `mod(a, p)`, plus `p` if that is not zero and its sign is not that of `p`.
    Modulo,
    /// `sign(a, b)`: `abs(a)` with the sign of `b`. Of reals the sign bit counts.
    Sign,
    /// `dim(a, b)`: 0 if `a - b <= 0`, else `a - b`.
    Dim,
    /// `merge(a, b, mask)`: `a` if the logical third operand is true, else `b`.
    Merge,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    ExclusiveOr,
    /// Bitwise complement.
    Complement,
    /// `ishft(i, shift)` with an `Int32` shift: to the left if positive, else to the right, with zeros shifted in. A
    /// shift by the number of bits or more gives 0.
    Shift,
    /// `btest(i, position)` with an `Int32` position: whether the bit is set. Positions outside the number give
    /// false.
    TestBit,
    /// `ieee_is_nan(x)` of a real operand.
    IsNan,
}

/// A variable, or an element of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The variable.
    pub variable: VariableId,
    /// Which part of it.
    pub access: Access,
    /// Its source.
    pub span: Span,
}

/// Which part of a variable is meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// The whole of a scalar: an index or scalar argument, a dummy or a local variable.
    Scalar,
    /// The element of a buffer without shape at the point's linear index.
    Own,
    /// The element of a buffer without shape at this position from 0, `Int32`.
    Linear(ExpressionId),
    /// The element of an array at these subscripts, one `Int32` for each dimension.
    Subscripts(Vec<ExpressionId>),
}
