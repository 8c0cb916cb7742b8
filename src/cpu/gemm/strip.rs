//! A strip of C, at most NR columns wide: a panel of B, and the panels of A that stream past it.
//!
//! Packing waits for memory, and a tile has arithmetic for that time. So the first tile that reads data packs them:
//!
//! ```text
//!                  first strip, of one thread      other strips
//! first tile       its rows of A                   the columns of B, for all tiles
//! other tiles      their rows of A                 nothing
//! ```

use std::ops::Range;

use super::product::Product;
use crate::cpu::block::{Ahead, Panels, multiply};
use crate::cpu::kernels::{Epilogue, Kernel, NextRows, Panel, Tap, Tile, TransposeBlock, View};
use crate::cpu::pack::{Lines, panels};

/// The location of the rows of A.
#[derive(Clone, Copy)]
pub enum Rows {
    /// In packed panels.
    Packed(*mut f32),
    /// In the original matrix; the first strip packs them to this address.
    ToPack(*mut f32),
    /// In the original matrix.
    InPlace,
}

/// State that passes from strip to strip.
pub struct Columns<'a> {
    pub a: Rows,
    pub b_in_place: bool,
    /// Room for a panel of B.
    pub panel: &'a mut [f32],
}

/// The rows and depths of a task's strips, and the epilogue of their sums.
pub struct Strip<'a> {
    pub product: &'a Product<'a>,
    pub rows: Range<usize>,
    pub depths: Range<usize>,
    pub epilogue: Epilogue,
}

