//! Leaving the process in the midst of work.
//!
//! At exit a driver takes itself down, in a handler of its own, and may crash if a thread is inside of it at that time. So Sparkle
//! has a handler too, registered after the driver's and therefore run before it. It closes the door, and waits for the
//! threads that are inside. From then on nobody gets in:
//!
//! - What would compute gets [`Error::Ending`]. A job that was on its way ends with it; jobs of `auto` go on on the CPU.
//! - What would close a device, a plan or a pipeline lets go of its threads and leaves GL objects to the driver, as after a
//!   fork ([`is_shut_out`]).
//!
//! Nobody waits for the end of the process: handlers that were registered before ours, destructors of globals, and the threads that
//! these wait for, still call the library.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::config;
use crate::error::{Error, Result};
use crate::float_env::DriverFloatEnv;
use crate::loader;

/// How long one waits for jobs once the process is ending: they end at once, but for those that the CPU takes over.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Threads inside the driver, and copies from and to its memory that are under way.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// Nobody gets in any more.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// The process that registered the handler. A forked child has no thread of ours to wait for.
static PROCESS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// How often this thread has gone inside and not come out.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Being inside, in a floating-point environment that is fit for drivers; ends when dropped. Stays on its thread.
pub struct Inside {
    /// None if the thread was inside already.
    _env: Option<DriverFloatEnv>,
}

/// Goes inside.
///
/// # Errors
/// [`Error::Ending`] once the process is ending, unless the thread is inside already.
pub fn enter() -> Result<Inside> {
    let depth = DEPTH.get();
    if depth == 0 {
        INSIDE.fetch_add(1, SeqCst);
        // Either this sees that it is closed or the handler sees that we are inside: both are one total order.
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

/// A copy from or to a driver's memory that another thread is going to make: counts as a thread that is inside.
pub struct Copying(());

impl Copying {
    /// The calling thread is inside, so nobody was turned away yet.
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

/// What is said to those who are turned away.
pub fn ending() -> Error {
    Error::Ending { what: "the process is ending".to_owned() }
}

/// Whether the process is ending.
pub fn is_closed() -> bool {
    CLOSED.load(SeqCst)
}

/// Whether the calling thread must leave the driver's objects alone: the process is ending, and it is not inside.
pub fn is_shut_out() -> bool {
    DEPTH.get() == 0 && is_closed()
}

/// Waits for a thread of ours, which has nothing of a caller's, to end. Once the process is ending, that is no longer than a device
/// may take: what has not ended by then is stuck in the driver, and goes with the process. Where the thread could need the
/// loader's lock, which the calling one holds, it ends later.
pub fn join<T>(thread: JoinHandle<T>) -> Option<std::thread::Result<T>> {
    if loader::is_held() {
        return None;
    }
    if is_closed() && patiently(|| thread.is_finished().then_some(())).is_none() {
        return None;
    }
    Some(thread.join())
}

/// Locks `mutex`, whose holders are inside; once the process is ending, waits no longer than a device may take.
///
/// # Errors
/// [`Error::Ending`] if the holder is stuck in the driver then.
pub fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    if !is_closed() {
        return Ok(mutex.lock().unwrap_or_else(PoisonError::into_inner));
    }
    let free = || match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    patiently(free).ok_or_else(ending)
}

/// Asks until there is an answer, but no longer than a device may take.
fn patiently<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
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

/// Registers the handler once more, the first few times. Drivers register theirs when they are loaded and when they are first
/// used for this or that, and ours must come after those.
pub fn register() {
    /// Enough for discovery and for each device of a large machine.
    const MOST: u32 = 64;
    static REGISTERED: AtomicU32 = AtomicU32::new(0);
    if REGISTERED.fetch_update(SeqCst, SeqCst, |count| (count < MOST).then_some(count + 1)).is_ok() {
        PROCESS.store(std::process::id(), SeqCst);
        // SAFETY: a function of this library, which is never unloaded (build.rs), and which returns and does not panic.
        // If there is no room for it, leaving is as safe as it would be without.
        let _ = unsafe { libc::atexit(at_exit) };
    }
}

extern "C" fn at_exit() {
    if PROCESS.load(SeqCst) != std::process::id() {
        return;
    }
    CLOSED.store(true, SeqCst);
    // A driver's own callback may be what ends the process: that thread cannot come out.
    let own = usize::from(DEPTH.get() > 0);
    // Polled: a lock could be held by the very thread that is leaving.
    patiently(|| (INSIDE.load(SeqCst) <= own).then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_inside_counts_once_however_deep() {
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
    fn a_lock_is_had_also_after_a_panic() {
        let mutex = Mutex::new(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = mutex.lock();
            std::panic::resume_unwind(Box::new("a test"));
        }));
        assert!(panicked.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex).unwrap(), 1);
    }
}
