//! The stage threads: what each stage does with a piece.
//!
//! ```text
//!   upload    prepares slots; host memory ─► device memory
//!   compute   after the upload: the convolution
//!   download  after the convolution: device memory ─► host memory
//! ```
//!
//! A thread has one context and one or more of the stages. It takes tasks from the ring. Between tasks it polls the
//! fences of its commands in flight.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::command_stream::{CommandStream, Commands, Completed};
use super::copy_engines::Filler;
use super::core::Core;
use super::encoders::Encoders;
use super::job::bytes_of;
use super::memory::{SlotBuffers, SlotMemory};
use super::ring::{STAGES, Sleep, Stage, Task};
use super::slot::LentSlot;
use super::transfers::{self, download, poison, upload};
use super::work::{Piece, QueuedWork};
use crate::backend::Order;
use crate::error::{Error, Result};
use crate::gl::driver::context::{Context, ShareGroup};
use crate::gl::driver::exit::{self, Inside};
use crate::gl::tunables::{DEVICE_LOOK, EAGER_TIME, MAX_COPY_DELAY, PATIENT_LOOK, POLL_REST};
use crate::log::Level;
use crate::thread::panic_text;

/// The stages of one thread.
pub struct StageThread {
    streams: Vec<CommandStream>,
    stages: Vec<Stage>,
    /// Of the slots, on the upload thread.
    buffers: Vec<SlotBuffers>,
    /// Used by the compute stage.
    encoders: Encoders,
    /// Copied where the count of large copies would be even ([`super::copy_engines`]).
    filler: Option<Filler>,
    core: Arc<Core>,
    context: Rc<Context>,
    generation: u64,
    /// Whether it polls without sleeping while the device is busy. A software renderer computes on the same
    /// processors. Where processors are few, copies need them more.
    spins: bool,
    /// The ring's epoch when it last had no task for this thread.
    idle_epoch: Option<u64>,
    /// When it last began a task or found one completed.
    last_progress: Instant,
    /// When it last polled its fences.
    last_poll: Instant,
    /// The slot and piece being handled.
    current: Option<(usize, Piece)>,
}

/// The result of one step.
type StageResult<T> = std::result::Result<T, Box<Failed>>;

/// An error, and the piece that it concerns.
struct Failed {
    error: Error,
    piece: Option<(usize, Piece)>,
    /// Whether the device is still usable.
    harmless: bool,
}

impl StageThread {
    /// Creates a context on the calling thread.
    ///
    /// # Errors
    /// Why no context could be created.
    pub fn new(core: &Arc<Core>, group: &Arc<ShareGroup>, stages: &[Stage]) -> Result<Self> {
        let context = group.context()?;
        if stages.contains(&Stage::Upload) {
            core.copy_engines.start();
        }
        Ok(StageThread {
            spins: may_spin(&context, core),
            streams: stages.iter().map(|&stage| CommandStream::new(core, &context, stage)).collect(),
            stages: stages.to_vec(),
            buffers: core.slots().map(|_| SlotBuffers::default()).collect(),
            encoders: Encoders::new(core, &context),
            filler: None,
            core: core.clone(),
            context,
            generation: core.ring.generation(),
            idle_epoch: None,
            last_progress: Instant::now(),
            last_poll: Instant::now(),
            current: None,
        })
    }

    /// Works until the ring ends. Returns an error if the device has to be given up.
    pub fn serve(&mut self) -> Option<Error> {
        let failed = loop {
            self.current = None;
            let step = catch_unwind(AssertUnwindSafe(|| self.step()));
            let step = step.unwrap_or_else(|panic| {
                let error = Error::Internal(format!("{} panicked: {}", self.core.id(), panic_text(&*panic)));
                Err(Box::new(Failed { error, piece: self.current.take(), harmless: false }))
            });
            match step {
                Ok(true) => {}
                Ok(false) => return None,
                Err(failed) if failed.harmless => self.fail_piece(*failed),
                Err(failed) => break failed,
            }
        };
        let error = failed.error.clone();
        let jobs = failed.piece.as_ref().map_or(&[][..], |(_, piece)| piece.jobs());
        for job in jobs.iter().filter(|job| !job.survives(&error)) {
            job.fail(&self.core.completion, error.clone());
        }
        Some(error)
    }

