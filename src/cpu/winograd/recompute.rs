//! Outputs that are not finite, computed once more by the definition.
//!
//! The transforms add values up that the definition keeps apart, so inputs of 1e36 can overflow on the frequency side
//! where the convolution itself is finite; and a NaN or an infinity there reaches outputs whose kernel does not see it.
//! Either way the outputs that it reaches are not finite. An output depends on a transformed value exactly if its
//! coefficient in the output transform is not zero, and such a term is infinite or NaN for good: adding anything to it
//! gives an infinity or NaN. And an output that by the definition is not finite depends on an input or weight that is not,
//! or on a sum that overflows: as a polynomial in inputs and weights it is the same whichever way it is computed, so
//! some path through the transforms leads from there to the output. So the outputs to be mended are among those that are
//! not finite before bias and ReLU: the tiles of these are computed by the definition.

use std::ops::Range;

use super::geometry::Segment;
use super::output_job::OutputJob;

/// Pixels and channels that are computed at a time: as many sums as registers hold.
const PIXELS: usize = 32;
pub const CHANNELS: usize = 4;

/// Computes columns `columns` of a segment's rows, `m` of them, in lanes `lanes` of the job's output channels, at most
/// [`CHANNELS`]. Only those outputs are written whose lane and column are `wanted`.
///
/// # Safety
/// These outputs are writable, by nobody else meanwhile.
#[inline(always)]
pub unsafe fn by_definition(
    job: &OutputJob,
    segment: &Segment,
    (lanes, m): (Range<usize>, usize),
    columns: Range<usize>,
    wanted: impl Fn(usize, usize) -> bool,
) {
    let sizes = &job.geometry.sizes;
    let top = segment.row * m;
    for p in top..sizes.p.min(top + m) {
        for q in columns.clone().step_by(PIXELS) {
            let some = q..columns.end.min(q + PIXELS);
            let sums = sums(job, segment.image, &lanes, (p, some.clone()));
            for (lane, sums) in lanes.clone().zip(&sums) {
                let k = job.channels.first + lane;
                for (q, sum) in some.clone().zip(sums).filter(|&(q, _)| wanted(lane, q)) {
                    let value = sum + job.bias[lane];
                    // Not max(), which would turn NaN into 0.
                    let value = if job.relu && value < 0.0 { 0.0 } else { value };
                    let at = ((segment.image * sizes.k + k) * sizes.p + p) * sizes.q + q;
                    // SAFETY: an output of the segment.
                    unsafe { job.output.add(at).write(value) };
                }
            }
        }
    }
}

/// The sums of outputs `columns` of row `p`. Padding is zeros, which are multiplied like any other value.
#[inline(always)]
fn sums(
    job: &OutputJob,
    image: usize,
    lanes: &Range<usize>,
    (p, columns): (usize, Range<usize>),
) -> [[f32; PIXELS]; CHANNELS] {
    let sizes = &job.geometry.sizes;
    let (channels, first) = (sizes.c / sizes.groups, job.channels.first + lanes.start);
    let group = first / (sizes.k / sizes.groups);
    let weights = &job.weights[first * channels * 9..][..lanes.len() * channels * 9];
    let mut sums = [[0.0f32; PIXELS]; CHANNELS];
    // Columns of the padded image that these outputs see and that are the image's.
    let inside = columns.start.max(sizes.pad_w)..(columns.end + 2).min(sizes.pad_w + sizes.w);
    for c in 0..channels {
        let plane = (image * sizes.c + group * channels + c) * sizes.h * sizes.w;
        for r in 0..3 {
            let mut line = [0.0f32; PIXELS + 2];
            let row = (p + r).checked_sub(sizes.pad_h).filter(|&y| y < sizes.h);
            if let Some(y) = row.filter(|_| !inside.is_empty()) {
                let from = &job.input[plane + y * sizes.w + inside.start - sizes.pad_w..][..inside.len()];
                line[inside.start - columns.start..][..inside.len()].copy_from_slice(from);
            }
            for s in 0..3 {
                for (channel, sums) in sums.iter_mut().enumerate() {
                    let tap = weights.get((channel * channels + c) * 9 + 3 * r + s).copied().unwrap_or(0.0);
                    for (x, sum) in sums.iter_mut().enumerate() {
                        *sum = line[x + s].mul_add(tap, *sum);
                    }
                }
            }
        }
    }
    sums
}
