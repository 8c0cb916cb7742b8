//! Measures what the library's own threads gain over rayon's, and rayon in host work of the library.
//!
//! `cargo run --release --features rayon --example rayon -- [THREADS [ROUNDS]]`. All ways of a table take turns, round by
//! round, in one process. Rounds take a few milliseconds, so that the best of many fits between the time slices of other
//! programs. On a quiet machine the median counts, on a busy one the least.
//!
//! * Rows of small layers, one call after the other, on the library's own threads and on a lent rayon pool.
//! * A comparison of an output with the float64 oracle: on scoped threads that take rows in turn, and by rayon.
//! * A copy of 64 MiB: by one thread, by scoped threads and by rayon.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use sparkle::problem::exact::Random;
use sparkle::problem::oracle::{self, Expected};
use sparkle::{Conv2d, Conv2dDesc, Conv2dPlan, Device, end_rayon_loan, lend_rayon_pool, set_num_threads};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Calls in a round of a row of layers.
const CALLS: u32 = 30;

fn main() -> Result<()> {
    let words: Vec<usize> =
        std::env::args().skip(1).map(|word| word.parse()).collect::<std::result::Result<_, _>>()?;
    let threads = words.first().copied().unwrap_or(2).max(1);
    let rounds = words.get(1).copied().unwrap_or(99).max(1);
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?);
    println!("{threads} threads, {rounds} rounds; microseconds: least, a tenth, median");
    layers(&pool, threads, rounds)?;
    oracle_rows(&pool, threads, rounds)?;
    copies(&pool, threads, rounds)?;
    Ok(())
}

/// A way to do the work of a table.
type Way<'a> = (&'a str, Box<dyn FnMut() -> Duration + 'a>);

/// Runs all ways in turns and prints a line.
fn print(name: &str, rounds: usize, ways: &mut [Way]) {
    let mut times = vec![vec![]; ways.len()];
    for _ in 0..rounds {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            times.push((way.1)());
        }
    }
    for ((way, _), times) in ways.iter().zip(&times) {
        let mut us: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        us.sort_by(f64::total_cmp);
        let (least, tenth, middle) = (us[0], us[us.len() / 10], us[us.len() / 2]);
        println!("{name:22} {way:26} {least:10.1} {tenth:10.1} {middle:10.1}");
    }
}

/// The time of a call, in a row of calls that follow each other at once.
fn row(plan: &Conv2dPlan, input: &[f32], output: &mut [f32]) -> Duration {
    // The first calls wake the threads.
    let mut run = |calls| (0..calls).for_each(|_| drop(plan.run(input, output).expect("a plan runs")));
    run(CALLS / 10);
    let start = Instant::now();
    run(CALLS);
    start.elapsed() / CALLS
}

fn layers(pool: &Arc<rayon::ThreadPool>, threads: usize, rounds: usize) -> Result<()> {
    let square = |side, c, k, r| Conv2dDesc {
        h: side,
        w: side,
        c,
        k,
        r,
        s: r,
        pad_h: r / 2,
        pad_w: r / 2,
        ..Default::default()
    };
    for (name, desc) in [
        ("14x14x128, 64 of 1x1", square(14, 128, 64, 1)),
        ("28x28x64, 64 of 1x1", square(28, 64, 64, 1)),
        ("28x28x32, 32 of 3x3", square(28, 32, 32, 3)),
        ("14x14x128, 128 of 3x3", square(14, 128, 128, 3)),
    ] {
        let problem = Conv2d::new(desc)?;
        let mut random = Random::new(1);
        let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
        let plan = Device::open("cpu")?.plan(&problem, &weights, None)?;
        let on = |threads: usize, lent: Option<Arc<rayon::ThreadPool>>| {
            set_num_threads(threads).expect("a valid number of threads");
            match lent {
                Some(pool) => lend_rayon_pool(Some(pool)).expect("a pool that exists"),
                None => end_rayon_loan(),
            }
        };
        let fresh = || vec![0.0; problem.output_len()];
        let (mut a, mut b, mut c, mut d) = (fresh(), fresh(), fresh(), fresh());
        let mut ways: [Way; 4] = [
            (
                "one thread",
                Box::new(|| {
                    on(1, None);
                    row(&plan, &input, &mut a)
                }),
            ),
            (
                "own threads",
                Box::new(|| {
                    on(threads, None);
                    row(&plan, &input, &mut b)
                }),
            ),
            (
                "lent, caller outside",
                Box::new(|| {
                    on(threads, Some(pool.clone()));
                    row(&plan, &input, &mut c)
                }),
            ),
            (
                "lent, caller inside",
                Box::new(|| {
                    on(threads, Some(pool.clone()));
                    pool.install(|| row(&plan, &input, &mut d))
                }),
            ),
        ];
        print(name, rounds, &mut ways);
        drop(ways);
        assert!(a == b && b == c && c == d, "the bits do not depend on the threads");
    }
    end_rayon_loan();
    Ok(())
}

