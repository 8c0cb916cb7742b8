//! The CPU engine through the public API: correct results for all shapes, thread counts and values.

mod cpu_cases;

use cpu_cases::{
    ConvCase, GemmCase, Values, conv_desc, gemm_desc, is_large, on_every_isa, same, same_bits, threads,
};
use sparkle::problem::exact::Random;
use sparkle::problem::oracle::{error_over_bound, gemm_element};
use sparkle::{Algorithm, Conv2dDesc, Device, Error, Gemm, GemmDesc, Layout, Run, Transpose};

/// The thread counts of the cases, in turn.
const THREADS: [usize; 5] = [1, 2, 3, 7, 16];

fn cpu() -> Device {
    Device::open("cpu").expect("a CPU is always available")
}

/// Runs a convolution into an output full of NaN, which reveals elements that are not written.
fn conv2d(case: &ConvCase) -> Vec<f32> {
    let mut output = vec![f32::NAN; case.problem.output_len()];
    let run = cpu().conv2d(&case.problem, &case.input, &case.weights, case.bias(), &mut output);
    check_run(&run.unwrap(), "conv_");
    output
}

/// Runs a product into a copy of C. With beta zero, the elements of C are NaN before, because they must not be read.
fn sgemm(case: &GemmCase) -> Vec<f32> {
    let mut c = if case.desc.beta == 0.0 { vec![f32::NAN; case.c.len()] } else { case.c.clone() };
    check_run(&cpu().sgemm(&case.problem, &case.a, &case.b, &mut c).unwrap(), "sgemm_");
    c
}

fn check_run(run: &Run, prefix: &str) {
    assert_eq!((run.device.as_ref(), run.timing.dispatches, &run.fallback), ("cpu", 1, &None));
    assert!(run.kernel.starts_with(prefix), "{}", run.kernel);
    assert!(run.timing.kernel <= run.timing.wall);
}

#[test]
fn all_of_this_with_every_instruction_set() {
    on_every_isa("all_of_this_with_every_instruction_set", 15);
}

#[test]
fn a_thousand_exact_convolutions() {
    let mut random = Random::new(1);
    let (mut cases, mut large) = (0, 0);
    for count in THREADS {
        let _guard = threads(count);
        for _ in 0..200 {
            let case = ConvCase::new(conv_desc(&mut random), Values::Exact, &mut random);
            for (index, (got, expected)) in conv2d(&case).iter().zip(case.expected()).enumerate() {
                assert!(
                    same(*got, expected.value),
                    "{:?} at {index}: {got}, not {}",
                    case.desc,
                    expected.value
                );
            }
            cases += 1;
            large += usize::from(is_large(case.problem.flops()));
        }
    }
    assert_eq!(cases, 1_000);
    assert!(large >= 100, "only {large} use the pool");
}

#[test]
fn two_thousand_exact_products() {
    let mut random = Random::new(2);
    let (mut cases, mut large) = (0, 0);
    for count in THREADS {
        let _guard = threads(count);
        for _ in 0..400 {
            let case = GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random);
            let mut c = sgemm(&case);
            for (index, expected) in case.expected() {
                assert!(same(c[index], expected.value), "{:?} at {index}: {}", case.desc, c[index]);
                c[index] = f32::NAN;
            }
            assert!(c.iter().all(|value| value.is_nan()), "{:?}: wrote between C's elements", case.desc);
            cases += 1;
            large += usize::from(is_large(case.problem.flops()));
        }
    }
    assert_eq!(cases, 2_000);
    assert!(large >= 100, "only {large} use the pool");
}

