//! Why the program ends without success, and the exit code that says so.

use std::process::ExitCode;

/// The exit codes, as `--help` lists them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  a device computed a wrong result
  2  wrong usage: an unknown option, a malformed value or device selector
  3  bad input: a file that is missing, unreadable, malformed or of the wrong type or shape, or cannot be written
  4  no usable device of that name, or the device failed

Devices: auto (the default: what SPARKLE_DEVICE says, or the one predicted fastest), cpu, gl:N, name=TEXT.";

/// Why the program ends without success. The message names what was wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A result is wrong.
    #[error("{0}")]
    Wrong(String),
    /// The command line cannot be followed.
    #[error("{0}")]
    Usage(String),
    /// A file or its content cannot be used.
    #[error("{0}")]
    Input(String),
    /// No such device, or it failed.
    #[error("{0}")]
    Device(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Wrong(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Input(_) => 3,
            Failure::Device(_) => 4,
        })
    }

    /// The same failure, told with where it happened.
    pub fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Failure::Wrong(what) => Failure::Wrong(format!("{place}: {what}")),
            Failure::Usage(what) => Failure::Usage(format!("{place}: {what}")),
            Failure::Input(what) => Failure::Input(format!("{place}: {what}")),
            Failure::Device(what) => Failure::Device(format!("{place}: {what}")),
        }
    }
}

impl From<sparkle::Error> for Failure {
    fn from(error: sparkle::Error) -> Self {
        match error {
            sparkle::Error::InvalidArgument { argument: "device", .. } => Failure::Usage(error.to_string()),
            sparkle::Error::InvalidArgument { .. } => Failure::Input(error.to_string()),
            _ => Failure::Device(error.to_string()),
        }
    }
}