fn oracle_rows(pool: &rayon::ThreadPool, threads: usize, rounds: usize) -> Result<()> {
    let desc =
        Conv2dDesc { c: 64, h: 28, w: 28, k: 64, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let problem = Conv2d::new(desc)?;
    let (k, p, q) = (problem.sizes().k, problem.sizes().p, problem.sizes().q);
    let mut random = Random::new(2);
    let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
    let data = (&input[..], &weights[..], None);
    let mut output = vec![0.0; problem.output_len()];
    Device::open("cpu")?.conv2d(&problem, &input, &weights, None, &mut output)?;
    let error = |row: usize, expected: &mut [Expected]| {
        oracle::conv2d_row(&problem, data, (row / p / k, row / p % k, row % p), expected);
        let errors = output[row * q..][..q].iter().zip(expected);
        errors.map(|(&got, &mut it)| oracle::error_over_bound(got, it, problem.terms())).fold(0.0, f64::max)
    };
    let rows = output.len() / q;
    let timed = |work: &dyn Fn() -> f64| {
        let start = Instant::now();
        assert!(work() <= 1.0, "a right result");
        start.elapsed()
    };
    let mut ways: [Way; 3] = [
        (
            "one thread",
            Box::new(|| {
                timed(&|| {
                    let mut expected = vec![Expected::default(); q];
                    (0..rows).map(|row| error(row, &mut expected)).fold(0.0, f64::max)
                })
            }),
        ),
        (
            "scoped threads",
            Box::new(|| {
                timed(&|| {
                    let next = AtomicUsize::new(0);
                    let work = || {
                        let (mut expected, mut worst) = (vec![Expected::default(); q], 0.0);
                        loop {
                            let row = next.fetch_add(1, Ordering::Relaxed);
                            if row >= rows {
                                return worst;
                            }
                            worst = f64::max(worst, error(row, &mut expected));
                        }
                    };
                    std::thread::scope(|scope| {
                        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
                        let own = work();
                        helpers.into_iter().map(|it| it.join().expect("no panic")).fold(own, f64::max)
                    })
                })
            }),
        ),
        (
            "rayon",
            Box::new(|| {
                timed(&|| {
                    pool.install(|| {
                        let fresh = || vec![Expected::default(); q];
                        (0..rows)
                            .into_par_iter()
                            .map_init(fresh, |expected, row| error(row, expected))
                            .reduce(|| 0.0, f64::max)
                    })
                })
            }),
        ),
    ];
    print("oracle, 28x28x64, 3x3", rounds, &mut ways);
    Ok(())
}

fn copies(pool: &rayon::ThreadPool, threads: usize, rounds: usize) -> Result<()> {
    const LEN: usize = 16 << 20;
    const PART: usize = 1 << 18;
    let from = vec![1.0f32; LEN];
    let targets = [(); 3].map(|()| vec![2.0f32; LEN]);
    let [mut a, mut b, mut c] = targets;
    fn timed(to: &mut [f32], work: impl FnOnce(&mut [f32])) -> Duration {
        let start = Instant::now();
        work(to);
        black_box(to);
        start.elapsed()
    }
    let mut ways: [Way; 3] = [
        ("one thread", Box::new(|| timed(&mut a, |to| to.copy_from_slice(&from)))),
        (
            "scoped threads",
            Box::new(|| {
                timed(&mut b, |to| {
                    let part = LEN.div_ceil(threads);
                    std::thread::scope(|scope| {
                        for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                            scope.spawn(|| to.copy_from_slice(from));
                        }
                    });
                })
            }),
        ),
        (
            "rayon",
            Box::new(|| {
                timed(&mut c, |to| {
                    pool.install(|| {
                        to.par_chunks_mut(PART)
                            .zip(from.par_chunks(PART))
                            .for_each(|(to, from)| to.copy_from_slice(from));
                    })
                })
            }),
        ),
    ];
    print("copy of 64 MiB", rounds, &mut ways);
    Ok(())
}
