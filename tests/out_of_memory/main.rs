//! Every allocation whose size depends on data fails once, in every operation of both interfaces on every device. The operation
//! returns a status and leaves outputs untouched, or works without that memory and returns the correct result. The same operation
//! succeeds afterwards. Each test runs in its own process, because a failing infallible allocation would abort it. Its stderr
//! must stay empty.

#[path = "../support/mod.rs"]
mod support;

mod interface;
mod kernels;
mod layers;
mod reference;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use sparkle::ffi::library::{sparkle_finalize, sparkle_last_error};
use sparkle::ffi::status::sparkle_status;
use sparkle_status::{SPARKLE_ERROR_OUT_OF_MEMORY, SPARKLE_OK};

/// The limit that the header documents: smaller allocations do not fail.
const SMALL: usize = 64 << 10;

/// The system's allocator; a selected large allocation fails.
struct Failing;

/// The number of large allocations while counting, and the one that fails, counted from 1.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FAILS: AtomicUsize = AtomicUsize::new(0);
static COUNTING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread allocates for the test itself.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

fn fails(bytes: usize) -> bool {
    bytes >= SMALL
        && COUNTING.load(SeqCst)
        && !OWN.try_with(Cell::get).unwrap_or(false)
        && COUNT.fetch_add(1, SeqCst) + 1 == FAILS.load(SeqCst)
}

/// Runs `make` during an operation. Its allocations belong to the test and do not count.
fn own<T>(make: impl FnOnce() -> T) -> T {
    OWN.set(true);
    let made = make();
    OWN.set(false);
    made
}

// SAFETY: all memory comes from the system allocator; a null pointer reports a failure.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if fails(layout.size()) { null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        if fails(layout.size()) { null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        if fails(size) { null_mut() } else { unsafe { System.realloc(memory, layout, size) } }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Runs `operation` while large allocation `which` fails, or none for 0. Returns its status and the number of allocations.
fn with_failure(which: usize, operation: &mut dyn FnMut() -> sparkle_status) -> (sparkle_status, usize) {
    FAILS.store(which, SeqCst);
    COUNT.store(0, SeqCst);
    COUNTING.store(true, SeqCst);
    let status = operation();
    COUNTING.store(false, SeqCst);
    (status, COUNT.load(SeqCst))
}

type Run<'a> = Box<dyn FnMut(&mut [f32]) -> sparkle_status + 'a>;

/// An operation under test.
struct Operation<'a> {
    name: String,
    /// Prepares the operation; it is not under test.
    before: Box<dyn FnMut() + 'a>,
    /// Computes into the output.
    run: Run<'a>,
    /// The expected output, and the tolerance.
    expected: &'a [f32],
    tolerance: f32,
    /// Whether it runs again after each failure, or only after the last.
    again: bool,
}

const CANARY: f32 = -12345.5;

/// Fails each large allocation of the operation. Returns how many failures it reported and how many it worked around.
fn check(operation: &mut Operation) -> (usize, usize) {
    let Operation { name, before, run, expected, tolerance, again } = operation;
    let mut output = vec![CANARY; expected.len()];
    let is_right = |output: &[f32]| {
        output.iter().zip(*expected).all(|(value, expected)| (value - expected).abs() <= *tolerance)
    };
    let (mut noticed, mut overcome) = (0, 0);
    for which in 1.. {
        before();
        output.fill(CANARY);
        let (status, count) = with_failure(which, &mut || run(&mut output));
        let failed = count >= which;
        match status {
            SPARKLE_OK => {
                assert!(is_right(&output), "{name}: wrong with failure {which}");
                overcome += usize::from(failed);
            }
            SPARKLE_ERROR_OUT_OF_MEMORY if failed => {
                let untouched = output.iter().all(|&value| value == CANARY);
                assert!(untouched, "{name}: output touched at failure {which}");
                let what = last_error();
                let says = what.split_once(" is out of memory: ").is_some_and(|(_, what)| !what.is_empty());
                assert!(says, "{name}: failure {which} is called {what:?}");
                noticed += 1;
            }
            other => panic!("{name}: {other:?} at failure {which} of {count}: {}", last_error()),
        }
        if failed && !*again {
            continue;
        }
        // The same call again, in the state after the failure.
        output.fill(CANARY);
        let status = run(&mut output);
        assert_eq!(status, SPARKLE_OK, "{name} after failure {which}: {}", last_error());
        assert!(is_right(&output), "{name}: wrong after failure {which}");
        if !failed {
            return (noticed, overcome);
        }
    }
    unreachable!()
}

