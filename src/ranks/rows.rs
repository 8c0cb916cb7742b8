//! The geometry of rows: what a rank needs from the others, and which of its rows need nothing.

use super::cut::Span;
use super::transport::{Exchange, Message};
use crate::allocate;
use crate::error::Result;
use crate::problem::Conv2d;

/// The tag of the rows at the edges.
const HALO: u32 = 1;

/// Rows of output that are computed together, from rows of input with their padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The rows of output, of the whole problem.
    pub output: Span,
    /// The first row of input, of the whole problem. It may be above the image.
    pub first: i64,
    /// How many rows of input, with those outside of the image.
    pub count: usize,
    /// Whether rows of other ranks are among them.
    pub waits: bool,
}

/// The rows that one rank holds, needs and computes.
pub struct Rows {
    /// The rows of input that it holds.
    pub input: Span,
    /// The rows that it computes in pieces.
    pub pieces: Vec<Piece>,
    /// Ranks, and which rows they get from this one.
    sends: Vec<(usize, Span)>,
    /// Ranks, and which rows this one gets from them.
    receives: Vec<(usize, Span)>,
}

impl Rows {
    /// The rows of `rank`, where `parts` are input and output of all ranks.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(problem: &Conv2d, parts: &[(Span, Span)], rank: usize) -> Result<Self> {
        let (input, output) = parts[rank];
        let needed = |output: Span| {
            let piece = piece(problem, output, false);
            let end = (piece.first + piece.count as i64).max(0) as usize;
            Span::between(piece.first.max(0) as usize, end.min(problem.sizes().h))
        };
        let others = || parts.iter().enumerate().filter(|(other, _)| *other != rank);
        let with_rows = |(_, rows): &(usize, Span)| rows.count > 0;
        let needed_here = if output.count > 0 { needed(output) } else { Span::default() };
        let receives = others().map(|(other, part)| (other, needed_here.common(part.0)));
        let sends = others()
            .filter(|(_, part)| part.1.count > 0)
            .map(|(other, part)| (other, needed(part.1).common(input)));
        let mut rows =
            Rows { input, pieces: pieces(problem, input, output), sends: vec![], receives: vec![] };
        allocate::append(&mut rows.sends, sends.filter(with_rows), "neighbours")?;
        allocate::append(&mut rows.receives, receives.filter(with_rows), "neighbours")?;
        Ok(rows)
    }

    /// The messages of a run, without data to send.
    ///
    /// # Errors
    /// Out of memory.
    pub fn exchange(&self, problem: &Conv2d) -> Result<Exchange> {
        let message = |&(rank, rows): &(usize, Span)| {
            let data = allocate::zeroed(rows.count * row_len(problem), "rows for other ranks")?;
            Ok(Message { rank, tag: HALO, data })
        };
        Ok(Exchange {
            sends: allocate::collected(self.sends.iter().map(message), "messages")?,
            receives: allocate::collected(self.receives.iter().map(message), "messages")?,
        })
    }

    /// Copies the rows that other ranks get.
    pub fn fill(&self, problem: &Conv2d, input: &[f32], exchange: &mut Exchange) {
        for (&(_, rows), message) in self.sends.iter().zip(&mut exchange.sends) {
            copy(problem, (input, self.input), (&mut message.data, rows.first as i64, rows.count));
        }
    }

    /// Puts the input of `piece` together. What is outside of the image is zero already.
    pub fn gather(&self, problem: &Conv2d, piece: &Piece, input: &[f32], halo: &Exchange, into: &mut [f32]) {
        copy(problem, (input, self.input), (into, piece.first, piece.count));
        for (&(_, rows), message) in self.receives.iter().zip(&halo.receives) {
            copy(problem, (&message.data, rows), (into, piece.first, piece.count));
        }
    }
}

/// Elements of one row of all images and input channels.
fn row_len(problem: &Conv2d) -> usize {
    let sizes = problem.sizes();
    sizes.n * sizes.c * sizes.w
}

/// The input that `output` needs.
fn piece(problem: &Conv2d, output: Span, waits: bool) -> Piece {
    let sizes = problem.sizes();
    Piece {
        output,
        first: (output.first * sizes.stride_h) as i64 - sizes.pad_h as i64,
        count: (output.count.max(1) - 1) * sizes.stride_h + sizes.dilation_h * (sizes.r - 1) + 1,
        waits,
    }
}

/// Cuts the rows of a rank: those that it can compute alone first, unless they are less than half.
fn pieces(problem: &Conv2d, input: Span, output: Span) -> Vec<Piece> {
    if output.count == 0 {
        return vec![];
    }
    let inside = |row: usize| {
        let alone = piece(problem, Span { first: row, count: 1 }, false);
        alone.first >= input.first as i64 && alone.first + alone.count as i64 <= input.end() as i64
    };
    let all = output.first..output.end();
    let first = all.clone().find(|&row| inside(row)).unwrap_or(output.end());
    let end = all.rev().find(|&row| inside(row)).map_or(first, |row| row + 1);
    let inner = Span::between(first, end);
    if 2 * inner.count < output.count {
        return vec![piece(problem, output, true)];
    }
    let edges = [Span::between(output.first, first), Span::between(end, output.end())];
    let edges = edges.into_iter().filter(|rows| rows.count > 0).map(|rows| piece(problem, rows, true));
    std::iter::once(piece(problem, inner, false)).chain(edges).collect()
}

/// Copies the rows that `from` and `to` share, in all images and channels. `to` begins with row `first`, which may be above
/// the image.
fn copy(problem: &Conv2d, (from, rows): (&[f32], Span), (to, first, count): (&mut [f32], i64, usize)) {
    let width = problem.sizes().w;
    let begin = (rows.first as i64).max(first);
    let end = (rows.end() as i64).min(first + count as i64);
    if begin >= end {
        return;
    }
    let (skip, at) = ((begin - rows.first as i64) as usize * width, (begin - first) as usize * width);
    let len = (end - begin) as usize * width;
    for (from, to) in from.chunks_exact(rows.count * width).zip(to.chunks_exact_mut(count * width)) {
        to[at..][..len].copy_from_slice(&from[skip..][..len]);
    }
}
