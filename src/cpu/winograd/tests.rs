//! Tests every form on every instruction set of this CPU against the oracle: errors, bits, borders.
//!
//! F(2x2) is exact on small integers if weights are multiples of 4, because its G has halves. Any difference is then a
//! defect. The rounding errors of the other forms are compared with the direct algorithm's bound times a factor.

use super::blocks::ByBlocks;
use super::choice::{CHOICES, FormChoice};
use super::engine::WinogradKernel;
use super::form::{F2, F4, F6, Form};
use super::once::Once;
use super::plan::WinogradPlan;
use crate::cpu::isa::Isa;
use crate::cpu::pool::Team;
use crate::cpu::tests::cpu_cases::{ConvCase, Values, same, same_bits};
use crate::error::Result;
use crate::memory::Caches;
use crate::problem::exact::Random;
use crate::problem::oracle::error_over_bound;
use crate::problem::{Conv2d, Conv2dDesc, winograd};

/// The factor between Winograd's bound and the direct algorithm's, for uniform data of any shape; published in
/// docs/winograd.md. The bound uses the largest magnitude in the output's image and channel. The factor falls with C
/// because rounding errors of channels mostly cancel, which the direct bound does not assume.
fn factor(choice: FormChoice, c: i64) -> f64 {
    let of_one_channel = match choice {
        FormChoice::F2 => 1.0,
        FormChoice::F4 => 8.0,
        FormChoice::F6 => 40.0,
    };
    of_one_channel / c as f64
}

/// Fixed caches, so that the choice does not depend on the machine that runs the tests.
const CACHES: Caches = Caches { l1: 48 << 10, l2: 1 << 20, ..Caches::UNKNOWN };

/// The instruction sets of this CPU that have Winograd kernels.
fn engines() -> Vec<Isa> {
    Isa::all().into_iter().filter(|isa| !matches!(isa, Isa::Portable(_))).collect()
}

fn compute(isa: Isa, choice: FormChoice, case: &ConvCase, team: &mut Team) -> Vec<f32> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => with_engine(engine, choice, case, team),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => with_engine(engine, choice, case, team),
        Isa::Portable(_) => unreachable!("no Winograd kernels"),
    }
}

fn with_engine<E: WinogradKernel>(
    engine: E,
    choice: FormChoice,
    case: &ConvCase,
    team: &mut Team,
) -> Vec<f32> {
    match choice {
        FormChoice::F2 => with_form::<E, F2>(engine, case, team),
        FormChoice::F4 => with_form::<E, F4>(engine, case, team),
        FormChoice::F6 => with_form::<E, F6>(engine, case, team),
    }
}

fn with_form<E: WinogradKernel, F: Form>(engine: E, case: &ConvCase, team: &mut Team) -> Vec<f32> {
    let given = (&case.weights[..], case.bias());
    let plan = WinogradPlan::<E, F>::new(engine, "test", &case.problem, given, team).unwrap();
    let mut output = vec![f32::NAN; case.problem.output_len()];
    // The contents of a workspace must not matter.
    let mut workspace = vec![f32::NAN; plan.workspace_len(team.size())];
    plan.execute(team, &mut workspace, &case.input, &mut output).unwrap();
    let once = Once::<E, F>::new(engine, &case.problem, given).unwrap();
    let mut output_once = vec![f32::NAN; case.problem.output_len()];
    let mut workspace = vec![f32::NAN; once.workspace_len(team.size())];
    once.execute(team, &mut workspace, &case.input, &mut output_once).unwrap();
    assert!(same_bits(&output_once, &output), "a single call and a plan differ: {:?}", case.desc);
    output
}

/// A random shape: any remainder of P, Q, C and K, padding 0 to 3, down to one output.
fn desc(random: &mut Random) -> Conv2dDesc {
    let (pad_h, pad_w) = (random.between(0, 3), random.between(0, 3));
    let least = |pad: i64| (3 - 2 * pad).max(1);
    // One group half of the time.
    let groups = (random.between(-2, 3)).max(1);
    Conv2dDesc {
        groups,
        n: random.between(1, 3),
        c: groups * random.between(1, 40 / groups),
        h: least(pad_h) + random.between(0, 20),
        w: least(pad_w) + random.between(0, 30),
        k: groups * random.between(1, 70 / groups),
        r: 3,
        s: 3,
        pad_h,
        pad_w,
        bias: random.between(0, 1) == 1,
        relu: random.between(0, 1) == 1,
        ..Default::default()
    }
}

