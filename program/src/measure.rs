//! Timing: the device is kept busy first, then every call is timed, and the median counts.
//!
//! An idle GPU runs at a fraction of its clock, and the first call builds shaders and touches fresh memory. A layer
//! in a running program has none of these costs. Medians of kernel time and wall time are taken separately.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sparkle::Run;
use sparkle::report::median;

use crate::device::label;
use crate::failure::Failure;
use crate::memory;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long to keep the device busy before the first timed call.
    pub busy: Duration,
    /// The least number of timed calls.
    pub min_calls: usize,
    /// The least time that they take together.
    pub min_time: Duration,
}

impl Effort {
    /// For a table: 0.4 s busy, then `repeat` calls, or enough for 0.5 s and at least 5.
    pub fn figure(repeat: Option<usize>) -> Self {
        let busy = Duration::from_millis(400);
        match repeat {
            Some(min_calls) => Effort { busy, min_calls, min_time: Duration::ZERO },
            None => Effort { busy, min_calls: 5, min_time: Duration::from_millis(500) },
        }
    }

    /// For a first impression, on a device that may take a second per call.
    pub fn impression() -> Self {
        Effort { busy: Duration::from_millis(400), min_calls: 3, min_time: Duration::from_millis(100) }
    }
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The device that computed; several if it changed during the calls.
    pub device: String,
    /// Its kernel.
    pub kernel: String,
    /// Median of the kernel times.
    pub kernel_time: Duration,
    /// Median of the wall times.
    pub wall_time: Duration,
    /// Why another device computed, if so.
    pub fallback: Option<String>,
}

impl Measured {
    /// The figures of a single call.
    pub fn of_one(run: &Run) -> Self {
        Measured {
            device: label(run),
            kernel: run.kernel.to_string(),
            kernel_time: run.timing.kernel,
            wall_time: run.timing.wall,
            fallback: run.fallback.as_deref().map(str::to_owned),
        }
    }
}

/// Makes and times calls.
///
/// # Errors
/// The first error of a call; too little memory for the times.
pub fn measure(effort: Effort, mut call: impl FnMut() -> sparkle::Result<Run>) -> Result<Measured, Failure> {
    let start = Instant::now();
    call()?;
    while start.elapsed() < effort.busy {
        call()?;
    }
    let (mut devices, mut kernels, mut fallback) = (BTreeSet::new(), BTreeSet::new(), None);
    let (mut kernel_times, mut wall_times) = (vec![], vec![]);
    let start = Instant::now();
    while wall_times.len() < effort.min_calls.max(1) || start.elapsed() < effort.min_time {
        let run = call()?;
        memory::push("times of calls", &mut kernel_times, run.timing.kernel)?;
        memory::push("times of calls", &mut wall_times, run.timing.wall)?;
        devices.insert(label(&run));
        kernels.insert(run.kernel.to_string());
        fallback = run.fallback.map(|reason| reason.to_string()).or(fallback);
    }
    // The median sorts a copy.
    memory::check("times of calls", size_of_val(&wall_times[..]))?;
    let joined = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" + ");
    let counted = "at least one call was made";
    Ok(Measured {
        device: joined(devices),
        kernel: joined(kernels),
        kernel_time: median(&kernel_times).expect(counted),
        wall_time: median(&wall_times).expect(counted),
        fallback,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparkle::report::Timing;

    /// A device whose n-th call reports n milliseconds. From call `broken` on, another device computes.
    fn calls(broken: u64) -> impl FnMut() -> sparkle::Result<Run> {
        let mut count = 0;
        move || {
            count += 1;
            let failed = count >= broken;
            let timing = Timing {
                kernel: Duration::from_millis(count),
                wall: Duration::from_millis(10 * count),
                dispatches: 1,
            };
            let device = if failed { "cpu" } else { "gl:0" };
            Ok(Run::new(device.into(), "conv".into(), timing, failed.then(|| "gl:0 was lost".into())))
        }
    }

    #[test]
    fn medians_of_the_calls_after_the_busy_time() {
        let effort = Effort { busy: Duration::ZERO, min_calls: 5, min_time: Duration::ZERO };
        let measured = measure(effort, calls(u64::MAX)).unwrap();
        assert_eq!(measured.kernel_time, Duration::from_millis(4));
        assert_eq!(measured.wall_time, Duration::from_millis(40));
        assert_eq!((measured.device.as_str(), measured.fallback), ("gl:0", None));
    }

    #[test]
    fn a_change_of_device_is_reported() {
        let effort = Effort { busy: Duration::ZERO, min_calls: 5, min_time: Duration::ZERO };
        let measured = measure(effort, calls(4)).unwrap();
        assert_eq!(measured.device, "cpu (fallback) + gl:0");
        assert_eq!(measured.fallback.as_deref(), Some("gl:0 was lost"));
    }
}
