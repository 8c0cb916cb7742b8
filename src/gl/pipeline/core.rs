//! What all threads of a pipeline share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use super::batch::{self, Rate};
use super::completion::Completion;
use super::copiers::Copiers;
use super::copy_engines::CopyEngines;
use super::leases::Leases;
use super::memory::SlotMemory;
use super::ring::{Refused, Ring, Stage};
use super::sync::{Mutex, lock};
use super::work::{Piece, Work};
use crate::allocate;
use crate::backend::{BorrowedSlice, Contexts, Job, Order, PipelineOptions, Recipe, WhenFull};
use crate::config::config;
use crate::error::{Error, Result};
use crate::gl::convolution::queue;
use crate::gl::driver::workarounds::{COUNTED_COPY, UPLOAD_WAIT};
use crate::gl::tunables::STAGED_WEIGHTS;
use crate::loader;
use crate::report::Recorder;

/// Sizes and times at which a pipeline changes its ways. Tests use smaller ones, so that small jobs take the same ways.
#[derive(Debug, Clone)]
pub struct Thresholds {
    /// Bytes of weights that are copied through mapped memory. Fewer are not worth it; for more, memory would be kept too long.
    pub staged: Range<usize>,
    /// Bytes of a copy that a driver counts when it gives contexts their copy engines.
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

/// Bytes of mapped memory that `bytes` of weights go through at most.
pub fn bytes_of_staging(bytes: usize) -> usize {
    if STAGED_WEIGHTS.contains(&bytes) { bytes.next_power_of_two() } else { 0 }
}

/// What the device can do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Elements of the largest buffer that a kernel may use.
    pub max_elements: usize,
    /// Iterations that all loops of an invocation may make together.
    pub max_iterations: usize,
}

