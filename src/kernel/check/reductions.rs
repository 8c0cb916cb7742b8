//! `!@reduce`, and the statements that add to a reduction.

use crate::kernel::diagnostics::{Code as Message, Diagnostic, Step, suggestion};
use crate::kernel::span::Span;
use crate::kernel::syntax::{Argument, Expression, ExpressionKind, Name, Procedure, ReductionDirective};
use crate::kernel::token::Kind;
use crate::kernel::tree::{
    Action, ArgumentKind, Block, BufferShape, Intent, Reduction, ReductionOperator, VariableId, VariableKind,
};

use super::scope::Meaning;
use super::{Checker, Role};

const OPERATORS: [(&str, ReductionOperator); 6] = [
    ("+", ReductionOperator::Add),
    ("*", ReductionOperator::Multiply),
    ("min", ReductionOperator::Min),
    ("max", ReductionOperator::Max),
    ("iand", ReductionOperator::And),
    ("ior", ReductionOperator::Or),
];

impl<'a> Checker<'a, '_, '_> {
    /// The reductions of a kernel, before its statements.
    pub(super) fn reductions(&mut self, procedure: &Procedure<'a>) -> Step<()> {
        for directive in &procedure.reductions {
            crate::kernel::diagnostics::reported(self.directive(directive))?;
        }
        if let (Some(first), Some(span)) =
            (self.state.reductions.first(), self.state.settings.local_size_span)
        {
            let message = "a kernel with a reduction runs in blocks of 256 points";
            let diagnostic = Diagnostic::new(Message::LocalSizeIgnored, span, message);
            let diagnostic = diagnostic.second(first.span, "the reduction");
            self.sink.add(diagnostic);
        }
        Ok(())
    }

    fn directive(&mut self, directive: &ReductionDirective<'a>) -> Step<()> {
        if self.state.role != Role::Kernel {
            return self.error(Message::InvalidReduction, directive.span, "reductions belong to kernels");
        }
        let text = directive.operator.text;
        let Some((_, operator)) = OPERATORS.iter().find(|(it, _)| it.eq_ignore_ascii_case(text)) else {
            let message = format!("`{text}` is not an operator of reductions");
            let diagnostic = Diagnostic::new(Message::InvalidReduction, directive.operator.span, message);
            let help = match suggestion(text, OPERATORS.iter().map(|it| it.0)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "the operators are +, *, min, max, iand and ior".to_owned(),
            };
            return self.sink.fail(diagnostic.help(help));
        };
        for name in &directive.names {
            self.reduction(*operator, *name, directive.span)?;
        }
        Ok(())
    }

    fn reduction(&mut self, operator: ReductionOperator, name: Name<'a>, span: Span) -> Step<()> {
        let entry = self.state.scope.find(name.text).copied();
        let variable = match entry.map(|entry| entry.meaning) {
            Some(Meaning::Variable(id)) => id,
            Some(Meaning::Broken) => return Err(crate::kernel::diagnostics::Stop::Reported),
            Some(_) => return self.unsuitable(name, None),
            None => return self.undeclared(name),
        };
        let declared = self.state.code.variable(variable).clone();
        let VariableKind::Argument(position) = declared.kind else {
            return self.unsuitable(name, Some(declared.span));
        };
        let bitwise = matches!(operator, ReductionOperator::And | ReductionOperator::Or);
        if (bitwise && !declared.ty.is_integer()) || !(declared.ty.is_integer() || declared.ty.is_real()) {
            let message =
                format!("`{}` is {}, which the operator does not fit", name.text, declared.ty.fortran());
            let diagnostic = Diagnostic::new(Message::InvalidReduction, name.span, message);
            return self.sink.fail(diagnostic.second(declared.span, "declared here"));
        }
        let index = self.state.reductions.len();
        let buffer = match &mut self.state.arguments[position] {
            Some(crate::kernel::tree::Argument { kind: ArgumentKind::Buffer(buffer), .. }) => buffer,
            _ => return self.unsuitable(name, Some(declared.span)),
        };
        match buffer.shape {
            BufferShape::Element { .. } if buffer.intent != Intent::In => {
                buffer.shape = BufferShape::Reduction(index);
            }
            BufferShape::Reduction(first) => {
                let first = self.state.reductions[first].span;
                let message = format!("`{}` is in two reductions", name.text);
                let diagnostic = Diagnostic::new(Message::InvalidReduction, name.span, message);
                return self.sink.fail(diagnostic.second(first, "the first"));
            }
            _ => return self.unsuitable(name, Some(declared.span)),
        }
        let reduction = Reduction { operator, argument: position, variable, ty: declared.ty, span };
        Ok(crate::allocate::push(&mut self.state.reductions, reduction, super::WHAT)?)
    }

