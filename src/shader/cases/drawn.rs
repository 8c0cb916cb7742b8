//! The drawn cases have every value that their kind allows, and no other.

use std::collections::BTreeSet;

use super::*;
use crate::shader::cases::tests::LARGE;

const FORMS: [Form; 3] = [Form::Any, Form::Pointwise, Form::WholeRows];

/// Draws a kind many times.
fn draws(family: Family, form: Form) -> Vec<Conv2dDesc> {
    let (mut random, variant) = (Random::new(17), Variant { family, ..Variant::FALLBACK });
    (0..1500).map(|_| desc(&mut random, &variant, form)).collect()
}

/// All values of a property of the draws.
fn all<T: Ord>(draws: &[Conv2dDesc], of: impl Fn(&Conv2dDesc) -> T) -> BTreeSet<T> {
    draws.iter().map(of).collect()
}

fn set<T: Ord + Copy>(values: &[T]) -> BTreeSet<T> {
    values.iter().copied().collect()
}

const FEW: [i64; 6] = [1, 2, 3, 5, 7, 15];
const MANY: [i64; 5] = [16, 17, 31, 33, 40];

#[test]
fn batches_sides_and_flags_take_all_values() {
    let families =
        [Family::Winograd(2), Family::Grouped(2), Family::Pointwise(2), Family::Igemm, Family::Table];
    for (family, form) in families.iter().flat_map(|&family| FORMS.map(|form| (family, form))) {
        let draws = draws(family, form);
        assert_eq!(all(&draws, |it| it.n), set(&[1, 2, 3]));
        assert_eq!(all(&draws, |it| (it.bias, it.relu)).len(), 4, "{family:?}");
        let (heights, widths) = (all(&draws, |it| it.h), all(&draws, |it| it.w));
        let more = i64::from(matches!(family, Family::Winograd(_)));
        if form == Form::Any {
            assert_eq!(heights, (1 + more..=15 + more).collect(), "{family:?}");
            assert_eq!(widths, (1 + more..=15).collect(), "{family:?}");
        } else {
            assert_eq!(heights, (1 + more..=9 + more).collect(), "{family:?}");
            assert_eq!(widths, set(&[4, 8, 12, 16]), "{family:?}");
        }
    }
}

#[test]
fn channels_suit_the_family() {
    let groups = |draws: &[Conv2dDesc]| all(draws, |it| it.groups);
    let channels = |draws: &[Conv2dDesc]| all(draws, |it| it.c / it.groups);
    let rows = |draws: &[Conv2dDesc]| all(draws, |it| it.k / it.groups);
    for form in FORMS {
        for (family, depths) in [(Family::Igemm, &MANY[..]), (Family::Table, &FEW[..])] {
            let draws = draws(family, form);
            assert_eq!((groups(&draws), channels(&draws)), (set(&[1, 2, 3]), set(depths)));
            assert_eq!(rows(&draws), set(&[1, 2, 4, 5, 16, 35]));
            assert!(draws.iter().all(|it| it.c % it.groups == 0 && it.k % it.groups == 0));
        }
        for tm in [1, 2, 4, 8] {
            let draws = draws(Family::Grouped(tm), form);
            assert_eq!((groups(&draws), channels(&draws)), (set(&[1, 2, 3, 8]), set(&FEW)));
            assert_eq!(rows(&draws), set(&[tm as i64, 2 * tm as i64]));
            assert!(draws.iter().all(|it| it.c % it.groups == 0 && it.k % it.groups == 0));
        }
    }
    let draws = |family| draws(family, Form::Any);
    let winograd = draws(Family::Winograd(4));
    assert_eq!((all(&winograd, |it| it.c), all(&winograd, |it| it.k)), (set(&MANY), set(&[1, 4, 5, 33, 65])));
    let pointwise = draws(Family::Pointwise(4));
    assert_eq!(all(&pointwise, |it| it.c), set(&[8, 16, 17, 33, 63]));
    assert_eq!(all(&pointwise, |it| it.k), set(&[1, 4, 5, 33, 65]));
    assert_eq!(groups(&winograd).len() + groups(&pointwise).len(), 2);
}

