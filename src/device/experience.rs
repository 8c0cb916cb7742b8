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
use crate::store::store;

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

/// What is known about one kind of call.
#[derive(Debug, Clone, Default, PartialEq)]
struct Choice {
    /// The seconds of each engine, as far as measured, and the runs that did not count.
    seconds: Vec<Option<f64>>,
    warm_ups: Vec<u32>,
    /// The engine that is kept.
    kept: Option<usize>,
    /// Runs on that engine since.
    settled: u32,
    /// Runs in a row on that engine that were slower than when it was chosen.
    slow: u32,
}

impl Choice {
    /// The engine for the next call. `predicted` has the seconds of each engine; infinite ones take no part.
    fn next(&mut self, predicted: &[f64]) -> usize {
        self.seconds.resize(predicted.len(), None);
        self.warm_ups.resize(predicted.len(), 0);
        if let Some(kept) = self.kept.filter(|&kept| predicted[kept].is_finite()) {
            return kept;
        }
        let mut order: Vec<usize> = (0..predicted.len()).collect();
        order.sort_by(|&a, &b| predicted[a].total_cmp(&predicted[b]));
        let best = predicted[order[0]];
        let is_tried = |&&engine: &&usize| predicted[engine] <= WORTH_TRYING * best;
        let tried: Vec<usize> = order.iter().take(2).filter(is_tried).copied().collect();
        if let Some(&open) = tried.iter().find(|&&engine| self.seconds[engine].is_none()) {
            return open;
        }
        let seconds = |engine: &&usize| self.seconds[**engine].unwrap_or(f64::INFINITY);
        let kept = tried.iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b))).copied();
        let kept = kept.unwrap_or(order[0]);
        self.kept = Some(kept);
        kept
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
    pub fn choose(&self, engines: &Engines, kind: Kind, predicted: &[f64]) -> usize {
        let twins = self.twins(engines);
        // Of equal engines only the first is a choice.
        let of_first = |first: usize| {
            let alike = (0..engines.len()).filter(|&index| twins[index] == first);
            alike.map(|index| predicted[index]).fold(f64::INFINITY, f64::min)
        };
        let given = predicted;
        let predicted: Vec<f64> = (0..engines.len()).map(of_first).collect();
        let key = || self.key(engines, &kind);
        let mut kinds = self.kinds();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kinds.clear();
        }
        if kinds.try_reserve(1).is_err() {
            return 0;
        }
        let choice = kinds.entry(kind).or_insert_with(|| Choice {
            kept: (store().load::<[f64; 1]>("auto", &key())).and_then(|[kept]| {
                let index = (0..engines.len()).find(|&index| index as f64 == kept)?;
                predicted[index].is_finite().then_some(index)
            }),
            ..Choice::default()
        });
        let was_kept = choice.kept;
        let chosen = choice.next(&predicted);
        if was_kept.is_none() && choice.kept.is_some() {
            store().save("auto", &key(), &[chosen as f64]);
            crate::log::debug!("auto: {} is kept: measured {:?}", engines[chosen].id(), choice.seconds);
        }
        drop(kinds);
        let load = self.in_flight(engines);
        let alike = (0..engines.len()).filter(|&index| twins[index] == twins[chosen]);
        let alike = alike.filter(|&index| given[index].is_finite());
        alike.min_by_key(|&index| load[index].load(Ordering::Relaxed)).unwrap_or(chosen)
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
            let engine = choice.next(predicted);
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
    fn a_run_that_compiles_does_not_count() {
        let mut choice = Choice::default();
        let mut first = [true; 2];
        let mut engines = vec![];
        for _ in 0..6 {
            let engine = choice.next(&[1.0, 1.1]);
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
