//! The time of one call, named for what it is.

use std::time::Duration;

/// What one call took. Nothing in it is averaged, repeated or assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Time the kernels ran: on GL from a timestamp query before the first dispatch to one behind the last, on the
    /// CPU the monotonic time of the computing part. Transfers are not in it.
    pub kernel: Duration,
    /// Monotonic time of the whole call, transfers included, until its output was in the caller's memory.
    pub wall: Duration,
    /// Dispatches the call was cut into; 1 on the CPU.
    pub dispatches: u32,
}

/// `flops` done in `time`, as 10^9 a second; 0 for no work, however long it took.
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
