//! `sparkle stream`: many batches of a layer, one after the other and in flight at once, beside the bound of the machine.

mod memcpy;
mod ways;

use std::path::PathBuf;
use std::time::Duration;

use sparkle::{Contexts, Conv2d, Conv2dDesc, Device, DeviceKind, Order, PipelineOptions, WhenFull, devices};

use crate::console::{Console, wrapped};
use crate::device::DeviceOption;
use crate::failure::Failure;
use crate::json::JsonOption;
use crate::memory;
use crate::suite::{self, Layer};
use ways::{Calls, Settings, WayResult, Workload};

/// Stream batches of every layer of a suite through a device, in several ways.
///
/// Ways: "reference" uses fresh buffers, glBufferData, the reference framework's kernel in one dispatch, glFinish and
/// glMapBuffer. "one-shot" is Device::conv2d, "prepared" runs a plan. "one, two, three contexts" are pipelines from
/// ordinary memory. "in place" works in the pipeline's own slots. With one context the three steps cannot overlap,
/// which measures each step alone.
///
/// The bound is the slowest step alone. For ways from ordinary memory, the copies to and from slots are a step as
/// well, at the rate at which all cores copy memory. Uploads and downloads may be slower together than alone. A
/// stream of as many bytes with almost nothing to compute measures both together, and the result is printed beside
/// the bound.
///
/// Times are wall time per batch, after 0.4 s of the same work. busy is the share of that time in which each engine
/// worked; overlaps count once. The results of every way are verified. An empty batch, N = 0, has no rows.
///
/// The CPU transfers nothing, so it has no contexts and no bound. Its ways are "one-shot", "prepared", "pipeline" and "in
/// place".
#[derive(clap::Args)]
pub struct Args {
    /// Layers: a CSV file with the columns name,N,C,H,W,K,kernel,stride,pad, and optionally
    /// groups,dilation,kernel_w,pad_w
    #[arg(long, value_name = "FILE")]
    suite: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
    /// Only layers whose name contains this
    #[arg(long, value_name = "TEXT")]
    layer: Option<String>,
    /// Only ways whose name contains this, and the one that measures the bound
    #[arg(long, value_name = "TEXT")]
    way: Option<String>,
    /// Batches per way, at least four for each slot
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// Slots of the pipelines
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    slots: u32,
    /// Largest piece of a batch from ordinary memory, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1024))]
    piece: u32,
    /// Images a batch, instead of the suite's N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    batch: Option<i64>,
    #[command(flatten)]
    json: JsonOption,
}

impl Args {
    fn settings(&self) -> Settings {
        let piece_bytes = (self.piece as usize) << 20;
        Settings { batches: self.batches as usize, slots: self.slots as usize, piece_bytes }
    }
}

/// Everything that was measured.
#[derive(serde::Serialize)]
struct Report {
    /// The rate at which all cores copy memory.
    memcpy_bytes_per_second: f64,
    memcpy_threads: usize,
    layers: Vec<Figures>,
}

/// A layer's figures. Times are milliseconds per batch.
#[derive(serde::Serialize)]
struct Figures {
    name: String,
    /// `None` on the CPU, which has no such steps.
    steps: Option<Steps>,
    /// Upload and download together.
    both_ways: Option<f64>,
    /// Wall time of a one-shot call over the slowest step and one piece of the others.
    one_shot_over_bound: Option<f64>,
    /// The same, with both transfers together as a further step.
    one_shot_over_transfers: Option<f64>,
    /// The median time that submitting takes the calling thread, in microseconds.
    submit_us: Option<f64>,
    rows: Vec<Row>,
}

/// Milliseconds of each step alone.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
struct Steps {
    copy_in: f64,
    upload: f64,
    compute: f64,
    download: f64,
    copy_out: f64,
}

impl Steps {
    /// The slowest step on the device.
    fn device_bound(self) -> f64 {
        self.upload.max(self.compute).max(self.download)
    }

    /// The slowest step, if the same cores make both copies.
    fn bound(self) -> f64 {
        self.device_bound().max(self.copy_in + self.copy_out)
    }

