//! Pipelines: jobs in flight, from ordinary memory or in the device's own slots.
//!
//! There are three ways to submit, each safe by its types:
//!
//! | way | buffers | results |
//! | --- | --- | --- |
//! | [`Pipeline::submit`] | given away with the job | come back with its end |
//! | [`Pipeline::scope`] | borrowed until the scope ends, which waits for its jobs | in place; readable when the ticket has been waited for |
//! | [`Pipeline::acquire`] | a slot's own memory, filled in place | read in place: nothing is copied |

use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::call;
use super::plan::Conv2dPlan;
use super::serial::{HeapSlot, Serial, SerialJob};
use crate::backend::{Backend, Job, PipelineOptions, Pressure, Queue, Run, Slot, Ticket};
use crate::error::{Error, Result};
use crate::report::PipelineStats;

/// A stream of jobs on one device. May be used from any number of threads at once. Dropping it calls off the jobs that have not
/// begun and waits for the others.
pub struct Pipeline {
    engine: Option<(String, Arc<dyn Queue>)>,
    /// For what the engine does not do; started when first needed.
    serial: Mutex<Option<Arc<Serial>>>,
    options: PipelineOptions,
    process: u32,
}

impl Pipeline {
    /// On the first of `backends` that has queues; if none has, on a thread that computes in order.
    pub(super) fn new(backends: &[&Arc<dyn Backend>], options: PipelineOptions) -> Result<Self> {
        if !(1..=16).contains(&options.slots) {
            return Err(Error::invalid("slots", options.slots, "1 to 16"));
        }
        if options.queue == 0 {
            return Err(Error::invalid("queue", 0, "at least 1"));
        }
        let mut engine = None;
        for backend in backends {
            match backend.queue(options) {
                Ok(queue) => {
                    engine = Some((backend.id().to_owned(), queue));
                    break;
                }
                Err(Error::Unsupported { .. }) => {}
                Err(error) if backends.len() == 1 || !error.is_device_failure() => return Err(error),
                Err(error) => crate::log::warning!("auto: no pipeline on {}: {error}", backend.id()),
            }
        }
        Ok(Pipeline { engine, serial: Mutex::new(None), options, process: std::process::id() })
    }

    fn serial(&self) -> Result<Arc<Serial>> {
        self.check_process()?;
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        match &*serial {
            Some(serial) => Ok(serial.clone()),
            None => {
                let started = Serial::start(self.options.queue, self.options.slots)?;
                Ok(serial.insert(Arc::new(started)).clone())
            }
        }
    }

