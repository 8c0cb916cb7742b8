//! The five loops for operands that are used often. An operand that is used rarely is read in place.

use std::ops::Range;

use super::product::{Product, cut};
use super::strip::{Columns, Rows, Strip};
use crate::cpu::block::Shared;
use crate::cpu::kernel::finish::Finish;
use crate::cpu::kernels::{Epilogue, Kernel, Tile};
use crate::cpu::pack::panels;
use crate::cpu::pool::{Team, worker};
use crate::error::Result;
use crate::memory::blocking::{Blocking, Products};

/// Block sizes of the outer loops, and the operands that are not packed.
#[derive(Clone, Copy)]
pub struct Blocks {
    pub mc: usize,
    pub kc: usize,
    pub a_in_place: bool,
    pub b_in_place: bool,
}

/// Passes over blocks of A per wake-up of the threads. Waking them takes a good part of the time of a pass.
const PASSES: usize = 16;

/// Computes `product` on `team`. `shared` is room for a packed block of A; it is unused if A is read in place.
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
    let (shared, c, finish) = (Shared::new(shared), Shared::new(c), team.finish());
    for first in (0..count).step_by(PASSES) {
        let mut steps = [0; 2 * PASSES];
        for (index, step) in (first..count).zip(steps.chunks_exact_mut(2)) {
            step.copy_from_slice(&pass(index).tasks(kernel, product));
        }
        team.run_steps(steps, |step, task, workspace| {
            let pass = pass(first + step / 2);
            // SAFETY: steps run one after the other, so no task reads the shared block while it is packed, and none
            // packs while it is read. The block has room for a block of A, as asserted. gemm::run() checked that C
            // holds rows x cols elements, and borrows it mutably.
            unsafe {
                match step % 2 {
                    0 => pass.pack(kernel, product, shared, task),
                    _ => pass.multiply(kernel, product, (shared, c), (task, workspace), finish),
                }
            }
        })?;
    }
    Ok(())
}

/// A pass: the contribution of one block of A to all columns of C.
struct Pass {
    rows: Range<usize>,
    depths: Range<usize>,
    factors: (f32, f32),
    blocks: Blocks,
    threads: usize,
}

impl Pass {
    /// The number of tasks that pack A, and of tasks that multiply.
    fn tasks<K: Kernel>(&self, kernel: K, product: &Product) -> [usize; 2] {
        let panels = self.rows.len().div_ceil(K::MR);
        let ready = self.blocks.a_in_place || self.packs_in_first_task(product);
        let packing = if ready { 0 } else { panels.div_ceil(self.packed_by_a_task(panels)) };
        [packing, self.grid(kernel, product).tasks()]
    }

    /// Whether the tiles of the first columns pack A. That needs a single thread, which runs their task first, and rows
    /// of A that are contiguous.
    fn packs_in_first_task(&self, product: &Product) -> bool {
        let Blocks { a_in_place, b_in_place, .. } = self.blocks;
        self.threads == 1 && !a_in_place && !b_in_place && product.a.depth == 1
    }

    /// Panels of A that a task packs. There are more tasks than threads, because threads do not start together.
    fn packed_by_a_task(&self, panels: usize) -> usize {
        panels.div_ceil(if self.threads == 1 { 1 } else { 4 * self.threads })
    }

    /// LOOP 3: columns by NC, and groups of rows if the columns make too few tasks.
    fn grid<K: Kernel>(&self, kernel: K, product: &Product) -> Blocking {
        let (rows, depth) = (self.rows.len(), self.depths.len());
        cut(kernel, Products { count: 1, rows, cols: product.cols, depth, unit: 1 }, self.threads)
    }

    /// Packs a task's panels of A.
    ///
    /// # Safety
    /// `shared` has room for all panels. No thread reads it, and each task runs once.
    unsafe fn pack<K: Kernel>(&self, kernel: K, product: &Product, shared: Shared, task: usize) {
        let (mr, count) = (K::MR, self.rows.len().div_ceil(K::MR));
        let (each, panel) = (self.packed_by_a_task(count), mr * self.depths.len());
        let (first, end) = (task * each, count.min((task + 1) * each));
        // SAFETY: panels first..end are in the memory that the caller vouches for, and no other task accesses them.
        let packed = unsafe {
            std::slice::from_raw_parts_mut(shared.start().add(first * panel), (end - first) * panel)
        };
        let rows = self.rows.start + first * mr..self.rows.end.min(self.rows.start + end * mr);
        panels(kernel, product.a, mr, rows, self.depths.clone(), packed);
    }

