//! Layer 5: the CPU engine.

use std::sync::Arc;

use crate::backend::{Backend, Plan};
use crate::error::{Error, Result};
use crate::memory::Hierarchy;
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;

/// The CPU engine.
pub struct Engine;

/// The engine; there is one a process.
pub fn open() -> Arc<Engine> {
    Arc::new(Engine)
}

/// Name and facts of this CPU, for `sparkle info`.
pub fn describe() -> (String, Vec<(&'static str, String)>) {
    ("CPU".to_owned(), vec![])
}

/// Sets the number of threads; 1 runs on the calling thread.
///
/// # Errors
/// Zero is refused.
pub fn set_num_threads(_count: usize) -> Result<()> {
    Ok(())
}

/// The number of threads a call uses.
pub fn num_threads() -> usize {
    1
}

/// Ends the pool; the next call starts another.
pub fn shutdown() {}

impl Backend for Engine {
    fn id(&self) -> &str {
        "cpu"
    }
    fn hierarchy(&self) -> Result<Hierarchy> {
        Err(Error::Internal("not yet".into()))
    }
    fn plan_conv2d(&self, _: &Conv2d, _: &[f32], _: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        Err(Error::Internal("not yet".into()))
    }
    fn sgemm(&self, _: &Gemm, _: &[f32], _: &[f32], _: &mut [f32]) -> Result<(&'static str, Timing)> {
        Err(Error::Internal("not yet".into()))
    }
}
