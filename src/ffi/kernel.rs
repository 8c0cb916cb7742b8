//! Kernels of the kernel language: compiled from text, described, and written as GLSL.

use std::ffi::c_char;
use std::path::Path;

use super::handle::{self, Opaque, Shared, Table};
use super::pointer::{self, Growing};
use super::status::{Outcome, sparkle_status};
use super::text::TextOut;
use crate::device::Kernel;
use crate::error::Error;
use crate::kernel::describe::{ArgumentDescription, ArgumentRole};
use crate::kernel::glsl::{Options, Parameters, Version};

/// A compiled kernel, for any device. Any number of threads may use it at once.
pub struct sparkle_kernel {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_kernel {
    type Value = Kernel;
    const MARK: usize = 11;
    const NAME: &'static str = "kernel";
    fn table() -> &'static Table<Kernel> {
        static KERNELS: Table<Kernel> = Shared::new(std::collections::BTreeMap::new());
        &KERNELS
    }
    fn dies_in_a_fork(_: &Kernel) -> bool {
        false
    }
}

/// The type of a scalar, or of an array's elements.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_type {
    /// `integer(int32)`: int32_t.
    SPARKLE_TYPE_INT32 = 0,
    /// `integer(int64)`: int64_t.
    SPARKLE_TYPE_INT64 = 1,
    /// `real(real32)`: float.
    SPARKLE_TYPE_REAL32 = 2,
    /// `real(real64)`: double.
    SPARKLE_TYPE_REAL64 = 3,
    /// `logical`: int32_t, where zero is false and any other value is true.
    SPARKLE_TYPE_LOGICAL = 4,
}

/// What an argument of a kernel is.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_argument_kind {
    /// An index argument. Programs do not pass it.
    SPARKLE_ARGUMENT_INDEX = 0,
    /// A scalar.
    SPARKLE_ARGUMENT_SCALAR = 1,
    /// A buffer with an element for each point.
    SPARKLE_ARGUMENT_ELEMENT = 2,
    /// A buffer with a shape.
    SPARKLE_ARGUMENT_ARRAY = 3,
    /// A single element that all points are combined into.
    SPARKLE_ARGUMENT_REDUCTION = 4,
}

/// Whether a kernel reads or writes an argument.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)]
pub enum sparkle_intent {
    /// It only reads.
    SPARKLE_INTENT_IN = 0,
    /// It only writes.
    SPARKLE_INTENT_OUT = 1,
    /// It reads and writes.
    SPARKLE_INTENT_INOUT = 2,
}

/// A version of GLSL.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_glsl_version {
    /// `#version 310 es`.
    SPARKLE_GLSL_310_ES = 310,
    /// `#version 430`.
    SPARKLE_GLSL_430 = 430,
}

/// How scalars reach a kernel that is a GLSL text.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_parameter_method {
    /// Plain uniforms with the names of the scalars.
    SPARKLE_PARAMETERS_UNIFORM = 0,
    /// A storage block, std430, at binding 15.
    SPARKLE_PARAMETERS_BUFFER = 1,
    /// Constants: the text contains PLACEHOLDER_name where a value belongs.
    SPARKLE_PARAMETERS_INLINE = 2,
}

/// A kernel. Its name ends with a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_kernel_info {
    /// sizeof(sparkle_kernel_info), set by the caller.
    pub size: usize,
    /// Dimensions of its index space, 1 to 3.
    pub dims: i32,
    /// The value of an index argument at the first point: 0 or 1.
    pub base: i32,
    /// Points of a workgroup along each axis, as the source says; zeros for local_size=auto.
    pub local_size: [i32; 3],
    /// Number of its arguments, index arguments included.
    pub arguments: i32,
    /// Number of its buffers. Their slots are 0 and up in the order of the arguments.
    pub buffers: i32,
    /// 1 if every operation is rounded and NaN is kept (contract=off), else 0.
    pub exact: i32,
    /// 1 if all points of whole workgroups run, and the source itself guards the points outside; else 0.
    pub cooperative: i32,
    /// 1 if the source has the old form, which no Fortran compiler accepts, else 0.
    pub legacy: i32,
    /// Bytes of the parameter block: a value for each index argument and scalar in their order, each at a multiple of
    /// its size.
    pub parameter_bytes: i64,
    /// Its name as declared.
    pub name: [c_char; 64],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_kernel_info {
    const NAME: &'static str = "sparkle_kernel_info";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, name) + size_of::<[c_char; 64]>();
}

