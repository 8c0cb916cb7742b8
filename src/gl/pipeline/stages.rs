//! The threads: what each stage does with a piece.
//!
//! ```text
//!   upload    prepares slots; host memory ─► device memory
//!   compute   behind the upload: the convolution
//!   download  behind the convolution: device memory ─► host memory
//! ```
//!
//! A thread has one context and one or all of the stages. It takes tasks from the ring, and between them looks what the device
//! has finished.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::command_stream::{CommandStream, Commands, Landed};
use super::copy_engines::Filler;
use super::core::Core;
use super::encoders::Encoders;
use super::job::bytes_of;
use super::memory::{SlotBuffers, SlotMemory};
use super::ring::{Rest, STAGES, Stage, Task};
use super::slot::LentSlot;
use super::transfers::{self, download, poison, upload};
use super::work::{Piece, Work};
use crate::backend::Order;
use crate::error::{Error, Result};
use crate::gl::driver::context::{Context, ShareGroup};
use crate::gl::driver::exit::{self, Inside};
use crate::log::Level;
use crate::thread::panic_text;

/// How long a thread rests between looks at the ring while the device is at work. It does not wait inside the driver, which would
/// spin there just the same, deaf to tasks that the device could begin with meanwhile.
const REST: Duration = Duration::from_micros(2);
/// How long at least it leaves the driver to the other threads between looks at the device, if there are any.
const LOOK: Duration = Duration::from_micros(10);
/// For how long it goes on like that; a device that takes longer is looked at less often.
const EAGER: Duration = Duration::from_millis(10);
/// How long it sleeps then between looks.
const PATIENCE: Duration = Duration::from_micros(200);
/// How long a copy waits at most for kernels to be given to the device before it.
const COURTESY: Duration = Duration::from_millis(1);

/// One thread's stages.
pub struct StageThread {
    streams: Vec<CommandStream>,
    stages: Vec<Stage>,
    /// Of the upload.
    buffers: Vec<SlotBuffers>,
    /// Of the computing.
    encoders: Encoders,
    /// What it copies where a copy is missing.
    filler: Option<Filler>,
    core: Arc<Core>,
    context: Rc<Context>,
    generation: u64,
    /// Whether it looks at the device again and again while that is at work. A renderer in software computes on the very
    /// processors that this takes; and where they are few, copies need them more.
    spins: bool,
    /// The ring's news when it last had no task.
    heard: Option<u64>,
    /// When the last task was begun, or found done.
    moved: Instant,
    /// When it was last looked what is done.
    looked: Instant,
    /// What is being worked at.
    at: Option<(usize, Piece)>,
}

/// What a turn gives.
type Turn<T> = std::result::Result<T, Box<Failed>>;

/// An error, and the piece that it befell.
struct Failed {
    error: Error,
    place: Option<(usize, Piece)>,
    /// Whether the device is as good as before.
    harmless: bool,
}

