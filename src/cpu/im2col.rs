//! Packing panels of the im2col matrix straight from an NCHW image. The matrix never exists as a whole.
//!
//! It has a row for each (c, r, s) and a column for each output pixel (p, q), and holds `image[c][p*stride_h +
//! r*dilation_h - pad_h][q*stride_w + s*dilation_w - pad_w]`, or zero outside of the image. A panel's columns are cut
//! into runs within one output row. For given (r, s), the pixels of a run that are inside of the image are one range,
//! the same for all channels. So index computations are done once for each run and (r, s), and the innermost loop
//! only copies.

use std::ops::Range;

use super::block::Ahead;
use super::kernels::{CopyBlock, Kernel, MAX_NR, ensure_kernel};
use crate::problem::Conv2dSizes;

/// Output pixels in one output row: `len` pixels from (p, q) on, at column `at` of a panel.
#[derive(Clone, Copy)]
struct RowRun {
    p: usize,
    q: usize,
    len: usize,
    at: usize,
}

/// The source of zeros.
static ZEROS: [f32; MAX_NR] = [0.0; MAX_NR];

/// Packs rows `depths` and columns `pixels`, at most NR, of the im2col matrix of `image` into a panel of NR columns.
/// `image` holds the channels of one image and group. Missing columns keep their old contents.
#[inline]
pub fn pack<K: Kernel>(
    kernel: K,
    sizes: &Conv2dSizes,
    image: &[f32],
    pixels: Range<usize>,
    depths: Range<usize>,
    panel: &mut [f32],
) {
    assert!(pixels.len() <= K::NR && panel.len() >= depths.len() * K::NR);
    if is_image(sizes) {
        let pitch = sizes.h * sizes.w;
        let from = &image[depths.start * pitch + pixels.start..];
        assert!(from.len() >= (depths.len() - 1) * pitch + pixels.len());
        let part = CopyBlock {
            from: from.as_ptr(),
            from_row: pitch,
            stride: 1,
            to: panel.as_mut_ptr(),
            to_row: K::NR,
            rows: depths.len(),
            len: pixels.len(),
            groups: 1,
            from_group: 0,
            to_group: 0,
        };
        // SAFETY: the last row ends inside of the image and of the panel, as asserted.
        return unsafe { kernel.copy(&part) };
    }
    let mut at = 0;
    while at < pixels.len() {
        let (p, q) = ((pixels.start + at) / sizes.q, (pixels.start + at) % sizes.q);
        let len = (sizes.q - q).min(pixels.len() - at);
        fill(kernel, sizes, image, RowRun { p, q, len, at }, depths.clone(), panel);
        at += len;
    }
}

/// The memory that a panel with columns from `pixel` on will be packed from, if it is rows of the image.
#[inline]
pub fn ahead(sizes: &Conv2dSizes, image: &[f32], width: usize, pixel: usize, depths: Range<usize>) -> Ahead {
    let pitch = sizes.h * sizes.w;
    if !is_image(sizes) || pixel >= pitch {
        return Ahead::NOTHING;
    }
    let start = image.as_ptr().wrapping_add(depths.start * pitch + pixel);
    Ahead { start, row: pitch, rows: depths.len(), len: width.min(pitch - pixel) }
}

/// Whether the im2col matrix is the image itself.
fn is_image(sizes: &Conv2dSizes) -> bool {
    (sizes.r, sizes.s, sizes.stride_h, sizes.stride_w) == (1, 1, 1, 1) && !sizes.is_padded()
}

