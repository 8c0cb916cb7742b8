//! The times of one call.

use std::time::Duration;

/// The times of one call, without averages, repetitions or assumptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Time of the kernels, without transfers. On GL, from a timestamp query before the first dispatch to one after the
    /// last; on the CPU, the monotonic time of the computation.
    pub kernel: Duration,
    /// Monotonic time of the whole call, including transfers, until the output is in the caller's memory.
    pub wall: Duration,
    /// Dispatches of the call; 1 on the CPU.
    pub dispatches: u32,
}

/// The rate of `flops` operations in `time`, in 10^9 per second. 0 if `flops` is 0, for any time.
pub fn gflops(flops: u64, time: Duration) -> f64 {
    if flops == 0 { 0.0 } else { flops as f64 / time.as_secs_f64() / 1e9 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gigaflop_in_half_a_second_is_two_gflops() {
        assert_eq!(gflops(1_000_000_000, Duration::from_millis(500)), 2.0);
    }

    #[test]
    fn no_work_has_no_rate_even_in_no_time() {
        assert_eq!([Duration::ZERO, Duration::from_secs(1)].map(|time| gflops(0, time)), [0.0; 2]);
    }
}
