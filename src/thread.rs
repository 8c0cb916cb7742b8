//! The library's own threads: how each of them starts.

use std::cell::Cell;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::{float_env, loader};

thread_local! {
    static OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is one of the library's own.
pub fn is_ours() -> bool {
    OURS.get()
}

/// Whether `thread` is the calling one. `std::thread::current` would panic in a destructor at the end of a thread.
pub fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    // SAFETY: tells the calling thread's own id; takes no argument.
    thread.as_pthread_t() == unsafe { libc::pthread_self() }
}

/// Starts a thread that does `role` for `device`, in the library's floating-point environment.
///
/// # Errors
/// [`Error::OutOfMemory`] if the system gives no thread: for want of memory, or because the user has as many as are
/// allowed; [`Error::Ending`] where the thread could not begin since the calling one holds the loader's lock. Nothing has
/// begun then.
pub fn spawn<T: Send + 'static>(
    device: &str,
    role: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let builder = std::thread::Builder::new().name(format!("sparkle {device} {role}").trim_end().to_owned());
    loader::check()?;
    let in_environment = move || {
        OURS.set(true);
        float_env::set_for_own_thread();
        body()
    };
    builder.spawn(in_environment).map_err(|error| Error::OutOfMemory {
        device: device.to_owned(),
        what: format!("the system gives no thread for {role} ({error})"),
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
    }
}
