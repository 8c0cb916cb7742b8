//! The choice among engines: the fastest by prediction, corrected by what calls have taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::experience::{Decision, Experience, InFlight};
use super::kind::Kind;
use super::multi::Multi;
pub use super::predict::fall_back;
use super::record::{Considered, Why};
use crate::backend::{Backend, Run};
use crate::error::Result;
use crate::memory::roofline::{self, Work};

/// The engines of a device.
#[derive(Clone)]
pub enum EngineChoice {
    /// Chosen by name: its errors are returned to the caller.
    Fixed(Arc<dyn Backend>),
    /// The CPU and all hardware GPUs.
    Auto {
        cpu: Arc<dyn Backend>,
        gpus: Vec<Arc<dyn Backend>>,
        /// What calls have taken; the engines in the order CPU, GPUs.
        learned: Arc<Learned>,
    },
    /// Several devices that share the work of each call.
    Multi(Arc<Multi>),
}

/// The engines of `auto` with what their calls have taken.
pub struct Learned {
    engines: Vec<Arc<dyn Backend>>,
    ids: Vec<Arc<str>>,
    experience: Experience,
    process: u32,
}

/// A choice for calls of one kind.
#[derive(Clone, Copy)]
pub struct Pick {
    kind: Kind,
    index: usize,
    predicted: f64,
}

/// Measures the first runs of a plan for later choices.
pub struct PlanLearner {
    learned: Arc<Learned>,
    pick: Pick,
    left: AtomicU32,
}

/// The runs of a plan that are measured.
const MEASURED_RUNS: u32 = 8;

impl PlanLearner {
    /// For a plan on the engine of `pick`.
    pub fn new(learned: &Arc<Learned>, pick: Pick) -> Self {
        PlanLearner { learned: learned.clone(), pick, left: AtomicU32::new(MEASURED_RUNS) }
    }

    /// Notes a run.
    #[inline]
    pub fn ran(&self, run: &Run) {
        if self.left.load(Ordering::Relaxed) > 0 {
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok();
            self.learned.took(self.pick, run, run.timing.wall.as_secs_f64());
        }
    }
}

/// The choice for one call, which counts as in flight while this lives.
pub struct Chosen<'a> {
    /// The engine; `None` for the CPU.
    pub gpu: Option<&'a Arc<dyn Backend>>,
    /// The choice as it can be learned from; `None` where there is none.
    pub pick: Option<Pick>,
    /// Why this engine.
    pub why: Why,
    learned: &'a Learned,
    _in_flight: Option<InFlight<'a>>,
}

impl Chosen<'_> {
    /// Notes the seconds of the call, if no other engine has done it.
    pub fn took(&self, run: &Run, seconds: f64) {
        if let Some(pick) = self.pick {
            self.learned.took(pick, run, seconds);
        }
    }
}

impl EngineChoice {
    /// `auto` over these engines.
    pub fn auto(cpu: Arc<dyn Backend>, gpus: Vec<Arc<dyn Backend>>) -> Self {
        let engines: Vec<_> = std::iter::once(&cpu).chain(&gpus).cloned().collect();
        let ids = engines.iter().map(|engine| engine.shared_id()).collect();
        let (experience, process) = (Experience::default(), crate::process::id());
        EngineChoice::Auto { cpu, gpus, learned: Arc::new(Learned { engines, ids, experience, process }) }
    }
}

impl Learned {
    /// The engine for the next call of a kind, whose seconds on each engine `seconds` predicts.
    pub fn choose(&self, kind: Kind, seconds: impl Fn(&Arc<dyn Backend>) -> Result<f64>) -> Chosen<'_> {
        let Learned { engines, ids, experience, .. } = self;
        if let Some(why) = self.has_no_choice() {
            return Chosen { gpu: None, pick: None, why, learned: self, _in_flight: None };
        }
        let predict = |backend: &Arc<dyn Backend>| match seconds(backend) {
            Ok(seconds) => seconds,
            Err(error) => {
                crate::log::warning!("auto: {} is skipped: {error}", backend.id());
                f64::INFINITY
            }
        };
        let predicted: Vec<f64> = engines.iter().map(predict).collect();
        let Decision { index, basis, is_least_busy, measured } = experience.choose(engines, kind, &predicted);
        let gpu = (index > 0).then(|| &engines[index]);
        let in_flight = Some(experience.enter(engines, index));
        let pick = Some(Pick { kind, index, predicted: predicted[index] });
        let considered = ids
            .iter()
            .zip(&predicted)
            .zip(measured)
            .map(|((id, &predicted), measured)| Considered { id: id.clone(), predicted, measured });
        let why = Why::Learned { basis, is_least_busy, engines: considered.collect() };
        Chosen { gpu, pick, why, learned: self, _in_flight: in_flight }
    }

    /// What calls of this kind have taken on each engine, as far as known, and the engine for the next one.
    pub fn known(&self, kind: Kind, predicted: &[f64]) -> (Vec<Option<f64>>, usize) {
        if self.has_no_choice().is_some() {
            return (vec![None; self.engines.len()], 0);
        }
        self.experience.known(&self.engines, kind, predicted)
    }

    /// Why the CPU computes whatever the call is, if it does.
    fn has_no_choice(&self) -> Option<Why> {
        if self.engines.len() == 1 {
            return Some(Why::OnlyCpu);
        }
        // In a forked child only the CPU works, and another thread may have held the lock at the fork.
        (self.process != crate::process::id()).then_some(Why::Forked)
    }

    fn took(&self, pick: Pick, run: &Run, seconds: f64) {
        if pick.predicted.is_finite() && run.fallback.is_none() && self.process == crate::process::id() {
            self.experience.record(&self.engines, &pick.kind, pick.index, pick.predicted, seconds);
        }
    }
}

/// The GPU with the shortest predicted time for `work`, `None` if the CPU is at least as fast; and why.
pub fn fastest<'a>(
    cpu: &Arc<dyn Backend>,
    gpus: &'a [Arc<dyn Backend>],
    work: Work,
) -> (Option<&'a Arc<dyn Backend>>, Why) {
    let predict = |backend: &Arc<dyn Backend>| match backend.hierarchy() {
        Ok(hierarchy) => roofline::seconds(&hierarchy, work),
        Err(error) => {
            crate::log::warning!("auto: {} is skipped: {error}", backend.id());
            f64::INFINITY
        }
    };
    let timed = gpus.iter().map(|gpu| (predict(gpu), gpu));
    let Some((gpu_seconds, gpu)) = timed.min_by(|(a, _), (b, _)| a.total_cmp(b)) else {
        return (None, Why::OnlyCpu);
    };
    let cpu_seconds = predict(cpu);
    ((gpu_seconds < cpu_seconds).then_some(gpu), Why::predicted(cpu_seconds, gpu_seconds, gpu))
}
