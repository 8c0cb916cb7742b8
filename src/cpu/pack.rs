//! Packing: copies a part of a matrix into panels, in the order in which a micro-kernel reads them.
//!
//! A panel holds `width` lines (rows of A or columns of B) side by side: element p of line l is at `p*width + l`.
//! Panels follow each other. If the last panel has fewer columns of B, the rest keeps its old contents, as no kernel
//! reads it. Missing rows of A become zero for kernels that read panels to their end ([`Kernel::THIN`]).

use std::ops::Range;

use super::kernels::{CopyBlock, Kernel, TransposeBlock};

/// A matrix to pack: element p of line l is at `l*line + p*depth`.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    /// The matrix elements.
    pub data: &'a [f32],
    /// Distance between lines.
    pub line: usize,
    /// Distance between a line's elements.
    pub depth: usize,
}

/// Packs elements `depths` of `lines` into panels of `width` lines.
#[inline]
pub fn panels<K: Kernel>(
    kernel: K,
    matrix: Lines,
    width: usize,
    lines: Range<usize>,
    depths: Range<usize>,
    packed: &mut [f32],
) {
    let panels = packed.chunks_exact_mut(width * depths.len());
    for (first, panel) in lines.clone().step_by(width).zip(panels) {
        let count = width.min(lines.end - first);
        let from = &matrix.data[first * matrix.line + depths.start * matrix.depth..];
        if matrix.line == 1 {
            side_by_side(kernel, from, matrix.depth, (width, count, depths.len()), panel);
        } else if matrix.depth == 1 {
            transposed(kernel, from, matrix.line, (width, count, depths.len()), panel);
        } else {
            one_by_one(from, (matrix.line, matrix.depth), (width, count, depths.len()), panel);
        }
        if K::THIN > 0 && width == K::MR {
            clear_missing(panel, width, count);
        }
    }
}

/// Fills the lines of a panel after its first `count` with zeros.
#[inline]
pub fn clear_missing(panel: &mut [f32], width: usize, count: usize) {
    if count < width {
        panel.chunks_exact_mut(width).for_each(|depth| depth[count..].fill(0.0));
    }
}

/// Packs lines that are side by side already, by copying rows.
#[inline]
fn side_by_side<K: Kernel>(
    kernel: K,
    from: &[f32],
    depth: usize,
    (width, count, depths): (usize, usize, usize),
    panel: &mut [f32],
) {
    assert!(count <= width && from.len() >= (depths - 1) * depth + count && panel.len() >= depths * width);
    let part = CopyBlock {
        from: from.as_ptr(),
        from_row: depth,
        stride: 1,
        to: panel.as_mut_ptr(),
        to_row: width,
        rows: depths,
        len: count,
        groups: 1,
        from_group: 0,
        to_group: 0,
    };
    // SAFETY: the last row ends inside of both slices, as asserted.
    unsafe { kernel.copy(&part) };
}

/// Packs lines that are contiguous in depth, by transposing them.
#[inline]
fn transposed<K: Kernel>(
    kernel: K,
    from: &[f32],
    line: usize,
    (width, count, depths): (usize, usize, usize),
    panel: &mut [f32],
) {
    assert!(count <= width && from.len() >= (count - 1) * line + depths && panel.len() >= depths * width);
    let more = from.len() >= 2 * count * line;
    let (from, to) = (from.as_ptr(), panel.as_mut_ptr());
    // SAFETY: the last line ends inside of `from`, and the last depth's row inside of the panel, as asserted.
    unsafe { kernel.transpose(&TransposeBlock { from, line, to, width, lines: count, depths, more }) };
}

/// Packs lines of any strides, element by element.
#[inline]
fn one_by_one(
    from: &[f32],
    (line, depth): (usize, usize),
    (width, count, depths): (usize, usize, usize),
    panel: &mut [f32],
) {
    for p in 0..depths {
        for l in 0..count {
            panel[p * width + l] = from[l * line + p * depth];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, with_kernel};

    #[test]
    fn panels_hold_every_line() {
        let data: Vec<f32> = (0..400).map(|value| value as f32).collect();
        let mut cases = 0;
        for (line, depth) in [(1, 13), (17, 1), (1, 1), (2, 30)] {
            for (width, lines, depths) in [
                (4, 0..8, 0..3),
                (4, 1..8, 2..5),
                (8, 0..3, 0..1),
                (3, 2..9, 1..2),
                (8, 0..7, 1..9),
                (4, 0..4, 0..8),
            ] {
                let mut packed = vec![f32::NAN; lines.len().next_multiple_of(width) * depths.len()];
                let matrix = Lines { data: &data, line, depth };
                with_kernel!(Isa::best(), kernel => {
                    panels(kernel, matrix, width, lines.clone(), depths.clone(), &mut packed)
                });
                for (index, &value) in packed.iter().enumerate() {
                    let (panel, within) = (index / (width * depths.len()), index % (width * depths.len()));
                    let (l, p) =
                        (lines.start + panel * width + within % width, depths.start + within / width);
                    if l < lines.end {
                        assert_eq!(value, data[l * line + p * depth]);
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 0);
    }
}
