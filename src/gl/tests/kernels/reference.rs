//! The 16 kernels of the reference framework.

use super::*;
use crate::problem::{Conv2d, Conv2dDesc, oracle};

/// Points, which no workgroup divides, and further elements, which must stay.
const POINTS: usize = 1003;
const LEN: usize = POINTS + 6;

/// Changes the first [`POINTS`] elements of a result.
fn each(result: &mut Given, mut value: impl FnMut(usize, f32) -> f32) {
    result.reals()[..POINTS].iter_mut().enumerate().for_each(|(i, it)| *it = value(i, *it));
}

#[test]
fn elementary_kernels() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random) = (file("reference/kernels.f90"), Random::new(1));
    let mut data = || reals(&mut random, LEN);
    let given = vec![Given::Ints(vec![7; LEN])];
    checker.check((&unit, "store_deadbeef"), &[POINTS], given, 0.0, |it| {
        it[0].ints()[..POINTS].fill(0xdead_beef_u32 as i32);
    });
    checker.check((&unit, "saxpy"), &[POINTS], vec![real(3.0), data(), data()], 0.0, |it| {
        let x = it[1].reals().clone();
        each(&mut it[2], |i, y| 3.0 * x[i] + y);
    });
    checker.check((&unit, "vector_add"), &[POINTS], vec![data(), data()], 0.0, |it| {
        let x = it[0].reals().clone();
        each(&mut it[1], |i, y| x[i] + y);
    });
    checker.check((&unit, "vector_scale"), &[POINTS], vec![real(-2.5), data()], 0.0, |it| {
        each(&mut it[1], |_, x| -2.5 * x);
    });
    let unit = file("reference/test_conv_simple.f90");
    checker.check((&unit, "conv_simple"), &[POINTS], vec![data(), data(), data()], 0.0, |it| {
        let (x, w) = (it[0].reals().clone(), it[1].reals().clone());
        each(&mut it[2], |i, _| x[i] * w[i]);
    });
    let unit = file("reference/test_multiline_kernel.f90");
    let given = vec![data(), data(), data(), real(0.5), int(-3)];
    checker.check((&unit, "multiline_test"), &[POINTS], given, 0.0, |it| {
        let (x, y) = (it[0].reals().clone(), it[1].reals().clone());
        each(&mut it[2], |i, _| 0.5 * x[i] + y[i] - 3.0);
    });
    let unit = file("reference/test_simple_kernel.f90");
    checker.check((&unit, "simple_add"), &[POINTS], vec![data(), data(), real(1.5)], 0.0, |it| {
        let x = it[0].reals().clone();
        each(&mut it[1], |i, _| x[i] + 1.5);
    });
    let unit = file("reference/kernels_adaptive.f90");
    checker.check((&unit, "scaled_add"), &[POINTS], vec![data(), data(), data(), real(4.0)], 0.0, |it| {
        let (a, b) = (it[0].reals().clone(), it[1].reals().clone());
        each(&mut it[2], |i, _| a[i] + 4.0 * b[i]);
    });
    let given = vec![Given::Ints(vec![7; LEN]), int(3), int(-5)];
    checker.check((&unit, "param_test"), &[POINTS], given, 0.0, |it| it[0].ints()[..POINTS].fill(-15));
    assert_eq!(checker.checked, 9 * 3);
}

#[test]
fn products() {
    let Some(mut checker) = Checker::new() else { return };
    let mut random = Random::new(2);
    let (m, n, k) = (17, 23, 29);
    let kernels = [
        ("kernels_adaptive.f90", "gemm_parameterized", false),
        ("kernels_convolution.f90", "gemm_tiled", true),
        ("kernels_convolution_annotated.f90", "gemm_tiled", false),
    ];
    for (name, kernel, scales) in kernels {
        let unit = file(&format!("reference/{name}"));
        // More points than elements of the product.
        let points = m * n + 70;
        let mut data = |len| reals(&mut random, len);
        let mut given = vec![data(m * k), data(k * n), data(points)];
        given.extend([int(m as i64), int(n as i64), int(k as i64)]);
        if scales {
            given.extend([real(2.0), real(-1.0)]);
        }
        checker.check((&unit, kernel), &[points], given, 0.0, |it| {
            let (a, b) = (it[0].reals().clone(), it[1].reals().clone());
            for (i, c) in it[2].reals()[..m * n].iter_mut().enumerate() {
                let terms = (0..k).map(|p| f64::from(a[i / n * k + p]) * f64::from(b[p * n + i % n]));
                let sum: f64 = terms.sum();
                *c = if scales { 2.0 * sum - f64::from(*c) } else { sum } as f32;
            }
        });
    }
    assert_eq!(checker.checked, 3 * 3);
}

