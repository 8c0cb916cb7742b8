//! The pool's threads, and how jobs reach them.
//!
//! A caller posts a job, a function that any number of threads may run at once and that shares its work out among
//! them, and takes part in it itself. So a call costs no sleep and no waking if the threads are awake, and they stay
//! awake a moment ([`STAY_AWAKE`]) after a job, because layers come in rows. No more stay awake than there are cores
//! for.
//!
//! ```text
//!   caller   post ─ run ─────────── wait for those inside ─ gone
//!   helper        └ join ─ run ─ leave ─ awake a moment ─ asleep
//!   helper             └ join (woken by the first) ...
//! ```
//!
//! At most `size` threads run jobs at once, callers included: a caller that finds so many at work waits until one of
//! them has done its job for it, or leaves it a place. What a job runs must not post another one.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread that has nothing to do stays awake: somewhat longer than it takes to wake one.
const STAY_AWAKE: Duration = Duration::from_micros(50);

/// How often a thread looks before it reads the clock.
const LOOKS: usize = 32;

/// How often a thread tries for the lock before it sleeps for it. It is held for moments.
const TRIES: usize = 1000;

/// What a thread does for a job, with its workspace. Returns when no work is left to be taken.
type Work<'a> = dyn Fn(&mut [f32]) + Sync + 'a;

/// A thread's life.
pub type Life = Box<dyn FnOnce() + Send>;

/// The threads.
pub struct Crew {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Threads that may run jobs at once.
    size: usize,
    /// Cores there are for them.
    cores: usize,
    state: Mutex<State>,
    /// Changes when there may be a job for a helper.
    posted: AtomicUsize,
    /// Changes when a caller may go on.
    departed: AtomicUsize,
    helpers: Condvar,
    callers: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    next_id: u64,
    /// Threads that run jobs.
    at_work: usize,
    /// Helpers that stay awake, and that sleep.
    awake: usize,
    asleep: usize,
    /// Callers that sleep.
    waiting: usize,
    ending: bool,
}

struct Job {
    id: u64,
    /// Lives as long as this entry does.
    work: *const Work<'static>,
    /// How many helpers may still join.
    wanted: usize,
    /// Helpers that run it.
    inside: usize,
    /// Whether somebody has found no work left.
    drained: bool,
}

// SAFETY: the pointer is to something Sync, and is used only while its owner waits for those who use it (see Crew::run).
unsafe impl Send for Job {}

impl Crew {
    /// `size` threads, a caller being one of them: each helper, with a workspace of its own, is started by `spawn`.
    ///
    /// # Errors
    /// Of `spawn`; helpers that were started have ended.
    pub fn start<B: std::ops::DerefMut<Target = [f32]> + Send + 'static>(
        size: usize,
        cores: usize,
        workspaces: Vec<B>,
        mut spawn: impl FnMut(usize, Life) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            size,
            cores,
            state: Mutex::default(),
            posted: AtomicUsize::new(0),
            departed: AtomicUsize::new(0),
            helpers: Condvar::new(),
            callers: Condvar::new(),
        });
        let mut crew = Crew { shared, handles: Vec::with_capacity(size) };
        for (index, mut workspace) in workspaces.into_iter().enumerate() {
            let shared = crew.shared.clone();
            crew.handles.push(spawn(index, Box::new(move || shared.help(&mut workspace)))?);
        }
        Ok(crew)
    }

    /// Whether threads outnumber cores, so that waiting should leave the core to others at once.
    pub fn is_crowded(&self) -> bool {
        self.shared.size > self.shared.cores
    }

    /// Runs `work`, which must not panic, on up to `threads` threads; returns when all have returned from it. The
    /// caller is one of them, with `workspace`, if there is a place for it.
    pub fn run(&self, threads: usize, work: &Work, workspace: &mut [f32]) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The entry is removed below before this function returns, and only when
        // no helper is inside; helpers find `work` in the entry alone, and count as inside while they use it.
        let erased = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let mut state = shared.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.jobs.push(Job { id, work: erased, wanted: threads - 1, inside: 0, drained: false });
        shared.call_helpers(&state);
        loop {
            let at = state.jobs.iter().position(|job| job.id == id).expect("only its caller removes a job");
            if !state.jobs[at].drained && state.at_work < shared.size {
                state.at_work += 1;
                drop(state);
                work(workspace);
                state = shared.lock();
                state.leave(id);
                shared.call_callers(&state);
                if state.jobs.iter().any(|job| job.wanted > 0) {
                    shared.call_helpers(&state);
                }
            } else if state.jobs[at].drained && state.jobs[at].inside == 0 {
                state.jobs.swap_remove(at);
                return;
            } else {
                let seen = shared.departed.load(Ordering::Relaxed);
                drop(state);
                let changed = shared.look_out(&shared.departed, seen);
                state = shared.lock();
                if !changed && shared.departed.load(Ordering::Relaxed) == seen {
                    state.waiting += 1;
                    state = shared.callers.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                }
            }
        }
    }
}

