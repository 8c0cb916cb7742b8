//! Calls of the file's own procedures.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Argument, ExpressionKind, Name};
use crate::kernel::tree::{Action, Actual, ExpressionId, Intent, Operation, StatementId, Type};

use super::scope::{Meaning, Special};
use super::{Checker, Signature};

impl<'a, 'f> Checker<'a, '_, 'f> {
    fn signature(&self, index: usize) -> Option<&Signature<'a>> {
        self.context.signatures.get(index)
    }

    /// The actual arguments in the order of the dummies.
    fn ordered<'e>(
        &mut self,
        index: usize,
        name: Name<'a>,
        arguments: &'e [Argument<'a>],
        span: Span,
    ) -> Step<Vec<&'e Argument<'a>>> {
        let Some(signature) = self.context.signatures.get(index) else {
            return self.error(Message::NotConstant, span, format!("`{}` cannot be called here", name.text));
        };
        if signature.is_entry {
            let message = format!("`{}` is a kernel or epilogue and cannot be called", name.text);
            let diagnostic = Diagnostic::new(Message::NotAFunction, name.span, message);
            return self.sink.fail(diagnostic.second(signature.span, "declared here"));
        }
        if signature.is_broken {
            return Err(crate::kernel::diagnostics::Stop::Reported);
        }
        let count = signature.dummies.len();
        let wrong = |message: String, span| {
            Diagnostic::new(Message::ProcedureArguments, span, message)
                .second(signature.span, "declared here")
        };
        if arguments.len() != count {
            let message = format!(
                "`{}` has {count} argument{}, not {}",
                signature.name,
                if count == 1 { "" } else { "s" },
                arguments.len()
            );
            return self.sink.fail(wrong(message, span));
        }
        let mut places: Vec<Option<&'e Argument<'a>>> = vec![None; count];
        for (position, argument) in arguments.iter().enumerate() {
            let position = match argument.keyword {
                Some(keyword) => {
                    match signature.dummies.iter().position(|it| it.0.eq_ignore_ascii_case(keyword.text)) {
                        Some(position) => position,
                        None => {
                            let message = format!("`{}` has no dummy `{}`", signature.name, keyword.text);
                            let diagnostic = Diagnostic::new(Message::UnknownKeyword, keyword.span, message);
                            return self.sink.fail(diagnostic.second(signature.span, "declared here"));
                        }
                    }
                }
                None => position,
            };
            if places[position].replace(argument).is_some() {
                let message = format!("the dummy `{}` has two arguments", signature.dummies[position].0);
                return self.sink.fail(wrong(message, argument.value.span));
            }
        }
        Ok(places.into_iter().flatten().collect())
    }

    /// An actual argument must have its dummy's type: calls convert nothing.
    fn same(&mut self, index: usize, position: usize, found: Type, span: Span) -> Step<()> {
        let Some(signature) = self.signature(index) else { return Ok(()) };
        let (dummy, ty, _) = signature.dummies[position];
        if ty == found {
            return Ok(());
        }
        let message = format!("the dummy `{dummy}` is {}, the argument {}", ty.fortran(), found.fortran());
        let diagnostic = Diagnostic::new(Message::ProcedureArguments, span, message);
        let diagnostic = diagnostic.second(signature.span, "declared here");
        let help = match ty {
            Type::Real32 => "convert it: `real(x)`",
            Type::Real64 => "convert it: `dble(x)`",
            Type::Int32 => "convert it: `int(x)`",
            Type::Int64 => "convert it: `int(x, int64)`",
            Type::Logical => "compare it",
        };
        self.sink.fail(diagnostic.help(help))
    }

    /// A function of the file in an expression.
    pub(super) fn function_call(
        &mut self,
        index: usize,
        name: Name<'a>,
        arguments: &[Argument<'a>],
        span: Span,
    ) -> Step<ExpressionId> {
        let ordered = self.ordered(index, name, arguments, span)?;
        let result = self.signature(index).and_then(|it| if it.is_function { it.result } else { None });
        let Some(ty) = result else {
            let message = format!("`{}` is a subroutine and has no value", name.text);
            let diagnostic = Diagnostic::new(Message::NotAFunction, name.span, message);
            return self.sink.fail(diagnostic.help(format!("write `call {}(...)`", name.text)));
        };
        let mut actuals = Vec::new();
        for (position, argument) in ordered.iter().enumerate() {
            let id = self.expression(&argument.value)?;
            self.same(index, position, self.ty(id), argument.value.span)?;
            actuals.push(id);
        }
        self.emit(Operation::Call(index, actuals), ty, span)
    }

    /// `call name(...)`.
    pub(super) fn call_statement(
        &mut self,
        name: Name<'a>,
        arguments: &[Argument<'a>],
        span: Span,
    ) -> Step<StatementId> {
        match self.state.scope.find(name.text).map(|entry| entry.meaning) {
            Some(Meaning::Special(Special::Barrier)) => {
                if let Some(argument) = arguments.first() {
                    let message = "`barrier` has no arguments";
                    return self.error(Message::ProcedureArguments, argument.value.span, message);
                }
                self.workgroup(span)?;
                return self.statement(Action::Barrier, span);
            }
            Some(Meaning::Broken) => return Err(crate::kernel::diagnostics::Stop::Reported),
            Some(_) => {
                let message = format!("`{}` is not a subroutine", name.text);
                return self.error(Message::NotAFunction, name.span, message);
            }
            None => {}
        }
        let Some(index) = self.context.procedure(name.text) else {
            let message = format!("the subroutine `{}` is not part of the file", name.text);
            let diagnostic = Diagnostic::new(Message::UnknownProcedure, name.span, message);
            if let Some(module) = super::kinds::module_of(name.text) {
                return self.sink.fail(diagnostic.help(format!("add `use {module}`")));
            }
            let known = self.context.signatures.iter().map(|it| it.name);
            return match crate::kernel::diagnostics::suggestion(name.text, known) {
                Some(near) => self.sink.fail(diagnostic.help(format!("did you mean `{near}`?"))),
                None => self.sink.fail(diagnostic),
            };
        };
        let ordered = self.ordered(index, name, arguments, span)?;
        if self.signature(index).is_some_and(|it| it.is_function) {
            let message = format!("`{}` is a function; its value is not used", name.text);
            return self.error(Message::NotAFunction, name.span, message);
        }
        let mut actuals = Vec::new();
        for (position, argument) in ordered.iter().enumerate() {
            let Some(intent) = self.signature(index).map(|it| it.dummies[position].2) else { break };
            let value = &argument.value;
            if intent == Intent::In {
                let id = self.expression(value)?;
                self.same(index, position, self.ty(id), value.span)?;
                actuals.push(Actual::Value(id));
                continue;
            }
            let is_place = matches!(
                value.kind,
                ExpressionKind::Name(_) | ExpressionKind::Call(..) | ExpressionKind::Bracket(..)
            );
            if !is_place {
                let message = "the subroutine changes this argument, so a variable must stand here";
                return self.error(Message::ProcedureArguments, value.span, message);
            }
            let place = self.place(value)?;
            self.assignable(&place)?;
            if intent == Intent::InOut {
                self.usage(place.variable).is_read = true;
            }
            self.same(index, position, self.state.code.variable(place.variable).ty, value.span)?;
            actuals.push(Actual::Place(place));
        }
        self.statement(Action::Call(index, actuals), span)
    }
}
