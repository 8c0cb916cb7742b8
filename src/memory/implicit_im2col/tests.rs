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
            let run =
                if lead == 0 { ColumnRun::new(&columns, len) } else { ColumnRun::led(&columns, len, lead) };
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
            // The first and the last panel may have a single vector.
            let most = len.div_ceil(columns.lanes) as f64 + ALONE - 1.0 + 1e-9;
            assert!(vectors >= least && vectors <= if lead > 0 { most + ALONE } else { most }, "{len}");
            cases += 1;
        }
    }
    assert!(cases > 0);
}

#[test]
fn remaining_columns_are_distributed() {
    let run = ColumnRun::new(&AVX512, 196);
    assert_eq!((run.panels, run.panel(0), run.panel(3)), (4, (0, 49, 1), (147, 49, 1)));
    assert_eq!(ColumnRun::new(&AVX512, 49).panel(0), (0, 49, 1));
    assert_eq!(ColumnRun::new(&AVX512, 784).panel(16), (768, 16, 0));
}

#[test]
fn a_first_panel_aligns_the_others_where_there_are_many() {
    let implicit = |side| ImplicitIm2col::plan(&zen(), AVX512, &layer(64, side, 64, 1, 1, 0), 192).unwrap();
    let led = implicit(56).aligned(&AVX512, 12).unwrap();
    assert_eq!(
        (led.panels, led.panel(0), led.panel(1), led.panel(66)),
        (67, (0, 12, 0), (12, 48, 0), (3132, 4, 0))
    );
    assert_eq!((implicit(56).aligned(&AVX512, 0), implicit(4).aligned(&AVX512, 12)), (None, None));
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
        let implicit = ImplicitIm2col::plan(&zen(), AVX512, &problem, 192).unwrap();
        assert!(!implicit.staged && implicit.runs == 1, "{implicit:?}");
    }
    let strided = ImplicitIm2col::plan(&zen(), AVX512, &layer(3, 224, 64, 7, 2, 3), 147).unwrap();
    assert!(strided.staged && strided.runs == 1 && strided.pitch == 112, "{strided:?}");
    let rows = ImplicitIm2col::plan(&zen(), AVX512, &layer(64, 572, 64, 3, 1, 0), 192).unwrap();
    assert_eq!((rows.staged, rows.run, rows.runs), (false, 570, 570));
    // Without cheap masks only where there is no padding.
    assert!(ImplicitIm2col::plan(&zen(), PORTABLE, &layer(64, 56, 8, 3, 1, 1), 192).is_none());
    assert!(ImplicitIm2col::plan(&zen(), PORTABLE, &layer(64, 56, 64, 1, 1, 0), 192).is_some());
}

