use super::*;
use crate::problem::Conv2dDesc;

const AVX512: Columns = Columns { mr: 8, nr: 48, lanes: 16, beside: 2, masks: true };
const PORTABLE: Columns = Columns { mr: 4, nr: 8, lanes: 4, beside: 0, masks: false };

fn zen() -> Caches {
    Caches { l1: 48 << 10, l2: 1 << 20, l3: 32 << 20, l3_threads: 2, line: 64, ..Caches::UNKNOWN }
}

fn layer(c: i64, side: i64, k: i64, size: i64, stride: i64, pad: i64) -> Conv2d {
    let desc = Conv2dDesc {
        c,
        h: side,
        w: side,
        k,
        r: size,
        s: size,
        stride_h: stride,
        stride_w: stride,
        pad_h: pad,
        pad_w: pad,
        ..Default::default()
    };
    Conv2d::new(desc).unwrap()
}

#[test]
fn runs_are_covered_without_overlap() {
    let mut cases = 0;
    for columns in [AVX512, PORTABLE, Columns { nr: 24, mr: 4, lanes: 8, beside: 0, ..AVX512 }] {
        for (len, lead) in (1..400).flat_map(|len| (0..columns.lanes.min(len)).map(move |lead| (len, lead))) {
            let run = if lead == 0 { Run::new(&columns, len) } else { Run::led(&columns, len, lead) };
            let mut at = 0;
            for index in 0..run.panels {
                let (start, cols, beside) = run.panel(index);
                assert_eq!(start, at, "{columns:?} {len}");
                assert!(beside <= columns.beside && cols > beside && cols - beside <= columns.nr);
                assert!(lead == 0 || at == 0 || at % columns.lanes == lead, "{columns:?} {len} {lead}");
                at += cols;
            }
            assert_eq!(at, len, "{columns:?}");
            let vectors = run.vectors(&columns);
            let least = len as f64 / columns.lanes as f64;
            // At either end there may be a panel of a single vector.
            let most = len.div_ceil(columns.lanes) as f64 + ALONE - 1.0 + 1e-9;
            assert!(vectors >= least && vectors <= if lead > 0 { most + ALONE } else { most }, "{len}");
            cases += 1;
        }
    }
    assert!(cases > 0);
}

#[test]
fn columns_left_over_are_shared_out() {
    let run = Run::new(&AVX512, 196);
    assert_eq!((run.panels, run.panel(0), run.panel(3)), (4, (0, 49, 1), (147, 49, 1)));
    assert_eq!(Run::new(&AVX512, 49).panel(0), (0, 49, 1));
    assert_eq!(Run::new(&AVX512, 784).panel(16), (768, 16, 0));
}

#[test]
fn a_first_panel_aligns_the_others_where_there_are_many() {
    let views = |side| Views::plan(&zen(), AVX512, &layer(64, side, 64, 1, 1, 0), 192).unwrap();
    let led = views(56).aligned(&AVX512, 12).unwrap();
    assert_eq!(
        (led.panels, led.panel(0), led.panel(1), led.panel(66)),
        (67, (0, 12, 0), (12, 48, 0), (3132, 4, 0))
    );
    assert_eq!((views(56).aligned(&AVX512, 0), views(4).aligned(&AVX512, 12)), (None, None));
}

#[test]
fn taps_see_planes() {
    let axis = Axis { input: 224, output: 112, taps: 7, stride: 2, dilation: 1, pad: 3 };
    assert_eq!([0, 3, 6].map(|tap| axis.sees(tap)), [(1, -2), (0, 0), (1, 1)]);
    assert_eq!((axis.phases(), axis.shifts(), axis.longest()), (vec![0, 1], (-2, 1), 112));
    let sparse = Axis { input: 9, stride: 2, dilation: 2, pad: 0, taps: 3, output: 3 };
    assert_eq!((sparse.phases(), sparse.len(0), sparse.len(1)), (vec![0], 5, 4));
}

