//! What `auto` has learned: for each kind of call, which engine was faster when it was measured.
//!
//! The first call of a kind goes to the engine that is predicted fastest, the second to the runner-up if it is predicted
//! to take at most twice as long, and then the faster of the two is kept. A first run that takes far longer than
//! predicted does not count, because it may have compiled a kernel. From then on nothing is tried any more, since
//! other engines round differently; only if the engine becomes slower by a quarter, the choice is made again.
//!
//! Engines with the same fingerprint are one choice. Of these the one with the fewest calls in flight gets the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::kind::Kind;
use crate::backend::Backend;
use crate::store::{Stored, store};

/// How many times longer than the best prediction the runner-up's may be.
const WORTH_TRYING: f64 = 2.0;
/// A first run that takes more times its prediction than this does not count.
const WARM_UP: f64 = 3.0;
/// How much slower a kept engine must become for a new choice, and how many runs in a row must show it.
const DRIFT: f64 = 1.25;
const DRIFTED_RUNS: u32 = 5;
/// Runs after a choice whose slowest is what later runs are compared with.
const SETTLING_RUNS: u32 = 5;
/// The most kinds of calls that are remembered.
const MAX_KINDS: usize = 1024;

/// The state of `auto`.
#[derive(Default)]
pub struct Experience {
    kinds: Mutex<HashMap<Kind, Choice>>,
    /// For each engine the first engine that is like it.
    twins: OnceLock<Vec<usize>>,
    /// Calls in flight on each engine.
    in_flight: OnceLock<Vec<AtomicUsize>>,
}

/// The engines of `auto`, the CPU first.
pub type Engines = [Arc<dyn Backend>];

/// The engine for a call, and why it gets it.
pub struct Decision {
    pub index: usize,
    pub basis: Basis,
    /// Whether it is one of several equal engines, of which it has the fewest calls in flight.
    pub is_least_busy: bool,
    /// The seconds of each engine, or of one that is like it, as far as measured.
    pub measured: Vec<Option<f64>>,
}

/// Why an engine gets a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Basis {
    /// It is predicted fastest, and not yet measured.
    #[default]
    Predicted,
    /// It is the runner-up, and not yet measured.
    RunnerUp,
    /// It is kept, because it was measured to be faster than the other one that was tried.
    Measured,
    /// It is kept, because all others are predicted to take more than twice as long.
    Alone,
    /// It is kept, because it was kept before and that was stored.
    Stored,
    /// There was no memory to learn; the CPU computes.
    NoMemory,
}

/// A choice as it is stored.
struct Kept {
    engine: usize,
    /// The seconds of each engine, as far as measured.
    seconds: Vec<Option<f64>>,
}

/// The number of the engine, then the seconds of each; infinite if it was not measured.
impl Stored for Kept {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let seconds = self.seconds.iter().map(|it| it.unwrap_or(f64::INFINITY));
        let values = std::iter::once(self.engine as f64).chain(seconds);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(8 * (1 + self.seconds.len())).ok()?;
        values.for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        Some(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (values, rest) = bytes.as_chunks::<8>();
        let (first, seconds) = values.split_first().filter(|_| rest.is_empty())?;
        let engine = f64::from_le_bytes(*first);
        let seconds: Vec<f64> = seconds.iter().map(|value| f64::from_le_bytes(*value)).collect();
        let is_sound =
            seconds.iter().all(|&it| it >= 0.0) && (0..seconds.len()).any(|index| index as f64 == engine);
        let seconds = seconds.into_iter().map(|it| Some(it).filter(|it| it.is_finite())).collect();
        is_sound.then_some(Kept { engine: engine as usize, seconds })
    }
}

/// What is known about one kind of call.
#[derive(Debug, Clone, Default, PartialEq)]
struct Choice {
    /// The seconds of each engine, as far as measured, and the runs that did not count.
    seconds: Vec<Option<f64>>,
    /// The seconds that an earlier process stored. They explain the choice and decide nothing.
    earlier: Vec<Option<f64>>,
    warm_ups: Vec<u32>,
    /// The engine that is kept.
    kept: Option<usize>,
    /// Why it is kept.
    kept_for: Basis,
    /// Runs on that engine since.
    settled: u32,
    /// Runs in a row on that engine that were slower than when it was chosen.
    slow: u32,
}

