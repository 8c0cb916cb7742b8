//! One thread for each device, which owns the device's context for life.
//!
//! GL contexts belong to threads, while calls come from any thread. So callers send jobs to the worker over a bounded
//! channel and wait for the answer. Their own current context is never touched, and no call has to make a context
//! current.
//!
//! ```text
//!   caller                           worker
//!   call(job) --- bounded channel --> session of the context; made again if it was lost
//!   waits    <--- answer, messages -- job(&mut session); a panic becomes an error
//! ```
//!
//! A job may borrow from its caller, since [`Worker::call`] returns only when the job has run or was dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::gl::device::session::Session;
use crate::gl::driver::context::{Context, is_terminated};
use crate::gl::driver::egl::Egl;
use crate::gl::driver::exit;
use crate::log::Level;
use crate::thread::panic_text;

/// Jobs that may wait in the channel. Further callers block until there is room.
const QUEUE: usize = 16;

/// Makes the device's context, on the worker's thread.
pub type MakeContext = Box<dyn FnMut() -> Result<Rc<Context>> + Send>;

/// A job and the signal that it is over. The task is dropped before the signal, which is what lets a task borrow.
struct WorkerJob {
    task: Box<dyn FnOnce(&mut Host) + Send>,
    _over: SyncSender<()>,
}

/// The worker's handle. Dropping it ends the thread, after the jobs sent so far.
pub struct Worker {
    jobs: Option<SyncSender<WorkerJob>>,
    thread: Option<JoinHandle<()>>,
    device: Arc<str>,
    process: u32,
}

/// The thread's state.
struct Host {
    device: Arc<str>,
    make_context: MakeContext,
    session: Option<Session>,
}

impl Worker {
    /// Starts the thread. Its first job makes the context.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system cannot create a thread.
    pub fn start(egl: Arc<dyn Egl>, device: Arc<str>, make_context: MakeContext) -> Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let name = device.clone();
        let work = move || {
            let mut host = Host { device: name, make_context, session: None };
            serve(&queue, &mut host);
            let _inside = exit::enter();
            drop(host);
            exit::end_thread(|| egl.release_thread());
        };
        let thread = crate::thread::spawn(&device, "worker", work)?;
        Ok(Worker { jobs: Some(jobs), thread: Some(thread), device, process: std::process::id() })
    }

    /// Runs `job` on the worker and returns its result. Logs the context's messages on the calling thread.
    ///
    /// # Errors
    /// The job's own; [`Error::Forked`] in a child process; [`Error::Ending`] at the end of the process and under the
    /// loader's lock; [`Error::Internal`] if the job panicked; the reason if no context could be made.
    pub fn call<R: Send>(&self, job: impl FnOnce(&mut Session) -> Result<R> + Send) -> Result<R> {
        self.check_process()?;
        crate::loader::check()?;
        let mut answer = None;
        let slot = &mut answer;
        let task: Box<dyn FnOnce(&mut Host) + Send + '_> = Box::new(move |host| *slot = Some(host.run(job)));
        // SAFETY: only the lifetime changes. The task and all that it borrows are used until it has run or is dropped;
        // `WorkerJob` drops its `_over` after that, and this function does not return before `is_over` has seen it drop.
        let task = unsafe {
            std::mem::transmute::<Box<dyn FnOnce(&mut Host) + Send + '_>, Box<dyn FnOnce(&mut Host) + Send>>(
                task,
            )
        };
        let (over, is_over) = sync_channel(0);
        // If the worker is gone, this drops the job.
        let _ = self.jobs.as_ref().expect("only drop() takes it").send(WorkerJob { task, _over: over });
        let _ = is_over.recv();
        let gone = || match exit::is_closed() {
            true => exit::ending(),
            false => Error::Internal(format!("the worker thread of {} is gone", self.device)),
        };
        let (result, messages): (Result<R>, Vec<(Level, String)>) = answer.ok_or_else(gone)?;
        messages.iter().for_each(|(level, text)| crate::log::message(*level, format_args!("{text}")));
        result
    }

    /// Runs `job` later, if there is a session then. For dropping and background work.
    pub fn post(&self, job: impl FnOnce(&mut Session) + Send + 'static) {
        if self.check_process().is_err() {
            return;
        }
        let task = Box::new(|host: &mut Host| {
            if let Some(session) = &mut host.session {
                job(session);
            }
        });
        let (over, _) = sync_channel(0);
        let _ = self.jobs.as_ref().expect("only drop() takes it").send(WorkerJob { task, _over: over });
    }

    /// Refuses to work in a process that was forked from the worker's.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: format!("device {}", self.device) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let (jobs, thread) = (self.jobs.take(), self.thread.take());
        if self.process != std::process::id() {
            // The thread did not survive the fork, and the channel's locks may be in any state.
            std::mem::forget((jobs, thread));
            return;
        }
        drop(jobs);
        if let Some(thread) = thread {
            // Jobs cannot panic through. If the driver did, the thread has ended anyway.
            let _ = exit::join(thread);
        }
    }
}

/// Runs jobs until no handle is left.
fn serve(queue: &Receiver<WorkerJob>, host: &mut Host) {
    while let Ok(WorkerJob { task, _over }) = queue.recv() {
        // At the end of the process jobs are dropped; `call` then returns an error.
        let Ok(_inside) = exit::enter() else { continue };
        // `Host::run` catches panics of jobs with a caller. This is for jobs without one.
        if catch_unwind(AssertUnwindSafe(|| task(host))).is_err() {
            host.session = None;
        }
    }
}

impl Host {
    /// Runs a job on the session. Afterwards the session is usable, or gone; then the next job makes a new one.
    fn run<R>(&mut self, job: impl FnOnce(&mut Session) -> Result<R>) -> (Result<R>, Vec<(Level, String)>) {
        let result = catch_unwind(AssertUnwindSafe(|| job(self.session()?)));
        let result = result.unwrap_or_else(|panic| {
            self.session = None;
            Err(Error::Internal(format!("{} panicked: {}", self.device, panic_text(&*panic))))
        });
        let messages = self.session.as_ref().map_or_else(Vec::new, |it| it.context().take_messages());
        if let Err(Error::DeviceLost { .. }) = result {
            self.session = None;
        }
        (result, messages)
    }

    /// The session. Makes a new one at first and after the old one was lost, even while idle.
    fn session(&mut self) -> Result<&mut Session> {
        self.session.take_if(|session| session.context().is_lost());
        match &mut self.session {
            Some(session) => Ok(session),
            none => {
                let mut made = (self.make_context)();
                if made.as_ref().is_err_and(is_terminated) {
                    // Another library may have terminated the display just then.
                    made = (self.make_context)();
                }
                Ok(none.insert(Session::new(made?)))
            }
        }
    }
}