    /// The best time of a single batch: the slowest step, and one of `pieces` of each other step.
    fn alone(self, pieces: usize) -> f64 {
        let all = [self.copy_in, self.upload, self.compute, self.download, self.copy_out];
        let (sum, slowest) = (all.iter().sum::<f64>(), all.into_iter().fold(0.0, f64::max));
        slowest + (sum - slowest) / pieces as f64
    }

    /// The same, if upload and download together take `both_ways`.
    fn with_transfers(self, both_ways: f64, pieces: usize) -> f64 {
        let others = self.copy_in + self.compute + self.copy_out;
        self.alone(pieces).max(both_ways + others / pieces as f64)
    }
}

/// One way's figures on one layer.
#[derive(serde::Serialize)]
struct Row {
    way: &'static str,
    /// Wall time a batch.
    ms: f64,
    /// `None` on the CPU.
    bound_ms: Option<f64>,
    share_of_bound: Option<f64>,
    over_reference: Option<f64>,
    /// Upload, compute, download; `None` for ways without a pipeline.
    busy: Option<[f64; 3]>,
    /// Single calls; `None` for pipelines.
    calls: Option<Calls>,
}

/// Runs the command.
///
/// # Errors
/// A bad suite; a wrong result; a device failure.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    // Batches in flight when timing starts may be almost complete. Enough others must outweigh them.
    let least = 4 * args.slots;
    if args.batches < least {
        let (batches, slots) = (args.batches, args.slots);
        return Err(Failure::Usage(format!(
            "--batches {batches}: at least {least}, four for each of {slots} slots"
        )));
    }
    args.json.begin(console)?;
    let mut layers = suite::read(&args.suite, args.batch)?;
    layers.retain(|layer| args.layer.as_ref().is_none_or(|text| layer.name.contains(text.as_str())));
    if layers.is_empty() {
        return Err(Failure::Input(format!("{}: no layer has that name", args.suite.display())));
    }
    let device = args.device.open()?;
    check_way(args, &device)?;
    let copies = memcpy::measure()?;
    let rate = copies.bytes_per_second / 1e9;
    console.line(format!("host copies: {rate:.1} GB/s by {} threads", copies.threads));
    let titles = ["ms/batch", "of bound", "x reference", "busy: up", "compute", "down"];
    console.line(line("way", titles.map(str::to_owned)));
    let mut report = Report {
        memcpy_bytes_per_second: copies.bytes_per_second,
        memcpy_threads: copies.threads,
        layers: vec![],
    };
    for layer in &layers {
        if layer.problem.is_empty() {
            let figures = nothing(&device, layer).map_err(|failure| failure.at(&layer.name))?;
            console.line(format!("{}: an empty batch: nothing to stream", layer.name));
            report.layers.push(figures);
            continue;
        }
        let work = Workload::new(args.settings(), &device, layer);
        let measured = work.and_then(|work| measured(args, &device, &work, layer, copies.bytes_per_second));
        let figures = measured.map_err(|failure| failure.at(&layer.name))?;
        print(console, &figures);
        report.layers.push(figures);
    }
    args.json.end(&report, console)
}

/// The figures of an empty batch. It is submitted once, to check that it completes.
fn nothing(device: &Device, layer: &Layer) -> Result<Figures, Failure> {
    let problem = &layer.problem;
    let weights = memory::filled("the weights", problem.weights_len(), 0.0)?;
    let plan = device.plan(problem, &weights, None)?;
    let pipeline = device.pipeline(PipelineOptions::default())?;
    pipeline.submit(&plan, vec![], vec![], WhenFull::Wait)?.wait()?;
    pipeline.acquire(&plan, WhenFull::Wait)?.submit()?.wait()?;
    Ok(Figures {
        name: layer.name.clone(),
        steps: None,
        both_ways: None,
        one_shot_over_bound: None,
        one_shot_over_transfers: None,
        submit_us: None,
        rows: vec![],
    })
}

/// The way that measures each step alone.
const ALONE: &str = "in place, one context";

/// The ways of a device with contexts.
const WAYS: [&str; 11] = [
    "reference",
    "one-shot",
    "prepared",
    "one context",
    "two contexts",
    "three contexts",
    "three, host order",
    ALONE,
    "in place, two",
    "in place",
    "in place, host order",
];

/// The ways of the CPU.
const WAYS_OF_CPU: [&str; 4] = ["one-shot", "prepared", "pipeline", "in place"];

