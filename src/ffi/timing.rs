//! The times of the last call.

use std::cell::RefCell;
use std::ffi::c_char;

use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use crate::device::Run;
use crate::error::Error;

/// The times of a call and where it ran. Texts are UTF-8, end with a NUL, and are truncated if they are too long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_timing {
    /// sizeof(sparkle_timing), set by the caller.
    pub size: usize,
    /// Time of the kernels in milliseconds, without transfers.
    pub kernel_ms: f64,
    /// Time in milliseconds from the call to the result in memory, transfers included.
    pub wall_ms: f64,
    /// Number of dispatches of the call; 1 on the CPU.
    pub dispatches: i32,
    /// 1 if the CPU computed it because a GPU failed, else 0.
    pub fell_back: i32,
    /// The device that computed it, as a selector.
    pub device: [c_char; 32],
    /// The kernel's name.
    pub kernel: [c_char; 96],
    /// Why the GPU failed; "" if none did.
    pub fallback: [c_char; 256],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_timing {
    const NAME: &'static str = "sparkle_timing";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, fallback) + size_of::<[c_char; 256]>();
}

impl From<&Run> for sparkle_timing {
    fn from(run: &Run) -> Self {
        let mut timing = sparkle_timing {
            size: size_of::<Self>(),
            kernel_ms: run.timing.kernel.as_secs_f64() * 1e3,
            wall_ms: run.timing.wall.as_secs_f64() * 1e3,
            dispatches: run.timing.dispatches.try_into().unwrap_or(i32::MAX),
            fell_back: run.fallback.is_some().into(),
            device: [0; 32],
            kernel: [0; 96],
            fallback: [0; 256],
        };
        pointer::copy_text(&run.device, &mut timing.device);
        pointer::copy_text(&run.kernel, &mut timing.kernel);
        pointer::copy_text(run.fallback.as_deref().unwrap_or_default(), &mut timing.fallback);
        timing
    }
}

thread_local! {
    static LAST: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// Keeps the result of a call for the thread's next sparkle_last_timing.
pub(super) fn keep(run: Run) {
    // At the end of a thread its thread-locals are gone; the result is then dropped.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(run));
}

/// What `of` takes from this thread's last result.
///
/// # Errors
/// If there is none.
pub(super) fn of_last<R>(of: impl FnOnce(&Run) -> R) -> Outcome<R> {
    let none = || Error::invalid("this thread's number of successful calls", 0, "at least 1").into();
    LAST.try_with(|last| last.borrow().as_ref().map(of)).ok().flatten().ok_or_else(none)
}

/// Writes the times of this thread's last successful sparkle_conv2d, sparkle_plan_execute, sparkle_sgemm (also on
/// buffers, and with epilogues), sparkle_kernel_launch or sparkle_ticket_wait to `*out`, whose `size` the caller has set.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if this thread has made no such call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_last_timing(out: *mut sparkle_timing) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        let last = of_last(|run| sparkle_timing::from(run))?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &last) }
    })
}
