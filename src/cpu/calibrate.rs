//! What this CPU does with the engine's own kernels: some tens of milliseconds of measuring, once for each number of
//! threads, kept on disk for the processes that follow.
//!
//! Measured only when somebody asks: `auto` beside a GPU, `sparkle info`. Block sizes do not. Best of several short runs:
//! what disturbs a measurement only ever slows it down.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::caches::described;
use super::isa::{Isa, model, with_kernel};
use super::pool::{Team, num_threads};
use super::process_lock::ProcessLock;
use super::{peak, sgemm};
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::blocking::WORKSPACE;
use crate::problem::{Gemm, GemmDesc, Layout};
use crate::store::store;

/// A square product of middling size: 2*256^3 operations.
const SIDE: i64 = 256;
/// Bytes that are copied to measure main memory, source and copy together: half as much again as the last cache, so that
/// nothing stays there from one pass to the next, within these limits. Touching new memory takes longer than copying.
const LEAST_MEMORY: usize = 32 << 20;
const MOST_MEMORY: usize = 128 << 20;
/// The same for a level 3 cache: half of it, at most.
const MOST_L3: usize = 8 << 20;
const REPEATS: usize = 3;
/// Runs of what takes a few microseconds.
const MANY: usize = 30;

/// The rates of a [`Hierarchy`] that are measured, in the order in which they are stored.
type Rates = [f64; 6];

/// What this process has measured or found, and for how many threads.
static MEASURED: ProcessLock<(usize, Hierarchy)> = ProcessLock::new();

/// The hierarchy, measured at the first call and whenever the number of threads has changed, unless an earlier
/// process has done it.
///
/// # Errors
/// If there is no memory to measure with.
pub fn hierarchy() -> Result<Hierarchy> {
    let threads = num_threads();
    if let Some(known) = known(threads) {
        return Ok(known);
    }
    // Not under the lock. Two threads may measure at once; either result will do.
    let rates = measure()?;
    store().save("cpu", &key(threads), &rates);
    crate::log::debug!("cpu: measured with {threads} threads: {rates:?}");
    Ok(keep(threads, rates))
}

/// The hierarchy for `threads` threads if it was measured, by this process or an earlier one.
pub fn known(threads: usize) -> Option<Hierarchy> {
    let of_process = MEASURED.with(|measured| measured.filter(|&(count, _)| count == threads));
    if let Some((_, hierarchy)) = of_process {
        return Some(hierarchy);
    }
    Some(keep(threads, store().load("cpu", &key(threads)).filter(sensible)?))
}

fn keep(threads: usize, rates: Rates) -> Hierarchy {
    let hierarchy = with_rates(rates);
    MEASURED.with(|measured| *measured = Some((threads, hierarchy)));
    hierarchy
}

/// What the rates depend on, as far as the store does not know it by itself.
fn key(threads: usize) -> String {
    format!("{}; {}; {threads} threads; {:?}", model(), Isa::best().name(), described())
}

/// Whether these can be the rates of a machine. A level that was not measured is zero.
fn sensible(rates: &Rates) -> bool {
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
    // Half of a thread's share, if that is well beyond level 2.
    let in_l3 = (caches.l3 / 2).min(MOST_L3);
    let l3 = if in_l3 >= 4 * caches.l2 { copying_alone(in_l3, REPEATS)? } else { 0.0 };

    let mut team = Team::shared()?;
    let total = (described().caches.l3 / 2 * 3).clamp(LEAST_MEMORY, MOST_MEMORY);
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

/// Bytes a second that this thread copies, read and written ones counted, within `bytes` of memory; 0 for none.
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

/// The same for all threads together.
fn copying_together(team: &mut Team, bytes: usize) -> Result<f64> {
    let half = bytes / 2 / size_of::<f32>();
    let mut data = Buffer::zeroed(2 * half)?;
    let (from, to) = data.split_at_mut(half);
    // A task's piece of both, behind a lock that only it takes.
    let pieces: Vec<_> = from.chunks_mut(WORKSPACE).zip(to.chunks_mut(WORKSPACE)).map(Mutex::new).collect();
    // Memory is there only once it was written to.
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

/// The shortest of several runs, at least a nanosecond.
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
    fn measured_rates_are_sensible() {
        let rates = measure().unwrap();
        assert!(sensible(&rates), "{rates:?}");
        let measured = with_rates(rates);
        // Wide limits, for a busy machine: from 10 MFLOPS and 10 MB/s to what no machine has.
        assert!((1e7..1e13).contains(&measured.peak), "{measured:?}");
        assert!((1e7..1e15).contains(&measured.flops), "{measured:?}");
        assert!((1e7..1e14).contains(&measured.memory), "{measured:?}");
        assert!((1e-9..1.0).contains(&measured.launch), "{measured:?}");
        assert!(measured.upload.is_infinite() && measured.download.is_infinite());
        assert_eq!((measured.registers, measured.caches), (described().registers, described().caches));
        assert!(measured.l2 > 0.0 || described().caches.l2 == 0);
    }

    #[test]
    fn what_no_machine_does_is_not_believed() {
        let good = [1e11, 1e11, 1e11, 0.0, 1e10, 1e-6];
        assert!(sensible(&good));
        let mut cases = 0;
        for index in 0..good.len() {
            for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                let mut rates = good;
                rates[index] = bad;
                assert!(!sensible(&rates), "{rates:?}");
                cases += 1;
            }
        }
        assert_eq!(cases, 24);
    }

    #[test]
    fn a_second_question_gets_the_same_answer() {
        assert_eq!(hierarchy().unwrap().launch, hierarchy().unwrap().launch);
    }
}
