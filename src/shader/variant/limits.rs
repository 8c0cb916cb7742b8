//! A device can run a variant exactly if it has the resources that the kernels use.

use super::*;
use crate::problem::Conv2dDesc;
use crate::shader::cases::Cases;
use crate::shader::cases::tests::{LARGE, declared, passes};
use crate::shader::pass_plan::generate;

/// A device without limits, apart from the range of its integers.
const ENDLESS: Gpu = Gpu {
    shared_bytes: usize::MAX,
    max_threads: usize::MAX,
    max_elements: usize::MAX,
    max_iterations: usize::MAX,
    ..Gpu::ASSUMED
};

/// The resources that the kernels of a variant use: threads, shared bytes, elements of the largest buffer, iterations.
fn resources(problem: &Conv2d, variant: &Variant) -> Option<Gpu> {
    let plan = generate(variant, problem)?;
    let declared = || passes(&plan).map(|pass| declared(&pass.source.text));
    // `Table` and `Igemm` count the output as well, also if the reduction is in one part.
    let parts = match variant.family {
        Family::Igemm | Family::Table => variant.splits * problem.output_len(),
        _ => 0,
    };
    Some(Gpu {
        max_threads: declared().map(|it| it.0).max()?,
        shared_bytes: declared().map(|it| it.1).max()?,
        max_elements: plan.scratch.iter().copied().max().unwrap_or_default().max(plan.packed).max(parts),
        max_iterations: passes(&plan).map(|pass| pass.iterations).max()?,
        ..Gpu::ASSUMED
    })
}

/// A variant is possible with exactly these resources, and impossible with one thread, byte, element or iteration less.
#[test]
fn a_variant_needs_what_its_kernels_use() {
    let (mut exact, mut less) = (0, [0; 4]);
    let cases = Cases::new(3, LARGE);
    let kinds = cases.kinds();
    for (problem, variant) in cases.take(2 * kinds) {
        let Some(gpu) = resources(&problem, &variant) else { continue };
        assert!(is_possible(&problem, &gpu, &variant), "{variant} on {gpu:?}: {problem:?}");
        exact += 1;
        let shared = !matches!(variant.family, Family::Grouped(_));
        let limits = [gpu.max_threads - 1, gpu.shared_bytes.saturating_sub(1), gpu.max_elements.max(1) - 1];
        let [max_threads, shared_bytes, max_elements] = limits;
        let smaller = [
            shared.then_some(Gpu { max_threads, ..gpu }),
            (gpu.shared_bytes > 0).then_some(Gpu { shared_bytes, ..gpu }),
            (gpu.max_elements > 0).then_some(Gpu { max_elements, ..gpu }),
            Some(Gpu { max_iterations: gpu.max_iterations - 1, ..gpu }),
        ];
        for (gpu, less) in smaller.iter().zip(&mut less) {
            if let Some(gpu) = gpu {
                assert!(!is_possible(&problem, gpu, &variant), "{variant} on {gpu:?}: {problem:?}");
                *less += 1;
            }
        }
    }
    assert!(exact > 500 && less.iter().all(|&it| it > 200), "{exact} {less:?}");
}

fn with(desc: Conv2dDesc) -> Conv2d {
    Conv2d::new(desc).unwrap()
}

fn of(family: Family) -> Variant {
    let tile = match family {
        Family::Igemm | Family::Table | Family::Winograd(_) => TILES[8],
        _ => NO_TILE,
    };
    Variant { family, tile, splits: 1 }
}

