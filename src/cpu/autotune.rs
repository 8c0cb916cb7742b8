//! Autotuning: times the candidates that are predicted best, on the pool and with the plan's own shape. Keeps the
//! fastest and records its name in the store.
//!
//! The prediction is right for most shapes and needs no time. A measurement costs several runs at plan time. So it is
//! made only on request: by the problem ([`Conv2d::measured`]) or by `SPARKLE_TUNE=full`. With `SPARKLE_TUNE=read` a
//! recorded result decides. A problem that names its algorithm gets it. The candidates are the direct algorithm and
//! those Winograd forms that are accurate enough for `auto`: measuring changes the rounding, but no error bound. With
//! `SPARKLE_DETERMINISTIC=1` no measurement decides.

use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::isa::{Isa, model};
use super::pool::num_threads;
use super::{direct, winograd};
use crate::backend::Plan;
use crate::config::{Config, Tune, config};
use crate::cpu::tunables::{AUTOTUNE_ROUNDS, MAX_RACED_FORMS};
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Conv2d};
use crate::store::{Store, store};

/// The direct algorithm's name in the store, whichever kernel computes it.
const DIRECT: &str = "direct";

/// An algorithm for a problem. Its name is that of its Winograd kernel, or [`DIRECT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlanCandidate {
    name: &'static str,
    /// The Winograd form, or `None` for the direct algorithm.
    form: Option<winograd::FormChoice>,
}

/// Weights and bias.
type WeightsAndBias<'a> = (&'a [f32], Option<&'a [f32]>);

