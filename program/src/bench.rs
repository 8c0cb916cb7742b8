//! `sparkle bench`: verifies, then times every layer of a suite.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sparkle::problem::exact::Random;
use sparkle::report::{geomean, gflops};
use sparkle::{Conv2d, Device, Run, TensorLayout, WeightsLayout, devices};

use crate::console::Console;
use crate::device::{DeviceOption, Listed, label};
use crate::failure::Failure;
use crate::json::JsonOption;
use crate::measure::{Effort, Measured, measure};
use crate::suite::{self, Layer};
use crate::{memory, verify};

/// Verify and time every layer of a suite.
///
/// Every output element of every layer is first compared with a float64 oracle. error/bound is the largest error in
/// units of the rounding error bound; it is at most 1. Then the device is kept busy for 0.4 s, and calls are timed
/// one by one. kernel ms is the median time of the kernels alone. wall ms is that of the whole call with transfers.
/// GFLOPS count the direct algorithm's operations in kernel time. The last call must return the same result as the
/// first. An empty batch, N = 0, takes no time and has no rate.
#[derive(clap::Args)]
pub struct Args {
    /// Layers: a CSV file with the columns name,N,C,H,W,K,kernel,stride,pad, and optionally
    /// groups,dilation,kernel_w,pad_w
    #[arg(long, value_name = "FILE")]
    suite: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
    /// Images a batch, instead of the suite's N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    batch: Option<i64>,
    /// Threads of the CPU path
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Pack weights once, outside the timing; without this option each call packs them
    #[arg(long)]
    prepacked: bool,
    /// Order of the images: nchw, with weights in oihw, or nhwc, with weights in hwio
    #[arg(long, value_name = "ORDER", default_value = "nchw", value_parser = crate::conv2d::tensor_layout)]
    layout: TensorLayout,
    /// Timed calls a layer [default: enough for 0.5 s, at least 5]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    #[command(flatten)]
    json: JsonOption,
}

/// The JSON report.
#[derive(serde::Serialize)]
struct Report<'a> {
    suite: &'a Path,
    device: &'a str,
    batch: Option<i64>,
    threads: usize,
    prepacked: bool,
    layout: TensorLayout,
    repeat: Option<u32>,
    machine: MachineReport,
    geomean_gflops: Option<f64>,
    /// Layers that were not measured or have a wrong result, with the reason.
    failed: Vec<Remark>,
    /// Layers that another device computed, with the reason.
    fallbacks: Vec<Remark>,
    rows: Vec<Row>,
}

#[derive(serde::Serialize)]
struct MachineReport {
    os: &'static str,
    arch: &'static str,
    cores: usize,
    devices: Vec<Listed>,
}

#[derive(serde::Serialize)]
struct Remark {
    name: String,
    reason: String,
}

/// One layer. A layer with a wrong result has no times and no rate. An empty batch has no rate.
#[derive(serde::Serialize)]
struct Row {
    name: String,
    device: String,
    kernel: String,
    flops: u64,
    kernel_ms: Option<f64>,
    wall_ms: Option<f64>,
    gflops: Option<f64>,
    /// Not finite if an output is NaN or infinite; null in JSON.
    error_over_bound: f64,
}

/// The outcome for one layer.
struct Outcome {
    row: Row,
    wrong: Option<String>,
    fallback: Option<String>,
}

/// The outcomes for all layers.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    failed: Vec<Remark>,
    fallbacks: Vec<Remark>,
    failure: Option<Failure>,
}

/// Runs the command.
///
/// # Errors
/// A bad suite; a wrong result; a device failure. The other layers are measured all the same.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    let mut layers = suite::read(&args.suite, args.batch)?;
    if args.layout == TensorLayout::Nhwc {
        for layer in &mut layers {
            layer.problem = layer.problem.with_layouts(args.layout, args.layout, WeightsLayout::Hwio);
        }
    }
    if let Some(threads) = args.threads {
        sparkle::set_num_threads(threads as usize)?;
    }
    let device = args.device.open()?;
    let names = layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max("geomean".len());
    console.line(line(names, ["name", "device", "kernel ms", "wall ms", "GFLOPS", "error/bound", "kernel"]));
    let mut results = Results::default();
    let bar = console.progress(layers.len() as u64, "layers");
    for layer in &layers {
        bar.set_message(layer.name.clone());
        results.take(console, names, &layer.name, one(args, &device, layer));
        bar.inc(1);
    }
    console.end_progress();
    let mean = results.geomean();
    let text = mean.map_or("-".to_owned(), |mean| format!("{mean:.1}"));
    console.line(line(names, ["geomean", "", "", "", &text, "", ""]));
    let Results { rows, failed, fallbacks, failure } = results;
    let report = Report {
        suite: &args.suite,
        device: &args.device.device,
        batch: args.batch,
        threads: sparkle::num_threads(),
        prepacked: args.prepacked,
        layout: args.layout,
        repeat: args.repeat,
        machine: machine(),
        geomean_gflops: mean,
        failed,
        fallbacks,
        rows,
    };
    args.json.end(&report, console)?;
    failure.map_or(Ok(()), Err)
}

