//! Expressions.

use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::tree::{
    Access, Code, ExpressionId, Intrinsic, Operation, Operator, Type, UnaryOperator, Value,
};

use super::{Builder, Keeping, Operand, PURPOSE, Scope, Slot};
use crate::cpu::kernel::program::{Binary, Input, Op, Register, Ternary, Unary};

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
            Some(register) => Ok(Operand::kept(register, ty)),
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
        if operand.is_constant() {
            let register = Some(operand.register);
            return self.once((self.functions.unary)(what, ty), result, [register, register, None]);
        }
        // Lane by lane: the result may take the operand's register if both have one size.
        let to = match hint {
            None if operand.keeping == Keeping::Temporary && ty.bytes() == result.bytes() => operand,
            _ => {
                let to = self.make(result, hint)?;
                self.release(operand)?;
                to
            }
        };
        self.apply_unary(what, ty, to.register, operand.register, mask)?;
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
        if left.is_constant() && right.is_constant() {
            let registers = [Some(left.register), Some(right.register), None];
            return self.once((self.functions.binary)(what, ty), result, registers);
        }
        // Sums and products commute.
        let (left, right) = match right.is_constant() && matches!(what, Binary::Add | Binary::Multiply) {
            true => (right, left),
            false => (left, right),
        };
        let function = match left.is_constant() {
            true => (self.functions.binary_with)(what, ty),
            false => None,
        };
        let to = match hint {
            None if left.keeping == Keeping::Temporary && left.bytes as usize == result.bytes() => {
                self.release(right)?;
                left
            }
            None if right.keeping == Keeping::Temporary && right.bytes as usize == result.bytes() => {
                self.release(left)?;
                right
            }
            _ => {
                let to = self.make(result, hint)?;
                self.release(left)?;
                self.release(right)?;
                to
            }
        };
        let operands = [left.register, right.register, mask];
        match function {
            Some(function) => self.apply_with(function, to.register, operands)?,
            None => self.apply((self.functions.binary)(what, ty), to.register, operands)?,
        }
        Ok(to)
    }

    /// A sum or difference of which one operand is a product, in one pass. Each step is rounded.
    fn product_and_sum(
        &mut self,
        scope: &mut Scope<'_>,
        (operator, ty): (Operator, Type),
        (left, right): (ExpressionId, ExpressionId),
        hint: Option<Register>,
    ) -> Result<Option<Operand>> {
        let code = scope.code;
        let factors = |id: ExpressionId| match code.expression(id).operation {
            Operation::Binary(Operator::Multiply, one, other) => Some((one, other)),
            _ => None,
        };
        let (what, (one, other), third) = match (operator, factors(left), factors(right)) {
            (Operator::Add, Some(product), _) => (Ternary::MultiplyAdd, product, right),
            (Operator::Add, None, Some(product)) => (Ternary::MultiplyAdd, product, left),
            (Operator::Subtract, Some(product), _) => (Ternary::MultiplySubtract, product, right),
            (Operator::Subtract, None, Some(product)) => (Ternary::SubtractProduct, product, left),
            _ => return Ok(None),
        };
        let mut operands = [one, other, third].map(|_| None);
        for (operand, id) in operands.iter_mut().zip([one, other, third]) {
            *operand = Some(self.expression(scope, id, None)?);
        }
        let [Some(one), Some(other), Some(third)] = operands else { return Ok(None) };
        if [one, other, third].iter().all(|it| it.is_constant()) {
            let registers = [one, other, third].map(|it| Some(it.register));
            return self.once((self.functions.ternary)(what, ty), ty, registers).map(Some);
        }
        let (one, other) = if other.is_constant() { (other, one) } else { (one, other) };
        let temporary = [third, one, other].into_iter().find(|it| it.keeping == Keeping::Temporary);
        let to = match (hint, temporary) {
            (None, Some(operand)) => operand,
            _ => self.make(ty, hint)?,
        };
        let operands = [one.register, other.register, third.register];
        match (self.functions.ternary_with)(what, ty).filter(|_| one.is_constant()) {
            Some(function) => self.apply_with(function, to.register, operands)?,
            None => self.apply((self.functions.ternary)(what, ty), to.register, operands)?,
        }
        for operand in [one, other, third] {
            if operand.register != to.register {
                self.release(operand)?;
            }
        }
        Ok(Some(to))
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
        match &expression.operation {
            Operation::Constant(value) => Ok(Operand::constant(self.constant(*value)?, ty)),
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
                self.unary(Unary::Not, ty, ty, from, mask, hint)
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
                if let Some(operand) = self.product_and_sum(scope, (*operator, ty), (*left, *right), hint)? {
                    return Ok(operand);
                }
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
                    let other = Operand { keeping: Keeping::Kept, ..base };
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
                    Ok(Operand::constant(self.constant(Value::Int32(len))?, ty))
                }
                _ => Err(Error::Internal("the length of what is no array".to_owned())),
            },
            Operation::LocalIndex(axis) => Ok(Operand::kept(self.input(Input::Local, *axis)?, ty)),
            Operation::GroupIndex(axis) => Ok(Operand::kept(self.input(Input::Group, *axis)?, ty)),
        }
    }

    /// The register of what the engine sets for each block.
    pub(super) fn input(&mut self, input: Input, axis: usize) -> Result<Register> {
        let found = self.program.inputs.of(input)[axis];
        if let Some(register) = found {
            return Ok(register);
        }
        let register = self.register(Type::Int32)?;
        self.program.inputs.of(input)[axis] = Some(register);
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
                match operator {
                    Operator::And => self.and(open.register, mask, left.register)?,
                    _ => self.and_not(open.register, mask, left.register)?,
                }
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
            return self.unary(Unary::Not, ty, ty, result, mask, hint);
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
                let operands = [one.register, other.register, which.register];
                self.apply_ternary(Ternary::Select, ty, to.register, operands)?;
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
        for (position, (value, operand)) in values.iter().zip(operands).enumerate() {
            let to = self.dummy(index, position)?;
            self.copy(scope.code.expression(*operand).ty, to, value.register)?;
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
        self.copy(ty, to.register, from)?;
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
        self.copy(Type::Logical, to, scope.mask())?;
        self.emit(Op::Call { to: start })
    }
}
