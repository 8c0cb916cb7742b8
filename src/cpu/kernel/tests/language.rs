//! The programs of `tests/kernels/language`, beside gfortran or beside an oracle.

use super::fortran::{Descriptor, Library};
use super::*;

/// Calls a subroutine of a library: its address as a function with these arguments.
macro_rules! call {
    ($library:expr, $name:literal, ($($argument:expr => $ty:ty),*)) => {{
        let address = $library.subroutine($name);
        // SAFETY: the subroutine has these dummies, and the arrays have the lengths that it expects.
        unsafe {
            let subroutine: unsafe extern "C" fn($($ty),*) = std::mem::transmute(address);
            subroutine($($argument),*);
        }
    }};
}

fn same(one: &[Item], other: &[Item]) {
    for (position, (one, other)) in one.iter().zip(other).enumerate() {
        let (one, other) = (one.bits(), other.bits());
        let at = one.iter().zip(&other).position(|(one, other)| one != other);
        assert!(
            at.is_none() && one.len() == other.len(),
            "argument {position} at {at:?}: {:x?}",
            at.map(|at| (one[at], other[at]))
        );
    }
}

#[test]
fn saxpy() {
    let Some(library) = Library::build("saxpy", "saxpy_kernels") else { return };
    for n in [1usize, 255, 256, 257, 10_000] {
        let real = |seed| numbers(n, seed).into_iter().map(|it| it as f32 * 1e-7).collect::<Vec<_>>();
        let (x, mut y) = (real(1), real(2));
        let items = [Item::I(n as i32), Item::F(0.7), Item::Fs(x.clone()), Item::Fs(y.clone())];
        let ours = run(&text("language/saxpy.f90"), "saxpy", &[n], &items);
        for i in 0..n as i32 {
            call!(library, "saxpy", (i => i32, n as i32 => i32, 0.7 => f32, x.as_ptr() => *const f32, y.as_mut_ptr() => *mut f32));
        }
        same(&ours[3..], &[Item::Fs(y)]);
    }
}

#[test]
fn stencil() {
    let Some(library) = Library::build("stencil", "stencil_kernels") else { return };
    let (n, m) = (300usize, 7usize);
    let (old, mut new) = (whole(n * m, 3, 100), vec![0.0f32; n * m]);
    let items = [Item::I(n as i32), Item::I(m as i32), Item::Fs(old.clone()), Item::Fs(new.clone())];
    let ours = run(&text("language/stencil.f90"), "stencil5", &[n, m], &items);
    for j in 1..=m as i32 {
        for i in 1..=n as i32 {
            call!(library, "stencil5", (i => i32, j => i32, n as i32 => i32, m as i32 => i32,
                old.as_ptr() => *const f32, new.as_mut_ptr() => *mut f32));
        }
    }
    same(&ours[3..], &[Item::Fs(new)]);
}

#[test]
fn statements() {
    let Some(library) = Library::build("statements", "statement_kernels") else { return };
    let n = 700usize;
    // The loops read the first ones, whose sums have to fit into an integer.
    let mut x = whole(n, 5, 60);
    x[..8].iter_mut().for_each(|it| *it /= 64.0);
    x[4] = 46.0;
    let mut k: Vec<i32> = numbers(n, 6).into_iter().map(|it| it.rem_euclid(16) - 4).collect();
    let mut flags: Vec<i32> = numbers(n, 7).into_iter().map(|it| it & 1).collect();
    let mut y = vec![0.0f32; n];
    let items = [
        Item::I(n as i32),
        Item::Fs(x.clone()),
        Item::Is(k.clone()),
        Item::Fs(y.clone()),
        Item::Is(flags.clone()),
    ];
    let ours = run(&text("language/statements.f90"), "everything", &[n], &items);
    // Other points' flags are read, in an order that the language leaves open: so are only those that stay as they are.
    let before = flags.clone();
    for i in 1..=n as i32 {
        let mut own = before.clone();
        let descriptor = Descriptor::of(&mut y);
        call!(library, "everything", (i => i32, n as i32 => i32, x.as_ptr() => *const f32, k.as_mut_ptr() => *mut i32,
            &descriptor => *const Descriptor, own.as_mut_ptr() => *mut i32));
        flags[i as usize - 1] = own[i as usize - 1];
    }
    let changed = before.iter().zip(&flags).any(|(before, after)| before != after);
    let items = [Item::Is(k), Item::Fs(y), Item::Is(flags)];
    assert!(changed);
    same(&ours[2..], &items);
}

