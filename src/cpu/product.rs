//! `sgemm`: memory, threads and times around the loops of [`gemm`].

use std::cell::Cell;
use std::time::Instant;

use super::buffer::{self, Borrowed, Buffer};
use super::call_watch::CALLS;
use super::gemm;
use super::kernel::finish::Finish;
use super::kernels::{Kernel, ensure_kernel};
use super::pool::Team;
use crate::error::Result;
use crate::problem::Gemm;
use crate::report::Timing;

thread_local! {
    /// Packed rows of A, kept by a thread that calls sgemm.
    static PACKED_A: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Frees what the calling thread keeps between calls.
pub fn clear() {
    buffer::clear(&PACKED_A);
}

/// Computes `C = alpha op(A) op(B) + beta C`. The lengths have been checked.
///
/// # Errors
/// Out of memory; C is untouched then. If a task panicked.
pub fn sgemm<K: Kernel>(
    kernel: K,
    problem: &Gemm,
    (a, b): (&[f32], &[f32]),
    c: &mut [f32],
) -> Result<Timing> {
    const { ensure_kernel::<K>() };
    let start = Instant::now();
    // An epilogue takes far longer than the smallest products.
    if !Finish::current().is_some() && gemm::in_place(kernel, problem, (a, b), c) {
        // Only the kernel ran. Another look at the clock would take as long as the smallest products.
        let kernel = start.elapsed();
        return Ok(Timing { kernel, wall: kernel, dispatches: 1 });
    }
    // Allocate everything first, so that C is untouched if memory runs out.
    let mut team = Team::for_work(problem.flops())?;
    let packed_len = if problem.is_scaling() { 0 } else { gemm::shared_len(kernel, problem) };
    let mut packed = Borrowed::take(&PACKED_A, packed_len)?;
    let computing = Instant::now();
    gemm::run(kernel, &mut team, problem, (a, b), c, &mut packed)?;
    let end = Instant::now();
    if !team.finish().is_some() {
        CALLS.multiplied(problem, team.size(), end - computing);
    }
    Ok(Timing { kernel: end - computing, wall: end - start, dispatches: 1 })
}
