//! Elements of arrays, and targets of assignments.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Argument, Expression, ExpressionKind, Name};
use crate::kernel::tree::{
    Access, ArgumentKind, BufferShape, ExpressionId, Intent, Place, Type, Value, VariableId, VariableKind,
};

use super::Checker;
use super::scope::Meaning;

impl<'a> Checker<'a, '_, '_> {
    /// A variable or element.
    pub(super) fn place(&mut self, expression: &Expression<'a>) -> Step<Place> {
        let span = expression.span;
        match &expression.kind {
            ExpressionKind::Name(name) => {
                let id = self.variable_of(*name)?;
                self.whole(id, name.span)
            }
            ExpressionKind::Call(name, arguments) => {
                let id = self.variable_of(*name)?;
                self.element(id, *name, arguments, span)
            }
            ExpressionKind::Bracket(name, subscripts) => {
                let id = self.variable_of(*name)?;
                self.bracket(id, *name, subscripts, span)
            }
            _ => self.error(Message::NotAssignable, span, "a variable or element must stand here"),
        }
    }

    /// The variable of a name.
    pub(super) fn variable_of(&mut self, name: Name<'a>) -> Step<VariableId> {
        let entry = self.state.scope.find(name.text).copied();
        match entry.map(|entry| (entry.meaning, entry.span)) {
            Some((Meaning::Variable(id), _)) => Ok(id),
            Some((Meaning::Broken, _)) => Err(super::super::diagnostics::Stop::Reported),
            Some((Meaning::Constant(_), span)) => {
                let message = format!("the constant `{}` cannot be changed", name.text);
                let diagnostic = Diagnostic::new(Message::NotAssignable, name.span, message);
                self.sink.fail(diagnostic.second(span, "declared here"))
            }
            Some(_) => {
                let message = format!("`{}` is not a variable", name.text);
                self.error(Message::NotAssignable, name.span, message)
            }
            None if self.context.procedure(name.text).is_some() => {
                let message = format!("`{}` is a procedure, not a variable", name.text);
                self.error(Message::NotAssignable, name.span, message)
            }
            None => self.undeclared(name),
        }
    }

