//! A pipeline that runs jobs in order on one thread: for devices without a queue of their own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::jobs::JobQueue;
use super::plan::Conv2dPlan;
use crate::allocate;
use crate::backend::{Slot, Ticket, WhenFull};
use crate::cpu;
use crate::error::{Error, Result};
use crate::report::{PipelineStats, Source, Track, trace};

/// A job for the thread.
pub struct SerialJob {
    pub ticket: Ticket,
    pub plan: Conv2dPlan,
    pub input: *const f32,
    pub output: *mut f32,
    /// Whether it counts as started since its submission, so that it cannot be cancelled.
    pub started: bool,
    /// Keeps the buffers alive, or counts the job.
    pub owner: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: by the contract of `SerialExecutor::submit`, any thread may use the buffers that the pointers refer to until
// the job is done.
unsafe impl Send for SerialJob {}

/// The thread and its slots. [`SerialExecutor::end`], or dropping it, cancels the jobs that have not started and waits
/// for the others.
pub struct SerialExecutor {
    thread: Mutex<Option<JoinHandle<()>>>,
    worker: Arc<Worker>,
    slots: Arc<SlotPool>,
    process: u32,
}

/// What the thread and the callers share.
struct Worker {
    jobs: JobQueue<SerialJob>,
    closed: AtomicBool,
    stats: Mutex<PipelineStats>,
    /// The most threads of the CPU for a job.
    threads: usize,
    /// What traces call it.
    source: Source,
}

impl SerialExecutor {
    /// Starts the thread. At most `queue` jobs may wait, and callers may hold at most `slots` slots. Jobs use at most
    /// `threads` threads of the CPU. Traces call it `source`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the thread cannot be created.
    pub fn start(queue: usize, slots: usize, threads: usize, source: Source) -> Result<Self> {
        let (jobs, closed, stats) = (JobQueue::new(queue), AtomicBool::new(false), Mutex::default());
        let worker = Arc::new(Worker { jobs, closed, stats, threads, source });
        let serving = worker.clone();
        let (ready, is_ready) = sync_channel(1);
        let serve = move || {
            cpu::prepare_thread();
            let _ = ready.send(());
            serving.serve();
        };
        let thread = crate::thread::spawn("cpu", "jobs", serve)?;
        // From now on the thread needs no lock that a caller could hold, such as that of the dynamic loader.
        let _ = is_ready.recv();
        let state = SlotPoolState { free: slots, closed: false };
        let slots = SlotPool { state: Mutex::new(state), released: Condvar::new() };
        Ok(SerialExecutor {
            thread: Mutex::new(Some(thread)),
            worker,
            slots: Arc::new(slots),
            process: std::process::id(),
        })
    }

    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: "a pipeline".to_owned() })
    }

    /// Submits a job.
    ///
    /// # Safety
    /// Until the ticket is done, the input stays valid for reads and unchanged, and the output stays valid for writes
    /// and nothing else uses it. Both have the lengths of the plan's problem.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full and `when_full` refuses; [`Error::Closed`] after [`SerialExecutor::close`];
    /// [`Error::OutOfMemory`]; [`Error::Forked`].
    pub unsafe fn submit(&self, job: SerialJob, when_full: WhenFull) -> Result<()> {
        self.check_process()?;
        self.worker.jobs.push(job, when_full)
    }

    /// Closes the executor without waiting: it refuses further jobs, cancels those that have not started, and ends the
    /// waits for slots with [`Error::Closed`].
    pub fn close(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.worker.closed.store(true, Ordering::Relaxed);
        self.worker.jobs.close();
        self.slots.state().closed = true;
        self.slots.released.notify_all();
    }

    /// Closes the executor and waits for the jobs that have started. Acquired slots keep their memory.
    pub fn end(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Waits until all submitted jobs are done.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn flush(&self) -> Result<()> {
        self.check_process()?;
        self.worker.jobs.flush();
        Ok(())
    }

    /// Statistics so far.
    pub fn stats(&self) -> PipelineStats {
        if self.check_process().is_err() {
            return PipelineStats::default();
        }
        *self.worker.stats()
    }
}

impl Drop for SerialExecutor {
    fn drop(&mut self) {
        if self.check_process().is_err() {
            // The thread and the locks belong to the parent process.
            std::mem::forget((self.thread.get_mut().map(Option::take).ok(), self.worker.clone()));
            return;
        }
        self.end();
    }
}

