//! Leaving the process in the midst of work.
//!
//! At exit a driver takes itself down, in a handler of its own, and may crash if a thread is inside of it at that time. So Sparkle
//! has a handler too, registered behind the driver's and therefore run before it: it waits for the threads that are
//! inside, and those that come later wait outside until the process has ended.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::config::config;
use crate::float_env::DriverFloatEnv;

/// Threads inside the driver.
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

/// Goes inside; never returns once the process is ending, unless the thread is inside already.
pub fn enter() -> Inside {
    let depth = DEPTH.replace(DEPTH.get() + 1);
    let inside = Inside { _env: (depth == 0).then(DriverFloatEnv::enter) };
    if depth == 0 {
        INSIDE.fetch_add(1, SeqCst);
        // Either this sees that it is closed or the handler sees that we are inside: both are one total order.
        if CLOSED.load(SeqCst) {
            drop(inside);
            loop {
                std::thread::park();
            }
        }
    }
    inside
}

/// Runs `wait`, which touches no driver and cannot panic, and may wait for somebody who does: outside meanwhile, so that nobody
/// waits for this thread while it waits for one that is kept out.
pub fn outside<T>(wait: impl FnOnce() -> T) -> T {
    let depth = DEPTH.replace(0);
    if depth == 0 {
        return wait();
    }
    INSIDE.fetch_sub(1, SeqCst);
    let value = wait();
    // What counted before goes on to.
    std::mem::forget(enter());
    DEPTH.set(depth);
    value
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

/// Registers the handler once more, the first few times. Drivers register theirs when they are loaded and when they are first
/// used for this or that, and ours must stand behind those.
pub fn register() {
    /// One for discovery, one for each device of a large machine.
    const MOST: u32 = 16;
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
    let limit = Duration::from_millis(config().gl_timeout_ms());
    let start = Instant::now();
    // Polled: a lock could be held by the very thread that is leaving.
    while INSIDE.load(SeqCst) > 0 && start.elapsed() < limit {
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_outside_is_inside_again_as_deep_as_before() {
        let _inside = (enter(), enter());
        assert_eq!((outside(|| DEPTH.get()), DEPTH.get()), (0, 2));
        let nested = outside(|| {
            let _inside = enter();
            outside(|| DEPTH.get()) + DEPTH.get()
        });
        assert_eq!((nested, DEPTH.get()), (1, 2));
    }
}
