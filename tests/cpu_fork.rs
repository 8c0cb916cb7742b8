//! `fork()` of a process whose CPU pool is busy: the child computes correctly with its own threads, and so does a child of the
//! child. It is the only test of its binary, because a fork copies the state of all other threads.

#![cfg(unix)]

mod cpu_cases;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cpu_cases::{ConvCase, GemmCase, Values, same_bits};
use sparkle::problem::exact::Random;
use sparkle::{Conv2dDesc, Device, GemmDesc, Layout};

/// A convolution and a product that are large enough for the pool, with their results from before the fork.
struct Work {
    conv: ConvCase,
    product: GemmCase,
    results: (Vec<f32>, Vec<f32>),
}

impl Work {
    fn new() -> Self {
        let mut random = Random::new(41);
        let desc = Conv2dDesc { c: 32, h: 30, w: 30, k: 20, r: 3, s: 3, ..Default::default() };
        let conv = ConvCase::new(desc, Values::Real, &mut random);
        let product =
            GemmCase::new(GemmDesc::packed(Layout::RowMajor, 120, 130, 140), Values::Real, &mut random);
        let mut work = Work { conv, product, results: (vec![], vec![]) };
        work.results = work.compute();
        work
    }

    fn compute(&self) -> (Vec<f32>, Vec<f32>) {
        let device = Device::open("cpu").unwrap();
        let mut output = vec![f32::NAN; self.conv.problem.output_len()];
        device.conv2d(&self.conv.problem, &self.conv.input, &self.conv.weights, None, &mut output).unwrap();
        let mut c = self.product.c.clone();
        device.sgemm(&self.product.problem, &self.product.a, &self.product.b, &mut c).unwrap();
        (output, c)
    }

    fn is_right(&self) -> bool {
        let (output, c) = self.compute();
        same_bits(&output, &self.results.0) && same_bits(&c, &self.results.1)
    }
}

/// Forks. The child runs `work` and exits with status 0 if that returns true. An alarm ends a child that hangs.
fn in_child(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses only this library, which is under test, and memory, which the C library makes usable after a
    // fork. It never returns into the test harness.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "fork failed");
        if child == 0 {
            libc::alarm(60);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(false);
            libc::_exit(i32::from(!done));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

#[test]
fn a_forked_child_computes_right() {
    sparkle::set_num_threads(3).unwrap();
    let work = Work::new();
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut forks = 0;
    std::thread::scope(|scope| {
        // Keep the pool and its lock busy, so that forks happen during calls.
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    work.compute();
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The child cannot survive a fork during the start of another thread: a lock of the standard library stays held.
        while calls.load(Ordering::Relaxed) < 10 {
            std::thread::yield_now();
        }
        for round in 0..150 {
            let nested = round % 10 == 0;
            let right =
                in_child(|| work.is_right() && (!nested || in_child(|| work.is_right())) && work.is_right());
            if !right {
                stop.store(true, Ordering::Relaxed);
                panic!("fork {round}: the child failed");
            }
            forks += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(forks, 150);
    assert!(work.is_right(), "the parent still computes correctly");
}
