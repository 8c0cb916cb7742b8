//! How a problem is cut: which inner loop, the size of a band, the tiles.

use crate::memory::blocking::WORKSPACE;
use crate::problem::{Conv2d, Conv2dSizes};

/// A problem cut for an instruction set and a first cache.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Whether a tile is rows of one channel, or channels of one row.
    pub by_rows: bool,
    /// Whether a map's rows follow each other in one line.
    pub flat: bool,
    /// Input and output channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    /// Output channels of a tile, or output rows that are under way at a time.
    pub panel: usize,
    /// Output rows and columns of a band.
    pub rows: usize,
    pub cols: usize,
    /// From line to line in a band, from one remainder of the columns to the next, from channel to channel.
    pub pitch: usize,
    pub phase: usize,
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
            inputs,
            outputs,
            panel: if by_rows { under_way } else { even(outputs, tiles.channels) },
            rows: sizes.p,
            cols: sizes.q,
            pitch: 0,
            phase: 0,
            channel: 0,
            batch: 1,
            map: 0,
        };
        if let Some(flat) = shape.flattened(sizes, tiles, l1) {
            return Some(flat);
        }
        shape.measure(sizes);
        let aim = |shape: &Shape| inputs * shape.channel <= l1 / 2;
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
        shape.batch = (l1 / 2 / (inputs * shape.channel)).clamp(1, sizes.groups);
        shape.fits(tiles.lanes).then_some(shape)
    }

    /// The same on flat maps, if that takes less time.
    fn flattened(&self, sizes: &Conv2dSizes, tiles: Tiles, l1: usize) -> Option<Self> {
        let Conv2dSizes { w, pad_w, p, q, r, s, dilation_h, .. } = *sizes;
        let pitch = w + pad_w;
        if (sizes.stride_h, sizes.stride_w) != (1, 1) || q > pitch || p == 1 {
            return None;
        }
        let map = (p - 1) * pitch + q;
        let taps = self.inputs * r * s;
        let vectors = |len: usize| len.div_ceil(tiles.lanes);
        // In vectors that are multiplied or moved: the flat map is stored, loaded and stored again.
        let flat = vectors(map) * (taps + 1) + 2 * p * vectors(q);
        if flat >= p * vectors(q) * taps {
            return None;
        }
        let lines = p + (r - 1) * dilation_h;
        let channel = (lines * pitch + pad_w).next_multiple_of(tiles.lanes);
        let batch = (l1 / 2 / (self.inputs * channel)).clamp(1, sizes.groups);
        let panel = even(self.outputs, tiles.channels);
        let shape = Shape { by_rows: false, flat: true, panel, pitch, channel, batch, map, ..self.clone() };
        (self.inputs * channel <= l1 && shape.fits(tiles.lanes)).then_some(shape)
    }

    /// Sets what follows from rows and columns.
    fn measure(&mut self, sizes: &Conv2dSizes) {
        self.phase = self.cols + (sizes.s - 1) * sizes.dilation_w / sizes.stride_w;
        self.pitch = self.phase * sizes.stride_w;
        self.channel = self.lines(sizes, self.rows) * self.pitch;
    }

    /// Lines of a band for so many output rows.
    pub fn lines(&self, sizes: &Conv2dSizes, rows: usize) -> usize {
        (rows - 1) * sizes.stride_h + (sizes.r - 1) * sizes.dilation_h + 1
    }

    /// Elements of a band.
    pub fn band(&self) -> usize {
        self.batch * self.inputs * self.channel
    }

    /// Whether band and flat maps fit into the workspace. A vector may reach over the band's end.
    fn fits(&self, lanes: usize) -> bool {
        self.band().saturating_add(lanes + self.panel * self.map) <= WORKSPACE
    }

    /// Whether some tap reads columns with this remainder modulo the stride.
    pub fn uses(&self, sizes: &Conv2dSizes, phase: usize) -> bool {
        (0..sizes.s.min(sizes.stride_w)).any(|s| s * sizes.dilation_w % sizes.stride_w == phase)
    }

    /// Where in a line of a band a tap column begins.
    pub fn col(&self, sizes: &Conv2dSizes, s: usize) -> usize {
        let x = s * sizes.dilation_w;
        x % sizes.stride_w * self.phase + x / sizes.stride_w
    }

    /// Elements of the weights in order.
    pub fn weights(&self, problem: &Conv2d) -> usize {
        let Conv2dSizes { k, s, stride_h, .. } = *problem.sizes();
        if self.by_rows { k * stride_h.saturating_mul(s * self.panel) } else { problem.weights_len() }
    }

    /// Offsets of all taps in a band of one group, in the order of the weights.
    pub fn taps(&self, sizes: &Conv2dSizes) -> Vec<usize> {
        let taps = (0..self.inputs).flat_map(|c| (0..sizes.r).map(move |r| (c, r)));
        taps.flat_map(|(c, r)| {
            let line = c * self.channel + r * sizes.dilation_h * self.pitch;
            (0..sizes.s).map(move |s| line + self.col(sizes, s))
        })
        .collect()
    }
}

/// `len` cut into as few parts as `most` allows, evenly: the length of all but the last.
pub fn even(len: usize, most: usize) -> usize {
    len.div_ceil(len.div_ceil(most))
}