#[test]
fn kernels_suit_the_form() {
    let kernels = [(1, 1), (3, 3), (2, 3), (5, 5), (7, 7), (1, 4), (11, 11)];
    let strides = |it: &Conv2dDesc| (it.stride_h, it.stride_w);
    let dilations = |it: &Conv2dDesc| (it.dilation_h, it.dilation_w);
    for family in [Family::Grouped(2), Family::Igemm, Family::Table] {
        let any = draws(family, Form::Any);
        assert_eq!(all(&any, |it| (it.r, it.s)), set(&kernels));
        assert_eq!(all(&any, strides), set(&[(1, 1), (2, 2), (2, 1), (1, 3), (4, 4)]));
        assert_eq!(all(&any, dilations), set(&[(1, 1), (2, 1), (2, 3)]));
        for (r, s) in kernels {
            let of: Vec<Conv2dDesc> = any.iter().copied().filter(|it| (it.r, it.s) == (r, s)).collect();
            assert_eq!(all(&of, |it| it.pad_h), (0..=r / 2 + 1).collect(), "{r} x {s}");
            assert_eq!(all(&of, |it| it.pad_w), (0..=s / 2 + 1).collect(), "{r} x {s}");
        }
        // Odd kernels keep the width of rows.
        let whole = draws(family, Form::WholeRows);
        assert_eq!(
            all(&whole, |it| (it.r, it.s)),
            set(&kernels.map(|(r, s)| (r, if s == 4 { 5 } else { s })))
        );
        assert!(whole.iter().all(|it| (it.pad_h, it.pad_w) == (it.r / 2, it.s / 2)));
        assert_eq!((all(&whole, strides).len(), all(&whole, dilations).len()), (1, 1));
        let pointwise = draws(family, Form::Pointwise);
        assert_eq!(all(&pointwise, |it| (it.r, it.s, it.pad_h, it.pad_w)), set(&[(1, 1, 0, 0)]));
        assert_eq!((all(&pointwise, strides).len(), all(&pointwise, dilations).len()), (1, 1));
    }
    let square = |form| all(&draws(Family::Winograd(2), form), |it| (it.r, it.s, it.pad_h, it.pad_w));
    assert_eq!(square(Form::Any), set(&[(3, 3, 0, 0), (3, 3, 1, 1)]));
    assert_eq!(square(Form::WholeRows), set(&[(3, 3, 1, 1)]));
    let pointwise = all(&draws(Family::Pointwise(2), Form::Pointwise), |it| (it.r, it.s, it.pad_h, it.pad_w));
    assert_eq!(pointwise, set(&[(1, 1, 0, 0)]));
}

/// The deepest sums have few outputs, and one channel more is too many.
#[test]
fn deep_sums_have_the_documented_shapes() {
    let gpu = Gpu { max_iterations: 57_344, ..LARGE };
    let all = deep(&gpu);
    let (fallback, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, variant)| *variant == Variant::FALLBACK);
    for (problem, variant) in others {
        let it = *problem.sizes();
        let wide = (it.h, it.w, it.r, it.s, it.pad_h, it.pad_w);
        let line = variant.family == Family::Igemm && variant.splits == 1;
        assert_eq!(wide, if line { (1, 3, 1, 1, 0, 0) } else { (3, 3, 3, 3, 1, 1) }, "{variant}");
        let rows = if let Family::Grouped(tm) = variant.family { tm } else { 5 };
        assert!(it.k == rows && problem.relu() && !problem.bias(), "{variant}");
        let most = if matches!(variant.family, Family::Winograd(_)) { DEEPEST_WINOGRAD } else { DEEPEST };
        let desc = Conv2dDesc {
            k: it.k as i64,
            h: it.h as i64,
            w: 3,
            r: it.r as i64,
            s: it.s as i64,
            ..Default::default()
        };
        let desc = Conv2dDesc { pad_h: it.pad_h as i64, pad_w: it.pad_w as i64, relu: true, ..desc };
        let more = Conv2d::new(Conv2dDesc { c: it.c as i64 + 1, ..desc });
        let possible = more.is_ok_and(|more| is_possible(&more, &gpu, &variant));
        assert!(!possible || it.c as i64 + 1 == most, "{variant}: {}", it.c);
        assert!(it.c > 100, "{variant}: {}", it.c);
    }
    let [line, groups, rows, columns] = &fallback[..] else {
        panic!("{} cases for the fallback", fallback.len())
    };
    assert!(fallback.iter().all(|(problem, _)| problem.relu()));
    // Two whole passes and three channels.
    let parts = iterations::parts(&line.0, gpu.max_iterations).unwrap();
    assert_eq!(parts.iter().map(|part| part.products()).collect::<Vec<_>>()[1..], [parts[0].products(), 3]);
    let c = line.0.sizes().c;
    let it = *groups.0.sizes();
    assert_eq!((it.c, it.groups, it.k, it.dilation_h, it.r, it.s), (2 * (c / 5), 2, 4, 2, 3, 3));
    assert!(groups.0.bias() && rows.0.bias() && !line.0.bias());
    let long = 2 * 57_344;
    let it = *rows.0.sizes();
    assert_eq!((it.h, it.w, it.r, it.s, it.c), (long / 50, 60, long / 50, 59, 1));
    let it = *columns.0.sizes();
    assert_eq!((it.h, it.w, it.s, it.pad_w), (1, long, long - 1, 1));
}
