//! What programs measured of ways that they run themselves, kept in the store from run to run.
//!
//! A way is named by the program, and so is what it does; the device and its driver are added here, so that nothing
//! measured on one is taken for true on another.

use crate::error::{Error, Result};
use crate::gl::device::discovery::discovered;
use crate::store::{Stored, store};

/// What was measured of one way.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Experience {
    /// How often it was run.
    pub runs: u64,
    /// Mean milliseconds of a run.
    pub mean_ms: f64,
    /// Mean operations a second.
    pub rate: f64,
}

impl Experience {
    /// Whether it can have been measured.
    pub fn is_sound(&self) -> bool {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        self.runs > 0 && positive(self.mean_ms) && positive(self.rate)
    }
}

/// As three numbers, the count exact up to 2^53.
impl Stored for Experience {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        [self.runs as f64, self.mean_ms, self.rate].to_bytes()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [runs, mean_ms, rate] = <[f64; 3]>::from_bytes(bytes)?;
        Some(Experience { runs: runs as u64, mean_ms, rate }).filter(Experience::is_sound)
    }
}

const KIND: &str = "experience";

/// What was kept of `way` to do `what` on `gl:device`.
///
/// # Errors
/// If there is no such device.
pub fn load(device: usize, what: &str, way: &str) -> Result<Option<Experience>> {
    Ok(store().load(KIND, &key(device, what, way)?))
}

/// Keeps `experience` of `way` to do `what` on `gl:device`, in place of what was kept before.
///
/// # Errors
/// If there is no such device, or it cannot have been measured.
pub fn save(device: usize, what: &str, way: &str, experience: &Experience) -> Result<()> {
    if !experience.is_sound() {
        let expected = "at least one run, and times and rates that are positive";
        return Err(Error::invalid("experience", format!("{experience:?}"), expected));
    }
    store().save(KIND, &key(device, what, way)?, experience);
    Ok(())
}

fn key(device: usize, what: &str, way: &str) -> Result<String> {
    let all = discovered()?;
    let usable = || all.found.iter().map(|it| &it.candidate).filter(|it| it.unusable.is_none());
    let Some(found) = usable().nth(device) else {
        let reason = format!("{} usable GL devices", usable().count());
        return Err(Error::NoDevice { selector: format!("gl:{device}"), reason });
    };
    let version = found.facts.iter().find(|(name, _)| *name == "OpenGL").map_or("", |(_, version)| version);
    Ok([found.name.as_str(), version, what, way].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_have_been_measured_comes_back() {
        let good = Experience { runs: 7, mean_ms: 0.25, rate: 1e12 };
        assert_eq!(Experience::from_bytes(&good.to_bytes().unwrap()), Some(good));
        let bad = [
            Experience { runs: 0, ..good },
            Experience { mean_ms: -1.0, ..good },
            Experience { mean_ms: 0.0, ..good },
            Experience { mean_ms: f64::NAN, ..good },
            Experience { rate: f64::INFINITY, ..good },
            Experience { rate: 0.0, ..good },
        ];
        for bad in bad {
            assert_eq!(Experience::from_bytes(&bad.to_bytes().unwrap()), None, "{bad:?}");
            assert!(save(0, "a test", "a way", &bad).is_err(), "{bad:?}");
        }
        assert_eq!(Experience::from_bytes(&good.to_bytes().unwrap()[1..]), None);
    }
}
