//! Jobs that wait for the thread that does them, in order. Room for them is made as they come: how many may wait is the caller's
//! to say, and may be far more than ever do.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::allocate;
use crate::backend::Pressure;
use crate::error::{Error, Result};

/// The queue.
pub struct Jobs<T> {
    state: Mutex<State<T>>,
    /// Whoever waits for a job, for room, and for jobs to be over.
    work: Condvar,
    room: Condvar,
    over: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    limit: usize,
    /// Jobs that ever came, and that are over.
    came: u64,
    ended: u64,
    closed: bool,
}

impl<T> Jobs<T> {
    /// None yet; `limit` may wait.
    pub fn new(limit: usize) -> Self {
        let state = State { waiting: VecDeque::new(), limit: limit.max(1), came: 0, ended: 0, closed: false };
        Jobs { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), over: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job.
    ///
    /// # Errors
    /// [`Error::Busy`] if as many wait as may, and `pressure` says to refuse; [`Error::Closed`] after [`Jobs::close`];
    /// [`Error::OutOfMemory`].
    pub fn push(&self, job: T, pressure: Pressure) -> Result<()> {
        let mut state = self.state();
        while !state.closed && state.waiting.len() >= state.limit {
            if pressure == Pressure::Refuse {
                return Err(Error::Busy { what: "the queue of jobs".to_owned() });
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(Error::closed("the pipeline"));
        }
        state.waiting.try_reserve(1).map_err(|_| allocate::out_of_memory("a longer queue of jobs"))?;
        state.waiting.push_back(job);
        state.came += 1;
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// The next job, waited for; `None` when the queue is closed and empty.
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

    /// A job that [`Jobs::next`] gave is over.
    pub fn ended(&self) {
        self.state().ended += 1;
        self.over.notify_all();
    }

    /// Waits until all that came before are over.
    pub fn flush(&self) {
        let mut state = self.state();
        let came = state.came;
        while state.ended < came {
            state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more jobs.
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
    fn jobs_come_in_order_and_no_more_wait_than_may() {
        let jobs = Jobs::new(2);
        jobs.push(1, Pressure::Refuse).unwrap();
        jobs.push(2, Pressure::Wait).unwrap();
        assert!(matches!(jobs.push(3, Pressure::Refuse), Err(Error::Busy { .. })));
        std::thread::scope(|scope| {
            // Waits for room, which the next line but one makes.
            let third = scope.spawn(|| jobs.push(3, Pressure::Wait));
            assert_eq!(jobs.next(), Some(1));
            third.join().unwrap().unwrap();
            let flushed = scope.spawn(|| jobs.flush());
            assert_eq!([jobs.next(), jobs.next()], [Some(2), Some(3)]);
            (0..3).for_each(|_| jobs.ended());
            flushed.join().unwrap();
        });
        jobs.push(4, Pressure::Wait).unwrap();
        jobs.close();
        assert_eq!(jobs.push(5, Pressure::Wait), Err(Error::closed("the pipeline")));
        assert_eq!([jobs.next(), jobs.next()], [Some(4), None]);
    }

    /// As many may wait as the largest option says, without room for so many.
    #[test]
    fn room_is_made_for_those_that_come_only() {
        let jobs = Jobs::new(usize::MAX);
        (0..10_000).for_each(|job| jobs.push(job, Pressure::Refuse).unwrap());
        assert!((0..10_000).all(|job| jobs.next() == Some(job)));
    }
}
