//! The devices of a pipeline that has several: each job goes to the one that is expected to end it first.
//!
//! A lane is a member's queue, or the thread that runs jobs on the CPU. Its load is the predicted time of the jobs that
//! it has. Predictions are corrected by what the lane has done: the time that it was busy, over the predicted time of
//! the jobs that it has ended.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::multi::{Multi, MultiPlan};
use super::plan::Conv2dPlan;
use super::record::Why;
use super::serial::{HeapSlot, SerialExecutor, SerialJob};
use crate::backend::{Backend, FallbackFn, Job, PipelineOptions, Queue, Slot, Ticket, WhenFull};
use crate::error::{Error, Result};
use crate::report::{PipelineStats, Source};

/// Predicted seconds of ended jobs from which older jobs begin to count less: their weight is halved.
const MEMORY_JOBS: u32 = 64;

/// One device of a pipeline.
pub struct Lane {
    /// The index of the member of `multi`.
    pub member: usize,
    /// Its queue; `None` for the thread that runs jobs in order.
    pub queue: Option<Arc<dyn Queue>>,
    pub load: Arc<Load>,
}

/// What keeps the buffers of a job alive, or counts it.
type Owner = Option<Arc<dyn Any + Send + Sync>>;

/// A job, given by the addresses of its buffers.
pub struct LaneJob {
    pub ticket: Ticket,
    pub input: *const f32,
    pub output: *mut f32,
    pub owner: Owner,
    pub output_is_private: bool,
}

/// Computes a job of `plan` on other devices after `member` has failed.
fn elsewhere(plan: &Conv2dPlan, member: usize) -> FallbackFn {
    let plan = plan.clone();
    Arc::new(move |error, input, output| match plan.of_several() {
        Some(several) => several.run_without(member, error.clone(), input, output),
        None => Err(error.clone()),
    })
}

/// A slot, and what counts for the load of its device until it is dropped.
pub type HeldSlot = (Box<dyn Slot>, Option<Arc<LoadedJob>>);

/// The devices of a pipeline on `multi`.
pub struct Lanes {
    multi: Arc<Multi>,
    lanes: Vec<Lane>,
}

impl Lanes {
    /// A lane for each member that can have one. Traces call all of them `source`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an option that the engines refuse; the last member's failure if none has a lane.
    pub fn new(multi: &Arc<Multi>, options: PipelineOptions, source: Source) -> Result<Self> {
        let (mut lanes, mut failure) = (vec![], None);
        for (member, it) in multi.members().iter().enumerate() {
            let backend: &Arc<dyn Backend> = it.backend();
            let queue = match backend.queue(options, source) {
                Ok(queue) => Some(queue),
                Err(Error::Unsupported { .. }) => None,
                Err(error) => {
                    multi.lost(it, error.clone())?;
                    failure = Some(error);
                    continue;
                }
            };
            lanes.push(Lane { member, queue, load: Arc::default() });
        }
        match failure {
            Some(error) if lanes.is_empty() => Err(error),
            _ => Ok(Lanes { multi: multi.clone(), lanes }),
        }
    }

    /// Whether `plan` was made on the device of this pipeline.
    pub fn serve(&self, plan: &MultiPlan) -> bool {
        Arc::ptr_eq(plan.multi(), &self.multi)
    }

    /// The lanes for a job of `plan`, the one that should end it first at the beginning, each with the predicted seconds.
    /// Devices that stay out because they were lost are left out.
    pub fn order(&self, plan: &MultiPlan) -> Vec<(f64, &Lane)> {
        let present = |lane: &&Lane| self.multi.members()[lane.member].is_present();
        let mut order: Vec<(f64, f64, &Lane)> = (self.lanes.iter().filter(present))
            .map(|lane| (lane, plan.seconds(lane.member)))
            .filter(|(_, seconds)| seconds.is_finite())
            .map(|(lane, seconds)| (lane.load.end_of(seconds), seconds, lane))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        order.into_iter().map(|(_, seconds, lane)| (seconds, lane)).collect()
    }

    /// Notes that a lane's device has failed.
    ///
    /// # Errors
    /// `error` itself if it is no device's failure.
    pub fn lost(&self, lane: &Lane, error: Error) -> Result<()> {
        self.multi.lost(&self.multi.members()[lane.member], error).map(drop)
    }

