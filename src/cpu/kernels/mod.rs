//! Micro-kernels: the innermost product of two packed panels, and what happens to it on its way into C.
//!
//! A kernel is a leaf. It gets pointers, a depth and a stride; it knows no shapes, threads or memory.
//! Everything around it ([`super::block`]) is generic over the [`Kernel`] trait, so a new instruction set is
//! one more implementation.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

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
}

/// A micro-kernel. Holding a value of an implementing type proves that this CPU can run it.
///
/// ```text
///             b: depth x NR
///             +-----------------+
///   a:        |  b[p*NR + j]    |   sum(i, j) = sum over p of a[p*MR + i] * b[p*NR + j]
///   depth x MR+-----------------+
///   +-+       +-----------------+   in fp32, p upwards, one accumulator an element: the bits of
///   | |       |  C tile MR x NR |   an element do not depend on where in a tile it stands
///   +-+       +-----------------+   row i of C at c + i*ldc
/// ```
pub trait Kernel: Copy + Send + Sync + 'static {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// The kernel's name in a matrix product.
    const SGEMM: &'static str;
    /// The kernel's name in a convolution.
    const CONV: &'static str;

    /// Computes one whole tile of C.
    ///
    /// # Safety
    /// `a` is readable for `depth*MR` elements and `b` for `depth*NR`. `c + i*ldc` is writable for NR
    /// elements for each row i below MR, and holds initialised values if `epilogue.beta` is not zero.
    /// `epilogue.bias` is null or readable for MR elements. Nothing of this overlaps with C.
    unsafe fn tile(
        self,
        depth: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        epilogue: &Epilogue,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::problem::exact::Random;

    /// Runs the kernel over a C with gaps, and checks sums, epilogue and gaps.
    fn check<K: Kernel>(kernel: K, depth: usize, random: &mut Random) {
        let (a, b) = (random.integers(depth * K::MR, 8), random.integers(depth * K::NR, 8));
        let (bias, ldc) = (random.integers(K::MR, 8), K::NR + 3);
        for (alpha, beta, with_bias, relu) in [
            (1.0, 0.0, false, false),
            (2.0, 1.0, true, true),
            (-1.0, -2.0, true, false),
            (1.0, 0.0, true, true),
        ] {
            let old = random.integers(K::MR * ldc, 8);
            // With beta zero C must not be read.
            let mut c = if beta == 0.0 { vec![f32::NAN; old.len()] } else { old.clone() };
            let before = c.clone();
            let bias_ptr = if with_bias { bias.as_ptr() } else { std::ptr::null() };
            // SAFETY: a, b, bias and c have the lengths the contract asks for.
            unsafe {
                let epilogue = Epilogue { alpha, beta, bias: bias_ptr, relu };
                kernel.tile(depth, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), ldc, &epilogue);
            }
            for i in 0..K::MR {
                for j in 0..K::NR {
                    let sum: f32 = (0..depth).map(|p| a[p * K::MR + i] * b[p * K::NR + j]).sum();
                    let old = if beta == 0.0 { 0.0 } else { beta * old[i * ldc + j] };
                    let value = alpha * sum + old + if with_bias { bias[i] } else { 0.0 };
                    let expected = if relu && value < 0.0 { 0.0 } else { value };
                    assert_eq!(c[i * ldc + j], expected, "{} depth {depth} at {i}, {j}", K::SGEMM);
                }
                let gap = i * ldc + K::NR..(i + 1) * ldc;
                assert!(c[gap.clone()].iter().zip(&before[gap]).all(|(x, y)| x.to_bits() == y.to_bits()));
            }
        }
    }

    #[test]
    fn every_kernel_keeps_the_contract() {
        let mut random = Random::new(11);
        let kernels = Isa::all();
        assert!(!kernels.is_empty());
        for isa in kernels {
            for depth in [1, 2, 3, 7, 64, 301] {
                with_kernel!(isa, kernel => check(kernel, depth, &mut random));
            }
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
                unsafe { kernel.tile(1, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), K::NR, &epilogue) };
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
}
