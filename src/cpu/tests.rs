//! Every kernel of this CPU through both drivers, exact and at several team sizes, small shapes included:
//! through the public API only the fastest is used, and little work never leaves the caller.

#[path = "../../tests/cpu_cases/mod.rs"]
mod cpu_cases;

use super::conv2d::ConvPlan;
use super::isa::{Isa, with_kernel};
use super::kernels::Kernel;
use super::pool::Team;
use super::{describe, gemm};
use crate::problem::exact::Random;
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
fn every_kernel_is_exact_in_convolutions() {
    let mut cases = 0;
    for isa in Isa::all() {
        let mut random = Random::new(21);
        for mut team in [1, 2, 5].map(Team::of) {
            for _ in 0..70 {
                let case = ConvCase::new(conv_desc(&mut random), Values::Exact, &mut random);
                let output = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                for (got, expected) in output.iter().zip(case.expected()) {
                    assert!(same(*got, expected.value), "{isa:?} {:?}: {got}", case.desc);
                }
                cases += 1;
            }
        }
    }
    assert!(cases >= 210);
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
