//! Expressions of one point.

use super::values::{self, zero};
use super::{Checker, Frame, Result};
use crate::error::Error;
use crate::kernel::tree::{ArgumentKind, Code, ExpressionId, Intrinsic, Operation, Operator, Type, Value};

impl<'l> Checker<'l> {
    /// The value of an expression.
    pub(super) fn value(&mut self, code: &'l Code, id: ExpressionId, frame: &mut Frame) -> Result<Value> {
        self.deeper()?;
        let value = self.operation(code, id, frame);
        self.depth -= 1;
        value
    }

    /// As [`Checker::value`], for conditions.
    pub(super) fn truth(&mut self, code: &'l Code, id: ExpressionId, frame: &mut Frame) -> Result<bool> {
        Ok(values::truth(self.value(code, id, frame)?))
    }

    fn operation(&mut self, code: &'l Code, id: ExpressionId, frame: &mut Frame) -> Result<Value> {
        let expression = code.expression(id);
        let ty = expression.ty;
        match &expression.operation {
            Operation::Constant(value) => Ok(*value),
            Operation::Load(place) => {
                let target = self.target(code, place, frame)?;
                Ok(self.load(code, place, target, (id.0, true), frame).unwrap_or(zero(ty)))
            }
            Operation::Unary(operator, operand) => {
                let value = self.value(code, *operand, frame)?;
                Ok(values::unary(*operator, value))
            }
            Operation::Binary(operator @ (Operator::And | Operator::Or), left, right) => {
                let left = self.truth(code, *left, frame)?;
                if left == (*operator == Operator::Or) {
                    return Ok(Value::Logical(left));
                }
                self.value(code, *right, frame)
            }
            Operation::Binary(operator, left, right) => {
                let left = self.value(code, *left, frame)?;
                let right = self.value(code, *right, frame)?;
                self.count(ty);
                Ok(values::binary(*operator, left, right))
            }
            Operation::Compare(comparison, left, right) => {
                let left = self.value(code, *left, frame)?;
                let right = self.value(code, *right, frame)?;
                Ok(values::compare(*comparison, left, right))
            }
            Operation::PowerInteger(base, exponent) => {
                let base = self.value(code, *base, frame)?;
                let exponent = self.value(code, *exponent, frame)?;
                self.count(ty);
                Ok(values::power(base, values::integer(exponent) as i32))
            }
            Operation::PowerReal(base, exponent) => {
                let base = self.value(code, *base, frame)?;
                let exponent = self.value(code, *exponent, frame)?;
                self.count(ty);
                Ok(values::power_real(base, exponent))
            }
            Operation::Convert(operand) => {
                let value = self.value(code, *operand, frame)?;
                Ok(values::convert(ty, value))
            }
            Operation::Intrinsic(intrinsic, operands) => {
                let mut all = [Value::Logical(false); 3];
                for (value, operand) in all.iter_mut().zip(operands) {
                    *value = self.value(code, *operand, frame)?;
                }
                if !matches!(intrinsic, Intrinsic::Merge | Intrinsic::Abs | Intrinsic::Sign) {
                    self.count(ty);
                }
                Ok(values::intrinsic(*intrinsic, ty, &all))
            }
            Operation::Call(index, operands) => self.function(code, (*index, id), operands, frame),
            Operation::Length(variable) => {
                let position = self.kernel.arguments.iter().position(|it| it.variable == *variable);
                let len = position.and_then(|position| self.launch.lengths().get(position));
                let len = len.ok_or_else(|| Error::Internal("the length of what is no array".to_owned()))?;
                Ok(Value::Int32(i32::try_from(*len).unwrap_or(i32::MAX)))
            }
            Operation::LocalIndex(axis) => Ok(Value::Int32(self.point.local[*axis])),
            Operation::GroupIndex(axis) => Ok(Value::Int32(self.point.group_index[*axis])),
        }
    }

    /// Counts an operation whose result has a type.
    fn count(&mut self, ty: Type) {
        self.operations += u64::from(ty.is_real());
    }

    /// The value of an argument that is no buffer.
    pub(super) fn argument(&self, position: usize) -> Option<Value> {
        match self.kernel.arguments.get(position)?.kind {
            ArgumentKind::Index(axis) => Some(Value::Int32(self.point.indices[axis])),
            ArgumentKind::Scalar => self.launch.scalars().get(position).copied().flatten(),
            ArgumentKind::Buffer(_) => None,
        }
    }

    fn function(
        &mut self,
        code: &'l Code,
        (index, id): (usize, ExpressionId),
        operands: &[ExpressionId],
        frame: &mut Frame,
    ) -> Result<Value> {
        let procedure = self.procedure(index)?;
        let mut inner = Frame::new(&procedure.code)?;
        for (dummy, operand) in procedure.dummies.iter().zip(operands) {
            inner.scalars[dummy.0 as usize] = Some(self.value(code, *operand, frame)?);
        }
        self.block(&procedure.code, &procedure.code.body, &mut inner)?;
        let result = procedure.result.and_then(|result| inner.scalars[result.0 as usize]);
        Ok(result.unwrap_or_else(|| {
            self.no_result(code.expression(id).span, procedure);
            zero(code.expression(id).ty)
        }))
    }
}