    /// Submits a job to the device that should end it first. If that cannot take it, the next one gets it; if its queue is
    /// full, this waits, unless `when_full` refuses: then the next one gets it as well. `serial` starts the thread that
    /// runs jobs in order.
    ///
    /// # Safety
    /// Until the ticket is done, the input stays valid for reads and unchanged, and the output stays valid for writes
    /// and nothing else uses it. Both have the lengths of the plan's problem.
    ///
    /// # Errors
    /// [`Error::Busy`] if all queues are full and `when_full` refuses; [`Error::Closed`]; [`Error::OutOfMemory`].
    pub unsafe fn submit(
        &self,
        (plan, several): (&Conv2dPlan, &MultiPlan),
        job: LaneJob,
        when_full: WhenFull,
        serial: &dyn Fn() -> Result<Arc<SerialExecutor>>,
    ) -> Result<()> {
        let executor = serial()?;
        let mut full = None;
        for (seconds, lane) in self.order(several) {
            let engine_plan = match several.whole(lane.member) {
                Ok(engine_plan) => engine_plan,
                Err(error) => {
                    self.lost(lane, error)?;
                    continue;
                }
            };
            let loaded = lane.load.add(seconds);
            let owner: Owner = Some(Arc::new((job.owner.clone(), loaded.clone())));
            let (ticket, input, output) = (job.ticket.clone(), job.input, job.output);
            let submitted = match lane.queue.as_ref().zip(engine_plan.recipe()) {
                Some((queue, recipe)) => {
                    let fallback = elsewhere(plan, lane.member);
                    let job = Job {
                        ticket,
                        recipe: recipe.clone(),
                        input,
                        output,
                        output_is_private: job.output_is_private,
                        owner,
                        partial_output_fallback: (!job.output_is_private).then(|| fallback.clone()),
                        fallback: Some(fallback),
                    };
                    // SAFETY: passed on from the caller.
                    unsafe { queue.submit(job, when_full) }
                }
                None => {
                    let plan = Conv2dPlan::on_engine((plan.problem(), Why::BestOfSeveral), engine_plan);
                    let job = SerialJob { ticket, plan, input, output, started: false, owner };
                    // SAFETY: passed on from the caller.
                    unsafe { executor.submit(job, when_full) }
                }
            };
            let Err(error) = submitted else { return Ok(()) };
            loaded.void();
            match error {
                Error::Busy { .. } => full = Some(error),
                error => self.lost(lane, error)?,
            }
        }
        if let Some(full) = full {
            return Err(full);
        }
        // No device is left: the plan finds out who computes it.
        let LaneJob { ticket, input, output, owner, .. } = job;
        let job = SerialJob { ticket, plan: plan.clone(), input, output, started: false, owner };
        // SAFETY: passed on from the caller.
        unsafe { executor.submit(job, when_full) }
    }

    /// Acquires a slot of the device that should end a job first, as [`Lanes::submit`] submits a job. The second value
    /// counts for the device's load until it is dropped.
    ///
    /// # Errors
    /// As [`Lanes::submit`]; the last device's failure to allocate the memory.
    pub fn acquire(
        &self,
        (plan, several): (&Conv2dPlan, &MultiPlan),
        when_full: WhenFull,
        serial: &dyn Fn() -> Result<Arc<SerialExecutor>>,
    ) -> Result<HeldSlot> {
        let executor = serial()?;
        let mut full = None;
        for (seconds, lane) in self.order(several) {
            let acquired = several.whole(lane.member).and_then(|engine_plan| {
                let slot: Box<dyn Slot> = match lane.queue.as_ref().zip(engine_plan.recipe()) {
                    Some((queue, recipe)) => queue.acquire(recipe, when_full)?,
                    None => {
                        let plan = Conv2dPlan::on_engine((plan.problem(), Why::BestOfSeveral), engine_plan);
                        Box::new(HeapSlot::new(&plan, &executor, when_full)?)
                    }
                };
                Ok(slot)
            });
            match acquired {
                Ok(slot) => {
                    let held = lane.load.add(seconds);
                    held.void();
                    return Ok((slot, Some(held)));
                }
                Err(error @ Error::Busy { .. }) => full = Some(error),
                Err(error) => self.lost(lane, error)?,
            }
        }
        match full {
            Some(full) => Err(full),
            None => Ok((Box::new(HeapSlot::new(plan, &executor, when_full)?), None)),
        }
    }

