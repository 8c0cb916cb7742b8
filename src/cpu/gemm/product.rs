//! A matrix product as the loops see it, and how it is cut for this CPU.

use crate::cpu::caches::described;
use crate::cpu::kernels::Kernel;
use crate::cpu::pack::Lines;
use crate::memory::blocking::{Blocking, Method, OperandLayout, Products, Ukernel};
use crate::problem::GemmSizes;

/// A product whose C has contiguous rows: C(i, j) is at `i*ld + j`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub rows: usize,
    pub cols: usize,
    pub depth: usize,
    /// The rows of op(A).
    pub a: Lines<'a>,
    /// The columns of op(B).
    pub b: Lines<'a>,
    pub ld: usize,
}

impl<'a> Product<'a> {
    /// The product of `sizes`, transposed if the columns of its C are contiguous.
    pub fn new(sizes: &GemmSizes, a: &'a [f32], b: &'a [f32]) -> Self {
        let GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col } = *sizes;
        let a = Lines { data: a, line: a_row, depth: a_col };
        let b = Lines { data: b, line: b_col, depth: b_row };
        // A contiguous column is a row as well. The transposed product is better if it makes the contiguous
        // direction of the matrix that of B's rows.
        let column = n == 1 && c_row == 1 && a_row == 1;
        if c_col == 1 && !column {
            return Product { rows: m, cols: n, depth: k, a, b, ld: c_row };
        }
        // C^T = op(B)^T op(A)^T: no data move, only the names change.
        assert_eq!(c_row, 1, "one of C's strides is 1");
        Product { rows: n, cols: m, depth: k, a: b, b: a, ld: c_col }
    }

    /// The method that computes it.
    pub fn method<K: Kernel>(&self, _: K) -> Method {
        let layout =
            OperandLayout { a_rows: self.a.depth == 1, b_rows: self.b.line == 1, b_cols: self.b.depth == 1 };
        Method::plan(&described().caches, Ukernel { mr: K::MR, nr: K::NR }, &self.shape(), layout)
    }

    /// Its sizes for the planner. The unit is the 16 depths of a cache line, which transposing reads at once.
    pub fn shape(&self) -> Products {
        Products { count: 1, rows: self.rows, cols: self.cols, depth: self.depth, unit: 16 }
    }
}

/// The block sizes of a product for this CPU and a kernel.
pub fn cut<K: Kernel>(_: K, problem: Products, threads: usize) -> Blocking {
    Blocking::product(described(), Ukernel { mr: K::MR, nr: K::NR }, problem, threads)
}