impl Worker {
    fn stats(&self) -> MutexGuard<'_, PipelineStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Some(job) = self.jobs.next() {
            self.run(job);
            self.jobs.job_ended();
        }
    }

    fn run(&self, job: SerialJob) {
        let SerialJob { ticket, plan, input, output, started, owner } = job;
        if !started && self.closed.load(Ordering::Relaxed) {
            ticket.cancel();
        }
        if !started && !ticket.start() {
            self.stats().cancelled += 1;
            return;
        }
        let trace = trace::of_process().map(|trace| (trace, trace.now()));
        let result = catch_unwind(AssertUnwindSafe(|| {
            let problem = plan.problem();
            // SAFETY: the caller of `SerialExecutor::submit` promised that both are valid and of these lengths until
            // the ticket is done.
            let (input, output) = unsafe {
                (
                    std::slice::from_raw_parts(input, problem.input_len()),
                    std::slice::from_raw_parts_mut(output, problem.output_len()),
                )
            };
            cpu::with_threads(self.threads, || plan.run_job(input, output))
        }));
        let result = result.unwrap_or_else(|_| Err(Error::Internal("a job panicked".to_owned())));
        match &result {
            Ok(_) => self.stats().completed += 1,
            Err(_) => self.stats().failed += 1,
        }
        // Shares of several devices are in the trace already.
        if let (Some((trace, start)), Ok(run)) = (trace, &result)
            && run.shares.is_empty()
        {
            trace.step(&run.device, Track::Jobs(self.source), "compute", start);
        }
        drop(plan);
        // Drop a slot's owner first: a caller who sees the job done and releases the slot may acquire it again at once.
        let owner = owner.filter(|_| !started);
        ticket.finish(result);
        drop(owner);
    }
}

/// Counts the slots that callers may still acquire.
struct SlotPool {
    state: Mutex<SlotPoolState>,
    released: Condvar,
}

struct SlotPoolState {
    free: usize,
    closed: bool,
}

impl SlotPool {
    fn state(&self) -> MutexGuard<'_, SlotPoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire(self: &Arc<Self>, when_full: WhenFull) -> Result<SlotPermit> {
        let mut state = self.state();
        loop {
            if state.closed {
                return Err(Error::closed("the pipeline"));
            }
            if state.free > 0 {
                state.free -= 1;
                return Ok(SlotPermit { pool: self.clone(), process: std::process::id() });
            }
            if when_full == WhenFull::Refuse {
                return Err(Error::Busy { what: "the pipeline of cpu".to_owned() });
            }
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The right to one slot, until this is dropped.
struct SlotPermit {
    pool: Arc<SlotPool>,
    process: u32,
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.pool.state().free += 1;
            self.pool.released.notify_one();
        }
    }
}

/// A slot in ordinary memory.
pub struct HeapSlot {
    memory: Arc<SlotMemory>,
    plan: Conv2dPlan,
    executor: Arc<SerialExecutor>,
}

struct SlotMemory {
    input: *mut f32,
    output: *mut f32,
    /// Own the memory. It is accessed only through the pointers.
    _owners: [Vec<f32>; 2],
    /// Released when the slot is released and its job is done.
    _permit: SlotPermit,
}

// SAFETY: the pointers refer to memory that this owns; the contract of `backend::Slot` says what may use it and when.
unsafe impl Send for SlotMemory {}
// SAFETY: as above.
unsafe impl Sync for SlotMemory {}

impl HeapSlot {
    /// Allocates memory for one run of `plan`. While callers hold all slots this waits, unless `when_full` refuses.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Closed`]; [`Error::OutOfMemory`].
    pub fn new(plan: &Conv2dPlan, executor: &Arc<SerialExecutor>, when_full: WhenFull) -> Result<Self> {
        let permit = executor.slots.acquire(when_full)?;
        let problem = plan.problem();
        let mut owners = [
            allocate::zeroed(problem.input_len(), "a slot's input")?,
            allocate::zeroed(problem.output_len(), "a slot's output")?,
        ];
        let [input, output] = owners.each_mut().map(|owner| owner.as_mut_ptr());
        let memory = Arc::new(SlotMemory { input, output, _owners: owners, _permit: permit });
        Ok(HeapSlot { memory, plan: plan.clone(), executor: executor.clone() })
    }
}

impl Slot for HeapSlot {
    fn input(&self) -> *mut f32 {
        self.memory.input
    }

    fn output(&self) -> *const f32 {
        self.memory.output
    }

    fn submit(&mut self, ticket: &Ticket) -> Result<()> {
        ticket.start();
        let job = SerialJob {
            ticket: ticket.clone(),
            plan: self.plan.clone(),
            input: self.memory.input,
            output: self.memory.output,
            started: true,
            owner: Some(self.memory.clone()),
        };
        // SAFETY: the owner keeps the memory alive, which has the problem's lengths; nothing else uses it while a job
        // runs in the slot.
        let submitted = unsafe { self.executor.submit(job, WhenFull::Wait) };
        submitted.map_err(|error| match error {
            Error::Closed { .. } => Error::closed("the pipeline of this slot"),
            other => other,
        })
    }
}