/// Each pair is the largest problem that a family supports and the next larger, which it does not.
#[test]
fn sizes_are_limited_by_the_range_of_a_kernels_integers() {
    let can = |desc, family| is_possible(&with(desc), &ENDLESS, &of(family));
    let ends = |last, first, family| {
        assert!(can(last, family), "{family:?}: {last:?}");
        assert!(!can(first, family), "{family:?}: {first:?}");
        assert!(can(first, Family::Fallback));
    };
    let base = Conv2dDesc { c: 16, k: 4, ..Default::default() };
    // The columns of all images, plus a margin, must fit in 31 bits.
    let most = i64::from(i32::MAX) - MARGIN as i64;
    for (c, family) in [(16, Family::Igemm), (1, Family::Grouped(1))] {
        let line = |n, h, w| Conv2dDesc { n, c, h, w, k: 1, ..base };
        ends(line(1, 1, 1 << 28), line(1, 1, (1 << 28) + 1), family);
        ends(line(1, 1 << 28, 1), line(1, (1 << 28) + 1, 1), family);
        let padded = |w, pad_w| Conv2dDesc { pad_w, ..line(1, 1, w) };
        ends(padded((1 << 28) - 6, 3), padded((1 << 28) - 5, 3), family);
        let padded = |h, pad_h| Conv2dDesc { pad_h, ..line(1, h, 1) };
        ends(padded((1 << 28) - 6, 3), padded((1 << 28) - 5, 3), family);
        if family == Family::Igemm {
            ends(line(most / 3, 1, 3), line(most / 3 + 1, 3, 1), family);
            ends(line(most / 3, 3, 1), line(most + 1, 1, 1), family);
            ends(line(most / 3, 1, 3), line(most / 3 + 1, 1, 3), family);
        }
    }
    // Outputs of `Grouped`, in lines padded to whole vectors, must fit in 31 bits.
    let lines = |n, k, p, q| Conv2dDesc { n, c: 1, k, h: p, w: q, ..base };
    let group = Family::Grouped(1);
    ends(lines(1, 2, 4095, 1 << 18), lines(1, 2, 4096, 1 << 18), group);
    ends(lines(2, 1, 4095, 1 << 18), lines(2, 1, 4096, 1 << 18), group);
    ends(lines(1, 2, (1 << 28) - 1, 1), lines(1, 2, 1 << 28, 1), group);
    // 2^31 - 1 is not a multiple of four.
    let kernel = |s, stride_w, dilation_w| Conv2dDesc { c: 1, h: 4, w: 60, s, stride_w, dilation_w, ..base };
    ends(kernel(16, 1, 1), kernel(17, 1, 1), group);
    ends(kernel(1, 4, 1), kernel(1, 5, 1), group);
    ends(kernel(2, 1, 1), kernel(2, 1, 2), group);
    ends(Conv2dDesc { k: 8, c: 1, ..base }, Conv2dDesc { k: 6, c: 1, ..base }, Family::Grouped(4));
    ends(
        Conv2dDesc { k: 8, c: 2, groups: 2, ..base },
        Conv2dDesc { k: 4, c: 2, groups: 2, ..base },
        Family::Grouped(4),
    );
    // A table has entries of 16 bits, and at most 1024 of them.
    let image = |h, w, pad_h, pad_w| Conv2dDesc { c: 1, h, w, pad_h, pad_w, ..base };
    ends(image(1, 0x7ffe, 0, 0), image(1, 0x7fff, 0, 0), Family::Table);
    ends(image(1, 0x7ff8, 0, 3), image(1, 0x7ff9, 0, 3), Family::Table);
    ends(image(0x7ff8, 1, 3, 0), image(0x7ff9, 1, 3, 0), Family::Table);
    let wide = |s, dilation_w| Conv2dDesc { c: 1, w: 32_000, pad_w: 350, s, dilation_w, ..base };
    ends(wide(2, 0x3fff), wide(2, 0x4000), Family::Table);
    ends(wide(6, 5461), wide(6, 5462), Family::Table);
    ends(wide(6, 5461), wide(7, 4681), Family::Table);
    let high = |r, dilation_h| Conv2dDesc { c: 1, h: 32_000, pad_h: 350, r, dilation_h, ..base };
    ends(high(2, 0x3fff), high(2, 0x4000), Family::Table);
    ends(high(6, 5461), high(6, 5462), Family::Table);
    ends(high(6, 5461), high(7, 4681), Family::Table);
    let deep = |c, h| Conv2dDesc { c, h, r: h, w: 3, s: 3, ..base };
    ends(deep(1, 341), deep(1, 342), Family::Table);
    ends(deep(4, 85), deep(4, 86), Family::Table);
    // `Pointwise`: 1x1 on whole vectors, in one group, with one to 32 channels per part.
    let map = |c, h, w| Conv2dDesc { c, h, w, ..base };
    for (kg, family) in [2, 4, 8].map(|kg| (kg, Family::Pointwise(kg as usize))) {
        ends(map(32 * kg, 4, 4), map(32 * kg + 1, 4, 4), family);
        ends(map(kg, 4, 4), map(kg - 1, 4, 4), family);
        ends(map(kg, 2, 6), map(kg, 3, 6), family);
        ends(map(kg, 1, 4), map(kg, 1, 7), family);
        ends(map(2 * kg, 2, 6), Conv2dDesc { groups: 2, ..map(2 * kg, 2, 6) }, family);
        for other in [
            Conv2dDesc { r: 2, ..map(kg, 5, 4) },
            Conv2dDesc { s: 2, ..map(kg, 4, 5) },
            Conv2dDesc { stride_h: 2, ..map(kg, 4, 4) },
            Conv2dDesc { stride_w: 2, ..map(kg, 4, 4) },
            Conv2dDesc { pad_h: 1, ..map(kg, 4, 4) },
            Conv2dDesc { pad_w: 2, ..map(kg, 4, 4) },
        ] {
            ends(map(kg, 4, 4), other, family);
        }
    }
    // A reduction has at most 32 parts.
    for (family, c) in [(Family::Igemm, 64), (Family::Table, 3)] {
        let parts = |splits| {
            is_possible(&with(Conv2dDesc { c, ..base }), &ENDLESS, &Variant { splits, ..of(family) })
        };
        assert_eq!([1, MAX_SPLITS, MAX_SPLITS + 1].map(parts), [true, true, false]);
    }
    // Winograd: 3x3 only, without strides, dilation or groups.
    let square = Conv2dDesc { c: 16, h: 9, w: 9, r: 3, s: 3, ..base };
    for other in [
        Conv2dDesc { r: 1, ..square },
        Conv2dDesc { s: 1, ..square },
        Conv2dDesc { stride_h: 2, ..square },
        Conv2dDesc { stride_w: 2, ..square },
        Conv2dDesc { dilation_h: 2, ..square },
        Conv2dDesc { dilation_w: 2, ..square },
        Conv2dDesc { groups: 2, ..square },
    ] {
        ends(square, other, Family::Winograd(4));
    }
}

