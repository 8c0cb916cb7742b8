//! Vector registers: the operations that transforms and products need of an instruction set.
//!
//! Code that uses them is generic, and inlined into functions that are compiled for the instruction set
//! ([`super::engine`]).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// The arithmetic of transforms.
pub trait Lane: Copy {
    /// The sum.
    fn add(self, other: Self) -> Self;
    /// The difference.
    fn sub(self, other: Self) -> Self;
    /// `self + factor * other`.
    fn add_scaled(self, factor: f32, other: Self) -> Self;
    /// `factor * self`.
    fn scaled(self, factor: f32) -> Self;
}

/// The most lanes of a vector.
pub const MAX_LANES: usize = 16;

/// A vector register of fp32. A value proves that the CPU has such registers, because only unsafe functions create one.
pub trait Vector: Lane {
    /// The number of lanes.
    const LANES: usize;

    /// Loads LANES elements.
    ///
    /// # Safety
    /// The CPU has this vector, and `from` is readable for LANES elements.
    unsafe fn load(from: *const f32) -> Self;

    /// Loads the first `count` elements, 1 to LANES, and zeros after them.
    ///
    /// # Safety
    /// The CPU has this vector, and `from` is readable for `count` elements.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;

    /// `value` in all lanes.
    ///
    /// # Safety
    /// The CPU has this vector.
    unsafe fn splat(value: f32) -> Self;

    /// Stores all lanes.
    ///
    /// # Safety
    /// `to` is writable for LANES elements.
    unsafe fn store(self, to: *mut f32);

    /// Stores past the caches, to keep other data in them. A [`fence`] must follow before another thread reads the
    /// data.
    ///
    /// # Safety
    /// `to` is writable for LANES elements, and aligned to LANES elements.
    unsafe fn stream(self, to: *mut f32);

    /// Stores the first `count` lanes, at most LANES.
    ///
    /// # Safety
    /// `to` is writable for `count` elements.
    unsafe fn store_part(self, to: *mut f32, count: usize);

    /// `a * b + self`.
    fn multiply_add(self, a: Self, b: Self) -> Self;

    /// Replaces negative values by zero; NaN stays.
    fn relu(self) -> Self;

    /// Transposes the first LANES rows.
    fn transpose(rows: [Self; MAX_LANES]) -> [Self; MAX_LANES];
}

/// Orders streamed stores before all later stores, for other threads.
#[inline(always)]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of the baseline.
    unsafe {
        _mm_sfence();
    }
}

/// Tests run the transforms in float64.
#[cfg(test)]
impl Lane for f64 {
    fn add(self, other: Self) -> Self {
        self + other
    }
    fn sub(self, other: Self) -> Self {
        self - other
    }
    fn add_scaled(self, factor: f32, other: Self) -> Self {
        self + f64::from(factor) * other
    }
    fn scaled(self, factor: f32) -> Self {
        f64::from(factor) * self
    }
}

/// Sixteen lanes: AVX-512F.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Lanes16(__m512);

/// Eight lanes: AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Lanes8(__m256);