    /// The queues of the lanes.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<dyn Queue>> {
        self.lanes.iter().filter_map(|lane| lane.queue.as_ref())
    }

    /// The statistics of all queues: sums, and the mean busy times of their engines.
    pub fn stats(&self) -> PipelineStats {
        let all: Vec<PipelineStats> = self.queues().map(|queue| queue.stats()).collect();
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX).max(1);
        let sum = |a: PipelineStats, b: &PipelineStats| PipelineStats {
            completed: a.completed + b.completed,
            failed: a.failed + b.failed,
            cancelled: a.cancelled + b.cancelled,
            pieces: a.pieces + b.pieces,
            rebuilt: a.rebuilt + b.rebuilt,
            uploaded: a.uploaded + b.uploaded,
            downloaded: a.downloaded + b.downloaded,
            busy: [0, 1, 2].map(|engine| a.busy[engine] + b.busy[engine] / count),
            counted: [0, 1, 2].map(|engine| a.counted[engine].max(b.counted[engine])),
            span: a.span.max(b.span),
            depth: (a.depth.0 + b.depth.0, a.depth.1 + b.depth.1),
        };
        all.iter().fold(PipelineStats::default(), sum)
    }
}

/// The jobs of a lane.
#[derive(Default)]
pub struct Load(Mutex<LoadState>);

#[derive(Default)]
struct LoadState {
    /// Jobs that have not ended, and their predicted seconds.
    jobs: u32,
    waiting: f64,
    /// Since when there is a job.
    busy_since: Option<Instant>,
    /// What it has done lately: jobs, their predicted seconds, and the seconds in which there was one.
    ended: u32,
    predicted: f64,
    busy: f64,
}

impl Load {
    fn state(&self) -> MutexGuard<'_, LoadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds until a job of `seconds` predicted seconds would end.
    pub fn end_of(&self, seconds: f64) -> f64 {
        let state = self.state();
        (state.waiting + seconds) * state.factor()
    }

    /// Counts a job until the value is dropped.
    pub fn add(self: &Arc<Self>, seconds: f64) -> Arc<LoadedJob> {
        let mut state = self.state();
        if state.jobs == 0 {
            state.busy_since = Some(Instant::now());
        }
        state.jobs += 1;
        state.waiting += seconds;
        Arc::new(LoadedJob { load: self.clone(), seconds, is_void: AtomicBool::new(false) })
    }
}

impl LoadState {
    fn factor(&self) -> f64 {
        if self.predicted > 0.0 && self.busy > 0.0 { self.busy / self.predicted } else { 1.0 }
    }

    fn leave(&mut self, seconds: f64) {
        self.jobs -= 1;
        self.waiting = if self.jobs == 0 { 0.0 } else { (self.waiting - seconds).max(0.0) };
        if self.jobs == 0 {
            self.busy_since = None;
        }
    }

    fn end(&mut self, seconds: f64, now: Instant) {
        let since = self.busy_since.replace(now).unwrap_or(now);
        self.leave(seconds);
        self.ended += 1;
        self.predicted += seconds;
        self.busy += now.saturating_duration_since(since).as_secs_f64();
        if self.ended >= MEMORY_JOBS {
            self.ended /= 2;
            self.predicted /= 2.0;
            self.busy /= 2.0;
        }
    }
}

/// A job that counts for its lane.
pub struct LoadedJob {
    load: Arc<Load>,
    seconds: f64,
    is_void: AtomicBool,
}

impl LoadedJob {
    /// The job's time says nothing about the lane: it was refused, or a caller holds its slot.
    pub fn void(&self) {
        self.is_void.store(true, Ordering::Relaxed);
    }
}

impl Drop for LoadedJob {
    fn drop(&mut self) {
        let mut state = self.load.state();
        match self.is_void.load(Ordering::Relaxed) {
            true => state.leave(self.seconds),
            false => state.end(self.seconds, Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_load_is_what_waits_times_what_was_measured() {
        let load = Arc::new(Load::default());
        assert_eq!(load.end_of(2.0), 2.0);
        let jobs = [load.add(1.0), load.add(3.0)];
        assert_eq!(load.end_of(2.0), 6.0);
        // Both have ended; they took three times as long as predicted.
        let begin = load.state().busy_since.unwrap();
        let mut state = load.state();
        state.end(1.0, begin + Duration::from_secs(4));
        state.end(3.0, begin + Duration::from_secs(12));
        assert_eq!((state.jobs, state.waiting, state.factor()), (0, 0.0, 3.0));
        drop(state);
        jobs.into_iter().for_each(std::mem::forget);
        assert_eq!(load.end_of(2.0), 6.0);
    }

    #[test]
    fn old_jobs_count_less() {
        let mut state = LoadState::default();
        let begin = Instant::now();
        for seconds in [1, 4] {
            for _ in 0..200 {
                (state.jobs, state.busy_since) = (1, Some(begin));
                state.end(1.0, begin + Duration::from_secs(seconds));
            }
        }
        assert!((3.9..=4.0).contains(&state.factor()), "{}", state.factor());
    }
}
