//! Sends many small jobs through a pipeline. Measures jobs per second and memory growth, and checks results and their
//! order.
//!
//! ```text
//! small_jobs throughput [DEVICE] [SECONDS] [WAYS]   jobs one by one and gathered, one and three contexts, all verified
//! small_jobs soak [DEVICE] [JOBS]                   memory after each tenth of the jobs: resident, and allocated by Rust code
//! small_jobs random [DEVICE] [JOBS]                 random shapes and delays, every result compared, in order
//! ```

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use sparkle::device::Submitted;
use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::{
    Algorithm, Contexts, Conv2d, Conv2dDesc, Conv2dPlan, Device, Pipeline, PipelineOptions, WhenFull,
};

type Failure = Box<dyn std::error::Error>;

/// Jobs in flight: those that wait, and those in the slots.
const IN_FLIGHT: usize = 900;
/// The queue's length. It exceeds the jobs in flight, so submitting never blocks.
const QUEUE: usize = 1024;

/// The system's allocator, which counts the allocated bytes once counting is switched on.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);
static PIECES: AtomicI64 = AtomicI64::new(0);

impl Counting {
    fn count(pieces: i64, bytes: usize) {
        if COUNTS.load(Ordering::Relaxed) {
            PIECES.fetch_add(pieces, Ordering::Relaxed);
            BYTES.fetch_add(pieces * bytes as i64, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is passed on to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count(1, layout.size());
        // SAFETY: passed on from the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Counting::count(-1, layout.size());
        // SAFETY: passed on from the caller; all memory comes from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default: &'static str| arguments.get(index).map_or(default, String::as_str);
    let device = Device::open(argument(1, "gl:0"))?;
    match argument(0, "throughput") {
        "throughput" => throughput(&device, argument(2, "1").parse()?, argument(3, "")),
        "soak" => soak(&device, argument(2, "100000").parse()?),
        "random" => random(&device, argument(2, "10000").parse()?),
        other => Err(format!("{other}: expected throughput, soak or random").into()),
    }
}

/// A plan, some inputs, and their exact results.
struct Case {
    plan: Conv2dPlan,
    known: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Case {
    fn new(device: &Device, desc: Conv2dDesc, random: &mut Random) -> Result<Self, Failure> {
        let problem = Conv2d::new(desc)?;
        let largest = largest_integer(problem.terms());
        let weights = random.integers(problem.weights_len(), largest);
        let bias = problem.bias().then(|| random.integers(problem.sizes().k, largest));
        let plan = device.plan(&problem, &weights, bias.as_deref())?;
        let mut known = || {
            let input = random.integers(problem.input_len(), largest);
            let right = oracle::conv2d(&problem, &input, &weights, bias.as_deref());
            (input, right.into_iter().map(|it| it.value as f32).collect())
        };
        let known = (0..8).map(|_| known()).collect();
        Ok(Case { plan, known })
    }

    fn small(device: &Device) -> Result<Self, Failure> {
        let desc = Conv2dDesc {
            c: 16,
            h: 16,
            w: 16,
            k: 16,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            algorithm: Algorithm::Direct,
            ..Default::default()
        };
        Case::new(device, desc, &mut Random::new(1))
    }

    fn buffers(&self, seed: usize) -> (Vec<f32>, Vec<f32>) {
        let (input, right) = &self.known[seed % self.known.len()];
        (input.clone(), vec![f32::NAN; right.len()])
    }

    fn check(&self, seed: usize, output: &[f32]) -> Result<(), Failure> {
        let same = output == self.known[seed % self.known.len()].1;
        if same {
            return Ok(());
        }
        let right = &self.known[seed % self.known.len()].1;
        let wrong: Vec<usize> = (0..right.len()).filter(|&index| output[index] != right[index]).collect();
        let unwritten = output.iter().filter(|it| it.is_nan()).count();
        let first = wrong[0];
        Err(format!(
            "seed {seed}: {} of {} numbers are wrong, {unwritten} of them NaN: {} for {}, at {wrong:?}",
            wrong.len(),
            right.len(),
            output[first],
            right[first]
        )
        .into())
    }
}

/// Jobs that circulate: each is submitted again with the buffers that it returned.
struct Round<'a> {
    pipeline: &'a Pipeline,
    case: &'a Case,
    in_flight: VecDeque<(usize, Submitted)>,
    submits: Vec<Duration>,
    done: usize,
}

impl<'a> Round<'a> {
    fn new(pipeline: &'a Pipeline, case: &'a Case) -> Result<Self, Failure> {
        let mut round = Round { pipeline, case, in_flight: VecDeque::new(), submits: vec![], done: 0 };
        for seed in 0..IN_FLIGHT {
            round.send(seed, case.buffers(seed))?;
        }
        Ok(round)
    }

    fn send(&mut self, seed: usize, (input, output): (Vec<f32>, Vec<f32>)) -> Result<(), Failure> {
        let begun = Instant::now();
        let job = self.pipeline.submit(&self.case.plan, input, output, WhenFull::Wait)?;
        if self.submits.len() < self.submits.capacity() {
            self.submits.push(begun.elapsed());
        }
        self.in_flight.push_back((seed, job));
        Ok(())
    }

    /// Waits for the oldest job and submits it again. Comparing every result would take longer than the jobs.
    fn turn(&mut self, check_every: usize) -> Result<(), Failure> {
        let (seed, job) = self.in_flight.pop_front().expect("jobs are in flight");
        let mut done = job.wait()?;
        self.done += 1;
        if done.input != self.case.known[seed % self.case.known.len()].0 {
            return Err(format!("the input of seed {seed} has changed").into());
        }
        if self.done.is_multiple_of(check_every) {
            self.case.check(seed, &done.output)?;
            done.output.fill(f32::NAN);
        }
        self.send(seed, (done.input, done.output))
    }

    fn end(self) -> Result<(), Failure> {
        self.in_flight.into_iter().try_for_each(|(seed, job)| self.case.check(seed, &job.wait()?.output))
    }
}

fn throughput(device: &Device, seconds: f64, only: &str) -> Result<(), Failure> {
    let case = Case::small(device)?;
    println!(
        "1x16x16x16, 16 outputs, 3x3, from ordinary memory, {IN_FLIGHT} jobs in flight; medians of 3 runs of {seconds} s"
    );
    println!(
        "{:<28} {:>12} {:>14} {:>14} {:>10}",
        "way", "jobs/s", "submit us p50", "submit us p99", "jobs/piece"
    );
    let ways =
        [(Contexts::Three, false), (Contexts::Three, true), (Contexts::One, false), (Contexts::One, true)];
    let name = |(contexts, gather): (Contexts, bool)| {
        format!("{contexts:?} contexts, {}", if gather { "gathered" } else { "one by one" })
    };
    let ways = ways.into_iter().filter(|&way| name(way).to_lowercase().contains(only)).collect::<Vec<_>>();
    let mut runs: Vec<Vec<Measured>> = ways.iter().map(|_| vec![]).collect();
    for _ in 0..3 {
        for (way, runs) in ways.iter().zip(&mut runs) {
            runs.push(
                measure(device, &case, *way, seconds).map_err(|error| format!("{}: {error}", name(*way)))?,
            );
        }
    }
    let mut one_by_one = None;
    for (way, runs) in ways.into_iter().zip(&mut runs) {
        runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let Measured { rate, submits, each } = &runs[1];
        println!("{:<28} {rate:>12.0} {:>14.2} {:>14.2} {each:>10.1}", name(way), submits[0], submits[1]);
        match (way.1, one_by_one) {
            (false, _) => one_by_one = Some(*rate),
            (true, Some(before)) => println!("{:<28} {:>12.1}", "  times as many", rate / before),
            (true, None) => {}
        }
    }
    Ok(())
}

/// What one way measured.
struct Measured {
    /// Jobs per second.
    rate: f64,
    /// Microseconds on the submitting thread: the median, and the 99th percentile.
    submits: [f64; 2],
    /// Jobs per piece.
    each: f64,
}

fn measure(
    device: &Device,
    case: &Case,
    (contexts, gather): (Contexts, bool),
    seconds: f64,
) -> Result<Measured, Failure> {
    let options = PipelineOptions { queue: QUEUE, contexts, gather, ..Default::default() };
    let pipeline = device.pipeline(options)?;
    let mut round = Round::new(&pipeline, case)?;
    let until = |round: &mut Round, seconds: f64, every: usize| -> Result<f64, Failure> {
        let (start, before) = (Instant::now(), round.done);
        while start.elapsed().as_secs_f64() < seconds {
            (0..32).try_for_each(|_| round.turn(every))?;
        }
        Ok((round.done - before) as f64 / start.elapsed().as_secs_f64())
    };
    until(&mut round, 0.4, 1)?;
    let before = pipeline.stats();
    round.submits = Vec::with_capacity(1 << 20);
    let rate = until(&mut round, seconds, 64)?;
    let after = pipeline.stats();
    let mut submits = std::mem::take(&mut round.submits);
    submits.sort_unstable();
    round.end()?;
    let at = |part: usize| submits[submits.len() * part / 100].as_secs_f64() * 1e6;
    let each = (after.completed - before.completed) as f64 / (after.pieces - before.pieces).max(1) as f64;
    Ok(Measured { rate, submits: [at(50), at(99)], each })
}

/// Kilobytes of ordinary memory in use.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

fn soak(device: &Device, jobs: usize) -> Result<(), Failure> {
    COUNTS.store(true, Ordering::Relaxed);
    let case = Case::small(device)?;
    let pipeline = device.pipeline(PipelineOptions { queue: QUEUE, ..Default::default() })?;
    let mut round = Round::new(&pipeline, &case)?;
    let (start, mut seen) = (Instant::now(), Vec::with_capacity(10));
    for tenth in 1..=10 {
        while round.done < jobs / 10 * tenth {
            round.turn(1)?;
        }
        // While no job is in flight, the allocated bytes do not depend on timing.
        pipeline.flush()?;
        let (kilobytes, bytes) = (resident(), BYTES.load(Ordering::Relaxed));
        let (done, pieces) = (round.done, PIECES.load(Ordering::Relaxed));
        seen.push((kilobytes, bytes));
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{done:>9} jobs, {seconds:>7.2} s, {kilobytes:>8} kB in use; allocated: {pieces:>6} pieces, {bytes:>8} bytes"
        );
    }
    COUNTS.store(false, Ordering::Relaxed);
    round.end()?;
    let stats = pipeline.stats();
    println!("completed {}, failed {}, pieces {}", stats.completed, stats.failed, stats.pieces);
    let growth = |from: usize| (seen[9].0 as i64 - seen[from].0 as i64, seen[9].1 - seen[from].1);
    for (from, name) in [(0, "first"), (1, "second"), (4, "fifth")] {
        let (kilobytes, bytes) = growth(from);
        println!("growth from the {name} tenth to the last: {kilobytes} kB in use, {bytes} bytes allocated");
    }
    Ok(())
}

fn random(device: &Device, jobs: usize) -> Result<(), Failure> {
    let mut random = Random::new(5);
    let shape = |random: &mut Random| {
        let size = random.pick(&[1, 3, 3, 5]);
        Conv2dDesc {
            n: random.between(1, 3),
            c: random.between(1, 24),
            h: size + random.between(0, 40),
            w: size + random.between(0, 40),
            k: random.between(1, 24),
            r: size,
            s: size,
            stride_h: random.between(1, 2),
            pad_w: random.between(0, 1),
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            algorithm: Algorithm::Direct,
            ..Default::default()
        }
    };
    let cases =
        (0..24).map(|_| Case::new(device, shape(&mut random), &mut random)).collect::<Result<Vec<_>, _>>()?;
    for (contexts, piece_bytes) in
        [(Contexts::Three, 1 << 20), (Contexts::Three, 20_000), (Contexts::One, 1 << 20)]
    {
        let pipeline = device.pipeline(PipelineOptions { contexts, piece_bytes, ..Default::default() })?;
        let (start, mut in_flight) = (Instant::now(), VecDeque::new());
        let check =
            |(case, seed, job): (usize, usize, Submitted)| cases[case].check(seed, &job.wait()?.output);
        for _ in 0..jobs {
            let (case, seed) = (random.between(0, 23) as usize, random.between(0, 7) as usize);
            let (input, output) = cases[case].buffers(seed);
            in_flight.push_back((
                case,
                seed,
                pipeline.submit(&cases[case].plan, input, output, WhenFull::Wait)?,
            ));
            if random.between(0, 99) == 0 {
                std::thread::sleep(Duration::from_micros(random.between(0, 400) as u64));
            }
            while in_flight.len() > random.between(1, 200) as usize {
                check(in_flight.pop_front().expect("not empty"))?;
            }
        }
        in_flight.into_iter().try_for_each(check)?;
        let (stats, time) = (pipeline.stats(), start.elapsed().as_secs_f64());
        println!(
            "{contexts:?} contexts, pieces of {piece_bytes} bytes: {} jobs exact and in order, {} failed, {} pieces, {time:.2} s",
            stats.completed, stats.failed, stats.pieces
        );
    }
    Ok(())
}
