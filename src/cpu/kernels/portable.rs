//! The micro-kernel in plain Rust, written so that the compiler turns it into vector code.
//!
//! The accumulators are one local array, its rows addressed by constants (`unrolled!`) and its columns in loops
//! of constant length: the compiler keeps the whole in vector registers. The same source serves every
//! instruction set; [`define_kernel`] compiles it once for each.

use super::Epilogue;

/// The kernel for what every CPU of this architecture has.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

/// Implements [`Kernel`](super::Kernel) by compiling [`tile`] with a tile size and, if named, CPU features
/// beyond the baseline.
macro_rules! define_kernel {
    ($type:ty, $isa:literal, $mr:literal x $nr:literal, fma: $fma:expr $(, features: $features:literal)?) => {
        impl $crate::cpu::kernels::Kernel for $type {
            const MR: usize = $mr;
            const NR: usize = $nr;
            const SGEMM: &'static str = concat!("sgemm_", $isa, "_", $mr, "x", $nr);
            const CONV: &'static str = concat!("conv_igemm_", $isa, "_", $mr, "x", $nr);

            #[inline]
            unsafe fn tile(
                self,
                depth: usize,
                a: *const f32,
                b: *const f32,
                c: *mut f32,
                ldc: usize,
                epilogue: &$crate::cpu::kernels::Epilogue,
            ) {
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled(
                    depth: usize,
                    (a, b): (*const f32, *const f32),
                    (c, ldc): (*mut f32, usize),
                    epilogue: &$crate::cpu::kernels::Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::tile.
                    unsafe {
                        $crate::cpu::kernels::portable::tile::<$mr, $nr, { $fma }>(depth, (a, b), (c, ldc), epilogue)
                    }
                }
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(depth, (a, b), (c, ldc), epilogue) }
            }
        }
    };
}
pub(super) use define_kernel;

// Tiles as large as the registers allow: 16 of four lanes on the x86-64 baseline, 32 on the others.
#[cfg(target_arch = "x86_64")]
define_kernel!(Portable, "portable", 4 x 8, fma: false);
#[cfg(target_arch = "aarch64")]
define_kernel!(Portable, "portable", 8 x 8, fma: true);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
define_kernel!(Portable, "portable", 4 x 4, fma: false);

/// Repeats a block for i = 0, 1, ... below MR, each with i as a constant: only then do the accumulators,
/// indexed by it, live in registers.
macro_rules! unrolled {
    ($i:ident below $mr:ident: $body:block) => {
        unrolled!(@ $i, $mr, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $mr:ident, $body:block, $($index:literal)*) => {
        const { assert!($mr <= 16) };
        $(if $index < $mr {
            let $i: usize = $index;
            $body
        })*
    };
}

/// One tile of C. `FMA` says whether the target has a fused multiply-add; without, `mul_add` would be a slow
/// call.
///
/// # Safety
/// The contract of [`Kernel::tile`](super::Kernel::tile).
#[inline(always)]
pub(super) unsafe fn tile<const MR: usize, const NR: usize, const FMA: bool>(
    depth: usize,
    (a, b): (*const f32, *const f32),
    (c, ldc): (*mut f32, usize),
    epilogue: &Epilogue,
) {
    let mut sums = [[0.0f32; NR]; MR];
    for p in 0..depth {
        // SAFETY: p is below depth, and the caller vouches for depth*MR and depth*NR elements.
        let (a, b) = unsafe { (&*a.add(p * MR).cast::<[f32; MR]>(), &*b.add(p * NR).cast::<[f32; NR]>()) };
        unrolled!(i below MR: {
            for j in 0..NR {
                sums[i][j] = if FMA { a[i].mul_add(b[j], sums[i][j]) } else { sums[i][j] + a[i] * b[j] };
            }
        });
    }
    unrolled!(i below MR: {
        // SAFETY: the caller vouches for NR elements in each of MR rows, and for MR biases unless null.
        unsafe { store(&sums[i], c.add(i * ldc), epilogue, i) };
    });
}

/// One row of a tile.
///
/// # Safety
/// `row` is writable for NR elements, initialised unless beta is zero; the bias is null or readable at `i`.
#[inline(always)]
unsafe fn store<const NR: usize>(sums: &[f32; NR], row: *mut f32, epilogue: &Epilogue, i: usize) {
    let row = row.cast::<[f32; NR]>();
    let mut values = sums.map(|sum| epilogue.alpha * sum);
    if epilogue.beta != 0.0 {
        // SAFETY: the caller vouches for initialised values, as beta is not zero. f32 arrays need no more
        // alignment than f32.
        let old = unsafe { *row };
        for (value, old) in values.iter_mut().zip(old) {
            *value += epilogue.beta * old;
        }
    }
    if !epilogue.bias.is_null() {
        // SAFETY: the caller vouches for it.
        let bias = unsafe { *epilogue.bias.add(i) };
        values = values.map(|value| value + bias);
    }
    if epilogue.relu {
        values = values.map(|value| if value < 0.0 { 0.0 } else { value });
    }
    // SAFETY: the caller vouches for NR writable elements.
    unsafe { *row = values };
}
