//! How much other programs use the machine's CPUs.

use std::time::Instant;

/// CPU time until a moment: of all programs, and of this process. Time that a hypervisor gave to other machines counts
/// as used by others.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    at: Instant,
    all: f64,
    own: f64,
}

/// CPUs that others may use on average on a quiet machine.
const QUIET: f64 = 0.25;
/// Seconds of others' CPU time that may be due to the system's coarse clock: two ticks.
const COARSE: f64 = 0.02;

impl CpuTime {
    /// The times now. `None` if the system does not tell them.
    pub fn now() -> Option<Self> {
        // Miri knows neither file nor function.
        if cfg!(any(miri, not(target_os = "linux"))) {
            return None;
        }
        let all = of_machine(&std::fs::read_to_string("/proc/stat").ok()?)?;
        Some(CpuTime { at: Instant::now(), all, own: of_process()? })
    }

    /// Whether others have used little CPU time since `self`. A machine that tells nothing counts as quiet.
    pub fn was_quiet(earlier: Option<Self>) -> bool {
        let (Some(earlier), Some(now)) = (earlier, CpuTime::now()) else { return true };
        earlier.is_quiet_until(&now)
    }

    fn is_quiet_until(&self, later: &Self) -> bool {
        let others = (later.all - self.all) - (later.own - self.own);
        others <= COARSE || others <= QUIET * (later.at - self.at).as_secs_f64()
    }
}

/// Seconds of CPU time used on all CPUs, from the text of `/proc/stat`: `cpu user nice system idle iowait irq softirq
/// steal ...`, in ticks.
fn of_machine(stat: &str) -> Option<f64> {
    let mut fields = stat.lines().next()?.split_ascii_whitespace();
    if fields.next() != Some("cpu") {
        return None;
    }
    let ticks = fields.take(8).map(str::parse::<u64>).collect::<Result<Vec<u64>, _>>().ok()?;
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks.as_slice() else { return None };
    let used = [user, nice, system, irq, softirq, steal].into_iter().map(|ticks| ticks as f64).sum::<f64>();
    Some(used / ticks_per_second()?)
}

fn ticks_per_second() -> Option<f64> {
    // SAFETY: no argument is an address.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (ticks > 0).then_some(ticks as f64)
}

/// Seconds of CPU time that this process has used.
fn of_process() -> Option<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the function writes the time to the variable.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    (status == 0).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_of_the_system_is_read() {
        let ticks = ticks_per_second().unwrap();
        let seconds = of_machine("cpu  100 20 30 9999 888 5 6 39 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!(seconds, Some(200.0 / ticks));
        for text in
            ["", "cpu", "cpu 1 2 3", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x", "cpu 1 2 3 4 5 6 7 -8"]
        {
            assert_eq!(of_machine(text), None, "{text:?}");
        }
    }

    #[test]
    fn own_work_is_not_that_of_others() {
        let start = CpuTime { at: Instant::now(), all: 1_000.0, own: 10.0 };
        let after = |seconds: f64, all: f64, own: f64| CpuTime {
            at: start.at + Duration::from_secs_f64(seconds),
            all: start.all + all,
            own: start.own + own,
        };
        // Two of our threads for a second, others for a tenth.
        assert!(start.is_quiet_until(&after(1.0, 2.1, 2.0)));
        assert!(!start.is_quiet_until(&after(1.0, 2.9, 2.0)));
        // A tick or two are within the clock's error in a short time, not more.
        assert!(start.is_quiet_until(&after(0.04, 0.055, 0.04)));
        assert!(!start.is_quiet_until(&after(0.04, 0.08, 0.04)));
        // Clocks of different grain.
        assert!(start.is_quiet_until(&after(0.01, 0.0, 0.01)));
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn the_process_uses_cpu_time() {
        let (start, first) = (Instant::now(), of_process().unwrap());
        while of_process().unwrap() - first < 0.001 {
            assert!(start.elapsed() < Duration::from_secs(60), "no CPU time passes");
        }
        assert!(CpuTime::was_quiet(None), "unknown counts as quiet");
    }
}
