//! Pipelines through the public API: every job's result is exact, whatever else is in flight.
//!
//! The tests use the CPU and the first GL device; a software renderer is enough. Without a GL device, they report a skip and
//! test only the CPU, unless `SPARKLE_TEST_REQUIRE_GL=1`.

use std::time::Duration;

use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::{
    Contexts, Conv2d, Conv2dDesc, Conv2dPlan, Device, Error, Order, PipelineOptions, Ticket, WhenFull,
};

/// The CPU, and the first GL device.
fn devices() -> Vec<Device> {
    let mut all = vec![Device::open("cpu").unwrap()];
    match Device::open("gl:0") {
        Ok(device) => all.push(device),
        Err(error) if std::env::var("SPARKLE_TEST_REQUIRE_GL").is_ok_and(|value| value == "1") => {
            panic!("SPARKLE_TEST_REQUIRE_GL=1, but {error}")
        }
        Err(error) => println!("skipped: no GL device ({error})"),
    }
    all
}

/// A plan with exact results: integers, and an input that depends on a seed.
struct Case {
    problem: Conv2d,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    plan: Conv2dPlan,
}

impl Case {
    fn new(device: &Device, desc: Conv2dDesc, random: &mut Random) -> Self {
        let problem = Conv2d::new(desc).unwrap();
        let largest = largest_integer(problem.terms());
        let weights = random.integers(problem.weights_len(), largest);
        let bias = problem.bias().then(|| random.integers(problem.sizes().k, largest));
        let plan = device.plan(&problem, &weights, bias.as_deref()).unwrap();
        Case { problem, weights, bias, plan }
    }

    fn random(device: &Device, random: &mut Random) -> Self {
        let size = random.pick(&[1, 3, 3, 5]);
        let desc = Conv2dDesc {
            n: random.between(1, 6),
            c: random.between(1, 5),
            h: size + random.between(0, 12),
            w: size + random.between(0, 12),
            k: random.between(1, 5),
            r: size,
            s: size,
            stride_h: random.between(1, 2),
            pad_w: random.between(0, 1),
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            algorithm: sparkle::Algorithm::Direct,
            ..Default::default()
        };
        Case::new(device, desc, random)
    }

    fn input(&self, seed: u64) -> Vec<f32> {
        Random::new(seed).integers(self.problem.input_len(), largest_integer(self.problem.terms()))
    }

    fn check(&self, input: &[f32], output: &[f32], what: &str) {
        let expected = oracle::conv2d(&self.problem, input, &self.weights, self.bias.as_deref());
        let wrong =
            output.iter().zip(&expected).position(|(&got, expected)| f64::from(got) != expected.value);
        assert_eq!((wrong, output.len()), (None, expected.len()), "{what}: {:?}", self.problem.sizes());
    }
}

/// The pipeline options to test, as many as the machine has time for.
fn options() -> Vec<PipelineOptions> {
    let mut all = vec![];
    for contexts in [Contexts::Three, Contexts::Two, Contexts::One] {
        for (slots, piece_bytes) in [(1, 1 << 20), (2, 1500), (3, 1 << 20), (3, 1), (16, 4000)] {
            for order in [Order::Device, Order::Host] {
                all.push(PipelineOptions { slots, piece_bytes, contexts, order, queue: 4, gather: true });
            }
        }
    }
    all
}

#[test]
fn every_way_of_submitting_is_exact() {
    let mut ran = 0;
    for device in devices() {
        let mut random = Random::new(7);
        let cases: Vec<Case> = (0..6).map(|_| Case::random(&device, &mut random)).collect();
        for options in options() {
            let pipeline = device.pipeline(options).unwrap();
            let what = format!("{} {options:?}", device.id());
            owned(&pipeline, &cases, &what);
            borrowed(&pipeline, &cases, &what);
            in_place(&pipeline, &cases, &what);
            let stats = pipeline.stats();
            assert_eq!((stats.completed, stats.failed, stats.cancelled), (36, 0, 0), "{what}");
            ran += stats.completed;
        }
    }
    assert!(ran >= 1080, "{ran}");
}

