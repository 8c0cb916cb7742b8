//! The pipeline streams jobs through one device. Uploads, kernels and downloads run at the same time.
//!
//! A GL context executes its commands in order. So each of the three stages has its own context and its own thread.
//! All contexts belong to one share group. Fences order work between contexts: the device waits for them, or, where
//! the driver is slow at that, the threads do ([`Order`](crate::backend::Order)).
//!
//! ```text
//!   caller            copiers           upload            compute           download          copiers
//!   submit ─► ring ─► into a slot ────► to the device ──► the kernels ────► from the device ► out of the slot ─► ticket
//!                     └── or the caller fills a slot and reads it in place
//! ```
//!
//! The engine calls `Pipeline` and `workspace`. All other files serve these two.
//!
//! | file | contents |
//! | --- | --- |
//! | `ring`, `tasks` | the slots, and which task is next; start here |
//! | `job`, `work`, `completion` | jobs in flight; what waits for slots and what goes into one; what all jobs share until they end |
//! | `batch` | small jobs that share a slot |
//! | `core`, `generation` | what all threads share; the threads of one set of contexts |
//! | `stages`, `command_stream`, `transfers` | each thread's loop; commands in flight; copies into and out of slots |
//! | `encoders` | convolutions prepared on the compute context |
//! | `copy_engines` | keeps uploads and downloads on different copy engines |
//! | `memory`, `copiers` | the slots' memory; the threads that copy on the host |
//! | `slot`, `reservation`, `leases` | slots lent to callers; requests for them; counts of slots lent and of open jobs |
//! | `sync` | locks |
//!
//! # When the device fails
//!
//! Some errors leave the device usable: no memory, or a shader that does not compile. Such an error ends its job
//! only. After any other error the supervisor replaces the contexts. All jobs that were on the device then restart:
//! none of their tickets has completed. A job ends with an error if the device is lost under it twice, or if its own
//! commands failed for another reason. If the job has a fallback, that computes it before the ticket
//! completes.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::backend::{BorrowedSlice, Job, PipelineOptions, Queue, Recipe, Slot, WhenFull};
use crate::error::{Error, Result};
use crate::gl::driver::context::Target;
use crate::gl::driver::egl::Egl;
use crate::gl::driver::exit;
use crate::loader;
use crate::problem::Conv2d;
use crate::report::{PipelineStats, Source};

mod batch;
mod command_stream;
mod completion;
mod copiers;
mod copy_engines;
mod core;
mod encoders;
mod generation;
mod job;
mod leases;
mod memory;
mod reservation;
mod ring;
mod slot;
mod stages;
mod sync;
mod tasks;
mod transfers;
mod work;

pub use core::Thresholds;
use core::{Core, Limits};
use reservation::Reservation;
use ring::Refused;
use slot::LentSlot;
use sync::lock;
use work::{Piece, QueuedWork};

/// A pipeline. Dropping it cancels jobs that have not begun and waits for the others.
pub struct Pipeline {
    core: Arc<Core>,
    supervisor: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts a pipeline on `target`. Its kernels get buffers of at most `max_elements` elements. Traces
    /// call it `source`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for invalid options; otherwise the reason why no context or thread could be
    /// created.
    pub fn start(
        (egl, id): (Arc<dyn Egl>, Arc<str>),
        target: Target,
        max_elements: usize,
        options: PipelineOptions,
        source: Source,
    ) -> Result<Self> {
        Pipeline::start_with((egl, id), target, max_elements, options, Thresholds::default(), source)
    }

    /// Like [`Pipeline::start`], with the caller's thresholds.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn start_with(
        (egl, id): (Arc<dyn Egl>, Arc<str>),
        target: Target,
        max_elements: usize,
        options: PipelineOptions,
        thresholds: Thresholds,
        source: Source,
    ) -> Result<Self> {
        if !(1..=16).contains(&options.slots) {
            return Err(Error::invalid("slots", options.slots, "1 to 16"));
        }
        if options.queue == 0 {
            return Err(Error::invalid("queue", 0, "at least 1"));
        }
        let group = generation::new_group(&egl, &id, target)?;
        let limits = Limits { max_elements, max_iterations: target.max_iterations };
        let core = Core::new(&id, options, limits, thresholds, source)?;
        let (shared, device) = (core.clone(), id.clone());
        let supervise = move || generation::supervise(&shared, &egl, &device, target, group);
        let supervisor = Some(crate::thread::spawn(&id, "pipeline", supervise)?);
        Ok(Pipeline { core, supervisor })
    }
}

