//! Epilogues: sources, plans and runs with every wrong argument. Nothing runs, and outputs are untouched.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};

use sparkle::ffi::buffer::*;
use sparkle::ffi::conv2d::*;
use sparkle::ffi::device::*;
use sparkle::ffi::epilogue::*;
use sparkle::ffi::gemm::*;
use sparkle::ffi::launch::{sparkle_arg_form::*, *};
use sparkle::ffi::plan::*;
use sparkle::ffi::status::sparkle_status::{self, *};

use super::cases::{CANARY, last_error, open_cpu};

const SOURCE: &CStr = c"
!@epilogue
pure function residual(x, channel, position, slope, skip) result(y)
  use iso_fortran_env, only: int32, real32
  real(real32), intent(in) :: x, slope, skip(*)
  integer(int32), intent(in) :: channel, position
  real(real32) :: y
  y = slope * x + skip(position + 1)
end function
";

const N: usize = 6;

fn compiled() -> *mut sparkle_epilogue {
    let mut epilogue = null_mut();
    // SAFETY: the source and the place for the handle are valid; there is one epilogue.
    let status =
        unsafe { sparkle_epilogue_compile(SOURCE.as_ptr(), SOURCE.count_bytes(), null(), &mut epilogue) };
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
    epilogue
}

/// A 1 x 1 convolution of N pixels of one channel.
fn desc() -> sparkle_conv2d_desc {
    // SAFETY: numbers may be zero; the function sets all of them.
    let mut desc: sparkle_conv2d_desc = unsafe { std::mem::zeroed() };
    desc.size = size_of::<sparkle_conv2d_desc>();
    // SAFETY: a struct of the size that it states.
    assert_eq!(unsafe { sparkle_conv2d_desc_init(&mut desc) }, SPARKLE_OK);
    (desc.n, desc.c, desc.h, desc.w, desc.k, desc.r, desc.s) = (1, 1, 1, N as i64, 1, 1, 1);
    desc
}

fn scalar(value: f32) -> sparkle_kernel_arg {
    sparkle_kernel_arg {
        size: size_of::<sparkle_kernel_arg>(),
        r#type: 2,
        form: SPARKLE_ARG_SCALAR as i32,
        address: null(),
        length: 0,
        value: sparkle_arg_value { real32: value },
        buffer: null_mut(),
        offset: 0,
    }
}

fn array(address: *const c_void, length: usize) -> sparkle_kernel_arg {
    let value = sparkle_arg_value { int64: 0 };
    sparkle_kernel_arg { form: SPARKLE_ARG_INPUT as i32, address, length, value, ..scalar(0.0) }
}

fn create(
    device: *mut sparkle_device,
    epilogue: *mut sparkle_epilogue,
) -> (sparkle_status, *mut sparkle_plan) {
    let mut plan = null_mut();
    // SAFETY: a weight, no bias, and a place for the handle.
    let status = unsafe {
        sparkle_plan_create_fused(device, &desc(), [3.0f32].as_ptr(), 1, null(), 0, epilogue, &mut plan)
    };
    (status, plan)
}

