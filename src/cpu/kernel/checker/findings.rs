//! Messages about what a check finds. Each place in the source is reported once, for the first point.

use super::Checker;
use super::places::Node;
use super::shadow::Record;
use crate::kernel::diagnostics::{Code as Message, Diagnostic, MAX_DIAGNOSTICS};
use crate::kernel::span::Span;
use crate::kernel::tree::{Code, Place, Procedure};

/// What is wrong with a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It does not exist.
    Outside,
    /// It has no value.
    NoValue,
}

/// Numbers with commas between them.
pub(super) fn list(numbers: &[i64]) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

impl Checker<'_> {
    /// Whether nothing was reported yet for a place.
    fn is_new(&self, code: Message, span: Span) -> bool {
        let known = self.messages.iter().any(|it| it.code == code && it.span == span);
        !known && self.messages.len() < MAX_DIAGNOSTICS
    }

    /// A point by its index arguments.
    fn indices(&self, indices: [i32; 3]) -> String {
        let named = self.kernel.arguments.iter().take(self.kernel.dims).zip(indices);
        named.map(|(argument, index)| format!("{} = {index}", argument.name)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn report(&mut self, what: What, span: Span, text: String, second: Option<(Span, &str)>) {
        let (code, label) = match what {
            What::Outside => (Message::OutOfBounds, "outside of the array"),
            What::NoValue => (Message::Uninitialised, "read here"),
        };
        if !self.is_new(code, span) {
            return;
        }
        let message = format!("{text} (at {})", self.indices(self.point.indices));
        let mut diagnostic = Diagnostic::new(code, span, message).label(label);
        if let Some((span, label)) = second.filter(|(span, _)| span.line != 0) {
            diagnostic = diagnostic.second(span, label);
        }
        self.messages.push(diagnostic);
    }

    /// Reports a function that ends without a result.
    pub(super) fn no_result(&mut self, span: Span, procedure: &Procedure) {
        let text = format!("the function `{}` ends without a value of its result", procedure.name);
        self.report(What::NoValue, span, text, Some((procedure.span, "the function")));
    }

    /// Reports two accesses that nothing orders. `node` is the current one, `other` the earlier one.
    pub(super) fn race(
        &mut self,
        code: &Code,
        place: &Place,
        (at, does): (usize, &str),
        node: Node,
        other: Record,
    ) {
        let span = if node.1 { place.span } else { self.span_of(code, node.0) };
        if !self.is_new(Message::Race, span) {
            return;
        }
        let first = self.span_of(code, other[2]);
        let element = self.named(code, place, at);
        let (here, there) = (self.indices(self.point.indices), self.indices(self.indices_of(other[0] - 1)));
        let message =
            format!("the points with {there} and {here} both access {element}, and nothing orders them");
        let mut diagnostic =
            Diagnostic::new(Message::Race, span, message).label(format!("the point with {here} {does} it"));
        if first != span && first.line != 0 {
            diagnostic = diagnostic.second(first, format!("the point with {there} accesses it"));
        }
        self.messages.push(diagnostic);
    }
}
