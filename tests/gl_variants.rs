//! Every kernel family on the first GL device: exact on small integers, for shapes that fit no tile.

use sparkle::lab::{self, Compared, Numbers};
use sparkle::memory::tiles::{Gpu, Tile};
use sparkle::problem::exact::Random;
use sparkle::problem::oracle;
use sparkle::problem::{TensorLayout, WeightsLayout};
use sparkle::shader::cases::deep;
use sparkle::shader::variant::{Family, Variant, candidates};
use sparkle::{Contexts, Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Layout, PipelineOptions, Transpose};

fn problem(random: &mut Random) -> Conv2d {
    loop {
        let groups = random.pick(&[1, 1, 1, 2, 3, 8]);
        let (r, s) = random.pick(&[(1, 1), (1, 1), (3, 3), (3, 3), (2, 3), (5, 5), (7, 7), (1, 4)]);
        let (stride_h, stride_w) = random.pick(&[(1, 1), (1, 1), (2, 2), (2, 1), (1, 3), (4, 4)]);
        let (dilation_h, dilation_w) = random.pick(&[(1, 1), (1, 1), (1, 1), (2, 1), (2, 3)]);
        let desc = Conv2dDesc {
            n: random.between(1, 3),
            c: groups * random.pick(&[1, 3, 4, 7, 16, 18, 33]),
            h: random.between(1, 14),
            w: random.between(1, 14),
            k: groups * random.pick(&[1, 2, 4, 5, 16, 35]),
            r,
            s,
            stride_h,
            stride_w,
            pad_h: random.between(0, r / 2 + 1),
            pad_w: random.between(0, s / 2 + 1),
            dilation_h,
            dilation_w,
            groups,
            bias: random.between(0, 1) == 0,
            relu: random.between(0, 1) == 0,
            pad_bottom: Some(random.between(-1, r / 2 + 1)).filter(|&pad| pad >= 0),
            pad_right: Some(random.between(-1, s / 2 + 1)).filter(|&pad| pad >= 0),
            input_layout: random.pick(&[TensorLayout::Nchw, TensorLayout::Nhwc]),
            output_layout: random.pick(&[TensorLayout::Nchw, TensorLayout::Nhwc]),
            weights_layout: random.pick(&[WeightsLayout::Oihw, WeightsLayout::Hwio, WeightsLayout::Ohwi]),
            ..Default::default()
        };
        if let Ok(problem) = Conv2d::new(desc) {
            return problem;
        }
    }
}

#[test]
fn families_are_exact_on_integers() {
    if lab::gpu(0).is_err() {
        assert!(std::env::var("SPARKLE_TEST_REQUIRE_GL").as_deref() != Ok("1"), "no GL device");
        return;
    }
    let seed = std::env::var("SPARKLE_TEST_SEED").map_or(41, |seed| seed.parse().unwrap());
    let mut random = Random::new(seed);
    let count: usize = std::env::var("SPARKLE_TEST_VARIANTS").map_or(24, |count| count.parse().unwrap());
    // Not the measured limits: the cases must be the same on every device.
    let gpu = Gpu::ASSUMED;
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for _ in 0..count {
        let problem = problem(&mut random);
        let all = candidates(&problem, &gpu);
        let direct: Vec<&Variant> =
            all.iter().filter(|it| !matches!(it.family, Family::Winograd(_) | Family::Fallback)).collect();
        if direct.is_empty() {
            continue;
        }
        let mut variant = *random.pick(&direct);
        if matches!(variant.family, Family::Igemm | Family::Table) {
            variant.splits = random.pick(&[1, 1, 2, 3, 7]);
        }
        let differing = lab::differences(0, &problem, &variant, random.bits()).unwrap();
        assert_eq!(differing, 0, "{variant}: {problem:?}");
        *seen
            .entry(match variant.family {
                Family::Igemm => "igemm",
                Family::Table => "table",
                Family::Grouped(_) => "grouped",
                Family::Pointwise(_) => "pointwise",
                _ => unreachable!("filtered"),
            })
            .or_default() += 1;
    }
    println!("{seen:?}");
    assert!(seen.len() >= 3);
}

