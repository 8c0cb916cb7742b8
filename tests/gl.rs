//! The OpenGL engine through the public API, on the first GL device of the machine; a software renderer is enough.
//!
//! Without a device, each test prints "skipped: no GL device" and passes, unless `SPARKLE_TEST_REQUIRE_GL=1`.

use std::time::Duration;

use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::problem::{TensorLayout, WeightsLayout};
use sparkle::{Conv2d, Conv2dDesc, Device, Error, Gemm, GemmDesc, Layout, Transpose};

/// The first GL device.
fn device() -> Option<Device> {
    match Device::open("gl:0") {
        Ok(device) => Some(device),
        Err(error) if std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1") => {
            panic!("SPARKLE_TEST_REQUIRE_GL=1, but {error}")
        }
        Err(error) => {
            println!("skipped: no GL device ({error})");
            None
        }
    }
}

const WEIGHTS: [WeightsLayout; 3] = [WeightsLayout::Oihw, WeightsLayout::Hwio, WeightsLayout::Ohwi];

/// A random small convolution.
fn random_conv2d(random: &mut Random) -> Conv2d {
    loop {
        let groups = random.pick(&[1, 1, 2, 3]);
        // Half of them square, with one stride and one padding for both dimensions.
        let square = random.between(0, 1) == 0;
        let mut pair = |low, high: [i64; 2]| {
            let first = random.between(low, high[0]);
            (first, if square { first } else { random.between(low, high[1]) })
        };
        let (r, s) = pair(1, [7, 7]);
        let ((stride_h, stride_w), (pad_h, pad_w)) = (pair(1, [3, 3]), pair(0, [r, s]));
        let (dilation_h, dilation_w) =
            if random.between(0, 2) == 0 { (2, random.between(1, 3)) } else { (1, 1) };
        let layout = |random: &mut Random| {
            if square { TensorLayout::Nchw } else { random.pick(&[TensorLayout::Nchw, TensorLayout::Nhwc]) }
        };
        let desc = Conv2dDesc {
            n: random.between(1, 3),
            c: groups * random.between(1, 4),
            h: random.between(1, 17),
            w: random.between(1, 17),
            k: groups * random.between(1, 4),
            r,
            s,
            stride_h,
            stride_w,
            pad_h,
            pad_w,
            dilation_h,
            dilation_w,
            groups,
            bias: random.between(0, 2) == 0,
            relu: random.between(0, 2) == 0,
            algorithm: sparkle::Algorithm::Direct,
            pad_bottom: (!square).then(|| random.between(0, r)),
            pad_right: (!square).then(|| random.between(0, s)),
            input_layout: layout(random),
            output_layout: layout(random),
            weights_layout: if square { WeightsLayout::Oihw } else { random.pick(&WEIGHTS) },
        };
        // A kernel may not fit into an image this small.
        if let Ok(problem) = Conv2d::new(desc) {
            return problem;
        }
    }
}

/// Runs a convolution into an output full of NaN, and compares it with the oracle: exactly, or within the bound. Returns the
/// name of the kernel.
fn check_conv2d(device: &Device, problem: &Conv2d, random: &mut Random, exact: bool) -> String {
    let limit = largest_integer(problem.terms());
    let mut data = |len| if exact { random.integers(len, limit) } else { random.reals(len) };
    let (input, weights) = (data(problem.input_len()), data(problem.weights_len()));
    let bias = problem.bias().then(|| data(problem.sizes().k));
    let mut output = vec![f32::NAN; problem.output_len()];
    let run = device.conv2d(problem, &input, &weights, bias.as_deref(), &mut output).unwrap();
    let expected = oracle::conv2d(problem, &input, &weights, bias.as_deref());
    for (index, (&got, expected)) in output.iter().zip(expected).enumerate() {
        let error = oracle::error_over_bound(got, expected, problem.terms());
        let right = if exact { f64::from(got) == expected.value } else { error <= 1.0 };
        assert!(right, "{problem:?}: output {index} is {got}, not {expected:?}; error/bound {error}");
    }
    assert!(run.timing.kernel > Duration::ZERO && run.timing.wall >= run.timing.kernel, "{:?}", run.timing);
    assert!(run.timing.dispatches >= 1);
    run.kernel.to_string()
}

