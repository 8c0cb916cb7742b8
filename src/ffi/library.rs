//! The library as a whole: version, last error, log, threads, finalisation.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use super::boundary::{self, c_string};
use super::buffer::sparkle_buffer;
use super::device::{self, sparkle_device};
use super::epilogue::sparkle_epilogue;
use super::group::{sparkle_group, sparkle_group_plan};
use super::handle;
use super::kernel::sparkle_kernel;
use super::pipeline::{sparkle_pipeline, sparkle_slot, sparkle_ticket};
use super::plan::sparkle_plan;
use super::pointer::{self, MAX_STRUCT_SIZE};
use super::status::{self, sparkle_status};
use crate::error::Error;
use crate::log::Level;

/// The header's version; sparkle_version() is the library's.
pub const SPARKLE_VERSION_MAJOR: u32 = 0;
/// The header's minor version.
pub const SPARKLE_VERSION_MINOR: u32 = 1;
/// The header's patch level.
pub const SPARKLE_VERSION_PATCH: u32 = 0;
/// The header's version as one number, which increases with each version.
pub const SPARKLE_VERSION_NUMBER: u32 =
    (SPARKLE_VERSION_MAJOR << 16) | (SPARKLE_VERSION_MINOR << 8) | SPARKLE_VERSION_PATCH;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("the version has no NUL inside"),
};

/// The SPARKLE_VERSION_NUMBER of the loaded library, which may be newer than the header.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_version() -> u32 {
    boundary!(|_call| { Ok(SPARKLE_VERSION_NUMBER) })
}

/// The library's version as static text, for instance "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_version_string() -> *const c_char {
    boundary!(|_call| { Ok(VERSION.as_ptr()) })
}

/// Fills the `size` bytes at `out`, a struct of this header that begins with a field `size`, with zeros, and sets that
/// field. In most structs zero means the default; the others have a function of their own. The header has a function for
/// each struct: `sparkle_timing_init(&timing)`.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if no struct has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_struct_init(out: *mut c_void, size: usize) -> sparkle_status {
    boundary!(|_call| {
        let out = out.cast::<usize>();
        pointer::check("out", out)?;
        if !(size_of::<usize>()..=MAX_STRUCT_SIZE).contains(&size) {
            let expected = format!("{} to {MAX_STRUCT_SIZE}, the size of a struct", size_of::<usize>());
            return Err(Error::invalid("size", size, expected).into());
        }
        // SAFETY: neither NULL nor misaligned, as just checked; C promises that `size` bytes, a usize at least, are writable.
        unsafe {
            out.cast::<u8>().write_bytes(0, size);
            out.write(size);
        }
        Ok(())
    })
}

/// A short description of a status, as static text; "unknown status" for any other number.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_status_string(status: i32) -> *const c_char {
    boundary!(|_call| { Ok(status::text(status).as_ptr()) })
}

/// The message of this thread's last error, "" if there was none. Like errno, it stays until the thread's next error.
/// The library owns the text, which is valid until this thread's next call of a Sparkle function.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_last_error() -> *const c_char {
    boundary!(|_call| { Ok(boundary::last_error()) })
}

/// Receives a log message: level 0 is debug (a record of each call; decisions and their reasons), 1 info, 2 warning.
/// docs/log.md describes the records. `user` is the pointer that was passed to sparkle_set_log_callback. Any thread may
/// call it, several at once. It may call Sparkle, but must not wait for the job whose record it gets. It must return
/// normally: no longjmp, no C++ exception. `message` is valid during the call only.
pub type sparkle_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user: *mut c_void)>;

/// The pointer that C receives with each message.
struct UserPointer(*mut c_void);

// SAFETY: the library never dereferences the pointer; by the callback's contract several threads may receive it.
unsafe impl Send for UserPointer {}
// SAFETY: as above.
unsafe impl Sync for UserPointer {}

impl UserPointer {
    fn pointer(&self) -> *mut c_void {
        self.0
    }
}

/// Sends all further log messages to `callback`. With NULL they go to stderr if SPARKLE_LOG is set, else nowhere.
/// `callback` and `user` must stay valid until another callback is set and all calls that were running at that time
/// have returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_set_log_callback(
    callback: sparkle_log_callback,
    user: *mut c_void,
) -> sparkle_status {
    boundary!(|_call| {
        let user = UserPointer(user);
        crate::log::set_callback(callback.map(|callback| {
            let send = move |level: Level, text: &str| {
                // SAFETY: the caller promises that the callback can be called with this pointer until it is replaced.
                unsafe { callback(level as i32, c_string(text).as_ptr(), user.pointer()) };
            };
            Arc::new(send) as Arc<dyn Fn(Level, &str) + Send + Sync>
        }));
        Ok(())
    })
}

/// Sets the number of threads of the CPU engine, 1 to 1024; with 1 the calling thread computes. Precedence: this
/// function, SPARKLE_NUM_THREADS, OMP_NUM_THREADS, the number of processors. Running calls keep their number of
/// threads.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT for any other `count`.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_set_num_threads(count: i32) -> sparkle_status {
    boundary!(|_call| {
        let negative = || Error::invalid("count", count, "at least 1");
        Ok(crate::set_num_threads(usize::try_from(count).map_err(|_| negative())?)?)
    })
}

/// The number of threads of the CPU engine; 0 only after an internal error.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_get_num_threads() -> i32 {
    boundary!(|_call| { Ok(crate::num_threads().try_into().unwrap_or(i32::MAX)) })
}

/// Ends the library's threads and frees all devices, plans, kernels, pipelines, slots, tickets and groups; their handles
/// become invalid. It cancels jobs that have not started and waits for the others. Running calls end normally. It may be
/// called any number of times, and Sparkle can be used again afterwards. It does not affect the reference interface,
/// which gpu_cleanup_opengl ends.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_finalize() -> sparkle_status {
    boundary!(|call| {
        handle::clear::<sparkle_group_plan>(call)?;
        handle::clear::<sparkle_group>(call)?;
        handle::clear::<sparkle_slot>(call)?;
        handle::clear::<sparkle_pipeline>(call)?;
        handle::clear::<sparkle_ticket>(call)?;
        handle::clear::<sparkle_plan>(call)?;
        handle::clear::<sparkle_kernel>(call)?;
        handle::clear::<sparkle_epilogue>(call)?;
        handle::clear::<sparkle_buffer>(call)?;
        handle::clear::<sparkle_device>(call)?;
        device::forget_auto(call)?;
        crate::finalize();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_macros_are_the_packages_version() {
        let text = format!("{SPARKLE_VERSION_MAJOR}.{SPARKLE_VERSION_MINOR}.{SPARKLE_VERSION_PATCH}");
        assert_eq!(text, env!("CARGO_PKG_VERSION"));
        assert_eq!(VERSION.to_str(), Ok(text.as_str()));
        let number = sparkle_version();
        let parts = [number >> 16, number >> 8 & 0xff, number & 0xff];
        assert_eq!(parts, [SPARKLE_VERSION_MAJOR, SPARKLE_VERSION_MINOR, SPARKLE_VERSION_PATCH]);
    }
}
