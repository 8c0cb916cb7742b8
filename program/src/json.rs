//! `--json[=FILE]`, with which every command that has a report prints or writes it.

use std::path::{Path, PathBuf};

use crate::console::Console;
use crate::failure::Failure;
use crate::files;

/// The version of all reports. It grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// `--json`, for the commands that have a report.
#[derive(clap::Args)]
pub struct JsonOption {
    /// Print a report as JSON instead of text; with =FILE, write it there and print the text
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// What every report begins with.
#[derive(serde::Serialize)]
struct Document<'a, T> {
    schema: u32,
    version: &'static str,
    #[serde(flatten)]
    report: &'a T,
}

impl JsonOption {
    /// Whether the report goes to standard output.
    pub fn prints(&self) -> bool {
        self.json.as_deref().is_some_and(|path| path == Path::new("-"))
    }

    /// The file that the report is written to.
    pub fn file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Before any work: checks that the file can be written; stops the text if the report goes to standard output.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn begin(&self, console: &mut Console) -> Result<(), Failure> {
        match &self.json {
            Some(path) if path == Path::new("-") => console.stop_text(),
            Some(path) => files::check_target(path)?,
            None => {}
        }
        Ok(())
    }

    /// Prints or writes the report, if it was asked for.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn end(&self, report: &impl serde::Serialize, console: &mut Console) -> Result<(), Failure> {
        let document = Document { schema: SCHEMA, version: env!("CARGO_PKG_VERSION"), report };
        match &self.json {
            Some(path) if path == Path::new("-") => console.document(&document),
            Some(path) => files::write(path, |file| Ok(serde_json::to_writer_pretty(file, &document)?))?,
            None => {}
        }
        Ok(())
    }
}
