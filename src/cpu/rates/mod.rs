//! Rates of this machine that are measured, kept, improved and measured again.
//!
//! A measurement is only as good as the moment at which it was made: a busy machine is slow, and nothing in the numbers
//! tells. So a [`Record`](record::Record) keeps several moments, and a rate is the best of them, because disturbances
//! only ever slow a run down. A later process adds a moment until the two best agree. After that a record is measured
//! again when calls contradict it ([`Watch`](watch::Watch)), or when it is a month old.
//!
//! A record cannot oscillate. A better moment counts at once. A worse one counts only after [`MOMENTS`](record::MOMENTS)
//! later moments on a quiet machine, each of them no better. A contradiction that a new moment does not confirm doubles
//! the time until the next one.
//!
//! ```text
//!   call ──► Watch: faster than the rates allow, or several times much slower ──► doubt, kept with the record
//!   get  ──► known and not wanted ─► the rates
//!        └─► first, unsure, old or doubted ─► measure (others' CPU time tells whether it was quiet) ─► Record::add ─► store
//! ```
//!
//! Each set of rates is a `static` [`Calibration`](calibration::Calibration): [`super::calibrate`] has the first. No
//! block size depends on a rate. Only what measures rates or chooses by them may use this folder, and the functions that
//! time calls, which report to a watch. It touches the store and the system's CPU times.

pub mod calibration;
pub mod load;
pub mod record;
pub mod watch;

/// What was measured of one set of rates, and how far to trust it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Measurements {
    /// What the rates are of.
    pub what: &'static str,
    /// The rates. Those that could not be measured are left out.
    pub rates: Vec<MeasuredRate>,
    /// The moments at which they were measured, at least a minute apart from each other. At most 8 are kept.
    pub moments: usize,
    /// The first of these moments, in seconds since 1970.
    pub first: u64,
    /// The last attempt to measure, in seconds since 1970. It does not count as a moment if other programs used the
    /// machine then and it was not the first.
    pub last: u64,
    /// Whether each rate was reached at two of at least three moments, within its tolerance.
    pub sure: bool,
    /// How calls contradict the rates, if they do. They are then measured again.
    pub doubt: Option<&'static str>,
}

/// A rate in [`Measurements`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct MeasuredRate {
    /// What it is the rate of.
    pub name: &'static str,
    /// The unit of `value`.
    pub unit: &'static str,
    /// The best of all moments.
    pub value: f64,
    /// The second best moment's rate over the best one's, at most 1. `None` if there is one moment only.
    pub agreement: Option<f64>,
}