    /// Handles one task or polls the device. `false` at the end.
    fn step(&mut self) -> StageResult<bool> {
        let alone = self.streams.len() == STAGES.len();
        // Submit ready kernels before passing completed ones on: a copy that follows may block the driver.
        let has_kernels = self.stages == [Stage::Compute] && self.idle_epoch.is_none();
        if alone || (!has_kernels && self.last_poll.elapsed() >= DEVICE_LOOK) {
            self.poll_all(Duration::ZERO)?;
            self.last_poll = Instant::now();
        }
        // Hold no piece while waiting for a task: jobs end when nothing holds them.
        self.current = None;
        let busy = self.streams.iter().any(CommandStream::is_busy);
        let sleep = match busy {
            true => Sleep::Never,
            false if self.is_awake() => Sleep::WhenIdle,
            false => Sleep::Always,
        };
        let epoch = self.core.ring.epoch();
        if sleep != Sleep::Always && self.idle_epoch == Some(epoch) {
            self.idle()?;
            return Ok(true);
        }
        let task = self.core.ring.next(&self.stages, sleep);
        self.idle_epoch = task.is_none().then_some(epoch);
        match task {
            None => {
                if sleep == Sleep::Always {
                    self.last_progress = Instant::now();
                }
                self.idle()?
            }
            // No piece is left on record. Tickets may still wait for measured times.
            Some(Task::End) if busy && !self.core.ring.is_broken() => self.poll_first(PATIENT_LOOK)?,
            Some(Task::End) => return Ok(false),
            Some(Task::Prepare(slot, piece)) => {
                self.current = Some((slot, piece.clone()));
                let _inside = self.enter()?;
                self.context.forget_errors();
                let prepared = self.prepare(slot, &piece);
                prepared.map_err(|error| Failed::at(error, slot, piece, true))?;
            }
            Some(Task::Expect(slot, piece)) => {
                self.last_progress = Instant::now();
                self.current = Some((slot, piece.clone()));
                let _inside = self.enter()?;
                self.context.forget_errors();
                if let Err(error) = self.prepare_encoder(&piece) {
                    let failed = Failed::at(error, slot, piece, true);
                    // A harmless error comes up again when the piece is computed, unless the job has ended by then.
                    return if failed.harmless { Ok(true) } else { Err(failed) };
                }
            }
            Some(Task::Issue(stage, slot, piece)) => {
                self.current = Some((slot, piece.clone()));
                let _inside = self.enter()?;
                self.context.forget_errors();
                let issued = self.issue(stage, slot, &piece);
                issued.map_err(|error| Failed::at(error, slot, piece, stage == Stage::Compute))?;
            }
        }
        Ok(true)
    }

    /// Enters the driver for the current piece.
    fn enter(&mut self) -> StageResult<Inside> {
        exit::enter().map_err(|error| Box::new(Failed { error, piece: self.current.take(), harmless: false }))
    }

    /// Fails a piece that cannot be computed, while the device stays usable.
    fn fail_piece(&self, failed: Failed) {
        let Some((slot, piece)) = failed.piece else { return };
        self.core.copy_engines.slot_finished(slot);
        match piece {
            Piece::Reserve(reservation) => {
                reservation.fail(failed.error);
                self.core.ring.done(slot, self.generation);
            }
            Piece::Part { job, .. } => {
                if self.core.ring.done(slot, self.generation) {
                    job.fail(&self.core.completion, failed.error);
                    job.part_done(&self.core.completion, 2);
                }
            }
            Piece::Batch(batch) => self.take_apart(&batch, slot, &failed.error),
        }
    }

    /// Splits a batch that cannot be computed as one, while the device stays usable. Its jobs are resubmitted
    /// individually.
    fn take_apart(&self, batch: &Batch, slot: usize, error: &Error) {
        if matches!(error, Error::Shader { .. }) && !self.core.no_queue.swap(true, Ordering::Relaxed) {
            crate::log::warning!("{}: small jobs run one by one: {error}", self.core.id());
        }
        let alone = batch.jobs.iter().map(|job| QueuedWork::InFlight { job: job.resubmit(false), next: 0 });
        self.core.ring.requeue(slot, self.generation, alone);
    }

    /// Polls all streams for completed commands.
    fn poll_all(&mut self, patience: Duration) -> StageResult<()> {
        for index in 0..self.streams.len() {
            while self.poll_stream(index, patience)? {}
        }
        Ok(())
    }

    /// Whether it stays awake while the pipeline is busy.
    fn is_awake(&self) -> bool {
        self.spins && self.last_progress.elapsed() <= EAGER_TIME
    }

