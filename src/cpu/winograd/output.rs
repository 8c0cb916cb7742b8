//! A^T t A: the output transform, with bias and ReLU, into NCHW rows or NHWC pixels.
//!
//! The mirror image of the input transform: across each tile, then down each column, in whole vectors of output
//! channels. Transposes then bring the pixels of one channel side by side.

use super::form::{Form, MAX_ALPHA};
use super::geometry::{Channels, Planes, Segment};
use super::output_job::OutputJob;
use super::recompute::{MAX_CHANNELS, by_definition};
use super::vector::{MAX_LANES, Vector};
use crate::cpu::pool::worker;
use crate::problem::TensorLayout;

/// The most outputs of a tile in each direction.
const MAX_M: usize = MAX_ALPHA - 2;

/// Elements of scratch memory for segments of at most `tiles` tiles.
pub fn scratch_len<F: Form>(tiles: usize, lanes: usize) -> usize {
    (F::ALPHA + F::M) * tiles * F::M * lanes
}

/// Transforms the tiles of a job.
///
/// # Safety
/// The CPU has V. The job's outputs are writable, and only this call writes them. `scratch` is long enough for the
/// longest segment.
#[inline(always)]
pub unsafe fn transform<V: Vector, F: Form>(job: &OutputJob, scratch: &mut [f32]) {
    let Planes { tiles, plane } = job.planes;
    assert!(job.products.len() >= F::ALPHA * F::ALPHA * plane && job.tiles.end - job.first <= tiles);
    assert!(job.bias.len() >= V::LANES);
    for segment in job.geometry.segments(job.tiles.clone(), job.first) {
        // The last tile can reach beyond the image.
        let left = segment.tiles.start * F::M;
        let width = job.geometry.sizes.q.min(segment.tiles.end * F::M) - left;
        let pitch = segment.tiles.len() * F::M;
        assert!(scratch.len() >= scratch_len::<F>(segment.tiles.len(), V::LANES));
        let (strip, pixels) = scratch.split_at_mut(F::ALPHA * pitch * V::LANES);
        // SAFETY: the strip holds ALPHA x pitch vectors and the pixels M x pitch. The length of the products was
        // checked above. The caller vouches for the CPU and the output.
        unsafe {
            across::<V, F>(job, &segment, strip.as_mut_ptr(), pitch);
            let finite = down::<V, F>(job, strip.as_ptr(), pitch, width, pixels.as_mut_ptr());
            scatter::<V, F>(job, &segment, width, pixels.as_ptr());
            let mut lanes = [0.0f32; MAX_LANES];
            finite.store(lanes.as_mut_ptr());
            if lanes[..job.channels.present].iter().any(|lane| lane.is_nan()) {
                recompute::<V, F>(job, &segment, (strip.as_ptr(), pitch), width, pixels);
            }
        }
    }
    if job.finish.is_some() {
        // SAFETY: the outputs of the job are done.
        unsafe { finish(job, F::M) };
    }
}

/// Applies the epilogue to the outputs of a job, in tiles of `m` x `m`.
///
/// # Safety
/// As for [`transform`]; the outputs are written.
#[cold]
unsafe fn finish(job: &OutputJob, m: usize) {
    let Some(mut block) = job.finish.begin(worker()) else { return };
    let (sizes, Channels { first, present, .. }) = (&job.geometry.sizes, job.channels);
    for k in first..first + present {
        for segment in job.geometry.segments(job.tiles.clone(), job.first) {
            let (top, left) = (segment.row * m, segment.tiles.start * m);
            let (rows, width) = (m.min(sizes.p - top), sizes.q.min(segment.tiles.end * m) - left);
            let start = ((segment.image * sizes.k + k) * sizes.p + top) * sizes.q + left;
            let (runs, len) = if width == sizes.q { (1, rows * width) } else { (rows, width) };
            for run in 0..runs {
                // SAFETY: these outputs are the job's, as the caller promises.
                unsafe { block.add(job.output.wrapping_add(start + run * sizes.q), len) };
            }
        }
    }
}

/// Recomputes tiles of a segment by the definition, in the channels that have an output of the tile that is not finite.
/// The selection does not depend on how tiles are cut into segments.
///
/// # Safety
/// As for [`transform`]; the strip is the result of [`across`], and the pixels have room for a vector per tile.
#[inline(always)]
unsafe fn recompute<V: Vector, F: Form>(
    job: &OutputJob,
    segment: &Segment,
    (strip, pitch): (*const f32, usize),
    width: usize,
    pixels: &mut [f32],
) {
    let mut tile = [0.0f32; MAX_M * MAX_M * MAX_LANES];
    let tiles = segment.tiles.len();
    for (index, finite) in pixels.chunks_exact_mut(V::LANES).take(tiles).enumerate() {
        // SAFETY: the strip holds the tile's columns, and there is room for its pixels.
        unsafe {
            let columns = F::M.min(width - index * F::M);
            let strip = strip.add(index * F::M * V::LANES);
            down::<V, F>(job, strip, pitch, columns, tile.as_mut_ptr()).store(finite.as_mut_ptr());
        }
    }
    let is_finite = |index: usize, lane: usize| !pixels[index * V::LANES + lane].is_nan();
    let left = segment.tiles.start * F::M;
    for first in (0..job.channels.present).step_by(MAX_CHANNELS) {
        let lanes = first..job.channels.present.min(first + MAX_CHANNELS);
        let any = |index: usize| lanes.clone().any(|lane| !is_finite(index, lane));
        let mut index = 0;
        while index < tiles {
            // Adjacent tiles are computed together.
            let end = (index..tiles).find(|&index| !any(index)).unwrap_or(tiles);
            let columns = left + index * F::M..left + width.min(end * F::M);
            let wanted = |lane: usize, q: usize| !is_finite((q - left) / F::M, lane);
            // SAFETY: as the caller promises.
            unsafe { by_definition(job, segment, (lanes.clone(), F::M), columns, wanted) };
            index = end + 1;
        }
    }
}

