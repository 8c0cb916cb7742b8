//! Windows: parts of a map whose pixels see the same taps.
//!
//! A tap that sees only padding adds zeros. With a dilation of 18 on an image of 33 x 33 that is 6 of 10
//! multiplications. So the map is cut into windows, at most one for each pair of a span of rows and a span of columns:
//!
//! ```text
//! taps     1 2 |  1  | 0 1        of 3 taps in one direction, dilation 18, padding 18
//! outputs  0..15  15..18  18..33
//! ```
//!
//! A window is a convolution of its own, with fewer taps, whose input and output are parts of the whole ones. The
//! weights that are left out must be finite: infinity times a zero is NaN. The bits of all sums are those of the whole
//! map.

use std::ops::Range;

use super::{Axis, Columns, ImplicitIm2col, Model};
use crate::memory::Caches;
use crate::memory::costs::cpu::im2col::{PANEL, TILE, WINDOW_WEIGHT, WINDOWS};
use crate::problem::Conv2d;

/// Maximum spans in one direction. Kernels with many taps see the border in many ways, each in few pixels.
const MAX_SPANS: usize = 8;

/// Outputs in one direction, and the taps they see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub outputs: Range<usize>,
    pub taps: Range<usize>,
}

/// A part of a map, the taps its pixels see, and how it reads the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub rows: Span,
    pub cols: Span,
    pub implicit: ImplicitIm2col,
}

impl Axis {
    /// The axis of a window: outputs and taps are counted from the span's first.
    pub fn within(&self, span: &Span) -> Axis {
        let skipped = span.taps.start * self.dilation + span.outputs.start * self.stride;
        Axis { output: span.outputs.len(), taps: span.taps.len(), pad: self.pad - skipped as isize, ..*self }
    }

    /// The taps through which an output sees the image. Tap 0, if it sees only padding.
    fn visible(&self, output: usize) -> Range<usize> {
        let at = (output * self.stride) as isize - self.pad;
        let below = |limit: isize| (limit - at).max(0).unsigned_abs().div_ceil(self.dilation).min(self.taps);
        let (first, end) = (below(0), below(self.input as isize));
        if first < end { first..end } else { 0..1 }
    }

    /// All outputs and taps.
    fn whole(&self) -> Span {
        Span { outputs: 0..self.output, taps: 0..self.taps }
    }

    /// The outputs, cut where the taps they see change.
    fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = vec![];
        for output in 0..self.output {
            let taps = self.visible(output);
            match spans.last_mut() {
                Some(span) if span.taps == taps => span.outputs.end += 1,
                _ => spans.push(Span { outputs: output..output + 1, taps }),
            }
        }
        spans
    }
}

/// Multiplications of an output channel and an input channel in one direction.
fn seen(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.outputs.len() * span.taps.len()).sum()
}

impl ImplicitIm2col {
    /// The windows that compute `problem` in less time than all taps everywhere, if there are such. The other way
    /// packs panels `kc` deep, or reads in place. With `once`, weights are used only once.
    pub fn windows(
        caches: &Caches,
        columns: Columns,
        problem: &Conv2d,
        (kc, once): (usize, bool),
    ) -> Option<Vec<Window>> {
        let (rows, cols) = Axis::both(problem.sizes());
        if (rows.pad, cols.pad) == (0, 0) || rows.stride * cols.stride > 1 || !Self::allows(problem) {
            return None;
        }
        let spans = [(vec![rows.whole()], rows.spans()), (vec![cols.whole()], cols.spans())];
        let (all, least) =
            spans.iter().fold((1, 1), |(all, least), (whole, cut)| (all * seen(whole), least * seen(cut)));
        if least as f64 > WINDOWS * all as f64 {
            return None;
        }
        let [rows, cols] = spans;
        let ways = [(&rows.1, &cols.1), (&rows.1, &cols.0), (&rows.0, &cols.1)];
        let ways = ways.into_iter().filter(|(rows, cols)| rows.len().max(cols.len()) <= MAX_SPANS);
        let model = Model::new(caches, columns, problem);
        // The same blocks of depth give the same bits as all taps do, whose zeros change no sum.
        let channels = Self::plan(caches, columns, problem, kc)?.channels;
        let ways = ways.filter_map(|(rows, cols)| model.windows(rows, cols, channels));
        let (cycles, windows) = ways.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let sizes = problem.sizes();
        let weight = if once { WINDOW_WEIGHT / (sizes.n * sizes.groups) as f64 } else { 0.0 };
        let taps: usize = windows.iter().map(|window| window.rows.taps.len() * window.cols.taps.len()).sum();
        let cost = cycles + (taps * sizes.k * (sizes.c / sizes.groups)) as f64 * weight;
        (cost < WINDOWS * Self::cycles(caches, columns, problem, kc)).then_some(windows)
    }
}