/// Long kernels with short ones among them, as many as there are slots.
#[test]
fn long_kernels_in_many_slots_are_exact_and_so_are_short_ones_among_them() {
    for device in devices() {
        let mut random = Random::new(8);
        let long = Conv2dDesc { c: 16, h: 40, w: 40, k: 16, r: 3, s: 3, ..Default::default() };
        let long = Conv2dDesc { algorithm: sparkle::Algorithm::Direct, ..long };
        let cases = [Case::new(&device, long, &mut random), Case::random(&device, &mut random)];
        for order in [Order::Device, Order::Host] {
            let options =
                PipelineOptions { slots: 8, contexts: Contexts::Three, order, ..Default::default() };
            let pipeline = device.pipeline(options).unwrap();
            let job = |number: usize| {
                let case = &cases[usize::from(number % 4 == 3)];
                let (input, output) = (case.input(number as u64), vec![f32::NAN; case.problem.output_len()]);
                (case, pipeline.submit(&case.plan, input, output, WhenFull::Wait).unwrap())
            };
            let jobs: Vec<_> = (0..16).map(job).collect();
            for (number, (case, job)) in jobs.into_iter().enumerate() {
                let done = job.wait().unwrap();
                case.check(&done.input, &done.output, &format!("{} {order:?} {number}", device.id()));
            }
        }
    }
}

/// The weights of a one-shot call belong to the caller, and change from call to call.
#[test]
fn each_large_call_uses_its_own_weights() {
    for device in devices().iter().filter(|device| device.id() != "cpu") {
        // 9 MB of input and output, and so many weights that they are uploaded separately.
        let desc = Conv2dDesc { c: 256, h: 64, w: 64, k: 272, ..Default::default() };
        let cases: Vec<Case> = (1..3).map(|seed| Case::new(device, desc, &mut Random::new(seed))).collect();
        let input = cases[0].input(5);
        for (sign, case) in [1.0, -1.0].iter().flat_map(|sign| cases.iter().map(move |case| (sign, case))) {
            let weights: Vec<f32> = case.weights.iter().map(|weight| sign * weight).collect();
            let mut output = vec![f32::NAN; case.problem.output_len()];
            device.conv2d(&case.problem, &input, &weights, None, &mut output).unwrap();
            drop(weights);
            output.iter_mut().for_each(|value| *value *= sign);
            case.check(&input, &output, "a call with weights of its own");
        }
    }
}

/// Calls that move much data go through the device's own pipeline, in pieces.
#[test]
fn large_calls_are_exact_from_any_number_of_threads() {
    let mut ran = 0;
    for device in devices().iter().filter(|device| device.id() != "cpu") {
        // 1.0 MB in and 2.1 MB out per image: pieces of three images and a remainder.
        let desc = Conv2dDesc { n: 7, c: 1, h: 512, w: 512, k: 2, bias: true, ..Default::default() };
        let call = |seed: u64| {
            let case = Case::new(device, desc, &mut Random::new(seed));
            let (input, mut output) = (case.input(seed), vec![f32::NAN; case.problem.output_len()]);
            for _ in 0..2 {
                output.fill(f32::NAN);
                let (weights, bias) = (&case.weights, case.bias.as_deref());
                let run = device.conv2d(&case.problem, &input, weights, bias, &mut output).unwrap();
                assert_eq!((&*run.device, run.fallback), (device.id(), None));
                assert!(run.timing.kernel <= run.timing.wall && run.timing.dispatches >= 1);
            }
            case.check(&input, &output, "a large call");
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|seed| {
                    scope.spawn({
                        let call = &call;
                        move || call(seed)
                    })
                })
                .collect();
            ran += threads.into_iter().map(|it| it.join().unwrap()).count();
        });
    }
    assert!(ran == 3 || devices().len() == 1, "{ran}");
}

fn owned(pipeline: &sparkle::Pipeline, cases: &[Case], what: &str) {
    let submit = |(index, case): (usize, &Case)| {
        let output = vec![f32::NAN; case.problem.output_len()];
        pipeline.submit(&case.plan, case.input(index as u64), output, WhenFull::Wait).unwrap()
    };
    let jobs: Vec<_> = cases.iter().chain(cases).enumerate().map(submit).collect();
    for ((index, case), job) in cases.iter().chain(cases).enumerate().zip(jobs) {
        let done = job.wait().unwrap();
        assert_eq!(done.input, case.input(index as u64));
        case.check(&done.input, &done.output, what);
        assert!(!done.run.kernel.is_empty() && done.run.fallback.is_none());
    }
}

