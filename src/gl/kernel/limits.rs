//! What a device must have for a kernel. Everything else is left to the CPU, with the reason.

use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::kernel::bind::Launch;
use crate::kernel::glsl::{FAULT_BINDING, Glsl, PARAMETER_BINDING, Parameters};
use crate::kernel::tree::{ArgumentKind, Kernel, Operation, REDUCTION_BLOCK, VariableKind};

fn unsupported(context: &Context, kernel: &Kernel, what: impl std::fmt::Display) -> Error {
    let what = format!("kernel \"{}\": {what}", kernel.name);
    Error::Unsupported { device: context.device().to_owned(), what }
}

/// Refuses arrays larger than a buffer, and index spaces that 32-bit indices cannot count.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn check_launch(context: &Context, launch: &Launch<'_>) -> Result<()> {
    let (kernel, capabilities) = (launch.kernel(), context.capabilities());
    // Indices of the last workgroup go beyond the last point.
    let limit = i32::MAX as u128 - 4096;
    if launch.points() > limit {
        let what = format!("an index space of {} points; OpenGL counts {limit}", launch.points());
        return Err(unsupported(context, kernel, what));
    }
    let max_bytes = capabilities.max_elements() * size_of::<f32>();
    let arrays = kernel.arguments.iter().filter_map(|argument| match &argument.kind {
        ArgumentKind::Buffer(buffer) => Some((argument, launch.buffers().get(buffer.slot)?)),
        _ => None,
    });
    for (argument, elements) in arrays {
        let (name, bytes) = (&argument.name, elements.bytes());
        if bytes > max_bytes {
            let reason = capabilities.max_elements_reason();
            let what = format!("{bytes} bytes in \"{name}\"; a buffer holds at most {max_bytes} ({reason})");
            return Err(unsupported(context, kernel, what));
        }
        // A buffer of OpenGL is never empty, so its length would be wrong.
        let asks =
            |operation: &Operation| matches!(operation, Operation::Length(of) if *of == argument.variable);
        if elements.len == 0 && kernel.code.expressions.iter().any(|it| asks(&it.operation)) {
            return Err(unsupported(context, kernel, format!("the size of \"{name}\", which is empty")));
        }
    }
    Ok(())
}

/// Refuses a text that needs more bindings, invocations or workgroup memory than the device has.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn check_text(
    context: &Context,
    kernel: &Kernel,
    glsl: &Glsl,
    (parameters, tells_of_loops): (Parameters, bool),
) -> Result<()> {
    let it = context.capabilities();
    let arrays = kernel.arguments.iter().filter(|it| matches!(it.kind, ArgumentKind::Buffer(_))).count();
    let has_block = parameters == Parameters::Buffer;
    let blocks = arrays + usize::from(has_block) + usize::from(tells_of_loops);
    let bindings = match (has_block, tells_of_loops) {
        (true, _) => PARAMETER_BINDING as usize + 1,
        (false, true) => arrays.max(FAULT_BINDING as usize + 1),
        (false, false) => arrays,
    };
    if blocks > it.max_storage_blocks || bindings > it.max_storage_bindings {
        let (most, at) = (it.max_storage_blocks, it.max_storage_bindings);
        let what = format!("{blocks} arrays at {bindings} bindings; a shader has at most {most} at {at}");
        return Err(unsupported(context, kernel, what));
    }
    let [x, y, z] = glsl.local_size;
    let invocations = [x, y, z].iter().map(|&size| u64::from(size)).fold(1, u64::saturating_mul);
    let too_long = glsl.local_size.iter().zip(it.max_local_size).any(|(&size, most)| size > most);
    if invocations > it.max_threads as u64 || too_long {
        let ([a, b, c], most) = (it.max_local_size, it.max_threads);
        let what = format!(
            "workgroups of {x} x {y} x {z} points; they may have {most} points, and {a} x {b} x {c} along the axes"
        );
        return Err(unsupported(context, kernel, what));
    }
    let shared = shared_bytes(kernel);
    if shared > it.max_shared as u64 {
        let what = format!("{shared} bytes of workgroup memory; there are {}", it.max_shared);
        return Err(unsupported(context, kernel, what));
    }
    Ok(())
}

/// The bytes of workgroup memory that a kernel's text declares.
fn shared_bytes(kernel: &Kernel) -> u64 {
    let arrays = kernel.code.variables.iter().map(|variable| match &variable.kind {
        VariableKind::Shared(dimensions) => {
            let elements = dimensions.iter().map(|it| u64::from(it.extent)).fold(1, u64::saturating_mul);
            elements.saturating_mul(variable.ty.bytes() as u64)
        }
        _ => 0,
    });
    let reductions = kernel.reductions.iter().map(|it| (REDUCTION_BLOCK * it.ty.bytes()) as u64);
    arrays.chain(reductions).fold(0, u64::saturating_add)
}