impl Model {
    /// The predicted cycles of all windows, and how they read the image in place, with `channels` in a block of depth.
    fn windows(&self, rows: &[Span], cols: &[Span], channels: usize) -> Option<(f64, Vec<Window>)> {
        let mut windows = vec![];
        let mut cycles = 0.0;
        for (rows, cols) in rows.iter().flat_map(|rows| cols.iter().map(move |cols| (rows, cols))) {
            let part = Model { rows: self.rows.within(rows), cols: self.cols.within(cols), ..*self };
            let implicit = ImplicitIm2col { channels, ..part.in_place(false)?.1 };
            let cost = part.computing_with(&implicit, self.channels_in.div_ceil(channels));
            let panels = implicit.runs * implicit.run.div_ceil(self.columns.nr);
            let vectors =
                self.channels_out.next_multiple_of(self.columns.mr) * implicit.run.min(self.columns.nr);
            cycles += cost + panels as f64 * (PANEL + vectors.div_ceil(self.columns.lanes) as f64 * TILE);
            windows.push(Window { rows: rows.clone(), cols: cols.clone(), implicit });
        }
        Some((cycles, windows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DILATED: Axis = Axis { input: 33, output: 33, taps: 3, stride: 1, dilation: 18, pad: 18 };

    fn span(outputs: Range<usize>, taps: Range<usize>) -> Span {
        Span { outputs, taps }
    }

    #[test]
    fn spans_worked_by_hand() {
        assert_eq!(DILATED.spans(), [span(0..15, 1..3), span(15..18, 1..2), span(18..33, 0..2)]);
        let square = Axis { dilation: 1, pad: 1, ..DILATED };
        assert_eq!(square.spans(), [span(0..1, 1..3), span(1..32, 0..3), span(32..33, 0..2)]);
        // All but one tap see only padding.
        assert_eq!(Axis { dilation: 40, pad: 40, ..DILATED }.spans(), [span(0..33, 1..2)]);
        // Two outputs at each end see no tap at all.
        let beyond = Axis { input: 3, output: 7, taps: 1, stride: 1, dilation: 1, pad: 2 };
        assert_eq!(beyond.spans(), [span(0..7, 0..1)]);
        assert_eq!(Axis { dilation: 1, pad: 0, output: 31, ..DILATED }.spans(), [span(0..31, 0..3)]);
    }

    /// Each output sees through the taps of its window what it sees in the whole axis, and no other tap sees anything.
    #[test]
    fn windows_see_what_the_axis_sees() {
        let mut cases = 0;
        for (input, taps, dilation) in
            (1..9).flat_map(|input| (1..5).flat_map(move |taps| [1, 2, 5].map(|d| (input, taps, d))))
        {
            for pad in 0..7isize {
                let output = (input as isize + 2 * pad) - ((taps - 1) * dilation) as isize;
                if output < 1 {
                    continue;
                }
                let axis = Axis { input, output: output as usize, taps, stride: 1, dilation, pad };
                let element = |axis: &Axis, output: usize, tap: usize| {
                    let at = output as isize + axis.sees(tap).1;
                    (0..input as isize).contains(&at).then_some(at)
                };
                let spans = axis.spans();
                assert_eq!(spans.iter().map(|span| span.outputs.len()).sum::<usize>(), axis.output);
                for span in &spans {
                    let part = axis.within(span);
                    assert!(
                        span.outputs.start == 0 || spans.iter().any(|s| s.outputs.end == span.outputs.start)
                    );
                    for (index, output) in span.outputs.clone().enumerate() {
                        for tap in 0..taps {
                            let inside = span.taps.contains(&tap);
                            let through =
                                inside.then(|| element(&part, index, tap - span.taps.start)).flatten();
                            assert_eq!(element(&axis, output, tap), through, "{axis:?} {span:?}");
                            cases += 1;
                        }
                    }
                }
            }
        }
        assert!(cases > 1000);
    }
}
