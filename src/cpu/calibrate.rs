//! Measured rates of this CPU with the engine's own kernels. Measuring takes some tens of milliseconds, once for each
//! number of threads. The store keeps the rates for later processes.
//!
//! Only a choice between CPU and GPU (`auto`) and `sparkle info` ask for rates; block sizes do not. Each rate is the
//! best of several short runs, because disturbances only ever slow a run down.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::caches::described;
use super::isa::{Isa, model, with_kernel};
use super::peak;
use super::pool::{Team, num_threads};
use super::process_lock::ProcessLock;
use super::product::sgemm;
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::blocking::WORKSPACE;
use crate::problem::{Gemm, GemmDesc, Layout};
use crate::store::store;

/// Side of the square product that is timed: 2*256^3 operations.
const SIDE: i64 = 256;
/// Limits in bytes of source and destination when main memory is measured. Within them it is one and a half times the
/// last cache, so that nothing stays there between passes. It is not larger, because touching new memory takes longer
/// than copying it.
const MIN_MEMORY: usize = 32 << 20;
const MAX_MEMORY: usize = 128 << 20;
/// Maximum bytes when the level 3 cache is measured, which takes half of the cache.
const MAX_L3: usize = 8 << 20;
const REPEATS: usize = 3;
/// Runs of work that takes a few microseconds.
const MANY: usize = 30;

/// The rates of a [`Hierarchy`] that are measured, in the order in which they are stored.
type Rates = [f64; 6];

/// The rates that this process has measured or loaded, and the number of threads they are for.
static MEASURED: ProcessLock<(usize, Hierarchy)> = ProcessLock::new();

/// The hierarchy. It is measured at the first call and whenever the number of threads has changed, unless the store has
/// the rates.
///
/// # Errors
/// Out of memory.
pub fn hierarchy() -> Result<Hierarchy> {
    let threads = num_threads();
    if let Some(known) = known(threads) {
        return Ok(known);
    }
    // Not under the lock. Two threads may measure at the same time; either result is good.
    let rates = measure()?;
    store().save("cpu", &key(threads), &rates);
    crate::log::debug!("cpu: measured with {threads} threads: {rates:?}");
    Ok(keep(threads, rates))
}

/// The hierarchy for `threads` threads if this process or an earlier one has measured it.
pub fn known(threads: usize) -> Option<Hierarchy> {
    let of_process = MEASURED.with(|measured| measured.filter(|&(count, _)| count == threads));
    if let Some((_, hierarchy)) = of_process {
        return Some(hierarchy);
    }
    Some(keep(threads, store().load("cpu", &key(threads)).filter(plausible)?))
}

fn keep(threads: usize, rates: Rates) -> Hierarchy {
    let hierarchy = with_rates(rates);
    MEASURED.with(|measured| *measured = Some((threads, hierarchy)));
    hierarchy
}

/// The store's key: everything that the rates depend on and that the store does not add itself.
fn key(threads: usize) -> String {
    format!("{}; {}; {threads} threads; {:?}", model(), Isa::best().name(), described())
}

/// Whether the rates are plausible. A level that was not measured is zero.
fn plausible(rates: &Rates) -> bool {
    let [peak, flops, l2, l3, memory, launch] = *rates;
    let rate = |value: f64| (1e6..1e18).contains(&value);
    [peak, flops, memory].into_iter().all(rate)
        && [l2, l3].into_iter().all(|value| value == 0.0 || rate(value))
        && (1e-9..10.0).contains(&launch)
}

fn with_rates([peak, flops, l2, l3, memory, launch]: Rates) -> Hierarchy {
    let (upload, download) = (f64::INFINITY, f64::INFINITY);
    Hierarchy { peak, flops, l2, l3, memory, upload, download, launch, ..*described() }
}