impl Results {
    /// Prints and keeps one layer's outcome.
    fn take(&mut self, console: &mut Console, names: usize, name: &str, outcome: Result<Outcome, Failure>) {
        let remark = |reason: String| Remark { name: name.to_owned(), reason };
        match outcome {
            Ok(Outcome { row, wrong, fallback }) => {
                print(console, names, &row);
                if let Some(reason) = wrong {
                    console.note(&format!("{name}: WRONG RESULT: {reason}"));
                    self.failed.push(remark(reason));
                    Failure::Wrong("a result is wrong".to_owned()).keep_worst(&mut self.failure);
                }
                if let Some(reason) = fallback {
                    console.note(&format!("{name}: computed by {}, because {reason}", row.device));
                    self.fallbacks.push(remark(reason));
                }
                self.rows.push(row);
            }
            Err(error) => {
                console.note(&format!("{name}: {error}"));
                self.failed.push(remark(error.to_string()));
                error.at(name).keep_worst(&mut self.failure);
            }
        }
    }

    /// The geometric mean of all rates. `None` if a layer failed, because the mean of the others would look like the
    /// suite's. Empty batches do not count.
    fn geomean(&self) -> Option<f64> {
        let with_work = self.rows.iter().filter(|row| row.flops > 0);
        let rates: Option<Vec<f64>> = with_work.map(|row| row.gflops).collect();
        rates.filter(|_| self.failed.is_empty()).and_then(|rates| geomean(&rates))
    }
}

/// Verifies and times one layer.
fn one(args: &Args, device: &Device, Layer { name, problem }: &Layer) -> Result<Outcome, Failure> {
    verify::check_memory(problem)?;
    let mut random = Random::new(problem.flops());
    let input = memory::reals("the input", &mut random, problem.input_len())?;
    let weights = memory::reals("the weights", &mut random, problem.weights_len())?;
    let mut output = memory::unwritten(problem.output_len())?;
    let plan = args.prepacked.then(|| device.plan(problem, &weights, None)).transpose()?;
    let call = |output: &mut [f32]| match &plan {
        Some(plan) => plan.run(&input, output),
        None => device.conv2d(problem, &input, &weights, None, output),
    };
    let run = call(&mut output)?;
    if problem.is_empty() {
        return Ok(outcome(name, problem, &run, Some(Measured::of_one(&run)), 0.0, None));
    }
    let mut verdict = verify::conv2d(problem, (&input, &weights, None), &output)?;
    if let Some(wrong) = verdict.complaint() {
        return Ok(outcome(name, problem, &run, None, verdict.error_over_bound, Some(wrong)));
    }
    let first = memory::copied("the first output", &output)?;
    let measured = measure(Effort::figure(args.repeat.map(|repeat| repeat as usize)), || call(&mut output))?;
    // The same device returns the same bits every time. After a fallback to another device the result is verified again.
    if !first.iter().map(|value| value.to_bits()).eq(output.iter().map(|value| value.to_bits())) {
        verdict = verdict.and(verify::conv2d(problem, (&input, &weights, None), &output)?);
    }
    let wrong = verdict.complaint().map(|wrong| format!("after the last call {wrong}"));
    Ok(outcome(name, problem, &run, Some(measured), verdict.error_over_bound, wrong))
}

fn outcome(
    name: &str,
    problem: &Conv2d,
    run: &Run,
    measured: Option<Measured>,
    error_over_bound: f64,
    wrong: Option<String>,
) -> Outcome {
    let timed = measured.as_ref().filter(|_| wrong.is_none());
    let time = |pick: fn(&Measured) -> Duration| timed.map(|it| pick(it).as_secs_f64() * 1e3);
    let rate = timed.filter(|_| problem.flops() > 0).map(|it| gflops(problem.flops(), it.kernel_time));
    let row = Row {
        name: name.to_owned(),
        flops: problem.flops(),
        kernel_ms: time(|it| it.kernel_time),
        wall_ms: time(|it| it.wall_time),
        gflops: rate.filter(|rate| rate.is_finite()),
        error_over_bound,
        device: measured.as_ref().map_or_else(|| label(run), |it| it.device.clone()),
        kernel: measured.as_ref().map_or_else(|| run.kernel.to_string(), |it| it.kernel.clone()),
    };
    let fallback = measured.and_then(|it| it.fallback).or_else(|| run.fallback.as_deref().map(str::to_owned));
    Outcome { row, wrong, fallback }
}

fn machine() -> MachineReport {
    MachineReport {
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        devices: devices().into_iter().map(Listed::from).filter(|device| device.usable).collect(),
    }
}

fn print(console: &mut Console, names: usize, row: &Row) {
    let number =
        |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let (kernel, wall, rate) = (number(row.kernel_ms, 4), number(row.wall_ms, 4), number(row.gflops, 1));
    let error = format!("{:.4}", row.error_over_bound);
    console.line(line(names, [&row.name, &row.device, &kernel, &wall, &rate, &error, &row.kernel]));
}

/// One line of the table.
fn line(names: usize, [name, device, kernel_ms, wall, rate, error, kernel]: [&str; 7]) -> String {
    let text =
        format!("{name:<names$}  {device:<6}  {kernel_ms:>9}  {wall:>9}  {rate:>8}  {error:>11}  {kernel}");
    text.trim_end().to_owned()
}
