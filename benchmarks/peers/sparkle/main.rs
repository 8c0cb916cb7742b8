//! Sparkle's side of `make bench-peers`: reads requests from standard input, and prints one line per answer.
//!
//! | request | answer |
//! | --- | --- |
//! | `conv N C H W K kernel stride pad [groups dilation kernel_w pad_w] SECONDS` | `call=` and `prepacked=` GFLOPS, `kernel=` name, `error=` over bound |
//! | `gemm SIZE SECONDS` | `gemm=` GFLOPS, `error=` over bound |
//! | `products M N K COUNT SECONDS` | `gemm=` GFLOPS of COUNT products, each of matrices of its own, `error=` over bound |
//! | `peak SECONDS` | `peak=` GFLOPS of fused multiply-adds in registers |
//!
//! The timing rule of all drivers: two calls do not count; then calls are timed one by one for SECONDS, at least
//! five. The figure is the median by a monotonic clock around the whole call. After the last call a sample of outputs
//! is compared with the float64 oracle. An error above 1 means that the result is wrong.

mod peak;

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use sparkle::problem::exact::Random;
use sparkle::problem::oracle::{self, Expected};
use sparkle::report::{gflops, median};
use sparkle::{Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Layout};

/// Rows of outputs, or single elements of a product, to compare with the oracle.
const SAMPLES: usize = 24;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let device = Device::open("cpu")?;
    for request in std::io::stdin().lock().lines() {
        let answer = answer(&device, &request?).unwrap_or_else(|error| format!("failed={error}"));
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn answer(device: &Device, request: &str) -> Result<String> {
    let mut words = request.split_whitespace();
    let what = words.next().unwrap_or_default();
    let numbers: Vec<&str> = words.collect();
    let (seconds, sizes) = numbers.split_last().ok_or("no time is given")?;
    let time = Duration::try_from_secs_f64(seconds.parse()?)?;
    let sizes = sizes.iter().map(|size| size.parse()).collect::<std::result::Result<Vec<i64>, _>>()?;
    match (what, sizes.as_slice()) {
        ("conv", &[n, c, h, w, k, size, stride, pad]) => {
            conv(device, &layer([n, c, h, w, k, size, stride, pad, 1, 1, size, pad])?, time)
        }
        ("conv", sizes) => conv(device, &layer(sizes.try_into()?)?, time),
        ("gemm", &[size]) => {
            gemm(device, &Gemm::new(GemmDesc::packed(Layout::RowMajor, size, size, size))?, time)
        }
        ("products", &[m, n, k, count]) => products(
            device,
            &Gemm::new(GemmDesc::packed(Layout::RowMajor, m, n, k))?,
            count.try_into()?,
            time,
        ),
        ("peak", []) => Ok(format!("peak={:.2}", peak::gflops(sparkle::num_threads(), time))),
        _ => Err(format!("unknown request: {request}").into()),
    }
}

fn layer(sizes: [i64; 12]) -> sparkle::Result<Conv2d> {
    let [n, c, h, w, k, r, stride, pad_h, groups, dilation, s, pad_w] = sizes;
    let (stride_h, stride_w, dilation_h, dilation_w) = (stride, stride, dilation, dilation);
    let desc = Conv2dDesc { n, c, h, w, k, r, s, groups, ..Default::default() };
    Conv2d::new(Conv2dDesc { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, ..desc })
}

fn conv(device: &Device, problem: &Conv2d, time: Duration) -> Result<String> {
    let mut random = Random::new(problem.flops());
    let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
    let mut output = vec![f32::NAN; problem.output_len()];
    let call = median_time(time, || device.conv2d(problem, &input, &weights, None, &mut output).map(drop))?;
    let mut error = conv_error(problem, (&input, &weights), &output, &mut random);

    output.fill(f32::NAN);
    let plan = device.plan(problem, &weights, None)?;
    let prepacked = median_time(time, || plan.run(&input, &mut output).map(drop))?;
    error = worse(error, conv_error(problem, (&input, &weights), &output, &mut random));
    let kernel = plan.run(&input, &mut output)?.kernel;
    let rate = |time| gflops(problem.flops(), time);
    Ok(format!("call={:.2} prepacked={:.2} error={error:.5} kernel={kernel}", rate(call), rate(prepacked)))
}

fn gemm(device: &Device, problem: &Gemm, time: Duration) -> Result<String> {
    let mut random = Random::new(problem.flops());
    let [a, b, c] = problem.lens();
    let (a, b, mut c) = (random.reals(a), random.reals(b), vec![f32::NAN; c]);
    let taken = median_time(time, || device.sgemm(problem, &a, &b, &mut c).map(drop))?;
    let size = problem.sizes().n;
    let mut error = 0.0;
    for _ in 0..SAMPLES {
        let (i, j) = (below(&mut random, problem.sizes().m), below(&mut random, size));
        let expected = oracle::gemm_element(problem, &a, &b, &c, i, j);
        error = worse(error, oracle::error_over_bound(c[i * size + j], expected, problem.terms()));
    }
    Ok(format!("gemm={:.2} error={error:.5}", gflops(problem.flops(), taken)))
}

/// Products one after the other. One of `time`'s calls is all of them: a clock would take longer than one.
fn products(device: &Device, problem: &Gemm, count: usize, time: Duration) -> Result<String> {
    let mut random = Random::new(problem.flops());
    let lens = problem.lens();
    let [a, b] = [0, 1].map(|it| random.reals(lens[it] * count));
    let mut c = vec![f32::NAN; lens[2] * count];
    let taken = median_time(time, || {
        let operands = a.chunks_exact(lens[0]).zip(b.chunks_exact(lens[1]));
        for ((a, b), c) in operands.zip(c.chunks_exact_mut(lens[2])) {
            device.sgemm(problem, a, b, c)?;
        }
        Ok(())
    })?;
    let mut error = 0.0;
    for _ in 0..SAMPLES {
        let at = below(&mut random, count);
        let [a, b, c] = [(&a, 0), (&b, 1), (&c, 2)].map(|(all, it)| &all[at * lens[it]..][..lens[it]]);
        let (i, j) = (below(&mut random, problem.sizes().m), below(&mut random, problem.sizes().n));
        let expected = oracle::gemm_element(problem, a, b, c, i, j);
        error =
            worse(error, oracle::error_over_bound(c[i * problem.sizes().n + j], expected, problem.terms()));
    }
    Ok(format!("gemm={:.3} error={error:.5}", gflops(problem.flops() * count as u64, taken)))
}

/// The largest error over bound in some rows of the output.
fn conv_error(
    problem: &Conv2d,
    (input, weights): (&[f32], &[f32]),
    output: &[f32],
    random: &mut Random,
) -> f64 {
    let sizes = *problem.sizes();
    let mut row = vec![Expected::default(); sizes.q];
    let mut worst = 0.0;
    for _ in 0..SAMPLES {
        let (n, k, p) = (below(random, sizes.n), below(random, sizes.k), below(random, sizes.p));
        oracle::conv2d_row(problem, (input, weights, None), (n, k, p), &mut row);
        let got = &output[((n * sizes.k + k) * sizes.p + p) * sizes.q..][..sizes.q];
        for (&got, &expected) in got.iter().zip(&row) {
            worst = worse(worst, oracle::error_over_bound(got, expected, problem.terms()));
        }
    }
    worst
}

fn below(random: &mut Random, limit: usize) -> usize {
    (random.bits() % limit as u64) as usize
}

/// The larger of two errors; NaN is larger than all.
fn worse(one: f64, other: f64) -> f64 {
    if one >= other || one.is_nan() { one } else { other }
}

/// The timing rule above.
fn median_time(time: Duration, mut call: impl FnMut() -> sparkle::Result<()>) -> Result<Duration> {
    call()?;
    call()?;
    let (mut times, start) = (vec![], Instant::now());
    while times.len() < 5 || start.elapsed() < time {
        let before = Instant::now();
        call()?;
        times.push(before.elapsed());
    }
    Ok(median(&times).expect("five at least"))
}
