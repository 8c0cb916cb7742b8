//! Threads that copy between ordinary memory and the slots, several parts of one copy at once.
//!
//! One core moves a tenth of what the bus to a GPU takes; all of them together come near it. Small copies are not worth waking
//! anybody: they are done on the spot.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::super::exit;
use super::sync::{Condvar, Mutex, lock, wait};

/// Copies up to this size are done by whoever asks.
const SMALL: usize = 64 << 10;
/// No part is smaller.
const PART: usize = 256 << 10;
/// More threads do not copy faster on any machine seen so far.
const MOST_THREADS: usize = 16;

/// The threads. Dropping them ends what was asked for first.
pub struct Copiers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    closed: bool,
}

enum Task {
    Copy(Part),
    Run(Box<dyn FnOnce() + Send>),
}

struct Part {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    whole: Arc<Whole>,
}

// SAFETY: who asks for a copy promises that the memory is there, for any thread, until it is over.
unsafe impl Send for Part {}

/// What the parts of one copy share.
struct Whole {
    left: AtomicUsize,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Copiers {
    /// Starts them: one a processor.
    pub fn start(device: &str) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let mut copiers = Copiers { shared, threads: vec![] };
        for _ in 0..count {
            let shared = copiers.shared.clone();
            let thread = std::thread::Builder::new().name(format!("sparkle {device} copy"));
            copiers.threads.push(thread.spawn(move || shared.serve())?);
        }
        Ok(copiers)
    }

    /// Copies `bytes` bytes, then runs `then` on some thread.
    ///
    /// # Safety
    /// Until `then` runs, `from` is valid for reads and `to` for writes of so many bytes, by any thread; they do not overlap, and
    /// nobody else writes to either or reads the latter.
    pub unsafe fn copy(
        &self,
        from: *const u8,
        to: *mut u8,
        bytes: usize,
        then: impl FnOnce() + Send + 'static,
    ) {
        if bytes <= SMALL {
            {
                let _inside = exit::enter();
                // SAFETY: as promised.
                unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
            }
            return then();
        }
        let part = bytes.div_ceil(4 * self.threads.len()).max(PART).next_multiple_of(64);
        let parts = bytes.div_ceil(part);
        let then: Box<dyn FnOnce() + Send> = Box::new(then);
        let whole = Arc::new(Whole { left: AtomicUsize::new(parts), then: Mutex::new(Some(then)) });
        let mut state = lock(&self.shared.state);
        for index in 0..parts {
            let offset = index * part;
            // SAFETY: within the memory that was promised.
            let (from, to) = unsafe { (from.add(offset), to.add(offset)) };
            let bytes = part.min(bytes - offset);
            state.tasks.push_back(Task::Copy(Part { from, to, bytes, whole: whole.clone() }));
        }
        drop(state);
        self.shared.work.notify_all();
    }

    /// Runs `task` on one of the threads.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) {
        lock(&self.shared.state).tasks.push_back(Task::Run(Box::new(task)));
        self.shared.work.notify_one();
    }
}

impl Drop for Copiers {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
        let this = std::thread::current().id();
        // The last to hold a pipeline may be a task of its own.
        self.threads.drain(..).filter(|it| it.thread().id() != this).for_each(|it| drop(it.join()));
    }
}

impl Shared {
    fn serve(&self) {
        loop {
            let mut state = lock(&self.state);
            let task = loop {
                match state.tasks.pop_front() {
                    Some(task) => break task,
                    None if state.closed => return,
                    None => state = wait(&self.work, state),
                }
            };
            drop(state);
            match task {
                Task::Copy(part) => part.copy(),
                // Tasks report their panics themselves; this keeps the thread.
                Task::Run(task) => drop(catch_unwind(AssertUnwindSafe(task))),
            }
        }
    }
}

impl Part {
    fn copy(self) {
        {
            // At exit a driver takes its mapped memory away.
            let _inside = exit::enter();
            // SAFETY: the promise to `Copiers::copy`; parts are disjoint.
            unsafe { std::ptr::copy_nonoverlapping(self.from, self.to, self.bytes) };
        }
        if self.whole.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let then = lock(&self.whole.then).take();
            then.expect("only the last part takes it")();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn copies_of_all_sizes_arrive_whole() {
        let copiers = Copiers::start("test").unwrap();
        for bytes in [0, 1, SMALL, SMALL + 1, PART, 3 * PART + 17, 40 * PART + 1] {
            let from: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            let mut to = vec![0xff; bytes + 1];
            let (done, is_done) = channel();
            // SAFETY: both live until the answer has come.
            unsafe { copiers.copy(from.as_ptr(), to.as_mut_ptr(), bytes, move || done.send(()).unwrap()) };
            is_done.recv().unwrap();
            assert!(to[..bytes] == from && to[bytes] == 0xff, "{bytes}");
        }
    }

    #[test]
    fn tasks_run_to_their_end_before_the_threads_do_and_may_panic() {
        let copiers = Copiers::start("test").unwrap();
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
