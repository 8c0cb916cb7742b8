//! The portable micro-kernel compiled for wider x86-64 vectors and fused multiply-adds.

use super::portable::define_kernel;

/// Proof that this CPU has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

/// Proof that this CPU has AVX-512F, and that the system saves its registers.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx2 {
    /// The proof, if it holds.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

impl Avx512 {
    /// The proof, if it holds.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && Avx2::detect().is_some()).then_some(Avx512(()))
    }
}

// 12 of 16 ymm and 28 of 32 zmm hold sums; the rest hold a row of B and a broadcast element of A.
define_kernel!(Avx2, "avx2", 6 x 16, fma: true, features: "avx2,fma");
define_kernel!(Avx512, "avx512", 14 x 32, fma: true, features: "avx512f,avx2,fma");