impl State {
    /// A thread has returned from a job: no work is left in it.
    fn leave(&mut self, id: u64) {
        self.at_work -= 1;
        if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
            (job.wanted, job.drained) = (0, true);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        for _ in 0..TRIES {
            if let Ok(state) = self.state.try_lock() {
                return state;
            }
            std::hint::spin_loop();
        }
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells helpers that there may be a job. Two sleepers at most: they wake others.
    fn call_helpers(&self, state: &State) {
        let wanted: usize = state.jobs.iter().map(|job| job.wanted).sum();
        self.posted.fetch_add(1, Ordering::Release);
        for _ in 0..wanted.saturating_sub(state.awake).min(state.asleep).min(2) {
            self.helpers.notify_one();
        }
    }

    /// Tells callers that a job may be done, or a place free.
    fn call_callers(&self, state: &State) {
        self.departed.fetch_add(1, Ordering::Release);
        if state.waiting > 0 {
            self.callers.notify_all();
        }
    }

    /// Waits a moment for `counter` to change from `seen`.
    fn look_out(&self, counter: &AtomicUsize, seen: usize) -> bool {
        let start = Instant::now();
        while start.elapsed() < STAY_AWAKE {
            for _ in 0..LOOKS {
                if counter.load(Ordering::Acquire) != seen {
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.size > self.cores {
                std::thread::yield_now();
            }
        }
        false
    }

    /// A helper's life.
    fn help(&self, workspace: &mut [f32]) {
        let mut state = self.lock();
        let mut rested = true;
        while !state.ending {
            let free = state.at_work < self.size;
            if let Some(at) = state.jobs.iter().position(|job| free && job.wanted > 0) {
                let job = &mut state.jobs[at];
                (job.wanted, job.inside) = (job.wanted - 1, job.inside + 1);
                let (id, work) = (job.id, job.work);
                state.at_work += 1;
                if state.asleep > 0 && state.jobs.iter().any(|job| job.wanted > 0) {
                    self.call_helpers(&state);
                }
                drop(state);
                // SAFETY: the entry is there as long as this thread is counted as inside, and what it points to too.
                unsafe { (*work)(workspace) };
                state = self.lock();
                state.leave(id);
                if let Some(job) = state.jobs.iter_mut().find(|job| job.id == id) {
                    job.inside -= 1;
                }
                self.call_callers(&state);
                rested = false;
            } else if !rested && state.at_work + state.awake < self.cores {
                state.awake += 1;
                let seen = self.posted.load(Ordering::Relaxed);
                drop(state);
                rested = !self.look_out(&self.posted, seen);
                state = self.lock();
                state.awake -= 1;
            } else {
                state.asleep += 1;
                state = self.helpers.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
                rested = false;
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        self.shared.posted.fetch_add(1, Ordering::Release);
        self.shared.helpers.notify_all();
        for handle in self.handles.drain(..) {
            // A job's panic is caught within it, so there is nothing to learn here.
            let _ = handle.join();
        }
    }
}
