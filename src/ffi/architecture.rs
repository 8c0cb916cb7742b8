//! What a GPU is, shaders as text, and what programs learn of them: for programs that choose and run shaders themselves.

use std::ffi::c_char;

use super::conv2d::{self, sparkle_conv2d_desc};
use super::pointer::{self, Growing, truth};
use super::status::{Outcome, sparkle_status};
use crate::device::found;
use crate::error::Error;
use crate::gl::architecture::Architecture;
use crate::gl::experience::{self, Experience};
use crate::memory::tiles::Gpu;
use crate::shader::single::{Request, Single};

/// A GPU's architecture. What cannot be told is 0. Texts end with a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_architecture {
    /// sizeof(sparkle_architecture), set by the caller.
    pub size: usize,
    /// The generation of an RDNA architecture, 0 of any other.
    pub rdna_generation: i32,
    /// Invocations that run in step (a wave, a warp); 0 also where the compiler chooses for each shader.
    pub subgroup_size: i32,
    /// 1 if the driver itself says so, 0 if that follows from the device's name.
    pub subgroup_size_told: i32,
    /// Compute units.
    pub compute_units: i32,
    /// 1 if the driver says how many, 0 if it was measured how many workgroups run at once.
    pub compute_units_told: i32,
    /// 1 if one instruction can hold two operations.
    pub dual_issue: i32,
    /// 1 if there are units for matrix products.
    pub matrix_units: i32,
    /// Bytes of a line of the cache that all compute units share.
    pub cache_line: i32,
    /// 32-bit vector registers that a SIMD unit has for each of its lanes.
    pub registers: i32,
    /// The most invocations of a workgroup.
    pub max_workgroup: i32,
    /// Bytes of shared memory that a workgroup may have.
    pub shared_memory: i64,
    /// Bytes of shared memory of a compute unit.
    pub local_memory: i64,
    /// Floating-point operations a second, as measured with nothing but multiply-adds.
    pub flops: f64,
    /// Bytes a second from the device's memory, as measured.
    pub bandwidth: f64,
    /// `AMD`, `NVIDIA`, `Intel`, `Apple`, `software` or `unknown`.
    pub vendor: [c_char; 32],
    /// For instance `RDNA3` or `Hopper`; `Generic` if it cannot be told.
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
            subgroup_size_told: it.subgroup_size_told.into(),
            compute_units: it.compute_units.map_or(gpu.units as i32, |count| count as i32),
            compute_units_told: it.compute_units.is_some().into(),
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

/// What a GPU is, into `*out`, whose `size` the caller has set: as its driver says, as follows from its name, as measured. `index`
/// counts as for sparkle_device_describe. The first call measures, for some tenths of a second.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if that is no usable GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_architecture(
    index: usize,
    out: *mut sparkle_architecture,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        let (device, architecture) = gl_device(index)?;
        let shown = sparkle_architecture::new(&architecture, &crate::gl::gpu(device)?);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &shown) }
    })
}

/// The number among usable GL devices, and the architecture, of the device at `index` in the list of all.
fn gl_device(index: usize) -> Outcome<(usize, Architecture)> {
    let found = found()?.into_iter().nth(index).and_then(|device| {
        let number = device.id?.strip_prefix("gl:")?.parse().ok()?;
        Some((number, device.architecture?))
    });
    found.ok_or_else(|| Error::invalid("index", index, "the index of a usable GPU").into())
}

/// How a shader is to be cut. All zeros but the size are fine.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_shader_options {
    /// sizeof(sparkle_shader_options). Fields that the caller does not know are zero.
    pub size: usize,
    /// Invocations of a workgroup along pixels, a power of two; 0 means 16.
    pub threads_x: i32,
    /// Invocations of a workgroup along output channels, a power of two; 0 means 16. At most 1024 with `threads_x`.
    pub threads_y: i32,
    /// Registers that an invocation may take, about: the more, the larger its tile. 0 means 64.
    pub registers: i32,
    /// 1 if a workgroup is to read through shared memory.
    pub shared: i32,
    /// Sums that take turns, so that multiply-adds need not wait for each other: 1 or 2. 0 means 1.
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

