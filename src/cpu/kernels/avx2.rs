//! AVX2 with FMA: 16 registers of 8 lanes. A tile of 6 x 16 takes 12 of them, a row of B two, and one or two elements
//! of A the rest.

use std::arch::x86_64::*;

use super::contract::Dots;
use super::vector::dots::{DotVector, six_by_four};
use super::vector::{Vector, define_vector_kernel, for_vectors};

/// Proof that this CPU has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The proof, if this CPU has both.
    pub fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Avx2(()))
    }
}

define_vector_kernel!(Avx2, __m256, "avx2", 6 x 16, "avx2,fma", rows: 1 2 3 4 5 6, vectors: (1 2), columns: ;);

// SAFETY (of all blocks): the caller guarantees the CPU features and the memory named by pointer and mask.
#[allow(clippy::undocumented_unsafe_blocks)]
// As for AVX-512, one intrinsic each: the names differ by width, and masks are registers here.
impl Vector for __m256 {
    const LANES: usize = 8;
    const FREE_MASKS: bool = false;
    type Mask = __m256i;
    type Column = __m256;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        unsafe {
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
        }
    }
    #[inline(always)]
    unsafe fn lanes(bits: u64) -> __m256i {
        unsafe {
            let lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), lanes), lanes)
        }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: __m256i) -> Self {
        unsafe { _mm256_maskload_ps(from, mask) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, mask: __m256i) {
        unsafe { _mm256_maskstore_ps(to, mask, self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, factor, addend) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm256_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        unsafe {
            let kept = _mm256_cmp_ps::<_CMP_NLT_UQ>(self, _mm256_setzero_ps());
            _mm256_and_ps(kept, self)
        }
    }
    #[inline(always)]
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self {
        unsafe {
            // Wanted are elements 0, 2, .. of 2*count - 1. Those between them are read as well.
            let (low, high) = ((2 * count - 1).min(8), (2 * count - 1).saturating_sub(8));
            let low = Self::load_part(from, Self::mask(low));
            let high = Self::load_part(from.wrapping_add(8), Self::mask(high));
            // 0 2 | 8 10 | 4 6 | 12 14, then the middle pairs are swapped.
            let pairs = _mm256_castps_pd(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
            _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(pairs))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}

impl DotVector for __m256 {
    #[inline(always)]
    unsafe fn six_by_four(dots: &Dots, l: usize, v: usize) {
        // SAFETY: the caller keeps the contract.
        unsafe { six_by_four::<__m256>(dots, l, v) }
    }
}
