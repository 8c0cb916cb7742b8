//! Statements.

use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::tree::{
    Action, Actual, Case, Comparison, ExpressionId, Intent, Intrinsic, LoopId, Operation, Operator,
    ReductionOperator, Statement, StatementId, Type, Uniformity, Value, VariableId, VariableKind,
};

use super::places::Target;
use super::{Builder, Keeping, Loop, Operand, PURPOSE, Scope, Slot};
use crate::cpu::kernel::program::{Binary, Index, Op, Private, Register, Ternary, Unary};

impl Builder<'_> {
    /// Translates statements in order.
    pub(super) fn block(&mut self, scope: &mut Scope<'_>, statements: &[StatementId]) -> Result<()> {
        let code = scope.code;
        for id in statements {
            self.statement(scope, code.statement(*id))?;
        }
        Ok(())
    }

    /// Translates statements that only some lanes run.
    fn masked(&mut self, scope: &mut Scope<'_>, mask: Register, statements: &[StatementId]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        let jump = self.jump_if_none(mask)?;
        allocate::push(&mut scope.masks, mask, PURPOSE)?;
        self.block(scope, statements)?;
        scope.masks.pop();
        self.land(jump);
        Ok(())
    }

    fn statement(&mut self, scope: &mut Scope<'_>, statement: &Statement) -> Result<()> {
        // If all points of a launch run a statement together, then lanes outside of the mask have ended or do not exist.
        // In a loop they may also have left it.
        let may_have_left = scope.leaves && !scope.loops.is_empty();
        let is_whole = scope.kernel.is_some() && statement.control == Uniformity::Launch && !may_have_left;
        match &statement.action {
            Action::Assign(place, value) => {
                let ty = scope.code.expression(*value).ty;
                if takes_hint(&scope.code.expression(*value).operation) && ty != Type::Logical {
                    let target = self.target(scope, place)?;
                    if let Target::Shared(access, None) = target
                        && access.index == Index::Point
                    {
                        return self.assign_in_place(scope, access, *value, ty);
                    }
                    self.forget(target)?;
                }
                let variable = match &scope.slots[place.variable.0 as usize] {
                    Slot::Register(register) if is_whole => Some(*register),
                    _ => None,
                };
                let value = self.expression(scope, *value, variable)?;
                let target = self.target(scope, place)?;
                self.assign(scope, &target, ty, value, is_whole)?;
                self.release(value)?;
                self.forget(target)
            }
            Action::If { branches, otherwise } => {
                let rest = self.copy_of_mask(scope)?;
                let some = self.temporary(Type::Logical)?;
                for (condition, block) in branches {
                    allocate::push(&mut scope.masks, rest.register, PURPOSE)?;
                    let condition = self.expression(scope, *condition, None)?;
                    scope.masks.pop();
                    let (left, right) = (rest.register, condition.register);
                    self.and(some.register, left, right)?;
                    self.and_not(left, left, right)?;
                    self.release(condition)?;
                    self.masked(scope, some.register, block)?;
                }
                self.masked(scope, rest.register, otherwise)?;
                self.release(some)?;
                self.release(rest)
            }
            Action::Select { selector, cases, otherwise } => self.select(scope, *selector, cases, otherwise),
            Action::Do { id, variable, first, last, step, body } => {
                self.counted(scope, (*id, *variable), [*first, *last, *step], body, is_whole)
            }
            Action::While { id, condition, body } => {
                let active = self.copy_of_mask(scope)?;
                let top = self.here();
                allocate::push(&mut scope.masks, active.register, PURPOSE)?;
                let condition = self.expression(scope, *condition, None)?;
                scope.masks.pop();
                self.and(active.register, active.register, condition.register)?;
                self.release(condition)?;
                let end = self.jump_if_none(active.register)?;
                self.iteration(scope, *id, active.register, body)?;
                self.emit(Op::Jump { to: top })?;
                self.land(end);
                self.release(active)
            }
            Action::Exit(id) => {
                let from = scope.loops.iter().rfind(|it| it.id == *id).map(|it| it.active);
                self.leave(scope, from.unwrap_or(0))
            }
            Action::Cycle(id) => {
                let from = scope.loops.iter().rfind(|it| it.id == *id).map(|it| it.iteration);
                self.leave(scope, from.unwrap_or(0))
            }
            Action::Return => self.leave(scope, 0),
            // A workgroup runs in one block, and each operation ends in all lanes before the next one begins.
            Action::Barrier => Ok(()),
            Action::Call(index, actuals) => self.call(scope, *index, actuals),
            Action::Reduce(index, value) => self.reduce(scope, *index, *value),
        }
    }

    /// Computes a value where it is stored, if all lanes are.
    fn assign_in_place(
        &mut self,
        scope: &mut Scope<'_>,
        access: crate::cpu::kernel::program::Access,
        value: ExpressionId,
        ty: Type,
    ) -> Result<()> {
        let (view, mask, bytes) = (self.view(ty)?, scope.mask(), ty.bytes() as u8);
        let to = view.register;
        self.emit(Op::Open { bytes, to, access, mask, is_whole: self.is_whole(scope) })?;
        let value = self.expression(scope, value, Some(to))?;
        if value.register == to {
            self.emit(Op::Close { bytes, from: to, access, mask })?;
        } else {
            self.write(scope, &Target::Shared(access, None), ty, value)?;
            self.release(value)?;
        }
        self.release(view)
    }

    fn assign(
        &mut self,
        scope: &Scope<'_>,
        target: &Target,
        ty: Type,
        value: Operand,
        is_whole: bool,
    ) -> Result<()> {
        match target {
            Target::Register(to) if *to == value.register => Ok(()),
            Target::Register(to) if is_whole => self.copy(ty, *to, value.register),
            _ => self.write(scope, target, ty, value),
        }
    }

    fn copy_of_mask(&mut self, scope: &Scope<'_>) -> Result<Operand> {
        let copy = self.temporary(Type::Logical)?;
        self.copy(Type::Logical, copy.register, scope.mask())?;
        Ok(copy)
    }

    /// Takes the current lanes out of all masks from this position on.
    fn leave(&mut self, scope: &Scope<'_>, from: usize) -> Result<()> {
        let lanes = self.copy_of_mask(scope)?;
        for mask in &scope.masks[from..] {
            self.and_not(*mask, *mask, lanes.register)?;
        }
        self.release(lanes)
    }

    /// The body of a loop, for the lanes that are active.
    fn iteration(
        &mut self,
        scope: &mut Scope<'_>,
        id: LoopId,
        active: Register,
        body: &[StatementId],
    ) -> Result<()> {
        let depth = scope.masks.len();
        allocate::push(&mut scope.masks, active, PURPOSE)?;
        let mut iteration = None;
        if scope.cycled[id.0 as usize] {
            let copy = self.copy_of_mask(scope)?;
            allocate::push(&mut scope.masks, copy.register, PURPOSE)?;
            iteration = Some(copy);
        }
        let opened = Loop { id, active: depth, iteration: scope.masks.len() - 1 };
        allocate::push(&mut scope.loops, opened, PURPOSE)?;
        self.block(scope, body)?;
        scope.loops.pop();
        scope.masks.truncate(depth);
        iteration.map_or(Ok(()), |copy| self.release(copy))
    }

    fn counted(
        &mut self,
        scope: &mut Scope<'_>,
        (id, variable): (LoopId, VariableId),
        bounds: [ExpressionId; 3],
        body: &[StatementId],
        is_whole: bool,
    ) -> Result<()> {
        let ty = scope.code.variable(variable).ty;
        let Slot::Register(variable) = scope.slots[variable.0 as usize] else {
            return Err(Error::Internal("the variable of a loop is no scalar".to_owned()));
        };
        let constant_step = scope.code.constant(bounds[2]).and_then(Value::integer);
        let first = self.expression(scope, bounds[0], None)?;
        let last = self.expression(scope, bounds[1], None)?;
        let mut step = self.expression(scope, bounds[2], None)?;
        if step.keeping != Keeping::Temporary && constant_step.is_none() {
            // The body may change the variable that the step was read from.
            step = self.copied(ty, step)?;
        }
        let active = self.copy_of_mask(scope)?;
        let left = self.temporary(ty)?;
        if constant_step == Some(1) {
            let some = self.temporary(Type::Logical)?;
            let (bounds, mask) = ((first.register, last.register), active.register);
            self.apply_binary(Binary::Compare(Comparison::LessEqual), ty, some.register, bounds, mask)?;
            self.and(mask, mask, some.register)?;
            self.release(some)?;
            let bounds = (last.register, first.register);
            self.apply_binary(Binary::Subtract, ty, left.register, bounds, mask)?;
        } else {
            let (active, left) = (active.register, left.register);
            let (first, last, step) = (first.register, last.register, step.register);
            self.emit(Op::Trip { ty, active, left, first, last, step })?;
        }
        self.assign(scope, &Target::Register(variable), ty, first, is_whole)?;
        self.release(first)?;
        self.release(last)?;
        let top = self.here();
        let end = self.jump_if_none(active.register)?;
        self.iteration(scope, id, active.register, body)?;
        // Only the lanes that finished the iteration count on.
        let mask = active.register;
        let next = self.temporary(ty)?;
        self.apply_binary(Binary::Add, ty, next.register, (variable, step.register), mask)?;
        self.apply_ternary(Ternary::Select, ty, variable, [next.register, variable, mask])?;
        self.release(next)?;
        self.apply_binary(Binary::NonZero, ty, mask, (mask, left.register), mask)?;
        self.apply_unary(Unary::Decrement, ty, left.register, left.register, mask)?;
        self.emit(Op::Jump { to: top })?;
        self.land(end);
        for operand in [left, active, step] {
            self.release(operand)?;
        }
        Ok(())
    }

    fn select(
        &mut self,
        scope: &mut Scope<'_>,
        selector: ExpressionId,
        cases: &[Case],
        otherwise: &[StatementId],
    ) -> Result<()> {
        let ty = scope.code.expression(selector).ty;
        let mut value = self.expression(scope, selector, None)?;
        if value.keeping != Keeping::Temporary {
            // A case may change the variable that the selector was read from.
            value = self.copied(ty, value)?;
        }
        let rest = self.copy_of_mask(scope)?;
        let some = self.temporary(Type::Logical)?;
        for case in cases {
            self.apply_unary(Unary::False, Type::Logical, some.register, some.register, some.register)?;
            for (low, high) in &case.ranges {
                let (to, from) = (some.register, value.register);
                self.emit(Op::InRange { ty, to, from, low: *low, high: *high })?;
            }
            let (left, right) = (rest.register, some.register);
            self.and(right, left, right)?;
            self.and_not(left, left, right)?;
            self.masked(scope, some.register, &case.body)?;
        }
        self.masked(scope, rest.register, otherwise)?;
        for operand in [some, rest, value] {
            self.release(operand)?;
        }
        Ok(())
    }

    fn call(&mut self, scope: &mut Scope<'_>, index: usize, actuals: &[Actual]) -> Result<()> {
        let unit = self.unit;
        let callee = &unit.procedures[index];
        let dummy_of = |position: usize| {
            let variable = callee.dummies.get(position).map(|id| callee.code.variable(*id));
            variable.ok_or_else(|| Error::Internal("a call does not fit its procedure".to_owned()))
        };
        let mut values = allocate::with_capacity(actuals.len(), PURPOSE)?;
        let mut targets = allocate::with_capacity(actuals.len(), PURPOSE)?;
        for (position, actual) in actuals.iter().enumerate() {
            let dummy = dummy_of(position)?;
            let (value, target) = match actual {
                Actual::Value(value) => (Some(self.expression(scope, *value, None)?), None),
                Actual::Place(place) => {
                    let target = self.target(scope, place)?;
                    let value = match dummy.kind {
                        VariableKind::Dummy(Intent::Out) => None,
                        _ => Some(self.read(scope, &target, dummy.ty, None)?),
                    };
                    // The call may change the variable that a subscript was read from.
                    (value, Some(self.pinned(target)?))
                }
            };
            values.push(value);
            targets.push(target);
        }
        for (position, value) in values.into_iter().enumerate() {
            if let Some(value) = value {
                let to = self.dummy(index, position)?;
                self.copy(dummy_of(position)?.ty, to, value.register)?;
                self.release(value)?;
            }
        }
        self.enter(scope, index)?;
        for (position, target) in targets.into_iter().enumerate() {
            if let Some(target) = target {
                let ty = dummy_of(position)?.ty;
                let register = self.dummy(index, position)?;
                let value = Operand::kept(register, ty);
                self.write(scope, &target, ty, value)?;
                self.forget(target)?;
            }
        }
        Ok(())
    }

    /// A value in a temporary register.
    fn copied(&mut self, ty: Type, value: Operand) -> Result<Operand> {
        let copy = self.temporary(ty)?;
        self.copy(ty, copy.register, value.register)?;
        self.release(value)?;
        Ok(copy)
    }

    /// A place whose index is in a register of its own.
    fn pinned(&mut self, target: Target) -> Result<Target> {
        let copy = |it: &mut Self, index: Operand| {
            let ty = if index.bytes == 8 { Type::Int64 } else { Type::Int32 };
            if index.keeping == Keeping::Temporary { Ok(index) } else { it.copied(ty, index) }
        };
        Ok(match target {
            Target::Shared(access, Some(index)) => {
                let index = copy(self, index)?;
                Target::Shared(access.at(index.register), Some(index))
            }
            Target::Private(access, Some(index)) => {
                let index = copy(self, index)?;
                Target::Private(Private { index: index.register, ..access }, Some(index))
            }
            other => other,
        })
    }

    fn reduce(&mut self, scope: &mut Scope<'_>, index: usize, value: ExpressionId) -> Result<()> {
        let reduction = scope.kernel.and_then(|kernel| kernel.reductions.get(index));
        let Some(reduction) = reduction else {
            return Err(Error::Internal("a reduction that the kernel lacks".to_owned()));
        };
        let (ty, mask) = (reduction.ty, scope.mask());
        let what = combination(reduction.operator);
        let register = self.program.reductions[index];
        // A sum of products takes one operation.
        let (one, other) = match scope.code.expression(value).operation {
            Operation::Binary(Operator::Multiply, one, other) if what == Binary::Add => (one, Some(other)),
            _ => (value, None),
        };
        let one = self.expression(scope, one, None)?;
        let other = other.map(|other| self.expression(scope, other, None)).transpose()?;
        let combine = |it: &mut Self, to: Register| match other {
            Some(other) => {
                let operands = [one.register, other.register, register];
                it.apply_ternary(Ternary::MultiplyAdd, ty, to, operands)
            }
            None => it.apply_binary(what, ty, to, (register, one.register), mask),
        };
        let whole = match self.is_whole(scope) {
            true => {
                let part = self.jump(Op::JumpUnlessWhole { to: 0 })?;
                combine(self, register)?;
                let end = self.jump(Op::Jump { to: 0 })?;
                self.land(part);
                Some(end)
            }
            false => None,
        };
        let sum = self.temporary(ty)?;
        combine(self, sum.register)?;
        self.apply_ternary(Ternary::Select, ty, register, [sum.register, register, mask])?;
        if let Some(end) = whole {
            self.land(end);
        }
        self.release(sum)?;
        self.release(one)?;
        other.map_or(Ok(()), |other| self.release(other))
    }
}

/// Whether an operation writes its result to a register that it is given.
fn takes_hint(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::Constant(_)
            | Operation::Load(_)
            | Operation::Call(..)
            | Operation::Length(_)
            | Operation::LocalIndex(_)
            | Operation::GroupIndex(_)
    )
}

/// How a reduction combines two values.
pub fn combination(operator: ReductionOperator) -> Binary {
    match operator {
        ReductionOperator::Add => Binary::Add,
        ReductionOperator::Multiply => Binary::Multiply,
        ReductionOperator::Min => Binary::Intrinsic(Intrinsic::Min),
        ReductionOperator::Max => Binary::Intrinsic(Intrinsic::Max),
        ReductionOperator::And => Binary::Intrinsic(Intrinsic::And),
        ReductionOperator::Or => Binary::Intrinsic(Intrinsic::Or),
    }
}
