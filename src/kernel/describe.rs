//! What a host needs to know of a kernel: its arguments with types, slots and sizes.

use crate::allocate;
use crate::error::{Error, Result};

use super::fold;
use super::tree::{
    ArgumentKind, BufferShape, Code, Contract, Epilogue, ExpressionId, Intent, Kernel, LocalSize, Operation,
    Value,
};

/// A kernel or epilogue from outside.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Whether it is an epilogue.
    pub is_epilogue: bool,
    /// The dimensions of its index space. 0 for an epilogue.
    pub dims: usize,
    /// What the first index is.
    pub base: i32,
    /// The local size of the source; nothing for `auto` and for epilogues.
    pub local_size: Option<[u32; 3]>,
    /// Whether arithmetic is exact: `contract=off`.
    pub is_exact: bool,
    /// Whether it has the old form, which no Fortran compiler accepts.
    pub is_legacy: bool,
    /// Whether whole workgroups run, without a guard.
    pub is_cooperative: bool,
    /// The attribute `in=`.
    pub inputs: Option<u32>,
    /// The attribute `out=`.
    pub outputs: Option<u32>,
    /// Its arguments in order, index arguments included.
    pub arguments: Vec<ArgumentDescription>,
    /// Bytes of the parameter block.
    pub parameter_bytes: usize,
}

/// An argument from outside.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ArgumentDescription {
    /// Its name as declared.
    pub name: String,
    /// What it is.
    pub role: ArgumentRole,
    /// Its type, or its elements' type, as Fortran writes it.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// Bytes of a value or element.
    pub bytes: usize,
    /// `in`, `out` or `inout`.
    pub intent: &'static str,
    /// The binding of a buffer.
    pub slot: Option<usize>,
    /// The offset in the parameter block of an index argument or scalar.
    pub offset: Option<usize>,
    /// The dimensions of an array, else 0.
    pub rank: usize,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ArgumentRole {
    /// An index argument, or the value, channel or position of an epilogue. No caller passes it.
    Index,
    /// A scalar.
    Scalar,
    /// A buffer with an element for each point.
    Element,
    /// A buffer with a shape.
    Array,
    /// A single element that all points are combined into.
    Reduction,
}

/// The parameter block: the offset of each argument that has one, and the bytes of all.
fn block(arguments: &[super::tree::Argument]) -> (Vec<Option<usize>>, usize) {
    let mut at = 0usize;
    let mut largest = 4;
    let offsets = arguments.iter().map(|argument| match argument.kind {
        ArgumentKind::Buffer(_) => None,
        ArgumentKind::Index(_) | ArgumentKind::Scalar => {
            let bytes = argument.ty.bytes();
            largest = largest.max(bytes);
            let offset = at.next_multiple_of(bytes);
            at = offset + bytes;
            Some(offset)
        }
    });
    let offsets = offsets.collect();
    (offsets, at.next_multiple_of(largest))
}

fn arguments(arguments: &[super::tree::Argument]) -> (Vec<ArgumentDescription>, usize) {
    let (offsets, bytes) = block(arguments);
    let described = arguments.iter().zip(offsets).map(|(argument, offset)| {
        let (role, intent, slot, rank) = match &argument.kind {
            ArgumentKind::Index(_) => (ArgumentRole::Index, Intent::In, None, 0),
            ArgumentKind::Scalar => (ArgumentRole::Scalar, Intent::In, None, 0),
            ArgumentKind::Buffer(buffer) => {
                let (role, rank) = match &buffer.shape {
                    BufferShape::Element { .. } => (ArgumentRole::Element, 0),
                    BufferShape::Array(dimensions) => (ArgumentRole::Array, dimensions.len()),
                    BufferShape::Reduction(_) => (ArgumentRole::Reduction, 0),
                };
                (role, buffer.intent, Some(buffer.slot), rank)
            }
        };
        ArgumentDescription {
            name: argument.name.clone(),
            role,
            ty: argument.ty.fortran(),
            bytes: argument.ty.bytes(),
            intent: match intent {
                Intent::In => "in",
                Intent::Out => "out",
                Intent::InOut => "inout",
            },
            slot,
            offset,
            rank,
        }
    });
    (described.collect(), bytes)
}

