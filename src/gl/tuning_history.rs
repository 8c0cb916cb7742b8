//! What programs measured of their own shaders, kept in the store from run to run.
//!
//! The program names the task and the variant. The key adds the device and its driver, so that a measurement is only found on
//! the device it was made on.

use crate::error::{Error, Result};
use crate::gl::device::discovery::discovered;
use crate::store::{Stored, store};

/// What was measured of one variant.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TuningRecord {
    /// Number of runs.
    pub runs: u64,
    /// Mean time of a run in milliseconds.
    pub mean_ms: f64,
    /// Mean operations per second.
    pub rate: f64,
}

impl TuningRecord {
    /// Whether these numbers can come from a measurement.
    pub fn is_sound(&self) -> bool {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        self.runs > 0 && positive(self.mean_ms) && positive(self.rate)
    }
}

/// Three numbers; the count is exact up to 2^53.
impl Stored for TuningRecord {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        [self.runs as f64, self.mean_ms, self.rate].to_bytes()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [runs, mean_ms, rate] = <[f64; 3]>::from_bytes(bytes)?;
        Some(TuningRecord { runs: runs as u64, mean_ms, rate }).filter(TuningRecord::is_sound)
    }
}

const KIND: &str = "tuning-history";

/// Loads the record of `variant` for `task` on `gl:device`; `None` if there is none.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device.
pub fn load(device: usize, task: &str, variant: &str) -> Result<Option<TuningRecord>> {
    Ok(store().load(KIND, &key(device, task, variant)?))
}

/// Saves the record of `variant` for `task` on `gl:device`, replacing an earlier one.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device; [`Error::InvalidArgument`] if the record cannot come from a measurement.
pub fn save(device: usize, task: &str, variant: &str, record: &TuningRecord) -> Result<()> {
    if !record.is_sound() {
        let expected = "at least one run, and times and rates that are positive";
        return Err(Error::invalid("record", format!("{record:?}"), expected));
    }
    store().save(KIND, &key(device, task, variant)?, record);
    Ok(())
}

fn key(device: usize, task: &str, variant: &str) -> Result<String> {
    let all = discovered()?;
    let usable = || all.found.iter().filter(|it| it.target.is_some());
    let Some(capabilities) = usable().nth(device).and_then(|found| found.capabilities.as_ref()) else {
        let reason = format!("{} usable GL devices", usable().count());
        return Err(Error::NoDevice { selector: format!("gl:{device}"), reason });
    };
    Ok([capabilities.key().as_str(), task, variant].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_records_are_loaded_and_saved() {
        let good = TuningRecord { runs: 7, mean_ms: 0.25, rate: 1e12 };
        assert_eq!(TuningRecord::from_bytes(&good.to_bytes().unwrap()), Some(good));
        let bad = [
            TuningRecord { runs: 0, ..good },
            TuningRecord { mean_ms: -1.0, ..good },
            TuningRecord { mean_ms: 0.0, ..good },
            TuningRecord { mean_ms: f64::NAN, ..good },
            TuningRecord { rate: f64::INFINITY, ..good },
            TuningRecord { rate: 0.0, ..good },
        ];
        for bad in bad {
            assert_eq!(TuningRecord::from_bytes(&bad.to_bytes().unwrap()), None, "{bad:?}");
            assert!(save(0, "a test", "a variant", &bad).is_err(), "{bad:?}");
        }
        assert_eq!(TuningRecord::from_bytes(&good.to_bytes().unwrap()[1..]), None);
    }
}
