//! Random sequences of calls of the C interface on every device, from four threads that share all handles. Nothing
//! crashes, every status is one that the call may return, results are exact, and failed calls leave their outputs
//! untouched.
//!
//! `SPARKLE_FUZZ_SECONDS` is the time for all devices together, 30 by default. `SPARKLE_FUZZ_CALLS` is a number of
//! calls for each device instead. `SPARKLE_FUZZ_DEVICE` names the only device. `SPARKLE_FUZZ_SEED` repeats a run, as
//! far as threads allow. `make fuzz` runs this test under the address sanitizer; `fuzz/` makes the same calls from a
//! fuzzer's bytes.

mod calls;
mod choices;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use calls::Caller;
use choices::Choices;
use sparkle::DeviceKind;
use world::World;

const THREADS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Counts a thread as working until this guard is dropped, also by a panic.
struct Working<'a>(&'a AtomicU64);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Makes calls on `device` until `enough` returns true, and returns the number of calls.
fn run(device: &str, seed: u64, enough: impl Fn(u64) -> bool + Sync) -> u64 {
    let world = World::new(device);
    let working = AtomicU64::new(THREADS);
    std::thread::scope(|scope| {
        // On GL, jobs wait while callers hold all slots. If all callers wait for jobs, only this thread can release a
        // slot.
        scope.spawn(|| {
            let mut before = 0;
            while working.load(Relaxed) > 0 {
                std::thread::sleep(Duration::from_millis(100));
                let calls = world.calls.load(Relaxed);
                if calls == before {
                    world.release_slots();
                }
                before = calls;
            }
        });
        for thread in 0..THREADS {
            let (world, enough, working) = (&world, &enough, &working);
            scope.spawn(move || {
                let _guard = Working(working);
                let mut caller = Caller::new(world, Choices::seeded(seed.wrapping_mul(1_000) + thread));
                while !enough(world.calls.load(Relaxed)) {
                    caller.step();
                }
                caller.end();
            });
        }
    });
    world.finalize();
    let (calls, right) = (world.calls.load(Relaxed), world.verified.load(Relaxed));
    println!(
        "{device}, seed {seed}: {calls} calls, {right} results verified; statuses {:?}",
        world.statuses()
    );
    assert!(right * 50 >= calls, "{right} results of {calls} calls: too little was computed");
    calls
}

#[test]
fn random_calls_from_four_threads() {
    let all = sparkle::devices();
    let devices = all.iter().filter(|it| it.id.is_some()).map(|it| (it.id.clone().unwrap(), it.kind));
    // One GL device is enough: its worker is one thread for all callers.
    let gl = devices.clone().find(|it| it.1 == DeviceKind::Gl);
    let mut devices: Vec<String> = devices.take(1).chain(gl).map(|it| it.0).collect();
    if let Ok(only) = std::env::var("SPARKLE_FUZZ_DEVICE") {
        devices = vec![only];
    }
    let seed = number("SPARKLE_FUZZ_SEED").unwrap_or(1);
    let seconds = number("SPARKLE_FUZZ_SECONDS").unwrap_or(30) / devices.len() as u64;
    for device in &devices {
        let start = Instant::now();
        let calls = match number("SPARKLE_FUZZ_CALLS") {
            Some(wanted) => run(device, seed, |calls| calls >= wanted),
            None => run(device, seed, |_| start.elapsed() >= Duration::from_secs(seconds)),
        };
        assert!(calls >= 500, "{device}: only {calls} calls");
    }
}
