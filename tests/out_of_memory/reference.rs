//! The operations of the reference interface.

use std::ffi::{CString, c_int};
use std::ptr::null;

use sparkle::Conv2dDesc;
use sparkle::ffi::architecture::sparkle_shader_source;
use sparkle::ffi::conv2d::sparkle_conv2d_desc;
use sparkle::ffi::reference::*;
use sparkle::ffi::status::sparkle_status;
use sparkle_status::{SPARKLE_ERROR_OUT_OF_MEMORY, SPARKLE_OK};

use crate::layers::{Layer, layer};
use crate::{CANARY, Operation, Run, STATES, Tally, last_error, ok, own};

const C: c_int = 32;
const K: c_int = 32;
const SIZE: c_int = 40;

/// The status of a call that only returns whether it succeeded.
fn status(succeeded: bool) -> sparkle_status {
    match succeeded {
        true => SPARKLE_OK,
        false if last_error().contains("out of memory") => SPARKLE_ERROR_OUT_OF_MEMORY,
        false => panic!("{}", last_error()),
    }
}

/// A caller's shader that is longer than all shaders of the library.
fn long_text() -> CString {
    let desc = sparkle_conv2d_desc::from(Conv2dDesc {
        c: C.into(),
        h: SIZE.into(),
        w: SIZE.into(),
        k: K.into(),
        ..Default::default()
    });
    let (mut text, mut length) = (vec![0u8; 100_000], 0);
    // SAFETY: the structs state their sizes, and the length of the buffer is correct.
    ok(unsafe { sparkle_shader_source(&desc, null(), text.as_mut_ptr().cast(), text.len(), &mut length) });
    text.truncate(length);
    text.extend_from_slice("\n// a long text".repeat(8000).as_bytes());
    CString::new(text).unwrap()
}

/// All operations.
pub fn operations(tally: &mut Tally) {
    let desc = Conv2dDesc { c: C.into(), h: SIZE.into(), w: SIZE.into(), k: K.into(), ..Default::default() };
    let Layer { input, weights, expected, .. } = &layer(&desc);
    let params = conv2d_params_t {
        N: 1,
        H: SIZE,
        W: SIZE,
        C,
        K,
        kernel_size: 1,
        stride: 1,
        pad: 0,
        H_out: SIZE,
        W_out: SIZE,
    };
    let text = long_text();
    for (state, reset) in STATES {
        let mut all = |what: &str, run: Run, expected: &[f32]| {
            let before = Box::new(move || {
                if state == "cold" {
                    gpu_cleanup_opengl();
                }
                reset();
            });
            let name = format!("reference interface, {state}: {what}");
            tally.check(Operation { name, before, run, expected, tolerance: 0.0, again: true });
        };
        let run = Box::new(|output: &mut [f32]| {
            // SAFETY: all buffers have the lengths of the parameters.
            status(unsafe {
                gpu_execute_conv2d(input.as_ptr(), weights.as_ptr(), output.as_mut_ptr(), &params) >= 0.0
            })
        });
        all("call", run, expected);
        let run = Box::new(|output: &mut [f32]| {
            if gpu_initialize_opengl() == 0 || gpu_compile_conv2d_shader() == 0 {
                return status(false);
            }
            // SAFETY: as above.
            status(unsafe {
                gpu_execute_conv2d_custom(
                    0,
                    input.as_ptr(),
                    weights.as_ptr(),
                    output.as_mut_ptr(),
                    1,
                    C,
                    SIZE,
                    SIZE,
                    K,
                    1,
                    1,
                    0,
                    SIZE,
                    SIZE,
                ) >= 0.0
            })
        });
        all("call of the current program", run, expected);
        let run = Box::new(|output: &mut [f32]| {
            if gpu_initialize_opengl() == 0 {
                return status(false);
            }
            // SAFETY: as above; the text ends with a NUL.
            status(unsafe {
                gpu_execute_conv2d_with_shader(
                    input.as_ptr(),
                    weights.as_ptr(),
                    output.as_mut_ptr(),
                    1,
                    C,
                    SIZE,
                    SIZE,
                    K,
                    1,
                    1,
                    0,
                    SIZE,
                    SIZE,
                    text.as_ptr(),
                ) >= 0.0
            })
        });
        all("call with a shader", run, expected);
        let run = Box::new(|_: &mut [f32]| {
            if gpu_initialize_opengl() == 0 {
                return status(false);
            }
            // SAFETY: the text ends with a NUL.
            let program = unsafe { gpu_compile_custom_shader(text.as_ptr()) };
            if program == 0 {
                return status(false);
            }
            status(true)
        });
        all("custom program", run, &[]);
        let run = Box::new(|output: &mut [f32]| {
            if gpu_initialize_opengl() == 0 {
                return status(false);
            }
            let Some(buffer) = buffer(expected) else { return status(false) };
            let result = download(buffer, output);
            gpu_free_buffer(buffer);
            result
        });
        all("buffers", run, expected);
        let run = Box::new(|output: &mut [f32]| queued(&params, (input, weights), output));
        all("queued", run, expected);
        let run = Box::new(|output: &mut [f32]| {
            // SAFETY: all buffers have the lengths of the sizes.
            status(unsafe {
                gpu_execute_conv2d_fortran(
                    input.as_ptr(),
                    weights.as_ptr(),
                    output.as_mut_ptr(),
                    1,
                    C,
                    SIZE,
                    SIZE,
                    K,
                    1,
                    1,
                    0,
                    SIZE,
                    SIZE,
                ) >= 0.0
            })
        });
        all("call from Fortran", run, expected);
        all("texts that do not compile", Box::new(|_: &mut [f32]| broken_shader()), &[]);
    }
}

