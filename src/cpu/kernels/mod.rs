//! Micro-kernels: the innermost product of two packed panels, and what happens to it on its way into C.
//!
//! A kernel is a leaf. It gets pointers, a depth and a stride; it knows no shapes, threads or memory.
//! Everything around it ([`super::block`]) is generic over the [`Kernel`] trait, so a new instruction set is
//! one more implementation.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dots;
mod portable;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod vector;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use dots::Dots;
pub use portable::Portable;

/// Rows of A as a kernel reads them: element p of row i is at `start + i*row + p*step`.
#[derive(Clone, Copy)]
pub struct Panel {
    pub start: *const f32,
    pub row: usize,
    pub step: usize,
}

impl Panel {
    /// A packed panel of `mr` rows.
    pub fn packed(start: *const f32, mr: usize) -> Self {
        Panel { start, row: 1, step: mr }
    }
}

/// A part of C: `rows` x `cols` elements, row i at `start + i*ld`.
#[derive(Clone, Copy)]
pub struct Tile {
    pub start: *mut f32,
    pub ld: usize,
    pub rows: usize,
    pub cols: usize,
}

/// Rows to copy, in groups: element j of row i of group g is at `from + g*from_group + i*from_row + j*stride` and
/// goes to `to + g*to_group + i*to_row + j`.
#[derive(Clone, Copy)]
pub struct Part {
    pub from: *const f32,
    pub from_row: usize,
    pub stride: usize,
    pub to: *mut f32,
    pub to_row: usize,
    pub rows: usize,
    pub len: usize,
    pub groups: usize,
    pub from_group: usize,
    pub to_group: usize,
}

/// Lines to turn into columns: element p of line l is at `from + l*line + p` and goes to `to + p*width + l`.
#[derive(Clone, Copy)]
pub struct Turn {
    pub from: *const f32,
    pub line: usize,
    pub to: *mut f32,
    pub width: usize,
    pub lines: usize,
    pub depths: usize,
    /// Whether as many lines behind these will be wanted next: they are prefetched.
    pub more: bool,
}

