//! `multi` over two displays of the machine's GL driver and the CPU: exact results, failures, many threads.

use super::*;
use crate::backend::Dimension;
use crate::device::Device;
use crate::device::choice::EngineChoice;
use crate::gl::tests::displays::{Fault, OUT_OF_MEMORY, TwoDisplays};
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose, oracle};

/// A NaN that no kernel computes.
const CANARY: u32 = 0x7fc0_dead;

/// A device over the two displays and the CPU.
pub fn device(displays: &TwoDisplays, weights: Option<Vec<f64>>) -> Device {
    let gpus = displays.engines.iter().map(|engine| Member::new(engine.clone(), false));
    let members = gpus.chain([Member::new(cpu::open(), false)]).collect();
    Device { choice: EngineChoice::Multi(Arc::new(Multi::new("multi".to_owned(), members, weights))) }
}

/// The displays without the CPU, which would take all small jobs of a pipeline.
pub fn displays_alone(displays: &TwoDisplays) -> Device {
    let members = displays.engines.iter().map(|engine| Member::new(engine.clone(), false)).collect();
    Device { choice: EngineChoice::Multi(Arc::new(Multi::new("multi:gl:0,gl:1".to_owned(), members, None))) }
}

fn multi(device: &Device) -> &Multi {
    let EngineChoice::Multi(multi) = &device.choice else { unreachable!("made as such") };
    multi
}

/// A convolution of small integers and its exact result.
pub struct Case {
    pub problem: Conv2d,
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub expected: Vec<f32>,
}

impl Case {
    fn new(desc: Conv2dDesc, seed: u64) -> Self {
        let problem = Conv2d::new(Conv2dDesc { algorithm: Algorithm::Direct, ..desc }).unwrap();
        let mut random = Random::new(seed);
        let mut data = |len| random.integers(len, 8);
        let (input, weights) = (data(problem.input_len()), data(problem.weights_len()));
        let bias = problem.bias().then(|| data(problem.sizes().k));
        let expected = oracle::conv2d(&problem, &input, &weights, bias.as_deref());
        let expected = expected.into_iter().map(|it| it.value as f32).collect();
        Case { problem, input, weights, bias, expected }
    }

    /// A small problem of any kind.
    pub fn random(random: &mut Random) -> Self {
        let groups = random.pick(&[1, 1, 1, 2, 3]);
        let (r, s) = (random.between(1, 3), random.between(1, 3));
        let desc = Conv2dDesc {
            n: random.pick(&[1, 1, 2, 3, 4, 5, 7]),
            c: groups * random.between(1, 6),
            h: random.between(3, 9),
            w: random.between(3, 9),
            k: groups * random.pick(&[1, 2, 5, 8, 17]),
            r,
            s,
            stride_h: random.between(1, 2),
            stride_w: random.between(1, 2),
            pad_h: random.between(0, r - 1),
            pad_w: random.between(0, s - 1),
            groups,
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            ..Default::default()
        };
        Case::new(desc, random.bits())
    }

    fn once(&self, device: &Device) -> Result<Run> {
        self.check(|output| {
            device.conv2d(&self.problem, &self.input, &self.weights, self.bias.as_deref(), output)
        })
    }

    pub fn plan(&self, device: &Device) -> crate::Conv2dPlan {
        device.plan(&self.problem, &self.weights, self.bias.as_deref()).unwrap()
    }

    /// Asserts that the output of `run` is right, and that the shares cover the problem without gaps.
    fn check(&self, run: impl FnOnce(&mut [f32]) -> Result<Run>) -> Result<Run> {
        let mut output = vec![f32::from_bits(CANARY); self.expected.len()];
        let run = run(&mut output)?;
        assert!(output == self.expected, "{:?} {:?}", self.problem.sizes(), run.shares);
        let mut next = 0;
        for share in run.shares.iter() {
            assert_eq!(share.first, next, "{:?}", run.shares);
            assert!(share.count > 0 && share.measured > std::time::Duration::ZERO, "{share:?}");
            next += share.count;
        }
        let sizes = self.problem.sizes();
        let len = match run.shares.first().map(|share| share.dimension) {
            Some(Dimension::Images) => sizes.n,
            _ => sizes.k,
        };
        assert_eq!(next, len, "{:?}", run.shares);
        Ok(run)
    }
}

/// A batch that gives every device some images.
fn batch() -> Case {
    let desc =
        Conv2dDesc { n: 9, c: 4, h: 12, w: 11, k: 6, r: 3, s: 3, pad_h: 1, bias: true, ..Default::default() };
    Case::new(desc, 7)
}

