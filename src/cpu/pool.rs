//! The thread pool of the CPU engine, and the parallel loops of a call.
//!
//! The library's threads live inside other programs. So the pool is private, its threads are never pinned, and they
//! start at first use. All calls share it, from any number of threads. No more threads compute at the same time than
//! were asked for, callers included ([`super::workers`]). With one thread there is no pool: the caller computes.
//!
//! A forked child builds its own pool. The pool that it inherited has no threads there and is left alone
//! ([`ProcessLock`]). One case cannot be handled: a fork at the moment when another thread starts or ends a thread.
//! In a program whose `main` is in Rust, the standard library then holds a lock of its own, and the child's new
//! threads wait for it for ever.
//!
//! A call asks for a [`Team`] once and then runs parallel loops on it. A loop has a handful of tasks for each thread,
//! so it costs the waking of the threads: some microseconds, or less if they still spin. Small work stays on the
//! caller ([`Team::for_work`]).
//!
//! With the feature `rayon` a program may lend a pool of rayon's threads ([`super::lent`]). Calls then use these and no
//! others.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::buffer::{self, Borrowed, Buffer};
use super::call_watch::CALLS;
use super::kernel::finish::Finish;
#[cfg(feature = "rayon")]
use super::lent::{self, LentPool};
use super::process_lock::ProcessLock;
use super::workers::{ThreadMain, Workers};
use crate::backend::Memory;
use crate::config::config;
use crate::cpu::tunables::{MAX_SHARES, MAX_THREADS, SPINS};
use crate::error::{Error, Result};
use crate::loader;
use crate::memory::blocking::{INLINE_FLOPS, WORKSPACE as WORKSPACE_LEN};
use crate::report::Timing;

/// The number of threads set by [`set_num_threads`], or 0.
static ASKED: AtomicUsize = AtomicUsize::new(0);

static POOL: ProcessLock<Arc<Pool>> = ProcessLock::new();

/// Sets the number of threads that later CPU calls use; 1 computes on the calling thread. Calls in progress keep the
/// threads they have.
///
/// # Errors
/// [`Error::InvalidArgument`] for zero and for more than 1024.
pub fn set_num_threads(count: usize) -> Result<()> {
    if count == 0 || count > MAX_THREADS {
        return Err(Error::invalid("number of threads", count, format!("1 to {MAX_THREADS}")));
    }
    ASKED.store(count, Ordering::Relaxed);
    Ok(())
}

/// The number of threads that a CPU call uses: as set by [`set_num_threads`], else `SPARKLE_NUM_THREADS`, else
/// `OMP_NUM_THREADS`, else the number that the system makes available.
///
/// In a job that a pipeline runs beside other devices it may be less.
pub fn num_threads() -> usize {
    let count = asked_threads();
    match MOST.get() {
        0 => count,
        most => count.min(most),
    }
}