    /// `name[...]`.
    fn bracket(
        &mut self,
        id: VariableId,
        name: Name<'a>,
        subscripts: &[Expression<'a>],
        span: Span,
    ) -> Step<Place> {
        if !matches!(self.buffer_shape(id), Some(BufferShape::Element { .. })) {
            let message = format!("`[...]` belongs to buffers without a shape, and `{}` is none", name.text);
            let diagnostic = Diagnostic::new(Message::NotAnArray, span, message);
            let diagnostic = diagnostic.second(self.state.code.variable(id).span, "declared here");
            return self.sink.fail(diagnostic.help(format!("write `{}(...)`", name.text)));
        }
        let [subscript] = subscripts else {
            return self.subscript_count(id, subscripts.len(), 1, span);
        };
        let subscript = self.subscript(subscript)?;
        self.linear(id, subscript, span)
    }

    /// The element of a buffer without shape at a position.
    fn linear(&mut self, id: VariableId, position: ExpressionId, span: Span) -> Step<Place> {
        if let Some(reduction) = self.state.reductions.iter().position(|it| it.variable == id) {
            return self.reduction_misuse(reduction, span);
        }
        if let Some(Value::Int32(at)) = self.state.code.constant(position)
            && at < 0
        {
            let message = format!("position {at} of `{}` is below 0", self.state.code.variable(id).name);
            return self.error(Message::SubscriptRange, self.span(position), message);
        }
        self.state.is_legacy = true;
        Ok(Place { variable: id, access: Access::Linear(position), span })
    }

    fn subscript_count<T>(&mut self, id: VariableId, given: usize, expected: usize, span: Span) -> Step<T> {
        let variable = self.state.code.variable(id);
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let message = format!(
            "`{}` has {expected} dimension{}, but {given} subscript{} stand{} here",
            variable.name,
            plural(expected),
            plural(given),
            if given == 1 { "s" } else { "" },
        );
        let diagnostic = Diagnostic::new(Message::SubscriptCount, span, message);
        let diagnostic = diagnostic.second(variable.span, "declared here");
        self.sink.fail(diagnostic)
    }

    /// `name(...)` of a variable.
    pub(super) fn element(
        &mut self,
        id: VariableId,
        name: Name<'a>,
        arguments: &[Argument<'a>],
        span: Span,
    ) -> Step<Place> {
        if let Some(keyword) = arguments.iter().find_map(|argument| argument.keyword) {
            let message = format!("`{}` is a variable; subscripts have no names", name.text);
            return self.error(Message::UnknownKeyword, keyword.span, message);
        }
        let rank = match (&self.state.code.variable(id).kind, self.buffer_shape(id)) {
            (_, Some(BufferShape::Element { .. } | BufferShape::Reduction(_))) => {
                let [argument] = arguments else {
                    return self.subscript_count(id, arguments.len(), 1, span);
                };
                let position = self.subscript(&argument.value)?;
                return self.linear(id, position, span);
            }
            (_, Some(BufferShape::Array(dimensions))) => dimensions.len(),
            (VariableKind::Private(fixed) | VariableKind::Shared(fixed), _) => fixed.len(),
            _ => {
                let message = format!("`{}` is a scalar and has no elements", name.text);
                let diagnostic = Diagnostic::new(Message::NotAnArray, name.span, message);
                let diagnostic = diagnostic.second(self.state.code.variable(id).span, "declared here");
                return self.sink.fail(diagnostic);
            }
        };
        if arguments.len() != rank {
            return self.subscript_count(id, arguments.len(), rank, span);
        }
        let mut subscripts = Vec::new();
        for (axis, argument) in arguments.iter().enumerate() {
            let subscript = self.subscript(&argument.value)?;
            self.in_range(id, axis, subscript)?;
            subscripts.push(subscript);
        }
        Ok(Place { variable: id, access: Access::Subscripts(subscripts), span })
    }

    /// A subscript as an `Int32`.
    fn subscript(&mut self, subscript: &Expression<'a>) -> Step<ExpressionId> {
        let id = self.expression(subscript)?;
        if !self.ty(id).is_integer() {
            let message = "a subscript must be an integer";
            let diagnostic = Diagnostic::new(Message::SubscriptType, subscript.span, message);
            let label = format!("this is {}", self.ty(id).fortran());
            return self.sink.fail(diagnostic.label(label));
        }
        self.converted(id, Type::Int32, Message::SubscriptType, "a subscript")
    }

    /// A constant subscript must be within constant bounds.
    fn in_range(&mut self, id: VariableId, axis: usize, subscript: ExpressionId) -> Step<()> {
        let Some(at) = self.state.code.constant(subscript).and_then(Value::integer) else { return Ok(()) };
        let constant = |id| self.state.code.constant(id).and_then(Value::integer);
        let (lower, extent) = match (&self.state.code.variable(id).kind, self.buffer_shape(id)) {
            (VariableKind::Private(fixed) | VariableKind::Shared(fixed), _) => {
                (Some(fixed[axis].lower.into()), Some(i64::from(fixed[axis].extent)))
            }
            (_, Some(BufferShape::Array(dimensions))) => {
                (constant(dimensions[axis].lower), dimensions[axis].extent.and_then(constant))
            }
            _ => return Ok(()),
        };
        let Some(lower) = lower else { return Ok(()) };
        let upper = extent.map(|extent| lower + extent - 1);
        if at >= lower && upper.is_none_or(|upper| at <= upper) {
            return Ok(());
        }
        let variable = self.state.code.variable(id);
        let range = match upper {
            Some(upper) => format!("{lower} to {upper}"),
            None => format!("{lower} upwards"),
        };
        let message = format!(
            "subscript {at} is outside the bounds of `{}`: dimension {} goes from {range}",
            variable.name,
            axis + 1
        );
        let diagnostic = Diagnostic::new(Message::SubscriptRange, self.span(subscript), message);
        let diagnostic = diagnostic.second(variable.span, "declared here");
        self.sink.fail(diagnostic)
    }

    /// Notes that a place is changed, unless it must not be.
    pub(super) fn assignable(&mut self, place: &Place) -> Step<()> {
        let id = place.variable;
        let variable = self.state.code.variable(id);
        let (declared, name) = (variable.span, variable.name.clone());
        let reason = match &variable.kind {
            VariableKind::Local | VariableKind::Private(_) | VariableKind::Shared(_) => None,
            VariableKind::Dummy(Intent::In) => Some("is passed in"),
            VariableKind::Dummy(_) => None,
            VariableKind::Argument(position) => {
                match self.state.arguments[*position].as_ref().map(|argument| &argument.kind) {
                    Some(ArgumentKind::Buffer(buffer)) if buffer.intent == Intent::In => {
                        Some("is intent(in)")
                    }
                    Some(ArgumentKind::Buffer(_)) | None => None,
                    Some(ArgumentKind::Index(_)) => Some("is an index"),
                    Some(ArgumentKind::Scalar) => Some("is passed by value"),
                }
            }
        };
        if let Some(reason) = reason {
            let message = format!("`{name}` {reason} and cannot be changed");
            let diagnostic = Diagnostic::new(Message::NotAssignable, place.span, message);
            let diagnostic = diagnostic.second(declared, "declared here");
            return self.sink.fail(diagnostic.help("copy it to a local variable"));
        }
        let counted = self.state.loops.iter().find_map(|it| it.variable.filter(|(it, _)| *it == id));
        if let Some((_, span)) = counted {
            let message = format!("`{name}` counts a loop and cannot be changed in it");
            let diagnostic = Diagnostic::new(Message::NotAssignable, place.span, message);
            return self.sink.fail(diagnostic.second(span, "the loop begins here"));
        }
        self.usage(id).is_written = true;
        Ok(())
    }
}
