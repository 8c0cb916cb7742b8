//! Passes, buffers and constants of every family, derived independently from the problem.

use std::collections::{BTreeMap, BTreeSet};

use super::convolution::{WINOGRAD_F2, WINOGRAD_F4};
use super::defines::Shape;
use super::tile::{TileOptions, tile_pass};
use super::*;
use crate::memory::tiles::{Gpu, TILES, Tile};
use crate::problem::{Conv2dDesc, Gemm, GemmDesc, Layout, TensorLayout, Transpose, WeightsLayout};
use crate::shader::cases::Cases;
use crate::shader::cases::tests::LARGE;
use crate::shader::iterations;
use crate::shader::source::check_with_glslang;
use crate::shader::variant::candidates;

/// The constants at the head of a shader.
fn constants(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("#define "));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

fn check(constants: &BTreeMap<&str, &str>, expected: &[(&str, usize)], what: &str) {
    for (name, value) in expected {
        assert_eq!(constants.get(name), Some(&&*value.to_string()), "{name} of {what}");
    }
}

/// The constants that state the problem.
fn sizes_of(problem: &Conv2d) -> Vec<(&'static str, usize)> {
    let it = *problem.sizes();
    let (c, k) = (it.c / it.groups, it.k);
    // Elements from one to the next: channels, rows, columns of an image; filters, channels, rows, columns of the weights.
    let image = match it.input_layout {
        TensorLayout::Nchw => [it.h * it.w, it.w, 1],
        TensorLayout::Nhwc => [1, it.w * it.c, it.c],
    };
    let kernel = match it.weights_layout {
        WeightsLayout::Oihw => [c * it.r * it.s, it.r * it.s, it.s, 1],
        WeightsLayout::Hwio => [1, k, it.s * c * k, c * k],
        WeightsLayout::Ohwi => [it.r * it.s * c, 1, it.s * c, c],
    };
    let out = if writes_rows(problem) { [it.p * it.q, 1] } else { [1, k] };
    vec![
        ("IMAGE_CHANNEL", image[0]),
        ("IMAGE_ROW", image[1]),
        ("IMAGE_PIXEL", image[2]),
        ("OUT_CHANNEL", out[0]),
        ("OUT_PIXEL", out[1]),
        ("KERNEL_K", kernel[0]),
        ("KERNEL_C", kernel[1]),
        ("KERNEL_R", kernel[2]),
        ("KERNEL_S", kernel[3]),
        ("N", it.n),
        ("CHANNELS", it.c / it.groups),
        ("H", it.h),
        ("W", it.w),
        ("ROWS", it.k / it.groups),
        ("GROUPS", it.groups),
        ("P", it.p),
        ("Q", it.q),
        ("R", it.r),
        ("S", it.s),
        ("STRIDE_H", it.stride_h),
        ("STRIDE_W", it.stride_w),
        ("PAD_H", it.pad_h),
        ("PAD_W", it.pad_w),
        ("DILATION_H", it.dilation_h),
        ("DILATION_W", it.dilation_w),
    ]
}

/// Whether neighbouring pixels of a channel are neighbours in the output.
fn writes_rows(problem: &Conv2d) -> bool {
    problem.sizes().output_layout == TensorLayout::Nchw
}

/// Whether zeros are added on any side.
fn padded(problem: &Conv2d) -> bool {
    let it = problem.sizes();
    it.pad_h + it.pad_w + it.pad_bottom + it.pad_right > 0
}

