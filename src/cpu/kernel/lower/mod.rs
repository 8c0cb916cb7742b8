//! The translation of a checked kernel into a [`Program`], for one launch: shapes and scalars are constants.

mod expressions;
mod places;
mod statements;

use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::bind::Launch;
use crate::kernel::fused;
use crate::kernel::tree::{
    Action, ArgumentKind, BufferShape, Code, FixedDimension, Intrinsic, Kernel, LoopId, ReductionOperator,
    Type, Unit, Value, VariableId, VariableKind,
};

use super::isa::Functions;
use super::lanes::Function;
use super::program::{Array, Binary, Constant, Op, Program, Register, Ternary, Unary};

/// The purpose of allocations.
const PURPOSE: &str = "a kernel's program";

/// Translates the kernel of a launch to these functions.
///
/// # Errors
/// [`Error::OutOfMemory`], also for private arrays that fit no frame.
pub fn lower(launch: &Launch<'_>, functions: &'static Functions) -> Result<Program> {
    let (unit, kernel) = (&**launch.unit(), launch.kernel());
    let mut builder = Builder {
        unit,
        functions,
        program: Program::default(),
        free: [Vec::new(), Vec::new()],
        views: [Vec::new(), Vec::new()],
        procedures: allocate::with_capacity(unit.procedures.len(), PURPOSE)?,
    };
    for index in 0..unit.procedures.len() {
        builder.procedure(index)?;
    }
    builder.kernel(launch, kernel)?;
    // What a constant is computed from is needed where the constant is.
    for at in (0..builder.program.prelude.len()).rev() {
        let op = builder.program.prelude[at];
        if matches!(op, Op::Apply { to, .. } if builder.program.spread[to.0 as usize]) {
            builder.spread(op.reads());
        }
    }
    Ok(builder.program)
}

/// A translated procedure. Its registers are its own: there is no recursion.
struct Procedure {
    start: u32,
    mask: Register,
    dummies: Vec<Register>,
    result: Option<Register>,
    /// The most calls that are open at the same time within it.
    depth: usize,
}

/// Where a variable is.
enum Slot {
    /// A scalar.
    Register(Register),
    /// A scalar that is the same for all points.
    Value(Value),
    /// An index argument on an axis.
    Index(usize),
    /// An array of the launch or of the workgroup.
    Shared { array: u32, shape: Vec<Dimension>, is_long: bool, len: usize },
    /// An array of each lane.
    Private { array: Register, len: u32, shape: Vec<Dimension> },
    /// The result of a reduction, or nothing that the code uses.
    None,
}

/// One dimension of an array.
#[derive(Debug, Clone, Copy)]
struct Dimension {
    lower: i64,
    /// The distance of elements, modulo 2^64.
    stride: i64,
}

/// The masks of a loop, by position in [`Scope::masks`].
struct Loop {
    id: LoopId,
    /// The lanes that are still in the loop.
    active: usize,
    /// The lanes that are still in the iteration.
    iteration: usize,
}

/// The code that is being translated.
struct Scope<'t> {
    code: &'t Code,
    slots: Vec<Slot>,
    /// Masks from that of the whole code to the current one. Each holds fewer lanes than the one before it.
    masks: Vec<Register>,
    loops: Vec<Loop>,
    /// Whether an iteration of a loop may end early, by [`LoopId`].
    cycled: Vec<bool>,
    /// Whether a statement ends an iteration or a loop early.
    leaves: bool,
    /// Whether an expression calls a procedure, by [`ExpressionId`](crate::kernel::tree::ExpressionId).
    calls: Vec<bool>,
    /// What the translation of kernels needs; nothing in procedures.
    kernel: Option<&'t Kernel>,
    depth: usize,
}

impl Scope<'_> {
    fn mask(&self) -> Register {
        self.masks[self.masks.len() - 1]
    }
}

struct Builder<'t> {
    unit: &'t Unit,
    functions: &'static Functions,
    program: Program,
    /// Free registers for temporary values of four and of eight bytes.
    free: [Vec<Register>; 2],
    /// Free registers that only `View` and `Open` write.
    views: [Vec<Register>; 2],
    procedures: Vec<Procedure>,
}

