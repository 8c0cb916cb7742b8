//! Buffers: lengths and types that are none, ranges beyond the end, handles, and buffers as arguments of kernels.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut, without_provenance, without_provenance_mut};

use sparkle::ffi::buffer::*;
use sparkle::ffi::conv2d::*;
use sparkle::ffi::device::*;
use sparkle::ffi::gemm::*;
use sparkle::ffi::kernel::*;
use sparkle::ffi::launch::{sparkle_arg_form::*, *};
use sparkle::ffi::plan::*;
use sparkle::ffi::status::sparkle_status::{self, *};

use super::cases::{CANARY, Cases, extremes, last_error, open_cpu};
use super::gemm::GEMM;

/// The numbers of sparkle_type.
const INT32: i32 = 0;
const REAL32: i32 = 2;
const REAL64: i32 = 3;

fn create(device: *mut sparkle_device, ty: i32, length: usize) -> *mut sparkle_buffer {
    let mut buffer = null_mut();
    // SAFETY: the place for the handle is valid.
    let status = unsafe { sparkle_buffer_create(device, ty, length, &mut buffer) };
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
    buffer
}

fn write(buffer: *mut sparkle_buffer, offset: usize, data: &[f32]) -> sparkle_status {
    // SAFETY: the data has the stated length.
    unsafe { sparkle_buffer_write(buffer, offset, data.as_ptr().cast(), data.len()) }
}

fn read(buffer: *mut sparkle_buffer, offset: usize, data: &mut [f32]) -> sparkle_status {
    // SAFETY: as above.
    unsafe { sparkle_buffer_read(buffer, offset, data.as_mut_ptr().cast(), data.len()) }
}

#[test]
fn buffers_with_bad_arguments() {
    let (device, mut cases) = (open_cpu(), Cases::default());
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let mut out: *mut sparkle_buffer = null_mut();
    // SAFETY: the place is valid, or the call refuses it because it is NULL or misaligned.
    let made =
        |ty, length, out: *mut *mut sparkle_buffer| unsafe { sparkle_buffer_create(device, ty, length, out) };
    cases.refused(null_pointer, "out is NULL", || made(REAL32, 1, null_mut()));
    let odd = (&raw mut out).wrapping_byte_add(1);
    cases.refused(invalid, "out is at", || made(REAL32, 1, odd));
    for ty in extremes().filter_map(|it| i32::try_from(it).ok()).filter(|it| !(0..=4).contains(it)) {
        cases.refused(invalid, "type is", || made(ty, 1, &mut out));
    }
    for length in [usize::MAX, isize::MAX as usize, isize::MAX as usize / 4 + 1] {
        cases.refused(invalid, "buffer length is", || made(REAL32, length, &mut out));
    }
    cases.refused(invalid, "buffer length is", || made(REAL64, isize::MAX as usize / 8 + 1, &mut out));
    cases.refused(SPARKLE_ERROR_OUT_OF_MEMORY, "out of memory", || made(REAL32, 1 << 60, &mut out));
    assert!(out.is_null());

    let buffer = create(device, REAL32, 5);
    let mut data = [CANARY; 6];
    assert_eq!(read(buffer, 0, &mut data[..5]), SPARKLE_OK);
    assert_eq!(data, [0.0, 0.0, 0.0, 0.0, 0.0, CANARY]);
    assert_eq!(write(buffer, 1, &[1.0, 2.0]), SPARKLE_OK);
    for (offset, length) in [(0, 6), (5, 1), (6, 0), (usize::MAX, 2), (1, 5)] {
        cases.refused(invalid, "buffer range is", || write(buffer, offset, &[CANARY; 6][..length]));
        data = [CANARY; 6];
        cases.refused(invalid, "buffer range is", || read(buffer, offset, &mut data[..length]));
        assert_eq!(data, [CANARY; 6]);
    }
    // SAFETY: the calls refuse the ranges before they use them.
    unsafe {
        let to = |data: *const c_void, length| sparkle_buffer_write(buffer, 0, data, length);
        let from = |data: *mut c_void, length| sparkle_buffer_read(buffer, 0, data, length);
        cases.refused(null_pointer, "data is NULL", || to(null(), 1));
        cases.refused(null_pointer, "data is NULL", || from(null_mut(), 1));
        cases.refused(invalid, "data is the address", || to(data.as_ptr().wrapping_byte_add(2).cast(), 1));
        for length in [usize::MAX, usize::MAX / 4, 1 << 61] {
            cases.refused(invalid, "data is", || to(data.as_ptr().cast(), length));
            cases.refused(invalid, "data is", || from(data.as_mut_ptr().cast(), length));
        }
        cases.refused(invalid, "data is", || to(without_provenance(usize::MAX - 3), 2));
        assert_eq!((to(null(), 0), from(null_mut(), 0)), (SPARKLE_OK, SPARKLE_OK));
    }
    assert_eq!(read(buffer, 0, &mut data[..5]), SPARKLE_OK);
    assert_eq!(data, [0.0, 1.0, 2.0, 0.0, 0.0, CANARY]);

    let foreign = without_provenance_mut::<sparkle_buffer>(buffer.addr() ^ 2);
    assert_eq!(sparkle_buffer_destroy(buffer), SPARKLE_OK);
    assert_eq!(sparkle_buffer_destroy(null_mut()), SPARKLE_OK);
    for handle in [null_mut(), buffer, foreign, device.cast(), without_provenance_mut(usize::MAX)] {
        let bad = SPARKLE_ERROR_INVALID_HANDLE;
        cases.refused(bad, "buffer is ", || write(handle, 0, &[1.0]));
        cases.refused(bad, "buffer is ", || read(handle, 0, &mut data));
        if !handle.is_null() {
            cases.refused(bad, "buffer is ", || sparkle_buffer_destroy(handle));
        }
    }
    // SAFETY: the place is valid, and the call refuses the handle.
    cases.refused(SPARKLE_ERROR_INVALID_HANDLE, "device is 0x", || unsafe {
        sparkle_buffer_create(buffer.cast(), REAL32, 1, &mut out)
    });
    assert_eq!(sparkle_device_close(device), SPARKLE_OK);
    cases.at_least(45);
}