/// A kernel from outside.
pub fn kernel(kernel: &Kernel) -> Description {
    let (arguments, parameter_bytes) = arguments(&kernel.arguments);
    Description {
        name: kernel.name.clone(),
        is_epilogue: false,
        dims: kernel.dims,
        base: kernel.base,
        local_size: match kernel.local_size {
            LocalSize::Auto => None,
            LocalSize::Fixed(size) => Some(size),
        },
        is_exact: kernel.contract == Contract::Off,
        is_legacy: kernel.legacy,
        is_cooperative: kernel.cooperative,
        inputs: kernel.inputs,
        outputs: kernel.outputs,
        arguments,
        parameter_bytes,
    }
}

/// An epilogue from outside.
pub fn epilogue(epilogue: &Epilogue) -> Description {
    let (arguments, parameter_bytes) = arguments(&epilogue.arguments);
    Description {
        name: epilogue.name.clone(),
        is_epilogue: true,
        dims: 0,
        base: epilogue.base,
        local_size: None,
        is_exact: epilogue.contract == Contract::Off,
        is_legacy: false,
        is_cooperative: false,
        inputs: None,
        outputs: None,
        arguments,
        parameter_bytes,
    }
}

/// The extents of a buffer's dimensions, given the scalars, each at the position of its argument, and the buffers'
/// lengths in elements. Nothing for the last dimension of `(*)`; no dimensions for a buffer without shape.
///
/// # Errors
/// [`Error::InvalidArgument`] if a bound overflows or divides by zero. [`Error::Internal`] if a value is missing.
pub fn extents(
    arguments: &[super::tree::Argument],
    code: &Code,
    position: usize,
    scalars: &[Option<Value>],
    lengths: &[usize],
) -> Result<Vec<Option<u64>>> {
    let bounds = bounds(arguments, code, position, scalars, lengths)?;
    allocate::collected(bounds.into_iter().map(|(_, extent)| Ok(extent)), "the extents of an array")
}

/// As [`extents`], each with the dimension's lower bound before it.
///
/// # Errors
/// As [`extents`].
pub fn bounds(
    arguments: &[super::tree::Argument],
    code: &Code,
    position: usize,
    scalars: &[Option<Value>],
    lengths: &[usize],
) -> Result<Vec<(i32, Option<u64>)>> {
    let mut all = Vec::new();
    if let Some(ArgumentKind::Buffer(buffer)) = arguments.get(position).map(|argument| &argument.kind)
        && let BufferShape::Array(dimensions) = &buffer.shape
    {
        let world = World { arguments, code, scalars, lengths };
        for dimension in dimensions {
            let lower = world.value(dimension.lower)?.integer().and_then(|it| i32::try_from(it).ok());
            let lower = lower.ok_or_else(|| world.invalid(dimension.lower))?;
            let extent = match dimension.extent {
                Some(extent) => Some(world.extent(extent)?),
                None => None,
            };
            allocate::push(&mut all, (lower, extent), "the bounds of an array")?;
        }
    }
    Ok(all)
}

/// What bounds depend on.
struct World<'t> {
    arguments: &'t [super::tree::Argument],
    code: &'t Code,
    scalars: &'t [Option<Value>],
    lengths: &'t [usize],
}

