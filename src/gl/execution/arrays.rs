//! The arrays of a launch as buffers that shaders see.

use crate::backend::DeviceMemory;
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer};
use crate::gl::execution::residents::{Operand, ResidentKey, ResidentRange};
use crate::kernel::bind::{Elements, Launch, Resident};

/// The bytes of an array of a launch in the host's memory.
pub fn bytes(elements: &Elements) -> &[u8] {
    if elements.len == 0 {
        return &[];
    }
    // SAFETY: a launch borrows the memory of its arrays while it lives: valid for reads, initialised, and not written
    // before `Results::store`. Numbers have no padding.
    unsafe { std::slice::from_raw_parts(elements.address.cast::<u8>(), elements.bytes()) }
}

/// An array of a launch on the device.
pub enum Array {
    /// A copy of the host's.
    Copied(Buffer),
    /// A buffer of the program, or a part of it.
    Resident(Operand),
}

impl Array {
    /// Binds it to the shaders' storage block at `index`.
    pub fn bind(&self, context: &Context, index: u32) {
        match self {
            Array::Copied(buffer) => buffer.bind(index),
            Array::Resident(operand) => operand.bind_on(context, index),
        }
    }
}

/// The range that an argument of a launch is.
///
/// # Errors
/// [`Error::Internal`] for a buffer of another engine, which the device layer has excluded.
pub fn range<'a>(launch: &'a Launch<'_>, slot: usize, resident: &Resident<'_>) -> Result<ResidentRange<'a>> {
    let memory: &DeviceMemory =
        resident.memory.downcast_ref().ok_or_else(|| Error::Internal("a buffer that is none".to_owned()))?;
    Ok(ResidentRange {
        key: ResidentKey::of(memory.engine().token())?,
        whole: memory.bytes(),
        offset: resident.offset,
        bytes: launch.buffers()[slot].bytes(),
        name: launch.name(slot),
    })
}
