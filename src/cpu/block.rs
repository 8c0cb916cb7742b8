//! The loop that matrix products and convolutions share: all rows of A times one panel of B.

use super::kernels::{Epilogue, Kernel, NextRows, Panel, Tile, prefetch};

/// All rows of A that are multiplied by a panel of B. Panel i of MR rows is `first`, moved by `i*next` elements.
#[derive(Clone, Copy)]
pub struct Panels {
    pub first: Panel,
    pub next: usize,
}

impl Panels {
    /// Packed panels of `mr` rows, `depth` deep, one after the other.
    pub fn packed(start: &[f32], mr: usize, depth: usize) -> Self {
        Panels { first: Panel::packed(start.as_ptr(), mr), next: mr * depth }
    }
}

/// The memory that the next panel of B is packed from: `rows` rows of `len` elements, `row` apart. It is prefetched
/// while this panel is used, a few lines before each tile, so that packing does not wait for memory.
#[derive(Clone, Copy)]
pub struct Ahead {
    pub start: *const f32,
    pub row: usize,
    pub rows: usize,
    pub len: usize,
}

impl Ahead {
    pub const NOTHING: Self = Ahead { start: std::ptr::null(), row: 0, rows: 0, len: 0 };

    /// Part `index` of `parts` equal parts.
    pub fn part(&self, index: usize, parts: usize) -> Self {
        let (first, end) = (index * self.rows / parts, (index + 1) * self.rows / parts);
        Ahead { start: self.start.wrapping_add(first * self.row), rows: end - first, ..*self }
    }

    /// Prefetches part `index` of the parts of `each` rows.
    #[inline]
    pub fn prefetch(&self, index: usize, each: usize) {
        for row in (index * each).min(self.rows)..((index + 1) * each).min(self.rows) {
            let start = self.start.wrapping_add(row * self.row);
            for at in (0..self.len).step_by(LINE) {
                prefetch(start.wrapping_add(at));
            }
        }
    }
}

/// An [`Ahead`] that tiles prefetch in turn: each a cache line in each of some rows. All tiles together prefetch all of
/// it, or as many lines of each row as there are tiles.
pub struct Turns {
    ahead: Ahead,
    lines: usize,
    each: usize,
    line: usize,
    first: usize,
}

impl Turns {
    pub fn new(ahead: Ahead, tiles: usize) -> Self {
        // One line more, as rows need not begin at a line.
        let lines = (ahead.len / LINE + 1).min(tiles).max(1);
        let each = ahead.rows.div_ceil((tiles / lines).max(1));
        Turns { ahead, lines, each, line: 0, first: 0 }
    }

    /// What the next tile prefetches.
    #[inline]
    pub fn next(&mut self) -> NextRows {
        let Ahead { start, row, rows, .. } = self.ahead;
        let count = self.each.min(rows - self.first);
        let part =
            NextRows { start: start.wrapping_add(self.first * row + self.line * LINE), row, rows: count };
        self.line += 1;
        if self.line == self.lines {
            (self.line, self.first) = (0, self.first + count);
        }
        part
    }
}

/// Elements in a cache line.
const LINE: usize = 16;

/// A matrix of which tasks write disjoint parts.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32);

impl Shared {
    pub fn new(matrix: &mut [f32]) -> Self {
        Shared(matrix.as_mut_ptr())
    }

