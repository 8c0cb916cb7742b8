//! `sparkle man`: the manual, one page for the program and one for each command.

use std::fs;
use std::path::PathBuf;

use clap_mangen::Man;

use crate::console::Console;
use crate::failure::Failure;
use crate::files;

/// Write the manual pages, sparkle.1 and one for each command, to a folder.
///
/// `make install` installs them. After `cargo install`, for instance: sparkle man ~/.local/share/man/man1
#[derive(clap::Args)]
pub struct Args {
    /// The folder, created if it does not exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs the command. `program` is the whole command line.
///
/// # Errors
/// If the folder or a page cannot be written.
pub fn run(args: &Args, mut program: clap::Command, console: &mut Console) -> Result<(), Failure> {
    fs::create_dir_all(&args.folder)
        .map_err(|error| Failure::Input(format!("{}: {error}", args.folder.display())))?;
    program.build();
    let mut commands = vec![];
    collect(program, &mut commands);
    for command in commands {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let path = args.folder.join(format!("{name}.1"));
        files::write(&path, |file| Man::new(command).render(&mut *file).and_then(|()| file.flush()))?;
        console.line(path.display());
    }
    Ok(())
}

/// `command` and all commands within it.
fn collect(command: clap::Command, commands: &mut Vec<clap::Command>) {
    for inner in command.get_subcommands().filter(|it| it.get_name() != "help" && !it.is_hide_set()) {
        collect(inner.clone(), commands);
    }
    commands.push(command);
}
