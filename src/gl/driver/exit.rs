//! Leaving the process while work is in flight.
//!
//! At exit a driver shuts itself down in its own handler, and may crash if a thread is inside the driver at that time.
//! So Sparkle registers a handler after the driver's, which therefore runs before it. The handler closes the driver and
//! waits for the threads that are inside. Afterwards no thread can enter:
//!
//! - Calls that would compute return [`Error::Ending`]. Jobs in flight end with that error; jobs of `auto` continue
//!   on the CPU.
//! - Closing a device, a plan or a pipeline abandons its threads and leaves GL objects to the driver, as after a fork
//!   ([`is_shut_out`]).
//!
//! Nothing here waits for the process to end. Handlers registered before ours, destructors of globals, and the threads
//! that these wait for still call the library.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::config;
use crate::error::{Error, Result};
use crate::float_env::DriverFloatEnv;
use crate::loader;

/// The longest wait for jobs once the process is ending. They end at once, except those that the CPU takes over.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Threads inside the driver, and copies in progress from and to its memory.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Whether entry is closed for good.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// The process that registered the handler. A forked child has none of our threads to wait for.
static PROCESS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// How many nested entries of this thread are open.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Marks its thread as inside the driver, in a floating-point environment that suits drivers, until dropped.
pub struct Inside {
    /// None if the thread was already inside.
    _env: Option<DriverFloatEnv>,
}

/// Enters the driver. Calls may nest.
///
/// # Errors
/// [`Error::Ending`] once the process is ending, unless the thread is already inside.
pub fn enter() -> Result<Inside> {
    let depth = DEPTH.get();
    if depth == 0 {
        INSIDE.fetch_add(1, SeqCst);
        // All operations are in one total order: either this load sees that entry is closed, or the handler sees this
        // thread.
        if CLOSED.load(SeqCst) {
            INSIDE.fetch_sub(1, SeqCst);
            return Err(ending());
        }
    }
    DEPTH.set(depth + 1);
    Ok(Inside { _env: (depth == 0).then(DriverFloatEnv::enter) })
}

impl Drop for Inside {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            INSIDE.fetch_sub(1, SeqCst);
        }
    }
}

/// A copy from or to a driver's memory that another thread will make. Counts as a thread inside the driver.
pub struct Copying(());

impl Copying {
    /// Begins a copy. The calling thread must be inside, so entry is still open or the handler waits for it.
    pub fn begin() -> Self {
        INSIDE.fetch_add(1, SeqCst);
        Copying(())
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, SeqCst);
    }
}

/// The error of calls that may not enter any more.
pub fn ending() -> Error {
    Error::Ending { what: "the process is ending".to_owned() }
}

/// Whether the process is ending.
pub fn is_closed() -> bool {
    CLOSED.load(SeqCst)
}

/// Whether the calling thread must leave the driver's objects alone: the process is ending and the thread is not
/// inside.
pub fn is_shut_out() -> bool {
    DEPTH.get() == 0 && is_closed()
}

/// Ends one of the library's threads: `release` makes EGL forget the thread. Once the process is ending, `release` is
/// not called. The thread's end would then run destructors of the driver's thread-specific data, while the process's
/// end frees the same memory on another thread (`workarounds`). So that data is left alone.
pub fn end_thread(release: impl FnOnce()) {
    match enter() {
        Ok(_inside) => release(),
        Err(_) => forget_thread_data(),
    }
}

/// Clears the calling thread's data of all keys, so that no destructor runs for it.
fn forget_thread_data() {
    /// PTHREAD_KEYS_MAX of glibc; no other C library has more.
    const KEYS: libc::pthread_key_t = 1024;
    for key in 0..KEYS {
        // SAFETY: affects the calling thread only, which is the library's and about to end. A key that does not exist
        // is an error without effect.
        unsafe { libc::pthread_setspecific(key, std::ptr::null()) };
    }
}

/// Waits for one of our threads to end; it must run no code of a caller's. Returns none without waiting if the calling
/// thread holds the loader's lock, which the other may need. Once the process is ending it waits at most the device
/// timeout: a thread still running then is stuck in the driver and ends with the process.
pub fn join<T>(thread: JoinHandle<T>) -> Option<std::thread::Result<T>> {
    if loader::is_held() {
        return None;
    }
    if is_closed() && poll(|| thread.is_finished().then_some(())).is_none() {
        return None;
    }
    Some(thread.join())
}

/// Locks `mutex`, whose holders are inside the driver. Once the process is ending it waits at most the device timeout.
///
/// # Errors
/// [`Error::Ending`] if the holder is stuck in the driver.
pub fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    if !is_closed() {
        return Ok(mutex.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let free = || match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    poll(free).ok_or_else(ending)
}

/// Polls `ask` until it returns a value, at most for the device timeout.
fn poll<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let limit = Duration::from_millis(config().gl_timeout_ms());
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() >= limit {
            return answer;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Registers the handler again, up to a limit. Drivers register theirs when they are loaded and when some features are
/// first used, and ours must come after those.
pub fn register() {
    /// Enough for discovery and for each device of a large machine.
    const MAX_HANDLERS: u32 = 64;
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.fetch_update(SeqCst, SeqCst, |count| (count < MAX_HANDLERS).then_some(count + 1)).is_ok() {
        PROCESS.store(std::process::id(), SeqCst);
        // SAFETY: a function of this library, which is never unloaded (build.rs), and which returns and does not panic.
        // If there is no room for the handler, leaving is only as safe as without it.
        let _ = unsafe { libc::atexit(at_exit) };
    }
}

extern "C" fn at_exit() {
    if PROCESS.load(SeqCst) != std::process::id() {
        return;
    }
    CLOSED.store(true, SeqCst);
    // A driver's own callback may be ending the process: that thread cannot leave the driver.
    let own = usize::from(DEPTH.get() > 0);
    // Polls, since the thread that is leaving could itself hold a lock.
    poll(|| (INSIDE.load(SeqCst) <= own).then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key's destructor runs at the end of a thread, unless the thread's data was forgotten.
    #[test]
    fn no_destructor_runs_for_forgotten_data() {
        static RAN: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn destructor(_: *mut libc::c_void) {
            RAN.fetch_add(1, SeqCst);
        }
        let mut key = 0;
        // SAFETY: `key` is written; the destructor is a function that touches an atomic only.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destructor)) }, 0);
        for forgets in [false, true] {
            let thread = std::thread::spawn(move || {
                // SAFETY: the key exists; the destructor does not read the value.
                assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) }, 0);
                if forgets {
                    forget_thread_data();
                }
            });
            thread.join().unwrap();
        }
        assert_eq!(RAN.load(SeqCst), 1);
        // SAFETY: no thread has a value any more.
        unsafe { libc::pthread_key_delete(key) };
    }

    #[test]
    fn nested_entries_count_once() {
        std::thread::spawn(|| {
            let outer = enter().unwrap();
            assert_eq!(DEPTH.get(), 1);
            let inner = enter().unwrap();
            assert_eq!((DEPTH.get(), inner._env.is_some(), outer._env.is_some()), (2, false, true));
            drop(inner);
            assert!(DEPTH.get() == 1 && INSIDE.load(SeqCst) >= 1);
            drop(outer);
            assert!(DEPTH.get() == 0 && !is_shut_out());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_poisoned_lock_is_taken() {
        let mutex = Mutex::new(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = mutex.lock();
            std::panic::resume_unwind(Box::new("a test"));
        }));
        assert!(panicked.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex).unwrap(), 1);
    }
}