thread_local! {
    /// The most threads for calls of this thread; 0 without a limit.
    static MOST: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`, whose CPU calls on this thread use at most `count` threads.
pub fn with_threads<R>(count: usize, work: impl FnOnce() -> R) -> R {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            MOST.set(self.0);
        }
    }
    let _restore = Restore(MOST.replace(count.max(1)));
    work()
}

fn asked_threads() -> usize {
    match ASKED.load(Ordering::Relaxed) {
        0 => config().num_threads.or(config().omp_num_threads).unwrap_or_else(available).min(MAX_THREADS),
        asked => asked,
    }
}

/// The number of threads that the system makes available. Asked once, as the answer takes reading files.
fn available() -> usize {
    static AVAILABLE: AtomicUsize = AtomicUsize::new(0);
    if AVAILABLE.load(Ordering::Relaxed) == 0 {
        let count = std::thread::available_parallelism().map_or(1, |count| count.get());
        AVAILABLE.store(count, Ordering::Relaxed);
    }
    AVAILABLE.load(Ordering::Relaxed)
}

/// Bytes of workspace of a call of `flops` operations: those of [`Team::for_work`] with the current number of threads.
pub fn workspace_bytes(flops: u64) -> usize {
    let alone = flops < INLINE_FLOPS || num_threads() == 1;
    let buffers = if alone { 1 } else { num_threads() };
    buffers * WORKSPACE_LEN * size_of::<f32>()
}

/// The memory of a plan that keeps `packed` floats and whose runs take `flops` operations.
pub fn plan_memory(packed: usize, flops: u64) -> Memory {
    Memory { packed: packed * size_of::<f32>(), workspace: workspace_bytes(flops) }
}

/// Runs `work` on a team for that many operations, and measures its times.
///
/// # Errors
/// Out of memory, before anything is computed. Errors of `work`.
pub fn timed(flops: u64, work: impl FnOnce(&mut Team) -> Result<()>) -> Result<Timing> {
    let start = Instant::now();
    let mut team = Team::for_work(flops)?;
    if flops < INLINE_FLOPS {
        // No pool was needed, so all of the time is computing. It is so short that four looks at the clock would be a
        // good part of it.
        work(&mut team)?;
        let wall = start.elapsed();
        return Ok(Timing { kernel: wall, wall, dispatches: 1 });
    }
    let computing = Instant::now();
    work(&mut team)?;
    let (kernel, threads, finishes) = (computing.elapsed(), team.size(), team.finish().is_some());
    drop(team);
    let timing = Timing { kernel, wall: start.elapsed(), dispatches: 1 };
    // An epilogue takes time of its own.
    if !finishes {
        CALLS.computed(flops, threads, kernel);
    }
    Ok(timing)
}

/// Ends the pool after the last call that uses it, and waits for its threads. Frees the calling thread's workspace. The
/// next call starts another pool.
pub fn shutdown() {
    // Dropped outside the lock, because dropping joins threads.
    let pool = POOL.with(Option::take);
    drop(pool);
    clear();
}

/// Frees the calling thread's workspace.
pub fn clear() {
    buffer::clear(&WORKSPACE);
}

thread_local! {
    /// The workspace of a calling thread.
    static WORKSPACE: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Lends the threads of a rayon pool to all later CPU calls, and ends the library's own threads. `None` means the pool
/// that the calling thread belongs to, or else rayon's global pool.
///
/// A call runs on its caller and on up to [`num_threads`] - 1 threads of the pool that have nothing else to do. It never
/// waits for a thread that has. Calls may come from inside of the pool. Each thread that takes part keeps 1 MiB of
/// workspace until it ends. The bits of results are the same. [`crate::finalize`] does not end the loan, and a forked
/// child does not have it.
///
/// # Errors
/// [`Error::OutOfMemory`] if rayon's global pool is needed and cannot be started.
#[cfg(feature = "rayon")]
pub fn lend_rayon_pool(pool: Option<Arc<rayon::ThreadPool>>) -> Result<()> {
    let lent = match pool {
        Some(pool) => LentPool::Pool(pool),
        None => {
            // Starts the pool at its first use; rayon panics if that fails.
            catch_unwind(rayon::current_num_threads).map_err(|_| Error::OutOfMemory {
                device: "cpu".into(),
                what: "the system cannot start the threads of rayon's global pool".into(),
            })?;
            LentPool::OfCaller
        }
    };
    lent::set(Some(lent));
    shutdown();
    Ok(())
}

/// Ends the loan of [`lend_rayon_pool`]: later CPU calls start threads of the library's own.
#[cfg(feature = "rayon")]
pub fn end_rayon_loan() {
    lent::set(None);
}

/// The threads of a [`Team`].
enum Threads {
    /// The caller alone.
    Caller,
    Pool(Arc<Pool>),
    /// Rayon's, and how many of them, the caller included.
    #[cfg(feature = "rayon")]
    Lent(LentPool, usize),
}

/// The threads of one call, each with a workspace of [`WORKSPACE_LEN`] elements.
pub struct Team {
    threads: Threads,
    /// The caller's workspace.
    workspace: Borrowed,
    /// The epilogue of the call.
    finish: Finish,
}

impl Team {
    /// The calling thread for small work, the shared pool for more.
    ///
    /// # Errors
    /// Out of memory.
    pub fn for_work(flops: u64) -> Result<Self> {
        if flops < INLINE_FLOPS { Team::new(Threads::Caller) } else { Team::shared() }
    }

    /// The shared pool, built now if necessary. The calling thread alone if one thread was asked for or none could be
    /// started.
    ///
    /// # Errors
    /// Out of memory.
    pub fn shared() -> Result<Self> {
        let size = num_threads();
        // Under the loader's lock no thread can start, and one that was just started may not have begun.
        if size == 1 || loader::is_held() {
            return Team::new(Threads::Caller);
        }
        #[cfg(feature = "rayon")]
        if let Some(lent) = lent::get() {
            let size = size.min(lent.size());
            return Team::new(Threads::Lent(lent, size));
        }
        let (pool, fresh, outgrown) = POOL.with(|current| match current {
            Some(pool) if pool.size == size => (pool.clone(), false, None),
            _ => {
                let pool = Arc::new(Pool::build(size, spawn));
                (pool.clone(), true, current.replace(pool))
            }
        });
        // Both outside the lock: dropping joins threads, and a log callback may call the library.
        drop(outgrown);
        if let (true, Err(reason)) = (fresh, &pool.workers) {
            crate::log::warning!(
                "cpu: could not start {size} threads, computing on the calling thread: {reason}"
            );
        }
        Team::new(Threads::Pool(pool))
    }

    /// The calling thread alone.
    ///
    /// # Errors
    /// Out of memory.
    pub fn alone() -> Result<Self> {
        Team::new(Threads::Caller)
    }

    /// A team with a pool of its own, for tests.
    #[cfg(test)]
    pub fn of(size: usize) -> Self {
        let threads = match size {
            1 => Threads::Caller,
            _ => Threads::Pool(Arc::new(Pool::build(size, spawn))),
        };
        Team::new(threads).expect("memory for a workspace")
    }

    fn new(threads: Threads) -> Result<Self> {
        let workspace = Borrowed::take(&WORKSPACE, WORKSPACE_LEN)?;
        Ok(Team { threads, workspace, finish: Finish::current() })
    }

    /// What finishes the outputs of the call that the team works for.
    pub fn finish(&self) -> Finish {
        self.finish
    }

    /// Threads that work at the same time.
    pub fn size(&self) -> usize {
        match &self.threads {
            Threads::Caller => 1,
            Threads::Pool(pool) => {
                if pool.workers.is_ok() {
                    pool.size
                } else {
                    1
                }
            }
            #[cfg(feature = "rayon")]
            Threads::Lent(_, size) => *size,
        }
    }

    /// Runs `task(0, ..)` to `task(tasks - 1, ..)`, each once, and returns when all are done. The order is arbitrary
    /// with several threads, ascending with one. Each task gets its thread's workspace, which holds arbitrary values.
    ///
    /// Consecutive tasks mostly run on one thread, the same one in each call. So their data may still be in its caches.
    /// Threads that have finished their share take tasks from others, so uneven tasks balance.
    ///
    /// # Errors
    /// [`Error::Internal`] if a task panicked; the pool stays usable.
    pub fn run(&mut self, tasks: usize, task: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
        self.run_steps([tasks], |_, index, workspace| task(index, workspace))
    }

    /// Runs steps one after the other. Each step runs `task(step, index, ..)` as [`Team::run`] does, and ends before
    /// the next one begins. Threads without a task spin until the step ends, which takes less time than waking them
    /// again.
    ///
    /// # Errors
    /// [`Error::Internal`] if a task panicked. Later steps may not have run; the pool stays usable.
    pub fn run_steps<const N: usize>(
        &mut self,
        steps: [usize; N],
        task: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        let panicked = AtomicBool::new(false);
        let guarded = |work: &dyn Fn()| {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                panicked.store(true, Ordering::Relaxed);
            }
        };
        let threads = steps.into_iter().max().unwrap_or(0).min(self.size());
        if threads > 1 {
            let steps = steps.map(|tasks| Step::new(tasks, threads));
            let spins = if self.is_crowded() { 1 } else { SPINS };
            let work = |worker: usize, workspace: &mut [f32]| {
                WORKER.set(worker);
                let workspace = Cell::new(workspace);
                guarded(&|| {
                    let workspace = workspace.take();
                    for (number, step) in steps.iter().enumerate().filter(|(_, step)| step.tasks > 0) {
                        let done = step.work(worker, |index| task(number, index, workspace));
                        if number + 1 < N && !step.end(done, spins, &panicked) {
                            return;
                        }
                    }
                });
            };
            self.run_on(threads, &work);
        } else {
            let workspace = Cell::new(&mut *self.workspace);
            guarded(&|| {
                let workspace = workspace.take();
                for (number, &tasks) in steps.iter().enumerate() {
                    (0..tasks).for_each(|index| task(number, index, workspace));
                }
            });
        }
        if panicked.into_inner() {
            return Err(Error::Internal("a task of the CPU engine panicked".into()));
        }
        Ok(())
    }

    /// Whether there are more threads than cores.
    fn is_crowded(&self) -> bool {
        match &self.threads {
            Threads::Pool(pool) => pool.workers.as_ref().is_ok_and(Workers::is_crowded),
            Threads::Caller => false,
            // The program's other threads are unknown.
            #[cfg(feature = "rayon")]
            Threads::Lent(..) => true,
        }
    }

    /// Runs `work` on up to `threads` threads, the caller among them.
    fn run_on(&mut self, threads: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        match &self.threads {
            Threads::Pool(pool) => match &pool.workers {
                Ok(workers) => workers.run(threads, work, &mut self.workspace),
                Err(_) => work(0, &mut self.workspace),
            },
            Threads::Caller => work(0, &mut self.workspace),
            #[cfg(feature = "rayon")]
            Threads::Lent(lent, _) => {
                let borrow = || Borrowed::take(&WORKSPACE, WORKSPACE_LEN).ok();
                lent.run(threads, work, &mut self.workspace, borrow);
            }
        }
    }
}

thread_local! {
    /// The number of this thread in its team.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// The number in its team of the thread that runs a task. It is below the team's size.
pub fn worker() -> usize {
    WORKER.get()
}

/// One step's tasks, divided into shares.
struct Step {
    tasks: usize,
    /// The next task of each share. Each thread has a share of about equal size.
    shares: Vec<CachePadded<AtomicUsize>>,
    done: CachePadded<AtomicUsize>,
    /// Whether all tasks are done. All threads watch it, so it has a cache line apart from `done`.
    ended: CachePadded<AtomicBool>,
}

/// A value on cache lines of its own: two, as they are often fetched in pairs.
#[repr(align(128))]
pub struct CachePadded<T>(pub T);

impl Step {
    fn new(tasks: usize, threads: usize) -> Self {
        let threads = threads.min(MAX_SHARES);
        let shares =
            (0..threads).map(|share| CachePadded(AtomicUsize::new(share * tasks / threads))).collect();
        let (done, ended) = (CachePadded(AtomicUsize::new(0)), CachePadded(AtomicBool::new(false)));
        Step { tasks, shares, done, ended }
    }

    /// Runs the tasks of the thread's share, then those left in other shares. Returns how many it ran.
    fn work(&self, worker: usize, mut task: impl FnMut(usize)) -> usize {
        let (threads, mut count) = (self.shares.len(), 0);
        for turn in 0..threads {
            let share = (worker + turn) % threads;
            let (next, end) = (&self.shares[share].0, (share + 1) * self.tasks / threads);
            // A load costs less than an attempt, and most shares have nothing left.
            while next.load(Ordering::Relaxed) < end {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index < end {
                    task(index);
                    count += 1;
                }
            }
        }
        count
    }

    /// Adds `done` tasks of this thread and waits until all tasks are done. Returns false if a task panicked. Every
    /// task that is not done is running on some thread, so this ends with any number of threads.
    fn end(&self, done: usize, spins: usize, panicked: &AtomicBool) -> bool {
        if self.done.0.fetch_add(done, Ordering::AcqRel) + done == self.tasks {
            self.ended.0.store(true, Ordering::Release);
        }
        let mut turns = 0;
        while !self.ended.0.load(Ordering::Acquire) {
            if panicked.load(Ordering::Relaxed) {
                return false;
            }
            turns += 1;
            if turns % spins == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        true
    }
}

/// The shared pool.
struct Pool {
    /// Threads that were asked for, the caller included.
    size: usize,
    /// The other threads, or why they could not be started. Kept, so that not every call tries again.
    workers: std::result::Result<Workers, String>,
}

impl Pool {
    /// A pool of `size` threads. `spawn` starts all but the caller. If that fails, the pool has no threads.
    fn build(size: usize, spawn: impl FnMut(usize, ThreadMain) -> Result<JoinHandle<()>>) -> Self {
        let workspaces: Result<Vec<Buffer>> = (1..size).map(|_| Buffer::zeroed(WORKSPACE_LEN)).collect();
        let workers = workspaces.and_then(|workspaces| Workers::start(size, available(), workspaces, spawn));
        Pool { size, workers: workers.map_err(|error| error.to_string()) }
    }
}

fn spawn(index: usize, main: ThreadMain) -> Result<JoinHandle<()>> {
    crate::thread::spawn("cpu", &format!("thread {index}"), main)
}

#[cfg(test)]
mod tests;
