//! Every kernel of this CPU through convolution and product, exact, at several team sizes, small shapes included.
//! Through the public API only the fastest kernel is used, and small work never leaves the caller.

#[path = "../../tests/cpu_cases/mod.rs"]
pub(super) mod cpu_cases;

use super::buffer::Buffer;
use super::caches::described;
use super::conv2d::{self, ConvPlan};
use super::describe::describe;
use super::dot_conv::{self, DotConvPlan, WeightLayout};
use super::gemm;
use super::implicit_im2col::columns;
use super::isa::{Isa, with_kernel};
use super::kernels::Kernel;
use super::pool::Team;
use crate::memory::dot_conv::DotConv;
use crate::memory::implicit_im2col::ImplicitIm2col;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose};
use cpu_cases::{ConvCase, GemmCase, Values, conv_desc, gemm_desc, same, same_bits};

fn conv2d<K: Kernel>(kernel: K, team: &mut Team, case: &ConvCase) -> Vec<f32> {
    let mut output = vec![f32::NAN; case.problem.output_len()];
    let plan = ConvPlan::new(kernel, &case.problem, &case.weights, case.bias()).unwrap();
    plan.execute(team, &case.input, &mut output).unwrap();
    assert_eq!(bits(&once(kernel, team, case).1), bits(&output), "{:?}", case.desc);
    output
}

/// A one-shot call. Also returns whether tasks packed the weights they needed.
fn once<K: Kernel>(kernel: K, team: &mut Team, case: &ConvCase) -> (bool, Vec<f32>) {
    let mut output = vec![f32::NAN; case.problem.output_len()];
    let plan = ConvPlan::once(kernel, &case.problem, case.bias()).unwrap();
    let mut packed = vec![f32::NAN; plan.room(team.size())];
    plan.execute_given(&case.weights, &mut packed, team, &case.input, &mut output).unwrap();
    (packed.is_empty(), output)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// One-shot calls in which tasks pack the weights they need, in several groups of rows and passes over the depth; and
/// images at every position within a cache line.
#[test]
fn one_shot_weights_and_any_image_alignment_give_the_same_bits() {
    let layer = |n, c, side, k, r, pad, groups| Conv2dDesc {
        n,
        c,
        h: side,
        w: side,
        k,
        r,
        s: r,
        pad_h: pad,
        pad_w: pad,
        groups,
        bias: true,
        relu: true,
        ..Default::default()
    };
    let mut random = Random::new(29);
    let (mut as_needed, mut cases) = (0, 0);
    for desc in [
        layer(1, 2048, 7, 100, 1, 0, 1),
        layer(2, 96, 20, 150, 1, 0, 2),
        layer(1, 40, 9, 77, 3, 1, 1),
        layer(1, 16, 28, 70, 1, 0, 1),
    ] {
        let case = ConvCase::new(desc, Values::Real, &mut random);
        for isa in Isa::all() {
            for mut team in [1, 3].map(Team::of) {
                let expected = bits(&with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case)));
                as_needed += usize::from(with_kernel!(isa, kernel => once(kernel, &mut team, &case)).0);
                for place in 0..16 {
                    let mut moved = Buffer::zeroed(place + case.input.len()).unwrap();
                    moved[place..].copy_from_slice(&case.input);
                    let mut output = vec![f32::NAN; case.problem.output_len()];
                    with_kernel!(isa, kernel => {
                        let plan = ConvPlan::new(kernel, &case.problem, &case.weights, case.bias()).unwrap();
                        plan.execute(&mut team, &moved[place..], &mut output).unwrap();
                    });
                    assert_eq!(bits(&output), expected, "{isa:?} {desc:?} at {place}");
                    cases += 1;
                }
            }
        }
    }
    assert!(cases >= 128 && as_needed > 0, "{as_needed} of {cases}");
}

