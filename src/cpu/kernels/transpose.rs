//! Transposes in squares that fit the registers, for packing.
//!
//! ```text
//! from: lines of A or B           to: a panel, side by side
//! l0  p0 p1 p2 p3 ..              p0  l0 l1 l2 l3 ..
//! l1  p0 p1 p2 p3 ..     --->     p1  l0 l1 l2 l3 ..
//! l2  p0 p1 p2 p3 ..              p2  l0 l1 l2 l3 ..
//! ```
//!
//! A cache line holds 16 depths of one line. So the loops go through 16 depths of a square's lines before the next
//! lines, and each cache line is read once.

use super::contract::{TransposeBlock, prefetch};

/// Depths that one cache line holds.
const RUN: usize = 16;

/// Transposes in squares of 4 x 4, for which every target has registers. The remainder goes element by element.
///
/// # Safety
/// The contract of [`Kernel::transpose`](super::contract::Kernel::transpose).
pub(super) unsafe fn by_fours(block: &TransposeBlock) {
    // SAFETY: the squares lie inside of what the caller guarantees.
    unsafe { in_squares::<4>(block, |from, to| square4(from, block.line, to, block.width)) }
}

/// Transposes in squares of 8 x 8; of 4 x 4 if there are fewer than eight lines or depths.
///
/// # Safety
/// The contract of [`Kernel::transpose`](super::contract::Kernel::transpose), and the CPU has AVX.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
pub(in crate::cpu) unsafe fn by_eights(block: &TransposeBlock) {
    if block.lines < 8 || block.depths < 8 {
        // SAFETY: the caller keeps the contract.
        return unsafe { by_fours(block) };
    }
    // SAFETY: the squares lie inside of what the caller guarantees; this CPU has AVX.
    unsafe { in_squares::<8>(block, |from, to| square8(from, block.line, to, block.width)) }
}

/// Transposes whole squares of SIDE x SIDE with `square`. The last square of a side may overlap the one before it.
/// What is narrower than a square goes element by element.
///
/// # Safety
/// The contract of [`Kernel::transpose`](super::contract::Kernel::transpose); `square` transposes one square.
#[inline(always)]
unsafe fn in_squares<const SIDE: usize>(block: &TransposeBlock, square: impl Fn(*const f32, *mut f32)) {
    let TransposeBlock { from, line, to, width, lines, depths, more } = *block;
    if lines < SIDE || depths < SIDE {
        // SAFETY: lines and depths stay below the counts that the caller guarantees.
        return unsafe { by_elements(block) };
    }
    let (last_line, last_depth) = (lines - SIDE, depths - SIDE);
    // SAFETY: lines and depths stay below the counts that the caller guarantees.
    unsafe {
        for run in (0..depths).step_by(RUN) {
            let end = depths.min(run + RUN);
            for l in (0..lines).step_by(SIDE) {
                if more {
                    for next in lines + l..lines + lines.min(l + SIDE) {
                        prefetch(from.wrapping_add(next * line + run));
                    }
                }
                let l = l.min(last_line);
                for p in (run..end).step_by(SIDE) {
                    let p = p.min(last_depth);
                    square(from.add(l * line + p), to.add(p * width + l));
                }
            }
        }
    }
}

/// Transposes element by element.
///
/// # Safety
/// The contract of [`Kernel::transpose`](super::contract::Kernel::transpose).
unsafe fn by_elements(block: &TransposeBlock) {
    let TransposeBlock { from, line, to, width, lines, depths, .. } = *block;
    for l in 0..lines {
        for p in 0..depths {
            // SAFETY: `l` and `p` are below the counts that the caller guarantees.
            unsafe { *to.add(p * width + l) = *from.add(l * line + p) };
        }
    }
}

/// Transposes a square of 4 x 4 elements.
///
/// # Safety
/// Its lines are readable, `line` apart, and those it becomes are writable, `width` apart.
#[inline(always)]
unsafe fn square4(from: *const f32, line: usize, to: *mut f32, width: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of the baseline; the caller guarantees the square.
    unsafe {
        use std::arch::x86_64::*;
        let row = |i: usize| _mm_loadu_ps(from.add(i * line));
        let (mut a, mut b, mut c, mut d) = (row(0), row(1), row(2), row(3));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (i, row) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(to.add(i * width), row);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
        // SAFETY: the caller guarantees the square.
        unsafe { *to.add(i * width + j) = *from.add(j * line + i) };
    }
}

/// Transposes a square of 8 x 8 elements. Lines l and l+4 share a register, so the halves of four registers are squares
/// of four.
///
/// # Safety
/// As [`square4`], for eight; the CPU has AVX.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx")]
unsafe fn square8(from: *const f32, line: usize, to: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    for p in [0, 4] {
        // SAFETY: the caller guarantees the square.
        unsafe {
            let pair = |l: usize| {
                let (low, high) = (from.add(l * line + p), from.add((l + 4) * line + p));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high))
            };
            let (a, b, c, d) = (pair(0), pair(1), pair(2), pair(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let to = to.add(p * width);
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(width), _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(2 * width), _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high));
            _mm256_storeu_ps(to.add(3 * width), _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high));
        }
    }
}
