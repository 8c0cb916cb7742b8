//! `finalize()` gives everything back, and the engine can be used again. The only test of its binary: it
//! counts the threads and descriptors of the process.

#![cfg(target_os = "linux")]

mod cpu_cases;

use std::time::{Duration, Instant};

use cpu_cases::{ConvCase, Values, same_bits};
use sparkle::problem::exact::Random;
use sparkle::{Conv2dDesc, Device};

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// The number of threads, once it is no more than `expected`: a joined thread may stay listed for a moment.
fn threads_settled(expected: usize) -> usize {
    let start = Instant::now();
    while entries("/proc/self/task") > expected && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    entries("/proc/self/task")
}

#[test]
fn a_hundred_cycles_leave_nothing_behind() {
    sparkle::set_num_threads(4).unwrap();
    let desc = Conv2dDesc { c: 32, h: 40, w: 40, k: 16, r: 3, s: 3, ..Default::default() };
    let case = ConvCase::new(desc, Values::Real, &mut Random::new(51));
    let device = Device::open("cpu").unwrap();
    let compute = || {
        let mut output = vec![f32::NAN; case.problem.output_len()];
        device.conv2d(&case.problem, &case.input, &case.weights, None, &mut output).unwrap();
        output
    };
    let (threads, descriptors) = (entries("/proc/self/task"), entries("/proc/self/fd"));
    let first = compute();
    assert_eq!(entries("/proc/self/task"), threads + 3, "the pool runs; the caller takes part");
    for _ in 0..100 {
        sparkle::finalize();
        sparkle::finalize();
        assert_eq!(threads_settled(threads), threads);
        assert!(same_bits(&compute(), &first));
    }
    sparkle::finalize();
    assert_eq!((threads_settled(threads), entries("/proc/self/fd")), (threads, descriptors));
}
