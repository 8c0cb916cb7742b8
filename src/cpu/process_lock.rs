//! A lock around a process-wide value that stays usable after `fork()`.
//!
//! The child of a fork has one thread. A lock that another thread held at the fork stays held in the child for ever,
//! and the value it guards may be half written. So this lock's word is the id of the process whose thread holds it. A
//! word of another process is stale: the lock is taken over, and the value is replaced by a new one. The old value is
//! leaked, not dropped, because it may own threads that do not exist in the child.
//!
//! Waiting threads spin, then sleep. The lock is held for moments only, except while a pool is built.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A value behind a lock that survives a fork.
pub struct ProcessLock<T> {
    /// Id of the process whose thread holds the lock; 0 if none does.
    holder: AtomicU32,
    /// Id of the process that owns the value; 0 before first use. Accessed only under the lock.
    owner: UnsafeCell<u32>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: owner and value are touched only by the thread that holds the lock, so they move between threads
// (T: Send) but are never seen by two at once.
unsafe impl<T: Send> Sync for ProcessLock<T> {}

impl<T> ProcessLock<T> {
    /// A lock without a value.
    pub const fn new() -> Self {
        ProcessLock { holder: AtomicU32::new(0), owner: UnsafeCell::new(0), value: UnsafeCell::new(None) }
    }

    /// Calls `work` with this process's value. It is `None` at first and after a fork.
    pub fn with<R>(&self, work: impl FnOnce(&mut Option<T>) -> R) -> R {
        let process = std::process::id();
        let held = Held { holder: &self.holder, took_over: self.acquire(process) };
        // SAFETY: this thread holds the lock until `held` is dropped, so nothing else refers to the two.
        let (owner, value) = unsafe { (&mut *self.owner.get(), self.value.get()) };
        if held.took_over || *owner != process {
            // SAFETY: as above. The old value is overwritten without a read or a drop: it belongs to another process
            // and may be half written.
            unsafe { value.write(None) };
            *owner = process;
        }
        // SAFETY: as above. The value belongs to this process and is completely written.
        work(unsafe { &mut *value })
    }

    /// Takes the lock, waiting for it if need be. Returns whether it was taken from another process.
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

/// Releases the lock, also if the work panics.
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
        // The state in a child if another thread held the lock at the fork.
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
    fn a_panic_releases_the_lock() {
        let lock: ProcessLock<u32> = ProcessLock::new();
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lock.with(|_| panic!("a test"))));
        assert!(panicked.is_err());
        assert_eq!(lock.with(|value| *value), None);
    }
}