    fn unsuitable<T>(&mut self, name: Name<'a>, declared: Option<Span>) -> Step<T> {
        let message = format!("`{}` cannot be reduced", name.text);
        let mut diagnostic = Diagnostic::new(Message::InvalidReduction, name.span, message);
        if let Some(declared) = declared {
            diagnostic = diagnostic.second(declared, "declared here");
        }
        self.sink
            .fail(diagnostic.help("a reduction needs a scalar dummy with `intent(inout)` or `intent(out)`"))
    }

    /// An error about a use of a reduction's name.
    pub(super) fn reduction_misuse<T>(&mut self, reduction: usize, span: Span) -> Step<T> {
        let reduction = &self.state.reductions[reduction];
        let name = &self.state.code.variable(reduction.variable).name;
        let form = match reduction.operator {
            ReductionOperator::Add => format!("{name} = {name} + value"),
            ReductionOperator::Multiply => format!("{name} = {name} * value"),
            ReductionOperator::Min => format!("{name} = min({name}, value)"),
            ReductionOperator::Max => format!("{name} = max({name}, value)"),
            ReductionOperator::And => format!("{name} = iand({name}, value)"),
            ReductionOperator::Or => format!("{name} = ior({name}, value)"),
        };
        let message = format!("`{name}` is a reduction and has no value here");
        let diagnostic = Diagnostic::new(Message::ReductionUse, span, message);
        let diagnostic = diagnostic.second(reduction.span, "the reduction");
        self.sink.fail(diagnostic.help(format!("its only use is `{form}`")))
    }

    /// The reduction that an assignment's target names.
    pub(super) fn reduced(&self, target: &Expression<'a>) -> Option<usize> {
        let ExpressionKind::Name(name) = target.kind else { return None };
        let id = self.variable_named(name)?;
        self.state.reductions.iter().position(|it| it.variable == id)
    }

    fn variable_named(&self, name: Name<'_>) -> Option<VariableId> {
        match self.state.scope.find(name.text)?.meaning {
            Meaning::Variable(id) => Some(id),
            _ => None,
        }
    }

    fn names_variable(&self, expression: &Expression<'_>, id: VariableId) -> bool {
        matches!(expression.kind, ExpressionKind::Name(name) if self.variable_named(name) == Some(id))
    }

    /// `s = s + value`, in the order of the source for `s = s + a + b`.
    pub(super) fn reduce(
        &mut self,
        reduction: usize,
        value: &Expression<'a>,
        span: Span,
        block: &mut Block,
    ) -> Step<()> {
        let Reduction { operator, variable, ty, .. } = self.state.reductions[reduction];
        let contributions = match operator {
            ReductionOperator::Add => self.chain(Kind::Plus, variable, value),
            ReductionOperator::Multiply => self.chain(Kind::Star, variable, value),
            ReductionOperator::Min => self.listed("min", variable, value),
            ReductionOperator::Max => self.listed("max", variable, value),
            ReductionOperator::And => self.listed("iand", variable, value),
            ReductionOperator::Or => self.listed("ior", variable, value),
        };
        let Some(contributions) = contributions else { return self.reduction_misuse(reduction, value.span) };
        for contribution in contributions {
            let id = self.expression(contribution)?;
            let name = self.state.code.variable(variable).name.clone();
            let id = self.converted(id, ty, Message::AssignedType, &name)?;
            let statement = self.statement(Action::Reduce(reduction, id), span)?;
            crate::allocate::push(block, statement, super::WHAT)?;
        }
        self.usage(variable).is_written = true;
        Ok(())
    }

    /// The operands after `s` of `s + a + b`, or `a` of `a + s`.
    fn chain<'e>(
        &self,
        operator: Kind,
        variable: VariableId,
        value: &'e Expression<'a>,
    ) -> Option<Vec<&'e Expression<'a>>> {
        if let ExpressionKind::Binary(it, _, left, right) = &value.kind
            && *it == operator
            && self.names_variable(right, variable)
        {
            return Some(vec![left]);
        }
        // The depth of an expression is limited, and so is this list.
        let mut all = Vec::new();
        let mut at = value;
        while let ExpressionKind::Binary(it, _, left, right) = &at.kind {
            if *it != operator {
                return None;
            }
            all.push(&**right);
            at = left;
        }
        all.reverse();
        (self.names_variable(at, variable) && !all.is_empty()).then_some(all)
    }

    /// The other argument of `min(s, a)`.
    fn listed<'e>(
        &self,
        function: &str,
        variable: VariableId,
        value: &'e Expression<'a>,
    ) -> Option<Vec<&'e Expression<'a>>> {
        let ExpressionKind::Call(name, arguments) = &value.kind else { return None };
        let [Argument { keyword: None, value: one }, Argument { keyword: None, value: other }] =
            &arguments[..]
        else {
            return None;
        };
        if !name.text.eq_ignore_ascii_case(function) || self.state.scope.find(name.text).is_some() {
            return None;
        }
        match (self.names_variable(one, variable), self.names_variable(other, variable)) {
            (true, false) => Some(vec![other]),
            (false, true) => Some(vec![one]),
            _ => None,
        }
    }
}
