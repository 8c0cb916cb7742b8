//! The pool's threads, and how jobs reach them.
//!
//! A caller offers a job, a function that any number of threads may run at once and that shares its work out among
//! them, and takes part in it itself. So a call costs no sleep and no waking if the threads are awake, and they stay
//! awake a moment ([`STAY_AWAKE`]) after a call, because layers come in rows. No more stay awake than there are cores
//! for.
//!
//! ```text
//!   caller   offer ─ run ──────── take back ─ wait for those who joined ─ gone
//!   helper         └ join ─ run ─ leave ─ awake a moment ─ asleep
//!   helper              └ join (woken by the caller, or by the one before) ...
//! ```
//!
//! With many threads what counts is that they do not meet at one cache line. Each helper has a place of its own where
//! offers are put, and watches nothing else. An offer that nobody has taken up when the work is done is taken back, so a
//! caller never waits for a thread that sleeps, or that others keep from its core.
//!
//! At most `size` threads run jobs at once, callers included: a caller takes as many places as it will need, waits if
//! there is none, and gives them back at its end. Callers that come together have equal shares of the threads; as
//! many callers as places compute alone, which is what suits them best. What a job runs must not offer another one.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::allocate;
use crate::error::Result;
use crate::loader;

/// How long a thread that has nothing to do stays awake: somewhat longer than it takes to wake one.
const STAY_AWAKE: Duration = Duration::from_micros(50);

/// How long at most it stays awake because callers are at work, who will soon come back.
const LONGEST: Duration = Duration::from_millis(1);

/// How often a thread looks before it reads the clock.
const LOOKS: usize = 32;

/// How many sleepers a thread wakes: they wake others.
const WAKES: usize = 2;

/// What a thread does for a job, with its number, 0 for the caller, and its workspace. Returns when no work is left to be
/// taken.
type Work<'a> = dyn Fn(usize, &mut [f32]) + Sync + 'a;

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
    helpers: Vec<Helper>,
    /// Places taken by callers, for themselves and those they offer jobs to.
    taken: AtomicUsize,
    /// Callers that are there.
    callers: AtomicUsize,
    /// Held by a caller while it offers a job.
    offering: Mutex<()>,
    /// Callers that sleep, or are about to.
    waiting: AtomicUsize,
    sleeping: Mutex<()>,
    departed: Condvar,
    ending: AtomicBool,
}

/// What others need of a helper. Two lines of a cache, as they are often fetched in pairs.
#[repr(align(128))]
struct Helper {
    /// The job it is offered; [`JOINED`] while it runs one; null else.
    offer: AtomicPtr<Job>,
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

/// In the place of an offer that was taken up.
const JOINED: *mut Job = ptr::without_provenance_mut(1);

#[repr(align(128))]
struct Job {
    /// Lives as long as the job is offered or somebody is inside.
    work: *const Work<'static>,
    /// Whether some of those that it was offered to were asleep, and the first helper that may need waking.
    any_asleep: AtomicBool,
    to_wake: AtomicUsize,
    /// Helpers that have run it.
    left: AtomicUsize,
}

impl Crew {
    /// `size` threads, a caller being one of them: each helper, with a workspace of its own, is started by `spawn`.
    ///
    /// # Errors
    /// Of `spawn`; helpers that were started have ended.
    pub fn start<B: std::ops::DerefMut<Target = [f32]> + Send + 'static>(
        size: usize,
        cores: usize,
        workspaces: Vec<B>,
        mut spawn: impl FnMut(usize, Life) -> Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let helper = |_: &B| {
            Ok(Helper {
                offer: AtomicPtr::new(ptr::null_mut()),
                asleep: AtomicBool::new(false),
                thread: OnceLock::new(),
            })
        };
        let shared = Arc::new(Shared {
            size,
            cores,
            helpers: allocate::collected(workspaces.iter().map(helper), "the threads of the CPU path")?,
            taken: AtomicUsize::new(0),
            callers: AtomicUsize::new(0),
            offering: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            sleeping: Mutex::new(()),
            departed: Condvar::new(),
            ending: AtomicBool::new(false),
        });
        let mut crew = Crew { shared, handles: Vec::with_capacity(size) };
        for (index, mut workspace) in workspaces.into_iter().enumerate() {
            let shared = crew.shared.clone();
            crew.handles.push(spawn(index, Box::new(move || shared.help(index, &mut workspace)))?);
        }
        Ok(crew)
    }

    /// Whether threads outnumber cores, so that waiting should leave the core to others at once.
    pub fn is_crowded(&self) -> bool {
        self.shared.size > self.shared.cores
    }

