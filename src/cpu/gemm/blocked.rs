//! The five loops, for operands that are used often; one that is not is read in place.

use std::ops::Range;

use super::Product;
use crate::cpu::block::{Ahead, Panels, Shared, multiply};
use crate::cpu::kernels::{Epilogue, Kernel, Panel, Tile};
use crate::cpu::pack::{Lines, panels};
use crate::cpu::plan;
use crate::cpu::pool::Team;
use crate::error::Result;
use crate::memory::blocking::{Blocking, Products};

/// Block sizes of the outer loops, and what is not packed.
#[derive(Clone, Copy)]
pub struct Blocks {
    pub mc: usize,
    pub kc: usize,
    pub a_in_place: bool,
    pub b_in_place: bool,
}

/// A block of A.
#[derive(Clone, Copy)]
enum Rows<'a> {
    /// In packed panels.
    Packed(&'a [f32]),
    /// Where it lies.
    InPlace(Lines<'a>),
}

impl Rows<'_> {
    /// Panels of `mr` rows from panel `first` on.
    fn panels(self, mr: usize, depth: usize, first: usize) -> Panels {
        match self {
            Rows::Packed(packed) => Panels::packed(&packed[first * mr * depth..], mr, depth),
            Rows::InPlace(Lines { data, line, depth: step }) => {
                // A single depth needs no step. Zero tells it from packed panels, which are whole.
                let step = if depth == 1 { 0 } else { step };
                let start = data[first * mr * line..].as_ptr();
                Panels { first: Panel { start, row: line, step }, next: mr * line }
            }
        }
    }
}

/// Passes over blocks of A that the threads are woken for once: to wake them takes as long as a good part of one.
const PASSES: usize = 16;

/// Computes `product` on `team`; `shared` holds a packed block of A, and is not used if A is read in place.
pub fn run<K: Kernel>(
    kernel: K,
    team: &mut Team,
    product: &Product,
    blocks: Blocks,
    (shared, c): (&mut [f32], &mut [f32]),
    factors: (f32, f32),
) -> Result<()> {
    let threads = team.size();
    let mc = if blocks.a_in_place { product.rows } else { blocks.mc };
    assert!(blocks.a_in_place || shared.len() >= mc.min(product.rows).next_multiple_of(K::MR) * blocks.kc);
    // LOOP 5, rows by MC, and LOOP 4, depth by KC.
    let deep = product.depth.div_ceil(blocks.kc);
    let pass = |index: usize| {
        let (i, p) = (index / deep * mc, index % deep * blocks.kc);
        Pass {
            rows: i..product.rows.min(i + mc),
            depths: p..product.depth.min(p + blocks.kc),
            factors,
            blocks,
            threads,
        }
    };
    let count = product.rows.div_ceil(mc) * deep;
    let (shared, c) = (Shared::new(shared), Shared::new(c));
    for first in (0..count).step_by(PASSES) {
        let mut steps = [0; 2 * PASSES];
        for (index, step) in (first..count).zip(steps.chunks_exact_mut(2)) {
            step.copy_from_slice(&pass(index).tasks(kernel, product));
        }
        team.run_steps(steps, |step, task, workspace| {
            let pass = pass(first + step / 2);
            // SAFETY: steps follow each other, so nothing reads the shared block while it is packed, and nothing
            // packs while it is read; it has room for a block of A, as asserted. gemm::run() checked that C holds
            // rows x cols elements, and borrows it mutably.
            unsafe {
                match step % 2 {
                    0 => pass.pack(kernel, product, shared, task),
                    _ => pass.multiply(kernel, product, (shared, c), (task, workspace)),
                }
            }
        })?;
    }
    Ok(())
}

/// All columns of C, from a block of A.
struct Pass {
    rows: Range<usize>,
    depths: Range<usize>,
    factors: (f32, f32),
    blocks: Blocks,
    threads: usize,
}

impl Pass {
    /// Tasks that pack A, and tasks that multiply.
    fn tasks<K: Kernel>(&self, kernel: K, product: &Product) -> [usize; 2] {
        let panels = self.rows.len().div_ceil(K::MR);
        let packing = if self.blocks.a_in_place { 0 } else { panels.div_ceil(self.packed_by_a_task(panels)) };
        [packing, self.grid(kernel, product).tasks()]
    }

    /// Panels of A that a task packs. More tasks than threads, as these do not begin together.
    fn packed_by_a_task(&self, panels: usize) -> usize {
        panels.div_ceil(if self.threads == 1 { 1 } else { 4 * self.threads })
    }

    /// LOOP 3: columns by NC, and rows in groups if the columns do not give enough tasks.
    fn grid<K: Kernel>(&self, kernel: K, product: &Product) -> Blocking {
        let (rows, depth) = (self.rows.len(), self.depths.len());
        plan(kernel, Products { count: 1, rows, cols: product.cols, depth, unit: 1 }, self.threads)
    }

