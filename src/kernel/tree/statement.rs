//! Statements of the tree.

use super::{ExpressionId, Place, Uniformity, VariableId};
use crate::kernel::span::Span;

/// An index into [`Code::statements`](super::Code::statements).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementId(pub u32);

/// Statements in order.
pub type Block = Vec<StatementId>;

/// A loop of a [`Code`](super::Code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoopId(pub u32);

/// A statement.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it does.
    pub action: Action,
    /// Which points of a workgroup run it together: `Varying` inside a branch or loop that not all points take alike.
    pub control: Uniformity,
    /// Its source.
    pub span: Span,
}

/// What a statement does.
#[derive(Debug, Clone)]
pub enum Action {
    /// `place = value`, of one type. The value and the subscripts are evaluated before anything is stored.
    Assign(Place, ExpressionId),
    /// The first branch whose condition is true runs, else `otherwise`.
    If {
        /// Conditions with their statements, at least one.
        branches: Vec<(ExpressionId, Block)>,
        /// `else`; may be empty.
        otherwise: Block,
    },
    /// The case with the selector's value runs, else `otherwise`.
    Select {
        /// An integer or logical value, evaluated once.
        selector: ExpressionId,
        /// The cases. Their ranges do not overlap.
        cases: Vec<Case>,
        /// `case default`; may be empty.
        otherwise: Block,
    },
    /// A counted loop. The three expressions are evaluated once, in this order. The number of iterations is
    /// `max(0, (last - first + step) / step)`, computed without overflow; a step of zero gives none. The variable
    /// becomes `first`, and has `step` added after each iteration, also the last. The body does not change it.
    Do {
        /// The loop.
        id: LoopId,
        /// An `Int32` or `Int64` local scalar, or a dummy of a procedure.
        variable: VariableId,
        /// Its first value, of the variable's type.
        first: ExpressionId,
        /// Its bound, of the variable's type.
        last: ExpressionId,
        /// Its step, of the variable's type; the constant 1 if the source has none.
        step: ExpressionId,
        /// The statements.
        body: Block,
    },
    /// `do while`; a `do` without control has a constant condition.
    While {
        /// The loop.
        id: LoopId,
        /// Evaluated before each iteration.
        condition: ExpressionId,
        /// The statements.
        body: Block,
    },
    /// Leaves a loop around the statement.
    Exit(LoopId),
    /// Continues with the next iteration of a loop around the statement.
    Cycle(LoopId),
    /// Leaves the procedure: ends the point, or returns to the caller.
    Return,
    /// All points of the workgroup wait for each other, and see each other's stores to buffers and workgroup memory.
    Barrier,
    /// Calls a subroutine of the file, by index into [`Unit::procedures`](super::Unit::procedures), with one actual
    /// for each dummy.
    Call(usize, Vec<Actual>),
    /// Combines a value into a reduction, by index into [`Kernel::reductions`](super::Kernel::reductions).
    Reduce(usize, ExpressionId),
}

/// A case of [`Action::Select`].
#[derive(Debug, Clone)]
pub struct Case {
    /// The values, as ranges with both ends included. Logical values are 0 and 1.
    pub ranges: Vec<(i64, i64)>,
    /// The statements.
    pub body: Block,
    /// The `case` statement.
    pub span: Span,
}

/// An actual argument of a subroutine.
#[derive(Debug, Clone)]
pub enum Actual {
    /// For `intent(in)` and `value`.
    Value(ExpressionId),
    /// For `intent(out)` and `intent(inout)`: a scalar or element of the dummy's type. Its subscripts are evaluated
    /// once, before the call. With `inout` it is read then. It is stored after the call.
    Place(Place),
}
