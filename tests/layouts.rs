//! Every order of images and weights with every kind of padding, exact on integers: on the CPU with all its instruction
//! sets, on the first GL device, and on several devices. Plans whose weights are replaced.

mod cpu_cases;

use cpu_cases::{ConvCase, Values, conv_desc, on_every_isa, same, same_bits};
use sparkle::problem::exact::Random;
use sparkle::problem::{TensorLayout, WeightsLayout};
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Device, Error};

const IMAGES: [TensorLayout; 2] = [TensorLayout::Nchw, TensorLayout::Nhwc];
const WEIGHTS: [WeightsLayout; 3] = [WeightsLayout::Oihw, WeightsLayout::Hwio, WeightsLayout::Ohwi];

/// The convolution in each of the twelve orders.
fn in_every_order(desc: Conv2dDesc) -> impl Iterator<Item = Conv2dDesc> {
    let images = IMAGES.into_iter().flat_map(|input| IMAGES.map(|output| (input, output)));
    images.flat_map(move |(input_layout, output_layout)| {
        WEIGHTS.map(|weights_layout| Conv2dDesc { input_layout, output_layout, weights_layout, ..desc })
    })
}

/// No padding, one-sided below and right, one-sided above and left, symmetric, TensorFlow's, and what was drawn.
fn paddings(desc: Conv2dDesc, random: &mut Random) -> Vec<Conv2dDesc> {
    let none = Conv2dDesc { pad_h: 0, pad_w: 0, pad_bottom: Some(0), pad_right: Some(0), ..desc };
    let (rows, cols) = (random.between(1, desc.r), random.between(1, desc.s));
    let after = Conv2dDesc { pad_bottom: Some(rows), pad_right: Some(cols), ..none };
    let before = Conv2dDesc { pad_h: rows, pad_w: cols, ..none };
    let both = Conv2dDesc { pad_h: desc.r / 2, pad_w: desc.s / 2, pad_bottom: None, pad_right: None, ..desc };
    let all = [none, after, before, both, none.same_padding(), desc];
    all.into_iter().filter(|desc| Conv2d::new(*desc).is_ok()).collect()
}

/// Computes a case in one call and with a plan, before and after its weights are replaced.
fn check(device: &Device, case: &ConvCase, random: &mut Random) {
    let expected = case.expected();
    let right = |output: &[f32], what: &str| {
        for (index, (got, expected)) in output.iter().zip(&expected).enumerate() {
            assert!(
                same(*got, expected.value),
                "{what}, {:?}: {index} is {got}, not {expected:?}",
                case.desc
            );
        }
    };
    let mut output = vec![f32::NAN; case.problem.output_len()];
    device.conv2d(&case.problem, &case.input, &case.weights, case.bias(), &mut output).unwrap();
    right(&output, "call");
    let other = ConvCase::new(case.desc, Values::Exact, random);
    let mut plan = device.plan(&case.problem, &other.weights, other.bias()).unwrap();
    let old = plan.clone();
    let wrong = plan.set_weights(&case.weights[1..], case.bias()).unwrap_err();
    assert!(matches!(wrong, Error::InvalidArgument { argument: "weights length", .. }), "{wrong}");
    plan.set_weights(&case.weights, case.bias()).unwrap();
    output.fill(f32::NAN);
    plan.run(&case.input, &mut output).unwrap();
    right(&output, "plan");
    // A clone keeps the weights that it had.
    output.fill(f32::NAN);
    old.run(&other.input, &mut output).unwrap();
    for (got, expected) in output.iter().zip(other.expected()) {
        assert!(same(*got, expected.value), "old weights, {:?}: {got}", case.desc);
    }
}

#[test]
fn every_order_and_padding_is_exact_on_the_cpu() {
    let device = Device::open("cpu").unwrap();
    let mut random = Random::new(91);
    let mut cases = 0;
    while cases < 2000 {
        let drawn = conv_desc(&mut random);
        if Conv2d::new(drawn).unwrap().flops() > 4_000_000 && random.between(0, 3) > 0 {
            continue;
        }
        for desc in paddings(drawn, &mut random) {
            for desc in in_every_order(desc) {
                check(&device, &ConvCase::new(desc, Values::Exact, &mut random), &mut random);
                cases += 1;
            }
        }
    }
}

/// The first GL device, or none.
fn gl() -> Option<Device> {
    match Device::open("gl:0") {
        Ok(device) => Some(device),
        Err(error) => {
            let required = std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1");
            assert!(!required, "SPARKLE_TEST_REQUIRE_GL=1, but {error}");
            println!("skipped: no GL device ({error})");
            None
        }
    }
}

#[test]
fn every_order_and_padding_is_exact_on_gl() {
    let Some(device) = gl() else { return };
    let mut random = Random::new(92);
    let mut cases = 0;
    while cases < 300 {
        let drawn = conv_desc(&mut random);
        if Conv2d::new(drawn).unwrap().flops() > 1_000_000 {
            continue;
        }
        for desc in paddings(drawn, &mut random) {
            for desc in in_every_order(desc).filter(|_| random.between(0, 3) == 0).collect::<Vec<_>>() {
                check(&device, &ConvCase::new(desc, Values::Exact, &mut random), &mut random);
                cases += 1;
            }
        }
    }
}

