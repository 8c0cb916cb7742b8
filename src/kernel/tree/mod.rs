//! The checked tree of a kernel file: the contract between the compiler and its back ends.
//!
//! The GLSL writer, the CPU engine's translation and `describe` read it; only `check` makes it. It is plain data,
//! without reference to the source text. What holds for every tree:
//!
//! - **Names are resolved.** A [`Place`] names its [`Variable`] by index into [`Code::variables`], a call its
//!   [`Procedure`] by index into [`Unit::procedures`], `exit` and `cycle` their loop by [`LoopId`]. Names are there
//!   for messages and for generated text.
//! - **Types are explicit.** Both operands of an operator have one type, an assigned value has its target's type, an
//!   actual argument its dummy's. Every conversion is a [`Operation::Convert`]. There is no implicit typing and no
//!   overloading: [`Expression::ty`] is the type of the result.
//! - **Constants are folded** where all operands are constants and the result does not depend on a library function.
//! - **Depth is limited** ([`MAX_DEPTH`]), so a recursive walk is safe on a stack of 512 KiB if a level takes less
//!   than 1 KiB.
//! - **Everything has a [`Span`]**: messages at run time can name the line.
//!
//! # Meaning
//!
//! A kernel is a subroutine that is called once for each index point, in any order. A point is (i, j, k), counted
//! from zero internally; the index arguments have [`Kernel::base`] added. Its linear index is `i + e0*(j + e1*k)`
//! with the extents `e` of the launch.
//!
//! - `Int32` and `Int64` wrap. Division truncates. Division by zero, and the smallest number divided by -1, give an
//!   unspecified value and never a trap. Conversion from a real number out of range gives an unspecified value.
//! - [`Contract::Fast`] allows a multiplication and an addition to be one fused operation, and promises nothing for
//!   NaN. [`Contract::Off`] forbids the fusion and keeps NaN. Neither allows reassociation.
//! - Operands are evaluated from left to right. [`Operator::And`] and [`Operator::Or`] evaluate their second operand
//!   only if the first leaves the result open. Nothing else skips an operand: [`Intrinsic::Merge`] evaluates all
//!   three.
//! - Local variables start undefined. Back ends may let them start as zero.
//! - Logical values in memory are 32-bit integers, where zero is false and one is true; any value but zero reads as
//!   true.
//!
//! # Guard and workgroups
//!
//! If [`Kernel::cooperative`] is false, points outside the extents do not run. If it is true, all points of whole
//! workgroups run, and the program guards its own stores. Then every [`Action::Barrier`] is in uniform control flow,
//! which the compiler has proved.
//!
//! # Procedures
//!
//! Procedures stay in the tree as functions; they are not inlined. GLSL has functions with the same argument passing
//! (copy in, copy out), `return` out of a loop needs no rewriting there, and a chain of calls does not grow
//! exponentially. The call graph has no cycles, and a procedure comes before its callers, so a back end that prefers
//! inlining needs one pass. Dummies are scalars. A procedure reaches only its dummies and locals, and has no barrier
//! and no workgroup memory.
//!
//! # Reductions
//!
//! A [`Reduction`] names an argument that the body changes only through [`Action::Reduce`]. Each point starts with
//! the operator's identity and combines its contributions in program order. The points' results are combined in a
//! fixed tree, the same on every engine, thread count and workgroup size:
//!
//! 1. The results, in the order of linear indices, are padded with identities to a multiple of [`REDUCTION_BLOCK`].
//! 2. In each block, for `stride` = 128, 64, ..., 1: `r[k] = r[k] op r[k + stride]` for k < stride.
//! 3. The blocks' results are a new, shorter sequence; the steps repeat until one value is left.
//! 4. The argument becomes `argument op value`; with `intent(out)`, the value itself.

mod expression;
mod statement;

pub use expression::*;
pub use statement::*;

use super::span::Span;

/// The most levels of a tree from a procedure's body down to a leaf.
pub const MAX_DEPTH: usize = 300;

