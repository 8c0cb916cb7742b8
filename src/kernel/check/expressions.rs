//! Expressions: literals, names, elements and calls.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step, suggestion};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Argument, BaseType, Expression, ExpressionKind, Name, Unary};
use crate::kernel::tree::{
    Access, ArgumentKind, BufferShape, ExpressionId, Intrinsic, Operation, Place, Type, Value, VariableId,
    VariableKind,
};

use super::kinds::{WORKGROUP_MODULE, module_of, standard_kind};
use super::scope::{Meaning, Special};
use super::{Checker, Role};

impl<'a> Checker<'a, '_, '_> {
    /// An expression with its type.
    pub(super) fn expression(&mut self, expression: &Expression<'a>) -> Step<ExpressionId> {
        let span = expression.span;
        match &expression.kind {
            ExpressionKind::Integer(text) => self.integer(text, span, false),
            ExpressionKind::Real(text) => self.real(text, span),
            ExpressionKind::Boz(_) => {
                let message = "a binary, octal or hexadecimal constant has no type";
                let diagnostic = Diagnostic::new(Message::BozPlace, span, message);
                self.sink.fail(diagnostic.help("write it within `int(...)` or `real(...)`"))
            }
            ExpressionKind::Logical(value) => self.constant(Value::Logical(*value), span),
            ExpressionKind::Name(name) => self.name(*name),
            ExpressionKind::Call(name, arguments) => self.call(*name, arguments, span),
            ExpressionKind::Bracket(..) => {
                let place = self.place(expression)?;
                self.load(place)
            }
            ExpressionKind::Unary(Unary::Minus, operand) => match operand.kind {
                // The smallest integer has no positive counterpart.
                ExpressionKind::Integer(text) => self.integer(text, span, true),
                _ => {
                    let operand = self.expression(operand)?;
                    self.unary(Unary::Minus, operand, span)
                }
            },
            ExpressionKind::Unary(operator, operand) => {
                let operand = self.expression(operand)?;
                self.unary(*operator, operand, span)
            }
            ExpressionKind::Binary(operator, at, left, right) => {
                let left = self.expression(left)?;
                let right = self.expression(right)?;
                self.binary(*operator, *at, left, right, span)
            }
        }
    }

    pub(super) fn constant(&mut self, value: Value, span: Span) -> Step<ExpressionId> {
        self.emit(Operation::Constant(value), value.ty(), span)
    }

    /// The bytes that a literal's suffix `_kind` means.
    fn suffix(&mut self, kind: &str, span: Span) -> Step<i64> {
        if let Ok(bytes) = kind.parse::<i64>() {
            return Ok(bytes);
        }
        let known = self.state.scope.find(kind).map(|entry| entry.meaning);
        match known {
            Some(Meaning::Constant(Value::Int32(bytes))) => Ok(bytes.into()),
            Some(Meaning::Broken) => Err(super::super::diagnostics::Stop::Reported),
            Some(_) => self.error(Message::UnsupportedKind, span, format!("`{kind}` is not a kind")),
            None => match standard_kind(kind) {
                Some(bytes) => Ok(bytes.into()),
                None => self.error(Message::UnsupportedKind, span, format!("`{kind}` is not a kind")),
            },
        }
    }

    fn integer(&mut self, text: &str, span: Span, is_negative: bool) -> Step<ExpressionId> {
        let (digits, kind) = text.split_once('_').map_or((text, None), |(digits, kind)| (digits, Some(kind)));
        let ty = match kind {
            Some(kind) => {
                let bytes = self.suffix(kind, span)?;
                self.kind_type(BaseType::Integer, bytes, span)?
            }
            None => Type::Int32,
        };
        let number = digits.parse::<i128>().ok().map(|number| if is_negative { -number } else { number });
        let value = number.and_then(|number| crate::kernel::fold::integer(ty, number).ok());
        match value {
            Some(value) => self.constant(value, span),
            None => {
                let message = format!("{} does not fit {}", crate::error::clipped(digits), ty.fortran());
                let diagnostic = Diagnostic::new(Message::LiteralRange, span, message);
                match ty {
                    Type::Int32 => self.sink.fail(diagnostic.help("`_int64` after it makes it longer")),
                    _ => self.sink.fail(diagnostic),
                }
            }
        }
    }

    fn real(&mut self, text: &str, span: Span) -> Step<ExpressionId> {
        let (digits, kind) = text.split_once('_').map_or((text, None), |(digits, kind)| (digits, Some(kind)));
        let is_double = digits.contains(['d', 'D']);
        let ty = match kind {
            Some(_) if is_double => {
                return self.error(
                    Message::MalformedNumber,
                    span,
                    "a number with the exponent `d` has a kind, too",
                );
            }
            Some(kind) => {
                let bytes = self.suffix(kind, span)?;
                self.kind_type(BaseType::Real, bytes, span)?
            }
            None if is_double => Type::Real64,
            None => Type::Real32,
        };
        let digits = digits.replace(['d', 'D'], "e");
        let value = match ty {
            Type::Real64 => digits.parse().ok().filter(|it: &f64| it.is_finite()).map(Value::Real64),
            _ => digits.parse().ok().filter(|it: &f32| it.is_finite()).map(Value::Real32),
        };
        match value {
            Some(value) => self.constant(value, span),
            None => {
                let message = format!("{} does not fit {}", crate::error::clipped(text), ty.fortran());
                self.error(Message::LiteralRange, span, message)
            }
        }
    }

