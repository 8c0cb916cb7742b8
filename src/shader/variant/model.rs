//! Predicted times, computed by hand. Each term of the model is tested where it dominates.

use super::*;
use crate::problem::Conv2dDesc;

/// Round costs of operations, bytes and launches.
const ROUND: Gpu = Gpu { flops: 1e12, memory: 1e11, launch: 1e-3, ..Gpu::ASSUMED };
/// Only arithmetic costs time.
const COMPUTES: Gpu = Gpu { flops: 1e6, memory: 1e30, launch: 0.0, ..ROUND };
/// Only memory costs time.
const MOVES: Gpu = Gpu { flops: 1e30, memory: 1e3, launch: 0.0, ..ROUND };
/// Neither does: only latency remains.
const WAITS: Gpu = Gpu { flops: 1e30, memory: 1e30, launch: 0.0, ..ROUND };

fn problem() -> Conv2d {
    let desc = Conv2dDesc { n: 2, c: 12, h: 10, w: 14, k: 8, r: 5, s: 3, groups: 2, ..Default::default() };
    Conv2d::new(desc).unwrap()
}

fn near(value: f64, expected: f64, what: &str) {
    assert!((value / expected - 1.0).abs() < 1e-9, "{what}: {value}, expected {expected}");
}

#[test]
fn kernels_without_tiles_take_as_long_as_their_slowest_part() {
    let problem = problem();
    // 2 images, 8 channels, 6 x 12 outputs of 6 x 5 x 3 products.
    let flops = 2.0 * (2 * 8 * 6 * 12) as f64 * 90.0;
    // Images, weights and outputs, four bytes per element.
    let bytes = 4.0 * (2 * 12 * 10 * 14 + 8 * 6 * 15 + 2 * 8 * 6 * 12) as f64;
    assert_eq!((problem.flops() as f64, problem.bytes() as f64), (flops, bytes));
    let time = |gpu: &Gpu, family| seconds(&problem, gpu, &Variant { family, ..Variant::FALLBACK });
    near(time(&COMPUTES, Family::Fallback), flops / 1e6 / 0.012, "direct");
    near(time(&MOVES, Family::Fallback), bytes / 1e3, "direct");
    // Six channels of five kernel rows.
    near(time(&WAITS, Family::Fallback), 30.0 * 0.45e-6, "direct");
    for tm in [1, 4] {
        let rows = tm as f64;
        let family = Family::Grouped(tm);
        near(time(&COMPUTES, family), flops / 1e6 / (0.25 * rows / (rows + 1.0)), "grouped");
        near(time(&MOVES, family), 1.5 * bytes / 1e3, "grouped");
        near(time(&WAITS, family), 30.0 * (0.18e-6 + 3.0 * rows * 0.02e-6), "grouped");
    }
    for (kg, waiting) in [(2, 6.0), (8, 2.0)] {
        let (family, parts) = (Family::Pointwise(kg), kg as f64 * 0.2e-6);
        near(time(&COMPUTES, family), flops / 1e6 / 0.25 + parts, "pointwise");
        near(time(&MOVES, family), 2.0 * bytes / 1e3, "pointwise");
        near(time(&WAITS, family), waiting * 0.11e-6 + parts, "pointwise");
    }
    for family in [Family::Fallback, Family::Grouped(2), Family::Pointwise(4)] {
        near(time(&Gpu { launch: 0.5, ..WAITS }, family), time(&WAITS, family) + 0.5, "launch");
    }
}