#[test]
fn five_hundred_shapes_are_exact() {
    let Some(displays) = TwoDisplays::open() else { return };
    let mut random = Random::new(500);
    // Fixed shares, so that every device has work; and the learned ones.
    let devices = [device(&displays, Some(vec![2.0, 1.0, 1.5])), device(&displays, None)];
    let (mut shared, mut dimensions) = (0, [0; 2]);
    for index in 0..500 {
        let (case, device) = (Case::random(&mut random), &devices[index % 5 / 4]);
        let run = match index % 2 {
            0 => case.once(device).unwrap(),
            _ => case.check(|output| case.plan(device).run(&case.input, output)).unwrap(),
        };
        assert_eq!(run.fallback, None);
        shared += usize::from(run.shares.len() > 1);
        dimensions[usize::from(run.shares[0].dimension == Dimension::Channels)] += 1;
    }
    assert!(shared > 300 && dimensions.iter().all(|&count| count > 150), "{shared} {dimensions:?}");
}

#[test]
fn products_of_every_layout_are_exact() {
    let Some(displays) = TwoDisplays::open() else { return };
    let device = device(&displays, Some(vec![1.0, 2.0, 1.0]));
    let mut random = Random::new(9);
    let mut shared = 0;
    for index in 0..40 {
        let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
        let trans_a = random.pick(&[Transpose::No, Transpose::Yes]);
        let trans_b = random.pick(&[Transpose::No, Transpose::Yes]);
        let (m, n, k) = (random.between(1, 40), random.between(1, 40), random.between(0, 20));
        let (most, beta) = (m.max(n).max(k) + 3, random.pick(&[0.0, 1.0, -2.0]));
        let desc = GemmDesc {
            layout,
            trans_a,
            trans_b,
            lda: most,
            ldb: most + 1,
            ldc: most + 2,
            alpha: random.pick(&[1.0, 2.0]),
            beta,
            ..GemmDesc::packed(layout, m, n, k)
        };
        let problem = Gemm::new(desc).unwrap();
        let [a, b, c] = problem.lens().map(|len| random.integers(len, 8));
        let mut result = c.clone();
        let run = device.sgemm(&problem, &a, &b, &mut result).unwrap();
        let sizes = problem.sizes();
        let mut expected = c.clone();
        for (i, j) in (0..sizes.m).flat_map(|i| (0..sizes.n).map(move |j| (i, j))) {
            let value = oracle::gemm_element(&problem, &a, &b, &c, i, j).value as f32;
            expected[i * sizes.c_row + j * sizes.c_col] = value;
        }
        assert!(result == expected, "{index}: {desc:?} {:?}", run.shares);
        shared += usize::from(run.shares.len() > 1);
    }
    assert!(shared > 25, "{shared}");
}

/// Each call of one device's driver fails once. The output is right, and the other devices compute that share alone.
#[test]
fn a_failure_at_any_call_of_one_device_changes_no_output() {
    let Some(displays) = TwoDisplays::open() else { return };
    let case = batch();
    let (mut replaced, mut injected) = (0, 0);
    for fault in [Fault::Lost, Fault::Error(OUT_OF_MEMORY)] {
        for number in 1..1000 {
            let device = device(&displays, Some(vec![1.0; 3]));
            let plan = case.plan(&device);
            case.check(|output| plan.run(&case.input, output)).unwrap();
            displays.faults.arm(fault, number);
            let run = case.check(|output| plan.run(&case.input, output)).unwrap();
            if displays.faults.disarm().is_none() {
                break;
            }
            injected += 1;
            if run.fallback.is_none() {
                continue;
            }
            replaced += 1;
            let of = |id: &str| run.shares.iter().filter(|it| &*it.device == id).map(|it| it.count).collect();
            let (lost, second, cpu): (Vec<usize>, Vec<usize>, Vec<usize>) =
                (of("gl:0"), of("gl:1"), of("cpu"));
            // Three images each; those of the lost device are shared by the other two.
            assert_eq!((lost.len(), second.iter().sum::<usize>(), cpu.iter().sum::<usize>()), (0, 5, 4));
            assert_eq!(run.shares.len(), 4, "{:?}", run.shares);
        }
    }
    assert!(injected > 20 && replaced > 10, "{injected} {replaced}");
}

