//! Dot products on vectors: every line of one matrix times every line of the other, both contiguous in depth.
//!
//! One side has few lines, so nothing is reused often enough to be packed. The large matrix streams once through the
//! registers. Each lane sums every LANES-th product. At the end the lanes of a sum are added in pairs.

use super::register::{Vector, unrolled};
use crate::cpu::kernels::contract::{DOT_LANES as LANES, Dots, prefetch};
use crate::memory::dot_conv::{PIXELS, ROWS};

/// A vector register for which [`on_vectors`] is instantiated.
pub(in crate::cpu) trait DotVector: Vector {
    /// [`six_by_four`], compiled with the features that it needs.
    ///
    /// # Safety
    /// As [`six_by_four`].
    unsafe fn six_by_four(dots: &Dots, l: usize, v: usize);
}

/// Computes `dots` in blocks of a few lines, which share the loads of the vectors.
///
/// # Safety
/// The contract of [`Kernel::dots`](crate::cpu::kernels::Kernel::dots); the CPU has T.
#[inline(always)]
pub(in crate::cpu) unsafe fn on_vectors<T: DotVector>(dots: &Dots) {
    // SAFETY: lines and vectors stay below the counts that the caller guarantees.
    unsafe {
        // CPUs with wide registers have many of them: six lines by four vectors at a time.
        let many = T::LANES == LANES && dots.lines >= ROWS;
        let wide = if many { dots.vectors / PIXELS * PIXELS } else { 0 };
        let done = dots.lines / ROWS * ROWS;
        for v in (0..wide).step_by(PIXELS) {
            (0..done).step_by(ROWS).for_each(|l| T::six_by_four(dots, l, v));
        }
        for v in (0..dots.vectors).step_by(2) {
            let pair = dots.vectors - v > 1;
            let mut l = if v < wide { done } else { 0 };
            while dots.lines - l >= 4 {
                match (pair, T::LANES == LANES) {
                    (false, _) => block::<T, 4, 1>(dots, l, v),
                    (true, true) => block::<T, 4, 2>(dots, l, v),
                    // CPUs with narrow registers have few: eight sums fill them.
                    (true, false) => {
                        block::<T, 2, 2>(dots, l, v);
                        block::<T, 2, 2>(dots, l + 2, v);
                    }
                }
                l += 4;
            }
            for l in l..dots.lines {
                if pair { block::<T, 1, 2>(dots, l, v) } else { block::<T, 1, 1>(dots, l, v) }
            }
        }
    }
}

/// Six lines times four vectors, in registers of LANES lanes. Each block of four vectors prefetches two of the next
/// lines.
///
/// # Safety
/// As [`on_vectors`]; six lines from `l` and four vectors from `v` exist.
#[inline(always)]
pub(in crate::cpu) unsafe fn six_by_four<T: Vector>(dots: &Dots, l: usize, v: usize) {
    const L: usize = ROWS;
    const V: usize = PIXELS;
    // SAFETY: as in block(); prefetches may point anywhere.
    unsafe {
        let (a, b) = (dots.a.add(l * dots.line), dots.b.add(v * dots.vector));
        let ahead = |of: usize| {
            let line = (v / V * 2 + of) % L;
            if dots.next.is_null() { a } else { dots.next.wrapping_add((l + line) * dots.line) }
        };
        let next = [ahead(0), ahead(1)];
        let mut sums = [[T::splat(0.0); V]; L];
        let (mut p, mut at) = (0, 0);
        // Masks are free here, and a second loop for the remainder would cost registers.
        while p < dots.depth {
            let mask = T::mask(LANES.min(dots.depth - p));
            let mut values = [T::splat(0.0); V];
            unrolled!(x below V: { values[x] = T::load_part(b.add(x * dots.vector + p), mask) });
            unrolled!(i below L: {
                let row = T::load_part(a.add(i * dots.line + at), mask);
                unrolled!(x below V: { sums[i][x] = row.mul_add(values[x], sums[i][x]) });
            });
            prefetch(next[0].wrapping_add(at));
            prefetch(next[1].wrapping_add(at));
            (p, at) = (p + LANES, at + dots.step);
        }
        if dots.c_vector == 1 && dots.alpha == 1.0 && dots.beta == 0.0 {
            let to = dots.c.add(l * dots.c_line + v);
            unrolled!(i below L: {
                to.add(i * dots.c_line).cast::<[f32; V]>().write_unaligned(T::sums(sums[i]));
            });
            return;
        }
        unrolled!(i below L: {
            for (x, sum) in T::sums(sums[i]).into_iter().enumerate() {
                dots.put(sum, l + i, v + x);
            }
        });
    }
}

/// L lines times V vectors.
///
/// # Safety
/// As [`on_vectors`]; L lines from `l` and V vectors from `v` exist.
#[inline(always)]
unsafe fn block<T: Vector, const L: usize, const V: usize>(dots: &Dots, l: usize, v: usize) {
    let parts = const { LANES / T::LANES };
    // SAFETY: whole vectors end before `depth`, and masks leave out what lies after it.
    unsafe {
        let (a, b) = (dots.a.add(l * dots.line), dots.b.add(v * dots.vector));
        // One or two registers for each sum: a sum has LANES lanes, however wide T is.
        let mut sums = [[[T::splat(0.0); 2]; V]; L];
        let mut p = 0;
        while p + LANES <= dots.depth {
            unrolled!(part below TWO: {
                if part < parts {
                    let at = p + part * T::LANES;
                    let mut values = [T::splat(0.0); V];
                    unrolled!(x below V: { values[x] = T::load(b.add(x * dots.vector + at)) });
                    unrolled!(i below L: {
                        let row = T::load(a.add(i * dots.line + p / LANES * dots.step + part * T::LANES));
                        unrolled!(x below V: { sums[i][x][part] = row.mul_add(values[x], sums[i][x][part]) });
                    });
                }
            });
            p += LANES;
        }
        if p < dots.depth {
            unrolled!(part below TWO: {
                let at = p + part * T::LANES;
                if part < parts && at < dots.depth {
                    let mask = T::mask(T::LANES.min(dots.depth - at));
                    unrolled!(i below L: {
                        let from = a.add(i * dots.line + p / LANES * dots.step + part * T::LANES);
                        let row = T::load_part(from, mask);
                        unrolled!(x below V: {
                            let value = T::load_part(b.add(x * dots.vector + at), mask);
                            sums[i][x][part] = row.mul_add(value, sums[i][x][part]);
                        });
                    });
                }
            });
        }
        for (i, vectors) in sums.iter().enumerate() {
            for (x, chains) in vectors.iter().enumerate() {
                let mut lanes = [0.0; LANES];
                for (part, sum) in chains.iter().enumerate().take(parts) {
                    sum.store(lanes.as_mut_ptr().add(part * T::LANES));
                }
                dots.finish(lanes, l + i, v + x);
            }
        }
    }
}

/// Maximum registers that the lanes of a sum take.
const TWO: usize = 2;
