//! Threads that copy between ordinary memory and the slots. They split large copies.
//!
//! One core has a fifth of the bandwidth of a GPU's bus; several cores exceed it. Small copies run on the calling
//! thread, because waking another costs more. Threads stay awake briefly after a copy, since pieces come in
//! sequences. Waking a core of a virtual machine takes as long as copying some megabytes.

use std::cell::Cell;
use std::collections::LinkedList;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use super::sync::{Condvar, Mutex, lock, wait, wait_timeout};
use crate::gl::driver::exit::{self, Copying};
use crate::gl::tunables::{COPIER_AWAKE, COPY_PART, MAX_COPIERS, SMALL_COPY, WAKES};
use crate::loader;
use crate::thread::is_current;

/// A pipeline's share in the threads. Dropping it waits for its tasks.
pub struct Copiers {
    pool: Arc<Pool>,
    /// The tasks of this pipeline that have not ended.
    open: Arc<OpenTasks>,
    /// Processors that run other threads of this pipeline.
    others: usize,
}

/// The threads. All pipelines of the process share them, so that several devices do not start more threads than there
/// are processors.
#[derive(Default)]
struct Pool {
    queue: Arc<TaskQueue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The sum of `others` over the pipelines.
    others: AtomicUsize,
}

/// The pool of the process, while there are pipelines.
static POOL: Mutex<Weak<Pool>> = Mutex::new(Weak::new());

/// Tasks that have not ended.
#[derive(Default)]
struct OpenTasks {
    count: Mutex<usize>,
    none: Condvar,
}

/// A task that has not ended, until this is dropped.
struct OpenTask(Arc<OpenTasks>);

impl OpenTasks {
    fn add(self: &Arc<Self>) -> OpenTask {
        *lock(&self.count) += 1;
        OpenTask(self.clone())
    }
}

impl Drop for OpenTask {
    fn drop(&mut self) {
        let mut count = lock(&self.0.count);
        *count -= 1;
        self.0.none.notify_all();
    }
}

#[derive(Default)]
struct TaskQueue {
    state: Mutex<State>,
    work: Condvar,
    /// Number of queued tasks, for threads that are awake to see without the lock.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Queued tasks. A list allocates each node by itself, so that no number of tasks needs a large allocation.
    tasks: LinkedList<CopierTask>,
    /// Number of sleeping threads.
    asleep: usize,
    /// Number of threads that there are, and that there should be.
    running: usize,
    threads: usize,
    closed: bool,
}

enum CopierTask {
    Copy(CopyPart),
    Run(Box<dyn FnOnce() + Send>, OpenTask),
}

struct CopyPart {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    copy: Arc<CopyState>,
    /// Makes the exit of the process wait: a driver unmaps its memory then.
    copying: Copying,
    _open: OpenTask,
}

// SAFETY: callers of `copy` promise that any thread may use the memory until the copy has ended.
unsafe impl Send for CopyPart {}

