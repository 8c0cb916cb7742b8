//! How much work one dispatch gets, so that none runs for long.
//!
//! A [`DispatchBudget`] knows how many operations a second a kernel reaches on a device. It limits each dispatch to
//! the work predicted to take its target time. It starts from the planner's expectation, or else from the device's
//! last rate (at first the probe's), with a margin while a problem is new. Each dispatch's own time corrects it; that
//! time is [`believed`] only as far as the host's clock confirms it.
//!
//! Pure arithmetic: nothing here touches a device.

use crate::gl::tunables::{DISPATCH_LIMIT, DISPATCH_TARGET, NEW_PROBLEM_MARGIN, WIDE_DISPATCH};
use std::cell::Cell;
use std::time::Duration;

/// The lowest and highest plausible rates of a device, in operations a second. Results outside are failed measurements.
const RATES: (f64, f64) = (1e5, 1e16);
/// The shortest time that a clock is trusted with.
const TICK: Duration = Duration::from_micros(1);

/// A kernel's work: `units` independent units, `per_group` of them in a workgroup.
#[derive(Debug, Clone, Copy)]
pub struct KernelWork {
    /// Units: outputs, or tiles.
    pub units: u32,
    /// Units that one workgroup computes.
    pub per_group: u32,
    /// Operations of a unit, index arithmetic included.
    pub operations: f64,
}

/// How fast a problem runs on a device.
pub struct DispatchBudget {
    /// Measured operations a second of this problem, once it has run.
    own: Cell<Option<f64>>,
    /// The expected rate before that, if any.
    expected: Option<f64>,
    /// The time that a dispatch should take.
    target: Duration,
}

impl DispatchBudget {
    /// The budget of a problem that has not run yet.
    pub fn new() -> Self {
        DispatchBudget::with_target(DISPATCH_TARGET)
    }

    /// As [`DispatchBudget::new`], with dispatches that take `target`.
    pub fn with_target(target: Duration) -> Self {
        DispatchBudget { own: Cell::new(None), expected: None, target }
    }

    /// Sets the rate expected of the problem, in place of the device's last rate. Without it, large work cut before
    /// anything has run would take thousands of dispatches after a small probe.
    pub fn expecting(self, rate: Option<f64>) -> Self {
        DispatchBudget { expected: rate, ..self }
    }

    /// The rate in operations a second, on a device whose last rate was `device_rate`.
    fn rate(&self, device_rate: f64) -> f64 {
        self.own.get().unwrap_or_else(|| sane(self.expected.unwrap_or(device_rate) / NEW_PROBLEM_MARGIN))
    }

    /// Units of the next dispatch: whole workgroups, at least one.
    pub fn slice(&self, device_rate: f64, work: &KernelWork) -> u32 {
        let group = work.operations * f64::from(work.per_group);
        // Casts from floats saturate.
        let groups = (self.target.as_secs_f64() * self.rate(device_rate) / group) as u32;
        groups.max(1).saturating_mul(work.per_group)
    }

    /// Learns from a dispatch of `units` units that took `took`. Returns the device's new rate.
    pub fn learn(&self, device_rate: f64, work: &KernelWork, units: u32, took: Duration) -> f64 {
        let device_rate = sane(device_rate);
        let measured = sane(f64::from(units) * work.operations / took.max(TICK).as_secs_f64());
        let wide = units.div_ceil(work.per_group) >= WIDE_DISPATCH;
        if wide || took > DISPATCH_LIMIT || measured > self.rate(device_rate) {
            self.own.set(Some(measured));
        }
        if wide || measured > device_rate { measured } else { device_rate }
    }
}

/// Clamps a rate to the plausible ones. NaN becomes the lowest.
fn sane(rate: f64) -> f64 {
    rate.max(RATES.0).min(RATES.1)
}

