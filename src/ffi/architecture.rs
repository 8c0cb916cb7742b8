//! What a GPU is, and shaders as text: for programs that choose and run shaders themselves.

use std::ffi::c_char;

use super::conv2d::{self, sparkle_conv2d_desc};
use super::pointer::{self, Growing, truth};
use super::status::{Outcome, sparkle_status};
use super::text::TextOut;
use crate::device::architecture::{self, Architecture};
use crate::error::Error;
use crate::memory::tiles::Gpu;
use crate::shader::single::{Request, Single};

/// A GPU's architecture. A number that is not known is 0. Texts end with a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_architecture {
    /// sizeof(sparkle_architecture), set by the caller.
    pub size: usize,
    /// The generation of an RDNA architecture; 0 for any other.
    pub rdna_generation: i32,
    /// Invocations that run in lockstep (a wave, a warp). 0 also where the compiler chooses the size for each shader.
    pub subgroup_size: i32,
    /// 1 if the driver reports the size, 0 if it is derived from the device's name.
    pub subgroup_size_reported: i32,
    /// Compute units.
    pub compute_units: i32,
    /// 1 if the driver reports the number, 0 if it is the measured number of workgroups that run at once.
    pub compute_units_reported: i32,
    /// 1 if one instruction can hold two operations.
    pub dual_issue: i32,
    /// 1 if the device has units for matrix products.
    pub matrix_units: i32,
    /// Line size in bytes of the cache that all compute units share.
    pub cache_line: i32,
    /// 32-bit vector registers per lane of a SIMD unit.
    pub registers: i32,
    /// Maximum number of invocations in a workgroup.
    pub max_workgroup: i32,
    /// Maximum shared memory of a workgroup in bytes.
    pub shared_memory: i64,
    /// Shared memory of a compute unit in bytes.
    pub local_memory: i64,
    /// Floating-point operations per second, measured with multiply-adds only.
    pub flops: f64,
    /// Bandwidth of the device's memory in bytes per second, measured.
    pub bandwidth: f64,
    /// `AMD`, `NVIDIA`, `Intel`, `Apple`, `software` or `unknown`.
    pub vendor: [c_char; 32],
    /// For instance `RDNA3` or `Hopper`; `Generic` if it is not known.
    pub name: [c_char; 32],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_architecture {
    const NAME: &'static str = "sparkle_architecture";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, name) + size_of::<[c_char; 32]>();
}

impl sparkle_architecture {
    fn new(it: &Architecture, gpu: &Gpu) -> Self {
        let mut shown = sparkle_architecture {
            size: size_of::<Self>(),
            rdna_generation: it.rdna_generation as i32,
            subgroup_size: it.subgroup_size as i32,
            subgroup_size_reported: it.subgroup_size_told.into(),
            compute_units: it.compute_units.map_or(gpu.units as i32, |count| count as i32),
            compute_units_reported: it.compute_units.is_some().into(),
            dual_issue: it.dual_issue.into(),
            matrix_units: it.matrix_units.into(),
            cache_line: it.cache_line as i32,
            registers: it.registers as i32,
            max_workgroup: gpu.max_threads as i32,
            shared_memory: gpu.shared_bytes as i64,
            local_memory: it.local_memory.into(),
            flops: gpu.flops,
            bandwidth: gpu.memory,
            vendor: [0; 32],
            name: [0; 32],
        };
        pointer::copy_text(&it.vendor.to_string(), &mut shown.vendor);
        pointer::copy_text(it.name, &mut shown.name);
        shown
    }
}

/// Describes a GPU into `*out`, whose `size` the caller has set: what its driver reports, what follows from its name,
/// and what was measured. `index` counts as for sparkle_device_describe. The first call measures the device, which
/// takes some tenths of a second.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if there is no usable GPU at `index`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_architecture(
    index: usize,
    out: *mut sparkle_architecture,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        let (architecture, gpu) = architecture::describe(index)?;
        let shown = sparkle_architecture::new(&architecture, &gpu);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &shown) }
    })
}

/// How a shader divides its work. Zero in a field means its default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_shader_options {
    /// sizeof(sparkle_shader_options), set by the caller. Fields that the caller does not know count as zero.
    pub size: usize,
    /// Invocations of a workgroup along pixels, a power of two; 16 by default.
    pub threads_x: i32,
    /// Invocations of a workgroup along output channels, a power of two; 16 by default. `threads_x` * `threads_y` is at
    /// most 1024.
    pub threads_y: i32,
    /// Approximate number of registers per invocation; 64 by default. More registers make a larger tile.
    pub registers: i32,
    /// 1 if a workgroup loads its operands through shared memory, else 0.
    pub shared: i32,
    /// Independent accumulator chains per output, so that multiply-adds do not wait for each other: 1 or 2; 1 by
    /// default.
    pub chains: i32,
    /// Zero.
    pub reserved: i32,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_shader_options {
    const NAME: &'static str = "sparkle_shader_options";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reserved) + size_of::<i32>();
}

impl sparkle_shader_options {
    fn wish(&self) -> Outcome<Request> {
        if self.reserved != 0 {
            return Err(Error::invalid("reserved", self.reserved, "0").into());
        }
        let positive = |argument, value: i32, default: usize| match usize::try_from(value) {
            Ok(0) => Ok(default),
            Ok(value) => Ok(value),
            Err(_) => Err(Error::invalid(argument, value, "0 or more")),
        };
        let threads = |value| positive("threads", value, 16);
        Ok(Request {
            threads: [threads(self.threads_x)?, threads(self.threads_y)?],
            registers: positive("registers", self.registers, 64)?,
            shared: truth("shared", self.shared)?,
            chains: positive("chains", self.chains, 1)?,
        })
    }
}

/// Writes a compute shader for a convolution as GLSL text. Pass it to gpu_execute_conv2d_with_shader or
/// gpu_compile_custom_shader, or compile it yourself. Bindings and parameters are those of gpu_get_compute_program; any
/// grid of workgroups covers every output. The shader is optimised for the sizes in `desc` and any batch size. With
/// parameters of other sizes its results are right, but it is slower.
///
/// The text goes to `text`, which holds `capacity` bytes, and ends with a NUL; its length without the NUL goes to
/// `*length`. With `text` NULL and `capacity` 0 only the length is written. `options` NULL means the defaults.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if `capacity` is too small; the last error names the required size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_shader_source(
    desc: *const sparkle_conv2d_desc,
    options: *const sparkle_shader_options,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sparkle_status {
    boundary!(|_call| {
        // SAFETY: C's promises for the structs, and for `text` and `length`.
        let (problem, wish, into) = unsafe {
            let into = TextOut::new(text, capacity, length)?;
            let wish = match options.is_null() {
                true => Request { threads: [16, 16], registers: 64, shared: false, chains: 1 },
                false => pointer::read_struct(options)?.wish()?,
            };
            (conv2d::problem(desc)?, wish, into)
        };
        into.write(&Single::new(&wish, &problem)?.source(&problem)?.text)
    })
}
