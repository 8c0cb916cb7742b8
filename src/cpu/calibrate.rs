//! What this CPU does with the engine's own kernels: a few milliseconds of measuring, once for each number of
//! threads.
//!
//! Best of several short runs: what disturbs a measurement only ever slows it down.

use std::time::{Duration, Instant};

use super::caches::described;
use super::isa::{Isa, with_kernel};
use super::pool::{Team, num_threads};
use super::process_lock::ProcessLock;
use super::sgemm;
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::blocking::WORKSPACE;
use crate::problem::{Gemm, GemmDesc, Layout};

/// A square product of middling size: 2*256^3 operations.
const SIDE: i64 = 256;
/// Elements that are copied to measure memory: 16 MiB, so that source and copy exceed most caches.
const COPIED: usize = 1 << 22;
const REPEATS: usize = 3;

/// The hierarchy, measured at the first call and whenever the number of threads has changed.
///
/// # Errors
/// If there is no memory to measure with.
pub fn hierarchy() -> Result<Hierarchy> {
    static MEASURED: ProcessLock<(usize, Hierarchy)> = ProcessLock::new();
    let threads = num_threads();
    if let Some((_, known)) = MEASURED.with(|measured| measured.filter(|&(count, _)| count == threads)) {
        return Ok(known);
    }
    // Not under the lock. Two threads may measure at once; either result will do.
    let hierarchy = measure()?;
    MEASURED.with(|measured| *measured = Some((threads, hierarchy)));
    crate::log::debug!("cpu: measured with {threads} threads: {hierarchy:?}");
    Ok(hierarchy)
}

fn measure() -> Result<Hierarchy> {
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, SIDE, SIDE, SIDE))?;
    let ones = vec![1.0; problem.lens()[0]];
    let mut product = vec![0.0; problem.lens()[2]];
    let arithmetic = best(|| {
        with_kernel!(Isa::best(), kernel => sgemm(kernel, &problem, (&ones, &ones), &mut product)).map(drop)
    })?;

    let mut team = Team::shared()?;
    let (from, mut to) = (vec![1.0f32; COPIED], vec![0.0f32; COPIED]);
    let chunks: Vec<_> =
        to.chunks_mut(WORKSPACE).zip(from.chunks(WORKSPACE)).map(std::sync::Mutex::new).collect();
    let copying = best(|| {
        team.run(chunks.len(), |task, _| {
            let mut chunk = chunks[task].lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let (to, from) = &mut *chunk;
            to.copy_from_slice(from);
        })
    })?;
    let empty = best(|| team.run(num_threads().max(2), |_, _| {}))?;
    Ok(Hierarchy {
        flops: problem.flops() as f64 / arithmetic.as_secs_f64(),
        memory: (2 * COPIED * size_of::<f32>()) as f64 / copying.as_secs_f64(),
        upload: f64::INFINITY,
        download: f64::INFINITY,
        launch: empty.as_secs_f64(),
        ..*described()
    })
}

/// The shortest of several runs, at least a nanosecond.
fn best(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..REPEATS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed());
    }
    Ok(best.max(Duration::from_nanos(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_rates_are_sensible() {
        let measured = hierarchy().unwrap();
        // Wide limits, for a busy machine: from 10 MFLOPS and 10 MB/s to what no machine has.
        assert!((1e7..1e15).contains(&measured.flops), "{measured:?}");
        assert!((1e7..1e14).contains(&measured.memory), "{measured:?}");
        assert!((1e-9..1.0).contains(&measured.launch), "{measured:?}");
        assert!(measured.upload.is_infinite() && measured.download.is_infinite());
    }
}
