//! Variables and elements.

use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::tree::{Access as Part, ExpressionId, Operation, Operator, Place, Type, Value};

use super::{Builder, Dimension, Operand, PURPOSE, Scope, Slot};
use crate::cpu::kernel::program::{Access, Binary, Index, Input, Op, Private, Register, Ternary, Unary};

/// A place whose subscripts have been evaluated.
pub(super) enum Target {
    Register(Register),
    Constant(Register),
    Shared(Access, Option<Operand>),
    Private(Private, Option<Operand>),
}

impl Builder<'_> {
    /// Evaluates the subscripts of a place.
    pub(super) fn target(&mut self, scope: &mut Scope<'_>, place: &Place) -> Result<Target> {
        let wrong = || Error::Internal("a place does not fit its variable".to_owned());
        let id = place.variable.0 as usize;
        match (&place.access, &scope.slots[id]) {
            (Part::Scalar, Slot::Register(register)) => Ok(Target::Register(*register)),
            (Part::Scalar, Slot::Value(value)) => {
                let value = *value;
                Ok(Target::Constant(self.constant(value)?))
            }
            (Part::Scalar, Slot::Index(axis)) => {
                let axis = *axis;
                Ok(Target::Register(self.input(Input::Index, axis)?))
            }
            (Part::Own, Slot::Shared { array, .. }) => {
                Ok(Target::Shared(Access { array: *array, index: Index::Point, offset: 0 }, None))
            }
            (Part::Linear(at), Slot::Shared { array, is_long, .. }) => {
                let (array, is_long) = (*array, *is_long);
                let shape = [Dimension { lower: 0, stride: 1 }];
                self.shared(scope, array, is_long, std::slice::from_ref(at), &shape)
            }
            // The shapes are copied, as a subscript may be an element of the same array.
            (Part::Subscripts(subscripts), Slot::Shared { array, shape, is_long, .. }) => {
                let (array, is_long) = (*array, *is_long);
                let shape = allocate::copied(shape, PURPOSE)?;
                self.shared(scope, array, is_long, subscripts, &shape)
            }
            (Part::Subscripts(subscripts), Slot::Private { array, len, shape }) => {
                let (array, len) = (*array, *len);
                let shape = allocate::copied(shape, PURPOSE)?;
                let (index, offset) = self.address(scope, subscripts, &shape, false)?;
                let index = match index {
                    Some(index) => index,
                    None => Operand::kept(self.constant(Value::Int32(0))?, Type::Int32),
                };
                let access = Private { array, len, index: index.register, offset };
                Ok(Target::Private(access, Some(index)))
            }
            _ => Err(wrong()),
        }
    }

    fn shared(
        &mut self,
        scope: &mut Scope<'_>,
        array: u32,
        is_long: bool,
        subscripts: &[ExpressionId],
        shape: &[Dimension],
    ) -> Result<Target> {
        // A subscript that is the point's index, in one dimension: elements in the order of lanes.
        if let (Some(kernel), [subscript], [Dimension { lower, .. }]) = (scope.kernel, subscripts, shape)
            && kernel.dims == 1
            && !kernel.cooperative
        {
            let (inner, offset) = self.without_constant(scope, *subscript);
            if let Some(Operation::Load(place)) = inner.map(|inner| &scope.code.expression(inner).operation)
                && matches!(scope.slots[place.variable.0 as usize], Slot::Index(0))
            {
                let offset = offset + i64::from(kernel.base) - lower;
                return Ok(Target::Shared(Access { array, index: Index::Point, offset }, None));
            }
        }
        let (index, offset) = self.address(scope, subscripts, shape, is_long)?;
        Ok(match index {
            Some(operand) => {
                let register = operand.register;
                let index = if is_long { Index::Wide(register) } else { Index::Narrow(register) };
                Target::Shared(Access { array, index, offset }, Some(operand))
            }
            None => {
                let register = self.constant(Value::Int32(0))?;
                Target::Shared(Access { array, index: Index::Narrow(register), offset }, None)
            }
        })
    }

    /// A subscript as another expression plus a constant. Nothing else, if it is constant.
    ///
    /// Only where the sum does not wrap in a right program: a subscript that wraps is no element of an array with lower
    /// bounds of `Int32`, except by chance.
    fn without_constant(&self, scope: &Scope<'_>, id: ExpressionId) -> (Option<ExpressionId>, i64) {
        let code = scope.code;
        let number = |id| code.constant(id).and_then(Value::integer);
        if let Some(value) = number(id) {
            return (None, value);
        }
        match code.expression(id).operation {
            Operation::Binary(Operator::Add, left, right) => match (number(left), number(right)) {
                (_, Some(value)) => (Some(left), value),
                (Some(value), _) => (Some(right), value),
                _ => (Some(id), 0),
            },
            Operation::Binary(Operator::Subtract, left, right) => match number(right) {
                Some(value) => (Some(left), -value),
                None => (Some(id), 0),
            },
            _ => (Some(id), 0),
        }
    }

    /// The position of an element: a register, `Int32` or wide, plus a constant. In an array of fewer than 2^31 elements
    /// arithmetic modulo 2^32 is exact for each element of it.
    fn address(
        &mut self,
        scope: &mut Scope<'_>,
        subscripts: &[ExpressionId],
        shape: &[Dimension],
        is_wide: bool,
    ) -> Result<(Option<Operand>, i64)> {
        let ty = if is_wide { Type::Int64 } else { Type::Int32 };
        let number = |value: i64| if is_wide { Value::Int64(value) } else { Value::Int32(value as i32) };
        let mask = scope.mask();
        let (mut sum, mut offset): (Option<Operand>, i64) = (None, 0);
        for (subscript, dimension) in subscripts.iter().zip(shape) {
            let (inner, constant) = self.without_constant(scope, *subscript);
            let constant = constant.wrapping_sub(dimension.lower).wrapping_mul(dimension.stride);
            offset = offset.wrapping_add(constant);
            let Some(inner) = inner else { continue };
            let mut term = self.expression(scope, inner, None)?;
            if is_wide {
                term = self.unary(Unary::Convert(ty), Type::Int32, ty, term, mask, None)?;
            }
            if dimension.stride != 1 {
                let stride = self.constant(number(dimension.stride))?;
                let stride = Operand::constant(stride, ty);
                term = self.binary(Binary::Multiply, ty, ty, (term, stride), mask, None)?;
            }
            sum = Some(match sum {
                None => term,
                Some(sum) => self.binary(Binary::Add, ty, ty, (sum, term), mask, None)?,
            });
        }
        // With several terms the register may have wrapped: the constant is added there, modulo 2^32, too.
        let terms = subscripts.len() > 1 || shape.iter().any(|it| it.stride != 1);
        if let (Some(index), true) = (sum, terms && offset != 0) {
            let constant = self.constant(number(offset))?;
            let constant = Operand::constant(constant, ty);
            let index = self.binary(Binary::Add, ty, ty, (index, constant), mask, None)?;
            return Ok((Some(index), 0));
        }
        Ok((sum, offset))
    }

    /// Reads a place.
    pub(super) fn read(
        &mut self,
        scope: &Scope<'_>,
        target: &Target,
        ty: Type,
        hint: Option<Register>,
    ) -> Result<Operand> {
        let (bytes, mask) = (ty.bytes() as u8, scope.mask());
        let make = |it: &mut Self| match hint {
            Some(register) => Ok(Operand::kept(register, ty)),
            None => it.temporary(ty),
        };
        Ok(match target {
            Target::Register(register) => Operand::kept(*register, ty),
            Target::Constant(register) => Operand::constant(*register, ty),
            Target::Shared(access, _) if access.index == Index::Point && ty != Type::Logical => {
                let view = self.view(ty)?;
                self.emit(Op::View { bytes, to: view.register, access: *access, mask })?;
                view
            }
            Target::Shared(access, _) => {
                let to = make(self)?;
                self.emit(Op::Load { bytes, to: to.register, access: *access, mask })?;
                if ty == Type::Logical {
                    self.apply_unary(Unary::FromMemory, ty, to.register, to.register, mask)?;
                }
                to
            }
            Target::Private(access, _) => {
                let to = make(self)?;
                self.emit(Op::LoadPrivate { bytes, to: to.register, access: *access })?;
                to
            }
        })
    }

    /// Writes a place in the lanes of the current mask.
    pub(super) fn write(
        &mut self,
        scope: &Scope<'_>,
        target: &Target,
        ty: Type,
        value: Operand,
    ) -> Result<()> {
        let (bytes, mask) = (ty.bytes() as u8, scope.mask());
        match target {
            Target::Constant(_) => Err(Error::Internal("a scalar argument is assigned".to_owned())),
            Target::Register(to) => {
                let (to, from) = (*to, value.register);
                self.apply_ternary(Ternary::Select, ty, to, [from, to, mask])
            }
            Target::Shared(access, _) if ty == Type::Logical => {
                let number = self.temporary(ty)?;
                self.apply_unary(Unary::ToMemory, ty, number.register, value.register, mask)?;
                let (from, access) = (number.register, *access);
                self.emit(Op::Store { bytes, from, access, mask, is_whole: self.is_whole(scope) })?;
                self.release(number)
            }
            Target::Shared(access, _) => {
                let (from, access) = (value.register, *access);
                self.emit(Op::Store { bytes, from, access, mask, is_whole: self.is_whole(scope) })
            }
            Target::Private(access, _) => {
                self.emit(Op::StorePrivate { bytes, from: value.register, access: *access, mask })
            }
        }
    }

    /// Whether the current mask is that of a block, and stays as it is.
    pub(super) fn is_whole(&self, scope: &Scope<'_>) -> bool {
        scope.kernel.is_some() && scope.masks.len() == 1 && !self.program.returns
    }

    /// Frees the registers of a place.
    pub(super) fn forget(&mut self, target: Target) -> Result<()> {
        match target {
            Target::Shared(_, Some(index)) | Target::Private(_, Some(index)) => self.release(index),
            _ => Ok(()),
        }
    }
}
