//! Expressions.

use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::tree::{
    Access, Code, ExpressionId, Intrinsic, Operation, Operator, Type, UnaryOperator, Value,
};

use super::{Builder, Operand, PURPOSE, Scope, Slot};
use crate::cpu::kernel::program::{Binary, Op, Register, Unary};

/// Whether each expression calls a procedure, directly or in an operand. Operands come before what uses them.
pub(super) fn calls(code: &Code) -> Result<Vec<bool>> {
    let mut calls: Vec<bool> = allocate::with_capacity(code.expressions.len(), PURPOSE)?;
    for expression in &code.expressions {
        let of = |id: &ExpressionId| calls.get(id.0 as usize).copied().unwrap_or(true);
        let call = match &expression.operation {
            Operation::Call(..) => true,
            Operation::Load(place) => match &place.access {
                Access::Linear(at) => of(at),
                Access::Subscripts(all) => all.iter().any(of),
                Access::Scalar | Access::Own => false,
            },
            Operation::Unary(_, from) | Operation::Convert(from) => of(from),
            Operation::Binary(_, left, right)
            | Operation::Compare(_, left, right)
            | Operation::PowerInteger(left, right)
            | Operation::PowerReal(left, right) => of(left) || of(right),
            Operation::Intrinsic(_, operands) => operands.iter().any(of),
            Operation::Constant(_)
            | Operation::Length(_)
            | Operation::LocalIndex(_)
            | Operation::GroupIndex(_) => false,
        };
        calls.push(call);
    }
    Ok(calls)
}

