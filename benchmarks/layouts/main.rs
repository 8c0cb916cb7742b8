//! What the order of the arrays costs, and what transposing them for the other order costs.
//!
//! `cargo run --release --example layouts -- suite [DEVICE [BATCH [ROUNDS [SECONDS]]]]` times every layer of
//! `benchmarks/suite.csv` in NCHW (weights OIHW) and in NHWC (weights HWIO). The ratio is the time in NCHW over that in
//! NHWC. On the CPU a time is that of the call, on OpenGL that of the kernels, with data in buffers of the device.
//!
//! `cargo run --release --example layouts -- networks [DEVICE [ROUNDS [SECONDS]]]` times layers of a network in Fortran,
//! whose arrays have the channels first, `x(C,W,H)` (NHWC in C). It compares a plan that takes them as they are with one
//! in NCHW, for which the input is transposed before the call and the output after it. The ratio is the time with
//! transposes over the time without.
//!
//! Weights are packed once. Both sides alternate, round by round, in one process: a disturbance of the machine affects
//! both. A figure is the median of the rounds; a round is the median of calls during SECONDS, at least five. The two
//! results are compared. `SPARKLE_NUM_THREADS=1` asks for one thread.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use sparkle::kernel::tree::Type;
use sparkle::problem::exact::Random;
use sparkle::report::{geomean, median};
use sparkle::{Buffer, Conv2d, Conv2dDesc, Conv2dPlan, Device, TensorLayout, WeightsLayout};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Layers of neural-fortran's networks: channels, filters, side of the image, side of the kernel. They have no padding.
const NETWORKS: [(i64, i64, i64, i64); 5] =
    [(1, 8, 28, 3), (8, 16, 13, 3), (3, 32, 32, 3), (16, 32, 32, 5), (64, 64, 56, 3)];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |at: usize, default: &str| words.get(at).map_or(default.to_owned(), String::clone);
    let device = word(1, "cpu");
    let time =
        |at: usize| -> Result<Duration> { Ok(Duration::try_from_secs_f64(word(at, "0.05").parse()?)?) };
    match word(0, "").as_str() {
        "suite" => suite(&device, word(2, "1").parse()?, word(3, "11").parse()?, time(4)?),
        "networks" => networks(&device, word(2, "11").parse()?, time(3)?),
        _ => Err("usage: layouts suite [DEVICE [BATCH [ROUNDS [SECONDS]]]], or networks [DEVICE [ROUNDS [SECONDS]]]".into()),
    }
}

/// A layer with its data in both orders.
struct Layer {
    nchw: Conv2d,
    nhwc: Conv2d,
    /// Input and weights of each.
    data: [(Vec<f32>, Vec<f32>); 2],
}

impl Layer {
    fn new(desc: Conv2dDesc) -> Result<Self> {
        let nchw = Conv2d::new(desc)?;
        let nhwc = nchw.with_layouts(TensorLayout::Nhwc, TensorLayout::Nhwc, WeightsLayout::Hwio);
        let mut random = Random::new(nchw.flops());
        let (input, weights) = (random.reals(nchw.input_len()), random.reals(nchw.weights_len()));
        let s = nchw.sizes();
        let mut turned = (vec![0.0; input.len()], vec![0.0; weights.len()]);
        for n in 0..s.n {
            let at = n * s.c * s.h * s.w;
            let len = s.c * s.h * s.w;
            transpose(&input[at..][..len], &mut turned.0[at..][..len], s.c);
        }
        for (at, value) in weights.iter().enumerate() {
            let (tap, channel, filter) = (at % (s.r * s.s), at / (s.r * s.s) % s.c, at / (s.r * s.s * s.c));
            turned.1[(tap * s.c + channel) * s.k + filter] = *value;
        }
        Ok(Layer { nchw, nhwc, data: [(input, weights), turned] })
    }

    fn plans(&self, device: &Device) -> Result<[Conv2dPlan; 2]> {
        let [nchw, nhwc] = &self.data;
        Ok([device.plan(&self.nchw, &nchw.1, None)?, device.plan(&self.nhwc, &nhwc.1, None)?])
    }

