//! Tokens to syntax, by recursive descent.
//!
//! After an error the parser goes on at the next statement. A construct that is closed by the wrong statement ends
//! where an outer one ends, so one mistake gives one message. The nesting of expressions and blocks is limited: the
//! host's stack is.

mod cursor;
mod declarations;
mod directives;
mod expressions;
mod statements;
mod units;

use crate::error::Result;

use super::diagnostics::Sink;
use super::span::Span;
use super::syntax::{Annotation, File, ReductionDirective};
use super::token::Token;

/// The most levels of an expression.
pub(super) const MAX_EXPRESSION: usize = 150;

/// The most nested constructs.
pub(super) const MAX_BLOCKS: usize = 48;

/// Why there was no memory.
const WHAT: &str = "the syntax of a kernel";

/// The syntax of a file.
///
/// # Errors
/// The host is out of memory.
pub(super) fn parse<'a>(tokens: &[Token<'a>], sink: &mut Sink) -> Result<File<'a>> {
    let mut parser = Parser {
        tokens,
        at: 0,
        sink,
        nesting: 0,
        open: Vec::new(),
        annotation: None,
        reductions: Vec::new(),
        hosts: 0,
    };
    let mut file = File::default();
    parser.file(&mut file)?;
    Ok(file)
}

/// A construct that is being parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Construct {
    If,
    Do,
    Select,
}

struct Parser<'a, 't, 's> {
    tokens: &'t [Token<'a>],
    at: usize,
    sink: &'s mut Sink,
    /// Nested calls for the current expression.
    nesting: usize,
    open: Vec<(Construct, Span)>,
    /// An annotation that waits for its procedure.
    annotation: Option<Annotation<'a>>,
    /// Reductions that precede their procedure.
    reductions: Vec<ReductionDirective<'a>>,
    /// Procedures with internal ones, whose end is still to come.
    hosts: usize,
}
