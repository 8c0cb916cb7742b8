//! The padded copy of a part of the input, which the inner loops read: a band of rows of some channels.
//!
//! A band includes the padding as zeros. Its columns are sorted by their remainder modulo the stride. So for any
//! stride, padding and dilation, the inputs of a tap for adjacent outputs are adjacent. A band is made for each block
//! of output rows; it takes a part of L1.
//!
//! ```text
//!  one channel, stride 1                     stride 2: columns of even and odd index
//!  line 0   0 0 x x x x x 0 0                0 x x x 0 | 0 x x 0
//!  line 1   0 0 x x x x x 0 0                0 x x x 0 | 0 x x 0
//!
//!  flat: the padding right of a line is the padding left of the next; all outputs of the map are one line of
//!  output, some elements of which are meaningless and dropped
//!  0 x x x x x 0 x x x x x 0 x x x x x 0
//! ```

use std::ops::Range;

use super::shape::GroupedShape;
use crate::cpu::im2col::visible_range;
use crate::cpu::kernels::{CopyBlock, Kernel};
use crate::problem::Conv2dSizes;

/// Output rows and columns that are computed from one band.
#[derive(Clone)]
pub struct OutputBlock {
    pub rows: Range<usize>,
    pub cols: Range<usize>,
}

/// Fills a band with channels of an image, except for the padding, which [`clear`] has filled.
pub fn fill<K: Kernel>(
    kernel: K,
    sizes: &Conv2dSizes,
    shape: &GroupedShape,
    block: &OutputBlock,
    (image, channels): (&[f32], Range<usize>),
    band: &mut [f32],
) {
    let Conv2dSizes { h, w, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, .. } = *sizes;
    // The lines of a flat map are sorted by remainders as well.
    let (step, count) = if shape.flat {
        (stride_h, block.rows.len() + (r - 1) * dilation_h / stride_h)
    } else {
        (1, shape.lines(sizes, block.rows.len()))
    };
    let seen = |phase: usize, taps: usize, dilation: usize, stride: usize| {
        (0..taps.min(stride)).any(|tap| tap * dilation % stride == phase)
    };
    // A vector may reach past the last channel's end.
    band[channels.len() * shape.channel..][..K::LANES].fill(0.0);
    for (row, col) in (0..step).flat_map(|row| (0..stride_w).map(move |col| (row, col))) {
        if shape.flat && !seen(row, r, dilation_h, stride_h) || !seen(col, s, dilation_w, stride_w) {
            continue;
        }
        let top = (block.rows.start * stride_h + row) as i64 - pad_h as i64;
        let left = (block.cols.start * stride_w + col) as i64 - pad_w as i64;
        let lines = visible_range(top, step, h, count);
        let run = visible_range(left, stride_w, w, shape.phase.min(shape.pitch));
        if lines.is_empty() || run.is_empty() {
            continue;
        }
        let (y, x) = (top + (lines.start * step) as i64, left + (run.start * stride_w) as i64);
        let from = (channels.start * h + y as usize) * w + x as usize;
        let plane = if shape.flat { (row * stride_w + col) * shape.plane } else { col * shape.phase };
        let to = plane + lines.start * shape.pitch + run.start;
        let last = (channels.len() - 1, lines.len() - 1, run.len() - 1);
        assert!(from + last.0 * h * w + last.1 * step * w + last.2 * stride_w < image.len());
        assert!(to + last.0 * shape.channel + last.1 * shape.pitch + last.2 < band.len());
        let part = CopyBlock {
            from: image[from..].as_ptr(),
            from_row: step * w,
            stride: stride_w,
            to: band[to..].as_mut_ptr(),
            to_row: shape.pitch,
            rows: lines.len(),
            len: run.len(),
            groups: channels.len(),
            from_group: h * w,
            to_group: shape.channel,
        };
        // SAFETY: the last elements that are read and written are inside of the slices, as asserted, and so are all
        // before them.
        unsafe { kernel.copy(&part) };
    }
}

/// Writes zeros where [`fill`] writes nothing and the inner loops read: the padding, and elements after lines that
/// vectors reach into. These places are the same for all channels, so this is called once for each block.
pub fn clear(sizes: &Conv2dSizes, shape: &GroupedShape, block: &OutputBlock, band: &mut [f32]) {
    let whole = (block.rows.len(), block.cols.len()) == (shape.rows, shape.cols);
    let dense = sizes.stride_w == 1 && !sizes.is_padded() && !shape.flat;
    if !(whole && dense) {
        band.fill(0.0);
    }
}
