//! The reference interface: the C functions that existing programs call, with their conventions.
//!
//! On failure a truth value or a GL name is 0 and a time is -1; the last error says why. Nothing is printed. The state
//! is process-wide. A lock serialises calls from several threads, and each calling thread has a context current
//! afterwards.

use std::ffi::{c_char, c_double, c_float, c_int, c_uint, c_void};

use super::pointer;
use super::status::Outcome;
use crate::device::reference;
use crate::error::{Error, Result};
use crate::problem::{Conv2d, Conv2dDesc};

/// A convolution with a square kernel, as the reference kernel reads it at binding 3. Note the order: C is the fourth
/// field here, but the second of the sizes in the functions.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct conv2d_params_t {
    /// Images.
    pub N: c_int,
    /// Input height.
    pub H: c_int,
    /// Input width.
    pub W: c_int,
    /// Input channels.
    pub C: c_int,
    /// Output channels.
    pub K: c_int,
    /// Kernel height and width.
    pub kernel_size: c_int,
    /// Stride in both directions.
    pub stride: c_int,
    /// Zero padding on all four sides.
    pub pad: c_int,
    /// Output height, (H + 2 pad - kernel_size) / stride + 1.
    pub H_out: c_int,
    /// Output width, (W + 2 pad - kernel_size) / stride + 1.
    pub W_out: c_int,
}

/// An OpenGL buffer object.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct gpu_buffer_t {
    /// Its GL name; 0 means none.
    pub buffer_id: u32,
    /// Its size in bytes.
    pub size_bytes: usize,
}

impl conv2d_params_t {
    /// The convolution that these numbers describe.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a size is invalid, or if the output's sizes do not match the others.
    fn problem(&self) -> Result<Conv2d> {
        if self.N < 1 {
            // A time of 0 would look like a measured one, and there would be no buffers to bind for the caller's own
            // dispatch.
            return Err(Error::invalid("n", self.N, format!("1 to {}", i32::MAX)));
        }
        let problem = Conv2d::new(Conv2dDesc {
            n: self.N.into(),
            c: self.C.into(),
            h: self.H.into(),
            w: self.W.into(),
            k: self.K.into(),
            r: self.kernel_size.into(),
            s: self.kernel_size.into(),
            stride_h: self.stride.into(),
            stride_w: self.stride.into(),
            pad_h: self.pad.into(),
            pad_w: self.pad.into(),
            ..Default::default()
        })?;
        let agrees = |argument, given: c_int, computed: usize| {
            if usize::try_from(given) == Ok(computed) {
                return Ok(());
            }
            Err(Error::invalid(argument, given, format!("{computed}, which follows from the other sizes")))
        };
        agrees("H_out", self.H_out, problem.sizes().p)?;
        agrees("W_out", self.W_out, problem.sizes().q)?;
        Ok(problem)
    }
}

/// Checks the parameters, makes slices of the sizes that they imply, and calls `engine` with them.
///
/// # Safety
/// C's promises for the three buffers, whose sizes `params` implies.
unsafe fn execute(
    params: &conv2d_params_t,
    (input, weights, output): (*const c_float, *const c_float, *mut c_float),
    engine: impl FnOnce(&Conv2d, &[f32], &[f32], &mut [f32]) -> Result<f64>,
) -> Outcome<f64> {
    let problem = params.problem()?;
    // SAFETY: as promised.
    let (input, weights, output) = unsafe {
        let input = pointer::input("input", input, problem.input_len())?;
        let weights = pointer::input("weights", weights, problem.weights_len())?;
        let inputs = [("input", input), ("weights", weights)];
        (input, weights, pointer::output("output", output, problem.output_len(), &inputs)?)
    };
    Ok(engine(&problem, input, weights, output)?)
}

/// Makes a GL context current on the calling thread. Returns 1 on success, else 0. It may be called any number of
/// times.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_initialize_opengl() -> c_int {
    boundary!(|_call| { Ok(reference::initialize().map(|()| 1)?) })
}

/// Ends the reference interface for the whole process: it deletes the program and the calling thread's context, and
/// buffers and programs from before become invalid. One call is enough, however often gpu_initialize_opengl was called;
/// calls are not counted, because existing programs initialise more often than they clean up. The interface can be used
/// again: gpu_initialize_opengl and gpu_execute_conv2d_fortran initialise it.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_cleanup_opengl() {
    boundary!(|_call| {
        reference::cleanup();
        Ok(())
    })
}

/// Returns 1 between gpu_initialize_opengl and gpu_cleanup_opengl, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_is_initialized() -> c_int {
    boundary!(|_call| { Ok(reference::is_initialized().into()) })
}

/// Builds the reference program if it is not built yet. Returns 1 on success, else 0. Requires gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_compile_conv2d_shader() -> c_int {
    boundary!(|_call| { Ok(reference::compile().map(|()| 1)?) })
}

