//! A whole file: modules, procedures and the calls among them.

use std::collections::HashMap;

use crate::allocate;
use crate::error::Result;
use crate::kernel::diagnostics::{Code as Message, Diagnostic, Sink, Step, reported};
use crate::kernel::syntax::{File, Module, Procedure};
use crate::kernel::tree::{
    self, Action, Argument, ArgumentKind, BufferShape, Code, Epilogue, Intent, Kernel, LocalSize, Operation,
    Unit, VariableId, VariableKind,
};
use crate::kernel::uniformity;

use super::scope::Meaning;
use super::{Checker, Context, Role, Signature, State, WHAT, coverage};

/// The most nested calls.
const MAX_CALLS: usize = 32;

/// The checked tree of a file. If there are errors, it is incomplete.
///
/// # Errors
/// The host is out of memory.
pub(in crate::kernel) fn check(file: &File<'_>, sink: &mut Sink) -> Result<Unit> {
    let mut context =
        Context { file, procedures: HashMap::new(), signatures: Vec::new(), modules: Vec::new() };
    name_procedures(file, &mut context, sink)?;
    for module in &file.modules {
        let names = reported(constants(&context, module, sink))?.unwrap_or_default();
        allocate::push(&mut context.modules, names, WHAT)?;
    }
    let mut states = Vec::new();
    for procedure in &file.procedures {
        let mut checker = Checker { state: State::default(), context: &context, sink };
        if reported(checker.specification(procedure))?.is_none() {
            checker.state.is_broken = true;
        }
        if reported(checker.reductions(procedure))?.is_none() {
            checker.state.is_broken = true;
        }
        let state = checker.state;
        allocate::push(&mut states, state, WHAT)?;
    }
    for (procedure, state) in file.procedures.iter().zip(&states) {
        allocate::push(&mut context.signatures, signature(procedure, state), WHAT)?;
    }
    for (procedure, state) in file.procedures.iter().zip(&mut states) {
        let mut checker = Checker { state: std::mem::take(state), context: &context, sink };
        if let Some(body) = reported(checker.block(&procedure.body))? {
            checker.state.code.body = body;
        }
        checker.finish(procedure);
        *state = checker.state;
    }
    let order = order(file, &states, sink)?;
    unit(file, states, &order, sink)
}

fn name_procedures<'a>(file: &File<'a>, context: &mut Context<'a, '_>, sink: &mut Sink) -> Result<()> {
    for (index, procedure) in file.procedures.iter().enumerate() {
        let name = procedure.name;
        allocate::reserve_one(&mut context.procedures, WHAT)?;
        match context.procedures.entry(name.text.to_ascii_lowercase()) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(index);
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                let message = format!("two procedures are named `{}`", name.text);
                let diagnostic = Diagnostic::new(Message::RepeatedProcedure, name.span, message);
                sink.add(diagnostic.second(file.procedures[*first.get()].name.span, "the first"));
            }
        }
    }
    if !file.procedures.iter().any(|procedure| procedure.annotation.is_some()) && sink.errors() == 0 {
        let message = "the file has no kernel and no epilogue";
        let diagnostic = Diagnostic::new(Message::NoKernel, crate::kernel::span::Span::default(), message);
        sink.add(diagnostic.help("write `!@kernel` before a subroutine"));
    }
    Ok(())
}

/// The names that a module gives its procedures.
#[allow(clippy::type_complexity)]
fn constants<'a>(
    context: &Context<'a, '_>,
    module: &Module<'a>,
    sink: &mut Sink,
) -> Step<Vec<(&'a str, crate::kernel::span::Span, Meaning)>> {
    let mut checker = Checker { state: State::default(), context, sink };
    for statement in &module.uses {
        reported(checker.use_module(statement))?;
    }
    for declaration in &module.declarations {
        let Some(ty) = reported(checker.resolve_type(&declaration.ty))? else { continue };
        for entity in &declaration.entities {
            if declaration.parameter.is_none() {
                let message =
                    format!("`{}` is a variable of a module, which kernels cannot use", entity.name.text);
                let diagnostic = Diagnostic::new(Message::UnsupportedAttribute, entity.name.span, message);
                checker.sink.add(diagnostic.help("pass it as an argument, or add `parameter`"));
                continue;
            }
            let is_array = entity.dimension.is_some() || declaration.dimension.is_some();
            if reported(checker.parameter(entity, ty, is_array))?.is_none() {
                checker.state.scope.insert(entity.name.text, entity.name.span, Meaning::Broken)?;
            }
        }
    }
    let mut names = Vec::new();
    let entries = checker.state.scope.entries().iter();
    allocate::append(&mut names, entries.map(|entry| (entry.name, entry.span, entry.meaning)), WHAT)?;
    Ok(names)
}

