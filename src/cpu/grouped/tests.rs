//! Every kernel of this CPU, exact, at several team sizes, on more shapes than the planner selects for this method.

use super::cut;
use super::kernel::GroupedKernel;
use super::plan::GroupedPlan;
use super::shape::{GroupedShape, TileLimits};
use crate::cpu::isa::{Isa, with_kernel};
use crate::cpu::pool::Team;
use crate::cpu::tests::cpu_cases::{ConvCase, Values, same, same_bits};
use crate::memory::Caches;
use crate::memory::implicit_im2col::{Columns, ImplicitIm2col};
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc};

/// The output, whether maps are flat, and whether tiles are rows. `None` if the problem cannot be cut.
fn conv2d<K: GroupedKernel>(kernel: K, team: &mut Team, case: &ConvCase) -> Option<(Vec<f32>, bool, bool)> {
    let shape = cut(kernel, &case.problem)?;
    let kind = (shape.flat, shape.by_rows);
    let plan = GroupedPlan::new(kernel, shape, &case.problem, &case.weights, case.bias()).unwrap();
    let mut output = vec![f32::NAN; case.problem.output_len()];
    plan.execute(team, &case.input, &mut output).unwrap();
    Some((output, kind.0, kind.1))
}

/// A random convolution of up to 20 groups of few channels.
fn desc(random: &mut Random) -> Conv2dDesc {
    loop {
        let groups = random.between(1, 20);
        let depthwise = random.between(0, 1) == 0;
        let (r, s) = (random.between(1, 7), random.between(1, 7));
        let desc = Conv2dDesc {
            n: random.between(1, 2),
            c: groups * if depthwise { 1 } else { random.between(1, 5) },
            h: random.between(1, 24),
            w: random.between(1, 40),
            k: groups * if depthwise { random.between(1, 2) } else { random.between(1, 17) },
            r,
            s,
            stride_h: random.pick(&[1, 1, 2, 3]),
            stride_w: random.pick(&[1, 1, 2, 3]),
            pad_h: random.between(0, r),
            pad_w: random.between(0, s),
            pad_bottom: Some(random.between(-1, r)).filter(|&pad| pad >= 0),
            pad_right: Some(random.between(-1, s)).filter(|&pad| pad >= 0),
            dilation_h: random.pick(&[1, 1, 2, 3]),
            dilation_w: random.pick(&[1, 1, 2, 3]),
            groups,
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            algorithm: Algorithm::Direct,
            ..Default::default()
        };
        if Conv2d::new(desc).is_ok_and(|problem| problem.flops() < 2_000_000) {
            return desc;
        }
    }
}

#[test]
fn every_kernel_is_exact_on_two_thousand_shapes() {
    for isa in Isa::all() {
        let mut random = Random::new(51);
        let (mut cases, mut flat, mut by_rows) = (0, 0, 0);
        for mut team in [1, 2, 3, 7].map(Team::of) {
            for _ in 0..500 {
                let case = ConvCase::new(desc(&mut random), Values::Exact, &mut random);
                let done = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                let (output, is_flat, is_by_rows) = done.expect("small enough to be cut");
                for (index, (&got, expected)) in output.iter().zip(case.expected()).enumerate() {
                    assert!(
                        same(got, expected.value),
                        "{isa:?} {:?} at {index}: {got}, not {}",
                        case.desc,
                        expected.value
                    );
                }
                cases += 1;
                flat += usize::from(is_flat);
                by_rows += usize::from(is_by_rows);
            }
        }
        assert_eq!(cases, 2_000);
        assert!(flat > 20 && by_rows > 200 && cases - flat - by_rows > 200, "{flat} flat, {by_rows} by rows");
    }
}

#[test]
fn the_bits_do_not_depend_on_the_team() {
    let mut teams = [1, 2, 3, 7].map(Team::of);
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(52);
        for _ in 0..100 {
            let case = ConvCase::new(desc(&mut random), Values::Real, &mut random);
            let outputs = teams.each_mut().map(|team| {
                with_kernel!(isa, kernel => conv2d(kernel, team, &case)).expect("small enough").0
            });
            assert!(outputs.iter().all(|output| same_bits(output, &outputs[0])), "{isa:?} {:?}", case.desc);
            cases += 1;
        }
    }
    assert!(cases >= 100);
}

