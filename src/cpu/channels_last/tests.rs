//! Every order of images and weights with every kernel of this CPU, exact on integers.

use super::*;
use crate::cpu::isa::{Isa, with_kernel};
use crate::cpu::tests::cpu_cases::{ConvCase, Values, conv_desc, same, same_bits};
use crate::cpu::{direct, winograd};
use crate::problem::exact::Random;
use crate::problem::oracle::{self, error_over_bound};
use crate::problem::{Algorithm, Conv2dDesc, WeightsLayout};

const IMAGES: [TensorLayout; 2] = [TensorLayout::Nchw, TensorLayout::Nhwc];
const WEIGHTS: [WeightsLayout; 3] = [WeightsLayout::Oihw, WeightsLayout::Hwio, WeightsLayout::Ohwi];

/// The same convolution in every order.
fn in_every_order(desc: Conv2dDesc) -> impl Iterator<Item = Conv2dDesc> {
    let images = IMAGES.into_iter().flat_map(|input| IMAGES.map(|output| (input, output)));
    images.flat_map(move |(input_layout, output_layout)| {
        WEIGHTS.map(|weights_layout| Conv2dDesc { input_layout, output_layout, weights_layout, ..desc })
    })
}

/// One-sided padding, none, as much on both sides, and TensorFlow's.
fn paddings(desc: Conv2dDesc, random: &mut Random) -> [Conv2dDesc; 4] {
    let none = Conv2dDesc { pad_h: 0, pad_w: 0, pad_bottom: None, pad_right: None, ..desc };
    let one_sided = Conv2dDesc {
        pad_bottom: Some(random.between(1, desc.r)),
        pad_right: Some(random.between(1, desc.s)),
        ..none
    };
    let both = Conv2dDesc { pad_h: desc.r / 2, pad_w: desc.s / 2, ..none };
    [none, one_sided, both, none.same_padding()]
}

#[test]
fn every_order_and_padding_is_exact() {
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(81);
        for _ in 0..24 {
            let drawn = conv_desc(&mut random);
            for desc in paddings(drawn, &mut random).into_iter().chain([drawn]) {
                if Conv2d::new(desc).is_err() {
                    continue;
                }
                for desc in in_every_order(desc) {
                    let case = ConvCase::new(desc, Values::Exact, &mut random);
                    let expected = case.expected();
                    let mut outputs = [(); 2].map(|()| vec![f32::NAN; case.problem.output_len()]);
                    let plan = direct::plan(isa, &case.problem, &case.weights, case.bias()).unwrap();
                    plan.run(&case.input, &mut outputs[0]).unwrap();
                    let given = (&case.weights[..], case.bias());
                    direct::once(isa, &case.problem, given, &case.input, &mut outputs[1]).unwrap();
                    for output in &outputs {
                        for (index, (got, expected)) in output.iter().zip(&expected).enumerate() {
                            assert!(
                                same(*got, expected.value),
                                "{isa:?} {desc:?}: {index} is {got}, not {expected:?}"
                            );
                        }
                    }
                    cases += 1;
                }
            }
        }
    }
    assert!(cases >= 2000, "{cases}");
}

/// Sums of several blocks of depth, maps of several bands, and many output channels, on teams of several sizes.
#[test]
fn the_number_of_threads_changes_no_bits() {
    let layer = |c, side, k, r| Conv2dDesc {
        n: 2,
        c,
        h: side,
        w: side + 1,
        k,
        r,
        s: r,
        pad_h: r / 2,
        pad_w: r / 2,
        bias: true,
        relu: true,
        ..Default::default()
    };
    let shapes = [layer(200, 9, 70, 3), layer(700, 5, 33, 1), layer(8, 61, 16, 3), layer(3, 40, 200, 5)];
    let mut random = Random::new(82);
    for (isa, desc) in Isa::all().into_iter().flat_map(|isa| shapes.map(|desc| (isa, desc))) {
        for output_layout in IMAGES {
            let desc = Conv2dDesc { input_layout: TensorLayout::Nhwc, output_layout, ..desc };
            let case = ConvCase::new(desc, Values::Real, &mut random);
            let outputs = with_kernel!(isa, kernel => {
                let plan = ChannelsLastPlan::new(kernel, &case.problem, &case.weights, case.bias()).unwrap();
                [1, 2, 5].map(|threads| {
                    let mut output = vec![f32::NAN; case.problem.output_len()];
                    plan.execute(&mut Team::of(threads), &case.input, &mut output).unwrap();
                    output
                })
            });
            assert!(outputs.iter().all(|output| same_bits(output, &outputs[0])), "{isa:?} {desc:?}");
            for (got, expected) in outputs[0].iter().zip(case.expected()) {
                assert!(error_over_bound(*got, expected, case.problem.terms()) <= 1.0, "{isa:?} {desc:?}");
            }
        }
    }
}

