//! Launches of kernels: C's arguments, checked and bound.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::boundary::Call;
use super::buffer::sparkle_buffer;
use super::device::{self, sparkle_device};
use super::handle;
use super::kernel::sparkle_kernel;
use super::mapping::Access;
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::allocate;
use crate::device::{Arg, Buffer, Kernel};
use crate::error::Error;
use crate::kernel::bind;
use crate::kernel::tree::{self, Type, Value};

/// How an argument is passed to a kernel.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_arg_form {
    /// A scalar: its value is in the struct.
    SPARKLE_ARG_SCALAR = 0,
    /// An array that the kernel only reads.
    SPARKLE_ARG_INPUT = 1,
    /// An array that the kernel may read and write.
    SPARKLE_ARG_ARRAY = 2,
    /// A buffer, or a part of it, which the kernel reads and writes in place.
    SPARKLE_ARG_BUFFER = 3,
}

/// The value of a scalar.
#[repr(C)]
#[derive(Clone, Copy)]
pub union sparkle_arg_value {
    /// For SPARKLE_TYPE_INT32, and for SPARKLE_TYPE_LOGICAL: zero is false, any other value is true.
    pub int32: i32,
    /// For SPARKLE_TYPE_INT64.
    pub int64: i64,
    /// For SPARKLE_TYPE_REAL32.
    pub real32: f32,
    /// For SPARKLE_TYPE_REAL64.
    pub real64: f64,
}

/// An argument of a launch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_kernel_arg {
    /// sizeof(sparkle_kernel_arg), set by the caller; the same in all arguments of a launch.
    pub size: usize,
    /// A sparkle_type: that of the scalar, or of the array's elements. SPARKLE_TYPE_INT32 serves for arrays of logical
    /// values, too.
    pub r#type: i32,
    /// A sparkle_arg_form.
    pub form: i32,
    /// The first element of an array, else NULL. Its memory is written only if `form` is SPARKLE_ARG_ARRAY.
    pub address: *const c_void,
    /// The number of elements of an array, or of the part of a buffer that the kernel gets; else 0.
    pub length: usize,
    /// The value of a scalar, else zeros.
    pub value: sparkle_arg_value,
    /// A buffer, else NULL.
    pub buffer: *mut sparkle_buffer,
    /// The first element of the buffer that the kernel gets, else 0.
    pub offset: usize,
}

// SAFETY: repr(C), an address and numbers only, size first.
unsafe impl Growing for sparkle_kernel_arg {
    const NAME: &'static str = "sparkle_kernel_arg";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, offset) + size_of::<usize>();
}

/// Runs a kernel once for each point of an index space, and waits for its results. `device` NULL means "auto".
///
/// `extents` points to three numbers: the extents of the kernel's dimensions, then 0 or 1 for each dimension that it
/// lacks. With an extent of 0 there are no points, and only results of reductions change. `args` points to
/// `args_len` arguments, one for each argument of the kernel except the index arguments, in their order. A single
/// element, such as the result of a reduction, is an array of length 1. The arrays and buffers of one call may overlap
/// only where none of them is written. Buffers are those of one device, on which the kernel then runs.
///
/// Everything is checked before anything runs. SPARKLE_ERROR_INVALID_ARGUMENT names the argument that has a wrong type,
/// form or length, is too short for the extents, overlaps another one, must be writable and is not, or is a buffer of
/// another device; SPARKLE_ERROR_NULL_POINTER names the argument whose address is NULL, SPARKLE_ERROR_INVALID_HANDLE the one
/// whose buffer was destroyed. SPARKLE_ERROR_UNSUPPORTED if this device cannot run this kernel; "auto" then leaves it to the
/// CPU, or returns that error if the CPU cannot run it, either. Arrays are untouched after an error. So are buffers, unless
/// the device failed: then those that the kernel writes may have lost their contents, as sparkle_buffer_create says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_launch(
    device: *mut sparkle_device,
    kernel: *mut sparkle_kernel,
    extents: *const i64,
    args: *const sparkle_kernel_arg,
    args_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        let kernel = handle::get(call, "kernel", kernel)?;
        // SAFETY: C's promise for the three extents.
        let extents = self::extents(&kernel, unsafe { pointer::input("extents", extents, 3)? })?;
        // SAFETY: C's promise for the arguments.
        let given = unsafe { self::given(call, kernel.tree(), args, args_len)? };
        // SAFETY: C's promise for the memory of the arrays, which stays valid during the call.
        let mut args = unsafe { self::args(kernel.tree(), &given)? };
        let device = device::resolve(call, device)?;
        let extents = &extents[..kernel.tree().dims];
        timing::keep(device.launch_inside(&kernel, extents, &mut args)?);
        Ok(())
    })
}

/// The extents, which are not negative; those of missing dimensions are 0 or 1.
fn extents(kernel: &Kernel, given: &[i64]) -> Outcome<[usize; 3]> {
    const NAMES: [&str; 3] = ["extents[0]", "extents[1]", "extents[2]"];
    let mut extents = [1; 3];
    for (dimension, (&extent, name)) in given.iter().zip(NAMES).enumerate() {
        let has = dimension < kernel.tree().dims;
        let (most, expected) = match has {
            true => (i64::from(i32::MAX), format!("0 to {}", i32::MAX)),
            false => (1, format!("0 or 1, because kernel \"{}\" has no such dimension", kernel.name())),
        };
        if !(0..=most).contains(&extent) {
            return Err(Error::invalid(name, extent, expected).into());
        }
        extents[dimension] = extent as usize;
    }
    Ok(extents)
}