/// What the parts of one copy share.
struct CopyState {
    left: AtomicUsize,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Copiers {
    /// Joins the process's threads: one per processor, except for `others` processors of each pipeline. Those run threads
    /// that are busy during copies.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the system creates no thread.
    pub fn start(others: usize) -> crate::Result<Self> {
        let mut shared = lock(&POOL);
        let pool = match shared.upgrade() {
            Some(pool) => pool,
            None => {
                let pool = Arc::new(Pool::default());
                *shared = Arc::downgrade(&pool);
                pool
            }
        };
        drop(shared);
        Copiers::of(pool, others)
    }

    /// A share in `pool`.
    ///
    /// # Errors
    /// As [`Copiers::start`].
    fn of(pool: Arc<Pool>, others: usize) -> crate::Result<Self> {
        pool.others.fetch_add(others, Ordering::Relaxed);
        let copiers = Copiers { pool, open: Arc::default(), others };
        copiers.pool.adjust()?;
        Ok(copiers)
    }

    /// A thread of its own, for tests.
    ///
    /// # Errors
    /// As [`Copiers::start`].
    #[cfg(test)]
    pub fn alone() -> crate::Result<Self> {
        Copiers::of(Arc::new(Pool::default()), 1 << 20)
    }

    fn queue(&self) -> &TaskQueue {
        &self.pool.queue
    }

    /// Copies `bytes` bytes, then runs `then` on some thread.
    ///
    /// # Safety
    /// Until `then` runs, `from` is valid for reads and `to` for writes of `bytes` bytes, by any thread. They do
    /// not overlap. No other code writes to either or reads `to`.
    pub unsafe fn copy(
        &self,
        from: *const u8,
        to: *mut u8,
        bytes: usize,
        then: impl FnOnce() + Send + 'static,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { self.enqueue((from, to, bytes), then, LinkedList::push_back) };
    }

    /// Like [`Copiers::copy`]; `insert` inserts each part into the queue.
    ///
    /// # Safety
    /// As for [`Copiers::copy`].
    unsafe fn enqueue(
        &self,
        (from, to, bytes): (*const u8, *mut u8, usize),
        then: impl FnOnce() + Send + 'static,
        insert: fn(&mut LinkedList<CopierTask>, CopierTask),
    ) {
        if bytes <= SMALL_COPY {
            // SAFETY: the caller promises valid memory that does not overlap.
            unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
            return then();
        }
        let threads = lock(&self.queue().state).threads.max(1);
        let part = bytes.div_ceil(4 * threads).max(COPY_PART).next_multiple_of(64);
        let parts = bytes.div_ceil(part);
        let then: Box<dyn FnOnce() + Send> = Box::new(then);
        let copy = Arc::new(CopyState { left: AtomicUsize::new(parts), then: Mutex::new(Some(then)) });
        let mut state = lock(&self.queue().state);
        self.queue().waiting.fetch_add(parts, Ordering::Relaxed);
        for index in 0..parts {
            let offset = index * part;
            // SAFETY: the offset is inside the memory that the caller promised.
            let (from, to) = unsafe { (from.add(offset), to.add(offset)) };
            let bytes = part.min(bytes - offset);
            insert(
                &mut state.tasks,
                CopierTask::Copy(CopyPart {
                    from,
                    to,
                    bytes,
                    copy: copy.clone(),
                    copying: Copying::begin(),
                    _open: self.open.add(),
                }),
            );
        }
        let sleepers = state.asleep.min(parts);
        drop(state);
        self.queue().wake(sleepers);
    }

    /// Copies `from` to `to` before all queued tasks. Returns when the copy is done.
    ///
    /// # Safety
    /// `to` is valid for writes of `from.len()` bytes, by any thread. They do not overlap, and no other code uses
    /// them meanwhile.
    pub unsafe fn copy_now(&self, from: &[u8], to: *mut u8) {
        let done = Arc::new(AtomicBool::new(false));
        let tell = done.clone();
        // SAFETY: both live until this returns, which is after `then` has run. `then` always runs, since a copy
        // cannot panic.
        unsafe {
            let then = move || tell.store(true, Ordering::Release);
            self.enqueue((from.as_ptr(), to, from.len()), then, LinkedList::push_front);
        }
        // This takes some hundred microseconds at most. Sleeping and waking would take as long.
        while !done.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    /// Runs `task` on one of the threads.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.queue().state);
        self.queue().waiting.fetch_add(1, Ordering::Relaxed);
        state.tasks.push_back(CopierTask::Run(Box::new(task), self.open.add()));
        drop(state);
        self.queue().work.notify_one();
    }
}

impl Drop for Copiers {
    fn drop(&mut self) {
        self.pool.others.fetch_sub(self.others, Ordering::Relaxed);
        // As for threads ([`exit::join`]): not under the loader's lock, and not for ever at the end of the process.
        if loader::is_held() {
            return;
        }
        // A task on a copier thread may drop the last reference to a pipeline. It cannot wait for itself.
        let own = usize::from(RUNS_TASK_OF.get() == Arc::as_ptr(&self.open).addr());
        let begin = Instant::now();
        let mut count = lock(&self.open.count);
        while *count > own && !(exit::is_closed() && begin.elapsed() > exit::PATIENCE) {
            count = wait_timeout(&self.open.none, count, exit::PATIENCE);
        }
        drop(count);
        // If other pipelines go on, they may have more threads now. If none can be started, those that exist suffice.
        if Arc::strong_count(&self.pool) > 1 {
            let _ = self.pool.adjust();
        }
    }
}

thread_local! {
    /// On a copier thread, the address of the [`OpenTasks`] of the task that it runs.
    static RUNS_TASK_OF: Cell<usize> = const { Cell::new(0) };
}

impl Pool {
    /// Starts or ends threads, so that there are as many as the pipelines leave processors.
    ///
    /// # Errors
    /// As [`Copiers::start`].
    fn adjust(&self) -> crate::Result<()> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let others = self.others.load(Ordering::Relaxed);
        let count = processors.saturating_sub(others).clamp(1, MAX_COPIERS);
        let mut threads = lock(&self.threads);
        // Those that are too many end when they look for a task.
        lock(&self.queue.state).threads = count;
        self.queue.work.notify_all();
        // A thread that ended has left its place to be taken again.
        threads.retain(|thread| !thread.is_finished());
        let running = lock(&self.queue.state).running;
        for _ in running..count {
            let queue = self.queue.clone();
            lock(&self.queue.state).running += 1;
            match crate::thread::spawn("gl", "copy", move || queue.serve()) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    let mut state = lock(&self.queue.state);
                    state.running -= 1;
                    return if state.running > 0 { Ok(()) } else { Err(error) };
                }
            }
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.work.notify_all();
        // The last pipeline may end on a copier thread. A thread cannot join itself.
        lock(&self.threads).drain(..).filter(|it| !is_current(it)).for_each(|it| drop(exit::join(it)));
    }
}

