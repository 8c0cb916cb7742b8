//! The state that all threads of a pipeline share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::batch::{self, Rate};
use super::completion::Completion;
use super::copiers::Copiers;
use super::copy_engines::CopyEngines;
use super::leases::Leases;
use super::memory::SlotMemory;
use super::ring::{Refused, Ring, Stage};
use super::sync::{Mutex, lock};
use super::work::{Piece, QueuedWork};
use crate::allocate;
use crate::backend::{BorrowedSlice, Contexts, Job, Order, PipelineOptions, Recipe, WhenFull};
use crate::error::{Error, Result};
use crate::gl::convolution::queue;
use crate::gl::driver::workarounds::{COUNTED_COPY, UPLOAD_WAIT};
use crate::gl::tunables::STAGED_WEIGHTS;
use crate::loader;
use crate::report::{Recorder, Source, trace};

/// Sizes and times at which a pipeline changes its strategy. Tests use smaller ones, so that small jobs take every
/// path.
#[derive(Debug, Clone)]
pub struct Thresholds {
    /// Bytes of weights that are staged in mapped memory. Staging fewer does not pay; for more it would hold too
    /// much memory.
    pub staged: Range<usize>,
    /// Size in bytes from which the driver counts a copy when it assigns copy engines to contexts.
    pub counted_copy: usize,
    /// How long uploads wait at most until the first download is submitted.
    pub upload_wait: std::time::Duration,
    /// Whether threads stay awake on a software renderer and on few processors, too.
    pub spins_anywhere: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            staged: STAGED_WEIGHTS,
            counted_copy: COUNTED_COPY,
            upload_wait: UPLOAD_WAIT,
            spins_anywhere: false,
        }
    }
}

/// Bytes of mapped memory that stage `bytes` bytes of weights.
pub fn bytes_of_staging(bytes: usize) -> usize {
    if STAGED_WEIGHTS.contains(&bytes) { bytes.next_power_of_two() } else { 0 }
}

/// Limits of the device.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Elements of the largest buffer that a kernel may use.
    pub max_elements: usize,
    /// Iterations that all loops of one invocation may make together.
    pub max_iterations: usize,
}

/// State that all threads of a pipeline share.
pub struct Core {
    pub ring: Ring<QueuedWork>,
    /// What jobs need in order to end.
    pub completion: Arc<Completion>,
    /// When the pipeline started.
    pub started: Instant,
    /// The measured speed of batches of small jobs.
    pub rate: Rate,
    /// Set when the driver fails at the queue kernel. Small jobs then run one by one.
    pub no_queue: AtomicBool,
    pub copy_engines: CopyEngines,
    options: PipelineOptions,
    thresholds: Thresholds,
    limits: Limits,
    memory: Mutex<Vec<SlotMemory>>,
    /// Slots of the current generation that callers hold.
    leases: Mutex<Arc<Leases>>,
    /// Why the ring was broken, and whether because no context could be created.
    fault: Mutex<Option<(Error, bool)>>,
    process: u32,
}

/// The stages of each thread.
pub fn threads(contexts: Contexts) -> &'static [&'static [Stage]] {
    match contexts {
        Contexts::One => &[&[Stage::Upload, Stage::Compute, Stage::Download]],
        Contexts::Two => &[&[Stage::Upload, Stage::Compute], &[Stage::Download]],
        Contexts::Three | Contexts::Measured => &[&[Stage::Upload], &[Stage::Compute], &[Stage::Download]],
    }
}

impl Core {
    /// Starts the copier threads. No other thread runs yet. Traces call the pipeline `source`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system creates no thread.
    pub fn new(
        id: &Arc<str>,
        options: PipelineOptions,
        limits: Limits,
        thresholds: Thresholds,
        source: Source,
    ) -> Result<Arc<Self>> {
        let traces = source != Source::Nobody && trace::of_process().is_some();
        let started = Instant::now();
        let completion = Completion {
            id: id.clone(),
            copiers: Copiers::start(threads(options.contexts).len())?,
            recorder: Mutex::new(Recorder::new(traces)),
            open: Arc::default(),
            source,
            started,
        };
        Ok(Arc::new(Core {
            ring: Ring::new(options.slots, options.queue),
            completion: Arc::new(completion),
            started,
            rate: Rate::default(),
            no_queue: AtomicBool::new(false),
            copy_engines: CopyEngines::new(thresholds.counted_copy, thresholds.upload_wait),
            options,
            limits,
            memory: Mutex::new(vec![SlotMemory::NONE; options.slots]),
            leases: Mutex::default(),
            fault: Mutex::default(),
            process: crate::process::id(),
            thresholds,
        }))
    }