/// Fills one run of a panel, for all its depths.
#[inline]
fn fill<K: Kernel>(
    kernel: K,
    sizes: &Conv2dSizes,
    image: &[f32],
    run: RowRun,
    depths: Range<usize>,
    panel: &mut [f32],
) {
    const { ensure_kernel::<K>() };
    let Conv2dSizes { h, w, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = *sizes;
    let taps = r * s;
    let left = (run.q * stride_w) as i64 - pad_w as i64;
    // Mostly the depths are whole channels. Then no partial channels need handling.
    let whole = depths.start.is_multiple_of(taps) && depths.end.is_multiple_of(taps);
    for tap_row in 0..r {
        let y = (run.p * stride_h + tap_row * dilation_h).checked_sub(pad_h).filter(|&y| y < h);
        let mut tap_col = 0;
        while tap_col < s {
            let x = left + (tap_col * dilation_w) as i64;
            let inside = y.map_or(0..0, |_| visible_range(x, stride_w, w, run.len));
            // Consecutive taps that see the whole run inside of the image are copied together.
            let mut count = 1;
            if whole && inside.len() == run.len {
                let last = x + ((run.len - 1) * stride_w) as i64;
                while tap_col + count < s && last + ((count * dilation_w) as i64) < w as i64 {
                    count += 1;
                }
            }
            let taps_of = Taps { first: tap_row * s + tap_col, count, all: taps, step: dilation_w };
            let start = y.map_or(0, |y| (y * w) as i64 + x + (inside.start * stride_w) as i64);
            tap(kernel, (image, h * w, stride_w), (start, inside), run, taps_of, depths.clone(), panel);
            tap_col += count;
        }
    }
}

/// Consecutive taps of a kernel row: `count` of `all` from `first` on, which see pixels `step` apart.
struct Taps {
    first: usize,
    count: usize,
    all: usize,
    step: usize,
}

/// Fills one run for some taps. Of its pixels, those `inside` are in the image; the first of them is at `start` of a
/// channel.
#[inline]
fn tap<K: Kernel>(
    kernel: K,
    (image, channel, stride): (&[f32], usize, usize),
    (start, inside): (i64, Range<usize>),
    run: RowRun,
    taps: Taps,
    depths: Range<usize>,
    panel: &mut [f32],
) {
    // The channels whose row (c, tap) is among `depths`.
    let first = depths.start.saturating_sub(taps.first).div_ceil(taps.all);
    let end = depths.end.saturating_sub(taps.first).div_ceil(taps.all);
    if first >= end {
        return;
    }
    let channels = end - first;
    let to = &mut panel[(first * taps.all + taps.first - depths.start) * K::NR + run.at..];
    assert!(to.len() >= ((channels - 1) * taps.all + taps.count - 1) * K::NR + run.len);
    let zeros = CopyBlock {
        from: ZEROS.as_ptr(),
        from_row: 0,
        stride: 1,
        to: to.as_mut_ptr(),
        to_row: K::NR,
        rows: taps.count,
        len: 0,
        groups: channels,
        from_group: 0,
        to_group: taps.all * K::NR,
    };
    // SAFETY: the run is inside of the panel for all channels and taps, as asserted, and so are its parts before, in
    // and after the range `inside`. The first and the last element of that range are inside of the image, as
    // asserted.
    unsafe {
        if inside.start > 0 {
            kernel.copy(&CopyBlock { len: inside.start, ..zeros });
        }
        if !inside.is_empty() {
            let from = &image[first * channel + start as usize..];
            let last = (channels - 1) * channel + (taps.count - 1) * taps.step + (inside.len() - 1) * stride;
            assert!(from.len() > last);
            kernel.copy(&CopyBlock {
                from: from.as_ptr(),
                from_row: taps.step,
                stride,
                to: zeros.to.add(inside.start),
                len: inside.len(),
                from_group: channel,
                ..zeros
            });
        }
        if inside.end < run.len {
            kernel.copy(&CopyBlock { to: zeros.to.add(inside.end), len: run.len - inside.end, ..zeros });
        }
    }
}

/// The i below `len` for which `x + i*stride` is in `0..width`.
pub fn visible_range(x: i64, stride: usize, width: usize, len: usize) -> Range<usize> {
    let stride = stride as i64;
    let steps_to = |limit: i64| {
        let way = (limit - x).max(0);
        // A division would take a good part of the time of the smallest convolutions.
        if stride == 1 { way } else { (way + stride - 1) / stride }
    };
    let (start, end) = (steps_to(0).min(len as i64), steps_to(width as i64).min(len as i64));
    start as usize..end as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};
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

    fn check<K: Kernel>(
        kernel: K,
        problem: &Conv2d,
        image: &[f32],
        pixels: Range<usize>,
        depths: Range<usize>,
    ) {
        let pixels = pixels.start..pixels.end.min(pixels.start + K::NR);
        let mut panel = vec![-1.0; K::NR * depths.len()];
        pack(kernel, problem.sizes(), image, pixels.clone(), depths.clone(), &mut panel);
        for (index, &got) in panel.iter().enumerate() {
            let (row, pixel) = (depths.start + index / K::NR, pixels.start + index % K::NR);
            let expected =
                if pixel < pixels.end { element(problem.sizes(), image, row, pixel) } else { -1.0 };
            assert_eq!(got, expected, "{problem:?} row {row} pixel {pixel}");
        }
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
                pad_bottom: Some(next(0, r + 2)),
                pad_right: Some(next(0, s + 2)),
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
            for isa in Isa::all() {
                with_kernel!(isa, kernel => check(kernel, &problem, &image, pixels.clone(), depths.clone()));
            }
            cases += 1;
        }
    }

    #[test]
    fn visible_ranges_at_both_borders() {
        assert_eq!(visible_range(-1, 1, 5, 5), 1..5);
        assert_eq!(visible_range(-1, 1, 5, 7), 1..6);
        assert_eq!(visible_range(1, 1, 5, 5), 0..4);
        assert_eq!(visible_range(-3, 2, 5, 9), 2..4);
        assert_eq!(visible_range(7, 1, 5, 3), 0..0);
        assert_eq!(visible_range(-9, 1, 5, 3), 3..3);
    }
}
