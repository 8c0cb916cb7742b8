//! The text of a kernel file.

use crate::allocate;
use crate::error::Result;

use super::diagnostics::{Code, Diagnostic};
use super::span::Span;

/// The most bytes of a file.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;

/// The text of a kernel file: UTF-8, with the beginnings of its lines.
#[derive(Debug)]
pub struct Source<'a> {
    /// The text, without a byte order mark.
    pub text: &'a str,
    /// Where each line begins.
    starts: Vec<u32>,
}

impl<'a> Source<'a> {
    /// Reads `bytes`. The inner error is a message about the text.
    ///
    /// # Errors
    /// The host is out of memory.
    pub fn new(bytes: &'a [u8]) -> Result<std::result::Result<Self, Diagnostic>> {
        if bytes.len() > MAX_SOURCE_BYTES {
            let message = format!("the source has {} bytes; the limit is {MAX_SOURCE_BYTES}", bytes.len());
            return Ok(Err(Diagnostic::new(Code::SourceTooLarge, Span::default(), message)));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                let mut starts = Vec::new();
                allocate::push(&mut starts, 0, "the lines of a kernel's source")?;
                let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
                allocate::append(
                    &mut starts,
                    ends.map(|(at, _)| at as u32 + 1),
                    "the lines of a kernel's source",
                )?;
                Ok(Ok(Source { text, starts }))
            }
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
                let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() as u32 + 1;
                let message = format!("the source is not UTF-8: byte 0x{:02x}", bytes[error.valid_up_to()]);
                let span = Span { line, column, end: column + 1 };
                Ok(Err(Diagnostic::new(Code::NotUtf8, span, message)))
            }
        }
    }

    /// The text of a line, from 1, without its end. Lines that do not exist are empty.
    pub fn line(&self, number: u32) -> &'a str {
        let Some(&start) = (number as usize).checked_sub(1).and_then(|index| self.starts.get(index)) else {
            return "";
        };
        let end = self.starts.get(number as usize).map_or(self.text.len(), |end| *end as usize);
        let line = &self.text[start as usize..end];
        line.trim_end_matches(['\n', '\r'])
    }

    /// The column of a span in characters, from 1.
    pub fn column(&self, span: Span) -> u32 {
        let line = self.line(span.line);
        let bytes = (span.column.max(1) - 1) as usize;
        line.char_indices().take_while(|(at, _)| *at < bytes).count() as u32 + 1
    }
}