    /// Fails if two outputs are not one result in two orders.
    fn compare(&self, nchw: &[f32], nhwc: &[f32]) -> Result<()> {
        let s = self.nchw.sizes();
        let (len, mut turned) = (s.k * s.p * s.q, vec![0.0; nchw.len()]);
        for (from, to) in nhwc.chunks_exact(len).zip(turned.chunks_exact_mut(len)) {
            transpose(from, to, s.p * s.q);
        }
        // Random numbers from -1 to 1. The sums are of the order of the root of their terms; Winograd's are less exact.
        let allowed = 1e-4 * (self.nchw.terms() as f32).sqrt();
        let is_near = |one: f32, other: f32| (one - other).abs() <= allowed;
        let far = turned.iter().zip(nchw).find(|(one, other)| !is_near(**one, **other));
        far.map_or(Ok(()), |(one, other)| Err(format!("{one} in NHWC is {other} in NCHW").into()))
    }
}

/// `to[j][i] = from[i][j]` for `rows` rows.
fn transpose(from: &[f32], to: &mut [f32], rows: usize) {
    let columns = from.len() / rows;
    for (row, line) in from.chunks_exact(columns).enumerate() {
        for (column, value) in line.iter().enumerate() {
            to[column * rows + row] = *value;
        }
    }
}

