//! B^T d B: the input transform.
//!
//! ```text
//! image rows        ring: alpha rows        strip: B^T down       V: B^T across
//! [c][y][x]   --->  [y][x][16 c]      --->  [fy][x][16 c]   --->  [fy][fx][tile][16 c]
//!           16 x 16          whole vectors             whole vectors
//!         transposes          of channels               of channels
//! ```
//!
//! Neighbouring tiles share two rows and two columns. A row is transposed once for all tile rows that need it. The pass
//! down runs over columns of the image, not of tiles, so only the pass across processes an element more than once.

use std::ops::Range;

use super::form::{Form, MAX_ALPHA};
use super::geometry::{Channels, Geometry, Planes, Segment};
use super::vector::{MAX_LANES, Vector};
use crate::problem::TensorLayout;

/// Some tiles in one vector of channels.
pub struct InputJob<'a> {
    pub geometry: &'a Geometry,
    /// All images.
    pub input: &'a [f32],
    /// The tiles.
    pub tiles: Range<usize>,
    /// The first tile of their block.
    pub first: usize,
    pub channels: Channels,
    /// V of the block of tiles.
    pub v: *mut f32,
    pub planes: Planes,
}

/// Elements of scratch memory for segments of at most `tiles` tiles.
pub fn scratch_len<F: Form>(tiles: usize, lanes: usize) -> usize {
    2 * F::ALPHA * columns::<F>(tiles) * lanes
}

/// Input columns of `tiles` adjacent tiles.
fn columns<F: Form>(tiles: usize) -> usize {
    tiles * F::M + 2
}

/// Transforms the tiles of a job.
///
/// # Safety
/// The CPU has V. `v` is writable for the job's tiles in its vector of channels, and only this call writes them.
/// `scratch` is long enough for the longest segment.
#[inline(always)]
pub unsafe fn transform<V: Vector, F: Form>(job: &InputJob, scratch: &mut [f32]) {
    let half = scratch.len() / 2;
    let (ring, strip) = scratch.split_at_mut(half);
    let mut kept: Option<Segment> = None;
    for segment in job.geometry.segments(job.tiles.clone(), job.first) {
        let width = columns::<F>(segment.tiles.len());
        assert!(F::ALPHA * width * V::LANES <= half);
        // The ring still holds the last rows of the tile row above, if that has the same columns.
        let below = kept.is_some_and(|above| {
            above.image == segment.image && above.row + 1 == segment.row && above.tiles == segment.tiles
        });
        let fresh = if below { F::ALPHA - F::M } else { 0 };
        for y in fresh..F::ALPHA {
            let row = segment.row * F::M + y;
            let slot = &mut ring[row % F::ALPHA * width * V::LANES..][..width * V::LANES];
            // SAFETY: the CPU has V.
            unsafe { gather::<V, F>(job, &segment, row, slot) };
        }
        // SAFETY: the ring and the strip hold ALPHA x width vectors, as asserted. The caller vouches for V.
        unsafe {
            down::<V, F>(ring.as_ptr(), segment.row * F::M, width, strip.as_mut_ptr());
            across::<V, F>(job, &segment, strip.as_ptr(), width);
        }
        kept = Some(segment);
    }
}