fn measure() -> Result<Rates> {
    let mut operations = 0;
    let registers = best(MANY, || {
        operations = peak::run();
        Ok(())
    })?;

    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, SIDE, SIDE, SIDE))?;
    let (mut ones, mut product) = (Buffer::zeroed(problem.lens()[0])?, Buffer::zeroed(problem.lens()[2])?);
    ones.fill(1.0);
    let arithmetic = best(REPEATS, || {
        with_kernel!(Isa::best(), kernel => sgemm(kernel, &problem, (&ones, &ones), &mut product)).map(drop)
    })?;

    let caches = described().caches_for(num_threads());
    let l2 = copying_alone(caches.l2 / 2, MANY)?;
    // Half of a thread's share of level 3, if that is much larger than level 2.
    let in_l3 = (caches.l3 / 2).min(MAX_L3);
    let l3 = if in_l3 >= 4 * caches.l2 { copying_alone(in_l3, REPEATS)? } else { 0.0 };

    let mut team = Team::shared()?;
    let total = (described().caches.l3 / 2 * 3).clamp(MIN_MEMORY, MAX_MEMORY);
    let memory = copying_together(&mut team, total)?;
    let empty = best(REPEATS, || team.run(num_threads().max(2), |_, _| {}))?;
    Ok([
        operations as f64 / registers.as_secs_f64(),
        problem.flops() as f64 / arithmetic.as_secs_f64(),
        l2,
        l3,
        memory,
        empty.as_secs_f64(),
    ])
}

/// Copying rate of this thread within `bytes` of memory, in bytes a second, reads and writes counted. 0 for no memory.
fn copying_alone(bytes: usize, repeats: usize) -> Result<f64> {
    let half = bytes / 2 / size_of::<f32>();
    if half == 0 {
        return Ok(0.0);
    }
    let mut data = Buffer::zeroed(2 * half)?;
    data.fill(1.0);
    let time = best(repeats, || {
        data.copy_within(..half, half);
        Ok(())
    })?;
    Ok((2 * half * size_of::<f32>()) as f64 / time.as_secs_f64())
}

/// Copying rate of all threads together.
fn copying_together(team: &mut Team, bytes: usize) -> Result<f64> {
    let half = bytes / 2 / size_of::<f32>();
    let mut data = Buffer::zeroed(2 * half)?;
    let (from, to) = data.split_at_mut(half);
    // Each task has a piece of both halves, behind a lock that only it takes.
    let pieces: Vec<_> = from.chunks_mut(WORKSPACE).zip(to.chunks_mut(WORKSPACE)).map(Mutex::new).collect();
    // The system allocates memory only when it is first written.
    team.run(pieces.len(), |task, _| {
        let mut piece = pieces[task].lock().unwrap_or_else(PoisonError::into_inner);
        piece.0.fill(1.0);
        piece.1.fill(1.0);
    })?;
    let time = best(REPEATS, || {
        team.run(pieces.len(), |task, _| {
            let mut piece = pieces[task].lock().unwrap_or_else(PoisonError::into_inner);
            let (from, to) = &mut *piece;
            to.copy_from_slice(from);
        })
    })?;
    Ok((2 * half * size_of::<f32>()) as f64 / time.as_secs_f64())
}

/// The shortest time of several runs, at least a nanosecond.
fn best(repeats: usize, mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..repeats {
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
    fn measured_rates_are_plausible() {
        let rates = measure().unwrap();
        assert!(plausible(&rates), "{rates:?}");
        let measured = with_rates(rates);
        // Wide limits, for busy machines: from 10 MFLOPS and 10 MB/s to more than any machine has.
        assert!((1e7..1e13).contains(&measured.peak), "{measured:?}");
        assert!((1e7..1e15).contains(&measured.flops), "{measured:?}");
        assert!((1e7..1e14).contains(&measured.memory), "{measured:?}");
        assert!((1e-9..1.0).contains(&measured.launch), "{measured:?}");
        assert!(measured.upload.is_infinite() && measured.download.is_infinite());
        assert_eq!((measured.registers, measured.caches), (described().registers, described().caches));
        assert!(measured.l2 > 0.0 || described().caches.l2 == 0);
    }

    #[test]
    fn implausible_rates_are_rejected() {
        let good = [1e11, 1e11, 1e11, 0.0, 1e10, 1e-6];
        assert!(plausible(&good));
        let mut cases = 0;
        for index in 0..good.len() {
            for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                let mut rates = good;
                rates[index] = bad;
                assert!(!plausible(&rates), "{rates:?}");
                cases += 1;
            }
        }
        assert_eq!(cases, 24);
    }

    #[test]
    fn a_second_call_returns_the_same_rates() {
        assert_eq!(hierarchy().unwrap().launch, hierarchy().unwrap().launch);
    }
}
