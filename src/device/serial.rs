//! Jobs one after the other, on a thread: the stream of a device that has none of its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::jobs::Jobs;
use super::plan::Conv2dPlan;
use crate::allocate;
use crate::backend::{Pressure, Slot, Ticket};
use crate::error::{Error, Result};
use crate::report::PipelineStats;

/// A job for the thread.
pub struct SerialJob {
    pub ticket: Ticket,
    pub plan: Conv2dPlan,
    pub input: *const f32,
    pub output: *mut f32,
    /// What keeps the buffers, or counts the job.
    pub owner: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: the pointers are to buffers that, by the contract of `Serial::submit`, any thread may use until the job is done.
unsafe impl Send for SerialJob {}

/// The thread. Dropping it calls off what has not begun and waits for the job that runs.
pub struct Serial {
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    process: u32,
}

struct Shared {
    jobs: Jobs<SerialJob>,
    closed: AtomicBool,
    stats: Mutex<PipelineStats>,
}

impl Serial {
    /// Starts it; `queue` jobs may wait.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives no thread.
    pub fn start(queue: usize) -> Result<Self> {
        let (jobs, closed, stats) = (Jobs::new(queue), AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { jobs, closed, stats });
        let serving = shared.clone();
        let thread = crate::thread::spawn("cpu", "jobs", move || serving.serve())?;
        Ok(Serial { thread: Some(thread), shared, process: std::process::id() })
    }

    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: "a pipeline".to_owned() })
    }

    /// Hands a job over.
    ///
    /// # Safety
    /// Until the ticket is done, the input stays valid for reads and unchanged, and the output valid for writes and unused by anybody
    /// else; both are as long as the plan's problem says.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full and `pressure` says to refuse; [`Error::OutOfMemory`]; [`Error::Forked`].
    pub unsafe fn submit(&self, job: SerialJob, pressure: Pressure) -> Result<()> {
        self.check_process()?;
        self.shared.jobs.push(job, pressure)
    }

    /// Waits until all that was submitted is done.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn flush(&self) -> Result<()> {
        self.check_process()?;
        self.shared.jobs.flush();
        Ok(())
    }

    /// What it has done.
    pub fn stats(&self) -> PipelineStats {
        if self.check_process().is_err() {
            return PipelineStats::default();
        }
        *self.shared.stats()
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.check_process().is_err() {
            std::mem::forget((thread, self.shared.clone()));
            return;
        }
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.jobs.close();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stats(&self) -> std::sync::MutexGuard<'_, PipelineStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Some(job) = self.jobs.next() {
            self.run(job);
            self.jobs.ended();
        }
    }

    fn run(&self, job: SerialJob) {
        let SerialJob { ticket, plan, input, output, owner } = job;
        if self.closed.load(Ordering::Relaxed) {
            ticket.cancel();
        }
        if !ticket.start() {
            self.stats().cancelled += 1;
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            let problem = plan.problem();
            // SAFETY: `Serial::submit` was promised that both are there, as long as that, until the ticket is done.
            let (input, output) = unsafe {
                (
                    std::slice::from_raw_parts(input, problem.input_len()),
                    std::slice::from_raw_parts_mut(output, problem.output_len()),
                )
            };
            plan.run(input, output)
        }));
        let result = result.unwrap_or_else(|_| Err(Error::Internal("a job panicked".to_owned())));
        match &result {
            Ok(_) => self.stats().completed += 1,
            Err(_) => self.stats().failed += 1,
        }
        drop(plan);
        ticket.finish(result);
        drop(owner);
    }
}

/// A slot in ordinary memory.
pub struct HeapSlot {
    memory: Arc<Heap>,
    plan: Conv2dPlan,
    serial: Arc<Serial>,
}

struct Heap {
    input: *mut f32,
    output: *mut f32,
    /// Own the memory; reached only through the pointers.
    _owners: [Vec<f32>; 2],
}

// SAFETY: addresses of memory that is owned; who uses it when is what `backend::Slot` says.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl HeapSlot {
    /// Memory for one run of `plan`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(plan: &Conv2dPlan, serial: &Arc<Serial>) -> Result<Self> {
        let problem = plan.problem();
        let mut owners = [
            allocate::zeroed(problem.input_len(), "a slot's input")?,
            allocate::zeroed(problem.output_len(), "a slot's output")?,
        ];
        let [input, output] = owners.each_mut().map(|owner| owner.as_mut_ptr());
        let memory = Arc::new(Heap { input, output, _owners: owners });
        Ok(HeapSlot { memory, plan: plan.clone(), serial: serial.clone() })
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
        let job = SerialJob {
            ticket: ticket.clone(),
            plan: self.plan.clone(),
            input: self.memory.input,
            output: self.memory.output,
            owner: Some(self.memory.clone()),
        };
        // SAFETY: the owner keeps the memory, which is as long as the problem says; nobody uses it while a job runs in the slot.
        unsafe { self.serial.submit(job, Pressure::Wait) }
    }
}
