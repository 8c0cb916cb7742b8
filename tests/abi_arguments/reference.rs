//! The reference interface.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, null_mut};

use sparkle::ffi::reference::*;

use super::cases::{CANARY, Cases};

/// A convolution of the reference interface, whose arguments tests make invalid: N, C, H, W, K, kernel_size, stride, pad, H_out,
/// W_out.
#[derive(Clone, Copy)]
struct Reference {
    numbers: [c_int; 10],
    input: *const f32,
    weights: *const f32,
    output: *mut f32,
}

const NUMBERS: [c_int; 10] = [2, 3, 5, 6, 2, 3, 2, 1, 3, 3];

/// A kernel that compiles. No test here reaches the compiler.
const SHADER: &CStr = c"#version 430 core\nlayout(local_size_x = 64) in;\nvoid main() {}\n";

impl Reference {
    fn params(&self) -> conv2d_params_t {
        let [N, C, H, W, K, kernel_size, stride, pad, H_out, W_out] = self.numbers;
        conv2d_params_t { N, H, W, C, K, kernel_size, stride, pad, H_out, W_out }
    }

    /// Calls all four functions that compute. Each must refuse.
    fn refused(&self, cases: &mut Cases, part: &str) {
        let [n, c, h, w, k, size, stride, pad, p, q] = self.numbers;
        let (x, f, y) = (self.input, self.weights, self.output);
        // SAFETY: the buffers are large enough, or the call must refuse them.
        unsafe {
            cases.refused(-1.0, part, || {
                gpu_execute_conv2d_fortran(x, f, y, n, c, h, w, k, size, stride, pad, p, q)
            });
            cases.refused(-1.0, part, || gpu_execute_conv2d(x, f, y, &self.params()));
            cases.refused(-1.0, part, || {
                gpu_execute_conv2d_custom(0, x, f, y, n, c, h, w, k, size, stride, pad, p, q)
            });
            cases.refused(-1.0, part, || {
                let source = SHADER.as_ptr();
                gpu_execute_conv2d_with_shader(x, f, y, n, c, h, w, k, size, stride, pad, p, q, source)
            });
        }
    }
}

#[test]
fn the_reference_functions_that_compute() {
    let (input, weights) = (vec![1.0f32; 2 * 3 * 5 * 6], vec![1.0f32; 2 * 3 * 9]);
    let mut output = vec![CANARY; 80];
    let start = output[20..].as_mut_ptr();
    let good =
        Reference { numbers: NUMBERS, input: input.as_ptr(), weights: weights.as_ptr(), output: start };
    let mut cases = Cases::default();
    Reference { input: null(), ..good }.refused(&mut cases, "input is NULL");
    Reference { weights: null(), ..good }.refused(&mut cases, "weights is NULL");
    Reference { output: null_mut(), ..good }.refused(&mut cases, "output is NULL");
    let odd = |pointer: *const f32| pointer.wrapping_byte_add(2);
    Reference { input: odd(good.input), ..good }.refused(&mut cases, "input is at address");
    Reference { weights: odd(good.weights), ..good }.refused(&mut cases, "weights is at address");
    Reference { output: odd(start).cast_mut(), ..good }.refused(&mut cases, "output is at address");
    Reference { output: good.input.cast_mut(), ..good }.refused(&mut cases, "same memory as input");
    Reference { output: good.weights.cast_mut(), ..good }.refused(&mut cases, "same memory as weights");
    for (index, number) in NUMBERS.into_iter().enumerate() {
        for value in [c_int::MIN, -1, 0, 1, c_int::MAX - 1, c_int::MAX] {
            // One image, or one input or output channel, is a smaller convolution in the same buffers.
            if value == number || value == 1 && [0, 1, 4].contains(&index) {
                continue;
            }
            let mut bad = good;
            bad.numbers[index] = value;
            bad.refused(&mut cases, "expected ");
        }
    }
    let most = c_int::MAX;
    for numbers in [
        [most; 10],
        [c_int::MIN; 10],
        [0; 10],
        [most, most, most, most, most, 1, 1, 0, most, most],
        [1, 1, 5, 6, most, 1, 1, 0, 5, 6],
        // The order of the struct in place of the function's order.
        [2, 5, 6, 3, 2, 3, 2, 1, 3, 3],
    ] {
        Reference { numbers, ..good }.refused(&mut cases, "expected ");
    }
    // SAFETY: the sizes are valid, and the call refuses NULL.
    unsafe {
        let [n, c, h, w, k, size, stride, pad, p, q] = NUMBERS;
        let (x, f, y) = (good.input, good.weights, start);
        cases.refused(-1.0, "params is NULL", || gpu_execute_conv2d(x, f, y, null()));
        let odd = (&raw const input[0]).wrapping_byte_add(2).cast();
        cases.refused(-1.0, "params is at address", || gpu_execute_conv2d(x, f, y, odd));
        for (source, part) in [(null(), "shader_source is NULL"), (c"\xff".as_ptr(), "UTF-8")] {
            cases.refused(-1.0, part, || {
                gpu_execute_conv2d_with_shader(x, f, y, n, c, h, w, k, size, stride, pad, p, q, source)
            });
            cases.refused(0, part, || gpu_compile_custom_shader(source));
        }
    }
    assert!(output.iter().all(|&value| value == CANARY));
    cases.at_least(230);
}

