//! `sparkle kernel run`: launches a kernel on NumPy files.

use std::path::{Path, PathBuf};

use sparkle::kernel::diagnostics::Diagnostic;
use sparkle::kernel::tree::{ArgumentKind, Intent};
use sparkle::{Kernel, Run};

use super::arguments::{self, Content, Extents, Given, Item, Missing};
use super::source::Source;
use crate::console::{Console, ms};
use crate::device::DeviceOption;
use crate::failure::Failure;
use crate::files;
use crate::json::JsonOption;

/// Run a kernel on arrays from .npy files.
///
/// Element a(i,j) of an array with default bounds is a[i-1, j-1] of NumPy, whatever the order of the file. Values are
/// converted only if they stay the same. An array that is only written may be left out: it begins with zeros. Index
/// arguments are not given. Outputs are in Fortran order, and are written only on success.
#[derive(clap::Args)]
pub struct Args {
    /// A file in the kernel language
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The kernel, if the file has several
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Index space: a number for each dimension
    #[arg(long, value_name = "N[,M[,K]]", value_parser = arguments::extents)]
    extent: Extents,
    /// An argument: a value, or a .npy file
    #[arg(long = "arg", value_name = "NAME=VALUE|NAME=FILE.npy", value_parser = arguments::given)]
    args: Vec<Given>,
    /// Where an array goes that the kernel writes
    #[arg(long = "output", value_name = "NAME=FILE.npy", value_parser = arguments::given)]
    outputs: Vec<Given>,
    /// Let an output replace a file that is also an input
    #[arg(long)]
    overwrite: bool,
    /// Before that, run the kernel slowly and look for races, accesses outside of arrays, variables without a value, and
    /// barriers that not all points reach
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    device: DeviceOption,
    #[command(flatten)]
    json: JsonOption,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Report<'a> {
    ok: bool,
    kernel: &'a str,
    extents: &'a [usize],
    arguments: Vec<Argument<'a>>,
    /// Whether the kernel was checked.
    checked: bool,
    /// What the check found. The kernel did not run on the device then.
    diagnostics: Vec<Diagnostic>,
    device: Option<&'a str>,
    fallback: Option<&'a str>,
    kernel_ms: Option<f64>,
    wall_ms: Option<f64>,
}

#[derive(serde::Serialize)]
struct Argument<'a> {
    name: &'a str,
    /// The value of a scalar, and the result of a reduction.
    value: Option<String>,
    shape: Option<&'a [usize]>,
    input: Option<&'a Path>,
    output: Option<&'a Path>,
}

/// Runs the command.
///
/// # Errors
/// Bad files, arguments and shapes; faults that the check finds; a device failure. No file is written then.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    let source = Source::open(&args.file, args.kernel.as_deref(), console)?;
    let kernel = &source.kernel;
    let outputs = outputs(kernel, &args.outputs)?;
    let extents = &args.extent.0;
    let mut items = arguments::items(kernel, extents, &args.args, Missing::OnlyWritten)?;
    check_targets(&items, &outputs, args.overwrite)?;
    let mut diagnostics = Vec::new();
    if args.check {
        let copies: Result<Vec<Item>, Failure> = items.iter().map(Item::copied).collect();
        let mut copies = copies?;
        diagnostics = kernel.check(extents, &mut arguments::args(&mut copies))?.messages;
    }
    let mut ran = None;
    if diagnostics.is_empty() {
        let device = args.device.open()?;
        ran = Some(device.launch(kernel, extents, &mut arguments::args(&mut items))?);
        let contents = items.iter().zip(&outputs).filter_map(|(item, path)| {
            let (path, Content::Array { shape, elements }) = ((*path)?, &item.content) else { return None };
            let content: files::Content<'_> = Box::new(move |file| elements.write(file, shape));
            Some((path, content))
        });
        files::write_all(contents.collect())?;
    } else {
        console.line(source.drawn(&diagnostics)?);
    }
    report(args, console, (kernel, &items, &outputs), (&diagnostics, ran.as_ref()))?;
    match diagnostics.len() {
        0 => Ok(()),
        faults => {
            Err(Failure::Input(format!("the check found {faults} fault(s) in kernel {}", kernel.name())))
        }
    }
}

