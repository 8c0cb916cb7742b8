//! The state of a device's worker: programs built so far and plans prepared on its context.
//!
//! All of it is dropped when the context is lost. A plan holds what it needs to be prepared again; the contents of
//! programs' buffers are lost.

use std::collections::HashMap;
use std::rc::Rc;

use crate::allocate;
use crate::error::Result;
use crate::gl::convolution::Buffered;
use crate::gl::driver::context::Context;
use crate::gl::execution::programs::Programs;
use crate::gl::execution::residents::Residents;
use crate::gl::kernel::Kernels;

/// A context's programs and prepared plans.
pub struct Session {
    prepared: HashMap<u64, Buffered>,
    /// The buffers of programs.
    pub residents: Residents,
    /// Before `programs`, whose programs they use.
    pub kernels: Kernels,
    pub programs: Programs,
}

impl Session {
    /// An empty session.
    pub fn new(context: Rc<Context>) -> Self {
        Session {
            prepared: HashMap::new(),
            residents: Residents::default(),
            kernels: Kernels::default(),
            programs: Programs::new(context),
        }
    }

    /// Its context.
    pub fn context(&self) -> &Rc<Context> {
        self.programs.context()
    }

    /// Takes the convolution kept under `key`. One that fails is not put back.
    pub fn take(&mut self, key: u64) -> Option<Buffered> {
        self.prepared.remove(&key)
    }

    /// Keeps a convolution under `key`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn keep(&mut self, key: u64, prepared: Buffered) -> Result<()> {
        allocate::reserve_one(&mut self.prepared, "the plans of a device")?;
        self.prepared.insert(key, prepared);
        Ok(())
    }
}
