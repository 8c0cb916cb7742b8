//! The error type of the library.
//!
//! Every message names the cause: the argument, its value and the expected value, or the device, the failed call and
//! its error. The C ABI maps each variant to a status code (`ffi::status`).

use std::fmt;

/// A `Result` with Sparkle's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The cause of a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has an invalid value. Nothing was computed, and outputs are untouched.
    #[error("{argument} is {value}; expected {expected}")]
    InvalidArgument {
        /// The argument under its name in the API, for example `stride_h` or `input length`.
        argument: &'static str,
        /// The given value.
        value: String,
        /// The valid values.
        expected: String,
    },
    /// The problem is valid, but the device does not support it.
    #[error("{device} does not support {what}")]
    Unsupported {
        /// The device's id, for example `gl:0`.
        device: String,
        /// The unsupported feature, or the exceeded limit.
        what: String,
    },
    /// No usable device matches the selector.
    #[error("no usable device for \"{selector}\": {reason}")]
    NoDevice {
        /// The given selector.
        selector: String,
        /// Why no device matches.
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
    /// The source of a kernel has errors.
    #[error("{file} does not compile:\n{messages}")]
    Source {
        /// The name of the source.
        file: String,
        /// The compiler's messages, with the lines that they are about.
        messages: String,
    },
    /// The device's context is lost: it was reset, or the device hung or was removed.
    #[error("{device} was lost: {what}")]
    DeviceLost {
        /// The device's id.
        device: String,
        /// Where the loss was detected.
        what: String,
    },
    /// A driver call failed.
    #[error("{device}: {call} failed: {reason}")]
    Driver {
        /// The device's id.
        device: String,
        /// The call, for example `glMapBufferRange`.
        call: String,
        /// The error it reported.
        reason: String,
    },
    /// Work did not finish in time (`SPARKLE_GL_TIMEOUT_MS`).
    #[error("{device}: {what} did not finish within {limit_ms} ms")]
    Timeout {
        /// The device's id.
        device: String,
        /// The work.
        what: String,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The object belongs to the parent process. Its GPU state does not survive a fork.
    #[error("{what} was made before fork(); open it again in the child process")]
    Forked {
        /// The object.
        what: String,
    },
    /// The process or the calling thread is ending, or the thread is loading or unloading a library. OpenGL devices are
    /// unavailable then.
    #[error("{what}: OpenGL cannot be used now")]
    Ending {
        /// Which of these is the case.
        what: String,
    },
    /// The job was cancelled before it started, or its queue was closed. Its buffers are untouched.
    #[error("the job was cancelled before it started")]
    Cancelled,
    /// An object that the call needs was destroyed in the meantime, for example the pipeline of a slot.
    #[error("{what} was destroyed")]
    Closed {
        /// The destroyed object.
        what: String,
    },
    /// A queue is full, and the caller does not want to wait.
    #[error("{what} is full")]
    Busy {
        /// The queue.
        what: String,
    },
    /// The contents of memory on a device were lost: with the device, or when a call that wrote them failed. The memory can be used
    /// again once all of it has been written.
    #[error("{device}: the contents of {what} were lost; write all of it anew")]
    ContentsLost {
        /// The device's id.
        device: String,
        /// The memory.
        what: String,
    },
    /// Another call uses the object, and one of the two writes it.
    #[error("{what} is in use by another call")]
    InUse {
        /// The object.
        what: String,
    },
    /// Another rank of the group cannot take part in the call, so no rank does. Outputs are untouched.
    #[error("rank {rank} failed: {reason}")]
    OtherRank {
        /// The lowest rank that failed.
        rank: usize,
        /// Its error, clipped.
        reason: String,
    },
    /// The transport between the ranks of a group failed. The group cannot be relied on afterwards.
    #[error("the transport's {call} failed: {reason}")]
    Transport {
        /// The operation.
        call: String,
        /// The transport's own message or code.
        reason: String,
    },
    /// A defect of the library that it detected itself.
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

    /// Whether the problem is valid, so that another device could solve it.
    pub fn is_device_failure(&self) -> bool {
        !matches!(
            self,
            Error::InvalidArgument { .. }
                | Error::Source { .. }
                | Error::Cancelled
                | Error::Closed { .. }
                | Error::Busy { .. }
                | Error::ContentsLost { .. }
                | Error::InUse { .. }
                | Error::OtherRank { .. }
                | Error::Transport { .. }
                | Error::Internal(_)
        )
    }
}

/// The most bytes of a caller's text in a message.
const MAX_CLIPPED: usize = 400;

/// `value` as text, truncated if it is long. It may come from a caller, with any length.
pub(crate) fn clipped(value: impl fmt::Display) -> String {
    struct Clip(String);
    impl fmt::Write for Clip {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_CLIPPED - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            let cut = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            self.0.push_str(&text[..cut]);
            self.0.push_str("...");
            // Stops the formatting.
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
        assert_eq!(clipped("x".repeat(MAX_CLIPPED)), "x".repeat(MAX_CLIPPED));
        let long = format!("{}{}", "x".repeat(MAX_CLIPPED - 1), "\u{e9}".repeat(1_000_000));
        assert_eq!(clipped(long), "x".repeat(MAX_CLIPPED - 1) + "...");
        assert_eq!(
            clipped(format_args!("a {} {}", "y".repeat(500), 7)),
            format!("a {}...", "y".repeat(MAX_CLIPPED - 2))
        );
    }
}