fn borrowed(pipeline: &sparkle::Pipeline, cases: &[Case], what: &str) {
    let inputs: Vec<Vec<f32>> =
        cases.iter().enumerate().map(|(index, it)| it.input(index as u64 + 50)).collect();
    let mut outputs: Vec<Vec<f32>> = cases.iter().map(|it| vec![f32::NAN; it.problem.output_len()]).collect();
    pipeline.scope(|scope| {
        let mut waited = None;
        for ((case, input), output) in cases.iter().zip(&inputs).zip(&mut outputs) {
            let ticket = scope.submit(&case.plan, input, output, WhenFull::Wait).unwrap();
            waited.get_or_insert(ticket);
        }
        let finished = waited.unwrap().wait().unwrap();
        cases[0].check(&inputs[0], finished.output, what);
    });
    for ((case, input), output) in cases.iter().zip(&inputs).zip(&outputs) {
        case.check(input, output, what);
    }
    // Also one at a time.
    for ((case, input), output) in cases.iter().zip(&inputs).zip(&mut outputs) {
        output.fill(f32::NAN);
        pipeline.scope(|scope| {
            scope.submit(&case.plan, input, output, WhenFull::Wait).unwrap();
        });
        case.check(input, output, what);
    }
}

fn in_place(pipeline: &sparkle::Pipeline, cases: &[Case], what: &str) {
    for (round, case) in cases.iter().chain(cases).enumerate() {
        let mut slot = pipeline.acquire(&case.plan, WhenFull::Wait).unwrap();
        let input = case.input(round as u64 + 90);
        slot.input().copy_from_slice(&input);
        let (run, slot) = slot.submit().unwrap().wait().unwrap();
        case.check(&input, slot.output(), what);
        assert!(run.timing.wall > Duration::ZERO);
    }
}

/// Eight threads submit a few hundred jobs of random shapes. Some jobs are cancelled, some dropped, some in slots. The results of
/// each thread are correct and in its order.
#[test]
fn eight_threads_submit_at_once() {
    for device in devices() {
        let mut random = Random::new(11);
        let cases: Vec<Case> = (0..8).map(|_| Case::random(&device, &mut random)).collect();
        let options = PipelineOptions { slots: 3, queue: 5, piece_bytes: 3000, ..Default::default() };
        let pipeline = device.pipeline(options).unwrap();
        std::thread::scope(|threads| {
            for thread in 0..8u64 {
                let (pipeline, cases) = (&pipeline, &cases);
                threads.spawn(move || mixed(pipeline, cases, thread, 60));
            }
        });
        pipeline.flush().unwrap();
        let stats = pipeline.stats();
        assert_eq!(stats.completed + stats.cancelled, 8 * 60, "{stats:?}");
        assert!(stats.completed > 300 && stats.failed == 0, "{stats:?}");
    }
}

/// One thread's jobs.
fn mixed(pipeline: &sparkle::Pipeline, cases: &[Case], thread: u64, jobs: u64) {
    let mut random = Random::new(1000 + thread);
    let mut flying = std::collections::VecDeque::new();
    for number in 0..jobs {
        let case = &cases[random.between(0, cases.len() as i64 - 1) as usize];
        let input = case.input(1000 * thread + number);
        if random.between(0, 3) == 0 {
            let mut slot = pipeline.acquire(&case.plan, WhenFull::Wait).unwrap();
            slot.input().copy_from_slice(&input);
            let running = slot.submit().unwrap();
            if random.between(0, 4) > 0 {
                let (_, slot) = running.wait().unwrap();
                case.check(&input, slot.output(), "a slot");
            }
            continue;
        }
        let output = vec![f32::NAN; case.problem.output_len()];
        let job = pipeline.submit(&case.plan, input, output, WhenFull::Wait).unwrap();
        match random.between(0, 7) {
            0 => drop(job),
            1 => drop(job.ticket().cancel()),
            _ => flying.push_back((case, job)),
        }
        if flying.len() > 4 {
            let (case, job): (&Case, sparkle::device::Submitted) = flying.pop_front().unwrap();
            let done = job.wait().unwrap();
            case.check(&done.input, &done.output, "a job");
        }
    }
    for (case, job) in flying {
        let done = job.wait().unwrap();
        case.check(&done.input, &done.output, "a job");
    }
}