/// A compute shader for a convolution, as GLSL text for gpu_execute_conv2d_with_shader or gpu_compile_custom_shader, or to be
/// compiled by the caller: bindings and parameters are those of gpu_get_compute_program, any grid covers every output. It is
/// made for the sizes in `desc`, whatever the batch; parameters of other sizes give right results, more slowly.
///
/// The text goes to `text`, which holds `capacity` bytes, and ends with a NUL; its length without that goes to `*length`. With
/// `text` NULL and `capacity` 0 only the length is told. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_shader_source(
    desc: *const sparkle_conv2d_desc,
    options: *const sparkle_shader_options,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("length", length)?;
        // SAFETY: C's promises for the structs and for `text`.
        let (problem, wish, into) = unsafe {
            let wish = match options.is_null() {
                true => Request { threads: [16, 16], registers: 64, shared: false, chains: 1 },
                false => pointer::read_struct(options)?.wish()?,
            };
            let only_length = text.is_null() && capacity == 0;
            let into = match only_length {
                true => None,
                false => Some(pointer::output("text", text.cast::<u8>(), capacity, &[])?),
            };
            (conv2d::problem(desc)?, wish, into)
        };
        let source = Single::new(&wish, &problem)?.source(&problem)?.text;
        if let Some(into) = into {
            let room = into.len();
            let Some((whole, end)) = into
                .get_mut(..=source.len())
                .and_then(<[u8]>::split_last_mut)
                .map(|(end, whole)| (whole, end))
            else {
                return Err(Error::invalid("capacity", room, format!("at least {}", source.len() + 1)).into());
            };
            whole.copy_from_slice(source.as_bytes());
            *end = 0;
        }
        // SAFETY: C's promise for `length`.
        unsafe { pointer::write("length", length, source.len()) }
    })
}

/// What a program measured of one way to do something.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_experience {
    /// sizeof(sparkle_experience), set by the caller.
    pub size: usize,
    /// How often it was run.
    pub runs: i64,
    /// Mean milliseconds of a run.
    pub mean_ms: f64,
    /// Mean operations a second.
    pub rate: f64,
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_experience {
    const NAME: &'static str = "sparkle_experience";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, rate) + size_of::<f64>();
}

/// What was kept of `way` to do `what` on a GPU, into `*out`, whose `size` the caller has set; zeros if nothing was. Both names are
/// the program's; what was measured on another device, driver or version of Sparkle is not found. `index` counts as for
/// sparkle_device_describe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_experience_load(
    index: usize,
    what: *const c_char,
    way: *const c_char,
    out: *mut sparkle_experience,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out", out)?;
        // SAFETY: C's promises for the texts.
        let (what, way) = unsafe { (pointer::name("what", what)?, pointer::name("way", way)?) };
        let Experience { runs, mean_ms, rate } =
            experience::load(gl_device(index)?.0, what, way)?.unwrap_or_default();
        let found =
            sparkle_experience { size: size_of::<sparkle_experience>(), runs: runs as i64, mean_ms, rate };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &found) }
    })
}

/// Keeps what was measured of `way` to do `what` on a GPU, in place of what was kept before: in the folder that SPARKLE_CACHE_DIR
/// names, for later runs, or in memory if there is none. SPARKLE_ERROR_INVALID_ARGUMENT for what cannot have been measured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_experience_save(
    index: usize,
    what: *const c_char,
    way: *const c_char,
    experience: *const sparkle_experience,
) -> sparkle_status {
    boundary!(|_call| {
        // SAFETY: C's promises for the texts and the struct.
        let (what, way, given) = unsafe {
            (pointer::name("what", what)?, pointer::name("way", way)?, pointer::read_struct(experience)?)
        };
        let sparkle_experience { runs, mean_ms, rate, .. } = given;
        let experience = Experience { runs: u64::try_from(runs).unwrap_or(0), mean_ms, rate };
        Ok(experience::save(gl_device(index)?.0, what, way, &experience)?)
    })
}