#[test]
fn a_lost_device_stays_out_for_a_while_and_comes_back() {
    let Some(displays) = TwoDisplays::open() else { return };
    let (case, device) = (batch(), device(&displays, Some(vec![1.0; 3])));
    let plan = case.plan(&device);
    let run = || case.check(|output| plan.run(&case.input, output)).unwrap();
    let works = |run: &Run| run.shares.iter().any(|share| &*share.device == "gl:0");
    assert!(works(&run()));
    displays.faults.arm(Fault::Lost, 1);
    let lost = run();
    assert!(displays.faults.disarm().is_some());
    assert!(!works(&lost) && lost.fallback.as_deref().is_some_and(|it| it.starts_with("gl:0 was lost")));
    // Out for one call.
    let without = run();
    assert_eq!((works(&without), without.fallback.as_deref()), (false, None));
    let back = run();
    assert_eq!((works(&back), back.fallback.as_deref()), (true, None));
    // Lost again, and no context can be made from now on: it stays out for 1, 2, 4 and 8 calls.
    displays.faults.arm(Fault::Lost, 1);
    assert!(run().fallback.is_some());
    displays.faults.disarm();
    displays.faults.arm(Fault::CreateContexts, 1);
    let fallbacks: Vec<bool> = (0..10).map(|_| run().fallback.is_some()).collect();
    assert_eq!(fallbacks, [false, true, false, false, true, false, false, false, false, true]);
    displays.faults.disarm();
    let returned = (0..9).map(|_| works(&run())).collect::<Vec<_>>();
    assert_eq!(returned.iter().position(|&it| it), Some(8));
    assert!(multi(&device).members[0].is_present());
}

#[test]
fn eight_threads_share_a_device_and_a_plan() {
    let Some(displays) = TwoDisplays::open() else { return };
    let cases: Vec<Case> = {
        let mut random = Random::new(8);
        (0..4).map(|_| Case::random(&mut random)).chain([batch()]).collect()
    };
    for weights in [Some(vec![1.0; 3]), None] {
        let device = device(&displays, weights);
        let plans: Vec<_> = cases.iter().map(|case| case.plan(&device)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (device, cases, plans) = (&device, &cases, &plans);
                scope.spawn(move || {
                    for index in 0..6 {
                        let which = (thread + index) % cases.len();
                        let (case, plan) = (&cases[which], &plans[which]);
                        case.check(|output| plan.run(&case.input, output)).unwrap();
                        case.once(device).unwrap();
                    }
                });
            }
        });
    }
}

#[test]
fn devices_may_be_one_or_all_lost() {
    let Some(displays) = TwoDisplays::open() else { return };
    let case = batch();
    let alone = |engine: usize| {
        let members = vec![Member::new(displays.engines[engine].clone(), false)];
        Device { choice: EngineChoice::Multi(Arc::new(Multi::new("multi:gl:0".to_owned(), members, None))) }
    };
    let run = case.once(&alone(1)).unwrap();
    assert_eq!((&*run.device, run.shares.len(), run.fallback.as_deref()), ("gl:1", 1, None));
    let device = alone(0);
    case.once(&device).unwrap();
    // Some calls may fail without an effect: those that delete what is not used any more.
    let replaced = (1..100).find_map(|number| {
        displays.faults.arm(Fault::Lost, number);
        let run = case.once(&device).unwrap();
        displays.faults.disarm();
        run.fallback.is_some().then_some(run)
    });
    let run = replaced.expect("a loss that the call notices");
    assert_eq!((&*run.device, run.shares.len()), ("cpu", 1));
    assert!(run.fallback.is_some_and(|it| it.starts_with("gl:0 was lost")));
}

/// With fixed shares the images have the bits that one device gives the whole batch, also where a smaller batch would get
/// another kernel.
#[test]
fn fixed_shares_of_the_images_keep_the_bits_of_one_device() {
    let Some(displays) = TwoDisplays::open() else { return };
    let members = displays.engines.iter().map(|engine| Member::new(engine.clone(), false)).collect();
    let multi = Multi::new("multi".to_owned(), members, Some(vec![1.0, 3.0]));
    let several = Device { choice: EngineChoice::Multi(Arc::new(multi)) };
    let alone = Device { choice: EngineChoice::Fixed(displays.engines[1].clone()) };
    let mut random = Random::new(31);
    for (n, c, side, k) in [(4, 16, 14, 32), (8, 40, 7, 24), (5, 3, 20, 9), (9, 64, 5, 64)] {
        let desc =
            Conv2dDesc { n, c, h: side, w: side, k, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
        let outputs = [&several, &alone].map(|device| {
            let mut outputs = [(); 2].map(|()| vec![f32::NAN; problem.output_len()]);
            let run = device.conv2d(&problem, &input, &weights, None, &mut outputs[0]).unwrap();
            device.plan(&problem, &weights, None).unwrap().run(&input, &mut outputs[1]).unwrap();
            (run.shares.len(), outputs.map(|output| output.iter().map(|it| it.to_bits()).collect::<Vec<_>>()))
        });
        assert_eq!((outputs[0].0, outputs[1].0), (2, 0));
        assert!(outputs[0].1 == outputs[1].1, "{desc:?}");
    }
}
