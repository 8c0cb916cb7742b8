//! Kinds and the modules that define them.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step, suggestion};
use crate::kernel::span::Span;
use crate::kernel::syntax::{BaseType, TypeSpec, Use};
use crate::kernel::tree::{Type, Value};

use super::Checker;
use super::scope::{Meaning, Special};

/// Kinds of `iso_fortran_env`. A kind is its number of bytes.
const ENVIRONMENT: [(&str, i32); 8] = [
    ("int8", 1),
    ("int16", 2),
    ("int32", 4),
    ("int64", 8),
    ("real32", 4),
    ("real64", 8),
    ("real128", 16),
    ("logical32", 4),
];

/// Kinds of `iso_c_binding`.
const C_BINDING: [(&str, i32); 10] = [
    ("c_int", 4),
    ("c_int8_t", 1),
    ("c_int32_t", 4),
    ("c_int64_t", 8),
    ("c_long", 8),
    ("c_long_long", 8),
    ("c_size_t", 8),
    ("c_float", 4),
    ("c_double", 8),
    ("c_bool", 1),
];

const WORKGROUP: [(&str, Special); 3] = [
    ("barrier", Special::Barrier),
    ("local_index", Special::LocalIndex),
    ("group_index", Special::GroupIndex),
];

const IEEE: [(&str, Special); 1] = [("ieee_is_nan", Special::IsNan)];

/// The module with `barrier`, `local_index` and `group_index`.
pub(super) const WORKGROUP_MODULE: &str = "sparkle_workgroup";

/// A kind that needs no `use`: the old kernels have none.
pub(super) fn standard_kind(name: &str) -> Option<i32> {
    let all = ENVIRONMENT.iter().chain(&C_BINDING);
    all.clone().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, bytes)| *bytes)
}

/// The module that defines a procedure which the scope lacks.
pub(super) fn module_of(name: &str) -> Option<&'static str> {
    if WORKGROUP.iter().any(|(it, _)| it.eq_ignore_ascii_case(name)) {
        return Some(WORKGROUP_MODULE);
    }
    IEEE.iter().any(|(it, _)| it.eq_ignore_ascii_case(name)).then_some("ieee_arithmetic")
}

/// What a module of the compiler's defines. Nothing for other modules.
fn contents(module: &str) -> Option<Vec<(&'static str, Meaning)>> {
    let kinds = |all: &[(&'static str, i32)]| {
        all.iter().map(|(name, bytes)| (*name, Meaning::Constant(Value::Int32(*bytes)))).collect()
    };
    let specials = |all: &[(&'static str, Special)]| {
        all.iter().map(|(name, special)| (*name, Meaning::Special(*special))).collect()
    };
    let is = |it: &str| module.eq_ignore_ascii_case(it);
    if is("iso_fortran_env") {
        Some(kinds(&ENVIRONMENT))
    } else if is("iso_c_binding") {
        Some(kinds(&C_BINDING))
    } else if is(WORKGROUP_MODULE) {
        Some(specials(&WORKGROUP))
    } else if is("ieee_arithmetic") {
        Some(specials(&IEEE))
    } else {
        None
    }
}

impl<'a> Checker<'a, '_, '_> {
    /// Adds the names of a `use` statement to the scope.
    pub(super) fn use_module(&mut self, statement: &Use<'a>) -> Step<()> {
        let module = statement.module;
        let known = match contents(module.text) {
            Some(known) => known,
            None => {
                let file = self.context.file;
                let own = file.modules.iter().position(|it| it.name.text.eq_ignore_ascii_case(module.text));
                match own.and_then(|index| self.context.modules.get(index)) {
                    Some(names) => {
                        for (name, span, meaning) in names {
                            self.state.scope.insert_outer(name, *span, *meaning)?;
                        }
                        return self.use_own(statement, names);
                    }
                    None => {
                        let message = format!(
                            "the module `{}` is not part of the file, and its names are unknown",
                            module.text
                        );
                        self.sink.add(Diagnostic::new(Message::UnknownModule, module.span, message));
                        return Ok(());
                    }
                }
            }
        };
        for (name, meaning) in &known {
            // Names that nobody asks for are found by their own spelling only, and never hide others.
            if statement.names.is_empty() && self.state.scope.find(name).is_none() {
                self.state.scope.insert_outer(name, module.span, *meaning)?;
            }
        }
        for (local, name) in &statement.names {
            match known.iter().find(|(it, _)| it.eq_ignore_ascii_case(name.text)) {
                Some((_, meaning)) => self.state.scope.insert_outer(local.text, local.span, *meaning)?,
                // Much of these modules has no meaning here, but may be imported.
                None if !module.text.eq_ignore_ascii_case(WORKGROUP_MODULE) => {
                    self.state.scope.insert_outer(local.text, local.span, Meaning::Broken)?;
                }
                None => {
                    let message = format!("`{}` has no `{}`", module.text, name.text);
                    let mut diagnostic = Diagnostic::new(Message::UnknownModuleName, name.span, message);
                    if let Some(near) = suggestion(name.text, known.iter().map(|it| it.0)) {
                        diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
                    }
                    self.sink.add(diagnostic);
                }
            }
        }
        Ok(())
    }

    /// Renamed names of a module of the file.
    fn use_own(&mut self, statement: &Use<'a>, names: &[(&'a str, Span, Meaning)]) -> Step<()> {
        for (local, name) in &statement.names {
            match names.iter().find(|(it, ..)| it.eq_ignore_ascii_case(name.text)) {
                Some((.., meaning)) => self.state.scope.insert_outer(local.text, local.span, *meaning)?,
                None if self.context.procedure(name.text).is_some() => {}
                None => {
                    let message = format!("`{}` has no `{}`", statement.module.text, name.text);
                    self.sink.add(Diagnostic::new(Message::UnknownModuleName, name.span, message));
                }
            }
        }
        Ok(())
    }

    /// The type that a declaration names.
    pub(super) fn resolve_type(&mut self, spec: &TypeSpec<'a>) -> Step<Type> {
        let Some(kind) = &spec.kind else {
            return Ok(match spec.base {
                BaseType::Integer => Type::Int32,
                BaseType::Real => Type::Real32,
                BaseType::DoublePrecision => Type::Real64,
                BaseType::Logical => Type::Logical,
            });
        };
        let id = self.expression(kind)?;
        match self.state.code.constant(id).and_then(Value::integer) {
            Some(bytes) => self.kind_type(spec.base, bytes, kind.span),
            None => self.error(Message::NotConstant, kind.span, "a kind must be an integer constant"),
        }
    }

    /// The type of a base type and a kind.
    pub(super) fn kind_type(&mut self, base: BaseType, bytes: i64, span: Span) -> Step<Type> {
        match (base, bytes) {
            (BaseType::Integer, 4) => Ok(Type::Int32),
            (BaseType::Integer, 8) => Ok(Type::Int64),
            (BaseType::Real, 4) => Ok(Type::Real32),
            (BaseType::Real, 8) => Ok(Type::Real64),
            (BaseType::Logical, 4) => Ok(Type::Logical),
            _ => {
                let (what, kinds) = match base {
                    BaseType::Integer => ("integer", "int32 and int64"),
                    BaseType::Logical => ("logical", "the default kind"),
                    _ => ("real", "real32 and real64"),
                };
                let message = format!("{what} of kind {bytes} is not supported");
                let diagnostic = Diagnostic::new(Message::UnsupportedKind, span, message);
                self.sink.fail(diagnostic.help(format!("supported: {kinds}")))
            }
        }
    }
}
