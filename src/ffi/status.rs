//! Status codes, and the conversion of errors to them.

use std::ffi::CStr;

use crate::error::Error;

/// The result of a function: SPARKLE_OK or an error. Codes never change; new ones are added at the end.
// A code that is no longer used stays here as a comment, so that its number is not used again.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)]
pub enum sparkle_status {
    /// Success.
    SPARKLE_OK = 0,
    /// An argument has an invalid value; the last error names it.
    SPARKLE_ERROR_INVALID_ARGUMENT = 1,
    /// NULL where a pointer is required.
    SPARKLE_ERROR_NULL_POINTER = 2,
    /// A handle that was closed, never existed, or is of another kind.
    SPARKLE_ERROR_INVALID_HANDLE = 3,
    /// The problem is valid, but this device cannot compute it.
    SPARKLE_ERROR_UNSUPPORTED = 4,
    /// No usable device matches the selector.
    SPARKLE_ERROR_NO_DEVICE = 5,
    /// The host or the device has no memory left.
    SPARKLE_ERROR_OUT_OF_MEMORY = 6,
    /// A shader did not compile or link.
    SPARKLE_ERROR_SHADER = 7,
    /// The device was reset, has hung, or was removed.
    SPARKLE_ERROR_DEVICE_LOST = 8,
    /// A driver call failed.
    SPARKLE_ERROR_DRIVER = 9,
    /// The device did not finish within SPARKLE_GL_TIMEOUT_MS, or the job not within the given time.
    SPARKLE_ERROR_TIMEOUT = 10,
    /// The object was created before fork() and cannot be used in the child process.
    SPARKLE_ERROR_FORKED = 11,
    /// A bug in the library. Please report it.
    SPARKLE_ERROR_INTERNAL = 12,
    /// The job was cancelled before it started.
    SPARKLE_ERROR_CANCELLED = 13,
    /// The queue is full, or the slot or buffer is in use, and the call does not wait.
    SPARKLE_ERROR_BUSY = 14,
    /// The process or the calling thread is ending, so OpenGL devices can no longer be used. Closing handles still
    /// works.
    SPARKLE_ERROR_ENDING = 15,
    /// The contents of a buffer were lost, with the device or when a call failed that wrote them. The buffer can be used
    /// again once all of it has been written.
    SPARKLE_ERROR_CONTENTS_LOST = 16,
    /// Another rank of the group failed, so this one did nothing; the last error says which rank and why.
    SPARKLE_ERROR_OTHER_RANK = 17,
    /// The transport between the ranks of a group failed.
    SPARKLE_ERROR_TRANSPORT = 18,
}

use sparkle_status::*;

impl sparkle_status {
    /// A short description of the code.
    fn text(self) -> &'static CStr {
        match self {
            SPARKLE_OK => c"ok",
            SPARKLE_ERROR_INVALID_ARGUMENT => c"invalid argument",
            SPARKLE_ERROR_NULL_POINTER => c"null pointer",
            SPARKLE_ERROR_INVALID_HANDLE => c"invalid handle",
            SPARKLE_ERROR_UNSUPPORTED => c"not supported by this device",
            SPARKLE_ERROR_NO_DEVICE => c"no usable device",
            SPARKLE_ERROR_OUT_OF_MEMORY => c"out of memory",
            SPARKLE_ERROR_SHADER => c"shader error",
            SPARKLE_ERROR_DEVICE_LOST => c"device lost",
            SPARKLE_ERROR_DRIVER => c"driver error",
            SPARKLE_ERROR_TIMEOUT => c"timeout",
            SPARKLE_ERROR_FORKED => c"made before fork()",
            SPARKLE_ERROR_INTERNAL => c"internal error",
            SPARKLE_ERROR_CANCELLED => c"cancelled",
            SPARKLE_ERROR_BUSY => c"busy",
            SPARKLE_ERROR_ENDING => c"the process is ending",
            SPARKLE_ERROR_CONTENTS_LOST => c"contents lost",
            SPARKLE_ERROR_OTHER_RANK => c"another rank failed",
            SPARKLE_ERROR_TRANSPORT => c"transport error",
        }
    }

    /// The status with this number, if there is one.
    fn from_code(code: i32) -> Option<Self> {
        let all = [
            SPARKLE_OK,
            SPARKLE_ERROR_INVALID_ARGUMENT,
            SPARKLE_ERROR_NULL_POINTER,
            SPARKLE_ERROR_INVALID_HANDLE,
            SPARKLE_ERROR_UNSUPPORTED,
            SPARKLE_ERROR_NO_DEVICE,
            SPARKLE_ERROR_OUT_OF_MEMORY,
            SPARKLE_ERROR_SHADER,
            SPARKLE_ERROR_DEVICE_LOST,
            SPARKLE_ERROR_DRIVER,
            SPARKLE_ERROR_TIMEOUT,
            SPARKLE_ERROR_FORKED,
            SPARKLE_ERROR_INTERNAL,
            SPARKLE_ERROR_CANCELLED,
            SPARKLE_ERROR_BUSY,
            SPARKLE_ERROR_ENDING,
            SPARKLE_ERROR_CONTENTS_LOST,
            SPARKLE_ERROR_OTHER_RANK,
            SPARKLE_ERROR_TRANSPORT,
        ];
        all.into_iter().find(|status| *status as i32 == code)
    }
}

