//! Measures the peak rate of fused multiply-adds: on registers alone, in more independent chains than the units'
//! latency needs. No memory is involved, so no product or direct convolution can be faster.

use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The loop with which the library calibrates itself.
#[path = "../../../src/cpu/peak.rs"]
mod registers;

/// GFLOPS of `threads` threads that compute at the same time for `time`: the sum of their medians.
pub fn gflops(threads: usize, time: Duration) -> f64 {
    let start = Barrier::new(threads);
    let one = || {
        start.wait();
        rate(time)
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().expect("arithmetic does not panic")).sum()
    })
}

/// GFLOPS of this thread, on the registers that `SPARKLE_ISA` names.
fn rate(time: Duration) -> f64 {
    let isa = std::env::var("SPARKLE_ISA").unwrap_or_default();
    let (mut times, start) = (vec![], Instant::now());
    let mut operations = registers::run(&isa);
    while times.len() < 5 || start.elapsed() < time {
        let before = Instant::now();
        operations = registers::run(&isa);
        times.push(before.elapsed());
    }
    sparkle::report::gflops(operations, sparkle::report::median(&times).expect("five at least"))
}
