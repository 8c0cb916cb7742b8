//! The library's own threads: how each of them starts.

use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::float_env;

/// Starts a thread that does `role` for `device`, in the library's floating-point environment.
///
/// # Errors
/// [`Error::OutOfMemory`] if the system gives no thread: for want of memory, or because the user has as many as are
/// allowed. Nothing has begun then.
pub fn spawn<T: Send + 'static>(
    device: &str,
    role: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    // The panic hook of `ffi::boundary` knows the library's threads by this prefix.
    let builder = std::thread::Builder::new().name(format!("sparkle {device} {role}").trim_end().to_owned());
    let in_environment = move || {
        float_env::set_for_own_thread();
        body()
    };
    builder.spawn(in_environment).map_err(|error| Error::OutOfMemory {
        device: device.to_owned(),
        what: format!("the system gives no thread for {role} ({error})"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_name_and_a_result() {
        let name = || std::thread::current().name().map(str::to_owned);
        let thread = spawn("gl:0", "uploads", name).unwrap();
        assert_eq!(thread.join().unwrap().as_deref(), Some("sparkle gl:0 uploads"));
    }
}
