//! How a problem is cut: which inner loop, the size of a band, the tiles.

use crate::allocate;
use crate::error::Result;
use crate::memory::blocking::{WORKSPACE, even};
use crate::memory::costs::cpu::grouped::COPYING;
use crate::memory::costs::cpu::im2col::TILE;
use crate::problem::{Conv2d, Conv2dSizes};

/// A problem cut for an instruction set and a first cache.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Whether a tile is rows of one channel, or channels of one row.
    pub by_rows: bool,
    /// Whether a map's rows follow each other in one line.
    pub flat: bool,
    /// Whether a tile is flat maps of groups that have one channel each.
    pub maps: bool,
    /// Input and output channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    /// Output channels or maps of a tile, or output rows that are under way at a time.
    pub panel: usize,
    /// Output rows and columns of a band.
    pub rows: usize,
    pub cols: usize,
    /// From line to line in a band, from one remainder of the columns to the next, from channel to channel.
    pub pitch: usize,
    pub phase: usize,
    /// Elements of the lines and columns of a channel with the same remainders, where a map is flat.
    pub plane: usize,
    pub channel: usize,
    /// Groups in a band.
    pub batch: usize,
    /// Elements that a flat map takes before its rows are cut out of it; zero if it is not flat.
    pub map: usize,
}

/// What of a kernel decides how a problem is cut.
#[derive(Clone, Copy)]
pub struct Tiles {
    pub lanes: usize,
    /// The most channels of a tile, and the most rows that can be under way.
    pub channels: usize,
    pub rows: usize,
}

/// Chains of additions that keep the units busy.
const CHAINS: usize = 8;

/// Rows of output that a band has at least if it can: fewer, and too much is copied more than once.
const LEAST_ROWS: usize = 8;

impl Shape {
    /// Cuts `problem` so that a band is at most half of an L1 cache of `l1` elements if that is sensible; none if
    /// not even one row fits into the workspace.
    pub fn new(problem: &Conv2d, tiles: Tiles, l1: usize) -> Option<Self> {
        let sizes = problem.sizes();
        let (inputs, outputs) = (sizes.c / sizes.groups, sizes.k / sizes.groups);
        // Rows of output side by side must see the same lines.
        let shared = sizes.stride_h <= sizes.r && (sizes.dilation_h == 1 || sizes.stride_h == 1);
        let under_way = if shared { sizes.r.div_ceil(sizes.stride_h) } else { 0 };
        let by_rows = inputs == 1 && outputs <= 2 && (1..=tiles.rows).contains(&under_way);
        let mut shape = Shape {
            by_rows,
            flat: false,
            maps: false,
            inputs,
            outputs,
            panel: if by_rows { under_way } else { even(outputs, tiles.channels, 1) },
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
        let aim = |shape: &Shape| inputs.saturating_mul(shape.channel) <= l1 / 2;
        while !shape.fits(tiles.lanes) && shape.cols > tiles.lanes && shape.rows <= LEAST_ROWS
            || shape.rows > 1 && !shape.fits(tiles.lanes)
            || shape.rows > LEAST_ROWS && !aim(&shape)
        {
            if shape.rows > LEAST_ROWS || shape.cols <= tiles.lanes {
                shape.rows = shape.rows.div_ceil(2);
            } else {
                shape.cols = shape.cols.div_ceil(2).next_multiple_of(tiles.lanes);
            }
            shape.measure(sizes);
        }
        shape.batch = (l1 / 2 / inputs.saturating_mul(shape.channel)).clamp(1, sizes.groups);
        shape.fits(tiles.lanes).then_some(shape)
    }

    /// The same on flat maps, if that takes less time.
    fn flattened(&self, sizes: &Conv2dSizes, tiles: Tiles, l1: usize) -> Option<Self> {
        let Conv2dSizes { c, w, pad_w, p, q, r, s, stride_h, stride_w, dilation_h, groups, .. } = *sizes;
        if stride_h > r || stride_w > s {
            return None;
        }
        let mut shape =
            Shape { by_rows: false, flat: true, maps: self.inputs == 1 && self.outputs == 1, ..self.clone() };
        shape.measure(sizes);
        // Without a stride the padding right of a line can be that left of the next.
        shape.pitch = if stride_w == 1 && q <= w + pad_w { w + pad_w } else { shape.phase };
        shape.map = (p - 1) * shape.pitch + q;
        shape.plane = (p + (r - 1) * dilation_h / stride_h) * shape.pitch + pad_w;
        shape.channel = (shape.plane * stride_h * stride_w).next_multiple_of(tiles.lanes);
        shape.batch = (l1 / 2 / (self.inputs * shape.channel)).clamp(1, groups);
        shape.panel = even(self.outputs, tiles.channels, 1);
        if shape.maps {
            // As many chains of additions as keep the units busy.
            shape.panel = tiles.channels.div_ceil(shape.map.div_ceil(tiles.lanes)).min(c);
            shape.batch = shape.batch.next_multiple_of(shape.panel);
        }
        let better = shape.cycles(sizes, tiles) < self.cycles(sizes, tiles);
        (better && self.inputs * shape.channel <= l1 && shape.fits(tiles.lanes)).then_some(shape)
    }

    /// About how many cycles a group takes, but for what all ways have in common.
    fn cycles(&self, sizes: &Conv2dSizes, tiles: Tiles) -> usize {
        let Conv2dSizes { p, q, r, s, stride_h, .. } = *sizes;
        let vectors = |len: usize| len.div_ceil(tiles.lanes);
        // Two multiply-adds a cycle, if there are enough chains; with a load each, one.
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

    /// About how many cycles a group takes, with what its tiles and the copying of its bands cost.
    pub fn all_cycles(&self, sizes: &Conv2dSizes, tiles: Tiles) -> f64 {
        let vectors = |len: usize| len.div_ceil(tiles.lanes);
        let (lines, len) = if self.flat { (1, self.map) } else { (sizes.p, sizes.q) };
        let computed = lines * vectors(len) * self.outputs;
        let copied = self.inputs * self.lines(sizes, sizes.p) * vectors(self.phase.min(self.pitch));
        (self.cycles(sizes, tiles) as f64) + computed as f64 * TILE + copied as f64 * COPYING
    }

    /// Sets what follows from rows and columns.
    fn measure(&mut self, sizes: &Conv2dSizes) {
        self.phase = self.cols + (sizes.s - 1) * sizes.dilation_w / sizes.stride_w;
        self.pitch = self.phase.saturating_mul(sizes.stride_w);
        self.channel = self.lines(sizes, self.rows).saturating_mul(self.pitch);
    }

    /// Lines of a band for so many output rows.
    pub fn lines(&self, sizes: &Conv2dSizes, rows: usize) -> usize {
        (rows - 1) * sizes.stride_h + (sizes.r - 1) * sizes.dilation_h + 1
    }

    /// Elements of a band.
    pub fn band(&self) -> usize {
        (self.batch * self.inputs).saturating_mul(self.channel)
    }

    /// Whether band and flat maps fit into the workspace. A vector may reach over the band's end.
    fn fits(&self, lanes: usize) -> bool {
        self.band().saturating_add(lanes).saturating_add(self.panel.saturating_mul(self.map)) <= WORKSPACE
    }

    /// Where in a band of one channel the inputs of a tap begin.
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

    /// Elements of the weights in order.
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