/// Whether pipelines of this device compute on the CPU.
fn is_cpu(device: &Device) -> bool {
    let has_gpu =
        || devices().iter().any(|it| it.kind != DeviceKind::Cpu && it.unusable.is_none() && !it.software);
    device.id() == "cpu" || (device.id() == "auto" && !has_gpu())
}

/// Refuses a `--way` that this device does not have.
fn check_way(args: &Args, device: &Device) -> Result<(), Failure> {
    let ways = if is_cpu(device) { &WAYS_OF_CPU[..] } else { &WAYS };
    match &args.way {
        Some(text) if !ways.iter().any(|way| way.contains(text.as_str())) => {
            let (device, ways) = (device.id(), ways.join("\", \""));
            Err(Failure::Usage(format!("--way {text}: the ways of {device} are \"{ways}\"")))
        }
        _ => Ok(()),
    }
}

/// Runs the ways that were asked for, and the one that measures steps.
fn took(args: &Args, work: &Workload, is_cpu: bool) -> Result<Vec<WayResult>, Failure> {
    let ways = if is_cpu { &WAYS_OF_CPU[..] } else { &WAYS };
    let mut took = vec![];
    for &way in ways {
        let is_wanted = args.way.as_ref().is_none_or(|text| way.contains(text.as_str()));
        if !is_wanted && way != ALONE {
            continue;
        }
        let (contexts, order) = match way {
            "one context" | "pipeline" | ALONE => (Contexts::One, Order::Device),
            "two contexts" | "in place, two" => (Contexts::Two, Order::Device),
            "three contexts" | "in place" => (Contexts::Three, Order::Device),
            _ => (Contexts::Three, Order::Host),
        };
        took.extend(match way {
            "reference" => work.reference(way)?,
            "one-shot" => Some(work.one_shot(way)?),
            "prepared" => Some(work.prepared(way)?),
            _ if way.starts_with("in place") => Some(work.in_place(way, contexts, order)?),
            _ => Some(work.through_memory(way, contexts, order)?),
        });
    }
    Ok(took)
}

fn measured(
    args: &Args,
    device: &Device,
    work: &Workload,
    layer: &Layer,
    copy_rate: f64,
) -> Result<Figures, Failure> {
    let is_cpu = is_cpu(device);
    let took = took(args, work, is_cpu)?;
    let find = |way: &str| took.iter().find(|it| it.way == way);
    let steps = match is_cpu {
        true => None,
        false => Some(steps(find(ALONE).expect("it is always measured"), layer, copy_rate)),
    };
    let ms = |took: &WayResult| took.time.as_secs_f64() * 1e3;
    let reference = find("reference").map(ms);
    let row = |took: &WayResult| {
        let in_place = took.way.starts_with("in place");
        let bound_ms = steps.map(|it| if in_place { it.device_bound() } else { it.bound() });
        Row {
            way: took.way,
            ms: ms(took),
            bound_ms,
            share_of_bound: bound_ms.map(|bound| bound / ms(took)),
            over_reference: reference.map(|reference| reference / ms(took)),
            busy: took.busy.filter(|_| !is_cpu),
            calls: took.calls,
        }
    };
    let n = layer.problem.sizes().n;
    let pieces = n.div_ceil(PipelineOptions::of_calls().images_each(&layer.problem, usize::MAX));
    let both_ways = steps.map_or(Ok(None), |steps| both_ways(args, device, layer, steps))?;
    let one_shot = find("one-shot").map(ms);
    Ok(Figures {
        name: layer.name.clone(),
        steps,
        both_ways,
        one_shot_over_bound: one_shot.zip(steps).map(|(ms, steps)| ms / steps.alone(pieces)),
        one_shot_over_transfers: one_shot
            .zip(both_ways)
            .zip(steps)
            .map(|((ms, both), steps)| ms / steps.with_transfers(both, pieces)),
        submit_us: took.iter().find_map(|it| it.submit).map(|it: Duration| it.as_secs_f64() * 1e6),
        rows: took.iter().map(row).collect(),
    })
}

