//! `sparkle kernel check`: the compiler's messages about files.

use std::path::{Path, PathBuf};

use sparkle::kernel::describe::{self, Description};
use sparkle::kernel::diagnostics::{Diagnostic, render_all};

use crate::console::Console;
use crate::failure::Failure;
use crate::json::JsonOption;

/// Compile kernel files and print all messages about them
#[derive(clap::Args)]
pub struct Args {
    /// Files in the kernel language
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    json: JsonOption,
}

#[derive(serde::Serialize)]
struct Report {
    ok: bool,
    files: Vec<Checked>,
}

#[derive(serde::Serialize)]
struct Checked {
    file: String,
    ok: bool,
    /// Why it could not be read. There is nothing else then.
    error: Option<String>,
    /// Kernels and epilogues, unless there are errors.
    kernels: Vec<Description>,
    diagnostics: Vec<Diagnostic>,
    /// The messages with excerpts of the source.
    #[serde(skip)]
    text: String,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read, or has errors.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    args.json.begin(console)?;
    let (mut files, mut worst) = (Vec::new(), None);
    for path in &args.files {
        let checked = check(path).unwrap_or_else(|failure| {
            let error = failure.to_string();
            failure.keep_worst(&mut worst);
            Checked {
                file: path.display().to_string(),
                ok: false,
                error: Some(error),
                kernels: vec![],
                diagnostics: vec![],
                text: String::new(),
            }
        });
        print(&checked, console);
        files.push(checked);
    }
    let bad = files.iter().filter(|it| !it.ok).count();
    let report = Report { ok: bad == 0, files };
    args.json.end(&report, console)?;
    match (worst, bad) {
        (None, 0) => Ok(()),
        (None | Some(Failure::Input(_)), _) => {
            let errors =
                report.files.iter().flat_map(|it| &it.diagnostics).filter(|it| it.is_error()).count();
            let unread = report.files.iter().filter(|it| it.error.is_some()).count();
            let unread = if unread == 0 { String::new() } else { format!(", {unread} could not be read") };
            Err(Failure::Input(format!(
                "{errors} error(s); {bad} of {} file(s) do not compile{unread}",
                report.files.len()
            )))
        }
        (Some(failure), _) => Err(failure),
    }
}

fn check(path: &Path) -> Result<Checked, Failure> {
    let (file, source) = (path.display().to_string(), sparkle::kernel::read(path)?);
    let compiled = sparkle::kernel::compile(&source)?;
    let text = render_all(&compiled.diagnostics, &file, &source)?;
    let kernels = compiled.unit.iter().flat_map(|unit| {
        unit.kernels.iter().map(describe::kernel).chain(unit.epilogues.iter().map(describe::epilogue))
    });
    let (ok, kernels) = (compiled.unit.is_some(), kernels.collect());
    Ok(Checked { file, ok, error: None, kernels, diagnostics: compiled.diagnostics, text })
}

fn print(checked: &Checked, console: &mut Console) {
    if !checked.text.is_empty() {
        console.line(checked.text.trim_end());
    }
    if let Some(error) = &checked.error {
        console.line(format!("{}: {error}", checked.file));
    }
    if checked.ok {
        let epilogues = checked.kernels.iter().filter(|it| it.is_epilogue).count();
        let kernels = checked.kernels.len() - epilogues;
        console.line(format!("{}: ok, {kernels} kernel(s), {epilogues} epilogue(s)", checked.file));
    }
}
