//! The two inner loops. Both compute M lines of output, V vectors wide, all sums in registers, straight from the
//! padded copy of the input ([`super::band`]): there a tap is nothing but an offset.
//!
//! ```text
//!  channels: M output channels of one group         rows: M output rows of one channel
//!
//!  band   +--------------+  + offset of the tap     band  line u  +--------------+  u is tap row u of output row 0,
//!         | V vectors    |                                        | V vectors    |  u - step of output row 1, ...
//!         +--------------+                                        +--------------+
//!  every vector loaded meets M weights              a vector loaded meets as many weights as tap rows see it
//! ```
//!
//! A sum runs over channels, tap rows and tap columns upwards, whatever the tile: the bits of an output do not
//! depend on where in a tile it stands.

use crate::cpu::kernels::vector::{Vector, unrolled};

/// Where lines of output go, and what is done to them on the way.
#[derive(Clone, Copy)]
pub struct Target {
    /// The first line's first element, and the distance of lines.
    pub start: *mut f32,
    pub line: usize,
    /// Elements of a line: more than (V - 1) vectors, at most V.
    pub cols: usize,
    /// The first line's bias or null, and the distance to the next line's.
    pub bias: *const f32,
    pub bias_step: usize,
    pub relu: bool,
}

/// What output channels are computed from.
#[derive(Clone, Copy)]
pub struct Channels<'a> {
    /// The element of the band under the line's first output for a tap with offset zero.
    pub band: *const f32,
    /// Offset of each tap.
    pub taps: &'a [usize],
    /// M weights for each tap.
    pub weights: *const f32,
}

/// What output rows of a channel are computed from.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// As above, for the first output row.
    pub band: *const f32,
    /// Distance of the lines of the band that tap rows see.
    pub line: usize,
    /// From one output row to the next, this many of these lines.
    pub step: usize,
    /// Rows of the kernel.
    pub r: usize,
    /// Offset of each tap column.
    pub cols: &'a [usize],
    /// R x S weights.
    pub weights: *const f32,
}

/// M channels of one output row, or of a flat map.
///
/// # Safety
/// The CPU has the vectors. For each tap V vectors are readable behind its offset in the band; there are M weights a
/// tap; the target's lines are writable, its biases null or readable.
#[inline(always)]
pub unsafe fn channels<T: Vector, const M: usize, const V: usize>(source: &Channels, target: &Target) {
    // SAFETY: the caller vouches for what is read and written here.
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
        store::<T, M, V>(&sums, target);
    }
}

/// M rows of one output channel that has one input channel.
///
/// # Safety
/// The CPU has the vectors. Of the (M - 1)*step + R lines of the band, V vectors are readable behind each tap
/// column's offset; there are as many weights as taps; the target's lines are writable, its biases null or readable.
#[inline(always)]
pub unsafe fn rows<T: Vector, const M: usize, const V: usize>(source: &Rows, target: &Target) {
    let Rows { line, step, r, cols, .. } = *source;
    let taps = cols.len();
    // SAFETY: the caller vouches for what is read and written here; a weight is read only of a tap row below R.
    unsafe {
        let mut sums = [[T::splat(0.0); V]; M];
        let (mut band, mut weights) = (source.band, source.weights);
        for u in 0..(M - 1) * step + r {
            for (s, &col) in cols.iter().enumerate() {
                let from = band.add(col);
                let mut values = [T::splat(0.0); V];
                unrolled!(v below V: { values[v] = T::load(from.add(v * T::LANES)) });
                unrolled!(m below M: {
                    if u.wrapping_sub(m * step) < r {
                        let weight = T::splat(*weights.wrapping_sub(m * step * taps).add(s));
                        unrolled!(v below V: { sums[m][v] = weight.mul_add(values[v], sums[m][v]) });
                    }
                });
            }
            band = band.wrapping_add(line);
            weights = weights.wrapping_add(taps);
        }
        store::<T, M, V>(&sums, target);
    }
}

/// Bias, ReLU, and into the output, where nothing beyond a line's end is touched.
///
/// # Safety
/// The target's lines are writable, its biases null or readable.
#[inline(always)]
unsafe fn store<T: Vector, const M: usize, const V: usize>(sums: &[[T; V]; M], target: &Target) {
    let last = target.cols - (V - 1) * T::LANES;
    // SAFETY: the caller vouches for M lines of V - 1 vectors and `last` lanes, and for M biases.
    unsafe {
        let mask = T::mask(last);
        unrolled!(m below M: {
            let line = target.start.add(m * target.line);
            let bias = if target.bias.is_null() { 0.0 } else { *target.bias.add(m * target.bias_step) };
            unrolled!(v below V: {
                let mut value = sums[m][v];
                if !target.bias.is_null() {
                    value = value.add(T::splat(bias));
                }
                if target.relu {
                    value = value.relu();
                }
                let to = line.add(v * T::LANES);
                if v + 1 == V && last < T::LANES { value.store_part(to, mask) } else { value.store(to) }
            });
        });
    }
}
