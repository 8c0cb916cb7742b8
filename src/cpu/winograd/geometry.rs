//! The tiles of an output, and the layout of transformed data.

use std::ops::Range;

use crate::problem::Conv2dSizes;

/// The tiles of a convolution, numbered across, then down, then by image.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub sizes: Conv2dSizes,
    /// Tiles across an image.
    pub across: usize,
    /// Tiles down an image.
    pub down: usize,
}

/// A vector of channels.
#[derive(Debug, Clone, Copy)]
pub struct Channels {
    /// Its index in V or M.
    pub block: usize,
    /// Its first channel, counted in the image.
    pub first: usize,
    /// The number of lanes that are channels.
    pub present: usize,
}

impl Channels {
    /// Vector `block` of `lanes` channels in a group of `count` channels that begins with channel `start`. Its index in
    /// V or M is `at`.
    pub fn new(block: usize, at: usize, (start, count): (usize, usize), lanes: usize) -> Self {
        Channels { block: at, first: start + block * lanes, present: lanes.min(count - block * lanes) }
    }
}

/// Adjacent tiles: `tiles` of tile row `row` of `image`. The first has index `at` in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub image: usize,
    pub row: usize,
    pub tiles: Range<usize>,
    pub at: usize,
}

impl Geometry {
    /// Tiles of `m` x `m` outputs.
    pub fn new(sizes: &Conv2dSizes, m: usize) -> Self {
        Geometry { sizes: *sizes, across: sizes.q.div_ceil(m), down: sizes.p.div_ceil(m) }
    }

    /// Tiles of the whole batch.
    pub fn tiles(&self) -> usize {
        self.sizes.n * self.down * self.across
    }

    /// `tiles`, cut at the ends of tile rows. They belong to the block that starts with tile `first`.
    pub fn segments(&self, tiles: Range<usize>, first: usize) -> impl Iterator<Item = Segment> {
        let Geometry { across, down, .. } = *self;
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            if next >= tiles.end {
                return None;
            }
            let (row, left, at) = (next / across, next % across, next - first);
            let end = (left + tiles.end - next).min(across);
            next += end - left;
            Some(Segment { image: row / down, row: row % down, tiles: left..end, at })
        })
    }
}

/// The layout of V and M: lane l of channel vector b, tile t and frequency f is at `f*plane + (b*tiles + t)*lanes + l`.
#[derive(Debug, Clone, Copy)]
pub struct Planes {
    /// Tiles of a block.
    pub tiles: usize,
    /// The distance between frequencies.
    pub plane: usize,
}

impl Planes {
    /// The layout for `blocks` vectors of channels.
    pub fn new(tiles: usize, blocks: usize, lanes: usize) -> Self {
        // One extra vector, so that the frequencies of a tile do not all map to one cache set.
        Planes { tiles, plane: (tiles * blocks + 1) * lanes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Conv2d, Conv2dDesc};

    #[test]
    fn segments_are_all_tiles_in_order() {
        let desc = Conv2dDesc { n: 3, h: 12, w: 22, r: 3, s: 3, ..Default::default() };
        let geometry = Geometry::new(Conv2d::new(desc).unwrap().sizes(), 4);
        assert_eq!((geometry.down, geometry.across, geometry.tiles()), (3, 5, 45));
        let mut cases = 0;
        for (start, end) in (0..45).flat_map(|start| (start..=45).map(move |end| (start, end))) {
            let numbers: Vec<usize> = geometry
                .segments(start..end, start)
                .flat_map(|it| {
                    assert_eq!((it.image * 3 + it.row) * 5 + it.tiles.start, start + it.at);
                    it.tiles.map(move |tile| (it.image * 3 + it.row) * 5 + tile)
                })
                .collect();
            assert_eq!(numbers, (start..end).collect::<Vec<_>>());
            cases += 1;
        }
        assert!(cases > 0);
    }
}
