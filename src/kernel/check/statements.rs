//! Executable statements.

use crate::allocate;
use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step, reported};
use crate::kernel::span::Span;
use crate::kernel::syntax::{self, Control, Expression, ExpressionKind, Name, StatementKind};
use crate::kernel::tree::{
    Action, Block, Case, ExpressionId, Intent, LoopId, Type, Value, VariableId, VariableKind,
};

use super::{Checker, OpenLoop, WHAT};

impl<'a> Checker<'a, '_, '_> {
    /// Statements in order. Those with errors are left out.
    pub(super) fn block(&mut self, statements: &[syntax::Statement<'a>]) -> Step<Block> {
        let mut block = Block::new();
        for statement in statements {
            if self.sink.is_full() {
                break;
            }
            reported(self.one(statement, &mut block))?;
        }
        Ok(block)
    }

    fn push(&mut self, block: &mut Block, action: Action, span: Span) -> Step<()> {
        let id = self.statement(action, span)?;
        Ok(allocate::push(block, id, WHAT)?)
    }

    fn one(&mut self, statement: &syntax::Statement<'a>, block: &mut Block) -> Step<()> {
        let span = statement.span;
        match &statement.kind {
            StatementKind::Assign(target, value) => self.assign(target, value, span, block),
            StatementKind::If { branches, otherwise } => {
                let mut checked = Vec::new();
                for (condition, body) in branches {
                    let condition = reported(self.condition(condition))?;
                    let body = self.block(body)?;
                    if let Some(condition) = condition {
                        allocate::push(&mut checked, (condition, body), WHAT)?;
                    }
                }
                let otherwise = self.block(otherwise)?;
                if checked.is_empty() {
                    return Ok(());
                }
                self.push(block, Action::If { branches: checked, otherwise }, span)
            }
            StatementKind::Select { selector, cases, otherwise } => {
                self.select(selector, cases, otherwise, span, block)
            }
            StatementKind::Do { name, control, body } => self.do_loop(*name, control, body, span, block),
            StatementKind::Exit(name) => {
                let id = self.target(*name, "exit", span)?;
                self.push(block, Action::Exit(id), span)
            }
            StatementKind::Cycle(name) => {
                let id = self.target(*name, "cycle", span)?;
                self.push(block, Action::Cycle(id), span)
            }
            StatementKind::Return => self.push(block, Action::Return, span),
            StatementKind::Call(name, arguments) => {
                let id = self.call_statement(*name, arguments, span)?;
                Ok(allocate::push(block, id, WHAT)?)
            }
        }
    }

    fn assign(
        &mut self,
        target: &Expression<'a>,
        value: &Expression<'a>,
        span: Span,
        block: &mut Block,
    ) -> Step<()> {
        if let Some(reduction) = self.reduced(target) {
            return self.reduce(reduction, value, span, block);
        }
        if let ExpressionKind::Bracket(name, _) | ExpressionKind::Name(name) | ExpressionKind::Call(name, _) =
            &target.kind
        {
            // A value is checked even if its target is unknown.
            if self.state.scope.find(name.text).is_none() {
                reported(self.expression(value))?;
            }
        }
        let place = self.place(target)?;
        self.assignable(&place)?;
        let id = self.expression(value)?;
        let variable = self.state.code.variable(place.variable);
        let (ty, name, declared) = (variable.ty, variable.name.clone(), variable.span);
        if (self.ty(id) == Type::Logical) != (ty == Type::Logical) {
            let found = self.ty(id).fortran();
            let message =
                format!("`{name}` is {}, and a value of type {found} does not fit it", ty.fortran());
            let diagnostic = Diagnostic::new(Message::AssignedType, value.span, message);
            let diagnostic = diagnostic.label(format!("this is {found}")).second(declared, "declared here");
            return self.sink.fail(diagnostic);
        }
        let id = self.convert(id, ty)?;
        self.push(block, Action::Assign(place, id), span)
    }

    fn condition(&mut self, condition: &Expression<'a>) -> Step<ExpressionId> {
        let id = self.expression(condition)?;
        if self.ty(id) != Type::Logical {
            let diagnostic =
                Diagnostic::new(Message::ConditionType, condition.span, "a condition must be logical");
            let label = format!("this is {}", self.ty(id).fortran());
            return self.sink.fail(diagnostic.label(label).help("compare it, for example with 0"));
        }
        Ok(id)
    }

    /// The loop that `exit` or `cycle` means.
    fn target(&mut self, name: Option<Name<'a>>, word: &str, span: Span) -> Step<LoopId> {
        let Some(name) = name else {
            return match self.state.loops.last() {
                Some(innermost) => Ok(innermost.id),
                None => self.error(Message::NoLoop, span, format!("`{word}` is outside a loop")),
            };
        };
        let loops = self.state.loops.iter().rev();
        let named = loops.clone().find(|it| it.name.is_some_and(|it| it.eq_ignore_ascii_case(name.text)));
        match named {
            Some(named) => Ok(named.id),
            None => {
                let message = format!("no loop named `{}` is around this `{word}`", name.text);
                let diagnostic = Diagnostic::new(Message::UnknownLoop, name.span, message);
                let near = crate::kernel::diagnostics::suggestion(name.text, loops.filter_map(|it| it.name));
                match near.map(str::to_owned) {
                    Some(near) => self.sink.fail(diagnostic.help(format!("did you mean `{near}`?"))),
                    None => self.sink.fail(diagnostic),
                }
            }
        }
    }

    fn do_loop(
        &mut self,
        name: Option<Name<'a>>,
        control: &Control<'a>,
        body: &[syntax::Statement<'a>],
        span: Span,
        block: &mut Block,
    ) -> Step<()> {
        let id = LoopId(self.state.code.loops as u32);
        self.state.code.loops += 1;
        enum Checked {
            Count(VariableId, [ExpressionId; 3]),
            While(ExpressionId),
        }
        let checked = match control {
            Control::Count(count) => {
                let checked = self.counted(count, span);
                reported(checked)?.map(|(variable, bounds)| Checked::Count(variable, bounds))
            }
            Control::While(condition) => reported(self.condition(condition))?.map(Checked::While),
            Control::Forever => Some(Checked::While(self.constant(Value::Logical(true), span)?)),
        };
        let variable = match (&checked, control) {
            (Some(Checked::Count(id, _)), Control::Count(count)) => Some((*id, count.variable.span)),
            _ => None,
        };
        let open = OpenLoop { id, name: name.map(|name| name.text), variable };
        allocate::push(&mut self.state.loops, open, WHAT)?;
        let body = self.block(body);
        self.state.loops.pop();
        let body = body?;
        let action = match checked {
            Some(Checked::Count(variable, [first, last, step])) => {
                Action::Do { id, variable, first, last, step, body }
            }
            Some(Checked::While(condition)) => Action::While { id, condition, body },
            None => return Ok(()),
        };
        self.push(block, action, span)
    }

    /// The variable and bounds of a counted loop.
    fn counted(&mut self, count: &syntax::Count<'a>, span: Span) -> Step<(VariableId, [ExpressionId; 3])> {
        let syntax::Count { variable: name, first, last, step } = count;
        let (name, step) = (*name, step.as_ref());
        let id = self.variable_of(name)?;
        let variable = self.state.code.variable(id);
        let (ty, declared) = (variable.ty, variable.span);
        let is_local =
            matches!(variable.kind, VariableKind::Local | VariableKind::Dummy(Intent::Out | Intent::InOut));
        if !ty.is_integer() || !is_local {
            let message = format!("`{}` cannot count a loop", name.text);
            let diagnostic = Diagnostic::new(Message::LoopVariable, name.span, message);
            let diagnostic = diagnostic.second(declared, "declared here");
            return self.sink.fail(diagnostic.help("declare a local integer"));
        }
        let place = self.whole(id, name.span)?;
        self.assignable(&place)?;
        self.usage(id).is_read = true;
        let mut bounds = [ExpressionId(0); 3];
        for (bound, expression) in bounds.iter_mut().zip([Some(first), Some(last), step]) {
            let Some(expression) = expression else {
                let one = if ty == Type::Int64 { Value::Int64(1) } else { Value::Int32(1) };
                *bound = self.constant(one, span)?;
                continue;
            };
            let value = self.expression(expression)?;
            if !self.ty(value).is_integer() {
                let message = "the bounds and the step of a loop are integers";
                let diagnostic = Diagnostic::new(Message::LoopVariable, expression.span, message);
                let label = format!("this is {}", self.ty(value).fortran());
                return self.sink.fail(diagnostic.label(label));
            }
            *bound = self.convert(value, ty)?;
        }
        if let Some(step) = step
            && self.state.code.constant(bounds[2]).and_then(Value::integer) == Some(0)
        {
            return self.error(Message::ZeroStep, step.span, "the step of a loop is zero");
        }
        Ok((id, bounds))
    }

    fn select(
        &mut self,
        selector: &Expression<'a>,
        cases: &[syntax::Case<'a>],
        otherwise: &[syntax::Statement<'a>],
        span: Span,
        block: &mut Block,
    ) -> Step<()> {
        let selected = match reported(self.expression(selector))? {
            Some(id) if self.ty(id).is_real() => {
                let diagnostic = Diagnostic::new(
                    Message::SelectorType,
                    selector.span,
                    "a selector must be an integer or logical",
                );
                let label = format!("this is {}", self.ty(id).fortran());
                self.sink.add(diagnostic.label(label));
                None
            }
            other => other,
        };
        let ty = selected.map(|id| self.ty(id));
        let mut checked = Vec::new();
        let mut spans: Vec<(i64, i64, Span)> = Vec::new();
        for case in cases {
            let mut ranges = Vec::new();
            for range in &case.ranges {
                let Some(ty) = ty else { break };
                if let Some((low, high)) = reported(self.case_range(range, ty))? {
                    allocate::push(&mut ranges, (low, high), WHAT)?;
                    allocate::push(&mut spans, (low, high, range.span), WHAT)?;
                }
            }
            ranges.retain(|(low, high)| low <= high);
            let body = self.block(&case.body)?;
            allocate::push(&mut checked, Case { ranges, body, span: case.span }, WHAT)?;
        }
        spans.retain(|(low, high, _)| low <= high);
        spans.sort_unstable_by_key(|(low, high, span)| (*low, *high, *span));
        let mut reach: Option<(i64, Span)> = None;
        for (low, high, span) in &spans {
            if let Some((last, other)) = reach.filter(|(last, _)| last >= low) {
                let value = (*low).min(last);
                let message = format!("two cases have the value {value}");
                let (early, late) = if other <= *span { (other, *span) } else { (*span, other) };
                let diagnostic = Diagnostic::new(Message::CaseOverlap, late, message);
                let diagnostic = diagnostic.second(early, "the other case");
                self.sink.add(diagnostic);
            }
            reach = match reach {
                Some((last, span)) if last >= *high => Some((last, span)),
                _ => Some((*high, *span)),
            };
        }
        let otherwise = self.block(otherwise)?;
        match selected {
            Some(selector) => self.push(block, Action::Select { selector, cases: checked, otherwise }, span),
            None => Ok(()),
        }
    }

    fn case_range(&mut self, range: &syntax::CaseRange<'a>, ty: Type) -> Step<(i64, i64)> {
        let low = match &range.first {
            Some(first) => Some(self.case_value(first, ty)?),
            None => None,
        };
        let high = match &range.last {
            Some(last) => Some(self.case_value(last, ty)?),
            None => None,
        };
        if range.is_range && ty == Type::Logical {
            return self.error(Message::CaseValue, range.span, "logical values have no ranges");
        }
        let (least, most) = match ty {
            Type::Int64 => (i64::MIN, i64::MAX),
            _ => (i32::MIN.into(), i32::MAX.into()),
        };
        Ok(match (low, range.is_range) {
            (Some(low), false) => (low, low),
            (low, _) => (low.unwrap_or(least), high.unwrap_or(most)),
        })
    }

    fn case_value(&mut self, expression: &Expression<'a>, ty: Type) -> Step<i64> {
        let id = self.expression(expression)?;
        let found = self.ty(id);
        if found != ty && !(found.is_integer() && ty.is_integer()) {
            let message = format!("the selector is {}, the case {}", ty.fortran(), found.fortran());
            return self.error(Message::CaseValue, expression.span, message);
        }
        match self.state.code.constant(id) {
            Some(Value::Logical(value)) => Ok(value.into()),
            Some(value) => {
                let value = value.integer().unwrap_or(0);
                if ty == Type::Int32 && i32::try_from(value).is_err() {
                    let message = format!("{value} does not fit the selector, which is {}", ty.fortran());
                    return self.error(Message::CaseValue, expression.span, message);
                }
                Ok(value)
            }
            None => self.error(Message::CaseValue, expression.span, "a case must be constant"),
        }
    }
}
