//! `sparkle kernel`: checks files of the kernel language, and shows what the compiler makes of them.

mod check;
mod show;
mod tree;

use crate::console::Console;
use crate::failure::Failure;

/// Check and show kernels written in Fortran (docs/kernel.md)
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Check(check::Args),
    Show(show::Args),
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or compiled, or a name is unknown.
pub fn run(args: &Args, console: &mut Console) -> Result<(), Failure> {
    match &args.command {
        Command::Check(args) => check::run(args, console),
        Command::Show(args) => show::run(args, console),
    }
}