#[test]
fn buffers_of_convolutions_and_products() {
    let (device, mut cases) = (open_cpu(), Cases::default());
    let (bad, invalid) = (SPARKLE_ERROR_INVALID_HANDLE, SPARKLE_ERROR_INVALID_ARGUMENT);
    // A 1x1 convolution of 2 channels of 3 x 3 pixels to 1: 18 elements in, 9 out.
    // SAFETY: a struct of numbers, which the call fills.
    let mut desc: sparkle_conv2d_desc = unsafe { std::mem::zeroed() };
    let (weights, mut plan) = ([1.0_f32, 2.0], null_mut());
    // SAFETY: the struct, the weights and the place for the handle are valid.
    unsafe {
        assert_eq!(sparkle_conv2d_desc_init(&mut desc), SPARKLE_OK);
        (desc.c, desc.h, desc.w) = (2, 3, 3);
        let status = sparkle_plan_create(device, &desc, weights.as_ptr(), 2, null(), 0, &mut plan);
        assert_eq!(status, SPARKLE_OK, "{}", last_error());
    }
    let x = create(device, REAL32, 20);
    let y = create(device, REAL32, 20);
    let doubles = create(device, REAL64, 20);
    let gone = create(device, REAL32, 20);
    assert_eq!(sparkle_buffer_destroy(gone), SPARKLE_OK);
    assert_eq!((write(x, 0, &[1.0; 20]), write(y, 0, &[CANARY; 20])), (SPARKLE_OK, SPARKLE_OK));
    let run = |plan, input, from, output, to| sparkle_plan_execute_buffers(plan, input, from, output, to);
    for handle in [null_mut(), gone, plan.cast(), without_provenance_mut(usize::MAX)] {
        cases.refused(bad, "input is ", || run(plan, handle, 0, y, 0));
        cases.refused(bad, "output is ", || run(plan, x, 0, handle, 0));
        cases.refused(bad, "plan is ", || run(handle.cast::<u8>().wrapping_byte_add(32).cast(), x, 0, y, 0));
    }
    cases.refused(bad, "plan is NULL", || run(null_mut(), x, 0, y, 0));
    for offset in [3, 20, 21, usize::MAX] {
        cases.refused(invalid, "input is 18 elements from", || run(plan, x, offset, y, 0));
    }
    for offset in [12, 21, usize::MAX - 8] {
        cases.refused(invalid, "output is 9 elements from", || run(plan, x, 0, y, offset));
    }
    cases.refused(invalid, "input is a buffer of real(real64)", || run(plan, doubles, 0, y, 0));
    cases.refused(invalid, "output is a buffer of real(real64)", || run(plan, x, 0, doubles, 0));
    cases.refused(invalid, "output is in the same memory as input", || run(plan, x, 0, x, 11));

    let conv = desc;
    let desc = sparkle_gemm_desc { trans_b: 111, m: 2, n: 3, k: 4, lda: 4, ldb: 3, ldc: 3, ..GEMM };
    let multiply =
        |desc: *const sparkle_gemm_desc, [a, b, c]: [*mut sparkle_buffer; 3], [i, j, k]: [usize; 3]| {
            // SAFETY: the description is valid, or the call refuses it because it is NULL.
            unsafe { sparkle_sgemm_buffers(device, desc, a, i, b, j, c, k) }
        };
    cases.refused(SPARKLE_ERROR_NULL_POINTER, "is NULL", || multiply(null(), [x, x, y], [0; 3]));
    for handle in [null_mut(), gone, plan.cast()] {
        cases.refused(bad, "a is ", || multiply(&desc, [handle, x, y], [0; 3]));
        cases.refused(bad, "b is ", || multiply(&desc, [x, handle, y], [0; 3]));
        cases.refused(bad, "c is ", || multiply(&desc, [x, x, handle], [0; 3]));
    }
    for offset in [15, 21, usize::MAX] {
        cases.refused(invalid, "a is 8 elements from", || multiply(&desc, [x, x, y], [offset, 0, 0]));
        cases.refused(invalid, "b is 12 elements from", || multiply(&desc, [x, x, y], [0, offset, 0]));
        cases.refused(invalid, "c is 6 elements from", || multiply(&desc, [x, x, y], [0, 0, offset]));
    }
    cases.refused(invalid, "a is a buffer of real(real64)", || multiply(&desc, [doubles, x, y], [0; 3]));
    cases.refused(invalid, "b is a buffer of real(real64)", || multiply(&desc, [x, doubles, y], [0; 3]));
    cases.refused(invalid, "c is a buffer of real(real64)", || multiply(&desc, [x, x, doubles], [0; 3]));
    cases.refused(invalid, "c is in the same memory as a", || multiply(&desc, [x, y, x], [0, 0, 7]));
    cases.refused(invalid, "c is in the same memory as b", || multiply(&desc, [x, y, y], [0, 0, 11]));
    let call = |desc: *const sparkle_conv2d_desc,
                [x, w, b, y]: [*mut sparkle_buffer; 4],
                [i, j, k, l]: [usize; 4]| {
        // SAFETY: the description is valid, or the call refuses it because it is NULL.
        unsafe { sparkle_conv2d_buffers(device, desc, x, i, w, j, b, k, y, l) }
    };
    let none = null_mut();
    cases.refused(SPARKLE_ERROR_NULL_POINTER, "is NULL", || call(null(), [x, x, none, y], [0; 4]));
    for handle in [null_mut(), gone, plan.cast()] {
        cases.refused(bad, "input is ", || call(&conv, [handle, x, none, y], [0; 4]));
        cases.refused(bad, "weights is ", || call(&conv, [x, handle, none, y], [0; 4]));
        cases.refused(bad, "output is ", || call(&conv, [x, x, none, handle], [0; 4]));
        let biased = sparkle_conv2d_desc { bias: 1, ..conv };
        cases.refused(bad, "bias is ", || call(&biased, [x, x, handle, y], [0; 4]));
    }
    cases.refused(invalid, "bias is given", || call(&conv, [x, x, x, y], [0; 4]));
    cases.refused(invalid, "input is 18 elements from 3", || call(&conv, [x, x, none, y], [3, 0, 0, 0]));
    cases.refused(invalid, "weights is 2 elements from 19", || call(&conv, [x, x, none, y], [0, 19, 0, 0]));
    cases.refused(invalid, "bias is 1 elements from 20", || call(&conv, [x, x, x, y], [0, 0, 20, 0]));
    cases.refused(invalid, "output is 9 elements from 12", || call(&conv, [x, x, none, y], [0, 0, 0, 12]));
    cases.refused(invalid, "weights is a buffer of real(real64)", || {
        call(&conv, [x, doubles, none, y], [0; 4])
    });
    cases
        .refused(invalid, "output is in the same memory as weights", || call(&conv, [x, y, none, y], [0; 4]));
    let mut back = [0.0; 20];
    assert_eq!(read(y, 0, &mut back), SPARKLE_OK);
    assert_eq!(back, [CANARY; 20]);
    // What is next to it is untouched.
    assert_eq!(run(plan, x, 2, y, 11), SPARKLE_OK, "{}", last_error());
    assert_eq!(multiply(&desc, [x, x, y], [0, 8, 1]), SPARKLE_OK, "{}", last_error());
    assert_eq!(read(y, 0, &mut back), SPARKLE_OK);
    let expected = [&[CANARY][..], &[4.0; 6], &[CANARY; 4], &[3.0; 9]].concat();
    assert_eq!(back[..], expected);
    // Both weights are 1.
    assert_eq!(call(&conv, [x, x, none, y], [0, 3, 0, 8]), SPARKLE_OK, "{}", last_error());
    assert_eq!(read(y, 0, &mut back), SPARKLE_OK);
    let expected = [&[CANARY][..], &[4.0; 6], &[CANARY; 1], &[2.0; 9], &[3.0; 3]].concat();
    assert_eq!(back[..], expected);
    for buffer in [x, y, doubles] {
        assert_eq!(sparkle_buffer_destroy(buffer), SPARKLE_OK);
    }
    assert_eq!((sparkle_plan_destroy(plan), sparkle_device_close(device)), (SPARKLE_OK, SPARKLE_OK));
    cases.at_least(45);
}

