//! Compares calls with the measured rates of this CPU, for [`super::rates::watch`].
//!
//! No thread does more multiply-adds than on registers. That holds for all ways that do the operations they count, so
//! not for Winograd's algorithm, which does fewer. Large products take about the time that the rate of products
//! predicts; other problems depend too much on their shape.
//!
//! [`super::calibrate`] sets the rates, and functions that time calls report them. Neither is used here, because both
//! use the pool.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::rates::watch::Watch;
use crate::problem::Gemm;

/// The watch.
pub static WATCH: Watch = Watch::new();

/// The rates, and the number of threads that they are for. A call that reads them while they change compares with a mix
/// of the two, which at worst causes one measurement too many.
static PEAK: AtomicU64 = AtomicU64::new(0);
static PRODUCTS: AtomicU64 = AtomicU64::new(0);
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sides of a product that the rate of products predicts well.
const MIN_SIDE: usize = 128;

/// Sets the rates of `threads` threads: of a thread's multiply-adds on registers, and of products on all of them.
pub fn compare_with(threads: usize, peak: f64, products: f64) {
    PEAK.store(peak.to_bits(), Ordering::Relaxed);
    PRODUCTS.store(products.to_bits(), Ordering::Relaxed);
    THREADS.store(threads, Ordering::Relaxed);
}

/// A call that did `flops` operations on up to `threads` threads took `took`.
#[inline]
pub fn computed(flops: u64, threads: usize, took: Duration) {
    if WATCH.is_active() {
        saw(flops, threads, took, false);
    }
}

/// A product on up to `threads` threads took `took`.
#[inline]
pub fn multiplied(problem: &Gemm, threads: usize, took: Duration) {
    if WATCH.is_active() {
        let sizes = problem.sizes();
        let is_usual = sizes.m.min(sizes.n).min(sizes.k) >= MIN_SIDE && !problem.is_scaling();
        saw(problem.flops(), threads, took, is_usual);
    }
}

fn saw(flops: u64, threads: usize, took: Duration, is_usual: bool) {
    let rate = |rate: &AtomicU64| f64::from_bits(rate.load(Ordering::Relaxed));
    let least = flops as f64 / (rate(&PEAK) * threads as f64);
    // With another number of threads the rate is another one.
    let expected = is_usual && threads == THREADS.load(Ordering::Relaxed);
    WATCH.saw(took, least, expected.then(|| flops as f64 / rate(&PRODUCTS)));
}