/// A plan and its input.
fn one_case(device: &Device) -> (Case, Vec<f32>) {
    let desc = Conv2dDesc { c: 3, h: 9, w: 8, k: 4, r: 3, s: 3, ..Default::default() };
    let case = Case::new(device, desc, &mut Random::new(77));
    let input = case.input(1);
    (case, input)
}

fn is_busy<T>(result: sparkle::Result<T>) -> bool {
    matches!(result, Err(Error::Busy { .. }))
}

#[test]
fn there_are_as_many_slots_as_the_options_say() {
    for device in devices() {
        for slots in [0, 17] {
            let options = PipelineOptions { slots, ..Default::default() };
            assert!(matches!(
                device.pipeline(options),
                Err(Error::InvalidArgument { argument: "slots", .. })
            ));
        }
        let (case, input) = one_case(&device);
        for slots in [1, 2, 16] {
            let pipeline = device.pipeline(PipelineOptions { slots, ..Default::default() }).unwrap();
            let acquire = || pipeline.acquire(&case.plan, WhenFull::Refuse);
            let mut held: Vec<_> = (0..slots).map(|_| acquire().unwrap()).collect();
            assert!(is_busy(acquire()), "{} {slots}", device.id());
            // Also while a job is in it.
            let mut slot = held.pop().unwrap();
            slot.input().copy_from_slice(&input);
            let running = slot.submit().unwrap();
            assert!(is_busy(acquire()));
            let (_, slot) = running.wait().unwrap();
            case.check(&input, slot.output(), "a slot");
            assert!(is_busy(acquire()));
            drop(slot);
            held.push(acquire().unwrap());
            // A waiting caller gets the slot that is returned.
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| pipeline.acquire(&case.plan, WhenFull::Wait).is_ok());
                held.pop();
                assert!(waiter.join().unwrap());
            });
        }
    }
}

/// Ends a slot's pipeline with no job in the slot, with one that is done, and with one that runs.
#[test]
fn slots_outlive_their_pipeline_and_say_so() {
    for device in devices() {
        let (case, input) = one_case(&device);
        let pipeline = device.pipeline(PipelineOptions { slots: 3, ..Default::default() }).unwrap();
        let mut slots = [(); 3].map(|()| pipeline.acquire(&case.plan, WhenFull::Wait).unwrap());
        slots.iter_mut().for_each(|slot| slot.input().copy_from_slice(&input));
        let [empty, done, running] = slots;
        let (_, done) = done.submit().unwrap().wait().unwrap();
        let running = running.submit().unwrap();
        assert!(!running.ticket().cancel(), "a job in a slot begins when it is submitted");
        drop(pipeline);
        assert!(running.wait_for(Duration::ZERO), "{}: ending the pipeline waits for the job", device.id());
        let (_, running) = running.wait().unwrap();
        for slot in [&done, &running] {
            case.check(&input, slot.output(), "after the end");
        }
        for mut slot in [empty, done, running] {
            slot.input().fill(7.0);
            let error = slot.submit().err().unwrap();
            assert_eq!(error.to_string(), "the pipeline of this slot was destroyed", "{}", device.id());
            assert!(matches!(error, Error::Closed { .. }));
        }
    }
}

/// Closing a pipeline ends the calls that wait for a slot or for room in the queue.
#[test]
fn closing_ends_waiting_calls() {
    for device in devices() {
        let (case, _) = one_case(&device);
        let pipeline = device.pipeline(PipelineOptions { slots: 1, ..Default::default() }).unwrap();
        let held = pipeline.acquire(&case.plan, WhenFull::Wait).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| pipeline.acquire(&case.plan, WhenFull::Wait).err());
            pipeline.close();
            assert!(matches!(waiter.join().unwrap(), Some(Error::Closed { .. })), "{}", device.id());
        });
        drop(held);
        for when_full in [WhenFull::Wait, WhenFull::Refuse] {
            assert!(matches!(pipeline.acquire(&case.plan, when_full).err(), Some(Error::Closed { .. })));
            let (input, output) = (vec![0.0; case.problem.input_len()], vec![0.0; case.problem.output_len()]);
            let error = pipeline.submit(&case.plan, input, output, when_full).err();
            assert!(matches!(error, Some(Error::Closed { .. })), "{}", device.id());
        }
        pipeline.flush().unwrap();
    }
}

