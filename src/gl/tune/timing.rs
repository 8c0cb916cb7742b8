//! Timing kernels: several runs back to back, on the device's clock.

use std::rc::Rc;
use std::time::Instant;

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::Fence;
use crate::gl::driver::resource::Query;
use crate::gl::tunables::{MAX_TIMED_RUNS, TIMING_SECONDS};

/// Device seconds of one run that `enqueue` submits, measured over `calls` back to back.
///
/// # Errors
/// The device's failure.
pub fn time(context: &Rc<Context>, calls: usize, enqueue: impl Fn() -> Result<()>) -> Result<f64> {
    let host = Instant::now();
    let clock = context.capabilities().timestamp_bits > 0;
    let stamp = || clock.then(|| Query::timestamp(context)).transpose();
    let first = stamp()?;
    for _ in 0..calls {
        enqueue()?;
    }
    let last = stamp()?;
    Fence::new(context)?.wait("tuning")?;
    let time = match (first, last) {
        (Some(first), Some(last)) => last.since(&first)?,
        _ => host.elapsed(),
    };
    Ok(time.as_secs_f64() / calls as f64)
}

/// How many runs to time together if one takes `once` seconds.
pub fn calls(once: f64) -> usize {
    ((TIMING_SECONDS / once.max(1e-9)) as usize).clamp(1, MAX_TIMED_RUNS)
}
