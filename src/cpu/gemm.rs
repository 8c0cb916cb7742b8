//! Matrix products: the five loops around the micro-kernel (Goto and van de Geijn, Anatomy of
//! high-performance matrix multiplication, 2008), with the roles of A and B exchanged because C's rows are
//! the contiguous ones here.
//!
//! ```text
//! LOOP 5  rows of C by MC     \ A, MC x KC, is packed by all threads together and read by all: last-level cache
//! LOOP 4  depth by KC         /
//! LOOP 3  columns of C by NC    one task each
//! LOOP 2  columns by NR         packs a panel of B, KC x NR, into the task's workspace: L1 cache
//! LOOP 1  rows by MR            (block.rs) panels of A stream past it through the micro-kernel: registers
//! ```
//!
//! Loop 4 is sequential, as its passes add to the same C; so an element is summed in the same order whoever
//! computes it.

use std::ops::Range;

use super::block::{Ahead, Panels, Shared, multiply};
use super::kernels::{Epilogue, Kernel, Tile};
use super::pack::{Lines, panels};
use super::plan;
use super::pool::Team;
use crate::error::Result;
use crate::memory::blocking::{Blocking, Products};
use crate::problem::{Gemm, GemmSizes};

/// A product with C's contiguous direction made the columns: C(i, j) is at `i*ld + j`.
#[derive(Clone, Copy)]
struct Product<'a> {
    rows: usize,
    cols: usize,
    depth: usize,
    /// The rows of op(A).
    a: Lines<'a>,
    /// The columns of op(B).
    b: Lines<'a>,
    ld: usize,
}

impl<'a> Product<'a> {
    fn new(sizes: &GemmSizes, a: &'a [f32], b: &'a [f32]) -> Self {
        let GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col } = *sizes;
        let a = Lines { data: a, line: a_row, depth: a_col };
        let b = Lines { data: b, line: b_col, depth: b_row };
        if c_col == 1 {
            return Product { rows: m, cols: n, depth: k, a, b, ld: c_row };
        }
        // C^T = op(B)^T op(A)^T: nothing moves, only the names change.
        assert_eq!(c_row, 1, "one of C's strides is 1");
        Product { rows: n, cols: m, depth: k, a: b, b: a, ld: c_col }
    }
}

/// Computes `problem` on `team`. The lengths of the matrices have been checked.
///
/// `shared` has room for [`shared_len`] elements.
///
/// # Errors
/// Only if a task panicked.
pub fn run<K: Kernel>(
    kernel: K,
    team: &mut Team,
    problem: &Gemm,
    (a, b): (&[f32], &[f32]),
    c: &mut [f32],
    shared: &mut [f32],
) -> Result<()> {
    let product = Product::new(problem.sizes(), a, b);
    if product.rows == 0 || product.cols == 0 {
        return Ok(());
    }
    assert!(c.len() >= (product.rows - 1) * product.ld + product.cols);
    if problem.is_scaling() {
        scale(&product, problem.beta(), c);
        return Ok(());
    }
    let Blocking { mc, kc, .. } = plan(kernel, problem, 1);
    // LOOP 5: rows by MC.
    for i in (0..product.rows).step_by(mc) {
        let rows = i..product.rows.min(i + mc);
        // LOOP 4: depth by KC. The first pass takes the caller's beta, later ones add.
        for p in (0..product.depth).step_by(kc) {
            let depths = p..product.depth.min(p + kc);
            let shared = &mut shared[..rows.len().next_multiple_of(K::MR) * depths.len()];
            pack_rows(kernel, team, product.a, rows.clone(), depths.clone(), shared)?;
            let factors = (problem.alpha(), if p == 0 { problem.beta() } else { 1.0 });
            pass(kernel, team, &product, rows.clone(), depths, (shared, c), factors)?;
        }
    }
    Ok(())
}

/// Elements of A that are packed at a time: room that [`run`] needs.
pub fn shared_len<K: Kernel>(kernel: K, problem: &Gemm) -> usize {
    let Blocking { mc, kc, .. } = plan(kernel, problem, 1);
    mc * kc
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
    rows: Range<usize>,
    depths: Range<usize>,
    (a, c): (&[f32], &mut [f32]),
    (alpha, beta): (f32, f32),
) -> Result<()> {
    let block = Products { count: 1, rows: rows.len(), cols: product.cols, depth: depths.len(), unit: 1 };
    let grid = plan(kernel, block, team.size());
    let c = Shared::new(c);
    team.run(grid.tasks(), |task, workspace| {
        let (group, block) = (task % grid.row_groups, task / grid.row_groups);
        let cols = block * grid.nc..product.cols.min((block + 1) * grid.nc);
        let (top, bottom) = (group * grid.panels * K::MR, rows.len().min((group + 1) * grid.panels * K::MR));
        let panel = &mut workspace[..K::NR * depths.len()];
        let a = Panels::packed(&a[top * depths.len()..], K::MR, depths.len());
        for j in cols.clone().step_by(K::NR) {
            let count = K::NR.min(cols.end - j);
            panels(kernel, product.b, K::NR, j..j + count, depths.clone(), panel);
            let ahead = ahead(product.b, K::NR, j + K::NR..cols.end, depths.clone());
            // SAFETY: run() checked that C holds rows x cols elements with stride ld, and borrows it mutably;
            // the tasks' rows and columns do not overlap. Epilogue::scaled() has no bias.
            unsafe {
                let start = c.start().add((rows.start + top) * product.ld + j);
                let strip = Tile { start, ld: product.ld, rows: bottom - top, cols: count };
                let b = (panel.as_ptr(), K::NR);
                multiply(kernel, depths.len(), a, b, strip, &Epilogue::scaled(alpha, beta), &ahead);
            }
        }
    })
}

/// What the panel of B's next columns will be packed from.
fn ahead(b: Lines, width: usize, cols: Range<usize>, depths: Range<usize>) -> Ahead {
    if cols.is_empty() || b.line != 1 {
        return Ahead::NOTHING;
    }
    let start = b.data.as_ptr().wrapping_add(cols.start + depths.start * b.depth);
    Ahead { start, row: b.depth, rows: depths.len(), len: width.min(cols.len()) }
}

/// C = beta C.
fn scale(product: &Product, beta: f32, c: &mut [f32]) {
    if beta == 1.0 {
        return;
    }
    for i in 0..product.rows {
        let row = &mut c[i * product.ld..][..product.cols];
        // With beta zero C is not read: it may hold NaN.
        if beta == 0.0 { row.fill(0.0) } else { row.iter_mut().for_each(|value| *value *= beta) }
    }
}
