//! `sparkle patterns`: what each memory pattern is worth on a device. Only in builds with the feature `patterns`.
//!
//! `engines` prepares and times cells, `record` is what is kept and what follows from it, `table` prints it, `picture` and
//! `page` draw it. The experiment is described in `docs/patterns.md`.

mod engines;
mod page;
mod picture;
mod record;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use sparkle::lab::Bench;
use sparkle::patterns::cpu::{self, Work};
use sparkle::problem::exact::Random;

use crate::console::Console;
use crate::device::Listed;
use crate::failure::Failure;
use crate::files;
use crate::json::JsonOption;
use crate::suite::{self, Layer};
use engines::{OnCpu, OnGpu, Patience, Ready, square};
use record::{Device, KIND, Record, Settings, Workload};

/// Measure what each memory pattern is worth: tiling, vectors, prefetch, layout, overlap.
///
/// Every set of patterns is a cell: the direct algorithm with these patterns and without the others. Each round measures all
/// cells in random order, the cell with all patterns twice, the product's own kernel, and the ceiling of multiply-adds on
/// registers. A pattern's worth is its Shapley value: the mean factor that it adds over all orders of turning patterns on. Its
/// interval is a bootstrap of 95 % over rounds within processes.
///
/// holds: the interval lies above 1.02. nothing: within 0.98 to 1.02. harms: below 0.98. open: anything else. Every cell is
/// first compared with a float64 oracle, on integers whose sums are exact.
///
/// On the CPU, a layer with more weights than pixels is also measured with weights that each call packs, and a matrix product
/// is measured. On a GPU the times are those of kernels, which overlap does not concern.
#[derive(clap::Args)]
pub struct Args {
    /// Layers: a CSV file as for bench
    #[arg(long, value_name = "FILE", required_unless_present = "merge")]
    suite: Option<PathBuf>,
    /// Device: cpu or gl:N
    #[arg(long, value_name = "D", default_value = "cpu")]
    device: String,
    /// Only these layers; may be repeated
    #[arg(long, value_name = "NAME")]
    layer: Vec<String>,
    /// Images a batch, instead of the suite's N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=4096))]
    batch: Option<i64>,
    /// Threads of the CPU
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Side of the matrix product on the CPU; 0 for none
    #[arg(long, value_name = "N", default_value = "512", value_parser = clap::value_parser!(i64).range(0..=8192))]
    sgemm: i64,
    /// Processes, one after the other [default: 3; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    processes: Option<u16>,
    /// Rounds of each process [default: 7; 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Measure twelve cells only, for a first look: no Shapley values
    #[arg(long)]
    quick: bool,
    /// Read records that this command wrote, instead of measuring
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["suite", "layer", "batch", "threads", "quick"])]
    merge: Vec<PathBuf>,
    /// Write a page with tables and pictures that stands by itself
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOption,
    /// Measure in this process and print the workloads: what the processes of an experiment do
    #[arg(long, hide = true, value_name = "INDEX")]
    process: Option<u64>,
}

/// The JSON report.
#[derive(serde::Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    record: &'a Record,
    results: Vec<record::Result>,
    means: Vec<record::Mean>,
}

/// Runs the command.
///
/// # Errors
/// A bad suite or record; a wrong result; a device failure.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    if let Some(threads) = args.threads {
        sparkle::set_num_threads(threads.into())?;
    }
    if let Some(index) = args.process {
        let workloads = measure(args, index, console)?;
        console.document(&workloads);
        return Ok(());
    }
    args.json.begin(console)?;
    if let Some(path) = &args.html {
        files::check_target(path)?;
    }
    let records = if args.merge.is_empty() {
        vec![experiment(args)?]
    } else {
        args.merge.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?
    };
    for record in &records {
        table::print(record, console);
    }
    if records.len() > 1 {
        table::compare(&records, console);
    }
    if let Some(path) = &args.html {
        let page = page::page(&records);
        files::write(path, |file| file.write_all(page.as_bytes()))?;
        console.line(format!("wrote {}", path.display()));
    }
    let reports: Vec<Report> = records
        .iter()
        .map(|record| {
            let results = record.results();
            Report { means: record.means(&results), results, record }
        })
        .collect();
    match &reports[..] {
        [only] if args.merge.is_empty() => args.json.end(only, console)?,
        all => {
            #[derive(serde::Serialize)]
            struct Merged<'a> {
                records: &'a [Report<'a>],
            }
            args.json.end(&Merged { records: all }, console)?;
        }
    }
    let wrong: usize = records.iter().flat_map(|it| &it.workloads).flat_map(|it| &it.wrong).sum();
    if wrong > 0 {
        return Err(Failure::Wrong(format!("{wrong} outputs of cells differ from the oracle's")));
    }
    Ok(())
}

