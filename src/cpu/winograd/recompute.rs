//! Recomputes outputs that are not finite by the definition.
//!
//! The transforms add values that the definition keeps apart. So inputs of 1e36 can overflow on the frequency side
//! while the convolution itself is finite, and a NaN or an infinity reaches outputs whose kernels do not see it.
//!
//! All wrong outputs are among those that are not finite before bias and ReLU; the tiles of these are recomputed:
//!
//! * An output depends on a transformed value exactly if its coefficient in the output transform is not zero. A term
//!   that is infinite or NaN stays so, whatever is added to it.
//! * An output that is not finite by the definition depends on an input or weight that is not finite, or on a sum that
//!   overflows. As a polynomial in inputs and weights, the output is the same in both algorithms. So some path through
//!   the transforms leads from there to the output.

use std::ops::Range;

use super::geometry::Segment;
use super::output_job::OutputJob;

/// Pixels that are computed at a time. With the channels, as many sums as registers hold.
const PIXELS: usize = 32;
/// The most channels that are computed at a time.
pub const MAX_CHANNELS: usize = 4;

/// Computes `columns` of the `m` rows of a segment, in `lanes` of the job's output channels, of which there are at most
/// [`MAX_CHANNELS`]. Writes only outputs whose lane and column are `wanted`.
///
/// # Safety
/// These outputs are writable, and only this call writes them.
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
                    // max() would turn NaN into 0.
                    let value = if job.relu && value < 0.0 { 0.0 } else { value };
                    let at = sizes.output_strides().at(segment.image, k, p, q);
                    // SAFETY: this is an output of the segment.
                    unsafe { job.output.add(at).write(value) };
                }
            }
        }
    }
}

/// The sums of the outputs in `columns` of row `p`. The zeros of the padding are multiplied like any other value.
#[inline(always)]
fn sums(
    job: &OutputJob,
    image: usize,
    lanes: &Range<usize>,
    (p, columns): (usize, Range<usize>),
) -> [[f32; PIXELS]; MAX_CHANNELS] {
    let sizes = &job.geometry.sizes;
    let (channels, first) = (sizes.c / sizes.groups, job.channels.first + lanes.start);
    let group = first / (sizes.k / sizes.groups);
    let weights = &job.weights[first * channels * 9..][..lanes.len() * channels * 9];
    let mut sums = [[0.0f32; PIXELS]; MAX_CHANNELS];
    // Columns of the padded image that these outputs see and that are in the image.
    let inside = columns.start.max(sizes.pad_w)..(columns.end + 2).min(sizes.pad_w + sizes.w);
    for c in 0..channels {
        let strides = sizes.input_strides();
        for r in 0..3 {
            let mut line = [0.0f32; PIXELS + 2];
            let row = (p + r).checked_sub(sizes.pad_h).filter(|&y| y < sizes.h);
            if let Some(y) = row.filter(|_| !inside.is_empty()) {
                let at = strides.at(image, group * channels + c, y, inside.start - sizes.pad_w);
                let from = job.input[at..].iter().step_by(strides.column);
                let to = &mut line[inside.start - columns.start..][..inside.len()];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
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
