//! What jobs need in order to end: copier threads, the recorder of statistics, and the count of open jobs.

use std::sync::Arc;

use super::copiers::Copiers;
use super::leases::Leases;
use super::sync::Mutex;
use crate::report::Recorder;

/// What all jobs of a pipeline share.
pub struct Completion {
    /// The device's id.
    pub id: Arc<str>,
    pub copiers: Copiers,
    pub recorder: Mutex<Recorder>,
    /// Jobs that have not ended.
    pub open: Arc<Leases>,
}