/// Maps so wide that a band holds only some columns, and kernels so tall that it holds few rows.
#[test]
fn blocks_of_columns_and_rows_are_exact() {
    let base = Conv2dDesc { c: 2, k: 2, r: 3, s: 3, groups: 2, bias: true, ..Default::default() };
    let shapes = [
        Conv2dDesc { h: 2, w: 40_000, pad_h: 1, pad_w: 1, ..base },
        Conv2dDesc { h: 40, w: 20_000, r: 31, s: 1, pad_h: 3, ..base },
        Conv2dDesc { h: 50, w: 3_000, stride_h: 2, stride_w: 2, k: 6, ..base },
        Conv2dDesc { h: 120, w: 900, dilation_h: 40, dilation_w: 40, pad_h: 1, ..base },
        Conv2dDesc { c: 40, k: 3, groups: 1, h: 30, w: 200, r: 5, s: 5, ..base },
    ];
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(53);
        for (desc, mut team) in shapes.into_iter().flat_map(|desc| [1, 3].map(|size| (desc, Team::of(size))))
        {
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            let (output, ..) =
                with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case)).expect("it fits");
            for (got, expected) in output.iter().zip(case.expected()) {
                assert!(same(*got, expected.value), "{isa:?} {desc:?}: {got}");
            }
            cases += 1;
        }
    }
    assert!(cases >= 2 * shapes.len());
}

/// Padding is multiplied like other values, a NaN reaches exactly the outputs that see it, and ReLU keeps it.
#[test]
fn special_values_reach_their_outputs_and_no_others() {
    let mut reached = 0;
    for isa in Isa::all() {
        let mut random = Random::new(54);
        for round in 0..200 {
            let special = random.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            let mut case = ConvCase::new(
                Conv2dDesc { relu: special.is_nan(), ..desc(&mut random) },
                Values::Exact,
                &mut random,
            );
            case.weights.iter_mut().for_each(|weight| *weight = weight.abs() + 1.0);
            let at = random.between(0, case.input.len() as i64 - 1) as usize;
            case.input[at] = special;
            let mut team = Team::of(1);
            let (output, ..) =
                with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case)).expect("it fits");
            for (&got, expected) in output.iter().zip(case.expected()) {
                let right = same(got, expected.value) || got.is_nan() && expected.value.is_nan();
                assert!(right, "{isa:?} round {round} {:?}: {got}, not {}", case.desc, expected.value);
                reached += usize::from(!got.is_finite());
            }
        }
    }
    assert!(reached > 1_000, "{reached}");
}

/// The models of both methods for a cache of 48 KiB and tiles of 8 x 48, for which the faster method was measured.
#[test]
fn grouped_is_for_little_depth_and_implicit_gemm_for_much() {
    let caches =
        Caches { l1: 48 << 10, l2: 1 << 20, l3: 32 << 20, l3_threads: 2, line: 64, ..Caches::UNKNOWN };
    let columns = Columns { mr: 8, nr: 48, lanes: 16, beside: 2, masks: true };
    let tiles = TileLimits { lanes: 16, channels: 8, rows: 8 };
    let layer = |(c, side, k): (i64, i64, i64), r: i64, pad: i64, groups: i64| {
        let desc = Conv2dDesc {
            c,
            k,
            h: side,
            w: side,
            r,
            s: r,
            pad_h: pad,
            pad_w: pad,
            groups,
            ..Default::default()
        };
        Conv2d::new(desc).unwrap()
    };
    for (problem, grouped) in [
        (layer((3, 572, 64), 3, 0, 1), true),
        (layer((1, 512, 16), 7, 3, 1), true),
        (layer((3, 224, 32), 1, 0, 1), true),
        (layer((32, 56, 32), 9, 4, 1), false),
        (layer((512, 14, 512), 3, 1, 32), false),
        (layer((64, 224, 3), 1, 0, 1), false),
    ] {
        let shape = GroupedShape::new(&problem, tiles, caches.l1 / 4).unwrap();
        let (one, other) = (
            shape.all_cycles(problem.sizes(), tiles),
            ImplicitIm2col::cycles(&caches, columns, &problem, 192),
        );
        assert_eq!(one < other, grouped, "{one} {other} {:?}", problem.sizes());
    }
}