#[test]
fn real_intrinsics() {
    let Some(library) = Library::build("intrinsics", "intrinsic_kernels") else { return };
    let n = 400usize;
    let scaled = |seed, by: f32| numbers(n, seed).into_iter().map(move |it| it as f32 / 2147483648.0 * by);
    let x: Vec<f32> = scaled(8, 3.0).collect();
    let mut y = vec![0.0f32; n * 27];
    scaled(9, 2.5).zip(&mut y).for_each(|(from, to)| *to = from);
    let items = [Item::I(n as i32), Item::Fs(x.clone()), Item::Fs(y.clone())];
    let ours = run(&text("language/intrinsics.f90"), "reals", &[n], &items);
    for i in 1..=n as i32 {
        call!(library, "reals", (i => i32, n as i32 => i32, x.as_ptr() => *const f32, y.as_mut_ptr() => *mut f32));
    }
    // NaN has many representations, of which each machine makes its own.
    let quiet =
        |values: &[f32]| Item::Fs(values.iter().map(|it| if it.is_nan() { f32::NAN } else { *it }).collect());
    for column in 0..27 {
        let (ours, theirs) = (&ours[2].reals()[column * n..][..n], &y[column * n..][..n]);
        if column == 1 || column == 23 {
            // Of exponential functions and powers there are several, and each rounds in its own way.
            let near =
                |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan() || (a / b - 1.0).abs() < 3e-7;
            assert!(ours.iter().zip(theirs).all(near));
        } else {
            same(&[quiet(ours)], &[quiet(theirs)]);
        }
    }
}

#[test]
fn the_exponential_function_is_near() {
    let mut worst = 0.0f64;
    let text = "!@kernel\nsubroutine f(i, x)\ninteger, value :: i\nreal, intent(inout) :: x\nx = exp(x)\nend subroutine\n";
    // From each exponent a few thousand numbers, with both signs, NaN and infinities among them.
    let x: Vec<f32> = (0..u32::MAX / 4099).map(|it| f32::from_bits(it * 4099)).collect();
    let ours = run(text, "f", &[x.len()], &[Item::Fs(x.clone())]);
    for (x, ours) in x.iter().zip(ours[0].reals()) {
        let exact = f64::from(*x).exp();
        if exact.is_nan() || exact as f32 == f32::INFINITY || (exact as f32) < f32::MIN_POSITIVE {
            let least = f64::from(f32::from_bits(1));
            let near = (f64::from(*ours) - exact).abs() <= least || *ours == exact as f32;
            assert!(near || ours.is_nan() && exact.is_nan(), "exp({x}) = {ours}");
        } else {
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            worst = worst.max((f64::from(*ours) - exact).abs() / unit);
        }
    }
    assert!(worst > 0.4 && worst < 1.0, "{worst} units in the last place");
}

#[test]
fn double_intrinsics() {
    let Some(library) = Library::build("intrinsics", "intrinsic_kernels") else { return };
    let n = 400usize;
    let real =
        |seed| numbers(n, seed).into_iter().map(|it| f64::from(it) / 65536.0 / 1024.0).collect::<Vec<_>>();
    let (x, mut y) = (real(10), real(11));
    let items = [
        Item::I(n as i32),
        Item::D(0.3),
        Item::Ds(x.iter().map(|it| it.abs()).collect()),
        Item::Ds(y.clone()),
    ];
    let ours = run(&text("language/intrinsics.f90"), "doubles", &[n], &items);
    let x: Vec<f64> = x.iter().map(|it| it.abs()).collect();
    for i in 1..=n as i32 {
        call!(library, "doubles", (i => i32, n as i32 => i32, 0.3 => f64, x.as_ptr() => *const f64, y.as_mut_ptr() => *mut f64));
    }
    same(&ours[3..], &[Item::Ds(y)]);
}