impl TaskQueue {
    fn serve(&self) {
        while let Some(task) = self.next() {
            match task {
                CopierTask::Copy(part) => {
                    RUNS_TASK_OF.set(Arc::as_ptr(&part._open.0).addr());
                    part.copy();
                }
                CopierTask::Run(task, open) => {
                    RUNS_TASK_OF.set(Arc::as_ptr(&open.0).addr());
                    // Tasks report their own panics. This keeps the thread alive.
                    drop(catch_unwind(AssertUnwindSafe(task)));
                }
            }
            RUNS_TASK_OF.set(0);
        }
    }

    /// Wakes a few of `sleepers` threads, which then wake the others. Waking all of them from one thread would take
    /// as long as copying megabytes.
    fn wake(&self, sleepers: usize) {
        (0..sleepers.min(WAKES)).for_each(|_| self.work.notify_one());
    }

    /// The next task; `None` when the queue is closed and empty.
    fn next(&self) -> Option<CopierTask> {
        let idle = Instant::now();
        loop {
            let mut state = lock(&self.state);
            loop {
                if let Some(task) = state.tasks.pop_front() {
                    let left = self.waiting.fetch_sub(1, Ordering::Relaxed) - 1;
                    let sleepers = state.asleep.min(left);
                    drop(state);
                    self.wake(sleepers);
                    return Some(task);
                }
                if state.closed || state.running > state.threads {
                    state.running -= 1;
                    return None;
                }
                if idle.elapsed() < COPIER_AWAKE {
                    break;
                }
                state.asleep += 1;
                state = wait(&self.work, state);
                state.asleep -= 1;
            }
            drop(state);
            while self.waiting.load(Ordering::Relaxed) == 0 && idle.elapsed() < COPIER_AWAKE {
                std::hint::spin_loop();
            }
        }
    }
}

impl CopyPart {
    fn copy(self) {
        // SAFETY: the caller of `Copiers::copy` promises valid memory; parts are disjoint.
        unsafe { copy_past_caches(self.from, self.to, self.bytes) };
        drop(self.copying);
        if self.copy.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let then = lock(&self.copy.then).take();
            then.expect("only the last part takes it")();
        }
    }
}

/// Copies with non-temporal stores, which bypass the caches. The device reads the result, or the CPU does so much
/// later. Ordinary stores would fetch each line first, a third of the traffic.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `bytes` bytes, and they do not overlap.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_past_caches(from: *const u8, to: *mut u8, bytes: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LINE: usize = 64;
    const LANES: usize = LINE / size_of::<__m128i>();
    let head = to.align_offset(LINE).min(bytes);
    let lines = (bytes - head) / LINE;
    let tail = head + lines * LINE;
    // SAFETY: head, lines and tail are disjoint parts of the memory that the caller promised. The lines in `to` are
    // aligned; loads need no alignment. SSE2 is part of the architecture. The fence orders the stores before any
    // signal that they are done.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, head);
        for line in 0..lines {
            let (from, to) = (from.add(head + line * LINE), to.add(head + line * LINE));
            let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
            let values: [__m128i; LANES] = std::array::from_fn(|lane| _mm_loadu_si128(from.add(lane)));
            values.into_iter().enumerate().for_each(|(lane, value)| _mm_stream_si128(to.add(lane), value));
        }
        std::ptr::copy_nonoverlapping(from.add(tail), to.add(tail), bytes - tail);
        _mm_sfence();
    }
}

