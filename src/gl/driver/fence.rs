//! Waiting for the device.
//!
//! A fence is flushed when it is made: without a flush it might never signal. A wait loops over short driver waits
//! until its own deadline, so that it does not depend on how drivers treat long timeouts. It checks for a reset after
//! each. Only a signal counts as done: an expired deadline, a failed wait and a lost context are errors.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Sync;

/// The longest single driver wait.
const MAX_STEP: Duration = Duration::from_millis(100);

/// Signals when the device has finished all commands submitted before it.
pub struct Fence {
    sync: Sync,
    /// Whether a wait has asked the driver to flush it, too.
    flushed: Cell<bool>,
}

impl Fence {
    /// Inserts a fence after the commands submitted so far, and flushes.
    ///
    /// # Errors
    /// What GL reports.
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        let sync = Sync::new(context)?;
        context.api().flush();
        context.check("glFlush")?;
        Ok(Fence { sync, flushed: Cell::new(false) })
    }

    /// Its GL name. Other contexts of the group can wait for it while the fence lives.
    pub fn name(&self) -> usize {
        self.sync.name()
    }

    /// Whether it has signalled or signals within `patience`, at most 100 ms; `what` names the work.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], or what GL reports.
    pub fn poll(&self, what: &str, patience: Duration) -> Result<bool> {
        let context = self.sync.context();
        let flags = if self.flushed.replace(true) { 0 } else { api::SYNC_FLUSH_COMMANDS_BIT };
        let step = patience.min(MAX_STEP).as_nanos() as u64;
        let status = context.api().client_wait_sync(self.sync.name(), flags, step);
        context.check("glClientWaitSync")?;
        // After a reset every fence counts as signalled.
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

    /// Waits until it signals, at most the group's limit; `what` names the work.
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

/// The error for work that did not finish within `limit`.
pub fn timeout(context: &Context, what: &str, limit: Duration) -> Error {
    let limit_ms = limit.as_millis() as u64;
    Error::Timeout { device: context.device().to_owned(), what: what.to_owned(), limit_ms }
}
