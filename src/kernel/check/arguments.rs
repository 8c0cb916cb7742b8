//! Dummies: what each of them is, and the bounds of arrays.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step, reported};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Bounds, Declaration, Name, Procedure, Upper};
use crate::kernel::tree::{
    Argument, ArgumentKind, Buffer, BufferShape, Dimension, Intent, MAX_EPILOGUE_ARRAYS, Operation, Operator,
    Type, Value, VariableKind,
};

use super::scope::Meaning;
use super::specification::Pending;
use super::{Checker, Role};

/// What the first dummies of an epilogue are.
const EPILOGUE: [(&str, Type); 3] =
    [("value", Type::Real32), ("channel", Type::Int32), ("position", Type::Int32)];

impl<'a, 'f> Checker<'a, '_, 'f> {
    /// The declaration of a dummy.
    pub(super) fn argument(
        &mut self,
        declaration: &Declaration<'a>,
        name: Name<'a>,
        span: Span,
        ty: Type,
        position: usize,
        bounds: Option<&[Bounds<'a>]>,
    ) -> Step<()> {
        if let Some(shared) = declaration.shared {
            let message = format!("`{}` is a dummy; workgroup memory holds local arrays", name.text);
            let diagnostic = Diagnostic::new(Message::InvalidShared, shared, message);
            return self.sink.fail(diagnostic.second(span, "declared here"));
        }
        if let (Some(value), Some((Intent::Out | Intent::InOut, intent))) =
            (declaration.value, declaration.intent)
        {
            let message = format!("`{}` is passed by value and cannot be changed", name.text);
            let diagnostic = Diagnostic::new(Message::AttributeConflict, intent, message);
            return self.sink.fail(diagnostic.second(value, "by value"));
        }
        if let (Some(value), Some(_)) = (declaration.value, bounds) {
            let message = format!("the array `{}` cannot be passed by value", name.text);
            return self.error(Message::AttributeConflict, value, message);
        }
        let kind = match self.state.role {
            Role::Procedure => return self.dummy(declaration, name, span, ty, position, bounds),
            Role::Kernel if position < self.state.settings.dims => {
                self.index(declaration, name, span, ty, bounds.is_some())?;
                ArgumentKind::Index(position)
            }
            Role::Epilogue if position < 3 => {
                let (what, expected) = EPILOGUE[position];
                let written = declaration.intent.is_some_and(|(intent, _)| intent != Intent::In);
                if ty != expected || bounds.is_some() || written {
                    let message = format!(
                        "the {what} is {}; the epilogue's dummy `{}` is something else",
                        expected.fortran(),
                        name.text
                    );
                    let diagnostic = Diagnostic::new(Message::EpilogueSignature, span, message);
                    let help = format!("declare `{}, intent(in) :: {}`", expected.fortran(), name.text);
                    return self.sink.fail(diagnostic.help(help));
                }
                ArgumentKind::Index(position)
            }
            Role::Epilogue => self.epilogue_extra(declaration, name, span, bounds)?,
            Role::Kernel if declaration.value.is_some() => ArgumentKind::Scalar,
            Role::Kernel => {
                let intent = match declaration.intent {
                    Some((intent, _)) => intent,
                    None if bounds.is_some() => Intent::InOut,
                    None => {
                        let message = format!("the dummy `{}` has neither `value` nor `intent`", name.text);
                        let diagnostic = Diagnostic::new(Message::NoIntent, span, message);
                        let help = "add `value` for a scalar, `intent(in)`, `intent(out)` or `intent(inout)` for a buffer";
                        return self.sink.fail(diagnostic.help(help));
                    }
                };
                self.buffer(intent)
            }
        };
        let variable = self.variable(name.text, span, ty, VariableKind::Argument(position))?;
        self.state.arguments[position] =
            Some(Argument { name: name.text.to_owned(), span, variable, ty, kind });
        self.state.scope.set(name.text, span, Meaning::Variable(variable));
        Ok(())
    }

    /// A buffer in the next slot. Its shape follows.
    fn buffer(&mut self, intent: Intent) -> ArgumentKind {
        let slot = self.state.slots;
        self.state.slots += 1;
        ArgumentKind::Buffer(Buffer {
            slot,
            intent,
            shape: BufferShape::Element { own: false },
            written_by_every_point: false,
            is_read: false,
            is_written: false,
        })
    }

    fn index(
        &mut self,
        declaration: &Declaration<'a>,
        name: Name<'a>,
        span: Span,
        ty: Type,
        is_array: bool,
    ) -> Step<()> {
        if ty == Type::Int32 && declaration.value.is_some() && !is_array {
            return Ok(());
        }
        let dims = self.state.settings.dims;
        let which = if dims == 1 {
            "the first dummy of a kernel is its index".to_owned()
        } else {
            format!("the first {dims} dummies of this kernel are its indices")
        };
        let diagnostic = Diagnostic::new(Message::IndexArgument, span, which);
        self.sink.fail(diagnostic.help(format!("declare `integer(int32), value :: {}`", name.text)))
    }

    fn epilogue_extra(
        &mut self,
        declaration: &Declaration<'a>,
        name: Name<'a>,
        span: Span,
        bounds: Option<&[Bounds<'a>]>,
    ) -> Step<ArgumentKind> {
        if declaration.value.is_none() && !matches!(declaration.intent, Some((Intent::In, _))) {
            let message = format!("the epilogue's dummy `{}` must be `intent(in)` or `value`", name.text);
            return self.error(Message::EpilogueSignature, span, message);
        }
        if bounds.is_none() {
            return Ok(ArgumentKind::Scalar);
        }
        if self.state.slots == MAX_EPILOGUE_ARRAYS {
            let message = format!(
                "`{}` is one array too many; an epilogue has {MAX_EPILOGUE_ARRAYS} at most",
                name.text
            );
            return self.error(Message::EpilogueArrays, span, message);
        }
        Ok(self.buffer(Intent::In))
    }

    /// A dummy of a procedure that kernels call.
    fn dummy(
        &mut self,
        declaration: &Declaration<'a>,
        name: Name<'a>,
        span: Span,
        ty: Type,
        position: usize,
        bounds: Option<&[Bounds<'a>]>,
    ) -> Step<()> {
        if bounds.is_some() {
            let message = format!("the dummy `{}` of a procedure is an array", name.text);
            let diagnostic = Diagnostic::new(Message::ArrayDummy, span, message);
            return self.sink.fail(diagnostic.help("pass elements, and return values"));
        }
        let intent = match (declaration.value, declaration.intent) {
            (Some(_), _) => Intent::In,
            (None, Some((intent, _))) => intent,
            (None, None) => {
                let message = format!("the dummy `{}` has neither `value` nor `intent`", name.text);
                let diagnostic = Diagnostic::new(Message::NoIntent, span, message);
                return self.sink.fail(diagnostic.help("add `intent(in)`, `intent(out)` or `intent(inout)`"));
            }
        };
        let variable = self.variable(name.text, span, ty, VariableKind::Dummy(intent))?;
        self.state.dummies[position] = Some(variable);
        self.state.scope.set(name.text, span, Meaning::Variable(variable));
        Ok(())
    }

    /// What can be said when all declarations are known.
    pub(super) fn finish_arguments(
        &mut self,
        procedure: &'f Procedure<'a>,
        pending: &Pending<'a, 'f>,
    ) -> Step<()> {
        for name in &procedure.dummies {
            let entry = self.state.scope.find(name.text).copied();
            if let Some(Meaning::Dummy(_)) = entry.map(|it| it.meaning) {
                if !procedure.is_incomplete {
                    let message = format!("the dummy `{}` is not declared", name.text);
                    self.sink.add(Diagnostic::new(Message::UndeclaredDummy, name.span, message));
                }
                self.state.scope.set(name.text, name.span, Meaning::Broken);
                self.state.is_broken = true;
            }
        }
        if let Some(function) = &procedure.function {
            let result = function.result.unwrap_or(procedure.name);
            let entry = self.state.scope.find(result.text).copied();
            if let Some(Meaning::Result) = entry.map(|it| it.meaning) {
                if !procedure.is_incomplete {
                    let message = format!("the result `{}` has no type", result.text);
                    self.sink.add(Diagnostic::new(Message::Undeclared, result.span, message));
                }
                self.state.scope.set(result.text, result.span, Meaning::Broken);
                self.state.is_broken = true;
            }
        }
        self.entry_form(procedure)?;
        for (position, bounds) in pending {
            if reported(self.shape(*position, bounds))?.is_none() {
                self.state.is_broken = true;
            }
        }
        Ok(())
    }

    /// What holds for kernels and epilogues as such.
    fn entry_form(&mut self, procedure: &Procedure<'a>) -> Step<()> {
        let name = procedure.name;
        let dims = self.state.settings.dims;
        match self.state.role {
            Role::Kernel if procedure.function.is_some() => {
                let message = format!("the kernel `{}` is a function", name.text);
                let diagnostic = Diagnostic::new(Message::StrayAnnotation, name.span, message);
                self.sink.add(diagnostic.help("a kernel is a subroutine"));
            }
            Role::Kernel if procedure.dummies.len() < dims => {
                let message = format!(
                    "the kernel `{}` has {} arguments, but {dims} dimensions",
                    name.text,
                    procedure.dummies.len()
                );
                let diagnostic = Diagnostic::new(Message::TooFewArguments, name.span, message);
                self.sink.add(diagnostic.help("the first dummies are the indices of a point"));
            }
            Role::Epilogue if procedure.function.is_none() => {
                let message = format!("the epilogue `{}` is a subroutine", name.text);
                let diagnostic = Diagnostic::new(Message::StrayAnnotation, name.span, message);
                self.sink
                    .add(diagnostic.help("an epilogue is a function of a value, a channel and a position"));
            }
            Role::Epilogue => {
                let result = self.state.result.map(|id| self.state.code.variable(id).ty);
                if procedure.dummies.len() < 3 || result.is_some_and(|ty| ty != Type::Real32) {
                    let message = format!(
                        "the epilogue `{}` needs the form real(real32) f(value, channel, position, ...)",
                        name.text
                    );
                    self.sink.add(Diagnostic::new(Message::EpilogueSignature, name.span, message));
                }
            }
            Role::Kernel | Role::Procedure => {}
        }
        Ok(())
    }

    /// The bounds of an array dummy.
    fn shape(&mut self, position: usize, bounds: &[Bounds<'a>]) -> Step<()> {
        let Some(argument) = self.state.arguments[position].clone() else { return Ok(()) };
        self.state.in_bounds = true;
        let result = self.dimensions(&argument, bounds);
        self.state.in_bounds = false;
        let dimensions = result?;
        if let Some(Argument { kind: ArgumentKind::Buffer(buffer), .. }) = &mut self.state.arguments[position]
        {
            buffer.shape = BufferShape::Array(dimensions);
        }
        Ok(())
    }

    fn dimensions(&mut self, argument: &Argument, bounds: &[Bounds<'a>]) -> Step<Vec<Dimension>> {
        let mut all = Vec::new();
        for (axis, one) in bounds.iter().enumerate() {
            let lower = match &one.lower {
                Some(lower) => self.bound(lower)?,
                None => self.emit(Operation::Constant(Value::Int32(1)), Type::Int32, one.span)?,
            };
            let extent = match &one.upper {
                Upper::Expression(upper) => {
                    let upper = self.bound(upper)?;
                    let is_one = self.state.code.constant(lower) == Some(Value::Int32(1));
                    Some(if is_one {
                        upper
                    } else {
                        let length = self.folded_binary(Operator::Subtract, upper, lower, one.span)?;
                        let one_more =
                            self.emit(Operation::Constant(Value::Int32(1)), Type::Int32, one.span)?;
                        self.folded_binary(Operator::Add, length, one_more, one.span)?
                    })
                }
                Upper::Assumed if axis + 1 == bounds.len() => None,
                Upper::Assumed => {
                    let message = format!(
                        "only the last dimension of `{}` may be without an upper bound",
                        argument.name
                    );
                    return self.error(Message::InvalidBounds, one.span, message);
                }
                Upper::Shape if bounds.len() > 1 => {
                    let message = format!("`{}` has assumed shape and several dimensions", argument.name);
                    let diagnostic = Diagnostic::new(Message::AssumedShape, one.span, message);
                    let help = format!(
                        "pass the extents as scalars and declare {}(n, m), or {0}(n, *)",
                        argument.name
                    );
                    return self.sink.fail(diagnostic.help(help));
                }
                Upper::Shape => {
                    Some(self.emit(Operation::Length(argument.variable), Type::Int32, one.span)?)
                }
            };
            if let Some(Value::Int32(extent)) = extent.and_then(|extent| self.state.code.constant(extent))
                && extent < 1
            {
                let message = format!("a dimension of `{}` has no elements", argument.name);
                return self.error(Message::InvalidBounds, one.span, message);
            }
            all.push(Dimension { lower, extent });
        }
        Ok(all)
    }

    fn bound(
        &mut self,
        bound: &crate::kernel::syntax::Expression<'a>,
    ) -> Step<crate::kernel::tree::ExpressionId> {
        let id = self.expression(bound)?;
        if !self.ty(id).is_integer() {
            return self.error(Message::InvalidBounds, bound.span, "a bound must be an integer");
        }
        self.converted(id, Type::Int32, Message::InvalidBounds, "a bound")
    }
}
