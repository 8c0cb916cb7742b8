//! Matrix products: description, validation, sizes and work.

use super::checks::{elements, min_length, side};
use crate::allocate;
use crate::error::{Error, Result};

/// The memory layout of a matrix, as in CBLAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Element (i, j) is at `i*ld + j`.
    #[default]
    RowMajor,
    /// Element (i, j) is at `j*ld + i`, as in Fortran.
    ColMajor,
}

/// Whether an operand is used as it is stored or transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transpose {
    /// op(X) = X.
    #[default]
    No,
    /// op(X) = X^T.
    Yes,
}

/// The description of a matrix product C = alpha op(A) op(B) + beta C. [`Gemm::new`] validates it.
///
/// op(A) is m x k, op(B) is k x n, C is m x n. As in BLAS, m, n or k can be zero. With `beta == 0`, C is not read and
/// may hold NaN. With `alpha == 0` or `k == 0`, A and B are not read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GemmDesc {
    /// The layout of all three matrices.
    pub layout: Layout,
    /// Whether A is transposed.
    pub trans_a: Transpose,
    /// Whether B is transposed.
    pub trans_b: Transpose,
    /// Rows of op(A) and C.
    pub m: i64,
    /// Columns of op(B) and C.
    pub n: i64,
    /// Columns of op(A), rows of op(B).
    pub k: i64,
    /// The factor of the product.
    pub alpha: f32,
    /// Leading dimension of A: the distance between stored rows (row-major) or columns (column-major), in elements.
    pub lda: i64,
    /// Leading dimension of B.
    pub ldb: i64,
    /// The factor of the old C.
    pub beta: f32,
    /// Leading dimension of C.
    pub ldc: i64,
}

impl GemmDesc {
    /// C = A B with contiguous matrices.
    pub fn packed(layout: Layout, m: i64, n: i64, k: i64) -> Self {
        let (lda, ldb, ldc) = match layout {
            Layout::RowMajor => (k, n, n),
            Layout::ColMajor => (m, k, m),
        };
        GemmDesc {
            layout,
            trans_a: Transpose::No,
            trans_b: Transpose::No,
            m,
            n,
            k,
            alpha: 1.0,
            lda: lda.max(1),
            ldb: ldb.max(1),
            beta: 0.0,
            ldc: ldc.max(1),
        }
    }
}

/// The sizes of a valid matrix product. Strides, in elements, replace layout and transposition: op(A)(i, p) is at
/// `i*a_row + p*a_col`, op(B)(p, j) at `p*b_row + j*b_col`, C(i, j) at `i*c_row + j*c_col`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GemmSizes {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Distance between rows of op(A).
    pub a_row: usize,
    /// Distance between columns of op(A).
    pub a_col: usize,
    /// Distance between rows of op(B).
    pub b_row: usize,
    /// Distance between columns of op(B).
    pub b_col: usize,
    /// Distance between rows of C.
    pub c_row: usize,
    /// Distance between columns of C.
    pub c_col: usize,
}

/// A valid matrix product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gemm {
    sizes: GemmSizes,
    alpha: f32,
    beta: f32,
    lens: [usize; 3],
    flops: u64,
}

