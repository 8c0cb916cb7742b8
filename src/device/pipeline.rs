//! Pipelines: jobs in flight, from ordinary memory or in slots of the device.
//!
//! There are three safe ways to submit a job:
//!
//! | function | buffers | result |
//! | --- | --- | --- |
//! | [`Pipeline::submit`] | moved into the job | moved back by [`Submitted::wait`] |
//! | [`Pipeline::scope`] | borrowed until the scope ends, which waits for its jobs | written in place; readable after [`ScopedTicket::wait`] |
//! | [`Pipeline::acquire`] | a slot's memory, filled in place | read in place, without a copy |

use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::call;
use super::lanes::{LaneJob, Lanes, LoadedJob};
use super::multi::Multi;
use super::plan::Conv2dPlan;
use super::record::Recorded;
use super::serial::{HeapSlot, SerialExecutor, SerialJob};
use crate::backend::{Backend, Job, PipelineOptions, Queue, Run, Slot, Ticket, WhenFull};
use crate::error::{Error, Result};
use crate::report::{PipelineStats, Source};

/// # Errors
/// [`Error::InvalidArgument`] for an invalid option.
fn check(options: PipelineOptions) -> Result<()> {
    if !(1..=16).contains(&options.slots) {
        return Err(Error::invalid("slots", options.slots, "1 to 16"));
    }
    if options.queue == 0 {
        return Err(Error::invalid("queue", 0, "at least 1"));
    }
    Ok(())
}

/// A stream of jobs on one device, or on several. Any number of threads may use it at once. Dropping it cancels the jobs that have not
/// started and waits for the others.
pub struct Pipeline {
    /// The id of the device whose engine has a queue, and that queue.
    queue: Option<(String, Arc<dyn Queue>)>,
    /// The devices, if there are several; `queue` is then `None`.
    lanes: Option<Lanes>,
    /// Runs the jobs that the queue cannot; started when first needed.
    serial: Mutex<Option<Arc<SerialExecutor>>>,
    /// The most threads for these jobs.
    threads: usize,
    /// What traces call it.
    source: Source,
    options: PipelineOptions,
    process: u32,
}

impl Pipeline {
    /// A pipeline on the first of `backends` that has queues. If none has, a thread runs the jobs in order.
    pub(super) fn new(backends: &[&Arc<dyn Backend>], options: PipelineOptions) -> Result<Self> {
        check(options)?;
        let (source, mut found) = (Source::next_pipeline(), None);
        for backend in backends {
            match backend.queue(options, source) {
                Ok(queue) => {
                    found = Some((backend.id().to_owned(), queue));
                    break;
                }
                Err(Error::Unsupported { .. }) => {}
                Err(error) if backends.len() == 1 || !error.is_device_failure() => return Err(error),
                Err(error) => crate::log::warning!("auto: no pipeline on {}: {error}", backend.id()),
            }
        }
        Ok(Pipeline {
            queue: found,
            lanes: None,
            serial: Mutex::new(None),
            threads: usize::MAX,
            source,
            options,
            process: std::process::id(),
        })
    }

    /// A pipeline on several devices. Each job goes to the one that should end it first.
    pub(super) fn on_several(multi: &Arc<Multi>, options: PipelineOptions) -> Result<Self> {
        check(options)?;
        let mut pipeline = Pipeline::new(&[], options)?;
        pipeline.lanes = Some(Lanes::new(multi, options, pipeline.source)?);
        pipeline.threads = multi.least_cpu_threads();
        Ok(pipeline)
    }

    fn serial(&self) -> Result<Arc<SerialExecutor>> {
        self.check_process()?;
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        match &*serial {
            Some(serial) => Ok(serial.clone()),
            None => {
                let started =
                    SerialExecutor::start(self.options.queue, self.options.slots, self.threads, self.source)?;
                Ok(serial.insert(Arc::new(started)).clone())
            }
        }
    }

