//! Counts of what is in use: slots that callers hold, and jobs that have not ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex, lock, wait, wait_timeout};

/// A counter: of one generation's slots that callers hold, or of a pipeline's open jobs.
#[derive(Default)]
pub struct Leases {
    count: AtomicUsize,
    taken: AtomicU64,
    cancelled: AtomicU64,
    /// Held by threads that wait for the count to become zero.
    waits: Mutex<()>,
    ended: Condvar,
}

impl Leases {
    /// Adds one.
    pub fn take(self: &Arc<Self>) -> Lease {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.taken.fetch_add(1, Ordering::Relaxed);
        Lease(self.clone())
    }

    /// Whether the count is not zero.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Waits until the count is zero.
    pub fn wait_for_none(&self) {
        let mut waits = lock(&self.waits);
        while self.any() {
            waits = wait(&self.ended, waits);
        }
    }

    /// Like [`Leases::wait_for_none`], for at most `limit`. Returns whether the count is zero.
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

    /// How many were ever taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many leases belonged to jobs that never began.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// One counted item. Dropping it decrements the count.
pub struct Lease(Arc<Leases>);

impl Lease {
    /// Records that its job never began.
    pub fn mark_cancelled(&self) {
        self.0.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // A thread that saw the old count is inside its wait by the time this lock is free.
            drop(lock(&self.0.waits));
            self.0.ended.notify_all();
        }
    }
}
