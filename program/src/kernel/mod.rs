//! `sparkle kernel`: checks files of the kernel language, shows what the compiler makes of them, runs and times
//! their kernels, and binds them to Fortran.

mod arguments;
mod bench;
mod bind;
mod check;
mod run;
mod show;
mod source;
mod tree;

use crate::console::Console;
use crate::failure::Failure;

/// Check, show, run, time and bind kernels written in Fortran (docs/kernel.md)
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Bench(bench::Args),
    Bind(bind::Args),
    Check(check::Args),
    Run(run::Args),
    Show(show::Args),
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or compiled, a name is unknown, or a launch fails.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    match &args.command {
        Command::Bench(args) => bench::run(args, console),
        Command::Bind(args) => bind::run(args, console),
        Command::Check(args) => check::run(args, console),
        Command::Run(args) => run::run(args, console),
        Command::Show(args) => show::run(args, console),
    }
}
