//! The two inner loops, shared by matrix products and convolutions: packed panels of A times a packed block
//! of B.

use super::kernels::{Epilogue, Kernel};

/// The part of C that one task computes: `rows` x `cols` elements, row i at `start + i*ld`.
#[derive(Clone, Copy)]
pub struct Tile {
    pub start: *mut f32,
    pub ld: usize,
    pub rows: usize,
    pub cols: usize,
}

/// A matrix that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32);

impl Shared {
    pub fn new(matrix: &mut [f32]) -> Self {
        Shared(matrix.as_mut_ptr())
    }

    /// Its first element.
    pub fn start(&self) -> *mut f32 {
        self.0
    }
}

// SAFETY: a Shared is only a pointer; those who write through it answer for not overlapping.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Computes a tile of C from packed panels, each `depth` deep: `a` holds the panels of all its rows, `b`
/// those of all its columns.
///
/// # Safety
/// All elements of the tile are writable, by nobody else meanwhile, and initialised if `epilogue.beta` is not
/// zero. The bias is null or readable for the tile's rows, rounded up to MR.
pub unsafe fn multiply<K: Kernel>(
    kernel: K,
    depth: usize,
    a: &[f32],
    b: &[f32],
    c: Tile,
    epilogue: &Epilogue,
) {
    const { assert!(K::MR > 0 && K::NR > 0 && K::MR * K::NR <= MAX_TILE) };
    assert!(depth > 0 && a.len() >= c.rows.next_multiple_of(K::MR) * depth);
    assert!(b.len() >= c.cols.next_multiple_of(K::NR) * depth);
    // LOOP 2: rows of C by MR. The panel of A stays in L1.
    for (i, a) in (0..c.rows).step_by(K::MR).zip(a.chunks_exact(depth * K::MR)) {
        // SAFETY: the bias reaches to the end of the last panel.
        let bias = if epilogue.bias.is_null() { epilogue.bias } else { unsafe { epilogue.bias.add(i) } };
        let epilogue = Epilogue { bias, ..*epilogue };
        // LOOP 1: columns of C by NR. Panels of B come from L2, one after the other.
        for (j, b) in (0..c.cols).step_by(K::NR).zip(b.chunks_exact(depth * K::NR)) {
            let (rows, cols) = (K::MR.min(c.rows - i), K::NR.min(c.cols - j));
            // SAFETY: (i, j) is inside the tile, and so are rows x cols elements from there. The panels are
            // whole: a and b are chunks of depth*MR and depth*NR elements.
            unsafe {
                let start = c.start.add(i * c.ld + j);
                if rows == K::MR && cols == K::NR {
                    kernel.tile(depth, a.as_ptr(), b.as_ptr(), start, c.ld, &epilogue);
                } else {
                    edge(kernel, depth, (a, b), Tile { start, rows, cols, ..c }, &epilogue);
                }
            }
        }
    }
}

/// The largest MR*NR of any kernel.
const MAX_TILE: usize = 512;

/// Computes a tile that is smaller than the kernel's: a whole one aside, of which the part that exists is
/// copied. One arithmetic for all elements: an element's bits do not depend on where the edges are.
///
/// # Safety
/// As [`multiply`], for a tile of at most MR x NR.
unsafe fn edge<K: Kernel>(kernel: K, depth: usize, (a, b): (&[f32], &[f32]), c: Tile, epilogue: &Epilogue) {
    let mut aside = [0.0f32; MAX_TILE];
    // SAFETY: rows x cols elements of C are valid, for reading if beta is not zero; aside has MR x NR, which
    // are no fewer.
    unsafe {
        if epilogue.beta != 0.0 {
            for i in 0..c.rows {
                aside.as_mut_ptr().add(i * K::NR).copy_from_nonoverlapping(c.start.add(i * c.ld), c.cols);
            }
        }
        kernel.tile(depth, a.as_ptr(), b.as_ptr(), aside.as_mut_ptr(), K::NR, epilogue);
        for i in 0..c.rows {
            c.start.add(i * c.ld).copy_from_nonoverlapping(aside.as_ptr().add(i * K::NR), c.cols);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::cpu::pack::{Lines, panels};
    use crate::problem::exact::Random;

    fn check<K: Kernel>(kernel: K, rows: usize, cols: usize, random: &mut Random) {
        let (depth, ld) = (5, cols + 2);
        let (a, b) = (random.integers(rows * depth, 8), random.integers(depth * cols, 8));
        let mut packed_a = vec![0.0; rows.next_multiple_of(K::MR) * depth];
        let mut packed_b = vec![0.0; cols.next_multiple_of(K::NR) * depth];
        panels(Lines { data: &a, line: depth, depth: 1 }, K::MR, 0..rows, 0..depth, &mut packed_a);
        panels(Lines { data: &b, line: 1, depth: cols }, K::NR, 0..cols, 0..depth, &mut packed_b);
        let mut c = vec![f32::NAN; rows * ld];
        let tile = Tile { start: c.as_mut_ptr(), ld, rows, cols };
        for beta in [0.0, 1.0] {
            // SAFETY: c holds rows x ld elements, all initialised; there is no bias.
            unsafe { multiply(kernel, depth, &packed_a, &packed_b, tile, &Epilogue::scaled(1.0, beta)) };
        }
        for i in 0..rows {
            for j in 0..ld {
                let sum: f32 =
                    (0..depth).map(|p| a[i * depth + p] * b.get(p * cols + j).unwrap_or(&0.0)).sum();
                let got = c[i * ld + j];
                assert!(if j < cols { got == 2.0 * sum } else { got.is_nan() }, "{rows}x{cols} at {i}, {j}");
            }
        }
    }

    #[test]
    fn tiles_of_every_size_are_right_and_stay_inside() {
        let mut random = Random::new(12);
        for isa in Isa::all() {
            for (rows, cols) in
                (1..30).flat_map(|rows| [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 65].map(|cols| (rows, cols)))
            {
                with_kernel!(isa, kernel => check(kernel, rows, cols, &mut random));
            }
        }
    }
}
