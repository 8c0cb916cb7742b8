//! Elements of arrays: where they are, whether they exist and have a value, and who else accesses them.

use super::findings::{self, What};
use super::shadow::Accessor;
use super::{Checker, Frame, Result};
use crate::kernel::bind::Elements;
use crate::kernel::span::Span;
use crate::kernel::tree::{Access, ArgumentKind, Code, Place, StatementId, Type, Value, VariableKind};

/// What a place is for the current point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The scalar itself.
    Scalar,
    /// An element, by its position in memory.
    Element(usize),
    /// No element. This has been reported.
    Outside,
}

/// The node of an access: its index, and whether it is an expression and no statement.
pub(super) type Node = (u32, bool);

/// The bit of a record's place that says that it is an expression.
const IS_EXPRESSION: u32 = 1 << 31;

fn read_element(elements: &Elements, ty: Type, at: usize) -> Value {
    debug_assert!(at < elements.len);
    // SAFETY: callers pass a position below the length. The launch borrows the memory, which is valid for reads,
    // aligned and initialised; this thread alone uses it. `Launch::new` has checked the elements' type.
    unsafe {
        match ty {
            Type::Int32 => Value::Int32(*elements.address.cast::<i32>().add(at)),
            Type::Int64 => Value::Int64(*elements.address.cast::<i64>().add(at)),
            Type::Real32 => Value::Real32(*elements.address.cast::<f32>().add(at)),
            Type::Real64 => Value::Real64(*elements.address.cast::<f64>().add(at)),
            Type::Logical => Value::Logical(*elements.address.cast::<i32>().add(at) != 0),
        }
    }
}

fn write_element(elements: &Elements, at: usize, value: Value) {
    debug_assert!(at < elements.len && elements.is_writable);
    // SAFETY: callers pass a position below the length, of an array that the kernel writes, which `Launch::new` has
    // checked to be writable. The launch borrows the memory, and this thread alone uses it. The value has the type of
    // the elements, since the tree's assignments have their target's type.
    unsafe {
        match value {
            Value::Int32(value) => elements.address.cast::<i32>().add(at).write(value),
            Value::Int64(value) => elements.address.cast::<i64>().add(at).write(value),
            Value::Real32(value) => elements.address.cast::<f32>().add(at).write(value),
            Value::Real64(value) => elements.address.cast::<f64>().add(at).write(value),
            Value::Logical(value) => elements.address.cast::<i32>().add(at).write(value.into()),
        }
    }
}

impl<'l> Checker<'l> {
    /// The slot of a buffer.
    fn slot(&self, code: &Code, place: &Place) -> Option<usize> {
        match code.variable(place.variable).kind {
            VariableKind::Argument(position) => match &self.kernel.arguments.get(position)?.kind {
                ArgumentKind::Buffer(buffer) => Some(buffer.slot),
                _ => None,
            },
            _ => None,
        }
    }

    /// Where a place is. One that does not exist is reported.
    pub(super) fn target(&mut self, code: &'l Code, place: &Place, frame: &mut Frame) -> Result<Target> {
        match &place.access {
            Access::Scalar => Ok(Target::Scalar),
            Access::Own => Ok(self.in_buffer(code, place, self.point.linear as i64)),
            Access::Linear(id) => {
                let at = super::values::integer(self.value(code, *id, frame)?);
                Ok(self.in_buffer(code, place, at))
            }
            Access::Subscripts(subscripts) => {
                let mut all = [0i64; crate::kernel::tree::MAX_RANK];
                for (to, id) in all.iter_mut().zip(subscripts) {
                    *to = super::values::integer(self.value(code, *id, frame)?);
                }
                Ok(self.subscripted(code, place, &all[..subscripts.len()]))
            }
        }
    }

    /// An element of a buffer by its position.
    fn in_buffer(&mut self, code: &Code, place: &Place, at: i64) -> Target {
        let len = self.slot(code, place).map_or(0, |slot| self.launch.buffers()[slot].len);
        match usize::try_from(at) {
            Ok(at) if at < len => Target::Element(at),
            _ => {
                let name = &code.variable(place.variable).name;
                let what = format!("element {at} of `{name}`, whose {len} elements are counted from 0");
                self.outside(code, place, what)
            }
        }
    }

