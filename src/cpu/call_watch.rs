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

/// The rates, and the number of threads that they are for. A call that reads them while they change compares with a mix
/// of the two, which at worst causes one measurement too many.
pub struct CallWatch {
    /// Raises the doubts.
    pub watch: Watch,
    peak: AtomicU64,
    products: AtomicU64,
    threads: AtomicUsize,
}

/// The watch of this process.
pub static CALLS: CallWatch = CallWatch::new();

/// Sides of a product that the rate of products predicts well.
const MIN_SIDE: usize = 128;

impl CallWatch {
    const fn new() -> Self {
        CallWatch {
            watch: Watch::new(),
            peak: AtomicU64::new(0),
            products: AtomicU64::new(0),
            threads: AtomicUsize::new(0),
        }
    }

    /// Sets the rates of `threads` threads: of a thread's multiply-adds on registers, and of products on all of them.
    pub fn compare_with(&self, threads: usize, peak: f64, products: f64) {
        self.peak.store(peak.to_bits(), Ordering::Relaxed);
        self.products.store(products.to_bits(), Ordering::Relaxed);
        self.threads.store(threads, Ordering::Relaxed);
    }

    /// A call that did `flops` operations on up to `threads` threads took `took`.
    #[inline]
    pub fn computed(&self, flops: u64, threads: usize, took: Duration) {
        if self.watch.is_active() {
            self.saw(flops, threads, took, false);
        }
    }

    /// A product on up to `threads` threads took `took`.
    #[inline]
    pub fn multiplied(&self, problem: &Gemm, threads: usize, took: Duration) {
        if self.watch.is_active() {
            let sizes = problem.sizes();
            let is_usual = sizes.m.min(sizes.n).min(sizes.k) >= MIN_SIDE && !problem.is_scaling();
            self.saw(problem.flops(), threads, took, is_usual);
        }
    }

    fn saw(&self, flops: u64, threads: usize, took: Duration, is_usual: bool) {
        let rate = |rate: &AtomicU64| f64::from_bits(rate.load(Ordering::Relaxed));
        let least = flops as f64 / (rate(&self.peak) * threads as f64);
        // With another number of threads the rate of products is another one.
        let expected = is_usual && threads == self.threads.load(Ordering::Relaxed);
        self.watch.saw(took, least, expected.then(|| flops as f64 / rate(&self.products)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::rates::watch::Doubt;
    use crate::cpu::tunables::SLOW_CALLS;
    use crate::problem::{GemmDesc, Layout};

    /// A watch of two threads with a peak of 217 GFLOPS each and 400 in products.
    fn watch() -> CallWatch {
        let calls = CallWatch::new();
        calls.compare_with(2, 217e9, 400e9);
        calls.watch.start(|| {});
        calls
    }

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms * 1e-3)
    }

    #[test]
    fn a_call_above_the_peak_of_its_threads_contradicts_it() {
        let calls = watch();
        // 235 GFLOPS on two threads and 220 on one are possible, 235 on one is not.
        calls.computed(2_350_000_000, 2, ms(10.0));
        calls.computed(2_200_000_000, 1, ms(10.0));
        assert_eq!(calls.watch.doubt(), None);
        calls.computed(2_350_000_000, 1, ms(10.0));
        assert_eq!(calls.watch.doubt(), Some(Doubt::Faster));
    }

    #[test]
    fn only_large_products_on_as_many_threads_can_be_too_slow() {
        let product = |side| Gemm::new(GemmDesc::packed(Layout::RowMajor, side, side, side)).unwrap();
        let doubts = |side: i64, threads: usize, gflops: f64| {
            let (calls, problem) = (watch(), product(side));
            let took = Duration::from_secs_f64(problem.flops() as f64 / (gflops * 1e9));
            for _ in 0..SLOW_CALLS - 1 {
                calls.multiplied(&problem, threads, took);
            }
            // The last call of the row looks at others' CPU time; where nothing is known, the machine counts as quiet.
            let before = calls.watch.doubt();
            calls.watch.forget_since();
            calls.multiplied(&problem, threads, took);
            (before, calls.watch.doubt())
        };
        assert_eq!(doubts(512, 2, 150.0), (None, Some(Doubt::Slower)));
        // Half of the rate is not much slower; few rows are no product of medium size; one thread is slower.
        for (side, threads, gflops) in [(512, 2, 210.0), (120, 2, 5.0), (512, 1, 150.0)] {
            assert_eq!(doubts(side, threads, gflops), (None, None), "{side} {threads} {gflops}");
        }
    }
}
