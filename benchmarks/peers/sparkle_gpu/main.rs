//! Sparkle's side of `make bench-gpu`: prepares kernels on `gl:0` and times them on request. It reads requests from
//! standard input, and prints one line per answer.
//!
//! | request | answer |
//! | --- | --- |
//! | `conv WHICH TOP N C H W K kernel stride pad [groups dilation kernel_w pad_w]` | prepares kernels of a layer; `kernel.NAME=` for each, the largest `error=` over bound |
//! | `gemm SIZE` | prepares a square product, as `gemm`; the same answer |
//! | `ceiling` | prepares multiply-adds from registers, as `ceiling` |
//! | `time NAME BUSY` | `gflops=` and `us=` of one run among 20 back to back, best of 5, after BUSY seconds of the same work |
//! | `device` | what the planner knows of the device: `flops=`, `memory=`, `launch=`, `units=` |
//!
//! WHICH is a list of `first` (the planner's first choice), `best` (the fastest of its TOP first), `direct` (the
//! fastest of its TOP first without Winograd) and `reference` (one invocation per output, like the reference
//! framework). Each kernel runs once when it is prepared, and its result is compared with the float64 oracle. An
//! error above 1 means that the result is wrong. A new layer replaces the kernels of the last one.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::rc::Rc;
use std::time::Duration;

use sparkle::lab::{Bench, Data, Effort, Timed};
use sparkle::shader::variant::{Family, Variant, candidates};
use sparkle::{Conv2d, Conv2dDesc};

/// Runs between two timestamps, as many as in the peers' graphs.
const CALLS: usize = 20;
/// Timings; the best counts.
const ROUNDS: usize = 5;
/// Rows of outputs compared with the oracle.
const ROWS: usize = 12;
/// How long candidates keep the card busy before they are compared.
const SHORT_BUSY: Duration = Duration::from_millis(60);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut server = Server { bench: Bench::open(0)?, held: BTreeMap::new() };
    for request in std::io::stdin().lock().lines() {
        let answer = server.answer(&request?).unwrap_or_else(|error| format!("failed={error}"));
        println!("{}", answer.replace('\n', " "));
        std::io::stdout().flush()?;
    }
    Ok(())
}

struct Server {
    bench: Bench,
    held: BTreeMap<String, Rc<Timed>>,
}

impl Server {
    fn answer(&mut self, request: &str) -> Result<String> {
        let words: Vec<&str> = request.split_whitespace().collect();
        match words[..] {
            ["conv", which, top, ref sizes @ ..] => {
                self.held.retain(|name, _| name == "ceiling" || name == "gemm");
                let mut sizes: Vec<i64> =
                    sizes.iter().map(|it| it.parse()).collect::<std::result::Result<_, _>>()?;
                if let [.., kernel, _, pad] = sizes[..]
                    && sizes.len() == 8
                {
                    sizes.extend([1, 1, kernel, pad]);
                }
                let problem = layer(sizes[..].try_into()?)?;
                self.convolution(&problem, which, top.parse()?)
            }
            ["gemm", size] => {
                let product = self.bench.sgemm(size.parse()?)?;
                Ok(self.hold("gemm", Rc::new(product)))
            }
            ["ceiling"] => {
                let ceiling = self.bench.ceiling()?;
                Ok(self.hold("ceiling", Rc::new(ceiling)))
            }
            ["time", name, busy] => {
                let timed = self.held.get(name).ok_or_else(|| format!("no kernel is prepared as {name}"))?;
                let busy = Duration::try_from_secs_f64(busy.parse()?)?;
                let time = timed.time(&Effort { busy, calls: CALLS, rounds: ROUNDS, rows: 0 })?.as_secs_f64();
                Ok(format!("gflops={:.2} us={:.3}", timed.flops / time * 1e-9, time * 1e6))
            }
            ["device"] => {
                let gpu = self.bench.gpu()?;
                let (flops, memory, launch) = (gpu.flops, gpu.memory, gpu.launch);
                Ok(format!("flops={flops:e} memory={memory:e} launch={launch:e} units={}", gpu.units))
            }
            _ => Err(format!("unknown request: {request}").into()),
        }
    }

    fn hold(&mut self, name: &str, timed: Rc<Timed>) -> String {
        let answer = format!("kernel.{name}={} error={:.5}", timed.name, timed.error);
        self.held.insert(name.to_owned(), timed);
        answer
    }

    fn convolution(&mut self, problem: &Conv2d, which: &str, top: usize) -> Result<String> {
        let ranked = candidates(problem, &self.bench.gpu()?);
        let is_direct = |variant: &&Variant| !matches!(variant.family, Family::Winograd(_));
        let data = Data::new(problem, ROWS);
        let mut made: Vec<(Variant, Rc<Timed>)> = vec![];
        let mut answers = vec![];
        for name in which.split(',') {
            let wanted: Vec<Variant> = match name {
                "first" => ranked.iter().take(1).copied().collect(),
                "best" => ranked.iter().take(top).copied().collect(),
                "direct" => ranked.iter().filter(is_direct).take(top).copied().collect(),
                "reference" => vec![Variant::FALLBACK],
                _ => return Err(format!("no kernels have the name {name}").into()),
            };
            let mut kernels = vec![];
            for variant in wanted {
                if !made.iter().any(|(it, _)| *it == variant) {
                    made.push((variant, Rc::new(self.bench.conv2d(problem, &data, &variant)?)));
                }
                kernels.extend(made.iter().find(|(it, _)| *it == variant).map(|(_, timed)| timed.clone()));
            }
            answers.push((name, fastest(kernels)?));
        }
        let error = answers.iter().map(|(_, timed)| timed.error).fold(0.0, worse);
        let mut answer = format!("error={error:.5}");
        for (name, timed) in answers {
            answer +=
                &format!(" kernel.{name}={} build.{name}={:.0}", timed.name, timed.build.as_secs_f64() * 1e3);
            self.held.insert(name.to_owned(), timed);
        }
        Ok(answer)
    }
}

/// The fastest kernel. A single one is not timed.
fn fastest(mut kernels: Vec<Rc<Timed>>) -> Result<Rc<Timed>> {
    if kernels.len() > 1 {
        let effort = Effort { busy: SHORT_BUSY, calls: CALLS, rounds: 3, rows: 0 };
        let mut times = vec![];
        for kernel in &kernels {
            times.push(kernel.time(&effort)?);
        }
        let best = (0..times.len()).min_by_key(|&index| times[index]).expect("two at least");
        return Ok(kernels.swap_remove(best));
    }
    kernels.pop().ok_or_else(|| "the planner offers nothing".into())
}

/// The larger of two errors; NaN is larger than all.
fn worse(one: f64, other: f64) -> f64 {
    if one >= other || one.is_nan() { one } else { other }
}

fn layer(sizes: [i64; 12]) -> sparkle::Result<Conv2d> {
    let [n, c, h, w, k, r, stride, pad_h, groups, dilation, s, pad_w] = sizes;
    let (stride_h, stride_w, dilation_h, dilation_w) = (stride, stride, dilation, dilation);
    let desc = Conv2dDesc { n, c, h, w, k, r, s, groups, ..Default::default() };
    Conv2d::new(Conv2dDesc { stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, ..desc })
}