    /// The serial executor, if it was started.
    fn started_serial(&self) -> Option<Arc<SerialExecutor>> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the pipeline: it refuses further jobs, cancels those that have not started, and ends the waits for slots
    /// or room with [`Error::Closed`]. It does not wait for running jobs; dropping the pipeline does.
    pub fn close(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.queues().for_each(|queue| queue.close());
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

    /// All queues of engines.
    fn queues(&self) -> impl Iterator<Item = &Arc<dyn Queue>> {
        let several = self.lanes.iter().flat_map(Lanes::queues);
        self.queue.iter().map(|(_, queue)| queue).chain(several)
    }

    /// Submits a job whose buffers are given by address.
    ///
    /// # Safety
    /// Both buffers have the lengths of the plan's problem. Until the ticket is done the input stays valid and
    /// unchanged, and the output stays valid and only the job uses it.
    ///
    /// # Errors
    /// As [`Pipeline::submit`]; `owner` is then dropped. Otherwise it is dropped some time after the ticket is done.
    pub(crate) unsafe fn submit_raw(
        &self,
        plan: &Conv2dPlan,
        ticket: Ticket,
        (input, output): (*const f32, *mut f32),
        (owner, output_is_private): (Option<Arc<dyn std::any::Any + Send + Sync>>, bool),
        when_full: WhenFull,
    ) -> Result<Ticket> {
        plan.check_no_epilogue("pipelines")?;
        plan.recorded().watch("submit", &ticket);
        if let Some(lanes) = &self.lanes
            && let Some(several) = plan.of_several().filter(|several| lanes.serve(several))
        {
            let job = LaneJob { ticket: ticket.clone(), input, output, owner, output_is_private };
            // SAFETY: passed on from the caller.
            unsafe { lanes.submit((plan, several), job, when_full, &|| self.serial())? };
            return Ok(ticket);
        }
        let on_queue = self.queue.as_ref().and_then(|(id, queue)| Some((queue, plan.recipe_on(id)?)));
        if let Some((queue, recipe)) = on_queue {
            let job = Job {
                ticket: ticket.clone(),
                recipe: recipe.clone(),
                input,
                output,
                output_is_private,
                owner,
                fallback: plan.fallback(),
                partial_output_fallback: (!output_is_private).then(|| call::recompute_on_cpu(recipe, None)),
            };
            // SAFETY: passed on from the caller.
            unsafe { queue.submit(job, when_full)? };
        } else {
            let (ticket, plan) = (ticket.clone(), plan.clone());
            let job = SerialJob { ticket, plan, input, output, started: false, owner };
            // SAFETY: passed on from the caller.
            unsafe { self.serial()?.submit(job, when_full)? };
        }
        Ok(ticket)
    }

    /// Submits a job that takes its buffers; [`Submitted::wait`] returns them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a buffer of the wrong length; [`Error::Busy`] if the queue is full and
    /// `when_full` refuses; [`Error::Forked`] in a child process. The ticket returns the errors of the job itself.
    pub fn submit(
        &self,
        plan: &Conv2dPlan,
        input: Vec<f32>,
        output: Vec<f32>,
        when_full: WhenFull,
    ) -> Result<Submitted> {
        plan.problem().check_data(&input, &output)?;
        let (addresses, buffers) = owned(input, output);
        let ticket = Ticket::with_payload(buffers);
        // SAFETY: the buffers live as long as the job, which holds its ticket; they are taken out only when the ticket
        // is done.
        let ticket = unsafe { self.submit_raw(plan, ticket, addresses, (None, true), when_full)? };
        Ok(Submitted { ticket })
    }

    /// Runs `work` with a [`Scope`] that submits borrowed buffers. Returns when all jobs of the scope are done.
    pub fn scope<'env, R>(&self, work: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R) -> R {
        let jobs = ScopeJobs::default();
        let scope = Scope { pipeline: self, jobs: jobs.clone(), scope: PhantomData, env: PhantomData };
        // Also waits when `work` panics, because its buffers are then dropped.
        let _end = WaitOnDrop(jobs);
        work(&scope)
    }

    /// Acquires a slot of the device, to be filled, submitted and read in place. While all slots are held, jobs wait,
    /// and so does this, unless `when_full` refuses. With [`WhenFull::Refuse`] it never waits for other jobs or
    /// callers. The first use of a slot takes the time to allocate its memory.
    ///
    /// # Errors
    /// As [`Pipeline::submit`]; [`Error::Unsupported`] for a batch that does not fit into one slot; the device's
    /// failure to allocate the memory.
    pub fn acquire(&self, plan: &Conv2dPlan, when_full: WhenFull) -> Result<PipelineSlot> {
        plan.check_no_epilogue("pipelines")?;
        if let Some(lanes) = &self.lanes
            && let Some(several) = plan.of_several().filter(|several| lanes.serve(several))
        {
            let (slot, held) = lanes.acquire((plan, several), when_full, &|| self.serial())?;
            return Ok(PipelineSlot { slot, recorded: plan.recorded().clone(), _held: held });
        }
        let on_queue = self.queue.as_ref().and_then(|(id, queue)| Some((queue, plan.recipe_on(id)?)));
        let slot: Box<dyn Slot> = match on_queue {
            Some((queue, recipe)) => queue.acquire(recipe, when_full)?,
            None => Box::new(HeapSlot::new(plan, &self.serial()?, when_full)?),
        };
        Ok(PipelineSlot { slot, recorded: plan.recorded().clone(), _held: None })
    }