    /// Multiplies a task's part of A and B.
    ///
    /// # Safety
    /// `shared` holds the packed block of A, and no thread writes to it. If the first task packs A, `shared` has room
    /// for the block, and only this thread uses it. If A is read in place, `shared` is not used. C has `product.rows` x
    /// `product.cols` elements, with rows `product.ld` apart, and only tasks of this pass write to it.
    unsafe fn multiply<K: Kernel>(
        &self,
        kernel: K,
        product: &Product,
        (shared, c): (Shared, Shared),
        (task, workspace): (usize, &mut [f32]),
        finish: Finish,
    ) {
        let depth = self.depths.len();
        let grid = self.grid(kernel, product);
        let (group, block) = (task % grid.row_groups, task / grid.row_groups);
        let cols = block * grid.nc..product.cols.min((block + 1) * grid.nc);
        let end = self.rows.len().min((group + 1) * grid.panels * K::MR);
        let rows = self.rows.start + group * grid.panels * K::MR..self.rows.start + end;
        let packed = shared.start().wrapping_add(group * grid.panels * K::MR * depth);
        let a = if self.blocks.a_in_place {
            Rows::InPlace
        } else if self.packs_in_first_task(product) && block == 0 {
            Rows::ToPack(packed)
        } else {
            Rows::Packed(packed)
        };
        // The first pass over the depth uses the caller's beta; later ones add.
        let (alpha, beta) = self.factors;
        let epilogue = Epilogue::scaled(alpha, if self.depths.start == 0 { beta } else { 1.0 });
        let strip = Strip { product, rows: rows.clone(), depths: self.depths.clone(), epilogue };
        let panel = &mut workspace[..K::NR * depth];
        let mut columns = Columns { a, b_in_place: self.blocks.b_in_place, panel };
        // LOOP 2: columns by NR.
        let mut j = cols.start;
        while j < cols.end {
            let start = c.start().wrapping_add(rows.start * product.ld + j);
            let tile = Tile { start, ld: product.ld, rows: rows.len(), cols: width::<K>(cols.end - j) };
            // SAFETY: the caller vouches for the block of A and for C. Rows and columns of tasks do not overlap.
            unsafe { strip.multiply(kernel, &mut columns, j, tile) };
            if self.depths.end == product.depth {
                // SAFETY: all of the depth has been added, and only this task uses the tile.
                unsafe { finish.tile(worker(), (tile.start, tile.ld), (tile.rows, tile.cols)) };
            }
            j += tile.cols;
        }
    }
}

/// Columns of the next strip if `left` columns remain. A tile of a single vector is slow, so the last two strips become
/// narrower instead.
fn width<K: Kernel>(left: usize) -> usize {
    let rest = left.saturating_sub(K::NR);
    if K::NR > 2 * K::LANES && (1..=K::LANES).contains(&rest) { K::NR - K::LANES } else { K::NR.min(left) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::testing::{expected, operands};
    use crate::cpu::isa::{Isa, with_kernel};

    /// Tests blocks far smaller than those of plans: several passes over rows and depth, with edges in all of them.
    fn check<K: Kernel>(kernel: K, team: &mut Team, (rows, cols, depth): (usize, usize, usize)) -> usize {
        let mut cases = 0;
        for transposed in 0..4 {
            let (a, b) = operands((rows, cols, depth), transposed);
            let product = Product { rows, cols, depth, a: a.lines(), b: b.lines(), ld: cols + 1 };
            for (mc, kc, packed) in [(2 * K::MR, 7, true), (64 * K::MR, 100, true), (2 * K::MR, 7, false)] {
                let in_place = !packed && a.lines().depth == 1 && b.lines().line == 1;
                let blocks = Blocks { mc, kc, a_in_place: in_place, b_in_place: in_place };
                let mut shared = vec![f32::NAN; mc * kc];
                let mut c: Vec<f32> = (0..rows * product.ld).map(|at| (at % 5) as f32).collect();
                let right = expected(&product, &c, (2.0, -1.0));
                run(kernel, team, &product, blocks, (&mut shared, &mut c), (2.0, -1.0)).unwrap();
                assert_eq!(c, right, "{} {rows}x{cols}x{depth} transposed {transposed}", K::SGEMM);
                cases += 1;
            }
        }
        cases
    }

    #[test]
    fn every_pass_over_rows_and_depth_is_exact() {
        let (mut cases, mut teams) = (0, [1, 3].map(Team::of));
        for isa in Isa::all() {
            for shape in [(1, 1, 1), (9, 97, 15), (50, 144, 7), (53, 48, 8), (40, 200, 29), (17, 3, 30)] {
                for team in &mut teams {
                    cases += with_kernel!(isa, kernel => check(kernel, team, shape));
                }
            }
        }
        assert!(cases >= 6 * 2 * 4 * 3);
    }
}
