//! The pipeline: a stream of jobs on one device, with upload, compute and download in flight at once.
//!
//! One context does its commands one after the other, so the three steps have one each, all of one share group, each on its own
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
//! | `ring` | the slots and who may do what next; start here |
//! | `job` | a job's pieces, errors and end |
//! | `batch`, `queue` | small jobs together in one slot, and the kernel that draws them from a queue |
//! | `steps`, `lane` | the threads, and what they wait for |
//! | `engines` | how uploads and downloads come to have a copy engine each |
//! | `encode` | the seam to the convolution |
//! | `memory`, `copiers`, `slot` | the slots' memory; copies in and out; slots in callers' hands |
//!
//! # When the device fails
//!
//! An error that leaves the device as it was (no memory, a shader that does not compile) ends its job, and the others go on. After
//! any other the contexts are given up and made again by the supervisor, and all jobs that were on the device
//! begin anew: nobody has seen anything of them. A job whose device was lost twice ends with that error, and so does the one
//! whose commands failed for another reason. Where a job has a stand-in, that computes it before the ticket says anything.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::context::{ShareGroup, Target, is_terminated};
use super::egl::Egl;
use super::exit;
use crate::allocate;
use crate::backend::{Contexts, Job, Lent, Order, PipelineOptions, Pressure, Queue, Recipe, Slot};
use crate::config::config;
use crate::error::{Error, Result};
use crate::loader;
use crate::problem::Conv2d;
use crate::report::{PipelineStats, Recorder};

mod batch;
mod copiers;
mod encode;
mod engines;
mod job;
mod lane;
mod memory;
mod queue;
mod ring;
mod slot;
mod steps;
mod sync;

use copiers::Copiers;
use engines::Engines;
use job::{Piece, Work};
use memory::SlotMemory;
use ring::{Refused, Ring, Step};
use slot::{Leases, LentSlot, Reservation};
#[cfg(test)]
pub use steps::SPIN_ANYWHERE;
use sync::{Condvar, Mutex, lock, wait};

/// A pipeline. Dropping it calls off what has not begun and waits for the rest.
pub struct Pipeline {
    core: Arc<Core>,
    supervisor: Option<JoinHandle<()>>,
}

/// What all its threads share.
pub struct Core {
    /// The device's id.
    pub id: Arc<str>,
    pub ring: Ring<Work>,
    pub copiers: Copiers,
    pub recorder: Mutex<Recorder>,
    /// When the pipeline was made.
    pub epoch: Instant,
    /// Jobs that are not over.
    pub open: Arc<Leases>,
    /// How fast batches of small jobs were.
    pub rate: batch::Rate,
    /// Set when the driver has failed at the queue's kernel: small jobs then go one by one.
    pub no_queue: AtomicBool,
    pub engines: Engines,
    options: PipelineOptions,
    /// The most elements of a buffer that a kernel gets.
    most_elements: usize,
    /// Iterations that all loops of an invocation may make together.
    most_iterations: usize,
    memory: Mutex<Vec<SlotMemory>>,
    /// Slots of the present generation in callers' hands.
    leases: Mutex<Arc<Leases>>,
    /// Why the ring was broken, and whether that was for want of a context.
    fault: Mutex<Option<(Error, bool)>>,
    process: u32,
}

impl Pipeline {
    /// Starts a pipeline on `target`, whose kernels get buffers of at most `most_elements`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for options that make no sense; else why there is no context or no thread.
    pub fn start(
        egl: Arc<dyn Egl>,
        id: Arc<str>,
        target: Target,
        most_elements: usize,
        options: PipelineOptions,
    ) -> Result<Self> {
        if !(1..=16).contains(&options.slots) {
            return Err(Error::invalid("slots", options.slots, "1 to 16"));
        }
        if options.queue == 0 {
            return Err(Error::invalid("queue", 0, "at least 1"));
        }
        let group = new_group(&egl, &id, target)?;
        let core = Arc::new(Core {
            id: id.clone(),
            ring: Ring::new(options.slots, options.queue),
            copiers: Copiers::start(&id, lanes(options.contexts).len())?,
            recorder: Mutex::new(Recorder::new(config().trace.is_some())),
            epoch: Instant::now(),
            open: Arc::default(),
            rate: batch::Rate::default(),
            no_queue: AtomicBool::new(false),
            engines: Engines::default(),
            options,
            most_elements,
            most_iterations: target.max_iterations,
            memory: Mutex::new(vec![SlotMemory::NONE; options.slots]),
            leases: Mutex::default(),
            fault: Mutex::default(),
            process: crate::process::id(),
        });
        let (shared, device) = (core.clone(), id.clone());
        let supervise = move || supervise(&shared, &egl, &device, target, group);
        let supervisor = Some(crate::thread::spawn(&id, "pipeline", supervise)?);
        Ok(Pipeline { core, supervisor })
    }
}