/// The time of a dispatch: the device's clock, within plausible bounds. Drivers' clocks stand still, run backwards or
/// count in other units. By the host's clock, the dispatch ended `since_sent` after it was submitted, which is the
/// upper bound. It ended `since_last` after the previous one; half of that is about the lower bound.
pub fn believed(device: Duration, since_last: Duration, since_sent: Duration) -> Duration {
    debug_assert!(since_last <= since_sent);
    device.clamp(since_last / 2, since_sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::exact::Random;

    /// A device of one true speed with an arbitrary clock.
    struct Device {
        /// Operations a second.
        rate: f64,
        clock: fn(Duration) -> Duration,
    }

    /// Clocks seen in drivers, and worse ones.
    const CLOCKS: [fn(Duration) -> Duration; 7] = [
        |truth| truth,
        // Stands still or runs backwards: a negative difference counts as zero.
        |_| Duration::ZERO,
        |_| Duration::MAX,
        |_| Duration::from_nanos(1),
        |truth| truth / 1000,
        |truth| truth * 1000,
        // In steps of a millisecond.
        |truth| Duration::from_millis(truth.as_millis() as u64),
    ];

    /// Runs work as `dispatch::run` does, two dispatches in flight. Returns the longest dispatch and their number.
    fn simulate(
        device: &Device,
        budget: &DispatchBudget,
        device_rate: &mut f64,
        work: &KernelWork,
    ) -> (f64, u32) {
        let (mut left, mut longest, mut dispatches) = (u64::from(work.units), 0.0f64, 0);
        let (mut now, mut busy_until, mut last_seen) = (0.0f64, 0.0f64, 0.0f64);
        let mut flights = std::collections::VecDeque::new();
        while left > 0 || !flights.is_empty() {
            if left > 0 && flights.len() < 2 {
                let units = u64::from(budget.slice(*device_rate, work)).min(left);
                left -= units;
                dispatches += 1;
                let truth = units as f64 * work.operations / device.rate;
                if units > u64::from(work.per_group) {
                    longest = longest.max(truth);
                }
                busy_until = busy_until.max(now) + truth;
                flights.push_back((units as u32, truth, now, busy_until));
                now += 1e-6;
            } else if let Some((units, truth, sent, over)) = flights.pop_front() {
                now = now.max(over) + 1e-6;
                let since = |then: f64| Duration::from_secs_f64(now - then);
                let claimed = (device.clock)(Duration::from_secs_f64(truth));
                let took = believed(claimed, since(last_seen.max(sent)), since(sent));
                last_seen = now;
                *device_rate = budget.learn(*device_rate, work, units, took);
            }
        }
        (longest, dispatches)
    }

    #[test]
    fn no_dispatch_takes_long_whatever_the_clock_says() {
        let mut random = Random::new(5);
        let (mut ran, mut cut) = (0, 0);
        for rate in [1e7, 1e9, 3e11, 5e13] {
            for clock in CLOCKS {
                for _ in 0..50 {
                    let device = Device { rate, clock };
                    // The probe's rate is too high by no more than the margin.
                    let mut device_rate = rate * random.pick(&[1e-5, 1e-2, 0.5, 1.0, 4.0]);
                    let operations = random.pick(&[34.0, 1e3, 1e5]);
                    // Up to a few seconds of work.
                    let seconds = random.between(1, 5_000) as f64 / 1000.0;
                    let units = (seconds * rate / operations).max(1.0) as u32;
                    let work = KernelWork { units, per_group: 64, operations };
                    let budget = DispatchBudget::new();
                    for _ in 0..3 {
                        let (longest, dispatches) = simulate(&device, &budget, &mut device_rate, &work);
                        assert!(longest <= DISPATCH_LIMIT.as_secs_f64(), "{longest} s: {rate} {work:?}");
                        cut += usize::from(dispatches > 1);
                        ran += 1;
                    }
                }
            }
        }
        assert!(ran == 4 * 7 * 50 * 3 && cut > 1000, "{ran} ran, {cut} were cut");
    }

    #[test]
    fn a_true_clock_makes_dispatches_of_the_right_length() {
        let device = Device { rate: 1e12, clock: |truth| truth };
        let work = KernelWork { units: 1 << 30, per_group: 64, operations: 1e4 };
        let (budget, mut device_rate) = (DispatchBudget::new(), 1e9);
        simulate(&device, &budget, &mut device_rate, &work);
        let (longest, dispatches) = simulate(&device, &budget, &mut device_rate, &work);
        // 10.7 seconds of work.
        assert!(
            (0.09..=0.11).contains(&longest) && (98..=120).contains(&dispatches),
            "{longest} {dispatches}"
        );
        assert!((0.9e12..=1.1e12).contains(&device_rate), "{device_rate}");
    }

    #[test]
    fn no_slice_is_predicted_to_take_long() {
        let absurd = [0.0, -1.0, 1e-300, 1.0, 1e9, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        let times = [Duration::ZERO, Duration::from_nanos(1), DISPATCH_TARGET, DISPATCH_LIMIT, Duration::MAX];
        let mut ran = 0;
        for (device_rate, took) in absurd.iter().flat_map(|rate| times.map(|took| (*rate, took))) {
            for (units, per_group, operations) in
                [(1, 64, 34.0), (u32::MAX, 64, 34.0), (u32::MAX, 1, 1e12), (1 << 20, 64, 4.3e9)]
            {
                let work = KernelWork { units, per_group, operations };
                let budget = DispatchBudget::new();
                for learnt in [None, Some(took)] {
                    if let Some(took) = learnt {
                        let rate = budget.learn(device_rate, &work, units, took);
                        assert!((RATES.0..=RATES.1).contains(&rate), "{rate}");
                    }
                    let slice = budget.slice(device_rate, &work);
                    let predicted = f64::from(slice) * operations / budget.rate(device_rate);
                    assert!(
                        slice >= 1 && (slice <= per_group || predicted <= 0.25),
                        "{slice}: {predicted} s"
                    );
                    assert!(slice.is_multiple_of(per_group) || slice == u32::MAX, "{slice}");
                    ran += 1;
                }
            }
        }
        assert_eq!(ran, 9 * 5 * 4 * 2);
    }

    /// Work much larger than anything run before: a convolution of 62 GFLOP after a probe of about 30 kFLOP.
    #[test]
    fn what_is_expected_counts_until_something_has_run() {
        let work = KernelWork { units: 3136, per_group: 1, operations: 37e6 };
        let probed = 3e9;
        assert_eq!(DispatchBudget::with_target(Duration::from_millis(1)).slice(probed, &work), 1);
        let budget = DispatchBudget::with_target(Duration::from_millis(1)).expecting(Some(40e12));
        let slice = budget.slice(probed, &work);
        assert!((250..=290).contains(&slice), "{slice}");
        budget.learn(probed, &work, work.units, Duration::from_millis(2));
        assert_eq!(budget.slice(probed, &work), 1568);
        // A senseless expectation does no harm.
        for rate in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            let slice = DispatchBudget::new().expecting(Some(rate)).slice(probed, &work);
            assert!(f64::from(slice) * work.operations / RATES.1 <= 0.25, "{rate}: {slice}");
        }
    }

    #[test]
    fn a_narrow_dispatch_that_is_slow_says_little_unless_it_is_far_too_long() {
        let work = KernelWork { units: 64 * 100, per_group: 64, operations: 1e6 };
        let (budget, before) = (DispatchBudget::new(), 1e12);
        let slice = budget.slice(before, &work);
        assert_eq!(budget.learn(before, &work, work.units, DISPATCH_TARGET), before);
        assert_eq!(budget.slice(before, &work), slice);
        budget.learn(before, &work, work.units, DISPATCH_LIMIT * 2);
        assert!(budget.slice(before, &work) < slice);
    }
}