/// Loads one row of the padded image under a segment, as vectors of channels.
///
/// # Safety
/// The CPU has V.
#[inline(always)]
unsafe fn gather<V: Vector, F: Form>(job: &InputJob, segment: &Segment, row: usize, slot: &mut [f32]) {
    let sizes = &job.geometry.sizes;
    let Some(y) = row.checked_sub(sizes.pad_h).filter(|&y| y < sizes.h) else {
        return slot.fill(0.0);
    };
    // Columns of the padded image; `inside` are those of the image itself.
    let start = segment.tiles.start * F::M;
    let end = start + slot.len() / V::LANES;
    let inside = start.max(sizes.pad_w)..end.min(sizes.pad_w + sizes.w);
    if inside.is_empty() {
        return slot.fill(0.0);
    }
    slot[..(inside.start - start) * V::LANES].fill(0.0);
    slot[(inside.end - start) * V::LANES..].fill(0.0);
    let (Channels { first, present, .. }, channel) = (job.channels, sizes.h * sizes.w);
    if sizes.input_layout == TensorLayout::Nhwc {
        let from = sizes.input_strides().at(segment.image, first, y, inside.start - sizes.pad_w);
        let pixels = job.input[from..].chunks(sizes.c);
        let to = slot[(inside.start - start) * V::LANES..].chunks_exact_mut(V::LANES);
        for (pixel, to) in pixels.zip(to).take(inside.len()) {
            assert!(pixel.len() >= present);
            // SAFETY: a pixel has the `present` channels, as asserted, and `to` is a vector.
            unsafe {
                let from = pixel.as_ptr();
                let vector = if present == V::LANES { V::load(from) } else { V::load_part(from, present) };
                vector.store(to.as_mut_ptr());
            }
        }
        return;
    }
    let from = (segment.image * sizes.c + first) * channel + y * sizes.w;
    for x in inside.clone().step_by(V::LANES) {
        let count = V::LANES.min(inside.end - x);
        let line = &job.input[from + x - sizes.pad_w..];
        assert!(line.len() >= (present - 1) * channel + count);
        // SAFETY: the input holds `count` elements of each of the `present` channels, as asserted.
        let columns = unsafe {
            let zero = V::splat(0.0);
            let mut rows = [zero; MAX_LANES];
            for (c, row) in rows.iter_mut().enumerate().take(V::LANES) {
                if c < present {
                    let from = line.as_ptr().add(c * channel);
                    *row = if count == V::LANES { V::load(from) } else { V::load_part(from, count) };
                }
            }
            V::transpose(rows)
        };
        let to = &mut slot[(x - start) * V::LANES..][..count * V::LANES];
        for (i, column) in columns.into_iter().enumerate().take(V::LANES) {
            if i < count {
                // SAFETY: `to` holds `count` vectors.
                unsafe { column.store(to.as_mut_ptr().add(i * V::LANES)) };
            }
        }
    }
}

/// B^T down each of `width` columns. The first row in the ring is row `top`.
///
/// # Safety
/// The CPU has V. The ring and the strip hold ALPHA x width vectors.
#[inline(always)]
unsafe fn down<V: Vector, F: Form>(ring: *const f32, top: usize, width: usize, strip: *mut f32) {
    let row = |y: usize| (top + y) % F::ALPHA * width;
    let rows: [usize; MAX_ALPHA] = std::array::from_fn(|y| row(y.min(F::ALPHA - 1)));
    for x in 0..width {
        // SAFETY: rows are below ALPHA, columns below width.
        unsafe {
            let result = F::input(rows.map(|row| V::load(ring.add((row + x) * V::LANES))));
            for (f, value) in result.into_iter().enumerate().take(F::ALPHA) {
                value.store(strip.add((f * width + x) * V::LANES));
            }
        }
    }
}

/// B^T across each tile of a segment, into V.
///
/// # Safety
/// The CPU has V. The strip holds ALPHA x width vectors, with the width of the segment. Its tiles are writable in V.
#[inline(always)]
unsafe fn across<V: Vector, F: Form>(job: &InputJob, segment: &Segment, strip: *const f32, width: usize) {
    let Planes { tiles, plane } = job.planes;
    let block = (job.channels.block * tiles + segment.at) * V::LANES;
    for f in 0..F::ALPHA {
        for tile in 0..segment.tiles.len() {
            // SAFETY: tile*M + ALPHA columns are within the width. The caller vouches for V.
            unsafe {
                let from = strip.add((f * width + tile * F::M) * V::LANES);
                let d = std::array::from_fn(|x| V::load(from.add(x.min(F::ALPHA - 1) * V::LANES)));
                let to = job.v.add(f * F::ALPHA * plane + block + tile * V::LANES);
                for (g, value) in F::input(d).into_iter().enumerate().take(F::ALPHA) {
                    value.store(to.add(g * plane));
                }
            }
        }
    }
}