/// What calls see of a procedure.
fn signature<'a>(procedure: &Procedure<'a>, state: &State<'a>) -> Signature<'a> {
    let mut dummies = Vec::new();
    for (name, id) in procedure.dummies.iter().zip(&state.dummies) {
        if let Some(variable) = id.map(|id| state.code.variable(id))
            && let VariableKind::Dummy(intent) = variable.kind
        {
            dummies.push((name.text, variable.ty, intent));
        }
    }
    Signature {
        name: procedure.name.text,
        span: procedure.name.span,
        result: state.result.map(|id| state.code.variable(id).ty),
        is_function: procedure.function.is_some(),
        is_entry: state.role != Role::Procedure,
        is_broken: state.is_broken || dummies.len() != procedure.dummies.len(),
        dummies,
    }
}

impl<'a> Checker<'a, '_, '_> {
    /// What can be said when all statements are known.
    fn finish(&mut self, procedure: &Procedure<'a>) {
        let name = procedure.name;
        if let Some(result) = self.state.result
            && !self.state.usage[result.0 as usize].is_written
            && self.sink.errors() == 0
        {
            let message = format!("the function `{}` never defines its result", name.text);
            self.sink.add(Diagnostic::new(Message::NoResult, name.span, message));
        }
        if self.state.role == Role::Procedure && procedure.function.is_some() {
            for id in self.state.dummies.iter().flatten() {
                let variable = self.state.code.variable(*id);
                if let VariableKind::Dummy(Intent::Out | Intent::InOut) = variable.kind {
                    let message = format!("the function's dummy `{}` is not `intent(in)`", variable.name);
                    let diagnostic = Diagnostic::new(Message::AttributeConflict, variable.span, message);
                    self.sink.add(diagnostic.help("functions change nothing; write a subroutine"));
                }
            }
        }
        if let Some(span) = procedure.is_recursive {
            self.sink.add(Diagnostic::new(Message::Recursion, span, "recursion is not part of the language"));
        }
        self.workgroup_rules();
        let arguments = &mut self.state.arguments;
        for argument in arguments.iter_mut().flatten() {
            let usage = self.state.usage[argument.variable.0 as usize];
            let ArgumentKind::Buffer(buffer) = &mut argument.kind else { continue };
            (buffer.is_read, buffer.is_written) = (usage.is_read, usage.is_written);
            if let BufferShape::Element { own } = &mut buffer.shape {
                *own = usage.own.is_some();
            }
            if buffer.intent == Intent::Out && !usage.is_written && self.sink.errors() == 0 {
                let message = format!("`{}` is intent(out), but never written", argument.name);
                self.sink.add(Diagnostic::new(Message::NeverWritten, argument.span, message));
            }
        }
    }

    /// What workgroup features forbid.
    fn workgroup_rules(&mut self) {
        let Some(first) = self.state.cooperative else { return };
        if self.state.settings.local_size == LocalSize::Auto {
            let span = self.state.settings.local_size_span.unwrap_or(first);
            let message = "a kernel with workgroup features has `local_size=auto`";
            let diagnostic = Diagnostic::new(Message::WorkgroupAuto, span, message);
            self.sink.add(diagnostic.second(first, "the first feature").help("give the size of a workgroup"));
        }
        if let Some(reduction) = self.state.reductions.first() {
            let message = "a kernel with workgroup features has a reduction";
            let diagnostic = Diagnostic::new(Message::WorkgroupReduction, reduction.span, message);
            self.sink.add(diagnostic.second(first, "the first feature"));
        }
        let own = self.state.usage.iter().zip(&self.state.code.variables);
        let own: Vec<_> = own.filter_map(|(usage, it)| Some((usage.own?, it.name.clone()))).take(8).collect();
        for (span, name) in own {
            let message = format!("`{name}` has no shape, but points outside the extents run, too");
            let diagnostic = Diagnostic::new(Message::WorkgroupElement, span, message);
            let diagnostic = diagnostic.second(first, "because of this workgroup feature");
            self.sink.add(diagnostic.help("give it a shape, and guard stores with the extents"));
        }
    }
}

/// Calls `each` with every procedure that a code calls.
fn callees(code: &Code, mut each: impl FnMut(usize)) {
    for expression in &code.expressions {
        if let Operation::Call(index, _) = expression.operation {
            each(index);
        }
    }
    for statement in &code.statements {
        if let Action::Call(index, _) = statement.action {
            each(index);
        }
    }
}

