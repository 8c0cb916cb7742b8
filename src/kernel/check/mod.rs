//! Syntax to the checked tree: names, types, kinds, intents, bounds, conversions.
//!
//! The declarations of all procedures are checked first, so that calls know what they call. Then come the statements,
//! and last what needs a whole procedure: uniformity and which elements are written.

mod annotation;
mod arguments;
mod calls;
mod coverage;
mod expressions;
mod intrinsics;
mod kinds;
mod operators;
mod places;
mod reductions;
mod scope;
mod specification;
mod statements;
mod unit;

use std::collections::HashMap;

use crate::allocate;
use crate::error::Result;

use super::diagnostics::{Code as Message, Diagnostic, Sink, Step};
use super::span::Span;
use super::syntax;
use super::tree::{
    Argument, Code, Expression, ExpressionId, Intent, LoopId, Operation, Reduction, Statement, StatementId,
    Type, Uniformity, Variable, VariableId, VariableKind,
};

use annotation::Settings;
use scope::{Meaning, Scope};

pub(super) use unit::check;

/// Why there was no memory.
const WHAT: &str = "the tree of a kernel";

/// The most levels of an expression in the tree. Conversions and long lists of `min` and `max` add to those of the
/// source.
const MAX_LEVELS: u16 = 250;

/// What calls need to know about a procedure.
#[derive(Debug)]
struct Signature<'a> {
    name: &'a str,
    span: Span,
    /// The type of a function's result.
    result: Option<Type>,
    is_function: bool,
    /// Kernels and epilogues are not called.
    is_entry: bool,
    dummies: Vec<(&'a str, Type, Intent)>,
    /// Its declarations have errors, which calls need not repeat.
    is_broken: bool,
}

/// What all procedures of a file know.
#[derive(Debug)]
struct Context<'a, 'f> {
    file: &'f syntax::File<'a>,
    /// Procedures by name in lower case.
    procedures: HashMap<String, usize>,
    signatures: Vec<Signature<'a>>,
    /// The names of each module.
    modules: Vec<Vec<(&'a str, Span, Meaning)>>,
}

impl Context<'_, '_> {
    fn procedure(&self, name: &str) -> Option<usize> {
        self.procedures.get(&name.to_ascii_lowercase()).copied()
    }
}

/// What a procedure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Role {
    Kernel,
    Epilogue,
    #[default]
    Procedure,
}

/// A loop around a statement.
#[derive(Debug, Clone, Copy)]
struct OpenLoop<'a> {
    id: LoopId,
    name: Option<&'a str>,
    variable: Option<(VariableId, Span)>,
}

/// What is known about a variable.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    is_read: bool,
    is_written: bool,
    /// The first use of a buffer's own element.
    own: Option<Span>,
}

/// A procedure while it is checked.
#[derive(Debug, Default)]
struct State<'a> {
    role: Role,
    settings: Settings,
    scope: Scope<'a>,
    code: Code,
    /// The levels of each expression.
    levels: Vec<u16>,
    usage: Vec<Usage>,
    /// The dummies by position, as far as they are declared.
    arguments: Vec<Option<Argument>>,
    /// Variables of a procedure's dummies, by position.
    dummies: Vec<Option<VariableId>>,
    slots: usize,
    result: Option<VariableId>,
    reductions: Vec<Reduction>,
    loops: Vec<OpenLoop<'a>>,
    is_legacy: bool,
    /// The first use of a workgroup's features.
    cooperative: Option<Span>,
    /// Whether bounds of a dummy are checked, where few names are allowed.
    in_bounds: bool,
    is_broken: bool,
    /// Whether declarations are missing because of their syntax. Names without one are not reported then.
    is_incomplete: bool,
    private_bytes: u64,
    shared_bytes: u64,
}

/// Checks one procedure.
struct Checker<'a, 'c, 'f> {
    state: State<'a>,
    context: &'c Context<'a, 'f>,
    sink: &'c mut Sink,
}

impl<'a> Checker<'a, '_, '_> {
    fn error<T>(&mut self, code: Message, span: Span, message: impl Into<String>) -> Step<T> {
        self.sink.fail(Diagnostic::new(code, span, message))
    }

    /// Adds an expression.
    fn emit(&mut self, operation: Operation, ty: Type, span: Span) -> Step<ExpressionId> {
        let mut below = 0;
        operands(&operation, |id| below = below.max(self.state.levels[id.0 as usize]));
        if below >= MAX_LEVELS {
            let message = format!("an expression has more than {MAX_LEVELS} levels");
            return self.error(Message::TooDeep, span, message);
        }
        let expression = Expression { operation, ty, uniformity: Uniformity::Varying, span };
        allocate::push(&mut self.state.code.expressions, expression, WHAT)?;
        allocate::push(&mut self.state.levels, below + 1, WHAT)?;
        Ok(ExpressionId(self.state.code.expressions.len() as u32 - 1))
    }

    fn statement(&mut self, action: super::tree::Action, span: Span) -> Step<StatementId> {
        let statement = Statement { action, control: Uniformity::Varying, span };
        allocate::push(&mut self.state.code.statements, statement, WHAT)?;
        Ok(StatementId(self.state.code.statements.len() as u32 - 1))
    }

    /// Adds a variable, without a name in the scope.
    fn variable(&mut self, name: &str, span: Span, ty: Type, kind: VariableKind) -> Result<VariableId> {
        let variable = Variable { name: name.to_owned(), span, ty, kind };
        allocate::push(&mut self.state.code.variables, variable, WHAT)?;
        allocate::push(&mut self.state.usage, Usage::default(), WHAT)?;
        Ok(VariableId(self.state.code.variables.len() as u32 - 1))
    }

    fn usage(&mut self, id: VariableId) -> &mut Usage {
        &mut self.state.usage[id.0 as usize]
    }

    fn ty(&self, id: ExpressionId) -> Type {
        self.state.code.expression(id).ty
    }

    fn span(&self, id: ExpressionId) -> Span {
        self.state.code.expression(id).span
    }
}

/// Calls `each` with every operand of an operation, those of subscripts included.
pub(super) fn operands(operation: &Operation, mut each: impl FnMut(ExpressionId)) {
    match operation {
        Operation::Load(place) => place_operands(place, each),
        Operation::Unary(_, one) | Operation::Convert(one) => each(*one),
        Operation::Binary(_, one, other)
        | Operation::Compare(_, one, other)
        | Operation::PowerInteger(one, other)
        | Operation::PowerReal(one, other) => {
            each(*one);
            each(*other);
        }
        Operation::Intrinsic(_, all) | Operation::Call(_, all) => all.iter().for_each(|id| each(*id)),
        Operation::Constant(_)
        | Operation::Length(_)
        | Operation::LocalIndex(_)
        | Operation::GroupIndex(_) => {}
    }
}

/// Calls `each` with the subscripts of a place.
pub(super) fn place_operands(place: &super::tree::Place, mut each: impl FnMut(ExpressionId)) {
    match &place.access {
        super::tree::Access::Linear(id) => each(*id),
        super::tree::Access::Subscripts(all) => all.iter().for_each(|id| each(*id)),
        super::tree::Access::Scalar | super::tree::Access::Own => {}
    }
}
