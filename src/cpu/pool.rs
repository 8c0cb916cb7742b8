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

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use super::buffer::{self, Borrowed, Buffer};
use super::call_watch;
use super::process_lock::ProcessLock;
use super::workers::{ThreadMain, Workers};
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
pub fn num_threads() -> usize {
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
    let (kernel, threads) = (computing.elapsed(), team.size());
    drop(team);
    let timing = Timing { kernel, wall: start.elapsed(), dispatches: 1 };
    call_watch::computed(flops, threads, kernel);
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

/// The threads of one call, each with a workspace of [`WORKSPACE_LEN`] elements.
pub struct Team {
    pool: Option<Arc<Pool>>,
    /// The caller's workspace.
    workspace: Borrowed,
}

impl Team {
    /// The calling thread for small work, the shared pool for more.
    ///
    /// # Errors
    /// Out of memory.
    pub fn for_work(flops: u64) -> Result<Self> {
        if flops < INLINE_FLOPS { Team::new(None) } else { Team::shared() }
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
            return Team::new(None);
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
        Team::new(Some(pool))
    }

    /// A team with a pool of its own, for tests.
    #[cfg(test)]
    pub fn of(size: usize) -> Self {
        let pool = (size > 1).then(|| Arc::new(Pool::build(size, spawn)));
        Team::new(pool).expect("memory for a workspace")
    }

    fn new(pool: Option<Arc<Pool>>) -> Result<Self> {
        Ok(Team { pool, workspace: Borrowed::take(&WORKSPACE, WORKSPACE_LEN)? })
    }

    /// Threads that work at the same time.
    pub fn size(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| if pool.workers.is_ok() { pool.size } else { 1 })
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
        match self.pool.as_ref().and_then(|pool| pool.workers.as_ref().ok()) {
            Some(workers) if threads > 1 => {
                let steps = steps.map(|tasks| Step::new(tasks, threads));
                let spins = if workers.is_crowded() { 1 } else { SPINS };
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
                workers.run(threads, &work, &mut self.workspace);
            }
            _ => {
                let workspace = Cell::new(&mut *self.workspace);
                guarded(&|| {
                    let workspace = workspace.take();
                    for (number, &tasks) in steps.iter().enumerate() {
                        (0..tasks).for_each(|index| task(number, index, workspace));
                    }
                });
            }
        }
        if panicked.into_inner() {
            return Err(Error::Internal("a task of the CPU engine panicked".into()));
        }
        Ok(())
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
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_with_a_workspace() {
        let sizes = [(1, 100), (3, 1_000), (3, 1), (2, 0), (16, 5), (16, 16), (16, 333), (64, 1_000)];
        for (mut team, tasks) in sizes.map(|(threads, tasks)| (Team::of(threads), tasks)) {
            let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            team.run(tasks, |index, workspace| {
                assert!(workspace.len() >= WORKSPACE_LEN);
                counts[index].fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_step_begins_when_the_one_before_has_ended() {
        let mut cases = 0;
        for mut team in [1, 2, 3, 7].map(Team::of) {
            for steps in [[40, 3, 25], [1, 0, 9], [0, 0, 0], [5, 60, 1]] {
                let ended = [(); 3].map(|()| AtomicUsize::new(0));
                team.run_steps(steps, |step, _, _| {
                    for (before, count) in ended.iter().zip(steps).take(step) {
                        assert_eq!(before.load(Ordering::Relaxed), count);
                    }
                    std::thread::yield_now();
                    ended[step].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
                assert_eq!(ended.map(AtomicUsize::into_inner), steps);
                cases += 1;
            }
            // Threads that wait for the step's end do not hang after a panic.
            let failed = team.run_steps([9, 9], |step, index, _| assert_ne!((step, index), (0, 4), "a test"));
            assert!(failed.is_err());
        }
        assert_eq!(cases, 16);
    }

    #[test]
    fn workspaces_are_not_shared() {
        let mut team = Team::of(4);
        team.run(100, |index, workspace| {
            workspace[0] = index as f32;
            std::thread::yield_now();
            assert_eq!(workspace[0], index as f32);
        })
        .unwrap();
    }

    #[test]
    fn little_work_and_single_tasks_stay_on_the_caller() {
        let caller = std::thread::current().id();
        let on_caller = |_: usize, _: &mut [f32]| assert_eq!(std::thread::current().id(), caller);
        Team::for_work(1).unwrap().run(5, on_caller).unwrap();
        Team::of(2).run(1, on_caller).unwrap();
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_stays_usable() {
        let mut team = Team::of(2);
        for _ in 0..3 {
            let result = team.run(10, |index, _| assert_ne!(index, 4, "a test"));
            assert_eq!(result, Err(Error::Internal("a task of the CPU engine panicked".into())));
            assert_eq!(team.run(10, |_, _| {}), Ok(()));
        }
        assert!(Team::of(1).run(3, |_, _| panic!("a test")).is_err());
    }

    #[test]
    fn many_callers_share_the_threads() {
        let mut cases = 0;
        for size in [2, 3] {
            let pool = Arc::new(Pool::build(size, spawn));
            let (at_work, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| {
                        let mut team = Team::new(Some(pool.clone())).unwrap();
                        for _ in 0..20 {
                            team.run_steps([8, 5], |_, _, _| {
                                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                                std::thread::yield_now();
                                done.fetch_add(1, Ordering::SeqCst);
                                at_work.fetch_sub(1, Ordering::SeqCst);
                            })
                            .unwrap();
                        }
                    });
                }
            });
            let most = most.into_inner();
            assert!((1..=size).contains(&most), "{most} threads computed at once");
            assert_eq!(done.into_inner(), 16 * 20 * 13);
            cases += 1;
        }
        assert_eq!(cases, 2);
    }

    #[test]
    fn many_jobs_in_a_row_lose_and_repeat_nothing() {
        // With more threads than cores, helpers join late or not at all, and offers are taken back.
        let mut cases = 0;
        for (size, rounds) in [(2, 3_000), (5, 1_000), (64, 200)] {
            let mut team = Team::of(size);
            let sum = AtomicUsize::new(0);
            for round in 1..=rounds {
                let tasks = [1 + round % 7, round % 3, 1 + round % (2 * size)];
                sum.store(0, Ordering::Relaxed);
                team.run_steps(tasks, |step, index, _| {
                    assert!(index < tasks[step] && worker() < size);
                    sum.fetch_add(1 + 100 * index, Ordering::Relaxed);
                })
                .unwrap();
                let expected: usize =
                    tasks.iter().map(|&count| count + 50 * count * count.saturating_sub(1)).sum();
                assert_eq!(sum.load(Ordering::Relaxed), expected);
                cases += 1;
            }
        }
        assert!(cases > 0);
    }

    #[test]
    fn a_thread_runs_its_share_first_and_then_takes_tasks_of_others() {
        let step = Step::new(10, 4);
        let mut order = vec![];
        assert_eq!(step.work(2, |index| order.push(index)), 10);
        assert_eq!(order, [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
        assert_eq!(step.work(0, |_| unreachable!("all are taken")), 0);
    }

    #[test]
    fn helpers_take_part_when_they_slept_and_when_they_are_awake() {
        let mut team = Team::of(3);
        for pause in [0, 0, 2, 0, 5] {
            std::thread::sleep(std::time::Duration::from_millis(pause));
            // Each task waits for the others: they end only if three threads work on them.
            let barrier = std::sync::Barrier::new(3);
            team.run(3, |_, _| {
                barrier.wait();
            })
            .unwrap();
        }
    }

    #[test]
    fn the_caller_computes_if_not_all_threads_can_be_started() {
        let mut left = 2;
        let pool = Pool::build(4, |index, life| {
            if left == 0 {
                return Err(Error::OutOfMemory { device: "cpu".into(), what: "a test".into() });
            }
            left -= 1;
            spawn(index, life)
        });
        assert!(pool.workers.is_err());
        let mut team = Team::new(Some(Arc::new(pool))).unwrap();
        assert_eq!(team.size(), 1);
        let caller = std::thread::current().id();
        team.run(4, |_, _| assert_eq!(std::thread::current().id(), caller)).unwrap();
    }

    #[test]
    fn ending_a_pool_waits_for_its_threads() {
        let ended = Arc::new(AtomicUsize::new(0));
        let pool = Pool::build(3, |_, life| {
            let ended = ended.clone();
            crate::thread::spawn("cpu", "test", move || {
                life();
                ended.fetch_add(1, Ordering::SeqCst);
            })
        });
        let mut team = Team::new(Some(Arc::new(pool))).unwrap();
        team.run(9, |_, _| {}).unwrap();
        drop(team);
        assert_eq!(ended.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn invalid_thread_counts_are_rejected() {
        for count in [0, MAX_THREADS + 1, usize::MAX] {
            let message = set_num_threads(count).unwrap_err().to_string();
            assert_eq!(message, format!("number of threads is {count}; expected 1 to 1024"));
        }
        assert!(num_threads() >= 1);
    }
}