/// What all its threads share.
pub struct Core {
    pub ring: Ring<Work>,
    /// What jobs need to end.
    pub completion: Arc<Completion>,
    /// When the pipeline was made.
    pub epoch: Instant,
    /// How fast batches of small jobs were.
    pub rate: Rate,
    /// Set when the driver has failed at the queue's kernel: small jobs then go one by one.
    pub no_queue: AtomicBool,
    pub copy_engines: CopyEngines,
    options: PipelineOptions,
    thresholds: Thresholds,
    limits: Limits,
    memory: Mutex<Vec<SlotMemory>>,
    /// Slots of the present generation in callers' hands.
    leases: Mutex<Arc<Leases>>,
    /// Why the ring was broken, and whether that was for want of a context.
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
    /// Starts the threads that copy; nothing else runs yet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives no thread.
    pub fn new(
        id: &Arc<str>,
        options: PipelineOptions,
        limits: Limits,
        thresholds: Thresholds,
    ) -> Result<Arc<Self>> {
        let completion = Completion {
            id: id.clone(),
            copiers: Copiers::start(id, threads(options.contexts).len())?,
            recorder: Mutex::new(Recorder::new(config().trace.is_some())),
            open: Arc::default(),
        };
        Ok(Arc::new(Core {
            ring: Ring::new(options.slots, options.queue),
            completion: Arc::new(completion),
            epoch: Instant::now(),
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

    /// The threads that copy.
    pub fn copiers(&self) -> &Copiers {
        &self.completion.copiers
    }

    /// Sizes and times at which it changes its ways.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// What the device can do.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// # Errors
    /// [`Error::Forked`] in a process that was forked from the pipeline's.
    pub fn check_process(&self) -> Result<()> {
        if self.process == crate::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: format!("a pipeline of {}", self.completion.id) })
    }

    /// Who puts `stage` behind the one before it, the device unless it is known to be slow at that; nobody where both are in one
    /// context, which does one after the other.
    pub fn order_before(&self, stage: Stage) -> Option<Order> {
        let before = (stage as usize).checked_sub(1)?;
        let in_one =
            |stages: &&[Stage]| stages.contains(&stage) && stages.iter().any(|&it| it as usize == before);
        let order = if self.options.order == Order::Host { Order::Host } else { Order::Device };
        (!threads(self.options.contexts).iter().any(in_one)).then_some(order)
    }

    /// How many contexts it works in.
    pub fn contexts(&self) -> Contexts {
        self.options.contexts
    }

    /// How many threads those have.
    pub fn threads(&self) -> usize {
        threads(self.options.contexts).len()
    }

    /// The slots' numbers.
    pub fn slots(&self) -> Range<usize> {
        0..self.options.slots
    }

    /// The memory of `slot`.
    pub fn memory(&self, slot: usize) -> SlotMemory {
        lock(&self.memory)[slot]
    }

    /// Changes what is known of it.
    pub fn update_memory(&self, slot: usize, change: impl FnOnce(&mut SlotMemory)) {
        change(&mut lock(&self.memory)[slot]);
    }

    /// Slots of the present generation in callers' hands.
    pub fn leases(&self) -> Arc<Leases> {
        lock(&self.leases).clone()
    }

    /// The device is given up; for want of a context, if so.
    pub fn give_up(&self, error: Error, no_context: bool) {
        // At the end of the process that is as it should be.
        if !matches!(error, Error::Ending { .. }) {
            crate::log::warning!("{}: the pipeline's contexts are given up: {error}", self.completion.id);
        }
        let mut fault = lock(&self.fault);
        let is_lost = matches!(error, Error::DeviceLost { .. });
        if fault.is_none() || is_lost || no_context {
            let no_context = no_context || fault.as_ref().is_some_and(|(_, no_context)| *no_context);
            *fault = Some((error, no_context));
        }
        drop(fault);
        self.copy_engines.downloaded();
        self.ring.break_up();
    }

    /// How many jobs of `recipe` may share a slot; 0 if each has one to itself.
    pub fn room(&self, recipe: &Recipe) -> usize {
        if !self.options.gather || self.no_queue.load(Ordering::Relaxed) {
            return 0;
        }
        self.max_room(recipe).min(self.rate.room(recipe.problem.flops()))
    }

    /// How many at most, however fast the device is.
    pub fn max_room(&self, recipe: &Recipe) -> usize {
        if !queue::fits(&recipe.problem, self.limits.max_iterations) {
            return 0;
        }
        batch::room(recipe, self.options.piece_bytes.min(4 * self.limits.max_elements))
    }

    fn busy(&self) -> Error {
        Error::Busy { what: format!("the pipeline of {}", self.completion.id) }
    }

    /// Sends a job off, with weights that are lent, if so; `room` like it may share a slot.
    pub fn fly(
        &self,
        job: Job,
        weights: Option<BorrowedSlice>,
        room: usize,
        when_full: WhenFull,
    ) -> Result<()> {
        let images = self.options.images_each(&job.recipe.problem, self.limits.max_elements);
        self.push(Work::new(job, weights, images, room, &self.completion), when_full)
    }

    pub fn push(&self, work: Work, when_full: WhenFull) -> Result<()> {
        self.ring.push(work, when_full == WhenFull::Wait).map_err(|(refused, _)| self.refusal(refused))
    }

    pub fn refusal(&self, refused: Refused) -> Error {
        match refused {
            Refused::Full => self.busy(),
            Refused::Closed | Refused::Gone => Error::closed("the pipeline"),
            Refused::NoMemory => allocate::out_of_memory("a longer queue of jobs"),
        }
    }

    /// Takes no more work, and calls off what has not begun.
    pub fn close(self: &Arc<Self>) {
        self.ring.close(|work| self.call_off(work, Error::Cancelled));
    }

    /// Under the loader's lock, which threads or the driver may be waiting for: ends all jobs as they are. The threads
    /// end later.
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
                piece => {
                    piece.flights().iter().for_each(|flight| flight.abandon(&self.completion, error.clone()))
                }
            }
        }
        for mut work in self.ring.take_waiting() {
            match (work.take_off(), work) {
                (_, Work::Reserve(reservation)) => reservation.fail(error.clone()),
                (Some(flight), _) => flight.abandon(&self.completion, error.clone()),
                (None, _) => {}
            }
        }
    }

    /// Ends work that was never begun, or never will go on.
    fn call_off(self: &Arc<Self>, mut work: Work, error: Error) {
        match (work.take_off(), work) {
            (_, Work::Reserve(reservation)) if error == Error::Cancelled => {
                reservation.fail(Error::closed("the pipeline"))
            }
            (_, Work::Reserve(reservation)) => reservation.fail(error),
            (Some(flight), _) if error == Error::Cancelled => flight.cancel(),
            (Some(flight), _) => flight.fail(&self.completion, error),
            (None, _) => {}
        }
    }

    /// After all threads of a generation have ended because of a fault: what was on the device begins anew.
    ///
    /// `barren` says whether the generation before this had no contexts, either.
    pub fn recover(self: &Arc<Self>, barren: &mut bool) {
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
                    Piece::Reserve(wish) if wish.is_open() => waiting.push_back(Work::Reserve(wish)),
                    Piece::Reserve(_) => {}
                    piece => {
                        let flies = piece
                            .flights()
                            .iter()
                            .filter_map(|flight| flight.recover(&self.completion, lost));
                        waiting.extend(flies.map(|flight| Work::Fly { flight, next: 0 }));
                    }
                }
            }
            // What was on the device is first again; what of it still waited begins anew with it.
            waiting.rotate_left(waited);
            waiting.retain(|work| !matches!(work, Work::Fly { flight, .. } if flight.is_over()));
        });
        // A device that is lost while contexts are being made is given a second chance, too.
        if no_context && (lost.is_none() || *barren) {
            self.fail_waiting(&error);
        }
        *barren = no_context;
    }

    /// There is no context to be had: what waits gets the error, and what comes later, a new try.
    pub fn fail_waiting(self: &Arc<Self>, error: &Error) {
        self.ring.take_waiting().into_iter().for_each(|work| self.call_off(work, error.clone()));
        for piece in self.ring.take_reserved() {
            if let Piece::Reserve(reservation) = piece {
                reservation.fail(error.clone());
            }
        }
    }

    /// Writes the trace to where `SPARKLE_TRACE` says; a process's second pipeline appends its number to the name.
    pub fn write_trace(&self) {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let recorder = lock(&self.completion.recorder);
        let Some(path) = config().trace.as_ref().filter(|_| recorder.traces()) else { return };
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed) + 1;
        let path = if number == 1 { path.clone() } else { format!("{path}.{number}") };
        let written = std::fs::File::create(&path).and_then(|file| {
            let mut file = std::io::BufWriter::new(file);
            recorder.write_trace(&self.completion.id, &mut file)?;
            std::io::Write::flush(&mut file)
        });
        drop(recorder);
        if let Err(error) = written {
            crate::log::warning!("SPARKLE_TRACE: {path} cannot be written: {error}");
        }
    }
}
