//! Every kernel of this CPU through both drivers, exact and at several team sizes, small shapes included:
//! through the public API only the fastest is used, and little work never leaves the caller.

#[path = "../../tests/cpu_cases/mod.rs"]
pub(super) mod cpu_cases;

use super::caches::described;
use super::conv2d::ConvPlan;
use super::isa::{Isa, with_kernel};
use super::kernels::Kernel;
use super::pool::Team;
use super::views::columns;
use super::{describe, gemm};
use crate::memory::views::Views;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout};
use cpu_cases::{ConvCase, GemmCase, Values, conv_desc, gemm_desc, same, same_bits};

fn conv2d<K: Kernel>(kernel: K, team: &mut Team, case: &ConvCase) -> Vec<f32> {
    let mut output = vec![f32::NAN; case.problem.output_len()];
    let plan = ConvPlan::new(kernel, &case.problem, &case.weights, case.bias()).unwrap();
    plan.execute(team, &case.input, &mut output).unwrap();
    output
}

fn sgemm<K: Kernel>(kernel: K, team: &mut Team, case: &GemmCase) -> Vec<f32> {
    let mut c = case.c.clone();
    let mut shared = vec![f32::NAN; gemm::shared_len(kernel, &case.problem)];
    gemm::run(kernel, team, &case.problem, (&case.a, &case.b), &mut c, &mut shared).unwrap();
    c
}