#[test]
fn real_values_stay_within_the_bound() {
    let mut random = Random::new(3);
    let (mut worst_conv, mut worst_gemm, mut cases) = (0.0f64, 0.0f64, 0);
    for count in THREADS {
        let _guard = threads(count);
        for _ in 0..50 {
            let case = ConvCase::new(conv_desc(&mut random), Values::Real, &mut random);
            for (&got, expected) in conv2d(&case).iter().zip(case.expected()) {
                let error = error_over_bound(got, expected, case.problem.terms());
                assert!(error <= 1.0, "{:?}: {got}, not {}", case.desc, expected.value);
                worst_conv = worst_conv.max(error);
            }
            let desc = GemmDesc { alpha: 0.7, ..gemm_desc(&mut random) };
            let case = GemmCase::new(desc, Values::Real, &mut random);
            let c = sgemm(&case);
            for (index, expected) in case.expected() {
                let error = error_over_bound(c[index], expected, case.problem.terms());
                assert!(error <= 1.0, "{:?}: {}, not {}", case.desc, c[index], expected.value);
                worst_gemm = worst_gemm.max(error);
            }
            cases += 2;
        }
    }
    assert!(cases >= 500);
    println!("largest error over bound: conv2d {worst_conv:.3}, sgemm {worst_gemm:.3} ({cases} cases)");
}

#[test]
fn results_are_the_same_bits_every_time_and_at_any_number_of_threads() {
    let mut random = Random::new(4);
    let mut cases = 0;
    let convs: Vec<_> =
        (0..100).map(|_| ConvCase::new(conv_desc(&mut random), Values::Real, &mut random)).collect();
    let gemms: Vec<_> =
        (0..100).map(|_| GemmCase::new(gemm_desc(&mut random), Values::Real, &mut random)).collect();
    let first: Vec<_> = {
        let _guard = threads(1);
        convs.iter().map(conv2d).chain(gemms.iter().map(sgemm)).collect()
    };
    for repeat in 0..50 {
        let _guard = threads(THREADS[repeat % THREADS.len()]);
        for (got, first) in convs.iter().map(conv2d).chain(gemms.iter().map(sgemm)).zip(&first) {
            assert!(same_bits(&got, first));
            cases += 1;
        }
    }
    assert_eq!(cases, 50 * 200);
}

#[test]
fn winograd_through_the_public_api() {
    let _guard = threads(2);
    let mut random = Random::new(15);
    let desc =
        Conv2dDesc { c: 64, h: 30, w: 31, k: 40, r: 3, s: 3, pad_h: 1, bias: true, ..Default::default() };
    let case =
        ConvCase::new(Conv2dDesc { algorithm: Algorithm::Winograd, ..desc }, Values::Real, &mut random);
    let plan = match cpu().plan(&case.problem, &case.weights, case.bias()) {
        Ok(plan) => plan,
        // This CPU has no Winograd kernels.
        Err(error) => return assert!(matches!(error, Error::Unsupported { .. }), "{error}"),
    };
    let mut output = vec![f32::NAN; case.problem.output_len()];
    check_run(&plan.run(&case.input, &mut output).unwrap(), "conv_winograd_f");
    for (&got, expected) in output.iter().zip(case.expected()) {
        // For 64 channels, no form that may exceed a quarter of the bound is used.
        let error = error_over_bound(got, expected, case.problem.terms());
        assert!(error <= 0.25, "{got}, not {}", expected.value);
    }
    for (at, count) in [1, 2, 3, 7, 1].into_iter().enumerate() {
        sparkle::set_num_threads(count).unwrap();
        let mut again = vec![f32::NAN; output.len()];
        plan.run(&case.input, &mut again).unwrap();
        assert!(same_bits(&again, &output), "run {at} with {count} threads");
    }
    // Unsupported problems are refused, and nothing is written.
    let strided = Conv2dDesc { stride_h: 2, algorithm: Algorithm::Winograd, ..desc };
    let case = ConvCase::new(strided, Values::Real, &mut random);
    let mut output = vec![7.0; case.problem.output_len()];
    let refused = cpu().conv2d(&case.problem, &case.input, &case.weights, case.bias(), &mut output);
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    assert!(output.iter().all(|&value| value == 7.0));
}

#[test]
fn a_plan_runs_many_times() {
    let _guard = threads(2);
    let mut random = Random::new(5);
    let desc = Conv2dDesc { n: 2, c: 33, h: 19, w: 23, k: 30, r: 3, s: 3, bias: true, ..Default::default() };
    let case = ConvCase::new(desc, Values::Exact, &mut random);
    let plan = cpu().plan(&case.problem, &case.weights, case.bias()).unwrap();
    for _ in 0..5 {
        let input = random.integers(case.problem.input_len(), 8);
        let mut output = vec![f32::NAN; case.problem.output_len()];
        plan.run(&input, &mut output).unwrap();
        let other = ConvCase { input, weights: case.weights.clone(), bias: case.bias.clone(), ..case };
        assert!(output.iter().zip(other.expected()).all(|(&got, expected)| same(got, expected.value)));
    }
}

