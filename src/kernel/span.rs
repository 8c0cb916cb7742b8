//! Places in the source.

/// A stretch of one source line. Text that continues on further lines is represented by its part on the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Span {
    /// The line, from 1. Zero means that the node has no place of its own.
    pub line: u32,
    /// The first byte's column, from 1.
    pub column: u32,
    /// The column after the last byte.
    pub end: u32,
}

impl Span {
    /// From the beginning of `self` to the end of `last`, as far as both share a line.
    pub fn to(self, last: Span) -> Span {
        if last.line == self.line { Span { end: self.end.max(last.end), ..self } } else { self }
    }
}
