//! The arguments of an epilogue, for the shader that applies it.

use std::rc::Rc;

use crate::allocate;
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Buffer, Program};
use crate::gl::execution::arrays::{Array, bytes, range};
use crate::gl::execution::residents::Residents;
use crate::kernel::bind::Launch;
use crate::kernel::fused::Fused;
use crate::kernel::tree::{ArgumentKind, Operation, Value};
use crate::shader::epilogue::Places;

/// The purpose of allocations.
const PURPOSE: &str = "the arguments of an epilogue";

/// Where a program has the arguments of its epilogue.
pub struct Slots {
    first_binding: u32,
    /// The uniforms of scalars, each at the position of its dummy; none if the compiler removed it.
    scalars: Vec<Option<u32>>,
}

impl Slots {
    /// Finds them in the program whose text has its epilogue at `places`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or what GL reports.
    pub fn new(program: &Program, fused: &Fused, places: &Places) -> Result<Self> {
        let context = program.context();
        // The first three dummies are no arguments.
        let named = [None; 3].into_iter().chain(places.names.iter().map(Some));
        let locate = |(argument, name): (&crate::kernel::tree::Argument, Option<&String>)| {
            let name = name.filter(|_| argument.kind == ArgumentKind::Scalar);
            Ok(name.and_then(|name| context.api().uniform_location(program.name(), name)))
        };
        let arguments = &fused.epilogue().arguments;
        let mut scalars = allocate::with_capacity(arguments.len(), PURPOSE)?;
        for pair in arguments.iter().zip(named) {
            scalars.push(locate(pair)?);
        }
        context.check("glGetUniformLocation")?;
        Ok(Slots { first_binding: places.first_binding, scalars })
    }
}

/// Refuses an epilogue that needs more bindings than the device has, beside `others` of the shader's own at the first ones.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn check_bindings(context: &Context, fused: &Fused, others: u32) -> Result<()> {
    let epilogue = fused.epilogue();
    let arrays = epilogue.arguments.iter().filter(|it| matches!(it.kind, ArgumentKind::Buffer(_))).count();
    let (all, it) = (arrays + others as usize, context.capabilities());
    let most = it.max_storage_blocks.min(it.max_storage_bindings);
    if all <= most {
        return Ok(());
    }
    let name = &epilogue.name;
    let what = format!("epilogue \"{name}\": {arrays} arrays beside {others} of the shader; it binds {most}");
    Err(Error::Unsupported { device: context.device().to_owned(), what })
}

/// The arguments of a run on the device.
pub struct Arguments<'l> {
    launch: &'l Launch<'l>,
    /// By slot.
    arrays: Vec<Array>,
}

impl<'l> Arguments<'l> {
    /// Uploads the host's arrays; buffers of the program are used in place.
    ///
    /// # Errors
    /// [`Error::ContentsLost`]; [`Error::Unsupported`] for arrays beyond the device's limits; [`Error::OutOfMemory`], or what
    /// GL reports.
    pub fn new(context: &Rc<Context>, residents: &mut Residents, launch: &'l Launch<'l>) -> Result<Self> {
        check_arrays(context, launch)?;
        let mut arrays = allocate::with_capacity(launch.buffers().len(), PURPOSE)?;
        for (slot, elements) in launch.buffers().iter().enumerate() {
            arrays.push(match launch.resident(slot) {
                Some(resident) => {
                    let range = range(launch, slot, &resident)?;
                    Array::Resident(residents.operand(context, &range, false)?)
                }
                None => Array::Copied(Buffer::with_data(context, bytes(elements))?),
            });
        }
        Ok(Arguments { launch, arrays })
    }

    /// Binds them for a program in use.
    pub fn bind(&self, context: &Context, slots: &Slots) {
        (slots.first_binding..).zip(&self.arrays).for_each(|(index, array)| array.bind(context, index));
        let api = context.api();
        for (location, value) in slots.scalars.iter().zip(self.launch.scalars()) {
            let (Some(location), Some(value)) = (*location, *value) else { continue };
            match value {
                Value::Int32(value) => api.uniform_1i(location, value),
                Value::Real32(value) => api.uniform_1f(location, value),
                Value::Real64(value) => api.uniform_1d(location, value),
                Value::Logical(value) => api.uniform_1i(location, value.into()),
                // The writer has refused it.
                Value::Int64(_) => {}
            }
        }
    }
}

/// Refuses arrays larger than a buffer, and empty ones whose length the epilogue asks for: a buffer is never empty.
fn check_arrays(context: &Context, launch: &Launch<'_>) -> Result<()> {
    let (kernel, most) = (launch.kernel(), context.capabilities().max_elements() * size_of::<f32>());
    for argument in &kernel.arguments {
        let ArgumentKind::Buffer(buffer) = &argument.kind else { continue };
        let Some(elements) = launch.buffers().get(buffer.slot) else { continue };
        let asks = kernel
            .code
            .expressions
            .iter()
            .any(|it| matches!(it.operation, Operation::Length(of) if of == argument.variable));
        let what = match (elements.bytes(), elements.len == 0 && asks) {
            (bytes, _) if bytes > most => {
                let reason = context.capabilities().max_elements_reason();
                format!("{bytes} bytes; a buffer holds at most {most} ({reason})")
            }
            (_, true) => "no elements, whose number it asks for".to_owned(),
            _ => continue,
        };
        let what = format!("epilogue argument \"{}\" with {what}", argument.name);
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    Ok(())
}