#[test]
fn integer_intrinsics() {
    let Some(library) = Library::build("intrinsics", "intrinsic_kernels") else { return };
    let n = 1000usize;
    let nonzero =
        |seed| numbers(n, seed).into_iter().map(|it| if it == 0 { 1 } else { it }).collect::<Vec<_>>();
    let (a, mut b) = (nonzero(12), nonzero(13));
    b[..500].iter_mut().for_each(|it| *it = *it % 9 * 2 + 1);
    let items = [Item::I(n as i32), Item::Is(a.clone()), Item::Is(b.clone())];
    let ours = run(&text("language/intrinsics.f90"), "integers", &[n], &items);
    for i in 1..=n as i32 {
        call!(library, "integers", (i => i32, n as i32 => i32, a.as_ptr() => *const i32, b.as_mut_ptr() => *mut i32));
    }
    same(&ours[2..], &[Item::Is(b)]);
}

#[test]
fn long_integers() {
    let Some(library) = Library::build("intrinsics", "intrinsic_kernels") else { return };
    let n = 600usize;
    let a: Vec<i64> = numbers(n, 14).into_iter().map(|it| i64::from(it % 100) * 20).collect();
    let (mut b, mut total) = (vec![0i64; n], 17i64);
    let items = [Item::I(n as i32), Item::Ls(a.clone()), Item::Ls(b.clone()), Item::Ls(vec![total])];
    let ours = run(&text("language/intrinsics.f90"), "longs", &[n], &items);
    for i in 1..=n as i32 {
        call!(library, "longs", (i => i32, n as i32 => i32, a.as_ptr() => *const i64, b.as_mut_ptr() => *mut i64,
            &mut total => *mut i64));
    }
    same(&ours[2..], &[Item::Ls(b), Item::Ls(vec![total])]);
}

#[test]
fn logicals() {
    let Some(library) = Library::build("logicals", "logical_kernels") else { return };
    let n = 300usize;
    let bits = |seed| numbers(n, seed).into_iter().map(|it| it & 1).collect::<Vec<_>>();
    let a = bits(15);
    // With both flips a point whose loop cycles for ever is left out: `flip` and a false `done`.
    let b = bits(16);
    let items = [Item::I(n as i32), Item::B(false), Item::Is(a.clone()), Item::Is(b.clone())];
    let ours = run(&text("language/logicals.f90"), "logicals", &[n], &items);
    let mut theirs = b;
    for i in 1..=n as i32 {
        call!(library, "logicals", (i => i32, n as i32 => i32, 0 => i32, a.as_ptr() => *const i32, theirs.as_mut_ptr() => *mut i32));
    }
    same(&ours[3..], &[Item::Is(theirs)]);
}

#[test]
fn names() {
    let n = 500usize;
    let (data, vec3) = (whole(n, 17, 50), whole(n, 18, 50));
    let zeros = || Item::Fs(vec![0.0; n]);
    let (end, first, count, main) = (3, 4, 9, 1);
    let items = [
        Item::Fs(data.clone()),
        zeros(),
        zeros(),
        zeros(),
        Item::I(end),
        Item::Fs(vec3.clone()),
        Item::F(0.5),
        Item::I(first),
        Item::I(count),
        Item::I(main),
        Item::F(7.0),
    ];
    // exit = 7, call = 8: the second branch, where `params` is 1.
    let ours = run(&text("language/names.f90"), "names", &[n], &items);
    assert_eq!(ours[3].reals(), vec![1.0; n]);
    assert_eq!(ours[2].reals(), vec![0.0; n]);
    let mut items = items;
    items[9] = Item::I(5);
    let ours = run(&text("language/names.f90"), "names", &[n], &items);
    let expected: Vec<_> = data.iter().zip(&vec3).map(|(a, b)| (a + b) * 0.5).collect();
    assert_eq!(ours[2].reals(), expected);
}