/// Bytes that jobs work in, cut into pieces like `piece`, beside what passes hand on to each other.
pub fn workspace(options: &PipelineOptions, piece: &Conv2d) -> usize {
    let slot = memory::bytes_of_slot(job::bytes_of(piece, piece.sizes().n));
    options.slots * slot + encode::bytes_of_staging(size_of::<f32>() * piece.weights_len())
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
    unsafe fn submit(&self, job: Job, pressure: Pressure) -> Result<()> {
        self.core.check_process()?;
        loader::check()?;
        let room = self.core.room(&job.recipe);
        self.core.fly(job, None, room, pressure)
    }

    unsafe fn submit_once(&self, job: Job, weights: Lent, pressure: Pressure) -> Result<()> {
        self.core.check_process()?;
        loader::check()?;
        self.core.fly(job, Some(weights), 0, pressure)
    }

    fn acquire(&self, recipe: &Arc<Recipe>, pressure: Pressure) -> Result<Box<dyn Slot>> {
        self.core.check_process()?;
        loader::check()?;
        let most = recipe.problem.input_len().max(recipe.problem.output_len());
        if most > self.core.most_elements {
            let what = format!("a batch of {most} elements in one slot; {} fit", self.core.most_elements);
            return Err(Error::Unsupported { device: self.core.id.to_string(), what });
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
            Err(Refused::Full) if pressure == Pressure::Wait => {
                self.core.push(Work::Reserve(reservation.clone()), pressure)?
            }
            Err(refused) => return Err(self.core.refusal(refused)),
        }
        drop(lease);
        reservation.wait().map(|slot| Box::new(slot) as Box<dyn Slot>)
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
                self.core.open.wait_for_none();
                return Ok(());
            }
        };
        if self.core.open.wait_within(limit) { Ok(()) } else { loader::check().and(Err(exit::ending())) }
    }

    fn stats(&self) -> PipelineStats {
        if self.core.check_process().is_err() {
            return PipelineStats::default();
        }
        let stats = lock(&self.core.recorder).stats();
        let cancelled = self.core.open.cancelled();
        PipelineStats { cancelled, depth: self.core.ring.depth(), ..stats }
    }
}