/// What happens to a register after the use of its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// It is a variable's.
    Kept,
    /// It has one value for the whole launch.
    Constant,
    /// It is free for other temporary values, or for the result of the operation that reads it.
    Temporary,
    /// It may be a part of an array, so that it is free for other views only.
    View,
}

/// A value in a register.
#[derive(Clone, Copy)]
struct Operand {
    register: Register,
    bytes: u8,
    keeping: Keeping,
}

impl Operand {
    /// A value that stays where it is.
    fn kept(register: Register, ty: Type) -> Self {
        Operand { register, bytes: ty.bytes() as u8, keeping: Keeping::Kept }
    }

    /// A value that is the same for all points.
    fn constant(register: Register, ty: Type) -> Self {
        Operand { keeping: Keeping::Constant, ..Operand::kept(register, ty) }
    }

    fn is_constant(self) -> bool {
        self.keeping == Keeping::Constant
    }
}

impl Builder<'_> {
    fn emit(&mut self, op: Op) -> Result<()> {
        self.spread(op.reads());
        allocate::push(&mut self.program.ops, op, PURPOSE)
    }

    /// Notes that registers are read in all lanes.
    fn spread(&mut self, registers: [Option<Register>; 4]) {
        for register in registers.into_iter().flatten() {
            self.program.spread[register.0 as usize] = true;
        }
    }

    fn here(&self) -> u32 {
        self.program.ops.len() as u32
    }

    /// Emits a jump whose target is set by [`Builder::land`].
    fn jump_if_none(&mut self, mask: Register) -> Result<usize> {
        self.jump(Op::JumpIfNone { mask, to: 0 })
    }

    /// Emits any jump, for [`Builder::land`].
    fn jump(&mut self, jump: Op) -> Result<usize> {
        self.emit(jump)?;
        Ok(self.program.ops.len() - 1)
    }

    /// Lets a jump go to the next operation.
    fn land(&mut self, jump: usize) {
        let here = self.here();
        if let Op::JumpIfNone { to, .. } | Op::JumpUnlessWhole { to } | Op::Jump { to } =
            &mut self.program.ops[jump]
        {
            *to = here;
        }
    }

    /// A register for `count` elements of so many bytes in each lane.
    fn reserve(&mut self, count: usize, bytes: usize) -> Result<Register> {
        let start = self.program.lane_bytes;
        let end = count.checked_mul(bytes).and_then(|size| size.checked_add(start));
        let end = end.filter(|end| u32::try_from(*end).is_ok());
        self.program.lane_bytes = end.ok_or_else(|| {
            let what = "the variables of a kernel, which need 4 GiB or more for a point";
            Error::OutOfMemory { device: "cpu".to_owned(), what: what.to_owned() }
        })?;
        allocate::push(&mut self.program.registers, start as u32, PURPOSE)?;
        allocate::push(&mut self.program.spread, false, PURPOSE)?;
        Ok(Register(self.program.registers.len() as u32 - 1))
    }

    fn register(&mut self, ty: Type) -> Result<Register> {
        self.reserve(1, ty.bytes())
    }

    fn temporary(&mut self, ty: Type) -> Result<Operand> {
        let bytes = ty.bytes() as u8;
        let register = match self.free[usize::from(bytes == 8)].pop() {
            Some(register) => register,
            None => {
                self.program.busy_bytes += ty.bytes();
                self.register(ty)?
            }
        };
        Ok(Operand { register, bytes, keeping: Keeping::Temporary })
    }

    fn view(&mut self, ty: Type) -> Result<Operand> {
        let bytes = ty.bytes() as u8;
        let register = match self.views[usize::from(bytes == 8)].pop() {
            Some(register) => register,
            None => self.register(ty)?,
        };
        Ok(Operand { register, bytes, keeping: Keeping::View })
    }

    fn release(&mut self, operand: Operand) -> Result<()> {
        let class = usize::from(operand.bytes == 8);
        match operand.keeping {
            Keeping::Kept | Keeping::Constant => Ok(()),
            Keeping::Temporary => allocate::push(&mut self.free[class], operand.register, PURPOSE),
            Keeping::View => allocate::push(&mut self.views[class], operand.register, PURPOSE),
        }
    }

    fn apply(&mut self, function: Option<Function>, to: Register, [a, b, c]: [Register; 3]) -> Result<()> {
        let function = function.ok_or_else(|| Error::Internal("an operation that no type has".to_owned()))?;
        self.emit(Op::Apply { function, to, a, b, c })
    }

    /// Applies a function whose first operand is a constant of which it reads one chunk.
    fn apply_with(&mut self, function: Function, to: Register, [a, b, c]: [Register; 3]) -> Result<()> {
        self.spread([Some(b), Some(c), None, None]);
        allocate::push(&mut self.program.ops, Op::Apply { function, to, a, b, c }, PURPOSE)
    }

    /// Applies an operation of constants once for all points. Where there is no third operand, it is a mask of all.
    fn once(
        &mut self,
        function: Option<Function>,
        result: Type,
        [a, b, c]: [Option<Register>; 3],
    ) -> Result<Operand> {
        let function = function.ok_or_else(|| Error::Internal("an operation that no type has".to_owned()))?;
        let every = self.constant(Value::Logical(true))?;
        let [a, b, c] = [a, b, c].map(|it| it.unwrap_or(every));
        let to = self.register(result)?;
        allocate::push(&mut self.program.prelude, Op::Apply { function, to, a, b, c }, PURPOSE)?;
        Ok(Operand::constant(to, result))
    }

    fn apply_unary(
        &mut self,
        what: Unary,
        ty: Type,
        to: Register,
        from: Register,
        mask: Register,
    ) -> Result<()> {
        self.apply((self.functions.unary)(what, ty), to, [from, from, mask])
    }

    fn apply_binary(
        &mut self,
        what: Binary,
        ty: Type,
        to: Register,
        (left, right): (Register, Register),
        mask: Register,
    ) -> Result<()> {
        self.apply((self.functions.binary)(what, ty), to, [left, right, mask])
    }

    fn apply_ternary(
        &mut self,
        what: Ternary,
        ty: Type,
        to: Register,
        operands: [Register; 3],
    ) -> Result<()> {
        self.apply((self.functions.ternary)(what, ty), to, operands)
    }

    /// `to = from` in all lanes.
    fn copy(&mut self, ty: Type, to: Register, from: Register) -> Result<()> {
        self.apply_unary(Unary::Copy, ty, to, from, from)
    }

    /// A mask: `to = left & right`.
    fn and(&mut self, to: Register, left: Register, right: Register) -> Result<()> {
        let and = Binary::Intrinsic(Intrinsic::And);
        self.apply_binary(and, Type::Logical, to, (left, right), left)
    }

    /// A mask: `to = left & !right`.
    fn and_not(&mut self, to: Register, left: Register, right: Register) -> Result<()> {
        self.apply_binary(Binary::AndNot, Type::Logical, to, (left, right), left)
    }

    /// The register of a constant.
    fn constant(&mut self, value: Value) -> Result<Register> {
        let same = |it: &&Constant| match (it.value, value) {
            (Value::Real32(a), Value::Real32(b)) => a.to_bits() == b.to_bits(),
            (Value::Real64(a), Value::Real64(b)) => a.to_bits() == b.to_bits(),
            (a, b) => a == b,
        };
        // Only the last ones are compared, to keep the time linear.
        let recent = self.program.constants.iter().rev().take(64);
        if let Some(found) = recent.clone().find(same) {
            return Ok(found.register);
        }
        let register = self.register(value.ty())?;
        allocate::push(&mut self.program.constants, Constant { register, value }, PURPOSE)?;
        Ok(register)
    }

    /// Whether a statement ends an iteration early, for each loop.
    fn cycled(code: &Code) -> Result<Vec<bool>> {
        let mut cycled = allocate::zeroed::<u8>(code.loops, PURPOSE)?;
        for statement in &code.statements {
            if let Action::Cycle(LoopId(id)) = statement.action {
                cycled[id as usize] = 1;
            }
        }
        let mut all = allocate::with_capacity(code.loops, PURPOSE)?;
        all.extend(cycled.into_iter().map(|it| it != 0));
        Ok(all)
    }

    fn procedure(&mut self, index: usize) -> Result<()> {
        let procedure = &self.unit.procedures[index];
        let slots = self.slots(&procedure.code, None)?;
        let mask = self.register(Type::Logical)?;
        let register = |id: VariableId| match slots.get(id.0 as usize) {
            Some(Slot::Register(register)) => Ok(*register),
            _ => Err(Error::Internal("a dummy of a procedure is no scalar".to_owned())),
        };
        let dummies = allocate::collected(procedure.dummies.iter().map(|id| register(*id)), PURPOSE)?;
        let result = procedure.result.map(register).transpose()?;
        let mut scope = Scope {
            code: &procedure.code,
            slots,
            masks: vec![mask],
            loops: Vec::new(),
            cycled: Self::cycled(&procedure.code)?,
            leaves: leaves(&procedure.code),
            calls: expressions::calls(&procedure.code)?,
            kernel: None,
            depth: 0,
        };
        let start = self.here();
        self.block(&mut scope, &procedure.code.body)?;
        self.emit(Op::Return)?;
        // A caller may hold temporary values during the call.
        (self.free, self.views) = Default::default();
        let done = Procedure { start, mask, dummies, result, depth: scope.depth };
        allocate::push(&mut self.procedures, done, PURPOSE)
    }

    fn kernel(&mut self, launch: &Launch<'_>, kernel: &Kernel) -> Result<()> {
        let slots = self.slots(&kernel.code, Some(launch))?;
        let mask = self.register(Type::Logical)?;
        for reduction in &kernel.reductions {
            let register = self.register(reduction.ty)?;
            self.program.busy_bytes += reduction.ty.bytes();
            allocate::push(&mut self.program.reductions, register, PURPOSE)?;
            let what = statements::combination(reduction.operator);
            let function = (self.functions.binary)(what, reduction.ty);
            let function = function.ok_or_else(|| Error::Internal("a reduction of no type".to_owned()))?;
            allocate::push(&mut self.program.combinations, function, PURPOSE)?;
        }
        let mut scope = Scope {
            code: &kernel.code,
            slots,
            masks: vec![mask],
            loops: Vec::new(),
            cycled: Self::cycled(&kernel.code)?,
            leaves: leaves(&kernel.code),
            calls: expressions::calls(&kernel.code)?,
            kernel: Some(kernel),
            depth: 0,
        };
        (self.program.mask, self.program.start) = (mask, self.here());
        self.program.returns = kernel.code.statements.iter().any(|it| matches!(it.action, Action::Return));
        self.block(&mut scope, &kernel.code.body)?;
        self.program.depth = scope.depth;
        if kernel.is_epilogue {
            let result = fused::epilogue_of(launch)?.result;
            let Some(Slot::Register(register)) = scope.slots.get(result.0 as usize) else {
                return Err(Error::Internal("the result of an epilogue is no scalar".to_owned()));
            };
            self.program.result = Some(*register);
            self.spread([Some(*register), None, None, None]);
        }
        self.emit(Op::Return)
    }

    /// Gives each variable its place.
    fn slots(&mut self, code: &Code, launch: Option<&Launch<'_>>) -> Result<Vec<Slot>> {
        let mut slots = allocate::with_capacity(code.variables.len(), PURPOSE)?;
        for variable in &code.variables {
            self.program.busy_bytes += match &variable.kind {
                VariableKind::Dummy(_) | VariableKind::Local => variable.ty.bytes(),
                VariableKind::Private(dimensions) => fixed(dimensions)?.1 as usize * variable.ty.bytes(),
                VariableKind::Shared(_) | VariableKind::Argument(_) => 0,
            };
            let slot = match &variable.kind {
                VariableKind::Dummy(_) | VariableKind::Local => Slot::Register(self.register(variable.ty)?),
                VariableKind::Private(dimensions) => {
                    let (shape, len) = fixed(dimensions)?;
                    let array = self.reserve(len as usize, variable.ty.bytes())?;
                    Slot::Private { array, len, shape }
                }
                VariableKind::Shared(dimensions) => {
                    let (shape, len) = fixed(dimensions)?;
                    // It is at most 32 KiB for all arrays.
                    let memory = self.program.shared_bytes;
                    self.program.shared_bytes += (len as usize * variable.ty.bytes()).next_multiple_of(64);
                    let array = self.array(Array::Shared(memory, len))?;
                    Slot::Shared { array, shape, is_long: false, len: len as usize }
                }
                VariableKind::Argument(position) => match launch {
                    Some(launch) => self.argument(launch, *position)?,
                    None => Slot::None,
                },
            };
            slots.push(slot);
        }
        Ok(slots)
    }

    fn array(&mut self, array: Array) -> Result<u32> {
        allocate::push(&mut self.program.arrays, array, PURPOSE)?;
        Ok(self.program.arrays.len() as u32 - 1)
    }

    fn argument(&mut self, launch: &Launch<'_>, position: usize) -> Result<Slot> {
        let argument = &launch.kernel().arguments[position];
        Ok(match &argument.kind {
            ArgumentKind::Index(axis) => Slot::Index(*axis),
            ArgumentKind::Scalar => match launch.scalars()[position] {
                Some(value) => Slot::Value(value),
                None => return Err(Error::Internal("a scalar of a launch is missing".to_owned())),
            },
            ArgumentKind::Buffer(buffer) => {
                let len = launch.lengths()[position];
                let array = self.array(Array::Buffer(buffer.slot))?;
                let shape = match &buffer.shape {
                    BufferShape::Array(_) => launch.shape(position)?,
                    BufferShape::Element { .. } | BufferShape::Reduction(_) => Vec::new(),
                };
                let mut stride = 1i64;
                let dimensions = shape.into_iter().map(|(lower, extent)| {
                    let dimension = Dimension { lower: lower.into(), stride };
                    stride = stride.wrapping_mul(extent.unwrap_or(1) as i64);
                    Ok(dimension)
                });
                let shape = allocate::collected(dimensions, PURPOSE)?;
                Slot::Shared { array, shape, is_long: i32::try_from(len).is_err(), len }
            }
        })
    }
}