#[test]
fn nan_and_infinity_in_an_input_reach_its_outputs_and_no_others() {
    let _guard = threads(2);
    let mut random = Random::new(6);
    let (mut reached, mut spared) = (0, 0);
    for round in 0..200 {
        let special = random.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        // No ReLU: it would turn minus infinity into 0 and hide it.
        let desc = Conv2dDesc { relu: false, ..conv_desc(&mut random) };
        let mut case = ConvCase::new(desc, Values::Exact, &mut random);
        // No zero weights: they turn infinity into NaN, which the oracle does only for weights that meet an infinity.
        case.weights.iter_mut().for_each(|weight| *weight = weight.abs() + 1.0);
        let clean = conv2d(&case);
        let at = random.between(0, case.input.len() as i64 - 1) as usize;
        case.input[at] = special;
        for ((&got, &clean), expected) in conv2d(&case).iter().zip(&clean).zip(case.expected()) {
            let expected = expected.value;
            if expected.is_finite() {
                assert_eq!(got.to_bits(), clean.to_bits(), "round {round}: {desc:?}");
                spared += 1;
            } else {
                assert!(got.is_nan() && expected.is_nan() || f64::from(got) == expected, "{desc:?}: {got}");
                reached += 1;
            }
        }
    }
    assert!(reached > 1_000 && spared > 1_000, "{reached} reached, {spared} spared");
}

#[test]
fn nan_and_infinity_in_a_matrix_reach_its_row_or_column_and_no_other() {
    let _guard = threads(2);
    let mut random = Random::new(7);
    let mut cases = 0;
    for round in 0..200 {
        let (m, n, k) = (random.between(1, 60), random.between(1, 60), random.between(1, 300));
        let desc = GemmDesc::packed(random.pick(&[Layout::RowMajor, Layout::ColMajor]), m, n, k);
        let mut case = GemmCase::new(desc, Values::Exact, &mut random);
        let clean = sgemm(&case);
        let s = *case.problem.sizes();
        let special = random.pick(&[f32::NAN, f32::INFINITY]);
        let (i, j, p) = (
            random.between(0, m - 1) as usize,
            random.between(0, n - 1) as usize,
            random.between(0, k - 1) as usize,
        );
        let in_a = round % 2 == 0;
        if in_a {
            case.a[i * s.a_row + p * s.a_col] = special
        } else {
            case.b[p * s.b_row + j * s.b_col] = special
        }
        let c = sgemm(&case);
        for (row, col) in (0..s.m).flat_map(|row| (0..s.n).map(move |col| (row, col))) {
            let at = row * s.c_row + col * s.c_col;
            let hit = if in_a { row == i } else { col == j };
            // Zero times infinity is NaN, other products stay infinite: none is finite.
            let right = if hit { !c[at].is_finite() } else { c[at].to_bits() == clean[at].to_bits() };
            assert!(right, "{desc:?} at {row}, {col}: {}", c[at]);
            cases += 1;
        }
    }
    assert!(cases > 0);
}

#[test]
fn denormals_are_kept_and_overflow_is_infinite() {
    let _guard = threads(2);
    let tiny = f32::from_bits(3);
    for side in [1, 5, 40] {
        let desc = GemmDesc::packed(Layout::RowMajor, side, side, 2);
        let mut case = GemmCase::new(desc, Values::Exact, &mut Random::new(8));
        case.a.fill(tiny);
        case.b.fill(1.0);
        assert!(
            sgemm(&case)[..(side * side) as usize].iter().all(|value| value.to_bits() == 6),
            "denormal inputs"
        );
        case.a.fill(1e-30);
        case.b.fill(1e-12);
        let product = sgemm(&case)[0];
        assert!(
            (f64::from(product) - 2e-42).abs() < 3e-45 && product != 0.0,
            "denormal results: {product:e}"
        );
        case.a.fill(f32::MAX);
        case.b.fill(1.0);
        assert_eq!(sgemm(&case)[0], f32::INFINITY);
        case.b.fill(-1.0);
        assert_eq!(sgemm(&case)[0], f32::NEG_INFINITY);
    }
    let desc = Conv2dDesc { c: 3, h: 9, w: 9, k: 4, r: 3, s: 3, ..Default::default() };
    let mut case = ConvCase::new(desc, Values::Exact, &mut Random::new(9));
    case.input.fill(tiny);
    case.weights.fill(1.0);
    assert!(conv2d(&case).iter().all(|value| value.to_bits() == 81));
}

