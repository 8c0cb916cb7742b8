//! [`boundary!`], the body of every exported function.
//!
//! It records the calling process (to detect a fork), runs the body, catches panics, stores the message of a failure as
//! the thread's last error, and returns the function's failure value. A panic that escaped an `extern "C"` function
//! would abort the caller's program.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::status::{Failure, Outcome, sparkle_status};
use crate::float_env::FloatEnv;

/// The body of an exported function: a closure that receives the [`Call`](boundary::Call) and may use `?`.
macro_rules! boundary {
    (|$call:pat_param| $body:block) => {
        $crate::ffi::boundary::run(move |$call| $body)
    };
}

/// The running call. Only [`boundary!`] creates one, and looking up a handle requires one, so no lookup can skip the
/// fork check.
pub(super) struct Call {
    process: u32,
}

impl Call {
    /// The process that is calling.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    #[cfg(test)]
    pub(super) fn of_process(process: u32) -> Self {
        Call { process }
    }
}

/// A type that an exported function returns.
pub(super) trait Returned {
    /// The body's value on success.
    type Value;
    /// That value as C receives it.
    fn success(value: Self::Value) -> Self;
    /// What C receives after a failure.
    fn failure(status: sparkle_status) -> Self;
}

impl Returned for sparkle_status {
    type Value = ();
    fn success((): ()) -> Self {
        sparkle_status::SPARKLE_OK
    }
    fn failure(status: sparkle_status) -> Self {
        status
    }
}

impl Returned for () {
    type Value = ();
    fn success((): ()) {}
    fn failure(_: sparkle_status) {}
}

/// Types with a fixed failure value.
macro_rules! fails_as {
    ($($type:ty: $failure:expr;)*) => {
        $(impl Returned for $type {
            type Value = $type;
            fn success(value: $type) -> Self {
                value
            }
            fn failure(_: sparkle_status) -> Self {
                $failure
            }
        })*
    };
}
fails_as! {
    // Milliseconds.
    f32: -1.0;
    f64: -1.0;
    // Truth values, GL names, counts, versions.
    c_int: 0;
    c_uint: 0;
    // Text.
    *const c_char: c"".as_ptr();
    // Memory.
    *mut c_void: std::ptr::null_mut();
    super::reference::gpu_buffer_t: super::reference::gpu_buffer_t { buffer_id: 0, size_bytes: 0 };
}