fn finished(problem: &Conv2d) -> [(&'static str, usize); 2] {
    [("BIAS", problem.bias().into()), ("RELU", problem.relu().into())]
}

/// The number of neighbours that are stored at once, of `most`.
fn stored(problem: &Conv2d, most: usize) -> (&'static str, usize) {
    let width = if writes_rows(problem) { problem.sizes().q } else { 1 };
    let stored = [4, 2, 1].into_iter().find(|&it| it <= most && width.is_multiple_of(it)).unwrap();
    ("STORED", stored)
}

/// Checks the groups of 64 threads and the operations of each group.
fn check_elementwise(pass: &Pass, elements: usize, operations: f64) {
    assert_eq!(
        (pass.groups, pass.operations),
        (elements.div_ceil(64), operations * 64.0),
        "{}",
        pass.source.name
    );
}

fn check_tiled(problem: &Conv2d, variant: &Variant, plan: &PassPlan) {
    let (it, Tile { bm, bn, bk, tm, tn, kg }) = (*problem.sizes(), variant.tile);
    let (c, rows, taps, pixels) = (it.c / it.groups, it.k / it.groups, it.r * it.s, it.p * it.q);
    let table = variant.family == Family::Table;
    let up = |size: usize, block: usize| size.div_ceil(block) * block;
    let depth = if table { up(c * taps, bk) } else { up(c, bk) * taps };
    assert_eq!(plan.packed, it.groups * depth * up(rows, bm));
    let [pack] = &plan.prepare[..] else { panic!("one pass packs") };
    check_elementwise(pack, plan.packed, 32.0);
    let name = variant.to_string();
    let packing = [("TABLE", table.into()), ("DEPTH_PADDED", depth), ("ROWS_PADDED", up(rows, bm))];
    check(&constants(&pack.source.text), &packing, &name);
    check(&constants(&pack.source.text), &sizes_of(problem), &name);

    let (run, splits) = (&plan.run[0], variant.splits);
    let tiles = [rows.div_ceil(bm), (it.n * pixels).div_ceil(bn)];
    assert_eq!(run.groups, tiles[0] * tiles[1] * it.groups * splits, "{name}");
    assert_eq!(run.operations, 2.0 * (bm * bn) as f64 * depth.div_ceil(splits) as f64, "{name}");
    let slices = (depth / bk).div_ceil(splits);
    let counted = iterations::tile(&variant.tile, slices, if table { depth } else { 0 }, taps > 1);
    assert_eq!(run.iterations, counted, "{name}");
    let whole = splits == 1;
    let one_by_one = taps == 1 && it.stride_h * it.stride_w == 1 && !padded(problem);
    let plain = it.input_layout == TensorLayout::Nchw;
    let vectors =
        one_by_one && plain && pixels.is_multiple_of(4) && (it.h * it.w).is_multiple_of(4) && !table;
    let rows_of_four = pixels.is_multiple_of(4) && writes_rows(problem);
    let (across, down) = (bn / tn, bm / tm);
    let warps = across * down * kg >= 32 && across % 8 == 0 && down % 4 == 0;
    let uneven = c % bk != 0;
    let expected = [
        ("BM", bm),
        ("BN", bn),
        ("BK", bk),
        ("TM", tm),
        ("TN", tn),
        ("KG", kg),
        ("THREADS", across * down * kg),
        ("WX", if warps { 8 } else { 0 }),
        ("V", if vectors { 4 } else { 1 }),
        ("STORE4", rows_of_four.into()),
        ("ROWS_PADDED", up(rows, bm)),
        ("COLUMNS", it.n * pixels),
        ("CHANNEL_STRIDE", if plain { it.h * it.w } else { 1 }),
        ("IMAGE_STRIDE", it.c * it.h * it.w),
        ("PART_STRIDE", problem.output_len()),
        ("TILES_M", tiles[0]),
        ("TILES_N", tiles[1]),
        ("SPLITS", splits),
        ("TABLE", table.into()),
        ("EDGES", (uneven || padded(problem)).into()),
        ("CHANNELS_UNEVEN", uneven.into()),
        ("SCALED", 0),
        ("OLD", 0),
        ("BIAS", (whole && problem.bias()).into()),
        ("RELU", (whole && problem.relu()).into()),
    ];
    check(&constants(&run.source.text), &expected, &name);
    check(&constants(&run.source.text), &sizes_of(problem), &name);
    if whole {
        assert!(plan.run.len() == 1 && plan.scratch.is_empty(), "{name}");
        return;
    }
    assert_eq!((plan.run.len(), &plan.scratch[..]), (2, &[splits * problem.output_len()][..]), "{name}");
    let v = if rows_of_four { 4 } else { 1 };
    check_elementwise(&plan.run[1], problem.output_len() / v, 8.0 * splits as f64);
    let sum = constants(&plan.run[1].source.text);
    check(
        &sum,
        &[
            ("V", v),
            ("SPLITS", splits),
            ("ROWS", it.k),
            ("OUT_CHANNEL", if writes_rows(problem) { pixels } else { 1 }),
        ],
        &name,
    );
    check(&sum, &finished(problem), &name);
}

fn check_winograd(problem: &Conv2d, variant: &Variant, m: usize, plan: &PassPlan) {
    let (it, Tile { bm, bn, bk, .. }) = (*problem.sizes(), variant.tile);
    let (alpha, down, across) = (m + 2, it.p.div_ceil(m), it.q.div_ceil(m));
    let (frequencies, tiles) = (alpha * alpha, it.n * down * across);
    let padded = tiles.div_ceil(4) * 4;
    let (depth, rows) = (it.c.div_ceil(bk) * bk, it.k.div_ceil(bm) * bm);
    assert_eq!(plan.packed, frequencies * depth * rows);
    assert_eq!(plan.scratch, [frequencies * it.c * padded, frequencies * it.k * padded]);
    let work = 8.0 * frequencies as f64;
    let [weights] = &plan.prepare[..] else { panic!("one pass prepares") };
    check_elementwise(weights, depth * rows, 8.0 * work);
    let [input, products, output] = &plan.run[..] else { panic!("three passes run") };
    check_elementwise(input, it.c * padded, work);
    check_elementwise(output, it.k * padded, work);
    assert_eq!(products.groups, it.k.div_ceil(bm) * padded.div_ceil(bn) * frequencies);
    assert_eq!(products.operations, 2.0 * (bm * bn * depth) as f64);
    let name = variant.to_string();
    let expected = [
        ("M", m),
        ("ALPHA", alpha),
        ("TILES", tiles),
        ("TILES_PADDED", padded),
        ("TILES_DOWN", down),
        ("TILES_ACROSS", across),
        stored(problem, m),
    ];
    for pass in [weights, input, output] {
        let constants = constants(&pass.source.text);
        for expected in [&expected[..], &sizes_of(problem), &finished(problem)] {
            check(&constants, expected, &name);
        }
        assert!(pass.source.text.contains(if m == 2 { WINOGRAD_F2 } else { WINOGRAD_F4 }));
    }
    check(&constants(&weights.source.text), &[("DEPTH_PADDED", depth), ("ROWS_PADDED", rows)], &name);
    let expected = [
        ("CHANNELS", it.c),
        ("ROWS", it.k),
        ("GROUPS", frequencies),
        ("COLUMNS", padded),
        ("CHANNEL_STRIDE", padded),
        ("IMAGE_STRIDE", frequencies * it.c * padded),
        ("PART_STRIDE", frequencies * it.k * padded),
        ("V", 4),
        ("EDGES", (it.c % bk != 0).into()),
        ("BIAS", 0),
        ("RELU", 0),
    ];
    check(&constants(&products.source.text), &expected, &name);
}

#[test]
fn passes_do_all_the_work_that_a_problem_has() {
    let (mut seen, mut hashes, mut texts) =
        (BTreeMap::<String, usize>::new(), BTreeSet::new(), BTreeSet::new());
    let cases = Cases::new(12, LARGE);
    let kinds = cases.kinds();
    for (problem, variant) in cases.take(kinds) {
        let Some(plan) = generate(&variant, &problem) else {
            assert_eq!(variant.family, Family::Fallback);
            continue;
        };
        let it = *problem.sizes();
        let pixels = it.p * it.q;
        match variant.family {
            Family::Igemm | Family::Table => check_tiled(&problem, &variant, &plan),
            Family::Winograd(m) => check_winograd(&problem, &variant, m, &plan),
            Family::Grouped(tm) => {
                let threads = it.n * it.k / tm * it.p * it.q.div_ceil(4);
                check_elementwise(&plan.run[0], threads, (8 * tm * problem.reduction() + 32) as f64);
                let constants = constants(&plan.run[0].source.text);
                check(&constants, &[("TM", tm), stored(&problem, 4)], "grouped");
                check(&constants, &sizes_of(&problem), "grouped");
                check(&constants, &finished(&problem), "grouped");
                assert!((plan.packed, plan.run.len()) == (0, 1) && plan.prepare.is_empty());
            }
            Family::Pointwise(kg) => {
                let (depth, rows) = (it.c.div_ceil(kg) * kg, it.k.div_ceil(32) * 32);
                assert_eq!(plan.packed, depth * rows);
                check_elementwise(&plan.prepare[0], depth * rows, 32.0);
                let pass = &plan.run[0];
                assert_eq!(pass.groups, (it.n * pixels).div_ceil(32) * it.k.div_ceil(32));
                assert_eq!(pass.operations, (2 * 32 * 32 * it.c) as f64);
                let constants = constants(&pass.source.text);
                check(&constants, &[("KG", kg), ("THREADS", 64 * kg), ("ROWS_PADDED", rows)], "pointwise");
                check(&constants, &sizes_of(&problem), "pointwise");
                check(&constants, &finished(&problem), "pointwise");
            }
            Family::Fallback => unreachable!("the fallback has no plan"),
        }
        let reads = matches!(variant.family, Family::Grouped(_) | Family::Winograd(_));
        assert_eq!(plan.reads_weights(), reads, "{variant}");
        let sources: Vec<&ShaderSource> = plan.sources().collect();
        assert_eq!(sources.len(), plan.prepare.len() + plan.run.len());
        assert_eq!(plan.hash(), generate(&variant, &problem).unwrap().hash());
        hashes.insert(plan.hash());
        texts.insert(sources.iter().map(|source| source.text.as_str()).collect::<String>());
        *seen.entry(format!("{:?}", variant.family)).or_default() += 1;
    }
    assert!(seen.len() == 11 && hashes.len() == texts.len(), "{seen:?}");
}

/// A warp of 8 x 4 threads needs both sides of the workgroup and 32 threads.
#[test]
fn warps_are_eight_threads_across_where_tiles_have_so_many() {
    let desc = crate::problem::Conv2dDesc { c: 64, h: 4, w: 4, k: 64, ..Default::default() };
    let shape = Shape::of(&Conv2d::new(desc).unwrap());
    for (tile, wx) in [
        (Tile::new(64, 64, 8, 8, 8, 1), "8"),
        (Tile::new(32, 64, 8, 8, 8, 1), "8"),
        (Tile::new(16, 64, 8, 8, 8, 4), "0"),
        (Tile::new(64, 32, 8, 8, 8, 1), "0"),
        (Tile::new(16, 32, 8, 4, 4, 1), "8"),
        (Tile::new(16, 16, 8, 4, 4, 4), "0"),
    ] {
        let pass = tile_pass("test", &shape, &TileOptions::new(tile), BufferRole::Input, BufferRole::Output);
        assert_eq!(constants(&pass.source.text)["WX"], wx, "{tile}");
    }
}

#[test]
fn products_are_packed_where_they_must_be() {
    let tile = TILES[0];
    let packs = |groups: usize| (groups, 32.0 * 1024.0, iterations::pack_matrix());
    let of = |pass: &Pass| (pass.groups, pass.operations, pass.iterations);
    let uniforms = |alpha: f32, beta: f32| vec![(2, alpha.to_bits()), (3, beta.to_bits())];
    // 200 x 70 x 100 is no multiple of a 128 x 128 x 8 tile: A is packed to 256 x 104. B is read in place.
    let desc = GemmDesc { alpha: 2.5, ..GemmDesc::packed(Layout::RowMajor, 200, 70, 100) };
    for (beta, splits) in [(0.0, 1), (0.5, 1), (0.0, 3), (0.5, 3)] {
        let problem = Gemm::new(GemmDesc { beta, ..desc }).unwrap();
        let plan = gemm(&problem, &tile, splits);
        assert_eq!((plan.packed, &*plan.name), (256 * 104, "sgemm_128x128x8_t8x8"));
        assert_eq!(of(&plan.run[0]), packs(8 * 4));
        let product = &plan.run[1];
        assert_eq!(
            (product.groups, product.operations),
            (2 * splits, 2.0 * 128.0 * 128.0 * (104_f64 / splits as f64).ceil())
        );
        let whole = usize::from(splits == 1);
        let old = usize::from(beta != 0.0);
        let expected = [("SPLITS", splits), ("SCALED", whole), ("OLD", whole * old), ("CHANNEL_STRIDE", 70)];
        check(&constants(&product.source.text), &expected, "a product");
        let last = plan.run.last().unwrap();
        assert_eq!(last.uniforms, uniforms(2.5, beta));
        assert!(last.bindings.contains(&(2, BufferRole::Output)));
        if splits == 1 {
            assert!(plan.scratch.is_empty() && plan.run.len() == 2);
        } else {
            assert_eq!((plan.run.len(), &plan.scratch[..]), (3, &[splits * 200 * 70][..]));
            check(&constants(&last.source.text), &[("SCALED", 1), ("OLD", old), ("ROWS", 200)], "the sum");
            assert!(product.bindings.contains(&(2, BufferRole::Scratch(0))) && product.uniforms.is_empty());
        }
    }
    // A transposed B is transposed into the first scratch buffer; the parts are in the second.
    let turned = Gemm::new(GemmDesc { trans_b: Transpose::Yes, ldb: 100, ..desc }).unwrap();
    let plan = gemm(&turned, &tile, 2);
    assert_eq!(plan.scratch, [70 * 100, 2 * 200 * 70]);
    assert_eq!(
        plan.run.iter().map(|pass| pass.groups).collect::<Vec<_>>(),
        [32, 3 * 4, 4, (200 * 70_usize).div_ceil(64)]
    );
    let expected =
        [("ROWS", 70), ("DEPTH", 100), ("ROW_STRIDE", 100), ("DEPTH_STRIDE", 1), ("SQUARES_ACROSS", 3)];
    check(&constants(&plan.run[1].source.text), &expected, "B");
    // A transposed A of whole tiles is read in place if its lines are whole vectors.
    let whole = GemmDesc { trans_a: Transpose::Yes, ..GemmDesc::packed(Layout::RowMajor, 128, 70, 104) };
    let packed = |desc| {
        let plan = gemm(&Gemm::new(desc).unwrap(), &tile, 1);
        (plan.packed, plan.run.len())
    };
    assert_eq!(packed(GemmDesc { lda: 128, ..whole }), (0, 1));
    assert_eq!(packed(GemmDesc { lda: 132, ..whole }), (0, 1));
    let as_it_is = gemm(&Gemm::new(GemmDesc { lda: 132, ..whole }).unwrap(), &tile, 1);
    check(&constants(&as_it_is.run[0].source.text), &[("ROWS_PADDED", 132)], "A");
    assert!(as_it_is.run[0].bindings.contains(&(1, BufferRole::Weights)));
    assert_eq!(packed(GemmDesc { lda: 130, ..whole }), (128 * 104, 2));
    assert_eq!(packed(GemmDesc { m: 127, lda: 128, ..whole }), (128 * 104, 2));
    assert_eq!(packed(GemmDesc { k: 103, lda: 128, ..whole }), (128 * 104, 2));
    assert_eq!(packed(GemmDesc { trans_a: Transpose::No, lda: 104, ..whole }), (128 * 104, 2));
    assert_eq!(gemm_name(&Tile::new(1, 2, 3, 4, 5, 6)), "sgemm_tiled");
    // Column-major matrices become the transposed product.
    let by_columns = gemm(&Gemm::new(GemmDesc::packed(Layout::ColMajor, 70, 200, 100)).unwrap(), &tile, 1);
    assert_eq!(by_columns.run[1].bindings[..2], [(0, BufferRole::Weights), (1, BufferRole::Packed)]);
}

#[test]
fn measurements_state_their_work() {
    let fma = measure_fma(7, 5);
    assert_eq!((fma.groups, fma.operations, fma.iterations), (7, 163_840.0, iterations::measure_fma(5)));
    assert_eq!(fma.uniforms, [(2, 5)]);
    let read = measure_read(1 << 20);
    assert_eq!((read.groups, read.operations, read.iterations), (64, 32_768.0, iterations::measure_read()));
    assert_eq!(constants(&read.source.text)["VECTORS"], "262144u");
    let again = measure_reads(1 << 20, 3);
    assert_eq!((again.groups, &again.source.text), (192, &read.source.text));
    let shared = measure_shared(7, 5);
    assert_eq!(
        (shared.groups, shared.operations, shared.iterations),
        (7, 40_960.0, iterations::measure_shared(5))
    );
    assert_eq!(shared.uniforms, [(2, 5)]);
}

fn problems() -> Vec<Conv2d> {
    let layer =
        Conv2dDesc { c: 32, k: 33, h: 14, w: 14, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let first = Conv2dDesc { c: 3, r: 7, s: 7, stride_h: 2, stride_w: 2, relu: true, ..layer };
    let pointwise = Conv2dDesc { r: 1, s: 1, pad_h: 0, pad_w: 0, bias: true, ..layer };
    let depthwise = Conv2dDesc { k: 32, groups: 32, ..layer };
    let dilated = Conv2dDesc { dilation_h: 2, dilation_w: 3, n: 2, ..layer };
    [layer, first, pointwise, depthwise, dilated].map(|desc| Conv2d::new(desc).unwrap()).to_vec()
}

/// Checks every fourth candidate of every problem.
#[test]
fn glslang_accepts_what_is_generated() {
    let mut checked = 0;
    for problem in problems() {
        for variant in candidates(&problem, &Gpu::ASSUMED).iter().step_by(4) {
            let Some(plan) = generate(variant, &problem) else { continue };
            for pass in plan.prepare.iter().chain(&plan.run) {
                check_with_glslang(&pass.source.name, &pass.source.text);
                checked += 1;
            }
        }
    }
    let odd = GemmDesc::packed(Layout::ColMajor, 100, 101, 102);
    let whole = GemmDesc { trans_b: Transpose::Yes, ..GemmDesc::packed(Layout::ColMajor, 64, 128, 128) };
    for (desc, beta, passes) in [(odd, 0.0, 2), (odd, 0.5, 2), (whole, 0.0, 1), (whole, 0.5, 1)] {
        for splits in [1, 3] {
            let run = gemm(&Gemm::new(GemmDesc { beta, ..desc }).unwrap(), &TILES[0], splits).run;
            assert_eq!(run.len(), passes + usize::from(splits > 1));
            for pass in run {
                check_with_glslang(&pass.source.name, &pass.source.text);
                checked += 1;
            }
        }
    }
    for pass in [measure_fma(1, 1), measure_read(1 << 20), measure_shared(1, 1)] {
        check_with_glslang(&pass.source.name, &pass.source.text);
        checked += 1;
    }
    assert!(checked > 50, "{checked}");
}

/// Candidates stay within the limits of the device, and the same call returns the same list.
#[test]
fn candidates_fit_the_device() {
    let small = Gpu { shared_bytes: 16 << 10, max_threads: 128, max_elements: 1 << 16, ..Gpu::ASSUMED };
    let mut offered = 0;
    for problem in problems() {
        let all = candidates(&problem, &small);
        assert_eq!(all, candidates(&problem, &small));
        assert!(!all.is_empty());
        for variant in &all {
            let Some(plan) = generate(variant, &problem) else { continue };
            let tiled = !matches!(variant.family, Family::Grouped(_) | Family::Pointwise(_));
            assert!(!tiled || variant.tile.fits(&small), "{variant}");
            assert!(plan.packed <= 1 << 16 && plan.scratch.iter().all(|&it| it <= 1 << 16), "{variant}");
            offered += 1;
        }
    }
    assert!(offered > 10, "{offered}");
}