impl From<&Error> for sparkle_status {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidArgument { .. } | Error::Source { .. } => SPARKLE_ERROR_INVALID_ARGUMENT,
            Error::Unsupported { .. } => SPARKLE_ERROR_UNSUPPORTED,
            Error::NoDevice { .. } => SPARKLE_ERROR_NO_DEVICE,
            Error::OutOfMemory { .. } => SPARKLE_ERROR_OUT_OF_MEMORY,
            Error::Shader { .. } => SPARKLE_ERROR_SHADER,
            Error::DeviceLost { .. } => SPARKLE_ERROR_DEVICE_LOST,
            Error::Driver { .. } => SPARKLE_ERROR_DRIVER,
            Error::Timeout { .. } => SPARKLE_ERROR_TIMEOUT,
            Error::Forked { .. } => SPARKLE_ERROR_FORKED,
            Error::Internal(_) => SPARKLE_ERROR_INTERNAL,
            Error::Cancelled => SPARKLE_ERROR_CANCELLED,
            Error::Closed { .. } => SPARKLE_ERROR_INVALID_HANDLE,
            Error::Busy { .. } | Error::InUse { .. } => SPARKLE_ERROR_BUSY,
            Error::Ending { .. } => SPARKLE_ERROR_ENDING,
            Error::ContentsLost { .. } => SPARKLE_ERROR_CONTENTS_LOST,
            Error::OtherRank { .. } => SPARKLE_ERROR_OTHER_RANK,
            Error::Transport { .. } => SPARKLE_ERROR_TRANSPORT,
        }
    }
}

/// The description of `code`, as static text; any number is allowed.
pub(super) fn text(code: i32) -> &'static CStr {
    sparkle_status::from_code(code).map_or(c"unknown status", sparkle_status::text)
}

/// Why an exported function failed: an [`Error`] of a layer below, or an error that only C can make.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: sparkle_status,
    pub(super) message: String,
}

/// The result of an exported function's body.
pub(super) type Outcome<T> = std::result::Result<T, Failure>;

impl Failure {
    /// `argument` is NULL.
    pub(super) fn null(argument: &str) -> Self {
        Failure { status: SPARKLE_ERROR_NULL_POINTER, message: format!("{argument} is NULL") }
    }

    /// `argument` is not a valid handle; `reason` completes "argument is ...".
    pub(super) fn handle(argument: &str, reason: impl std::fmt::Display) -> Self {
        Failure { status: SPARKLE_ERROR_INVALID_HANDLE, message: format!("{argument} is {reason}") }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { status: (&error).into(), message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code() {
        let text = String::new;
        let (device, what) = (text, text);
        let errors = [
            (Error::InvalidArgument { argument: "n", value: text(), expected: text() }, 1),
            (Error::Source { file: text(), messages: text() }, 1),
            (Error::Unsupported { device: device(), what: what() }, 4),
            (Error::NoDevice { selector: text(), reason: text() }, 5),
            (Error::OutOfMemory { device: device(), what: what() }, 6),
            (Error::Shader { device: device(), kernel: text(), log: text() }, 7),
            (Error::DeviceLost { device: device(), what: what() }, 8),
            (Error::Driver { device: device(), call: text(), reason: text() }, 9),
            (Error::Timeout { device: device(), what: what(), limit_ms: 1 }, 10),
            (Error::Forked { what: what() }, 11),
            (Error::Internal(text()), 12),
            (Error::Cancelled, 13),
            (Error::Closed { what: what() }, 3),
            (Error::Busy { what: what() }, 14),
            (Error::InUse { what: what() }, 14),
            (Error::Ending { what: what() }, 15),
            (Error::ContentsLost { device: device(), what: what() }, 16),
        ];
        for (error, code) in errors {
            let message = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status as i32, failure.message), (code, message));
        }
        assert_eq!(Failure::null("x").status as i32, 2);
        assert_eq!(Failure::handle("x", "gone").status as i32, 3);
    }

    #[test]
    fn every_code_has_its_own_text() {
        let texts: std::collections::BTreeSet<_> = (0..=18).map(text).collect();
        assert_eq!(texts.len(), 19);
        for code in [i32::MIN, -1, 19, i32::MAX] {
            assert_eq!(text(code), c"unknown status");
            assert!(!texts.contains(text(code)));
        }
    }
}
