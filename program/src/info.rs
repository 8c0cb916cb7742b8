//! `sparkle info`: lists the devices, the choices of `auto`, and the environment.

use sparkle::{Config, Conv2d, Conv2dDesc, Device, Measurements, Prediction, Tune, config, devices};

use crate::console::Console;
use crate::device::Listed;
use crate::failure::Failure;

/// List every device, why it is unusable if it is, and what `auto` would choose.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Report {
    version: &'static str,
    platform: String,
    threads: usize,
    devices: Vec<Listed>,
    measurements: Vec<Measurements>,
    auto: Auto,
    environment: Vec<Variable>,
    complaints: &'static [String],
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
    problem: &'static str,
    prefers: Option<String>,
    predicted: Vec<Predicted>,
}

#[derive(serde::Serialize)]
struct Predicted {
    device: String,
    ms: Option<f64>,
    error: Option<String>,
}

/// An environment variable that Sparkle reads.
#[derive(serde::Serialize)]
struct Variable {
    name: &'static str,
    value: Option<String>,
    meaning: &'static str,
}

/// Runs the command.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    // First, because it measures, and the devices' facts include the measurements.
    let auto = auto();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        threads: sparkle::num_threads(),
        devices: devices().into_iter().map(Listed::from).collect(),
        measurements: sparkle::measurements(),
        auto,
        environment: environment(config()),
        complaints: &config().complaints,
    };
    if args.json {
        console.json(&report)
    } else {
        print(&report, console)
    }
    Ok(())
}

fn auto() -> Auto {
    let means = match &config().device {
        Some(device) if device != "auto" => format!("{device}, as set by SPARKLE_DEVICE"),
        _ if config().deterministic => "the CPU, as set by SPARKLE_DETERMINISTIC".to_owned(),
        _ => {
            "the device predicted fastest for each problem, transfers included; never software GL".to_owned()
        }
    };
    match Device::open("auto") {
        Ok(device) => Auto { means, error: None, examples: examples(&device) },
        Err(error) => Auto { means, error: Some(error.to_string()), examples: vec![] },
    }
}

fn examples(device: &Device) -> Vec<Example> {
    let layer = |c, h, k, r, stride| Conv2dDesc {
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
    [
        ("8 channels 16x16, 8 filters 3x3", layer(8, 16, 8, 3, 1)),
        ("ResNet-50's first layer (3 channels 224x224, 64 filters 7x7)", layer(3, 224, 64, 7, 2)),
        ("256 channels 56x56, 256 filters 3x3", layer(256, 56, 256, 3, 1)),
    ]
    .into_iter()
    .map(|(problem, desc)| {
        let valid = Conv2d::new(desc).expect("the examples are valid");
        let predictions = device.predictions(&valid);
        Example {
            problem,
            prefers: preferred(&predictions),
            predicted: predictions.into_iter().map(predicted).collect(),
        }
    })
    .collect()
}

/// The device predicted fastest; the first of equals, like in the library.
fn preferred(predictions: &[Prediction]) -> Option<String> {
    let seconds = |it: &Prediction| it.seconds.clone().unwrap_or(f64::INFINITY);
    predictions.iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b))).map(|it| it.device.clone())
}

fn predicted(prediction: Prediction) -> Predicted {
    let (ms, error) = match prediction.seconds {
        Ok(seconds) => (Some(seconds * 1e3), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Predicted { device: prediction.device, ms, error }
}

/// Every variable of `config`. The pattern names all fields, so that a new one cannot be forgotten.
fn environment(config: &Config) -> Vec<Variable> {
    let Config {
        device,
        num_threads,
        isa,
        omp_num_threads,
        log,
        gl_timeout_ms,
        algorithm,
        trace,
        cache_dir,
        xdg_cache_home,
        home: _,
        tune,
        deterministic,
        flush_denormals,
        complaints: _,
    } = config;
    let variable = |name, value, meaning| Variable { name, value, meaning };
    vec![
        variable("SPARKLE_DEVICE", device.clone(), "the device that auto means"),
        variable("SPARKLE_NUM_THREADS", num_threads.map(|it| it.to_string()), "threads of the CPU pool"),
        variable("SPARKLE_ISA", isa.clone(), "instruction set of the CPU's kernels"),
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
            "SPARKLE_GL_TIMEOUT_MS",
            gl_timeout_ms.map(|it| it.to_string()),
            "how long to wait for a GPU (default 10000)",
        ),
        variable(
            "SPARKLE_ALGORITHM",
            algorithm.map(|it| format!("{it:?}").to_lowercase()),
            "the algorithm that auto means for convolutions: direct or winograd",
        ),
        variable("SPARKLE_TRACE", trace.clone(), "file to which pipelines write a trace"),
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
    console.line(format!("sparkle {} on {}, {} threads", report.version, report.platform, report.threads));
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
            console.line(format!("         because {}", reason.replace('\n', "\n         ")));
        }
        let width = device.facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &device.facts {
            console.line(format!("         {name:<width$}  {}", value));
        }
    }
    if report.devices.iter().filter(|device| device.usable).count() == 1 {
        console.line("  No OpenGL device can be used; `sparkle doctor` says what may be missing.");
    }
    console.line("\nauto");
    lines_of(&report.auto).iter().for_each(|line| console.line(format!("  {line}")));
    console.line("\nEnvironment");
    for Variable { name, value, meaning } in &report.environment {
        console.line(format!("  {name:<22} {:<10} {meaning}", value.as_deref().unwrap_or("not set")));
    }
    report.complaints.iter().for_each(|complaint| console.line(format!("  ! {complaint}")));
}

fn lines_of(auto: &Auto) -> Vec<String> {
    let mut lines = vec![format!("means {}", auto.means)];
    lines.extend(auto.error.as_ref().map(|error| format!("cannot be opened: {error}")));
    for example in &auto.examples {
        let one = |it: &Predicted| match (it.ms, &it.error) {
            (Some(ms), _) => format!("{} {ms:.3} ms", it.device),
            (None, error) => {
                format!("{} excluded: {}", it.device, error.as_deref().unwrap_or("no reason given"))
            }
        };
        let predicted: Vec<String> = example.predicted.iter().map(one).collect();
        let prefers = example.prefers.as_deref().unwrap_or("nothing");
        lines.push(format!("{}: {prefers} (predicted: {})", example.problem, predicted.join(", ")));
    }
    lines
}
