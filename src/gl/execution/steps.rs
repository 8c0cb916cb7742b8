//! The steps of calls on the worker, in the trace of the process.

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::report::{Track, trace};

/// Does `work`, and adds it to the trace as `name`, if it is a step of a call of the program and not of a measurement. The
/// host measures it: a driver may still copy when an upload has returned.
///
/// # Errors
/// Those of `work`.
pub fn traced<T>(
    context: &Context,
    is_of_call: bool,
    name: &str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(trace) = trace::of_process().filter(|_| is_of_call) else { return work() };
    let start = trace.now();
    let result = work();
    trace.step(context.device(), Track::Steps, name, start);
    result
}
