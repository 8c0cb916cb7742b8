//! `sparkle demo`: a picture through the first layer of an image network, on every device there is.

use std::path::PathBuf;

use sparkle::report::gflops;
use sparkle::{Conv2d, Conv2dDesc, Device, Run, devices};

use crate::chart::SIDE;
use crate::console::{Console, ms};
use crate::failure::Failure;
use crate::measure::{Effort, Measured, measure};
use crate::{files, filters, mosaic, photo, verify};

/// Filter a picture on every device, compare and time them, and draw the feature maps.
///
/// The layer is ResNet-50's first: 64 filters of 7x7 on three colours, stride 2, padding 3. The filters are lines, edges,
/// blobs and spots. Every output of every device is compared with a float64 oracle.
#[derive(clap::Args)]
pub struct Args {
    /// A photograph, PNG or JPEG; without it, a test chart
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The picture to write
    #[arg(long, value_name = "FILE", default_value = "sparkle-demo.png")]
    output: PathBuf,
    /// Only this device: auto, cpu, gl:N or name=TEXT [default: every usable one]
    #[arg(long, value_name = "D")]
    device: Option<String>,
}

/// The layer with its data.
struct Layer {
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
}

/// What a device did.
struct Done {
    output: Vec<f32>,
    measured: Measured,
    verdict: verify::Verdict,
}

/// Runs the command.
///
/// # Errors
/// A picture that cannot be read or written; a wrong result; a device that fails.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    files::check_target(&args.output)?;
    let picture = photo::picture(args.image.as_deref())?;
    let layer = layer(&picture);
    let source = args.image.as_ref().map_or("a test chart".to_owned(), |path| path.display().to_string());
    let work = layer.problem.flops() as f64 / 1e9;
    console.line(format!("{source} through 64 filters of 7x7, stride 2: {work:.3} GFLOP"));
    let targets = targets(args)?;
    let gl = targets.iter().any(|(selector, _)| selector.starts_with("gl:"));
    if args.device.is_none() && !gl {
        console.line(
            "No usable OpenGL device was found, so the CPU does it; `sparkle doctor` says what is missing.",
        );
    }
    console.line(format!(
        "\n{:<16}  {:>10}  {:>10}  {:>8}  {:>11}  kernel",
        "device", "kernel ms", "wall ms", "GFLOPS", "error/bound"
    ));
    let mut right: Vec<Done> = vec![];
    let mut failure = None;
    let bar = console.progress(targets.len() as u64, "devices");
    for (selector, name) in &targets {
        bar.set_message(format!("{selector} ({name})"));
        match one(selector, &layer) {
            Ok(done) => {
                print(console, &layer, &done);
                match done.verdict.complaint() {
                    None => right.push(done),
                    Some(wrong) => {
                        console.note(&format!("{selector}: WRONG RESULT: {wrong}"));
                        failure = Some(Failure::Wrong(format!("{selector} computes wrong numbers")));
                    }
                }
            }
            Err(error) => {
                console.note(&format!("{selector} ({name}): {error}"));
                failure = failure.or(Some(error.at(selector)));
            }
        }
        bar.inc(1);
    }
    console.end_progress();
    let Some(first) = right.first() else {
        return Err(failure.unwrap_or_else(|| Failure::Device("there is no usable device".to_owned())));
    };
    console.line("");
    for other in &right[1..] {
        console.line(compare(first, other));
    }
    console.line(auto(&layer));
    let image = mosaic::mosaic(&picture, &layer.weights, &first.output);
    files::write(&args.output, |file| {
        let encoder = image::codecs::png::PngEncoder::new(file);
        image.write_with_encoder(encoder).map_err(std::io::Error::other)
    })?;
    console.line(format!(
        "The feature maps are in {} ({} x {}).",
        args.output.display(),
        image.width(),
        image.height()
    ));
    failure.map_or(Ok(()), Err)
}

