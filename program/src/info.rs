//! `sparkle info`: lists the devices, the choices of `auto`, and the environment.

use std::path::PathBuf;

use sparkle::{
    Config, Conv2d, Conv2dDesc, Device, LogFormat, Measurements, Prediction, Tune, config, devices,
};

use crate::console::{Console, wrapped};
use crate::device::Listed;
use crate::environment::{Ignored, ignored};
use crate::failure::Failure;
use crate::json::JsonOption;
use crate::suite;

/// List every device, why it is unusable if it is, and what `auto` would choose.
#[derive(clap::Args)]
pub struct Args {
    /// Also tell what `auto` would choose for each layer of a suite, a CSV file as for `bench`
    #[arg(long, value_name = "FILE")]
    suite: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOption,
}

#[derive(serde::Serialize)]
struct Report {
    platform: String,
    threads: usize,
    devices: Vec<Listed>,
    measurements: Vec<Measurements>,
    auto: Auto,
    environment: Vec<Variable>,
    ignored: Vec<Ignored>,
}

/// What `auto` means here.
#[derive(serde::Serialize)]
struct Auto {
    means: String,
    error: Option<String>,
    examples: Vec<Example>,
}

/// What `auto` takes for one problem.
#[derive(serde::Serialize)]
struct Example {
    problem: String,
    /// The device that the next call would go to.
    prefers: Option<String>,
    predicted: Vec<Predicted>,
}

#[derive(serde::Serialize)]
struct Predicted {
    device: String,
    /// Predicted.
    ms: Option<f64>,
    /// What such calls have taken, if `auto` has tried the device.
    measured_ms: Option<f64>,
    error: Option<String>,
}

/// An environment variable that Sparkle reads.
#[derive(serde::Serialize)]
struct Variable {
    name: &'static str,
    value: Option<String>,
    /// Whether the value has no effect, because it is not understood. `ignored` has the choices.
    ignored: bool,
    meaning: &'static str,
}

/// Runs the command.
///
/// # Errors
/// A bad suite, or if standard output cannot be written.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    let layers = args.suite.as_ref().map(|path| suite::read(path, None)).transpose()?.unwrap_or_default();
    let layers = layers.into_iter().map(|layer| (layer.name, layer.problem)).collect();
    // First, because it measures, and the devices' facts include the measurements.
    let auto = auto(layers);
    // What cannot be measured is left out.
    let _ = Device::open("cpu").and_then(|cpu| cpu.ceilings());
    let report = Report {
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        threads: sparkle::num_threads(),
        devices: devices().into_iter().map(Listed::from).collect(),
        measurements: sparkle::measurements(),
        auto,
        environment: environment(config()),
        ignored: ignored(),
    };
    print(&report, console);
    args.json.end(&report, console)
}

fn auto(layers: Vec<(String, Conv2d)>) -> Auto {
    let means = match &config().device {
        Some(device) if device != "auto" => format!("{device}, as set by SPARKLE_DEVICE"),
        _ if config().deterministic => "the CPU, as set by SPARKLE_DETERMINISTIC".to_owned(),
        _ => {
            "the device predicted fastest for each problem, transfers included; never software GL".to_owned()
        }
    };
    match Device::open("auto") {
        Ok(device) => Auto { means, error: None, examples: examples(&device, layers) },
        Err(error) => Auto { means, error: Some(error.to_string()), examples: vec![] },
    }
}

/// Three examples and the user's layers.
fn examples(device: &Device, layers: Vec<(String, Conv2d)>) -> Vec<Example> {
    let layer = |name: &str, c, h, k, r, stride| {
        let desc = Conv2dDesc {
            c,
            h,
            w: h,
            k,
            r,
            s: r,
            stride_h: stride,
            stride_w: stride,
            pad_h: r / 2,
            pad_w: r / 2,
            ..Default::default()
        };
        (name.to_owned(), Conv2d::new(desc).expect("the examples are valid"))
    };
    let known = [
        layer("8 channels 16x16, 8 filters 3x3", 8, 16, 8, 3, 1),
        layer("ResNet-50's first layer (3 channels 224x224, 64 filters 7x7)", 3, 224, 64, 7, 2),
        layer("256 channels 56x56, 256 filters 3x3", 256, 56, 256, 3, 1),
    ];
    let example = |(problem, layer): (String, Conv2d)| {
        let predictions = device.predictions(&layer);
        let prefers = predictions.iter().find(|it| it.is_next).map(|it| it.device.clone());
        Example { problem, prefers, predicted: predictions.into_iter().map(predicted).collect() }
    };
    known.into_iter().chain(layers).map(example).collect()
}

