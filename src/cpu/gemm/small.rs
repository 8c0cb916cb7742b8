//! Little work on operands that are read where they lie: only tiles, one after the other. To find the block sizes, or a
//! workspace, would take longer than the least of these products.

use super::Product;
use crate::cpu::kernels::{Epilogue, Kernel, Panel, Tile};
use crate::cpu::pack::Lines;
use crate::memory::blocking::Way;

/// Products with fewer multiply-adds are computed before a better way to do so could be found.
const TINY: usize = 1 << 10;

/// Computes `product` if neither operand is to be packed, or if it is tiny; says whether it did.
pub fn run<K: Kernel>(kernel: K, product: &Product, c: &mut [f32], factors: (f32, f32)) -> bool {
    let Product { rows, cols, depth, b, .. } = *product;
    let tiny = rows.saturating_mul(cols).saturating_mul(depth) <= TINY;
    if b.line == 1 {
        let plain = tiny || product.way(kernel) == (Way::Panels { a_in_place: true, b_in_place: true });
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
    for j in (0..cols).step_by(K::NR) {
        for i in (0..rows).step_by(K::MR) {
            // SAFETY: the operands hold their rows, columns and depths, and C its own, as asserted; C is borrowed
            // mutably. Epilogue::scaled() has no bias.
            unsafe {
                let start = c.as_mut_ptr().add(i * ld + j);
                let tile = Tile { start, ld, rows: K::MR.min(rows - i), cols: K::NR.min(cols - j) };
                let a = Panel { start: a.data.as_ptr().add(i * a.line), row: a.line, step: a.depth };
                kernel.tile(depth, a, (b.data.as_ptr().add(j), b.depth), tile, &epilogue);
            }
        }
    }
}
