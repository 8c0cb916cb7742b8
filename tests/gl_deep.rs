//! Sums so deep that some drivers would end the loops of a single pass, without an error. They are computed by calls, plans,
//! pipelines and matrix products, all exactly, on small integers.
//!
//! The tests use the first GL device. Without one, each test prints "skipped: no GL device" and passes, unless
//! `SPARKLE_TEST_REQUIRE_GL=1`.

use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::{
    Algorithm, Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Layout, PipelineOptions, Transpose, WhenFull,
};

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

#[test]
fn convolutions_by_call_by_plan_and_by_pipeline() {
    let Some(device) = device() else { return };
    let base = Conv2dDesc { algorithm: Algorithm::Direct, ..Default::default() };
    let square = |c, side, k, size, pad| Conv2dDesc {
        c,
        h: side,
        w: side,
        k,
        r: size,
        s: size,
        pad_h: pad,
        pad_w: pad,
        ..base
    };
    let pipeline = device.pipeline(PipelineOptions::default()).unwrap();
    let mut ran = 0;
    for (number, desc) in [
        square(1024, 7, 8, 7, 0),
        square(4096, 3, 8, 3, 0),
        square(70_000, 1, 2, 1, 0),
        square(1, 256, 1, 256, 0),
        square(20_000, 2, 3, 2, 1),
        // Few channels per group and large kernels; a single line; bias, ReLU, dilation.
        Conv2dDesc { groups: 4, bias: true, ..square(8, 140, 8, 131, 2) },
        Conv2dDesc { w: 150_000, s: 149_999, pad_w: 1, k: 2, relu: true, ..base },
        Conv2dDesc { n: 2, groups: 2, bias: true, relu: true, dilation_h: 2, ..square(9_000, 6, 4, 3, 1) },
        // Enough work for the tiled kernel.
        Conv2dDesc { n: 2, ..square(2_600, 8, 64, 5, 2) },
    ]
    .into_iter()
    .enumerate()
    {
        let (problem, mut random) = (Conv2d::new(desc).unwrap(), Random::new(number as u64));
        let largest = largest_integer(problem.terms());
        let [input, weights] =
            [problem.input_len(), problem.weights_len()].map(|len| random.integers(len, largest));
        let bias = problem.bias().then(|| random.integers(problem.sizes().k, largest));
        let expected: Vec<f32> = oracle::conv2d(&problem, &input, &weights, bias.as_deref())
            .iter()
            .map(|expected| expected.value as f32)
            .collect();
        let blank = || vec![f32::NAN; problem.output_len()];
        let mut output = blank();
        let run = device.conv2d(&problem, &input, &weights, bias.as_deref(), &mut output).unwrap();
        assert_eq!(output, expected, "a call, {}: {problem:?}", run.kernel);
        let plan = device.plan(&problem, &weights, bias.as_deref()).unwrap();
        for _ in 0..2 {
            output = blank();
            let run = plan.run(&input, &mut output).unwrap();
            assert_eq!(output, expected, "a plan, {}: {problem:?}", run.kernel);
        }
        let tickets: Vec<_> =
            (0..3).map(|_| pipeline.submit(&plan, input.clone(), blank(), WhenFull::Wait).unwrap()).collect();
        for ticket in tickets {
            let done = ticket.wait().unwrap();
            assert_eq!(done.output, expected, "a pipeline, {}: {problem:?}", done.run.kernel);
        }
        ran += 1;
    }
    assert_eq!(ran, 9);
}

#[test]
fn products() {
    let Some(device) = device() else { return };
    let mut ran = 0;
    for (number, (m, n, k)) in [
        (1, 1, 58_256),
        (1, 1, 300_000),
        (128, 128, 52_428),
        (8, 200, 58_241),
        (64, 64, 70_000),
        (3, 70, 131_072),
    ]
    .into_iter()
    .enumerate()
    {
        let mut random = Random::new(number as u64);
        let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
        for (trans_a, trans_b, alpha, beta) in
            [(Transpose::No, Transpose::No, 1.0, 0.0), (Transpose::Yes, Transpose::No, -2.0, 2.0)]
        {
            // The smallest leading dimension: the length of a stored line.
            let ld = |rows: i64, cols: i64, trans: Transpose| {
                if (layout == Layout::ColMajor) != (trans == Transpose::Yes) { rows } else { cols }
            };
            let (lda, ldb, ldc) = (ld(m, k, trans_a), ld(k, n, trans_b), ld(m, n, Transpose::No));
            let desc = GemmDesc { layout, trans_a, trans_b, m, n, k, alpha, lda, ldb, beta, ldc };
            let problem = Gemm::new(desc).unwrap();
            let largest = largest_integer(2 * problem.terms()).min(3);
            let [a, b, old] = problem.lens().map(|len| random.integers(len, largest));
            let mut c = old.clone();
            let run = device.sgemm(&problem, &a, &b, &mut c).unwrap();
            let sizes = problem.sizes();
            for _ in 0..64 {
                let [i, j] = [m, n].map(|side| random.between(0, side - 1) as usize);
                let expected = oracle::gemm_element(&problem, &a, &b, &old, i, j).value;
                let got = f64::from(c[i * sizes.c_row + j * sizes.c_col]);
                assert_eq!(got, expected, "{}: {desc:?} at {i}, {j}", run.kernel);
            }
            ran += 1;
        }
    }
    assert_eq!(ran, 12);
}

/// An explicit request for Winograd is refused if its sums are too deep for the device, with the limit in the message. `auto`
/// uses another algorithm.
#[test]
fn winograd_is_right_or_refused() {
    let Some(device) = device() else { return };
    let (mut ran, mut refused) = (0, 0);
    for c in [1_000, 30_000] {
        for algorithm in [Algorithm::Auto, Algorithm::Winograd] {
            let desc = Conv2dDesc {
                c,
                h: 4,
                w: 4,
                k: 3,
                r: 3,
                s: 3,
                pad_h: 1,
                pad_w: 1,
                algorithm,
                ..Default::default()
            };
            let (problem, mut random) = (Conv2d::new(desc).unwrap(), Random::new(9));
            let [input, weights] =
                [problem.input_len(), problem.weights_len()].map(|len| random.integers(len, 3));
            let mut output = vec![f32::NAN; problem.output_len()];
            match device.conv2d(&problem, &input, &weights, None, &mut output) {
                Ok(run) => {
                    for (got, expected) in output.iter().zip(oracle::conv2d(&problem, &input, &weights, None))
                    {
                        let error = oracle::error_over_bound(*got, expected, problem.terms());
                        assert!(error <= 1.0, "{}: {got}, not {expected:?}", run.kernel);
                    }
                    ran += 1;
                }
                Err(error) => {
                    assert!(algorithm == Algorithm::Winograd && c == 30_000, "{error}");
                    assert!(error.to_string().contains("iterations that the device's loops make"), "{error}");
                    assert!(output.iter().all(|value| value.is_nan()));
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(ran + refused, 4);
}