/// An argument, and its buffer if it has one.
pub(super) type Given = (sparkle_kernel_arg, Option<Arc<Buffer>>);

/// C's arguments, as many as the kernel takes, with the buffers that they name.
///
/// # Safety
/// If `args` is neither NULL nor misaligned, it points to `len` structs.
pub(super) unsafe fn given(
    call: &Call,
    kernel: &tree::Kernel,
    args: *const sparkle_kernel_arg,
    len: usize,
) -> Outcome<Vec<Given>> {
    bind::check_count(kernel, len)?;
    let mut all = allocate::with_capacity(len, "the arguments of a kernel")?;
    if len > 0 {
        pointer::check("args", args)?;
    }
    for (index, dummy) in bind::passed(kernel).enumerate() {
        // SAFETY: the caller promises `len` structs, which is as many as there are dummies.
        let given = unsafe { pointer::read_struct_at(args, index)? };
        let buffer = match given.form {
            BUFFER => {
                let name = format!("{} \"{}\"", what(kernel), dummy.name);
                Some(handle::get(call, &name, given.buffer)?)
            }
            _ => None,
        };
        all.push((given, buffer));
    }
    Ok(all)
}

/// What messages call an argument.
fn what(kernel: &tree::Kernel) -> &'static str {
    if kernel.is_epilogue { "epilogue argument" } else { "kernel argument" }
}

/// C's arguments for a kernel or epilogue.
///
/// # Safety
/// Each array in them is memory as [`Arg::array`] wants it during `'a`.
pub(super) unsafe fn args<'a>(kernel: &tree::Kernel, given: &'a [Given]) -> Outcome<Vec<Arg<'a>>> {
    let mut all = allocate::with_capacity(given.len(), "the arguments of a kernel")?;
    for (dummy, (given, buffer)) in bind::passed(kernel).zip(given) {
        // SAFETY: as the caller promises.
        all.push(unsafe { arg((what(kernel), &dummy.name), given, buffer.as_deref())? });
    }
    Ok(all)
}

/// The form of a buffer.
const BUFFER: i32 = sparkle_arg_form::SPARKLE_ARG_BUFFER as i32;

/// The type with a number.
pub(super) fn element_type(number: i32) -> Option<Type> {
    let all = [Type::Int32, Type::Int64, Type::Real32, Type::Real64, Type::Logical];
    usize::try_from(number).ok().and_then(|number| all.get(number)).copied()
}

/// C's argument for the dummy `name`.
///
/// # Safety
/// As [`args`].
unsafe fn arg<'a>(
    (called, name): (&'static str, &str),
    given: &sparkle_kernel_arg,
    buffer: Option<&'a Buffer>,
) -> Outcome<Arg<'a>> {
    let wrong = |what: &str, value: i64, expected: &str| {
        Err(Error::invalid(called, format!("\"{name}\" with {what} = {value}"), expected).into())
    };
    let Some(ty) = element_type(given.r#type) else {
        return wrong("type", given.r#type.into(), "a sparkle_type, 0 to 4");
    };
    if let Some(buffer) = buffer {
        return part((called, name), ty, given, buffer);
    }
    if !given.buffer.is_null() || given.offset != 0 {
        return wrong("form", given.form.into(), "SPARKLE_ARG_BUFFER, because it has a buffer or an offset");
    }
    let access = match given.form {
        0 => {
            if given.length != 0 {
                return wrong("length", given.length as i64, "0, because its form is SPARKLE_ARG_SCALAR");
            }
            return Ok(Arg::scalar(value(ty, given.value)));
        }
        1 => Access::Read,
        2 => Access::Write,
        other => return wrong("form", other.into(), "a sparkle_arg_form, 0 to 3"),
    };
    pointer::check_elements(name, (given.address, given.length), ty.bytes(), access)?;
    let address =
        if given.length == 0 { NonNull::<u64>::dangling().as_ptr().cast() } else { given.address.cast_mut() };
    // SAFETY: aligned and of at most isize::MAX bytes, as just checked; for the rest, as promised. Any bits are elements.
    Ok(unsafe { Arg::array(ty, address, given.length, access == Access::Write) })
}

/// A part of a buffer as the dummy `name`.
fn part<'a>(
    (called, name): (&'static str, &str),
    ty: Type,
    given: &sparkle_kernel_arg,
    buffer: &'a Buffer,
) -> Outcome<Arg<'a>> {
    let wrong = |what: String, expected: String| {
        Err(Error::invalid(called, format!("\"{name}\" with {what}"), expected).into())
    };
    if !given.address.is_null() {
        return wrong("an address and a buffer".to_owned(), "one of them".to_owned());
    }
    if ty != buffer.element_type() {
        let (given, its) = (ty.fortran(), buffer.element_type().fortran());
        return wrong(format!("type {given} and a buffer of {its}"), "the type of the buffer".to_owned());
    }
    let (offset, length) = (given.offset, given.length);
    if offset.checked_add(length).is_none_or(|end| end > buffer.len()) {
        let what = format!("{length} elements from {offset} on of a buffer");
        return wrong(what, format!("at most the {} that it has", buffer.len()));
    }
    Ok(buffer.arg(offset, length, true)?)
}

/// The value of a scalar of this type.
fn value(ty: Type, value: sparkle_arg_value) -> Value {
    // SAFETY: any bits are a valid value of each field.
    unsafe {
        match ty {
            Type::Int32 => Value::Int32(value.int32),
            Type::Int64 => Value::Int64(value.int64),
            Type::Real32 => Value::Real32(value.real32),
            Type::Real64 => Value::Real64(value.real64),
            Type::Logical => Value::Logical(value.int32 != 0),
        }
    }
}