/// y = x, and a reduction.
const SOURCE: &CStr = c"
!@kernel
!@reduce(+: total)
subroutine copy(i, n, x, y, total)
  use iso_fortran_env
  integer(int32), value :: i, n
  real(real32), intent(in) :: x(0:n-1)
  real(real32), intent(inout) :: y(0:n-1)
  real(real32), intent(inout) :: total
  y(i) = x(i)
  total = total + x(i)
end subroutine
";

#[test]
fn buffers_as_arguments_of_kernels() {
    const N: usize = 8;
    let (device, mut kernel, mut cases) = (open_cpu(), null_mut(), Cases::default());
    // SAFETY: the source and the place for the handle are valid.
    let status =
        unsafe { sparkle_kernel_compile(SOURCE.as_ptr(), SOURCE.count_bytes(), null(), &mut kernel) };
    assert_eq!(status, SPARKLE_OK);
    let x = create(device, REAL32, 2 * N);
    let y = create(device, REAL32, N);
    let doubles = create(device, REAL64, N);
    let mut total = CANARY;
    assert_eq!(write(x, 0, &[1.0; 2 * N]), SPARKLE_OK);
    assert_eq!(write(y, 0, &[CANARY; N]), SPARKLE_OK);
    let blank = sparkle_kernel_arg {
        size: size_of::<sparkle_kernel_arg>(),
        r#type: REAL32,
        form: SPARKLE_ARG_BUFFER as i32,
        address: null(),
        length: N,
        value: sparkle_arg_value { int64: 0 },
        buffer: null_mut(),
        offset: 0,
    };
    let n = sparkle_arg_value { int32: N as i32 };
    let scalar = sparkle_kernel_arg { r#type: INT32, form: 0, length: 0, value: n, ..blank };
    let sum = sparkle_kernel_arg { form: 2, address: (&raw mut total).cast(), length: 1, ..blank };
    let right =
        [scalar, sparkle_kernel_arg { buffer: x, ..blank }, sparkle_kernel_arg { buffer: y, ..blank }, sum];
    let launch = |args: &[sparkle_kernel_arg]| {
        // SAFETY: three extents, as many arguments as the length says, and arrays that are valid or refused.
        unsafe { sparkle_kernel_launch(device, kernel, [N as i64, 1, 1].as_ptr(), args.as_ptr(), 4) }
    };
    let (bad, invalid) = (SPARKLE_ERROR_INVALID_HANDLE, SPARKLE_ERROR_INVALID_ARGUMENT);
    let mut with = |status, index: usize, part: &str, change: &dyn Fn(&mut sparkle_kernel_arg)| {
        let mut args = right;
        change(&mut args[index]);
        cases.refused(status, part, || launch(&args));
    };
    let gone = create(device, REAL32, N);
    assert_eq!(sparkle_buffer_destroy(gone), SPARKLE_OK);
    for (index, name) in [(1, "\"x\""), (2, "\"y\"")] {
        for handle in [null_mut(), gone, kernel.cast(), without_provenance_mut(usize::MAX)] {
            with(bad, index, &format!("kernel argument {name} is "), &|it| it.buffer = handle);
        }
        with(invalid, index, &format!("{name} with an address and a buffer"), &|it| {
            it.address = SOURCE.as_ptr().cast()
        });
        with(invalid, index, &format!("{name} with type real(real32) and a buffer of real(real64)"), &|it| {
            it.buffer = doubles;
        });
        with(invalid, index, &format!("{name} with elements of type real(real64)"), &|it| {
            (it.buffer, it.r#type) = (doubles, REAL64);
        });
        with(invalid, index, &format!("{name} with 7 elements; expected at least 8"), &|it| it.length = 7);
        for (offset, length) in [(2 * N, 1), (1, 2 * N), (usize::MAX, 2), (2, usize::MAX)] {
            with(invalid, index, &format!("{name} with {length} elements from {offset} on"), &|it| {
                (it.offset, it.length) = (offset, length);
            });
        }
        for form in [1, 2] {
            with(invalid, index, &format!("{name} with form = {form}"), &|it| it.form = form);
        }
        with(invalid, index, &format!("{name} with a scalar"), &|it| {
            (it.form, it.buffer, it.length) = (0, null_mut(), 0);
        });
    }
    with(bad, 0, "kernel argument \"n\" is NULL", &|it| it.form = SPARKLE_ARG_BUFFER as i32);
    with(invalid, 0, "\"n\" with an array", &|it| {
        (it.form, it.buffer, it.r#type) = (SPARKLE_ARG_BUFFER as i32, x, REAL32);
    });
    with(invalid, 0, "\"n\" with form = 0", &|it| it.offset = 1);
    // In the memory of another argument.
    with(invalid, 2, "\"y\" with memory of \"x\"", &|it| it.buffer = x);
    with(invalid, 2, "\"y\" with memory of \"x\"", &|it| (it.buffer, it.offset) = (x, N - 1));
    with(invalid, 3, "\"total\" with memory of \"y\"", &|it| {
        (it.form, it.buffer, it.offset, it.address) = (SPARKLE_ARG_BUFFER as i32, y, N - 1, null());
    });
    let mut back = [0.0; N];
    assert_eq!(read(y, 0, &mut back), SPARKLE_OK);
    assert_eq!((back, total), ([CANARY; N], CANARY));
    // Next to it is no overlap.
    let mut args = right;
    (args[2].buffer, args[2].offset) = (x, N);
    match launch(&args) {
        SPARKLE_OK => assert_eq!(total, CANARY + N as f32),
        status => assert_eq!((status, total), (SPARKLE_ERROR_UNSUPPORTED, CANARY), "{}", last_error()),
    }
    for buffer in [x, y, doubles] {
        assert_eq!(sparkle_buffer_destroy(buffer), SPARKLE_OK);
    }
    assert_eq!((sparkle_kernel_destroy(kernel), sparkle_device_close(device)), (SPARKLE_OK, SPARKLE_OK));
    cases.at_least(35);
}