/// The time of each step alone, from a stream in one context, where nothing overlaps.
fn steps(alone: &WayResult, layer: &Layer, copy_rate: f64) -> Steps {
    let stats = alone.stats.expect("a pipeline has figures");
    let [upload, compute, download] =
        stats.busy.map(|busy| busy.as_secs_f64() * 1e3 / stats.pieces.max(1) as f64);
    let copy = |elements: usize| (size_of::<f32>() * elements) as f64 / copy_rate * 1e3;
    let (copy_in, copy_out) = (copy(layer.problem.input_len()), copy(layer.problem.output_len()));
    Steps { copy_in, upload, compute, download, copy_out }
}

/// How long a layer's upload and download take together. A stream that moves as many bytes each way as the smaller of
/// them measures how much overlapping saves. `None` if that stream's kernel, a multiplication by one, takes longer
/// than the transfers.
fn both_ways(args: &Args, device: &Device, layer: &Layer, steps: Steps) -> Result<Option<f64>, Failure> {
    if steps.upload + steps.download == 0.0 {
        return Ok(None);
    }
    let (sizes, problem) = (layer.problem.sizes(), &layer.problem);
    let (h, w) = match problem.input_len() < problem.output_len() {
        true => (sizes.c * sizes.h, sizes.w),
        false => (sizes.k * sizes.p, sizes.q),
    };
    let (n, h, w) = (sizes.n as i64, h as i64, w as i64);
    let copied = Conv2d::new(Conv2dDesc { n, h, w, ..Default::default() })?;
    let moved = copied.input_len() as f64;
    let layer = Layer { name: layer.name.clone(), problem: copied };
    let took = Workload::new(args.settings(), device, &layer)?.in_place(
        "both ways",
        Contexts::Three,
        Order::Host,
    )?;
    let [_, computing, _] = took.busy.unwrap_or_default();
    let upload = steps.upload * moved / problem.input_len() as f64;
    let download = steps.download * moved / problem.output_len() as f64;
    let saved = upload + download - took.time.as_secs_f64() * 1e3;
    let slowest = steps.upload.max(steps.download);
    Ok((computing < 0.9).then(|| (steps.upload + steps.download - saved.max(0.0)).max(slowest)))
}

fn print(console: &mut Console, figures: &Figures) {
    console.line(&figures.name);
    for row in &figures.rows {
        let busy = row.busy.map_or([const { String::new() }; 3], |busy| busy.map(|it| format!("{it:.2}")));
        let [up, compute, down] = busy;
        let [share, ratio] = [row.share_of_bound, row.over_reference]
            .map(|it| it.map_or_else(String::new, |it| format!("{it:.2}")));
        let cells = [format!("{:.3}", row.ms), share, ratio, up, compute, down];
        console.line(line(row.way, cells));
    }
    let mut note = |text: String| console.line(wrapped("  ", 4, &text));
    if let Some(Steps { copy_in, upload, compute, download, copy_out }) = figures.steps {
        note(format!(
            "steps alone, ms: copy in {copy_in:.3}, upload {upload:.3}, compute {compute:.3}, download \
             {download:.3}, copy out {copy_out:.3}"
        ));
    }
    if let Some(both) = figures.both_ways {
        note(format!("upload and download together, ms: {both:.3}"));
    }
    if let Some(ratio) = figures.one_shot_over_bound {
        let what = "one-shot call over the slowest step and one piece of the others";
        let too = figures.one_shot_over_transfers;
        let too =
            too.map_or_else(String::new, |it| format!("; with both transfers together as a step: {it:.2}"));
        note(format!("{what}: {ratio:.2}{too}"));
    }
    let one_shot = figures.rows.iter().find(|row| row.way == "one-shot");
    if let Some(Calls { least, median, ninth_decile, longest }) = one_shot.and_then(|row| row.calls) {
        note(format!(
            "one-shot calls, ms: least {least:.3}, median {median:.3}, nine of ten within {ninth_decile:.3}, \
             longest {longest:.3}"
        ));
    }
    if let Some(us) = figures.submit_us {
        note(format!("submit, on the calling thread: {us:.2} us"));
    }
}

fn line(way: &str, [ms, share, ratio, up, compute, down]: [String; 6]) -> String {
    let text = format!("  {way:<22} {ms:>9} {share:>8} {ratio:>11} {up:>8} {compute:>8} {down:>5}");
    text.trim_end().to_owned()
}
