//! `sparkle conv2d`: computes one convolution on NumPy files.

use std::path::{Path, PathBuf};

use sparkle::problem::{TensorLayout, WeightsLayout};
use sparkle::report::gflops;
use sparkle::{Conv2d, Conv2dDesc, Run};

use crate::console::{Console, ms};
use crate::device::DeviceOption;
use crate::failure::Failure;
use crate::json::JsonOption;
use crate::npy::{self, Array};
use crate::{files, memory};

/// Convolve arrays from .npy files.
///
/// Files hold float32. Files with float16, float64 or integers, in Fortran order or big-endian are converted when they are
/// read. The output is float32 in C order, and is written only on success. An empty batch, N = 0, has an empty output.
/// "-" stands for standard input or standard output; the text is dropped then.
#[derive(clap::Args)]
pub struct Args {
    /// Input, a file or "-", shape (N, C, H, W), or (N, H, W, C) with --layout nhwc; without N for one image, then the output has none
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Weights, shape (K, C/groups, R, S), or as --weights-layout says
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Bias, shape (K,)
    #[arg(long, value_name = "FILE")]
    bias: Option<PathBuf>,
    /// Step of the kernel: one number, or height and width as 2,1 or 2x1
    #[arg(long, value_name = "S", default_value = "1", value_parser = pair)]
    stride: Pair,
    /// Zeros around the image: one number; height and width; four numbers, top,bottom,left,right; or "same", as many as
    /// give ceil(H/stride) x ceil(W/stride) outputs
    #[arg(long, value_name = "P", default_value = "0", value_parser = padding)]
    pad: Padding,
    /// Distance between kernel elements: one number, or height and width
    #[arg(long, value_name = "D", default_value = "1", value_parser = pair)]
    dilation: Pair,
    /// Groups of channels
    #[arg(long, value_name = "G", default_value_t = 1)]
    groups: i64,
    /// Order of input and output: nchw or nhwc
    #[arg(long, value_name = "ORDER", default_value = "nchw", value_parser = tensor_layout)]
    layout: TensorLayout,
    /// Order of the output, if it is another
    #[arg(long, value_name = "ORDER", value_parser = tensor_layout)]
    output_layout: Option<TensorLayout>,
    /// Order of the weights: oihw, hwio, shape (R, S, C/groups, K), or ohwi, shape (K, R, S, C/groups)
    #[arg(long, value_name = "ORDER", default_value = "oihw", value_parser = weights_layout)]
    weights_layout: WeightsLayout,
    /// Set negative outputs to zero
    #[arg(long)]
    relu: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Output, a file or "-"
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Let the output replace a file that is also an input
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonOption,
}

/// Values for height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair(i64, i64);

/// Zeros around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Padding {
    Sides { top: i64, bottom: i64, left: i64, right: i64 },
    Same,
}

fn padding(text: &str) -> Result<Padding, String> {
    if text == "same" {
        return Ok(Padding::Same);
    }
    let sides: Vec<&str> = text.split([',', 'x']).collect();
    if let [top, bottom, left, right] = sides[..] {
        let (top, bottom, left, right) = (number(top)?, number(bottom)?, number(left)?, number(right)?);
        return Ok(Padding::Sides { top, bottom, left, right });
    }
    let Pair(rows, columns) = pair(text)?;
    Ok(Padding::Sides { top: rows, bottom: rows, left: columns, right: columns })
}

/// Reads the name of an order.
pub fn tensor_layout(text: &str) -> Result<TensorLayout, String> {
    match text {
        "nchw" => Ok(TensorLayout::Nchw),
        "nhwc" => Ok(TensorLayout::Nhwc),
        _ => Err(format!("\"{text}\" is not an order; expected nchw or nhwc")),
    }
}

/// Reads the name of an order of weights.
pub fn weights_layout(text: &str) -> Result<WeightsLayout, String> {
    match text {
        "oihw" => Ok(WeightsLayout::Oihw),
        "hwio" => Ok(WeightsLayout::Hwio),
        "ohwi" => Ok(WeightsLayout::Ohwi),
        _ => Err(format!("\"{text}\" is not an order; expected oihw, hwio or ohwi")),
    }
}

fn number(text: &str) -> Result<i64, String> {
    let parsed = text.trim().parse::<u32>();
    parsed.map(i64::from).map_err(|_| format!("\"{text}\" is not a whole number of at least 0"))
}

fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once([',', 'x']) {
        Some((height, width)) => Ok(Pair(number(height)?, number(width)?)),
        None => number(text).map(|both| Pair(both, both)),
    }
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Report<'a> {
    device: &'a str,
    kernel: &'a str,
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
    check_places(args)?;
    args.json.begin(console)?;
    if is_standard(&args.output) {
        console.stop_text();
    } else {
        files::check_target(&args.output)?;
    }
    let image = match args.layout {
        TensorLayout::Nchw => "(N, C, H, W) or (C, H, W)",
        TensorLayout::Nhwc => "(N, H, W, C) or (H, W, C)",
    };
    let filters = match args.weights_layout {
        WeightsLayout::Oihw => "(K, C/groups, R, S)",
        WeightsLayout::Hwio => "(R, S, C/groups, K)",
        WeightsLayout::Ohwi => "(K, R, S, C/groups)",
    };
    let input = read(&args.input, &[3, 4], image)?;
    let weights = read(&args.weights, &[4], filters)?;
    let bias = args.bias.as_deref().map(|path| read(path, &[1], "(K,)")).transpose()?;
    let problem = problem(args, &input, &weights, bias.as_ref())?;
    let device = args.device.open()?;
    let output = memory::unwritten(problem.output_len());
    let mut output = output.map_err(|failure| failure.at(args.output.display()))?;
    let bias = bias.as_ref().map(|bias| &bias.data[..]);
    let run = device.conv2d(&problem, &input.data, &weights.data, bias, &mut output)?;
    let sizes = problem.sizes();
    let shape = match sizes.output_layout {
        TensorLayout::Nchw => [sizes.n, sizes.k, sizes.p, sizes.q],
        TensorLayout::Nhwc => [sizes.n, sizes.p, sizes.q, sizes.k],
    };
    let shape = &shape[4 - input.shape.len()..];
    if is_standard(&args.output) {
        console.bytes(|stream| npy::write(stream, shape, &output));
    } else {
        files::write(&args.output, |file| npy::write(file, shape, &output))?;
    }
    report(args, console, &problem, &run, [&input.shape, &weights.shape, shape])
}

/// Whether a path is "-": standard input or standard output.
fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Checks that no stream is used twice, and that the output replaces no input.
fn check_places(args: &Args) -> Result<(), Failure> {
    let inputs =
        [("--input", Some(&args.input)), ("--weights", Some(&args.weights)), ("--bias", args.bias.as_ref())];
    let inputs = || inputs.into_iter().filter_map(|(option, path)| Some((option, path?.as_path())));
    let standard: Vec<&str> =
        inputs().filter(|(_, path)| is_standard(path)).map(|(option, _)| option).collect();
    if standard.len() > 1 {
        return Err(Failure::Usage(format!(
            "{} are both standard input; only one may be",
            standard.join(" and ")
        )));
    }
    if is_standard(&args.output) && args.json.prints() {
        let what =
            "--output - and --json both write to standard output; --json=FILE writes the report to a file";
        return Err(Failure::Usage(what.to_owned()));
    }
    for (option, path) in
        args.json.file().map(|path| ("--json", path)).into_iter().chain([("--output", &*args.output)])
    {
        if is_standard(path) || (args.overwrite && option == "--output") {
            continue;
        }
        if let Some((input, _)) = inputs().find(|(_, file)| !is_standard(file) && files::are_same(path, file))
        {
            let hint = if option == "--output" { "; --overwrite lets it replace that" } else { "" };
            return Err(Failure::Input(format!("{option}: {} is also the {input}{hint}", path.display())));
        }
    }
    if args.json.file().is_some_and(|path| files::lead_to_one(path, &args.output)) {
        return Err(Failure::Input(format!("--json: {} is also the --output", args.output.display())));
    }
    Ok(())
}