fn leaves(code: &Code) -> bool {
    code.statements.iter().any(|it| matches!(it.action, Action::Cycle(_) | Action::Exit(_)))
}

/// The dimensions and the number of elements of an array with constant bounds.
fn fixed(dimensions: &[FixedDimension]) -> Result<(Vec<Dimension>, u32)> {
    let mut len = Some(1u32);
    let mut shape = allocate::with_capacity(dimensions.len(), PURPOSE)?;
    for dimension in dimensions {
        shape.push(Dimension { lower: dimension.lower.into(), stride: len.unwrap_or(0).into() });
        len = len.and_then(|len| len.checked_mul(dimension.extent));
    }
    let len = len.filter(|len| i32::try_from(*len).is_ok());
    let len = len.ok_or_else(|| Error::OutOfMemory {
        device: "cpu".to_owned(),
        what: "a local array of 2**31 elements or more".to_owned(),
    })?;
    Ok((shape, len))
}

/// The value that a reduction starts from.
pub fn identity(operator: ReductionOperator, ty: Type) -> Value {
    match (operator, ty) {
        (ReductionOperator::Add | ReductionOperator::Or, Type::Int64) => Value::Int64(0),
        (ReductionOperator::Add | ReductionOperator::Or, Type::Int32 | Type::Logical) => Value::Int32(0),
        (ReductionOperator::Add | ReductionOperator::Or, Type::Real32) => Value::Real32(0.0),
        (ReductionOperator::Add | ReductionOperator::Or, Type::Real64) => Value::Real64(0.0),
        (ReductionOperator::Multiply, Type::Int64) => Value::Int64(1),
        (ReductionOperator::Multiply, Type::Int32 | Type::Logical) => Value::Int32(1),
        (ReductionOperator::Multiply, Type::Real32) => Value::Real32(1.0),
        (ReductionOperator::Multiply, Type::Real64) => Value::Real64(1.0),
        (ReductionOperator::Min, Type::Int64) => Value::Int64(i64::MAX),
        (ReductionOperator::Min, Type::Int32 | Type::Logical) => Value::Int32(i32::MAX),
        (ReductionOperator::Min, Type::Real32) => Value::Real32(f32::INFINITY),
        (ReductionOperator::Min, Type::Real64) => Value::Real64(f64::INFINITY),
        (ReductionOperator::Max, Type::Int64) => Value::Int64(i64::MIN),
        (ReductionOperator::Max, Type::Int32 | Type::Logical) => Value::Int32(i32::MIN),
        (ReductionOperator::Max, Type::Real32) => Value::Real32(f32::NEG_INFINITY),
        (ReductionOperator::Max, Type::Real64) => Value::Real64(f64::NEG_INFINITY),
        (ReductionOperator::And, Type::Int64) => Value::Int64(-1),
        (ReductionOperator::And, _) => Value::Int32(-1),
    }
}
