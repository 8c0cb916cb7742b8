//! Threads that compute the shares of a call beside its caller.
//!
//! They start when they are first needed and stay until the device is closed. A caller that finds none free computes
//! its shares itself, one after another, so no call waits for another one's threads.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::thread::is_current;

/// The most threads of a crew. Most of the time each is asleep, or inside a driver's call.
const MAX_THREADS: usize = 64;

/// A task that borrows from its caller.
pub type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// The threads. Dropping it ends them.
#[derive(Default)]
pub struct Crew {
    shared: Arc<CrewShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct CrewShared {
    state: Mutex<CrewState>,
    work: Condvar,
}

#[derive(Default)]
struct CrewState {
    /// A batch for each of its tasks. Its caller may have run the task itself since.
    waiting: VecDeque<Arc<Batch>>,
    /// Threads that wait for a batch.
    idle: usize,
    closed: bool,
}

/// The tasks of one call.
struct Batch {
    state: Mutex<BatchState>,
    ended: Condvar,
}

struct BatchState {
    tasks: Vec<Task<'static>>,
    /// Tasks that have not ended.
    left: usize,
    panic: Option<Box<dyn Any + Send>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// Runs `own` on the calling thread and `others` on the crew's threads at the same time, and returns when all have
    /// ended. A task that no thread has started when `own` ends runs on the calling thread.
    ///
    /// # Panics
    /// If a task panicked; all have ended then.
    pub fn run(&self, others: Vec<Task<'_>>, own: impl FnOnce()) {
        if others.is_empty() {
            return own();
        }
        // SAFETY: only the lifetime changes. This function returns, or panics, only after every task has run, and
        // running consumes a task with all that it borrows.
        let tasks = unsafe { std::mem::transmute::<Vec<Task<'_>>, Vec<Task<'static>>>(others) };
        let left = tasks.len();
        let state = Mutex::new(BatchState { tasks, left, panic: None });
        let batch = Arc::new(Batch { state, ended: Condvar::new() });
        self.offer(&batch, left);
        let own = catch_unwind(AssertUnwindSafe(own));
        while batch.run_next() {}
        let panic = batch.wait();
        if let Some(panic) = own.err().or(panic) {
            resume_unwind(panic);
        }
    }

    /// Wakes or starts a thread for each of `tasks` tasks.
    fn offer(&self, batch: &Arc<Batch>, tasks: usize) {
        let mut state = lock(&self.shared.state);
        // Without memory for the list the caller runs the tasks.
        if state.waiting.try_reserve(tasks).is_err() {
            return;
        }
        state.waiting.extend((0..tasks).map(|_| batch.clone()));
        let missing = state.waiting.len().saturating_sub(state.idle);
        drop(state);
        (0..tasks).for_each(|_| self.shared.work.notify_one());
        if missing == 0 {
            return;
        }
        let mut threads = lock(&self.threads);
        for _ in 0..missing.min(MAX_THREADS.saturating_sub(threads.len())) {
            let shared = self.shared.clone();
            let started = crate::thread::spawn("multi", "share", move || shared.serve());
            match started {
                Ok(thread) if threads.try_reserve(1).is_ok() => threads.push(thread),
                // It serves until the crew is closed, and nobody waits for its end.
                Ok(_) => {}
                Err(error) => return crate::log::debug!("multi: the caller computes: {error}"),
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        // A thread cannot join itself: the last owner of a device may be a share of its own.
        threads.into_iter().filter(|it| !is_current(it)).for_each(|it| drop(it.join()));
    }
}

impl CrewShared {
    fn serve(&self) {
        while let Some(batch) = self.next() {
            batch.run_next();
        }
    }

    fn next(&self) -> Option<Arc<Batch>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(batch) = state.waiting.pop_front() {
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Batch {
    /// Runs a task that has not started. Returns whether there was one.
    fn run_next(&self) -> bool {
        let Some(task) = lock(&self.state).tasks.pop() else { return false };
        let ran = catch_unwind(AssertUnwindSafe(task));
        let mut state = lock(&self.state);
        state.left -= 1;
        state.panic = state.panic.take().or(ran.err());
        if state.left == 0 {
            self.ended.notify_all();
        }
        true
    }

    /// Waits until all tasks have ended. Returns what one of them panicked with.
    fn wait(&self) -> Option<Box<dyn Any + Send>> {
        let mut state = lock(&self.state);
        while state.left > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.panic.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn tasks_run_at_once_beside_the_caller() {
        let crew = Crew::default();
        for _ in 0..10 {
            // Passed only if all four run at the same time.
            let (together, mut numbers) = (Barrier::new(4), [0; 3]);
            let tasks = numbers.iter_mut().enumerate().map(|(index, number)| {
                let together = &together;
                let task = move || {
                    together.wait();
                    *number = index + 1;
                };
                Box::new(task) as Task
            });
            crew.run(tasks.collect(), || {
                together.wait();
            });
            assert_eq!(numbers, [1, 2, 3]);
        }
        // More than three if a thread had not come back from its task when the next were offered.
        assert!((3..=MAX_THREADS).contains(&lock(&crew.threads).len()));
    }

    #[test]
    fn many_callers_share_a_crew() {
        let (crew, count) = (Crew::default(), AtomicUsize::new(0));
        let add = || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        crew.run((0..3).map(|_| Box::new(add) as Task).collect(), add);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 8 * 100 * 4);
        assert!(lock(&crew.threads).len() <= MAX_THREADS);
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_tasks_have_ended() {
        let (crew, count) = (Crew::default(), AtomicUsize::new(0));
        for of_caller in [true, false] {
            let task = |fails: bool| {
                count.fetch_add(1, Ordering::Relaxed);
                if fails {
                    resume_unwind(Box::new("on purpose"));
                }
            };
            let others: Vec<Task> = vec![Box::new(|| task(false)), Box::new(|| task(!of_caller))];
            let ran = catch_unwind(AssertUnwindSafe(|| crew.run(others, || task(of_caller))));
            assert_eq!(ran.unwrap_err().downcast_ref(), Some(&"on purpose"));
        }
        assert_eq!(count.into_inner(), 6);
        let mut ran = false;
        crew.run(vec![Box::new(|| ran = true)], || ());
        assert!(ran);
    }
}
