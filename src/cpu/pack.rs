//! Packing: copies a part of a matrix into panels, in the order in which a micro-kernel reads them.
//!
//! A panel holds `width` lines (rows of A, columns of B) side by side: element p of line l is at `p*width +
//! l`. Panels follow each other; missing lines of the last one are zeros. What is computed from these is
//! thrown away, so that a NaN or infinity it meets reaches nothing.

use std::ops::Range;

/// A matrix as packing sees it: element p of line l is at `l*line + p*depth`.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    /// Its elements.
    pub data: &'a [f32],
    /// Distance between lines.
    pub line: usize,
    /// Distance between a line's elements.
    pub depth: usize,
}

/// Packs elements `depths` of `lines` into panels of `width` lines.
#[inline]
pub fn panels(matrix: Lines, width: usize, lines: Range<usize>, depths: Range<usize>, packed: &mut [f32]) {
    let panels = packed.chunks_exact_mut(width * depths.len());
    for (first, panel) in lines.clone().step_by(width).zip(panels) {
        let count = width.min(lines.end - first);
        let from = &matrix.data[first * matrix.line + depths.start * matrix.depth..];
        if matrix.line == 1 && count == width {
            side_by_side(from, matrix.depth, width, panel);
        } else {
            one_by_one(from, (matrix.line, matrix.depth), width, count, panel);
        }
    }
}

/// A whole panel whose lines lie side by side already: copies rows of the panel.
#[inline]
fn side_by_side(from: &[f32], depth: usize, width: usize, panel: &mut [f32]) {
    for (p, row) in panel.chunks_exact_mut(width).enumerate() {
        row.copy_from_slice(&from[p * depth..][..width]);
    }
}

/// Any panel, `count` lines of which exist.
#[inline]
fn one_by_one(from: &[f32], (line, depth): (usize, usize), width: usize, count: usize, panel: &mut [f32]) {
    for (p, row) in panel.chunks_exact_mut(width).enumerate() {
        let (present, missing) = row.split_at_mut(count);
        for (l, value) in present.iter_mut().enumerate() {
            *value = from[l * line + p * depth];
        }
        missing.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_every_line_and_zeros() {
        let data: Vec<f32> = (0..200).map(|value| value as f32).collect();
        let mut cases = 0;
        for (line, depth) in [(1, 13), (17, 1), (1, 1), (2, 30)] {
            for (width, lines, depths) in [(4, 0..8, 0..3), (4, 1..8, 2..5), (8, 0..3, 0..1), (3, 2..9, 1..2)]
            {
                let mut packed = vec![f32::NAN; lines.len().next_multiple_of(width) * depths.len()];
                panels(Lines { data: &data, line, depth }, width, lines.clone(), depths.clone(), &mut packed);
                for (index, &value) in packed.iter().enumerate() {
                    let (panel, within) = (index / (width * depths.len()), index % (width * depths.len()));
                    let (l, p) =
                        (lines.start + panel * width + within % width, depths.start + within / width);
                    let expected = if l < lines.end { data[l * line + p * depth] } else { 0.0 };
                    assert_eq!(value, expected);
                    cases += 1;
                }
            }
        }
        assert!(cases > 0);
    }
}
