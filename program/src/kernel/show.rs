//! `sparkle kernel show`: kernels as GLSL, or as the checked tree.

use std::path::PathBuf;

use clap::ValueEnum;
use sparkle::kernel::diagnostics::{Diagnostic, render_all};
use sparkle::kernel::glsl::{self, EpilogueOptions, Options, Parameters};
use sparkle::kernel::tree::{Epilogue, Kernel, Unit};

use super::tree;
use crate::console::Console;
use crate::failure::Failure;

/// Print the kernels of a file as GLSL, or as the tree that the compiler checked
#[derive(clap::Args)]
pub struct Args {
    /// A file in the kernel language
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show only this kernel or epilogue
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Print GLSL (the default)
    #[arg(long, conflicts_with = "tree")]
    glsl: bool,
    /// Print the checked tree: types, conversions and which points share a value are explicit
    #[arg(long, conflicts_with_all = ["version", "method"])]
    tree: bool,
    /// Version of GLSL
    #[arg(long, value_name = "VERSION", default_value = "430")]
    version: Version,
    /// How scalars reach the kernel
    #[arg(long, value_name = "METHOD", default_value = "buffer")]
    method: Method,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    /// #version 430
    #[value(name = "430")]
    Desktop430,
    /// #version 310 es
    #[value(name = "310es")]
    Es310,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    /// Plain uniforms
    Uniform,
    /// A storage block at binding 15
    Buffer,
    /// Constants, with PLACEHOLDER_name where a value belongs
    Inline,
}

impl From<Version> for glsl::Version {
    fn from(version: Version) -> Self {
        match version {
            Version::Desktop430 => glsl::Version::Desktop430,
            Version::Es310 => glsl::Version::Es310,
        }
    }
}

impl From<Method> for Parameters {
    fn from(method: Method) -> Self {
        match method {
            Method::Uniform => Parameters::Uniform,
            Method::Buffer => Parameters::Buffer,
            Method::Inline => Parameters::Inline,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the file cannot be read or compiled, has no such kernel, or this version of GLSL lacks something.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    let (file, source) = (args.file.display().to_string(), sparkle::kernel::read(&args.file)?);
    let compiled = sparkle::kernel::compile(&source)?;
    let messages = |all: &[Diagnostic]| render_all(all, &file, &source).map(|it| it.trim_end().to_owned());
    let Some(unit) = &compiled.unit else {
        let text = messages(&compiled.diagnostics)?;
        return Err(Failure::Input(format!("{file} does not compile:\n{text}")));
    };
    if !compiled.diagnostics.is_empty() {
        console.note(&messages(&compiled.diagnostics)?);
    }
    let (kernels, epilogues) = chosen(unit, args.kernel.as_deref())?;
    if args.tree {
        console.line(tree::text(unit, &kernels, &epilogues).trim_end());
        return Ok(());
    }
    for kernel in kernels {
        let options =
            Options { version: args.version.into(), parameters: args.method.into(), ..Options::default() };
        let written = glsl::write(unit, kernel, &options)?;
        let glsl = match written {
            Ok(glsl) => glsl,
            Err(lacking) => return Err(lacks(&kernel.name, &messages(&[*lacking])?)),
        };
        let [x, y, z] = glsl.local_size;
        console.line(format!("// ---- kernel {}: workgroups of {x} x {y} x {z}", kernel.name));
        console.line(glsl.text.trim_end());
        for (reduction, finisher) in kernel.reductions.iter().zip(&glsl.finishers) {
            let name = &kernel.arguments[reduction.argument].name;
            console.line(format!("// ---- kernel {}: combines the blocks of {name}", kernel.name));
            console.line(finisher.text.trim_end());
        }
    }
    for epilogue in epilogues {
        let options = EpilogueOptions { version: args.version.into(), ..EpilogueOptions::default() };
        let written = glsl::epilogue(unit, epilogue, &options)?;
        let glsl = match written {
            Ok(glsl) => glsl,
            Err(lacking) => return Err(lacks(&epilogue.name, &messages(&[*lacking])?)),
        };
        console.line(format!("// ---- epilogue {}", epilogue.name));
        console.line(glsl.text.trim_end());
    }
    Ok(())
}

/// What the command shows: all, or those of a name.
fn chosen<'u>(unit: &'u Unit, name: Option<&str>) -> Result<(Vec<&'u Kernel>, Vec<&'u Epilogue>), Failure> {
    let Some(name) = name else {
        return Ok((unit.kernels.iter().collect(), unit.epilogues.iter().collect()));
    };
    let kernels: Vec<_> = unit.kernel(name).into_iter().collect();
    let epilogues: Vec<_> = unit.epilogue(name).filter(|_| kernels.is_empty()).into_iter().collect();
    if kernels.is_empty() && epilogues.is_empty() {
        let names = unit.kernels.iter().map(|it| &*it.name).chain(unit.epilogues.iter().map(|it| &*it.name));
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(Failure::Input(format!("no kernel or epilogue {name}; the file has {names}")));
    }
    Ok((kernels, epilogues))
}

fn lacks(name: &str, messages: &str) -> Failure {
    Failure::Input(format!("{name} cannot be written in this version of GLSL:\n{messages}"))
}
