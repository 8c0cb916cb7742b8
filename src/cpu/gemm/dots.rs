//! Products with few rows or columns, as dot products ([`Dots`]). Threads divide the lines of the larger operand.

use super::product::Product;
use crate::cpu::block::Shared;
use crate::cpu::kernels::{DOT_LANES, Dots, Kernel};
use crate::cpu::pool::{Team, worker};
use crate::error::Result;
use crate::memory::blocking::MAX_DOT_VECTORS;

/// Depth that is summed in one chain for each lane. Deeper sums are sums of such blocks: the rounding error of one long
/// chain grows with its length.
const BLOCK: usize = 1 << 14;

/// Lines of a task: several times the lines of a kernel call, and few enough that threads finish together.
fn lines_each(lines: usize, threads: usize) -> usize {
    lines.div_ceil(4 * threads).next_multiple_of(8)
}

/// Computes `product` on `team`. The lines of the operand with more lines are contiguous in depth. The lines of the
/// other operand are contiguous as well, or fit in the workspace, and each task copies them there.
pub fn run<K: Kernel>(
    kernel: K,
    team: &mut Team,
    product: &Product,
    c: &mut [f32],
    (alpha, beta): (f32, f32),
) -> Result<()> {
    let Product { rows, cols, depth, a, b, ld } = *product;
    // The lines of the larger operand stream.
    let (many, few, lines, vectors, c_line, c_vector) = if cols <= MAX_DOT_VECTORS && a.depth == 1 {
        (a, b, rows, cols, ld, 1)
    } else {
        (b, a, cols, rows, 1, ld)
    };
    assert!(many.depth == 1 && many.data.len() >= (lines - 1) * many.line + depth);
    assert!(few.depth > 1 || few.data.len() >= (vectors - 1) * few.line + depth);
    let each = lines_each(lines, team.size());
    let (c, finish) = (Shared::new(c), team.finish());
    team.run(lines.div_ceil(each), |task, workspace| {
        let first = task * each;
        let (few, vector) = if few.depth == 1 {
            (few.data, few.line)
        } else {
            let copy = &mut workspace[..vectors * depth];
            for (v, line) in copy.chunks_exact_mut(depth).enumerate() {
                for (p, value) in line.iter_mut().enumerate() {
                    *value = few.data[v * few.line + p * few.depth];
                }
            }
            (&*copy, depth)
        };
        for start in (0..depth).step_by(BLOCK) {
            let dots = Dots {
                a: many.data[first * many.line + start..].as_ptr(),
                line: many.line,
                step: DOT_LANES,
                lines: each.min(lines - first),
                next: std::ptr::null(),
                b: few[start..].as_ptr(),
                vector,
                vectors,
                depth: BLOCK.min(depth - start),
                c: c.start().wrapping_add(first * c_line),
                c_line,
                c_vector,
                alpha,
                beta: if start == 0 { beta } else { 1.0 },
            };
            // SAFETY: both operands hold their lines, as asserted, from `start` on, too. gemm::run() checked that C
            // holds its rows and columns, and borrows it mutably. Each task has lines of its own.
            unsafe { kernel.dots(&dots) };
        }
        let some = each.min(lines - first);
        let start = c.start().wrapping_add(first * c_line);
        let shape = if c_vector == 1 { (some, vectors) } else { (vectors, some) };
        // SAFETY: these lines are done, and only this task uses them. One of the distances is 1.
        unsafe { finish.tile(worker(), (start, c_line.max(c_vector)), shape) };
    })
}
