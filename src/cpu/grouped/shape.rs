//! How a problem is cut: the inner loop, the size of a band, the tiles.

use crate::allocate;
use crate::cpu::tunables::{MIN_BAND_ROWS, MIN_BAND_VECTORS};
use crate::error::Result;
use crate::memory::blocking::{WORKSPACE, even};
use crate::memory::costs::cpu::grouped::COPYING;
use crate::memory::costs::cpu::im2col::TILE;
use crate::problem::{Conv2d, Conv2dSizes};

/// A problem, cut for an instruction set and an L1 cache.
#[derive(Debug, Clone)]
pub struct GroupedShape {
    /// Whether a tile is rows of one channel. Otherwise it is channels of one row.
    pub by_rows: bool,
    /// Whether all rows of a map are one line.
    pub flat: bool,
    /// Whether a tile is flat maps of groups of one channel each.
    pub maps: bool,
    /// Input and output channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    /// Output channels or maps of a tile, or output rows in progress at a time.
    pub panel: usize,
    /// Output rows and columns of a band.
    pub rows: usize,
    pub cols: usize,
    /// Distance of lines in a band, and of columns with different remainders.
    pub pitch: usize,
    pub phase: usize,
    /// In a flat map, elements of the lines and columns of a channel with the same remainders.
    pub plane: usize,
    /// Distance of channels in a band.
    pub channel: usize,
    /// Groups in a band.
    pub batch: usize,
    /// Elements of a flat map before its rows are copied to the output. Zero if maps are not flat.
    pub map: usize,
}

/// A kernel's parameters that decide how a problem is cut.
#[derive(Clone, Copy)]
pub struct TileLimits {
    pub lanes: usize,
    /// Maximum channels of a tile, and maximum rows in progress.
    pub channels: usize,
    pub rows: usize,
}

/// Chains of additions that keep the arithmetic units busy.
const CHAINS: usize = 8;

impl GroupedShape {
    /// Cuts `problem` so that a band takes at most half of an L1 cache of `l1` elements, if possible. `None` if not
    /// even one row fits in the workspace.
    pub fn new(problem: &Conv2d, tiles: TileLimits, l1: usize) -> Option<Self> {
        let sizes = problem.sizes();
        let (inputs, outputs) = (sizes.c / sizes.groups, sizes.k / sizes.groups);
        // Adjacent output rows must see the same lines.
        let shared = sizes.stride_h <= sizes.r && (sizes.dilation_h == 1 || sizes.stride_h == 1);
        let in_progress = if shared { sizes.r.div_ceil(sizes.stride_h) } else { 0 };
        let by_rows = inputs == 1 && outputs <= 2 && (1..=tiles.rows).contains(&in_progress);
        let mut shape = GroupedShape {
            by_rows,
            flat: false,
            maps: false,
            inputs,
            outputs,
            panel: if by_rows { in_progress } else { even(outputs, tiles.channels, 1) },
            rows: sizes.p,
            cols: sizes.q,
            pitch: 0,
            phase: 0,
            plane: 0,
            channel: 0,
            batch: 1,
            map: 0,
        };
        if let Some(flat) = shape.flattened(sizes, tiles, l1) {
            return Some(flat);
        }
        shape.measure(sizes);
        let band = |shape: &GroupedShape| inputs.saturating_mul(shape.channel);
        // A band whose lines are mostly there for the taps gains little from being lower, so its rows are cut.
        let tall = |shape: &GroupedShape| shape.lines(sizes, shape.rows) >= 2 * shape.rows * sizes.stride_h;
        while !shape.fits(tiles.lanes) && shape.cols > tiles.lanes && shape.rows <= MIN_BAND_ROWS
            || shape.rows > 1 && !shape.fits(tiles.lanes)
            || shape.rows > MIN_BAND_ROWS && band(&shape) > l1 / 2
            || shape.cols > MIN_BAND_VECTORS * tiles.lanes && band(&shape) > l1 && tall(&shape)
        {
            if shape.rows > MIN_BAND_ROWS || shape.cols <= tiles.lanes {
                shape.rows = shape.rows.div_ceil(2);
            } else {
                shape.cols = shape.cols.div_ceil(2).next_multiple_of(tiles.lanes);
            }
            shape.measure(sizes);
        }
        shape.batch = (l1 / 2 / inputs.saturating_mul(shape.channel)).clamp(1, sizes.groups);
        shape.fits(tiles.lanes).then_some(shape)
    }

