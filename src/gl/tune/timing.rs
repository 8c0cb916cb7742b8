//! Timing kernels: several runs back to back, on the device's clock.

use std::rc::Rc;
use std::time::Instant;

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::Fence;
use crate::gl::driver::resource::Query;

/// Seconds of runs that are timed together, where one is shorter; but no more runs than [`MAX_CALLS`].
const TIMING: f64 = 3e-3;
const MAX_CALLS: usize = 20;

/// Device seconds of one run that `enqueue` submits, among `calls` back to back.
///
/// # Errors
/// What the device failed to do.
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

/// Runs that are timed together, where one takes `once` seconds.
pub fn calls(once: f64) -> usize {
    ((TIMING / once.max(1e-9)) as usize).clamp(1, MAX_CALLS)
}
