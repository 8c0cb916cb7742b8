//! Gathers what the taps of some pixels see, from an image of either order, with zeros for the padding.

use std::ops::Range;

use super::Pixels;
use crate::cpu::im2col::visible_range;
use crate::cpu::kernels::{CopyBlock, Kernel, TransposeBlock};
use crate::problem::{Conv2dSizes, TensorStrides};

/// Writes depths `depths`, in the order (r, s, c), of each pixel to a row of `to`. `channels` are those of the group.
pub fn pixels<K: Kernel>(
    kernel: K,
    sizes: &Conv2dSizes,
    (input, image, strides): (&[f32], usize, &TensorStrides),
    channels: Range<usize>,
    pixels: &Pixels,
    depths: Range<usize>,
    to: &mut [f32],
) {
    let Conv2dSizes { h, w, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = *sizes;
    let (row, each) = (depths.len(), channels.len());
    assert!(to.len() >= pixels.count * row);
    for tap in depths.start / each..depths.end.div_ceil(each) {
        // The part of the tap's channels that is in the block.
        let some = (tap * each).max(depths.start)..((tap + 1) * each).min(depths.end);
        let (at, first) = (some.start - depths.start, channels.start + some.start - tap * each);
        let y = (pixels.p * stride_h + tap / s * dilation_h).checked_sub(pad_h).filter(|&y| y < h);
        let x = (pixels.q * stride_w + tap % s * dilation_w) as i64 - pad_w as i64;
        let inside = y.map_or(0..0, |_| visible_range(x, stride_w, w, pixels.count));
        for (pixel, line) in to.chunks_exact_mut(row).take(pixels.count).enumerate() {
            if !inside.contains(&pixel) {
                line[at..at + some.len()].fill(0.0);
            }
        }
        let Some(y) = y.filter(|_| !inside.is_empty()) else { continue };
        let x = (x + (inside.start * stride_w) as i64) as usize;
        let from = &input[strides.at(image, first, y, x)..];
        let to = &mut to[inside.start * row + at..];
        let last = (inside.len() - 1) * stride_w * strides.column + (some.len() - 1) * strides.channel;
        assert!(from.len() > last && to.len() >= (inside.len() - 1) * row + some.len());
        if strides.channel == 1 {
            let block = CopyBlock {
                from: from.as_ptr(),
                from_row: stride_w * strides.column,
                stride: 1,
                to: to.as_mut_ptr(),
                to_row: row,
                rows: inside.len(),
                len: some.len(),
                groups: 1,
                from_group: 0,
                to_group: 0,
            };
            // SAFETY: the last element of the last row is inside of both slices, as asserted.
            unsafe { kernel.copy(&block) };
        } else if stride_w == 1 {
            let block = TransposeBlock {
                from: from.as_ptr(),
                line: strides.channel,
                to: to.as_mut_ptr(),
                width: row,
                lines: some.len(),
                depths: inside.len(),
                more: false,
            };
            // SAFETY: as above; lines are channels, depths neighbouring pixels.
            unsafe { kernel.transpose(&block) };
        } else {
            for pixel in 0..inside.len() {
                for c in 0..some.len() {
                    to[pixel * row + c] = from[pixel * stride_w * strides.column + c * strides.channel];
                }
            }
        }
    }
}
