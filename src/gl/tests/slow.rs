//! Kernels that take their time: when the fences behind them signal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Fences behind kernels, each of which signals so long after it was given, and after the one before it was seen to have signalled.
#[derive(Default)]
pub struct Kernels {
    /// When those that nobody has seen signalled were given.
    given: BTreeMap<usize, Instant>,
    seen: Option<Instant>,
    most: usize,
}

impl Kernels {
    /// A fence is given.
    pub fn give(&mut self, sync: usize) {
        self.given.insert(sync, Instant::now());
        self.most = self.most.max(self.given.len());
    }

    /// How long it still takes, if it is one of these and each takes `time`.
    pub fn look(&mut self, sync: usize, time: Duration) -> Option<Duration> {
        let given = *self.given.get(&sync)?;
        let since = self.seen.map_or(given, |seen| seen.max(given));
        let left = time.saturating_sub(since.elapsed());
        if left.is_zero() {
            self.given.remove(&sync);
            self.seen = Some(Instant::now());
            return None;
        }
        Some(left)
    }

    /// The most that were given and not seen at once, since it was last asked.
    pub fn take_most(&mut self) -> usize {
        std::mem::replace(&mut self.most, self.given.len())
    }
}