    /// Rests while the device is busy: spins briefly, or waits for a fence.
    fn idle(&mut self) -> StageResult<()> {
        if !self.is_awake() {
            return self.poll_first(PATIENT_LOOK);
        }
        let start = Instant::now();
        while start.elapsed() < POLL_REST {
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Polls the busy stream of the earliest stage.
    fn poll_first(&mut self, patience: Duration) -> StageResult<()> {
        let busy = (0..self.streams.len()).filter(|&index| self.streams[index].is_busy());
        let first = busy.min_by_key(|&index| self.streams[index].stage as usize);
        first.map_or(Ok(()), |index| self.poll_stream(index, patience).map(|_| ()))
    }

    fn poll_stream(&mut self, index: usize, patience: Duration) -> StageResult<bool> {
        if !self.streams[index].is_busy() {
            return Ok(false);
        }
        let piece = self.streams[index].oldest();
        self.current = piece.clone();
        let _inside = self.enter()?;
        // Deletions may have left errors that belong to no piece.
        self.context.forget_errors();
        let completed = self.streams[index].poll_completed(patience);
        let completed =
            completed.map_err(|error| Box::new(Failed { error, piece: piece.clone(), harmless: false }))?;
        let Some(completed) = completed else { return Ok(false) };
        self.last_progress = Instant::now();
        self.pass_on(self.streams[index].stage, completed.issued.slot, &completed.issued.piece, true);
        if self.streams[index].stage == Stage::Download {
            self.core.copy_engines.slot_finished(completed.issued.slot);
        }
        let after = match self.streams[index].stage {
            Stage::Upload => Ok(()),
            Stage::Compute => {
                self.computed(&completed);
                Ok(())
            }
            Stage::Download => self.downloaded(&completed),
        };
        after.map_err(|error| Box::new(Failed { error, piece, harmless: false }))?;
        Ok(true)
    }

    fn computed(&self, completed: &Completed) {
        let Some((recipe, _, count)) = completed.issued.piece.load() else { return };
        if matches!(completed.issued.piece, Piece::Batch(_)) {
            self.core.rate.learn(count, recipe.problem.flops(), completed.time);
        }
        let encoder = completed.issued.encoder.as_ref().expect("compute commands have an encoder");
        encoder.learn(count, completed.time);
        let kernel = encoder.kernel().into();
        for job in completed.issued.piece.jobs() {
            job.computed(&self.core.completion, completed.time, completed.issued.dispatches, &kernel);
        }
    }

    /// Copies a downloaded output from the slot to its destination, unless the caller reads it in the slot.
    fn downloaded(&self, completed: &Completed) -> Result<()> {
        let Some((_, [_, bytes], _)) = completed.issued.piece.load() else { return Ok(()) };
        let slot = completed.issued.slot;
        let memory = self.core.memory(slot);
        if memory.staging.is_none() {
            // SAFETY: the slot's output is at least `bytes` long and belongs to this piece alone.
            let into = unsafe { std::slice::from_raw_parts_mut(memory.output.as_ptr(), bytes) };
            transfers::read(&self.context, memory.regions([0, bytes])[1].buffer, into)?;
        }
        let (job, first) = match &completed.issued.piece {
            Piece::Part { job, first, .. } => (job.clone(), first),
            Piece::Batch(batch) => {
                transfers::deliver_batch(batch.clone(), &self.core, slot, memory);
                return Ok(());
            }
            Piece::Reserve(_) => return Ok(()),
        };
        let core = self.core.clone();
        let Some(to) = job.destination(*first) else {
            if core.ring.done(slot, self.generation) {
                job.part_done(&core.completion, 1);
            }
            return Ok(());
        };
        if !core.ring.copying(slot) {
            return Ok(());
        }
        let from = memory.output.as_ptr();
        let then = move || {
            core.ring.delivered(slot);
            job.part_done(&core.completion, 1);
        };
        // SAFETY: the slot's memory stays while the ring records it as being copied. The output is the job's until
        // it is done.
        unsafe { self.core.copiers().copy(from, to.cast(), bytes, then) };
        Ok(())
    }

    /// Makes the slot large enough. Then has its input copied in, or lends the slot to a caller.
    fn prepare(&mut self, slot: usize, piece: &Piece) -> Result<()> {
        match piece {
            Piece::Reserve(reservation) => {
                let problem = &reservation.recipe.problem;
                let memory = self.grow(slot, bytes_of(problem, problem.sizes().n))?;
                let lease = self.core.leases().take();
                let lent =
                    LentSlot::new(&self.core, &reservation.recipe, (slot, self.generation), &memory, lease);
                self.core.ring.lend(slot, self.generation);
                reservation.grant(Box::new(lent));
            }
            Piece::Batch(batch) => {
                let memory = self.grow(slot, batch.capacity(self.core.max_batch_limit(&batch.recipe)))?;
                poison(memory.input.as_ptr(), batch.bytes()[0]);
                transfers::fill_batch(batch.clone(), &self.core, slot, self.generation, memory);
            }
            Piece::Part { job, first, images } => {
                job.allocate_spill()?;
                let problem = &job.recipe.problem;
                let bytes = bytes_of(problem, *images);
                let memory = self.grow(slot, bytes)?;
                let request = job.request().expect("data in slots needs no preparation");
                poison(memory.input.as_ptr(), bytes[0]);
                if job.brings_weights() && *first == 0 {
                    self.core.ring.expect(slot, self.generation);
                }
                if !self.core.ring.copying(slot) {
                    return Ok(());
                }
                let (core, generation) = (self.core.clone(), self.generation);
                let then = move || {
                    if core.ring.copied(slot) {
                        core.ring.pass(Stage::Upload, slot, generation);
                    }
                };
                // SAFETY: `first` is below the batch.
                let from = unsafe { request.input.add(first * problem.with_batch(1).input_len()) };
                // SAFETY: the input is the job's until it is done. The slot's memory stays while the ring records
                // it as being copied, and no other thread uses it.
                unsafe { self.core.copiers().copy(from.cast(), memory.input.as_ptr(), bytes[0], then) };
            }
        }
        Ok(())
    }

    /// The slot's memory, enlarged if necessary.
    fn grow(&mut self, slot: usize, bytes: [usize; 2]) -> Result<SlotMemory> {
        let memory = self.core.memory(slot);
        if memory.fits(bytes) {
            return Ok(memory);
        }
        // Free the old memory first: both at once may not fit.
        self.core.update_memory(slot, |it| *it = SlotMemory::NONE);
        self.buffers[slot] = SlotBuffers::default();
        self.context.forget_errors();
        let (buffers, memory) = SlotBuffers::new(&self.context, bytes)?;
        self.buffers[slot] = buffers;
        self.core.update_memory(slot, |it| *it = memory);
        Ok(memory)
    }

    /// Submits a stage's commands and passes the slot on to the next stage.
    fn issue(&mut self, stage: Stage, slot: usize, piece: &Piece) -> Result<()> {
        self.last_progress = Instant::now();
        let Some((recipe, bytes, count)) = piece.load() else { return Ok(()) };
        // Where the device orders the stages, kernels may be submitted long before they can begin.
        let kernels_begin = self.core.order_before(Stage::Compute) != Some(Order::Device);
        if self.spins && kernels_begin && !self.stages.contains(&Stage::Compute) {
            self.yield_to_kernels();
        }
        let counts = self.counts_copies();
        let (context, encoders) = (self.context.clone(), &mut self.encoders);
        let stream =
            self.streams.iter_mut().find(|stream| stream.stage == stage).expect("the ring knows our stages");
        let bytes_moved = [bytes[0], 0, bytes[1]][stage as usize] as u64;
        let commands = Commands { slot, piece: piece.clone(), bytes: bytes_moved };
        match stage {
            Stage::Upload => {
                let submit = || {
                    stream.issue(commands, |memory| {
                        poison(memory.output.as_ptr(), bytes[1]);
                        upload(&context, memory, bytes).map(|()| (0, None))
                    })
                };
                if counts { self.core.copy_engines.upload(slot, bytes[0], submit)? } else { submit()? }
            }
            Stage::Compute => {
                // SAFETY: the piece stays outstanding until this stage has completed.
                let weights = unsafe { piece.weights() };
                let encoder = encoders.get(recipe, weights, count, matches!(piece, Piece::Batch(_)))?;
                stream.issue(commands, |memory| {
                    let [input, output] = memory.regions(bytes);
                    let dispatches = encoder.encode(input, output, count)?;
                    Ok((dispatches, Some(encoder)))
                })?;
            }
            Stage::Download => {
                stream.issue(commands, |memory| download(&context, memory, bytes).map(|()| (0, None)))?;
                self.core.copy_engines.download_submitted();
            }
        }
        self.pass_on(stage, slot, piece, false);
        Ok(())
    }

    /// Waits briefly until the kernels that are ready have been submitted. A copy from or to a buffer that another
    /// context has used may block its thread until the running kernel ends. It then also blocks threads that need
    /// the share group's lock, such as the one with the next kernel.
    fn yield_to_kernels(&self) {
        let start = Instant::now();
        while self.core.ring.has_kernels() && start.elapsed() < MAX_COPY_DELAY {
            (0..64).for_each(|_| std::hint::spin_loop());
        }
    }

    /// Prepares the convolution of a piece that is on its way.
    fn prepare_encoder(&mut self, piece: &Piece) -> Result<()> {
        let Some((recipe, _, count)) = piece.load() else { return Ok(()) };
        // SAFETY: the piece stays outstanding until it has been computed, and only this thread starts that.
        let weights = unsafe { piece.weights() };
        self.encoders.get(recipe, weights, count, matches!(piece, Piece::Batch(_))).map(drop)
    }

    /// Passes the slot to the stage after `stage`: after submission (`done` is false) if the device orders the two,
    /// else after completion (`done` is true).
    fn pass_on(&mut self, stage: Stage, slot: usize, piece: &Piece, done: bool) {
        if let Some(next) = stage.next()
            && (self.core.order_before(next) == Some(Order::Host)) == done
        {
            if next == Stage::Download && self.counts_copies() {
                self.separate_copy_engines(piece);
            }
            self.core.ring.pass(next, slot, self.generation);
        }
    }

    /// Whether uploads and downloads are copies in contexts of their own.
    fn counts_copies(&self) -> bool {
        self.core.threads() == STAGES.len() && self.context.capabilities().buffer_storage
    }

    /// Makes sure that the download of `piece` and concurrent uploads use different copy engines.
    fn separate_copy_engines(&mut self, piece: &Piece) {
        let Some((_, [_, bytes], _)) = piece.load() else { return };
        let (context, filler) = (&self.context, &mut self.filler);
        let copy = || match filler {
            Some(filler) => filler.copy(context),
            None => filler.insert(self.core.copy_engines.filler(context)?).copy(context),
        };
        // A failure here costs speed only. A broken device shows up elsewhere.
        if let Err(error) = self.core.copy_engines.before_download(bytes, copy) {
            self.context.note(Level::Debug, format_args!("{}: {error}", self.core.id()));
            self.context.forget_errors();
        }
    }

    /// Counts parts that will never complete as done, after the end.
    pub fn leave(&mut self) {
        // Callers with leases may block this thread at its gate. Hold no piece: jobs end when nothing holds them.
        self.current = None;
        let _inside = exit::enter();
        for stream in &mut self.streams {
            let computes = stream.stage == Stage::Compute;
            for issued in stream.take_in_flight().filter(|_| computes) {
                // Its time is unknown. If its data has not arrived either, the piece is on record and restarts.
                issued.piece.jobs().iter().for_each(|job| job.part_done(&self.core.completion, 1));
            }
        }
        let messages = self.context.take_messages();
        messages.iter().for_each(|(level, text)| crate::log::message(*level, format_args!("{text}")));
    }
}

impl Failed {
    fn at(error: Error, slot: usize, piece: Piece, may_be_harmless: bool) -> Box<Self> {
        let harmless = may_be_harmless
            && matches!(error, Error::OutOfMemory { .. } | Error::Shader { .. } | Error::Unsupported { .. });
        Box::new(Failed { error, piece: Some((slot, piece)), harmless })
    }
}

fn may_spin(context: &Context, core: &Core) -> bool {
    if core.thresholds().spins_anywhere {
        return true;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    !context.capabilities().software && processors >= 2 * core.threads()
}

/// Runs a thread's stages for the whole life of its context. Calls `arrive` once the context exists; without a
/// context, drops `arrive` after reporting the error. `gate` blocks until nothing needs the thread's memory.
pub fn thread(
    core: &Arc<Core>,
    group: Arc<ShareGroup>,
    stages: &[Stage],
    arrive: impl FnOnce(),
    gate: impl FnOnce(),
) {
    let made = exit::enter().and_then(|_inside| {
        let made = catch_unwind(AssertUnwindSafe(|| StageThread::new(core, &group, stages)));
        made.unwrap_or_else(|panic| {
            Err(Error::Internal(format!("{} panicked: {}", core.id(), panic_text(&*panic))))
        })
    });
    let mut stages = match made {
        Ok(stages) => stages,
        Err(error) => {
            core.give_up(error, true);
            return exit::end_thread(|| group.release_thread());
        }
    };
    arrive();
    if let Some(error) = stages.serve() {
        core.give_up(error, false);
    }
    stages.leave();
    gate();
    let _inside = exit::enter();
    drop(stages);
    exit::end_thread(|| group.release_thread());
}