/// The times of two calls that alternate: the median of the rounds of each, and of the rounds' ratios.
fn alternate(
    rounds: usize,
    time: Duration,
    calls: &mut [&mut dyn FnMut() -> Result<Duration>; 2],
) -> Result<([Duration; 2], f64)> {
    let (mut all, mut ratios) = ([vec![], vec![]], vec![]);
    for round in 0..rounds.max(1) {
        let mut taken = [Duration::ZERO; 2];
        for turn in 0..2 {
            let side = (round + turn) % 2;
            calls[side]()?;
            let (mut times, start) = (vec![], Instant::now());
            while times.len() < 5 || start.elapsed() < time {
                times.push(calls[side]()?);
            }
            taken[side] = median(&times).expect("at least five calls");
            all[side].push(taken[side]);
        }
        ratios.push(taken[0].as_secs_f64() / taken[1].as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    Ok((all.map(|times| median(&times).expect("at least one round")), ratios[ratios.len() / 2]))
}

fn print(name: &str, [one, other]: [Duration; 2], ratio: f64, kernel: &str) {
    println!("{name:16} {:11.1} {:11.1} {ratio:8.3}  {kernel}", micros(one), micros(other));
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A line of the suite: `name,N,C,H,W,K,kernel,stride,pad`.
fn layer(line: &str, n: i64) -> Option<(&str, Conv2dDesc)> {
    let (name, numbers) = line.split_once(',')?;
    let numbers: Vec<i64> = numbers.split(',').map(|it| it.trim().parse().ok()).collect::<Option<_>>()?;
    let &[_, c, h, w, k, r, stride, pad] = numbers.as_slice() else { return None };
    let (s, stride_h, stride_w, pad_h, pad_w) = (r, stride, stride, pad, pad);
    Some((name, Conv2dDesc { n, c, h, w, k, r, s, stride_h, stride_w, pad_h, pad_w, ..Default::default() }))
}

fn suite(selector: &str, batch: i64, rounds: usize, time: Duration) -> Result<()> {
    let device = Device::open(selector)?;
    println!("{selector}, batch {batch}, {} threads", sparkle::num_threads());
    println!("{:16} {:>11} {:>11} {:>8}  kernel in NHWC", "layer", "NCHW us", "NHWC us", "ratio");
    let mut ratios = vec![];
    for (name, desc) in include_str!("../suite.csv").lines().filter_map(|line| layer(line, batch)) {
        let layer = Layer::new(desc)?;
        let plans = layer.plans(&device)?;
        let ((times, ratio), kernel) = match device.id() {
            "cpu" => on_host(&layer, &plans, rounds, time)?,
            _ => on_device(&device, &layer, &plans, rounds, time)?,
        };
        print(name, times, ratio, &kernel);
        ratios.push(ratio);
    }
    println!("geomean {:.3}", geomean(&ratios).ok_or("no layers")?);
    Ok(())
}

/// Times, the ratio and the kernel in NHWC.
type Measured = (([Duration; 2], f64), String);

fn on_host(layer: &Layer, [nchw, nhwc]: &[Conv2dPlan; 2], rounds: usize, time: Duration) -> Result<Measured> {
    let mut outputs = [0; 2].map(|_| vec![f32::NAN; layer.nchw.output_len()]);
    let [one, other] = &mut outputs;
    let [(x, _), (turned, _)] = &layer.data;
    let timed = |plan: &Conv2dPlan, input: &[f32], output: &mut [f32]| -> Result<Duration> {
        let start = Instant::now();
        plan.run(input, output)?;
        Ok(start.elapsed())
    };
    let measured =
        alternate(rounds, time, &mut [&mut || timed(nchw, x, one), &mut || timed(nhwc, turned, other)])?;
    let kernel = nhwc.run(turned, other)?.kernel.to_string();
    layer.compare(one, other)?;
    Ok((measured, kernel))
}

fn on_device(
    device: &Device,
    layer: &Layer,
    [nchw, nhwc]: &[Conv2dPlan; 2],
    rounds: usize,
    time: Duration,
) -> Result<Measured> {
    let filled = |data: &[f32]| -> Result<Buffer> {
        let mut buffer = device.buffer(data.len(), Type::Real32)?;
        buffer.write(0, data)?;
        Ok(buffer)
    };
    let inputs = [filled(&layer.data[0].0)?, filled(&layer.data[1].0)?];
    let zeros = vec![0.0; layer.nchw.output_len()];
    let (mut one, mut other) = (filled(&zeros)?, filled(&zeros)?);
    let measured = alternate(
        rounds,
        time,
        &mut [&mut || Ok(nchw.run_on(&inputs[0], &mut one)?.timing.kernel), &mut || {
            Ok(nhwc.run_on(&inputs[1], &mut other)?.timing.kernel)
        }],
    )?;
    let kernel = nhwc.run_on(&inputs[1], &mut other)?.kernel.to_string();
    let mut results = [zeros.clone(), zeros];
    one.read(0, &mut results[0])?;
    other.read(0, &mut results[1])?;
    layer.compare(&results[0], &results[1])?;
    Ok((measured, kernel))
}

fn networks(selector: &str, rounds: usize, time: Duration) -> Result<()> {
    let device = Device::open(selector)?;
    println!("{selector}, {} threads", sparkle::num_threads());
    println!("{:16} {:>11} {:>11} {:>8}  kernel in place", "layer", "turned us", "in place us", "ratio");
    let mut ratios = vec![];
    for (c, k, side, kernel) in NETWORKS {
        let layer =
            Layer::new(Conv2dDesc { c, h: side, w: side, k, r: kernel, s: kernel, ..Default::default() })?;
        let [nchw, nhwc] = layer.plans(&device)?;
        let input = &layer.data[1].0;
        let pixels = (layer.nchw.sizes().h * layer.nchw.sizes().w, layer.nchw.sizes().k);
        let mut turned = vec![0.0; input.len()];
        let mut planes = vec![f32::NAN; layer.nchw.output_len()];
        let (mut theirs, mut ours) = (planes.clone(), planes.clone());
        let measured = alternate(
            rounds,
            time,
            &mut [
                &mut || {
                    let start = Instant::now();
                    transpose(input, &mut turned, pixels.0);
                    nchw.run(&turned, &mut planes)?;
                    transpose(&planes, &mut theirs, pixels.1);
                    black_box(&theirs);
                    Ok(start.elapsed())
                },
                &mut || {
                    let start = Instant::now();
                    nhwc.run(input, &mut ours)?;
                    Ok(start.elapsed())
                },
            ],
        )?;
        layer.compare(&planes, &ours)?;
        let name = format!("{c}>{k} {side}x{side} {kernel}x{kernel}");
        print(&name, measured.0, measured.1, &nhwc.run(input, &mut ours)?.kernel);
        ratios.push(measured.1);
    }
    println!("geomean {:.3}", geomean(&ratios).ok_or("no layers")?);
    Ok(())
}