impl Builder<'_> {
    fn make(&mut self, ty: Type, hint: Option<Register>) -> Result<Operand> {
        match hint {
            Some(register) => Ok(Operand { register, bytes: ty.bytes() as u8, is_temporary: false }),
            None => self.temporary(ty),
        }
    }

    /// An operation with one operand of type `ty` and a result of type `result`.
    pub(super) fn unary(
        &mut self,
        what: Unary,
        ty: Type,
        result: Type,
        operand: Operand,
        mask: Register,
        hint: Option<Register>,
    ) -> Result<Operand> {
        // Lane by lane: the result may take the operand's register if both have one size.
        let to = match hint {
            None if operand.is_temporary && ty.bytes() == result.bytes() => operand,
            _ => {
                let to = self.make(result, hint)?;
                self.release(operand)?;
                to
            }
        };
        self.emit(Op::Unary { what, ty, to: to.register, from: operand.register, mask })?;
        Ok(to)
    }

    /// An operation with two operands, the first of type `ty`, and a result of type `result`.
    pub(super) fn binary(
        &mut self,
        what: Binary,
        ty: Type,
        result: Type,
        (left, right): (Operand, Operand),
        mask: Register,
        hint: Option<Register>,
    ) -> Result<Operand> {
        let to = match hint {
            None if left.is_temporary && left.bytes as usize == result.bytes() => {
                self.release(right)?;
                left
            }
            _ => {
                let to = self.make(result, hint)?;
                self.release(left)?;
                self.release(right)?;
                to
            }
        };
        let (left, right) = (left.register, right.register);
        self.emit(Op::Binary { what, ty, to: to.register, left, right, mask })?;
        Ok(to)
    }

    /// Evaluates an expression in the lanes of the current mask; in others the result is arbitrary. An operation that
    /// needs a register for its result may take `hint`, which no operand then needs any more.
    pub(super) fn expression(
        &mut self,
        scope: &mut Scope<'_>,
        id: ExpressionId,
        hint: Option<Register>,
    ) -> Result<Operand> {
        let code = scope.code;
        let expression = code.expression(id);
        let (ty, mask) = (expression.ty, scope.mask());
        let fixed = |register, ty: Type| Operand { register, bytes: ty.bytes() as u8, is_temporary: false };
        match &expression.operation {
            Operation::Constant(value) => Ok(fixed(self.constant(*value)?, ty)),
            Operation::Load(place) => {
                let target = self.target(scope, place)?;
                let value = self.read(scope, &target, ty, hint)?;
                self.forget(target)?;
                Ok(value)
            }
            Operation::Unary(UnaryOperator::Negate, from) => {
                let from = self.expression(scope, *from, None)?;
                self.unary(Unary::Negate, ty, ty, from, mask, hint)
            }
            Operation::Unary(UnaryOperator::Not, from) => {
                let from = self.expression(scope, *from, None)?;
                let to = self.make(ty, hint)?;
                self.emit(Op::Not { to: to.register, from: from.register })?;
                self.release(from)?;
                Ok(to)
            }
            Operation::Binary(operator, left, right) if ty == Type::Logical => {
                self.logical(scope, *operator, (*left, *right), hint)
            }
            Operation::Binary(operator, left, right) => {
                let what = match operator {
                    Operator::Add => Binary::Add,
                    Operator::Subtract => Binary::Subtract,
                    Operator::Multiply => Binary::Multiply,
                    Operator::Divide => Binary::Divide,
                    _ => return Err(Error::Internal("a logical operator of numbers".to_owned())),
                };
                let left = self.expression(scope, *left, None)?;
                let right = self.expression(scope, *right, None)?;
                self.binary(what, ty, ty, (left, right), mask, hint)
            }
            Operation::Compare(comparison, left, right) => {
                let of = code.expression(*left).ty;
                let left = self.expression(scope, *left, None)?;
                let right = self.expression(scope, *right, None)?;
                self.binary(Binary::Compare(*comparison), of, ty, (left, right), mask, hint)
            }
            Operation::PowerInteger(base, exponent) => {
                let square = code.constant(*exponent) == Some(Value::Int32(2));
                let base = self.expression(scope, *base, None)?;
                if square {
                    let other = Operand { is_temporary: false, ..base };
                    return self.binary(Binary::Multiply, ty, ty, (base, other), mask, hint);
                }
                let exponent = self.expression(scope, *exponent, None)?;
                self.binary(Binary::PowerInteger, ty, ty, (base, exponent), mask, hint)
            }
            Operation::PowerReal(base, exponent) => {
                let base = self.expression(scope, *base, None)?;
                let exponent = self.expression(scope, *exponent, None)?;
                self.binary(Binary::PowerReal, ty, ty, (base, exponent), mask, hint)
            }
            Operation::Convert(from) => {
                let of = code.expression(*from).ty;
                let value = self.expression(scope, *from, None)?;
                if of == ty {
                    return Ok(value);
                }
                self.unary(Unary::Convert(ty), of, ty, value, mask, hint)
            }
            Operation::Intrinsic(intrinsic, operands) => {
                self.intrinsic(scope, *intrinsic, ty, operands, hint)
            }
            Operation::Call(index, operands) => self.function(scope, *index, operands, ty),
            Operation::Length(variable) => match &scope.slots[variable.0 as usize] {
                Slot::Shared { len, .. } => {
                    let len = i32::try_from(*len).unwrap_or(i32::MAX);
                    Ok(fixed(self.constant(Value::Int32(len))?, ty))
                }
                _ => Err(Error::Internal("the length of what is no array".to_owned())),
            },
            Operation::LocalIndex(axis) => Ok(fixed(self.input(*axis, false)?, ty)),
            Operation::GroupIndex(axis) => Ok(fixed(self.input(*axis, true)?, ty)),
        }
    }

    fn input(&mut self, axis: usize, is_group: bool) -> Result<Register> {
        let inputs = &self.program.inputs;
        let found = if is_group { inputs.group[axis] } else { inputs.local[axis] };
        if let Some(register) = found {
            return Ok(register);
        }
        let register = self.register(Type::Int32)?;
        let inputs = &mut self.program.inputs;
        let place = if is_group { &mut inputs.group[axis] } else { &mut inputs.local[axis] };
        *place = Some(register);
        Ok(register)
    }

    fn logical(
        &mut self,
        scope: &mut Scope<'_>,
        operator: Operator,
        (left, right): (ExpressionId, ExpressionId),
        hint: Option<Register>,
    ) -> Result<Operand> {
        let (ty, mask) = (Type::Logical, scope.mask());
        let is_call = scope.calls[right.0 as usize];
        let left = self.expression(scope, left, None)?;
        let right = match operator {
            // The second operand is evaluated only where it matters. Without calls nobody sees the difference.
            Operator::And | Operator::Or if is_call => {
                let open = self.temporary(ty)?;
                self.emit(match operator {
                    Operator::And => Op::And { to: open.register, left: mask, right: left.register },
                    _ => Op::AndNot { to: open.register, left: mask, right: left.register },
                })?;
                allocate::push(&mut scope.masks, open.register, PURPOSE)?;
                let right = self.expression(scope, right, None)?;
                scope.masks.pop();
                self.release(open)?;
                right
            }
            _ => self.expression(scope, right, None)?,
        };
        let intrinsic = match operator {
            Operator::And => Intrinsic::And,
            Operator::Or => Intrinsic::Or,
            _ => Intrinsic::ExclusiveOr,
        };
        let what = Binary::Intrinsic(intrinsic);
        let result = self.binary(what, Type::Int32, ty, (left, right), mask, hint)?;
        if operator == Operator::Equivalent {
            self.emit(Op::Not { to: result.register, from: result.register })?;
        }
        Ok(result)
    }

    fn intrinsic(
        &mut self,
        scope: &mut Scope<'_>,
        intrinsic: Intrinsic,
        ty: Type,
        operands: &[ExpressionId],
        hint: Option<Register>,
    ) -> Result<Operand> {
        let mask = scope.mask();
        match *operands {
            [from] => {
                let of = scope.code.expression(from).ty;
                let from = self.expression(scope, from, None)?;
                self.unary(Unary::Intrinsic(intrinsic, ty), of, ty, from, mask, hint)
            }
            [left, right] => {
                let of = scope.code.expression(left).ty;
                let left = self.expression(scope, left, None)?;
                let right = self.expression(scope, right, None)?;
                self.binary(Binary::Intrinsic(intrinsic), of, ty, (left, right), mask, hint)
            }
            [one, other, which] if intrinsic == Intrinsic::Merge => {
                let one = self.expression(scope, one, None)?;
                let other = self.expression(scope, other, None)?;
                let which = self.expression(scope, which, None)?;
                let to = self.make(ty, hint)?;
                let (from, mask) = (one.register, which.register);
                let bytes = ty.bytes() as u8;
                self.emit(Op::Select { bytes, to: to.register, mask, from, other: other.register })?;
                for operand in [one, other, which] {
                    self.release(operand)?;
                }
                Ok(to)
            }
            _ => Err(Error::Internal(format!("{intrinsic:?} of {} operands", operands.len()))),
        }
    }

    fn function(
        &mut self,
        scope: &mut Scope<'_>,
        index: usize,
        operands: &[ExpressionId],
        ty: Type,
    ) -> Result<Operand> {
        let mut values = allocate::with_capacity(operands.len(), PURPOSE)?;
        for operand in operands {
            values.push(self.expression(scope, *operand, None)?);
        }
        for (position, value) in values.iter().enumerate() {
            let to = self.dummy(index, position)?;
            self.emit(Op::Move { bytes: value.bytes, to, from: value.register })?;
        }
        for value in values {
            self.release(value)?;
        }
        self.enter(scope, index)?;
        let Some(from) = self.procedures[index].result else {
            return Err(Error::Internal("a function without a result".to_owned()));
        };
        // A second call would overwrite the result.
        let to = self.temporary(ty)?;
        self.emit(Op::Move { bytes: to.bytes, to: to.register, from })?;
        Ok(to)
    }

    /// The register of a dummy of a procedure.
    pub(super) fn dummy(&self, procedure: usize, position: usize) -> Result<Register> {
        let dummy = self.procedures.get(procedure).and_then(|it| it.dummies.get(position));
        dummy.copied().ok_or_else(|| Error::Internal("a call does not fit its procedure".to_owned()))
    }

    /// Calls a procedure whose dummies have been set.
    pub(super) fn enter(&mut self, scope: &mut Scope<'_>, index: usize) -> Result<()> {
        let Some(procedure) = self.procedures.get(index) else {
            return Err(Error::Internal("a procedure comes after its caller".to_owned()));
        };
        let (to, start) = (procedure.mask, procedure.start);
        scope.depth = scope.depth.max(procedure.depth + 1);
        self.emit(Op::Move { bytes: 4, to, from: scope.mask() })?;
        self.emit(Op::Call { to: start })
    }
}