#[test]
fn maps_of_the_images_width_are_one_run_and_not_copied() {
    for problem in [layer(64, 56, 64, 3, 1, 1), layer(64, 56, 64, 1, 1, 0), layer(32, 20, 8, 5, 1, 2)] {
        let views = Views::plan(&zen(), AVX512, &problem, 192).unwrap();
        assert!(!views.staged && views.runs == 1, "{views:?}");
    }
    let strided = Views::plan(&zen(), AVX512, &layer(3, 224, 64, 7, 2, 3), 147).unwrap();
    assert!(strided.staged && strided.runs == 1 && strided.pitch == 112, "{strided:?}");
    let rows = Views::plan(&zen(), AVX512, &layer(64, 572, 64, 3, 1, 0), 192).unwrap();
    assert_eq!((rows.staged, rows.run, rows.runs), (false, 570, 570));
    // Lanes cannot be left out: only where nothing is padded.
    assert!(Views::plan(&zen(), PORTABLE, &layer(64, 56, 64, 3, 1, 1), 192).is_none());
    assert!(Views::plan(&zen(), PORTABLE, &layer(64, 56, 64, 1, 1, 0), 192).is_some());
}

#[test]
fn channels_a_power_of_two_apart_are_not_left_to_collide() {
    let views = Views::plan(&zen(), AVX512, &layer(256, 64, 64, 1, 1, 0), 192);
    assert!(views.is_none_or(|views| views.staged || views.channels <= 64), "{views:?}");
}

