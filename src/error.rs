//! The one error type of the library.
//!
//! Every message names what was wrong: the argument, its value and what was expected, or the device,
//! the call that failed and what it said. The C ABI maps each variant to one status code (`ffi::status`).

use std::fmt;

/// A `Result` with Sparkle's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has a value it must not have. Nothing was computed, outputs are untouched.
    #[error("{argument} is {value}; expected {expected}")]
    InvalidArgument {
        /// The argument as the caller knows it, for instance `stride_h` or `input length`.
        argument: &'static str,
        /// The value that was given.
        value: String,
        /// What would have been accepted.
        expected: String,
    },
    /// The device cannot do this, although the problem is valid.
    #[error("{device} does not support {what}")]
    Unsupported {
        /// The device's id, for instance `gl:0`.
        device: String,
        /// What it cannot do, and the limit that was met.
        what: String,
    },
    /// No usable device fits the selector.
    #[error("no usable device for \"{selector}\": {reason}")]
    NoDevice {
        /// The selector that was given.
        selector: String,
        /// Why nothing fits it.
        reason: String,
    },
    /// The device ran out of memory.
    #[error("{device} is out of memory: {what}")]
    OutOfMemory {
        /// The device's id.
        device: String,
        /// The allocation or call that failed.
        what: String,
    },
    /// A shader did not compile or link.
    #[error("{device} could not build shader {kernel}: {log}")]
    Shader {
        /// The device's id.
        device: String,
        /// The kernel's name.
        kernel: String,
        /// The driver's log.
        log: String,
    },
    /// The device's context is lost: reset, hung or taken away.
    #[error("{device} was lost: {what}")]
    DeviceLost {
        /// The device's id.
        device: String,
        /// Where it was noticed.
        what: String,
    },
    /// A driver call failed.
    #[error("{device}: {call} failed: {reason}")]
    Driver {
        /// The device's id.
        device: String,
        /// The call, for instance `glMapBufferRange`.
        call: String,
        /// The error it reported.
        reason: String,
    },
    /// Work did not finish in time (`SPARKLE_GL_TIMEOUT_MS`).
    #[error("{device}: {what} did not finish within {limit_ms} ms")]
    Timeout {
        /// The device's id.
        device: String,
        /// What was waited for.
        what: String,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The object belongs to the process this one was forked from; its GPU state did not survive the fork.
    #[error("{what} was made before fork(); open it again in the child process")]
    Forked {
        /// The object.
        what: String,
    },
    /// The process or the calling thread is ending, or the thread is loading or unloading a library: no device of OpenGL can be used.
    #[error("{what}: OpenGL cannot be used now")]
    Ending {
        /// Which of these it is.
        what: String,
    },
    /// The job was cancelled before it started, or its queue was closed; its buffers are untouched.
    #[error("the job was cancelled before it started")]
    Cancelled,
    /// What the call needs was destroyed meanwhile, as the pipeline of a slot.
    #[error("{what} was destroyed")]
    Closed {
        /// What is gone.
        what: String,
    },
    /// A queue is full, and the caller asked not to wait.
    #[error("{what} is full")]
    Busy {
        /// The queue.
        what: String,
    },
    /// A defect in the library itself, caught before it could reach the caller.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl Error {
    /// An [`Error::InvalidArgument`].
    pub(crate) fn invalid(
        argument: &'static str,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Error::InvalidArgument { argument, value: clipped(value), expected: expected.into() }
    }

    /// An [`Error::Closed`].
    pub(crate) fn closed(what: &str) -> Self {
        Error::Closed { what: what.to_owned() }
    }

    /// Whether the problem itself is fine and another device could still solve it.
    pub fn is_device_failure(&self) -> bool {
        !matches!(
            self,
            Error::InvalidArgument { .. }
                | Error::Cancelled
                | Error::Closed { .. }
                | Error::Busy { .. }
                | Error::Internal(_)
        )
    }
}

/// The most bytes of a caller's text that a message repeats.
const CLIPPED: usize = 400;

/// `value` as text, cut short if it is long: it may be a caller's, of any length.
pub(crate) fn clipped(value: impl fmt::Display) -> String {
    struct Clip(String);
    impl fmt::Write for Clip {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = CLIPPED - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            let cut = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            self.0.push_str(&text[..cut]);
            self.0.push_str("...");
            // Nobody has to write the rest.
            Err(fmt::Error)
        }
    }
    let mut clip = Clip(String::new());
    let _ = fmt::write(&mut clip, format_args!("{value}"));
    clip.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clipped("short"), "short");
        assert_eq!(clipped("x".repeat(CLIPPED)), "x".repeat(CLIPPED));
        let long = format!("{}{}", "x".repeat(CLIPPED - 1), "\u{e9}".repeat(1_000_000));
        assert_eq!(clipped(long), "x".repeat(CLIPPED - 1) + "...");
        assert_eq!(
            clipped(format_args!("a {} {}", "y".repeat(500), 7)),
            format!("a {}...", "y".repeat(CLIPPED - 2))
        );
    }
}