    /// An element of an array by its subscripts.
    fn subscripted(&mut self, code: &Code, place: &Place, subscripts: &[i64]) -> Target {
        let variable = code.variable(place.variable);
        let slot = self.slot(code, place);
        let (mut at, mut stride) = (0i128, 1i128);
        for (axis, subscript) in subscripts.iter().enumerate() {
            let (lower, extent) = match (&variable.kind, slot) {
                (VariableKind::Private(fixed) | VariableKind::Shared(fixed), _) => {
                    (fixed[axis].lower, Some(u64::from(fixed[axis].extent)))
                }
                (_, Some(slot)) => self.shapes[slot][axis],
                _ => (0, None),
            };
            let lower = i64::from(lower);
            let offset = i128::from(*subscript) - i128::from(lower);
            if offset < 0 || extent.is_some_and(|extent| offset >= i128::from(extent)) {
                let upper =
                    extent.map_or("*".to_owned(), |it| (i128::from(lower) + i128::from(it) - 1).to_string());
                let name = &variable.name;
                let which = if subscripts.len() == 1 {
                    format!("the subscript of `{name}`")
                } else {
                    format!("subscript {} of `{name}`", axis + 1)
                };
                return self.outside(
                    code,
                    place,
                    format!("{which} is {subscript}, its bounds are {lower}:{upper}"),
                );
            }
            at += offset * stride;
            stride *= extent.map_or(1, i128::from);
        }
        let len = match (&variable.kind, slot) {
            (_, Some(slot)) => self.launch.buffers()[slot].len as i128,
            _ => stride,
        };
        if at >= len {
            let (name, subscripts) = (&variable.name, findings::list(subscripts));
            let what = format!("`{name}({subscripts})` is element {} of {len}", at + 1);
            return self.outside(code, place, what);
        }
        Target::Element(at as usize)
    }

    fn outside(&mut self, code: &Code, place: &Place, what: String) -> Target {
        self.report(
            What::Outside,
            place.span,
            what,
            Some((code.variable(place.variable).span, "declared here")),
        );
        Target::Outside
    }

    /// The value of a place. One that has none, or should not be read now, is reported.
    pub(super) fn load(
        &mut self,
        code: &'l Code,
        place: &Place,
        target: Target,
        node: Node,
        frame: &mut Frame,
    ) -> Option<Value> {
        let value = self.look(code, place, target, node, frame);
        if value.is_none() && target != Target::Outside {
            let variable = code.variable(place.variable);
            let what = match target {
                Target::Element(at) => format!("{} has no value yet", self.named(code, place, at)),
                _ => format!("`{}` has no value yet", variable.name),
            };
            self.report(What::NoValue, place.span, what, Some((variable.span, "declared here")));
        }
        value
    }

    /// The value that a subroutine takes with `intent(inout)`, which may be none.
    pub(super) fn taken(
        &mut self,
        code: &'l Code,
        place: &Place,
        target: Target,
        id: StatementId,
        frame: &mut Frame,
    ) -> Option<Value> {
        self.look(code, place, target, (id.0, false), frame)
    }

    fn look(
        &mut self,
        code: &'l Code,
        place: &Place,
        target: Target,
        node: Node,
        frame: &mut Frame,
    ) -> Option<Value> {
        let index = place.variable.0 as usize;
        let variable = code.variable(place.variable);
        match (target, &variable.kind) {
            (Target::Outside, _) => None,
            (Target::Scalar, VariableKind::Argument(position)) => self.argument(*position),
            (Target::Scalar, _) => frame.scalars[index],
            (Target::Element(at), VariableKind::Private(_)) => frame.arrays[index][at],
            (Target::Element(at), VariableKind::Shared(_)) => {
                let by = self.accessor(node);
                let array = self.shared[index].as_mut()?;
                let other = array.shadow.read(at, by);
                let group = self.point.group + 1;
                let value = (array.defined[at] == group).then(|| array.values[at]);
                if let Some(other) = other {
                    self.race(code, place, (at, "reads"), node, other);
                }
                value
            }
            (Target::Element(at), _) => {
                let slot = self.slot(code, place)?;
                let by = self.accessor(node);
                let array = &mut self.buffers[slot];
                let other = array.shadow.as_mut().and_then(|shadow| shadow.read(at, by));
                let is_defined = array.defined.get(at).is_none_or(|it| *it != 0);
                if let Some(other) = other {
                    self.race(code, place, (at, "reads"), node, other);
                }
                is_defined.then(|| read_element(&self.launch.buffers()[slot], variable.ty, at))
            }
        }
    }

