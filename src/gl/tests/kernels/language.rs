//! The programs of `tests/kernels/language`.

use super::*;

#[test]
fn saxpy_and_stencil() {
    let Some(mut checker) = Checker::new() else { return };
    let mut random = Random::new(11);
    let n = 1001;
    let given = vec![int(n), real(3.0), reals(&mut random, 1004), reals(&mut random, 1004)];
    checker.check((&file("language/saxpy.f90"), "saxpy"), &[n as usize], given, 0.0, |it| {
        let x = it[2].reals().clone();
        it[3].reals()[..n as usize].iter_mut().zip(&x).for_each(|(y, x)| *y += 3.0 * x);
    });
    let (n, m) = (37, 53);
    let given = vec![int(37), int(53), reals(&mut random, n * m), reals(&mut random, n * m)];
    checker.check((&file("language/stencil.f90"), "stencil5"), &[n, m], given, 0.0, |it| {
        let (old, new) = (it[2].reals().clone(), it[3].reals());
        for (i, j) in (0..m).flat_map(|j| (0..n).map(move |i| (i, j))) {
            let at = i + n * j;
            let edge = i == 0 || i == n - 1 || j == 0 || j == m - 1;
            new[at] = match edge {
                true => old[at],
                false => 0.25 * (old[at - 1] + old[at + 1] + old[at - n] + old[at + n]),
            };
        }
    });
    assert_eq!(checker.checked, 2 * 3);
}

#[test]
fn workgroup_memory() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random) = (file("language/tiled_sgemm.f90"), Random::new(12));
    let (m, n, k) = (35, 19, 23);
    let mut given = [m, n, k].map(|size| int(size as i64)).to_vec();
    given.extend([m * k, k * n, m * n].map(|len| reals(&mut random, len)));
    checker.check((&unit, "sgemm_tiled"), &[m, n], given, 0.0, |it| {
        let (a, b) = (it[3].reals().clone(), it[4].reals().clone());
        for (at, c) in it[5].reals().iter_mut().enumerate() {
            let terms = (0..k).map(|p| f64::from(a[at % m + m * p]) * f64::from(b[p + k * (at / m)]));
            *c = terms.sum::<f64>() as f32;
        }
    });
    let (n, m) = (37, 21);
    let given = vec![int(37), int(21), reals(&mut random, n * m), reals(&mut random, n * m)];
    checker.check((&unit, "transpose_tiled"), &[n, m], given, 0.0, |it| {
        let a = it[2].reals().clone();
        it[3].reals().iter_mut().enumerate().for_each(|(at, b)| *b = a[at / m + n * (at % m)]);
    });
    assert_eq!(checker.checked, 2 * 3);
}

#[test]
fn names_and_logicals() {
    let Some(mut checker) = Checker::new() else { return };
    let mut random = Random::new(13);
    let (unit, n) = (file("language/names.f90"), 300);
    for end in [5, -5] {
        let mut data = || reals(&mut random, n);
        let mut given = vec![data(), data(), data(), data()];
        given.push(int(end));
        given.push(data());
        given.extend([real(2.0), int(1), int(2), int(3), real(-7.0)]);
        // index, data, sum, if, do, end, vec3, input__x, first, count, main, gl_position
        checker.check((&unit, "names"), &[n], given, 0.0, |it| {
            let (data, vec3) = (it[0].reals().clone(), it[5].reals().clone());
            if end + 1 > 2 - 3 {
                it[2].reals().iter_mut().enumerate().for_each(|(i, it)| *it = (data[i] + vec3[i]) * 2.0);
                it[1].reals().fill(-7.0);
            } else {
                it[3].reals().fill(1.0);
            }
        });
    }
    let unit = file("language/logicals.f90");
    for flip in [false, true] {
        let mut given = vec![int(n as i64), Given::Scalar(Value::Logical(flip))];
        given.extend([0, 1].map(|_| Given::Ints((0..n).map(|_| random.pick(&[0, 1])).collect())));
        checker.check((&unit, "logicals"), &[n], given, 0.0, |it| {
            let a = it[2].ints().clone();
            for (a, b) in a.iter().zip(it[3].ints()) {
                let (seen, was) = ((*a != 0) != flip, *b != 0);
                let done = seen && was;
                *b = i32::from(if !was && !seen { done } else { !done });
            }
        });
    }
    assert_eq!(checker.checked, 4 * 3);
}