    /// The same problem on flat maps, if that is predicted faster.
    fn flattened(&self, sizes: &Conv2dSizes, tiles: TileLimits, l1: usize) -> Option<Self> {
        let Conv2dSizes { c, w, pad_w, p, q, r, s, stride_h, stride_w, dilation_h, groups, .. } = *sizes;
        if stride_h > r || stride_w > s {
            return None;
        }
        let mut shape = GroupedShape {
            by_rows: false,
            flat: true,
            maps: self.inputs == 1 && self.outputs == 1,
            ..self.clone()
        };
        shape.measure(sizes);
        // With stride 1 the padding right of a line can be the padding left of the next line, if that is as wide.
        let shared = stride_w == 1 && q <= w + pad_w && q + (s - 1) * sizes.dilation_w <= w + 2 * pad_w;
        shape.pitch = if shared { w + pad_w } else { shape.phase };
        shape.map = (p - 1) * shape.pitch + q;
        shape.plane = (p + (r - 1) * dilation_h / stride_h) * shape.pitch + pad_w;
        shape.channel = (shape.plane * stride_h * stride_w).next_multiple_of(tiles.lanes);
        shape.batch = (l1 / 2 / (self.inputs * shape.channel)).clamp(1, groups);
        shape.panel = even(self.outputs, tiles.channels, 1);
        if shape.maps {
            // Enough chains of additions to keep the arithmetic units busy.
            shape.panel = tiles.channels.div_ceil(shape.map.div_ceil(tiles.lanes)).min(c);
            shape.batch = shape.batch.next_multiple_of(shape.panel);
        }
        let better = shape.cycles(sizes, tiles) < self.cycles(sizes, tiles);
        (better && self.inputs * shape.channel <= l1 && shape.fits(tiles.lanes)).then_some(shape)
    }

    /// Predicted cycles of a group, without the costs that all inner loops have in common.
    fn cycles(&self, sizes: &Conv2dSizes, tiles: TileLimits) -> usize {
        let Conv2dSizes { p, q, r, s, stride_h, .. } = *sizes;
        let vectors = |len: usize| len.div_ceil(tiles.lanes);
        // Two multiply-adds a cycle if there are enough chains; one if each has a load.
        let line = |lines: usize, vectors: usize| (lines * vectors).max(CHAINS) / 2;
        let taps = self.inputs * r * s;
        if self.flat {
            let lines = if self.maps { 2 } else { self.outputs };
            // The map is stored, loaded and stored again.
            vectors(self.map) * taps * lines / 2 + self.outputs * (vectors(self.map) + 2 * p * vectors(q))
        } else if self.by_rows {
            self.outputs * (p + self.panel - 1) * stride_h * s * line(self.panel, vectors(q))
        } else {
            p * taps * line(self.outputs, vectors(q))
        }
    }

    /// Predicted cycles of a group, with the fixed costs of its tiles and the copying of its bands.
    pub fn all_cycles(&self, sizes: &Conv2dSizes, tiles: TileLimits) -> f64 {
        let vectors = |len: usize| len.div_ceil(tiles.lanes);
        let (lines, len) = if self.flat { (1, self.map) } else { (sizes.p, sizes.q) };
        let computed = lines * vectors(len) * self.outputs;
        let copied = self.inputs * self.lines(sizes, sizes.p) * vectors(self.phase.min(self.pitch));
        (self.cycles(sizes, tiles) as f64) + computed as f64 * TILE + copied as f64 * COPYING
    }

    /// Sets the fields that follow from rows and columns.
    fn measure(&mut self, sizes: &Conv2dSizes) {
        self.phase = self.cols + (sizes.s - 1) * sizes.dilation_w / sizes.stride_w;
        self.pitch = self.phase.saturating_mul(sizes.stride_w);
        self.channel = self.lines(sizes, self.rows).saturating_mul(self.pitch);
    }

    /// Lines of a band for that many output rows.
    pub fn lines(&self, sizes: &Conv2dSizes, rows: usize) -> usize {
        (rows - 1) * sizes.stride_h + (sizes.r - 1) * sizes.dilation_h + 1
    }

    /// Elements of a band.
    pub fn band(&self) -> usize {
        (self.batch * self.inputs).saturating_mul(self.channel)
    }

    /// Whether band and flat maps fit in the workspace. A vector may reach past the band's end.
    fn fits(&self, lanes: usize) -> bool {
        self.band().saturating_add(lanes).saturating_add(self.panel.saturating_mul(self.map)) <= WORKSPACE
    }

    /// The offset of a tap's inputs in a band of one channel.
    pub fn tap(&self, sizes: &Conv2dSizes, r: usize, s: usize) -> usize {
        let (y, x) = (r * sizes.dilation_h, s * sizes.dilation_w);
        let (at, col) = (x / sizes.stride_w, x % sizes.stride_w);
        if self.flat {
            let plane = y % sizes.stride_h * sizes.stride_w + col;
            plane * self.plane + y / sizes.stride_h * self.pitch + at
        } else {
            y * self.pitch + col * self.phase + at
        }
    }

    /// Elements of the reordered weights.
    pub fn weights(&self, problem: &Conv2d) -> usize {
        let Conv2dSizes { k, s, stride_h, .. } = *problem.sizes();
        if self.by_rows { k * stride_h.saturating_mul(s * self.panel) } else { problem.weights_len() }
    }

    /// Offsets of all taps in a band of one group, in the order of the weights.
    ///
    /// # Errors
    /// Out of memory.
    pub fn taps(&self, sizes: &Conv2dSizes) -> Result<Vec<usize>> {
        let mut taps = allocate::with_capacity(self.inputs * sizes.r * sizes.s, "the offsets of taps")?;
        for (c, r) in (0..self.inputs).flat_map(|c| (0..sizes.r).map(move |r| (c, r))) {
            taps.extend((0..sizes.s).map(|s| c * self.channel + self.tap(sizes, r, s)));
        }
        Ok(taps)
    }
}