/// Which families may be candidates, by Winograd form, depth and algorithm.
#[test]
fn families_are_for_the_problems_that_they_fit() {
    let square = Conv2dDesc { c: 16, h: 9, w: 9, k: 4, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    let auto = |desc: Conv2dDesc| winograd_forms(&with(desc)).to_vec();
    let asked = |desc| auto(Conv2dDesc { algorithm: Algorithm::Winograd, ..desc });
    assert_eq!((auto(square), asked(square)), (vec![4, 2], vec![4, 2]));
    assert!(auto(Conv2dDesc { algorithm: Algorithm::Direct, ..square }).is_empty());
    assert!(auto(Conv2dDesc { stride_w: 2, ..square }).is_empty());
    let few = [
        Conv2dDesc { c: 15, ..square },
        Conv2dDesc { pad_h: 2, ..square },
        Conv2dDesc { pad_w: 2, ..square },
        Conv2dDesc { h: 1, ..square },
        Conv2dDesc { w: 1, ..square },
    ];
    for desc in few {
        assert_eq!((auto(desc), asked(desc)), (vec![], vec![2]), "{desc:?}");
    }
    for desc in
        [Conv2dDesc { h: 2, ..square }, Conv2dDesc { w: 2, ..square }, Conv2dDesc { pad_w: 0, ..square }]
    {
        assert_eq!(auto(desc), [4, 2], "{desc:?}");
    }
    let may = |desc, variant: &Variant| is_candidate(&with(desc), &ENDLESS, variant);
    let igemm = |tile| Variant { tile, ..of(Family::Igemm) };
    let (deep, flat) = (TILES[8], TILES[0]);
    let channels = |c, groups| Conv2dDesc { c, groups, ..square };
    for (desc, slices, slices_of_8, table) in [
        (channels(16, 1), true, true, false),
        (channels(15, 1), false, true, true),
        (channels(8, 1), false, true, true),
        (channels(7, 1), false, false, true),
        (channels(32, 2), true, true, false),
        (channels(30, 2), false, true, true),
        (channels(14, 2), false, false, true),
    ] {
        let offered = [igemm(deep), igemm(flat), of(Family::Table)].map(|variant| may(desc, &variant));
        assert_eq!(offered, [slices, slices_of_8, table], "{} in {}", desc.c, desc.groups);
        let all = candidates(&with(desc), &LARGE);
        let has = |family, tile| all.iter().any(|it| it.family == family && it.tile == tile);
        let offered = [has(Family::Igemm, deep), has(Family::Igemm, flat), has(Family::Table, deep)];
        assert_eq!(offered, [slices, slices_of_8, table], "{} in {}", desc.c, desc.groups);
    }
    // `Table` is no candidate for one output channel per group.
    let tables = |k| {
        let all = candidates(&with(Conv2dDesc { k, ..channels(6, 2) }), &LARGE);
        all.iter().any(|it| it.family == Family::Table)
    };
    assert_eq!([2, 4].map(tables), [false, true]);
    let winograd = Conv2dDesc { algorithm: Algorithm::Winograd, ..square };
    for family in [Family::Fallback, Family::Grouped(1), Family::Igemm, Family::Table] {
        let c = if family == Family::Table { 3 } else { 16 };
        let (desc, variant) = (Conv2dDesc { c, ..square }, of(family));
        assert!(may(desc, &variant), "{family:?}");
        assert!(!may(Conv2dDesc { c, ..winograd }, &variant), "{family:?}");
    }
    assert!(may(winograd, &of(Family::Winograd(4))) && may(square, &of(Family::Winograd(2))));
    assert!(!may(square, &Variant { splits: 2, ..of(Family::Winograd(4)) }));
    assert!(candidates(&with(winograd), &LARGE).iter().all(|it| matches!(it.family, Family::Winograd(_))));
}

/// A problem is small below four million operations. It uses the fallback below a tenth of that, or if it is computed once.
#[test]
fn small_problems_are_those_below_the_limits() {
    // 2 * c * k operations.
    let work = |half: i64, algorithm| {
        let square = Conv2dDesc { c: 2, h: 1, w: half / 4, k: 2, algorithm, ..Default::default() };
        with(square)
    };
    let auto = |half| work(half, Algorithm::Auto);
    assert_eq!(auto(2_000_000).flops(), SMALL_FLOPS);
    assert!(is_small(&auto(1_999_996)) && !is_small(&auto(2_000_000)));
    assert!(!stays_with_fallback(&auto(1_999_996)) && stays_with_fallback(&auto(1_999_996).once()));
    assert!(!stays_with_fallback(&auto(2_000_000).once()));
    assert!(stays_with_fallback(&auto(199_996)) && !stays_with_fallback(&auto(200_000)));
    let square = Conv2dDesc { c: 16, h: 4, w: 4, k: 4, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    assert!(is_small(&with(square)));
    assert!(!is_small(&with(Conv2dDesc { algorithm: Algorithm::Winograd, ..square })));
}