/// Bytes of the slots and of staged weights, if jobs are cut into pieces like `piece`. Intermediate buffers are not
/// included.
pub fn workspace(options: &PipelineOptions, piece: &Conv2d) -> usize {
    let slot = memory::bytes_of_slot(job::bytes_of(piece, piece.sizes().n));
    options.slots * slot + core::bytes_of_staging(size_of::<f32>() * piece.weights_len())
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let supervisor = self.supervisor.take();
        if self.core.check_process().is_err() {
            // This is a forked child. Threads, contexts and locks belong to the parent.
            std::mem::forget((self.core.clone(), supervisor));
            return;
        }
        self.core.close();
        if loader::is_held() {
            self.core.abandon();
        }
        if let Some(supervisor) = supervisor {
            let _ = exit::join(supervisor);
        }
        self.core.completion.write_trace();
    }
}

impl Queue for Pipeline {
    unsafe fn submit(&self, job: Job, when_full: WhenFull) -> Result<()> {
        self.core.check_process()?;
        loader::check()?;
        let batch_limit = self.core.batch_limit(&job.recipe);
        self.core.submit(job, None, batch_limit, when_full)
    }

    unsafe fn submit_once(&self, job: Job, weights: BorrowedSlice, when_full: WhenFull) -> Result<()> {
        self.core.check_process()?;
        loader::check()?;
        self.core.submit(job, Some(weights), 0, when_full)
    }

    fn acquire(&self, recipe: &Arc<Recipe>, when_full: WhenFull) -> Result<Box<dyn Slot>> {
        self.core.check_process()?;
        loader::check()?;
        let elements = recipe.problem.input_len().max(recipe.problem.output_len());
        if elements > self.core.limits().max_elements {
            let what = format!(
                "a batch of {elements} elements in one slot; the limit is {}",
                self.core.limits().max_elements
            );
            return Err(Error::Unsupported { device: self.core.id().to_string(), what });
        }
        let bytes = job::bytes_of(&recipe.problem, recipe.problem.sizes().n);
        let reservation = Reservation::new(recipe);
        // Take the lease before the slot: code that gives the contexts up later then sees the lease and keeps the
        // memory.
        let (generation, lease) = (self.core.ring.generation(), self.core.leases().take());
        let is_ready = |slot| Some(self.core.memory(slot)).filter(|memory| memory.fits(bytes));
        match self.core.ring.reserve(Piece::Reserve(reservation.clone()), generation, is_ready) {
            Ok(Some((slot, memory))) => {
                return Ok(Box::new(LentSlot::new(&self.core, recipe, (slot, generation), &memory, lease)));
            }
            Ok(None) => {}
            Err(Refused::Full) if when_full == WhenFull::Wait => {
                self.core.push(QueuedWork::Reserve(reservation.clone()), when_full)?
            }
            Err(refused) => return Err(self.core.refusal(refused)),
        }
        drop(lease);
        reservation.wait()
    }

    fn close(&self) {
        if self.core.check_process().is_ok() {
            self.core.close();
        }
    }

    fn flush(&self) -> Result<()> {
        self.core.check_process()?;
        let limit = match (loader::is_held(), exit::is_closed()) {
            (true, _) => loader::PATIENCE,
            (_, true) => exit::PATIENCE,
            _ => {
                self.core.completion.open.wait_for_none();
                return Ok(());
            }
        };
        if self.core.completion.open.wait_within(limit) {
            Ok(())
        } else {
            loader::check().and(Err(exit::ending()))
        }
    }

    fn stats(&self) -> PipelineStats {
        if self.core.check_process().is_err() {
            return PipelineStats::default();
        }
        let stats = lock(&self.core.completion.recorder).stats();
        let cancelled = self.core.completion.open.cancelled();
        PipelineStats { cancelled, depth: self.core.ring.depth(), ..stats }
    }
}
