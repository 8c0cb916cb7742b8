//! The peak rate: fused multiply-adds on registers only, in more independent chains than the units' latency needs. No
//! product that does all its multiplications is faster.
//!
//! The benchmarks include this file by its path, so it uses nothing of the crate.

use std::hint::black_box;

/// Passes over all accumulators in a run: about 50 microseconds.
const PASSES: usize = 1 << 14;

/// Runs multiply-adds on the registers of an instruction set, named as in `SPARKLE_ISA`; on the widest of this CPU, if it lacks
/// that or there is no such name. Returns the number of operations.
pub fn run(isa: &str) -> u64 {
    if isa == "portable" {
        return baseline();
    }
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && isa != "avx2" {
            // SAFETY: just detected.
            return unsafe { x86::avx512() };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: just detected.
            return unsafe { x86::avx2() };
        }
    }
    baseline()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{PASSES, black_box};

    /// Uses 24 of 32 registers.
    #[target_feature(enable = "avx512f")]
    pub fn avx512() -> u64 {
        let (x, y) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(0.25)));
        let mut sums = [x; 24];
        for _ in 0..PASSES {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
        (2 * 16 * 24 * PASSES) as u64
    }

    /// Uses 12 of 16 registers.
    #[target_feature(enable = "avx2,fma")]
    pub fn avx2() -> u64 {
        let (x, y) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(0.25)));
        let mut sums = [x; 12];
        for _ in 0..PASSES {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
        (2 * 8 * 12 * PASSES) as u64
    }
}

/// Multiply-adds as the compiler generates them for the architecture's baseline: fused on 64-bit ARM (NEON), a product
/// and a sum where the baseline has no such instruction.
fn baseline() -> u64 {
    const FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
    let (x, y): (f32, f32) = (black_box(0.5), black_box(0.25));
    let mut sums = [[x; 4]; 12];
    for _ in 0..PASSES {
        for sum in sums.as_flattened_mut() {
            *sum = if FUSED { sum.mul_add(x, y) } else { *sum * x + y };
        }
    }
    black_box(sums);
    (2 * 4 * 12 * PASSES) as u64
}
