//! The reference symbols: the C interface that existing programs were written against, with its conventions.
//!
//! A truth value or a GL name is 0 on failure, a time is -1; the last error says why. Nothing is printed. State is the
//! process's, as it always was; what is new is that calls from several threads take turns and each thread finds a context
//! current afterwards.

use std::ffi::{c_char, c_double, c_float, c_int, c_uint, c_void};

use super::pointer;
use super::status::Outcome;
use crate::device::reference;
use crate::error::{Error, Result};
use crate::problem::{Conv2d, Conv2dDesc};

/// A convolution with a square kernel, as the reference kernel reads it at binding 3. Mind the order: here C comes fourth,
/// in the functions second.
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
    /// Step in both directions.
    pub stride: c_int,
    /// Zeros on all four sides.
    pub pad: c_int,
    /// Output height, (H + 2 pad - kernel_size) / stride + 1.
    pub H_out: c_int,
    /// Output width, likewise.
    pub W_out: c_int,
}

/// A buffer object.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct gpu_buffer_t {
    /// Its GL name; 0 is none.
    pub buffer_id: u32,
    /// Its size.
    pub size_bytes: usize,
}

impl conv2d_params_t {
    /// The convolution these ten numbers describe, if they agree with each other.
    fn problem(&self) -> Result<Conv2d> {
        if self.N < 1 {
            // A time of 0 could not be told from a kernel's, and no buffers could be bound for the caller's own dispatch.
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
            Err(Error::invalid(argument, given, format!("{computed}, as the other sizes say")))
        };
        agrees("H_out", self.H_out, problem.sizes().p)?;
        agrees("W_out", self.W_out, problem.sizes().q)?;
        Ok(problem)
    }
}

/// Checks the numbers, makes slices of the sizes they imply, and hands all to `engine`.
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

/// Makes a GL context current on the calling thread; 1 if that worked, else 0. May be called any number of times.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_initialize_opengl() -> c_int {
    boundary!(|_call| { Ok(reference::initialize().map(|()| 1)?) })
}

/// Ends what gpu_initialize_opengl began, for the whole process: no context is current any more, the program is gone. Once is
/// enough, however often gpu_initialize_opengl was called: calls are not counted, as existing programs initialise more often
/// than they clean up, and lazily. All of it can be used again: gpu_execute_conv2d_fortran initialises anew, and buffers and
/// programs of before are gone.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_cleanup_opengl() {
    boundary!(|_call| {
        reference::cleanup();
        Ok(())
    })
}

/// 1 between gpu_initialize_opengl and gpu_cleanup_opengl, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_is_initialized() -> c_int {
    boundary!(|_call| { Ok(reference::is_initialized().into()) })
}

/// Builds the reference program, if that has not been done; 1 if it is there, else 0. Needs gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_compile_conv2d_shader() -> c_int {
    boundary!(|_call| { Ok(reference::compile().map(|()| 1)?) })
}

/// Computes one convolution, initialising first if need be. Input `[N][C][H][W]`, weights
/// `[K][C][kernel_size][kernel_size]`, output `[N][K][H_out][W_out]`; all sizes but `pad` are at least 1, N as well. Returns
/// the milliseconds that the kernel took, or -1 on failure, and then the output is untouched. Leaves the context current on
/// the calling thread and the parameters bound at index 3.
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

/// The GL name of the program, for the caller's own gl* calls on this thread; 0 if there is none. Buffers: input at
/// binding 0, weights at 1, output at 2, a conv2d_params_t at 3. Any grid of workgroups covers all outputs. Some drivers end the
/// loops of an invocation early, without an error: an output whose sum was ended is NaN. Enough workgroups for an output per
/// invocation avoid that.
///
/// At binding 3 are the parameters of the last call on this thread, or at first none, until the caller binds its own. All
/// outputs become NaN if the buffers are shorter than these parameters say, or, where they are those of a call, not exactly as
/// long: buffers longer than needed go with parameters of the caller's own.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_get_compute_program() -> c_int {
    boundary!(|_call| { Ok(reference::program() as c_int) })
}

/// Queues the convolution of three buffer objects on the calling thread's context and returns, as a dispatch of `program` would;
/// but by the fastest kernel there is for it. `program` is the reference program, `params` what it would find at index 3; the
/// buffers may be larger than that says. NULL for `params` means those that the last call on this thread left there; then the
/// buffers must be exactly as large. 1 if it is queued. Else 0: for small convolutions and those that only the reference program
/// can do, for another program, for parameters that are not known, for buffers that do not go with them. `output` may be written
/// in part then; a dispatch of `program` computes it, or makes it NaN. Leaves the buffers bound at 0 to 2, index 3 as it was, and
/// the program in use. Needs gpu_initialize_opengl. The reference framework had no such function; `gpu_async_executor` of this
/// library's Fortran modules calls it.
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

/// 1 if `program` is the reference kernel's that gpu_get_compute_program returns, 0 if it is another, for instance one that
/// gpu_compile_custom_shader has put in its place.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_is_reference_program(program: c_int) -> c_int {
    boundary!(|_call| { Ok(u32::try_from(program).is_ok_and(reference::is_reference_program).into()) })
}

/// As gpu_execute_conv2d_fortran, with the sizes in a struct and more digits of the time.
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

/// Makes a buffer object of `size` bytes, filled from `data` unless that is NULL. {0, 0} on failure. Needs
/// gpu_initialize_opengl; the caller frees it.
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

/// Copies a buffer object to `data`, which has room for its `size_bytes`. On failure `data` is untouched.
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

/// Deletes a buffer object; {0, 0} is fine.
#[unsafe(no_mangle)]
pub extern "C" fn gpu_free_buffer(buffer: gpu_buffer_t) {
    boundary!(|_call| {
        if buffer.buffer_id == 0 { Ok(()) } else { Ok(reference::free_buffer(buffer.buffer_id)?) }
    })
}

/// Another name of gpu_initialize_opengl.
#[unsafe(no_mangle)]
pub extern "C" fn create_egl_context() -> c_int {
    boundary!(|_call| { Ok(reference::initialize().map(|()| 1)?) })
}

/// Gives the caller's compute shader object the reference kernel's source, ready to be compiled. Needs a context current
/// on the calling thread.
#[unsafe(no_mangle)]
pub extern "C" fn set_conv2d_shader_source(shader: c_uint) {
    boundary!(|_call| { Ok(reference::set_shader_source(shader)?) })
}

/// Builds a program from a compute shader's text and puts it in the place of the reference program. Returns its GL name, 0
/// on failure, and then nothing has changed. Needs gpu_initialize_opengl. The bindings are those of
/// gpu_get_compute_program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_compile_custom_shader(shader_source: *const c_char) -> c_int {
    boundary!(|_call| {
        // SAFETY: C's promise for the text.
        let source = unsafe { pointer::text("shader_source", shader_source)? };
        Ok(reference::compile_custom(source)? as c_int)
    })
}

/// As gpu_execute_conv2d_fortran, with `program`, or the current one if that is 0 or less; -1 if there is none.
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

/// As gpu_execute_conv2d_fortran, with a program built from a compute shader's text at its first use on this thread. Needs
/// gpu_initialize_opengl. It gets workgroups enough in x for an invocation of each output, or fewer where the driver does not allow as
/// many and the text has a line `// any grid`. A text of sparkle_shader_source whose loops are too long for the device is refused.
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
