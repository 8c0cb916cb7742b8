//! `sparkle demo`: filters a picture with the first layer of an image network, on every usable device.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use sparkle::report::gflops;
use sparkle::{Conv2d, Conv2dDesc, Device, Run, devices};

use crate::chart::SIDE;
use crate::console::{Console, ms};
use crate::failure::Failure;
use crate::measure::{Effort, Measured, measure};
use crate::{files, filters, memory, mosaic, photo, verify};

/// Filter a picture on every device, compare and time them, and draw the feature maps.
///
/// The layer is ResNet-50's first: 64 filters of 7x7 on three colours, stride 2, padding 3. The filters are lines, edges,
/// blobs and spots. Every output of every device is compared with a float64 oracle.
#[derive(clap::Args)]
pub struct Args {
    /// A photograph, PNG, JPEG, WebP or BMP; without it, a test chart
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The picture to write; the ending of its name is its format: png, jpg, webp or bmp
    #[arg(long, value_name = "FILE", default_value = "sparkle-demo.png")]
    output: PathBuf,
    /// Only this device: auto, multi, cpu, gl:N, a stable name or name=TEXT [default: every usable one]
    #[arg(long, value_name = "D")]
    device: Option<String>,
}

/// The most bytes that the demo needs for pictures and maps, which have fixed sizes.
const MAX_BYTES: usize = 32 << 20;

/// The layer with its data.
struct DemoLayer {
    problem: Conv2d,
    input: Vec<f32>,
    weights: Vec<f32>,
}

/// A device's verified result.
struct DeviceResult {
    name: String,
    output: Vec<f32>,
    measured: Measured,
    error_over_bound: f64,
}

/// Runs the command.
///
/// # Errors
/// A picture that cannot be read or written; a wrong result; a device that fails.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    let format = format(&args.output)?;
    files::check_target(&args.output)?;
    if args.image.as_ref().is_some_and(|image| files::are_same(image, &args.output)) {
        let path = args.output.display();
        return Err(Failure::Input(format!("--output: {path} is also the --image")));
    }
    let picture = photo::picture(args.image.as_deref())?;
    memory::check("the demo's pictures and feature maps", MAX_BYTES)?;
    let layer = layer(&picture);
    let source = args.image.as_ref().map_or("a test chart".to_owned(), |path| path.display().to_string());
    let work = layer.problem.flops() as f64 / 1e9;
    console.line(format!("{source} through 64 filters of 7x7, stride 2: {work:.3} GFLOP"));
    let targets = targets(args)?;
    let gl = targets.iter().any(|(selector, _)| selector.starts_with("gl:"));
    if args.device.is_none() && !gl {
        let hint = "`sparkle doctor` says what may be missing";
        console.line(format!("No OpenGL device can be used, so the CPU does it; {hint}."));
    }
    console.line("");
    let (done, failure) = on_all(console, &targets, &layer);
    let Some((first, others)) = done.split_first() else {
        return Err(failure.unwrap_or_else(|| Failure::Device("no device is usable".to_owned())));
    };
    console.line("");
    others.iter().for_each(|other| console.line(compare(first, other)));
    console.line(auto(&layer));
    draw(args, format, console, &mosaic::mosaic(&picture, &layer.weights, &first.output))?;
    failure.map_or(Ok(()), Err)
}

/// Runs the layer on every device. Returns the verified results, and the worst failure of the other devices.
fn on_all(
    console: &mut Console,
    targets: &[(String, String)],
    layer: &DemoLayer,
) -> (Vec<DeviceResult>, Option<Failure>) {
    console.line(row(["device", "kernel ms", "wall ms", "GFLOPS", "error/bound", "kernel", "name"]));
    let bar = console.progress(targets.len() as u64, "devices");
    let (mut all, mut failure) = (vec![], None);
    for (selector, name) in targets {
        bar.set_message(format!("{selector} ({name})"));
        match one(selector, name, layer) {
            Ok(done) => {
                print(console, layer, &done);
                all.push(done);
            }
            Err(error) => {
                let error = error.at(format!("{selector} ({name})"));
                console.note(&error.to_string());
                error.keep_worst(&mut failure);
            }
        }
        bar.inc(1);
    }
    console.end_progress();
    (all, failure)
}

