//! `finalize()` releases everything, and the engine can be used again. It is the only test of its binary, because it counts
//! the threads and descriptors of the process.

#![cfg(target_os = "linux")]

mod cpu_cases;

use std::time::{Duration, Instant};

use cpu_cases::{ConvCase, Values, same_bits};
use sparkle::problem::exact::Random;
use sparkle::{Conv2dDesc, Device};

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// Resident bytes of this process.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

/// Waits until the number of threads is at most `expected`: a joined thread may stay listed for a moment.
fn threads_settled(expected: usize) -> usize {
    let start = Instant::now();
    while entries("/proc/self/task") > expected && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    entries("/proc/self/task")
}

#[test]
fn a_thousand_cycles_leave_nothing_behind() {
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
    assert_eq!(entries("/proc/self/task"), threads + 3, "the pool runs, and the caller works, too");
    let mut used = 0;
    for cycle in 0..1050 {
        if cycle == 50 {
            used = resident();
        }
        sparkle::finalize();
        sparkle::finalize();
        assert_eq!(threads_settled(threads), threads);
        assert!(same_bits(&compute(), &first));
    }
    let grown = resident() - used;
    assert!(grown <= 1000 << 10, "{grown} bytes in a thousand cycles");
    sparkle::finalize();
    assert_eq!((threads_settled(threads), entries("/proc/self/fd")), (threads, descriptors));
}