/// A^T across each tile of a segment.
///
/// # Safety
/// The CPU has V. The strip holds ALPHA x pitch vectors. The products hold the tiles of the segment.
#[inline(always)]
unsafe fn across<V: Vector, F: Form>(job: &OutputJob, segment: &Segment, strip: *mut f32, pitch: usize) {
    let Planes { tiles, plane } = job.planes;
    let block = (job.channels.block * tiles + segment.at) * V::LANES;
    for f in 0..F::ALPHA {
        for tile in 0..segment.tiles.len() {
            // SAFETY: frequencies are below ALPHA^2, tiles are in the block, columns are below the pitch.
            unsafe {
                let from = job.products.as_ptr().add(f * F::ALPHA * plane + block + tile * V::LANES);
                let t: [V; MAX_ALPHA] =
                    std::array::from_fn(|g| V::load(from.add(g.min(F::ALPHA - 1) * plane)));
                let to = strip.add((f * pitch + tile * F::M) * V::LANES);
                for (x, value) in F::output(t).into_iter().enumerate().take(F::M) {
                    value.store(to.add(x * V::LANES));
                }
            }
        }
    }
}

/// A^T down each of `width` columns, with bias and ReLU. Rows of pixels are contiguous, `width` apart. Returns zero for
/// each channel, or NaN if an output of the channel is not finite before its bias.
///
/// # Safety
/// The CPU has V. The strip holds ALPHA x pitch vectors, the pixels M x width vectors, the bias one vector.
#[inline(always)]
unsafe fn down<V: Vector, F: Form>(
    job: &OutputJob,
    strip: *const f32,
    pitch: usize,
    width: usize,
    pixels: *mut f32,
) -> V {
    // SAFETY: transform() checked the length of the bias; the caller vouches for the CPU.
    let (bias, zero) = unsafe { (V::load(job.bias.as_ptr()), V::splat(0.0)) };
    // One sum per row, so that the chains of additions are independent.
    let mut finite = [zero; MAX_M];
    for x in 0..width {
        // SAFETY: rows are below ALPHA, and columns below the width, which is at most the pitch.
        unsafe {
            let t: [V; MAX_ALPHA] =
                std::array::from_fn(|f| V::load(strip.add((f.min(F::ALPHA - 1) * pitch + x) * V::LANES)));
            for (y, value) in F::output(t).into_iter().enumerate().take(F::M) {
                finite[y] = finite[y].add_scaled(0.0, value);
                let value = value.add(bias);
                let value = if job.relu { value.relu() } else { value };
                value.store(pixels.add((y * width + x) * V::LANES));
            }
        }
    }
    finite.into_iter().fold(zero, V::add)
}

/// Transposes pixels into the rows of each channel.
///
/// # Safety
/// The CPU has V. The pixels hold M x width vectors. The outputs of the segment are writable.
#[inline(always)]
unsafe fn scatter<V: Vector, F: Form>(job: &OutputJob, segment: &Segment, width: usize, pixels: *const f32) {
    let sizes = &job.geometry.sizes;
    let (Channels { first, present, .. }, channel) = (job.channels, sizes.p * sizes.q);
    let top = segment.row * F::M;
    let rows = F::M.min(sizes.p - top);
    if sizes.output_layout == TensorLayout::Nhwc {
        let strides = sizes.output_strides();
        for row in 0..rows {
            let at = strides.at(segment.image, first, top + row, segment.tiles.start * F::M);
            for x in 0..width {
                // SAFETY: the pixel is among the M x width, and the output has the `present` channels of it.
                unsafe {
                    let value = V::load(pixels.add((row * width + x) * V::LANES));
                    value.store_part(job.output.add(at + x * strides.column), present);
                }
            }
        }
        return;
    }
    // Whole rows are contiguous in the output as well: they are one run. Otherwise each row is a run.
    let (runs, len) = if width == sizes.q { (1, rows * width) } else { (rows, width) };
    let start = (segment.image * sizes.k + first) * channel + top * sizes.q + segment.tiles.start * F::M;
    for run in 0..runs {
        for x in (0..len).step_by(V::LANES) {
            let count = V::LANES.min(len - x);
            // SAFETY: `count` pixels of this run are among the M x width, and the output has as many elements in each
            // of the `present` channels.
            unsafe {
                let from = pixels.add((run * len + x) * V::LANES);
                let to = job.output.add(start + run * sizes.q + x);
                let mut columns = [V::splat(0.0); MAX_LANES];
                for (i, column) in columns.iter_mut().enumerate().take(V::LANES) {
                    if i < count {
                        *column = V::load(from.add(i * V::LANES));
                    }
                }
                let rows = V::transpose(columns);
                for (k, row) in rows.into_iter().enumerate().take(V::LANES) {
                    if k < present {
                        row.store_part(to.add(k * channel), count);
                    }
                }
            }
        }
    }
}
