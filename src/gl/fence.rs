//! Waiting for the device.
//!
//! A fence is flushed as it is made: one that sits in a queue nobody sends would never signal. A wait loops over short
//! driver waits until a deadline of its own, so that no driver's idea of a long timeout matters, and looks for a reset after
//! each. Only a signal counts as done: an expired deadline, a failed wait and a lost context are errors.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::api;
use super::context::Context;
use super::resource::Sync;
use crate::config::config;
use crate::error::{Error, Result};

/// The longest that one driver wait takes.
const STEP: Duration = Duration::from_millis(100);

/// Signals when the device has done all commands given before it.
pub struct Fence(Sync);

impl Fence {
    /// Puts a fence behind the commands given so far and sends them off.
    ///
    /// # Errors
    /// What GL reports.
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        let sync = Sync::new(context)?;
        context.api().flush();
        context.check("glFlush")?;
        Ok(Fence(sync))
    }

    /// Waits until it signals, at most `SPARKLE_GL_TIMEOUT_MS`; `what` names the work.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::DeviceLost`], or what GL reports.
    pub fn wait(&self, what: &str) -> Result<()> {
        let limit_ms = config().gl_timeout_ms();
        let context = self.0.context();
        let start = Instant::now();
        let limit = Duration::from_millis(limit_ms);
        let mut flags = api::SYNC_FLUSH_COMMANDS_BIT;
        loop {
            let left = limit.saturating_sub(start.elapsed());
            let step = left.min(STEP).as_nanos() as u64;
            let status = context.api().client_wait_sync(self.0.name(), flags, step);
            context.check("glClientWaitSync")?;
            // Behind a reset every fence counts as signalled.
            context.check_reset(what)?;
            match status {
                api::ALREADY_SIGNALED | api::CONDITION_SATISFIED => return Ok(()),
                api::TIMEOUT_EXPIRED if left.is_zero() => {
                    let (device, what) = (context.device().to_owned(), what.to_owned());
                    return Err(Error::Timeout { device, what, limit_ms });
                }
                api::TIMEOUT_EXPIRED => flags = 0,
                other => {
                    let reason = match other {
                        api::WAIT_FAILED => "GL_WAIT_FAILED".to_owned(),
                        other => format!("unknown status {other:#06x}"),
                    };
                    let (device, call) = (context.device().to_owned(), "glClientWaitSync".to_owned());
                    return Err(Error::Driver { device, call, reason });
                }
            }
        }
    }
}