/// Computes one convolution and waits for its result; initialises the interface if necessary. Input `[N][C][H][W]`,
/// weights `[K][C][kernel_size][kernel_size]`, output `[N][K][H_out][W_out]`. All sizes, including N, are at least 1;
/// `pad` is at least 0.
///
/// Returns the kernel's time in milliseconds, or -1 on failure; the output is then untouched. Leaves the context
/// current on the calling thread and the parameters bound at index 3.
// Existing programs fix the parameter list, so each function spells it out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_execute_conv2d_fortran(
    input: *const c_float,
    weights: *const c_float,
    output: *mut c_float,
    N: c_int,
    C: c_int,
    H: c_int,
    W: c_int,
    K: c_int,
    kernel_size: c_int,
    stride: c_int,
    pad: c_int,
    H_out: c_int,
    W_out: c_int,
) -> c_float {
    boundary!(|_call| {
        let params = conv2d_params_t { N, H, W, C, K, kernel_size, stride, pad, H_out, W_out };
        // SAFETY: C's promises for the three buffers.
        unsafe { execute(&params, (input, weights, output), reference::execute).map(|time| time as f32) }
    })
}

/// Returns the GL name of the current program, for the caller's own gl* calls on this thread; 0 if there is none. The
/// program reads the input at binding 0, the weights at 1 and a conv2d_params_t at 3, and writes the output at 2. Any
/// grid of workgroups covers all outputs. Some drivers end long loops of an invocation early without an error; the
/// outputs concerned are then NaN. A grid with one invocation per output avoids that.
///
/// Until the caller binds its own parameters, binding 3 holds those of the last call on this thread, or none before the
/// first call. All outputs become NaN if a buffer is shorter than the parameters require. With the parameters of a
/// call, the buffers must have exactly the required sizes; with the caller's own parameters they may be larger.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_get_compute_program() -> c_int {
    boundary!(|_call| { Ok(reference::program() as c_int) })
}

/// Enqueues a convolution between three buffer objects on the calling thread's context and returns without waiting,
/// like a dispatch of `program`, but with the fastest kernel for its sizes. `program` is the reference program.
/// `params` are the parameters that it would read at index 3; the buffers may be larger than they require. NULL means
/// the parameters that the last call on this thread left at index 3; the buffers must then have exactly the required
/// sizes. Requires gpu_initialize_opengl.
///
/// Returns 1 if the convolution is enqueued. Returns 0 for a convolution that is small or that only the reference
/// program can compute, for another program, for unknown parameters, and for buffers that do not match them. `output`
/// may then be partially written; a dispatch of `program` computes it, or makes it NaN.
///
/// Leaves the buffers bound at 0 to 2, index 3 unchanged, and `program` in use. For another program, and for parameters
/// that are unknown or invalid, it changes nothing.
///
/// This function is not part of the original reference interface. The Fortran module `gpu_async_executor` calls it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_enqueue_conv2d(
    program: c_int,
    input: c_uint,
    weights: c_uint,
    output: c_uint,
    params: *const conv2d_params_t,
) -> c_int {
    boundary!(|_call| {
        let mut problem = None;
        if !params.is_null() {
            pointer::check("params", params)?;
            // SAFETY: not NULL and aligned, as just checked; readable, as C promises.
            problem = Some(unsafe { params.read() }.problem()?);
        }
        let program = u32::try_from(program)
            .map_err(|_| Error::invalid("program", program, "a program of gpu_get_compute_program"))?;
        Ok(reference::enqueue(program, problem.as_ref(), [input, weights, output]).map(|()| 1)?)
    })
}

/// Returns 1 if `program` is the current program of gpu_get_compute_program and it is the reference kernel. Returns 0
/// for any other, for instance one from gpu_compile_custom_shader.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_is_reference_program(program: c_int) -> c_int {
    boundary!(|_call| { Ok(u32::try_from(program).is_ok_and(reference::is_reference_program).into()) })
}

/// As gpu_execute_conv2d_fortran, with the sizes in a struct and the time in double precision.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_execute_conv2d(
    input: *const c_float,
    weights: *const c_float,
    output: *mut c_float,
    params: *const conv2d_params_t,
) -> c_double {
    boundary!(|_call| {
        pointer::check("params", params)?;
        // SAFETY: not NULL and aligned, as just checked; readable, as C promises.
        let params = unsafe { params.read() };
        // SAFETY: C's promises for the three buffers.
        unsafe { execute(&params, (input, weights, output), reference::execute) }
    })
}