/// The largest error over the direct algorithm's bound.
fn worst_direct(case: &ConvCase, output: &[f32]) -> f64 {
    let errors = output.iter().zip(case.expected());
    errors.map(|(&got, it)| error_over_bound(got, it, case.problem.terms())).fold(0.0, f64::max)
}

/// The same with the largest magnitude of each image and channel. At a border, an output sees little or nothing of the
/// image, but its error is that of its tile.
fn worst(case: &ConvCase, output: &[f32]) -> f64 {
    let mut expected = case.expected();
    for plane in expected.chunks_mut(case.problem.sizes().p * case.problem.sizes().q) {
        let magnitude = plane.iter().map(|it| it.magnitude).fold(0.0, f64::max);
        plane.iter_mut().for_each(|it| it.magnitude = magnitude);
    }
    let errors = output.iter().zip(expected);
    errors.map(|(&got, it)| error_over_bound(got, it, case.problem.terms())).fold(0.0, f64::max)
}

#[test]
fn every_form_stays_within_its_factor_of_the_bound() {
    let mut random = Random::new(51);
    let mut teams = [1, 3].map(Team::of);
    let mut cases = 0;
    for isa in engines() {
        for choice in CHOICES {
            let mut largest = 0.0f64;
            for round in 0..60 {
                let case = ConvCase::new(desc(&mut random), Values::Real, &mut random);
                let error = worst(&case, &compute(isa, choice, &case, &mut teams[round % 2]));
                assert!(
                    error <= factor(choice, case.desc.c / case.desc.groups),
                    "{isa:?} {choice:?} {:?}: {error}",
                    case.desc
                );
                largest = largest.max(error / factor(choice, case.desc.c / case.desc.groups));
                cases += 1;
            }
            println!("{isa:?} {choice:?}: largest error {largest:.3} of its bound");
        }
    }
    assert!(engines().is_empty() || cases >= 180);
}

#[test]
fn accurate_forms_stay_within_a_quarter_of_the_bound() {
    let mut random = Random::new(52);
    let mut team = Team::of(1);
    let mut cases = 0;
    for isa in engines() {
        for choice in CHOICES {
            for c in [16, 32, 64, 128, 256] {
                let mut largest = 0.0f64;
                for (h, w, pad) in [(13, 13, 1), (2, 2, 1), (12, 14, 0)] {
                    let (c, pad) = (c as i64, pad);
                    let desc = Conv2dDesc {
                        n: 2,
                        c,
                        h,
                        w,
                        k: 48,
                        r: 3,
                        s: 3,
                        pad_h: pad,
                        pad_w: pad,
                        ..Default::default()
                    };
                    let case = ConvCase::new(desc, Values::Real, &mut random);
                    largest = largest.max(worst_direct(&case, &compute(isa, choice, &case, &mut team)));
                }
                println!("{isa:?} {choice:?} C = {c}: largest error over bound {largest:.4}");
                assert!(
                    largest <= 0.25 || c < winograd::min_channels(choice.m()),
                    "{isa:?} {choice:?} {c}: {largest}"
                );
                cases += 1;
            }
        }
    }
    assert!(engines().is_empty() || cases >= 15);
}

#[test]
fn the_smallest_form_is_exact_on_integers() {
    let mut random = Random::new(53);
    let mut teams = [1, 2, 5].map(Team::of);
    let mut cases = 0;
    for isa in engines() {
        for round in 0..100 {
            let mut case = ConvCase::new(desc(&mut random), Values::Exact, &mut random);
            case.weights.iter_mut().for_each(|weight| *weight *= 4.0);
            let output = compute(isa, FormChoice::F2, &case, &mut teams[round % 3]);
            for (index, (&got, expected)) in output.iter().zip(case.expected()).enumerate() {
                assert!(same(got, expected.value), "{isa:?} {:?} at {index}: {got}", case.desc);
            }
            cases += 1;
        }
    }
    assert!(engines().is_empty() || cases >= 100);
}

