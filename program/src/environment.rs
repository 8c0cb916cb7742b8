//! Environment variables that have no effect.

use sparkle::{IgnoredVariable, config};

use crate::Command;
use crate::console::Console;
use crate::failure::Failure;

/// A variable that has no effect, in a report.
#[derive(serde::Serialize)]
pub struct Ignored {
    name: &'static str,
    value: &'static str,
    /// The values that are understood; `None` if there is no such variable.
    expected: Option<&'static str>,
}

/// All variables that have no effect.
pub fn ignored() -> Vec<Ignored> {
    let all = config().ignored.iter();
    all.map(|it| Ignored { name: &it.name, value: &it.value, expected: it.expected }).collect()
}

/// Refuses to compute with a variable whose value is not understood. An unknown variable, which another version may
/// know, is noted. `info` and `doctor` show both instead, and commands that compute nothing do not care.
///
/// # Errors
/// Names the variable, its value and the choices.
pub fn check(command: &Command, console: &Console) -> Result<(), Failure> {
    if matches!(command, Command::Info(_) | Command::Doctor(_) | Command::Completions(_) | Command::Man(_)) {
        return Ok(());
    }
    for ignored @ IgnoredVariable { name, value, expected } in &config().ignored {
        match expected {
            Some(expected) => {
                return Err(Failure::Usage(format!("{name} is \"{value}\"; expected {expected}")));
            }
            None => console.note(&ignored.to_string()),
        }
    }
    Ok(())
}