#[test]
fn blocks_fit_the_workspace_on_any_machine() {
    let mut cases = 0;
    for (l1, l2, l3) in
        [(16, 128, 0), (32, 256, 8 << 10), (48, 1024, 32 << 10), (128, 16 << 10, 0), (0, 0, 0)]
    {
        let caches = Caches { l1: l1 << 10, l2: l2 << 10, l3: l3 << 10, ..Caches::UNKNOWN };
        for (c, side, k, size, stride, pad) in [
            (3, 224, 64, 7, 2, 3),
            (512, 7, 512, 3, 1, 1),
            (2048, 7, 512, 1, 1, 0),
            (256, 56, 512, 1, 2, 0),
            (64, 572, 64, 3, 1, 0),
            (3, 227, 96, 11, 4, 0),
            (4096, 1, 1000, 1, 1, 0),
            (1, 5, 1, 3, 1, 1),
        ] {
            let problem = layer(c, side, k, size, stride, pad);
            for (cost, views) in Views::ways(&caches, AVX512, &problem) {
                assert!(cost.is_finite() && cost > 0.0);
                assert!(views.channels >= 1 && views.channels <= c as usize && views.panels >= 1);
                let depth = views.channels * (size * size) as usize;
                assert!(depth * MOST_BESIDE <= WORKSPACE - STAGE || views.channels == 1, "{views:?}");
                let (p, q) = (problem.sizes().p, problem.sizes().q);
                let covered = if views.width == q { p * q } else { (p - 1) * views.width + q };
                assert!(views.width >= q && views.run * views.runs == covered, "{views:?}");
                let panels = views.runs * Run::new(&views.columns(AVX512, &problem), views.run).panels;
                for threads in [1, 2, 16] {
                    let cut = Views::cut(&AVX512, panels, (2, k as usize), threads);
                    assert!(cut.width * cut.blocks >= panels);
                    assert!(cut.group * cut.groups * AVX512.mr >= k as usize);
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 40);
}

#[test]
fn limits_of_what_is_read_in_place() {
    assert_eq!((WORKSPACE, STAGE), (262_144, 196_608));
    let ways = |r, s| {
        let desc = Conv2dDesc { h: 99, w: 99, r, s, ..Default::default() };
        Views::ways(&zen(), AVX512, &Conv2d::new(desc).unwrap()).len()
    };
    // 256 taps, 64 in one direction.
    assert!(ways(16, 16) > 0 && ways(64, 4) > 0 && ways(4, 64) > 0);
    assert_eq!((ways(16, 17), ways(65, 1), ways(1, 65)), (0, 0, 0));
}

#[test]
fn runs_worked_by_hand() {
    // 65 panels of three vectors, and one of a single one.
    let run = Run::new(&AVX512, 3136);
    assert_eq!((run.panels, run.panel(65), run.vectors(&AVX512)), (66, (3120, 16, 0), 195.0 + ALONE));
    // Two vectors and a column beside; a column costs an eighth.
    assert_eq!(Run::new(&AVX512, 48 + 33).vectors(&AVX512), 3.0 + 2.0 + 0.125);
    // Seven of 16 columns are shared out among nine panels, sixteen are not.
    assert_eq!(Run::new(&AVX512, 9 * 48 + 7).vectors(&AVX512), 27.0 + 7.0 / 8.0);
    assert_eq!(Run::new(&AVX512, 9 * 48 + 8).vectors(&AVX512), 27.0 + ALONE);
    assert_eq!(Run::new(&AVX512, 3 * 48 + 7).vectors(&AVX512), 9.0 + ALONE, "more than two each");
    // Four panels of 50 columns, five of 49: as many as share three out.
    let run = Run::new(&AVX512, 7 * 48 + 3);
    assert_eq!(
        [0, 2, 3, 6].map(|index| run.panel(index)),
        [(0, 49, 1), (98, 49, 1), (147, 48, 0), (291, 48, 0)]
    );
    // A lead of 12 is a panel of a single vector, too.
    assert_eq!(Run::led(&AVX512, 3136, 12).vectors(&AVX512), ALONE + 65.0 * 3.0 + ALONE);
    // Vectors of one lane: eight and a column beside, twice.
    let scalars = Columns { mr: 16, nr: 8, lanes: 1, beside: 2, masks: true };
    assert_eq!(Run::new(&scalars, 18).vectors(&scalars), 2.0 * (8.0 + 1.0 / 16.0));
    // Of one vector for all, none is dearer.
    let single = Columns { nr: 16, ..AVX512 };
    assert_eq!(Run::new(&single, 32).vectors(&single), 2.0);
}

#[test]
fn axes_of_a_problem() {
    let desc = Conv2dDesc {
        h: 20,
        w: 31,
        r: 3,
        s: 5,
        stride_h: 2,
        stride_w: 3,
        dilation_h: 4,
        dilation_w: 2,
        pad_h: 1,
        pad_w: 6,
        ..Default::default()
    };
    let (rows, cols) = Axis::both(Conv2d::new(desc).unwrap().sizes());
    assert_eq!(rows, Axis { input: 20, output: 7, taps: 3, stride: 2, dilation: 4, pad: 1 });
    assert_eq!(cols, Axis { input: 31, output: 12, taps: 5, stride: 3, dilation: 2, pad: 6 });
    // Rows -1, 3, 7 are odd; columns -6, -4, -2, 0, 2 are every third from 0, 2, 1, 0, 2 on.
    assert_eq!([0, 1, 2].map(|tap| rows.sees(tap)), [(1, -1), (1, 1), (1, 3)]);
    assert_eq!([0, 1, 2, 3, 4].map(|tap| cols.sees(tap)), [(0, -2), (2, -2), (1, -1), (0, 0), (2, 0)]);
    assert_eq!((rows.phases(), rows.shifts(), rows.longest()), (vec![1], (-1, 3), 10));
    assert_eq!((cols.phases(), cols.shifts(), cols.longest()), (vec![0, 1, 2], (-2, 0), 11));
    assert_eq!((cols.len(0), cols.len(1), cols.len(2), rows.len(30)), (11, 10, 10, 0));
}

fn model(problem: &Conv2d) -> Model {
    Model::new(&zen(), AVX512, problem)
}

/// Cycles of so many vectors of pixels under 64 rows: multiply-adds, and a look at C for each pass.
fn computing(vectors: f64, depth: f64, passes: f64) -> f64 {
    vectors * (depth * 64.0 / 2.0 + passes * 64.0 * PASSING)
}

#[test]
fn a_model_of_a_group() {
    let problem =
        Conv2d::new(Conv2dDesc { c: 60, k: 40, groups: 4, h: 9, w: 8, r: 3, s: 2, ..Default::default() });
    let model = Model::new(&zen(), AVX512, &problem.unwrap());
    assert_eq!((model.channels_in, model.channels_out, model.taps(), model.is_point()), (15, 10, 6, false));
    // In elements; two threads share the last cache.
    assert_eq!((model.l1, model.l2, model.last), (12 << 10, 256 << 10, 4 << 20));
    let unknown = Model::new(&Caches { l2: 8 << 20, ..Caches::UNKNOWN }, AVX512, &layer(1, 1, 1, 1, 1, 0));
    assert_eq!((unknown.l1, unknown.l2, unknown.last, unknown.is_point()), (8192, 2 << 20, 2 << 20, true));
    let strided = |stride_h, stride_w| {
        Model::new(
            &zen(),
            AVX512,
            &Conv2d::new(Conv2dDesc { h: 5, w: 5, stride_h, stride_w, ..Default::default() }).unwrap(),
        )
    };
    assert!(!strided(2, 1).is_point() && !strided(1, 2).is_point() && !strided(2, 2).is_point());
    assert!(strided(1, 1).is_point());
}

#[test]
fn packed_panels_worked_by_hand() {
    // One tap: 196 vectors of each channel are packed; 3,136 pixels are 196 vectors, the last alone.
    let point = model(&layer(64, 56, 64, 1, 1, 0));
    assert_eq!(point.packed(192), computing(195.0 + ALONE, 64.0, 1.0) + 64.0 * 196.0 * PACKING);
    assert_eq!(point.packed(63), computing(195.0 + ALONE, 64.0, 2.0) + 64.0 * 196.0 * PACKING);
    // Nine taps: vectors are cut at the ends of 56 rows.
    let square = model(&layer(64, 56, 64, 3, 1, 1));
    assert_eq!(square.packed(144), computing(195.0 + ALONE, 576.0, 4.0) + 576.0 * (196.0 + 56.0) * PACKING);
}

#[test]
fn reading_in_place_worked_by_hand() {
    let whole = |channels| Views {
        staged: false,
        pitch: 56,
        run: 3136,
        runs: 1,
        width: 56,
        channels,
        panels: usize::MAX,
    };
    let point = model(&layer(64, 56, 64, 1, 1, 0));
    assert_eq!(point.in_place(false), Some((computing(195.0 + ALONE, 64.0, 1.0), whole(64))));
    assert_eq!(point.in_place(true), None, "no gaps to be had");
    // Channels 4,096 elements apart: eight places of 32,768, and four of eight ways.
    let (cost, views) = model(&layer(256, 64, 64, 1, 1, 0)).in_place(false).unwrap();
    assert_eq!(views.channels, 32);
    // 85 panels and one whose single vector is alone.
    assert_eq!(cost, computing(255.0 + ALONE, 256.0, 8.0));
    // Nothing is padded and 55 of 57 columns are pixels: row by row, or as one run through the gaps.
    let valid = model(&layer(64, 57, 64, 3, 1, 0));
    let (cost, views) = valid.in_place(false).unwrap();
    assert_eq!((views.run, views.runs, views.width, views.pitch, views.channels), (55, 55, 55, 57, 64));
    // A panel, and seven columns in a vector alone.
    let rows = computing(55.0 * (3.0 + ALONE), 576.0, 1.0);
    assert!((cost / rows - 1.0).abs() < 1e-12, "{cost} {rows}");
    let (cost, views) = valid.in_place(true).unwrap();
    assert_eq!((views.run, views.runs, views.width), (54 * 57 + 55, 1, 57));
    let vectors = 195.0 + ALONE;
    assert_eq!(cost, computing(vectors, 576.0, 1.0) + vectors * 64.0 * DROPPING);
    // With gaps, no column is computed beside vectors: two panels and a vector for a single column.
    let (cost, views) = model(&layer(64, 11, 64, 3, 1, 0)).in_place(true).unwrap();
    assert_eq!(views.run, 97);
    assert_eq!(cost, computing(6.0 + ALONE, 576.0, 1.0) + (6.0 + ALONE) * 64.0 * DROPPING);
    let views = valid.in_place(true).unwrap().1;
    // In two passes the sums come back once.
    let views = Views { channels: 32, ..views };
    assert_eq!(valid.viewing(&views, 2), computing(vectors, 576.0, 2.0) + vectors * (64.0 * 3.0) * DROPPING);
    // A stride in either direction, or lanes that would have to be left out.
    for (stride_h, stride_w) in [(1, 2), (2, 1)] {
        let desc = Conv2dDesc { h: 9, w: 9, stride_h, stride_w, ..Default::default() };
        assert_eq!(model(&Conv2d::new(desc).unwrap()).in_place(false), None);
    }
    for (pad_h, pad_w, can) in [(0, 0, true), (1, 0, false), (0, 1, false)] {
        let desc = Conv2dDesc { h: 9, w: 9, r: 3, s: 3, pad_h, pad_w, ..Default::default() };
        let model = Model::new(&zen(), PORTABLE, &Conv2d::new(desc).unwrap());
        assert_eq!((model.in_place(false).is_some(), model.staged(false).is_some()), (can, can));
    }
    // A map of a single row has no gaps.
    let row = Conv2d::new(Conv2dDesc { h: 3, w: 57, r: 3, s: 3, ..Default::default() }).unwrap();
    assert_eq!(model(&row).in_place(true), None);
}

#[test]
fn staging_worked_by_hand() {
    // Every other row and column of 224: four planes of 112 x 112, of which an output sees rows -2 to 1.
    let first = model(&layer(3, 224, 64, 7, 2, 3));
    let (cost, views) = first.staged(false).unwrap();
    // A third of L2, 87,381 elements, holds four planes of three channels as 61 rows of 112 and three of halo: 132 panels.
    let expected =
        Views { staged: true, pitch: 112, run: 12_544, runs: 1, width: 112, channels: 3, panels: 132 };
    assert_eq!(views, expected);
    // 262 panels in two parts; each copies its rows and four more, seven vectors each, of every plane and channel.
    let copied = 3.0 * ((112.0 + 2.0 * 4.0) * 4.0) * 7.0;
    assert_eq!(cost, computing(261.0 * 3.0 + ALONE, 147.0, 1.0) + copied * STAGING);
    assert_eq!(first.staged(true), None, "no gaps to be had");
    // Three planes of rows by two of columns, all seen without a halo; rows of 30 in planes of 31.
    let desc =
        Conv2dDesc { c: 5, h: 60, w: 61, k: 64, r: 3, s: 3, stride_h: 3, stride_w: 2, ..Default::default() };
    let uneven = model(&Conv2d::new(desc).unwrap());
    let copied = (5 * (20 + 1) * 6 * 2) as f64;
    let (cost, views) = uneven.staged(false).unwrap();
    assert_eq!((views.pitch, views.run, views.runs, views.channels, views.panels), (31, 30, 20, 5, 20));
    assert_eq!(cost, computing(20.0 * 2.0, 45.0, 1.0) + copied * STAGING);
    let (cost, views) = uneven.staged(true).unwrap();
    assert_eq!((views.run, views.runs, views.width, views.panels), (19 * 31 + 30, 1, 31, 13));
    assert_eq!(cost, computing(39.0, 45.0, 1.0) + 39.0 * 64.0 * DROPPING + copied * STAGING);
    // Planes of 57 columns under rows of 55: row by row.
    let gaps = model(&layer(3, 227, 64, 11, 4, 0));
    let (_, views) = gaps.staged(false).unwrap();
    assert_eq!((views.pitch, views.run, views.runs, views.width), (57, 55, 55, 55));
    let (_, views) = gaps.staged(true).unwrap();
    assert_eq!((views.pitch, views.run, views.runs, views.width), (57, 54 * 57 + 55, 1, 57));
    // Of more passes over fewer channels, which copy less often, the cheapest number is taken.
    let deep = model(&layer(512, 56, 64, 3, 2, 1));
    let (cost, views) = deep.staged(false).unwrap();
    let passes = 512usize.div_ceil(views.channels);
    assert!(passes > 1);
    let planes_rows = (28 + Run::new(&AVX512, 784).panels.div_ceil(views.panels) * 2) * 4;
    let copied = (512 * planes_rows * 2) as f64;
    assert_eq!(cost, deep.viewing(&views, passes) + copied * STAGING);
    // Rows too long for the cache are not staged.
    let caches = Caches { l1: 4 << 10, l2: 16 << 10, ..Caches::UNKNOWN };
    let long =
        Conv2d::new(Conv2dDesc { h: 3, w: 4000, r: 3, s: 3, stride_w: 2, ..Default::default() }).unwrap();
    assert_eq!(Model::new(&caches, AVX512, &long).staged(false), None);
}

#[test]
fn channels_of_a_block_worked_by_hand() {
    let channels = |problem: &Conv2d| model(problem).channels();
    // A is small enough for the last cache: all channels, if half of L2 holds a panel of B: 131,072 of 249 elements.
    assert_eq!(channels(&layer(64, 56, 64, 3, 1, 1)), 64);
    assert_eq!(channels(&layer(1000, 56, 64, 3, 1, 1)), 500, "at most 526");
    assert_eq!(channels(&layer(1100, 56, 64, 3, 1, 1)), 367);
    // 4 M elements of A are too many: half of L2 holds 28 channels of 512 x 9, L1 21.
    assert_eq!(channels(&layer(1024, 56, 512, 3, 1, 1)), 28);
    // A single panel meets A only once.
    assert_eq!(channels(&layer(1024, 7, 512, 3, 1, 1)), 512);
    assert_eq!([8, 10].map(|side| channels(&layer(1024, side, 512, 3, 1, 1))), [28; 2], "two or more panels");
    // At least as many as L1 holds of a tile's columns and rows: 21 of nine taps.
    assert_eq!(channels(&layer(1024, 56, 1024, 3, 1, 1)), 21);
    // Of many taps few fit beside vectors: 8,192 of 121.
    assert_eq!(channels(&layer(1000, 56, 8, 11, 1, 5)), 67);
    // L1 holds 192 of a tile's columns and rows: at least so many, however large A.
    assert_eq!(channels(&layer(4096, 56, 4096, 1, 1, 0)), 187);
}

#[test]
fn all_ways_and_the_cheapest() {
    let problem = layer(64, 57, 64, 3, 1, 0);
    let ways = Views::ways(&zen(), AVX512, &problem);
    let expected = [
        model(&problem).in_place(false),
        model(&problem).staged(false),
        model(&problem).in_place(true),
        model(&problem).staged(true),
    ];
    assert_eq!(ways, expected.into_iter().flatten().collect::<Vec<_>>());
    let (least, best) = ways.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert_eq!(Views::plan(&zen(), AVX512, &problem, 144), Some(best));
    // 66 panels, each with 8 tiles of three vectors, of 64 rows.
    let panels = 64.0 * (PANEL + 64.0 * 3.0 * TILE);
    assert_eq!(Views::cycles(&zen(), AVX512, &problem, 144), least + panels);
    // Where packing is cheaper than all of them.
    let padded = layer(64, 56, 64, 3, 1, 1);
    let packed = Model::new(&zen(), PORTABLE, &padded).packed(100);
    let panels = 392.0 * (PANEL + 64.0 * 2.0 * TILE);
    assert_eq!(Views::cycles(&zen(), PORTABLE, &padded, 100), packed + panels);
}

#[test]
fn an_image_that_stays_in_the_cache() {
    let in_place = model(&layer(64, 57, 64, 3, 1, 0)).in_place(false).unwrap().1;
    // 128 KiB of 1 MiB.
    assert!(in_place.whole(&zen(), 32_768) && !in_place.whole(&zen(), 32_769));
    assert!(!Views { staged: true, ..in_place }.whole(&zen(), 1));
    assert!(in_place.whole(&Caches::UNKNOWN, 8192) && !in_place.whole(&Caches::UNKNOWN, 8193));
}

#[test]
fn columns_aligned_and_cut() {
    let problem = layer(64, 57, 64, 3, 1, 0);
    let with_gaps = model(&problem).in_place(true).unwrap().1;
    let without = model(&problem).in_place(false).unwrap().1;
    assert_eq!(with_gaps.columns(AVX512, &problem), Columns { beside: 0, ..AVX512 });
    assert_eq!(without.columns(AVX512, &problem), AVX512);
    // A lead is worth it as long as it costs less than loads in two halves, 6 %: not for a run of a few panels.
    let run = |len| Views { run: len, ..without }.aligned(&AVX512, 5);
    assert!(run(48 * 40).is_some() && run(48 * 6).is_none() && run(5).is_none() && run(4).is_none());
    // Tiles of 8 rows, panels of B.
    let cut = Views::cut(&AVX512, 66, (1, 500), 1);
    assert_eq!(cut, Cut { width: 66, group: 63, blocks: 1, groups: 1 });
    let cut = Views::cut(&AVX512, 66, (1, 500), 4);
    assert_eq!((cut.blocks, cut.groups), (66usize.div_ceil(cut.width), 63usize.div_ceil(cut.group)));
    assert!(cut.blocks * cut.groups >= 4);
    // 49,152 elements hold 10 tiles of 8 x 576; two threads get four groups each.
    let by_rows = |depth, threads| {
        let Cut { width, group, blocks, groups } = Cut::by_rows(&AVX512, 7, (512, depth), threads);
        assert_eq!((width, blocks), (7, 1));
        (group, groups)
    };
    assert_eq!((by_rows(576, 1), by_rows(576, 2), by_rows(576, 3)), ((10, 7), (8, 8), (6, 11)));
    assert_eq!(
        (by_rows(1, 1), by_rows(100_000, 1), by_rows(6144, 1), by_rows(6145, 1)),
        ((64, 1), (1, 64), (1, 64), (1, 64))
    );
    assert_eq!(by_rows(3072, 1), (2, 32));
}
