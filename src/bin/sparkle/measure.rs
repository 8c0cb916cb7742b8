//! How the program times: the device is kept busy first, then every call counts, and the median is the figure.
//!
//! An idle GPU sits at a fraction of its clock, and a first call builds shaders and touches fresh memory; none of that is what
//! a layer costs in a running program. The figures are medians over single calls, kernel time and wall time apart.

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
    /// Time to keep the device busy before the first call that counts.
    pub busy: Duration,
    /// The least number of calls.
    pub least: usize,
    /// The least time they take together.
    pub time: Duration,
}

impl Effort {
    /// For a figure: 0.4 s busy, then `repeat` calls, or enough for 0.5 s and at least 5.
    pub fn figure(repeat: Option<usize>) -> Self {
        let busy = Duration::from_millis(400);
        match repeat {
            Some(least) => Effort { busy, least, time: Duration::ZERO },
            None => Effort { busy, least: 5, time: Duration::from_millis(500) },
        }
    }

    /// For a first impression, on a device that may need a second a call.
    pub fn impression() -> Self {
        Effort { busy: Duration::from_millis(400), least: 3, time: Duration::from_millis(100) }
    }
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The device that did the work; several if it changed on the way.
    pub device: String,
    /// Its kernel.
    pub kernel: String,
    /// Median of the kernel times.
    pub kernel_time: Duration,
    /// Median of the wall times.
    pub wall_time: Duration,
    /// Why another device did the work, if so.
    pub fallback: Option<String>,
}

impl Measured {
    /// One call, for what needs no second.
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

/// Calls `call` again and again.
///
/// # Errors
/// The first error of a call; if there is no memory for so many times.
pub fn measure(effort: Effort, mut call: impl FnMut() -> sparkle::Result<Run>) -> Result<Measured, Failure> {
    let start = Instant::now();
    call()?;
    while start.elapsed() < effort.busy {
        call()?;
    }
    let (mut devices, mut kernels, mut fallback) = (BTreeSet::new(), BTreeSet::new(), None);
    let (mut kernel_times, mut wall_times) = (vec![], vec![]);
    let start = Instant::now();
    while wall_times.len() < effort.least.max(1) || start.elapsed() < effort.time {
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

    /// A device whose n-th call takes n milliseconds on the clock it reports, from `broken` on by its substitute.
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
            Ok(Run {
                device: if failed { "cpu" } else { "gl:0" }.into(),
                kernel: "conv".into(),
                timing,
                fallback: failed.then(|| "gl:0 was lost".into()),
            })
        }
    }

    #[test]
    fn medians_of_the_calls_after_the_busy_time() {
        let effort = Effort { busy: Duration::ZERO, least: 5, time: Duration::ZERO };
        let measured = measure(effort, calls(u64::MAX)).unwrap();
        assert_eq!(measured.kernel_time, Duration::from_millis(4));
        assert_eq!(measured.wall_time, Duration::from_millis(40));
        assert_eq!((measured.device.as_str(), measured.fallback), ("gl:0", None));
    }

    #[test]
    fn a_change_of_device_shows() {
        let effort = Effort { busy: Duration::ZERO, least: 5, time: Duration::ZERO };
        let measured = measure(effort, calls(4)).unwrap();
        assert_eq!(measured.device, "cpu (fallback) + gl:0");
        assert_eq!(measured.fallback.as_deref(), Some("gl:0 was lost"));
    }
}