/// Weights that are packed while the first panel of pixels is computed, and then used by later panels, images and
/// passes. Shapes: strides, so that planes are staged; images larger than the cache; depths that are not a whole
/// number of squares, or less than one; maps of one panel or a few pixels; remaining rows; groups and batches.
#[test]
fn weights_packed_during_the_first_panel_are_right_later() {
    let mut random = Random::new(31);
    let mut cases = 0;
    for (n, c, side, k, r, stride, pad, groups) in [
        (1, 5, 9, 19, 1, 1, 0, 1),
        (1, 13, 7, 31, 1, 1, 0, 1),
        (2, 300, 7, 40, 1, 2, 0, 1),
        (3, 24, 15, 45, 3, 2, 1, 2),
        (1, 700, 2, 67, 1, 1, 0, 1),
        (2, 70, 4, 50, 3, 1, 1, 1),
        (1, 9, 130, 21, 1, 1, 0, 1),
        (2, 40, 64, 12, 1, 1, 0, 1),
        (1, 33, 30, 24, 5, 3, 2, 1),
        (1, 130, 14, 76, 3, 1, 1, 2),
        (1, 1100, 9, 26, 3, 2, 1, 1),
    ] {
        let desc = Conv2dDesc {
            n,
            c: c * groups,
            h: side,
            w: side,
            k: k * groups,
            r,
            s: r,
            stride_h: stride,
            stride_w: stride,
            pad_h: pad,
            pad_w: pad,
            groups,
            bias: true,
            ..Default::default()
        };
        let case = ConvCase::new(desc, Values::Exact, &mut random);
        let expected = case.expected();
        for isa in Isa::all() {
            for mut team in [1, 2, 3].map(Team::of) {
                // conv2d() also compares with a one-shot call, bit by bit.
                let output = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                for (got, expected) in output.iter().zip(&expected) {
                    assert!(same(*got, expected.value), "{isa:?} {desc:?}: {got}");
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 33, "{cases}");
}

fn sgemm<K: Kernel>(kernel: K, team: &mut Team, case: &GemmCase) -> Vec<f32> {
    let mut c = case.c.clone();
    let mut shared = vec![f32::NAN; gemm::shared_len(kernel, &case.problem)];
    gemm::run(kernel, team, &case.problem, (&case.a, &case.b), &mut c, &mut shared).unwrap();
    c
}

#[test]
fn every_kernel_is_exact_in_two_thousand_convolutions() {
    let mut random = Random::new(21);
    let mut cases = 0;
    for mut team in [1, 2, 3, 7].map(Team::of) {
        for index in 0..500 {
            // One in ten of any size, the others small: the oracle takes the time.
            let mut desc = conv_desc(&mut random);
            while index % 10 > 0 && Conv2d::new(desc).is_ok_and(|problem| problem.flops() > 1_000_000) {
                desc = conv_desc(&mut random);
            }
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            let expected = case.expected();
            for isa in Isa::all() {
                let output = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                for (got, expected) in output.iter().zip(&expected) {
                    assert!(same(*got, expected.value), "{isa:?} {:?}: {got}", case.desc);
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 2_000);
}

#[test]
fn every_kernel_is_exact_in_products() {
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(22);
        for mut team in [1, 2, 5].map(Team::of) {
            for _ in 0..70 {
                let case = GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random);
                let c = with_kernel!(isa, kernel => sgemm(kernel, &mut team, &case));
                for (index, expected) in case.expected() {
                    assert!(same(c[index], expected.value), "{isa:?} {:?}: {}", case.desc, c[index]);
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 210);
}

/// Every plan of implicit im2col, and packed panels, whether the planner would choose it or not.
#[test]
fn every_way_to_read_images_is_exact() {
    fn check<K: Kernel>(kernel: K, team: &mut Team, case: &ConvCase) -> usize {
        let ways = ImplicitIm2col::ways(&described().caches, columns(kernel), &case.problem);
        let ways = ways.into_iter().map(|way| Some(way.1)).chain([None]);
        let mut count = 0;
        for mut way in ways {
            // Also with the fewest channels and panels at a time.
            for smallest in [false, true] {
                if let (Some(way), true) = (&mut way, smallest) {
                    (way.channels, way.panels) = (1, 1);
                }
                let mut output = vec![f32::NAN; case.problem.output_len()];
                let geometry = conv2d::geometry(kernel, &case.problem, way);
                let plan =
                    ConvPlan::with_geometry(kernel, &case.problem, (&case.weights, case.bias()), geometry)
                        .unwrap();
                plan.execute(team, &case.input, &mut output).unwrap();
                for (got, expected) in output.iter().zip(case.expected()) {
                    assert!(same(*got, expected.value), "{} {way:?} {:?}: {got}", K::CONV, case.desc);
                }
                count += 1;
            }
        }
        count
    }
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(26);
        for mut team in [1, 3].map(Team::of) {
            for _ in 0..60 {
                let case = ConvCase::new(conv_desc(&mut random), Values::Exact, &mut random);
                cases += with_kernel!(isa, kernel => check(kernel, &mut team, &case));
            }
        }
    }
    assert!(cases >= 3 * 120);
}

/// Convolution by dot products, with weights as given and packed, in blocks of several depths, whether the planner
/// would choose it or not.
#[test]
fn dot_conv_is_exact_and_the_same_bits_with_many_threads() {
    fn run<K: Kernel>(kernel: K, threads: usize, case: &ConvCase, kc: usize) -> [Vec<f32>; 2] {
        let (cut, team) = (DotConv { kc }, &mut Team::of(threads));
        let plan = DotConvPlan::new(kernel, &case.problem, cut, &case.weights, case.bias()).unwrap();
        let bias = case.bias().unwrap_or_default();
        [plan.weights(), WeightLayout::Given(&case.weights)].map(|weights| {
            let mut output = vec![f32::NAN; case.problem.output_len()];
            dot_conv::execute(kernel, (&case.problem, cut), team, (weights, bias), &case.input, &mut output)
                .unwrap();
            output
        })
    }
    let (mut random, mut cases) = (Random::new(31), 0);
    for isa in Isa::all() {
        for number in 0..2000 {
            let desc = loop {
                let desc = Conv2dDesc { k: random.between(1, 40), ..conv_desc(&mut random) };
                let problem = Conv2d::new(Conv2dDesc { k: desc.k * desc.groups, ..desc });
                if problem.is_ok_and(|problem| problem.sizes().p * problem.sizes().q <= 100) {
                    break Conv2dDesc { k: desc.k * desc.groups, ..desc };
                }
            };
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            let kc = random.pick(&[16, 48, 1024]);
            let outputs = with_kernel!(isa, kernel => run(kernel, 1 + number % 3, &case, kc));
            for output in outputs {
                for (got, expected) in output.iter().zip(case.expected()) {
                    assert!(same(*got, expected.value), "{isa:?} {kc} {:?}: {got}", case.desc);
                }
            }
            let real = ConvCase::new(desc, Values::Real, &mut random);
            let [packed, given] = with_kernel!(isa, kernel => run(kernel, 1, &real, kc));
            let [others, _] = with_kernel!(isa, kernel => run(kernel, 3, &real, kc));
            assert!(bits(&packed) == bits(&given) && bits(&packed) == bits(&others), "{isa:?} {desc:?}");
            cases += 1;
        }
    }
    assert!(cases >= 2000);
}

/// Unusual shapes, with every kernel.
#[test]
fn unusual_shapes_are_exact() {
    let layer = |c, h, w, k, r, s, stride, pad_h, pad_w| Conv2dDesc {
        c,
        h,
        w,
        k,
        r,
        s,
        stride_h: stride,
        stride_w: stride,
        pad_h,
        pad_w,
        bias: true,
        ..Default::default()
    };
    let shapes = [
        layer(7, 14, 14, 20, 5, 5, 1, 2, 2),
        layer(5, 15, 17, 9, 9, 9, 1, 4, 4),
        layer(3, 59, 59, 10, 11, 11, 4, 2, 2),
        layer(6, 3, 40, 11, 1, 7, 1, 0, 3),
        layer(6, 40, 3, 11, 7, 1, 1, 3, 0),
        layer(2048, 4, 4, 9, 1, 1, 1, 0, 0),
        layer(300, 4, 4, 33, 3, 3, 1, 1, 1),
        layer(2, 5, 572, 5, 3, 3, 1, 0, 0),
        layer(2, 20, 20, 3, 15, 15, 1, 7, 7),
        layer(1, 61, 90, 32, 41, 11, 2, 20, 5),
        layer(2, 40, 41, 33, 16, 32, 1, 3, 9),
        Conv2dDesc { n: 9, ..layer(4, 3, 3, 70, 3, 3, 1, 1, 1) },
        Conv2dDesc { groups: 6, ..layer(6, 19, 23, 12, 3, 3, 2, 1, 1) },
    ];
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(24);
        for mut team in [1, 3].map(Team::of) {
            for desc in shapes {
                let case = ConvCase::new(desc, Values::Exact, &mut random);
                let output = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                for (got, expected) in output.iter().zip(case.expected()) {
                    assert!(same(*got, expected.value), "{isa:?} {desc:?}: {got}");
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 2 * shapes.len());
}

/// Every product of up to 33 rows, columns and depths, with every kernel. The layout of the operands changes from one
/// product to the next, so that each of the eight layouts occurs with each kind of shape.
#[test]
fn all_small_products_are_exact() {
    const SIDE: usize = 33;
    let threads: Vec<_> = Isa::all()
        .into_iter()
        .flat_map(|isa| [0, 1].map(|half| (isa, half)))
        .map(|(isa, half)| std::thread::spawn(move || small_products::<SIDE>(isa, half)))
        .collect();
    let cases: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(cases, Isa::all().len() * (SIDE + 1).pow(3));
}

/// Those with every second number of rows; returns how many.
fn small_products<const SIDE: usize>(isa: Isa, half: usize) -> usize {
    let (mut team, mut random, mut cases) = (Team::of(1), Random::new(25), 0);
    let (a, b) = (random.integers(SIDE * SIDE, 8), random.integers(SIDE * SIDE, 8));
    for (m, n) in (half..=SIDE).step_by(2).flat_map(|m| (0..=SIDE).map(move |n| (m, n))) {
        // op(A)(i, p) is at i*SIDE + p or, transposed, at p*SIDE + i, and op(B) likewise. Leading dimensions do not
        // depend on k, so each depth adds one term to the last. sums[ways] is for one pair of transpositions.
        let mut sums = [[(); 2]; 2].map(|row| row.map(|()| vec![0.0; m * n]));
        for k in 0..=SIDE {
            if k > 0 {
                let p = k - 1;
                for ((trans_a, trans_b), at) in [(0, 0), (0, 1), (1, 0), (1, 1)]
                    .into_iter()
                    .flat_map(|t| (0..m * n).map(move |at| (t, at)))
                {
                    let (i, j) = (at / n, at % n);
                    let x = if trans_a == 0 { a[i * SIDE + p] } else { a[p * SIDE + i] };
                    let y = if trans_b == 0 { b[p * SIDE + j] } else { b[j * SIDE + p] };
                    sums[trans_a][trans_b][at] += x * y;
                }
            }
            let ways = (m * 7 + n * 3 + k) % 8;
            let (trans_a, trans_b, by_columns) = (ways & 1, ways >> 1 & 1, ways >> 2 == 1);
            let expected = &sums[trans_a][trans_b];
            let transpose = |yes| if yes { Transpose::Yes } else { Transpose::No };
            // In column-major order the same data is the transposed matrix, and so is C.
            let layout = if by_columns { Layout::ColMajor } else { Layout::RowMajor };
            let desc = GemmDesc {
                trans_a: transpose((trans_a == 1) != by_columns),
                trans_b: transpose((trans_b == 1) != by_columns),
                lda: SIDE as i64,
                ldb: SIDE as i64,
                ..GemmDesc::packed(layout, m as i64, n as i64, k as i64)
            };
            let problem = Gemm::new(desc).unwrap();
            let mut c = vec![f32::NAN; m * n];
            with_kernel!(isa, kernel => {
                let mut shared = vec![f32::NAN; gemm::shared_len(kernel, &problem)];
                gemm::run(kernel, &mut team, &problem, (&a, &b), &mut c, &mut shared).unwrap();
            });
            for (at, &sum) in expected.iter().enumerate() {
                let got = if by_columns { c[at % n * m + at / n] } else { c[at] };
                assert_eq!(got, sum, "{isa:?} {desc:?} at {}, {}", at / n, at % n);
            }
            cases += 1;
        }
    }
    cases
}

/// Shapes for which the planner has special methods, in all transpositions and layouts.
#[test]
fn products_of_every_way_are_exact() {
    let shapes = [
        (1, 1, 5000),
        (1, 300, 200),
        (300, 1, 200),
        (2, 150, 333),
        (150, 3, 333),
        (4, 97, 1000),
        (200, 300, 1),
        (200, 170, 4),
        (331, 157, 17),
        (70, 500, 32),
        (500, 16, 40),
        (16, 500, 40),
        (16, 16, 2000),
        (9, 150, 600),
        (300, 50, 300),
        (65, 97, 129),
    ];
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(26);
        let mut teams = [1, 3].map(Team::of);
        for ((m, n, k), ways) in shapes.into_iter().flat_map(|shape| (0..8).map(move |ways| (shape, ways))) {
            let (by_columns, trans_a, trans_b) = (ways & 1 == 1, ways >> 1 & 1 == 1, ways >> 2 == 1);
            let layout = if by_columns { Layout::ColMajor } else { Layout::RowMajor };
            let transpose = |yes| if yes { Transpose::Yes } else { Transpose::No };
            let gap = i64::from(ways == 3);
            let desc = GemmDesc {
                trans_a: transpose(trans_a),
                trans_b: transpose(trans_b),
                lda: if trans_a != by_columns { m } else { k } + gap,
                ldb: if trans_b != by_columns { k } else { n } + gap,
                alpha: if ways % 3 == 0 { 2.0 } else { 1.0 },
                beta: [0.0, 1.0, -2.0][ways % 3],
                ..GemmDesc::packed(layout, m, n, k)
            };
            let case = GemmCase::new(GemmDesc { ldc: desc.ldc + gap, ..desc }, Values::Exact, &mut random);
            for team in &mut teams {
                let c = with_kernel!(isa, kernel => sgemm(kernel, team, &case));
                for (index, expected) in case.expected() {
                    assert!(same(c[index], expected.value), "{isa:?} {:?}: {}", case.desc, c[index]);
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 2 * 8 * shapes.len());
}

#[test]
fn the_size_of_the_team_does_not_show_in_the_bits() {
    let mut random = Random::new(23);
    let mut teams = [1, 2, 3, 7, 16].map(Team::of);
    let mut cases = 0;
    for isa in Isa::all() {
        for _ in 0..30 {
            let conv = ConvCase::new(conv_desc(&mut random), Values::Real, &mut random);
            let product = GemmCase::new(gemm_desc(&mut random), Values::Real, &mut random);
            let results = teams.each_mut().map(|team| {
                with_kernel!(isa, kernel => (conv2d(kernel, team, &conv), sgemm(kernel, team, &product)))
            });
            for (output, c) in &results[1..] {
                assert!(same_bits(output, &results[0].0) && same_bits(c, &results[0].1), "{isa:?}");
                cases += 1;
            }
        }
    }
    assert!(cases > 0);
}

/// Strides whose planes all threads copy together, and maps so small that threads share the pixels or channels of one
/// image.
#[test]
fn few_images_are_right_and_the_same_bits_with_many_threads() {
    let layers = [
        Conv2dDesc { c: 40, h: 29, w: 29, k: 70, stride_h: 2, stride_w: 2, ..Default::default() },
        Conv2dDesc { n: 2, c: 33, h: 15, w: 20, k: 24, stride_h: 2, stride_w: 3, ..Default::default() },
        Conv2dDesc { c: 96, h: 7, w: 7, k: 130, ..Default::default() },
        Conv2dDesc { c: 48, h: 14, w: 14, k: 64, groups: 2, stride_h: 2, stride_w: 2, ..Default::default() },
    ];
    let mut random = Random::new(29);
    let mut teams = [1, 2, 5, 16].map(Team::of);
    let (mut cases, mut together) = (0, 0);
    for (isa, side, values) in Isa::all().into_iter().flat_map(|isa| {
        [1, 3]
            .into_iter()
            .flat_map(move |side| [Values::Exact, Values::Real].map(|values| (isa, side, values)))
    }) {
        for layer in layers {
            let desc = Conv2dDesc { r: side, s: side, pad_h: side / 2, pad_w: side / 2, ..layer };
            let case = ConvCase::new(desc, values, &mut random);
            let results =
                teams.each_mut().map(|team| with_kernel!(isa, kernel => conv2d(kernel, team, &case)));
            let exact = matches!(values, Values::Exact);
            for output in &results {
                assert!(same_bits(output, &results[0]), "{isa:?} {desc:?}");
                cases += 1;
            }
            for (&got, expected) in results[0].iter().zip(case.expected()).filter(|_| exact) {
                assert!(same(got, expected.value), "{isa:?} {desc:?}: {got}");
            }
            together += with_kernel!(isa, kernel => {
                let plan = ConvPlan::new(kernel, &case.problem, &case.weights, case.bias()).unwrap();
                usize::from(plan.shared_stage(16) > 0)
            });
        }
    }
    assert!(cases >= 4 * 4 * layers.len() && together > 0);
}

#[test]
fn the_description_names_the_kernels_in_use() {
    let (name, facts) = describe();
    assert!(!name.is_empty());
    let kernels = &facts.iter().find(|fact| fact.0 == "kernels").unwrap().1;
    with_kernel!(Isa::best(), kernel => assert_eq!(*kernels, super::describe::names(kernel)));
}