/// The plan that is fastest by measurement. `None` if measurements do not decide or there is only one candidate.
///
/// # Errors
/// Out of memory, or a task panicked.
pub fn plan(
    isa: Isa,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Option<Box<dyn Plan>>> {
    match policy(problem, config()) {
        Tune::Off => Ok(None),
        policy => decide(isa, problem, (weights, bias), policy, store()),
    }
}

/// Whether measurements decide for `problem`, and whether they are made.
fn policy(problem: &Conv2d, config: &Config) -> Tune {
    let named = problem.algorithm() != Algorithm::Auto || config.algorithm.is_some();
    // A plan that runs once pays for preparing its weights, which is not timed.
    if named || problem.is_once() { Tune::Off } else { config.tune_for(problem) }
}

/// [`plan`] with the policy and the store as arguments.
fn decide(
    isa: Isa,
    problem: &Conv2d,
    data: WeightsAndBias,
    policy: Tune,
    store: &Store,
) -> Result<Option<Box<dyn Plan>>> {
    let candidates = candidates(isa, problem);
    if candidates.len() < 2 {
        return Ok(None);
    }
    let threads = num_threads();
    let key = format!("{}; {}; {threads} threads; {:?}", model(), isa.name(), problem.sizes());
    let known: Option<String> = store.load("conv", &key);
    if let Some(known) = candidates.iter().find(|candidate| Some(candidate.name) == known.as_deref()) {
        return build(isa, known, problem, data).map(Some);
    }
    if policy != Tune::Full {
        return Ok(None);
    }
    let plans = candidates.iter().map(|candidate| build(isa, candidate, problem, data));
    let (index, fastest) = match plans.collect::<Result<_>>().and_then(|plans| fastest(plans, problem)) {
        // If memory does not suffice for measuring, the prediction decides.
        Err(Error::OutOfMemory { .. }) => return Ok(None),
        measured => measured?,
    };
    store.save("conv", &key, &candidates[index].name.to_owned());
    Ok(Some(fastest))
}

/// The direct algorithm, and the Winograd forms that are predicted best, if any can compute the problem.
fn candidates(isa: Isa, problem: &Conv2d) -> Vec<PlanCandidate> {
    let direct = PlanCandidate { name: DIRECT, form: None };
    let forms = winograd::candidates(isa, problem).into_iter().take(MAX_RACED_FORMS);
    std::iter::once(direct)
        .chain(forms.map(|(name, form)| PlanCandidate { name, form: Some(form) }))
        .collect()
}

fn build(
    isa: Isa,
    candidate: &PlanCandidate,
    problem: &Conv2d,
    (weights, bias): WeightsAndBias,
) -> Result<Box<dyn Plan>> {
    match candidate.form {
        Some(form) => winograd::build(isa, form, problem, (weights, bias)),
        None => direct::plan(isa, problem, weights, bias),
    }
}

/// The plan whose best run is the shortest, and its index.
fn fastest(mut plans: Vec<Box<dyn Plan>>, problem: &Conv2d) -> Result<(usize, Box<dyn Plan>)> {
    // The time of arithmetic on normal numbers does not depend on their values.
    let mut input = Buffer::zeroed(problem.input_len())?;
    input.fill(1.0);
    let mut output = Buffer::zeroed(problem.output_len())?;
    let mut times = vec![Duration::MAX; plans.len()];
    for round in 0..=AUTOTUNE_ROUNDS {
        for (plan, best) in plans.iter().zip(&mut times) {
            let start = Instant::now();
            plan.run(&input, &mut output)?;
            if round > 0 {
                *best = start.elapsed().min(*best);
            }
        }
    }
    for (plan, time) in plans.iter().zip(&times) {
        crate::log::debug!("cpu: {} took {time:?} for {:?}", plan.kernel(), problem.sizes());
    }
    let best = (0..plans.len()).min_by_key(|&index| times[index]).unwrap_or(0);
    Ok((best, plans.swap_remove(best)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;
    use crate::problem::exact::Random;
    use crate::problem::oracle::{self, error_over_bound};

    fn layer() -> Conv2dDesc {
        Conv2dDesc { c: 64, h: 24, w: 23, k: 64, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() }
    }

    #[test]
    fn the_policy_says_whether_measurements_decide() {
        let problem = Conv2d::new(layer()).unwrap();
        let direct = Conv2d::new(Conv2dDesc { algorithm: Algorithm::Direct, ..layer() }).unwrap();
        let tune = |tune| Config { tune, ..Config::default() };
        for policy_of_environment in [Tune::Off, Tune::Read, Tune::Full] {
            let config = tune(policy_of_environment);
            assert_eq!(policy(&problem, &config), policy_of_environment);
            assert_eq!(policy(&problem.measured(), &config), Tune::Full);
            assert_eq!(policy(&direct.measured(), &config), Tune::Off);
            assert_eq!(policy(&problem.measured().once(), &config), Tune::Off);
            let named = Config { algorithm: Some(Algorithm::Winograd), ..config.clone() };
            assert_eq!(policy(&problem.measured(), &named), Tune::Off);
            let deterministic = Config { deterministic: true, ..config };
            assert_eq!(policy(&problem.measured(), &deterministic), Tune::Off);
        }
    }

    #[test]
    fn what_was_measured_once_decides_from_then_on() {
        let problem = Conv2d::new(layer()).unwrap();
        let mut random = Random::new(71);
        let input = random.reals(problem.input_len());
        let weights = random.reals(problem.weights_len());
        let isa = Isa::best();
        let decide = |problem: &Conv2d, policy, store: &Store| {
            decide(isa, problem, (&weights, None), policy, store).unwrap()
        };
        let all = candidates(isa, &problem);
        if all.len() < 2 {
            // The portable kernels have no Winograd forms.
            assert_eq!(isa.name(), "portable");
            return assert!(decide(&problem, Tune::Full, &Store::new(None)).is_none());
        }
        assert_eq!(all.len(), 1 + MAX_RACED_FORMS);
        let place = tempfile::tempdir().unwrap();
        let fresh = || Store::new(Some(place.path().to_owned()));
        assert!(decide(&problem, Tune::Read, &fresh()).is_none(), "nothing is known yet");
        let measured = decide(&problem, Tune::Full, &fresh()).unwrap();
        let kernel_of =
            |candidate| build(isa, candidate, &problem, (&weights, None)).unwrap().kernel().to_owned();
        assert!(all.iter().any(|candidate| kernel_of(candidate) == measured.kernel()));
        for policy in [Tune::Read, Tune::Full] {
            assert_eq!(decide(&problem, policy, &fresh()).unwrap().kernel(), measured.kernel());
        }
        // A recorded name is used, and its results are right. An unknown name is ignored.
        let key = {
            let sizes = problem.sizes();
            format!("{}; {}; {} threads; {sizes:?}", model(), isa.name(), num_threads())
        };
        for candidate in &all {
            fresh().save("conv", &key, &candidate.name.to_owned());
            let plan = decide(&problem, Tune::Read, &fresh()).unwrap();
            assert_eq!(plan.kernel(), kernel_of(candidate));
            let mut output = vec![f32::NAN; problem.output_len()];
            plan.run(&input, &mut output).unwrap();
            for (&got, expected) in output.iter().zip(oracle::conv2d(&problem, &input, &weights, None)) {
                assert!(error_over_bound(got, expected, problem.terms()) <= 0.25, "{}", candidate.name);
            }
        }
        fresh().save("conv", &key, &"conv_of_old".to_owned());
        assert!(decide(&problem, Tune::Read, &fresh()).is_none());
    }

    #[test]
    fn without_a_choice_nothing_is_measured() {
        let mut cases = 0;
        for desc in [
            Conv2dDesc { stride_h: 2, ..layer() },
            Conv2dDesc { h: 4, w: 4, ..layer() },
            Conv2dDesc { r: 5, ..layer() },
        ] {
            let problem = Conv2d::new(desc).unwrap();
            let weights = vec![1.0; problem.weights_len()];
            let store = Store::new(None);
            let plan = decide(Isa::best(), &problem, (&weights, None), Tune::Full, &store);
            assert!(plan.unwrap().is_none(), "{desc:?}");
            cases += 1;
        }
        assert_eq!(cases, 3);
    }
}
