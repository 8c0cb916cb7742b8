//! The buffers of a launch: arrays are uploaded before it and read back after it; buffers of the program stay where they
//! are.

use std::rc::Rc;

use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::arrays::{Array, bytes, range};
use crate::gl::execution::residents::{self, ResidentKey, Residents};
use crate::kernel::bind::{Elements, Launch};
use crate::kernel::describe;
use crate::kernel::glsl::{FAULT_BINDING, PARAMETER_BINDING, Parameters};
use crate::kernel::tree::Value;

use super::prepared::Prepared;
use super::reduction::{self, Reducing};

/// What a launch computed, by slot: the bytes of the arrays that it writes.
pub struct Results(Vec<(usize, Vec<u8>)>);

impl Results {
    /// Copies all into the launch's arrays. Cannot fail.
    pub fn store(self, launch: &Launch<'_>) {
        for (slot, bytes) in self.0 {
            let elements = &launch.buffers()[slot];
            debug_assert!(bytes.len() == elements.bytes() && elements.is_writable);
            if !bytes.is_empty() {
                // SAFETY: a launch borrows the memory of its arrays while it lives; this one has as many bytes, may be
                // written and overlaps no other (`Launch::writes`, for which `Bound::read` asked). Nothing else uses it.
                unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), elements.address.cast(), bytes.len());
                }
            }
        }
    }
}

/// The buffers of the program that a launch may write.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn written(launch: &Launch<'_>) -> Result<Vec<ResidentKey>> {
    let mut keys = Vec::new();
    for slot in (0..launch.buffers().len()).filter(|&slot| launch.writes(slot)) {
        if let Some(resident) = launch.resident(slot) {
            allocate::push(&mut keys, range(launch, slot, &resident)?.key, "the buffers of a launch")?;
        }
    }
    Ok(keys)
}

/// The buffers of a launch.
pub struct Bound {
    /// By slot. For a reduction this is its single element.
    arrays: Vec<Array>,
    parameters: Option<Buffer>,
    reductions: Vec<Reducing>,
    /// On a device that may end loops early: a number that is not zero if it has.
    ended_loops: Option<Buffer>,
}

impl Bound {
    /// Makes and fills the buffers.
    ///
    /// # Errors
    /// [`Error::ContentsLost`]; [`Error::OutOfMemory`], or what GL reports.
    pub fn new(
        context: &Rc<Context>,
        residents: &mut Residents,
        launch: &Launch<'_>,
        prepared: &Prepared,
    ) -> Result<Self> {
        let array = |(slot, elements): (usize, &Elements)| {
            if let Some(resident) = launch.resident(slot) {
                let range = range(launch, slot, &resident)?;
                return Ok(Array::Resident(residents.operand(context, &range, !launch.reads(slot))?));
            }
            let buffer = Buffer::new(context, elements.bytes())?;
            if launch.reads(slot) && elements.len > 0 {
                buffer.upload(bytes(elements))?;
            }
            Ok(Array::Copied(buffer))
        };
        let arrays =
            allocate::collected(launch.buffers().iter().enumerate().map(array), "the arrays of a kernel")?;
        let parameters = match prepared.parameters() {
            Parameters::Buffer => Some(Buffer::with_data(context, &block(launch)?)?),
            Parameters::Uniform | Parameters::Inline => None,
        };
        let reductions = launch.kernel().reductions.iter();
        let reductions = reductions.map(|it| Reducing::new(context, launch, it));
        let reductions = allocate::collected(reductions, "the reductions of a kernel")?;
        let ended_loops = match prepared.tells_of_loops() {
            true => Some(Buffer::with_data(context, &[0; 4])?),
            false => None,
        };
        Ok(Bound { arrays, parameters, reductions, ended_loops })
    }

    /// Binds what the kernel's program uses.
    pub fn bind(&self, context: &Context) {
        if self.has_residents() {
            residents::see_writes(context);
        }
        (0..).zip(&self.arrays).for_each(|(slot, array)| array.bind(context, slot));
        self.parameters.iter().for_each(|buffer| buffer.bind(PARAMETER_BINDING));
        self.ended_loops.iter().for_each(|buffer| buffer.bind(FAULT_BINDING));
        self.reductions.iter().for_each(Reducing::bind_scratch);
    }

    /// Whether there are buffers of the program among them.
    pub fn has_residents(&self) -> bool {
        self.arrays.iter().any(|it| matches!(it, Array::Resident(_)))
    }

    /// Submits the passes that combine the results of blocks, after the kernel's own dispatches.
    ///
    /// # Errors
    /// What GL reports.
    pub fn finish_reductions(
        &self,
        context: &Context,
        launch: &Launch<'_>,
        prepared: &Prepared,
    ) -> Result<()> {
        for (reducing, finishing) in self.reductions.iter().zip(prepared.finishings()) {
            reduction::finish(context, launch, reducing, finishing, &self.arrays)?;
        }
        Ok(())
    }

    /// Reads what the launch may have written of the host's arrays.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the device has ended loops early; [`Error::OutOfMemory`], or what GL reports.
    pub fn read(&self, context: &Context, launch: &Launch<'_>) -> Result<Results> {
        if let Some(buffer) = &self.ended_loops {
            let mut ended = [0; 4];
            buffer.read(&mut ended)?;
            if ended != [0; 4] {
                let (name, device) = (&launch.kernel().name, context.device().to_owned());
                let what = format!(
                    "kernel \"{name}\": so many iterations of its loops, which the driver ends early"
                );
                return Err(Error::Unsupported { device, what });
            }
        }
        let mut all = Vec::new();
        for (slot, (array, elements)) in self.arrays.iter().zip(launch.buffers()).enumerate() {
            if !launch.writes(slot) {
                continue;
            }
            match array {
                Array::Resident(operand) => operand.store(context)?,
                Array::Copied(buffer) => {
                    let mut bytes = allocate::zeroed(elements.bytes(), "the results of a kernel")?;
                    buffer.read(&mut bytes)?;
                    allocate::push(&mut all, (slot, bytes), "the results of a kernel")?;
                }
            }
        }
        if self.has_residents() {
            // Nothing that was read has told.
            context.check_reset("glDispatchCompute")?;
        }
        Ok(Results(all))
    }
}

/// The parameter block of a launch. Index arguments are zero.
fn block(launch: &Launch<'_>) -> Result<Vec<u8>> {
    let description = describe::kernel(launch.kernel());
    let mut block = allocate::zeroed(description.parameter_bytes, "the scalars of a kernel")?;
    for (argument, value) in description.arguments.iter().zip(launch.scalars()) {
        let (Some(offset), Some(value)) = (argument.offset, value) else { continue };
        let mut put = |bytes: &[u8]| block[offset..][..bytes.len()].copy_from_slice(bytes);
        match *value {
            Value::Int32(value) => put(&value.to_ne_bytes()),
            Value::Int64(value) => put(&value.to_ne_bytes()),
            Value::Real32(value) => put(&value.to_ne_bytes()),
            Value::Real64(value) => put(&value.to_ne_bytes()),
            Value::Logical(value) => put(&i32::from(value).to_ne_bytes()),
        }
    }
    Ok(block)
}