    /// The device's id.
    pub fn id(&self) -> &str {
        &self.completion.id
    }

    /// The threads that copy on the host.
    pub fn copiers(&self) -> &Copiers {
        &self.completion.copiers
    }

    /// Sizes and times at which it changes its strategy.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Limits of the device.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Checks that the calling process is the pipeline's own.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child process forked from the pipeline's.
    pub fn check_process(&self) -> Result<()> {
        if self.process == crate::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: format!("a pipeline of {}", self.completion.id) })
    }

    /// Who makes `stage` wait for the stage before it: the device, unless the options say the host. `None` if both
    /// stages are in one context, which executes them in order.
    pub fn order_before(&self, stage: Stage) -> Option<Order> {
        let before = (stage as usize).checked_sub(1)?;
        let in_one =
            |stages: &&[Stage]| stages.contains(&stage) && stages.iter().any(|&it| it as usize == before);
        let order = if self.options.order == Order::Host { Order::Host } else { Order::Device };
        (!threads(self.options.contexts).iter().any(in_one)).then_some(order)
    }

    /// The kind of contexts that the stages run in.
    pub fn contexts(&self) -> Contexts {
        self.options.contexts
    }

    /// The number of stage threads.
    pub fn threads(&self) -> usize {
        threads(self.options.contexts).len()
    }

    /// The slots' indices.
    pub fn slots(&self) -> Range<usize> {
        0..self.options.slots
    }

    /// The memory of `slot`.
    pub fn memory(&self, slot: usize) -> SlotMemory {
        lock(&self.memory)[slot]
    }

    /// Changes the record of `slot`'s memory.
    pub fn update_memory(&self, slot: usize, change: impl FnOnce(&mut SlotMemory)) {
        change(&mut lock(&self.memory)[slot]);
    }

    /// Slots of the current generation that callers hold.
    pub fn leases(&self) -> Arc<Leases> {
        lock(&self.leases).clone()
    }

    /// Gives the contexts up because of `error`. `no_context`: they could not be created.
    pub fn give_up(&self, error: Error, no_context: bool) {
        // At the end of the process this is expected.
        if !matches!(error, Error::Ending { .. }) {
            crate::log::warning!("{}: the pipeline gives up its contexts: {error}", self.completion.id);
        }
        let mut fault = lock(&self.fault);
        let is_lost = matches!(error, Error::DeviceLost { .. });
        if fault.is_none() || is_lost || no_context {
            let no_context = no_context || fault.as_ref().is_some_and(|(_, no_context)| *no_context);
            *fault = Some((error, no_context));
        }
        drop(fault);
        self.copy_engines.download_submitted();
        self.ring.break_up();
    }

    /// How many jobs of `recipe` may share a slot; 0 if each needs its own.
    pub fn batch_limit(&self, recipe: &Recipe) -> usize {
        if !self.options.gather || self.no_queue.load(Ordering::Relaxed) {
            return 0;
        }
        self.max_batch_limit(recipe).min(self.rate.max_jobs(recipe.problem.flops()))
    }

    /// Upper bound of [`Core::batch_limit`] for any speed of the device.
    pub fn max_batch_limit(&self, recipe: &Recipe) -> usize {
        if !queue::fits(&recipe.problem, self.limits.max_iterations) {
            return 0;
        }
        batch::max_jobs(recipe, self.options.piece_bytes.min(4 * self.limits.max_elements))
    }

    fn busy(&self) -> Error {
        Error::Busy { what: format!("the pipeline of {}", self.completion.id) }
    }

    /// Queues a job, with `weights` lent by the caller, if any. Up to `batch_limit` jobs like it may share a slot.
    pub fn submit(
        &self,
        job: Job,
        weights: Option<BorrowedSlice>,
        batch_limit: usize,
        when_full: WhenFull,
    ) -> Result<()> {
        let images = self.options.images_each(&job.recipe.problem, self.limits.max_elements);
        self.push(QueuedWork::new(job, weights, images, batch_limit, &self.completion), when_full)
    }

    pub fn push(&self, work: QueuedWork, when_full: WhenFull) -> Result<()> {
        self.ring.push(work, when_full == WhenFull::Wait).map_err(|(refused, _)| self.refusal(refused))
    }

    pub fn refusal(&self, refused: Refused) -> Error {
        match refused {
            Refused::Full => self.busy(),
            Refused::Closed | Refused::Gone => Error::closed("the pipeline"),
            Refused::NoMemory => allocate::out_of_memory("a longer queue of jobs"),
        }
    }

    /// Accepts no more work and cancels work that has not begun.
    pub fn close(self: &Arc<Self>) {
        self.ring.close(|work| self.cancel_work(work, Error::Cancelled));
    }

    /// Ends all jobs in their present state. Called under the loader's lock, which the threads or the driver may be
    /// waiting for. The threads end later.
    pub fn abandon(self: &Arc<Self>) {
        if self.completion.open.wait_within(loader::PATIENCE) {
            return;
        }
        let Err(error) = loader::check() else { return };
        self.give_up(error.clone(), true);
        self.ring.wait_for_copiers();
        for piece in self.ring.pieces() {
            match &piece {
                Piece::Reserve(reservation) => reservation.fail(error.clone()),
                piece => piece.jobs().iter().for_each(|job| job.abandon(&self.completion, error.clone())),
            }
        }
        for mut work in self.ring.take_waiting() {
            match (work.take_job(), work) {
                (_, QueuedWork::Reserve(reservation)) => reservation.fail(error.clone()),
                (Some(job), _) => job.abandon(&self.completion, error.clone()),
                (None, _) => {}
            }
        }
    }

    /// Ends work that has not begun or cannot continue.
    fn cancel_work(self: &Arc<Self>, mut work: QueuedWork, error: Error) {
        match (work.take_job(), work) {
            (_, QueuedWork::Reserve(reservation)) if error == Error::Cancelled => {
                reservation.fail(Error::closed("the pipeline"))
            }
            (_, QueuedWork::Reserve(reservation)) => reservation.fail(error),
            (Some(job), _) if error == Error::Cancelled => job.cancel(),
            (Some(job), _) => job.fail(&self.completion, error),
            (None, _) => {}
        }
    }

    /// Restarts everything that was on the device, after all threads of a generation have ended because of a fault.
    ///
    /// `no_context_before`: whether the previous generation had no contexts, either. Updated for the next call.
    pub fn recover(self: &Arc<Self>, no_context_before: &mut bool) {
        let fault = lock(&self.fault).take();
        let Some((error, no_context)) = fault else { return };
        lock(&self.memory).fill(SlotMemory::NONE);
        *lock(&self.leases) = Arc::default();
        lock(&self.completion.recorder).stats_mut().rebuilt += 1;
        let lost = matches!(error, Error::DeviceLost { .. } | Error::Ending { .. }).then_some(&error);
        self.ring.recover(|pieces, waiting| {
            let waited = waiting.len();
            for piece in pieces {
                match piece {
                    Piece::Reserve(reservation) if reservation.is_open() => {
                        waiting.push_back(QueuedWork::Reserve(reservation))
                    }
                    Piece::Reserve(_) => {}
                    piece => {
                        let resubmitted =
                            piece.jobs().iter().filter_map(|job| job.recover(&self.completion, lost));
                        waiting.extend(resubmitted.map(|job| QueuedWork::InFlight { job, next: 0 }));
                    }
                }
            }
            // Jobs that were on the device go first. Their pieces that still waited are dropped: the jobs restart
            // from the beginning.
            waiting.rotate_left(waited);
            waiting.retain(|work| !matches!(work, QueuedWork::InFlight { job, .. } if job.is_recovered()));
        });
        // If the device is lost while contexts are being created, try once more.
        if no_context && (lost.is_none() || *no_context_before) {
            self.fail_waiting(&error);
        }
        *no_context_before = no_context;
    }

    /// No context is available: work that waits fails with `error`. Work that comes later triggers a new attempt.
    pub fn fail_waiting(self: &Arc<Self>, error: &Error) {
        self.ring.take_waiting().into_iter().for_each(|work| self.cancel_work(work, error.clone()));
        for piece in self.ring.take_reserved() {
            if let Piece::Reserve(reservation) = piece {
                reservation.fail(error.clone());
            }
        }
    }
}