#[test]
fn convolutions() {
    let Some(mut checker) = Checker::new() else { return };
    let mut random = Random::new(3);
    let desc = Conv2dDesc { n: 2, c: 3, h: 9, w: 7, k: 5, r: 3, s: 3, ..Default::default() };
    let desc = Conv2dDesc { stride_h: 2, stride_w: 2, pad_h: 1, pad_w: 1, ..desc };
    let problem = Conv2d::new(desc).unwrap();
    let sizes = problem.sizes();
    let given = |random: &mut Random, sizes_in_order: [i64; 10]| {
        let data = [problem.input_len(), problem.weights_len(), problem.output_len()];
        let mut given = data.map(|len| reals(random, len)).to_vec();
        given.extend(sizes_in_order.map(int));
        given
    };
    let oracle = |it: &mut [Given]| {
        let (input, weights) = (it[0].reals().clone(), it[1].reals().clone());
        let expected = oracle::conv2d(&problem, &input, &weights, None);
        it[2].reals().iter_mut().zip(expected).for_each(|(it, expected)| *it = expected.value as f32);
    };
    let (p, q) = (sizes.p as i64, sizes.q as i64);
    for (name, order) in [
        ("convolution_kernels.f90", [2, 3, 9, 7, 5, 3, 2, 1, p, q]),
        ("kernels_convolution.f90", [2, 3, 9, 7, 5, 3, 2, 1, p, q]),
    ] {
        let unit = file(&format!("reference/{name}"));
        let given = given(&mut random, order);
        checker.check((&unit, "conv2d_direct"), &[problem.output_len()], given, 0.0, oracle);
    }
    assert_eq!(checker.checked, 2 * 3);
}

#[test]
fn im2col() {
    let Some(mut checker) = Checker::new() else { return };
    let mut random = Random::new(4);
    let (height, width, kh, kw) = (11, 9, 3, 2);
    let len = height * width * kh * kw;
    let unit = file("reference/kernels_adaptive.f90");
    let mut given = vec![reals(&mut random, height * width), reals(&mut random, len)];
    given.extend([height, width, kh, kw].map(|size| int(size as i64)));
    checker.check((&unit, "im2col_simple"), &[len], given, 0.0, |it| {
        let input = it[0].reals().clone();
        for (i, value) in it[1].reals().iter_mut().enumerate() {
            let (position, tap) = (i / (kh * kw), i % (kh * kw));
            let (y, x) = (position / width + tap / kw, position % width + tap % kw);
            *value = if y < height && x < width { input[y * width + x] } else { 0.0 };
        }
    });
    let (batch, channels, stride, pad) = (2, 3, 2, 1);
    let (out_h, out_w) = ((height + 2 * pad - kh) / stride + 1, (width + 2 * pad - kw) / stride + 1);
    let len = batch * out_h * out_w * kh * kw * channels;
    let unit = file("reference/kernels_convolution.f90");
    let mut given = vec![reals(&mut random, batch * height * width * channels), reals(&mut random, len)];
    let sizes = [batch, height, width, channels, kh, kw, stride, pad, out_h, out_w];
    given.extend(sizes.map(|size| int(size as i64)));
    checker.check((&unit, "im2col_nhwc"), &[len], given, 0.0, |it| {
        let (input, output) = (it[0].reals().clone(), it[1].reals());
        let mut at = 0;
        for (n, y, x) in
            (0..batch).flat_map(|n| (0..out_h).flat_map(move |y| (0..out_w).map(move |x| (n, y, x))))
        {
            for (r, s, c) in
                (0..kh).flat_map(|r| (0..kw).flat_map(move |s| (0..channels).map(move |c| (r, s, c))))
            {
                let (row, column) = (y * stride + r, x * stride + s);
                let inside = (pad..height + pad).contains(&row) && (pad..width + pad).contains(&column);
                output[at] = match inside {
                    true => input[((n * height + row - pad) * width + column - pad) * channels + c],
                    false => 0.0,
                };
                at += 1;
            }
        }
    });
    assert_eq!(checker.checked, 2 * 3);
}