/// Creates a buffer object of `size` bytes and fills it from `data` unless that is NULL. Returns {0, 0} on failure. The
/// caller frees it with gpu_free_buffer. Requires gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_create_buffer(data: *const c_void, size: usize) -> gpu_buffer_t {
    boundary!(|_call| {
        if size == 0 || isize::try_from(size).is_err() {
            return Err(Error::invalid("size", size, format!("1 to {}", isize::MAX)).into());
        }
        // SAFETY: C's promise for `data`.
        let bytes = (!data.is_null()).then(|| unsafe { pointer::input("data", data.cast::<u8>(), size) });
        let buffer_id = reference::create_buffer(bytes.transpose()?, size)?;
        Ok(gpu_buffer_t { buffer_id, size_bytes: size })
    })
}

/// Copies a buffer object to `data`, which holds at least `size_bytes` bytes. On failure `data` is untouched, and
/// sparkle_last_error says why. Requires gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_download_buffer(buffer: gpu_buffer_t, data: *mut c_void) {
    boundary!(|_call| {
        if buffer.buffer_id == 0 {
            return Err(Error::invalid("buffer", "0", "a buffer from gpu_create_buffer").into());
        }
        // SAFETY: C's promise for `data`.
        let into = unsafe { pointer::output("data", data.cast::<u8>(), buffer.size_bytes, &[])? };
        Ok(reference::download_buffer(buffer.buffer_id, into)?)
    })
}

/// Deletes a buffer object; {0, 0} is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_free_buffer(buffer: gpu_buffer_t) {
    boundary!(|_call| {
        if buffer.buffer_id == 0 { Ok(()) } else { Ok(reference::free_buffer(buffer.buffer_id)?) }
    })
}

/// Another name for gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub extern "C" fn create_egl_context() -> c_int {
    boundary!(|_call| { Ok(reference::initialize().map(|()| 1)?) })
}

/// Sets the source of the caller's compute shader object to the reference kernel, ready to be compiled. Requires
/// gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub extern "C" fn set_conv2d_shader_source(shader: c_uint) {
    boundary!(|_call| { Ok(reference::set_shader_source(shader)?) })
}

/// Builds a program from the text of a compute shader and replaces the current program, which is deleted. The bindings
/// are those of gpu_get_compute_program. Returns the GL name; 0 on failure, and the current program then stays.
/// Requires gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_compile_custom_shader(shader_source: *const c_char) -> c_int {
    boundary!(|_call| {
        // SAFETY: C's promise for the text.
        let source = unsafe { pointer::text("shader_source", shader_source)? };
        Ok(reference::compile_custom(source)? as c_int)
    })
}

/// As gpu_execute_conv2d_fortran, with `program`; 0 or less means the current program, and the reference program if
/// there is none.
// Existing programs fix the parameter list, so each function spells it out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_execute_conv2d_custom(
    program: c_int,
    input: *const c_float,
    weights: *const c_float,
    output: *mut c_float,
    N: c_int,
    C: c_int,
    H: c_int,
    W: c_int,
    K: c_int,
    kernel_size: c_int,
    stride: c_int,
    pad: c_int,
    H_out: c_int,
    W_out: c_int,
) -> c_float {
    boundary!(|_call| {
        let params = conv2d_params_t { N, H, W, C, K, kernel_size, stride, pad, H_out, W_out };
        let program = u32::try_from(program).unwrap_or(0);
        let engine = |problem: &_, input: &_, weights: &_, output: &mut _| {
            reference::execute_custom(program, problem, input, weights, output)
        };
        // SAFETY: C's promises for the three buffers.
        unsafe { execute(&params, (input, weights, output), engine).map(|time| time as f32) }
    })
}

/// As gpu_execute_conv2d_fortran, with a program that is built from the text of a compute shader at its first use on
/// this thread. It is dispatched with one invocation per output in x. If the driver does not allow so many workgroups,
/// and the text has a line `// any grid`, it is dispatched with fewer. A text of sparkle_shader_source whose loops are
/// too long for the device is refused. Requires gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_execute_conv2d_with_shader(
    input: *const c_float,
    weights: *const c_float,
    output: *mut c_float,
    N: c_int,
    C: c_int,
    H: c_int,
    W: c_int,
    K: c_int,
    kernel_size: c_int,
    stride: c_int,
    pad: c_int,
    H_out: c_int,
    W_out: c_int,
    shader_source: *const c_char,
) -> c_float {
    boundary!(|_call| {
        let params = conv2d_params_t { N, H, W, C, K, kernel_size, stride, pad, H_out, W_out };
        // SAFETY: C's promise for the text.
        let source = unsafe { pointer::text("shader_source", shader_source)? };
        let engine = |problem: &_, input: &_, weights: &_, output: &mut _| {
            reference::execute_source(source, problem, input, weights, output)
        };
        // SAFETY: C's promises for the three buffers.
        unsafe { execute(&params, (input, weights, output), engine).map(|time| time as f32) }
    })
}