impl Choice {
    /// The engine for the next call, and why. `predicted` has the seconds of each engine; infinite ones take no part.
    fn next(&mut self, predicted: &[f64]) -> (usize, Basis) {
        self.seconds.resize(predicted.len(), None);
        self.warm_ups.resize(predicted.len(), 0);
        if let Some(kept) = self.kept.filter(|&kept| predicted[kept].is_finite()) {
            return (kept, self.kept_for);
        }
        let mut order: Vec<usize> = (0..predicted.len()).collect();
        order.sort_by(|&a, &b| predicted[a].total_cmp(&predicted[b]));
        let best = predicted[order[0]];
        let is_tried = |&&engine: &&usize| predicted[engine] <= WORTH_TRYING * best;
        let tried: Vec<usize> = order.iter().take(2).filter(is_tried).copied().collect();
        if let Some(&open) = tried.iter().find(|&&engine| self.seconds[engine].is_none()) {
            return (open, if open == order[0] { Basis::Predicted } else { Basis::RunnerUp });
        }
        let seconds = |engine: &&usize| self.seconds[**engine].unwrap_or(f64::INFINITY);
        let kept = tried.iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b))).copied();
        let kept = kept.unwrap_or(order[0]);
        self.kept = Some(kept);
        self.kept_for = if tried.len() > 1 { Basis::Measured } else { Basis::Alone };
        (kept, self.kept_for)
    }

    /// Notes what a call took on `engine`.
    fn record(&mut self, engine: usize, predicted: f64, seconds: f64) {
        let Some(known) = self.seconds.get_mut(engine) else { return };
        match (*known, self.kept) {
            (None, _) if seconds > WARM_UP * predicted && self.warm_ups[engine] == 0 => {
                self.warm_ups[engine] = 1;
            }
            (None, _) => *known = Some(seconds),
            (Some(before), Some(kept)) if kept == engine && self.settled < SETTLING_RUNS => {
                self.settled += 1;
                *known = Some(before.max(seconds));
            }
            (Some(before), Some(kept)) if kept == engine => {
                self.slow = if seconds > DRIFT * before { self.slow + 1 } else { 0 };
                if self.slow == DRIFTED_RUNS {
                    *self = Choice::default();
                }
            }
            (Some(before), _) => *known = Some(before.min(seconds)),
        }
    }
}