impl World<'_> {
    fn extent(&self, id: ExpressionId) -> Result<u64> {
        let value = self.value(id)?.integer().unwrap_or(0);
        Ok(u64::try_from(value).unwrap_or(0))
    }

    fn invalid(&self, id: ExpressionId) -> Error {
        let span = self.code.expression(id).span;
        let value = format!("not a number, by line {}, column {}", span.line, span.column);
        Error::invalid("bound of an array", value, "scalars for which it can be computed")
    }

    /// Bounds have the depth of expressions, so recursion is safe.
    fn value(&self, id: ExpressionId) -> Result<Value> {
        let expression = self.code.expression(id);
        let folded = match &expression.operation {
            Operation::Constant(value) => return Ok(*value),
            Operation::Load(place) => {
                let position = self.arguments.iter().position(|it| it.variable == place.variable);
                let value = position.and_then(|position| self.scalars.get(position).copied().flatten());
                return value.ok_or_else(|| Error::Internal("a bound uses an unknown scalar".to_owned()));
            }
            Operation::Length(variable) => {
                let position = self.arguments.iter().position(|it| it.variable == *variable);
                let length = position.and_then(|position| self.lengths.get(position));
                let length = length.and_then(|length| i32::try_from(*length).ok());
                return length.map(Value::Int32).ok_or_else(|| self.invalid(id));
            }
            Operation::Unary(operator, operand) => fold::unary(*operator, self.value(*operand)?),
            Operation::Binary(operator, left, right) => {
                fold::binary(*operator, self.value(*left)?, self.value(*right)?)
            }
            Operation::Compare(comparison, left, right) => {
                fold::compare(*comparison, self.value(*left)?, self.value(*right)?)
            }
            Operation::PowerInteger(base, exponent) => {
                let exponent = self.value(*exponent)?.integer().unwrap_or(0);
                fold::power(self.value(*base)?, exponent)
            }
            Operation::Convert(operand) => fold::convert(expression.ty, self.value(*operand)?),
            Operation::Intrinsic(intrinsic, operands) => {
                let mut values = [Value::Logical(false); 3];
                for (value, operand) in values.iter_mut().zip(operands) {
                    *value = self.value(*operand)?;
                }
                fold::intrinsic(*intrinsic, expression.ty, &values[..operands.len().min(3)])
            }
            Operation::PowerReal(..)
            | Operation::Call(..)
            | Operation::LocalIndex(_)
            | Operation::GroupIndex(_) => None,
        };
        folded.and_then(std::result::Result::ok).ok_or_else(|| self.invalid(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tests::unit;

    #[test]
    fn slots_offsets_and_roles() {
        let text = "!@kernel(in=1, out=2)
subroutine f(i, y, n, d, x, k, s, flag)
integer, value :: i, n
real, intent(in) :: x
integer, intent(out) :: y(n, *)
real(8), value :: d
integer, value :: k
logical, value :: flag
real, intent(inout) :: s
!@reduce(+: s)
y(1, 1) = n + k
s = s + x
end subroutine
";
        let description = kernel(&unit(text).kernels[0]);
        let arguments = description.arguments.iter();
        let rows: Vec<_> =
            arguments.map(|it| (it.name.as_str(), it.role, it.slot, it.offset, it.rank)).collect();
        assert_eq!(
            rows,
            [
                ("i", ArgumentRole::Index, None, Some(0), 0),
                ("y", ArgumentRole::Array, Some(1), None, 2),
                ("n", ArgumentRole::Scalar, None, Some(4), 0),
                ("d", ArgumentRole::Scalar, None, Some(8), 0),
                ("x", ArgumentRole::Element, Some(0), None, 0),
                ("k", ArgumentRole::Scalar, None, Some(16), 0),
                ("s", ArgumentRole::Reduction, Some(2), None, 0),
                ("flag", ArgumentRole::Scalar, None, Some(20), 0),
            ]
        );
        assert_eq!(
            (description.parameter_bytes, description.inputs, description.outputs),
            (24, Some(1), Some(2))
        );
        let json = serde_json::to_value(&description).unwrap();
        assert_eq!(json["arguments"][1]["type"], "integer(int32)");
        assert_eq!(json["arguments"][6]["role"], "reduction");
    }

    #[test]
    fn extents_follow_the_scalars() {
        let text = "!@kernel
subroutine f(i, n, m, a, b, c)
integer, value :: i, n, m
real, intent(inout) :: a(0:n-1, m/2, *), b(:), c(-n:max(n, m))
a(0, 1, i) = b(1) + c(0)
end subroutine
";
        let unit = unit(text);
        let kernel = &unit.kernels[0];
        let at = |n: i32, m: i32, position: usize| {
            let scalars = [None, Some(Value::Int32(n)), Some(Value::Int32(m)), None, None, None];
            extents(&kernel.arguments, &kernel.code, position, &scalars, &[0, 0, 0, 0, 12, 0])
        };
        assert_eq!(at(5, 7, 3).unwrap(), [Some(5), Some(3), None]);
        assert_eq!(at(5, 7, 4).unwrap(), [Some(12)]);
        assert_eq!(at(5, 7, 5).unwrap(), [Some(13)]);
        assert_eq!(at(-5, 2, 3).unwrap(), [Some(0), Some(1), None]);
        assert_eq!(at(5, 7, 0).unwrap(), []);
        let error = at(i32::MIN, 7, 5).unwrap_err().to_string();
        assert!(error.contains("bound of an array"), "{error}");
    }
}