/// Consecutive points that a reduction combines at a time.
pub const REDUCTION_BLOCK: usize = 256;

/// The most dimensions of an array.
pub const MAX_RANK: usize = 7;

/// The most arguments of a kernel or procedure.
pub const MAX_ARGUMENTS: usize = 128;

/// The type of a scalar or of an array's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `integer(int32)`.
    Int32,
    /// `integer(int64)`. Only the CPU has it.
    Int64,
    /// `real(real32)`.
    Real32,
    /// `real(real64)`. On OpenGL: arithmetic, comparisons, `sqrt`, `abs`, `min`, `max`, `floor`, and not in GLSL ES.
    Real64,
    /// `logical`. Four bytes in memory.
    Logical,
}

impl Type {
    /// Bytes of an element in memory.
    pub fn bytes(self) -> usize {
        match self {
            Type::Int32 | Type::Real32 | Type::Logical => 4,
            Type::Int64 | Type::Real64 => 8,
        }
    }

    /// Whether it is an integer type.
    pub fn is_integer(self) -> bool {
        matches!(self, Type::Int32 | Type::Int64)
    }

    /// Whether it is a real type.
    pub fn is_real(self) -> bool {
        matches!(self, Type::Real32 | Type::Real64)
    }

    /// The type as Fortran writes it.
    pub fn fortran(self) -> &'static str {
        match self {
            Type::Int32 => "integer(int32)",
            Type::Int64 => "integer(int64)",
            Type::Real32 => "real(real32)",
            Type::Real64 => "real(real64)",
            Type::Logical => "logical",
        }
    }
}

/// A checked file.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// Its kernels, in the order of the source.
    pub kernels: Vec<Kernel>,
    /// Its epilogue functions, in the order of the source.
    pub epilogues: Vec<Epilogue>,
    /// The procedures that they call, directly or not. Each comes before its callers.
    pub procedures: Vec<Procedure>,
}

impl Unit {
    /// The kernel with this name: the exact spelling first, then any case.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        let exact = self.kernels.iter().find(|it| it.name == name);
        exact.or_else(|| self.kernels.iter().find(|it| it.name.eq_ignore_ascii_case(name)))
    }

    /// The epilogue with this name: the exact spelling first, then any case.
    pub fn epilogue(&self, name: &str) -> Option<&Epilogue> {
        let exact = self.epilogues.iter().find(|it| it.name == name);
        exact.or_else(|| self.epilogues.iter().find(|it| it.name.eq_ignore_ascii_case(name)))
    }
}

/// What the compiler may do to real arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Contract {
    /// `a*b + c` may be rounded once.
    #[default]
    Fast,
    /// Every operation is rounded, and NaN is kept.
    Off,
}

/// The size of a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalSize {
    /// The device chooses, by measurement.
    Auto,
    /// As the source says.
    Fixed([u32; 3]),
}

/// A kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its name as the `subroutine` statement spells it.
    pub name: String,
    /// The name in the `subroutine` statement.
    pub span: Span,
    /// The dimensions of its index space, 1 to 3.
    pub dims: usize,
    /// What the first point's index arguments are: 0 or 1.
    pub base: i32,
    /// The size of its workgroups. It means nothing for a kernel with reductions, which runs in blocks of
    /// [`REDUCTION_BLOCK`].
    pub local_size: LocalSize,
    /// How strictly it computes.
    pub contract: Contract,
    /// Whether it uses what no Fortran compiler accepts: `a[i]`, dummies that differ only in case, subscripts of
    /// dummies without a shape.
    pub legacy: bool,
    /// The attribute `in=`, which means nothing.
    pub inputs: Option<u32>,
    /// The attribute `out=`, which means nothing.
    pub outputs: Option<u32>,
    /// All dummies in order, the `dims` index arguments first.
    pub arguments: Vec<Argument>,
    /// Its reductions. A kernel with reductions is not cooperative.
    pub reductions: Vec<Reduction>,
    /// Whether it has a barrier, workgroup memory, `local_index` or `group_index`. If so, its local size is fixed,
    /// all points of whole workgroups run, no buffer is accessed by [`Access::Own`], and nothing guards the points
    /// outside the extents.
    pub cooperative: bool,
    /// Its variables and statements.
    pub code: Code,
    /// Whether it stands for the epilogue at its place in [`Unit::epilogues`], whose dummies it has.
    pub is_epilogue: bool,
}