impl Strip<'_> {
    /// Computes the strip `c`, which starts at column `j`.
    ///
    /// # Safety
    /// `c` is the strip's part of C. It is writable, only this call writes it, and it is initialised if beta is not
    /// zero. A's panels hold the strip's rows and depths. If A is to be packed, they have room for these, and only this
    /// call accesses them. The epilogue has no bias.
    pub unsafe fn multiply<K: Kernel>(&self, kernel: K, columns: &mut Columns, j: usize, c: Tile) {
        if columns.b_in_place || c.cols < K::NR {
            // SAFETY: the caller keeps the contract.
            return unsafe { self.at_the_edge(kernel, columns, j, c) };
        }
        let (b, depth) = (self.product.b, self.depths.len());
        let by_tile = b.line == 1 && c.rows >= K::MR && matches!(columns.a, Rows::Packed(_));
        let from = &b.data[self.depths.start * b.depth + j * b.line..];
        assert!(!by_tile || from.len() >= (depth - 1) * b.depth + K::NR);
        if !by_tile {
            panels(kernel, b, K::NR, j..j + K::NR, self.depths.clone(), columns.panel);
        }
        assert!(columns.panel.len() >= depth * K::NR);
        let panel = columns.panel.as_mut_ptr();
        for (index, i) in (0..c.rows).step_by(K::MR).enumerate() {
            // SAFETY: row i and the rest of this tile exist in A, as the caller vouches, and in C. The panel of B holds
            // NR columns. For a first tile that packs it, it has room for them, and B has them, as asserted.
            unsafe {
                let start = c.start.add(i * c.ld);
                let tile = Tile { start, rows: K::MR.min(c.rows - i), ..c };
                match columns.a {
                    Rows::Packed(a) if by_tile && index == 0 => {
                        let from = (from.as_ptr(), b.depth);
                        kernel.tile_packing(depth, a, from, panel, tile, &self.epilogue);
                    }
                    Rows::ToPack(a) => self.packing(kernel, i, a.add(i * depth), panel, tile),
                    _ => {
                        let a = self.panels::<K>(columns.a);
                        let a = Panel { start: a.first.start.add(index * a.next), ..a.first };
                        kernel.tile(depth, a, (panel, K::NR), tile, &self.epilogue, &NextRows::NOTHING);
                    }
                }
            }
        }
        if let Rows::ToPack(a) = columns.a {
            columns.a = Rows::Packed(a);
        }
    }

    /// Computes a strip of fewer than NR columns, or of columns that are read in place.
    ///
    /// # Safety
    /// As for [`Strip::multiply`].
    unsafe fn at_the_edge<K: Kernel>(&self, kernel: K, columns: &mut Columns, j: usize, c: Tile) {
        let Product { a, b, .. } = *self.product;
        let depth = self.depths.len();
        if let Rows::ToPack(to) = columns.a {
            let len = c.rows.next_multiple_of(K::MR) * depth;
            // SAFETY: the caller vouches for the room.
            let to_pack = unsafe { std::slice::from_raw_parts_mut(to, len) };
            panels(kernel, a, K::MR, self.rows.clone(), self.depths.clone(), to_pack);
            columns.a = Rows::Packed(to);
        }
        let from = if columns.b_in_place {
            let from = &b.data[self.depths.start * b.depth + j..];
            assert!(b.line == 1 && from.len() >= (depth - 1) * b.depth + c.cols);
            (from.as_ptr(), b.depth)
        } else {
            panels(kernel, b, K::NR, j..j + c.cols, self.depths.clone(), columns.panel);
            (columns.panel.as_ptr(), K::NR)
        };
        let a = self.panels::<K>(columns.a);
        // SAFETY: B, packed or not, holds these columns and depths. The caller vouches for A and C.
        unsafe { multiply(kernel, depth, a, from, c, &self.epilogue, &Ahead::NOTHING) };
    }

    /// The panels of A.
    fn panels<K: Kernel>(&self, a: Rows) -> Panels {
        let depth = self.depths.len();
        match a {
            Rows::Packed(start) | Rows::ToPack(start) => {
                Panels { first: Panel::packed(start, K::MR), next: K::MR * depth }
            }
            Rows::InPlace => {
                let Lines { data, line, depth: step } = self.product.a;
                // A single depth needs no step. Zero distinguishes it from packed panels, which are whole.
                let one = if depth == 1 { 0 } else { step };
                let start = data[self.rows.start * line + self.depths.start * step..].as_ptr();
                Panels { first: Panel { start, row: line, step: one }, next: K::MR * line }
            }
        }
    }

    /// Computes a tile of NR columns that starts at the strip's row `i`, and packs its rows to `to`.
    ///
    /// # Safety
    /// As for [`Strip::multiply`], for these rows.
    unsafe fn packing<K: Kernel>(&self, kernel: K, i: usize, to: *mut f32, panel: *const f32, c: Tile) {
        let (a, depth, first) = (self.product.a, self.depths.len(), self.rows.start + i);
        let from = &a.data[first * a.line + self.depths.start..];
        assert!(a.depth == 1 && from.len() >= (c.rows - 1) * a.line + depth);
        // SAFETY: A has these rows and depths, as asserted. The caller vouches for the rest.
        unsafe {
            if c.rows == K::MR && K::HIDES_PACKING && self.epilogue.only_adds() && self.epilogue.alpha == 1.0
            {
                let taps = [Tap { offset: 0, lanes: (1 << K::NR) - 1, ahead: 0 }];
                // The panel of B as an image of NR pixels, with one channel per depth.
                let view = View {
                    start: panel,
                    channels: depth,
                    pitch: K::NR,
                    taps: &taps,
                    whole: true,
                    padded: false,
                    beside: 0,
                    thin: std::ptr::null(),
                    a_ahead: 0,
                };
                let turn = TransposeBlock {
                    from: from.as_ptr(),
                    line: a.line,
                    to,
                    width: K::MR,
                    lines: K::MR,
                    depths: depth,
                    more: false,
                };
                kernel.view_packing_a(&turn, &view, c, &self.epilogue);
            } else if c.rows == K::MR {
                kernel.tile_packing_a(depth, (from.as_ptr(), a.line), panel, to, c, &self.epilogue);
            } else {
                let to = std::slice::from_raw_parts_mut(to, K::MR * depth);
                panels(kernel, a, K::MR, first..first + c.rows, self.depths.clone(), to);
                let a = Panel::packed(to.as_ptr(), K::MR);
                kernel.tile(depth, a, (panel, K::NR), c, &self.epilogue, &NextRows::NOTHING);
            }
        }
    }
}