    fn name(&mut self, name: Name<'a>) -> Step<ExpressionId> {
        let meaning = self.state.scope.find(name.text).map(|entry| entry.meaning);
        match meaning {
            Some(Meaning::Variable(id)) => {
                let place = self.whole(id, name.span)?;
                self.load(place)
            }
            Some(Meaning::Constant(value)) => self.constant(value, name.span),
            Some(Meaning::Broken) => Err(super::super::diagnostics::Stop::Reported),
            Some(Meaning::Dummy(_) | Meaning::Result) => {
                let message = format!("`{}` is used before its declaration", name.text);
                self.error(Message::Undeclared, name.span, message)
            }
            Some(Meaning::Special(_)) => {
                let message = format!("`{}` is a procedure; it needs arguments", name.text);
                self.error(Message::NotAFunction, name.span, message)
            }
            None => {
                if let Some(bytes) = standard_kind(name.text) {
                    return self.constant(Value::Int32(bytes), name.span);
                }
                if self.context.procedure(name.text).is_some() {
                    let message = format!("`{}` is a procedure; it needs arguments", name.text);
                    return self.error(Message::NotAFunction, name.span, message);
                }
                self.undeclared(name)
            }
        }
    }

    /// An error about a name that nothing declares. Further uses are not reported.
    pub(super) fn undeclared<T>(&mut self, name: Name<'a>) -> Step<T> {
        let message = format!("`{}` is not declared", name.text);
        let diagnostic = Diagnostic::new(Message::Undeclared, name.span, message);
        let near = suggestion(name.text, self.state.scope.names());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "the language has no implicit typing".to_owned(),
        };
        self.state.scope.insert(name.text, name.span, Meaning::Broken)?;
        if self.state.is_incomplete {
            return Err(crate::kernel::diagnostics::Stop::Reported);
        }
        self.sink.fail(diagnostic.help(help))
    }

    /// The value of a place.
    pub(super) fn load(&mut self, place: Place) -> Step<ExpressionId> {
        let span = place.span;
        let variable = self.state.code.variable(place.variable);
        let (ty, name) = (variable.ty, variable.name.clone());
        if self.state.in_bounds && !self.is_scalar_argument(place.variable) {
            let message = format!("`{name}` cannot be used in bounds");
            let diagnostic = Diagnostic::new(Message::InvalidBounds, span, message)
                .second(self.state.code.variable(place.variable).span, "declared here");
            return self.sink.fail(diagnostic.help("bounds use constants and scalar dummies with `value`"));
        }
        self.usage(place.variable).is_read = true;
        self.emit(Operation::Load(place), ty, span)
    }

    fn is_scalar_argument(&self, id: VariableId) -> bool {
        match self.state.code.variable(id).kind {
            VariableKind::Argument(position) => {
                let argument = self.state.arguments[position].as_ref();
                argument.is_some_and(|argument| argument.kind == ArgumentKind::Scalar)
            }
            _ => false,
        }
    }

    /// The shape of a buffer, if the variable is one.
    pub(super) fn buffer_shape(&self, id: VariableId) -> Option<&BufferShape> {
        match self.state.code.variable(id).kind {
            VariableKind::Argument(position) => match &self.state.arguments[position].as_ref()?.kind {
                ArgumentKind::Buffer(buffer) => Some(&buffer.shape),
                _ => None,
            },
            _ => None,
        }
    }

    /// `name(...)`: an element, a function of the file, or an intrinsic.
    fn call(&mut self, name: Name<'a>, arguments: &[Argument<'a>], span: Span) -> Step<ExpressionId> {
        let meaning = self.state.scope.find(name.text).map(|entry| entry.meaning);
        match meaning {
            Some(Meaning::Variable(id)) => {
                if self.is_own_result(id) && self.context.procedure(name.text).is_some() {
                    let message = format!("`{}` calls itself", name.text);
                    return self.error(Message::Recursion, name.span, message);
                }
                let place = self.element(id, name, arguments, span)?;
                return self.load(place);
            }
            Some(Meaning::Constant(_)) => {
                let message = format!("`{}` is a constant and has no elements", name.text);
                return self.error(Message::NotAnArray, name.span, message);
            }
            Some(Meaning::Special(special)) => return self.special(special, name, arguments, span),
            Some(Meaning::Broken) => return Err(super::super::diagnostics::Stop::Reported),
            Some(Meaning::Dummy(_) | Meaning::Result) => {
                let message = format!("`{}` is used before its declaration", name.text);
                return self.error(Message::Undeclared, name.span, message);
            }
            None => {}
        }
        if let Some(index) = self.context.procedure(name.text) {
            return self.function_call(index, name, arguments, span);
        }
        if let Some(result) = self.intrinsic(name, arguments, span) {
            return result;
        }
        let message = format!("`{}` is neither an array nor a function", name.text);
        let diagnostic = Diagnostic::new(Message::UnknownProcedure, name.span, message);
        if let Some(module) = module_of(name.text) {
            return self.sink.fail(diagnostic.help(format!("add `use {module}`")));
        }
        let functions = self.context.signatures.iter().map(|it| it.name);
        let known = self.state.scope.names().chain(functions).chain(super::intrinsics::NAMES.iter().copied());
        match suggestion(name.text, known) {
            Some(near) => self.sink.fail(diagnostic.help(format!("did you mean `{near}`?"))),
            None => self.sink.fail(diagnostic),
        }
    }

    fn is_own_result(&self, id: VariableId) -> bool {
        self.state.role == Role::Procedure && self.state.result == Some(id)
    }

    /// `local_index(1)`, `group_index(1)`, `ieee_is_nan(x)`.
    fn special(
        &mut self,
        special: Special,
        name: Name<'a>,
        arguments: &[Argument<'a>],
        span: Span,
    ) -> Step<ExpressionId> {
        let [argument] = arguments else {
            let message = format!("`{}` has one argument", name.text);
            return self.error(Message::IntrinsicArguments, span, message);
        };
        if let Some(keyword) = argument.keyword {
            let message = format!("`{}` has no argument named `{}`", name.text, keyword.text);
            return self.error(Message::UnknownKeyword, keyword.span, message);
        }
        if special == Special::Barrier {
            let message = "`barrier` is a subroutine";
            let diagnostic = Diagnostic::new(Message::NotAFunction, name.span, message);
            return self.sink.fail(diagnostic.help("write `call barrier()`"));
        }
        let id = self.expression(&argument.value)?;
        if special == Special::IsNan {
            if !self.ty(id).is_real() {
                return self.operand(id, "`ieee_is_nan` needs a real argument");
            }
            return self.emit(Operation::Intrinsic(Intrinsic::IsNan, vec![id]), Type::Logical, span);
        }
        self.workgroup(name.span)?;
        let axis = self.state.code.constant(id).and_then(Value::integer);
        match axis.filter(|axis| (1..=3).contains(axis)) {
            Some(axis) => {
                let axis = axis as usize - 1;
                let operation = match special {
                    Special::LocalIndex => Operation::LocalIndex(axis),
                    _ => Operation::GroupIndex(axis),
                };
                self.emit(operation, Type::Int32, span)
            }
            None => {
                let message = format!("the argument of `{}` is the constant 1, 2 or 3", name.text);
                let diagnostic = Diagnostic::new(Message::IntrinsicArguments, argument.value.span, message);
                self.sink.fail(diagnostic.help(format!("it is a procedure of `{WORKGROUP_MODULE}`")))
            }
        }
    }

    /// An error about the type of an operand.
    pub(super) fn operand<T>(&mut self, id: ExpressionId, message: impl Into<String>) -> Step<T> {
        let (span, ty) = (self.span(id), self.ty(id));
        let diagnostic = Diagnostic::new(Message::OperandType, span, message);
        self.sink.fail(diagnostic.label(format!("this is {}", ty.fortran())))
    }

    /// The whole of a variable: a scalar, or a buffer's own element.
    pub(super) fn whole(&mut self, id: VariableId, span: Span) -> Step<Place> {
        let variable = self.state.code.variable(id);
        let (declared, name) = (variable.span, variable.name.clone());
        let access = match (&variable.kind, self.buffer_shape(id)) {
            (_, Some(BufferShape::Element { .. })) => {
                if let Some(reduction) = self.state.reductions.iter().position(|it| it.variable == id) {
                    return self.reduction_misuse(reduction, span);
                }
                if self.state.in_bounds {
                    // `load` says why this is wrong.
                    Access::Scalar
                } else {
                    self.usage(id).own.get_or_insert(span);
                    Access::Own
                }
            }
            (_, Some(BufferShape::Reduction(reduction))) => {
                let reduction = *reduction;
                return self.reduction_misuse(reduction, span);
            }
            (VariableKind::Private(_) | VariableKind::Shared(_), _) | (_, Some(BufferShape::Array(_))) => {
                let message = format!("`{name}` is an array; an element must stand here");
                let diagnostic = Diagnostic::new(Message::WholeArray, span, message);
                let diagnostic = diagnostic.second(declared, "declared here");
                return self.sink.fail(diagnostic.help(format!("write `{name}(...)`")));
            }
            _ => Access::Scalar,
        };
        Ok(Place { variable: id, access, span })
    }
}