/// Copies with ordinary stores.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `bytes` bytes, and they do not overlap.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_past_caches(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: passed on from the caller.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn copies_of_all_sizes_arrive_whole() {
        let copiers = Copiers::start(0).unwrap();
        for bytes in [0, 1, SMALL_COPY, SMALL_COPY + 1, COPY_PART, 3 * COPY_PART + 17, 40 * COPY_PART + 1] {
            let from: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            let mut to = vec![0xff; bytes + 1];
            let (done, is_done) = channel();
            // SAFETY: both buffers live until the message arrives.
            unsafe { copiers.copy(from.as_ptr(), to.as_mut_ptr(), bytes, move || done.send(()).unwrap()) };
            is_done.recv().unwrap();
            assert!(to[..bytes] == from && to[bytes] == 0xff, "{bytes}");
        }
    }

    #[test]
    fn pipelines_share_the_threads_that_their_processors_leave() {
        let pool = Arc::new(Pool::default());
        let running = || lock(&pool.queue.state).running;
        let all = std::thread::available_parallelism().unwrap().get().min(MAX_COPIERS);
        let first = Copiers::of(pool.clone(), 0).unwrap();
        assert_eq!(running(), all);
        let second = Copiers::of(pool.clone(), 1 << 20).unwrap();
        // Threads without a place end as soon as they look for a task.
        while running() > 1 {
            std::thread::yield_now();
        }
        let (done, is_done) = channel();
        for copiers in [&first, &second] {
            let done = done.clone();
            copiers.run(move || done.send(()).unwrap());
        }
        assert_eq!(is_done.iter().take(2).count(), 2);
        drop(second);
        assert_eq!(running(), all);
        drop(first);
        drop(done);
    }

    /// Dropping one pipeline's share waits for its tasks, not for those of others.
    #[test]
    fn a_share_ends_after_its_own_tasks() {
        let pool = Arc::new(Pool::default());
        let [first, second] = [0, 1 << 20].map(|others| Copiers::of(pool.clone(), others).unwrap());
        let ((begin, begun), (hold, held), (done, is_done)) = (channel(), channel::<()>(), channel());
        second.run(move || done.send(1).unwrap());
        drop(second);
        assert_eq!(is_done.try_recv(), Ok(1));
        first.run(move || {
            begin.send(()).unwrap();
            held.recv().unwrap();
        });
        begun.recv().unwrap();
        let third = Copiers::of(pool.clone(), 0).unwrap();
        drop(third);
        hold.send(()).unwrap();
        drop(first);
    }

    #[test]
    fn a_copy_that_is_waited_for_does_not_wait_for_others() {
        let copiers = Copiers::alone().unwrap();
        let from: Vec<u8> = (0..3 * COPY_PART + 17).map(|index| (index % 251) as u8).collect();
        let mut to = vec![0xff; from.len()];
        let (address, len) = (to.as_mut_ptr() as usize, to.len());
        let ((begin, begun), (hold, held), (seen, later)) = (channel(), channel(), channel());
        // The only thread is busy and has another task queued.
        copiers.run(move || {
            begin.send(()).unwrap();
            held.recv().unwrap()
        });
        begun.recv().unwrap();
        // SAFETY: this runs on the copier thread, after the copy. No other code uses the memory meanwhile.
        let look = move || unsafe { std::slice::from_raw_parts(address as *const u8, len) }.to_vec();
        copiers.run(move || seen.send(look()).unwrap());
        std::thread::scope(|scope| {
            // SAFETY: the memory lives until the scope ends, and is as long as `from`.
            scope.spawn(|| unsafe { copiers.copy_now(&from, address as *mut u8) });
            while copiers.queue().waiting.load(Ordering::Relaxed) < 5 {
                std::thread::yield_now();
            }
            hold.send(()).unwrap();
        });
        assert!(later.recv().unwrap() == from && to == from);
    }

    #[test]
    fn tasks_run_to_their_end_before_the_threads_do_and_may_panic() {
        let copiers = Copiers::start(0).unwrap();
        let (done, is_done) = channel();
        for index in 0..20 {
            let done = done.clone();
            copiers.run(move || {
                done.send(index).unwrap();
                std::panic::resume_unwind(Box::new("on purpose"));
            });
        }
        drop((copiers, done));
        assert_eq!(is_done.iter().count(), 20);
    }
}