/// The rounding error of a sum does not grow with its length: few rows are dot products, which are sums of blocks.
#[test]
fn eight_million_terms_are_summed_accurately() {
    const DEPTH: usize = 8_000_000;
    let (m, n) = (2, 3);
    let mut random = Random::new(71);
    let mut positive = |len: usize| random.reals(len).iter().map(|value| value.abs()).collect::<Vec<f32>>();
    let (a, b) = (positive(m * DEPTH), positive(n * DEPTH));
    for transposed in [Transpose::Yes, Transpose::No] {
        let desc = GemmDesc::packed(Layout::RowMajor, m as i64, n as i64, DEPTH as i64);
        let desc = match transposed {
            Transpose::Yes => GemmDesc { trans_b: transposed, ldb: DEPTH as i64, ..desc },
            Transpose::No => desc,
        };
        let problem = Gemm::new(desc).unwrap();
        let mut c = vec![f32::NAN; m * n];
        cpu().sgemm(&problem, &a, &b, &mut c).unwrap();
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let expected = gemm_element(&problem, &a, &b, &[], i, j).value;
            let error = (f64::from(c[i * n + j]) / expected - 1.0).abs();
            assert!(error < 2e-6, "{transposed:?}, row {i}, column {j}: {error:e}");
        }
    }
}

#[test]
fn shapes_at_the_edge_of_sense() {
    let mut random = Random::new(10);
    let base = Conv2dDesc { c: 3, h: 5, w: 5, k: 4, r: 3, s: 3, bias: true, ..Default::default() };
    let deep = Conv2dDesc { c: 300, k: 40, h: 9, w: 9, ..base };
    let cases = [
        ("outputs that see only padding", Conv2dDesc { pad_h: 7, pad_w: 9, ..base }),
        ("a kernel as large as the padded input", Conv2dDesc { r: 9, s: 9, pad_h: 2, pad_w: 2, ..base }),
        (
            "strides that skip whole inputs",
            Conv2dDesc { stride_h: 7, stride_w: 9, pad_h: 8, pad_w: 8, ..base },
        ),
        ("a single row", Conv2dDesc { h: 1, r: 1, w: 400, ..base }),
        ("a single column", Conv2dDesc { w: 1, s: 1, h: 400, ..base }),
        (
            "dilation beyond the input",
            Conv2dDesc { dilation_h: 6, dilation_w: 6, pad_h: 6, pad_w: 6, ..base },
        ),
        ("many blocks of depth", Conv2dDesc { relu: true, pad_h: 1, pad_w: 1, ..deep }),
        ("1x1 in place", Conv2dDesc { r: 1, s: 1, ..deep }),
        ("1x1 with a stride", Conv2dDesc { r: 1, s: 1, stride_h: 2, stride_w: 2, ..deep }),
        ("1x1 with padding", Conv2dDesc { r: 1, s: 1, pad_h: 1, pad_w: 1, ..deep }),
        ("depthwise", Conv2dDesc { c: 70, k: 70, groups: 70, h: 20, w: 20, ..base }),
        ("many channels, few pixels", Conv2dDesc { c: 64, k: 600, h: 3, w: 3, pad_h: 1, pad_w: 1, ..base }),
    ];
    for count in THREADS {
        let _guard = threads(count);
        for (name, desc) in cases {
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            for (index, (got, expected)) in conv2d(&case).iter().zip(case.expected()).enumerate() {
                assert!(same(*got, expected.value), "{name} at {index}: {got}, not {}", expected.value);
            }
        }
    }
}

