//! Measured rates of this CPU with the engine's own kernels: [`super::rates`] keeps them. A measurement takes some tens of
//! milliseconds, for each number of threads.
//!
//! Only a choice between CPU and GPU (`auto`) and `sparkle info` ask for rates; block sizes do not. At one moment each
//! rate is the best of several short runs, because disturbances only ever slow a run down. The runs of all rates take
//! turns, so that a short disturbance does not meet all runs of one rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::buffer::Buffer;
use super::caches::described;
use super::call_watch::CALLS;
use super::isa::{Isa, model, with_kernel};
use super::peak;
use super::pool::{Team, num_threads};
use super::product::sgemm;
use super::rates::Measurements;
use super::rates::calibration::Calibration;
use super::rates::record::{RateInfo, Record};
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
/// Rounds in which all rates take turns.
const ROUNDS: usize = 3;
/// Runs in a round of work that takes a fraction of a millisecond.
const REPEATS: usize = 3;
/// Runs in a round of work that takes a few microseconds.
const MANY: usize = 10;

/// The number of the way in which the rates are measured. A change of it makes older records useless.
const REVISION: u32 = 1;

/// The measured rates of a [`Hierarchy`]; the last one is the inverse of `launch`.
type Rates = [f64; 6];

const fn rate(name: &'static str, unit: (&'static str, f64), optional: bool, tolerance: f64) -> RateInfo {
    RateInfo { name, unit, range: (1e6, 1e18), optional, tolerance }
}

static CALIBRATION: Calibration<6> = Calibration::new(
    "rates of this CPU",
    "cpu-rates",
    [
        rate("multiply-adds in registers, a thread", ("GFLOPS", 1e9), false, 0.03),
        rate("products", ("GFLOPS", 1e9), false, 0.05),
        rate("copies in level 2, a thread", ("GB/s", 1e9), true, 0.1),
        rate("copies in level 3, a thread", ("GB/s", 1e9), true, 0.1),
        rate("copies in memory", ("GB/s", 1e9), false, 0.1),
        // From 10 s to a nanosecond each. How fast a thread wakes varies with what it did before.
        RateInfo {
            name: "starts of all threads",
            unit: ("thousand a second", 1e3),
            range: (0.1, 1e9),
            optional: false,
            tolerance: 0.5,
        },
    ],
    &CALLS.watch,
    || CALIBRATION.keep_doubt(store()),
);

/// The hierarchy. It is measured at the first call and whenever the number of threads has changed, unless the store has
/// the rates, and again when [`super::rates`] says so.
///
/// # Errors
/// Out of memory.
pub fn hierarchy() -> Result<Hierarchy> {
    let threads = num_threads();
    Ok(use_rates(threads, &CALIBRATION.get(store(), threads, || key(threads), measure)?))
}

/// The hierarchy for `threads` threads if this process or an earlier one has measured it.
pub fn known(threads: usize) -> Option<Hierarchy> {
    Some(use_rates(threads, &CALIBRATION.known(store(), threads, || key(threads))?))
}

/// What is known of the rates for `threads` threads, and how far to trust it.
pub fn measurements(threads: usize) -> Option<Measurements> {
    let record = CALIBRATION.known(store(), threads, || key(threads))?;
    Some(record.measurements(CALIBRATION.what, &CALIBRATION.infos))
}

fn use_rates(threads: usize, record: &Record<6>) -> Hierarchy {
    let hierarchy = with_rates(record.rates());
    CALLS.compare_with(threads, hierarchy.peak, hierarchy.flops);
    hierarchy
}

/// The store's key: everything that the rates depend on and that the store does not add itself.
fn key(threads: usize) -> String {
    let isa = Isa::best().name();
    format!("{}; {isa}; {threads} threads; {:?}; revision {REVISION}", model(), described())
}

fn with_rates([peak, flops, l2, l3, memory, launches]: Rates) -> Hierarchy {
    let (upload, download) = (f64::INFINITY, f64::INFINITY);
    Hierarchy { peak, flops, l2, l3, memory, upload, download, launch: 1.0 / launches, ..*described() }
}

