//! Packing straight from an NCHW image: a block of the im2col matrix, which as a whole never exists.
//!
//! That matrix has a row for each (c, r, s) and a column for each output pixel (p, q), flat, and holds
//! `image[c][p*stride_h + r*dilation_h - pad_h][q*stride_w + s*dilation_w - pad_w]`, or zero outside of the
//! image. A panel's columns are cut into runs within one output row; of a run, for given (r, s), one stretch
//! lies inside of the image, the same for all channels. So all index work is done once a run and (r, s), and
//! the innermost loop only copies.

use std::ops::Range;

use super::pack::{Lines, panels};
use crate::problem::Conv2dSizes;

/// Output pixels side by side in one output row: `len` of them, from (p, q) on, at column `at` of a panel.
#[derive(Clone, Copy)]
struct Run {
    p: usize,
    q: usize,
    len: usize,
    at: usize,
}

/// A panel to fill: `width` columns, the rows `depths` of the im2col matrix.
struct Panel<'a> {
    values: &'a mut [f32],
    width: usize,
    depths: Range<usize>,
}

/// Packs rows `depths` and columns `pixels` of the im2col matrix of `image`, the channels of one image and
/// group, into panels of `width` columns. Columns missing in the last panel are zeros.
#[inline]
pub fn pack(
    sizes: &Conv2dSizes,
    image: &[f32],
    width: usize,
    pixels: Range<usize>,
    depths: Range<usize>,
    packed: &mut [f32],
) {
    if is_image(sizes) {
        let channels = Lines { data: image, line: 1, depth: sizes.h * sizes.w };
        return panels(channels, width, pixels, depths, packed);
    }
    let chunks = packed.chunks_exact_mut(width * depths.len());
    for (first, values) in pixels.clone().step_by(width).zip(chunks) {
        let count = width.min(pixels.end - first);
        let mut panel = Panel { values, width, depths: depths.clone() };
        let mut at = 0;
        while at < count {
            let (p, q) = ((first + at) / sizes.q, (first + at) % sizes.q);
            let len = (sizes.q - q).min(count - at);
            fill(sizes, image, Run { p, q, len, at }, &mut panel);
            at += len;
        }
        if count < width {
            panel.values.chunks_exact_mut(width).for_each(|row| row[count..].fill(0.0));
        }
    }
}

/// Whether the im2col matrix is the image itself.
fn is_image(sizes: &Conv2dSizes) -> bool {
    (sizes.r, sizes.s, sizes.stride_h, sizes.stride_w, sizes.pad_h, sizes.pad_w) == (1, 1, 1, 1, 0, 0)
}