    /// Waits until no job is waiting or running.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child process.
    pub fn flush(&self) -> Result<()> {
        self.check_process()?;
        self.queues().try_for_each(|queue| queue.flush())?;
        self.started_serial().map_or(Ok(()), |serial| serial.flush())
    }

    /// Statistics so far. Jobs of the serial executor count as jobs, but not in the busy times.
    pub fn stats(&self) -> PipelineStats {
        if self.check_process().is_err() {
            return PipelineStats::default();
        }
        let stats = match (&self.queue, &self.lanes) {
            (Some((_, queue)), _) => queue.stats(),
            (None, Some(lanes)) => lanes.stats(),
            (None, None) => PipelineStats::default(),
        };
        let serial = self.started_serial().map_or_else(PipelineStats::default, |serial| serial.stats());
        PipelineStats {
            completed: stats.completed + serial.completed,
            failed: stats.failed + serial.failed,
            cancelled: stats.cancelled + serial.cancelled,
            ..stats
        }
    }

    /// The id of the device whose queue the pipeline uses, `multi` if there are several; `None` if a thread runs the jobs
    /// in order.
    pub fn device(&self) -> Option<&str> {
        let several = self.lanes.as_ref().map(|_| "multi");
        self.queue.as_ref().map(|(id, _)| id.as_str()).or(several)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // Slots also own the executor, so dropping our share may not end it. In a child process its lock may never be
        // released.
        if self.check_process().is_ok()
            && let Some(serial) = self.started_serial()
        {
            serial.end();
        }
    }
}

/// Input and output that a job owns. They are taken out when it is done.
type Buffers = Mutex<Option<(Vec<f32>, Vec<f32>)>>;

/// The buffers and their addresses, which do not change when the owner moves.
fn owned(input: Vec<f32>, mut output: Vec<f32>) -> ((*const f32, *mut f32), Buffers) {
    ((input.as_ptr(), output.as_mut_ptr()), Mutex::new(Some((input, output))))
}

/// A job that owns its buffers. Dropping this does not stop the job.
pub struct Submitted {
    ticket: Ticket,
}

/// The result of a [`Submitted`] job, with its buffers.
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
    /// The job's error.
    pub fn wait(self) -> Result<Done> {
        let run = self.ticket.wait()?;
        let buffers = self.ticket.payload::<Buffers>();
        let buffers = buffers.and_then(|it| it.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (input, output) = buffers.ok_or_else(|| Error::Internal("a job's buffers are gone".into()))?;
        Ok(Done { run, input, output })
    }
}

/// Counts the running jobs of a scope.
#[derive(Clone, Default)]
struct ScopeJobs(Arc<(Mutex<usize>, Condvar)>);

/// Counts as one job until it is dropped.
struct ScopeJob(ScopeJobs);

impl ScopeJobs {
    fn count(&self) -> std::sync::MutexGuard<'_, usize> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) -> ScopeJob {
        *self.count() += 1;
        ScopeJob(self.clone())
    }
}

impl Drop for ScopeJob {
    fn drop(&mut self) {
        let mut count = self.0.count();
        *count -= 1;
        if *count == 0 {
            self.0.0.1.notify_all();
        }
    }
}

/// Waits until no job is running when it is dropped.
struct WaitOnDrop(ScopeJobs);

