//! Measures what threads gain, layer by layer: `cargo run --release --example threads -- benchmarks/suite.csv 1,2,4
//! [ROUNDS [SECONDS]]`.
//!
//! Each layer runs with packed weights on each number of threads in turn, round by round, in one process. A
//! disturbance of the machine then affects all alike. A figure is the median of its rounds' medians. The last lines
//! are the limits of the cores: fused multiply-adds in registers, and reads of more memory than their own caches
//! hold.

#[path = "../peers/sparkle/peak.rs"]
mod peak;

use std::error::Error;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use sparkle::problem::exact::Random;
use sparkle::report::{gflops, median};
use sparkle::{Conv2d, Conv2dDesc, Device};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes that each thread reads repeatedly: more than an L2 cache, less than a share of an L3 cache.
const READ: usize = 3 << 20;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [suite, threads, options @ ..] = words.as_slice() else {
        return Err("usage: threads SUITE THREADS,... [ROUNDS [SECONDS]]".into());
    };
    let threads = threads.split(',').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    let rounds = options.first().map_or(Ok(5), |word| word.parse::<usize>())?.max(1);
    let time = Duration::from_secs_f64(options.get(1).map_or(Ok(0.05), |word| word.parse())?);
    let layers = std::fs::read_to_string(suite)?.lines().skip(1).map(layer).collect::<Result<Vec<_>>>()?;

    let head: String = threads.iter().map(|count| format!("{:>9}", format!("{count}t"))).collect();
    println!("{:14}{head}   over {}t", "GFLOPS", threads[0]);
    let mut rates = vec![];
    for (name, problem) in &layers {
        let taken = measure(problem, &threads, rounds, time)?;
        let row: Vec<f64> = taken.iter().map(|&taken| gflops(problem.flops(), taken)).collect();
        print(name, &row);
        rates.push(row);
    }
    let mean = |column: usize| {
        let logs = rates.iter().map(|row: &Vec<f64>| row[column].ln()).sum::<f64>();
        (logs / rates.len() as f64).exp()
    };
    print("geomean", &(0..threads.len()).map(mean).collect::<Vec<_>>());
    print("peak", &threads.iter().map(|&count| peak::gflops(count, time)).collect::<Vec<_>>());
    print("reading, GB/s", &threads.iter().map(|&count| reading(count, time)).collect::<Vec<_>>());
    Ok(())
}

fn print(name: &str, row: &[f64]) {
    let rates: String = row.iter().map(|rate| format!("{rate:9.1}")).collect();
    let gains: String = row.iter().map(|rate| format!("{:7.2}", rate / row[0])).collect();
    println!("{name:14}{rates}   {gains}");
}

/// A line of the suite: `name,N,C,H,W,K,kernel,stride,pad`.
fn layer(line: &str) -> Result<(String, Conv2d)> {
    let mut words = line.split(',');
    let name = words.next().unwrap_or_default().to_owned();
    let sizes = words.map(str::parse).collect::<std::result::Result<Vec<i64>, _>>()?;
    let &[n, c, h, w, k, size, stride, pad] = sizes.as_slice() else {
        return Err(format!("malformed line: {line}").into());
    };
    let (r, s, stride_h, stride_w, pad_h, pad_w) = (size, size, stride, stride, pad, pad);
    let desc = Conv2dDesc { n, c, h, w, k, r, s, stride_h, stride_w, pad_h, pad_w, ..Default::default() };
    Ok((name, Conv2d::new(desc)?))
}

/// The time of a call at each number of threads.
fn measure(problem: &Conv2d, threads: &[usize], rounds: usize, time: Duration) -> Result<Vec<Duration>> {
    let mut random = Random::new(problem.flops());
    let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
    let mut output = vec![f32::NAN; problem.output_len()];
    let plan = Device::open("cpu")?.plan(problem, &weights, None)?;
    let mut medians = vec![vec![]; threads.len()];
    for round in 0..rounds {
        for turn in 0..threads.len() {
            let at = (round + turn) % threads.len();
            sparkle::set_num_threads(threads[at])?;
            for _ in 0..3 {
                plan.run(&input, &mut output)?;
            }
            let (mut times, start) = (vec![], Instant::now());
            while times.len() < 5 || start.elapsed() < time {
                let before = Instant::now();
                plan.run(&input, &mut output)?;
                times.push(before.elapsed());
            }
            medians[at].extend(median(&times));
        }
    }
    Ok(medians.iter().filter_map(|times| median(times)).collect())
}

/// Bytes per nanosecond that `threads` threads read at the same time, each from its own memory.
fn reading(threads: usize, time: Duration) -> f64 {
    let start = Barrier::new(threads);
    let one = || {
        let data = vec![1.0f32; READ / size_of::<f32>()];
        start.wait();
        let (mut passes, begun) = (0, Instant::now());
        while begun.elapsed() < time {
            let mut sums = [0.0f32; 64];
            for line in data.chunks_exact(64) {
                sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += value);
            }
            black_box(sums);
            passes += 1;
        }
        (passes * READ) as f64 / begun.elapsed().as_nanos() as f64
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().expect("reading does not panic")).sum()
    })
}
