//! The pipeline: a stream of jobs on one device, with upload, compute and download in flight at once.
//!
//! One context does its commands one after the other, so the three stages have one each, all of one share group, each on its own
//! thread. What comes after what in different contexts, fences tell: to the device, or, where it is slow to listen, to the threads.
//!
//! ```text
//!   caller            copiers           upload            compute           download          copiers
//!   submit ─► ring ─► into a slot ────► to the device ──► the kernels ────► from the device ► out of the slot ─► ticket
//!                     └── or the caller fills a slot and reads it in place
//! ```
//!
//! | file | its story |
//! | --- | --- |
//! | `ring` | the slots, and which task is next; start here |
//! | `job`, `work`, `completion` | a job's pieces, errors and end; what waits for slots; what a job needs to end |
//! | `batch` | small jobs together in one slot |
//! | `core`, `generation` | what all threads share; the threads of one set of contexts |
//! | `stages`, `command_stream`, `transfers` | what each thread does; commands in flight; bytes in and out of slots |
//! | `encoders` | convolutions prepared on the compute context |
//! | `copy_engines` | how uploads and downloads get a copy engine each |
//! | `memory`, `copiers` | the slots' memory; threads that copy |
//! | `slot`, `reservation`, `leases` | slots in callers' hands, requests for them, and counting both |
//!
//! # When the device fails
//!
//! An error that leaves the device as it was (no memory, a shader that does not compile) ends its job, and the others go on. After
//! any other the contexts are given up and made again by the supervisor, and all jobs that were on the device
//! begin anew: nobody has seen anything of them. A job whose device was lost twice ends with that error, and so does the one
//! whose commands failed for another reason. If a job has a fallback, that computes it before the ticket is done.

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::backend::{BorrowedSlice, Job, PipelineOptions, Queue, Recipe, Slot, WhenFull};
use crate::error::{Error, Result};
use crate::gl::driver::context::Target;
use crate::gl::driver::egl::Egl;
use crate::gl::driver::exit;
use crate::loader;
use crate::problem::Conv2d;
use crate::report::PipelineStats;

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
mod transfers;
mod work;

pub use core::Thresholds;
use core::{Core, Limits};
use reservation::Reservation;
use ring::Refused;
use slot::LentSlot;
use sync::lock;
use work::{Piece, Work};

/// A pipeline. Dropping it calls off what has not begun and waits for the rest.
pub struct Pipeline {
    core: Arc<Core>,
    supervisor: Option<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts a pipeline on `target`, whose kernels get buffers of at most `max_elements`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for options that make no sense; else why there is no context or no thread.
    pub fn start(
        egl: Arc<dyn Egl>,
        id: Arc<str>,
        target: Target,
        max_elements: usize,
        options: PipelineOptions,
    ) -> Result<Self> {
        Pipeline::start_with(egl, id, target, max_elements, options, Thresholds::default())
    }

    /// As [`Pipeline::start`], with thresholds of the caller's.
    ///
    /// # Errors
    /// As [`Pipeline::start`].
    pub fn start_with(
        egl: Arc<dyn Egl>,
        id: Arc<str>,
        target: Target,
        max_elements: usize,
        options: PipelineOptions,
        thresholds: Thresholds,
    ) -> Result<Self> {
        if !(1..=16).contains(&options.slots) {
            return Err(Error::invalid("slots", options.slots, "1 to 16"));
        }
        if options.queue == 0 {
            return Err(Error::invalid("queue", 0, "at least 1"));
        }
        let group = generation::new_group(&egl, &id, target)?;
        let limits = Limits { max_elements, max_iterations: target.max_iterations };
        let core = Core::new(&id, options, limits, thresholds)?;
        let (shared, device) = (core.clone(), id.clone());
        let supervise = move || generation::supervise(&shared, &egl, &device, target, group);
        let supervisor = Some(crate::thread::spawn(&id, "pipeline", supervise)?);
        Ok(Pipeline { core, supervisor })
    }
}

/// Bytes that jobs work in, cut into pieces like `piece`, beside what passes hand on to each other.
pub fn workspace(options: &PipelineOptions, piece: &Conv2d) -> usize {
    let slot = memory::bytes_of_slot(job::bytes_of(piece, piece.sizes().n));
    options.slots * slot + core::bytes_of_staging(size_of::<f32>() * piece.weights_len())
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let supervisor = self.supervisor.take();
        if self.core.check_process().is_err() {
            // Its threads and contexts are the parent's, and so are its locks.
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
        self.core.write_trace();
    }
}

impl Queue for Pipeline {
    unsafe fn submit(&self, job: Job, when_full: WhenFull) -> Result<()> {
        self.core.check_process()?;
        loader::check()?;
        let room = self.core.room(&job.recipe);
        self.core.fly(job, None, room, when_full)
    }

    unsafe fn submit_once(&self, job: Job, weights: BorrowedSlice, when_full: WhenFull) -> Result<()> {
        self.core.check_process()?;
        loader::check()?;
        self.core.fly(job, Some(weights), 0, when_full)
    }

    fn acquire(&self, recipe: &Arc<Recipe>, when_full: WhenFull) -> Result<Box<dyn Slot>> {
        self.core.check_process()?;
        loader::check()?;
        let most = recipe.problem.input_len().max(recipe.problem.output_len());
        if most > self.core.limits().max_elements {
            let what =
                format!("a batch of {most} elements in one slot; {} fit", self.core.limits().max_elements);
            return Err(Error::Unsupported { device: self.core.id().to_string(), what });
        }
        let bytes = job::bytes_of(&recipe.problem, recipe.problem.sizes().n);
        let reservation = Reservation::new(recipe);
        // The lease before the slot: whoever gives the contexts up after that sees it, and keeps the memory.
        let (generation, lease) = (self.core.ring.generation(), self.core.leases().take());
        let is_ready = |slot| Some(self.core.memory(slot)).filter(|memory| memory.fits(bytes));
        match self.core.ring.reserve(Piece::Reserve(reservation.clone()), generation, is_ready) {
            Ok(Some((slot, memory))) => {
                let place = (slot, generation);
                return Ok(Box::new(LentSlot::new(&self.core, recipe, place, &memory, lease)));
            }
            Ok(None) => {}
            Err(Refused::Full) if when_full == WhenFull::Wait => {
                self.core.push(Work::Reserve(reservation.clone()), when_full)?
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
