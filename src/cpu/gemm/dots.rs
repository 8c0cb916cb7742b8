//! A few rows or columns: sums of lines, see [`Dots`]. Threads share out the lines of the larger operand.

use super::Product;
use crate::cpu::block::Shared;
use crate::cpu::kernels::{Dots, Kernel};
use crate::cpu::pool::Team;
use crate::error::Result;
use crate::memory::blocking::FEW;

/// Lines of a task: several times what a kernel takes at once, and enough tasks for threads to end together.
fn lines_each(lines: usize, threads: usize) -> usize {
    lines.div_ceil(4 * threads).next_multiple_of(8)
}

/// Computes `product` on `team`: A's rows and B's columns are contiguous.
pub fn run<K: Kernel>(
    kernel: K,
    team: &mut Team,
    product: &Product,
    c: &mut [f32],
    (alpha, beta): (f32, f32),
) -> Result<()> {
    let Product { rows, cols, depth, a, b, ld } = *product;
    // The larger operand's lines are the ones that stream.
    let (many, few, lines, vectors, c_line, c_vector) =
        if cols <= FEW { (a, b, rows, cols, ld, 1) } else { (b, a, cols, rows, 1, ld) };
    assert!((many.depth, few.depth) == (1, 1));
    assert!(many.data.len() >= (lines - 1) * many.line + depth);
    assert!(few.data.len() >= (vectors - 1) * few.line + depth);
    let each = lines_each(lines, team.size());
    let c = Shared::new(c);
    team.run(lines.div_ceil(each), |task, _| {
        let first = task * each;
        let dots = Dots {
            a: many.data[first * many.line..].as_ptr(),
            line: many.line,
            lines: each.min(lines - first),
            b: few.data.as_ptr(),
            vector: few.line,
            vectors,
            depth,
            c: c.start().wrapping_add(first * c_line),
            c_line,
            c_vector,
            alpha,
            beta,
        };
        // SAFETY: both operands hold their lines, as asserted; gemm::run() checked that C holds its rows and
        // columns, and borrows it mutably; tasks have lines of their own.
        unsafe { kernel.dots(&dots) };
    })
}
