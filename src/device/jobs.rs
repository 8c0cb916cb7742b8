//! A bounded FIFO queue of jobs for one thread. Its memory grows with the jobs that wait, because the limit may be far
//! larger than their number.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::allocate;
use crate::backend::WhenFull;
use crate::error::{Error, Result};

/// The queue.
pub struct JobQueue<T> {
    state: Mutex<QueueState<T>>,
    /// Notified when there is a job, when there is room, and when a job has ended.
    work: Condvar,
    room: Condvar,
    ended: Condvar,
}

struct QueueState<T> {
    waiting: VecDeque<T>,
    limit: usize,
    /// Total numbers of jobs that were pushed and that have ended.
    pushed: u64,
    ended: u64,
    closed: bool,
}

impl<T> JobQueue<T> {
    /// An empty queue; at most `limit` jobs may wait in it.
    pub fn new(limit: usize) -> Self {
        let state =
            QueueState { waiting: VecDeque::new(), limit: limit.max(1), pushed: 0, ended: 0, closed: false };
        JobQueue {
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a job.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full and `when_full` refuses; [`Error::Closed`] after [`JobQueue::close`];
    /// [`Error::OutOfMemory`].
    pub fn push(&self, job: T, when_full: WhenFull) -> Result<()> {
        let mut state = self.state();
        while !state.closed && state.waiting.len() >= state.limit {
            if when_full == WhenFull::Refuse {
                return Err(Error::Busy { what: "the queue of jobs".to_owned() });
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(Error::closed("the pipeline"));
        }
        state.waiting.try_reserve(1).map_err(|_| allocate::out_of_memory("a longer queue of jobs"))?;
        state.waiting.push_back(job);
        state.pushed += 1;
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for the next job and removes it; `None` when the queue is closed and empty.
    pub fn next(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                drop(state);
                self.room.notify_one();
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a job from [`JobQueue::next`] as ended.
    pub fn job_ended(&self) {
        self.state().ended += 1;
        self.ended.notify_all();
    }

    /// Waits until all jobs pushed before this call have ended.
    pub fn flush(&self) {
        let mut state = self.state();
        let pushed = state.pushed;
        while state.ended < pushed {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Refuses further jobs.
    pub fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_stay_in_order_and_within_the_limit() {
        let jobs = JobQueue::new(2);
        jobs.push(1, WhenFull::Refuse).unwrap();
        jobs.push(2, WhenFull::Wait).unwrap();
        assert!(matches!(jobs.push(3, WhenFull::Refuse), Err(Error::Busy { .. })));
        std::thread::scope(|scope| {
            // Waits for the room that `next` makes below.
            let third = scope.spawn(|| jobs.push(3, WhenFull::Wait));
            assert_eq!(jobs.next(), Some(1));
            third.join().unwrap().unwrap();
            let flushed = scope.spawn(|| jobs.flush());
            assert_eq!([jobs.next(), jobs.next()], [Some(2), Some(3)]);
            (0..3).for_each(|_| jobs.job_ended());
            flushed.join().unwrap();
        });
        jobs.push(4, WhenFull::Wait).unwrap();
        jobs.close();
        assert_eq!(jobs.push(5, WhenFull::Wait), Err(Error::closed("the pipeline")));
        assert_eq!([jobs.next(), jobs.next()], [Some(4), None]);
    }

    /// A large limit allocates nothing in advance.
    #[test]
    fn memory_grows_with_the_waiting_jobs() {
        let jobs = JobQueue::new(usize::MAX);
        (0..10_000).for_each(|job| jobs.push(job, WhenFull::Refuse).unwrap());
        assert!((0..10_000).all(|job| jobs.next() == Some(job)));
    }
}