/// Asks for a cache line to be loaded, from any address; where the architecture has no such instruction here,
/// nothing happens.
#[inline(always)]
pub fn prefetch(from: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of the baseline, and a prefetch may name any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(from.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// What becomes of a tile of sums: `C = relu(alpha*sum + beta*C + bias)`, each part only if asked for.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    /// Factor of the sums.
    pub alpha: f32,
    /// Factor of the old C; zero means that C is not read.
    pub beta: f32,
    /// One value for each row of the tile, or null.
    pub bias: *const f32,
    /// Whether results below zero become zero. NaN stays NaN.
    pub relu: bool,
}

impl Epilogue {
    /// `C = alpha*sum + beta*C`.
    pub const fn scaled(alpha: f32, beta: f32) -> Self {
        Epilogue { alpha, beta, bias: std::ptr::null(), relu: false }
    }

    /// Whether it is `C = alpha*sum` or `C += alpha*sum`.
    pub fn only_adds(&self) -> bool {
        self.bias.is_null() && !self.relu && (self.beta == 0.0 || self.beta == 1.0)
    }
}

/// A micro-kernel. Holding a value of an implementing type proves that this CPU can run it.
///
/// ```text
///          b: depth rows of up to NR
///          +-----------------+
///          |  b[p*b_row + j] |   sum(i, j) = sum over p of a[i*row + p*step] * b[p*b_row + j]
///   a      +-----------------+
///   +---+  +-----------------+   in fp32, p upwards, one accumulator an element: the bits of
///   |   |  |  C, up to MR x NR   an element do not depend on where in a tile it stands
///   +---+  +-----------------+   row i of C at c + i*ld
/// ```
pub trait Kernel: Copy + Send + Sync + 'static {
    /// Most rows of a tile.
    const MR: usize;
    /// Most columns of a tile.
    const NR: usize;
    /// Elements of a vector register: a tile costs as much as its columns rounded up to this.
    const LANES: usize;
    /// The kernel's name in a matrix product.
    const SGEMM: &'static str;
    /// The kernel's name in a convolution.
    const CONV: &'static str;

    /// Computes one tile of C.
    ///
    /// # Safety
    /// `a` is readable in `c.rows` rows of `depth` elements, and `b` in `depth` rows of `c.cols`, the rows `b.1`
    /// apart. C's elements are writable, and hold initialised values if `epilogue.beta` is not zero.
    /// `epilogue.bias` is null or readable for `c.rows` elements. Nothing of this overlaps with C. There are 1
    /// to MR rows and 1 to NR columns.
    unsafe fn tile(self, depth: usize, a: Panel, b: (*const f32, usize), c: Tile, epilogue: &Epilogue);

    /// Most columns that [`Kernel::thin`] takes with advantage; zero if there are none.
    const THIN: usize = 0;

    /// Computes all rows of a tile of few columns, its lanes being rows instead: `a` is packed panels of MR rows,
    /// one after the other. The same arithmetic as [`Kernel::tile`].
    ///
    /// # Safety
    /// As [`Kernel::tile`], for any number of rows; panels are readable to their end.
    unsafe fn thin(self, depth: usize, a: *const f32, b: (*const f32, usize), c: Tile, epilogue: &Epilogue) {
        let _ = (depth, a, b, c, epilogue);
        unreachable!("THIN is zero");
    }

    /// Products of a few lines: see [`Dots`]. The order of a sum depends on its length alone.
    ///
    /// # Safety
    /// A is readable in `lines` lines of `depth` elements, B in `vectors` of them. C's elements are writable, and
    /// initialised if beta is not zero. Nothing of this overlaps with C.
    unsafe fn dots(self, dots: &Dots) {
        // SAFETY: the caller keeps the contract.
        unsafe { dots::plain(dots) }
    }

    /// Transposes rows, see [`Turn`].
    ///
    /// # Safety
    /// All elements named by `turn` are readable at `from` and writable at `to`, which do not overlap.
    unsafe fn transpose(self, turn: &Turn) {
        // SAFETY: the caller keeps the contract.
        unsafe { transpose::by_fours(turn) }
    }

    /// Copies rows.
    ///
    /// # Safety
    /// All elements named by `part` are readable at `from` and writable at `to`, which do not overlap.
    unsafe fn copy(self, part: &Part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::problem::exact::Random;

    /// Runs the kernel over a C with gaps, and checks sums, epilogue and gaps.
    fn check<K: Kernel>(
        kernel: K,
        depth: usize,
        (rows, cols, in_place): (usize, usize, bool),
        random: &mut Random,
    ) {
        // Exactly as long as the contract says: rows of A side by side or one after the other.
        let (a_row, a_step) = if in_place { (depth, 1) } else { (1, K::MR) };
        let b_row = if in_place { cols + 1 } else { K::NR };
        let a = random.integers((rows - 1) * a_row + (depth - 1) * a_step + 1, 8);
        let b = random.integers((depth - 1) * b_row + cols, 8);
        let (bias, ldc) = (random.integers(rows, 8), cols + 3);
        for (alpha, beta, with_bias, relu) in [
            (1.0, 0.0, false, false),
            (2.0, 1.0, true, true),
            (-1.0, -2.0, true, false),
            (1.0, 0.0, true, true),
        ] {
            let old = random.integers(rows * ldc, 8);
            // With beta zero C must not be read.
            let mut c = if beta == 0.0 { vec![f32::NAN; old.len()] } else { old.clone() };
            let before = c.clone();
            let bias_ptr = if with_bias { bias.as_ptr() } else { std::ptr::null() };
            // SAFETY: a, b, bias and c have the lengths the contract asks for.
            unsafe {
                let epilogue = Epilogue { alpha, beta, bias: bias_ptr, relu };
                let a = Panel { start: a.as_ptr(), row: a_row, step: a_step };
                let c = Tile { start: c.as_mut_ptr(), ld: ldc, rows, cols };
                kernel.tile(depth, a, (b.as_ptr(), b_row), c, &epilogue);
            }
            for i in 0..rows {
                for j in 0..cols {
                    let sum: f32 = (0..depth).map(|p| a[i * a_row + p * a_step] * b[p * b_row + j]).sum();
                    let old = if beta == 0.0 { 0.0 } else { beta * old[i * ldc + j] };
                    let value = alpha * sum + old + if with_bias { bias[i] } else { 0.0 };
                    let expected = if relu && value < 0.0 { 0.0 } else { value };
                    assert_eq!(c[i * ldc + j], expected, "{} depth {depth} at {i}, {j}", K::SGEMM);
                }
                let gap = i * ldc + cols..(i + 1) * ldc;
                assert!(c[gap.clone()].iter().zip(&before[gap]).all(|(x, y)| x.to_bits() == y.to_bits()));
            }
        }
    }

    fn check_shapes<K: Kernel>(kernel: K, random: &mut Random) {
        for (rows, cols) in (1..=K::MR).flat_map(|rows| (1..=K::NR).map(move |cols| (rows, cols))) {
            for depth in [1, 2, 7, 65] {
                check(kernel, depth, (rows, cols, false), random);
                check(kernel, depth, (rows, cols, true), random);
            }
        }
    }

    #[test]
    fn every_kernel_keeps_the_contract() {
        let mut random = Random::new(11);
        let kernels = Isa::all();
        assert!(!kernels.is_empty());
        for isa in kernels {
            with_kernel!(isa, kernel => check_shapes(kernel, &mut random));
        }
    }

    #[test]
    fn relu_keeps_nan_and_infinity() {
        fn check<K: Kernel>(kernel: K) {
            for (value, expected) in
                [(f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY), (f32::NEG_INFINITY, 0.0)]
            {
                let (a, b) = (vec![value; K::MR], vec![1.0; K::NR]);
                let mut c = vec![5.0; K::MR * K::NR];
                let epilogue = Epilogue { relu: true, ..Epilogue::scaled(1.0, 0.0) };
                // SAFETY: a, b and c have the lengths the contract asks for; there is no bias.
                unsafe {
                    let tile = Tile { start: c.as_mut_ptr(), ld: K::NR, rows: K::MR, cols: K::NR };
                    kernel.tile(1, Panel::packed(a.as_ptr(), K::MR), (b.as_ptr(), K::NR), tile, &epilogue);
                }
                assert!(
                    c.iter().all(|&got| got == expected || (got.is_nan() && expected.is_nan())),
                    "{value}"
                );
            }
        }
        for isa in Isa::all() {
            with_kernel!(isa, kernel => check(kernel));
        }
    }

    #[test]
    fn every_kernel_copies_rows_and_nothing_else() {
        fn check<K: Kernel>(kernel: K, stride: usize, len: usize) {
            let (rows, from_row, to_row) = (3, stride * len + 5, len + 2);
            let from: Vec<f32> =
                (0..2 * from_row + (len - 1) * stride + 2).map(|value| value as f32).collect();
            let mut to = vec![-1.0; 2 * rows * to_row];
            let part = Part {
                from: from.as_ptr(),
                from_row,
                stride,
                to: to.as_mut_ptr(),
                to_row,
                rows,
                len,
                groups: 2,
                from_group: 1,
                to_group: rows * to_row,
            };
            // SAFETY: `from` ends with the last element of the last row, and `to` holds two groups of three rows.
            unsafe { kernel.copy(&part) };
            for (at, &got) in to.iter().enumerate() {
                let (group, i, j) = (at / to_row / rows, at / to_row % rows, at % to_row);
                let expected = if j < len { (group + i * from_row + j * stride) as f32 } else { -1.0 };
                assert_eq!(got, expected, "{} stride {stride} len {len} at {i}, {j}", K::SGEMM);
            }
        }
        for isa in Isa::all() {
            for (stride, len) in (1..5).flat_map(|stride| (1..70).map(move |len| (stride, len))) {
                with_kernel!(isa, kernel => check(kernel, stride, len));
            }
        }
    }
}
