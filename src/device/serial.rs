//! Jobs one after the other, on a thread: the stream of a device that has none of its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::jobs::Jobs;
use super::plan::Conv2dPlan;
use crate::allocate;
use crate::backend::{Pressure, Slot, Ticket};
use crate::cpu;
use crate::error::{Error, Result};
use crate::report::PipelineStats;

/// A job for the thread.
pub struct SerialJob {
    pub ticket: Ticket,
    pub plan: Conv2dPlan,
    pub input: *const f32,
    pub output: *mut f32,
    /// Whether it has begun with its submission, so that it cannot be called off.
    pub begun: bool,
    /// What keeps the buffers, or counts the job.
    pub owner: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: the pointers are to buffers that, by the contract of `Serial::submit`, any thread may use until the job is done.
unsafe impl Send for SerialJob {}

/// The thread, and the slots. [`Serial::end`], or dropping it, calls off what has not begun and waits for the rest.
pub struct Serial {
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    places: Arc<Places>,
    process: u32,
}

struct Shared {
    jobs: Jobs<SerialJob>,
    closed: AtomicBool,
    stats: Mutex<PipelineStats>,
}

impl Serial {
    /// Starts it; `queue` jobs may wait, and callers may hold `slots` slots.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives no thread.
    pub fn start(queue: usize, slots: usize) -> Result<Self> {
        let (jobs, closed, stats) = (Jobs::new(queue), AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { jobs, closed, stats });
        let serving = shared.clone();
        let (begins, begun) = sync_channel(1);
        let serve = move || {
            cpu::prepare_thread();
            let _ = begins.send(());
            serving.serve();
        };
        let thread = crate::thread::spawn("cpu", "jobs", serve)?;
        // From then on it needs no lock that a caller could hold, as that of the dynamic loader.
        let _ = begun.recv();
        let places = Places { state: Mutex::new((slots, false)), given_back: Condvar::new() };
        Ok(Serial {
            thread: Mutex::new(Some(thread)),
            shared,
            places: Arc::new(places),
            process: std::process::id(),
        })
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
    /// [`Error::Busy`] if the queue is full and `pressure` says to refuse; [`Error::Closed`] after the end;
    /// [`Error::OutOfMemory`]; [`Error::Forked`].
    pub unsafe fn submit(&self, job: SerialJob, pressure: Pressure) -> Result<()> {
        self.check_process()?;
        self.shared.jobs.push(job, pressure)
    }

    /// Takes no more jobs, calls off those that have not begun, and sends away who waits for a slot. Waits for nothing.
    pub fn close(&self) {
        if self.check_process().is_err() {
            return;
        }
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.jobs.close();
        self.places.state().1 = true;
        self.places.given_back.notify_all();
    }

    /// Closes it, and waits for the jobs that have begun. Slots' memory stays their holders'.
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
        if self.check_process().is_err() {
            // Its thread and its locks are the parent's.
            std::mem::forget((self.thread.get_mut().map(Option::take).ok(), self.shared.clone()));
            return;
        }
        self.end();
    }
}

impl Shared {
    fn stats(&self) -> MutexGuard<'_, PipelineStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        while let Some(job) = self.jobs.next() {
            self.run(job);
            self.jobs.ended();
        }
    }

    fn run(&self, job: SerialJob) {
        let SerialJob { ticket, plan, input, output, begun, owner } = job;
        if !begun && self.closed.load(Ordering::Relaxed) {
            ticket.cancel();
        }
        if !begun && !ticket.start() {
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
        // Whoever has seen a slot's job done and gives the slot back may take it again at once.
        let owner = owner.filter(|_| !begun);
        ticket.finish(result);
        drop(owner);
    }
}

/// How many slots callers may still take, and whether the end has come.
struct Places {
    state: Mutex<(usize, bool)>,
    given_back: Condvar,
}

impl Places {
    fn state(&self) -> MutexGuard<'_, (usize, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, pressure: Pressure) -> Result<Taken> {
        let mut state = self.state();
        loop {
            match *state {
                (_, true) => return Err(Error::closed("the pipeline")),
                (0, _) if pressure == Pressure::Refuse => {
                    return Err(Error::Busy { what: "the pipeline of cpu".to_owned() });
                }
                (0, _) => state = self.given_back.wait(state).unwrap_or_else(PoisonError::into_inner),
                (left, _) => {
                    state.0 = left - 1;
                    return Ok(Taken { places: self.clone(), process: std::process::id() });
                }
            }
        }
    }
}

/// One of the slots, taken until this is dropped.
struct Taken {
    places: Arc<Places>,
    process: u32,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.places.state().0 += 1;
            self.places.given_back.notify_one();
        }
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
    /// Given back when the slot is, and the job in it done.
    _taken: Taken,
}

// SAFETY: addresses of memory that is owned; who uses it when is what `backend::Slot` says.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl HeapSlot {
    /// Memory for one run of `plan`. While callers hold all slots this waits, unless `pressure` says to refuse.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::Closed`]; out of memory.
    pub fn new(plan: &Conv2dPlan, serial: &Arc<Serial>, pressure: Pressure) -> Result<Self> {
        let taken = serial.places.take(pressure)?;
        let problem = plan.problem();
        let mut owners = [
            allocate::zeroed(problem.input_len(), "a slot's input")?,
            allocate::zeroed(problem.output_len(), "a slot's output")?,
        ];
        let [input, output] = owners.each_mut().map(|owner| owner.as_mut_ptr());
        let memory = Arc::new(Heap { input, output, _owners: owners, _taken: taken });
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
        ticket.start();
        let job = SerialJob {
            ticket: ticket.clone(),
            plan: self.plan.clone(),
            input: self.memory.input,
            output: self.memory.output,
            begun: true,
            owner: Some(self.memory.clone()),
        };
        // SAFETY: the owner keeps the memory, which is as long as the problem says; nobody uses it while a job runs in the slot.
        let submitted = unsafe { self.serial.submit(job, Pressure::Wait) };
        submitted.map_err(|error| match error {
            Error::Closed { .. } => Error::closed("the pipeline of this slot"),
            other => other,
        })
    }
}
