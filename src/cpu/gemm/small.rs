//! Small products whose operands are read in place: only tiles, one after the other. Planning block sizes or taking a
//! workspace would take longer than the smallest of these products.

use super::product::Product;
use crate::cpu::kernels::{Epilogue, Kernel, NextRows, Panel, Tile};
use crate::cpu::pack::Lines;
use crate::cpu::tunables::MAX_TINY;
use crate::memory::blocking::{Method, even};

/// Computes `product` if neither operand needs packing, or if it is tiny. Returns whether it did.
pub fn run<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], factors: (f32, f32)) -> bool {
    let Product { rows, cols, depth, b, .. } = *product;
    let tiny = rows.saturating_mul(cols).saturating_mul(depth) <= MAX_TINY;
    if b.line == 1 {
        let plain = tiny || product.method(kernel) == (Method::Panels { a_in_place: true, b_in_place: true });
        if plain {
            tiles(kernel, product, c, factors);
        }
        return plain;
    }
    if tiny {
        with_copied_b(kernel, product, c, factors);
    }
    tiny
}

/// Computes a tiny product with a copy of B, whose rows are not contiguous.
#[inline(never)]
fn with_copied_b<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], factors: (f32, f32)) {
    let Product { cols, depth, b, .. } = *product;
    let mut copy = [0.0; MAX_TINY];
    for (p, row) in copy.chunks_exact_mut(cols).enumerate().take(depth) {
        for (j, value) in row.iter_mut().enumerate() {
            *value = b.data[j * b.line + p * b.depth];
        }
    }
    let b = Lines { data: &copy, line: 1, depth: cols };
    tiles(kernel, &Product { b, ..*product }, c, factors);
}

/// Computes all tiles of C. The rows of B are contiguous.
fn tiles<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], (alpha, beta): (f32, f32)) {
    let Product { rows, cols, depth, a, b, ld } = *product;
    assert!(b.line == 1 && a.data.len() > (rows - 1) * a.line + (depth - 1) * a.depth);
    assert!(b.data.len() >= (depth - 1) * b.depth + cols && c.len() >= (rows - 1) * ld + cols);
    let epilogue = Epilogue::scaled(alpha, beta);
    // Four vectors are two tiles of two: tiles of three and one would do less work per load.
    let width = if cols <= K::NR { K::NR } else { even(cols, K::NR, K::LANES) };
    for j in (0..cols).step_by(width) {
        for i in (0..rows).step_by(K::MR) {
            // SAFETY: the operands hold their rows, columns and depths, and C its own, as asserted. C is borrowed
            // mutably. Epilogue::scaled() has no bias.
            unsafe {
                let start = c.as_mut_ptr().add(i * ld + j);
                let tile = Tile { start, ld, rows: K::MR.min(rows - i), cols: width.min(cols - j) };
                let a = Panel { start: a.data.as_ptr().add(i * a.line), row: a.line, step: a.depth };
                kernel.tile(depth, a, (b.data.as_ptr().add(j), b.depth), tile, &epilogue, &NextRows::NOTHING);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::testing::{expected, operands};
    use crate::cpu::isa::{Isa, with_kernel};

    /// Returns whether the product was computed. If not, C must be unchanged.
    fn check<K: Kernel>(kernel: K, (rows, cols, depth): (usize, usize, usize), transposed: usize) -> bool {
        let (a, b) = operands((rows, cols, depth), transposed);
        let product = Product { rows, cols, depth, a: a.lines(), b: b.lines(), ld: cols + 2 };
        let mut done = vec![];
        for factors in [(1.0, 0.0), (-2.0, 3.0)] {
            let before: Vec<f32> = (0..rows * product.ld).map(|at| (at % 7) as f32).collect();
            let mut c = before.clone();
            done.push(run(kernel, &product, &mut c, factors));
            let right = if done[0] { expected(&product, &before, factors) } else { before };
            assert_eq!(c, right, "{} {rows}x{cols}x{depth} transposed {transposed}", K::SGEMM);
        }
        assert_eq!(done[0], done[1], "the factors have no influence");
        done[0]
    }

    #[test]
    fn tiny_products_are_computed_in_any_layout_and_small_ones_if_nothing_is_packed() {
        let mut cases = 0;
        for isa in Isa::all() {
            for transposed in 0..4 {
                for shape in [(1, 1, 1), (3, 5, 7), (10, 10, 10), (1, 1024, 1), (1024, 1, 1), (1, 1, 1024)] {
                    assert!(
                        with_kernel!(isa, kernel => check(kernel, shape, transposed)),
                        "{shape:?} is tiny"
                    );
                    cases += 1;
                }
                // Every plan reads 12 x 12 matrices in place, unless B's rows are not contiguous.
                let computed = with_kernel!(isa, kernel => check(kernel, (12, 12, 12), transposed));
                assert_eq!(computed, transposed & 2 == 0);
                assert!(
                    with_kernel!(isa, kernel => check(kernel, (100, 3, 11), transposed & 1)),
                    "few columns"
                );
                assert!(
                    !with_kernel!(isa, kernel => check(kernel, (300, 300, 50), transposed)),
                    "needs packing"
                );
                cases += 3;
            }
        }
        assert!(cases >= 36);
    }
}
