//! A set of N rates of this machine: measured when first asked for, kept in the store, measured again when wanted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::load::CpuTime;
use super::record::{RateInfo, Record};
use super::watch::Watch;
use crate::cpu::process_lock::ProcessLock;
use crate::error::Result;
use crate::store::Store;

/// A set of N rates. A `static`.
pub struct Calibration<const N: usize> {
    /// What the rates are of, for users.
    pub what: &'static str,
    /// The store's kind of its records.
    pub kind: &'static str,
    /// The rates. More is better for each of them.
    pub infos: [RateInfo; N],
    /// Compares calls with the rates.
    pub watch: &'static Watch,
    /// Stores a doubt of the watch: calls [`Calibration::keep_doubt`].
    pub report: fn(),
    current: ProcessLock<Current<N>>,
    is_measuring: AtomicBool,
}

/// What this process knows.
struct Current<const N: usize> {
    /// The store's key: everything on which the rates depend and that the store does not add itself.
    key: String,
    /// The number in [`Calibration::get`] that the key belongs to.
    variant: usize,
    record: Record<N>,
    /// Whether [`Calibration::get`] has considered another moment in this process.
    is_settled: bool,
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl<const N: usize> Calibration<N> {
    /// A set without measurements.
    pub const fn new(
        what: &'static str,
        kind: &'static str,
        infos: [RateInfo; N],
        watch: &'static Watch,
        report: fn(),
    ) -> Self {
        Calibration {
            what,
            kind,
            infos,
            watch,
            report,
            current: ProcessLock::new(),
            is_measuring: AtomicBool::new(false),
        }
    }

    /// The record of `variant` (the number of threads, say) if this process or an earlier one has measured it. `key`
    /// makes the store's key for it; it names the revision of what is measured, so that rates measured in another way
    /// are not found.
    pub fn known(&self, store: &Store, variant: usize, key: impl FnOnce() -> String) -> Option<Record<N>> {
        let of_process = self.current.with(|current| {
            current.as_ref().filter(|current| current.variant == variant).map(|current| current.record)
        });
        if of_process.is_some() {
            return of_process;
        }
        let key = key();
        let record = self.plausible(store.load(self.kind, &key))?;
        self.set(Current { key, variant, record, is_settled: false });
        Some(record)
    }

    /// The record of `variant`, measured now if it is not known, or if another moment is wanted. A running process takes
    /// another moment only if calls contradict the rates: it has had its time to start. Only one thread measures again
    /// at a time; others get what is known.
    ///
    /// # Errors
    /// Those of `measure`, if nothing is known.
    pub fn get(
        &self,
        store: &Store,
        variant: usize,
        key: impl Fn() -> String,
        measure: impl FnOnce() -> Result<[f64; N]>,
    ) -> Result<Record<N>> {
        self.get_at(now(), store, variant, key, measure)
    }

    fn get_at(
        &self,
        now: u64,
        store: &Store,
        variant: usize,
        key: impl Fn() -> String,
        measure: impl FnOnce() -> Result<[f64; N]>,
    ) -> Result<Record<N>> {
        let Some(known) = self.known(store, variant, &key) else {
            // Not under a lock. Two threads may measure at the same time; either result is good.
            return self.measure(now, store, (variant, key()), measure);
        };
        let is_settled = self.current.with(|current| {
            let current = current.as_mut().filter(|current| current.variant == variant);
            current.is_none_or(|current| std::mem::replace(&mut current.is_settled, true))
        });
        let is_wanted = known.is_refuted(now) || (!is_settled && known.is_young(&self.infos, now));
        if !is_wanted || self.is_measuring.swap(true, Ordering::Acquire) {
            return Ok(known);
        }
        let measured = self.measure(now, store, (variant, key()), measure);
        self.is_measuring.store(false, Ordering::Release);
        // The old rates are better than none.
        Ok(measured.unwrap_or(known))
    }

    fn measure(
        &self,
        now: u64,
        store: &Store,
        (variant, key): (usize, String),
        measure: impl FnOnce() -> Result<[f64; N]>,
    ) -> Result<Record<N>> {
        let before = CpuTime::now();
        let rates = measure()?;
        let quiet = CpuTime::was_quiet(before);
        // Another process may have added moments in the meantime, or this process may be unable to save its own.
        let of_process = self.current.with(|current| {
            current.as_ref().filter(|current| current.key == key).map(|current| current.record)
        });
        let kept = self.plausible(store.load_again(self.kind, &key));
        let record = match kept.into_iter().chain(of_process).max_by_key(Record::tried) {
            Some(mut record) => {
                record.add(&self.infos, now, rates, quiet);
                record
            }
            None => Record::new(now, rates),
        };
        store.save(self.kind, &key, &record);
        crate::log::debug!("cpu: measured {}, quiet: {quiet}: {rates:?}", self.what);
        self.set(Current { key, variant, record, is_settled: true });
        Ok(record)
    }

    fn set(&self, current: Current<N>) {
        self.current.with(|place| *place = Some(current));
        self.watch.start(self.report);
    }

    /// Keeps the watch's doubt with the record, for this process and later ones.
    pub fn keep_doubt(&self, store: &Store) {
        let Some(doubt) = self.watch.doubt() else { return };
        let doubted = self.current.with(|current| {
            let current = current.as_mut()?;
            current.record.set_doubt(doubt).then(|| (current.key.clone(), current.record))
        });
        let Some((key, known)) = doubted else { return };
        let mut record = self.plausible(store.load_again(self.kind, &key)).unwrap_or(known);
        record.set_doubt(doubt);
        store.save(self.kind, &key, &record);
        crate::log::debug!("cpu: {}: {}; they will be measured again", self.what, doubt.words());
    }

    fn plausible(&self, record: Option<Record<N>>) -> Option<Record<N>> {
        record.filter(|record| record.is_plausible(&self.infos))
    }
}

#[cfg(test)]
mod tests;