impl StageThread {
    /// Makes a context on the calling thread.
    ///
    /// # Errors
    /// Why there is none.
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
            heard: None,
            moved: Instant::now(),
            looked: Instant::now(),
            at: None,
        })
    }

    /// Works until the ring ends. Gives why the device has to be given up, if so.
    pub fn serve(&mut self) -> Option<Error> {
        let failed = loop {
            self.at = None;
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn()));
            let turn = turn.unwrap_or_else(|panic| {
                let error = Error::Internal(format!("{} panicked: {}", self.core.id(), panic_text(&*panic)));
                Err(Box::new(Failed { error, place: self.at.take(), harmless: false }))
            });
            match turn {
                Ok(true) => {}
                Ok(false) => return None,
                Err(failed) if failed.harmless => self.fail_piece(*failed),
                Err(failed) => break failed,
            }
        };
        let error = failed.error.clone();
        let flights = failed.place.as_ref().map_or(&[][..], |(_, piece)| piece.flights());
        for flight in flights.iter().filter(|flight| !flight.survives(&error)) {
            flight.fail(&self.core.completion, error.clone());
        }
        Some(error)
    }

    /// One task, or a look at the device. `false` at the end.
    fn turn(&mut self) -> Turn<bool> {
        let alone = self.streams.len() == STAGES.len();
        // Kernels that are ready go to the device before those that are done are handed on, to copies that may hold the driver.
        let has_kernels = self.stages == [Stage::Compute] && self.heard.is_none();
        if alone || (!has_kernels && self.looked.elapsed() >= LOOK) {
            self.land_all(Duration::ZERO)?;
            self.looked = Instant::now();
        }
        // While this thread waits for a task it must hold no piece: jobs are over when nobody holds them.
        self.at = None;
        let busy = self.streams.iter().any(CommandStream::is_busy);
        let rest = match busy {
            true => Rest::Never,
            false if self.is_eager() => Rest::WhenQuiet,
            false => Rest::Always,
        };
        let news = self.core.ring.news();
        if rest != Rest::Always && self.heard == Some(news) {
            self.listen()?;
            return Ok(true);
        }
        let task = self.core.ring.next(&self.stages, rest);
        self.heard = task.is_none().then_some(news);
        match task {
            None => {
                if rest == Rest::Always {
                    self.moved = Instant::now();
                }
                self.listen()?
            }
            // Nothing is left on record; but times may still come in, which tickets wait for.
            Some(Task::End) if busy && !self.core.ring.is_broken() => self.land_one(PATIENCE)?,
            Some(Task::End) => return Ok(false),
            Some(Task::Prepare(slot, piece)) => {
                self.at = Some((slot, piece.clone()));
                let _inside = self.enter()?;
                self.context.forget_errors();
                let prepared = self.prepare(slot, &piece);
                prepared.map_err(|error| Failed::at(error, slot, piece, true))?;
            }
            Some(Task::Expect(slot, piece)) => {
                self.moved = Instant::now();
                self.at = Some((slot, piece.clone()));
                let _inside = self.enter()?;
                self.context.forget_errors();
                if let Err(error) = self.get_ready(&piece) {
                    let failed = Failed::at(error, slot, piece, true);
                    // What is harmless is told when the piece comes, unless it is over by then.
                    return if failed.harmless { Ok(true) } else { Err(failed) };
                }
            }
            Some(Task::Issue(stage, slot, piece)) => {
                self.at = Some((slot, piece.clone()));
                let _inside = self.enter()?;
                self.context.forget_errors();
                let issued = self.issue(stage, slot, &piece);
                issued.map_err(|error| Failed::at(error, slot, piece, stage == Stage::Compute))?;
            }
        }
        Ok(true)
    }

    /// Goes inside the driver for the piece at hand.
    fn enter(&mut self) -> Turn<Inside> {
        exit::enter().map_err(|error| Box::new(Failed { error, place: self.at.take(), harmless: false }))
    }

    /// A piece cannot be computed, but the device can go on.
    fn fail_piece(&self, failed: Failed) {
        let Some((slot, piece)) = failed.place else { return };
        self.core.copy_engines.landed(slot);
        match piece {
            Piece::Reserve(reservation) => {
                reservation.fail(failed.error);
                self.core.ring.done(slot, self.generation);
            }
            Piece::Part { flight, .. } => {
                if self.core.ring.done(slot, self.generation) {
                    flight.fail(&self.core.completion, failed.error);
                    flight.part_done(&self.core.completion, 2);
                }
            }
            Piece::Batch(batch) => self.take_apart(&batch, slot, &failed.error),
        }
    }

    /// A batch cannot be computed as one, but the device can go on: its jobs do so alone.
    fn take_apart(&self, batch: &Batch, slot: usize, error: &Error) {
        if matches!(error, Error::Shader { .. }) && !self.core.no_queue.swap(true, Ordering::Relaxed) {
            crate::log::warning!("{}: small jobs go one by one: {error}", self.core.id());
        }
        let alone = batch.flights.iter().map(|flight| Work::Fly { flight: flight.again(false), next: 0 });
        self.core.ring.again(slot, self.generation, alone);
    }

    /// Looks at all streams for what is done by now.
    fn land_all(&mut self, patience: Duration) -> Turn<()> {
        for index in 0..self.streams.len() {
            while self.land(index, patience)? {}
        }
        Ok(())
    }

    /// Whether it stays awake while the pipeline is at work.
    fn is_eager(&self) -> bool {
        self.spins && self.moved.elapsed() <= EAGER
    }

    /// Rests while the device is at work.
    fn listen(&mut self) -> Turn<()> {
        if !self.is_eager() {
            return self.land_one(PATIENCE);
        }
        let start = Instant::now();
        while start.elapsed() < REST {
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Listens to the stream whose work comes first.
    fn land_one(&mut self, patience: Duration) -> Turn<()> {
        let busy = (0..self.streams.len()).filter(|&index| self.streams[index].is_busy());
        let first = busy.min_by_key(|&index| self.streams[index].stage as usize);
        first.map_or(Ok(()), |index| self.land(index, patience).map(|_| ()))
    }

    fn land(&mut self, index: usize, patience: Duration) -> Turn<bool> {
        if !self.streams[index].is_busy() {
            return Ok(false);
        }
        let place = self.streams[index].oldest();
        self.at = place.clone();
        let _inside = self.enter()?;
        // Deletions may have left some, which nobody has to answer for.
        self.context.forget_errors();
        let landed = self.streams[index].land(patience);
        let landed =
            landed.map_err(|error| Box::new(Failed { error, place: place.clone(), harmless: false }))?;
        let Some(landed) = landed else { return Ok(false) };
        self.moved = Instant::now();
        self.pass_on(self.streams[index].stage, landed.issued.slot, &landed.issued.piece, true);
        if self.streams[index].stage == Stage::Download {
            self.core.copy_engines.landed(landed.issued.slot);
        }
        let after = match self.streams[index].stage {
            Stage::Upload => Ok(()),
            Stage::Compute => {
                self.computed(&landed);
                Ok(())
            }
            Stage::Download => self.downloaded(&landed),
        };
        after.map_err(|error| Box::new(Failed { error, place, harmless: false }))?;
        Ok(true)
    }

    fn computed(&self, landed: &Landed) {
        let Some((recipe, _, count)) = landed.issued.piece.load() else { return };
        if matches!(landed.issued.piece, Piece::Batch(_)) {
            self.core.rate.learn(count, recipe.problem.flops(), landed.time);
        }
        let encode = landed.issued.encode.as_ref().expect("computing has an encoder");
        encode.learn(count, landed.time);
        let kernel = encode.kernel().into();
        for flight in landed.issued.piece.flights() {
            flight.computed(&self.core.completion, landed.time, landed.issued.dispatches, &kernel);
        }
    }

    /// The output is in the slot: off to its place, unless that is the slot.
    fn downloaded(&self, landed: &Landed) -> Result<()> {
        let Some((_, [_, bytes], _)) = landed.issued.piece.load() else { return Ok(()) };
        let slot = landed.issued.slot;
        let memory = self.core.memory(slot);
        if memory.staging.is_none() {
            // SAFETY: the slot's output is as large as that, and this piece's alone.
            let into = unsafe { std::slice::from_raw_parts_mut(memory.output.as_ptr(), bytes) };
            transfers::read(&self.context, memory.regions([0, bytes])[1].buffer, into)?;
        }
        let (flight, first) = match &landed.issued.piece {
            Piece::Part { flight, first, .. } => (flight.clone(), first),
            Piece::Batch(batch) => {
                transfers::deliver_batch(batch.clone(), &self.core, slot, memory);
                return Ok(());
            }
            Piece::Reserve(_) => return Ok(()),
        };
        let core = self.core.clone();
        let Some(to) = flight.destination(*first) else {
            if core.ring.done(slot, self.generation) {
                flight.part_done(&core.completion, 1);
            }
            return Ok(());
        };
        if !core.ring.copying(slot) {
            return Ok(());
        }
        let from = memory.output.as_ptr();
        let then = move || {
            core.ring.delivered(slot);
            flight.part_done(&core.completion, 1);
        };
        // SAFETY: the slot's memory stays while the ring says that it is being copied; the output is the job's until it is done.
        unsafe { self.core.copiers().copy(from, to.cast(), bytes, then) };
        Ok(())
    }

    /// Gives the slot memory enough, and its input to the copiers, or the slot to a caller.
    fn prepare(&mut self, slot: usize, piece: &Piece) -> Result<()> {
        match piece {
            Piece::Reserve(reservation) => {
                let problem = &reservation.recipe.problem;
                let memory = self.grow(slot, bytes_of(problem, problem.sizes().n))?;
                let lease = self.core.leases().take();
                let place = (slot, self.generation);
                let lent = LentSlot::new(&self.core, &reservation.recipe, place, &memory, lease);
                self.core.ring.lend(slot, self.generation);
                reservation.give(Box::new(lent));
            }
            Piece::Batch(batch) => {
                let memory = self.grow(slot, batch.capacity(self.core.max_room(&batch.recipe)))?;
                poison(memory.input.as_ptr(), batch.bytes()[0]);
                transfers::fill_batch(batch.clone(), &self.core, slot, self.generation, memory);
            }
            Piece::Part { flight, first, images } => {
                flight.make_room()?;
                let problem = &flight.recipe.problem;
                let bytes = bytes_of(problem, *images);
                let memory = self.grow(slot, bytes)?;
                let job = flight.job().expect("data in slots is not prepared");
                poison(memory.input.as_ptr(), bytes[0]);
                if flight.brings_weights() && *first == 0 {
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
                let from = unsafe { job.input.add(first * problem.with_batch(1).input_len()) };
                // SAFETY: the input is the job's until it is done; the slot's memory stays while the ring says that it is being
                // copied, and nobody else has it.
                unsafe { self.core.copiers().copy(from.cast(), memory.input.as_ptr(), bytes[0], then) };
            }
        }
        Ok(())
    }

    /// The slot's memory, made larger if need be.
    fn grow(&mut self, slot: usize, bytes: [usize; 2]) -> Result<SlotMemory> {
        let memory = self.core.memory(slot);
        if memory.fits(bytes) {
            return Ok(memory);
        }
        // The old goes first: both at once may be too much.
        self.core.update_memory(slot, |it| *it = SlotMemory::NONE);
        self.buffers[slot] = SlotBuffers::default();
        self.context.forget_errors();
        let (buffers, memory) = SlotBuffers::new(&self.context, bytes)?;
        self.buffers[slot] = buffers;
        self.core.update_memory(slot, |it| *it = memory);
        Ok(memory)
    }

    /// Gives the device a stage's commands, and the slot to the next stage.
    fn issue(&mut self, stage: Stage, slot: usize, piece: &Piece) -> Result<()> {
        self.moved = Instant::now();
        let Some((recipe, bytes, count)) = piece.load() else { return Ok(()) };
        // Where the device puts stages in order, kernels may be given long before they can begin.
        let kernels_begin = self.core.order_before(Stage::Compute) != Some(Order::Device);
        if self.spins && kernels_begin && !self.stages.contains(&Stage::Compute) {
            self.let_kernels_go_first();
        }
        let counts = self.counts_copies();
        let (context, encoders) = (self.context.clone(), &mut self.encoders);
        let stream =
            self.streams.iter_mut().find(|stream| stream.stage == stage).expect("the ring knows our stages");
        let moved = [bytes[0], 0, bytes[1]][stage as usize] as u64;
        let commands = Commands { slot, piece: piece.clone(), bytes: moved };
        match stage {
            Stage::Upload => {
                let give = || {
                    stream.issue(commands, |memory| {
                        poison(memory.output.as_ptr(), bytes[1]);
                        upload(&context, memory, bytes).map(|()| (0, None))
                    })
                };
                if counts { self.core.copy_engines.upload(slot, bytes[0], give)? } else { give()? }
            }
            Stage::Compute => {
                // SAFETY: the piece is outstanding until this stage has landed.
                let weights = unsafe { piece.weights() };
                let encode = encoders.get(recipe, weights, count, matches!(piece, Piece::Batch(_)))?;
                stream.issue(commands, |memory| {
                    let [input, output] = memory.regions(bytes);
                    let dispatches = encode.encode(input, output, count)?;
                    Ok((dispatches, Some(encode)))
                })?;
            }
            Stage::Download => {
                stream.issue(commands, |memory| download(&context, memory, bytes).map(|()| (0, None)))?;
                self.core.copy_engines.downloaded();
            }
        }
        self.pass_on(stage, slot, piece, false);
        Ok(())
    }

    /// A driver may keep a thread that copies from or to what another context has used until the kernel that is running is over, and
    /// with it every other thread that needs something from the share group, the one with the next kernel, too.
    fn let_kernels_go_first(&self) {
        let start = Instant::now();
        while self.core.ring.has_kernels() && start.elapsed() < COURTESY {
            (0..64).for_each(|_| std::hint::spin_loop());
        }
    }

    /// Prepares the convolution of a piece that will come.
    fn get_ready(&mut self, piece: &Piece) -> Result<()> {
        let Some((recipe, _, count)) = piece.load() else { return Ok(()) };
        // SAFETY: the piece is outstanding until it has been computed, which nobody but this thread begins.
        let weights = unsafe { piece.weights() };
        self.encoders.get(recipe, weights, count, matches!(piece, Piece::Batch(_))).map(drop)
    }

    /// The commands of `stage` were given, or are `done`: the slot is ready for the stage behind it, if that is when it is.
    fn pass_on(&mut self, stage: Stage, slot: usize, piece: &Piece, done: bool) {
        if let Some(next) = stage.next()
            && (self.core.order_before(next) == Some(Order::Host)) == done
        {
            if next == Stage::Download && self.counts_copies() {
                self.keep_engines_apart(piece);
            }
            self.core.ring.pass(next, slot, self.generation);
        }
    }

    /// Whether uploads and downloads are copies in contexts of their own.
    fn counts_copies(&self) -> bool {
        self.core.threads() == STAGES.len() && self.context.capabilities().buffer_storage
    }

    /// Sees to it that the download of `piece` and uploads beside it do not share an engine.
    fn keep_engines_apart(&mut self, piece: &Piece) {
        let Some((_, [_, bytes], _)) = piece.load() else { return };
        let (context, filler) = (&self.context, &mut self.filler);
        let copy = || match filler {
            Some(filler) => filler.copy(context),
            None => filler.insert(self.core.copy_engines.filler(context)?).copy(context),
        };
        // Without it all is as right, and slower. What else ails the device shows elsewhere.
        if let Err(error) = self.core.copy_engines.before_download(bytes, copy) {
            self.context.note(Level::Debug, format_args!("{}: {error}", self.core.id()));
            self.context.forget_errors();
        }
    }

    /// After the end: what landed nowhere is in as far as it can be.
    pub fn leave(&mut self) {
        // Nor is any piece held until callers have given their slots back: jobs are over when nobody holds them.
        self.at = None;
        let _inside = exit::enter();
        for stream in &mut self.streams {
            let computes = stream.stage == Stage::Compute;
            for issued in stream.take_flights().filter(|_| computes) {
                // Its time is not known. If its data is not in either, it is on record, and flies again.
                issued.piece.flights().iter().for_each(|flight| flight.part_done(&self.core.completion, 1));
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
        Box::new(Failed { error, place: Some((slot, piece)), harmless })
    }
}

fn may_spin(context: &Context, core: &Core) -> bool {
    if core.thresholds().spins_anywhere {
        return true;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    !context.capabilities().software && processors >= 2 * core.threads()
}

/// Runs a thread's stages from its context's beginning to its end. It calls `arrive` when it has a context, and drops it when it has
/// said that there is none. `gate` holds the thread until nobody needs its memory.
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
            let _inside = exit::enter();
            return group.release_thread();
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
    group.release_thread();
}
