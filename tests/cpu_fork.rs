//! `fork()` of a process whose CPU pool is busy: the child computes correctly with its own threads, and so does a child of the
//! child. It is the only test of its binary, because a fork copies the state of all other threads.

#![cfg(unix)]

mod cpu_cases;
#[path = "support/fork.rs"]
mod fork;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cpu_cases::{ConvCase, GemmCase, Values, same_bits};
use fork::in_child;
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
            let right = in_child(60, || {
                work.is_right() && (!nested || in_child(60, || work.is_right())) && work.is_right()
            });
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
