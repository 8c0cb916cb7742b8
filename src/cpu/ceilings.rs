//! The ceilings of this CPU: multiply-adds of each instruction set, and reads from each level, by one thread and by all.
//! [`super::rates`] keeps them. A measurement takes some tenths of a second, for each number of threads.
//!
//! The size of the last cache is measured as well, because virtual machines report that of the host. It decides what the
//! ceilings are measured on, and what `memory::plan` tells users. Block sizes do not depend on it: what is measured must
//! not influence the bits of a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::buffer::Buffer;
use super::caches::described;
use super::isa::{Isa, model};
use super::pool::{Team, num_threads};
use super::rates::Measurements;
use super::rates::calibration::Calibration;
use super::rates::record::{RateInfo, Record};
use super::rates::watch::Watch;
use super::{peak, reads};
use crate::error::Result;
use crate::memory::blocking::{WORKSPACE, known_bytes};
use crate::memory::ceilings::{Ceiling, Ceilings, capacity};
use crate::store::store;

/// The number of the way in which they are measured. A change of it makes older records useless.
const REVISION: u32 = 1;
/// Bytes that are read where main memory is measured: more than most caches hold. Touching more would take too long.
const FAR: usize = 128 << 20;
/// The least size of the sweep in which the last cache shows, as a multiple of level 2.
const NEAR: usize = 2;
/// Rounds in which all rates take turns. The best one counts.
const ROUNDS: usize = 3;
/// About the bytes that one thread reads from a cache in a round: tenths of a millisecond.
const CACHED: usize = 16 << 20;
/// Runs of multiply-adds in a round, of 50 microseconds each.
const RUNS: usize = 4;
/// Assumed sizes of caches that are not known.
const ASSUMED: [usize; 2] = [32 << 10, 256 << 10];

/// The levels, as users see them.
const LEVELS: [&str; 4] = ["L1", "L2", "L3", "memory"];
/// All instruction sets, as `SPARKLE_ISA` names them.
const ISAS: [&str; 3] = ["avx512", "avx2", "portable"];

/// Multiply-adds of each instruction set and reads from each level, of one thread and of all; the size of the last cache.
const COUNT: usize = 2 * ISAS.len() + 2 * LEVELS.len() + 1;

const fn rate(name: &'static str, unit: (&'static str, f64)) -> RateInfo {
    // Some CPUs lack an instruction set or a level.
    RateInfo { name, unit, range: (1e6, 1e18), optional: true, tolerance: 0.1 }
}

const FLOPS: (&str, f64) = ("GFLOPS", 1e9);
const BYTES: (&str, f64) = ("GB/s", 1e9);

/// No call is compared with these rates.
static WATCH: Watch = Watch::new();

static CALIBRATION: Calibration<COUNT> = Calibration::new(
    "ceilings of this CPU",
    "cpu-ceilings",
    [
        rate("multiply-adds with avx512, a thread", FLOPS),
        rate("multiply-adds with avx512", FLOPS),
        rate("multiply-adds with avx2, a thread", FLOPS),
        rate("multiply-adds with avx2", FLOPS),
        rate("portable multiply-adds, a thread", FLOPS),
        rate("portable multiply-adds", FLOPS),
        rate("reads from level 1, a thread", BYTES),
        rate("reads from level 1", BYTES),
        rate("reads from level 2, a thread", BYTES),
        rate("reads from level 2", BYTES),
        rate("reads from level 3, a thread", BYTES),
        rate("reads from level 3", BYTES),
        rate("reads from memory, a thread", BYTES),
        rate("reads from memory", BYTES),
        // Neighbours take a part of it now and then.
        RateInfo {
            name: "last cache as seen",
            unit: ("MiB", 1048576.0),
            range: (1e4, 1e12),
            optional: true,
            tolerance: 0.5,
        },
    ],
    &WATCH,
    || CALIBRATION.keep_doubt(store()),
);

/// The ceilings. They are measured at the first call and whenever the number of threads has changed, unless the store has
/// them.
///
/// # Errors
/// Out of memory.
pub fn ceilings() -> Result<Ceilings> {
    let threads = num_threads();
    let is_new = CALIBRATION.known(store(), threads, || key(threads)).is_none();
    let found = from_record(threads, &CALIBRATION.get(store(), threads, || key(threads), measure)?);
    if is_new && let (true, Some(seen)) = (found.is_implausible(), found.seen) {
        let (told, seen) = (found.described >> 20, seen >> 20);
        crate::log::warning!(
            "cpu: an L3 cache of {told} MiB is reported, but reads slow down beyond {seen} MiB; \
             SPARKLE_CACHES=l3={seen}M corrects it"
        );
    }
    Ok(found)
}