fn layer(picture: &image::RgbImage) -> Layer {
    let side = i64::from(SIDE);
    let kernel = filters::SIDE as i64;
    let desc = Conv2dDesc {
        c: 3,
        h: side,
        w: side,
        k: filters::COUNT as i64,
        r: kernel,
        s: kernel,
        stride_h: 2,
        stride_w: 2,
        pad_h: kernel / 2,
        pad_w: kernel / 2,
        ..Default::default()
    };
    let problem = Conv2d::new(desc).expect("the layer is valid");
    Layer { problem, input: photo::planes(picture), weights: filters::bank() }
}

/// Selectors and names of the devices to run on.
fn targets(args: &Args) -> Result<Vec<(String, String)>, Failure> {
    match &args.device {
        Some(selector) => {
            let device = Device::open(selector)?;
            Ok(vec![(selector.clone(), device.id().to_owned())])
        }
        None => Ok(devices().into_iter().filter_map(|device| Some((device.id?, device.name))).collect()),
    }
}

/// Runs, verifies and times the layer on one device.
fn one(selector: &str, layer: &Layer) -> Result<Done, Failure> {
    let Layer { problem, input, weights } = layer;
    let plan = Device::open(selector)?.plan(problem, weights, None)?;
    let mut output = verify::unwritten(problem.output_len());
    plan.run(input, &mut output)?;
    let verdict = verify::conv2d(problem, (input, weights, None), &output);
    let mut again = verify::unwritten(problem.output_len());
    let measured = measure(Effort::impression(), || plan.run(input, &mut again))?;
    Ok(Done { output, measured, verdict })
}

fn print(console: &mut Console, layer: &Layer, Done { measured, verdict, .. }: &Done) {
    let rate = gflops(layer.problem.flops(), measured.kernel_time);
    console.line(format!(
        "{:<16}  {:>10}  {:>10}  {rate:>8.1}  {:>11.4}  {}",
        measured.device,
        ms(measured.kernel_time),
        ms(measured.wall_time),
        verdict.error_over_bound,
        measured.kernel
    ));
    if let Some(reason) = &measured.fallback {
        console.note(&format!("done by {}, because {reason}", measured.device));
    }
}

/// How far two right results are apart.
fn compare(first: &Done, other: &Done) -> String {
    let pairs = || first.output.iter().zip(&other.output);
    let largest = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let scale = first.output.iter().fold(f32::MIN_POSITIVE, |scale, value| scale.max(value.abs()));
    let same = pairs().filter(|(a, b)| a == b).count();
    let (a, b) = (&first.measured.device, &other.measured.device);
    let share = 100.0 * same as f64 / first.output.len() as f64;
    format!(
        "{a} and {b} agree within {:.1e} of the largest output; {share:.1}% are identical.",
        largest / scale
    )
}

/// What `auto` takes for this layer, and why.
fn auto(layer: &Layer) -> String {
    let taken = || -> sparkle::Result<(Run, Vec<String>)> {
        let device = Device::open("auto")?;
        let mut output = verify::unwritten(layer.problem.output_len());
        let run = device.conv2d(&layer.problem, &layer.input, &layer.weights, None, &mut output)?;
        let one = |it: sparkle::Prediction| match it.seconds {
            Ok(seconds) => format!("{} {:.3} ms", it.device, seconds * 1e3),
            Err(error) => format!("{} passed over, {error}", it.device),
        };
        Ok((run, device.predictions(&layer.problem).into_iter().map(one).collect()))
    };
    match taken() {
        Ok((run, predicted)) => {
            let software = devices().iter().any(|device| device.software && device.unusable.is_none());
            let note = if software { "; software GL is never chosen" } else { "" };
            format!("auto takes {} (predicted: {}{note}).", crate::device::label(&run), predicted.join(", "))
        }
        Err(error) => format!("auto cannot be used: {error}"),
    }
}
