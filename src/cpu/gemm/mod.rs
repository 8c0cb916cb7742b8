//! Matrix products on the CPU. Only `cpu` calls it. It uses the kernels and the thread pool of `cpu`, and the planner
//! `memory::blocking`.
//!
//! The five loops around the micro-kernel follow Goto and van de Geijn (Anatomy of high-performance matrix
//! multiplication, 2008). The roles of A and B are exchanged, because C's rows are contiguous here.
//!
//! ```text
//! LOOP 5  rows of C by MC     \ all threads together pack A, MC x KC, and all read it: last-level cache
//! LOOP 4  depth by KC         /
//! LOOP 3  columns of C by NC    one task each
//! LOOP 2  columns by NR         packs a panel of B, KC x NR, into the task's workspace: L1 cache
//! LOOP 1  rows by MR            (block.rs) panels of A stream past it through the micro-kernel: registers
//! ```
//!
//! Loop 4 is sequential, because its passes add to the same C. So the order of a sum does not depend on the thread.
//!
//! These loops ([`blocked`]) are for operands that are used often. Operands that are used rarely are read in place.
//! Products with few rows or columns, or with little depth, have loops of their own ([`dots`], [`sweep`]). [`Method`]
//! chooses.

pub(super) mod blocked;
mod dots;
pub(super) mod product;
mod small;
mod strip;
mod sweep;
#[cfg(test)]
mod testing;

use super::kernels::Kernel;
use super::pool::Team;
use crate::error::Result;
use crate::memory::blocking::{Blocking, INLINE_FLOPS, Method};
use crate::problem::Gemm;
use product::{Product, cut};

/// Computes `problem` on `team`. The caller has checked the lengths of the matrices. `shared` has room for
/// [`shared_len`] elements.
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
        let shape = (product.rows, product.cols);
        // SAFETY: all of C is done, and nothing else uses it.
        unsafe { team.finish().tile(0, (c.as_mut_ptr(), product.ld), shape) };
        return Ok(());
    }
    let factors = (problem.alpha(), problem.beta());
    match product.method(kernel) {
        Method::Dots => dots::run(kernel, team, &product, c, factors),
        Method::Sweep => sweep::run(kernel, team, &product, c, factors),
        Method::Panels { a_in_place, b_in_place } => {
            let Blocking { mc, kc, .. } = cut(kernel, product.shape(), 1);
            let blocks = blocked::Blocks { mc, kc, a_in_place, b_in_place };
            blocked::run(kernel, team, &product, blocks, (shared, c), factors)
        }
    }
}

/// Computes `problem` on the calling thread without packing, if it is small enough. Returns whether it did. The caller
/// has checked the lengths of the matrices.
pub fn in_place<K: Kernel>(kernel: K, problem: &Gemm, (a, b): (&[f32], &[f32]), c: &mut [f32]) -> bool {
    if problem.flops() >= INLINE_FLOPS || problem.is_scaling() {
        return false;
    }
    let product = Product::new(problem.sizes(), a, b);
    product.rows > 0 && product.cols > 0 && small::run(kernel, &product, c, (problem.alpha(), problem.beta()))
}

/// Elements of A that are packed at a time: the length of `shared` in [`run`].
pub fn shared_len<K: Kernel>(kernel: K, problem: &Gemm) -> usize {
    if problem.is_scaling() || problem.sizes().m == 0 || problem.sizes().n == 0 {
        return 0;
    }
    let product = Product::new(problem.sizes(), &[], &[]);
    match product.method(kernel) {
        Method::Panels { a_in_place: false, .. } => {
            let Blocking { mc, kc, .. } = cut(kernel, product.shape(), 1);
            mc * kc
        }
        _ => 0,
    }
}

/// C = beta C.
fn scale(product: &Product, beta: f32, c: &mut [f32]) {
    if beta == 1.0 {
        return;
    }
    for i in 0..product.rows {
        let row = &mut c[i * product.ld..][..product.cols];
        // With beta zero, C is not read: it may hold NaN.
        if beta == 0.0 { row.fill(0.0) } else { row.iter_mut().for_each(|value| *value *= beta) }
    }
}
