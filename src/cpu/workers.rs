//! The pool's threads, and how jobs reach them.
//!
//! A job is a function that any number of threads run at the same time; it shares out its work among them. The caller
//! offers the job to helper threads and runs it as well. After a call the helpers spin for a moment ([`SPIN_TIME`]),
//! because the next layer's call usually follows at once. A helper that spins starts without being woken. No more
//! helpers spin than there are cores for them.
//!
//! ```text
//!   caller   offer ─ run ──────── take back ─ wait for helpers that joined ─ return
//!   helper         └ join ─ run ─ leave ─ spin ─ sleep
//!   helper              └ join (woken by the caller, or by another helper) ...
//! ```
//!
//! With many threads the cost is contention for a cache line. So each helper has an offer slot of its own and watches
//! only that. When the work is done, the caller takes back the offers that no helper has accepted. It never waits for a
//! thread that sleeps or has no core.
//!
//! At most `size` threads run jobs at the same time, callers included. A caller reserves as many places as it needs,
//! waits if there are none, and releases them at its end. Concurrent callers get equal shares of the threads. With as
//! many callers as places, each computes alone. A job must not offer another job.
//!
//! Why not rayon: in rows of small steps its threads, kept awake in the same way, need 1.2 to 1.4 us for a step of 2 us
//! where these need 1.1; from 8 us on the two are equal (two threads, `benchmarks/2026-11-30-rayon.md`). These start
//! fallibly, allocate nothing in a call and end on request, and the library stays without the dependency. A program that
//! has rayon can lend its pool ([`super::pool`], feature `rayon`).

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Instant;

use crate::allocate;
use crate::cpu::tunables::{MAX_SPIN_TIME, MAX_WAKES, SPIN_TIME, SPINS_PER_CLOCK_READ};
use crate::error::Result;
use crate::loader;

/// A job's function. Its arguments are the thread's number, 0 for the caller, and the thread's workspace. It returns
/// when no work is left to take.
type WorkFn<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

/// A thread's main function.
pub type ThreadMain = Box<dyn FnOnce() + Send>;

/// The helper threads.
pub struct Workers {
    state: Arc<State>,
    handles: Vec<JoinHandle<()>>,
}

/// What all threads share.
struct State {
    /// Threads that may run jobs at the same time, callers included.
    size: usize,
    /// Cores of the machine that this process may use.
    cores: usize,
    helpers: Vec<Helper>,
    /// Places that callers have reserved, for themselves and for helpers.
    reserved: AtomicUsize,
    /// Callers at present.
    callers: AtomicUsize,
    /// Held by a caller while it offers a job.
    offering: Mutex<()>,
    /// Callers that sleep or are about to.
    waiting: AtomicUsize,
    sleeping: Mutex<()>,
    departed: Condvar,
    ending: AtomicBool,
}

/// A helper as other threads see it. Aligned to two cache lines, as they are often fetched in pairs.
#[repr(align(128))]
struct Helper {
    /// The offered job; [`JOINED`] while the helper runs one; otherwise null.
    offer: AtomicPtr<Job>,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

/// Replaces an offer that the helper has accepted.
const JOINED: *mut Job = ptr::without_provenance_mut(1);

/// One call of [`Workers::run`].
#[repr(align(128))]
struct Job {
    /// Valid while the job is offered or a helper runs it.
    work: *const WorkFn<'static>,
    /// Whether some helpers were asleep when it was offered, and the first helper that may need waking.
    any_asleep: AtomicBool,
    to_wake: AtomicUsize,
    /// Helpers that have finished it.
    left: AtomicUsize,
}

impl Workers {
    /// Starts helpers for `size` threads, the caller included. `spawn` starts each helper; each has its own workspace.
    ///
    /// # Errors
    /// Errors of `spawn`. The helpers that were started have ended then.
    pub fn start<B: std::ops::DerefMut<Target = [f32]> + Send + 'static>(
        size: usize,
        cores: usize,
        workspaces: Vec<B>,
        mut spawn: impl FnMut(usize, ThreadMain) -> Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let helper = |_: &B| {
            Ok(Helper {
                offer: AtomicPtr::new(ptr::null_mut()),
                asleep: AtomicBool::new(false),
                thread: OnceLock::new(),
            })
        };
        let state = Arc::new(State {
            size,
            cores,
            helpers: allocate::collected(workspaces.iter().map(helper), "the threads of the CPU path")?,
            reserved: AtomicUsize::new(0),
            callers: AtomicUsize::new(0),
            offering: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            sleeping: Mutex::new(()),
            departed: Condvar::new(),
            ending: AtomicBool::new(false),
        });
        let mut workers = Workers { state, handles: Vec::with_capacity(size) };
        for (index, mut workspace) in workspaces.into_iter().enumerate() {
            let state = workers.state.clone();
            workers.handles.push(spawn(index, Box::new(move || state.help(index, &mut workspace)))?);
        }
        Ok(workers)
    }

