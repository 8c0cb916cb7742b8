//! Messages about a kernel file.
//!
//! A message has a code, a place, and often a second place and advice. [`render_all`] draws them as text; for
//! JSON, [`Diagnostic`] implements `serde::Serialize`.
//!
//! The drawing is our own. The crate `annotate-snippets` would do it, but it brings two more crates into the library.
//! It allocates as much as the source asks for, where this library must not abort. And its layout may change, while the
//! text of messages is part of the tests.

mod codes;
mod render;

pub use codes::{Code, Severity};

use super::span::Span;
use crate::allocate;
use crate::error::Result;

/// The most messages about a file.
pub const MAX_DIAGNOSTICS: usize = 100;

/// A message about a kernel file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Its code.
    pub code: Code,
    /// How grave it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where it is wrong.
    #[serde(flatten)]
    pub span: Span,
    /// A remark about the place. May be empty.
    pub label: String,
    /// Another place that explains the message, with a remark.
    pub second: Option<Second>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A second place of a message.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Second {
    /// The place.
    #[serde(flatten)]
    pub span: Span,
    /// What is there, for example "declared here".
    pub label: String,
}

impl Diagnostic {
    /// A message without label, second place and help.
    pub(crate) fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        let severity = code.severity();
        Diagnostic {
            code,
            severity,
            message: message.into(),
            span,
            label: String::new(),
            second: None,
            help: None,
        }
    }

    /// Adds a remark about the place.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds a second place.
    pub(crate) fn second(mut self, span: Span, label: impl Into<String>) -> Self {
        self.second = Some(Second { span, label: label.into() });
        self
    }

    /// Adds advice.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Why a step of the compiler ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The host is out of memory.
    Failed(crate::error::Error),
    /// A message says why. The statement is left out.
    Reported,
}

impl From<crate::error::Error> for Stop {
    fn from(error: crate::error::Error) -> Self {
        Stop::Failed(error)
    }
}

/// The result of a step of the compiler.
pub(super) type Step<T> = std::result::Result<T, Stop>;

/// The value of a step, or nothing if a message says why.
pub(super) fn reported<T>(step: Step<T>) -> Result<Option<T>> {
    match step {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Reported) => Ok(None),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Collects messages.
#[derive(Debug, Default)]
pub(super) struct Sink {
    messages: Vec<Diagnostic>,
    errors: usize,
}

impl Sink {
    /// Adds a message. After [`MAX_DIAGNOSTICS`], messages are only counted.
    pub fn add(&mut self, message: Diagnostic) {
        self.errors += usize::from(message.is_error());
        // What follows from a broken character or number of the same line is left out.
        let follows = matches!(message.code, Code::Expected | Code::LiteralRange);
        let same_line = |it: &Diagnostic| (it.code as u16) < 100 && it.span.line == message.span.line;
        if follows && self.messages.iter().any(same_line) {
            return;
        }
        if self.messages.len() < MAX_DIAGNOSTICS {
            self.messages.push(message);
        } else if self.messages.len() == MAX_DIAGNOSTICS {
            let text = format!("compilation ended after {MAX_DIAGNOSTICS} messages");
            self.messages.push(Diagnostic::new(Code::TooManyErrors, message.span, text));
        }
    }

    /// Adds an error and ends the step.
    pub fn fail<T>(&mut self, message: Diagnostic) -> Step<T> {
        self.add(message);
        Err(Stop::Reported)
    }

    /// Whether there is no room for more messages.
    pub fn is_full(&self) -> bool {
        self.messages.len() > MAX_DIAGNOSTICS
    }

    /// The number of errors so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// All messages in the order of their places.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.messages.sort_by_key(|message| {
            (message.code == Code::TooManyErrors, message.span.line, message.span.column)
        });
        self.messages
    }
}

/// The candidate that `name` was probably meant to be.
pub(super) fn suggestion<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match name.len() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    let name = name.to_ascii_lowercase();
    let near = candidates.take(1000).filter(|it| it.len().abs_diff(name.len()) <= limit);
    let rated = near.map(|it| (distance(&name, &it.to_ascii_lowercase()), it));
    let best =
        rated.filter(|(distance, _)| *distance <= limit && *distance < name.len()).min_by_key(|it| it.0);
    best.map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions and substitutions that turn one name into another. Names are short.
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// All messages as text.
///
/// # Errors
/// The host is out of memory.
pub fn render_all(messages: &[Diagnostic], name: &str, text: &[u8]) -> Result<String> {
    let source = super::source::Source::new(text)?.ok();
    let mut all = String::new();
    for message in messages {
        let drawn = message.draw(name, source.as_ref());
        allocate::push_str(&mut all, &drawn, "messages about a kernel")?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| (pair[0] as u16) < pair[1] as u16));
        assert_eq!(Code::TooDeep.to_string(), "K008");
        assert!(Code::ALL.iter().all(|code| code.title().ends_with('.')));
    }

    #[test]
    fn suggestions_are_near() {
        let names = ["local_size_x", "local_size_y", "dims", "base"];
        assert_eq!(suggestion("locl_size_x", names.into_iter()), Some("local_size_x"));
        assert_eq!(suggestion("DIM", names.into_iter()), Some("dims"));
        assert_eq!(suggestion("contract", names.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn too_many_messages_are_cut() {
        let mut sink = Sink::default();
        for line in (1..=300).rev() {
            sink.add(Diagnostic::new(Code::Stop, Span { line, column: 1, end: 2 }, "stop"));
        }
        assert_eq!(sink.errors(), 300);
        let all = sink.finish();
        assert_eq!(all.len(), MAX_DIAGNOSTICS + 1);
        assert_eq!(all[MAX_DIAGNOSTICS].code, Code::TooManyErrors);
        assert!(all[0].span.line < all[1].span.line);
    }
}
