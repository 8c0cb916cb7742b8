//! Tokens of a kernel file.

use super::span::Span;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Name,
    Integer,
    Real,
    Boz,
    Text,
    True,
    False,
    Plus,
    Minus,
    Star,
    Slash,
    Power,
    Concat,
    Assign,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Arrow,
    And,
    Or,
    Not,
    Equivalent,
    NotEquivalent,
    LeftParen,
    RightParen,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    DoubleColon,
    Percent,
    /// `!@name`; the tokens up to the end of the line belong to it.
    Directive,
    /// The end of a statement.
    End,
    /// The end of the file. It follows an `End`.
    EndOfFile,
}

/// A token: its kind and its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub span: Span,
}

impl Token<'_> {
    /// Whether it is this word, in any case.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Name && self.text.eq_ignore_ascii_case(word)
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::End => "the end of the statement".to_owned(),
            Kind::EndOfFile => "the end of the file".to_owned(),
            Kind::Text => "a character literal".to_owned(),
            _ => format!("`{}`", crate::error::clipped(self.text)),
        }
    }
}
