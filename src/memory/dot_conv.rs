//! Convolution by dot products: the cost model for few pixels with deep sums.
//!
//! On a map of 4x4 pixels each weight is used 16 times. Packing it for a register tile whose lanes are pixels costs
//! much of that, and the tile is only one vector wide. But weights are contiguous in depth as given, so they are
//! vectors already. The few pixels are transposed to be contiguous in depth as well. Then an output is a dot product
//! of two lines, whose lanes are added up at the end.
//!
//! ```text
//!            4 pixels, KC deep           a step: 6 x 4 sums of LANES depths each,
//!          <------------------           24 multiply-adds for 10 loads
//!          ------------------>
//!  6 rows of weights, as given
//! ```
//!
//! The model counts cycles of a core that starts two vector multiply-adds a cycle: `rows depth pixels / (2 LANES)`; 50
//! for each tile and block of depth, to add up the lanes; and the transposes. KC is such that the rows of a tile fill
//! half of L1.

use super::Caches;
use super::blocking::{L1_BYTES, WORKSPACE, even, known};
use super::costs::cpu::dot_conv::{ADDING, PACKING, PACKING_WEIGHT, TRANSPOSING};
use crate::problem::Conv2d;

/// Rows and pixels of a tile.
pub const ROWS: usize = 6;
pub const PIXELS: usize = 4;

/// Elements between the end of one pixel's line and the next line. Lines a power of two apart would share few cache
/// sets.
pub const GAP: usize = 16;

/// Maximum pixels of a map.
const MAX_PIXELS: usize = 128;
/// Minimum depth. Below it, adding up lanes takes too much of the time.
const MIN_DEPTH: usize = 256;

/// How a problem is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DotConv {
    /// Depth of a block.
    pub kc: usize,
}

impl DotConv {
    /// How `problem` is cut, with the predicted cycles for one group of one image, on vectors of `lanes`. `None` if
    /// it has too few or too many pixels, too few rows, or too little depth.
    pub fn plan(caches: &Caches, lanes: usize, problem: &Conv2d) -> Option<(f64, Self)> {
        let sizes = problem.sizes();
        let (pixels, rows, depth) = (sizes.p * sizes.q, sizes.k / sizes.groups, problem.reduction());
        if !(PIXELS..=MAX_PIXELS).contains(&pixels) || depth < MIN_DEPTH || rows < 2 * ROWS {
            return None;
        }
        let most = (known(caches.l1, L1_BYTES) / 2 / ROWS).min(WORKSPACE / 4 / pixels).max(lanes);
        let kc = even(depth, most, lanes);
        let tiles = (rows.div_ceil(ROWS) * pixels.div_ceil(PIXELS)) as f64;
        let computing = (rows * depth * pixels) as f64 / (2 * lanes) as f64;
        let adding = tiles * depth.div_ceil(kc) as f64 * ADDING;
        let transposing = depth as f64 * (pixels as f64 / 64.0 * TRANSPOSING + sizes.p as f64 * PACKING);
        Some((computing + adding + transposing, DotConv { kc }))
    }
}

/// Cycles that implicit GEMM takes to pack a group's weights in a one-shot call.
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
        let (cycles, cut) = DotConv::plan(&caches(), 16, &layer(2048, 4, 512, 1)).unwrap();
        assert_eq!(cut.kc, 1024);
        let ideal = (2048 * 16 * 512) as f64 / 32.0;
        assert!(cycles > ideal && cycles < 1.2 * ideal, "{cycles} {ideal}");
        for (l1, pixels) in [(16, 2), (32, 11), (1024, 11)] {
            let caches = Caches { l1: l1 << 10, ..caches() };
            let (_, cut) = DotConv::plan(&caches, 8, &layer(5000, pixels, 100, 3)).unwrap();
            assert!(cut.kc * ROWS * 4 <= (l1 << 10) / 2 && cut.kc.is_multiple_of(8), "{cut:?}");
            assert!((cut.kc + GAP) * (pixels * pixels) as usize <= WORKSPACE / 2, "{cut:?}");
        }
    }

    #[test]
    fn cycles_worked_by_hand() {
        let (cycles, _) = DotConv::plan(&caches(), 16, &layer(2048, 4, 512, 1)).unwrap();
        // 86 x 4 tiles in two blocks of depth. 16 pixels are a quarter of a square of 8 x 8, in four rows.
        let (adding, transposing) =
            (86.0 * 4.0 * 2.0 * ADDING, 2048.0 * (0.25 * TRANSPOSING + 4.0 * PACKING));
        assert_eq!(cycles, 512.0 * 2048.0 * 16.0 / 32.0 + adding + transposing);
        // One of four groups; 3 x 3 kernels on 5 x 7 pixels, 8 lanes.
        let desc = Conv2dDesc { c: 400, h: 7, w: 9, k: 80, r: 3, s: 3, groups: 4, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let (cycles, cut) = DotConv::plan(&caches(), 8, &problem).unwrap();
        assert_eq!(cut.kc, 904, "900 in one block, as a multiple of 8");
        let (adding, transposing) = (4.0 * 9.0 * ADDING, 900.0 * (35.0 / 64.0 * TRANSPOSING + 5.0 * PACKING));
        assert_eq!(cycles, 20.0 * 900.0 * 35.0 / 16.0 + adding + transposing);
        // A group has 20 x 900 weights. The pixels fill more than one vector, or not.
        assert_eq!(packing_weights(8, &problem), 20.0 * 900.0 * PACKING_WEIGHT[1]);
        assert_eq!(packing_weights(35, &problem), 20.0 * 900.0 * PACKING_WEIGHT[0]);
        assert_eq!(packing_weights(34, &problem), 20.0 * 900.0 * PACKING_WEIGHT[1]);
    }

    #[test]
    fn the_limits_are_exact() {
        let plan = |c, h, w, k| {
            let problem = Conv2d::new(Conv2dDesc { c, h, w, k, ..Default::default() }).unwrap();
            DotConv::plan(&caches(), 8, &problem).is_some()
        };
        assert!(plan(256, 2, 2, 12) && plan(256, 1, 128, 12));
        assert!(!plan(255, 2, 2, 12) && !plan(256, 2, 2, 11));
        assert!(!plan(256, 1, 3, 12) && !plan(256, 1, 129, 12));
    }

    #[test]
    fn large_maps_shallow_sums_and_few_rows_are_excluded() {
        for problem in [layer(2048, 14, 512, 1), layer(64, 4, 512, 1), layer(2048, 4, 8, 1)] {
            assert_eq!(DotConv::plan(&caches(), 16, &problem), None);
        }
    }
}