#[test]
fn the_reference_functions_on_buffers() {
    let mut memory = [7u8; 16];
    let pointer: *mut c_void = memory.as_mut_ptr().cast();
    let mut cases = Cases::default();
    let create = |data, size| {
        // SAFETY: the call must refuse `data`, which is NULL, or the size.
        let buffer = unsafe { gpu_create_buffer(data, size) };
        (buffer.buffer_id, buffer.size_bytes)
    };
    for size in [0, usize::MAX, isize::MAX as usize + 1] {
        cases.refused((0, 0), "size is", || create(null(), size));
        cases.refused((0, 0), "size is", || create(pointer, size));
    }
    cases.refused((0, 0), "data is", || create(pointer, 1 << 46));
    let download = |buffer_id, size_bytes, data| {
        // SAFETY: `data` has room for 16 bytes, or the call must refuse.
        unsafe { gpu_download_buffer(gpu_buffer_t { buffer_id, size_bytes }, data) }
    };
    cases.refused((), "buffer is 0", || download(0, 16, pointer));
    cases.refused((), "buffer is 0", || download(0, 0, null_mut()));
    cases.refused((), "data is NULL", || download(1, 16, null_mut()));
    cases.refused((), "data is", || download(1, usize::MAX, pointer));
    // This buffer does not exist, with or without a device.
    cases.refused((), "", || download(u32::MAX, 16, pointer));
    gpu_free_buffer(gpu_buffer_t { buffer_id: 0, size_bytes: 0 });
    cases.refused((), "", || gpu_free_buffer(gpu_buffer_t { buffer_id: u32::MAX, size_bytes: 16 }));
    cases.refused((), "", || set_conv2d_shader_source(0));
    assert_eq!(memory, [7; 16]);
    cases.at_least(14);
}

#[test]
fn the_reference_function_that_queues() {
    let mut cases = Cases::default();
    let enqueue = |program, params: *const conv2d_params_t| {
        // SAFETY: `params` is NULL or readable, or the call must refuse it.
        unsafe { gpu_enqueue_conv2d(program, 1, 2, 3, params) }
    };
    let [N, C, H, W, K, kernel_size, stride, pad, H_out, W_out] = NUMBERS;
    let good = conv2d_params_t { N, H, W, C, K, kernel_size, stride, pad, H_out, W_out };
    let odd = (&raw const good).wrapping_byte_add(2);
    cases.refused(0, "params is at address", || enqueue(1, odd));
    cases.refused(0, "H_out is 4; expected 3", || enqueue(1, &conv2d_params_t { H_out: 4, ..good }));
    cases.refused(0, "expected 1 to", || enqueue(1, &conv2d_params_t { N: -1, ..good }));
    for program in [-1, c_int::MIN] {
        cases.refused(0, "program is", || enqueue(program, &good));
        cases.refused(0, "program is", || enqueue(program, null()));
    }
    // This program does not exist, with or without a device.
    for program in [0, c_int::MAX] {
        cases.refused(0, "", || enqueue(program, &good));
        cases.refused(0, "", || enqueue(program, null()));
    }
    for program in [c_int::MIN, -1, 0, c_int::MAX] {
        assert_eq!(gpu_is_reference_program(program), 0);
    }
    cases.at_least(11);
}

#[test]
fn the_reference_functions_before_initialisation() {
    // In its own process, because the state belongs to the process.
    let name = "reference::the_reference_functions_before_initialisation";
    if std::env::var("SPARKLE_TEST_CHILD").is_err() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env("SPARKLE_TEST_CHILD", "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let mut cases = Cases::default();
    assert_eq!((gpu_is_initialized(), gpu_get_compute_program()), (0, 0));
    cases.refused(0, "", || gpu_compile_conv2d_shader());
    // SAFETY: the text is valid.
    cases.refused(0, "", || unsafe { gpu_compile_custom_shader(SHADER.as_ptr()) });
    // SAFETY: no data, or room for one byte.
    cases.refused(0, "", || unsafe { gpu_create_buffer(null(), 16) }.buffer_id);
    let (x, mut y) = ([1.0f32], [CANARY]);
    let (input, output) = (x.as_ptr(), y.as_mut_ptr());
    // SAFETY: each buffer has one element, as the sizes say.
    cases.refused(-1.0, "", || unsafe {
        gpu_execute_conv2d_with_shader(input, input, output, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, SHADER.as_ptr())
    });
    gpu_cleanup_opengl();
    assert_eq!((gpu_is_initialized(), y), (0, [CANARY]));
    cases.at_least(4);
}