    /// Packs a task's panels of A.
    ///
    /// # Safety
    /// `shared` has room for all panels; nobody reads it, and each task runs once.
    unsafe fn pack<K: Kernel>(&self, kernel: K, product: &Product, shared: Shared, task: usize) {
        let (mr, count) = (K::MR, self.rows.len().div_ceil(K::MR));
        let (each, panel) = (self.packed_by_a_task(count), mr * self.depths.len());
        let (first, end) = (task * each, count.min((task + 1) * each));
        // SAFETY: panels first..end are inside of what the caller vouches for, and no other task has them.
        let packed = unsafe {
            std::slice::from_raw_parts_mut(shared.start().add(first * panel), (end - first) * panel)
        };
        let rows = self.rows.start + first * mr..self.rows.end.min(self.rows.start + end * mr);
        panels(kernel, product.a, mr, rows, self.depths.clone(), packed);
    }

    /// Multiplies a task's part of A and B.
    ///
    /// # Safety
    /// `shared` holds the packed block of A, unless that is read in place, and nobody writes to it; C is
    /// `product.rows` x `product.cols` elements, rows `product.ld` apart, that only tasks of this pass write to.
    unsafe fn multiply<K: Kernel>(
        &self,
        kernel: K,
        product: &Product,
        (shared, c): (Shared, Shared),
        (task, workspace): (usize, &mut [f32]),
    ) {
        let (rows, depths) = (&self.rows, &self.depths);
        let grid = self.grid(kernel, product);
        let b_in_place = self.blocks.b_in_place;
        let a = if self.blocks.a_in_place {
            let start = rows.start * product.a.line + depths.start * product.a.depth;
            Rows::InPlace(Lines { data: &product.a.data[start..], ..product.a })
        } else {
            let len = rows.len().next_multiple_of(K::MR) * depths.len();
            // SAFETY: the caller vouches for the block.
            Rows::Packed(unsafe { std::slice::from_raw_parts(shared.start(), len) })
        };
        let packs = matches!(a, Rows::Packed(_)) && !b_in_place && product.b.line == 1;
        // The first pass over the depth takes the caller's beta, later ones add.
        let (alpha, beta) = self.factors;
        let epilogue = Epilogue::scaled(alpha, if depths.start == 0 { beta } else { 1.0 });
        let (group, block) = (task % grid.row_groups, task / grid.row_groups);
        let cols = block * grid.nc..product.cols.min((block + 1) * grid.nc);
        let (top, bottom) = (group * grid.panels * K::MR, rows.len().min((group + 1) * grid.panels * K::MR));
        let a = a.panels(K::MR, depths.len(), group * grid.panels);
        // LOOP 2: columns by NR.
        for j in cols.clone().step_by(K::NR) {
            let count = K::NR.min(cols.end - j);
            let start = c.start().wrapping_add((rows.start + top) * product.ld + j);
            let strip = Tile { start, ld: product.ld, rows: bottom - top, cols: count };
            if packs && count == K::NR && strip.rows >= K::MR {
                let panel = &mut workspace[..K::NR * depths.len()];
                // SAFETY: A's panels hold these rows and depths; for C, and the bias, see below.
                unsafe {
                    pack_and_multiply(kernel, a, (product.b, j, depths.clone()), panel, strip, &epilogue)
                };
                continue;
            }
            // B is not prefetched for the next panel: where its rows are a power of two apart their lines fall into
            // few sets of a cache and are gone again before they are packed.
            let b = if b_in_place {
                (product.b.data[depths.start * product.b.depth + j..].as_ptr(), product.b.depth)
            } else {
                let panel = &mut workspace[..K::NR * depths.len()];
                panels(kernel, product.b, K::NR, j..j + count, depths.clone(), panel);
                (panel.as_ptr(), K::NR)
            };
            // SAFETY: A and B, packed or not, hold these rows, columns and depths. The caller vouches for C; the
            // tasks' rows and columns do not overlap. Epilogue::scaled() has no bias.
            unsafe { multiply(kernel, depths.len(), a, b, strip, &epilogue, &Ahead::NOTHING) };
        }
    }
}

/// A strip of C of at least MR rows and NR columns, from packed panels of A and `depths` of B's columns from `j` on. The
/// first tile packs these, into `panel`.
///
/// # Safety
/// That of [`multiply`] for A, C and the epilogue.
unsafe fn pack_and_multiply<K: Kernel>(
    kernel: K,
    a: Panels,
    (b, j, depths): (Lines, usize, Range<usize>),
    panel: &mut [f32],
    strip: Tile,
    epilogue: &Epilogue,
) {
    let from = &b.data[depths.start * b.depth + j..];
    assert!(b.line == 1 && from.len() >= (depths.len() - 1) * b.depth + K::NR);
    assert!(panel.len() >= depths.len() * K::NR);
    let first = Tile { rows: K::MR, ..strip };
    // SAFETY: B holds its rows and the panel has room for them, as asserted; the caller answers for the rest.
    unsafe {
        let from = (from.as_ptr(), b.depth);
        kernel.tile_packing(depths.len(), a.first.start, from, panel.as_mut_ptr(), first, epilogue);
        if strip.rows > K::MR {
            let start = strip.start.add(K::MR * strip.ld);
            let below = Tile { start, rows: strip.rows - K::MR, ..strip };
            let a = Panels { first: Panel { start: a.first.start.add(a.next), ..a.first }, ..a };
            multiply(kernel, depths.len(), a, (panel.as_ptr(), K::NR), below, epilogue, &Ahead::NOTHING);
        }
    }
}