impl Gemm {
    /// Validates `desc`, in checked 64-bit arithmetic.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the first size that is negative or too large, or the first leading dimension
    /// that is too small.
    pub fn new(desc: GemmDesc) -> Result<Self> {
        let (m, n, k) = (side("m", desc.m, 0)?, side("n", desc.n, 0)?, side("k", desc.k, 0)?);
        let (a_row, a_col, a_len) = operand(("lda", "a size"), &desc, desc.trans_a, (m, k), desc.lda)?;
        let (b_row, b_col, b_len) = operand(("ldb", "b size"), &desc, desc.trans_b, (k, n), desc.ldb)?;
        let (c_row, c_col, c_len) = operand(("ldc", "c size"), &desc, Transpose::No, (m, n), desc.ldc)?;
        let flops = [2, m, n, k]
            .iter()
            .try_fold(1u64, |product, &side| product.checked_mul(side as u64))
            .ok_or_else(|| Error::invalid("work 2*m*n*k", "over 2^64", "under 2^64"))?;
        let sizes = GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col };
        Ok(Gemm { sizes, alpha: desc.alpha, beta: desc.beta, lens: [a_len, b_len, c_len], flops })
    }

    /// The sizes and strides.
    pub fn sizes(&self) -> &GemmSizes {
        &self.sizes
    }

    /// The factor of the product.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// The factor of the old C. If it is zero, C is not read.
    pub fn beta(&self) -> f32 {
        self.beta
    }

    /// Whether the result is beta C, because k or alpha is zero. A and B are not read then.
    pub fn is_scaling(&self) -> bool {
        self.sizes.k == 0 || self.alpha == 0.0
    }

    /// Whether A and B are read: neither k nor alpha is zero, and C is not empty.
    pub fn reads_operands(&self) -> bool {
        !self.is_scaling() && self.lens[2] != 0
    }

    /// The minimum lengths of A, B and C in elements, from the first to the last element.
    pub fn lens(&self) -> [usize; 3] {
        self.lens
    }

    /// Terms in the sum of one element, including beta C: the K of the error bound gamma_(K+3).
    pub fn terms(&self) -> usize {
        self.sizes.k + usize::from(self.beta != 0.0)
    }

    /// Floating-point operations: 2 m n k.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// The least bytes that must move: A and B once, and C once, or twice if it is read.
    pub fn bytes(&self) -> u64 {
        let GemmSizes { m, n, k, .. } = self.sizes;
        let product = if self.is_scaling() { 0 } else { m * k + k * n };
        let result = if self.beta == 0.0 { m * n } else { 2 * m * n };
        ((product + result) * size_of::<f32>()) as u64
    }

    /// The same product for `count` rows of C. Its first row is that of A and C at their beginning.
    pub(crate) fn with_rows(&self, count: usize) -> Self {
        self.part(GemmSizes { m: count, ..self.sizes })
    }

    /// The same product for `count` columns of C. Its first column is that of B and C at their beginning.
    pub(crate) fn with_columns(&self, count: usize) -> Self {
        self.part(GemmSizes { n: count, ..self.sizes })
    }

    fn part(&self, sizes: GemmSizes) -> Self {
        let GemmSizes { m, n, k, a_row, a_col, b_row, b_col, c_row, c_col } = sizes;
        let len = |rows: usize, cols: usize, row: usize, col: usize| match rows * cols {
            0 => 0,
            _ => (rows - 1) * row + (cols - 1) * col + 1,
        };
        let lens = [len(m, k, a_row, a_col), len(k, n, b_row, b_col), len(m, n, c_row, c_col)];
        Gemm { sizes, lens, flops: 2 * (m * n * k) as u64, ..*self }
    }

    /// Copies A without its gaps. Returns the copy and the product that reads it. For an A that overlaps C.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn with_copied_a(self, a: &[f32]) -> Result<(Self, Vec<f32>)> {
        let GemmSizes { m, k, a_row, a_col, .. } = self.sizes;
        let (copy, a_row, a_col) = tight((m, k), (a_row, a_col), a)?;
        Ok((self.with_sizes(GemmSizes { a_row, a_col, ..self.sizes }, 0, copy.len()), copy))
    }

    /// The same for B.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn with_copied_b(self, b: &[f32]) -> Result<(Self, Vec<f32>)> {
        let GemmSizes { n, k, b_row, b_col, .. } = self.sizes;
        let (copy, b_row, b_col) = tight((k, n), (b_row, b_col), b)?;
        Ok((self.with_sizes(GemmSizes { b_row, b_col, ..self.sizes }, 1, copy.len()), copy))
    }

    fn with_sizes(mut self, sizes: GemmSizes, operand: usize, len: usize) -> Self {
        self.sizes = sizes;
        self.lens[operand] = len;
        self
    }

    /// Checks the lengths of the three matrices. They may be longer than necessary.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the buffer, its length and its minimum length.
    pub fn check_data(&self, a: &[f32], b: &[f32], c: &[f32]) -> Result<()> {
        let [a_len, b_len, c_len] = self.lens;
        if self.reads_operands() {
            min_length("a length", a.len(), a_len)?;
            min_length("b length", b.len(), b_len)?;
        }
        min_length("c length", c.len(), c_len)
    }
}