#[test]
fn exact_convolutions() {
    let Some(device) = device() else { return };
    let mut random = Random::new(300);
    let mut kernels = [0, 0];
    for _ in 0..300 {
        let problem = random_conv2d(&mut random);
        match check_conv2d(&device, &problem, &mut random, true).as_str() {
            "conv_reference_64" => kernels[0] += 1,
            "conv_direct_64" => kernels[1] += 1,
            other => panic!("unknown kernel {other}"),
        }
    }
    assert!(kernels[0] > 20 && kernels[1] > 100 && kernels[0] + kernels[1] == 300, "{kernels:?}");
}

#[test]
fn real_convolutions_stay_within_the_bound() {
    let Some(device) = device() else { return };
    let mut random = Random::new(301);
    let mut ran = 0;
    for _ in 0..60 {
        let problem = random_conv2d(&mut random);
        check_conv2d(&device, &problem, &mut random, false);
        ran += 1;
    }
    assert_eq!(ran, 60);
}

/// More workgroups of 64 than 65,535, the limit of many drivers for one dimension of a dispatch.
#[test]
fn more_outputs_than_one_grid_dimension_holds() {
    let Some(device) = device() else { return };
    let desc = Conv2dDesc { n: 1, c: 1, h: 2080, w: 1024, k: 2, ..Default::default() };
    let problem = Conv2d::new(desc).unwrap();
    assert!(problem.output_len() > 64 * 65_535 && problem.output_len() == 4_259_840);
    check_conv2d(&device, &problem, &mut Random::new(302), true);
}

#[test]
fn a_plan_runs_many_times() {
    let Some(device) = device() else { return };
    let desc = Conv2dDesc { n: 2, c: 3, h: 9, w: 8, k: 4, r: 3, s: 3, ..Default::default() };
    let problem = Conv2d::new(desc).unwrap();
    let mut random = Random::new(303);
    let weights = random.integers(problem.weights_len(), 8);
    let plan = device.plan(&problem, &weights, None).unwrap();
    for _ in 0..5 {
        let input = random.integers(problem.input_len(), 8);
        let mut output = vec![f32::NAN; problem.output_len()];
        plan.run(&input, &mut output).unwrap();
        let expected = oracle::conv2d(&problem, &input, &weights, None);
        assert!(output.iter().zip(expected).all(|(&got, expected)| f64::from(got) == expected.value));
    }
}

/// A random small product, with all options of BLAS.
fn random_gemm(random: &mut Random) -> Gemm {
    let mut side = || if random.between(0, 9) == 0 { 0 } else { random.between(1, 40) };
    let (m, n, k) = (side(), side(), side());
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let [trans_a, trans_b] = [(); 2].map(|()| random.pick(&[Transpose::No, Transpose::Yes]));
    let mut ld = |rows: i64, cols: i64, transpose| {
        let by_columns = (layout == Layout::ColMajor) != (transpose == Transpose::Yes);
        (if by_columns { rows } else { cols }).max(1) + random.pick(&[0, 0, 1, 5])
    };
    let (lda, ldb, ldc) = (ld(m, k, trans_a), ld(k, n, trans_b), ld(m, n, Transpose::No));
    let alpha = random.pick(&[1.0, 1.0, 2.0, -1.0, 0.0]);
    let beta = random.pick(&[0.0, 0.0, 1.0, -1.0, 2.0]);
    Gemm::new(GemmDesc { layout, trans_a, trans_b, m, n, k, alpha, lda, ldb, beta, ldc }).unwrap()
}