#[test]
fn every_kernel_is_exact_in_two_thousand_convolutions() {
    let mut random = Random::new(21);
    let mut cases = 0;
    for mut team in [1, 2, 3, 7].map(Team::of) {
        for index in 0..500 {
            // One in ten of any size, the others small: the oracle takes the time.
            let mut desc = conv_desc(&mut random);
            while index % 10 > 0 && Conv2d::new(desc).is_ok_and(|problem| problem.flops() > 1_000_000) {
                desc = conv_desc(&mut random);
            }
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            let expected = case.expected();
            for isa in Isa::all() {
                let output = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                for (got, expected) in output.iter().zip(&expected) {
                    assert!(same(*got, expected.value), "{isa:?} {:?}: {got}", case.desc);
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 2_000);
}

#[test]
fn every_kernel_is_exact_in_products() {
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(22);
        for mut team in [1, 2, 5].map(Team::of) {
            for _ in 0..70 {
                let case = GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random);
                let c = with_kernel!(isa, kernel => sgemm(kernel, &mut team, &case));
                for (index, expected) in case.expected() {
                    assert!(same(c[index], expected.value), "{isa:?} {:?}: {}", case.desc, c[index]);
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 210);
}

/// Every way to read the images, whether the planner would take it or not.
#[test]
fn every_way_to_read_images_is_exact() {
    fn check<K: Kernel>(kernel: K, team: &mut Team, case: &ConvCase) -> usize {
        let ways = Views::ways(&described().caches, columns(kernel), &case.problem);
        let ways = ways.into_iter().map(|way| Some(way.1)).chain([None]);
        let mut count = 0;
        for mut way in ways {
            // As few channels and panels at a time as there may be, too.
            for smallest in [false, true] {
                if let (Some(way), true) = (&mut way, smallest) {
                    (way.channels, way.panels) = (1, 1);
                }
                let mut output = vec![f32::NAN; case.problem.output_len()];
                let plan =
                    ConvPlan::with_views(kernel, &case.problem, (&case.weights, case.bias()), way).unwrap();
                plan.execute(team, &case.input, &mut output).unwrap();
                for (got, expected) in output.iter().zip(case.expected()) {
                    assert!(same(*got, expected.value), "{} {way:?} {:?}: {got}", K::CONV, case.desc);
                }
                count += 1;
            }
        }
        count
    }
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(26);
        for mut team in [1, 3].map(Team::of) {
            for _ in 0..60 {
                let case = ConvCase::new(conv_desc(&mut random), Values::Exact, &mut random);
                cases += with_kernel!(isa, kernel => check(kernel, &mut team, &case));
            }
        }
    }
    assert!(cases >= 3 * 120);
}

/// Shapes that no suite of layers has, with every kernel.
#[test]
fn unusual_shapes_are_exact() {
    let layer = |c, h, w, k, r, s, stride, pad_h, pad_w| Conv2dDesc {
        c,
        h,
        w,
        k,
        r,
        s,
        stride_h: stride,
        stride_w: stride,
        pad_h,
        pad_w,
        bias: true,
        ..Default::default()
    };
    let shapes = [
        layer(7, 14, 14, 20, 5, 5, 1, 2, 2),
        layer(5, 15, 17, 9, 9, 9, 1, 4, 4),
        layer(3, 59, 59, 10, 11, 11, 4, 2, 2),
        layer(6, 3, 40, 11, 1, 7, 1, 0, 3),
        layer(6, 40, 3, 11, 7, 1, 1, 3, 0),
        layer(2048, 4, 4, 9, 1, 1, 1, 0, 0),
        layer(300, 4, 4, 33, 3, 3, 1, 1, 1),
        layer(2, 5, 572, 5, 3, 3, 1, 0, 0),
        layer(2, 20, 20, 3, 15, 15, 1, 7, 7),
        Conv2dDesc { n: 9, ..layer(4, 3, 3, 70, 3, 3, 1, 1, 1) },
        Conv2dDesc { groups: 6, ..layer(6, 19, 23, 12, 3, 3, 2, 1, 1) },
    ];
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(24);
        for mut team in [1, 3].map(Team::of) {
            for desc in shapes {
                let case = ConvCase::new(desc, Values::Exact, &mut random);
                let output = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                for (got, expected) in output.iter().zip(case.expected()) {
                    assert!(same(*got, expected.value), "{isa:?} {desc:?}: {got}");
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 2 * shapes.len());
}

/// Every product of up to 33 rows, columns and depths, with every kernel.
#[test]
fn all_small_products_are_exact() {
    let mut cases = 0;
    for isa in Isa::all() {
        let mut team = Team::of(1);
        let mut random = Random::new(25);
        let (a, b) = (random.integers(33 * 33, 8), random.integers(33 * 33, 8));
        for (m, n) in (0..33).flat_map(|m| (0..33).map(move |n| (m, n))) {
            let mut expected = vec![0.0; m * n];
            for k in 0..33 {
                // Leading dimensions that do not depend on k: each depth adds one term to the last.
                if k > 0 {
                    for (at, sum) in expected.iter_mut().enumerate() {
                        *sum += a[at / n * 33 + k - 1] * b[(k - 1) * 33 + at % n];
                    }
                }
                let (rows, cols, depth) = (m as i64, n as i64, k as i64);
                let packed = GemmDesc::packed(Layout::RowMajor, rows, cols, depth);
                let problem = Gemm::new(GemmDesc { lda: 33, ldb: 33, ..packed }).unwrap();
                let mut c = vec![f32::NAN; m * n];
                with_kernel!(isa, kernel => {
                    let mut shared = vec![f32::NAN; gemm::shared_len(kernel, &problem)];
                    gemm::run(kernel, &mut team, &problem, (&a, &b), &mut c, &mut shared).unwrap();
                });
                assert_eq!(c, expected, "{isa:?} {m}x{n}x{k}");
                cases += 1;
            }
        }
    }
    assert!(cases >= 33 * 33 * 33);
}

#[test]
fn the_size_of_the_team_does_not_show_in_the_bits() {
    let mut random = Random::new(23);
    let mut teams = [1, 2, 3, 7, 16].map(Team::of);
    let mut cases = 0;
    for isa in Isa::all() {
        for _ in 0..30 {
            let conv = ConvCase::new(conv_desc(&mut random), Values::Real, &mut random);
            let product = GemmCase::new(gemm_desc(&mut random), Values::Real, &mut random);
            let results = teams.each_mut().map(|team| {
                with_kernel!(isa, kernel => (conv2d(kernel, team, &conv), sgemm(kernel, team, &product)))
            });
            for (output, c) in &results[1..] {
                assert!(same_bits(output, &results[0].0) && same_bits(c, &results[0].1), "{isa:?}");
                cases += 1;
            }
        }
    }
    assert!(cases > 0);
}

#[test]
fn the_description_names_the_kernels_in_use() {
    let (name, facts) = describe();
    assert!(!name.is_empty());
    let kernels = &facts.iter().find(|fact| fact.0 == "kernels").unwrap().1;
    with_kernel!(Isa::best(), kernel => assert_eq!(*kernels, super::names(kernel)));
}