/// A dummy of a kernel or epilogue.
#[derive(Debug, Clone)]
pub struct Argument {
    /// Its name as declared.
    pub name: String,
    /// Its declaration.
    pub span: Span,
    /// Its variable.
    pub variable: VariableId,
    /// Its type, or its elements' type.
    pub ty: Type,
    /// What it is.
    pub kind: ArgumentKind,
}

/// What a dummy of a kernel or epilogue is.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgumentKind {
    /// An index argument of a kernel, on this axis from 0; no caller passes it. For an epilogue: 0 is the value, 1
    /// the channel, 2 the position.
    Index(usize),
    /// A scalar passed by value.
    Scalar,
    /// A buffer.
    Buffer(Buffer),
}

/// A dummy that stands for memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Buffer {
    /// The binding in the order of declaration, from 0.
    pub slot: usize,
    /// Whether it is read, written or both.
    pub intent: Intent,
    /// Its shape, and so the way of access.
    pub shape: BufferShape,
    /// Whether every point writes its own element: that at the point's linear index, or, in an array of `dims`
    /// dimensions, that with the point's indices counted from the lower bounds. If the extents of the launch are also
    /// those of the buffer, then the whole buffer is written, and `intent(out)` needs no upload.
    pub written_by_every_point: bool,
    /// Whether the code reads it.
    pub is_read: bool,
    /// Whether the code writes it.
    pub is_written: bool,
}

/// The shape of a buffer.
#[derive(Debug, Clone, PartialEq)]
pub enum BufferShape {
    /// No shape: the name means the element at the point's linear index.
    Element {
        /// Whether the name is used for the point's own element. If so, the buffer has an element for each point of a
        /// launch.
        own: bool,
    },
    /// An array with one [`Dimension`] or more, in column-major order.
    Array(Vec<Dimension>),
    /// The single result of a reduction, by index into [`Kernel::reductions`].
    Reduction(usize),
}

/// Whether a dummy is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// `intent(in)` or `value`.
    In,
    /// `intent(out)`.
    Out,
    /// `intent(inout)`.
    InOut,
}

/// One dimension of an array. The expressions are in the same [`Code`]; they are `Int32`, and use constants, scalar
/// arguments and [`Operation::Length`] only. They are evaluated once, at the beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dimension {
    /// The lower bound.
    pub lower: ExpressionId,
    /// The number of elements; a negative one counts as zero. The last dimension of `(*)` has none. That of `(:)` is
    /// the buffer's length.
    pub extent: Option<ExpressionId>,
}

/// A reduction.
#[derive(Debug, Clone)]
pub struct Reduction {
    /// How two values are combined.
    pub operator: ReductionOperator,
    /// The argument, by index into [`Kernel::arguments`].
    pub argument: usize,
    /// The variable of the argument.
    pub variable: VariableId,
    /// The type of the values.
    pub ty: Type,
    /// The directive.
    pub span: Span,
}

/// The operator of a reduction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReductionOperator {
    /// `+`, from 0.
    Add,
    /// `*`, from 1.
    Multiply,
    /// `min`, from `huge`; reals from infinity.
    Min,
    /// `max`, from `-huge-1`; reals from minus infinity.
    Max,
    /// `iand`, from -1.
    And,
    /// `ior`, from 0.
    Or,
}

