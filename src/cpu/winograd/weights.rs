//! G g G^T: the weight transform.
//!
//! ```text
//! weights [k][c][3][3]      taps               U, panels of two vectors of output channels
//! LANES rows of       --->  [c][tap][16 k]  ---> [f][panel][c][2 x 16 k]
//! 9 LANES elements              whole vectors of output channels
//!        9 transposes
//! ```
//!
//! The kernels of neighbouring input channels follow each other in memory, so that LANES of them are 9 vectors, and
//! transposing these for LANES output channels brings each tap of each into a vector of its own.

use std::ops::Range;

use super::form::{Form, MAX_ALPHA};
use super::product::PANEL;
use super::vector::{MAX_LANES, Vector, fence};

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
    /// Input channels, from a multiple of LANES on.
    pub depths: Range<usize>,
    /// Where the first input channel goes in the panel of the first frequency; aligned to a vector.
    pub u: *mut f32,
    /// From one frequency to the next.
    pub plane: usize,
    /// Whether U is not to fill the caches.
    pub stream: bool,
}

/// Transforms the weights of a job; lanes of output channels that do not exist become zero.
///
/// # Safety
/// The CPU has V. U is writable for all of the job's panels and frequencies, by nobody else meanwhile.
#[inline(always)]
pub unsafe fn transform<V: Vector, F: Form>(job: &WeightsJob) {
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
                // SAFETY: the vector of this channel and block, in each frequency, is the job's.
                unsafe { kernel_to_frequencies::<V, F>(kernel, job.u.add(at), job.plane, job.stream) };
            }
        }
    }
    if job.stream {
        fence();
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
    let len = TAPS * depths.len();
    let from = &job.weights[(block * V::LANES * c + depths.start) * TAPS..];
    assert!(from.len() >= (present - 1) * c * TAPS + len);
    for at in (0..len).step_by(V::LANES) {
        let count = V::LANES.min(len - at);
        // SAFETY: `len` elements of each of the `present` rows are among the weights, as asserted.
        let columns = unsafe {
            let mut rows = [V::splat(0.0); MAX_LANES];
            for (lane, row) in rows.iter_mut().enumerate().take(V::LANES) {
                if lane < present {
                    let from = from.as_ptr().add(lane * c * TAPS + at);
                    *row = if count == V::LANES { V::load(from) } else { V::load_part(from, count) };
                }
            }
            V::transpose(rows)
        };
        taps[at..at + V::LANES].copy_from_slice(&columns[..V::LANES]);
    }
}

/// G g G^T of a vector of kernels, its frequencies `plane` apart.
///
/// # Safety
/// All frequencies are writable, and aligned if they are streamed.
#[inline(always)]
unsafe fn kernel_to_frequencies<V: Vector, F: Form>(kernel: &[V], to: *mut f32, plane: usize, stream: bool) {
    let columns: [[V; MAX_ALPHA]; 3] =
        std::array::from_fn(|s| F::weights([kernel[s], kernel[3 + s], kernel[6 + s]]));
    let [left, middle, right] = columns;
    for (fy, ((a, b), c)) in left.into_iter().zip(middle).zip(right).enumerate().take(F::ALPHA) {
        let row = F::weights([a, b, c]);
        for (fx, value) in row.into_iter().enumerate().take(F::ALPHA) {
            // SAFETY: as the caller promises.
            unsafe {
                let to = to.add((fy * F::ALPHA + fx) * plane);
                if stream { value.stream(to) } else { value.store(to) }
            }
        }
    }
}
