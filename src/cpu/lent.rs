//! Jobs of the CPU engine on the threads of a rayon pool that the program lends (feature `rayon`).
//!
//! A program that computes in rayon's threads has one for each core already. If it calls the library, the library's own
//! threads would compete with them. So the program can lend its pool. A call then offers its job to the pool and runs it
//! as well, like [`super::workers`]: threads that come late find the job closed, and the caller waits only for those that
//! have joined. So it never waits for a thread that is busy with the program's own work, and a call from a thread of the
//! pool cannot deadlock. No thread is added: with all threads of the pool in calls, each computes alone. After a job a
//! thread looks for further jobs for a moment, the program's among them.
//!
//! ```text
//!   caller      spawn jobs ─ run ────────── close ─ wait for those that joined ─ return
//!   pool            └ join ─ run ─ leave
//!   pool                                       └ find it closed: nothing to do
//! ```
//!
//! Rayon's `scope` and `broadcast` wait for all their jobs, those that have not started included, and let a waiting
//! thread of the pool take any other job of the program in the meantime. A layer must not wait for that.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::buffer::Borrowed;
use super::process_lock::ProcessLock;
use crate::cpu::tunables::{MAX_SPIN_TIME, SPIN_TIME, SPINS_PER_CLOCK_READ};
use crate::float_env::FloatEnv;

/// The pool that is lent to this process, if any. A forked child has none: the pool has no threads there.
static LENT: ProcessLock<LentPool> = ProcessLock::new();

/// Callers that run jobs on the lent pool at present.
static CALLERS: AtomicUsize = AtomicUsize::new(0);

/// Rayon's threads.
#[derive(Clone)]
pub enum LentPool {
    /// Those of the pool that the calling thread belongs to, or else of rayon's global pool.
    OfCaller,
    /// Those of a pool of the program.
    Pool(Arc<rayon::ThreadPool>),
}

/// Lends `pool`, or ends the loan. Calls in progress keep the threads that they have.
pub fn set(pool: Option<LentPool>) {
    let previous = LENT.with(|lent| std::mem::replace(lent, pool));
    // Outside the lock: dropping the last reference of a pool tells its threads to end.
    drop(previous);
}

/// The pool that is lent.
pub fn get() -> Option<LentPool> {
    LENT.with(|lent| lent.clone())
}

/// A job's function, as in [`super::workers`].
type WorkFn<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

/// One call of [`LentPool::run`]. Jobs in the pool own it, so that it outlives the call if they start late.
struct Loan {
    /// Valid for threads that have joined, until they have left.
    work: *const WorkFn<'static>,
    /// The threads that have joined, and [`CLOSED`] once no more may.
    joined: AtomicUsize,
    left: AtomicUsize,
    /// Whether the caller sleeps, or is about to.
    waiting: AtomicBool,
    sleeping: Mutex<()>,
    departed: Condvar,
}

// SAFETY: `work` points to a function that any thread may call (`Sync`); everything else is `Send` and `Sync`.
unsafe impl Send for Loan {}
// SAFETY: as above.
unsafe impl Sync for Loan {}

/// Added to [`Loan::joined`] when the caller has done all work that it found.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl LentPool {
    /// Threads of the pool.
    pub fn size(&self) -> usize {
        match self {
            LentPool::OfCaller => rayon::current_num_threads(),
            LentPool::Pool(pool) => pool.current_num_threads(),
        }
    }

    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        match self {
            LentPool::OfCaller => rayon::spawn(job),
            LentPool::Pool(pool) => pool.spawn(job),
        }
    }

    /// Runs `work` on up to `threads` threads and returns when all of them have finished. The caller is one of them and
    /// uses `workspace`; others borrow one from `borrow`, and stay away if there is no memory. `work` must not panic.
    pub fn run(
        &self,
        threads: usize,
        work: &WorkFn,
        workspace: &mut [f32],
        borrow: fn() -> Option<Borrowed>,
    ) {
        let callers = CALLERS.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: only the lifetime changes. Threads use `work` only if they have joined, and this function does not
        // return before all that have joined have left.
        let work_of_any_lifetime =
            unsafe { std::mem::transmute::<*const WorkFn<'_>, *const WorkFn<'static>>(work) };
        let loan = Arc::new(Loan {
            work: work_of_any_lifetime,
            joined: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            sleeping: Mutex::new(()),
            departed: Condvar::new(),
        });
        for _ in 1..threads.min((self.size() / callers).max(1)) {
            let loan = loan.clone();
            self.spawn(move || {
                let joined = loan.help(borrow);
                drop(loan);
                if joined {
                    stay_awake();
                }
            });
        }
        work(0, workspace);
        loan.close();
        CALLERS.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    /// Whether this thread is in [`stay_awake`].
    static IS_AWAKE: Cell<bool> = const { Cell::new(false) };
}

/// Looks for further jobs of the pool for a moment, as the library's own threads do, because layers follow each other
/// closely and waking a thread takes longer than a small layer. It runs any job of the pool, so none waits for it.
fn stay_awake() {
    // A job that runs from here must not wait here in turn: the stack would grow with each layer.
    if IS_AWAKE.replace(true) {
        return;
    }
    let start = Instant::now();
    let (mut idle, mut now) = (start, start);
    while now - idle < SPIN_TIME && now - start < MAX_SPIN_TIME {
        for _ in 0..SPINS_PER_CLOCK_READ {
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                idle = Instant::now();
                break;
            }
            std::hint::spin_loop();
        }
        now = Instant::now();
    }
    IS_AWAKE.set(false);
}

impl Loan {
    /// What a thread of the pool does with the job. Returns whether it joined in time.
    fn help(&self, borrow: fn() -> Option<Borrowed>) -> bool {
        if self.joined.load(Ordering::Relaxed) & CLOSED != 0 {
            return false;
        }
        let _library = FloatEnv::enter();
        let Some(mut workspace) = borrow() else { return false };
        let before = self.joined.fetch_add(1, Ordering::Acquire);
        if before & CLOSED != 0 {
            return false;
        }
        // SAFETY: this thread has joined before the job was closed, so the caller waits until it has left.
        unsafe { (*self.work)(before + 1, &mut workspace) };
        self.left.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) {
            // A caller that waits holds the lock until it sleeps.
            drop(self.sleeping.lock().unwrap_or_else(PoisonError::into_inner));
            self.departed.notify_all();
        }
        true
    }

    /// Lets no more threads join, and waits for those that have.
    fn close(&self) {
        let joined = self.joined.fetch_or(CLOSED, Ordering::AcqRel);
        let done = || self.left.load(Ordering::SeqCst) == joined;
        let start = Instant::now();
        while start.elapsed() < SPIN_TIME {
            for _ in 0..SPINS_PER_CLOCK_READ {
                if done() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        let mut sleeping = self.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(true, Ordering::SeqCst);
        while !done() {
            sleeping = self.departed.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
