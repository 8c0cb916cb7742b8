//! How an output is cut into tiles, and tiles into blocks.

use std::ops::Range;

use crate::problem::Conv2dSizes;

/// The tiles of a convolution: numbered across, then down, then by image.
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
    /// Its number among those in V or M.
    pub block: usize,
    /// Its first channel among all of the image.
    pub first: usize,
    /// How many of its lanes are channels.
    pub present: usize,
}

impl Channels {
    /// Vector `block` of `lanes` channels of a group that has `count`, the first of them being `start`; in V or M it
    /// is number `at`.
    pub fn new(block: usize, at: usize, (start, count): (usize, usize), lanes: usize) -> Self {
        Channels { block: at, first: start + block * lanes, present: lanes.min(count - block * lanes) }
    }
}

/// Tiles side by side: `tiles` of tile row `row` of `image`; the first is number `at` of its block.
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

    /// Of the whole batch.
    pub fn tiles(&self) -> usize {
        self.sizes.n * self.down * self.across
    }

    /// `tiles` cut where tile rows end; they belong to the block that starts with tile `first`.
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

/// Tiles in the order in which transformed data lie: element l of channel block b, tile t, frequency f is at
/// `f*plane + (b*tiles + t)*lanes + l`.
#[derive(Debug, Clone, Copy)]
pub struct Planes {
    /// Tiles of a block.
    pub tiles: usize,
    /// From one frequency to the next.
    pub plane: usize,
}

impl Planes {
    /// For `blocks` channel blocks.
    pub fn new(tiles: usize, blocks: usize, lanes: usize) -> Self {
        // One vector more, so that a tile's frequencies do not all fall into one set of a cache.
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