/// The row and column strides of op(X), which is rows x cols, and the minimum length of X.
fn operand(
    (ld_name, size_name): (&'static str, &'static str),
    desc: &GemmDesc,
    transpose: Transpose,
    (rows, cols): (usize, usize),
    ld: i64,
) -> Result<(usize, usize, usize)> {
    // The columns of op(X) are contiguous if exactly one of layout and transposition swaps rows and columns.
    let by_columns = (desc.layout == Layout::ColMajor) != (transpose == Transpose::Yes);
    let (lines, line) = if by_columns { (cols, rows) } else { (rows, cols) };
    let ld = side(ld_name, ld, line.max(1) as i64)?;
    let len = if lines == 0 || line == 0 { 0 } else { elements(size_name, &[lines, ld])? - (ld - line) };
    Ok(if by_columns { (1, ld, len) } else { (ld, 1, len) })
}

/// A copy of the rows x cols matrix in `data` without gaps, in the same layout, and its row and column strides.
fn tight(
    (rows, cols): (usize, usize),
    (row, col): (usize, usize),
    data: &[f32],
) -> Result<(Vec<f32>, usize, usize)> {
    if rows == 0 || cols == 0 {
        return Ok((vec![], row, col));
    }
    let (lines, line, ld) = if col == 1 { (rows, cols, row) } else { (cols, rows, col) };
    let mut copy = allocate::with_capacity(lines * line, "a copy of a matrix that overlaps C")?;
    (0..lines).for_each(|index| copy.extend_from_slice(&data[index * ld..][..line]));
    Ok(if col == 1 { (copy, line, 1) } else { (copy, 1, line) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_of_every_layout_and_transposition() {
        let desc = |layout, trans_a, lda| GemmDesc { trans_a, lda, ..GemmDesc::packed(layout, 2, 4, 3) };
        for (layout, trans_a, lda, strides, len) in [
            (Layout::RowMajor, Transpose::No, 5, (5, 1), 8),
            (Layout::RowMajor, Transpose::Yes, 5, (1, 5), 12),
            (Layout::ColMajor, Transpose::No, 5, (1, 5), 12),
            (Layout::ColMajor, Transpose::Yes, 5, (5, 1), 8),
        ] {
            let gemm = Gemm::new(desc(layout, trans_a, lda)).unwrap();
            assert_eq!((gemm.sizes().a_row, gemm.sizes().a_col), strides);
            assert_eq!(gemm.lens()[0], len);
        }
    }

    #[test]
    fn copied_operands_hold_the_same_elements() {
        let mut checked = 0;
        for layout in [Layout::RowMajor, Layout::ColMajor] {
            for trans in [Transpose::No, Transpose::Yes] {
                let packed = GemmDesc::packed(layout, 2, 4, 3);
                let desc = GemmDesc { trans_a: trans, trans_b: trans, lda: 6, ldb: 7, ..packed };
                let problem = Gemm::new(desc).unwrap();
                let data: Vec<f32> = (0..64).map(|value| value as f32).collect();
                let (copied_a, a) = problem.with_copied_a(&data).unwrap();
                let (copied, b) = copied_a.with_copied_b(&data).unwrap();
                assert_eq!((a.len(), b.len(), copied.lens()), (6, 12, [6, 12, problem.lens()[2]]));
                let (old, new) = (problem.sizes(), copied.sizes());
                for (i, p, j) in [(0, 0, 0), (1, 2, 3), (1, 0, 2), (0, 1, 1)] {
                    assert_eq!(a[i * new.a_row + p * new.a_col], data[i * old.a_row + p * old.a_col]);
                    assert_eq!(b[p * new.b_row + j * new.b_col], data[p * old.b_row + j * old.b_col]);
                    checked += 1;
                }
            }
        }
        assert_eq!(checked, 16);
    }

    #[test]
    fn parts_are_the_products_that_they_say() {
        for layout in [Layout::RowMajor, Layout::ColMajor] {
            for (trans_a, trans_b) in [(Transpose::No, Transpose::Yes), (Transpose::Yes, Transpose::No)] {
                let desc = GemmDesc {
                    trans_a,
                    trans_b,
                    lda: 9,
                    ldb: 10,
                    ldc: 11,
                    ..GemmDesc::packed(layout, 5, 7, 4)
                };
                let whole = Gemm::new(desc).unwrap();
                assert_eq!(whole.with_rows(3), Gemm::new(GemmDesc { m: 3, ..desc }).unwrap());
                assert_eq!(whole.with_columns(2), Gemm::new(GemmDesc { n: 2, ..desc }).unwrap());
                assert_eq!((whole.with_rows(5), whole.with_columns(7)), (whole, whole));
            }
        }
    }

    #[test]
    fn work_worked_by_hand() {
        let packed = GemmDesc::packed(Layout::RowMajor, 3, 4, 5);
        // Beta, alpha, operands read, terms of a sum, elements of A and B, of C.
        for (beta, alpha, reads, terms, operands, result) in [
            (0.0, 1.0, true, 5, 15 + 20, 12),
            (0.5, -2.0, true, 6, 15 + 20, 2 * 12),
            (0.0, 0.0, false, 5, 0, 12),
            (-1.0, 0.0, false, 6, 0, 2 * 12),
        ] {
            let gemm = Gemm::new(GemmDesc { alpha, beta, ..packed }).unwrap();
            assert_eq!((gemm.alpha(), gemm.beta(), gemm.flops()), (alpha, beta, 2 * 3 * 4 * 5));
            assert_eq!((gemm.reads_operands(), gemm.is_scaling(), gemm.terms()), (reads, !reads, terms));
            assert_eq!(gemm.bytes(), 4 * (operands + result));
        }
        let wide = Gemm::new(GemmDesc { lda: 9, ldb: 10, ldc: 11, ..packed }).unwrap();
        assert_eq!(wide.lens(), [2 * 9 + 5, 4 * 10 + 4, 2 * 11 + 4]);
        assert_eq!(wide.bytes(), 4 * (15 + 20 + 12), "gaps do not move");
    }

    #[test]
    fn work_that_overflows_is_refused() {
        let side = 1 << 21;
        let desc = GemmDesc::packed(Layout::RowMajor, side, side, 2 * side);
        let message = Gemm::new(desc).unwrap_err().to_string();
        assert!(message.starts_with("work 2*m*n*k is over 2^64"), "{message}");
        assert_eq!(Gemm::new(GemmDesc { k: side / 2, ..desc }).unwrap().flops(), 1 << 63);
    }

    #[test]
    fn bad_arguments_are_named() {
        let refused = |desc| Gemm::new(desc).expect_err("should be refused").to_string();
        let good = GemmDesc::packed(Layout::ColMajor, 3, 4, 5);
        assert!(refused(GemmDesc { m: -1, ..good }).starts_with("m is -1; expected 0 to "));
        assert!(refused(GemmDesc { n: i64::MAX, ..good }).starts_with("n is 9223372036854775807;"));
        assert!(refused(GemmDesc { lda: 2, ..good }).starts_with("lda is 2; expected 3 to "));
        assert!(refused(GemmDesc { ldb: 4, ..good }).starts_with("ldb is 4; expected 5 to "));
        assert!(refused(GemmDesc { ldc: 0, ..good }).starts_with("ldc is 0; expected 3 to "));
        let gemm = Gemm::new(good).unwrap();
        let message = gemm.check_data(&[0.0; 15], &[0.0; 19], &[0.0; 12]).unwrap_err().to_string();
        assert_eq!(message, "b length is 19 elements; expected at least 20 elements");
    }

    #[test]
    fn empty_products_need_no_operands() {
        let gemm = Gemm::new(GemmDesc::packed(Layout::RowMajor, 3, 2, 0)).unwrap();
        assert!(gemm.is_scaling());
        assert!(gemm.check_data(&[], &[], &[0.0; 6]).is_ok());
        assert!(gemm.check_data(&[], &[], &[0.0; 5]).is_err());
        for (m, n) in [(0, 0), (0, 5), (5, 0)] {
            let empty = Gemm::new(GemmDesc::packed(Layout::RowMajor, m, n, 7)).unwrap();
            assert!(!empty.reads_operands() && empty.check_data(&[], &[], &[]).is_ok());
        }
        // Three rows of no elements have no addresses.
        for layout in [Layout::RowMajor, Layout::ColMajor] {
            let gemm = Gemm::new(GemmDesc::packed(layout, 3, 2, 0)).unwrap();
            assert_eq!(
                (gemm.with_copied_a(&[]).unwrap().1, gemm.with_copied_b(&[]).unwrap().1),
                (vec![], vec![])
            );
        }
    }
}