/// Reads a record.
fn read(path: &Path) -> Result<Record, Failure> {
    let at = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| at(format!("cannot be read: {error}")))?;
    let record: Record = serde_json::from_str(&text)
        .map_err(|error| at(format!("is no record of sparkle patterns: {error}")))?;
    let sound = |workload: &Workload| {
        let count = workload.cells.len();
        let rounds = || workload.processes.iter().flatten();
        let positive = |seconds: &f64| *seconds > 0.0 && seconds.is_finite();
        workload.result().is_some()
            && [workload.intensity.len(), workload.wrong.len()] == [count; 2]
            && rounds()
                .all(|it| it.seconds.len() == count && it.seconds.iter().all(positive) && positive(&it.again))
    };
    // Lengths first: what follows is computed from them.
    let complete = |workload: &Workload| {
        let lens = |process: &Vec<record::Round>| {
            !process.is_empty() && process.iter().all(|it| it.seconds.len() == workload.cells.len())
        };
        !workload.processes.is_empty() && workload.processes.iter().all(lens)
    };
    if record.kind != KIND || !record.workloads.iter().all(|it| complete(it) && sound(it)) {
        return Err(at("is no complete record of sparkle patterns".to_owned()));
    }
    Ok(record)
}

fn settings(args: &Args) -> Settings {
    let (processes, rounds) = if args.quick { (1, 3) } else { (3, 7) };
    Settings {
        quick: args.quick,
        processes: args.processes.map_or(processes, usize::from),
        rounds: args.rounds.map_or(rounds, usize::from),
    }
}

/// Runs the processes of an experiment, and gathers what they measured.
fn experiment(args: &Args) -> Result<Record, Failure> {
    let settings = settings(args);
    let mut all: Vec<Workload> = vec![];
    for index in 0..settings.processes {
        let workloads = in_process(args, index)?;
        if all.is_empty() {
            all = workloads;
            continue;
        }
        for (workload, more) in all.iter_mut().zip(workloads) {
            if workload.name != more.name || workload.cells != more.cells {
                return Err(Failure::Device(format!("{}: processes measured different cells", more.name)));
            }
            workload.processes.extend(more.processes);
        }
    }
    Ok(Record { kind: KIND.to_owned(), device: device(args)?, settings, workloads: all })
}

