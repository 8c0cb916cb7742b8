//! What a call did.

use std::sync::Arc;

use crate::report::Timing;

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Id of the device that computed it.
    pub device: Arc<str>,
    /// Name of its kernel.
    pub kernel: Arc<str>,
    /// The times of the attempt that succeeded.
    pub timing: Timing,
    /// Why another device than the planned one computed it; `None` without a fallback.
    pub fallback: Option<Arc<str>>,
}
