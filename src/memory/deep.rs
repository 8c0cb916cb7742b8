//! Few pixels under deep sums: when a convolution had better be computed as sums of lines.
//!
//! On a map of 4x4 pixels a weight meets 16 of them. To lay it out for a register tile whose lanes are pixels costs as much as a
//! good part of that, and the tile is one vector wide. But weights lie one depth after the other as they come, so that they
//! are vectors already: with the pixels turned around as well, which are few, an output is a sum of products of two lines,
//! its lanes added up at the end.
//!
//! ```text
//!            4 pixels, KC deep           a step: 6 x 4 sums of LANES depths each,
//!          <------------------           24 multiply-adds for 10 loads
//!          ------------------>
//!  6 rows of weights, as they come
//! ```
//!
//! The model, in cycles of a core that starts two multiply-adds of a vector a cycle: `rows depth pixels / (2 LANES)`; 50 for
//! adding up the lanes of a tile, once each KC; and turning the pixels around. KC is as large as half of L1 holds of the rows
//! of a tile.

use super::Caches;
use super::blocking::{L1_BYTES, WORKSPACE, even, known};
use super::costs::cpu::dot_conv::{ADDING, PACKING, PACKING_WEIGHT, TRANSPOSING};
use crate::problem::Conv2d;

/// Rows and pixels of a tile.
pub const ROWS: usize = 6;
pub const PIXELS: usize = 4;

/// Elements between one pixel's line and the next beyond its depth: with a power of two between them all would meet in the same
/// few lines of the cache.
pub const GAP: usize = 16;

/// Most pixels of a map that are turned around at a time.
const MOST_PIXELS: usize = 128;
/// Least depth: with less, adding up lanes is too much of the work.
const LEAST_DEPTH: usize = 256;

/// How it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deep {
    /// Depths of a block.
    pub kc: usize,
}

impl Deep {
    /// The cut of `problem`, and about how many cycles an image's group takes, on vectors of `lanes`; none if it has too few
    /// pixels or too many, or too little depth.
    pub fn plan(caches: &Caches, lanes: usize, problem: &Conv2d) -> Option<(f64, Self)> {
        let sizes = problem.sizes();
        let (pixels, rows, depth) = (sizes.p * sizes.q, sizes.k / sizes.groups, problem.reduction());
        if !(PIXELS..=MOST_PIXELS).contains(&pixels) || depth < LEAST_DEPTH || rows < 2 * ROWS {
            return None;
        }
        let most = (known(caches.l1, L1_BYTES) / 2 / ROWS).min(WORKSPACE / 4 / pixels).max(lanes);
        let kc = even(depth, most, lanes);
        let tiles = (rows.div_ceil(ROWS) * pixels.div_ceil(PIXELS)) as f64;
        let computing = (rows * depth * pixels) as f64 / (2 * lanes) as f64;
        let adding = tiles * depth.div_ceil(kc) as f64 * ADDING;
        let turning = depth as f64 * (pixels as f64 / 64.0 * TRANSPOSING + sizes.p as f64 * PACKING);
        Some((computing + adding + turning, Deep { kc }))
    }
}

/// Cycles that it takes a matrix product to pack a group's weights on the way, where they are used once.
pub fn packing_weights(lanes: usize, problem: &Conv2d) -> f64 {
    let sizes = problem.sizes();
    let weights = (problem.weights_len() / sizes.groups) as f64;
    weights * PACKING_WEIGHT[usize::from(sizes.p * sizes.q > lanes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;

    fn caches() -> Caches {
        Caches { l1: 48 << 10, l2: 1 << 20, line: 64, ..Caches::UNKNOWN }
    }

    fn layer(c: i64, side: i64, k: i64, size: i64) -> Conv2d {
        let pad = size / 2;
        let desc = Conv2dDesc {
            c,
            h: side,
            w: side,
            k,
            r: size,
            s: size,
            pad_h: pad,
            pad_w: pad,
            ..Default::default()
        };
        Conv2d::new(desc).unwrap()
    }

    #[test]
    fn blocks_fit_the_caches_and_few_pixels_take_few_cycles() {
        let (cycles, deep) = Deep::plan(&caches(), 16, &layer(2048, 4, 512, 1)).unwrap();
        assert_eq!(deep.kc, 1024);
        let ideal = (2048 * 16 * 512) as f64 / 32.0;
        assert!(cycles > ideal && cycles < 1.2 * ideal, "{cycles} {ideal}");
        for (l1, pixels) in [(16, 2), (32, 11), (1024, 11)] {
            let caches = Caches { l1: l1 << 10, ..caches() };
            let (_, deep) = Deep::plan(&caches, 8, &layer(5000, pixels, 100, 3)).unwrap();
            assert!(deep.kc * ROWS * 4 <= (l1 << 10) / 2 && deep.kc.is_multiple_of(8), "{deep:?}");
            assert!((deep.kc + GAP) * (pixels * pixels) as usize <= WORKSPACE / 2, "{deep:?}");
        }
    }

    #[test]
    fn cycles_worked_by_hand() {
        let (cycles, _) = Deep::plan(&caches(), 16, &layer(2048, 4, 512, 1)).unwrap();
        // 86 x 4 tiles, in two blocks of depth; 16 pixels are a quarter of a square of 8 x 8, in four rows.
        let (adding, turning) = (86.0 * 4.0 * 2.0 * ADDING, 2048.0 * (0.25 * TRANSPOSING + 4.0 * PACKING));
        assert_eq!(cycles, 512.0 * 2048.0 * 16.0 / 32.0 + adding + turning);
        // One of four groups; 3 x 3 kernels on 5 x 7 pixels, 8 lanes.
        let desc = Conv2dDesc { c: 400, h: 7, w: 9, k: 80, r: 3, s: 3, groups: 4, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let (cycles, deep) = Deep::plan(&caches(), 8, &problem).unwrap();
        assert_eq!(deep.kc, 904, "900 in one block, as a multiple of 8");
        let (adding, turning) = (4.0 * 9.0 * ADDING, 900.0 * (35.0 / 64.0 * TRANSPOSING + 5.0 * PACKING));
        assert_eq!(cycles, 20.0 * 900.0 * 35.0 / 16.0 + adding + turning);
        // 80 x 900 weights of the groups, used by pixels that fill more vectors than one, or not.
        assert_eq!(packing_weights(8, &problem), 20.0 * 900.0 * PACKING_WEIGHT[1]);
        assert_eq!(packing_weights(35, &problem), 20.0 * 900.0 * PACKING_WEIGHT[0]);
        assert_eq!(packing_weights(34, &problem), 20.0 * 900.0 * PACKING_WEIGHT[1]);
    }

    #[test]
    fn the_limits_are_met_exactly() {
        let plan = |c, h, w, k| {
            let problem = Conv2d::new(Conv2dDesc { c, h, w, k, ..Default::default() }).unwrap();
            Deep::plan(&caches(), 8, &problem).is_some()
        };
        assert!(plan(256, 2, 2, 12) && plan(256, 1, 128, 12));
        assert!(!plan(255, 2, 2, 12) && !plan(256, 2, 2, 11));
        assert!(!plan(256, 1, 3, 12) && !plan(256, 1, 129, 12));
    }

    #[test]
    fn large_maps_shallow_sums_and_few_rows_are_not_for_this() {
        for problem in [layer(2048, 14, 512, 1), layer(64, 4, 512, 1), layer(2048, 4, 8, 1)] {
            assert_eq!(Deep::plan(&caches(), 16, &problem), None);
        }
    }
}
