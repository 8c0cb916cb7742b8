//! Other forms of a convolution: signals, double precision, without a status, and weights that are replaced.

use std::ptr::{null, null_mut};

use sparkle::ffi::status::sparkle_status::*;
use sparkle::ffi::{conv1d::*, conv2d::*, conv2d_forms::*, plan::*};

use super::cases::{CANARY, Cases, extremes, last_error, open_cpu};
use super::conv2d::Memory;

#[test]
fn descriptions_of_signals() {
    let mut cases = Cases::default();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    // SAFETY: both structs have only integers.
    let (mut desc, mut out): (sparkle_conv1d_desc, sparkle_conv2d_desc) = unsafe { std::mem::zeroed() };
    // SAFETY: all pointers are valid, or the call refuses them.
    unsafe {
        cases.refused(null_pointer, "out is NULL", || sparkle_conv1d_desc_init(null_mut()));
        assert_eq!(sparkle_conv1d_desc_init(&mut desc), SPARKLE_OK);
        for size in [0, 8, 135, 185, 1000] {
            cases.refused(invalid, "size is ", || sparkle_conv2d_desc_init_sized(&mut out, size));
        }
        cases.refused(null_pointer, "out is NULL", || sparkle_conv2d_desc_init_sized(null_mut(), 136));
        assert_eq!(sparkle_conv2d_desc_init_sized(&mut out, size_of_val(&out)), SPARKLE_OK);
        cases.refused(null_pointer, "desc is NULL", || sparkle_conv1d_as_conv2d(null(), &mut out));
        cases.refused(null_pointer, "is NULL", || sparkle_conv1d_as_conv2d(&desc, null_mut()));
        assert_eq!(sparkle_conv1d_as_conv2d(&desc, &mut out), SPARKLE_OK);
        let short = sparkle_conv2d_desc { size: 136, ..out };
        let mut given = short;
        cases.refused(invalid, "out->size is 136", || sparkle_conv1d_as_conv2d(&desc, &mut given));
        type Set = fn(&mut sparkle_conv1d_desc, i64);
        let fields: [(&str, Set); 9] = [
            ("n", |it, value| it.n = value),
            ("c", |it, value| it.c = value),
            ("w", |it, value| it.w = value),
            ("k", |it, value| it.k = value),
            ("s", |it, value| it.s = value),
            ("stride", |it, value| it.stride = value),
            ("pad_left", |it, value| it.pad_left = value),
            ("dilation", |it, value| it.dilation = value),
            ("groups", |it, value| it.groups = value),
        ];
        for (name, set) in fields {
            for value in [-1, i64::MIN, i64::MAX] {
                let mut wrong = desc;
                set(&mut wrong, value);
                cases.refused(invalid, name, || sparkle_conv1d_as_conv2d(&wrong, &mut out));
            }
        }
        for value in
            extremes().filter_map(|value| i32::try_from(value).ok()).filter(|it| !(0..=2).contains(it))
        {
            let wrong = sparkle_conv1d_desc { weights_layout: value, ..desc };
            cases.refused(invalid, "weights_layout is ", || sparkle_conv1d_as_conv2d(&wrong, &mut out));
            let wrong = sparkle_conv1d_desc { padding: value, ..desc };
            cases.refused(invalid, "padding is ", || sparkle_conv1d_as_conv2d(&wrong, &mut out));
            let wrong = sparkle_conv1d_desc { input_layout: value, ..desc };
            cases.refused(invalid, "input_layout is ", || sparkle_conv1d_as_conv2d(&wrong, &mut out));
        }
        let mut output = [CANARY];
        let one = [1.0f32];
        let conv1d = |input: *const f32, output: *mut f32, len| {
            sparkle_conv1d(open_cpu(), &desc, input, len, one.as_ptr(), 1, null(), 0, output, 1)
        };
        cases.refused(null_pointer, "input is NULL", || conv1d(null(), output.as_mut_ptr(), 1));
        cases.refused(null_pointer, "output is NULL", || conv1d(one.as_ptr(), null_mut(), 1));
        cases.refused(invalid, "input length is 2", || conv1d(one.as_ptr(), output.as_mut_ptr(), 2));
        assert_eq!(output, [CANARY]);
    }
    cases.at_least(50);
}

