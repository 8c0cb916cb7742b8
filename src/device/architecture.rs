//! The architecture of a GPU by its index in the list of devices. `ffi` calls this, so that it needs no access to the GL
//! engine.

use super::discovery::found;
use crate::error::{Error, Result};
use crate::gl;
pub use crate::gl::architecture::{Architecture, Vendor};
use crate::memory::tiles::Gpu;

/// The architecture and the measured limits of the device at `index` of [`devices`](super::devices). The first call
/// measures the device, which takes some tenths of a second.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no usable GPU at `index`; an error of the device if the measurement failed.
pub(crate) fn describe(index: usize) -> Result<(Architecture, Gpu)> {
    let (number, architecture) = gl_device(index)?;
    Ok((architecture, gl::gpu(number)?))
}

/// The N of `gl:N` and the architecture of the device at `index` of [`devices`](super::devices).
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no usable GPU at `index`.
pub(super) fn gl_device(index: usize) -> Result<(usize, Architecture)> {
    let found = found()?.into_iter().nth(index).and_then(|device| {
        let number = device.id?.strip_prefix("gl:")?.parse().ok()?;
        Some((number, device.architecture?))
    });
    found.ok_or_else(|| Error::invalid("index", index, "the index of a usable GPU"))
}