#[test]
fn ten_thousand_jobs_are_exact_and_in_order_whatever_the_delays() {
    for device in devices() {
        let mut random = Random::new(21);
        let cases: Vec<Case> = (0..4)
            .map(|_| {
                let desc = Conv2dDesc {
                    n: random.between(1, 2),
                    c: random.between(1, 3),
                    h: random.between(3, 8),
                    w: random.between(3, 8),
                    k: random.between(1, 3),
                    r: 3,
                    s: 3,
                    algorithm: sparkle::Algorithm::Direct,
                    ..Default::default()
                };
                Case::new(&device, desc, &mut random)
            })
            .collect();
        // Inputs and expected results of a few seeds, so that comparing is cheap.
        let known: Vec<Vec<(Vec<f32>, Vec<f32>)>> = cases
            .iter()
            .map(|case| {
                let known = |seed| {
                    let input = case.input(seed);
                    let expected = oracle::conv2d(&case.problem, &input, &case.weights, None);
                    (input, expected.into_iter().map(|it| it.value as f32).collect())
                };
                (0..16).map(known).collect()
            })
            .collect();
        let pipeline = device.pipeline(PipelineOptions { queue: 32, ..Default::default() }).unwrap();
        let mut flying = std::collections::VecDeque::new();
        let check = |(case, seed, job): (usize, usize, sparkle::device::Submitted)| {
            let done = job.wait().unwrap();
            assert!(done.output == known[case][seed].1, "case {case}, seed {seed}");
        };
        for _ in 0..10_000 {
            let (case, seed) = (random.between(0, 3) as usize, random.between(0, 15) as usize);
            let output = vec![f32::NAN; cases[case].problem.output_len()];
            let input = known[case][seed].0.clone();
            let job = pipeline.submit(&cases[case].plan, input, output, WhenFull::Wait).unwrap();
            flying.push_back((case, seed, job));
            if flying.len() > 40 {
                check(flying.pop_front().unwrap());
            }
            // An occasional pause, in which the device may become idle.
            if random.between(0, 99) == 0 {
                std::thread::sleep(Duration::from_micros(random.between(0, 4000) as u64));
            }
        }
        flying.into_iter().for_each(check);
        assert_eq!(pipeline.stats().completed, 10_000);
    }
}

#[test]
fn tickets_are_polled_waited_for_and_cancelled() {
    for device in devices() {
        let case = Case::random(&device, &mut Random::new(3));
        let options = PipelineOptions { slots: 1, queue: 2, ..Default::default() };
        let pipeline = device.pipeline(options).unwrap();
        let submit = |when_full| {
            let output = vec![f32::NAN; case.problem.output_len()];
            pipeline.submit(&case.plan, case.input(1), output, when_full)
        };
        // The queue becomes full, because no device is this fast.
        let mut accepted = vec![];
        let refused = (0..10_000).find_map(|_| submit(WhenFull::Refuse).map(|job| accepted.push(job)).err());
        assert!(matches!(refused, Some(Error::Busy { .. })), "{refused:?}");
        let cancelled = accepted.last().unwrap().ticket().cancel();
        let tickets: Vec<&Ticket> = accepted.iter().map(|job| job.ticket()).collect();
        assert!(Ticket::wait_any(&tickets, Duration::from_secs(60)).is_some());
        let results: Vec<_> = accepted.into_iter().map(|job| job.wait()).collect();
        let errors: Vec<&Error> = results.iter().filter_map(|it| it.as_ref().err()).collect();
        assert!(errors.iter().all(|&error| *error == Error::Cancelled), "{errors:?}");
        assert_eq!(errors.len(), usize::from(cancelled));
        let wrong = pipeline.submit(&case.plan, vec![0.0], vec![], WhenFull::Wait).err();
        assert!(matches!(wrong, Some(Error::InvalidArgument { .. })), "{wrong:?}");
    }
}
