//! How fast all cores together copy ordinary memory.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// More than caches hold, or nearly so; no more than small machines can spare.
const BYTES: usize = 256 << 20;
/// Times that it is measured; the best counts.
const ROUNDS: usize = 7;

/// What was measured.
pub struct Copies {
    pub bytes_per_second: f64,
    pub threads: usize,
}

/// Measures it: each thread copies a part of its own, again and again.
pub fn measure() -> Copies {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let part = BYTES / threads;
    let barrier = Barrier::new(threads);
    let copy = || {
        let (from, mut to) = (vec![1u8; part], vec![2u8; part]);
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            barrier.wait();
            let start = Instant::now();
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
            // All of them: the slowest counts.
            barrier.wait();
            best = best.min(start.elapsed().as_secs_f64());
        }
        best
    };
    let seconds = thread::scope(|scope| {
        let copying: Vec<_> = (0..threads).map(|_| scope.spawn(copy)).collect();
        let times = copying.into_iter().map(|it| it.join().expect("copying does not panic"));
        times.fold(0.0, f64::max)
    });
    Copies { bytes_per_second: (part * threads) as f64 / seconds.max(1e-9), threads }
}
