//! Products with one side of a few lines only: every line of one matrix times every line of the other, both
//! contiguous in depth.
//!
//! Nothing is reused often enough to be packed: the large matrix streams once through the registers, each of
//! whose lanes sums every LANES-th product. At the end the lanes of a sum are added in pairs.

use super::vector::{Vector, unrolled};
use crate::memory::deep::{PIXELS, ROWS};

/// C(l, v) = alpha sum(l, v) + beta C(l, v), where sum(l, v) is the sum over p below `depth` of `a[l*line + p/LANES*step +
/// p%LANES] * b[v*vector + p]`, and C(l, v) is at `c + l*c_line + v*c_vector`.
#[derive(Clone, Copy)]
pub struct Dots {
    pub a: *const f32,
    pub line: usize,
    /// From every [`LANES`] depths of a line to the next: LANES themselves where lines are contiguous in depth. Lines that are not
    /// have whole LANES.
    pub step: usize,
    pub lines: usize,
    /// As many lines that will be wanted next, or null: they are prefetched.
    pub next: *const f32,
    pub b: *const f32,
    pub vector: usize,
    pub vectors: usize,
    pub depth: usize,
    pub c: *mut f32,
    pub c_line: usize,
    pub c_vector: usize,
    pub alpha: f32,
    /// Zero means that C is not read.
    pub beta: f32,
}

/// Lanes of a sum, whatever the CPU's registers hold.
pub const LANES: usize = 16;

impl Dots {
    /// Finishes the sum of line `l` and vector `v`, which is in lanes.
    ///
    /// # Safety
    /// There are that many; C is writable there, and initialised if beta is not zero.
    #[inline(always)]
    unsafe fn finish(&self, mut lanes: [f32; LANES], l: usize, v: usize) {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        // SAFETY: the caller vouches for this element.
        unsafe { self.put(lanes[0], l, v) }
    }

    /// What becomes of the sum of line `l` and vector `v`.
    ///
    /// # Safety
    /// As [`Dots::finish`].
    #[inline(always)]
    unsafe fn put(&self, sum: f32, l: usize, v: usize) {
        // SAFETY: the caller vouches for this element.
        unsafe {
            let to = self.c.add(l * self.c_line + v * self.c_vector);
            let sum = self.alpha * sum;
            *to = if self.beta == 0.0 { sum } else { sum + self.beta * *to };
        }
    }
}

/// One element after the other, in loops that the compiler turns into vector code.
///
/// # Safety
/// The contract of [`Kernel::dots`](super::Kernel::dots).
pub(super) unsafe fn plain(dots: &Dots) {
    for (l, v) in (0..dots.lines).flat_map(|l| (0..dots.vectors).map(move |v| (l, v))) {
        // SAFETY: the caller vouches for these lines and this element.
        unsafe {
            let a = dots.a.add(l * dots.line);
            let b = std::slice::from_raw_parts(dots.b.add(v * dots.vector), dots.depth);
            let mut lanes = [0.0f32; LANES];
            for (index, b) in b.chunks(LANES).enumerate() {
                let a = std::slice::from_raw_parts(a.add(index * dots.step), b.len());
                for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                    *lane += a * b;
                }
            }
            dots.finish(lanes, l, v);
        }
    }
}

