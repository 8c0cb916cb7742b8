//! The inner loops. They compute lines of output, V vectors wide, with all sums in registers, from the padded copy of
//! the input ([`super::band`]), in which a tap is just an offset.
//!
//! ```text
//!  channels: M output channels of a group           rows: one output channel, row after row
//!
//!  band   +--------------+  + offset of the tap     line of the band, stride 1, R = M = 3
//!         | V vectors    |                          u   +--------------+  tap row 0 of output row u
//!         +--------------+                              | V vectors    |  tap row 1 of output row u - 1
//!  every vector is multiplied by M weights              +--------------+  tap row 2 of output row u - 2: complete
//! ```
//!
//! `maps` is `channels` for groups of a single channel: each line has a band of its own. In `rows`, M tap rows see a
//! line, so M output rows are in progress at a time. After each line the last one is complete and stored, and a new
//! one begins.
//!
//! A sum runs over channels, tap rows and tap columns in ascending order in every tile: the bits of an output do not
//! depend on its position in a tile.

use crate::cpu::kernels::vector::{Vector, unrolled};

/// The output lines, and what is applied to them before they are stored.
#[derive(Clone, Copy)]
pub struct Target {
    /// The first line's first element, and the distance of lines.
    pub start: *mut f32,
    pub line: usize,
    /// Elements of a line: more than (V - 1) vectors, at most V.
    pub cols: usize,
    /// The first line's bias, or null. Each channel has its own; rows share one.
    pub bias: *const f32,
    pub relu: bool,
}

/// The operands of output channels.
#[derive(Clone, Copy)]
pub struct Channels<'a> {
    /// The element of the band that the line's first output sees through a tap with offset zero.
    pub band: *const f32,
    /// Offset of each tap.
    pub taps: &'a [usize],
    /// M weights for each tap.
    pub weights: *const f32,
}

/// The operands of the output rows of a channel.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// As [`Channels::band`], for the first output row.
    pub band: *const f32,
    /// Distance of the lines of the band that tap rows see.
    pub line: usize,
    /// The number of these lines from one output row to the next.
    pub step: usize,
    /// Rows of the kernel: more than (M - 1)*step, at most M*step.
    pub r: usize,
    /// Output rows.
    pub count: usize,
    /// Offset of each tap column.
    pub cols: &'a [usize],
    /// For each tap row below `step`, for each tap column: M weights, those of this tap row and of those `step`, 2
    /// `step`, ... below it. Weights of rows that do not exist are arbitrary.
    pub weights: *const f32,
}

/// Computes M channels of one output row, or of a flat map.
///
/// # Safety
/// The CPU has the vectors. For each tap V vectors are readable from its offset in the band; there are M weights for
/// each tap; the target's lines are writable, its biases null or readable.
#[inline(always)]
pub unsafe fn channels<T: Vector, const M: usize, const V: usize>(source: &Channels, target: &Target) {
    // SAFETY: the caller guarantees all memory that is read and written here.
    unsafe {
        let mut sums = [[T::splat(0.0); V]; M];
        let mut weights = source.weights;
        for &tap in source.taps {
            let from = source.band.add(tap);
            let mut values = [T::splat(0.0); V];
            unrolled!(v below V: { values[v] = T::load(from.add(v * T::LANES)) });
            unrolled!(m below M: {
                let weight = T::splat(*weights.add(m));
                unrolled!(v below V: { sums[m][v] = weight.mul_add(values[v], sums[m][v]) });
            });
            weights = weights.add(M);
        }
        store_all::<T, M, V>(&sums, target);
    }
}