#[test]
fn reductions_of_many_blocks() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random) = (file("language/reductions.f90"), Random::new(14));
    // One block, one value in the second, more than 256 blocks.
    for n in [1, 255, 257, 70_001] {
        let given =
            vec![int(n as i64), reals(&mut random, n), reals(&mut random, n), Given::Reals(vec![0.5])];
        checker.check((&unit, "dot"), &[n], given, 0.0, |it| {
            let (x, y) = (it[1].reals().clone(), it[2].reals().clone());
            let sum: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(y)).sum();
            it[3].reals()[0] = (0.5 + sum) as f32;
        });
        // Few values are not zero, so that the product is exact.
        let mut x: Vec<i32> = vec![0; n];
        for _ in 0..40 {
            x[random.between(0, n as i64 - 1) as usize] = random.pick(&[1, -1, 2, -4]);
        }
        let one = |value| Given::Ints(vec![value]);
        let given =
            vec![int(n as i64), Given::Ints(x), one(5), one(-5), one(-1), one(64), Given::Reals(vec![0.5])];
        checker.check((&unit, "extremes"), &[n], given, 0.0, |it| {
            let used: Vec<i32> = it[1].ints().iter().copied().filter(|x| *x != 0).collect();
            let mut fold = |at: usize, with: fn(i32, i32) -> i32| {
                let result = &mut it[at].ints()[0];
                *result = used.iter().copied().fold(*result, with);
            };
            fold(2, i32::min);
            fold(3, i32::max);
            fold(4, |a, b| a & b);
            fold(5, |a, b| a | b);
            let product = used.iter().fold(0.5, |product, x| product * 2.0 * f64::from(*x));
            it[6].reals()[0] = product as f32;
        });
    }
    assert_eq!(checker.checked, 8 * 3);
}

#[test]
fn intrinsics_of_integers_and_doubles() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random, n) = (file("language/intrinsics.f90"), Random::new(15), 700);
    let mut any = |largest: i64| {
        let value = random.between(1, largest) * random.pick(&[1, -1]);
        value as i32
    };
    let a = (0..n).map(|i| any(if i % 2 == 0 { 9 } else { i32::MAX.into() })).collect();
    let b = (0..n).map(|i| any(if i % 3 == 0 { 9 } else { i32::MAX.into() })).collect();
    checker.check(
        (&unit, "integers"),
        &[n],
        vec![int(n as i64), Given::Ints(a), Given::Ints(b)],
        0.0,
        |it| {
            let a = it[1].ints().clone();
            for (&u, b) in a.iter().zip(it[2].ints()) {
                use std::num::Wrapping as W;
                let v = *b;
                let l = u >> 3 & 1 == 1 || u == v;
                let sign = if v < 0 { -W(u.wrapping_abs()) } else { W(u.wrapping_abs()) };
                let difference = W(u) - W(v);
                let dim = if difference.0 <= 0 { W(0) } else { difference };
                let shifted = ((v as u32) >> 3) as i32;
                let mut sum = W(u & v) + W(u | !v) - W(u ^ shifted) * W(u.wrapping_abs()) + sign + dim;
                let modulo = {
                    let rest = u.wrapping_rem(v);
                    if rest != 0 && (rest < 0) != (v < 0) { rest + v } else { rest }
                };
                sum += W(u.wrapping_rem(v)) - W(modulo / 7) + W(u.max(v).max(3)) + W(u.min(v));
                sum += W(u) * W(u) + W(i32::from(l));
                sum += W(i32::MAX) + W(10) + W(15) + W(2) + W(255) + W(5 / u);
                *b = sum.0;
            }
        },
    );
    let mut any = || f64::from(random.between(1, 60) as i32) * 0.25 * random.pick(&[1.0, -1.0]);
    let x: Vec<f64> = (0..n).map(|_| any().abs()).collect();
    let y: Vec<f64> = (0..n).map(|_| any()).collect();
    let a = Given::Scalar(Value::Real64(1.5));
    let given = vec![int(n as i64), a, Given::Doubles(x), Given::Doubles(y)];
    checker.check((&unit, "doubles"), &[n], given, 2e-7, |it| {
        let x = it[2].doubles().clone();
        for (i, (u, y)) in x.into_iter().zip(it[3].doubles()).enumerate() {
            let v = *y;
            let rest = u - v * (u / v).trunc();
            let modulo = if rest != 0.0 && (rest < 0.0) != (v < 0.0) { rest + v } else { rest };
            let one = u.sqrt() + v.abs() + u.max(v) + u.min(v).min(1.0) + u.floor();
            let two = u.ceil() + v.round() + u.trunc() + u.trunc() + rest + modulo;
            let dim = if u - v <= 0.0 { 0.0 } else { u - v };
            let merged = if u == v { v } else { u };
            let three = u.abs().copysign(v) + dim + merged + u * u * u + (i + 1) as f64 + 1.5;
            let four = f64::MAX * f64::MIN_POSITIVE + f64::EPSILON - 0.1;
            *y = f64::from((1.5 * one + two * three - four) as f32);
        }
    });
    assert_eq!(checker.checked, 2 * 3);
}