/// An argument of a kernel. Its name ends with a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_argument_info {
    /// sizeof(sparkle_argument_info), set by the caller.
    pub size: usize,
    /// A sparkle_type: that of a scalar, or of a buffer's elements.
    pub r#type: i32,
    /// A sparkle_argument_kind.
    pub kind: i32,
    /// A sparkle_intent.
    pub intent: i32,
    /// Dimensions of an array, else 0.
    pub rank: i32,
    /// The binding of a buffer, else -1.
    pub slot: i32,
    /// The offset of an index argument or scalar in the parameter block, in bytes; -1 for a buffer.
    pub offset: i32,
    /// Its name as declared.
    pub name: [c_char; 64],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_argument_info {
    const NAME: &'static str = "sparkle_argument_info";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, name) + size_of::<[c_char; 64]>();
}

/// A count for C. Nothing of a kernel is near the limit: a source has at most 1 MiB.
fn count(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

impl sparkle_kernel_info {
    fn new(kernel: &Kernel) -> Self {
        let it = kernel.description();
        let mut info = sparkle_kernel_info {
            size: size_of::<Self>(),
            dims: count(it.dims),
            base: it.base,
            local_size: it.local_size.unwrap_or_default().map(|size| count(size as usize)),
            arguments: count(it.arguments.len()),
            buffers: count(it.arguments.iter().filter(|it| it.slot.is_some()).count()),
            exact: it.is_exact.into(),
            cooperative: it.is_cooperative.into(),
            legacy: it.is_legacy.into(),
            parameter_bytes: count(it.parameter_bytes).into(),
            name: [0; 64],
        };
        pointer::copy_text(&it.name, &mut info.name);
        info
    }
}

impl sparkle_argument_info {
    fn new(it: &ArgumentDescription) -> Self {
        use sparkle_argument_kind::*;
        let ty = match it.ty {
            "integer(int64)" => sparkle_type::SPARKLE_TYPE_INT64,
            "real(real32)" => sparkle_type::SPARKLE_TYPE_REAL32,
            "real(real64)" => sparkle_type::SPARKLE_TYPE_REAL64,
            "logical" => sparkle_type::SPARKLE_TYPE_LOGICAL,
            _ => sparkle_type::SPARKLE_TYPE_INT32,
        };
        let kind = match it.role {
            ArgumentRole::Index => SPARKLE_ARGUMENT_INDEX,
            ArgumentRole::Scalar => SPARKLE_ARGUMENT_SCALAR,
            ArgumentRole::Element => SPARKLE_ARGUMENT_ELEMENT,
            ArgumentRole::Array => SPARKLE_ARGUMENT_ARRAY,
            ArgumentRole::Reduction => SPARKLE_ARGUMENT_REDUCTION,
        };
        let intent = match it.intent {
            "in" => sparkle_intent::SPARKLE_INTENT_IN,
            "out" => sparkle_intent::SPARKLE_INTENT_OUT,
            _ => sparkle_intent::SPARKLE_INTENT_INOUT,
        };
        let mut info = sparkle_argument_info {
            size: size_of::<Self>(),
            r#type: ty as i32,
            kind: kind as i32,
            intent: intent as i32,
            rank: count(it.rank),
            slot: it.slot.map_or(-1, count),
            offset: it.offset.map_or(-1, count),
            name: [0; 64],
        };
        pointer::copy_text(&it.name, &mut info.name);
        info
    }
}

/// The name of a kernel; NULL means the only one of its source.
///
/// # Safety
/// If `name` is not NULL, it points to a NUL-terminated string that is not modified during `'a`.
pub(super) unsafe fn kernel_name<'a>(name: *const c_char) -> Outcome<Option<&'a str>> {
    if name.is_null() {
        return Ok(None);
    }
    // SAFETY: as promised.
    unsafe { pointer::name("name", name) }.map(Some)
}

/// Compiles a kernel file, `length` bytes of Fortran at `source`, and writes the handle of its kernel `name` to `*out`:
/// the exact spelling first, then any case. `name` NULL means the only kernel of the source. The caller destroys the
/// kernel with sparkle_kernel_destroy. docs/kernel.md describes the language.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if the source has errors, with the compiler's messages as the last error; if there is
/// no such kernel; or if `name` is NULL and there are several. A source of more than 1 MiB is such an error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_compile(
    source: *const c_char,
    length: usize,
    name: *const c_char,
    out: *mut *mut sparkle_kernel,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        pointer::check("source", source)?;
        // SAFETY: C's promises for the source and the name.
        let (source, name) =
            unsafe { (pointer::input("source", source.cast::<u8>(), length)?, kernel_name(name)?) };
        let kernel = Kernel::from_bytes(source, "source", name)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, kernel)?) }
    })
}