/// Computes flat maps of M groups that have one input and one output channel each. The bands of groups are `next`
/// apart.
///
/// # Safety
/// As for [`channels`], for each of the M groups' bands.
#[inline(always)]
pub unsafe fn maps<T: Vector, const M: usize, const V: usize>(
    source: &Channels,
    next: usize,
    target: &Target,
) {
    // SAFETY: the caller guarantees all memory that is read and written here.
    unsafe {
        let mut sums = [[T::splat(0.0); V]; M];
        let mut weights = source.weights;
        for &tap in source.taps {
            let from = source.band.add(tap);
            unrolled!(m below M: {
                let weight = T::splat(*weights.add(m));
                unrolled!(v below V: {
                    sums[m][v] = weight.mul_add(T::load(from.add(m * next + v * T::LANES)), sums[m][v]);
                });
            });
            weights = weights.add(M);
        }
        store_all::<T, M, V>(&sums, target);
    }
}

/// Computes all rows of one output channel that has one input channel.
///
/// # Safety
/// The CPU has the vectors. Of the (count - 1)*step + R lines of the band, V vectors are readable from each tap
/// column's offset; there are M weights for each tap column and tap row below the step; the target's lines are
/// writable, its bias null or readable.
#[inline(always)]
pub unsafe fn rows<T: Vector, const M: usize, const V: usize>(source: &Rows, target: &Target) {
    let Rows { line, step, r, count, cols, .. } = *source;
    let lines = (count - 1) * step + r;
    let (mut band, mut to) = (source.band, target.start);
    // SAFETY: the caller guarantees all memory that is read and written here: lines below `lines`, rows below `count`.
    unsafe {
        let mut sums = [[T::splat(0.0); V]; M];
        for row in 0..count + M - 1 {
            let mut weights = source.weights;
            for tap in 0..step.min(lines - row * step) {
                let whole = tap + (M - 1) * step < r;
                for &col in cols {
                    let from = band.add(col);
                    let mut values = [T::splat(0.0); V];
                    unrolled!(v below V: { values[v] = T::load(from.add(v * T::LANES)) });
                    unrolled!(m below M: {
                        if m + 1 < M || whole {
                            let weight = T::splat(*weights.add(m));
                            unrolled!(v below V: { sums[m][v] = weight.mul_add(values[v], sums[m][v]) });
                        }
                    });
                    weights = weights.add(M);
                }
                band = band.wrapping_add(line);
            }
            if row + 1 >= M {
                store::<T, V>(&sums[M - 1], to, target.bias, target);
                to = to.wrapping_add(target.line);
            }
            let mut moved = [[T::splat(0.0); V]; M];
            unrolled!(m below M: { if m + 1 < M { moved[m + 1] = sums[m] } });
            sums = moved;
        }
    }
}

/// [`store`] for M channels.
///
/// # Safety
/// The target's lines are writable, its biases null or readable.
#[inline(always)]
unsafe fn store_all<T: Vector, const M: usize, const V: usize>(sums: &[[T; V]; M], target: &Target) {
    // SAFETY: the caller guarantees M lines and biases.
    unsafe {
        unrolled!(m below M: {
            let bias = if target.bias.is_null() { target.bias } else { target.bias.add(m) };
            store::<T, V>(&sums[m], target.start.add(m * target.line), bias, target);
        });
    }
}

/// Applies bias and ReLU and stores a line. Nothing past the line's end is touched.
///
/// # Safety
/// The line is writable, its bias null or readable.
#[inline(always)]
unsafe fn store<T: Vector, const V: usize>(sums: &[T; V], line: *mut f32, bias: *const f32, target: &Target) {
    let last = target.cols - (V - 1) * T::LANES;
    // SAFETY: the caller guarantees V - 1 vectors and `last` lanes, and the bias.
    unsafe {
        let mask = T::mask(last);
        unrolled!(v below V: {
            let mut value = sums[v];
            if !bias.is_null() {
                value = value.add(T::splat(*bias));
            }
            if target.relu {
                value = value.relu();
            }
            let to = line.add(v * T::LANES);
            if v + 1 == V && last < T::LANES { value.store_part(to, mask) } else { value.store(to) }
        });
    }
}