/// Runs a product, and compares every element of C with the oracle. The gaps in C must be unchanged.
fn check_gemm(device: &Device, problem: &Gemm, random: &mut Random, exact: bool) {
    let [a_len, b_len, c_len] = problem.lens();
    let mut data = |len| if exact { random.integers(len, 8) } else { random.reals(len) };
    let (a, b) = (data(a_len), data(b_len));
    // With beta = 0 the old C must not be read.
    let old = if problem.beta() == 0.0 { vec![f32::NAN; c_len + 3] } else { data(c_len + 3) };
    let mut c = old.clone();
    let run = device.sgemm(problem, &a, &b, &mut c).unwrap();
    assert_eq!(run.kernel.as_ref(), "sgemm_direct_16x16");
    let sizes = problem.sizes();
    let mut outside = vec![true; c.len()];
    for (i, j) in (0..sizes.m).flat_map(|i| (0..sizes.n).map(move |j| (i, j))) {
        let index = i * sizes.c_row + j * sizes.c_col;
        outside[index] = false;
        let expected = oracle::gemm_element(problem, &a, &b, &old, i, j);
        let error = oracle::error_over_bound(c[index], expected, problem.terms());
        let right = if exact { f64::from(c[index]) == expected.value } else { error <= 1.0 };
        assert!(right, "{problem:?}: C({i}, {j}) is {}, not {expected:?}; error/bound {error}", c[index]);
    }
    for index in (0..c.len()).filter(|&index| outside[index]) {
        assert_eq!(c[index].to_bits(), old[index].to_bits(), "{problem:?}: gap {index} was written");
    }
}

#[test]
fn exact_products() {
    let Some(device) = device() else { return };
    let mut random = Random::new(304);
    let (mut ran, mut empty, mut gaps) = (0, 0, 0);
    for _ in 0..300 {
        let problem = random_gemm(&mut random);
        check_gemm(&device, &problem, &mut random, true);
        let sizes = problem.sizes();
        ran += 1;
        empty += usize::from(sizes.m * sizes.n * sizes.k == 0);
        gaps += usize::from(problem.lens()[2] > sizes.m * sizes.n);
    }
    assert!(ran == 300 && empty > 20 && gaps > 50, "{empty} empty, {gaps} with gaps");
}

#[test]
fn real_products_stay_within_the_bound() {
    let Some(device) = device() else { return };
    let mut random = Random::new(305);
    let mut ran = 0;
    for _ in 0..60 {
        let problem = random_gemm(&mut random);
        check_gemm(&device, &problem, &mut random, false);
        ran += 1;
    }
    assert_eq!(ran, 60);
}

/// An infinity reaches only its own row: tiles at the border must not multiply it by zero.
#[test]
fn an_infinity_stays_in_its_row() {
    let Some(device) = device() else { return };
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, 19, 18, 17)).unwrap();
    let (mut a, b) = (vec![1.0; 19 * 17], vec![1.0; 17 * 18]);
    a[5 * 17 + 16] = f32::INFINITY;
    let mut c = vec![f32::NAN; 19 * 18];
    device.sgemm(&problem, &a, &b, &mut c).unwrap();
    for (index, &value) in c.iter().enumerate() {
        let expected = if index / 18 == 5 { f32::INFINITY } else { 17.0 };
        assert_eq!(value, expected, "C({}, {})", index / 18, index % 18);
    }
}

#[test]
fn a_device_that_is_not_there_says_so() {
    let error = Device::open("gl:99").err().expect("no machine has 100 devices");
    assert!(matches!(&error, Error::NoDevice { selector, .. } if selector == "gl:99"), "{error}");
}

/// The list that `sparkle info` shows. Ids count the usable devices, hardware first. Other devices state why they are unusable.
#[test]
fn every_device_is_usable_or_says_why_not() {
    let all = sparkle::devices();
    let gl: Vec<_> = all.iter().filter(|device| device.kind == sparkle::DeviceKind::Gl).collect();
    assert!(!gl.is_empty(), "a machine without EGL lists a candidate with the reason");
    println!("{gl:#?}");
    let usable: Vec<_> = gl.iter().filter(|device| device.unusable.is_none()).collect();
    for (index, device) in usable.iter().enumerate() {
        assert_eq!(device.id.as_deref(), Some(format!("gl:{index}").as_str()));
        assert!(!device.name.is_empty() && device.facts.iter().any(|(name, _)| *name == "OpenGL"));
    }
    assert!(usable.is_sorted_by_key(|device| device.software), "hardware comes first");
    assert!(gl[usable.len()..].iter().all(|it| it.unusable.as_deref().is_some_and(|why| !why.is_empty())));
}
