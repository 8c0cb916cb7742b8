//! The learners of a device: one for each kind of call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::Multi;
use super::learner::{Learner, Split};
use super::parts::{Axis, conv2d_part, gemm_part, gemm_work};
use super::together::{Done, Outcome, lock};
use crate::backend::Backend;
use crate::device::kind::Kind;
use crate::device::predict::{conv2d_work, work_seconds};
use crate::error::Result;
use crate::memory::roofline;
use crate::memory::shares::{Line, by_weight};
use crate::problem::{Conv2d, Gemm};
use crate::store::store;

/// The most kinds of calls that a device remembers.
const MAX_KINDS: usize = 1024;

/// What a device has learned.
#[derive(Default)]
pub struct Learners {
    known: HashMap<Kind, Arc<Mutex<Learner>>>,
}

/// The shares of one kind of call: how it is cut, and what is known about it.
#[derive(Clone)]
pub struct Shares {
    pub axis: Axis,
    /// Without a learner the weights are fixed.
    learner: Option<Arc<Mutex<Learner>>>,
    kind: Kind,
}

impl Multi {
    /// How convolutions like `problem` are shared.
    pub(super) fn shares_of_conv2d(&self, problem: &Conv2d) -> Shares {
        let axis = Axis::of_conv2d(problem, self.members.len());
        self.shares(problem.into(), axis, |backend, units| {
            let hierarchy = backend.hierarchy()?;
            let (part, times) = conv2d_part(problem, axis.dimension, axis.span(units));
            let mut work = conv2d_work(&part);
            if problem.is_once() {
                work.upload += 4 * part.weights_len() as u64;
            }
            Ok(times as f64 * work_seconds(backend, &part, &hierarchy, work))
        })
    }

    /// How products like `problem` are shared.
    pub(super) fn shares_of_gemm(&self, problem: &Gemm) -> Shares {
        let axis = Axis::of_gemm(problem, self.members.len());
        self.shares(problem.into(), axis, |backend, units| {
            let part = gemm_part(problem, axis.dimension, axis.span(units));
            Ok(roofline::seconds(&backend.hierarchy()?, gemm_work(&part)))
        })
    }

    fn shares(&self, kind: Kind, axis: Axis, seconds: impl Fn(&dyn Backend, usize) -> Result<f64>) -> Shares {
        if self.weights.is_some() {
            return Shares { axis, learner: None, kind };
        }
        if let Some(learner) = lock(&self.learners).known.get(&kind) {
            return Shares { axis, learner: Some(learner.clone()), kind };
        }
        let units = axis.units();
        let line = |backend: &dyn Backend| {
            Ok(Line::through((1, seconds(backend, 1)?), (units, seconds(backend, units)?)))
        };
        let predicted = self.members.iter().map(|member| match line(&*member.backend) {
            Ok(line) => Some(line),
            Err(error) => {
                let error: crate::Error = error;
                crate::log::warning!("multi: {} is skipped: {error}", member.id);
                None
            }
        });
        let predicted: Vec<Option<Line>> = predicted.collect();
        let learner = Learner::new(predicted, units);
        let learner = store()
            .load("shares", &self.key(&kind))
            .and_then(|saved: Vec<u8>| learner.restored(&saved))
            .unwrap_or(learner);
        let mut learners = lock(&self.learners);
        if learners.known.len() >= MAX_KINDS {
            learners.known.clear();
        }
        let made = || Arc::new(Mutex::new(learner));
        let learner = match learners.known.try_reserve(1) {
            Ok(()) => learners.known.entry(kind).or_insert_with(made).clone(),
            // What cannot be remembered is learned again.
            Err(_) => made(),
        };
        Shares { axis, learner: Some(learner), kind }
    }

    /// The key of what was learned about a kind of call: the members and their drivers, and the call.
    fn key(&self, kind: &Kind) -> String {
        let members: Vec<String> = self.members.iter().map(|member| member.backend.fingerprint()).collect();
        format!("{}; {kind:?}", members.join(" | "))
    }

    /// The members that take part in the next call.
    pub(super) fn present(&self) -> Vec<bool> {
        self.members.iter().map(|member| member.is_present()).collect()
    }

    /// The split for the next call; `None` if no member can take part.
    pub(super) fn choose(&self, shares: &Shares, present: &[bool]) -> Option<Split> {
        match &shares.learner {
            Some(learner) => lock(learner).choose(present),
            None => self.fixed(present, shares.axis.units()),
        }
    }

    /// The split that the next call will probably have. Nothing is counted or learned.
    pub(super) fn preview(&self, shares: &Shares, present: &[bool]) -> Option<Split> {
        match &shares.learner {
            Some(learner) => lock(learner).clone().choose(present),
            None => self.fixed(present, shares.axis.units()),
        }
    }

    /// The split of `units` units that are left over those that are still `available`.
    pub(super) fn divide(&self, shares: &Shares, available: &[bool], units: usize) -> Option<Split> {
        match &shares.learner {
            Some(learner) => lock(learner).divide(available, units),
            None => self.fixed(available, units),
        }
    }

    /// A split by the fixed weights.
    fn fixed(&self, available: &[bool], units: usize) -> Option<Split> {
        let weights = self.weights.as_ref()?;
        let present: Vec<usize> = (0..available.len()).filter(|&index| available[index]).collect();
        if present.is_empty() {
            return None;
        }
        let of_present: Vec<f64> = present.iter().map(|&index| weights[index]).collect();
        let mut counts = vec![0; weights.len()];
        present.iter().zip(by_weight(&of_present, units)).for_each(|(&index, count)| counts[index] = count);
        Some(Split { seconds: vec![0.0; counts.len()], counts })
    }

    /// Learns from a call in which each member computed its own share. `whole` is the time of the call in seconds.
    pub(super) fn learn(&self, shares: &Shares, outcome: &Outcome, whole: f64) {
        let Some(learner) = &shares.learner else { return };
        if outcome.fallback.is_some() {
            return;
        }
        let mut counts = vec![0; self.members.len()];
        let mut seconds = vec![0.0; self.members.len()];
        for Done { member, range, measured, .. } in &outcome.done {
            let Some(member) = *member else { return };
            counts[member] += range.1.div_ceil(shares.axis.unit);
            seconds[member] += measured;
        }
        let saved = {
            let mut learner = lock(learner);
            learner.record(&counts, &seconds, whole);
            learner.is_worth_saving().then(|| learner.saved())
        };
        if let Some(saved) = saved {
            store().save("shares", &self.key(&shares.kind), &saved);
        }
    }

    /// A member cannot compute calls of this kind.
    pub(super) fn exclude(&self, shares: &Shares, member: usize) {
        if let Some(learner) = &shares.learner {
            lock(learner).exclude(member);
        }
    }
}
