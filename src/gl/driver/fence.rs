//! Waiting for the device.
//!
//! A fence is flushed as it is made: one that sits in a queue nobody sends would never signal. A wait loops over short
//! driver waits until a deadline of its own, so that no driver's idea of a long timeout matters, and looks for a reset after
//! each. Only a signal counts as done: an expired deadline, a failed wait and a lost context are errors.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Sync;

/// The longest that one driver wait takes.
const STEP: Duration = Duration::from_millis(100);

/// Signals when the device has done all commands given before it.
pub struct Fence {
    sync: Sync,
    /// Whether a wait has told the driver to send it off, too.
    sent: Cell<bool>,
}

impl Fence {
    /// Puts a fence behind the commands given so far and sends them off.
    ///
    /// # Errors
    /// What GL reports.
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        let sync = Sync::new(context)?;
        context.api().flush();
        context.check("glFlush")?;
        Ok(Fence { sync, sent: Cell::new(false) })
    }

    /// Its GL name, by which other contexts of the group can wait for it while it lives.
    pub fn name(&self) -> usize {
        self.sync.name()
    }

    /// Whether it has signalled, or does within `patience`, at most 100 ms; `what` names the work.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or what GL reports.
    pub fn poll(&self, what: &str, patience: Duration) -> Result<bool> {
        let context = self.sync.context();
        let flags = if self.sent.replace(true) { 0 } else { api::SYNC_FLUSH_COMMANDS_BIT };
        let step = patience.min(STEP).as_nanos() as u64;
        let status = context.api().client_wait_sync(self.sync.name(), flags, step);
        context.check("glClientWaitSync")?;
        // Behind a reset every fence counts as signalled.
        context.check_reset(what)?;
        match status {
            api::ALREADY_SIGNALED | api::CONDITION_SATISFIED => Ok(true),
            api::TIMEOUT_EXPIRED => Ok(false),
            other => {
                let reason = match other {
                    api::WAIT_FAILED => "GL_WAIT_FAILED".to_owned(),
                    other => format!("unknown status {other:#06x}"),
                };
                let (device, call) = (context.device().to_owned(), "glClientWaitSync".to_owned());
                Err(Error::Driver { device, call, reason })
            }
        }
    }

    /// Waits until it signals, at most as long as the group's limit; `what` names the work.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::DeviceLost`], or what GL reports.
    pub fn wait(&self, what: &str) -> Result<()> {
        let limit = self.sync.context().group().wait_limit();
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            if self.poll(what, left)? {
                return Ok(());
            }
            if left.is_zero() {
                return Err(timeout(self.sync.context(), what, limit));
            }
        }
    }
}

/// The error for work that was not done within `limit`.
pub fn timeout(context: &Context, what: &str, limit: Duration) -> Error {
    let limit_ms = limit.as_millis() as u64;
    Error::Timeout { device: context.device().to_owned(), what: what.to_owned(), limit_ms }
}
