//! AVX-512: 32 registers of 16 lanes. A tile of 8 x 48 takes 24 of them, a row of B three, an element of A one.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::contract::{Dots, Epilogue, Kernel, Tile, TransposeBlock, View};
use super::vector::dots::{DotVector, six_by_four};
use super::vector::{Vector, define_vector_kernel, finish_one, for_vectors, is_whole, view_of};
use crate::cpu::tunables::{PREFETCH_DEPTHS, TRANSPOSE_LEAD};

/// Proof that this CPU has AVX-512F and AVX-512VL, and that the operating system saves their registers.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The proof, if this CPU has them.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        (found && Avx2::detect().is_some()).then_some(Avx512(()))
    }
}

define_vector_kernel!(Avx512, __m512, "avx512", 8 x 48, "avx512f,avx2,fma", rows: 1 2 3 4 5 6 7 8, vectors: (1 2 3), columns: 1 2;
    const FAST_DOTS: bool = true;
    const HIDES_PACKING: bool = true;
    // Here a column costs half a cycle for each panel and step. As part of a vector of columns it costs four.
    const THIN: usize = 6;

    unsafe fn thin(
        self,
        depth: usize,
        a: *const f32,
        b: (*const f32, usize),
        c: Tile,
        epilogue: &Epilogue,
    ) {
        // SAFETY: the caller keeps the contract of Kernel::thin; that `self` exists proves the features.
        unsafe { thin(depth, a, b, c, epilogue) }
    }

    unsafe fn view_packing_a(self, block: &TransposeBlock, b: &View, c: Tile, epilogue: &Epilogue) {
        if c.rows < MR || block.depths < SIDE {
            // SAFETY: the caller keeps the contract of both.
            return unsafe {
                self.transpose(block);
                self.view(block.to, b, c, epilogue);
            };
        }
        let vectors = (c.cols - b.beside).div_ceil(Self::LANES) - 1;
        // SAFETY: the caller keeps the contract; that `self` exists proves the features.
        unsafe { PACKING[vectors][b.beside][usize::from(!b.whole)](block, b, c, epilogue) }
    }
);

/// Rows and depths that are transposed at a time: few enough to leave a tile's sums in registers.
const SIDE: usize = 8;

/// An instance of [`view_packing_a`].
type Instance = unsafe fn(&TransposeBlock, &View, Tile, &Epilogue);

/// [`view_packing_a`] for each number of vectors and of columns beside them, without and with masks.
const PACKING: [[[Instance; 2]; 3]; 3] = [
    [
        [view_packing_a::<1, 0, false>, view_packing_a::<1, 0, true>],
        [view_packing_a::<1, 1, false>, view_packing_a::<1, 1, true>],
        [view_packing_a::<1, 2, false>, view_packing_a::<1, 2, true>],
    ],
    [
        [view_packing_a::<2, 0, false>, view_packing_a::<2, 0, true>],
        [view_packing_a::<2, 1, false>, view_packing_a::<2, 1, true>],
        [view_packing_a::<2, 2, false>, view_packing_a::<2, 2, true>],
    ],
    [
        [view_packing_a::<3, 0, false>, view_packing_a::<3, 0, true>],
        [view_packing_a::<3, 1, false>, view_packing_a::<3, 1, true>],
        [view_packing_a::<3, 2, false>, view_packing_a::<3, 2, true>],
    ],
];