/// Reads an array of one of `ranks`.
fn read(path: &Path, ranks: &[usize], expected: &str) -> Result<Array, Failure> {
    let array = if is_standard(path) { npy::read_standard_input()? } else { npy::read(path)? };
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
    let (n, image) = if let [n, ref one @ ..] = image[..]
        && one.len() == 3
    {
        (n, one.to_vec())
    } else {
        (1, image)
    };
    let [c, h, w] = match args.layout {
        TensorLayout::Nchw => [image[0], image[1], image[2]],
        TensorLayout::Nhwc => [image[2], image[0], image[1]],
    };
    let [k, c_group, r, s] = match args.weights_layout {
        WeightsLayout::Oihw => [kernel[0], kernel[1], kernel[2], kernel[3]],
        WeightsLayout::Hwio => [kernel[3], kernel[2], kernel[0], kernel[1]],
        WeightsLayout::Ohwi => [kernel[0], kernel[3], kernel[1], kernel[2]],
    };
    let described = || {
        let of = |path: &Path, array: &Array| format!("{} {}", path.display(), array.shape_text());
        format!("{} with {}", of(&args.input, input), of(&args.weights, weights))
    };
    if c_group.checked_mul(args.groups) != Some(c) {
        return Err(Failure::Input(format!(
            "{}: the weights' channels, {}, times groups, {}, are not the input's, {}",
            described(),
            c_group,
            args.groups,
            c
        )));
    }
    if let (Some(path), Some(bias)) = (&args.bias, bias)
        && bias.shape[0] as i64 != k
    {
        let (path, shape) = (path.display(), bias.shape_text());
        let expected = format!("({},), one value for each filter", k);
        return Err(Failure::Input(format!("{path}: shape {shape}; expected {expected}")));
    }
    let desc = Conv2dDesc {
        n,
        c,
        h,
        w,
        k,
        r,
        s,
        stride_h: args.stride.0,
        stride_w: args.stride.1,
        dilation_h: args.dilation.0,
        dilation_w: args.dilation.1,
        groups: args.groups,
        bias: bias.is_some(),
        relu: args.relu,
        input_layout: args.layout,
        output_layout: args.output_layout.unwrap_or(args.layout),
        weights_layout: args.weights_layout,
        ..Default::default()
    };
    let desc = match args.pad {
        Padding::Same => desc.same_padding(),
        Padding::Sides { top, bottom, left, right } => {
            Conv2dDesc { pad_h: top, pad_bottom: Some(bottom), pad_w: left, pad_right: Some(right), ..desc }
        }
    };
    Conv2d::new(desc).map_err(|error| Failure::from(error).at(described()))
}

fn report(
    args: &Args,
    console: &mut Console,
    problem: &Conv2d,
    run: &Run,
    shapes: [&[usize]; 3],
) -> Result<(), Failure> {
    if let Some(reason) = &run.fallback {
        console.note(&format!("computed by {}, because {reason}", run.device));
    }
    let timing = run.timing;
    let rate = gflops(problem.flops(), timing.kernel);
    let report = Report {
        device: &run.device,
        kernel: &run.kernel,
        fallback: run.fallback.as_deref(),
        input_shape: shapes[0],
        weights_shape: shapes[1],
        output_shape: shapes[2],
        output: &args.output,
        flops: problem.flops(),
        kernel_ms: timing.kernel.as_secs_f64() * 1e3,
        wall_ms: timing.wall.as_secs_f64() * 1e3,
        gflops: rate,
    };
    let text = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let [input, weights, output] = shapes.map(text);
    console.line(format!("{input} * {weights} -> {output}, written to {}", args.output.display()));
    let (kernel_ms, wall_ms) = (ms(timing.kernel), ms(timing.wall));
    console.line(format!(
        "{} on {}: kernel {kernel_ms} ms, wall {wall_ms} ms, {rate:.1} GFLOPS",
        run.kernel, run.device
    ));
    args.json.end(&report, console)
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

    #[test]
    fn padding_of_one_two_or_four_sides() {
        let sides = |top, bottom, left, right| Ok(Padding::Sides { top, bottom, left, right });
        assert_eq!(padding("2"), sides(2, 2, 2, 2));
        assert_eq!(padding("2,1"), sides(2, 2, 1, 1));
        assert_eq!(padding("0,1,2,3"), sides(0, 1, 2, 3));
        assert_eq!(padding("same"), Ok(Padding::Same));
        for wrong in ["", "SAME", "1,2,3", "1,2,3,4,5", "1,2,-3,4"] {
            assert!(padding(wrong).is_err(), "{wrong}");
        }
        assert_eq!(tensor_layout("nhwc"), Ok(TensorLayout::Nhwc));
        assert_eq!(weights_layout("hwio"), Ok(WeightsLayout::Hwio));
        assert!(tensor_layout("nwhc").is_err() && weights_layout("oiwh").is_err());
    }
}