    /// Runs `work`, which must not panic, on up to `threads` threads; returns when all have returned from it. The
    /// caller is one of them, with `workspace`.
    pub fn run(&self, threads: usize, work: &Work, workspace: &mut [f32]) {
        let shared = &*self.shared;
        let callers = shared.callers.fetch_add(1, Ordering::Relaxed) + 1;
        let taken = shared.take(threads.min(shared.size / callers).max(1));
        // SAFETY: only the lifetime changes. Helpers find `work` in the job alone, and this function does not return before
        // all offers of the job are taken up or taken back and all who took one up have left.
        let work_of_any_life = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        let job = Job {
            work: work_of_any_life,
            any_asleep: AtomicBool::new(false),
            to_wake: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
        };
        let offered = shared.offer(&job, taken - 1);
        work(0, workspace);
        if job.left.load(Ordering::Acquire) < offered {
            let joined = offered - shared.take_back(&job);
            shared.wait_until(|| job.left.load(Ordering::SeqCst) == joined);
        }
        shared.callers.fetch_sub(1, Ordering::Relaxed);
        shared.taken.fetch_sub(taken, Ordering::SeqCst);
        shared.call_callers();
    }
}

impl Shared {
    /// Takes up to `wanted` places, one at least.
    fn take(&self, wanted: usize) -> usize {
        loop {
            let now = self.taken.load(Ordering::Relaxed);
            let count = wanted.min(self.size.saturating_sub(now));
            if count == 0 {
                self.wait_until(|| self.taken.load(Ordering::SeqCst) < self.size);
            } else if self
                .taken
                .compare_exchange(now, now + count, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return count;
            }
        }
    }

    /// Offers the job to up to `count` helpers that are free; tells to how many.
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
        // A helper that is going to sleep says so and then looks for offers; here it is the other way round, so one of both
        // sees the other.
        fence(Ordering::SeqCst);
        if self.helpers[..end].iter().any(asleep) {
            self.wake(job);
        }
        offered
    }

    /// Wakes some of those to whom the job is offered and who sleep.
    fn wake(&self, job: &Job) {
        let mut woken = 0;
        while woken < WAKES {
            let Some(helper) = self.helpers.get(job.to_wake.fetch_add(1, Ordering::Relaxed)) else { return };
            let is_meant = ptr::eq(helper.offer.load(Ordering::Relaxed), job);
            if let (true, true, Some(thread)) =
                (is_meant, helper.asleep.load(Ordering::SeqCst), helper.thread.get())
            {
                thread.unpark();
                woken += 1;
            }
        }
    }

    /// Takes back the offers that nobody took up; tells how many.
    fn take_back(&self, job: &Job) -> usize {
        let place = ptr::from_ref(job).cast_mut();
        let untouched = |helper: &&Helper| {
            ptr::eq(helper.offer.load(Ordering::Relaxed), place)
                && helper
                    .offer
                    .compare_exchange(place, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        };
        self.helpers.iter().filter(untouched).count()
    }

    /// Waits for something that somebody who leaves will make true.
    fn wait_until(&self, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while start.elapsed() < STAY_AWAKE {
            for _ in 0..LOOKS {
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

    /// Tells callers that a job may be done, or places free. Either was made known, sequentially consistent, before.
    fn call_callers(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Who has counted itself holds the lock until it sleeps.
            drop(self.sleeping.lock().unwrap_or_else(PoisonError::into_inner));
            self.departed.notify_all();
        }
    }

    /// A helper's life.
    fn help(&self, index: usize, workspace: &mut [f32]) {
        let helper = &self.helpers[index];
        // Only this thread sets it, once.
        let _ = helper.thread.set(std::thread::current());
        loop {
            if let Some(job) = helper.join() {
                // SAFETY: who has joined is waited for, so the job is there, and what it points to, until this thread is
                // counted as having left.
                unsafe {
                    if (*job).any_asleep.load(Ordering::Relaxed) {
                        self.wake(&*job);
                    }
                    (*(*job).work)(index + 1, workspace);
                    // Free before it has left: the caller's next job finds it so.
                    helper.offer.store(ptr::null_mut(), Ordering::Release);
                    (*job).left.fetch_add(1, Ordering::SeqCst);
                }
                self.call_callers();
            } else if self.ending.load(Ordering::SeqCst) {
                return;
            } else if !self.look_out(index) {
                helper.asleep.store(true, Ordering::SeqCst);
                while helper.offer.load(Ordering::SeqCst).is_null() && !self.ending.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                helper.asleep.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Waits a moment for an offer, if there is a core for that.
    fn look_out(&self, index: usize) -> bool {
        let helper = &self.helpers[index];
        let start = Instant::now();
        let mut idle = start;
        loop {
            for _ in 0..LOOKS {
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
            if no_core || now - idle >= STAY_AWAKE || now - start >= LONGEST {
                return false;
            }
        }
    }
}

impl Helper {
    /// Takes up an offer, if there is one.
    fn join(&self) -> Option<*const Job> {
        let job = self.offer.load(Ordering::Relaxed);
        let taken = !job.is_null()
            && self.offer.compare_exchange(job, JOINED, Ordering::Acquire, Ordering::Relaxed).is_ok();
        taken.then_some(job.cast_const())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            if loader::is_held() {
                // One that has just been started cannot begin before that is over, and has nothing of a caller's.
                continue;
            }
            // A job's panic is caught within it, so there is nothing to learn here.
            let _ = handle.join();
        }
    }
}