fn last_error() -> String {
    // SAFETY: the text is valid on this thread until its next call.
    unsafe { std::ffi::CStr::from_ptr(sparkle_last_error()) }.to_string_lossy().into_owned()
}

fn ok(status: sparkle_status) {
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
}

/// The library before its first use, and after everything was used.
const STATES: [(&str, fn()); 2] = [("cold", || ok(sparkle_finalize())), ("warm", || ())];

/// Counts operations, and the outcomes of the failures in them.
#[derive(Debug, Default)]
struct Tally {
    operations: usize,
    /// Failures that operations reported with a status.
    noticed: usize,
    /// Failures that operations worked around.
    overcome: usize,
}

impl Tally {
    fn check(&mut self, mut operation: Operation) {
        let start = std::time::Instant::now();
        let (noticed, overcome) = check(&mut operation);
        println!("{}: {noticed} noticed, {overcome} overcome, {:?}", operation.name, start.elapsed());
        self.operations += 1;
        self.noticed += noticed;
        self.overcome += overcome;
    }

    /// Asserts the minimum numbers of operations and of reported failures.
    fn expect(&self, operations: usize, noticed: usize) {
        println!("{self:?}");
        assert!(self.operations >= operations && self.noticed >= noticed, "{self:?}");
    }
}

/// The variable that marks the child process of a test.
const CHILD: &str = "SPARKLE_TEST_CHILD";

/// Whether this is such a child process, in which the discovery of devices is under test, too.
fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs `test`, named `name`, in its own process with these variables. Its stderr must be empty.
fn alone(name: &str, variables: &[(&str, &str)], test: fn()) {
    if is_child() {
        return test();
    }
    let cache = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").env("SPARKLE_CACHE_DIR", cache.path());
    child.envs(variables.iter().copied());
    let output = child.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    println!("{said}");
    assert!(output.status.success() && errors.is_empty(), "{name}: {}\n{errors}", output.status);
    assert!(said.contains("running 1 test"), "{said}");
}

#[test]
fn cpu() {
    alone("cpu", &[("SPARKLE_CACHE_DIR", "off")], || {
        let mut tally = Tally::default();
        interface::operations("cpu", &mut tally);
        tally.expect(100, 100);
        kernels::launches("cpu");
    });
}

#[test]
fn cpu_measured() {
    alone("cpu_measured", &[("SPARKLE_TUNE", "full")], || {
        let mut tally = Tally::default();
        interface::measured("cpu", &mut tally);
        assert!(tally.overcome >= 5, "{tally:?}");
    });
}

#[test]
fn gl() {
    if is_child() || support::gl_available() {
        alone("gl", &[("SPARKLE_CACHE_DIR", "off")], || {
            let mut tally = Tally::default();
            interface::operations("gl:0", &mut tally);
            tally.expect(40, 45);
            kernels::launches("gl:0");
        });
    }
}

#[test]
fn gl_measured() {
    if is_child() || support::gl_available() {
        alone("gl_measured", &[("SPARKLE_TUNE", "full")], || {
            let mut tally = Tally::default();
            interface::measured("gl:0", &mut tally);
            println!("{tally:?}");
            interface::tuned();
        });
    }
}

#[test]
fn reference_interface() {
    if is_child() || support::gl_available() {
        alone("reference_interface", &[("SPARKLE_CACHE_DIR", "off")], || {
            let mut tally = Tally::default();
            reference::operations(&mut tally);
            tally.expect(14, 14);
        });
    }
}