#[test]
fn channels_a_power_of_two_apart_do_not_collide_in_the_cache() {
    let implicit = ImplicitIm2col::plan(&zen(), AVX512, &layer(256, 64, 64, 1, 1, 0), 192);
    assert!(implicit.is_none_or(|implicit| implicit.staged || implicit.channels <= 64), "{implicit:?}");
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
            for (cost, implicit) in ImplicitIm2col::ways(&caches, AVX512, &problem) {
                assert!(cost.is_finite() && cost > 0.0);
                assert!(implicit.channels >= 1 && implicit.channels <= c as usize && implicit.panels >= 1);
                let depth = implicit.channels * (size * size) as usize;
                assert!(depth * MAX_BESIDE <= WORKSPACE - STAGE || implicit.channels == 1, "{implicit:?}");
                let (p, q) = (problem.sizes().p, problem.sizes().q);
                let covered = if implicit.width == q { p * q } else { (p - 1) * implicit.width + q };
                assert!(implicit.width >= q && implicit.run * implicit.runs == covered, "{implicit:?}");
                let panels =
                    implicit.runs * ColumnRun::new(&implicit.columns(AVX512, &problem), implicit.run).panels;
                for threads in [1, 2, 16] {
                    let cut = ImplicitIm2col::cut(&AVX512, panels, (2, k as usize), threads);
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
        ImplicitIm2col::ways(&zen(), AVX512, &Conv2d::new(desc).unwrap()).len()
    };
    // 512 taps, 64 in one direction.
    assert!(ways(16, 32) > 0 && ways(64, 8) > 0 && ways(8, 64) > 0);
    assert_eq!((ways(19, 27), ways(65, 1), ways(1, 65)), (0, 0, 0));
}

#[test]
fn runs_worked_by_hand() {
    // 65 panels of three vectors, and one of a single vector.
    let run = ColumnRun::new(&AVX512, 3136);
    assert_eq!((run.panels, run.panel(65), run.vectors(&AVX512)), (66, (3120, 16, 0), 195.0 + ALONE));
    // Two vectors and a column beside; a column costs an eighth.
    assert_eq!(ColumnRun::new(&AVX512, 48 + 33).vectors(&AVX512), 3.0 + 2.0 + 0.125);
    // Seven of 16 columns are distributed over nine panels, sixteen are not.
    assert_eq!(ColumnRun::new(&AVX512, 9 * 48 + 7).vectors(&AVX512), 27.0 + 7.0 / 8.0);
    assert_eq!(ColumnRun::new(&AVX512, 9 * 48 + 8).vectors(&AVX512), 27.0 + ALONE);
    assert_eq!(ColumnRun::new(&AVX512, 3 * 48 + 7).vectors(&AVX512), 9.0 + ALONE, "more than two each");
    // Four panels of 50 columns, five of 49: as many as share three out.
    let run = ColumnRun::new(&AVX512, 7 * 48 + 3);
    assert_eq!(
        [0, 2, 3, 6].map(|index| run.panel(index)),
        [(0, 49, 1), (98, 49, 1), (147, 48, 0), (291, 48, 0)]
    );
    // A lead of 12 is a panel of a single vector as well.
    assert_eq!(ColumnRun::led(&AVX512, 3136, 12).vectors(&AVX512), ALONE + 65.0 * 3.0 + ALONE);
    // Vectors of one lane: eight and a column beside, twice.
    let scalars = Columns { mr: 16, nr: 8, lanes: 1, beside: 2, masks: true };
    assert_eq!(ColumnRun::new(&scalars, 18).vectors(&scalars), 2.0 * (8.0 + 1.0 / 16.0));
    // If all tiles have a single vector, none costs more.
    let single = Columns { nr: 16, ..AVX512 };
    assert_eq!(ColumnRun::new(&single, 32).vectors(&single), 2.0);
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

/// Cycles of that many vectors of pixels for 64 rows: multiply-adds, and reading and writing C in each pass.
fn computing(vectors: f64, depth: f64, passes: f64) -> f64 {
    vectors * (depth * 64.0 / 2.0 + passes * 64.0 * PASSING)
}

#[test]
fn a_model_of_a_group() {
    let problem =
        Conv2d::new(Conv2dDesc { c: 60, k: 40, groups: 4, h: 9, w: 8, r: 3, s: 2, ..Default::default() });
    let model = Model::new(&zen(), AVX512, &problem.unwrap());
    assert_eq!((model.channels_in, model.channels_out, model.taps(), model.is_point()), (15, 10, 6, false));
    // In elements. Two threads share the last cache.
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
    // One tap: 196 vectors of each channel are packed. 3,136 pixels are 196 vectors, the last one in a tile of its own.
    let point = model(&layer(64, 56, 64, 1, 1, 0));
    assert_eq!(point.packed(192), computing(195.0 + ALONE, 64.0, 1.0) + 64.0 * 196.0 * PACKING);
    assert_eq!(point.packed(63), computing(195.0 + ALONE, 64.0, 2.0) + 64.0 * 196.0 * PACKING);
    // Nine taps: vectors are cut at the ends of 56 rows.
    let square = model(&layer(64, 56, 64, 3, 1, 1));
    assert_eq!(square.packed(144), computing(195.0 + ALONE, 576.0, 4.0) + 576.0 * (196.0 + 56.0) * PACKING);
}

#[test]
fn reading_in_place_worked_by_hand() {
    let whole = |channels| ImplicitIm2col {
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
    assert_eq!(point.in_place(true), None, "no gaps are possible");
    // Channels 4,096 elements apart have eight positions in a way of 32,768 elements. Four of eight ways are used.
    let (cost, implicit) = model(&layer(256, 64, 64, 1, 1, 0)).in_place(false).unwrap();
    assert_eq!(implicit.channels, 32);
    // 85 panels and one whose single vector is alone.
    assert_eq!(cost, computing(255.0 + ALONE, 256.0, 8.0));
    // No padding, and 55 of 57 columns are pixels: row by row, or one run with gaps.
    let valid = model(&layer(64, 57, 64, 3, 1, 0));
    let (cost, implicit) = valid.in_place(false).unwrap();
    assert_eq!(
        (implicit.run, implicit.runs, implicit.width, implicit.pitch, implicit.channels),
        (55, 55, 55, 57, 64)
    );
    // A panel, and seven columns in a tile of a single vector.
    let rows = computing(55.0 * (3.0 + ALONE), 576.0, 1.0);
    assert!((cost / rows - 1.0).abs() < 1e-12, "{cost} {rows}");
    let (cost, implicit) = valid.in_place(true).unwrap();
    assert_eq!((implicit.run, implicit.runs, implicit.width), (54 * 57 + 55, 1, 57));
    let vectors = 195.0 + ALONE;
    assert_eq!(cost, computing(vectors, 576.0, 1.0) + vectors * 64.0 * DROPPING);
    // With gaps, no column is computed beside vectors: two panels and a vector for a single column.
    let (cost, implicit) = model(&layer(64, 11, 64, 3, 1, 0)).in_place(true).unwrap();
    assert_eq!(implicit.run, 97);
    assert_eq!(cost, computing(6.0 + ALONE, 576.0, 1.0) + (6.0 + ALONE) * 64.0 * DROPPING);
    let implicit = valid.in_place(true).unwrap().1;
    // In two passes the sums are read back once.
    let implicit = ImplicitIm2col { channels: 32, ..implicit };
    assert_eq!(
        valid.computing_with(&implicit, 2),
        computing(vectors, 576.0, 2.0) + vectors * (64.0 * 3.0) * DROPPING
    );
    // A stride in either direction, or lanes that would have to be masked.
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
    // Stride 2 on 224 x 224: four planes of 112 x 112, of which an output sees rows -2 to 1.
    let first = model(&layer(3, 224, 64, 7, 2, 3));
    let (cost, implicit) = first.staged(false).unwrap();
    // A third of L2, 87,381 elements, holds four planes of three channels as 61 rows of 112 and three of halo: 132
    // panels.
    let expected = ImplicitIm2col {
        staged: true,
        pitch: 112,
        run: 12_544,
        runs: 1,
        width: 112,
        channels: 3,
        panels: 132,
    };
    assert_eq!(implicit, expected);
    // 262 panels in two parts. Each copies its rows and four more, of seven vectors, for every plane and channel.
    let copied = 3.0 * ((112.0 + 2.0 * 4.0) * 4.0) * 7.0;
    assert_eq!(cost, computing(261.0 * 3.0 + ALONE, 147.0, 1.0) + copied * STAGING);
    assert_eq!(first.staged(true), None, "no gaps are possible");
    // Three planes of rows by two of columns, without a halo. Rows of 30 in planes of 31.
    let desc =
        Conv2dDesc { c: 5, h: 60, w: 61, k: 64, r: 3, s: 3, stride_h: 3, stride_w: 2, ..Default::default() };
    let uneven = model(&Conv2d::new(desc).unwrap());
    let copied = (5 * (20 + 1) * 6 * 2) as f64;
    let (cost, implicit) = uneven.staged(false).unwrap();
    assert_eq!(
        (implicit.pitch, implicit.run, implicit.runs, implicit.channels, implicit.panels),
        (31, 30, 20, 5, 20)
    );
    assert_eq!(cost, computing(20.0 * 2.0, 45.0, 1.0) + copied * STAGING);
    let (cost, implicit) = uneven.staged(true).unwrap();
    assert_eq!((implicit.run, implicit.runs, implicit.width, implicit.panels), (19 * 31 + 30, 1, 31, 13));
    assert_eq!(cost, computing(39.0, 45.0, 1.0) + 39.0 * 64.0 * DROPPING + copied * STAGING);
    // Planes of 57 columns for rows of 55: row by row.
    let gaps = model(&layer(3, 227, 64, 11, 4, 0));
    let (_, implicit) = gaps.staged(false).unwrap();
    assert_eq!((implicit.pitch, implicit.run, implicit.runs, implicit.width), (57, 55, 55, 55));
    let (_, implicit) = gaps.staged(true).unwrap();
    assert_eq!((implicit.pitch, implicit.run, implicit.runs, implicit.width), (57, 54 * 57 + 55, 1, 57));
    // More passes over fewer channels copy rows less often. The cheapest number of passes is chosen.
    let deep = model(&layer(512, 56, 64, 3, 2, 1));
    let (cost, implicit) = deep.staged(false).unwrap();
    let passes = 512usize.div_ceil(implicit.channels);
    assert!(passes > 1);
    let planes_rows = (28 + ColumnRun::new(&AVX512, 784).panels.div_ceil(implicit.panels) * 2) * 4;
    let copied = (512 * planes_rows * 2) as f64;
    assert_eq!(cost, deep.computing_with(&implicit, passes) + copied * STAGING);
    // Rows too long for the cache are not staged.
    let caches = Caches { l1: 4 << 10, l2: 16 << 10, ..Caches::UNKNOWN };
    let long =
        Conv2d::new(Conv2dDesc { h: 3, w: 4000, r: 3, s: 3, stride_w: 2, ..Default::default() }).unwrap();
    assert_eq!(Model::new(&caches, AVX512, &long).staged(false), None);
}

#[test]
fn channels_of_a_block_worked_by_hand() {
    let channels = |problem: &Conv2d| model(problem).channels();
    // Two panels of A read B in place.
    assert_eq!(channels(&layer(64, 56, 16, 3, 1, 1)), 64);
    assert_eq!(channels(&layer(1000, 56, 16, 3, 1, 1)), 200, "room for columns beside of 2,048 depths");
    // A third panel of A packs B for the others: an eighth of L2, 32,768 elements, holds 682 depths, 75 channels.
    assert_eq!(channels(&layer(64, 56, 17, 3, 1, 1)), 64);
    assert_eq!(channels(&layer(1000, 56, 17, 3, 1, 1)), 72);
    assert_eq!(channels(&layer(1000, 56, 64, 1, 1, 0)), 500);
    // 4 M elements of A are too many: half of L2 holds 28 channels of 512 x 9, L1 21.
    assert_eq!(channels(&layer(1024, 56, 512, 3, 1, 1)), 28);
    // A single panel meets A only once.
    assert_eq!(channels(&layer(1024, 7, 512, 3, 1, 1)), 74);
    assert_eq!([8, 10].map(|side| channels(&layer(1024, side, 512, 3, 1, 1))), [28; 2], "two or more panels");
    // A map of a single vector is not packed. There is room for 2,048 columns beside vectors.
    assert_eq!(channels(&layer(1024, 4, 512, 3, 1, 1)), 205);
    // At least as many as L1 holds of a tile's columns and rows: 21 with nine taps.
    assert_eq!(channels(&layer(1024, 56, 1024, 3, 1, 1)), 21);
    // With many taps, few channels fit in the room for columns beside vectors: 2,048 / 121.
    assert_eq!(channels(&layer(1000, 56, 8, 11, 1, 5)), 16);
    // At least as many as L1 holds of a tile's columns and rows, 192, however large A is.
    assert_eq!(channels(&layer(4096, 56, 4096, 1, 1, 0)), 187);
}

#[test]
fn all_plans_and_the_cheapest() {
    let problem = layer(64, 57, 64, 3, 1, 0);
    let ways = ImplicitIm2col::ways(&zen(), AVX512, &problem);
    let expected = [
        model(&problem).in_place(false),
        model(&problem).staged(false),
        model(&problem).in_place(true),
        model(&problem).staged(true),
    ];
    assert_eq!(ways, expected.into_iter().flatten().collect::<Vec<_>>());
    let (least, best) = ways.iter().copied().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert_eq!(ImplicitIm2col::plan(&zen(), AVX512, &problem, 144), Some(best));
    // 66 panels, each with 8 tiles of three vectors, of 64 rows.
    let panels = 64.0 * (PANEL + 64.0 * 3.0 * TILE);
    assert_eq!(ImplicitIm2col::cycles(&zen(), AVX512, &problem, 144), least + panels);
    // Packing is cheaper than all of them.
    let padded = layer(64, 56, 8, 3, 1, 1);
    let packed = Model::new(&zen(), PORTABLE, &padded).packed(100);
    let panels = 392.0 * (PANEL + 8.0 * 2.0 * TILE);
    assert_eq!(ImplicitIm2col::cycles(&zen(), PORTABLE, &padded, 100), packed + panels);
}

#[test]
fn an_image_that_stays_in_the_cache() {
    let in_place = model(&layer(64, 57, 64, 3, 1, 0)).in_place(false).unwrap().1;
    // 128 KiB of 1 MiB.
    assert!(in_place.whole(&zen(), 32_768) && !in_place.whole(&zen(), 32_769));
    assert!(!ImplicitIm2col { staged: true, ..in_place }.whole(&zen(), 1));
    assert!(in_place.whole(&Caches::UNKNOWN, 8192) && !in_place.whole(&Caches::UNKNOWN, 8193));
}

#[test]
fn columns_aligned_and_cut() {
    let problem = layer(64, 57, 64, 3, 1, 0);
    let with_gaps = model(&problem).in_place(true).unwrap().1;
    let without = model(&problem).in_place(false).unwrap().1;
    assert_eq!(with_gaps.columns(AVX512, &problem), Columns { beside: 0, ..AVX512 });
    assert_eq!(without.columns(AVX512, &problem), AVX512);
    // A lead pays if it costs less than the 6 % for straddling loads: not for a run of a few panels.
    let run = |len| ImplicitIm2col { run: len, ..without }.aligned(&AVX512, 5);
    assert!(run(48 * 40).is_some() && run(48 * 6).is_none() && run(5).is_none() && run(4).is_none());
    // Tiles of 8 rows, panels of B.
    let cut = ImplicitIm2col::cut(&AVX512, 66, (1, 500), 1);
    assert_eq!(cut, TaskGrid { width: 66, group: 63, blocks: 1, groups: 1 });
    let cut = ImplicitIm2col::cut(&AVX512, 66, (1, 500), 4);
    assert_eq!((cut.blocks, cut.groups), (66usize.div_ceil(cut.width), 63usize.div_ceil(cut.group)));
    assert!(cut.blocks * cut.groups >= 4);
    // 49,152 elements hold 10 tiles of 8 x 576; two threads get four groups each.
    let by_rows = |depth, threads| {
        let TaskGrid { width, group, blocks, groups } = TaskGrid::by_rows(&AVX512, 7, (512, depth), threads);
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