#[cfg(target_arch = "x86_64")]
impl Lane for Lanes16 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX-512F; likewise below, unless stated otherwise.
        Lanes16(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in add.
        Lanes16(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn add_scaled(self, factor: f32, other: Self) -> Self {
        // SAFETY: as in add.
        Lanes16(unsafe { _mm512_fmadd_ps(_mm512_set1_ps(factor), other.0, self.0) })
    }
    #[inline(always)]
    fn scaled(self, factor: f32) -> Self {
        // SAFETY: as in add.
        Lanes16(unsafe { _mm512_mul_ps(_mm512_set1_ps(factor), self.0) })
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for Lanes16 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the CPU and for 16 elements.
        Lanes16(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller vouches for the CPU and for the elements that the mask selects.
        Lanes16(unsafe { _mm512_maskz_loadu_ps(0xffff >> (16 - count), from) })
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for the CPU.
        Lanes16(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 16 elements.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the caller vouches for a whole aligned vector.
        unsafe { _mm512_stream_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller vouches for the elements that the mask selects.
        unsafe { _mm512_mask_storeu_ps(to, 0xffff >> (16 - count), self.0) }
    }
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as in add.
        Lanes16(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn relu(self) -> Self {
        // SAFETY: as in add. If an operand is NaN, the instruction returns the second one.
        Lanes16(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
    }
    #[inline(always)]
    fn transpose(rows: [Self; MAX_LANES]) -> [Self; MAX_LANES] {
        let (mut pairs, mut fours, mut columns) = (rows, rows, rows);
        // SAFETY: as in add.
        unsafe {
            for i in 0..8 {
                pairs[2 * i].0 = _mm512_unpacklo_ps(rows[2 * i].0, rows[2 * i + 1].0);
                pairs[2 * i + 1].0 = _mm512_unpackhi_ps(rows[2 * i].0, rows[2 * i + 1].0);
            }
            // Quarter l of fours[4*i + c]: column 4*l + c of rows 4*i to 4*i + 3.
            for i in 0..4 {
                for half in 0..2 {
                    let low = _mm512_castps_pd(pairs[4 * i + half].0);
                    let high = _mm512_castps_pd(pairs[4 * i + half + 2].0);
                    fours[4 * i + 2 * half].0 = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    fours[4 * i + 2 * half + 1].0 = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            for c in 0..4 {
                let [a, b, e, f] = [fours[c].0, fours[4 + c].0, fours[8 + c].0, fours[12 + c].0];
                let (even_ab, odd_ab) =
                    (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even_ef, odd_ef) =
                    (_mm512_shuffle_f32x4::<0x88>(e, f), _mm512_shuffle_f32x4::<0xdd>(e, f));
                columns[c].0 = _mm512_shuffle_f32x4::<0x88>(even_ab, even_ef);
                columns[4 + c].0 = _mm512_shuffle_f32x4::<0x88>(odd_ab, odd_ef);
                columns[8 + c].0 = _mm512_shuffle_f32x4::<0xdd>(even_ab, even_ef);
                columns[12 + c].0 = _mm512_shuffle_f32x4::<0xdd>(odd_ab, odd_ef);
            }
        }
        columns
    }
}

#[cfg(target_arch = "x86_64")]
impl Lane for Lanes8 {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a value exists, so the CPU has AVX2 and FMA; likewise below.
        Lanes8(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in add.
        Lanes8(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn add_scaled(self, factor: f32, other: Self) -> Self {
        // SAFETY: as in add.
        Lanes8(unsafe { _mm256_fmadd_ps(_mm256_set1_ps(factor), other.0, self.0) })
    }
    #[inline(always)]
    fn scaled(self, factor: f32) -> Self {
        // SAFETY: as in add.
        Lanes8(unsafe { _mm256_mul_ps(_mm256_set1_ps(factor), self.0) })
    }
}

/// Masks: the eight elements from index `8 - count` on select the first `count` lanes.
#[cfg(target_arch = "x86_64")]
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// A mask that selects the first `count` lanes.
///
/// # Safety
/// The CPU has AVX2; `count` is at most 8.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn mask8(count: usize) -> __m256i {
    // SAFETY: 8 - count + 8 is at most 16, the number of masks.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count).cast()) }
}

#[cfg(target_arch = "x86_64")]
// As for `Lanes16`, one intrinsic each: the names differ by width, and so do the masks.
impl Vector for Lanes8 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the CPU and for 8 elements.
        Lanes8(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller vouches for the CPU and for the elements that the mask selects.
        Lanes8(unsafe { _mm256_maskload_ps(from, mask8(count)) })
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller vouches for the CPU.
        Lanes8(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 8 elements.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: the caller vouches for a whole aligned vector.
        unsafe { _mm256_stream_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, count: usize) {
        // SAFETY: the caller vouches for the elements that the mask selects.
        unsafe { _mm256_maskstore_ps(to, mask8(count), self.0) }
    }
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as in add.
        Lanes8(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn relu(self) -> Self {
        // SAFETY: as in add. If an operand is NaN, the instruction returns the second one.
        Lanes8(unsafe { _mm256_max_ps(_mm256_setzero_ps(), self.0) })
    }
    #[inline(always)]
    fn transpose(rows: [Self; MAX_LANES]) -> [Self; MAX_LANES] {
        let (mut pairs, mut fours, mut columns) = (rows, rows, rows);
        // SAFETY: as in add.
        unsafe {
            for i in 0..4 {
                pairs[2 * i].0 = _mm256_unpacklo_ps(rows[2 * i].0, rows[2 * i + 1].0);
                pairs[2 * i + 1].0 = _mm256_unpackhi_ps(rows[2 * i].0, rows[2 * i + 1].0);
            }
            for i in 0..2 {
                for half in 0..2 {
                    let low = _mm256_castps_pd(pairs[4 * i + half].0);
                    let high = _mm256_castps_pd(pairs[4 * i + half + 2].0);
                    fours[4 * i + 2 * half].0 = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
                    fours[4 * i + 2 * half + 1].0 = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
                }
            }
            for c in 0..4 {
                columns[c].0 = _mm256_permute2f128_ps::<0x20>(fours[c].0, fours[4 + c].0);
                columns[4 + c].0 = _mm256_permute2f128_ps::<0x31>(fours[c].0, fours[4 + c].0);
            }
        }
        columns
    }
}