/// The format that the name of a picture ends with. Devices and pipes get PNG.
fn format(path: &Path) -> Result<ImageFormat, Failure> {
    let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp];
    match ImageFormat::from_path(path) {
        Ok(format) if formats.contains(&format) => Ok(format),
        _ if path.starts_with("/dev") || path.starts_with("/proc") => Ok(ImageFormat::Png),
        _ => {
            let path = path.display();
            Err(Failure::Input(format!(
                "{path}: no picture is written in this format; expected .png, .jpg, .webp or .bmp"
            )))
        }
    }
}

fn draw(args: &Args, format: ImageFormat, console: &mut Console, mosaic: &RgbImage) -> Result<(), Failure> {
    let mut bytes = Cursor::new(Vec::new());
    mosaic.write_to(&mut bytes, format).map_err(|error| Failure::Input(error.to_string()))?;
    files::write(&args.output, |file| file.write_all(bytes.get_ref()))?;
    let (path, width, height) = (args.output.display(), mosaic.width(), mosaic.height());
    console.line(format!("The feature maps are in {path} ({width} x {height})."));
    Ok(())
}

fn layer(picture: &RgbImage) -> DemoLayer {
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
    DemoLayer { problem, input: photo::planes(picture), weights: filters::bank() }
}

/// Selectors and names of the devices to run on.
fn targets(args: &Args) -> Result<Vec<(String, String)>, Failure> {
    let usable: Vec<(String, String)> =
        devices().into_iter().filter_map(|device| Some((device.id?, device.name))).collect();
    let Some(selector) = &args.device else {
        return Ok(usable);
    };
    let device = Device::open(selector)?;
    let name = usable.into_iter().find(|(id, _)| id == device.id()).map_or(String::new(), |(_, name)| name);
    Ok(vec![(selector.clone(), name)])
}

/// Runs, verifies and times the layer on one device.
fn one(selector: &str, name: &str, layer: &DemoLayer) -> Result<DeviceResult, Failure> {
    let DemoLayer { problem, input, weights } = layer;
    let plan = Device::open(selector)?.plan(problem, weights, None)?;
    let mut output = memory::unwritten(problem.output_len())?;
    plan.run(input, &mut output)?;
    let verdict = verify::conv2d(problem, (input, weights, None), &output)?;
    if let Some(wrong) = verdict.complaint() {
        return Err(Failure::Wrong(format!("wrong result: {wrong}")));
    }
    let mut again = memory::unwritten(problem.output_len())?;
    let measured = measure(Effort::impression(), || plan.run(input, &mut again))?;
    Ok(DeviceResult { name: name.to_owned(), output, measured, error_over_bound: verdict.error_over_bound })
}

fn print(console: &mut Console, layer: &DemoLayer, done: &DeviceResult) {
    let measured = &done.measured;
    let (kernel, wall) = (ms(measured.kernel_time), ms(measured.wall_time));
    let rate = format!("{:.1}", gflops(layer.problem.flops(), measured.kernel_time));
    let error = format!("{:.4}", done.error_over_bound);
    console.line(row([&measured.device, &kernel, &wall, &rate, &error, &measured.kernel, &done.name]));
    if let Some(reason) = &measured.fallback {
        console.note(&format!("computed by {}, because {reason}", measured.device));
    }
}

fn row([device, kernel_ms, wall_ms, gflops, error, kernel, name]: [&str; 7]) -> String {
    let text =
        format!("{device:<14}  {kernel_ms:>9}  {wall_ms:>9}  {gflops:>8}  {error:>11}  {kernel:<28}  {name}");
    text.trim_end().to_owned()
}

/// Compares the verified results of two devices.
fn compare(first: &DeviceResult, other: &DeviceResult) -> String {
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

/// The device that `auto` takes for this layer, and the predictions behind the choice.
fn auto(layer: &DemoLayer) -> String {
    let taken = || -> Result<(Run, Vec<String>), Failure> {
        let device = Device::open("auto")?;
        let mut output = memory::unwritten(layer.problem.output_len())?;
        let run = device.conv2d(&layer.problem, &layer.input, &layer.weights, None, &mut output)?;
        let one = |it: sparkle::Prediction| match it.seconds {
            Ok(seconds) => format!("{} {:.3} ms", it.device, seconds * 1e3),
            Err(error) => format!("{} excluded: {error}", it.device),
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
