//! What programs measured of their own shaders, kept from run to run.

use std::ffi::c_char;

use super::pointer::{self, Growing};
use super::status::sparkle_status;
use crate::device::tuning_history::{self, TuningRecord};

/// What a program measured of one variant of a shader.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_tuning_record {
    /// sizeof(sparkle_tuning_record), set by the caller.
    pub size: usize,
    /// Number of runs.
    pub runs: i64,
    /// Mean time of a run in milliseconds.
    pub mean_ms: f64,
    /// Mean operations per second.
    pub rate: f64,
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_tuning_record {
    const NAME: &'static str = "sparkle_tuning_record";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, rate) + size_of::<f64>();
}

/// Loads the record of `variant` for `task` on a GPU into `*out`, whose `size` the caller has set; zeros if there is
/// none. The program chooses both names, of at most 1000 bytes each. A record is found only with the device, driver and
/// version of Sparkle that it was saved with. `index` counts as for sparkle_device_describe.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if there is no usable GPU at `index`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_tuning_history_load(
    index: usize,
    task: *const c_char,
    variant: *const c_char,
    out: *mut sparkle_tuning_record,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        // SAFETY: C's promises for the texts.
        let (task, variant) = unsafe { (pointer::name("task", task)?, pointer::name("variant", variant)?) };
        let TuningRecord { runs, mean_ms, rate } =
            tuning_history::load(index, task, variant)?.unwrap_or_default();
        let size = size_of::<sparkle_tuning_record>();
        let found = sparkle_tuning_record { size, runs: runs as i64, mean_ms, rate };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &found) }
    })
}

/// Saves the record of `variant` for `task` on a GPU, replacing an earlier one: in the folder that SPARKLE_CACHE_DIR
/// names, for later runs too, or in memory if there is no such folder. `index` counts as for sparkle_device_describe.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if there is no usable GPU at `index`, or if a number of the record is not positive
/// and finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_tuning_history_save(
    index: usize,
    task: *const c_char,
    variant: *const c_char,
    record: *const sparkle_tuning_record,
) -> sparkle_status {
    boundary!(|_call| {
        // SAFETY: C's promises for the texts and the struct.
        let (task, variant, given) = unsafe {
            (pointer::name("task", task)?, pointer::name("variant", variant)?, pointer::read_struct(record)?)
        };
        let sparkle_tuning_record { runs, mean_ms, rate, .. } = given;
        let record = TuningRecord { runs: u64::try_from(runs).unwrap_or(0), mean_ms, rate };
        Ok(tuning_history::save(index, task, variant, &record)?)
    })
}