#[test]
fn bits_depend_on_neither_threads_nor_time() {
    let mut random = Random::new(54);
    let mut teams = [1, 2, 3, 7].map(Team::of);
    let mut cases = 0;
    // Enough tiles for a block per thread; few tiles of many channels.
    let many = Conv2dDesc { n: 2, c: 33, h: 61, w: 67, k: 30, r: 3, s: 3, pad_h: 1, ..Default::default() };
    let few =
        Conv2dDesc { c: 300, h: 7, w: 9, k: 170, r: 3, s: 3, pad_w: 2, bias: true, ..Default::default() };
    for isa in engines() {
        for choice in CHOICES {
            for desc in [many, few, desc(&mut random), desc(&mut random)] {
                let case = ConvCase::new(desc, Values::Real, &mut random);
                let first = compute(isa, choice, &case, &mut teams[0]);
                assert!(worst(&case, &first) <= factor(choice, desc.c / desc.groups));
                for team in &mut teams {
                    assert!(
                        same_bits(&compute(isa, choice, &case, team), &first),
                        "{isa:?} {choice:?} {desc:?}"
                    );
                    cases += 1;
                }
            }
        }
    }
    assert!(engines().is_empty() || cases >= 48);
}

/// The class of an output: NaN, one of the infinities, or finite.
fn class(value: f64) -> Option<f64> {
    if value.is_nan() { None } else { Some(if value.is_infinite() { value } else { 0.0 }) }
}

/// NaN and infinities in inputs, weights and bias reach exactly the outputs of the definition, in the middle and at
/// borders. All other outputs keep their bits, or are recomputed by the definition if their tile is.
#[test]
fn nan_and_infinity_reach_the_outputs_of_the_definition() {
    let mut random = Random::new(55);
    let (mut cases, mut changed, mut beside) = (0, 0, 0);
    for isa in engines() {
        for choice in CHOICES {
            for round in 0..60 {
                let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][round % 3];
                let mut case = ConvCase::new(desc(&mut random), Values::Real, &mut random);
                let mut team = Team::of(1 + round % 3);
                let clean = compute(isa, choice, &case, &mut team);
                for _ in 0..random.between(1, 3) {
                    let values = match (random.between(0, 3), &mut case.bias) {
                        (0, _) => &mut case.weights,
                        (1, Some(bias)) => bias,
                        _ => &mut case.input,
                    };
                    let at = random.between(0, values.len() as i64 - 1) as usize;
                    values[at] = special;
                }
                let got = compute(isa, choice, &case, &mut team);
                for ((got, clean), expected) in got.into_iter().zip(clean).zip(case.expected()) {
                    let what = class(expected.value);
                    assert_eq!(class(got.into()), what, "{isa:?} {choice:?} {:?}: {got}", case.desc);
                    if what == Some(0.0) && got.to_bits() != clean.to_bits() {
                        let error = error_over_bound(got, expected, case.problem.terms());
                        assert!(error <= 1.0, "{isa:?} {choice:?} {:?}: {error}", case.desc);
                        beside += 1;
                    }
                    changed += usize::from(what != Some(0.0));
                }
                cases += 1;
            }
        }
    }
    assert!(
        engines().is_empty() || cases >= 180 && changed > 10_000 && beside > 1_000,
        "{changed} in {cases} cases"
    );
}

/// Where a convolution is finite, Winograd's result is finite, and within the direct algorithm's bound where the
/// transforms overflow. Inputs, or inputs and weights, are as large as possible.
#[test]
fn overflow_in_the_transforms_alone_gives_finite_outputs() {
    let mut random = Random::new(57);
    let (mut cases, mut recomputed) = (0, 0);
    for isa in engines() {
        for choice in CHOICES {
            for (inputs, weights) in [(1e36, 1.0), (3e37, 1.0), (2e38, 0.1), (1e20, 1e16), (1e-3, 1e38)] {
                let desc = Conv2dDesc {
                    c: random.between(1, 20),
                    k: random.between(1, 40),
                    h: random.between(3, 40),
                    w: random.between(3, 90),
                    pad_h: random.between(0, 1),
                    pad_w: random.between(0, 1),
                    ..desc(&mut random)
                };
                let desc = Conv2dDesc { groups: 1, ..desc };
                let mut case = ConvCase::new(desc, Values::Real, &mut random);
                case.input.iter_mut().for_each(|value| *value *= inputs);
                case.weights.iter_mut().for_each(|value| *value *= weights);
                let got = compute(isa, choice, &case, &mut Team::of(2));
                // The direct algorithm's sums can overflow where terms of both signs cancel.
                let finite = f64::from(f32::MAX);
                let terms = case.problem.terms();
                for (got, expected) in got.into_iter().zip(case.expected()) {
                    if expected.magnitude < finite {
                        assert!(got.is_finite(), "{isa:?} {choice:?} {desc:?}: {got} for {expected:?}");
                        recomputed += usize::from(error_over_bound(got, expected, terms) <= 1.0);
                    }
                }
                cases += 1;
            }
        }
    }
    assert!(engines().is_empty() || cases >= 15 && recomputed > 1_000, "{recomputed} in {cases} cases");
}

