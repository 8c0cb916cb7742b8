//! The device `multi`: several devices share the work of each call.
//!
//! `device` alone uses this folder. It reaches the engines through [`Backend`], and touches the store of measurements
//! and threads of its own.
//!
//! | file | what |
//! | --- | --- |
//! | `mod` | the devices, and which of them take part in a call |
//! | `parts` | how a call is cut |
//! | `learner` | what calls took, and the split that follows; no clock, no device |
//! | `learners` | the learners of a device, kept from run to run |
//! | `together` | the shares of a call at once; survivors compute what a lost device has left |
//! | `calls`, `plan` | convolutions, products and plans on it |
//! | `crew` | threads for shares |
//!
//! A call is cut by images, or by output channels if there are fewer images than devices. The shares are predicted
//! from the devices' rates and then learned from what they take. With weights in the selector, or with
//! `SPARKLE_DETERMINISTIC`, they are fixed. A call that is fastest on one device runs on that device alone.

mod calls;
mod crew;
mod learner;
#[cfg(test)]
mod learner_tests;
mod learners;
mod parts;
#[cfg(test)]
mod pipeline_tests;
mod plan;
#[cfg(test)]
mod tests;
mod together;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::predict::fall_back;
use crate::backend::{Backend, Dimension, Run};
use crate::config::config;
use crate::cpu;
use crate::error::{Error, Result};
use crate::memory::Hierarchy;

use crew::Crew;
use learners::Learners;

pub use plan::MultiPlan;

/// The most devices.
pub const MAX_MEMBERS: usize = 16;
/// The most calls that a lost device stays out of, before it is tried again.
const LONGEST_ABSENCE: u32 = 1 << 12;

/// Several devices that share the work of each call.
pub struct Multi {
    selector: String,
    members: Vec<Member>,
    /// The fixed weights of the members; without them the shares are learned.
    weights: Option<Vec<f64>>,
    crew: Crew,
    learners: Mutex<Learners>,
    process: u32,
}

/// One of the devices.
pub struct Member {
    backend: Arc<dyn Backend>,
    id: Arc<str>,
    /// Whether it is hardware of its own beside the CPU.
    is_hardware_gpu: bool,
    /// Calls that it still stays out of, because it was lost.
    absent: AtomicU32,
    /// How long it stays out when it is lost again.
    next_absence: AtomicU32,
}

impl Member {
    /// A member on `backend`.
    pub fn new(backend: Arc<dyn Backend>, is_hardware_gpu: bool) -> Self {
        let (absent, next_absence) = (AtomicU32::new(0), AtomicU32::new(1));
        Member { id: backend.shared_id(), backend, is_hardware_gpu, absent, next_absence }
    }

    /// The engine.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Whether it takes part in this call. Counts the calls that it stays out of.
    pub fn is_present(&self) -> bool {
        let count = |absent: u32| absent.checked_sub(1);
        self.absent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_err()
    }

    /// Whether it stays out of calls at present. Counts nothing.
    pub fn is_away(&self) -> bool {
        self.absent.load(Ordering::Relaxed) > 0
    }

    /// It failed: it stays out for twice as many calls as the last time.
    fn leave(&self) {
        let absence = self.next_absence.load(Ordering::Relaxed);
        self.absent.store(absence, Ordering::Relaxed);
        self.next_absence.store((2 * absence).min(LONGEST_ABSENCE), Ordering::Relaxed);
    }

    /// It computed a share.
    fn stay(&self) {
        if self.next_absence.load(Ordering::Relaxed) != 1 {
            self.next_absence.store(1, Ordering::Relaxed);
        }
    }
}

impl Multi {
    /// The device that `selector` names, of at least one member. With `SPARKLE_DETERMINISTIC` all shares are equal
    /// unless there are weights.
    pub fn new(selector: String, members: Vec<Member>, weights: Option<Vec<f64>>) -> Self {
        let weights = weights.or_else(|| config().deterministic.then(|| vec![1.0; members.len()]));
        let (crew, learners) = (Crew::default(), Mutex::default());
        Multi { selector, members, weights, crew, learners, process: crate::process::id() }
    }

    /// The selector that opened it.
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// Its members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The threads that the CPU may use while all hardware GPUs are at work.
    pub fn least_cpu_threads(&self) -> usize {
        self.cpu_threads(self.members.iter())
    }

    /// Whether shares have the kernels that the whole would get, so that their bits do not depend on the cut: for fixed
    /// shares of the images.
    fn keeps_bits(&self, dimension: Dimension) -> bool {
        self.weights.is_some() && dimension == Dimension::Images
    }

    /// The engines of its members.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.members.iter().map(|member| &member.backend)
    }

    /// The CPU, for work that no member can do.
    fn cpu(&self) -> Arc<dyn Backend> {
        let cpu = self.backends().find(|backend| backend.id() == "cpu").cloned();
        cpu.unwrap_or_else(|| cpu::open())
    }

    /// The reason why nothing but the CPU works here, if this process was forked from the one that opened the device.
    fn forked(&self) -> Option<Error> {
        let is_child = self.process != crate::process::id();
        is_child.then(|| Error::Forked { what: format!("device {}", self.selector) })
    }

    /// Runs `on` with the member for which `seconds` predicts the shortest time, with others if that fails, and at last
    /// with the CPU. For calls that are not cut.
    ///
    /// # Errors
    /// The last device's failure.
    pub fn on_one(
        &self,
        seconds: impl Fn(&Hierarchy) -> f64,
        on: impl Fn(&Arc<dyn Backend>, Option<Arc<str>>) -> Result<Run>,
    ) -> Result<Run> {
        if let Some(forked) = self.forked() {
            return on(&self.cpu(), Some(forked.to_string().into()));
        }
        let mut members: Vec<(f64, &Member)> = vec![];
        for member in self.members.iter().filter(|member| member.is_present()) {
            match member.backend.hierarchy() {
                Ok(hierarchy) => members.push((seconds(&hierarchy), member)),
                Err(error) => crate::log::warning!("multi: {} is skipped: {error}", member.id),
            }
        }
        members.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut fallback = None;
        for (_, member) in members {
            match on(&member.backend, fallback.clone()) {
                Ok(run) => {
                    member.stay();
                    return Ok(run);
                }
                Err(error) => fallback = Some(self.lost(member, error)?),
            }
        }
        on(&self.cpu(), fallback)
    }

    /// Notes that `member` failed. Returns the reason for the report of the call.
    ///
    /// # Errors
    /// `error` itself if it is not a device's failure: another device would fail as well.
    pub fn lost(&self, member: &Member, error: Error) -> Result<Arc<str>> {
        // Such a device may compute other problems.
        let is_about_problem =
            matches!(error, Error::Unsupported { .. } | Error::OutOfMemory { .. } | Error::Shader { .. });
        let reason = fall_back(&member.backend, error)?;
        if !is_about_problem {
            member.leave();
        }
        Ok(reason)
    }
}