/// Reads the file at `path` and compiles it, as sparkle_kernel_compile does. Messages name the file.
///
/// The errors are those of sparkle_kernel_compile; SPARKLE_ERROR_INVALID_ARGUMENT also if the file cannot be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_compile_file(
    path: *const c_char,
    name: *const c_char,
    out: *mut *mut sparkle_kernel,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        // SAFETY: C's promises for the path and the name.
        let (path, name) = unsafe { (pointer::text("path", path)?, kernel_name(name)?) };
        let kernel = Kernel::from_file(Path::new(path), name)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, kernel)?) }
    })
}

/// Describes a kernel into `*out`, whose `size` the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_describe(
    kernel: *mut sparkle_kernel,
    out: *mut sparkle_kernel_info,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let info = sparkle_kernel_info::new(&*handle::get(call, "kernel", kernel)?);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &info) }
    })
}

/// Describes the argument at `index` of a kernel into `*out`, whose `size` the caller has set. The first argument has
/// index 0; index arguments count.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if `index` is not less than the number of arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_argument(
    kernel: *mut sparkle_kernel,
    index: usize,
    out: *mut sparkle_argument_info,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let all = handle::get(call, "kernel", kernel)?.description().arguments;
        let expected = || format!("less than the number of arguments, {}", all.len());
        let argument = all.get(index).ok_or_else(|| Error::invalid("index", index, expected()))?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &sparkle_argument_info::new(argument)) }
    })
}

/// Writes a kernel as the text of a GLSL compute shader. `version` is a sparkle_glsl_version, `method` a
/// sparkle_parameter_method. Buffers bind to their slots. The text states the size of its workgroups, which
/// local_size=auto leaves to this function. The uniform `count` (uvec3) is the extents of the index space, or zeros to
/// guard points by the buffers' lengths; the uniform `first` (uvec3) is the first workgroup of the dispatch. A kernel
/// with reductions writes the result of each block of 256 points to its reduction's buffer, and the program combines
/// these.
///
/// The text goes to `text`, which holds `capacity` bytes, and ends with a NUL; its length without the NUL goes to
/// `*length`. With `text` NULL and `capacity` 0 only the length is written.
///
/// SPARKLE_ERROR_UNSUPPORTED if this version of GLSL lacks something: 64-bit integers, functions of doubles; in ES also
/// doubles and contract=off. SPARKLE_ERROR_INVALID_ARGUMENT if `capacity` is too small; the last error names the
/// required size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_source(
    kernel: *mut sparkle_kernel,
    version: i32,
    method: i32,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promises for `text` and `length`.
        let into = unsafe { TextOut::new(text, capacity, length)? };
        let options =
            Options { version: glsl_version(version)?, parameters: method_of(method)?, ..<_>::default() };
        into.write(&handle::get(call, "kernel", kernel)?.glsl(options)?.text)
    })
}

/// Writes the compiler's warnings about the source of a kernel as text, with the lines that they are about. The text is
/// empty if there are none. The errors of a source that does not compile are the last error of sparkle_kernel_compile.
///
/// `text`, `capacity` and `length` are those of sparkle_kernel_source, and so is SPARKLE_ERROR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_kernel_diagnostics(
    kernel: *mut sparkle_kernel,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promises for `text` and `length`.
        let into = unsafe { TextOut::new(text, capacity, length)? };
        into.write(handle::get(call, "kernel", kernel)?.warnings())
    })
}

/// Destroys a kernel; NULL is ignored. Running calls end normally.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_kernel_destroy(kernel: *mut sparkle_kernel) -> sparkle_status {
    boundary!(|call| { if kernel.is_null() { Ok(()) } else { handle::remove(call, "kernel", kernel) } })
}

fn glsl_version(version: i32) -> Outcome<Version> {
    match version {
        430 => Ok(Version::Desktop430),
        310 => Ok(Version::Es310),
        _ => Err(Error::invalid("version", version, "a sparkle_glsl_version, 310 or 430").into()),
    }
}

fn method_of(method: i32) -> Outcome<Parameters> {
    match method {
        0 => Ok(Parameters::Uniform),
        1 => Ok(Parameters::Buffer),
        2 => Ok(Parameters::Inline),
        _ => Err(Error::invalid("method", method, "a sparkle_parameter_method, 0 to 2").into()),
    }
}
