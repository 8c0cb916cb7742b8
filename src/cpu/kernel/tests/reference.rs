//! The 16 kernels of `tests/kernels/reference`, beside float64 oracles. All numbers are whole and small, so that results
//! are exact.

use super::fortran::Library;
use super::*;

fn i(value: usize) -> Item {
    Item::I(value as i32)
}

fn zeros(count: usize) -> Item {
    Item::Fs(vec![0.0; count])
}

#[track_caller]
fn check(ours: &Item, expected: impl IntoIterator<Item = f64>) {
    let ours: Vec<_> = ours.reals().iter().map(|it| f64::from(*it)).collect();
    assert_eq!(ours, expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn element_wise_kernels() {
    let n = 1000usize;
    let (x, y) = (whole(n, 31, 100), whole(n, 32, 100));
    let (xs, ys) = (Item::Fs(x.clone()), Item::Fs(y.clone()));
    let pairs = || x.iter().zip(&y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
    let file = text("reference/kernels.f90");
    let ours = run(&file, "store_deadbeef", &[n], &[Item::Is(vec![0; n])]);
    assert_eq!(ours[0].integers(), vec![0xDEAD_BEEFu32 as i32; n]);
    let ours = run(&file, "saxpy", &[n], &[Item::F(3.0), xs.clone(), ys.clone()]);
    check(&ours[2], pairs().map(|(x, y)| 3.0 * x + y));
    let ours = run(&file, "vector_add", &[n], &[xs.clone(), ys.clone()]);
    check(&ours[1], pairs().map(|(x, y)| x + y));
    let ours = run(&file, "vector_scale", &[n], &[Item::F(-2.0), xs.clone()]);
    check(&ours[1], pairs().map(|(x, _)| -2.0 * x));
    let file = text("reference/kernels_adaptive.f90");
    let ours = run(&file, "scaled_add", &[n], &[xs.clone(), ys.clone(), zeros(n), Item::F(5.0)]);
    check(&ours[2], pairs().map(|(x, y)| x + 5.0 * y));
    let ours = run(&file, "param_test", &[n], &[Item::Is(vec![0; n]), i(5), i(7)]);
    assert_eq!(ours[0].integers(), vec![35; n]);
    let file = text("reference/test_conv_simple.f90");
    let ours = run(&file, "conv_simple", &[n], &[xs.clone(), ys.clone(), zeros(n)]);
    check(&ours[2], pairs().map(|(x, y)| x * y));
    let file = text("reference/test_multiline_kernel.f90");
    let ours = run(&file, "multiline_test", &[n], &[xs.clone(), ys.clone(), zeros(n), Item::F(4.0), i(9)]);
    check(&ours[2], pairs().map(|(x, y)| 4.0 * x + y + 9.0));
    let file = text("reference/test_simple_kernel.f90");
    let ours = run(&file, "simple_add", &[n], &[xs, zeros(n), Item::F(0.5)]);
    check(&ours[1], pairs().map(|(x, _)| x + 0.5));
}

#[test]
fn products() {
    let (m, n, k) = (13usize, 31usize, 17usize);
    let (a, b, c) = (whole(m * k, 33, 9), whole(k * n, 34, 9), whole(m * n, 35, 9));
    let product = |alpha: f64, beta: f64| {
        let (a, b, c) = (&a, &b, &c);
        (0..m * n).map(move |at| {
            let (row, column) = (at / n, at % n);
            let terms = (0..k).map(|p| f64::from(a[row * k + p]) * f64::from(b[p * n + column]));
            alpha * terms.sum::<f64>() + beta * f64::from(c[at])
        })
    };
    let items = [a.clone(), b.clone(), c.clone()].map(Item::Fs);
    let with = |more: &[Item]| [&items[..], &[i(m), i(n), i(k)], more].concat();
    let ours = run(&text("reference/kernels_adaptive.f90"), "gemm_parameterized", &[m * n], &with(&[]));
    check(&ours[2], product(1.0, 0.0));
    let more = [Item::F(2.0), Item::F(-3.0)];
    let ours = run(&text("reference/kernels_convolution.f90"), "gemm_tiled", &[m * n], &with(&more));
    check(&ours[2], product(2.0, -3.0));
    let file = text("reference/kernels_convolution_annotated.f90");
    let ours = run(&file, "gemm_tiled", &[m * n], &with(&[]));
    check(&ours[2], product(1.0, 0.0));
}

#[test]
fn convolutions() {
    let (n, c, h, w, k, r, stride, pad) = (2usize, 3usize, 9usize, 8usize, 4usize, 3usize, 2usize, 1usize);
    let (p, q) = ((h + 2 * pad - r) / stride + 1, (w + 2 * pad - r) / stride + 1);
    let (input, weights) = (whole(n * c * h * w, 36, 9), whole(k * c * r * r, 37, 9));
    let output = n * k * p * q;
    let expected = (0..output).map(|at| {
        let (x, y, f, image) = (at % q, at / q % p, at / (q * p) % k, at / (q * p * k));
        let mut sum = 0.0;
        for (channel, row, column) in (0..c * r * r).map(|it| (it / (r * r), it / r % r, it % r)) {
            let (y, x) = ((y * stride + row).wrapping_sub(pad), (x * stride + column).wrapping_sub(pad));
            if y < h && x < w {
                sum += f64::from(input[((image * c + channel) * h + y) * w + x])
                    * f64::from(weights[((f * c + channel) * r + row) * r + column]);
            }
        }
        sum
    });
    let items = [
        Item::Fs(input.clone()),
        Item::Fs(weights.clone()),
        zeros(output),
        i(n),
        i(c),
        i(h),
        i(w),
        i(k),
        i(r),
        i(stride),
        i(pad),
        i(p),
        i(q),
    ];
    let one = text("reference/convolution_kernels.f90");
    let dummies =
        [&items[..3], &[i(n), i(c), i(h), i(w), i(k), i(r), i(stride), i(pad), i(p), i(q)]].concat();
    check(&run(&one, "conv2d_direct", &[output], &dummies)[2], expected.clone());
    let other = text("reference/kernels_convolution.f90");
    check(&run(&other, "conv2d_direct", &[output], &items)[2], expected);
}

#[test]
fn columns_of_images() {
    let (h, w, kh, kw) = (7usize, 9usize, 3usize, 2usize);
    let input = whole(h * w, 38, 99);
    let count = h * w * kh * kw;
    let items = [Item::Fs(input.clone()), zeros(count), i(h), i(w), i(kh), i(kw)];
    let ours = run(&text("reference/kernels_adaptive.f90"), "im2col_simple", &[count], &items);
    let expected = (0..count).map(|at| {
        let (position, tap) = (at / (kh * kw), at % (kh * kw));
        let (y, x) = (position / w + tap / kw, position % w + tap % kw);
        if y < h && x < w { f64::from(input[y * w + x]) } else { 0.0 }
    });
    check(&ours[1], expected);
    let (n, c, stride, pad) = (2usize, 3usize, 1usize, 1usize);
    let (p, q) = (h + 2 * pad - kh + 1, w + 2 * pad - kw + 1);
    let input = whole(n * h * w * c, 39, 99);
    let count = n * p * q * kh * kw * c;
    let sizes = [n, h, w, c, kh, kw, stride, pad, p, q].map(i);
    let items = [&[Item::Fs(input.clone()), zeros(count)], &sizes[..]].concat();
    let ours = run(&text("reference/kernels_convolution.f90"), "im2col_nhwc", &[count], &items);
    let expected = (0..count).map(|at| {
        let (channel, column, row) = (at % c, at / c % kw, at / (c * kw) % kh);
        let place = at / (c * kw * kh);
        let (x, y, image) = (place % q, place / q % p, place / (q * p));
        let (y, x) = ((y + row).wrapping_sub(pad), (x + column).wrapping_sub(pad));
        if y < h && x < w { f64::from(input[((image * h + y) * w + x) * c + channel]) } else { 0.0 }
    });
    check(&ours[1], expected);
}

/// The kernels that gfortran accepts, with numbers that round: the same bits.
#[test]
fn the_kernels_that_fortran_has() {
    let n = 777usize;
    let reals = |seed| numbers(n, seed).into_iter().map(|it| it as f32 / 1e8).collect::<Vec<_>>();
    let [x, y, z] = [41, 42, 43].map(reals);
    let [xs, ys, zs] = [&x, &y, &z].map(|it| Item::Fs(it.clone()));
    // Two kernels of this file stand before those in the old form.
    let adaptive = text("reference/kernels_adaptive.f90");
    let cut = adaptive.find("  ! One row of").unwrap();
    let adaptive = format!("{}end module kernels_adaptive\n", &adaptive[..cut]);
    let mut compared = 0;
    for (source, module, name, items) in [
        (text("reference/kernels.f90"), "reference_kernels", "store_deadbeef", vec![Item::Is(vec![0; n])]),
        (
            text("reference/kernels.f90"),
            "reference_kernels",
            "saxpy",
            vec![Item::F(0.3), xs.clone(), ys.clone()],
        ),
        (text("reference/kernels.f90"), "reference_kernels", "vector_add", vec![xs.clone(), ys.clone()]),
        (text("reference/kernels.f90"), "reference_kernels", "vector_scale", vec![Item::F(0.7), xs.clone()]),
        (
            adaptive.clone(),
            "kernels_adaptive",
            "scaled_add",
            vec![xs.clone(), ys.clone(), zs.clone(), Item::F(-1.1)],
        ),
        (adaptive, "kernels_adaptive", "param_test", vec![Item::Is(vec![0; n]), i(123), i(456_789)]),
    ] {
        let ours = run(&source, name, &[n], &items);
        let Some(library) = Library::build_text(&source, module) else { return };
        let mut theirs = items.clone();
        let address = library.subroutine(name);
        for point in 0..n {
            let array = |item: &mut Item| match item {
                Item::Fs(values) => values[point..].as_mut_ptr().cast::<std::ffi::c_void>(),
                Item::Is(values) => values[point..].as_mut_ptr().cast(),
                other => panic!("{other:?}"),
            };
            // SAFETY: each subroutine has these dummies, of which elements are passed by reference.
            unsafe {
                use std::ffi::c_void;
                use std::mem::transmute;
                type At = *mut c_void;
                let index = point as i32;
                match &mut theirs[..] {
                    [a] => transmute::<At, extern "C" fn(i32, At)>(address)(index, array(a)),
                    [Item::F(s), a] => {
                        transmute::<At, extern "C" fn(i32, f32, At)>(address)(index, *s, array(a))
                    }
                    [Item::F(s), a, b] => {
                        let f = transmute::<At, extern "C" fn(i32, f32, At, At)>(address);
                        f(index, *s, array(a), array(b));
                    }
                    [a, b] => transmute::<At, extern "C" fn(i32, At, At)>(address)(index, array(a), array(b)),
                    [a, Item::I(s), Item::I(t)] => {
                        let f = transmute::<At, extern "C" fn(i32, At, i32, i32)>(address);
                        f(index, array(a), *s, *t);
                    }
                    [a, b, c, Item::F(s)] => {
                        let f = transmute::<At, extern "C" fn(i32, At, At, At, f32)>(address);
                        f(index, array(a), array(b), array(c), *s);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.bits(), theirs.bits(), "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 6);
}
