//! The program's failures and their exit codes.

use std::process::ExitCode;

/// The exit codes, as `--help` lists them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  a device computed a wrong result
  2  wrong usage: an unknown option, a malformed value or device selector
  3  bad input: a file that is missing, unreadable, malformed or of the wrong type or shape, or cannot be written;
     or not enough memory for the data
  4  no usable device of that name, or the device failed

Devices: auto (the default: that of SPARKLE_DEVICE, or the one predicted fastest), cpu, gl:N, name=TEXT.";

/// Why the program fails. The message names what was wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A wrong result.
    #[error("{0}")]
    Wrong(String),
    /// A bad command line.
    #[error("{0}")]
    Usage(String),
    /// A file that cannot be used, or bad content; or too little memory.
    #[error("{0}")]
    Input(String),
    /// A device that does not exist, or failed.
    #[error("{0}")]
    Device(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Wrong(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Input(_) => 3,
            Failure::Device(_) => 4,
        }
    }

    /// Stores this failure in `worst` if it is the first, or worse: wrong numbers are worse than none.
    pub fn keep_worst(self, worst: &mut Option<Failure>) {
        if worst.as_ref().is_none_or(|worst| self.code() < worst.code()) {
            *worst = Some(self);
        }
    }

    /// The same failure with `place` in front of its message.
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
            sparkle::Error::InvalidArgument { .. } | sparkle::Error::Source { .. } => {
                Failure::Input(error.to_string())
            }
            // The data is too large for the host's memory. No device is at fault.
            sparkle::Error::OutOfMemory { ref device, .. } if device == "cpu" => {
                Failure::Input(error.to_string())
            }
            _ => Failure::Device(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_are_worst_and_the_first_of_equals_stays() {
        let mut worst = None;
        for failure in [Failure::Device("a".into()), Failure::Device("b".into())] {
            failure.keep_worst(&mut worst);
        }
        assert!(matches!(&worst, Some(Failure::Device(what)) if what == "a"));
        Failure::Wrong("c".into()).keep_worst(&mut worst);
        Failure::Device("d".into()).keep_worst(&mut worst);
        assert!(matches!(&worst, Some(Failure::Wrong(what)) if what == "c"));
    }

    #[test]
    fn errors_of_the_library_have_their_codes() {
        let message =
            |selector: &str| Failure::from(sparkle::Device::open(selector).err().expect("no device"));
        assert_eq!(message("abacus").code(), 2);
        assert_eq!(message("name=no such thing").code(), 4);
        let shape = sparkle::Conv2d::new(sparkle::Conv2dDesc { h: 0, ..Default::default() });
        assert_eq!(Failure::from(shape.unwrap_err()).code(), 3);
        let memory =
            |device: &str| sparkle::Error::OutOfMemory { device: device.into(), what: "a test".into() };
        assert_eq!(["cpu", "gl:0"].map(|device| Failure::from(memory(device)).code()), [3, 4]);
    }
}
