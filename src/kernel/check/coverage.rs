//! Which buffers every point writes an element of.

use crate::kernel::tree::{
    Access, Action, Argument, ArgumentKind, Block, BufferShape, Code, ExpressionId, Operation, Place,
    Statement, Value,
};

/// Sets [`Buffer::written_by_every_point`](crate::kernel::tree::Buffer::written_by_every_point).
///
/// Only assignments outside branches and loops count, up to the first statement that may leave the kernel.
pub(super) fn mark(code: &Code, arguments: &mut [Argument], dims: usize, base: i32) {
    for id in &code.body {
        let Statement { action, .. } = code.statement(*id);
        match action {
            Action::Assign(place, _) => {
                let covers = covers(code, arguments, place, dims, base);
                let argument = arguments.iter_mut().find(|argument| argument.variable == place.variable);
                if let (true, Some(Argument { kind: ArgumentKind::Buffer(buffer), .. })) = (covers, argument)
                {
                    buffer.written_by_every_point = true;
                }
            }
            Action::Return => return,
            Action::If { branches, otherwise } => {
                if branches.iter().any(|(_, body)| returns(code, body)) || returns(code, otherwise) {
                    return;
                }
            }
            Action::Select { cases, otherwise, .. } => {
                if cases.iter().any(|case| returns(code, &case.body)) || returns(code, otherwise) {
                    return;
                }
            }
            Action::Do { body, .. } | Action::While { body, .. } => {
                if returns(code, body) {
                    return;
                }
            }
            Action::Exit(_) | Action::Cycle(_) | Action::Barrier | Action::Call(..) | Action::Reduce(..) => {}
        }
    }
}

/// Whether a block has a `return`. Its depth is limited.
fn returns(code: &Code, block: &Block) -> bool {
    block.iter().any(|id| match &code.statement(*id).action {
        Action::Return => true,
        Action::If { branches, otherwise } => {
            branches.iter().any(|(_, body)| returns(code, body)) || returns(code, otherwise)
        }
        Action::Select { cases, otherwise, .. } => {
            cases.iter().any(|case| returns(code, &case.body)) || returns(code, otherwise)
        }
        Action::Do { body, .. } | Action::While { body, .. } => returns(code, body),
        _ => false,
    })
}

/// Whether a place is the point's own element.
fn covers(code: &Code, arguments: &[Argument], place: &Place, dims: usize, base: i32) -> bool {
    let Some(argument) = arguments.iter().find(|argument| argument.variable == place.variable) else {
        return false;
    };
    let ArgumentKind::Buffer(buffer) = &argument.kind else { return false };
    match (&place.access, &buffer.shape) {
        (Access::Own, _) => true,
        (Access::Linear(at), _) => dims == 1 && base == 0 && offset(code, arguments, *at, 0) == Some(0),
        (Access::Subscripts(subscripts), BufferShape::Array(dimensions)) => {
            subscripts.len() == dims
                && subscripts.iter().zip(dimensions).enumerate().all(|(axis, (subscript, dimension))| {
                    let lower = code.constant(dimension.lower).and_then(Value::integer);
                    let offset = offset(code, arguments, *subscript, axis);
                    lower.zip(offset).is_some_and(|(lower, offset)| lower == i64::from(base) + offset)
                })
        }
        _ => false,
    }
}

/// What a subscript adds to the index argument of an axis, if it is that index and a constant.
fn offset(code: &Code, arguments: &[Argument], subscript: ExpressionId, axis: usize) -> Option<i64> {
    match &code.expression(subscript).operation {
        Operation::Load(place) => {
            (place.access == Access::Scalar && place.variable == arguments.get(axis)?.variable).then_some(0)
        }
        Operation::Binary(crate::kernel::tree::Operator::Add, one, other) => {
            let constant = |id: &ExpressionId| code.constant(*id).and_then(Value::integer);
            match (constant(one), constant(other)) {
                (None, Some(constant)) => Some(offset(code, arguments, *one, axis)? + constant),
                (Some(constant), None) => Some(offset(code, arguments, *other, axis)? + constant),
                _ => None,
            }
        }
        Operation::Binary(crate::kernel::tree::Operator::Subtract, one, other) => {
            let constant = code.constant(*other).and_then(Value::integer)?;
            Some(offset(code, arguments, *one, axis)? - constant)
        }
        _ => None,
    }
}