/// On vectors of T: blocks of eight lines or fewer, which share the loads of the vectors.
///
/// # Safety
/// The contract of [`Kernel::dots`](super::Kernel::dots); the CPU has T.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) unsafe fn on_vectors<T: Vector>(dots: &Dots) {
    // SAFETY: lines and vectors stay below those that the caller vouches for.
    unsafe {
        // Wide registers are many: four vectors of six lines at a time.
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
                    // Narrow registers are as few: eight sums fill them.
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

/// Six lines times four vectors, in registers as wide as the lanes of a sum. Each four vectors fetch two of the lines that are
/// wanted next.
///
/// # Safety
/// As [`on_vectors`]; there are that many from `l` and `v` on.
#[inline(always)]
pub(super) unsafe fn six_by_four<T: Vector>(dots: &Dots, l: usize, v: usize) {
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
        // Masks are free, and a second loop for the end would cost registers.
        while p < dots.depth {
            let mask = T::mask(LANES.min(dots.depth - p));
            let mut values = [T::splat(0.0); V];
            unrolled!(x below V: { values[x] = T::load_part(b.add(x * dots.vector + p), mask) });
            unrolled!(i below L: {
                let row = T::load_part(a.add(i * dots.line + at), mask);
                unrolled!(x below V: { sums[i][x] = row.mul_add(values[x], sums[i][x]) });
            });
            super::prefetch(next[0].wrapping_add(at));
            super::prefetch(next[1].wrapping_add(at));
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
/// As [`on_vectors`]; there are that many from `l` and `v` on.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn block<T: Vector, const L: usize, const V: usize>(dots: &Dots, l: usize, v: usize) {
    let parts = const { LANES / T::LANES };
    // SAFETY: whole vectors end before `depth`, and masks leave out what lies behind it.
    unsafe {
        let (a, b) = (dots.a.add(l * dots.line), dots.b.add(v * dots.vector));
        // Two chains for every register's worth of lanes: the lanes of a sum are LANES, however wide T is.
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

/// The most registers that the lanes of a sum take.
#[cfg(target_arch = "x86_64")]
const TWO: usize = 2;

#[cfg(test)]
mod tests {
    use super::super::Kernel;
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::problem::exact::Random;

    fn check<K: Kernel>(kernel: K, (lines, vectors, depth, packed): (usize, usize, usize, bool), beta: f32) {
        let mut random = Random::new(depth as u64);
        let vector = depth + 1;
        // Contiguous in depth, and lines side by side.
        let (line, step) = if packed { (LANES, lines * LANES) } else { (depth + 3, LANES) };
        let at = |l: usize, p: usize| l * line + p / LANES * step + p % LANES;
        // Exactly as long as the contract says.
        let a = random.integers(at(lines - 1, depth - 1) + 1, 8);
        let b = random.integers((vectors - 1) * vector + depth, 8);
        let c_line = vectors + 2;
        let old =
            if beta == 0.0 { vec![f32::NAN; lines * c_line] } else { random.integers(lines * c_line, 8) };
        let mut c = old.clone();
        let dots = Dots {
            a: a.as_ptr(),
            line,
            step,
            lines,
            b: b.as_ptr(),
            vector,
            vectors,
            depth,
            c: c.as_mut_ptr(),
            c_line,
            c_vector: 1,
            next: a.as_ptr(),
            alpha: 2.0,
            beta,
        };
        // SAFETY: the matrices have the lengths the contract asks for.
        unsafe { kernel.dots(&dots) };
        for (index, &got) in c.iter().enumerate() {
            let (l, v) = (index / c_line, index % c_line);
            if v >= vectors {
                assert_eq!(got.to_bits(), old[index].to_bits(), "a gap");
                continue;
            }
            let sum: f32 = (0..depth).map(|p| a[at(l, p)] * b[v * vector + p]).sum();
            let expected = 2.0 * sum + if beta == 0.0 { 0.0 } else { beta * old[index] };
            assert_eq!(got, expected, "{} {lines}x{vectors}x{depth} at {l}, {v}", K::SGEMM);
        }
    }

    #[test]
    fn every_kernel_adds_up_lines_and_touches_nothing_else() {
        let mut cases = 0;
        for isa in Isa::all() {
            for (lines, vectors) in (1..14).flat_map(|lines| (1..10).map(move |vectors| (lines, vectors))) {
                for depth in [1, 7, 8, 15, 16, 17, 31, 33, 100] {
                    for packed in [false, true] {
                        let shape = (lines, vectors, depth, packed);
                        with_kernel!(isa, kernel => check(kernel, shape, (depth % 2) as f32));
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 0);
    }
}