/// The ceilings for `threads` threads if this process or an earlier one has measured them.
pub fn known(threads: usize) -> Option<Ceilings> {
    Some(from_record(threads, &CALIBRATION.known(store(), threads, || key(threads))?))
}

/// What is known of the rates for `threads` threads, and how far to trust it.
pub fn measurements(threads: usize) -> Option<Measurements> {
    let record = CALIBRATION.known(store(), threads, || key(threads))?;
    Some(record.measurements(CALIBRATION.what, &CALIBRATION.infos))
}

/// The store's key: everything that the rates depend on and that the store does not add itself.
fn key(threads: usize) -> String {
    let isa = Isa::best().name();
    format!("{}; {isa}; {threads} threads; {:?}; revision {REVISION}", model(), described())
}

fn from_record(threads: usize, record: &Record<COUNT>) -> Ceilings {
    let rates = record.rates();
    let (pairs, rest) = rates.as_chunks::<2>();
    let (peaks, levels) = pairs.split_at(ISAS.len());
    let ceiling = |(&name, &[alone, together]): (&&'static str, &[f64; 2])| {
        (together > 0.0).then_some(Ceiling { name, alone: (alone > 0.0).then_some(alone), together })
    };
    let mut peaks: Vec<_> = ISAS.iter().zip(peaks).filter_map(ceiling).collect();
    peaks.sort_by_key(|peak| peak.name != Isa::best().name());
    let levels = LEVELS.iter().zip(levels).filter_map(ceiling).collect();
    let seen = rest.first().filter(|&&bytes| bytes > 0.0).map(|&bytes| bytes as usize);
    Ceilings { threads, peaks, levels, described: described().caches.l3, seen }
}

/// Measures everything at this moment.
///
/// # Errors
/// Out of memory.
fn measure() -> Result<[f64; COUNT]> {
    let (isa, mut team) = (Isa::best(), Team::shared()?);
    let mut data = Buffer::zeroed(FAR / size_of::<f32>())?;
    // The system allocates memory only when it is first written, and pages of zeros may be one page.
    let pieces: Vec<_> = data.chunks_mut(WORKSPACE).map(Mutex::new).collect();
    team.run(pieces.len(), |task, _| {
        pieces[task].lock().unwrap_or_else(PoisonError::into_inner).fill(1.0);
    })?;
    drop(pieces);

    let seen = capacity(&sweep(isa, &data)?);
    let sizes = sizes(team.size(), seen);
    let mut best = [0f64; COUNT];
    for _ in 0..ROUNDS {
        let mut round = [0f64; COUNT];
        let (pairs, _) = round.as_chunks_mut::<2>();
        let (peaks, levels) = pairs.split_at_mut(ISAS.len());
        for (name, rates) in ISAS.iter().zip(peaks) {
            if Isa::named(name).is_some() {
                *rates = [multiply_adds(name, &mut Team::alone()?)?, multiply_adds(name, &mut team)?];
            }
        }
        for (&[alone, together], rates) in sizes.iter().zip(levels) {
            if together > 0 {
                *rates =
                    [read(isa, &data, alone, &mut Team::alone()?)?, read(isa, &data, together, &mut team)?];
            }
        }
        best = std::array::from_fn(|index| best[index].max(round[index]));
    }
    best[COUNT - 1] = seen.map_or(0.0, |seen| seen as f64);
    Ok(best)
}

/// Bytes that each thread reads where a level is measured, by one thread and by `threads`: half of what a thread has of a
/// cache. Zero for a level that does not exist.
fn sizes(threads: usize, seen: Option<usize>) -> [[usize; 2]; LEVELS.len()] {
    let mut machine = *described();
    let told = machine.caches.l3;
    machine.caches.l3 = match seen {
        Some(seen) if told == 0 => seen,
        Some(seen) => told.min(seen),
        None => told,
    };
    let (alone, together) = (machine.caches_for(1), machine.caches_for(threads));
    let near = |bytes: usize, assumed: usize| if bytes == 0 { assumed / 2 } else { (bytes / 2).min(FAR / 8) };
    let l1 = [alone.l1, together.l1].map(|bytes| near(bytes, ASSUMED[0]));
    let l2 = [alone.l2, together.l2].map(|bytes| near(bytes, ASSUMED[1]));
    let last = |bytes: usize, l2: usize| (bytes / 2).clamp(4 * l2, (FAR / 4).max(4 * l2));
    let l3 = match machine.caches.l3 {
        bytes if bytes < 4 * l2[0] => [0; 2],
        _ => [last(alone.l3, l2[0]), last(together.l3, l2[1])],
    };
    [l1, l2, l3, [FAR, FAR / threads]]
}

