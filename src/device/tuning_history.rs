//! Measurements of programs for their own shaders, by index in the list of devices. `ffi` calls this, so that it needs no
//! access to the GL engine.

use super::architecture::gl_device;
use crate::error::Result;
use crate::gl::tuning_history;
pub(crate) use crate::gl::tuning_history::TuningRecord;

/// Loads the record of `variant` for `task` on the device at `index` of [`devices`](super::devices); `None` if there is
/// none.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no usable GPU at `index`.
pub(crate) fn load(index: usize, task: &str, variant: &str) -> Result<Option<TuningRecord>> {
    tuning_history::load(gl_device(index)?.0, task, variant)
}

/// Saves the record of `variant` for `task` on the device at `index` of [`devices`](super::devices), replacing an
/// earlier one.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no usable GPU at `index`, or if the record
/// cannot come from a measurement.
pub(crate) fn save(index: usize, task: &str, variant: &str, record: &TuningRecord) -> Result<()> {
    tuning_history::save(gl_device(index)?.0, task, variant, record)
}
