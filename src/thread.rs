//! Starts the library's own threads.

use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::{float_env, loader};

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread belongs to the library.
pub fn is_ours() -> bool {
    IS_OURS.get()
}

/// Whether `thread` is the calling thread. `std::thread::current` would panic in a destructor at the end of a thread.
pub fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    // SAFETY: returns the calling thread's id, and takes no argument.
    thread.as_pthread_t() == unsafe { libc::pthread_self() }
}

/// Starts a thread named after `role` and `device`, in the library's floating-point environment.
///
/// # Errors
/// [`Error::OutOfMemory`] if the system refuses a thread, because memory or the user's limit of threads is exhausted.
/// [`Error::Ending`] if the calling thread holds the loader's lock, so that the new thread could not start. No thread
/// exists then.
pub fn spawn<T: Send + 'static>(
    device: &str,
    role: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let builder = std::thread::Builder::new().name(format!("sparkle {device} {role}").trim_end().to_owned());
    loader::check()?;
    let in_environment = move || {
        IS_OURS.set(true);
        float_env::set_for_own_thread();
        body()
    };
    builder.spawn(in_environment).map_err(|error| Error::OutOfMemory {
        device: device.to_owned(),
        what: format!("the system cannot start a thread for {role} ({error})"),
    })
}

/// Runs `body` on a thread with a stack of `bytes`, in the library's floating-point environment, and waits for it.
///
/// # Errors
/// As [`spawn`]. [`Error::Internal`] if `body` panics.
pub fn run_with_stack<T: Send>(role: &str, bytes: usize, body: impl FnOnce() -> T + Send) -> Result<T> {
    loader::check()?;
    let builder = std::thread::Builder::new().name(format!("sparkle host {role}")).stack_size(bytes);
    let in_environment = move || {
        IS_OURS.set(true);
        float_env::set_for_own_thread();
        body()
    };
    std::thread::scope(|scope| {
        let thread = builder.spawn_scoped(scope, in_environment).map_err(|error| Error::OutOfMemory {
            device: "cpu".to_owned(),
            what: format!("the system cannot start a thread for {role} ({error})"),
        })?;
        thread.join().map_err(|panic| Error::Internal(format!("{role}: {}", panic_text(&*panic))))
    })
}

/// What a panic says.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_name_and_a_result() {
        let name = || (std::thread::current().name().map(str::to_owned), is_ours());
        let thread = spawn("gl:0", "uploads", name).unwrap();
        assert!(!is_current(&thread) && !is_ours());
        assert_eq!(thread.join().unwrap(), (Some("sparkle gl:0 uploads".to_owned()), true));
        assert_eq!(
            run_with_stack("check", 1 << 20, name).unwrap(),
            (Some("sparkle host check".to_owned()), true)
        );
        let failed = run_with_stack("check", 1 << 20, || -> () { panic!("no reason") });
        assert_eq!(
            failed.unwrap_err().to_string(),
            Error::Internal("check: no reason".to_owned()).to_string()
        );
    }
}