/// Rates of one thread that reads more and more data again and again.
fn sweep(isa: Isa, data: &[f32]) -> Result<Vec<(usize, f64)>> {
    let first = (NEAR * known_bytes(described().caches.l2, ASSUMED[1])).next_power_of_two().min(FAR / 2);
    let sizes = std::iter::successors(Some(first), |size| Some(2 * size)).take_while(|&size| size <= FAR);
    let mut rates: Vec<(usize, f64)> = sizes.map(|size| (size, 0.0)).collect();
    for (size, best) in &mut rates {
        for round in 0..=ROUNDS {
            let rate = read(isa, data, *size, &mut Team::alone()?)?;
            // The first pass brings the data into the cache.
            *best = if round == 0 { 0.0 } else { best.max(rate) };
        }
    }
    Ok(rates)
}

/// Operations a second of multiply-adds on the registers of an instruction set, on all threads of `team`.
fn multiply_adds(isa: &str, team: &mut Team) -> Result<f64> {
    let threads = team.size();
    let operations = AtomicU64::new(0);
    let seconds = timed(team, threads, |_| {
        let mut done = 0;
        (0..RUNS).for_each(|_| done += peak::run(isa));
        operations.fetch_add(done, Ordering::Relaxed);
    })?;
    Ok(operations.into_inner() as f64 / seconds)
}

/// Bytes a second that the threads of `team` read, each `size` bytes of its own again and again.
fn read(isa: Isa, data: &[f32], size: usize, team: &mut Team) -> Result<f64> {
    let (threads, len) = (team.size(), size / size_of::<f32>());
    let passes = CACHED.div_ceil(size.max(1));
    // Apart, if there is room: two threads that read the same lines would share them in the last cache.
    let apart = (data.len() / threads).max(1);
    let seconds = timed(team, threads, |task| {
        let start = (task * apart).min(data.len().saturating_sub(len));
        reads::run(isa, &data[start..(start + len).min(data.len())], passes);
    })?;
    Ok((threads * passes * reads::bytes(len.min(data.len()))) as f64 / seconds)
}

/// Seconds that all tasks take together, at least a nanosecond.
fn timed(team: &mut Team, tasks: usize, work: impl Fn(usize) + Sync) -> Result<f64> {
    let start = Instant::now();
    team.run(tasks, |task, _| work(task))?;
    Ok(start.elapsed().as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_ceilings_are_plausible() {
        let record = Record::new(1, measure().unwrap());
        assert!(record.is_plausible(&CALIBRATION.infos), "{record:?}");
        let found = from_record(num_threads(), &record);
        assert_eq!(found.peaks[0].name, Isa::best().name());
        assert_eq!(found.peaks.len(), Isa::all().len());
        let levels: Vec<_> = found.levels.iter().map(|level| level.name).collect();
        assert!(levels.starts_with(&["L1", "L2"]) && levels.ends_with(&["memory"]), "{levels:?}");
        // Wide limits, for busy machines: from 10 MB/s to more than any machine has.
        for it in found.peaks.iter().chain(&found.levels) {
            assert!((1e7..1e15).contains(&it.together) && it.alone.is_some_and(|rate| rate > 1e7), "{it:?}");
        }
        let rates = found.reads();
        assert!(rates.l1[0] > 0.0 && rates.memory[1] > 0.0, "{rates:?}");
        assert!(found.seen.is_none_or(|seen| seen.is_power_of_two() && seen < FAR));
    }

    #[test]
    fn every_level_is_measured_on_data_that_fit() {
        for threads in [1, 2, 16, 64, 1000] {
            for seen in [None, Some(1 << 20), Some(64 << 20)] {
                let [l1, l2, l3, far] = sizes(threads, seen);
                let caches = described().caches_for(threads);
                assert!(l1[1] > 0 && l1[1] <= caches.l1.max(ASSUMED[0]), "{l1:?}");
                assert!(l2[1] > 0 && l2[1] <= caches.l2.max(ASSUMED[1]), "{l2:?}");
                assert!(l3 == [0; 2] || (l3[0] >= 4 * l2[0] && l3[1] >= 4 * l2[1]), "{l3:?}");
                assert_eq!(far, [FAR, FAR / threads]);
            }
        }
    }

    #[test]
    fn a_second_call_returns_the_same_ceilings() {
        let first = ceilings().unwrap();
        assert_eq!((first.threads, first.described), (num_threads(), described().caches.l3));
        assert_eq!(known(num_threads()), Some(ceilings().unwrap()));
        assert!(measurements(num_threads()).is_some_and(|found| found.moments == 1));
        assert_eq!(known(usize::MAX), None, "of a number of threads that was never measured");
    }
}