    /// The thread that computes in order, if it was ever needed.
    fn started_serial(&self) -> Option<Arc<Serial>> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes no more jobs, calls off those that have not begun, and sends away who waits for a slot or for room, with
    /// [`Error::Closed`]. Waits for nothing: dropping the pipeline does.
    pub fn close(&self) {
        if self.check_process().is_err() {
            return;
        }
        if let Some((_, queue)) = &self.engine {
            queue.close();
        }
        if let Some(serial) = self.started_serial() {
            serial.close();
        }
    }

    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: "a pipeline".to_owned() })
    }

    /// Submits buffers that are addresses, with a new ticket.
    ///
    /// # Safety
    /// Both are as long as the plan's problem says. Until the ticket is done the input stays valid and unchanged, and nobody but the
    /// job uses the output, which stays valid.
    ///
    /// # Errors
    /// As [`Pipeline::submit`]. `owner` is then dropped, as it is some time after the ticket is done.
    pub(crate) unsafe fn submit_raw(
        &self,
        plan: &Conv2dPlan,
        ticket: Ticket,
        (input, output): (*const f32, *mut f32),
        (owner, output_is_private): (Option<Arc<dyn std::any::Any + Send + Sync>>, bool),
        pressure: Pressure,
    ) -> Result<Ticket> {
        let on_engine = self.engine.as_ref().and_then(|(id, queue)| Some((queue, plan.recipe_on(id)?)));
        if let Some((queue, recipe)) = on_engine {
            let (recipe, stand_in) = (recipe.clone(), plan.stand_in());
            let rescue = (!output_is_private).then(|| call::rescue(&recipe, None));
            let ticket = ticket.clone();
            let job = Job { ticket, recipe, input, output, output_is_private, owner, stand_in, rescue };
            // SAFETY: passed on from the caller.
            unsafe { queue.submit(job, pressure)? };
        } else {
            let (ticket, plan) = (ticket.clone(), plan.clone());
            let job = SerialJob { ticket, plan, input, output, begun: false, owner };
            // SAFETY: passed on from the caller.
            unsafe { self.serial()?.submit(job, pressure)? };
        }
        Ok(ticket)
    }

    /// Submits buffers that are given away; [`Submitted::wait`] gives them back.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for buffers of the wrong length; [`Error::Busy`] if the queue is full and `pressure` says to
    /// refuse; [`Error::Forked`] in a child process. The job's own errors are its ticket's to tell.
    pub fn submit(
        &self,
        plan: &Conv2dPlan,
        input: Vec<f32>,
        output: Vec<f32>,
        pressure: Pressure,
    ) -> Result<Submitted> {
        plan.problem().check_data(&input, &output)?;
        let (addresses, buffers) = owned(input, output);
        let ticket = Ticket::keeping(buffers);
        // SAFETY: the buffers live as long as the job, which holds its ticket; they are taken out only when it is done.
        let ticket = unsafe { self.submit_raw(plan, ticket, addresses, (None, true), pressure)? };
        Ok(Submitted { ticket })
    }

    /// Runs `work` with a [`Scope`], by which it submits buffers that it borrows; returns when all jobs of the scope are done.
    pub fn scope<'env, R>(&self, work: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
        let open = Open::default();
        let scope = Scope { pipeline: self, open: open.clone(), scope: PhantomData, env: PhantomData };
        // Waits also when `work` panics: its buffers go away then.
        let _end = WaitForNone(open);
        work(&scope)
    }

    /// A slot of the device: to be filled, submitted and read in place. While all slots are held, jobs wait; and so does this,
    /// unless `pressure` says to refuse. It then waits for nobody; only the memory of a slot used for the first time takes
    /// the time that the device needs to give it.
    ///
    /// # Errors
    /// As [`Pipeline::submit`]; [`Error::Unsupported`] for a batch that does not fit into one slot; and what keeps the device from
    /// giving the memory.
    pub fn acquire(&self, plan: &Conv2dPlan, pressure: Pressure) -> Result<PipelineSlot> {
        let on_engine = self.engine.as_ref().and_then(|(id, queue)| Some((queue, plan.recipe_on(id)?)));
        let slot: Box<dyn Slot> = match on_engine {
            Some((queue, recipe)) => queue.acquire(recipe, pressure)?,
            None => Box::new(HeapSlot::new(plan, &self.serial()?, pressure)?),
        };
        let lens = (plan.problem().input_len(), plan.problem().output_len());
        Ok(PipelineSlot { slot, lens })
    }

    /// Waits until no job is waiting or running.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child process.
    pub fn flush(&self) -> Result<()> {
        self.check_process()?;
        self.engine.as_ref().map_or(Ok(()), |(_, queue)| queue.flush())?;
        self.started_serial().map_or(Ok(()), |serial| serial.flush())
    }

    /// What it has done so far. Busy times are the engine's, in its contexts; jobs that were computed in order elsewhere count as
    /// jobs only.
    pub fn stats(&self) -> PipelineStats {
        if self.check_process().is_err() {
            return PipelineStats::default();
        }
        let stats = self.engine.as_ref().map_or_else(PipelineStats::default, |(_, queue)| queue.stats());
        let serial = self.started_serial().map_or_else(PipelineStats::default, |serial| serial.stats());
        PipelineStats {
            completed: stats.completed + serial.completed,
            failed: stats.failed + serial.failed,
            cancelled: stats.cancelled + serial.cancelled,
            ..stats
        }
    }

    /// The id of the device whose engine it streams through; `None` if jobs are computed in order.
    pub fn device(&self) -> Option<&str> {
        self.engine.as_ref().map(|(id, _)| id.as_str())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Slots hold on to it, too, and may be held for long; and in a child process its lock is nobody's.
        if self.check_process().is_ok()
            && let Some(serial) = self.started_serial()
        {
            serial.end();
        }
    }
}

/// Input and output that a job owns; taken out when it is done.
type Buffers = Mutex<Option<(Vec<f32>, Vec<f32>)>>;

/// Buffers and their addresses, which stay the same wherever what owns them is moved.
fn owned(input: Vec<f32>, mut output: Vec<f32>) -> ((*const f32, *mut f32), Buffers) {
    ((input.as_ptr(), output.as_mut_ptr()), Mutex::new(Some((input, output))))
}

/// A job that owns its buffers. If this is dropped, the job goes on all the same.
pub struct Submitted {
    ticket: Ticket,
}

/// What becomes of a job that owned its buffers.
#[derive(Debug)]
pub struct Done {
    /// What it did.
    pub run: Run,
    /// Its input.
    pub input: Vec<f32>,
    /// Its output.
    pub output: Vec<f32>,
}

impl Submitted {
    /// Its ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Waits for the job.
    ///
    /// # Errors
    /// The job's own.
    pub fn wait(self) -> Result<Done> {
        let run = self.ticket.wait()?;
        let buffers = self.ticket.kept::<Buffers>();
        let buffers = buffers.and_then(|it| it.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (input, output) = buffers.ok_or_else(|| Error::Internal("a job's buffers are gone".into()))?;
        Ok(Done { run, input, output })
    }
}

/// Counts the jobs of a scope.
#[derive(Clone, Default)]
struct Open(Arc<(Mutex<usize>, Condvar)>);

/// One of them; it is over when this is dropped.
struct Opened(Open);

impl Open {
    fn count(&self) -> std::sync::MutexGuard<'_, usize> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(&self) -> Opened {
        *self.count() += 1;
        Opened(self.clone())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut count = self.0.count();
        *count -= 1;
        if *count == 0 {
            self.0.0.1.notify_all();
        }
    }
}

