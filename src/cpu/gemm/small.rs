//! Little work on operands that are read where they lie: only tiles, one after the other. To find the block sizes, or a
//! workspace, would take longer than the least of these products.

use super::product::Product;
use crate::cpu::kernels::{Epilogue, Kernel, Panel, Tile};
use crate::cpu::pack::Lines;
use crate::memory::blocking::{Method, even};

/// Products with fewer multiply-adds are computed before a better way to do so could be found.
const TINY: usize = 1 << 10;

/// Computes `product` if neither operand is to be packed, or if it is tiny; says whether it did.
pub fn run<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], factors: (f32, f32)) -> bool {
    let Product { rows, cols, depth, b, .. } = *product;
    let tiny = rows.saturating_mul(cols).saturating_mul(depth) <= TINY;
    if b.line == 1 {
        let plain = tiny || product.method(kernel) == (Method::Panels { a_in_place: true, b_in_place: true });
        if plain {
            tiles(kernel, product, c, factors);
        }
        return plain;
    }
    if tiny {
        turned(kernel, product, c, factors);
    }
    tiny
}

/// With B's rows, which are not contiguous, copied side by side. The product is tiny.
#[inline(never)]
fn turned<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], factors: (f32, f32)) {
    let Product { cols, depth, b, .. } = *product;
    let mut copy = [0.0; TINY];
    for (p, row) in copy.chunks_exact_mut(cols).enumerate().take(depth) {
        for (j, value) in row.iter_mut().enumerate() {
            *value = b.data[j * b.line + p * b.depth];
        }
    }
    let b = Lines { data: &copy, line: 1, depth: cols };
    tiles(kernel, &Product { b, ..*product }, c, factors);
}

/// All tiles of C, B's rows being contiguous.
fn tiles<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], (alpha, beta): (f32, f32)) {
    let Product { rows, cols, depth, a, b, ld } = *product;
    assert!(b.line == 1 && a.data.len() > (rows - 1) * a.line + (depth - 1) * a.depth);
    assert!(b.data.len() >= (depth - 1) * b.depth + cols && c.len() >= (rows - 1) * ld + cols);
    let epilogue = Epilogue::scaled(alpha, beta);
    // Of four vectors a tile of three and one of one would do less work a load than two of two.
    let width = if cols <= K::NR { K::NR } else { even(cols, K::NR, K::LANES) };
    for j in (0..cols).step_by(width) {
        for i in (0..rows).step_by(K::MR) {
            // SAFETY: the operands hold their rows, columns and depths, and C its own, as asserted; C is borrowed
            // mutably. Epilogue::scaled() has no bias.
            unsafe {
                let start = c.as_mut_ptr().add(i * ld + j);
                let tile = Tile { start, ld, rows: K::MR.min(rows - i), cols: width.min(cols - j) };
                let a = Panel { start: a.data.as_ptr().add(i * a.line), row: a.line, step: a.depth };
                kernel.tile(depth, a, (b.data.as_ptr().add(j), b.depth), tile, &epilogue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::testing::{expected, operands};
    use crate::cpu::isa::{Isa, with_kernel};

    /// Says whether the product was computed on the spot; if not, C is as it was.
    fn check<K: Kernel>(kernel: K, (rows, cols, depth): (usize, usize, usize), lies: usize) -> bool {
        let (a, b) = operands((rows, cols, depth), lies);
        let product = Product { rows, cols, depth, a: a.lines(), b: b.lines(), ld: cols + 2 };
        let mut done = vec![];
        for factors in [(1.0, 0.0), (-2.0, 3.0)] {
            let before: Vec<f32> = (0..rows * product.ld).map(|at| (at % 7) as f32).collect();
            let mut c = before.clone();
            done.push(run(kernel, &product, &mut c, factors));
            let right = if done[0] { expected(&product, &before, factors) } else { before };
            assert_eq!(c, right, "{} {rows}x{cols}x{depth} lying {lies}", K::SGEMM);
        }
        assert_eq!(done[0], done[1], "the factors have no say");
        done[0]
    }

    #[test]
    fn tiny_products_are_computed_however_they_lie_and_small_ones_where_nothing_is_packed() {
        let mut cases = 0;
        for isa in Isa::all() {
            for lies in 0..4 {
                for shape in [(1, 1, 1), (3, 5, 7), (10, 10, 10), (1, 1024, 1), (1024, 1, 1), (1, 1, 1024)] {
                    assert!(with_kernel!(isa, kernel => check(kernel, shape, lies)), "{shape:?} is tiny");
                    cases += 1;
                }
                // 12 x 12 matrices are read in place by every plan, unless B's rows are not contiguous.
                let on_the_spot = with_kernel!(isa, kernel => check(kernel, (12, 12, 12), lies));
                assert_eq!(on_the_spot, lies & 2 == 0);
                assert!(with_kernel!(isa, kernel => check(kernel, (100, 3, 11), lies & 1)), "few columns");
                assert!(!with_kernel!(isa, kernel => check(kernel, (300, 300, 50), lies)), "to be packed");
                cases += 3;
            }
        }
        assert!(cases >= 36);
    }
}