#[test]
fn winograd_stays_within_its_bound() {
    if lab::gpu(0).is_err() {
        return;
    }
    let mut random = Random::new(42);
    let effort = lab::Effort { busy: std::time::Duration::ZERO, calls: 1, rounds: 1, rows: 40 };
    let mut ran = 0;
    for m in [2, 4] {
        for (c, k, h, w, pad, n) in
            [(16, 8, 9, 7, 1, 2), (19, 5, 8, 12, 0, 1), (33, 40, 6, 6, 1, 3), (64, 64, 5, 4, 1, 1)]
        {
            let desc = Conv2dDesc {
                n,
                c,
                k,
                h,
                w,
                r: 3,
                s: 3,
                pad_h: pad,
                pad_w: pad,
                bias: true,
                relu: true,
                ..Default::default()
            };
            let problem = Conv2d::new(desc).unwrap();
            let tile = Tile::new(32, 32, 16, 4, 4, 1);
            let variant = Variant { family: Family::Winograd(m), tile, splits: 1 };
            lab::conv2d(0, &problem, &[variant], &effort, |variant, outcome| {
                let error = outcome.unwrap().error;
                assert!(error <= 1.0 && error > 0.0, "{variant}: {error} {problem:?} {}", random.bits());
                ran += 1;
            })
            .unwrap();
        }
    }
    assert_eq!(ran, 8);
}

/// Compares the results of `problem` by a call, and by a pipeline that cuts it into pieces.
fn both_ways(problem: &Conv2d, variant: &Variant, numbers: Numbers, seed: u64) -> Compared {
    let called = lab::compare(0, problem, variant, numbers, seed).unwrap();
    let image = (problem.input_len().max(problem.output_len()) / problem.sizes().n).max(64);
    let piece_bytes = 2 * 4 * image;
    let base = PipelineOptions { slots: 2, contexts: Contexts::One, gather: false, ..Default::default() };
    let options = PipelineOptions { piece_bytes, ..base };
    let (streamed, kernel) = lab::compare_streamed(0, problem, variant, (numbers, 2, seed), options).unwrap();
    let family = variant.to_string();
    let is_fallback = *variant == Variant::FALLBACK;
    assert!(is_fallback || *kernel == *family, "{variant}: {kernel} computed it");
    Compared { wrong: called.wrong + streamed.wrong, not_finite: called.not_finite + streamed.not_finite }
}

