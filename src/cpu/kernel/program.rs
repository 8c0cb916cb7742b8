//! A kernel as flat operations over the lanes of a block.

use super::lanes::Function;
use crate::kernel::tree::{Comparison, Intrinsic, Type};

/// A register: a value for each lane, by index into [`Program::registers`]. `Int32` and `Real32` take four bytes a lane,
/// `Int64` and `Real64` eight; logical values and masks four, all bits set for true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Register(pub u32);

/// An operation with one operand and a result of one type, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    Negate,
    /// Functions of reals, `Abs`, `Complement`; `Floor`, `Ceiling` and `Nint` with a result of this type.
    Intrinsic(Intrinsic, Type),
    /// Conversion to this type.
    Convert(Type),
    /// Of masks and logical values.
    Not,
    /// The same value.
    Copy,
    /// False, whatever the operand.
    False,
    /// Logical values from memory: whether they are not zero.
    FromMemory,
    /// Logical values for memory: 1 for true.
    ToMemory,
    /// One less.
    Decrement,
}

/// An operation with two operands and a result of one type, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// A logical result, of operands of the type.
    Compare(Comparison),
    /// `Min`, `Max`, `Mod`, `Modulo`, `Sign`, `Dim`, `And`, `Or`, `ExclusiveOr`, `Atan2`. `Shift` and `TestBit` have an
    /// `Int32` second operand, the latter a logical result.
    Intrinsic(Intrinsic),
    /// A power with an `Int32` exponent.
    PowerInteger,
    /// A power of reals.
    PowerReal,
    /// Of masks: `a & !b`.
    AndNot,
    /// A mask without the lanes where a number is zero: the type is that of the number, the second operand.
    NonZero,
}

/// An operation with three operands of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ternary {
    /// `a * b + c`; each step is rounded.
    MultiplyAdd,
    /// `a * b - c`.
    MultiplySubtract,
    /// `c - a * b`.
    SubtractProduct,
    /// `a` where the mask `c` has the lane, else `b`.
    Select,
}

/// Where lanes access an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// At the linear index of the lane's point.
    Point,
    /// At an `Int32` register.
    Narrow(Register),
    /// At an `Int64` register.
    Wide(Register),
}

/// An access to memory that lanes share. What lies outside of the array reads as zero and is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The array, by index into [`Program::arrays`].
    pub array: u32,
    /// Where.
    pub index: Index,
    /// Is added to the index.
    pub offset: i64,
}

impl Access {
    /// The same with its index in another register.
    pub fn at(self, register: Register) -> Self {
        let index = match self.index {
            Index::Point => Index::Point,
            Index::Narrow(_) => Index::Narrow(register),
            Index::Wide(_) => Index::Wide(register),
        };
        Access { index, ..self }
    }
}

/// An access to an array that each lane has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Private {
    /// The array: elements one after the other, each with all lanes.
    pub array: Register,
    /// The number of elements.
    pub len: u32,
    /// Where, `Int32`; outside, as for [`Access`].
    pub index: Register,
    /// Is added to the index, without wrapping.
    pub offset: i64,
}

/// An operation. Jumps name the next operation by its index. A mask says which lanes take part. Where `is_whole` is
/// true, the mask is that of the block, which nothing changes.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// Applies a function to all lanes. Lanes outside of its mask may have any result.
    Apply { function: Function, to: Register, a: Register, b: Register, c: Register },
    /// `to = to | (low <= from <= high)`. Logical values count as 0 and 1.
    InRange { ty: Type, to: Register, from: Register, low: i64, high: i64 },
    /// The iterations of a loop: `active` loses the lanes that have none, and `left` becomes their number less one, as
    /// an unsigned number of the type's bits.
    Trip { ty: Type, active: Register, left: Register, first: Register, last: Register, step: Register },
    /// Goes on elsewhere.
    Jump { to: u32 },
    /// Goes on elsewhere if no lane is in the mask.
    JumpIfNone { mask: Register, to: u32 },
    /// Goes on elsewhere unless all lanes are in the block's mask.
    JumpUnlessWhole { to: u32 },
    /// Goes on at a procedure, and after its `Return` with the next operation.
    Call { to: u32 },
    /// Ends a procedure, or the program.
    Return,
    /// Reads elements of so many bytes; lanes outside of the mask get zeros.
    Load { bytes: u8, to: Register, access: Access, mask: Register },
    /// As `Load`, at the points' own indices plus a constant. The register becomes the place in memory itself where all
    /// lanes have one. Only `View` and `Open` write to such a register.
    View { bytes: u8, to: Register, access: Access, mask: Register },
    /// Writes elements, in the order of lanes.
    Store { bytes: u8, from: Register, access: Access, mask: Register, is_whole: bool },
    /// Lets the next write to `to` go to the place in memory itself, where all lanes take part and have one.
    Open { bytes: u8, to: Register, access: Access, mask: Register, is_whole: bool },
    /// Writes elements after `Open`, unless they are in their place already.
    Close { bytes: u8, from: Register, access: Access, mask: Register },
    /// Reads elements of private arrays.
    LoadPrivate { bytes: u8, to: Register, access: Private },
    /// Writes elements of private arrays.
    StorePrivate { bytes: u8, from: Register, access: Private, mask: Register },
}