#[test]
fn products_have_the_sizes_of_the_convolution() {
    let (problem, tile) = (problem(), TILES[0]);
    let bytes = problem.bytes();
    let grouped = TiledProducts {
        count: 2,
        rows: 4,
        cols: 2 * 6 * 12,
        slices: 15,
        bytes,
        gathered: true,
        checked: true,
    };
    // Slices of eight: six channels for each of 15 taps, or 90 products altogether.
    assert_eq!(products(&problem, &tile, Family::Igemm), grouped);
    assert_eq!(products(&problem, &tile, Family::Table), TiledProducts { slices: 12, ..grouped });
    let seen = |desc, family| {
        let it = products(&Conv2d::new(desc).unwrap(), &tile, family);
        (it.gathered, it.checked)
    };
    let map = Conv2dDesc { c: 16, h: 4, w: 5, k: 4, ..Default::default() };
    for (desc, table, gathered, checked) in [
        (map, false, false, false),
        (map, true, true, false),
        (Conv2dDesc { h: 5, ..map }, false, true, false),
        (Conv2dDesc { h: 2, w: 2, ..map }, false, false, false),
        (Conv2dDesc { h: 3, w: 1, ..map }, false, true, false),
        (Conv2dDesc { stride_h: 2, h: 8, ..map }, false, true, false),
        (Conv2dDesc { r: 2, h: 5, ..map }, false, true, true),
        (Conv2dDesc { s: 2, w: 6, ..map }, false, true, true),
        (Conv2dDesc { pad_h: 2, ..map }, false, true, true),
        (Conv2dDesc { pad_w: 2, ..map }, false, true, true),
        (Conv2dDesc { pad_h: 1, pad_w: 1, ..map }, false, true, true),
    ] {
        let family = if table { Family::Table } else { Family::Igemm };
        assert_eq!(seen(desc, family), (gathered, checked), "{desc:?} {table}");
    }
    let steps = |desc, family| table_and_taps(&Conv2d::new(desc).unwrap(), &tile, family);
    for (r, s, taps) in [(1, 1, false), (2, 1, true), (1, 2, true), (3, 3, true)] {
        let desc = Conv2dDesc { c: 3, h: 4, w: 5, r, s, ..Default::default() };
        let depth = (3 * r as usize * s as usize).next_multiple_of(8);
        assert_eq!(steps(desc, Family::Igemm), (0, taps));
        assert_eq!(steps(desc, Family::Table), (depth, taps));
        assert_eq!(steps(desc, Family::Winograd(2)), (0, false));
    }
}

#[test]
fn winograd_takes_the_time_of_its_products_and_transforms() {
    let desc = Conv2dDesc { n: 3, c: 20, h: 9, w: 7, k: 10, r: 3, s: 3, ..Default::default() };
    let (problem, tile) = (Conv2d::new(desc).unwrap(), TILES[0]);
    // 7 x 5 outputs in each of three images: 2 x 2 tiles of 4 x 4, or 4 x 3 tiles of 2 x 2.
    for (m, tiles) in [(4, 12), (2, 36)] {
        let frequencies = (m + 2) * (m + 2);
        let bytes = 4 * frequencies * (tiles * 30 + 200);
        let expected = TiledProducts {
            count: frequencies,
            rows: 10,
            cols: tiles,
            slices: 3,
            bytes: bytes as u64,
            gathered: false,
            checked: false,
        };
        let family = Family::Winograd(m);
        assert_eq!(products(&problem, &tile, family), expected);
        assert_eq!(winograd_tiles(problem.sizes(), m), tiles);
        let variant = Variant { family, tile, splits: 1 };
        let passed = bytes as f64 + problem.bytes() as f64;
        let whole = tiles::seconds(&ROUND, &tile, &expected, 1) + 2.0 * 1e-3 + 0.88 * passed / 1e11;
        near(seconds(&problem, &ROUND, &variant), whole, "winograd");
        let whole = tiles::seconds(&MOVES, &tile, &expected, 1) + 0.88 * passed / 1e3;
        near(seconds(&problem, &MOVES, &variant), whole, "winograd");
    }
    // One image has three tiles in a row; a fourth pads the vector.
    let line = Conv2dDesc { h: 3, w: 12, pad_w: 1, ..desc };
    let one = Conv2d::new(Conv2dDesc { n: 1, ..line }).unwrap();
    assert_eq!(winograd_tiles(one.sizes(), 4), 4);
    let two = Conv2d::new(Conv2dDesc { n: 2, ..line }).unwrap();
    assert_eq!(winograd_tiles(two.sizes(), 4), 8);
}
