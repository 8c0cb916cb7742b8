//! What a job needs to end: threads that copy, the record of what was done, and the count of jobs that are not over.

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
    /// Jobs that are not over.
    pub open: Arc<Leases>,
}