/// The procedures, each after those it calls. Reports recursion.
fn order(file: &File<'_>, states: &[State<'_>], sink: &mut Sink) -> Result<Vec<usize>> {
    let mut calls: Vec<Vec<usize>> = Vec::new();
    for state in states {
        let mut all = Vec::new();
        let mut failed = Ok(());
        callees(&state.code, |index| {
            if all.last() != Some(&index) && failed.is_ok() {
                failed = allocate::push(&mut all, index, WHAT);
            }
        });
        failed?;
        all.sort_unstable();
        all.dedup();
        allocate::push(&mut calls, all, WHAT)?;
    }
    // Depth first, without recursion: 0 unseen, 1 open, 2 done.
    let mut marks = allocate::filled(0u8, states.len(), WHAT)?;
    let mut heights = allocate::filled(0usize, states.len(), WHAT)?;
    let mut order = Vec::new();
    let mut stack: Vec<(usize, usize)> = Vec::new();
    for root in 0..states.len() {
        if marks[root] != 0 {
            continue;
        }
        marks[root] = 1;
        allocate::push(&mut stack, (root, 0), WHAT)?;
        while let Some((at, next)) = stack.last_mut() {
            let at = *at;
            if let Some(&callee) = calls[at].get(*next) {
                *next += 1;
                match marks[callee] {
                    0 => {
                        marks[callee] = 1;
                        allocate::push(&mut stack, (callee, 0), WHAT)?;
                    }
                    1 => {
                        let message =
                            format!("`{}` calls itself, directly or not", file.procedures[callee].name.text);
                        let diagnostic =
                            Diagnostic::new(Message::Recursion, file.procedures[callee].name.span, message);
                        let diagnostic = diagnostic.second(file.procedures[at].name.span, "called from here");
                        sink.add(diagnostic);
                    }
                    _ => {}
                }
                continue;
            }
            marks[at] = 2;
            heights[at] = 1 + calls[at].iter().map(|callee| heights[*callee]).max().unwrap_or(0);
            if heights[at] == MAX_CALLS + 1 {
                let message = format!("calls are nested more than {MAX_CALLS} levels deep");
                sink.add(Diagnostic::new(Message::TooDeep, file.procedures[at].name.span, message));
            }
            allocate::push(&mut order, at, WHAT)?;
            stack.pop();
        }
    }
    Ok(order)
}

/// Puts the tree together: entries in the order of the source, procedures that they need in the order of calls.
fn unit(file: &File<'_>, mut states: Vec<State<'_>>, order: &[usize], sink: &mut Sink) -> Result<Unit> {
    let mut unit = Unit::default();
    if sink.errors() > 0 {
        return Ok(unit);
    }
    let mut needed = allocate::filled(false, states.len(), WHAT)?;
    for at in order.iter().rev() {
        needed[*at] |= states[*at].role != Role::Procedure;
        if needed[*at] {
            callees(&states[*at].code, |callee| needed[callee] = true);
        }
    }
    let mut places = allocate::filled(usize::MAX, states.len(), WHAT)?;
    let mut procedures = Vec::new();
    for at in order.iter().filter(|at| needed[**at] && states[**at].role == Role::Procedure) {
        places[*at] = procedures.len();
        allocate::push(&mut procedures, *at, WHAT)?;
    }
    for state in &mut states {
        renumber(&mut state.code, &places);
    }
    for at in procedures {
        let state = std::mem::take(&mut states[at]);
        let mut code = state.code;
        uniformity::analyse(&mut code, &[], sink)?;
        let name = file.procedures[at].name;
        let procedure = tree::Procedure {
            name: name.text.to_owned(),
            span: name.span,
            dummies: state.dummies.into_iter().flatten().collect(),
            result: state.result.filter(|_| file.procedures[at].function.is_some()),
            code,
        };
        allocate::push(&mut unit.procedures, procedure, WHAT)?;
    }
    for (procedure, state) in file.procedures.iter().zip(states) {
        match state.role {
            Role::Kernel => kernel(procedure, state, &mut unit, sink)?,
            Role::Epilogue => epilogue(procedure, state, &mut unit, sink)?,
            Role::Procedure => {}
        }
    }
    Ok(unit)
}

fn renumber(code: &mut Code, places: &[usize]) {
    for expression in &mut code.expressions {
        if let Operation::Call(index, _) = &mut expression.operation {
            *index = places[*index];
        }
    }
    for statement in &mut code.statements {
        if let Action::Call(index, _) = &mut statement.action {
            *index = places[*index];
        }
    }
}

fn kernel(procedure: &Procedure<'_>, state: State<'_>, unit: &mut Unit, sink: &mut Sink) -> Result<()> {
    let mut arguments: Vec<Argument> = state.arguments.into_iter().flatten().collect();
    let mut code = state.code;
    uniformity::analyse(&mut code, &arguments, sink)?;
    let settings = state.settings;
    if state.cooperative.is_none() {
        coverage::mark(&code, &mut arguments, settings.dims, settings.base);
    }
    let kernel = Kernel {
        name: procedure.name.text.to_owned(),
        span: procedure.name.span,
        dims: settings.dims,
        base: settings.base,
        local_size: settings.local_size,
        contract: settings.contract,
        legacy: state.is_legacy,
        inputs: settings.inputs,
        outputs: settings.outputs,
        arguments,
        reductions: state.reductions,
        cooperative: state.cooperative.is_some(),
        code,
        is_epilogue: false,
    };
    allocate::push(&mut unit.kernels, kernel, WHAT)
}

fn epilogue(procedure: &Procedure<'_>, state: State<'_>, unit: &mut Unit, sink: &mut Sink) -> Result<()> {
    let arguments: Vec<Argument> = state.arguments.into_iter().flatten().collect();
    let mut code = state.code;
    uniformity::analyse(&mut code, &arguments, sink)?;
    let epilogue = Epilogue {
        name: procedure.name.text.to_owned(),
        span: procedure.name.span,
        base: state.settings.base,
        contract: state.settings.contract,
        arguments,
        result: state.result.unwrap_or(VariableId(0)),
        code,
    };
    allocate::push(&mut unit.epilogues, epilogue, WHAT)
}
