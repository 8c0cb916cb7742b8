//! A lock around a process-wide value that stays usable after `fork()`.
//!
//! The child of a fork has one thread. A lock that another thread held at that moment stays held for ever
//! there, and what it guarded may be half written. So the lock word here is the id of the process whose
//! thread holds it: a word from another process is stale and is taken over, and a value from another process
//! is left where it is and replaced by a new one. It is leaked, not dropped, for it may own threads that do
//! not exist here.
//!
//! Waiting is spinning with sleeps: the lock is held for moments, save once while a pool is built.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A value behind such a lock.
pub struct ProcessLock<T> {
    /// Id of the process whose thread holds the lock; 0 if none does.
    holder: AtomicU32,
    /// Id of the process that the value belongs to; 0 before first use. Read and written only under the
    /// lock.
    owner: UnsafeCell<u32>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: owner and value are touched only by the thread that holds the lock, so they move between threads
// (T: Send) but are never seen by two at once.
unsafe impl<T: Send> Sync for ProcessLock<T> {}

impl<T> ProcessLock<T> {
    /// A lock around nothing yet.
    pub const fn new() -> Self {
        ProcessLock { holder: AtomicU32::new(0), owner: UnsafeCell::new(0), value: UnsafeCell::new(None) }
    }

    /// Calls `work` with the value this process has, `None` at first and after a fork.
    pub fn with<R>(&self, work: impl FnOnce(&mut Option<T>) -> R) -> R {
        let process = std::process::id();
        let held = Held { holder: &self.holder, took_over: self.acquire(process) };
        // SAFETY: this thread holds the lock until `held` is dropped, so nothing else refers to the two.
        let (owner, value) = unsafe { (&mut *self.owner.get(), self.value.get()) };
        if held.took_over || *owner != process {
            // SAFETY: as above. The old value is overwritten unread: it may be half written, and is another
            // process's.
            unsafe { value.write(None) };
            *owner = process;
        }
        // SAFETY: as above, and the value is this process's, completely written.
        work(unsafe { &mut *value })
    }

    /// Waits for the lock and takes it; says whether it was taken from a process that is not this one.
    fn acquire(&self, process: u32) -> bool {
        let mut spins = 0;
        loop {
            let holder = self.holder.load(Ordering::Relaxed);
            if holder != process
                && self.holder.compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return holder != 0;
            }
            spins += 1;
            match spins {
                ..100 => std::hint::spin_loop(),
                100..200 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }
}

/// Gives the lock back, also if the work panics.
struct Held<'a> {
    holder: &'a AtomicU32,
    took_over: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_take_turns() {
        let lock = ProcessLock::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        lock.with(|value: &mut Option<u64>| *value = Some(value.unwrap_or(0) + 1));
                    }
                });
            }
        });
        assert_eq!(lock.with(|value| *value), Some(8_000));
    }

    #[test]
    fn a_lock_held_by_another_process_is_taken_over_with_a_fresh_value() {
        let lock = ProcessLock::new();
        lock.with(|value| *value = Some(7));
        // What a child sees if another thread held the lock at the fork.
        lock.holder.store(std::process::id() + 1, Ordering::Release);
        assert_eq!(lock.with(|value| value.take()), None);
        lock.with(|value| *value = Some(8));
        assert_eq!(lock.with(|value| *value), Some(8));
    }

    #[test]
    fn a_value_of_another_process_is_left_alone() {
        struct Owned;
        impl Drop for Owned {
            fn drop(&mut self) {
                panic!("must be leaked");
            }
        }
        let lock = ProcessLock::new();
        lock.with(|value| *value = Some(Owned));
        // SAFETY: no other thread knows this lock.
        unsafe { *lock.owner.get() += 1 };
        assert!(lock.with(|value| value.is_none()));
    }

    #[test]
    fn a_panic_gives_the_lock_back() {
        let lock: ProcessLock<u32> = ProcessLock::new();
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lock.with(|_| panic!("a test"))));
        assert!(panicked.is_err());
        assert_eq!(lock.with(|value| *value), None);
    }
}