/// Fills one run of a panel, all its depth.
#[inline]
fn fill(sizes: &Conv2dSizes, image: &[f32], run: Run, panel: &mut Panel) {
    let Conv2dSizes { h, w, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = *sizes;
    let taps = r * s;
    for tap in 0..taps {
        let y = (run.p * stride_h + tap / s * dilation_h).checked_sub(pad_h).filter(|&y| y < h);
        let x = (run.q * stride_w + tap % s * dilation_w) as i64 - pad_w as i64;
        let inside = y.map_or(0..0, |_| stretch(x, stride_w, w, run.len));
        // If nothing is inside, nothing is read from there.
        let from = if inside.is_empty() {
            0
        } else {
            y.unwrap_or(0) * w + (x + (inside.start * stride_w) as i64) as usize
        };
        // The channels whose row (c, tap) is among `depths`.
        let first = panel.depths.start.saturating_sub(tap).div_ceil(taps);
        let end = panel.depths.end.saturating_sub(tap).div_ceil(taps);
        for c in first..end {
            let row = (c * taps + tap - panel.depths.start) * panel.width + run.at;
            let row = &mut panel.values[row..][..run.len];
            let channel = &image[c * h * w + from..];
            if stride_w == 1 && inside.len() == panel.width {
                // A whole row of the panel: a copy of a length known when this was compiled.
                row[..panel.width].copy_from_slice(&channel[..panel.width]);
                continue;
            }
            row[..inside.start].fill(0.0);
            row[inside.end..].fill(0.0);
            let row = &mut row[inside.clone()];
            if stride_w == 1 {
                row.copy_from_slice(&channel[..inside.len()]);
            } else {
                row.iter_mut().zip(channel.iter().step_by(stride_w)).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// The i below `len` for which `x + i*stride` is in `0..width`.
fn stretch(x: i64, stride: usize, width: usize, len: usize) -> Range<usize> {
    let stride = stride as i64;
    let steps_to = |limit: i64| ((limit - x).max(0) + stride - 1) / stride;
    let (start, end) = (steps_to(0).min(len as i64), steps_to(width as i64).min(len as i64));
    start as usize..end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::exact::Random;
    use crate::problem::{Conv2d, Conv2dDesc};

    /// One element, straight from the definition.
    fn element(sizes: &Conv2dSizes, image: &[f32], row: usize, pixel: usize) -> f32 {
        let (c, r, s) = (row / sizes.s / sizes.r, row / sizes.s % sizes.r, row % sizes.s);
        let (p, q) = (pixel / sizes.q, pixel % sizes.q);
        let y = (p * sizes.stride_h + r * sizes.dilation_h) as i64 - sizes.pad_h as i64;
        let x = (q * sizes.stride_w + s * sizes.dilation_w) as i64 - sizes.pad_w as i64;
        let inside = (0..sizes.h as i64).contains(&y) && (0..sizes.w as i64).contains(&x);
        if inside { image[(c * sizes.h + y as usize) * sizes.w + x as usize] } else { 0.0 }
    }

    #[test]
    fn blocks_are_those_of_the_im2col_matrix() {
        let mut random = Random::new(13);
        let mut cases = 0;
        while cases < 500 {
            let mut next = |low, high| random.between(low, high);
            let (r, s) = (next(1, 4), next(1, 4));
            let desc = Conv2dDesc {
                c: next(1, 5),
                h: next(1, 12),
                w: next(1, 12),
                r,
                s,
                stride_h: next(1, 3),
                stride_w: next(1, 3),
                pad_h: next(0, r + 2),
                pad_w: next(0, s + 2),
                dilation_h: next(1, 2),
                dilation_w: next(1, 2),
                ..Default::default()
            };
            let Ok(problem) = Conv2d::new(desc) else { continue };
            let sizes = problem.sizes();
            let image: Vec<f32> = (1..=problem.input_len()).map(|value| value as f32).collect();
            let part = |random: &mut Random, whole: usize| {
                let start = random.between(0, whole as i64 - 1) as usize;
                start..random.between(start as i64 + 1, whole as i64) as usize
            };
            let (pixels, depths) =
                (part(&mut random, sizes.p * sizes.q), part(&mut random, problem.reduction()));
            let width = random.pick(&[4, 8, 16, 32]);
            let mut packed = vec![f32::NAN; pixels.len().next_multiple_of(width) * depths.len()];
            pack(sizes, &image, width, pixels.clone(), depths.clone(), &mut packed);
            for (index, &got) in packed.iter().enumerate() {
                let (panel, within) = (index / (width * depths.len()), index % (width * depths.len()));
                let pixel = pixels.start + panel * width + within % width;
                let row = depths.start + within / width;
                let expected = if pixel < pixels.end { element(sizes, &image, row, pixel) } else { 0.0 };
                assert_eq!(got, expected, "{desc:?} row {row} pixel {pixel}");
            }
            cases += 1;
        }
    }

    #[test]
    fn stretches_at_both_borders() {
        assert_eq!(stretch(-1, 1, 5, 5), 1..5);
        assert_eq!(stretch(1, 1, 5, 5), 0..4);
        assert_eq!(stretch(-3, 2, 5, 9), 2..4);
        assert_eq!(stretch(7, 1, 5, 3), 0..0);
        assert_eq!(stretch(-9, 1, 5, 3), 3..3);
    }
}