fn plan(desc: Conv2dDesc) -> Result<Option<String>> {
    let problem = Conv2d::new(desc).unwrap();
    let (weights, bias) = (vec![0.0; problem.weights_len()], vec![0.0; desc.k as usize]);
    let plan = super::plan(Isa::best(), &problem, (&weights, desc.bias.then_some(&bias)))?;
    Ok(plan.map(|plan| plan.kernel().to_owned()))
}

#[test]
fn the_forms_of_plans_and_of_single_calls() {
    let layer = |c, side, groups| {
        let (k, h, w) = (c, side, side);
        let desc = Conv2dDesc { c, h, w, k, r: 3, s: 3, pad_h: 1, pad_w: 1, groups, ..Default::default() };
        Conv2d::new(desc).unwrap()
    };
    let chosen = |problem: &Conv2d| super::choice::choose(&CACHES, problem, problem.algorithm(), 16);
    for (c, side, groups, planned, once) in [
        // Many pixels; few pixels, where a plan spends time on reading U and a single call on computing it.
        (64, 224, 1, Some(FormChoice::F6), Some(FormChoice::F6)),
        (512, 14, 1, Some(FormChoice::F4), Some(FormChoice::F4)),
        (512, 7, 1, Some(FormChoice::F2), Some(FormChoice::F2)),
        // Too little work.
        (16, 56, 1, None, None),
        // Groups of many channels are worth it, like a convolution of that size; half a vector of channels is not.
        (256, 56, 4, Some(FormChoice::F6), Some(FormChoice::F6)),
        (256, 56, 64, None, None),
    ] {
        let problem = layer(c, side, groups);
        assert_eq!((chosen(&problem), chosen(&problem.once())), (planned, once), "{c} {side} {groups}");
    }
}

#[test]
fn winograd_is_refused_where_it_cannot_be_done() {
    use crate::error::Error;
    use crate::problem::Algorithm::{Auto, Direct, Winograd};
    let base =
        Conv2dDesc { c: 64, h: 56, w: 56, k: 64, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
    for (algorithm, bad) in [
        Conv2dDesc { r: 1, ..base },
        Conv2dDesc { s: 5, ..base },
        Conv2dDesc { stride_h: 2, ..base },
        Conv2dDesc { stride_w: 3, ..base },
        Conv2dDesc { dilation_h: 2, ..base },
        Conv2dDesc { dilation_w: 2, ..base },
    ]
    .into_iter()
    .flat_map(|bad| [(Auto, bad), (Direct, bad), (Winograd, bad)])
    {
        let planned = plan(Conv2dDesc { algorithm, ..bad });
        match algorithm {
            Winograd => assert!(matches!(planned, Err(Error::Unsupported { .. })), "{bad:?}: {planned:?}"),
            Auto | Direct => assert_eq!(planned, Ok(None)),
        }
    }
    if engines().is_empty() {
        return assert!(plan(Conv2dDesc { algorithm: Winograd, ..base }).is_err());
    }
    for (desc, expected) in [
        (Conv2dDesc { algorithm: Direct, ..base }, None),
        (Conv2dDesc { h: 5, w: 5, ..base }, None),
        (Conv2dDesc { pad_h: 2, ..base }, None),
        (Conv2dDesc { algorithm: Winograd, c: 1, ..base }, Some("conv_winograd_f2x3_")),
        (Conv2dDesc { algorithm: Winograd, pad_h: 3, bias: true, ..base }, Some("conv_winograd_f2x3_")),
        (Conv2dDesc { algorithm: Winograd, ..base }, Some("conv_winograd_")),
        (base, Some("conv_winograd_")),
    ] {
        let planned = plan(desc).unwrap();
        let right = match (&planned, expected) {
            (Some(name), Some(prefix)) => name.starts_with(prefix),
            (planned, expected) => planned.is_none() && expected.is_none(),
        };
        assert!(right, "{desc:?}: {planned:?}");
    }
}