impl Drop for WaitOnDrop {
    fn drop(&mut self) {
        let mut count = self.0.count();
        while *count > 0 {
            count = self.0.0.1.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Submits borrowed buffers inside [`Pipeline::scope`]. As with `std::thread::scope`, `'scope` lasts until all jobs of
/// the scope are done, and submitted buffers must outlive it.
pub struct Scope<'scope, 'env: 'scope> {
    pipeline: *const Pipeline,
    jobs: ScopeJobs,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

// SAFETY: the pointer refers to a pipeline that is borrowed for the scope's lifetime, and any thread may use a
// pipeline.
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
        when_full: WhenFull,
    ) -> Result<ScopedTicket<'scope>> {
        plan.problem().check_data(input, output)?;
        // SAFETY: `Pipeline::scope` borrows the pipeline until this scope has ended.
        let pipeline = unsafe { &*self.pipeline };
        let addresses = (input.as_ptr(), output.as_mut_ptr());
        let owner = Some(Arc::new(self.jobs.add()) as _);
        // SAFETY: both are borrowed for 'scope, which does not end before the job, because the scope counts it. The
        // output is returned only when the ticket is done.
        let ticket =
            unsafe { pipeline.submit_raw(plan, Ticket::new(), addresses, (owner, false), when_full)? };
        Ok(ScopedTicket { ticket, output: addresses.1, len: output.len(), scope: PhantomData })
    }
}

/// A job of a scope. Dropping this does not stop the job.
pub struct ScopedTicket<'scope> {
    ticket: Ticket,
    output: *mut f32,
    len: usize,
    scope: PhantomData<&'scope mut [f32]>,
}

// SAFETY: it represents the mutable borrow of a slice of floats, which is `Send`.
unsafe impl Send for ScopedTicket<'_> {}

/// The result of a job of a scope.
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

    /// Waits for the job and returns its output.
    ///
    /// # Errors
    /// The job's error; the output is then untouched.
    pub fn wait(self) -> Result<Finished<'scope>> {
        let run = self.ticket.wait()?;
        // SAFETY: `submit` borrowed the slice mutably for 'scope, and the job, which used the borrow, is done.
        let output = unsafe { std::slice::from_raw_parts_mut(self.output, self.len) };
        Ok(Finished { run, output })
    }
}

/// An acquired slot of the device. Dropping it releases the slot.
pub struct PipelineSlot {
    slot: Box<dyn Slot>,
    /// Of the plan, whose problem says how long input and output are.
    recorded: Arc<Recorded>,
    /// Counts for the load of its device, if there are several.
    _held: Option<Arc<LoadedJob>>,
}

impl PipelineSlot {
    /// The input's memory, to be filled. Its initial contents are arbitrary numbers. Reading it may be slow.
    pub fn input(&mut self) -> &mut [f32] {
        // SAFETY: this owns the slot, no job runs in it, and its memory has the lengths of the plan's problem and lives
        // as long as the slot.
        unsafe { std::slice::from_raw_parts_mut(self.slot.input(), self.recorded.problem.input_len()) }
    }

    /// The output's memory: the result of the last job, or initially arbitrary numbers.
    pub fn output(&self) -> &[f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.slot.output(), self.recorded.problem.output_len()) }
    }

    /// Submits the slot's contents as a job.
    ///
    /// # Errors
    /// [`Error::Closed`] after the pipeline was dropped; [`Error::DeviceLost`] if the device was lost and the slot's
    /// memory with it. In that case acquire another slot.
    pub fn submit(self) -> Result<SlotTicket> {
        self.try_submit().map_err(|(error, _)| error)
    }

    /// As [`PipelineSlot::submit`], but on an error also returns the slot with its contents.
    pub(crate) fn try_submit(mut self) -> std::result::Result<SlotTicket, (Error, Self)> {
        let ticket = Ticket::new();
        self.recorded.watch("slot_submit", &ticket);
        match self.slot.submit(&ticket) {
            Ok(()) => Ok(SlotTicket { ticket, slot: self }),
            Err(error) => Err((error, self)),
        }
    }
}

/// A job in a slot. If this is dropped, the slot is released when the job is done.
pub struct SlotTicket {
    ticket: Ticket,
    slot: PipelineSlot,
}

impl SlotTicket {
    /// Its ticket.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Waits until the job is done, but at most for `limit`. Returns whether it is done.
    pub fn wait_for(&self, limit: Duration) -> bool {
        self.ticket.wait_for(limit).is_some()
    }

    /// Waits for the job and returns the slot with the output.
    ///
    /// # Errors
    /// The job's error; the slot is then released.
    pub fn wait(self) -> Result<(Run, PipelineSlot)> {
        let SlotTicket { ticket, slot } = self;
        Ok((ticket.wait()?, slot))
    }
}
