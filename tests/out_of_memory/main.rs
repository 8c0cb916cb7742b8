//! Every allocation that is sized by data fails once, in every operation of both interfaces on every device: the operation
//! gives a status and leaves outputs untouched, or does without that memory and gives the right result; and the same
//! operation afterwards succeeds. Each test runs in a process of its own, which an allocation that cannot fail would
//! abort, and whose error output stays empty.

#[path = "../support/mod.rs"]
mod support;

mod interface;
mod layers;
mod reference;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use sparkle::ffi::library::{sparkle_finalize, sparkle_last_error};
use sparkle::ffi::status::sparkle_status;
use sparkle_status::{SPARKLE_ERROR_OUT_OF_MEMORY, SPARKLE_OK};

/// What the header names: allocations of fewer bytes are not asked to fail.
const SMALL: usize = 64 << 10;

/// The system's allocator, one of whose large allocations fails if that was asked for.
struct Failing;

/// Large allocations so far, while they are counted; and the one that fails, counted from 1.
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

/// Runs `make`, whose allocations are the test's own, in the midst of an operation.
fn own<T>(make: impl FnOnce() -> T) -> T {
    OWN.set(true);
    let made = make();
    OWN.set(false);
    made
}

// SAFETY: all memory is the system allocator's; a null pointer says that there is none.
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

/// Runs `operation` while large allocation `which` fails, or none for 0; gives its status and how many there were.
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
    /// Makes what the operation needs and is not itself under test.
    before: Box<dyn FnMut() + 'a>,
    /// What it computes lands in the output.
    run: Run<'a>,
    /// What is right, and how far from it an output may be.
    expected: &'a [f32],
    tolerance: f32,
    /// Whether it is done once more after each failure; else only after the last.
    again: bool,
}

const CANARY: f32 = -12345.5;

/// Fails each of the operation's large allocations; gives how many failures it noticed and how many it did without.
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
        // The same call at once, in the state that the failure left behind.
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
    // SAFETY: the text is this thread's until its next call.
    unsafe { std::ffi::CStr::from_ptr(sparkle_last_error()) }.to_string_lossy().into_owned()
}

fn ok(status: sparkle_status) {
    assert_eq!(status, SPARKLE_OK, "{}", last_error());
}

/// The library as it is when nothing was used yet, and as it is when everything was.
const STATES: [(&str, fn()); 2] = [("cold", || ok(sparkle_finalize())), ("warm", || ())];

/// Operations so far, and what became of the failures in them.
#[derive(Debug, Default)]
struct Tally {
    operations: usize,
    /// Failures that the operation gave a status for.
    noticed: usize,
    /// Failures that it did without.
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

    /// There were at least so many operations and failures with a status.
    fn expect(&self, operations: usize, noticed: usize) {
        println!("{self:?}");
        assert!(self.operations >= operations && self.noticed >= noticed, "{self:?}");
    }
}

/// Says that this process is a test's own.
const CHILD: &str = "SPARKLE_TEST_CHILD";

/// Whether it is: there, what looks for devices is under test, too.
fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs `test`, of the name `name`, in a process of its own, with these variables; that says nothing on its error output.
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