#[test]
fn transcendental_functions() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random, n) = (file("language/intrinsics.f90"), Random::new(16), 130);
    let mut between =
        |low: f64, high: f64| (low + (high - low) * random.between(0, 1000) as f64 / 1000.0) as f32;
    let x: Vec<f32> = (0..n).map(|_| between(0.1, 0.9)).collect();
    let mut y: Vec<f32> = (0..n).map(|_| between(1.1, 2.0)).collect();
    y.resize(27 * n, 5.0);
    // The first columns of the result are read, too.
    let given = vec![int(n as i64), Given::Reals(x), Given::Reals(y)];
    checker.check((&unit, "reals"), &[n], given, 1e-3, |it| {
        let x = it[1].reals().clone();
        let y = it[2].reals();
        for (i, u) in x.into_iter().enumerate() {
            let (u, v) = (f64::from(u), f64::from(y[i]));
            let columns = [
                u.sqrt(),
                u.exp(),
                u.ln(),
                u.log10(),
                u.sin(),
                u.cos(),
                u.tan(),
                u.asin(),
                u.acos(),
                u.atan() + u.atan2(v),
                u.sinh(),
                u.cosh(),
                u.tanh(),
                u.floor() + u.ceil() + u.round() + u.trunc(),
                u.trunc(),
                u % v,
                u % v,
                u,
                0.0,
                v,
                v,
                u,
                f64::from(f32::MAX),
                u.powf(v) + u.powi(5) + u.exp2(),
                std::f64::consts::PI,
                u,
            ];
            (0..).zip(columns).for_each(|(column, value): (usize, _)| y[column * n + i] = value as f32);
        }
    });
    assert_eq!(checker.checked, 3);
}

/// What `everything` of `statements.f90` does to the point `i`.
fn everything(i: usize, x: &[f32], k: &mut i32, y: &mut f32, flag: &mut i32) {
    let (mut t, mut count, was) = (0.0f32, 0i32, *flag != 0);
    'outer: for j in 1..=x.len() as i32 {
        let value = x[j as usize - 1];
        for l in (1..=15).rev().step_by(2) {
            if (j + l) % 7 == 3 {
                continue 'outer;
            }
            if j * l > 100 {
                break 'outer;
            }
            t += value * l as f32;
            count += 1;
        }
        if value >= 45.0 && !was {
            break;
        }
    }
    match *k {
        ..=-1 => t = -t,
        0 | 5..=9 => t *= t,
        10 => return,
        _ => t = t.abs().sqrt() + 2f32.powi(-*k),
    }
    let small = [t, t + 1.0, t + 2.0, t + 3.0];
    let mut found = false;
    while !found && count > 0 {
        count /= 2;
        found = count < 3 || small[count.rem_euclid(4) as usize] > 1e3;
    }
    let scaled = |v: f32, by: f32| if v < 0.0 { 0.0 } else { v * by };
    t = scaled(t, scaled(x[i], 2.0));
    count = (t as i32 + 1).max(6);
    if found {
        *y = t;
    } else if t > 0.0 {
        *y = t.max(x[i]).max(0.5) + if was { 1.0 } else { 2.0 };
    } else {
        *y = -f32::MAX;
    }
    *flag = i32::from(found != was);
    *k = (*k ^ (count << 3))
        .wrapping_add(t.round() as i32)
        .wrapping_add(t.floor() as i32)
        .wrapping_sub(i32::MIN);
}

#[test]
fn every_statement() {
    let Some(mut checker) = Checker::new() else { return };
    let (unit, mut random, n) = (file("language/statements.f90"), Random::new(17), 90);
    let x: Vec<f32> = (0..n).map(|_| random.between(-3, 9) as f32).collect();
    let k = (0..n).map(|_| random.pick(&[-3, 0, 2, 7, 10])).collect();
    let flags = (0..n).map(|_| random.pick(&[0, 1])).collect();
    let given =
        vec![int(n as i64), Given::Reals(x), Given::Ints(k), reals(&mut random, n), Given::Ints(flags)];
    checker.check((&unit, "everything"), &[n], given, 1e-6, |it| {
        let [_, x, k, y, flags] = it else { panic!("{it:?}") };
        let x = x.reals().clone();
        let rest = k.ints().iter_mut().zip(y.reals()).zip(flags.ints());
        rest.enumerate().for_each(|(i, ((k, y), flag))| everything(i, &x, k, y, flag));
    });
    assert_eq!(checker.checked, 3);
}
