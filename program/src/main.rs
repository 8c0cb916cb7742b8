//! The `sparkle` program: the library on the command line.
//!
//! Each subcommand is a module. This file parses the arguments, calls the module, and turns a [`failure::Failure`]
//! into an exit code. Results go to standard output; progress, notes and errors go to standard error.
//!
//! The program is the top layer. It uses the library through its public Rust interface only, and nothing else calls
//! it. Only [`console`] writes to the standard streams, and only [`files`] writes output files. Memory whose size
//! follows from input comes from [`memory`].
//!
//! | modules | purpose |
//! | --- | --- |
//! | `bench`, `completions`, `conv2d`, `demo`, `doctor`, `info`, `kernel`, `man`, `roofline`, `shaders`, `stats`, `stream`, `trace`, `tune` | one subcommand each |
//! | `console`, `device`, `environment`, `failure`, `files`, `json`, `memory` | what subcommands share |
//! | `measure`, `selftest`, `suite`, `verify` | timing and checking of convolutions |
//! | `events`, `npy` | file formats |
//! | `chart`, `filters`, `font`, `mosaic`, `photo` | the demo's pictures |
//! | `roof_picture` | the picture of `roofline` |
//! | `patterns` | the experiment with memory patterns, only with the feature `patterns` |
//! | `hints` | what may be missing on a machine |

mod bench;
mod chart;
mod completions;
mod console;
mod conv2d;
mod demo;
mod device;
mod doctor;
mod environment;
mod events;
mod failure;
mod files;
mod filters;
mod font;
mod hints;
mod info;
mod json;
mod kernel;
mod man;
mod measure;
mod memory;
mod mosaic;
mod npy;
#[cfg(feature = "patterns")]
mod patterns;
mod photo;
mod roof_picture;
mod roofline;
mod selftest;
mod shaders;
mod stats;
mod stream;
mod suite;
mod trace;
mod tune;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use console::Console;

/// fp32 convolution on the CPU and on any GPU with an OpenGL 4.3 driver.
#[derive(Parser)]
#[command(name = "sparkle", version, about, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Info(info::Args),
    Doctor(doctor::Args),
    Conv2d(conv2d::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    Stream(stream::Args),
    Shaders(shaders::Args),
    Kernel(kernel::Args),
    Stats(stats::Args),
    Trace(trace::Args),
    Tune(tune::Args),
    Roofline(roofline::Args),
    #[cfg(feature = "patterns")]
    Patterns(patterns::Args),
    Completions(completions::Args),
    Man(man::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut console = Console::default();
    if let Err(failure) = environment::check(&cli.command, &console) {
        console.note(&format!("error: {failure}"));
        return failure.exit_code();
    }
    let result = match &cli.command {
        Command::Info(args) => info::run(args, &mut console),
        Command::Doctor(args) => doctor::run(args, &mut console),
        Command::Conv2d(args) => conv2d::run(args, &mut console),
        Command::Bench(args) => bench::run(args, &mut console),
        Command::Demo(args) => demo::run(args, &mut console),
        Command::Stream(args) => stream::run(args, &mut console),
        Command::Shaders(args) => shaders::run(args, &mut console),
        Command::Kernel(args) => kernel::run(args, &mut console),
        Command::Stats(args) => stats::run(args, &mut console),
        Command::Trace(args) => trace::run(args, &mut console),
        Command::Tune(args) => tune::run(args, &mut console),
        Command::Roofline(args) => roofline::run(args, &mut console),
        #[cfg(feature = "patterns")]
        Command::Patterns(args) => patterns::run(args, &mut console),
        Command::Completions(args) => completions::run(args, Cli::command(), &mut console),
        Command::Man(args) => man::run(args, Cli::command(), &mut console),
    };
    match result.and_then(|()| console.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console.note(&format!("error: {failure}"));
            failure.exit_code()
        }
    }
}