impl Op {
    /// The registers that it reads in all lanes, and perhaps others.
    pub fn reads(&self) -> [Option<Register>; 4] {
        let of = |index: Index| match index {
            Index::Point => None,
            Index::Narrow(register) | Index::Wide(register) => Some(register),
        };
        match *self {
            Op::Apply { a, b, c, .. } => [Some(a), Some(b), Some(c), None],
            Op::InRange { from, .. } => [Some(from), None, None, None],
            Op::Trip { active, first, last, step, .. } => [Some(active), Some(first), Some(last), Some(step)],
            Op::JumpIfNone { mask, .. } | Op::View { mask, .. } | Op::Open { mask, .. } => {
                [Some(mask), None, None, None]
            }
            Op::Load { access, mask, .. } => [of(access.index), Some(mask), None, None],
            Op::Store { from, access, mask, .. } => [Some(from), of(access.index), Some(mask), None],
            Op::Close { from, mask, .. } => [Some(from), Some(mask), None, None],
            Op::LoadPrivate { access, .. } => [Some(access.index), None, None, None],
            Op::StorePrivate { from, access, mask, .. } => [Some(from), Some(access.index), Some(mask), None],
            Op::Jump { .. } | Op::JumpUnlessWhole { .. } | Op::Call { .. } | Op::Return => [None; 4],
        }
    }
}

/// Memory that lanes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Array {
    /// The launch's array at this slot.
    Buffer(usize),
    /// Workgroup memory at this offset in bytes in the frame's shared part, with so many elements.
    Shared(usize, u32),
}

/// A register whose value holds for a whole launch.
#[derive(Debug, Clone, Copy)]
pub struct Constant {
    /// The register.
    pub register: Register,
    /// The value.
    pub value: crate::kernel::tree::Value,
}

/// The registers that the engine fills before a block runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs {
    /// The index arguments, base included.
    pub indices: [Option<Register>; 3],
    /// The index within the workgroup.
    pub local: [Option<Register>; 3],
    /// The index of the workgroup.
    pub group: [Option<Register>; 3],
}

/// Which of the [`Inputs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    Index,
    Local,
    Group,
}

impl Inputs {
    /// The registers of the axes.
    pub fn of(&mut self, input: Input) -> &mut [Option<Register>; 3] {
        match input {
            Input::Index => &mut self.indices,
            Input::Local => &mut self.local,
            Input::Group => &mut self.group,
        }
    }
}

/// A kernel for one launch.
#[derive(Debug, Default)]
pub struct Program {
    /// The operations.
    pub ops: Vec<Op>,
    /// The operation where a block starts.
    pub start: u32,
    /// The registers: where each begins in a frame, in bytes for each lane.
    pub registers: Vec<u32>,
    /// Whether a constant's register is read in all lanes, for each register. If not, one chunk of it suffices.
    pub spread: Vec<bool>,
    /// Bytes of all registers for each lane.
    pub lane_bytes: usize,
    /// Those of variables and temporary values, which all blocks write.
    pub busy_bytes: usize,
    /// Bytes of workgroup memory.
    pub shared_bytes: usize,
    /// The shared memory that accesses name.
    pub arrays: Vec<Array>,
    /// Registers to fill once.
    pub constants: Vec<Constant>,
    /// Operations on these that are the same for all points, [`Op::Apply`] alone.
    pub prelude: Vec<Op>,
    /// Registers to fill for each block.
    pub inputs: Inputs,
    /// The register of each reduction.
    pub reductions: Vec<Register>,
    /// How each reduction combines two values.
    pub combinations: Vec<Function>,
    /// The register with the result of an epilogue.
    pub result: Option<Register>,
    /// The lanes of a block that run.
    pub mask: Register,
    /// Whether lanes may leave that mask: the kernel has a `return`.
    pub returns: bool,
    /// The most calls that are open at the same time.
    pub depth: usize,
}

impl Default for Register {
    fn default() -> Self {
        Register(u32::MAX)
    }
}