/// A tile from rows of A, which are transposed into a panel a few depths before they are read. Multiply-adds of earlier
/// depths are then still in flight, and the transpose's loads and shuffles run beside them.
///
/// # Safety
/// The contract of [`Kernel::view_packing`](super::Kernel::view_packing_a), for MR rows and at least SIDE depths.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn view_packing_a<const V: usize, const X: usize, const MASKED: bool>(
    block: &TransposeBlock,
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
) {
    let TransposeBlock { mut from, line, mut to, depths, .. } = *block;
    let (panel, end, row_end) = (to.cast_const(), to.wrapping_add(depths * MR), from.wrapping_add(depths));
    // The second square may overlap the first one, so that the last square ends where the rows end.
    let first = if depths.is_multiple_of(SIDE) { SIDE } else { depths % SIDE };
    // SAFETY: there are at least SIDE depths.
    unsafe { square(from, line, to) };
    (from, to) = (from.wrapping_add(first), to.wrapping_add(first * MR));
    let mut rows = 0;
    let mut transpose_until = |read: *const f32| {
        while to.cast_const() < read.wrapping_add(TRANSPOSE_LEAD * MR) && to < end {
            // SAFETY: `to` is before the panel's end, SIDE depths at least.
            unsafe { square(from, line, to) };
            // Prefetches half of the rows, as a cache line is two squares long. After the rows' end come those of the
            // next panel.
            let ahead = from.wrapping_add(PREFETCH_DEPTHS);
            let ahead = if ahead < row_end { ahead } else { ahead.wrapping_add(MR * line - depths) };
            for row in rows..rows + MR / 2 {
                // SAFETY: a prefetch may point anywhere, and the caller guarantees AVX-512.
                unsafe { <__m512 as Vector>::prefetch(ahead.wrapping_add(row * line)) };
            }
            rows = MR / 2 - rows;
            (from, to) = (from.wrapping_add(SIDE), to.wrapping_add(SIDE * MR));
        }
    };
    // SAFETY: the caller keeps the contract; a panel's depths are transposed before they are read.
    unsafe {
        let nowhere = std::ptr::null_mut();
        let before = &mut transpose_until;
        if is_whole::<__m512, V, X, MASKED>(b, &c) {
            view_of::<__m512, MR, V, X, MASKED, true, 0>(
                (MR, panel),
                b,
                nowhere,
                c,
                epilogue,
                2 * SIDE,
                before,
            );
        } else {
            view_of::<__m512, MR, V, X, MASKED, false, 0>(
                (MR, panel),
                b,
                nowhere,
                c,
                epilogue,
                2 * SIDE,
                before,
            );
        }
    }
}

/// Transposes MR rows of SIDE elements, `line` apart, into SIDE contiguous rows of MR.
///
/// # Safety
/// They are readable and writable.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn square(from: *const f32, line: usize, to: *mut f32) {
    const { assert!(MR == 8 && SIDE == 8) };
    // SAFETY: the caller guarantees all elements.
    unsafe {
        // Rows i and i + 4 share a register, so each quarter of four registers is a square of four.
        let rows = |i: usize| {
            let (low, high) =
                (_mm256_loadu_ps(from.add(i * line)), _mm256_loadu_ps(from.add((i + 4) * line)));
            let (low, high) = (_mm256_castps_pd(low), _mm256_castps_pd(high));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castpd256_pd512(low), high))
        };
        let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let low = |x, y| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
        let high = |x, y| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
        // Quarters of p0: depths 0 and 4 of rows 0 to 3, then of rows 4 to 7. Likewise p1 to p3.
        let (p0, p1) = (low(ab_low, cd_low), high(ab_low, cd_low));
        let (p2, p3) = (low(ab_high, cd_high), high(ab_high, cd_high));
        _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<0b10_00_10_00>(p0, p1));
        _mm512_storeu_ps(to.add(2 * MR), _mm512_shuffle_f32x4::<0b10_00_10_00>(p2, p3));
        _mm512_storeu_ps(to.add(4 * MR), _mm512_shuffle_f32x4::<0b11_01_11_01>(p0, p1));
        _mm512_storeu_ps(to.add(6 * MR), _mm512_shuffle_f32x4::<0b11_01_11_01>(p2, p3));
    }
}

/// Rows of a packed panel: the lanes of a vector of half the width.
const MR: usize = <Avx512 as Kernel>::MR;
/// Panels at a time: enough chains of additions to keep both units busy.
const CHAINS: usize = 8;