/// Measures all rates at this moment.
///
/// # Errors
/// Out of memory.
fn measure() -> Result<Rates> {
    let problem = Gemm::new(GemmDesc::packed(Layout::RowMajor, SIDE, SIDE, SIDE))?;
    let (mut ones, mut product) = (Buffer::zeroed(problem.lens()[0])?, Buffer::zeroed(problem.lens()[2])?);
    ones.fill(1.0);
    let caches = described().caches_for(num_threads());
    let mut in_l2 = Copied::new(caches.l2 / 2)?;
    // Half of a thread's share of level 3, if that is much larger than level 2.
    let bytes = (caches.l3 / 2).min(MAX_L3);
    let mut in_l3 = Copied::new(if bytes >= 4 * caches.l2 { bytes } else { 0 })?;
    let mut team = Team::shared()?;
    let total = (described().caches.l3 / 2 * 3).clamp(MIN_MEMORY, MAX_MEMORY);
    let mut in_memory = Copied::new(total)?;
    in_memory.touch(&mut team)?;

    let mut best = [0f64; 6];
    for _ in 0..ROUNDS {
        let mut operations = 0;
        let registers = shortest(MANY, || {
            operations = peak::run(Isa::best().name());
            Ok(())
        })?;
        let arithmetic = shortest(REPEATS, || {
            with_kernel!(Isa::best(), kernel => sgemm(kernel, &problem, (&ones, &ones), &mut product))
                .map(drop)
        })?;
        let round = [
            operations as f64 / registers,
            problem.flops() as f64 / arithmetic,
            in_l2.rate_alone(MANY)?,
            in_l3.rate_alone(1)?,
            in_memory.rate_together(&mut team)?,
            1.0 / shortest(1, || team.run(num_threads().max(2), |_, _| {}))?,
        ];
        best = std::array::from_fn(|index| best[index].max(round[index]));
    }
    Ok(best)
}

/// Memory whose first half is copied to the second.
struct Copied {
    data: Buffer,
    half: usize,
}

impl Copied {
    /// About `bytes` of memory.
    fn new(bytes: usize) -> Result<Self> {
        let half = bytes / 2 / size_of::<f32>();
        let mut data = Buffer::zeroed(2 * half)?;
        if bytes < MIN_MEMORY {
            data.fill(1.0);
        }
        Ok(Copied { data, half })
    }

    /// Bytes that one copy reads and writes.
    fn bytes(&self) -> f64 {
        (2 * self.half * size_of::<f32>()) as f64
    }

    /// Copying rate of this thread, in bytes a second. 0 for no memory.
    fn rate_alone(&mut self, repeats: usize) -> Result<f64> {
        let half = self.half;
        if half == 0 {
            return Ok(0.0);
        }
        let seconds = shortest(repeats, || {
            self.data.copy_within(..half, half);
            Ok(())
        })?;
        Ok(self.bytes() / seconds)
    }

    /// Writes all memory on all threads: the system allocates memory only when it is first written.
    fn touch(&mut self, team: &mut Team) -> Result<()> {
        self.on(team, |from, to| {
            from.fill(1.0);
            to.fill(1.0);
        })
    }

    /// Copying rate of all threads together.
    fn rate_together(&mut self, team: &mut Team) -> Result<f64> {
        let bytes = self.bytes();
        Ok(bytes / shortest(1, || self.on(team, |from, to| to.copy_from_slice(from)))?)
    }

    /// Calls `work` on `team` with each piece of both halves.
    fn on(&mut self, team: &mut Team, work: impl Fn(&mut [f32], &mut [f32]) + Sync) -> Result<()> {
        let (from, to) = self.data.split_at_mut(self.half);
        // Each task has a piece of both halves, behind a lock that only it takes.
        let pieces: Vec<_> =
            from.chunks_mut(WORKSPACE).zip(to.chunks_mut(WORKSPACE)).map(Mutex::new).collect();
        team.run(pieces.len(), |task, _| {
            let mut piece = pieces[task].lock().unwrap_or_else(PoisonError::into_inner);
            let (from, to) = &mut *piece;
            work(from, to);
        })
    }
}

/// The shortest time of several runs in seconds, at least a nanosecond.
fn shortest(repeats: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut shortest = Duration::MAX;
    for _ in 0..repeats {
        let start = Instant::now();
        run()?;
        shortest = shortest.min(start.elapsed());
    }
    Ok(shortest.max(Duration::from_nanos(1)).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_rates_are_plausible() {
        let rates = measure().unwrap();
        assert!(Record::new(1, rates).is_plausible(&CALIBRATION.infos), "{rates:?}");
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
        let good = [1e11, 1e11, 1e11, 0.0, 1e10, 1e6];
        let is_plausible = |rates| Record::new(1, rates).is_plausible(&CALIBRATION.infos);
        assert!(is_plausible(good));
        let mut cases = 0;
        for index in 0..good.len() {
            for bad in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
                let mut rates = good;
                rates[index] = bad;
                assert!(!is_plausible(rates), "{rates:?}");
                cases += 1;
            }
        }
        assert_eq!(cases, 24);
    }

    #[test]
    fn a_second_call_returns_the_same_rates_and_says_where_they_are_from() {
        let first = hierarchy().unwrap();
        assert_eq!(first.launch, hierarchy().unwrap().launch);
        let known = measurements(num_threads()).unwrap();
        assert_eq!(known.rates[0].value * 1e9, first.peak);
        assert!(known.moments == 1 && !known.sure && known.first == known.last);
        assert_eq!(measurements(usize::MAX), None, "of a number of threads that was never measured");
    }
}