#[test]
fn sixty_four_threads_at_once_compute_what_one_does() {
    let _guard = threads(2);
    let mut random = Random::new(11);
    let convs: Vec<_> =
        (0..8).map(|_| ConvCase::new(conv_desc(&mut random), Values::Real, &mut random)).collect();
    let gemms: Vec<_> =
        (0..8).map(|_| GemmCase::new(gemm_desc(&mut random), Values::Real, &mut random)).collect();
    let plans: Vec<_> =
        convs.iter().map(|case| cpu().plan(&case.problem, &case.weights, case.bias()).unwrap()).collect();
    let run = |index: usize| {
        let mut output = vec![f32::NAN; convs[index].problem.output_len()];
        plans[index].run(&convs[index].input, &mut output).unwrap();
        output
    };
    let serial: Vec<_> = convs.iter().map(conv2d).chain(gemms.iter().map(sgemm)).collect();
    // A plan, which packs weights once, may use another kernel than a call.
    let planned: Vec<_> = (0..convs.len()).map(run).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let (convs, gemms, run, serial, planned, done) = (&convs, &gemms, &run, &serial, &planned, &done);
            scope.spawn(move || {
                for call in 0..100 {
                    let index = (thread + call) % 16;
                    let (got, alone) = match index {
                        8.. => (sgemm(&gemms[index - 8]), &serial[index]),
                        _ if call % 2 == 0 => (conv2d(&convs[index]), &serial[index]),
                        _ => (run(index), &planned[index]),
                    };
                    assert!(same_bits(&got, alone));
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 64 * 100);
}

#[test]
fn wrong_lengths_are_refused_and_outputs_untouched() {
    let case =
        ConvCase::new(Conv2dDesc { h: 4, w: 4, ..Default::default() }, Values::Exact, &mut Random::new(12));
    let mut output = vec![7.0; 15];
    let refused = cpu().conv2d(&case.problem, &case.input, &case.weights, None, &mut output);
    assert!(matches!(refused, Err(Error::InvalidArgument { argument: "output length", .. })));
    let case =
        GemmCase::new(GemmDesc::packed(Layout::RowMajor, 4, 4, 4), Values::Exact, &mut Random::new(13));
    let refused = cpu().sgemm(&case.problem, &case.a[..15], &case.b, &mut output);
    assert!(matches!(refused, Err(Error::InvalidArgument { argument: "a length", .. })));
    assert!(output.iter().all(|&value| value == 7.0));
}

#[test]
fn thread_counts_are_checked_and_kept() {
    let _guard = threads(3);
    assert_eq!(sparkle::num_threads(), 3);
    for count in [0, 1 << 20, usize::MAX] {
        assert!(matches!(sparkle::set_num_threads(count), Err(Error::InvalidArgument { .. })), "{count}");
    }
    assert_eq!(sparkle::num_threads(), 3);
}

#[test]
fn the_cpu_is_listed_first_with_its_facts() {
    let devices = sparkle::devices();
    assert_eq!(devices[0].id.as_deref(), Some("cpu"));
    assert!(!devices[0].name.is_empty());
    let fact = |name| devices[0].facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1.as_str());
    assert!(fact("kernels").is_some_and(|names| names.starts_with("sgemm_")));
    assert!(fact("threads").is_some_and(|count| count.parse::<usize>().is_ok()));
    assert!(fact("features").is_some());
}

/// The floating-point control word: rounding, flushing of denormals and exception masks, without the sticky flags, which any
/// inexact operation sets.
#[cfg(target_arch = "x86_64")]
fn control_word() -> u32 {
    let mut word = 0u32;
    // SAFETY: stores the control word into a local variable.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
    word & !0x3f
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_floating_point_mode_is_left_alone() {
    for count in [1, 2] {
        let _guard = threads(count);
        // In a separate thread, because the mode belongs to a thread.
        let unchanged = || {
            let mut random = Random::new(14);
            let standard = control_word();
            let flushing = standard | 0x8040;
            for mode in [standard, flushing] {
                // SAFETY: this loads a valid control word. Rust code in this mode only handles ordinary values.
                unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &mode, options(nostack)) };
                for _ in 0..10 {
                    conv2d(&ConvCase::new(conv_desc(&mut random), Values::Exact, &mut random));
                    sgemm(&GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random));
                    assert_eq!(control_word(), mode);
                }
            }
        };
        std::thread::spawn(unchanged).join().unwrap();
    }
}
