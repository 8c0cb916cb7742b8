//! `sparkle conv2d`: computes one convolution on NumPy files.

use std::path::{Path, PathBuf};

use sparkle::report::gflops;
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Run};

use crate::console::{Console, ms};
use crate::device::DeviceOption;
use crate::failure::Failure;
use crate::npy::{self, Array};
use crate::{files, memory};

/// Convolve arrays from .npy files.
///
/// Files hold float32. Files with float64, in Fortran order or big-endian are converted when they are read. The
/// output is float32 in C order, and is written only on success. An empty batch, N = 0, has an empty output.
#[derive(clap::Args)]
pub struct Args {
    /// Input, shape (N, C, H, W); or (C, H, W) for one image, with an output of shape (K, P, Q)
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Weights, shape (K, C/groups, R, S)
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Bias, shape (K,)
    #[arg(long, value_name = "FILE")]
    bias: Option<PathBuf>,
    /// Step of the kernel: one number, or height and width as 2,1 or 2x1
    #[arg(long, value_name = "S", default_value = "1", value_parser = pair)]
    stride: Pair,
    /// Zeros on each side: one number, or height and width
    #[arg(long, value_name = "P", default_value = "0", value_parser = pair)]
    pad: Pair,
    /// Distance between kernel elements: one number, or height and width
    #[arg(long, value_name = "D", default_value = "1", value_parser = pair)]
    dilation: Pair,
    /// Groups of channels
    #[arg(long, value_name = "G", default_value_t = 1)]
    groups: i64,
    /// Set negative outputs to zero
    #[arg(long)]
    relu: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Output file
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Print a report as JSON
    #[arg(long)]
    json: bool,
}

/// Values for height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair(i64, i64);

fn pair(text: &str) -> Result<Pair, String> {
    let number = |text: &str| {
        let parsed = text.trim().parse::<u32>();
        parsed.map(i64::from).map_err(|_| format!("\"{text}\" is not a whole number of at least 0"))
    };
    match text.split_once([',', 'x']) {
        Some((height, width)) => Ok(Pair(number(height)?, number(width)?)),
        None => number(text).map(|both| Pair(both, both)),
    }
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Report<'a> {
    device: &'a str,
    variant: &'a str,
    fallback: Option<&'a str>,
    input_shape: &'a [usize],
    weights_shape: &'a [usize],
    output_shape: &'a [usize],
    output: &'a Path,
    flops: u64,
    kernel_ms: f64,
    wall_ms: f64,
    gflops: f64,
}

/// Runs the command.
///
/// # Errors
/// Bad files and shapes; a device failure. The output file is untouched then.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    files::check_target(&args.output)?;
    let input = read(&args.input, &[3, 4], "(N, C, H, W) or (C, H, W)")?;
    let weights = read(&args.weights, &[4], "(K, C/groups, R, S)")?;
    let bias = args.bias.as_deref().map(|path| read(path, &[1], "(K,)")).transpose()?;
    let problem = problem(args, &input, &weights, bias.as_ref())?;
    let device = args.device.open()?;
    let output = memory::unwritten(problem.output_len());
    let mut output = output.map_err(|failure| failure.at(args.output.display()))?;
    let bias = bias.as_ref().map(|bias| &bias.data[..]);
    let run = device.conv2d(&problem, &input.data, &weights.data, bias, &mut output)?;
    let sizes = problem.sizes();
    let shape = [sizes.n, sizes.k, sizes.p, sizes.q];
    let shape = &shape[4 - input.shape.len()..];
    files::write(&args.output, |file| npy::write(file, shape, &output))?;
    report(args, console, &problem, &run, [&input.shape, &weights.shape, shape]);
    Ok(())
}

/// Reads an array of one of `ranks`.
fn read(path: &Path, ranks: &[usize], expected: &str) -> Result<Array, Failure> {
    let array = npy::read(path)?;
    if ranks.contains(&array.shape.len()) {
        return Ok(array);
    }
    let (path, shape) = (path.display(), array.shape_text());
    Err(Failure::Input(format!("{path}: shape {shape} has rank {}; expected {expected}", array.shape.len())))
}

/// The convolution that the options and shapes describe.
fn problem(args: &Args, input: &Array, weights: &Array, bias: Option<&Array>) -> Result<Conv2d, Failure> {
    let sides = |array: &Array| array.shape.iter().map(|&side| side as i64).collect::<Vec<_>>();
    let (image, kernel) = (sides(input), sides(weights));
    let (n, image) = if let [n, c, h, w] = image[..] { (n, vec![c, h, w]) } else { (1, image) };
    let described = || {
        let of = |path: &Path, array: &Array| format!("{} {}", path.display(), array.shape_text());
        format!("{} with {}", of(&args.input, input), of(&args.weights, weights))
    };
    if kernel[1].checked_mul(args.groups) != Some(image[0]) {
        return Err(Failure::Input(format!(
            "{}: the weights' channels, {}, times groups, {}, are not the input's, {}",
            described(),
            kernel[1],
            args.groups,
            image[0]
        )));
    }
    if let (Some(path), Some(bias)) = (&args.bias, bias)
        && bias.shape[0] as i64 != kernel[0]
    {
        let (path, shape) = (path.display(), bias.shape_text());
        let expected = format!("({},), one value for each filter", kernel[0]);
        return Err(Failure::Input(format!("{path}: shape {shape}; expected {expected}")));
    }
    let desc = Conv2dDesc {
        n,
        c: image[0],
        h: image[1],
        w: image[2],
        k: kernel[0],
        r: kernel[2],
        s: kernel[3],
        stride_h: args.stride.0,
        stride_w: args.stride.1,
        pad_h: args.pad.0,
        pad_w: args.pad.1,
        dilation_h: args.dilation.0,
        dilation_w: args.dilation.1,
        groups: args.groups,
        bias: bias.is_some(),
        relu: args.relu,
        algorithm: Algorithm::Auto,
    };
    Conv2d::new(desc).map_err(|error| Failure::from(error).at(described()))
}

fn report(args: &Args, console: &mut Console, problem: &Conv2d, run: &Run, shapes: [&[usize]; 3]) {
    if let Some(reason) = &run.fallback {
        console.note(&format!("computed by {}, because {reason}", run.device));
    }
    let timing = run.timing;
    let rate = gflops(problem.flops(), timing.kernel);
    if args.json {
        return console.json(&Report {
            device: &run.device,
            variant: &run.kernel,
            fallback: run.fallback.as_deref(),
            input_shape: shapes[0],
            weights_shape: shapes[1],
            output_shape: shapes[2],
            output: &args.output,
            flops: problem.flops(),
            kernel_ms: timing.kernel.as_secs_f64() * 1e3,
            wall_ms: timing.wall.as_secs_f64() * 1e3,
            gflops: rate,
        });
    }
    let text = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let [input, weights, output] = shapes.map(text);
    console.line(format!("{input} * {weights} -> {output}, written to {}", args.output.display()));
    let (kernel_ms, wall_ms) = (ms(timing.kernel), ms(timing.wall));
    console.line(format!(
        "{} on {}: kernel {kernel_ms} ms, wall {wall_ms} ms, {rate:.1} GFLOPS",
        run.kernel, run.device
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_or_two() {
        assert_eq!(pair("2"), Ok(Pair(2, 2)));
        assert_eq!(pair("2,1"), Ok(Pair(2, 1)));
        assert_eq!(pair("0x3"), Ok(Pair(0, 3)));
        for wrong in ["", "a", "1,", "1,2,3", "-1", "1.5"] {
            assert!(pair(wrong).is_err(), "{wrong}");
        }
    }
}
