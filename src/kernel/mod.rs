//! Layer 3: the compiler of the kernel language, as pure functions: Fortran text in; a checked tree, GLSL and
//! messages out.
//!
//! The engines, the C interface and the command line call it. It uses only `allocate` and `error`: no
//! OpenGL, no clock, and no files except in `file`. It never panics, whatever the text.
//!
//! - [`span`](mod@span): places in the source.
//! - [`diagnostics`](mod@diagnostics): messages, their codes and their text.
//! - [`tree`](mod@tree): the checked tree, the contract for back ends.
//! - `file`: a file to text.
//! - `source`, `token`, `lexer`: text to tokens.
//! - `syntax`, `parser`: tokens to syntax.
//! - `check`, `fold`, `uniformity`: syntax to the tree.
//! - [`glsl`](mod@glsl): the tree to GLSL.
//! - [`describe`](mod@describe): what hosts need to know.
//! - [`bind`](mod@bind): the arguments of a launch, checked.

pub mod bind;
mod check;
pub mod describe;
pub mod diagnostics;
mod file;
mod fold;
pub mod fused;
pub mod glsl;
mod lexer;
mod parser;
mod source;
pub mod span;
mod syntax;
mod token;
pub mod tree;
mod uniformity;

use crate::error::Result;

pub use file::read;

use diagnostics::{Diagnostic, Sink};
use tree::Unit;

/// The stack, in bytes, that suffices for [`compile`] and for writing GLSL, whatever the text.
pub const STACK_BYTES: usize = 512 << 10;

/// A compiled file: its tree, unless there are errors, and all messages.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The tree. Nothing, if a message is an error.
    pub unit: Option<Unit>,
    /// The messages in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles the text of a kernel file.
///
/// Needs [`STACK_BYTES`] of stack, as walks of the tree do. Constants are computed in the floating-point environment of the calling thread.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory). What is wrong with the text is among the messages.
pub fn compile(text: &[u8]) -> Result<Compiled> {
    let mut sink = Sink::default();
    let mut unit = None;
    match source::Source::new(text)? {
        Ok(source) => {
            let tokens = lexer::tokens(&source, &mut sink)?;
            let file = parser::parse(&tokens, &mut sink)?;
            let checked = check::check(&file, &mut sink)?;
            unit = (sink.errors() == 0).then_some(checked);
        }
        Err(diagnostic) => sink.add(diagnostic),
    }
    Ok(Compiled { unit, diagnostics: sink.finish() })
}

#[cfg(test)]
mod tests;
