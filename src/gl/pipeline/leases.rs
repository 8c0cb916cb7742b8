//! Counting what is in use: slots in callers' hands, or jobs that are not over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex, lock, wait, wait_timeout};

/// Counts what is out: the slots of one generation that callers hold, or a pipeline's jobs.
#[derive(Default)]
pub struct Leases {
    count: AtomicUsize,
    cancelled: AtomicU64,
    /// Whoever waits for the last.
    waits: Mutex<()>,
    ended: Condvar,
}

impl Leases {
    /// One more.
    pub fn take(self: &Arc<Self>) -> Lease {
        self.count.fetch_add(1, Ordering::Relaxed);
        Lease(self.clone())
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Waits until there is none.
    pub fn wait_for_none(&self) {
        let mut waits = lock(&self.waits);
        while self.any() {
            waits = wait(&self.ended, waits);
        }
    }

    /// As [`Leases::wait_for_none`], at most `limit` long; whether there is none.
    pub fn wait_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut waits = lock(&self.waits);
        while self.any() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waits = wait_timeout(&self.ended, waits, left);
        }
        true
    }

    /// How many were of jobs that never began.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// One of them, out for as long as this lives.
pub struct Lease(Arc<Leases>);

impl Lease {
    /// It is that of a job that never began.
    pub fn cancelled(&self) {
        self.0.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Whoever has looked before this is waiting by now.
            drop(lock(&self.0.waits));
            self.0.ended.notify_all();
        }
    }
}
