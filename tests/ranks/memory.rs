//! Every large allocation of one rank fails once, in every call over ranks. No rank waits for ever: either all ranks get an
//! error and no output is touched, or that rank's device alone has failed and the others have their results. The next call
//! succeeds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use sparkle::problem::exact::Random;
use sparkle::ranks::{Exchange, Group, Started, Transport};
use sparkle::{Conv2d, Conv2dDesc, Device, Error, GemmDesc, Layout as Order, Result};

use super::threads::{Threads, transports};
use super::{Case, DISTRIBUTIONS, integers};

/// The limit that the header documents: smaller allocations do not fail.
const SMALL: usize = 64 << 10;

/// The system's allocator; a selected large allocation of a thread fails.
struct Failing;

thread_local! {
    /// Whether the large allocations of this thread count, how many there were, and the one that fails, from 1.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static FAILS: Cell<usize> = const { Cell::new(0) };
}

fn fails(bytes: usize) -> bool {
    if bytes < SMALL || !COUNTING.try_with(Cell::get).unwrap_or(false) {
        return false;
    }
    COUNT.set(COUNT.get() + 1);
    COUNT.get() == FAILS.get()
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

/// The transport of the tests. Its own allocations do not count.
struct Sound(Threads);

impl Sound {
    fn own<T>(&mut self, call: impl FnOnce(&mut Threads) -> T) -> T {
        let counting = COUNTING.replace(false);
        let result = call(&mut self.0);
        COUNTING.set(counting);
        result
    }
}

impl Transport for Sound {
    fn rank(&self) -> usize {
        self.0.rank()
    }
    fn ranks(&self) -> usize {
        self.0.ranks()
    }
    fn start(&mut self, exchange: Exchange) -> Result<Started> {
        self.own(|it| it.start(exchange))
    }
    fn finish(&mut self, started: Started) -> Result<Exchange> {
        self.own(|it| it.finish(started))
    }
    fn progress(&mut self) -> Result<()> {
        self.own(Threads::progress)
    }
    fn broadcast(&mut self, root: usize, data: &mut [f32]) -> Result<()> {
        self.own(|it| it.broadcast(root, data))
    }
    fn agree(&mut self, values: &mut [i64]) -> Result<()> {
        self.own(|it| it.agree(values))
    }
}

/// Ends the process if it is not dropped in time, because a rank then waits for ever.
struct Watchdog(#[expect(dead_code, reason = "its end is the signal")] Sender<()>);

impl Watchdog {
    fn start(what: String) -> Self {
        let (lives, ends) = channel();
        std::thread::spawn(move || {
            if ends.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: a rank waits for ever");
                std::process::abort();
            }
        });
        Watchdog(lives)
    }
}

/// What came of the failures of one operation.
#[derive(Debug, Default)]
struct Tally {
    /// All ranks got an error.
    together: usize,
    /// The device of the one rank failed, and the others had their results.
    alone: usize,
}

/// Fails each large allocation of `call` on rank `bad` of `ranks`. `prepare` makes on each rank what the call needs, and the
/// call checks its own output. `Err` of the call comes with whether its output was untouched.
fn check<P>(
    name: &str,
    (ranks, bad): (usize, usize),
    prepare: impl Fn(&Group) -> P + Sync,
    call: impl Fn(&Group, &P) -> std::result::Result<(), (Error, bool)> + Sync,
) -> Tally {
    let _watchdog = Watchdog::start(format!("{name}, allocation of rank {bad} of {ranks}"));
    let device = Device::open("cpu").unwrap();
    let (barrier, is_over) = (Barrier::new(ranks), AtomicBool::new(false));
    let body = |transport: Threads| {
        let group = Group::new(&device, Box::new(Sound(transport))).unwrap();
        let prepared = prepare(&group);
        let mut results = vec![];
        for which in 1.. {
            FAILS.set(if group.rank() == bad { which } else { 0 });
            COUNT.set(0);
            COUNTING.set(true);
            let result = call(&group, &prepared);
            COUNTING.set(false);
            if group.rank() == bad {
                is_over.store(COUNT.get() < which, SeqCst);
            }
            results.push(result);
            call(&group, &prepared).unwrap();
            barrier.wait();
            if is_over.load(SeqCst) {
                return results;
            }
            barrier.wait();
        }
        unreachable!()
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = |transport: Threads| scope.spawn(|| body(transport));
        let threads: Vec<_> = transports(ranks).0.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut tally = Tally::default();
    for which in 0..results[bad].len() {
        let others = || results.iter().enumerate().filter(|(rank, _)| *rank != bad).map(|(_, it)| &it[which]);
        let Err((error, untouched)) = &results[bad][which] else {
            assert!(others().all(|it| it.is_ok()), "{name}: {which}");
            continue;
        };
        assert!(matches!(error, Error::OutOfMemory { .. }), "{name}: {which}: {error}");
        if others().all(|it| it.is_ok()) {
            tally.alone += 1;
            continue;
        }
        let expected = Error::OtherRank { rank: bad, reason: error.to_string() };
        assert!(
            others().all(|it| it.as_ref().is_err_and(|it| *it == (expected.clone(), true))),
            "{name}: {which}"
        );
        assert!(untouched, "{name}: {which}");
        tally.together += 1;
    }
    assert!(results[bad].last().unwrap().is_ok(), "{name}: the last call fails nothing");
    println!("{name}, rank {bad}: {tally:?}");
    tally
}

const CANARY: f32 = -12345.5;

fn case() -> Case {
    let desc = Conv2dDesc {
        n: 3,
        c: 96,
        h: 9,
        w: 64,
        k: 96,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        bias: true,
        algorithm: sparkle::Algorithm::Direct,
        ..Default::default()
    };
    Case::new(Conv2d::new(desc).unwrap(), &mut Random::new(31))
}

#[test]
fn convolutions() {
    let case = &case();
    for distribution in DISTRIBUTIONS {
        let plan = |group: &Group| {
            let data = match group.rank() {
                0 => (&case.weights[..], case.bias.as_deref()),
                _ => (&[][..], None),
            };
            group.plan(&case.problem, distribution, data.0, data.1)
        };
        for bad in 0..3 {
            let made = |group: &Group, _: &()| plan(group).map(drop).map_err(|error| (error, true));
            let tally = check(&format!("a plan, {distribution:?}"), (3, bad), |_| (), made);
            assert!(tally.together >= 2 && tally.alone == 0, "{tally:?}");
            let prepare = |group: &Group| {
                let plan = plan(group).unwrap();
                let part = plan.part();
                (plan, case.input_of(distribution, &part), case.output_of(distribution, &part))
            };
            check(&format!("a run, {distribution:?}"), (3, bad), prepare, |_, (plan, input, expected)| {
                let counting = COUNTING.replace(false);
                let mut output = vec![CANARY; expected.len()];
                COUNTING.set(counting);
                let result = plan.run(input, &mut output);
                result.map_err(|error| (error, output.iter().all(|&value| value == CANARY)))?;
                assert!(output == *expected, "{distribution:?}");
                Ok(())
            });
        }
    }
}

/// All panels are allocated before the ranks agree to begin.
#[test]
fn products() {
    let (m, n, k) = (256, 260, 600);
    let mut random = Random::new(32);
    let (a, b) = (integers(&mut random, m * k), integers(&mut random, k * n));
    let product = |row: usize, col: usize| (0..k).map(|p| a[row * k + p] * b[p * n + col]).sum::<f32>();
    let block = |whole: &[f32], ld: usize, [rows, cols]: [sparkle::ranks::Span; 2]| {
        let lines =
            (rows.first..rows.first + rows.count).map(|row| &whole[row * ld + cols.first..][..cols.count]);
        lines.flatten().copied().collect::<Vec<f32>>()
    };
    let prepare = |group: &Group| {
        let packed = GemmDesc::packed(Order::RowMajor, m as i64, n as i64, k as i64);
        let gemm = group.gemm(GemmDesc { lda: 0, ldb: 0, ldc: 0, ..packed }).unwrap();
        let part = gemm.part();
        let [rows, cols] = part.c.map(|span| span.first..span.first + span.count);
        let expected: Vec<f32> = rows
            .flat_map(|row| cols.clone().map(move |col| (row, col)))
            .map(|(row, col)| product(row, col))
            .collect();
        (gemm, block(&a, k, part.a), block(&b, n, part.b), expected)
    };
    for (ranks, bad) in [(2, 1), (4, 0), (4, 3)] {
        let tally = check("a product", (ranks, bad), prepare, |_, (gemm, a, b, expected)| {
            let counting = COUNTING.replace(false);
            let mut c = vec![CANARY; expected.len()];
            COUNTING.set(counting);
            let result = gemm.run(a, b, &mut c);
            result.map_err(|error| (error, c.iter().all(|&value| value == CANARY)))?;
            assert!(c == *expected);
            Ok(())
        });
        // A panel that is multiplied, one that is received and one that is sent, of one operand at least.
        assert!(tally.together >= 3, "{tally:?}");
    }
}