    /// Whether there are more threads than cores. A waiting thread should then yield its core at once.
    pub fn is_crowded(&self) -> bool {
        self.state.size > self.state.cores
    }

    /// Runs `work` on up to `threads` threads and returns when all of them have finished. The caller is one of them and
    /// uses `workspace`. `work` must not panic.
    pub fn run(&self, threads: usize, work: &WorkFn, workspace: &mut [f32]) {
        let state = &*self.state;
        let callers = state.callers.fetch_add(1, Ordering::Relaxed) + 1;
        let reserved = state.reserve(threads.min(state.size / callers).max(1));
        // SAFETY: only the lifetime changes. Helpers reach `work` through the job only, and this function does not
        // return before every offer of the job was accepted or taken back and every helper that accepted one has
        // left.
        let work_of_any_lifetime =
            unsafe { std::mem::transmute::<*const WorkFn<'_>, *const WorkFn<'static>>(work) };
        let job = Job {
            work: work_of_any_lifetime,
            any_asleep: AtomicBool::new(false),
            to_wake: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        };
        let offered = state.offer(&job, reserved - 1);
        work(0, workspace);
        if job.left.load(Ordering::Acquire) < offered {
            let joined = offered - state.take_back(&job);
            state.wait_until(|| job.left.load(Ordering::SeqCst) == joined);
        }
        state.callers.fetch_sub(1, Ordering::Relaxed);
        state.reserved.fetch_sub(reserved, Ordering::SeqCst);
        state.notify_callers();
    }
}

impl State {
    /// Reserves up to `wanted` places, at least one.
    fn reserve(&self, wanted: usize) -> usize {
        loop {
            let now = self.reserved.load(Ordering::Relaxed);
            let count = wanted.min(self.size.saturating_sub(now));
            if count == 0 {
                self.wait_until(|| self.reserved.load(Ordering::SeqCst) < self.size);
            } else if self
                .reserved
                .compare_exchange(now, now + count, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return count;
            }
        }
    }

    /// Offers the job to up to `count` free helpers. Returns to how many.
    fn offer(&self, job: &Job, count: usize) -> usize {
        let mut offered = 0;
        let mut end = 0;
        if count == 0 {
            return 0;
        }
        let offering = self.offering.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ptr::from_ref(job).cast_mut();
        let free = |helper: &Helper| helper.offer.load(Ordering::Relaxed).is_null();
        let asleep = |helper: &Helper| helper.asleep.load(Ordering::SeqCst);
        job.any_asleep.store(self.helpers.iter().any(asleep), Ordering::Relaxed);
        for (index, helper) in self.helpers.iter().enumerate() {
            if offered < count && free(helper) {
                helper.offer.store(place, Ordering::Release);
                (offered, end) = (offered + 1, index + 1);
            }
        }
        drop(offering);
        // A helper first announces that it sleeps and then looks for offers. Here the order is reversed, so one of
        // the two sees the other.
        fence(Ordering::SeqCst);
        if self.helpers[..end].iter().any(asleep) {
            self.wake(job);
        }
        offered
    }