struct WaitForNone(Open);

impl Drop for WaitForNone {
    fn drop(&mut self) {
        let mut count = self.0.count();
        while *count > 0 {
            count = self.0.0.1.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Submits borrowed buffers, inside [`Pipeline::scope`]. As with `std::thread::scope`, `'scope` is the time until all its jobs are
/// done, and what is submitted must live so long.
pub struct Scope<'scope, 'env: 'scope> {
    pipeline: *const Pipeline,
    open: Open,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

// SAFETY: the address is of a pipeline that is borrowed as long as the scope lives, and pipelines may be used by any thread.
unsafe impl Sync for Scope<'_, '_> {}

impl<'scope> Scope<'scope, '_> {
    /// Submits a job.
    ///
    /// # Errors
    /// As [`Pipeline::submit`].
    pub fn submit(
        &'scope self,
        plan: &Conv2dPlan,
        input: &'scope [f32],
        output: &'scope mut [f32],
        pressure: Pressure,
    ) -> Result<ScopedTicket<'scope>> {
        plan.problem().check_data(input, output)?;
        // SAFETY: `Pipeline::scope` borrows it until this scope has ended.
        let pipeline = unsafe { &*self.pipeline };
        let addresses = (input.as_ptr(), output.as_mut_ptr());
        let owner = Some(Arc::new(self.open.one()) as _);
        // SAFETY: both are borrowed for 'scope, which ends when the job is over: it holds the scope open. The output is
        // given back only when the ticket is done.
        let ticket =
            unsafe { pipeline.submit_raw(plan, Ticket::new(), addresses, (owner, false), pressure)? };
        Ok(ScopedTicket { ticket, output: addresses.1, len: output.len(), scope: PhantomData })
    }
}

/// A job of a scope. If this is dropped, the job goes on all the same.
pub struct ScopedTicket<'scope> {
    ticket: Ticket,
    output: *mut f32,
    len: usize,
    scope: PhantomData<&'scope mut [f32]>,
}

// SAFETY: it stands for the mutable borrow of a slice of numbers, which may cross threads.
unsafe impl Send for ScopedTicket<'_> {}

/// What became of a job of a scope.
#[derive(Debug)]
pub struct Finished<'scope> {
    /// What it did.
    pub run: Run,
    /// Its output.
    pub output: &'scope mut [f32],
}

impl<'scope> ScopedTicket<'scope> {
    /// Its ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Waits for the job, and gives its output.
    ///
    /// # Errors
    /// The job's own; the output is untouched then.
    pub fn wait(self) -> Result<Finished<'scope>> {
        let run = self.ticket.wait()?;
        // SAFETY: the slice was borrowed mutably for 'scope by `submit`, and the job, which had the borrow, is done.
        let output = unsafe { std::slice::from_raw_parts_mut(self.output, self.len) };
        Ok(Finished { run, output })
    }
}

/// A slot of the device in one's hands. Dropping it gives it back.
pub struct PipelineSlot {
    slot: Box<dyn Slot>,
    lens: (usize, usize),
}

impl PipelineSlot {
    /// The input's memory, to be filled. Its contents are undefined numbers at first. Reading it may be slow.
    pub fn input(&mut self) -> &mut [f32] {
        // SAFETY: the slot is ours, nothing runs in it, and its memory is as long as the plan's problem says, as long as it lives.
        unsafe { std::slice::from_raw_parts_mut(self.slot.input(), self.lens.0) }
    }

    /// The output's memory: what the last job has left there, at first undefined numbers.
    pub fn output(&self) -> &[f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.slot.output(), self.lens.1) }
    }

    /// Computes what is in the slot.
    ///
    /// # Errors
    /// [`Error::Closed`] after the pipeline was dropped; [`Error::DeviceLost`] if the device was, and the slot's memory with
    /// it: acquire another.
    pub fn submit(self) -> Result<SlotTicket> {
        self.try_submit().map_err(|(error, _)| error)
    }

    /// As [`PipelineSlot::submit`]; gives the slot back, too, if it cannot be computed, with what is in it.
    pub(crate) fn try_submit(mut self) -> std::result::Result<SlotTicket, (Error, Self)> {
        let ticket = Ticket::new();
        match self.slot.submit(&ticket) {
            Ok(()) => Ok(SlotTicket { ticket, slot: self }),
            Err(error) => Err((error, self)),
        }
    }
}

/// A job in a slot. If this is dropped, the slot is given back when the job is done.
pub struct SlotTicket {
    ticket: Ticket,
    slot: PipelineSlot,
}

impl SlotTicket {
    /// Its ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Waits until the job is done, at most `limit` long; whether it is.
    pub fn wait_for(&self, limit: Duration) -> bool {
        self.ticket.wait_for(limit).is_some()
    }

    /// Waits for the job; gives the slot with the output in it.
    ///
    /// # Errors
    /// The job's own; the slot is given back then.
    pub fn wait(self) -> Result<(Run, PipelineSlot)> {
        let SlotTicket { ticket, slot } = self;
        Ok((ticket.wait()?, slot))
    }
}
