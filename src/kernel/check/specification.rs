//! The declarations of a procedure.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step, reported};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Bounds, Declaration, Entity, Name, Procedure, Upper};
use crate::kernel::tree::{FixedDimension, MAX_ARGUMENTS, MAX_RANK, Type, VariableKind};

use super::annotation::settings;
use super::scope::Meaning;
use super::{Checker, Role};

/// The most bytes of private arrays of a procedure.
const MAX_PRIVATE: u64 = 64 << 10;

/// The most bytes of workgroup memory: OpenGL guarantees 32 KiB.
const MAX_SHARED: u64 = 32 << 10;

/// The bounds of dummies, which are checked when all dummies are known.
pub(super) type Pending<'a, 'f> = Vec<(usize, &'f [Bounds<'a>])>;

impl<'a, 'f> Checker<'a, '_, 'f> {
    /// Checks all declarations of a procedure.
    pub(super) fn specification(&mut self, procedure: &'f Procedure<'a>) -> Step<()> {
        self.state.is_incomplete = procedure.is_incomplete;
        if let Some(annotation) = &procedure.annotation {
            self.state.role = if annotation.is_epilogue { Role::Epilogue } else { Role::Kernel };
            self.state.settings = settings(annotation, self.sink);
        }
        if let Some(index) = procedure.module {
            self.module_names(index)?;
        }
        for statement in &procedure.uses {
            reported(self.use_module(statement))?;
        }
        self.dummies(procedure)?;
        let mut pending = Vec::new();
        if let Some(function) = &procedure.function {
            let result = function.result.unwrap_or(procedure.name);
            match &function.ty {
                Some(spec) => {
                    if let Some(ty) = reported(self.resolve_type(spec))? {
                        let id = self.variable(result.text, result.span, ty, VariableKind::Local)?;
                        self.state.result = Some(id);
                        self.state.scope.insert(result.text, result.span, Meaning::Variable(id))?;
                    }
                }
                None => self.state.scope.insert(result.text, result.span, Meaning::Result)?,
            }
        }
        for declaration in &procedure.declarations {
            reported(self.declaration(procedure, declaration, &mut pending))?;
        }
        self.finish_arguments(procedure, &pending)
    }

    /// The names that a module gives its procedures.
    fn module_names(&mut self, index: usize) -> Step<()> {
        let context = self.context;
        for (name, span, meaning) in context.modules.get(index).into_iter().flatten() {
            self.state.scope.insert_outer(name, *span, *meaning)?;
        }
        Ok(())
    }

    fn dummies(&mut self, procedure: &'f Procedure<'a>) -> Step<()> {
        if procedure.dummies.len() > MAX_ARGUMENTS {
            let message = format!(
                "`{}` has {} arguments; the limit is {MAX_ARGUMENTS}",
                procedure.name.text,
                procedure.dummies.len()
            );
            self.state.is_broken = true;
            self.sink.add(Diagnostic::new(Message::TooManyArguments, procedure.name.span, message));
        }
        for (position, name) in procedure.dummies.iter().enumerate().take(MAX_ARGUMENTS) {
            self.case_twin(*name)?;
            if let Some(entry) = self.state.scope.find_exact(name.text).filter(|entry| !entry.is_outer) {
                let message = format!("the dummy `{}` is named twice", name.text);
                let diagnostic = Diagnostic::new(Message::DeclaredTwice, name.span, message);
                let diagnostic = diagnostic.second(entry.span, "the first");
                self.sink.add(diagnostic);
                self.state.is_broken = true;
                continue;
            }
            self.state.scope.insert(name.text, name.span, Meaning::Dummy(position))?;
        }
        self.state.arguments.resize(procedure.dummies.len().min(MAX_ARGUMENTS), None);
        self.state.dummies.resize(procedure.dummies.len().min(MAX_ARGUMENTS), None);
        Ok(())
    }

    /// Warns if a name differs from another one only in case.
    fn case_twin(&mut self, name: Name<'a>) -> Step<()> {
        let twin =
            self.state.scope.find(name.text).filter(|it| it.name != name.text && !it.is_outer).copied();
        if let Some(twin) = twin {
            let message = format!("`{}` and `{}` differ only in case", name.text, twin.name);
            let diagnostic = Diagnostic::new(Message::CaseOnly, name.span, message);
            let diagnostic = diagnostic.second(twin.span, "the other name");
            self.sink.add(diagnostic.help("Fortran compilers take them for one name"));
            self.state.is_legacy = true;
        }
        Ok(())
    }

    fn declaration(
        &mut self,
        procedure: &Procedure<'a>,
        declaration: &'f Declaration<'a>,
        pending: &mut Pending<'a, 'f>,
    ) -> Step<()> {
        let ty = match self.resolve_type(&declaration.ty) {
            Ok(ty) => ty,
            Err(stop) => {
                // The names exist, whatever their type.
                reported::<()>(Err(stop))?;
                for entity in &declaration.entities {
                    self.break_name(entity.name)?;
                }
                return Ok(());
            }
        };
        for entity in &declaration.entities {
            if reported(self.entity(procedure, declaration, entity, ty, pending))?.is_none() {
                self.break_name(entity.name)?;
            }
        }
        Ok(())
    }

    /// Uses of this name are not reported again.
    fn break_name(&mut self, name: Name<'a>) -> Step<()> {
        let known = self.state.scope.find(name.text).filter(|entry| !entry.is_outer).copied();
        match known.map(|entry| entry.meaning) {
            Some(Meaning::Dummy(_) | Meaning::Result) => {
                self.state.is_broken = true;
                self.state.scope.set(name.text, name.span, Meaning::Broken);
            }
            Some(_) => {}
            None => self.state.scope.insert(name.text, name.span, Meaning::Broken)?,
        }
        Ok(())
    }

    fn entity(
        &mut self,
        procedure: &Procedure<'a>,
        declaration: &'f Declaration<'a>,
        entity: &'f Entity<'a>,
        ty: Type,
        pending: &mut Pending<'a, 'f>,
    ) -> Step<()> {
        let name = entity.name;
        let bounds = entity.dimension.as_deref().or(declaration.dimension.as_deref());
        if let Some(bounds) = bounds.filter(|bounds| bounds.len() > MAX_RANK) {
            let message = format!("`{}` has {} dimensions; the limit is {MAX_RANK}", name.text, bounds.len());
            return self.error(Message::ArrayTooLarge, name.span, message);
        }
        if declaration.parameter.is_some() {
            return self.parameter(entity, ty, bounds.is_some());
        }
        if let Some(initial) = &entity.initial {
            let message = format!("`{}` is initialised, which implies SAVE in Fortran", name.text);
            let diagnostic = Diagnostic::new(Message::InitialisedLocal, initial.span, message);
            return self.sink.fail(diagnostic.help("assign the value in a statement, or add `parameter`"));
        }
        let known = self.state.scope.find(name.text).filter(|entry| !entry.is_outer).copied();
        match known.map(|entry| (entry, entry.meaning)) {
            Some((_, Meaning::Dummy(position))) => {
                let spelled = procedure.dummies[position];
                self.argument(declaration, spelled, name.span, ty, position, bounds)?;
                if let Some(bounds) = bounds {
                    crate::allocate::push(pending, (position, bounds), super::WHAT)?;
                }
                return Ok(());
            }
            Some((entry, Meaning::Result)) => {
                if bounds.is_some() {
                    let message = "the result of a function is a scalar";
                    return self.error(Message::ArrayDummy, name.span, message);
                }
                let id = self.variable(entry.name, name.span, ty, VariableKind::Local)?;
                self.state.result = Some(id);
                self.state.scope.set(name.text, name.span, Meaning::Variable(id));
                return Ok(());
            }
            Some((entry, _)) if entry.name == name.text => {
                let message = format!("`{}` is declared twice", name.text);
                let diagnostic = Diagnostic::new(Message::DeclaredTwice, name.span, message);
                return self.sink.fail(diagnostic.second(entry.span, "declared here"));
            }
            Some(_) => self.case_twin(name)?,
            None => {}
        }
        // `real :: f` beside the function `f` of the file says what the compiler knows.
        if bounds.is_none() && self.context.procedure(name.text).is_some() {
            return Ok(());
        }
        if let Some(span) = declaration.value.or(declaration.intent.map(|(_, span)| span)) {
            let message = format!("`{}` is not a dummy argument", name.text);
            let diagnostic = Diagnostic::new(Message::NotADummy, name.span, message);
            return self.sink.fail(diagnostic.second(span, "only dummies have this attribute"));
        }
        let kind = match bounds {
            Some(bounds) => self.local_array(declaration, name, ty, bounds)?,
            None => {
                if let Some(span) = declaration.shared {
                    let message = format!("`{}` is a scalar; workgroup memory holds arrays", name.text);
                    let diagnostic = Diagnostic::new(Message::InvalidShared, span, message);
                    let diagnostic = diagnostic.second(name.span, "declared here");
                    self.sink.add(diagnostic.help(format!("declare `{}(1)`", name.text)));
                }
                VariableKind::Local
            }
        };
        let id = self.variable(name.text, name.span, ty, kind)?;
        self.state.scope.insert(name.text, name.span, Meaning::Variable(id))?;
        Ok(())
    }

    /// A named constant.
    pub(super) fn parameter(&mut self, entity: &Entity<'a>, ty: Type, is_array: bool) -> Step<()> {
        let name = entity.name;
        if is_array {
            return self.error(
                Message::ArrayConstructor,
                name.span,
                "constant arrays are not part of the language",
            );
        }
        if let Some(entry) = self.state.scope.find(name.text).filter(|entry| !entry.is_outer) {
            let message = format!("`{}` is declared twice", name.text);
            let diagnostic = Diagnostic::new(Message::DeclaredTwice, name.span, message);
            let diagnostic = diagnostic.second(entry.span, "declared here");
            return self.sink.fail(diagnostic);
        }
        let Some(initial) = &entity.initial else {
            let message = format!("the constant `{}` has no value", name.text);
            return self.error(Message::NotConstant, name.span, message);
        };
        let value = self.expression(initial)?;
        let value = self.converted(value, ty, Message::AssignedType, name.text)?;
        match self.state.code.constant(value) {
            Some(value) => Ok(self.state.scope.insert(name.text, name.span, Meaning::Constant(value))?),
            None => {
                let message = format!("the value of `{}` is not constant", name.text);
                self.error(Message::NotConstant, initial.span, message)
            }
        }
    }

    fn local_array(
        &mut self,
        declaration: &Declaration<'a>,
        name: Name<'a>,
        ty: Type,
        bounds: &[Bounds<'a>],
    ) -> Step<VariableKind> {
        let mut all = Vec::new();
        let mut bytes = ty.bytes() as u64;
        for one in bounds {
            let lower = match &one.lower {
                Some(lower) => self.constant_bound(lower, name)?,
                None => 1,
            };
            let upper = match &one.upper {
                Upper::Expression(upper) => self.constant_bound(upper, name)?,
                _ => {
                    let message = format!("the local array `{}` needs constant bounds", name.text);
                    return self.error(Message::InvalidBounds, one.span, message);
                }
            };
            let extent = i64::from(upper) - i64::from(lower) + 1;
            if extent < 1 {
                let message = format!("`{}` has no elements from {lower} to {upper}", name.text);
                return self.error(Message::InvalidBounds, one.span, message);
            }
            bytes = bytes.saturating_mul(extent as u64);
            all.push(FixedDimension { lower, extent: extent as u32 });
        }
        let (total, limit, code, what) = match declaration.shared {
            Some(_) => {
                (&mut self.state.shared_bytes, MAX_SHARED, Message::SharedTooLarge, "workgroup memory")
            }
            None => (&mut self.state.private_bytes, MAX_PRIVATE, Message::PrivateTooLarge, "private arrays"),
        };
        *total = total.saturating_add(bytes);
        let total = *total;
        if total > limit {
            let message = format!("`{}` makes {total} bytes of {what}; the limit is {limit}", name.text);
            return self.error(code, name.span, message);
        }
        match declaration.shared {
            Some(span) if self.state.role != Role::Kernel => {
                self.error(Message::WorkgroupInProcedure, span, "workgroup memory belongs to kernels")
            }
            Some(span) => {
                self.workgroup(span)?;
                Ok(VariableKind::Shared(all))
            }
            None => Ok(VariableKind::Private(all)),
        }
    }

    fn constant_bound(&mut self, bound: &crate::kernel::syntax::Expression<'a>, name: Name<'a>) -> Step<i32> {
        let id = self.expression(bound)?;
        let value = self.state.code.constant(id).and_then(|value| value.integer());
        match value.map(i32::try_from) {
            Some(Ok(value)) => Ok(value),
            _ => {
                let message =
                    format!("the bounds of the local array `{}` must be integer constants", name.text);
                self.error(Message::InvalidBounds, bound.span, message)
            }
        }
    }

    /// Notes that the kernel uses a feature of workgroups.
    pub(super) fn workgroup(&mut self, span: Span) -> Step<()> {
        if self.state.role != Role::Kernel {
            let message = "workgroup features belong to kernels";
            return self.error(Message::WorkgroupInProcedure, span, message);
        }
        self.state.cooperative.get_or_insert(span);
        Ok(())
    }
}
