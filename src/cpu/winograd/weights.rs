//! G g G^T: the weight transform.
//!
//! ```text
//! weights [k][c][3][3]      taps               U, panels of two vectors of output channels
//! LANES rows of       --->  [c][tap][16 k]  ---> [f][panel][c][2 x 16 k]
//! 9 LANES elements              whole vectors of output channels
//!        9 transposes
//! ```
//!
//! The kernels of neighbouring input channels are contiguous in memory, so LANES of them are 9 vectors. Transposing
//! these for LANES output channels brings each tap of each input channel into a vector of its own.

use std::ops::Range;

use super::form::{Form, MAX_ALPHA};
use super::product::PANEL;
use super::vector::{MAX_LANES, Vector, fence};
use crate::cpu::kernels::vector::unrolled;

/// Taps of a kernel.
const TAPS: usize = 9;

/// Some input channels of one panel's output channels.
pub struct WeightsJob<'a> {
    /// K x C x 3 x 3.
    pub weights: &'a [f32],
    /// C and K.
    pub channels: (usize, usize),
    /// The panel's vectors of output channels.
    pub blocks: Range<usize>,
    /// Input channels, starting at a multiple of LANES.
    pub depths: Range<usize>,
    /// The place of the first input channel in the panel of the first frequency; aligned to a vector.
    pub u: *mut f32,
    /// The distance between frequencies.
    pub plane: usize,
    /// Whether to store U past the caches.
    pub stream: bool,
}

/// Transforms the weights of a job. Lanes beyond the last output channel become zero.
///
/// # Safety
/// The CPU has V. U is writable for the job's panels in all frequencies, and only this call writes them.
#[inline(always)]
pub unsafe fn transform<V: Vector, F: Form>(job: &WeightsJob) {
    // SAFETY: the caller keeps the contract.
    unsafe {
        if job.stream {
            transform_to::<V, F, true>(job);
            fence();
        } else {
            transform_to::<V, F, false>(job);
        }
    }
}

/// [`transform`], with stores past the caches if STREAM.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn transform_to<V: Vector, F: Form, const STREAM: bool>(job: &WeightsJob) {
    let vectors = job.blocks.len();
    debug_assert!(vectors <= PANEL);
    // SAFETY: the caller vouches for the CPU.
    let mut taps = [unsafe { V::splat(0.0) }; TAPS * MAX_LANES];
    for (within, block) in job.blocks.clone().enumerate() {
        for first in job.depths.clone().step_by(V::LANES) {
            let count = V::LANES.min(job.depths.end - first);
            // SAFETY: the caller vouches for the CPU.
            unsafe { gather(job, block, first..first + count, &mut taps) };
            for (i, kernel) in taps.chunks_exact(TAPS).enumerate().take(count) {
                let at = ((first - job.depths.start + i) * vectors + within) * V::LANES;
                // SAFETY: the job may write the vector of this channel and block in each frequency.
                unsafe { kernel_to_frequencies::<V, F, STREAM>(kernel, job.u.add(at), job.plane) };
            }
        }
    }
}

/// Brings the taps of some input channels into vectors of output channels.
///
/// # Safety
/// The CPU has V.
#[inline(always)]
unsafe fn gather<V: Vector>(
    job: &WeightsJob,
    block: usize,
    depths: Range<usize>,
    taps: &mut [V; TAPS * MAX_LANES],
) {
    let (c, k) = job.channels;
    let present = V::LANES.min(k - block * V::LANES);
    let (row, len) = (c * TAPS, TAPS * depths.len());
    let from = &job.weights[(block * V::LANES * c + depths.start) * TAPS..];
    assert!(from.len() >= (present - 1) * row + len);
    for at in (0..len).step_by(V::LANES) {
        let count = V::LANES.min(len - at);
        let to = taps[at..at + V::LANES].as_mut_ptr();
        // SAFETY: the weights hold `len` elements of each of the `present` rows, as asserted, and there is room for
        // LANES taps.
        unsafe {
            let from = from.as_ptr().add(at);
            if present == V::LANES && count == V::LANES {
                square(from, row, to);
            } else {
                part_of_square(from, row, (present, count), to);
            }
        }
    }
}

/// Transposes LANES rows of LANES elements, `row` apart. No load depends on a condition, because gathering takes much
/// of the time of a small form.
///
/// # Safety
/// The CPU has V. All elements are readable, and LANES vectors are writable.
#[inline(always)]
unsafe fn square<V: Vector>(from: *const f32, row: usize, to: *mut V) {
    // SAFETY: the caller vouches for the CPU, the rows and the columns.
    unsafe {
        let mut rows = [V::splat(0.0); MAX_LANES];
        for (lane, to) in rows[..V::LANES].iter_mut().enumerate() {
            *to = V::load(from.add(lane * row));
        }
        let columns = V::transpose(rows);
        for (lane, &column) in columns[..V::LANES].iter().enumerate() {
            to.add(lane).write(column);
        }
    }
}

/// [`square`] of the first `count` elements of the first `present` rows, with zeros elsewhere.
///
/// # Safety
/// The CPU has V. These elements are readable, and LANES vectors are writable.
#[inline(always)]
unsafe fn part_of_square<V: Vector>(
    from: *const f32,
    row: usize,
    (present, count): (usize, usize),
    to: *mut V,
) {
    let mut elements = [0.0; MAX_LANES * MAX_LANES];
    for (lane, to) in elements.chunks_exact_mut(MAX_LANES).enumerate().take(present) {
        // SAFETY: the caller vouches for these elements.
        to[..count].copy_from_slice(unsafe { std::slice::from_raw_parts(from.add(lane * row), count) });
    }
    // SAFETY: the caller vouches for the CPU and the columns; there are as many elements.
    unsafe { square(elements.as_ptr(), MAX_LANES, to) }
}

/// G g G^T of a vector of kernels. Frequencies are `plane` apart.
///
/// # Safety
/// All frequencies are writable, and aligned if they are streamed.
#[inline(always)]
unsafe fn kernel_to_frequencies<V: Vector, F: Form, const STREAM: bool>(
    kernel: &[V],
    to: *mut f32,
    plane: usize,
) {
    let [a, b, c] = [0, 1, 2].map(|s| [kernel[s], kernel[3 + s], kernel[6 + s]]);
    let (left, middle, right) = (F::weights(a), F::weights(b), F::weights(c));
    let alpha = F::ALPHA;
    unrolled!(fy below MAX_ALPHA: {
        if fy < alpha {
            let row = F::weights([left[fy], middle[fy], right[fy]]);
            unrolled!(fx below MAX_ALPHA: {
                if fx < alpha {
                    // SAFETY: as the caller promises.
                    unsafe {
                        let to = to.add((fy * alpha + fx) * plane);
                        if STREAM { row[fx].stream(to) } else { row[fx].store(to) }
                    }
                }
            });
        }
    });
}
