//! `sparkle completions`: the shell's completions of the program's commands and options.

use clap_complete::Shell;

use crate::console::Console;
use crate::failure::Failure;

/// Print the completions of commands and options for a shell.
///
/// `make install` installs them for bash, zsh and fish. After `cargo install`, for instance:
/// sparkle completions bash > ~/.local/share/bash-completion/completions/sparkle
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command. `program` is the whole command line.
///
/// # Errors
/// None.
pub fn run(args: &Args, mut program: clap::Command, console: &mut Console) -> Result<(), Failure> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut program, "sparkle", &mut script);
    console.line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
