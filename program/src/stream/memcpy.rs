//! Measures how fast all cores together copy ordinary memory.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use crate::failure::Failure;
use crate::memory;

/// Larger than most caches, and small enough for small machines.
const BYTES: usize = 256 << 20;
/// Rounds; the best counts.
const ROUNDS: usize = 7;

/// The purpose of the memory, in messages.
const WHAT: &str = "memory to copy";

/// What was measured.
pub struct Copies {
    pub bytes_per_second: f64,
    pub threads: usize,
}

/// Measures the rate. Each thread copies its own part repeatedly.
///
/// # Errors
/// If memory is short, or no thread can be started.
pub fn measure() -> Result<Copies, Failure> {
    let wanted = thread::available_parallelism().map_or(1, usize::from);
    let part = BYTES / wanted;
    thread::scope(|scope| {
        let mut started = vec![];
        for _ in 0..wanted {
            let (begin, beginning) = channel();
            match thread::Builder::new().spawn_scoped(scope, move || copy(&beginning, part)) {
                Ok(thread) => started.push((begin, thread)),
                // The threads started so far are enough.
                Err(_) => break,
            }
        }
        let threads = started.len();
        let barrier = Arc::new(Barrier::new(threads));
        let mut copying = vec![];
        for (begin, thread) in started {
            let _ = begin.send(barrier.clone());
            copying.push(thread);
        }
        let mut seconds = 0f64;
        for thread in copying {
            seconds = seconds.max(thread.join().expect("copying does not panic")?);
        }
        match threads {
            0 => Err(Failure::Input(
                "no thread can be started: not enough memory, or too many threads".to_owned(),
            )),
            _ => Ok(Copies { bytes_per_second: (part * threads) as f64 / seconds.max(1e-9), threads }),
        }
    })
}

/// Copies `bytes` together with the other threads of the barrier, which `beginning` delivers. Returns the least seconds.
///
/// # Errors
/// If memory is short. The thread still meets the others at the barrier.
fn copy(beginning: &Receiver<Arc<Barrier>>, bytes: usize) -> Result<f64, Failure> {
    // Each thread allocates and first touches its own memory, so that it is on the thread's NUMA node.
    let memory = || Ok((memory::filled(WHAT, bytes, 1u8)?, memory::filled(WHAT, bytes, 2u8)?));
    let mut memory: Result<(Vec<u8>, Vec<u8>), Failure> = memory();
    let barrier = beginning.recv().map_err(|_| Failure::Device("no thread can be started".to_owned()))?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        barrier.wait();
        let start = Instant::now();
        if let Ok((from, to)) = &mut memory {
            to.copy_from_slice(std::hint::black_box(from));
            std::hint::black_box(to);
        }
        // Wait for all threads: the slowest counts.
        barrier.wait();
        best = best.min(start.elapsed().as_secs_f64());
    }
    memory.map(|_| best)
}