#[test]
fn convolutions_of_doubles_and_without_a_status() {
    let mut cases = Cases::default();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let desc = Memory::new().conv(null_mut()).desc;
    let (x, w, b, mut y) = (vec![1.0f64; 240], vec![1.0f64; 108], vec![1.0f64; 6], vec![5.0f64; 144]);
    let y_pointer = y.as_mut_ptr();
    let call = |x: *const f64,
                x_len: usize,
                w: *const f64,
                w_len: usize,
                b: *const f64,
                y: *mut f64,
                y_len: usize| {
        // SAFETY: the buffers have these lengths, or the call refuses them.
        unsafe { sparkle_conv2d_f64(null_mut(), &desc, x, x_len, w, w_len, b, 6, y, y_len) }
    };
    let (px, pw, pb) = (x.as_ptr(), w.as_ptr(), b.as_ptr());
    cases.refused(null_pointer, "input is NULL", || call(null(), 240, pw, 108, pb, y_pointer, 144));
    cases.refused(null_pointer, "weights is NULL", || call(px, 240, null(), 108, pb, y_pointer, 144));
    cases.refused(null_pointer, "bias is NULL", || call(px, 240, pw, 108, null(), y_pointer, 144));
    cases.refused(null_pointer, "output is NULL", || call(px, 240, pw, 108, pb, null_mut(), 144));
    cases.refused(invalid, "input length is 239", || call(px, 239, pw, 108, pb, y_pointer, 144));
    cases.refused(invalid, "weights length is 1", || call(px, 240, pw, 1, pb, y_pointer, 144));
    cases.refused(invalid, "output length is 145", || call(px, 240, pw, 108, pb, y_pointer, 145));
    let odd = px.wrapping_byte_add(4);
    cases.refused(invalid, "input is at address", || call(odd, 240, pw, 108, pb, y_pointer, 144));
    cases.refused(invalid, "same memory as input", || call(px, 240, pw, 108, pb, px.cast_mut(), 144));
    assert!(y.iter().all(|&value| value == 5.0) && x.iter().all(|&value| value == 1.0));

    let mut memory = Memory::new();
    let good = memory.conv(null_mut());
    let mut output = vec![CANARY; good.output.1];
    let wrong = sparkle_conv2d_desc { stride_w: 0, ..good.desc };
    let (input, weights, bias) = (good.input, good.weights, good.bias);
    for (desc, len) in [(&raw const wrong, input.1), (&raw const good.desc, 7), (null(), input.1)] {
        output.fill(CANARY);
        let (to, count) = (output.as_mut_ptr(), output.len());
        // SAFETY: the buffers are valid; the call refuses the others.
        unsafe {
            sparkle_conv2d_or_nan(desc, input.0, len, weights.0, weights.1, bias.0, bias.1, to, count);
        }
        assert!(output.iter().all(|value| value.is_nan()) && !last_error().is_empty());
    }
    cases.at_least(9);
}

#[test]
fn weights_that_are_replaced() {
    let mut cases = Cases::default();
    let (null_pointer, invalid) = (SPARKLE_ERROR_NULL_POINTER, SPARKLE_ERROR_INVALID_ARGUMENT);
    let mut memory = Memory::new();
    let good = memory.conv(open_cpu());
    let (weights, bias) = (good.weights, good.bias);
    let mut plan = null_mut();
    // SAFETY: the buffers are valid, or the call refuses them.
    unsafe {
        let status =
            sparkle_plan_create(good.device, &good.desc, weights.0, weights.1, bias.0, bias.1, &mut plan);
        assert_eq!(status, SPARKLE_OK);
        let set = |weights: (*const f32, usize), bias: (*const f32, usize)| {
            sparkle_plan_set_weights(plan, weights.0, weights.1, bias.0, bias.1)
        };
        assert_eq!(set(weights, bias), SPARKLE_OK);
        cases.refused(null_pointer, "weights is NULL", || set((null(), weights.1), bias));
        cases.refused(null_pointer, "bias is NULL", || set(weights, (null(), bias.1)));
        cases.refused(invalid, "weights length is 3", || set((weights.0, 3), bias));
        cases.refused(invalid, "bias length is 0", || set(weights, (null(), 0)));
        let odd = weights.0.wrapping_byte_add(1);
        cases.refused(invalid, "weights is at address", || set((odd, weights.1), bias));
        cases.refused(SPARKLE_ERROR_INVALID_HANDLE, "plan is NULL", || {
            sparkle_plan_set_weights(null_mut(), weights.0, weights.1, bias.0, bias.1)
        });
        assert_eq!(sparkle_plan_destroy(plan), SPARKLE_OK);
        cases.refused(SPARKLE_ERROR_INVALID_HANDLE, "plan is 0x", || set(weights, bias));
    }
    cases.at_least(7);
}