/// The file of each dummy that has one.
fn outputs<'g>(kernel: &Kernel, all: &'g [Given]) -> Result<Vec<Option<&'g Path>>, Failure> {
    for given in all {
        let argument = arguments::dummy(kernel, &given.name)?;
        let is_written = match &argument.kind {
            ArgumentKind::Buffer(buffer) => buffer.intent != Intent::In,
            _ => false,
        };
        if !is_written {
            let name = &argument.name;
            return Err(Failure::Input(format!("output {name}: the kernel does not write this argument")));
        }
        if given.value.to_ascii_lowercase().ends_with(".npy") || given.value.starts_with("/dev/") {
            continue;
        }
        return Err(Failure::Input(format!("output {}: \"{}\" is no FILE.npy", given.name, given.value)));
    }
    let found = arguments::by_dummy(kernel, all)?;
    Ok(found.into_iter().map(|it| it.map(Path::new)).collect())
}

/// Checks, before any work, that outputs can be written and replace nothing that they should not.
fn check_targets(items: &[Item], outputs: &[Option<&Path>], overwrite: bool) -> Result<(), Failure> {
    let named = || items.iter().zip(outputs).filter_map(|(item, path)| Some((item.name.as_str(), (*path)?)));
    for (at, (name, path)) in named().enumerate() {
        files::check_target(path).map_err(|failure| failure.at(format_args!("output {name}")))?;
        if let Some((other, _)) = named().take(at).find(|(_, other)| files::lead_to_one(path, other)) {
            let file = path.display();
            return Err(Failure::Input(format!("output {name}: {file} is also the output {other}")));
        }
        let mut inputs = items.iter().filter_map(|item| Some((item.name.as_str(), item.file.as_deref()?)));
        if let Some((input, _)) = inputs.find(|(_, file)| !overwrite && files::are_same(path, file)) {
            let file = path.display();
            let what = "--overwrite lets it replace that";
            return Err(Failure::Input(format!("output {name}: {file} is the input {input}; {what}")));
        }
    }
    Ok(())
}

fn report(
    args: &Args,
    console: &mut Console,
    (kernel, items, outputs): (&Kernel, &[Item], &[Option<&Path>]),
    (diagnostics, ran): (&[Diagnostic], Option<&Run>),
) -> Result<(), Failure> {
    let described = items.iter().zip(outputs).map(|(item, output)| {
        let (value, shape) = match &item.content {
            Content::Scalar(value) => (Some(arguments::text(*value)), None),
            Content::Array { shape, .. } => (item.result().map(arguments::text), Some(&shape[..])),
        };
        Argument { name: &item.name, value, shape, input: item.file.as_deref(), output: *output }
    });
    if let Some(run) = ran {
        if let Some(reason) = &run.fallback {
            console.note(&format!("computed by {}, because {reason}", run.device));
        }
        let points = args.extent.0.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        let (kernel_ms, wall_ms) = (ms(run.timing.kernel), ms(run.timing.wall));
        let (name, device) = (kernel.name(), &run.device);
        console
            .line(format!("{name} on {device}: {points} points, kernel {kernel_ms} ms, wall {wall_ms} ms"));
        for item in items {
            if let Some(value) = item.result() {
                console.line(format!("{} = {}", item.name, arguments::text(value)));
            }
        }
        for (item, path) in items.iter().zip(outputs) {
            if let Some(path) = path {
                console.line(format!("{} written to {}", item.name, path.display()));
            }
        }
    }
    let report = Report {
        ok: diagnostics.is_empty(),
        kernel: kernel.name(),
        extents: &args.extent.0,
        arguments: described.collect(),
        checked: args.check,
        diagnostics: diagnostics.to_vec(),
        device: ran.map(|run| &*run.device),
        fallback: ran.and_then(|run| run.fallback.as_deref()),
        kernel_ms: ran.map(|run| run.timing.kernel.as_secs_f64() * 1e3),
        wall_ms: ran.map(|run| run.timing.wall.as_secs_f64() * 1e3),
    };
    args.json.end(&report, console)
}