/// All rows of a few columns.
///
/// # Safety
/// The contract of [`Kernel::thin`](super::Kernel::thin).
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn thin(depth: usize, a: *const f32, (b, b_row): (*const f32, usize), c: Tile, epilogue: &Epilogue) {
    let panels = c.rows.div_ceil(MR);
    for first in (0..panels).step_by(CHAINS) {
        let count = CHAINS.min(panels - first);
        for j in 0..c.cols {
            // SAFETY: panels, rows and columns are below the counts that the caller guarantees.
            unsafe {
                let a = a.add(first * MR * depth);
                let b = b.add(j);
                let sums = if count == CHAINS {
                    chains::<CHAINS>(depth, a, (b, b_row))
                } else {
                    let mut sums = [_mm256_setzero_ps(); CHAINS];
                    for (index, sum) in sums.iter_mut().enumerate().take(count) {
                        [*sum] = chains::<1>(depth, a.add(index * MR * depth), (b, b_row));
                    }
                    sums
                };
                let mut values = [0.0f32; MR * CHAINS];
                for (index, sum) in sums.iter().enumerate() {
                    _mm256_storeu_ps(values.as_mut_ptr().add(index * MR), *sum);
                }
                let rows = (MR * count).min(c.rows - first * MR);
                for (index, &sum) in values[..rows].iter().enumerate() {
                    let row = first * MR + index;
                    finish_one(sum, c.start.add(row * c.ld + j), row, epilogue);
                }
            }
        }
    }
}

/// The sums of one column of B with G panels of A.
///
/// # Safety
/// G panels are readable, and `depth` elements of B.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn chains<const G: usize>(
    depth: usize,
    a: *const f32,
    (b, b_row): (*const f32, usize),
) -> [__m256; G] {
    let mut sums = [_mm256_setzero_ps(); G];
    for p in 0..depth {
        // SAFETY: p is below depth.
        unsafe {
            let value = _mm256_set1_ps(*b.add(p * b_row));
            for (g, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(_mm256_loadu_ps(a.add(g * MR * depth + p * MR)), value, *sum);
            }
        }
    }
    sums
}

// SAFETY (of all blocks): the caller guarantees the CPU features and the memory named by pointer and mask.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for __m512 {
    const LANES: usize = 16;
    const FREE_MASKS: bool = true;
    type Mask = __mmask16;
    type Column = __m256;

    #[inline(always)]
    unsafe fn mask(count: usize) -> __mmask16 {
        (0xffff_u32 >> (16 - count)) as __mmask16
    }
    #[inline(always)]
    unsafe fn lanes(bits: u64) -> __mmask16 {
        bits as __mmask16
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: __mmask16) -> Self {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, mask: __mmask16) {
        unsafe { _mm512_mask_storeu_ps(to, mask, self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, factor, addend) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { _mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(self, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(kept, self)
        }
    }
    #[inline(always)]
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        unsafe {
            let [a, b, c, d] = of;
            // Eight partial sums for each of two vectors, then four for each of all four.
            let halves = |x, y| {
                let (low, high) = (
                    _mm512_shuffle_f32x4::<0b01_00_01_00>(x, y),
                    _mm512_shuffle_f32x4::<0b11_10_11_10>(x, y),
                );
                _mm512_add_ps(low, high)
            };
            let (ab, cd) = (halves(a, b), halves(c, d));
            let (even, odd) = (
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            );
            let quarters = _mm512_add_ps(even, odd);
            let pairs = _mm512_add_ps(quarters, _mm512_permute_ps::<0b01_00_11_10>(quarters));
            let all = _mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
            let firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
            let mut sums = [0.0f32; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, all)));
            sums
        }
    }
    #[inline(always)]
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self {
        unsafe {
            // Wanted are elements 0, 2, .. of 2*count - 1. Those between them are read as well.
            let (low, high) = ((2 * count - 1).min(16), (2 * count - 1).saturating_sub(16));
            let low = Self::load_part(from, Self::mask(low));
            let high = Self::load_part(from.wrapping_add(16), Self::mask(high));
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(low, even, high)
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
}

impl DotVector for __m512 {
    #[inline(always)]
    unsafe fn six_by_four(dots: &Dots, l: usize, v: usize) {
        // With AVX-512F alone the compiler may keep sums whose halves are used separately in only half of the
        // registers.
        #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
        unsafe fn compiled(dots: &Dots, l: usize, v: usize) {
            // SAFETY: the caller keeps the contract.
            unsafe { six_by_four::<__m512>(dots, l, v) }
        }
        // SAFETY: the caller keeps the contract; the proof type of this vector has checked for AVX-512VL.
        unsafe { compiled(dots, l, v) }
    }
}