/// In every family, NaN and infinities in input, weights and bias reach exactly the outputs of the definition. The cases have
/// padding on all sides, also in kernels whose sizes are compile-time constants, and strides, dilation, groups, bias and ReLU.
#[test]
fn nan_and_infinity_reach_what_the_definition_says() {
    if lab::gpu(0).is_err() {
        return;
    }
    let tile = Tile::new(32, 32, 16, 4, 4, 1);
    let tiled = |family, splits| Variant { family, tile, splits };
    let untiled = |family| Variant { family, ..Variant::FALLBACK };
    let square = Conv2dDesc { n: 3, h: 6, w: 7, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let finished = Conv2dDesc { bias: true, relu: true, ..square };
    let tiny = Conv2dDesc { n: 1, h: 3, w: 3, ..square };
    let moved = Conv2dDesc { stride_h: 2, stride_w: 2, dilation_h: 2, pad_h: 3, pad_w: 2, s: 4, ..finished };
    let groups = Conv2dDesc { c: 6, k: 12, groups: 3, ..finished };
    let point = Conv2dDesc { h: 4, w: 6, r: 1, s: 1, pad_h: 0, pad_w: 0, ..finished };
    let cases = [
        (Conv2dDesc { c: 4, k: 5, ..square }, Variant::FALLBACK),
        (Conv2dDesc { c: 6, k: 4, groups: 2, ..moved }, Variant::FALLBACK),
        (Conv2dDesc { dilation_h: 2, pad_h: 2, ..groups }, untiled(Family::Grouped(4))),
        (Conv2dDesc { c: 2, k: 2, groups: 2, ..tiny }, untiled(Family::Grouped(1))),
        (Conv2dDesc { c: 2, k: 4, stride_w: 2, ..finished }, untiled(Family::Grouped(2))),
        (Conv2dDesc { c: 40, k: 9, ..point }, untiled(Family::Pointwise(4))),
        (Conv2dDesc { c: 33, k: 8, ..point }, tiled(Family::Igemm, 1)),
        (Conv2dDesc { c: 17, k: 5, ..tiny }, tiled(Family::Igemm, 1)),
        (Conv2dDesc { c: 20, k: 6, ..moved }, tiled(Family::Igemm, 3)),
        (Conv2dDesc { c: 3, k: 5, ..moved }, tiled(Family::Table, 1)),
        (Conv2dDesc { w: 8, ..groups }, tiled(Family::Table, 2)),
        (Conv2dDesc { c: 17, k: 5, ..tiny }, tiled(Family::Winograd(2), 1)),
        (Conv2dDesc { c: 17, k: 5, ..tiny }, tiled(Family::Winograd(4), 1)),
        (Conv2dDesc { c: 18, k: 6, h: 9, w: 11, ..finished }, tiled(Family::Winograd(2), 1)),
        (Conv2dDesc { c: 18, k: 6, h: 9, w: 12, ..finished }, tiled(Family::Winograd(4), 1)),
        (
            Conv2dDesc { c: 18, k: 6, h: 9, w: 12, pad_h: 0, pad_w: 0, ..finished },
            tiled(Family::Winograd(4), 1),
        ),
    ];
    let (mut ran, mut not_finite) = (0, 0);
    for (index, (desc, variant)) in cases.into_iter().enumerate() {
        let problem = Conv2d::new(desc).unwrap();
        for turn in 0..6 {
            let compared = both_ways(&problem, &variant, Numbers::NotFinite, 6 * index as u64 + turn);
            assert_eq!(compared.wrong, 0, "{variant}, {turn}: {problem:?}");
            not_finite += compared.not_finite;
            ran += 1;
        }
    }
    assert!(ran == 96 && not_finite > 1000, "{ran}, {not_finite}");
}

/// On inputs this large, Winograd's transforms overflow and direct sums do not.
#[test]
fn winograd_is_finite_where_direct_sums_are() {
    if lab::gpu(0).is_err() {
        return;
    }
    let tile = Tile::new(32, 32, 16, 4, 4, 1);
    let desc =
        Conv2dDesc { n: 3, c: 20, h: 10, w: 9, k: 9, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let mut ran = 0;
    for m in [2, 4] {
        for (bias, relu, w) in [(false, false, 9), (true, true, 8), (true, false, 14)] {
            let problem = Conv2d::new(Conv2dDesc { bias, relu, w, ..desc }).unwrap();
            let variant = Variant { family: Family::Winograd(m), tile, splits: 1 };
            for seed in 0..4 {
                let compared = both_ways(&problem, &variant, Numbers::Huge, seed);
                assert_eq!(compared, Compared::default(), "{variant}, {seed}: {problem:?}");
                ran += 1;
            }
        }
    }
    assert_eq!(ran, 24);
}

/// Sums so deep that some drivers would end the loops of a single pass.
#[test]
fn the_deepest_sums_of_every_family_are_exact() {
    let Ok(gpu) = lab::gpu(0) else { return };
    let (mut families, mut ran) = (std::collections::BTreeMap::<_, usize>::new(), 0);
    let all = deep(&gpu);
    let few = |(index, (_, variant)): &(usize, (Conv2d, Variant))| {
        // Every ninth tile, with four cases each, and all variants without a tile.
        matches!(variant.family, Family::Fallback | Family::Grouped(_)) || index / 4 % 9 == 8
    };
    for (_, (problem, variant)) in all.into_iter().enumerate().filter(few) {
        assert_eq!(both_ways(&problem, &variant, Numbers::Integers, 47).wrong, 0, "{variant}: {problem:?}");
        if matches!(variant.family, Family::Winograd(_)) {
            // In these cases, all outputs of some channels are summed again.
            let compared = both_ways(&problem, &variant, Numbers::NotFinite, 1);
            assert!(compared.wrong == 0 && compared.not_finite > 0, "{variant}: {compared:?} {problem:?}");
        }
        *families.entry(variant.family).or_default() += 1;
        ran += 1;
    }
    assert!(families.len() == 6 && ran >= 10, "{families:?}");
}

/// Every family in pipelines: batches cut into pieces of two sizes, weights packed once, shared scratch buffers, reused slots.
#[test]
fn streams_of_every_family_are_right() {
    if lab::gpu(0).is_err() {
        return;
    }
    let tile = Tile::new(32, 32, 16, 4, 4, 1);
    let desc = Conv2dDesc {
        n: 5,
        c: 20,
        h: 9,
        w: 11,
        k: 24,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        bias: true,
        relu: true,
        ..Default::default()
    };
    let few = Conv2dDesc { c: 3, stride_h: 2, ..desc };
    let groups = Conv2dDesc { c: 24, groups: 24, bias: false, ..desc };
    let cases = [
        (desc, Variant::FALLBACK),
        (groups, Variant { family: Family::Grouped(1), ..Variant::FALLBACK }),
        (desc, Variant { family: Family::Igemm, tile, splits: 3 }),
        (few, Variant { family: Family::Table, tile, splits: 1 }),
        (desc, Variant { family: Family::Winograd(2), tile, splits: 1 }),
        (desc, Variant { family: Family::Winograd(4), tile, splits: 1 }),
    ];
    let (mut ran, jobs) = (0, 4);
    for contexts in [Contexts::Three, Contexts::One] {
        for (desc, variant) in cases {
            let problem = Conv2d::new(desc).unwrap();
            let image = problem.input_len().max(problem.output_len()) / 5;
            let options =
                PipelineOptions { slots: 2, piece_bytes: 2 * 4 * image, contexts, ..Default::default() };
            let (wrong, kernel) =
                lab::streamed_differences(0, &problem, &variant, (jobs, 44), options).unwrap();
            assert_eq!(wrong, 0, "{variant} {contexts:?}");
            assert!(variant == Variant::FALLBACK || *kernel == *variant.to_string(), "{variant}: {kernel}");
            ran += jobs;
        }
    }
    assert_eq!(ran, 48);
}

/// Products that are large enough for tiles: all layouts, odd sizes, gaps, nonzero beta.
#[test]
fn products_in_tiles_are_exact() {
    let Ok(device) = Device::open("gl:0") else { return };
    let mut random = Random::new(43);
    let mut ran = 0;
    for (m, n, k) in [(300, 301, 302), (64, 68, 6200)] {
        for layout in [Layout::RowMajor, Layout::ColMajor] {
            let [trans_a, trans_b] = [(); 2].map(|()| random.pick(&[Transpose::No, Transpose::Yes]));
            let beta = random.pick(&[0.0, 2.0]);
            let mut ld = |rows: i64, cols: i64, transpose| {
                let by_columns = (layout == Layout::ColMajor) != (transpose == Transpose::Yes);
                (if by_columns { rows } else { cols }) + random.pick(&[0, 0, 1, 4])
            };
            let (lda, ldb, ldc) = (ld(m, k, trans_a), ld(k, n, trans_b), ld(m, n, Transpose::No));
            let desc = GemmDesc { layout, trans_a, trans_b, m, n, k, alpha: -2.0, lda, ldb, beta, ldc };
            let problem = Gemm::new(desc).unwrap();
            let [a, b, old] = problem.lens().map(|len| random.integers(len, 3));
            let mut c = old.clone();
            let run = device.sgemm(&problem, &a, &b, &mut c).unwrap();
            assert!(run.kernel.starts_with("sgemm_") && run.kernel.contains("_t"), "{}", run.kernel);
            let sizes = problem.sizes();
            let mut expected = old.clone();
            for i in 0..sizes.m {
                for j in 0..sizes.n {
                    let value = oracle::gemm_element(&problem, &a, &b, &old, i, j).value;
                    expected[i * sizes.c_row + j * sizes.c_col] = value as f32;
                }
            }
            assert!(c == expected, "{desc:?} {}", run.kernel);
            ran += 1;
        }
    }
    assert_eq!(ran, 4);
}