/// A call that counts as in flight until this is dropped.
pub struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Experience {
    fn kinds(&self) -> MutexGuard<'_, HashMap<Kind, Choice>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn twins(&self, engines: &Engines) -> &[usize] {
        self.twins.get_or_init(|| {
            let prints: Vec<String> = engines.iter().map(|engine| engine.fingerprint()).collect();
            prints.iter().map(|print| prints.iter().position(|it| it == print).unwrap_or(0)).collect()
        })
    }

    fn in_flight(&self, engines: &Engines) -> &[AtomicUsize] {
        self.in_flight.get_or_init(|| engines.iter().map(|_| AtomicUsize::new(0)).collect())
    }

    /// The engine for the next call of this kind, whose seconds on each engine are predicted.
    pub fn choose(&self, engines: &Engines, kind: Kind, predicted: &[f64]) -> Decision {
        let twins = self.twins(engines);
        let given = predicted;
        let predicted = self.of_first(engines, given);
        let mut kinds = self.kinds();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kinds.clear();
        }
        if kinds.try_reserve(1).is_err() {
            let measured = vec![None; engines.len()];
            return Decision { index: 0, basis: Basis::NoMemory, is_least_busy: false, measured };
        }
        let choice = kinds.entry(kind).or_insert_with(|| self.stored(engines, &kind, &predicted));
        let was_kept = choice.kept;
        let (chosen, basis) = choice.next(&predicted);
        if was_kept.is_none() && choice.kept.is_some() {
            store().save(
                "auto",
                &self.key(engines, &kind),
                &Kept { engine: chosen, seconds: choice.seconds.clone() },
            );
            crate::log::debug!("auto: {} is kept: measured {:?}", engines[chosen].id(), choice.seconds);
        }
        let measured = twins.iter().map(|&first| choice.seconds[first]).collect();
        drop(kinds);
        let load = self.in_flight(engines);
        let alike = (0..engines.len()).filter(|&index| twins[index] == twins[chosen]);
        let alike = alike.filter(|&index| given[index].is_finite());
        let is_least_busy = alike.clone().count() > 1;
        let index = alike.min_by_key(|&index| load[index].load(Ordering::Relaxed)).unwrap_or(chosen);
        Decision { index, basis, is_least_busy, measured }
    }

    /// What is known of this kind of call: the seconds of each engine as far as measured, and the engine that the next
    /// call would get. Changes nothing.
    pub fn known(&self, engines: &Engines, kind: Kind, predicted: &[f64]) -> (Vec<Option<f64>>, usize) {
        let predicted = self.of_first(engines, predicted);
        let known = self.kinds().get(&kind).cloned();
        let mut choice = known.unwrap_or_else(|| self.stored(engines, &kind, &predicted));
        let (next, _) = choice.next(&predicted);
        let seconds = |&first: &usize| choice.seconds[first].or(choice.earlier.get(first).copied().flatten());
        (self.twins(engines).iter().map(seconds).collect(), next)
    }

    /// The predictions for the first engine of each group of equal ones; infinite for the others, because of equal engines
    /// only the first is a choice.
    fn of_first(&self, engines: &Engines, predicted: &[f64]) -> Vec<f64> {
        let twins = self.twins(engines);
        let of_first = |first: usize| {
            let alike = (0..engines.len()).filter(|&index| twins[index] == first);
            alike.map(|index| predicted[index]).fold(f64::INFINITY, f64::min)
        };
        (0..engines.len()).map(of_first).collect()
    }

    /// The choice that an earlier process stored, if any.
    fn stored(&self, engines: &Engines, kind: &Kind, predicted: &[f64]) -> Choice {
        let kept = store().load::<Kept>("auto", &self.key(engines, kind));
        let kept = kept.filter(|it| predicted.get(it.engine).is_some_and(|seconds| seconds.is_finite()));
        let (kept, earlier) = kept.map_or((None, vec![]), |it| (Some(it.engine), it.seconds));
        Choice { kept_for: Basis::Stored, kept, earlier, ..Choice::default() }
    }

    /// Counts a call on `engine` until the value is dropped.
    pub fn enter(&self, engines: &Engines, engine: usize) -> InFlight<'_> {
        let count = &self.in_flight(engines)[engine];
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }

    /// Notes what a call of this kind took.
    pub fn record(&self, engines: &Engines, kind: &Kind, engine: usize, predicted: f64, seconds: f64) {
        let first = self.twins(engines)[engine];
        if let Some(choice) = self.kinds().get_mut(kind) {
            choice.record(first, predicted, seconds);
        }
    }

    fn key(&self, engines: &Engines, kind: &Kind) -> String {
        let prints: Vec<String> = engines.iter().map(|engine| engine.fingerprint()).collect();
        format!("{}; {kind:?}", prints.join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The engines of successive calls, with true times.
    fn calls(choice: &mut Choice, predicted: &[f64], truth: &[f64], count: usize) -> Vec<usize> {
        let call = |_| {
            let (engine, _) = choice.next(predicted);
            choice.record(engine, predicted[engine], truth[engine]);
            engine
        };
        (0..count).map(call).collect()
    }

    #[test]
    fn the_second_call_goes_to_the_runner_up_and_the_third_decides() {
        let (predicted, none) = ([1.0, 1.5, 1.9], Choice::default);
        assert_eq!(calls(&mut none(), &predicted, &[1.2, 1.1, 0.1], 5), [0, 1, 1, 1, 1]);
        assert_eq!(calls(&mut none(), &predicted, &[1.2, 1.3, 0.1], 5), [0, 1, 0, 0, 0]);
        assert_eq!(
            calls(&mut none(), &[4.0, 1.0], &[0.1, 1.0], 4),
            [1; 4],
            "four times as long is not tried"
        );
        assert_eq!(calls(&mut none(), &[f64::INFINITY, 1.0], &[0.1, 1.0], 3), [1; 3]);
        assert_eq!(calls(&mut none(), &[1.0], &[9.0], 3), [0; 3]);
    }

    #[test]
    fn a_choice_says_what_it_rests_on() {
        let bases = |mut choice: Choice, predicted: [f64; 2]| {
            [(); 4].map(|()| {
                let (engine, basis) = choice.next(&predicted);
                choice.record(engine, predicted[engine], predicted[engine]);
                basis
            })
        };
        let none = Choice::default;
        let tried = [Basis::Predicted, Basis::RunnerUp, Basis::Measured, Basis::Measured];
        assert_eq!(bases(none(), [1.0, 1.5]), tried);
        assert_eq!(bases(none(), [1.5, 1.0]), tried);
        let alone = [Basis::Predicted, Basis::Alone, Basis::Alone, Basis::Alone];
        assert_eq!(bases(none(), [1.0, 2.5]), alone);
        let stored = |kept| Choice { kept: Some(kept), kept_for: Basis::Stored, ..none() };
        assert_eq!(bases(stored(1), [1.0, 2.5]), [Basis::Stored; 4]);
        // What was kept has become impossible.
        assert_eq!(bases(stored(1), [1.0, f64::INFINITY]), alone);
    }

    #[test]
    fn a_run_that_compiles_does_not_count() {
        let mut choice = Choice::default();
        let mut first = [true; 2];
        let mut engines = vec![];
        for _ in 0..6 {
            let (engine, _) = choice.next(&[1.0, 1.1]);
            let compiles = std::mem::take(&mut first[engine]) && engine == 0;
            choice.record(engine, 1.0, if compiles { 50.0 } else { [0.9, 1.1][engine] });
            engines.push(engine);
        }
        assert_eq!(engines, [0, 0, 1, 0, 0, 0]);
        // One that is always that slow counts.
        assert_eq!(calls(&mut Choice::default(), &[1.0, 1.1], &[50.0, 1.0], 5), [0, 0, 1, 1, 1]);
    }

    #[test]
    fn an_engine_that_becomes_slower_is_chosen_again() {
        let (mut choice, predicted) = (Choice::default(), [1.0, 1.1]);
        assert_eq!(calls(&mut choice, &predicted, &[1.0, 1.1], 8), [0, 1, 0, 0, 0, 0, 0, 0]);
        // Single slow runs change nothing.
        for _ in 0..3 {
            assert_eq!(calls(&mut choice, &predicted, &[2.0, 1.1], 4), [0; 4]);
            assert_eq!(calls(&mut choice, &predicted, &[1.0, 1.1], 1), [0]);
        }
        let engines = calls(&mut choice, &predicted, &[2.0, 1.1], 10);
        assert_eq!(engines, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
    }

    /// Over many random engines: after three calls, the choice is at most as slow as the better of the two tried.
    #[test]
    fn after_three_calls_there_is_no_regret_among_those_tried() {
        let mut random = crate::problem::exact::Random::new(3);
        let mut unit = || random.between(1, 1000) as f64 / 1000.0;
        let mut changed = 0;
        for _ in 0..200 {
            let truth = [unit(), unit()];
            let predicted = truth.map(|truth| truth * (0.7 + 0.6 * unit()));
            let engines = calls(&mut Choice::default(), &predicted, &truth, 6);
            let (most, least) = (predicted[0].max(predicted[1]), predicted[0].min(predicted[1]));
            if most <= 2.0 * least {
                let best = if truth[0] <= truth[1] { 0 } else { 1 };
                assert_eq!(engines[2..], [best; 4], "{truth:?} {predicted:?}");
            } else {
                assert_eq!(engines, [engines[0]; 6]);
            }
            changed += usize::from(engines[0] != engines[5]);
        }
        assert!(changed > 5, "{changed}");
    }
}