impl Core {
    /// # Errors
    /// [`Error::Forked`] in a process that was forked from the pipeline's.
    pub fn check_process(&self) -> Result<()> {
        if self.process == crate::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: format!("a pipeline of {}", self.id) })
    }

    /// Who puts `step` behind the one before it, the device unless it is known to be slow at that; nobody where both are in one
    /// context, which does one after the other.
    pub fn order_before(&self, step: Step) -> Option<Order> {
        let before = (step as usize).checked_sub(1)?;
        let in_one = |steps: &&[Step]| steps.contains(&step) && steps.iter().any(|&it| it as usize == before);
        let order = if self.options.order == Order::Host { Order::Host } else { Order::Device };
        (!lanes(self.options.contexts).iter().any(in_one)).then_some(order)
    }

    /// How many contexts it works in.
    pub fn contexts(&self) -> Contexts {
        self.options.contexts
    }

    /// How many threads those have.
    pub fn threads(&self) -> usize {
        lanes(self.options.contexts).len()
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
            crate::log::warning!("{}: the pipeline's contexts are given up: {error}", self.id);
        }
        let mut fault = lock(&self.fault);
        let is_lost = matches!(error, Error::DeviceLost { .. });
        if fault.is_none() || is_lost || no_context {
            let no_context = no_context || fault.as_ref().is_some_and(|(_, no_context)| *no_context);
            *fault = Some((error, no_context));
        }
        drop(fault);
        self.engines.downloaded();
        self.ring.break_up();
    }

    /// How many jobs of `recipe` may share a slot; 0 if each has one to itself.
    fn room(&self, recipe: &Recipe) -> usize {
        if !self.options.gather || self.no_queue.load(Ordering::Relaxed) {
            return 0;
        }
        self.most_room(recipe).min(self.rate.room(recipe.problem.flops()))
    }

    /// How many at most, however fast the device is.
    pub fn most_room(&self, recipe: &Recipe) -> usize {
        if !queue::fits(&recipe.problem, self.most_iterations) {
            return 0;
        }
        batch::room(recipe, self.options.piece_bytes.min(4 * self.most_elements))
    }

    fn busy(&self) -> Error {
        Error::Busy { what: format!("the pipeline of {}", self.id) }
    }

    /// Sends a job off, with weights that are lent, if so; `room` like it may share a slot.
    fn fly(&self, job: Job, weights: Option<Lent>, room: usize, pressure: Pressure) -> Result<()> {
        let images = self.options.images_each(&job.recipe.problem, self.most_elements);
        self.push(Work::new(job, weights, images, room, self), pressure)
    }

    fn push(&self, work: Work, pressure: Pressure) -> Result<()> {
        self.ring.push(work, pressure == Pressure::Wait).map_err(|(refused, _)| self.refusal(refused))
    }

    fn refusal(&self, refused: Refused) -> Error {
        match refused {
            Refused::Full => self.busy(),
            Refused::Closed | Refused::Gone => Error::closed("the pipeline"),
            Refused::NoMemory => allocate::out_of_memory("a longer queue of jobs"),
        }
    }

    /// Takes no more work, and calls off what has not begun.
    fn close(self: &Arc<Self>) {
        self.ring.close(|work| self.call_off(work, Error::Cancelled));
    }

    /// Under the loader's lock, which threads or the driver may be waiting for: ends all jobs as they are. The threads
    /// end later.
    fn abandon(self: &Arc<Self>) {
        if self.open.wait_within(loader::PATIENCE) {
            return;
        }
        let Err(error) = loader::check() else { return };
        self.give_up(error.clone(), true);
        self.ring.wait_for_copiers();
        for piece in self.ring.pieces() {
            match &piece {
                Piece::Reserve(reservation) => reservation.fail(error.clone()),
                piece => piece.flights().iter().for_each(|flight| flight.abandon(self, error.clone())),
            }
        }
        for mut work in self.ring.take_waiting() {
            match (work.take_off(), work) {
                (_, Work::Reserve(reservation)) => reservation.fail(error.clone()),
                (Some(flight), _) => flight.abandon(self, error.clone()),
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
            (Some(flight), _) => flight.fail(self, error),
            (None, _) => {}
        }
    }

    /// After all threads of a generation have ended because of a fault: what was on the device begins anew.
    ///
    /// `barren` says whether the generation before this had no contexts, either.
    fn recover(self: &Arc<Self>, barren: &mut bool) {
        let fault = lock(&self.fault).take();
        let Some((error, no_context)) = fault else { return };
        lock(&self.memory).fill(SlotMemory::NONE);
        *lock(&self.leases) = Arc::default();
        lock(&self.recorder).stats_mut().rebuilt += 1;
        let lost = matches!(error, Error::DeviceLost { .. } | Error::Ending { .. }).then_some(&error);
        self.ring.recover(|pieces, waiting| {
            let waited = waiting.len();
            for piece in pieces {
                match piece {
                    Piece::Reserve(wish) if wish.is_open() => waiting.push_back(Work::Reserve(wish)),
                    Piece::Reserve(_) => {}
                    piece => {
                        let flies = piece.flights().iter().filter_map(|flight| flight.recover(self, lost));
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
    fn fail_waiting(self: &Arc<Self>, error: &Error) {
        self.ring.take_waiting().into_iter().for_each(|work| self.call_off(work, error.clone()));
        for piece in self.ring.take_reserved() {
            if let Piece::Reserve(reservation) = piece {
                reservation.fail(error.clone());
            }
        }
    }

    /// Writes the trace to where `SPARKLE_TRACE` says; a process's second pipeline appends its number to the name.
    fn write_trace(&self) {
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let recorder = lock(&self.recorder);
        let Some(path) = config().trace.as_ref().filter(|_| recorder.traces()) else { return };
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed) + 1;
        let path = if number == 1 { path.clone() } else { format!("{path}.{number}") };
        let written = std::fs::File::create(&path).and_then(|file| {
            let mut file = std::io::BufWriter::new(file);
            recorder.write_trace(&self.id, &mut file)?;
            std::io::Write::flush(&mut file)
        });
        drop(recorder);
        if let Err(error) = written {
            crate::log::warning!("SPARKLE_TRACE: {path} cannot be written: {error}");
        }
    }
}

fn new_group(egl: &Arc<dyn Egl>, id: &Arc<str>, target: Target) -> Result<Arc<ShareGroup>> {
    let _inside = exit::enter()?;
    let new = || ShareGroup::new(egl.clone(), id.clone(), target);
    // Another library may end the display just then; and once more at the next try, but then it means it.
    new().or_else(|error| if is_terminated(&error) { new() } else { Err(error) })
}

/// Keeps threads at work while there is work: a new generation of them, with contexts of their own, after each fault.
fn supervise(core: &Arc<Core>, egl: &Arc<dyn Egl>, id: &Arc<str>, target: Target, first: Arc<ShareGroup>) {
    let (mut first, mut barren) = (Some(first), false);
    while core.ring.wait_for_work() {
        match first.take().map_or_else(|| new_group(egl, id, target), Ok) {
            Ok(group) => {
                Generation::start(core, &group).end(core);
                core.recover(&mut barren);
            }
            Err(error) => core.fail_waiting(&error),
        }
    }
    let inside = exit::enter();
    drop(first);
    if inside.is_ok() {
        egl.release_thread();
    }
}

/// The steps of each thread.
fn lanes(contexts: Contexts) -> &'static [&'static [Step]] {
    match contexts {
        Contexts::One => &[&[Step::Upload, Step::Compute, Step::Download]],
        Contexts::Two => &[&[Step::Upload, Step::Compute], &[Step::Download]],
        Contexts::Three | Contexts::Measured => &[&[Step::Upload], &[Step::Compute], &[Step::Download]],
    }
}

/// Where the threads of a set of contexts wait for each other. At their beginning, until each has its context: a slot that is lent
/// before may be lost for want of one. And at their end: one that ends with an error deletes its fences, whose
/// names another may be about to give to `glWaitSync`; and of a deleted fence's name GL promises an error at best.
struct Meeting {
    /// Threads that have not come.
    left: Mutex<usize>,
    all: Condvar,
}

impl Meeting {
    fn of(threads: usize) -> Arc<Self> {
        Arc::new(Meeting { left: Mutex::new(threads), all: Condvar::new() })
    }
}

/// One thread's place in a [`Meeting`]; given up also if the thread never comes to it.
struct Place(Arc<Meeting>);

impl Place {
    /// The thread is there: waits until the others are.
    fn together(self) {
        let meeting = self.0.clone();
        drop(self);
        let mut left = lock(&meeting.left);
        while *left > 0 {
            left = wait(&meeting.all, left);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0.left) -= 1;
        self.0.all.notify_all();
    }
}

/// The threads of one set of contexts.
struct Generation {
    /// The one that owns the memory.
    keeper: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// Says, or ends, when the keeper has nothing left to do.
    served: Receiver<()>,
    /// Dropped when the keeper may give up the memory.
    gate: SyncSender<()>,
}

impl Generation {
    fn start(core: &Arc<Core>, group: &Arc<ShareGroup>) -> Self {
        let threads = lanes(core.options.contexts);
        let ((serves, served), (gate, opens)) = (sync_channel::<()>(1), sync_channel::<()>(0));
        let leases = core.leases();
        let (beginning, end) = (Meeting::of(threads.len()), Meeting::of(threads.len()));
        let leaving = Place(end.clone());
        let wait_at_gate = move || {
            leaving.together();
            let _ = serves.send(());
            drop(serves);
            let _ = opens.recv();
            leases.wait_for_none();
        };
        let keeper = spawn(core, group, threads[0], Place(beginning.clone()), wait_at_gate);
        let other = |steps: &&'static [Step]| {
            let leaving = Place(end.clone());
            spawn(core, group, steps, Place(beginning.clone()), move || leaving.together())
        };
        let others = threads[1..].iter().filter_map(other).collect();
        Generation { keeper, others, served, gate }
    }

    /// Waits for their end, and for that of the copies that they have begun. A keeper of memory that callers hold goes on
    /// keeping it.
    fn end(self, core: &Arc<Core>) {
        let Generation { keeper, others, served, gate } = self;
        for thread in others {
            if thread.join().is_err() {
                core.give_up(Error::Internal(format!("a thread of {} panicked", core.id)), false);
            }
        }
        let _ = served.recv();
        core.ring.wait_for_copiers();
        drop(gate);
        if !core.leases().any() {
            keeper.map(JoinHandle::join);
        }
    }
}

fn spawn(
    core: &Arc<Core>,
    group: &Arc<ShareGroup>,
    steps: &'static [Step],
    arriving: Place,
    gate: impl FnOnce() + Send + 'static,
) -> Option<JoinHandle<()>> {
    let name = if let [step] = steps { format!("{step:?}").to_lowercase() } else { "steps".to_owned() };
    let (shared, group) = (core.clone(), group.clone());
    let body = move || steps::thread(&shared, group, steps, || arriving.together(), gate);
    let spawned = crate::thread::spawn(&core.id, &name, body);
    spawned.map_err(|error| core.give_up(error, true)).ok()
}