    /// The first element.
    pub fn start(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: a Shared is only a pointer. Code that writes through it guarantees that writes do not overlap.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Computes a strip of C from panels of A and one panel of B. The strip has any number of rows and up to NR columns.
/// The rows of B are `b.1` apart. The panel of B stays in the L1 cache; those of A stream past it.
///
/// # Safety
/// A is readable for the strip's rows, B for its columns, both `depth` deep. All elements of the strip are writable,
/// no other thread accesses them, and they are initialised if `epilogue.beta` is not zero. The bias is null or
/// readable for the strip's rows.
pub unsafe fn multiply<K: Kernel>(
    kernel: K,
    depth: usize,
    a: Panels,
    b: (*const f32, usize),
    c: Tile,
    epilogue: &Epilogue,
    ahead: &Ahead,
) {
    assert!(depth > 0 && c.cols > 0 && c.cols <= K::NR);
    let thin = c.cols % K::LANES;
    if thin > 0 && thin <= K::THIN && (a.next, a.first.row, a.first.step) == (K::MR * depth, 1, K::MR) {
        let wide = c.cols - thin;
        // SAFETY: the thin part is the last columns of the strip, and packed panels are whole.
        unsafe {
            let rest = Tile { start: c.start.add(wide), cols: thin, ..c };
            kernel.thin(depth, a.first.start, (b.0.add(wide), b.1), rest, epilogue);
            if wide > 0 {
                multiply(kernel, depth, a, b, Tile { cols: wide, ..c }, epilogue, ahead);
            }
        }
        return;
    }
    let each = ahead.rows.div_ceil(c.rows.div_ceil(K::MR));
    for (index, i) in (0..c.rows).step_by(K::MR).enumerate() {
        if kernel.fetches_ahead() {
            ahead.prefetch(index, each);
        }
        // SAFETY: row i and the rest of this tile exist in A, C and the bias.
        unsafe {
            let epilogue = epilogue.below(i);
            let a = Panel { start: a.first.start.add(index * a.next), ..a.first };
            let tile = Tile { start: c.start.add(i * c.ld), rows: K::MR.min(c.rows - i), ..c };
            kernel.tile(depth, a, b, tile, &epilogue, &NextRows::NOTHING);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::cpu::pack::{Lines, panels};
    use crate::problem::exact::Random;

    fn check<K: Kernel>(kernel: K, rows: usize, cols: usize, random: &mut Random) {
        let (depth, ld) = (5, cols + 2);
        let (a, b) = (random.integers(rows * depth, 8), random.integers(depth * cols, 8));
        let mut packed = vec![f32::NAN; rows.next_multiple_of(K::MR) * depth];
        panels(kernel, Lines { data: &a, line: depth, depth: 1 }, K::MR, 0..rows, 0..depth, &mut packed);
        let in_place =
            Panels { first: Panel { start: a.as_ptr(), row: depth, step: 1 }, next: K::MR * depth };
        for a_panels in [Panels::packed(&packed, K::MR, depth), in_place] {
            let mut c = vec![f32::NAN; rows * ld];
            for beta in [0.0, 1.0] {
                for j in (0..cols).step_by(K::NR) {
                    // SAFETY: column j exists.
                    let (start, b) = unsafe { (c.as_mut_ptr().add(j), b.as_ptr().add(j)) };
                    let strip = Tile { start, ld, rows, cols: K::NR.min(cols - j) };
                    // SAFETY: c holds rows x ld elements, initialised; there is no bias.
                    unsafe {
                        let epilogue = Epilogue::scaled(1.0, beta);
                        multiply(kernel, depth, a_panels, (b, cols), strip, &epilogue, &Ahead::NOTHING);
                    }
                }
            }
            for i in 0..rows {
                for j in 0..ld {
                    let sum: f32 =
                        (0..depth).map(|p| a[i * depth + p] * b.get(p * cols + j).unwrap_or(&0.0)).sum();
                    let got = c[i * ld + j];
                    let right = if j < cols { got == 2.0 * sum } else { got.is_nan() };
                    assert!(right, "{rows}x{cols} at {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn strips_of_every_size_are_right_and_stay_inside() {
        let mut random = Random::new(12);
        for isa in Isa::all() {
            for (rows, cols) in
                (1..30).flat_map(|rows| [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 65].map(|cols| (rows, cols)))
            {
                with_kernel!(isa, kernel => check(kernel, rows, cols, &mut random));
            }
        }
    }
}
