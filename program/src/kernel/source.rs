//! A kernel of a file, for the commands that run one.

use std::path::Path;

use sparkle::Kernel;
use sparkle::kernel::diagnostics::{Diagnostic, render_all};

use crate::console::Console;
use crate::failure::Failure;

/// A compiled kernel with its source.
pub struct Source {
    /// The file's name, for messages.
    pub file: String,
    text: Vec<u8>,
    /// The kernel.
    pub kernel: Kernel,
}

impl Source {
    /// Compiles a file and takes its kernel `name`, or its only one. Warnings are notes.
    ///
    /// # Errors
    /// If the file cannot be read or compiled, or has no such kernel.
    pub fn open(path: &Path, name: Option<&str>, console: &Console) -> Result<Self, Failure> {
        let (file, text) = (path.display().to_string(), sparkle::kernel::read(path)?);
        let kernels = Kernel::all_from_source(&text, &file)?;
        let kernel = chosen(&file, &kernels, name)?;
        if !kernel.warnings().is_empty() {
            console.note(kernel.warnings().trim_end());
        }
        Ok(Source { file, text, kernel })
    }

    /// Messages as text with excerpts of the source.
    ///
    /// # Errors
    /// If the host is out of memory.
    pub fn drawn(&self, messages: &[Diagnostic]) -> Result<String, Failure> {
        Ok(render_all(messages, &self.file, &self.text)?.trim_end().to_owned())
    }
}

fn chosen(file: &str, kernels: &[Kernel], name: Option<&str>) -> Result<Kernel, Failure> {
    let names = || kernels.iter().map(Kernel::name).collect::<Vec<_>>().join(", ");
    match (name, kernels) {
        (None, [only]) => Ok(only.clone()),
        (_, []) => Err(Failure::Input(format!("{file}: has no kernel"))),
        (None, _) => {
            let names = names();
            Err(Failure::Input(format!("{file}: has several kernels; name one with --kernel: {names}")))
        }
        (Some(name), _) => {
            let find = |is: &dyn Fn(&str) -> bool| kernels.iter().find(|it| is(it.name())).cloned();
            let found = find(&|it| it == name).or_else(|| find(&|it| it.eq_ignore_ascii_case(name)));
            found.ok_or_else(|| Failure::Input(format!("{file}: no kernel {name}; the file has {}", names())))
        }
    }
}