/// A buffer object with the content `data`.
fn buffer(data: &[f32]) -> Option<gpu_buffer_t> {
    // SAFETY: `data` has this many bytes.
    let buffer = unsafe { gpu_create_buffer(data.as_ptr().cast(), size_of_val(data)) };
    (buffer.buffer_id != 0).then_some(buffer)
}

/// Reads a buffer object that is as long as `output`.
fn download(buffer: gpu_buffer_t, output: &mut [f32]) -> sparkle_status {
    // SAFETY: `output` has this many bytes.
    unsafe { gpu_download_buffer(buffer, output.as_mut_ptr().cast()) };
    status(output[0] != CANARY)
}

/// The program that the caller dispatches, with the caller's buffers.
fn queued(
    params: &conv2d_params_t,
    (input, weights): (&[f32], &[f32]),
    output: &mut [f32],
) -> sparkle_status {
    if gpu_initialize_opengl() == 0 || gpu_compile_conv2d_shader() == 0 {
        return status(false);
    }
    let nothing = own(|| vec![0.0; output.len()]);
    let buffers = [input, weights, &nothing].map(buffer);
    let result = if let [Some(input), Some(weights), Some(to)] = buffers {
        let ids = [input, weights, to].map(|buffer| buffer.buffer_id);
        let program = gpu_get_compute_program();
        // SAFETY: the parameters are valid.
        match unsafe { gpu_enqueue_conv2d(program, ids[0], ids[1], ids[2], params) } {
            0 => status(false),
            _ => download(to, output),
        }
    } else {
        status(false)
    };
    buffers.into_iter().flatten().for_each(|buffer| gpu_free_buffer(buffer));
    own(|| drop(nothing));
    result
}

/// A caller's texts that no compiler accepts, with long messages.
fn broken_shader() -> sparkle_status {
    if gpu_initialize_opengl() == 0 {
        return status(false);
    }
    let wrong = own(|| CString::new("#version 430\n".to_owned() + &"wrong;\n".repeat(20_000)).unwrap());
    let bytes = own(|| CString::new(vec![0xff; 1 << 20]).unwrap());
    for text in [wrong, bytes] {
        // SAFETY: the text ends with a NUL.
        assert_eq!(unsafe { gpu_compile_custom_shader(text.as_ptr()) }, 0);
        if last_error().contains("out of memory") {
            return SPARKLE_ERROR_OUT_OF_MEMORY;
        }
        assert!(last_error().len() < 64 << 10);
    }
    SPARKLE_OK
}