#[test]
fn a_fused_plan_from_c() {
    let (device, epilogue) = (open_cpu(), compiled());
    let (status, plan) = create(device, epilogue);
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
    // The plan keeps what it needs.
    assert_eq!(sparkle_epilogue_destroy(epilogue), SPARKLE_OK);
    let (input, skip) = ([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0f32, 20.0, 30.0, 40.0, 50.0, 60.0]);
    let mut output = [CANARY; N];
    let args = [scalar(2.0), array(skip.as_ptr().cast(), N)];
    let mut run = |args: *const sparkle_kernel_arg, len| {
        // SAFETY: input and output have N elements; the arguments are as the test says, or refused before they are read.
        let status =
            unsafe { sparkle_plan_execute_fused(plan, input.as_ptr(), N, output.as_mut_ptr(), N, args, len) };
        (status, output)
    };
    // Every refusal leaves the output as it is.
    let mut refused = |args: &[sparkle_kernel_arg], status, text: &str| {
        let (got, output) = run(args.as_ptr(), args.len());
        assert_eq!((got, output), (status, [CANARY; N]), "{text}: {}", last_error());
        assert!(last_error().contains(text), "{text}: {}", last_error());
    };
    refused(&args[..1], SPARKLE_ERROR_INVALID_ARGUMENT, "number of epilogue arguments is 1; expected 2");
    let swapped = [array(skip.as_ptr().cast(), N), scalar(2.0)];
    refused(&swapped, SPARKLE_ERROR_INVALID_ARGUMENT, "epilogue argument is \"slope\"");
    let typed = [sparkle_kernel_arg { r#type: 99, ..scalar(2.0) }, args[1]];
    refused(&typed, SPARKLE_ERROR_INVALID_ARGUMENT, "epilogue argument is \"slope\" with type = 99");
    let of_null = [args[0], array(null(), N)];
    refused(&of_null, SPARKLE_ERROR_NULL_POINTER, "skip");
    let form = SPARKLE_ARG_BUFFER as i32;
    let destroyed = [args[0], sparkle_kernel_arg { form, ..array(null(), N) }];
    refused(&destroyed, SPARKLE_ERROR_INVALID_HANDLE, "epilogue argument \"skip\"");
    assert_eq!(run(null(), 2).0, SPARKLE_ERROR_NULL_POINTER);
    let overlapping = [args[0], array(output.as_ptr().cast(), N)];
    // SAFETY: as above; the call is refused because the array is the output.
    let status = unsafe {
        let output = output.as_mut_ptr();
        sparkle_plan_execute_fused(plan, input.as_ptr(), N, output, N, overlapping.as_ptr(), 2)
    };
    assert_eq!((status, output), (SPARKLE_ERROR_INVALID_ARGUMENT, [CANARY; N]));
    assert!(last_error().contains("\"skip\" with memory of the output"), "{}", last_error());

    // SAFETY: as above.
    let status = unsafe {
        sparkle_plan_execute_fused(plan, input.as_ptr(), N, output.as_mut_ptr(), N, args.as_ptr(), 2)
    };
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
    assert_eq!(output, [16.0, 32.0, 48.0, 64.0, 80.0, 96.0]);

    // The same on buffers.
    let [mut from, mut to] = [null_mut::<sparkle_buffer>(); 2];
    // SAFETY: places for handles, and N elements.
    unsafe {
        assert_eq!(sparkle_buffer_create(device, 2, N, &mut from), SPARKLE_OK);
        assert_eq!(sparkle_buffer_create(device, 2, N, &mut to), SPARKLE_OK);
        assert_eq!(sparkle_buffer_write(from, 0, input.as_ptr().cast(), N), SPARKLE_OK);
        let run = |args: &[sparkle_kernel_arg]| {
            sparkle_plan_execute_fused_buffers(plan, from, 0, to, 0, args.as_ptr(), args.len())
        };
        let mut own = [args[0], sparkle_kernel_arg { form, buffer: to, ..array(null(), N) }];
        assert_eq!(run(&own), SPARKLE_ERROR_INVALID_ARGUMENT);
        assert!(last_error().contains("\"skip\" with memory of the output"), "{}", last_error());
        own[1].buffer = from;
        assert_eq!(run(&own), SPARKLE_OK, "{}", last_error());
        let mut output = [CANARY; N];
        assert_eq!(sparkle_buffer_read(to, 0, output.as_mut_ptr().cast(), N), SPARKLE_OK);
        assert_eq!(output, [7.0, 14.0, 21.0, 28.0, 35.0, 42.0]);
        let none = sparkle_plan_execute_fused_buffers(plan, null_mut(), 0, to, 0, own.as_ptr(), 2);
        assert_eq!(none, SPARKLE_ERROR_INVALID_HANDLE);
    }
    assert_eq!(sparkle_buffer_destroy(from), SPARKLE_OK);
    assert_eq!(sparkle_buffer_destroy(to), SPARKLE_OK);
    assert_eq!(sparkle_plan_destroy(plan), SPARKLE_OK);
}

#[test]
fn products_from_c() {
    let (device, epilogue) = (open_cpu(), compiled());
    let desc = sparkle_gemm_desc {
        size: size_of::<sparkle_gemm_desc>(),
        layout: 101,
        trans_a: 111,
        trans_b: 111,
        m: 2,
        n: 2,
        k: 1,
        alpha: 1.0,
        lda: 1,
        ldb: 2,
        beta: 0.0,
        ldc: 3,
    };
    let (a, b, skip) = ([1.0f32, 2.0], [3.0f32, 4.0], [10.0f32, 20.0, 30.0, 40.0, 50.0]);
    let args = [scalar(2.0), array(skip.as_ptr().cast(), 5)];
    let mut c = [CANARY; 5];
    let mut run = |epilogue, args: &[sparkle_kernel_arg]| {
        // SAFETY: the matrices have these lengths; the arguments are as the test says.
        let status = unsafe {
            let c = c.as_mut_ptr();
            let (a, b, args, len) = (a.as_ptr(), b.as_ptr(), args.as_ptr(), args.len());
            sparkle_sgemm_fused(device, &desc, a, 2, b, 2, c, 5, epilogue, args, len)
        };
        (status, c)
    };
    assert_eq!(run(null_mut(), &args), (SPARKLE_ERROR_INVALID_HANDLE, [CANARY; 5]));
    assert_eq!(run(epilogue, &args[..1]), (SPARKLE_ERROR_INVALID_ARGUMENT, [CANARY; 5]));
    assert_eq!(run(epilogue, &args), (SPARKLE_OK, [16.0, 28.0, CANARY, 52.0, 66.0]), "{}", last_error());

    let mut buffers = [null_mut::<sparkle_buffer>(); 3];
    // SAFETY: places for handles, and as many elements as the buffers have.
    unsafe {
        for (buffer, data) in buffers.iter_mut().zip([&a[..], &b[..], &[CANARY; 5][..]]) {
            assert_eq!(sparkle_buffer_create(device, 2, data.len(), buffer), SPARKLE_OK);
            assert_eq!(sparkle_buffer_write(*buffer, 0, data.as_ptr().cast(), data.len()), SPARKLE_OK);
        }
        let [a, b, c] = buffers;
        let run = |epilogue, args: &[sparkle_kernel_arg]| {
            sparkle_sgemm_fused_buffers(device, &desc, a, 0, b, 0, c, 0, epilogue, args.as_ptr(), args.len())
        };
        assert_eq!(run(null_mut(), &args), SPARKLE_ERROR_INVALID_HANDLE);
        assert_eq!(run(epilogue, &args[1..]), SPARKLE_ERROR_INVALID_ARGUMENT);
        assert_eq!(run(epilogue, &args), SPARKLE_OK, "{}", last_error());
        let mut got = [0.0f32; 5];
        assert_eq!(sparkle_buffer_read(c, 0, got.as_mut_ptr().cast(), 5), SPARKLE_OK);
        assert_eq!(got, [16.0, 28.0, CANARY, 52.0, 66.0]);
    }
    buffers.into_iter().for_each(|buffer| assert_eq!(sparkle_buffer_destroy(buffer), SPARKLE_OK));
    assert_eq!(sparkle_epilogue_destroy(epilogue), SPARKLE_OK);
}

#[test]
fn sources_and_handles() {
    let mut out: *mut sparkle_epilogue = null_mut();
    // SAFETY: sources with their lengths, names that end with a NUL, and a place for the handle where there is one.
    unsafe {
        let len = SOURCE.count_bytes();
        let compile = |source, len, name, out| sparkle_epilogue_compile(source, len, name, out);
        assert_eq!(compile(null(), len, null(), &mut out), SPARKLE_ERROR_NULL_POINTER);
        assert_eq!(compile(SOURCE.as_ptr(), len, null(), null_mut()), SPARKLE_ERROR_NULL_POINTER);
        let other = c"other".as_ptr();
        assert_eq!(compile(SOURCE.as_ptr(), len, other, &mut out), SPARKLE_ERROR_INVALID_ARGUMENT);
        assert!(last_error().contains("expected one of: residual"), "{}", last_error());
        assert_eq!(compile(SOURCE.as_ptr(), len - 20, null(), &mut out), SPARKLE_ERROR_INVALID_ARGUMENT);
        assert!(last_error().contains("error[K"), "{}", last_error());
        assert_eq!(sparkle_epilogue_compile_file(null(), null(), &mut out), SPARKLE_ERROR_NULL_POINTER);
        let missing = sparkle_epilogue_compile_file(c"/nonexistent.f90".as_ptr(), null(), &mut out);
        assert_eq!((missing, out), (SPARKLE_ERROR_INVALID_ARGUMENT, null_mut()));
    }
    assert_eq!(sparkle_epilogue_destroy(null_mut()), SPARKLE_OK);
    let (device, epilogue) = (open_cpu(), compiled());
    assert_eq!(create(device, null_mut()).0, SPARKLE_ERROR_INVALID_HANDLE);
    assert_eq!(sparkle_epilogue_destroy(epilogue), SPARKLE_OK);
    assert_eq!(sparkle_epilogue_destroy(epilogue), SPARKLE_ERROR_INVALID_HANDLE);
    assert_eq!(create(device, epilogue).0, SPARKLE_ERROR_INVALID_HANDLE);
    // A plan without an epilogue has no arguments.
    let (mut plan, mut output) = (null_mut(), [CANARY; N]);
    // SAFETY: a weight, no bias, N elements, and a place for the handle.
    let status = unsafe {
        let status = sparkle_plan_create(device, &desc(), [3.0f32].as_ptr(), 1, null(), 0, &mut plan);
        assert_eq!(status, SPARKLE_OK);
        sparkle_plan_execute_fused(plan, [1.0f32; N].as_ptr(), N, output.as_mut_ptr(), N, null(), 0)
    };
    assert_eq!((status, output), (SPARKLE_ERROR_INVALID_ARGUMENT, [CANARY; N]));
    assert!(last_error().contains("without an epilogue"), "{}", last_error());
    assert_eq!(sparkle_plan_destroy(plan), SPARKLE_OK);
}
