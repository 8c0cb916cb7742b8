//! The five loops, for operands that are used often; one that is not is read in place.

use std::ops::Range;

use super::Product;
use crate::cpu::block::{Ahead, Panels, Shared, multiply};
use crate::cpu::kernels::{Epilogue, Kernel, Panel, Tile};
use crate::cpu::pack::{Lines, panels};
use crate::cpu::plan;
use crate::cpu::pool::Team;
use crate::error::Result;
use crate::memory::blocking::Products;

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

/// Computes `product` on `team`; `shared` holds a packed block of A, and is not used if A is read in place.
pub fn run<K: Kernel>(
    kernel: K,
    team: &mut Team,
    product: &Product,
    blocks: Blocks,
    (shared, c): (&mut [f32], &mut [f32]),
    (alpha, beta): (f32, f32),
) -> Result<()> {
    let mc = if blocks.a_in_place { product.rows } else { blocks.mc };
    // LOOP 5: rows by MC.
    for i in (0..product.rows).step_by(mc) {
        let rows = i..product.rows.min(i + mc);
        // LOOP 4: depth by KC. The first pass takes the caller's beta, later ones add.
        for p in (0..product.depth).step_by(blocks.kc) {
            let depths = p..product.depth.min(p + blocks.kc);
            let factors = (alpha, if p == 0 { beta } else { 1.0 });
            let a = if blocks.a_in_place {
                Rows::InPlace(Lines {
                    data: &product.a.data[i * product.a.line + p * product.a.depth..],
                    ..product.a
                })
            } else {
                let shared = &mut shared[..rows.len().next_multiple_of(K::MR) * depths.len()];
                pack_rows(kernel, team, product.a, rows.clone(), depths.clone(), shared)?;
                Rows::Packed(shared)
            };
            pass(kernel, team, product, (rows.clone(), depths), (a, blocks.b_in_place), c, factors)?;
        }
    }
    Ok(())
}

/// Packs a block of A, its panels shared out among the threads.
fn pack_rows<K: Kernel>(
    kernel: K,
    team: &mut Team,
    a: Lines,
    rows: Range<usize>,
    depths: Range<usize>,
    packed: &mut [f32],
) -> Result<()> {
    let mr = K::MR;
    let count = rows.len().div_ceil(mr);
    let each = count.div_ceil(team.size());
    let panel = mr * depths.len();
    let to = Shared::new(packed);
    debug_assert!(packed.len() >= count * panel);
    team.run(count.div_ceil(each), |task, _| {
        let (first, end) = (task * each, count.min((task + 1) * each));
        // SAFETY: panels first..end are inside of `packed`, which is borrowed mutably here, and no other task
        // has them.
        let packed =
            unsafe { std::slice::from_raw_parts_mut(to.start().add(first * panel), (end - first) * panel) };
        let rows = rows.start + first * mr..rows.end.min(rows.start + end * mr);
        panels(kernel, a, mr, rows, depths.clone(), packed);
    })
}

/// LOOP 3: columns by NC, and rows in groups if the columns do not give enough tasks.
fn pass<K: Kernel>(
    kernel: K,
    team: &mut Team,
    product: &Product,
    (rows, depths): (Range<usize>, Range<usize>),
    (a, b_in_place): (Rows, bool),
    c: &mut [f32],
    (alpha, beta): (f32, f32),
) -> Result<()> {
    let block = Products { count: 1, rows: rows.len(), cols: product.cols, depth: depths.len(), unit: 1 };
    let grid = plan(kernel, block, team.size());
    let c = Shared::new(c);
    team.run(grid.tasks(), |task, workspace| {
        let (group, block) = (task % grid.row_groups, task / grid.row_groups);
        let cols = block * grid.nc..product.cols.min((block + 1) * grid.nc);
        let (top, bottom) = (group * grid.panels * K::MR, rows.len().min((group + 1) * grid.panels * K::MR));
        let a = a.panels(K::MR, depths.len(), group * grid.panels);
        for j in cols.clone().step_by(K::NR) {
            let count = K::NR.min(cols.end - j);
            // B is not prefetched for the next panel: where its rows are a power of two apart their lines fall into
            // few sets of a cache and are gone again before they are packed.
            let b = if b_in_place {
                (product.b.data[depths.start * product.b.depth + j..].as_ptr(), product.b.depth)
            } else {
                let panel = &mut workspace[..K::NR * depths.len()];
                panels(kernel, product.b, K::NR, j..j + count, depths.clone(), panel);
                (panel.as_ptr(), K::NR)
            };
            // SAFETY: A and B, packed or not, hold these rows, columns and depths. gemm::run() checked that C holds rows x cols elements with stride ld, and borrows it mutably;
            // the tasks' rows and columns do not overlap. Epilogue::scaled() has no bias.
            unsafe {
                let start = c.start().add((rows.start + top) * product.ld + j);
                let strip = Tile { start, ld: product.ld, rows: bottom - top, cols: count };
                multiply(kernel, depths.len(), a, b, strip, &Epilogue::scaled(alpha, beta), &Ahead::NOTHING);
            }
        }
    })
}