/// An epilogue: a function that is applied to every element of a convolution's or product's output.
#[derive(Debug, Clone)]
pub struct Epilogue {
    /// Its name.
    pub name: String,
    /// The name in the `function` statement.
    pub span: Span,
    /// What the first channel and the first position are: 0 or 1. The position is the element's linear address in the
    /// output.
    pub base: i32,
    /// How strictly it computes.
    pub contract: Contract,
    /// Its dummies: the value (`Real32`), the channel and the position (`Int32`), then scalars and arrays with
    /// `intent(in)`, at most [`MAX_EPILOGUE_ARRAYS`] of them.
    pub arguments: Vec<Argument>,
    /// The variable with the result, `Real32`.
    pub result: VariableId,
    /// Its variables and statements.
    pub code: Code,
}

impl Epilogue {
    /// A kernel with the epilogue's dummies and statements, by which its arguments are bound and its lanes computed. The
    /// value, the channel and the position are its index arguments; nobody launches it.
    pub fn as_kernel(&self) -> Kernel {
        Kernel {
            name: self.name.clone(),
            span: self.span,
            dims: 1,
            base: self.base,
            local_size: LocalSize::Auto,
            contract: self.contract,
            legacy: false,
            inputs: None,
            outputs: None,
            arguments: self.arguments.clone(),
            reductions: Vec::new(),
            cooperative: false,
            code: self.code.clone(),
            is_epilogue: true,
        }
    }
}

/// The most arrays of an epilogue: OpenGL 4.3 guarantees eight storage blocks, and a convolution uses four.
pub const MAX_EPILOGUE_ARRAYS: usize = 4;

/// A function or subroutine that kernels call.
#[derive(Debug, Clone)]
pub struct Procedure {
    /// Its name.
    pub name: String,
    /// The name in its first statement.
    pub span: Span,
    /// Its dummies in order: variables of kind [`VariableKind::Dummy`].
    pub dummies: Vec<VariableId>,
    /// The variable with the result of a function. Subroutines have none.
    pub result: Option<VariableId>,
    /// Its variables and statements.
    pub code: Code,
}

/// The variables, expressions and statements of one kernel, epilogue or procedure.
#[derive(Debug, Clone, Default)]
pub struct Code {
    /// All variables. A [`VariableId`] is an index into it.
    pub variables: Vec<Variable>,
    /// All expressions; operands come before what uses them. An [`ExpressionId`] is an index into it.
    pub expressions: Vec<Expression>,
    /// All statements. A [`StatementId`] is an index into it.
    pub statements: Vec<Statement>,
    /// The outermost statements.
    pub body: Block,
    /// The number of loops. [`LoopId`]s are below it.
    pub loops: usize,
}

impl Code {
    /// A variable.
    pub fn variable(&self, id: VariableId) -> &Variable {
        &self.variables[id.0 as usize]
    }

    /// An expression.
    pub fn expression(&self, id: ExpressionId) -> &Expression {
        &self.expressions[id.0 as usize]
    }

    /// A statement.
    pub fn statement(&self, id: StatementId) -> &Statement {
        &self.statements[id.0 as usize]
    }

    /// The value of an expression that is a constant.
    pub fn constant(&self, id: ExpressionId) -> Option<Value> {
        match self.expression(id).operation {
            Operation::Constant(value) => Some(value),
            _ => None,
        }
    }
}

/// An index into [`Code::variables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableId(pub u32);

/// A named thing of a procedure.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name as declared.
    pub name: String,
    /// Its declaration.
    pub span: Span,
    /// Its type, or its elements' type.
    pub ty: Type,
    /// What it is.
    pub kind: VariableKind,
}

/// What a variable is.
#[derive(Debug, Clone, PartialEq)]
pub enum VariableKind {
    /// An argument of a kernel or epilogue, by index into its `arguments`.
    Argument(usize),
    /// A scalar dummy of a procedure.
    Dummy(Intent),
    /// A local scalar, or a function's result.
    Local,
    /// An array that each point has for itself. Bounds are constant.
    Private(Vec<FixedDimension>),
    /// An array that the points of a workgroup share. Bounds are constant.
    Shared(Vec<FixedDimension>),
}

/// One dimension of an array in private or workgroup memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedDimension {
    /// The lower bound.
    pub lower: i32,
    /// The number of elements, at least 1.
    pub extent: u32,
}
