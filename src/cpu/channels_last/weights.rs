//! Weights of any order: packed into panels of output channels, or brought into the order OIHW.

use std::ops::Range;

use crate::cpu::buffer::Buffer;
use crate::cpu::kernels::{CopyBlock, Kernel, TransposeBlock};
use crate::error::Result;
use crate::problem::{Conv2d, Conv2dSizes, WeightsLayout};

/// Packs depths `depths`, in the order (r, s, c), of output channels `channels` into a panel of NR columns. Missing
/// columns keep their old contents.
pub fn pack<K: Kernel>(
    kernel: K,
    sizes: &Conv2dSizes,
    weights: &[f32],
    channels: Range<usize>,
    depths: Range<usize>,
    panel: &mut [f32],
) {
    assert!(channels.len() <= K::NR && panel.len() >= depths.len() * K::NR);
    let per_tap = sizes.c / sizes.groups;
    let depth = per_tap * sizes.r * sizes.s;
    match sizes.weights_layout {
        WeightsLayout::Hwio => {
            let from = &weights[depths.start * sizes.k + channels.start..];
            assert!(from.len() >= (depths.len() - 1) * sizes.k + channels.len());
            let block = CopyBlock {
                from: from.as_ptr(),
                from_row: sizes.k,
                stride: 1,
                to: panel.as_mut_ptr(),
                to_row: K::NR,
                rows: depths.len(),
                len: channels.len(),
                groups: 1,
                from_group: 0,
                to_group: 0,
            };
            // SAFETY: the last row ends inside of both slices, as asserted.
            unsafe { kernel.copy(&block) };
        }
        WeightsLayout::Ohwi => {
            let from = &weights[channels.start * depth + depths.start..];
            assert!(from.len() >= (channels.len() - 1) * depth + depths.len());
            let block = TransposeBlock {
                from: from.as_ptr(),
                line: depth,
                to: panel.as_mut_ptr(),
                width: K::NR,
                lines: channels.len(),
                depths: depths.len(),
                more: false,
            };
            // SAFETY: the last line ends inside of `from`, and the last depth's row inside of the panel, as asserted.
            unsafe { kernel.transpose(&block) };
        }
        WeightsLayout::Oihw => {
            let strides = sizes.weights_strides();
            for (index, row) in depths.zip(panel.chunks_exact_mut(K::NR)) {
                let (tap, c) = (index / per_tap, index % per_tap);
                let at = strides.at(channels.start, c, tap / sizes.s, tap % sizes.s);
                let filters = weights[at..].iter().step_by(strides.k);
                row.iter_mut().zip(filters).take(channels.len()).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// The weights in the order OIHW, if they are in another.
///
/// # Errors
/// Out of memory.
pub fn ordered(problem: &Conv2d, weights: &[f32]) -> Result<Option<Buffer>> {
    let sizes = problem.sizes();
    if sizes.weights_layout == WeightsLayout::Oihw {
        return Ok(None);
    }
    let (strides, taps) = (sizes.weights_strides(), sizes.r * sizes.s);
    let mut plain = Buffer::zeroed(problem.weights_len())?;
    for (index, filter) in plain.chunks_exact_mut(taps).enumerate() {
        let (k, c) = (index / (sizes.c / sizes.groups), index % (sizes.c / sizes.groups));
        for (tap, to) in filter.iter_mut().enumerate() {
            *to = weights[strides.at(k, c, tap / sizes.s, tap % sizes.s)];
        }
    }
    Ok(Some(plain))
}