    /// Stores a value, or that there is none.
    pub(super) fn store(
        &mut self,
        code: &'l Code,
        place: &Place,
        target: Target,
        node: Node,
        frame: &mut Frame,
        value: Option<Value>,
    ) {
        let index = place.variable.0 as usize;
        match (target, &code.variable(place.variable).kind) {
            (Target::Outside, _) => {}
            (Target::Scalar, _) => frame.scalars[index] = value,
            (Target::Element(at), VariableKind::Private(_)) => frame.arrays[index][at] = value,
            (Target::Element(at), VariableKind::Shared(_)) => {
                let (by, group) = (self.accessor(node), self.point.group + 1);
                let Some(array) = self.shared[index].as_mut() else { return };
                let other = array.shadow.write(at, by);
                array.defined[at] = if value.is_some() { group } else { 0 };
                array.values[at] = value.unwrap_or(array.values[at]);
                if let Some(other) = other {
                    self.race(code, place, (at, "writes"), node, other);
                }
            }
            (Target::Element(at), _) => {
                let Some(slot) = self.slot(code, place) else { return };
                let by = self.accessor(node);
                let array = &mut self.buffers[slot];
                let other = array.shadow.as_mut().and_then(|shadow| shadow.write(at, by));
                if let Some(defined) = array.defined.get_mut(at) {
                    *defined = value.is_some().into();
                }
                if let Some(value) = value {
                    write_element(&self.launch.buffers()[slot], at, value);
                }
                if let Some(other) = other {
                    self.race(code, place, (at, "writes"), node, other);
                }
            }
        }
    }

    /// The current point, as one that accesses an element at a node.
    fn accessor(&self, (node, is_expression): Node) -> Accessor {
        let place = if is_expression { node | IS_EXPRESSION } else { node };
        Accessor { record: [self.point.number + 1, self.phase, place], group_size: self.group_size }
    }

    /// The source of a record's node.
    pub(super) fn span_of(&self, code: &Code, node: u32) -> Span {
        if node & IS_EXPRESSION != 0 {
            return code
                .expressions
                .get((node & !IS_EXPRESSION) as usize)
                .map_or(Span::default(), |it| it.span);
        }
        let Some(statement) = code.statements.get(node as usize) else { return Span::default() };
        match &statement.action {
            crate::kernel::tree::Action::Assign(place, _) => place.span,
            _ => statement.span,
        }
    }

    /// An element, with its subscripts.
    pub(super) fn named(&self, code: &Code, place: &Place, at: usize) -> String {
        let variable = code.variable(place.variable);
        let bounds: Vec<(i32, Option<u64>)> = match (&variable.kind, self.slot(code, place)) {
            (VariableKind::Private(fixed) | VariableKind::Shared(fixed), _) => {
                fixed.iter().map(|it| (it.lower, Some(u64::from(it.extent)))).collect()
            }
            (_, Some(slot)) => self.shapes[slot].clone(),
            _ => Vec::new(),
        };
        if bounds.is_empty() {
            return format!("element {at} of `{}`", variable.name);
        }
        let mut rest = at as u64;
        let subscripts = bounds.iter().map(|(lower, extent)| {
            let extent = extent.unwrap_or(u64::MAX).max(1);
            let subscript = i64::from(*lower) + (rest % extent) as i64;
            rest /= extent;
            subscript
        });
        let subscripts: Vec<i64> = subscripts.collect();
        format!("`{}({})`", variable.name, findings::list(&subscripts))
    }
}