#[test]
fn reductions() {
    let Some(library) = Library::build("reductions", "reduction_kernels") else { return };
    for n in [1usize, 256, 257, 100_000] {
        let (x, y) = (whole(n, 19, 8), whole(n, 20, 8));
        let mut total = 5.0f32;
        let items = [Item::I(n as i32), Item::Fs(x.clone()), Item::Fs(y.clone()), Item::Fs(vec![total])];
        let ours = run(&text("language/reductions.f90"), "dot", &[n], &items);
        for i in 0..n as i32 {
            call!(library, "dot", (i => i32, n as i32 => i32, x.as_ptr() => *const f32, y.as_ptr() => *const f32,
                &mut total => *mut f32));
        }
        same(&ours[3..], &[Item::Fs(vec![total])]);
    }
    let n = 1000usize;
    let x: Vec<i32> = numbers(n, 21)
        .into_iter()
        .map(|it| if it % 50 == 0 { [1, -1, 2][it as usize % 3] } else { 0 })
        .collect();
    let (mut least, mut most, mut every, mut some, mut product) = (3i32, 3i32, -1i32, 8i32, 1.0f32);
    let one = |value: i32| Item::Is(vec![value]);
    let items = [
        Item::I(n as i32),
        Item::Is(x.clone()),
        one(least),
        one(most),
        one(every),
        one(some),
        Item::Fs(vec![product]),
    ];
    let ours = run(&text("language/reductions.f90"), "extremes", &[n], &items);
    for i in 1..=n as i32 {
        call!(library, "extremes", (i => i32, n as i32 => i32, x.as_ptr() => *const i32, &mut least => *mut i32,
            &mut most => *mut i32, &mut every => *mut i32, &mut some => *mut i32, &mut product => *mut f32));
    }
    same(&ours[2..], &[one(least), one(most), one(every), one(some), Item::Fs(vec![product])]);
}

/// Sums that are not exact: by the tree of the language, in another order of the same steps.
#[test]
fn a_sum_is_that_of_the_fixed_tree() {
    let n = 70_001usize;
    let x: Vec<f32> = numbers(n, 22).into_iter().map(|it| it as f32 * 1e-5).collect();
    let items = [Item::I(n as i32), Item::Fs(x.clone()), Item::Fs(vec![1.0; n]), Item::Fs(vec![0.25])];
    let ours = run(&text("language/reductions.f90"), "dot", &[n], &items);
    fn block(values: &[f32]) -> f32 {
        let at = |k: usize| values.get(k).copied().unwrap_or(0.0);
        fn sum(at: &dyn Fn(usize) -> f32, k: usize, stride: usize) -> f32 {
            if stride == 256 { at(k) } else { sum(at, k, 2 * stride) + sum(at, k + stride, 2 * stride) }
        }
        sum(&at, 0, 1)
    }
    let mut values: Vec<f32> = x;
    while values.len() > 1 {
        values = values.chunks(256).map(block).collect();
    }
    assert_eq!(ours[3].reals()[0].to_bits(), (0.25 + values[0]).to_bits());
}

#[test]
fn workgroups() {
    let text = text("language/tiled_sgemm.f90");
    let (m, n, k) = (37usize, 50usize, 29usize);
    let (a, b) = (whole(m * k, 23, 8), whole(k * n, 24, 8));
    let size = |it: usize| Item::I(it as i32);
    let c = vec![-1.0; m * n];
    let items = [size(m), size(n), size(k), Item::Fs(a.clone()), Item::Fs(b.clone()), Item::Fs(c)];
    let ours = run(&text, "sgemm_tiled", &[m, n], &items);
    for j in 0..n {
        for i in 0..m {
            let expected: f64 = (0..k).map(|p| f64::from(a[i + m * p]) * f64::from(b[p + k * j])).sum();
            assert_eq!(f64::from(ours[5].reals()[i + m * j]), expected, "{i} {j}");
        }
    }
    let a = whole(n * m, 25, 1000);
    let items = [size(n), size(m), Item::Fs(a.clone()), Item::Fs(vec![-1.0; n * m])];
    let ours = run(&text, "transpose_tiled", &[n, m], &items);
    for j in 0..m {
        for i in 0..n {
            assert_eq!(ours[3].reals()[j + m * i], a[i + n * j], "{i} {j}");
        }
    }
}
