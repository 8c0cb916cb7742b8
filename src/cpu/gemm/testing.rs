//! Operands of small integers, and their product by the definition.

use super::product::Product;
use crate::cpu::pack::Lines;
use crate::problem::exact::Random;

/// A matrix with its elements.
pub struct Owned {
    data: Vec<f32>,
    line: usize,
    depth: usize,
}

impl Owned {
    fn new((lines, depths): (usize, usize), side_by_side: bool, random: &mut Random) -> Self {
        // There are gaps between the contiguous parts.
        let (line, depth) = if side_by_side { (1, lines + 2) } else { (depths + 3, 1) };
        let len = (lines - 1) * line + (depths - 1) * depth + 1;
        Owned { data: random.integers(len, 8), line, depth }
    }

    pub fn lines(&self) -> Lines<'_> {
        Lines { data: &self.data, line: self.line, depth: self.depth }
    }
}

/// A and B of rows x cols x depth; bits 0 and 1 of `transposed` transpose them.
pub fn operands((rows, cols, depth): (usize, usize, usize), transposed: usize) -> (Owned, Owned) {
    let mut random = Random::new(31);
    let a = Owned::new((rows, depth), transposed & 1 == 1, &mut random);
    (a, Owned::new((cols, depth), transposed & 2 == 0, &mut random))
}

/// C after the product; the gaps between its rows keep their values.
pub fn expected(product: &Product, c: &[f32], (alpha, beta): (f32, f32)) -> Vec<f32> {
    let Product { rows, cols, depth, a, b, ld } = *product;
    let mut c = c.to_vec();
    for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
        let term = |p: usize| a.data[i * a.line + p * a.depth] * b.data[j * b.line + p * b.depth];
        let sum: f32 = (0..depth).map(term).sum();
        c[i * ld + j] = alpha * sum + beta * c[i * ld + j];
    }
    c
}