/// The implementation of [`boundary!`].
pub(super) fn run<R: Returned>(body: impl FnOnce(&Call) -> Outcome<R::Value>) -> R {
    let _library = FloatEnv::enter();
    let call = Call { process: crate::process::id() };
    #[cfg(test)]
    let body = super::panics::before(body);
    match catch(|| body(&call)) {
        Ok(value) => R::success(value),
        Err(failure) => {
            set_last_error(failure.message);
            R::failure(failure.status)
        }
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
    /// The number of boundaries that this thread is inside; more than one if a log callback calls the library.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Message and location of the panic that is unwinding this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether there may be one; this is cheaper to read.
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

// Thread-locals are accessed with `try_with`: C may call from a destructor at the end of a thread, when they no longer
// exist. There is no last error then, but everything else works.

/// This thread's last error; valid until it changes.
pub(super) fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn set_last_error(message: String) {
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = c_string(&message));
}

/// `text` as a C string. NULs inside become spaces, because they would hide the rest.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// Runs `body`; a panic becomes an internal error.
fn catch<T>(body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    quiet_panics();
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
    // Discard the note of a panic that was caught inside an earlier body.
    if NOTED.replace(false) {
        let _ = PANIC.try_with(RefCell::take);
    }
    // State that the body could leave inconsistent is either local to it or behind a lock that tolerates poison.
    let caught = catch_unwind(AssertUnwindSafe(body));
    let _ = DEPTH.try_with(|depth| depth.set(depth.get() - 1));
    caught.unwrap_or_else(|payload| Err(panicked(payload)))
}

fn panicked(payload: Box<dyn Any + Send>) -> Failure {
    let noted = PANIC.try_with(RefCell::take).ok().flatten();
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let text = noted.or(text).or_else(|| payload.downcast_ref::<String>().cloned());
    // Dropping the payload could panic again, where nothing would catch it.
    std::mem::forget(payload);
    crate::Error::Internal(text.unwrap_or_else(|| "a panic without a message".into())).into()
}

/// Installs a panic hook that records panics inside a boundary and prints nothing.
///
/// In `libsparkle.so` the hook belongs to the library, which contains its own standard library. In a Rust program it
/// belongs to the program: the previous hook still receives every panic that is neither inside a boundary nor on one of
/// Sparkle's own threads.
fn quiet_panics() {
    static INSTALLED: Once = Once::new();
    if INSTALLED.is_completed() || std::thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.try_with(Cell::get).is_ok_and(|depth| depth > 0) {
                NOTED.set(true);
                let _ = PANIC.try_with(|noted| *noted.borrow_mut() = Some(panic.to_string()));
            } else if !crate::thread::is_ours() {
                previous(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::super::reference::gpu_buffer_t;
    use super::*;
    use crate::Error;

    fn message() -> String {
        // SAFETY: the pointer is this thread's last error, which nothing changes before it is copied.
        unsafe { CStr::from_ptr(last_error()) }.to_str().unwrap().to_owned()
    }

    fn fails<R: Returned>() -> R {
        set_last_error(String::new());
        boundary!(|_call| { Err(Error::Internal("a test".into()).into()) })
    }

    fn panics<R: Returned>() -> R {
        set_last_error(String::new());
        boundary!(|_call| { panic!("a test {}", "panics") })
    }

    /// Checks that both an error and a panic return `failure`.
    fn check<R: Returned>(failure: impl Fn(R) -> bool) {
        assert!(failure(fails()));
        assert_eq!(message(), "internal error, please report it: a test");
        assert!(failure(panics()));
        assert!(message().starts_with("internal error, please report it: panicked at src/ffi/boundary.rs"));
        assert!(message().ends_with("a test panics"), "{}", message());
    }

    #[test]
    fn every_return_type_has_its_failure() {
        check(|status: sparkle_status| status == sparkle_status::SPARKLE_ERROR_INTERNAL);
        check(|time: f32| time == -1.0);
        check(|time: f64| time == -1.0);
        check(|truth: c_int| truth == 0);
        check(|name: c_uint| name == 0);
        // SAFETY: static text.
        check(|text: *const c_char| unsafe { CStr::from_ptr(text) }.is_empty());
        check(|buffer: gpu_buffer_t| (buffer.buffer_id, buffer.size_bytes) == (0, 0));
        check(|memory: *mut c_void| memory.is_null());
        check(|()| true);
    }

    #[test]
    fn success_leaves_the_last_error_alone() {
        set_last_error("before".into());
        let status: sparkle_status = boundary!(|_call| { Ok(()) });
        assert_eq!((status, message().as_str()), (sparkle_status::SPARKLE_OK, "before"));
        let time: f32 = boundary!(|_call| { Ok(2.5) });
        assert_eq!((time, message().as_str()), (2.5, "before"));
    }

    #[test]
    fn panics_of_other_kinds_are_caught_too() {
        let status: sparkle_status = boundary!(|_call| { std::panic::resume_unwind(Box::new(7)) });
        assert_eq!(status, sparkle_status::SPARKLE_ERROR_INTERNAL);
        assert!(message().ends_with("a panic without a message"), "{}", message());
        // As from a thread pool, which rethrows the panic of a worker.
        let status: sparkle_status = boundary!(|_call| { std::panic::resume_unwind(Box::new("a worker's")) });
        assert_eq!(status, sparkle_status::SPARKLE_ERROR_INTERNAL);
        assert!(message().ends_with("a worker's"), "{}", message());
    }

    #[test]
    fn panics_inside_print_nothing_and_panics_outside_do() {
        let name = "panics_inside_print_nothing_and_panics_outside_do";
        match std::env::var("SPARKLE_TEST_CHILD").as_deref() {
            Ok("inside") => assert_eq!(panics::<f32>(), -1.0),
            Ok("outside") => {
                assert_eq!(panics::<f32>(), -1.0);
                panic!("for all to see");
            }
            _ => {
                let stderr = |place| {
                    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
                    child.args([name, "--nocapture"]).env("SPARKLE_TEST_CHILD", place);
                    let output = child.output().unwrap();
                    assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test"));
                    String::from_utf8_lossy(&output.stderr).into_owned()
                };
                assert_eq!(stderr("inside"), "");
                let outside = stderr("outside");
                assert!(
                    outside.contains("for all to see") && !outside.contains("a test panics"),
                    "{outside}"
                );
            }
        }
    }

    #[test]
    fn a_boundary_inside_a_boundary() {
        let status: sparkle_status = boundary!(|_call| {
            assert_eq!(panics::<f32>(), -1.0);
            Err(Failure::null("outer"))
        });
        assert_eq!(
            (status, message().as_str()),
            (sparkle_status::SPARKLE_ERROR_NULL_POINTER, "outer is NULL")
        );
    }

    #[test]
    fn messages_survive_a_nul_and_stay_on_their_thread() {
        let _: sparkle_status = boundary!(|_call| { Err(Failure::null("a\0b")) });
        assert_eq!(message(), "a b is NULL");
        std::thread::spawn(|| assert_eq!(message(), "")).join().unwrap();
        assert_eq!(message(), "a b is NULL");
    }
}
