//! Notices that calls contradict the rates.
//!
//! Nothing makes a call faster than the machine is, so one call that is clearly faster than its rates allow shows that
//! they are too low. A slow call shows nothing: several slow ones in a row do, if no other program used the machine in
//! the meantime.
//!
//! A call costs a few loads and comparisons. The first slow call of a row and the last one read the system's CPU times,
//! which takes some microseconds.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::time::Duration;

use super::load::CpuTime;
use crate::cpu::tunables::{CONTRADICTING_GAIN, CONTRADICTING_LOSS, MIN_WATCHED, SLOW_CALLS};

/// How calls contradict rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doubt {
    /// A call was faster than the rates allow.
    Faster = 1,
    /// Calls were much slower than predicted, on a quiet machine.
    Slower = 2,
}

impl Doubt {
    /// The doubt with this number.
    pub fn from_number(number: u64) -> Option<Self> {
        [Doubt::Faster, Doubt::Slower].into_iter().find(|&doubt| doubt as u64 == number)
    }

    /// The doubt in words.
    pub fn words(self) -> &'static str {
        match self {
            Doubt::Faster => "a call ran faster than the rates allow",
            Doubt::Slower => "calls ran much slower than predicted",
        }
    }
}

/// Compares the calls of this process with a set of rates.
pub struct Watch {
    /// Whether there are rates to compare with, and no doubt yet.
    active: AtomicBool,
    doubt: AtomicU8,
    /// Slow calls in a row, and the CPU time at the first of them.
    slow: AtomicU32,
    since: Mutex<Option<CpuTime>>,
    /// Called once for each doubt, at the end of the call that raised it.
    report: OnceLock<fn()>,
}

impl Watch {
    /// A watch that compares nothing yet.
    pub const fn new() -> Self {
        Watch {
            active: AtomicBool::new(false),
            doubt: AtomicU8::new(0),
            slow: AtomicU32::new(0),
            since: Mutex::new(None),
            report: OnceLock::new(),
        }
    }

    /// Whether [`Watch::saw`] looks at calls. The caller of `saw` may ask first, to save the prediction.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Starts to compare, with new rates. `report` is called when a doubt arises.
    pub fn start(&self, report: fn()) {
        self.report.get_or_init(|| report);
        self.slow.store(0, Ordering::Relaxed);
        self.doubt.store(0, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
    }

    /// The doubt that has arisen since [`Watch::start`].
    pub fn doubt(&self) -> Option<Doubt> {
        Doubt::from_number(self.doubt.load(Ordering::Relaxed).into())
    }

    /// Looks at a call that took `took`. `least` is the time in seconds below which the rates do not allow it;
    /// `expected` is the time they predict, if they predict well.
    pub fn saw(&self, took: Duration, least: f64, expected: Option<f64>) {
        if !self.is_active() || took < MIN_WATCHED {
            return;
        }
        let took = took.as_secs_f64();
        if took * CONTRADICTING_GAIN < least {
            self.raise(Doubt::Faster);
            return;
        }
        let Some(expected) = expected else { return };
        if took <= expected * CONTRADICTING_LOSS {
            if self.slow.load(Ordering::Relaxed) != 0 {
                self.slow.store(0, Ordering::Relaxed);
            }
            return;
        }
        // Another thread that is here at the same time has seen a slow call as well.
        let mut since = match self.since.try_lock() {
            Ok(since) => since,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        match self.slow.fetch_add(1, Ordering::Relaxed) + 1 {
            1 => *since = CpuTime::now(),
            count if count >= SLOW_CALLS => {
                let quiet = CpuTime::was_quiet(since.take());
                drop(since);
                self.slow.store(0, Ordering::Relaxed);
                if quiet {
                    self.raise(Doubt::Slower);
                }
            }
            _ => {}
        }
    }

    /// Forgets when the slow calls began.
    #[cfg(test)]
    pub fn forget_since(&self) {
        *self.since.lock().unwrap() = None;
    }

    fn raise(&self, doubt: Doubt) {
        // Only one thread finds it active.
        if self.active.swap(false, Ordering::Relaxed) {
            self.doubt.store(doubt as u8, Ordering::Relaxed);
            if let Some(report) = self.report.get() {
                report();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    static REPORTS: AtomicUsize = AtomicUsize::new(0);

    fn report() {
        REPORTS.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls on a machine that is quiet as far as it tells: the watch forgets when the slow calls began.
    fn slow_call(watch: &Watch) {
        watch.saw(Duration::from_millis(30), 0.001, Some(0.01));
        watch.forget_since();
    }

    #[test]
    fn one_fast_call_or_many_slow_ones_raise_a_doubt_once() {
        let (watch, ms) = (Watch::new(), Duration::from_millis);
        watch.saw(ms(1), 1.0, None);
        assert_eq!((watch.doubt(), watch.is_active()), (None, false), "not before there are rates");
        watch.start(report);
        // As fast as the rates allow, within the tolerance; too short to tell; slow, but nothing was predicted.
        watch.saw(ms(10), 0.01 * (CONTRADICTING_GAIN - 0.001), Some(0.01));
        watch.saw(MIN_WATCHED / 2, 1.0, None);
        (0..2 * SLOW_CALLS).for_each(|_| watch.saw(ms(100), 0.001, None));
        assert_eq!(watch.doubt(), None);
        watch.saw(ms(10), 0.01 * (CONTRADICTING_GAIN + 0.01), None);
        assert_eq!((watch.doubt(), REPORTS.load(Ordering::Relaxed)), (Some(Doubt::Faster), 1));
        watch.saw(ms(10), 0.02, None);
        assert_eq!(REPORTS.load(Ordering::Relaxed), 1, "known already");
        // New rates: a call as expected ends a row of slow ones.
        watch.start(report);
        for _ in 0..3 {
            (1..SLOW_CALLS).for_each(|_| slow_call(&watch));
            watch.saw(ms(12), 0.001, Some(0.01));
        }
        assert_eq!(watch.doubt(), None);
        (0..SLOW_CALLS).for_each(|_| slow_call(&watch));
        assert_eq!((watch.doubt(), REPORTS.load(Ordering::Relaxed)), (Some(Doubt::Slower), 2));
    }

    #[test]
    fn doubts_have_numbers() {
        for doubt in [Doubt::Faster, Doubt::Slower] {
            assert_eq!(Doubt::from_number(doubt as u64), Some(doubt));
        }
        assert_eq!([0, 3, 255, u64::MAX].map(Doubt::from_number), [None; 4]);
    }
}