/// Layers with enough work for generated kernels, in the orders of TensorFlow and of PyTorch's channels last.
#[test]
fn generated_kernels_are_exact_in_nhwc() {
    let Some(device) = gl() else { return };
    let mut random = Random::new(93);
    let base = Conv2dDesc { n: 2, bias: true, relu: true, ..Default::default() };
    let layers = [
        Conv2dDesc { c: 32, h: 14, w: 14, k: 32, r: 3, s: 3, ..base },
        Conv2dDesc { c: 3, h: 24, w: 20, k: 32, r: 5, s: 5, stride_h: 2, stride_w: 2, ..base },
        Conv2dDesc { c: 64, h: 12, w: 12, k: 48, ..base },
        Conv2dDesc { c: 32, h: 24, w: 24, k: 32, r: 3, s: 3, groups: 32, ..base },
    ];
    for (desc, weights_layout) in layers.into_iter().flat_map(|desc| WEIGHTS.map(|order| (desc, order))) {
        let desc = Conv2dDesc { weights_layout, ..desc.channels_last().same_padding() };
        check(&device, &ConvCase::new(desc, Values::Exact, &mut random), &mut random);
    }
}

/// The shares of several devices are images where channels are not contiguous.
#[test]
fn several_devices_share_images_of_any_order() {
    if gl().is_none() {
        return;
    }
    let device = Device::open("multi").unwrap();
    let mut random = Random::new(94);
    for n in [1, 5] {
        let desc = Conv2dDesc { n, c: 24, h: 13, w: 12, k: 40, r: 3, s: 3, bias: true, ..Default::default() };
        for desc in in_every_order(desc.same_padding()) {
            check(&device, &ConvCase::new(desc, Values::Exact, &mut random), &mut random);
        }
    }
}

/// Winograd's algorithm in NHWC gives the bits that it gives in NCHW.
#[test]
fn winograd_gives_the_same_bits_in_every_order() {
    let cpu = Device::open("cpu").unwrap();
    let plain = Conv2dDesc {
        n: 2,
        c: 20,
        h: 17,
        w: 22,
        k: 19,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_right: Some(1),
        bias: true,
        algorithm: Algorithm::Winograd,
        ..Default::default()
    };
    let mut random = Random::new(95);
    let case = ConvCase::new(plain, Values::Real, &mut random);
    let mut expected = vec![f32::NAN; case.problem.output_len()];
    match cpu.conv2d(&case.problem, &case.input, &case.weights, case.bias(), &mut expected) {
        Ok(_) => {}
        Err(error) => return assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
    }
    let from = *case.problem.sizes();
    for desc in in_every_order(plain) {
        let problem = Conv2d::new(desc).unwrap();
        let to = *problem.sizes();
        let (mut input, mut weights) = (case.input.clone(), case.weights.clone());
        for (index, value) in case.input.iter().enumerate() {
            let (x, rest) = (index % from.w, index / from.w);
            let (y, rest) = (rest % from.h, rest / from.h);
            input[to.input_strides().at(rest / from.c, rest % from.c, y, x)] = *value;
        }
        for (index, value) in case.weights.iter().enumerate() {
            let (tap, rest) = (index % 9, index / 9);
            weights[to.weights_strides().at(rest / from.c, rest % from.c, tap / 3, tap % 3)] = *value;
        }
        let mut output = vec![f32::NAN; problem.output_len()];
        cpu.plan(&problem, &weights, case.bias()).unwrap().run(&input, &mut output).unwrap();
        let plain: Vec<f32> = (0..output.len())
            .map(|index| {
                let (x, rest) = (index % from.q, index / from.q);
                let (y, rest) = (rest % from.p, rest / from.p);
                output[to.output_strides().at(rest / from.k, rest % from.k, y, x)]
            })
            .collect();
        assert!(same_bits(&plain, &expected), "{desc:?}");
    }
}

#[test]
fn same_padding_gives_one_output_for_each_stride() {
    let mut random = Random::new(96);
    let mut cases = 0;
    for _ in 0..2000 {
        let desc = Conv2dDesc { pad_bottom: None, pad_right: None, ..conv_desc(&mut random) }.same_padding();
        let Ok(problem) = Conv2d::new(desc) else { continue };
        let sizes = problem.sizes();
        let outputs = (sizes.h.div_ceil(sizes.stride_h), sizes.w.div_ceil(sizes.stride_w));
        assert_eq!((sizes.p, sizes.q), outputs, "{desc:?}");
        assert!(sizes.pad_bottom - sizes.pad_h <= 1 && sizes.pad_right - sizes.pad_w <= 1, "{desc:?}");
        cases += 1;
    }
    assert!(cases > 1900, "{cases}");
}

#[test]
fn every_instruction_set() {
    on_every_isa("every_instruction_set", 6);
}