/// Measures in a process of its own.
fn in_process(args: &Args, index: usize) -> Result<Vec<Workload>, Failure> {
    let failed = |reason: String| Failure::Device(format!("a process of the experiment: {reason}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.arg("patterns").args(["--device", &args.device, "--process", &index.to_string()]);
    command.args(["--sgemm", &args.sgemm.to_string()]);
    if let Some(suite) = &args.suite {
        command.arg("--suite").arg(suite);
    }
    for layer in &args.layer {
        command.args(["--layer", layer]);
    }
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            command.args([name, &value]);
        }
    };
    option("--batch", args.batch.map(|it| it.to_string()));
    option("--threads", args.threads.map(|it| it.to_string()));
    option("--rounds", args.rounds.map(|it| it.to_string()));
    if args.quick {
        command.arg("--quick");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(match output.status.code() {
            // What was wrong is on stderr.
            Some(1) => Failure::Wrong("a cell computed a wrong result".to_owned()),
            Some(2) => Failure::Usage("no experiment".to_owned()),
            Some(3) => Failure::Input("no experiment".to_owned()),
            _ => failed(format!("it ended with {}", output.status)),
        });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Measures all workloads in this process.
fn measure(args: &Args, index: u64, console: &mut Console) -> Result<Vec<Workload>, Failure> {
    let suite = args.suite.as_deref().unwrap_or(Path::new(""));
    let mut layers = suite::read(suite, args.batch)?;
    if let Some(unknown) = args.layer.iter().find(|name| !layers.iter().any(|layer| layer.name == **name)) {
        return Err(Failure::Usage(format!("{}: there is no layer \"{unknown}\"", suite.display())));
    }
    layers.retain(|layer| args.layer.is_empty() || args.layer.contains(&layer.name));
    layers.retain(|layer| !layer.problem.is_empty());
    let patience = Patience { seconds: if args.quick { 0.004 } else { 0.01 }, quick: args.quick };
    match args.device.strip_prefix("gl:").map(str::parse::<usize>) {
        None if args.device == "cpu" => on_cpu(args, index, &layers, patience, console),
        Some(Ok(number)) => on_gpu(args, (index, number), &layers, patience, console),
        _ => Err(Failure::Usage(format!("device \"{}\": expected cpu or gl:N", args.device))),
    }
}

fn on_cpu(
    args: &Args,
    index: u64,
    layers: &[Layer],
    patience: Patience,
    console: &mut Console,
) -> Result<Vec<Workload>, Failure> {
    let mut work: Vec<(String, Work)> = vec![];
    for Layer { name, problem } in layers {
        work.push((name.clone(), Work::Prepared(*problem)));
        if problem.weights_len() > problem.input_len() + problem.output_len() {
            work.push((format!("{name} given"), Work::Given(*problem)));
        }
    }
    if args.sgemm > 0 {
        work.push((format!("sgemm_{}", args.sgemm), Work::Product(square(args.sgemm)?)));
    }
    let (mut all, rounds) = (vec![], settings(args).rounds);
    for (name, work) in work {
        let mut ready = OnCpu::new(&name, work, patience, index == 0).map_err(|failure| failure.at(&name))?;
        all.push(rounds_of(&mut ready, rounds, index, console)?);
    }
    Ok(all)
}

fn on_gpu(
    args: &Args,
    (index, number): (u64, usize),
    layers: &[Layer],
    patience: Patience,
    console: &mut Console,
) -> Result<Vec<Workload>, Failure> {
    let mut bench = Bench::open(number)?;
    let software = listed(&args.device).is_some_and(|listed| listed.software);
    let (mut all, rounds) = (vec![], settings(args).rounds);
    for Layer { name, problem } in layers {
        let ready = OnGpu::new(&mut bench, name, problem, (patience, software), index == 0);
        match ready.map_err(|failure| failure.at(name))? {
            Some(mut ready) => all.push(rounds_of(&mut ready, rounds, index, console)?),
            None => {
                console.note(&format!("{name}: left out, no tiled kernel computes it on {}", args.device))
            }
        }
    }
    Ok(all)
}

/// Measures some rounds of a workload.
fn rounds_of(
    ready: &mut dyn Ready,
    rounds: usize,
    index: u64,
    console: &mut Console,
) -> Result<Workload, Failure> {
    let mut workload = ready.describe().clone();
    let bar = console.progress(rounds as u64, &format!("{} (process {})", workload.name, index + 1));
    let mut random = Random::new(1000 + index);
    let mut process = vec![];
    for _ in 0..rounds {
        process.push(ready.round(&mut random)?);
        bar.inc(1);
    }
    console.end_progress();
    workload.processes.push(process);
    Ok(workload)
}

fn listed(id: &str) -> Option<Listed> {
    sparkle::devices().into_iter().map(Listed::from).find(|it| it.id.as_deref() == Some(id))
}

fn device(args: &Args) -> Result<Device, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // A device that does not tell them has a picture without slopes.
    let levels: Vec<(String, f64)> = sparkle::Device::open(&args.device)?
        .ceilings()
        .map(|found| found.levels.iter().map(|it| (it.name.to_owned(), it.together)).collect())
        .unwrap_or_default();
    let of = |name: String, class: &str, isa: Option<&str>, threads: Option<usize>| Device {
        id: args.device.clone(),
        name,
        class: class.to_owned(),
        isa: isa.map(str::to_owned),
        threads,
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        levels: levels.clone(),
        seconds_since_1970: now,
    };
    if args.device == "cpu" {
        let (model, isa, _) = cpu::machine();
        return Ok(of(model.to_owned(), "cpu", Some(isa), Some(sparkle::num_threads())));
    }
    let missing = || Failure::Device(format!("{} is gone", args.device));
    let listed = listed(&args.device).ok_or_else(missing)?;
    let class = if listed.software { "software gpu" } else { "gpu" };
    Ok(of(listed.name, class, None, None))
}
