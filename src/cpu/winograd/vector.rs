//! Vectors of one channel block: what the transforms and products need of an instruction set.
//!
//! Everything that uses these is generic and inlined into functions compiled for that instruction set
//! ([`super::engine`]).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// What transforms compute with.
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

/// The most lanes of any vector.
pub const MAX_LANES: usize = 16;

/// A vector register of fp32. That a value exists proves that the CPU has it: they are only made by unsafe
/// functions.
pub trait Vector: Lane {
    /// Its length.
    const LANES: usize;

    /// # Safety
    /// The CPU has this vector, and `from` is readable for LANES elements.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count` elements, at least 1, at most LANES; zeros behind.
    ///
    /// # Safety
    /// The CPU has this vector, and `from` is readable for `count` elements.
    unsafe fn load_part(from: *const f32, count: usize) -> Self;

    /// # Safety
    /// The CPU has this vector.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// `to` is writable for LANES elements.
    unsafe fn store(self, to: *mut f32);

    /// Stores past the caches, where what is stored would only push out what is needed sooner. A [`fence`] must follow
    /// before another thread reads it.
    ///
    /// # Safety
    /// `to` is writable for LANES elements, and a multiple of LANES elements.
    unsafe fn stream(self, to: *mut f32);

    /// The first `count` elements, at most LANES.
    ///
    /// # Safety
    /// `to` is writable for `count` elements.
    unsafe fn store_part(self, to: *mut f32, count: usize);

    /// `a * b + self`.
    fn multiply_add(self, a: Self, b: Self) -> Self;

    /// Zero where it is below zero; NaN stays.
    fn relu(self) -> Self;

    /// Exchanges rows and columns of the first LANES rows.
    fn transpose(rows: [Self; MAX_LANES]) -> [Self; MAX_LANES];
}

/// Makes what was streamed visible to threads that see what is stored after.
#[inline(always)]
pub fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of the baseline.
    unsafe {
        _mm_sfence();
    }
}

/// For tests of the transforms.
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
        // SAFETY: a value exists, so the CPU has AVX-512F; so too below, wherever nothing else is said.
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
        // SAFETY: the caller vouches for the CPU and for the elements that the mask leaves.
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
        // SAFETY: the caller vouches for the elements that the mask leaves.
        unsafe { _mm512_mask_storeu_ps(to, 0xffff >> (16 - count), self.0) }
    }
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as in add.
        Lanes16(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn relu(self) -> Self {
        // SAFETY: as in add. Of a NaN and a number the instruction gives its second operand.
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
        // SAFETY: a value exists, so the CPU has AVX2 and FMA; so too below.
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

/// A window of eight masks out of this, eight elements less `count` in: `count` lanes on, the rest off.
#[cfg(target_arch = "x86_64")]
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// # Safety
/// The CPU has AVX2; `count` is at most 8.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn mask8(count: usize) -> __m256i {
    // SAFETY: 8 - count + 8 is at most the 16 masks there are.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count).cast()) }
}

#[cfg(target_arch = "x86_64")]
impl Vector for Lanes8 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for the CPU and for 8 elements.
        Lanes8(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller vouches for the CPU and for the elements that the mask leaves.
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
        // SAFETY: the caller vouches for the elements that the mask leaves.
        unsafe { _mm256_maskstore_ps(to, mask8(count), self.0) }
    }
    #[inline(always)]
    fn multiply_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as in add.
        Lanes8(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn relu(self) -> Self {
        // SAFETY: as in add. Of a NaN and a number the instruction gives its second operand.
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