fn predicted(prediction: Prediction) -> Predicted {
    let (ms, error) = match prediction.seconds {
        Ok(seconds) => (Some(seconds * 1e3), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let measured_ms = prediction.measured.map(|seconds| seconds * 1e3);
    Predicted { device: prediction.device, ms, measured_ms, error }
}

/// Every variable of `config`. The pattern names all fields, so that a new one cannot be forgotten.
fn environment(config: &Config) -> Vec<Variable> {
    let Config {
        device,
        num_threads,
        isa,
        caches,
        omp_num_threads,
        log,
        log_format,
        gl_timeout_ms,
        algorithm,
        trace,
        cache_dir,
        xdg_cache_home,
        home: _,
        tune,
        deterministic,
        flush_denormals,
        ignored,
    } = config;
    let variable = |name: &'static str, value: Option<String>, meaning| {
        let refused = ignored.iter().find(|it| it.name == name).map(|it| it.value.clone());
        Variable { name, ignored: refused.is_some(), value: refused.or(value), meaning }
    };
    vec![
        variable("SPARKLE_DEVICE", device.clone(), "the device that auto means"),
        variable("SPARKLE_NUM_THREADS", num_threads.map(|it| it.to_string()), "threads of the CPU pool"),
        variable("SPARKLE_ISA", isa.clone(), "instruction set of the CPU's kernels"),
        variable(
            "SPARKLE_CACHES",
            caches.map(|it| it.to_string()),
            "sizes of caches that the system misreports, such as l2=2M,l3=32M/8",
        ),
        variable(
            "OMP_NUM_THREADS",
            omp_num_threads.map(|it| it.to_string()),
            "default of SPARKLE_NUM_THREADS",
        ),
        variable(
            "SPARKLE_LOG",
            log.map(|it| format!("{it:?}").to_lowercase()),
            "lowest level of messages written to stderr",
        ),
        variable(
            "SPARKLE_LOG_FORMAT",
            (*log_format != LogFormat::default()).then(|| format!("{log_format:?}").to_lowercase()),
            "text, or json: the form of messages",
        ),
        variable(
            "SPARKLE_GL_TIMEOUT_MS",
            gl_timeout_ms.map(|it| it.to_string()),
            "how long to wait for a GPU (default 10000)",
        ),
        variable(
            "SPARKLE_ALGORITHM",
            algorithm.map(|it| format!("{it:?}").to_lowercase()),
            "the algorithm that auto means for convolutions: direct or winograd",
        ),
        variable("SPARKLE_TRACE", trace.clone(), "file for a trace of calls and pipelines"),
        variable(
            "SPARKLE_CACHE_DIR",
            cache_dir.clone(),
            "cache folder, which keeps measurements; empty or off: no cache",
        ),
        variable(
            "XDG_CACHE_HOME",
            xdg_cache_home.clone(),
            "the default cache is sparkle in this folder, or in ~/.cache",
        ),
        variable(
            "SPARKLE_TUNE",
            (*tune != Tune::default()).then(|| format!("{tune:?}").to_lowercase()),
            "read: plans use measurements of their candidates; full: they also make them",
        ),
        variable(
            "SPARKLE_DETERMINISTIC",
            deterministic.then(|| "1".to_owned()),
            "1: no measurement decides which kernel or device computes",
        ),
        variable(
            "SPARKLE_FLUSH_DENORMALS",
            flush_denormals.then(|| "1".to_owned()),
            "1: the CPU path treats denormal numbers as zero",
        ),
    ]
}

fn print(report: &Report, console: &mut Console) {
    let version = env!("CARGO_PKG_VERSION");
    console.line(format!("sparkle {version} on {}, {} threads", report.platform, report.threads));
    console.line("\nDevices");
    for device in &report.devices {
        let state = match (device.usable, device.software) {
            (true, false) => "usable",
            (true, true) => "usable, in software: correct but slow, never chosen by auto",
            (false, _) => "not usable",
        };
        console.line(format!("  {:<6} {}", device.id.as_deref().unwrap_or("-"), device.name));
        console.line(format!("         {state}"));
        if let Some(reason) = &device.reason {
            reason
                .lines()
                .enumerate()
                .map(|(index, line)| {
                    wrapped(if index == 0 { "         because " } else { "         " }, 11, line)
                })
                .for_each(|line| console.line(line));
        }
        let width = device.facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &device.facts {
            console.line(wrapped(&format!("         {name:<width$}  "), 11 + width, value));
        }
    }
    if report.devices.iter().filter(|device| device.usable).count() == 1 {
        console.line("  No OpenGL device can be used; `sparkle doctor` says what may be missing.");
    }
    console.line("\nauto");
    lines_of(&report.auto).iter().for_each(|line| console.line(wrapped("  ", 4, line)));
    console.line("\nEnvironment");
    for Variable { name, value, ignored, meaning } in &report.environment {
        let value = value.as_deref().unwrap_or("not set");
        let value = if *ignored { format!("{value} (ignored)") } else { value.to_owned() };
        console.line(wrapped(&format!("  {name:<23} {value:<10} "), 26, meaning));
    }
    for ignored in &config().ignored {
        console.line(wrapped("  ! ", 4, &ignored.to_string()));
    }
}

fn lines_of(auto: &Auto) -> Vec<String> {
    let mut lines = vec![format!("means {}", auto.means)];
    lines.extend(auto.error.as_ref().map(|error| format!("cannot be opened: {error}")));
    for example in &auto.examples {
        let one = |it: &Predicted| match (it.ms, it.measured_ms, &it.error) {
            (Some(ms), Some(measured), _) => format!("{} {ms:.3} ms, measured {measured:.3} ms", it.device),
            (Some(ms), None, _) => format!("{} {ms:.3} ms", it.device),
            (None, _, error) => {
                format!("{} excluded: {}", it.device, error.as_deref().unwrap_or("no reason given"))
            }
        };
        let predicted: Vec<String> = example.predicted.iter().map(one).collect();
        let prefers = example.prefers.as_deref().unwrap_or("nothing");
        lines.push(format!("{}: {prefers} (predicted: {})", example.problem, predicted.join("; ")));
    }
    lines
}