/// An infinite weight times a zero of the padding is NaN, and NaN stays NaN under ReLU, in every order.
#[test]
fn special_values_are_those_of_the_definition() {
    let base = Conv2dDesc {
        c: 8,
        h: 7,
        w: 9,
        k: 8,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_right: Some(1),
        relu: true,
        ..Default::default()
    };
    let mut cases = 0;
    for desc in [base, Conv2dDesc { groups: 8, ..base }] {
        for (isa, desc) in
            Isa::all().into_iter().flat_map(|isa| in_every_order(desc).map(move |desc| (isa, desc)))
        {
            let problem = Conv2d::new(desc).unwrap();
            let mut random = Random::new(83);
            let (mut input, mut weights) =
                (random.integers(problem.input_len(), 3), random.integers(problem.weights_len(), 3));
            weights[problem.sizes().weights_strides().at(2, 0, 0, 1)] = f32::INFINITY;
            input[problem.sizes().input_strides().at(0, 5, 3, 4)] = f32::NAN;
            let mut output = vec![0.0; problem.output_len()];
            direct::plan(isa, &problem, &weights, None).unwrap().run(&input, &mut output).unwrap();
            for (got, expected) in output.iter().zip(oracle::conv2d(&problem, &input, &weights, None)) {
                let right = error_over_bound(*got, expected, problem.terms()) <= 1.0;
                assert!(right, "{isa:?} {desc:?}: {got} for {expected:?}");
            }
            cases += 1;
        }
    }
    assert!(cases >= 24);
}

/// Winograd's algorithm in every order gives the bits that it gives in NCHW, also where tiles are recomputed.
#[test]
fn winograd_gives_the_same_bits_in_every_order() {
    let mut cases = 0;
    for isa in Isa::all().into_iter().filter(|isa| !matches!(isa, Isa::Portable(_))) {
        for (c, k, groups, bottom) in [(20, 19, 1, None), (24, 40, 2, Some(0)), (8, 8, 1, Some(1))] {
            let plain = Conv2dDesc {
                n: 2,
                c,
                h: 17,
                w: 22,
                k,
                r: 3,
                s: 3,
                pad_h: 1,
                pad_w: 1,
                pad_bottom: bottom,
                groups,
                bias: true,
                algorithm: Algorithm::Winograd,
                ..Default::default()
            };
            let mut random = Random::new(84);
            let whole = Conv2d::new(plain).unwrap();
            let (mut input, weights) = (random.reals(whole.input_len()), random.reals(whole.weights_len()));
            input[5] = 3e38;
            let bias = random.reals(k as usize);
            let compute = |problem: &Conv2d, input: &[f32], weights: &[f32]| {
                let mut outputs = [(); 2].map(|()| vec![f32::NAN; problem.output_len()]);
                let given = (weights, Some(&bias[..]));
                winograd::plan(isa, problem, given).unwrap().unwrap().run(input, &mut outputs[0]).unwrap();
                winograd::once(isa, problem, given, input, &mut outputs[1]).unwrap().unwrap();
                assert!(same_bits(&outputs[0], &outputs[1]));
                let [output, _] = outputs;
                output
            };
            let expected = compute(&whole, &input, &weights);
            for desc in in_every_order(plain) {
                let problem = Conv2d::new(desc).unwrap();
                let (from, to) = (whole.sizes(), problem.sizes());
                let mut other_input = vec![f32::NAN; input.len()];
                let mut other_weights = vec![f32::NAN; weights.len()];
                for (index, value) in input.iter().enumerate() {
                    let (x, rest) = (index % from.w, index / from.w);
                    let (y, rest) = (rest % from.h, rest / from.h);
                    other_input[to.input_strides().at(rest / from.c, rest % from.c, y, x)] = *value;
                }
                for (index, value) in weights.iter().enumerate() {
                    let (tap, rest) = (index % 9, index / 9);
                    let per_group = from.c / from.groups;
                    let at = to.weights_strides().at(rest / per_group, rest % per_group, tap / 3, tap % 3);
                    other_weights[at] = *value;
                }
                let output = compute(&problem, &other_input, &other_weights);
                for (index, expected) in expected.iter().enumerate() {
                    let (x, rest) = (index % from.q, index / from.q);
                    let (y, rest) = (rest % from.p, rest / from.p);
                    let got = output[to.output_strides().at(rest / from.k, rest % from.k, y, x)];
                    assert!(
                        got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(),
                        "{isa:?} {desc:?} {index}"
                    );
                }
                cases += 1;
            }
        }
    }
    assert!(cases == 0 || cases >= 36);
}