    /// Wakes some of the sleeping helpers that the job is offered to.
    fn wake(&self, job: &Job) {
        let mut woken = 0;
        while woken < MAX_WAKES {
            let Some(helper) = self.helpers.get(job.to_wake.fetch_add(1, Ordering::Relaxed)) else { return };
            let is_offered = ptr::eq(helper.offer.load(Ordering::Relaxed), job);
            if let (true, true, Some(thread)) =
                (is_offered, helper.asleep.load(Ordering::SeqCst), helper.thread.get())
            {
                thread.unpark();
                woken += 1;
            }
        }
    }

    /// Takes back the offers that no helper has accepted. Returns how many.
    fn take_back(&self, job: &Job) -> usize {
        let place = ptr::from_ref(job).cast_mut();
        let take_back = |helper: &&Helper| {
            ptr::eq(helper.offer.load(Ordering::Relaxed), place)
                && helper
                    .offer
                    .compare_exchange(place, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        };
        self.helpers.iter().filter(take_back).count()
    }

    /// Waits until `condition` holds. A thread that leaves a job makes it true.
    fn wait_until(&self, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while start.elapsed() < SPIN_TIME {
            for _ in 0..SPINS_PER_CLOCK_READ {
                if condition() {
                    return;
                }
                std::hint::spin_loop();
            }
            if self.size > self.cores {
                std::thread::yield_now();
            }
        }
        let mut sleeping = self.sleeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while !condition() {
            sleeping = self.departed.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Notifies callers that a job may be done, or places free. The caller of this function has published that
    /// before, with sequential consistency.
    fn notify_callers(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // A caller that is counted as waiting holds the lock until it sleeps.
            drop(self.sleeping.lock().unwrap_or_else(PoisonError::into_inner));
            self.departed.notify_all();
        }
    }

    /// A helper's main loop.
    fn help(&self, index: usize, workspace: &mut [f32]) {
        let helper = &self.helpers[index];
        // Only this thread sets it, and only once.
        let _ = helper.thread.set(std::thread::current());
        loop {
            if let Some(job) = helper.join() {
                // SAFETY: the caller waits for helpers that have joined. So the job and what it points to are valid
                // until this thread is counted as having left.
                unsafe {
                    if (*job).any_asleep.load(Ordering::Relaxed) {
                        self.wake(&*job);
                    }
                    (*(*job).work)(index + 1, workspace);
                    // Becomes free before it leaves, so that the caller's next job finds it free.
                    helper.offer.store(ptr::null_mut(), Ordering::Release);
                    (*job).left.fetch_add(1, Ordering::SeqCst);
                }
                self.notify_callers();
            } else if self.ending.load(Ordering::SeqCst) {
                return;
            } else if !self.spin(index) {
                helper.asleep.store(true, Ordering::SeqCst);
                while helper.offer.load(Ordering::SeqCst).is_null() && !self.ending.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                helper.asleep.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Spins for a moment while waiting for an offer, if there is a core for it. Returns whether an offer came.
    fn spin(&self, index: usize) -> bool {
        let helper = &self.helpers[index];
        let start = Instant::now();
        let mut idle = start;
        loop {
            for _ in 0..SPINS_PER_CLOCK_READ {
                if !helper.offer.load(Ordering::Relaxed).is_null() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let (callers, now) = (self.callers.load(Ordering::Relaxed), Instant::now());
            if callers > 0 {
                idle = now;
            }
            let no_core = index + 1 + callers.max(1) > self.cores;
            if no_core || now - idle >= SPIN_TIME || now - start >= MAX_SPIN_TIME {
                return false;
            }
        }
    }
}

impl Helper {
    /// Accepts an offer, if there is one.
    fn join(&self) -> Option<*const Job> {
        let job = self.offer.load(Ordering::Relaxed);
        let taken = !job.is_null()
            && self.offer.compare_exchange(job, JOINED, Ordering::Acquire, Ordering::Relaxed).is_ok();
        taken.then_some(job.cast_const())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.state.ending.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            if loader::is_held() {
                // Under the loader's lock, a thread that has just been started cannot begin, so joining it would
                // deadlock. It uses nothing of a caller.
                continue;
            }
            // A job's panic is caught inside the job, so the result says nothing.
            let _ = handle.join();
        }
    }
}
