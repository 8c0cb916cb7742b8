//! What jobs need in order to end: copier threads, the recorder of statistics, and the count of open jobs.

use std::sync::Arc;
use std::time::Instant;

use super::copiers::Copiers;
use super::leases::Leases;
use super::sync::{Mutex, lock};
use crate::report::{Recorder, Source, trace};

/// What all jobs of a pipeline share.
pub struct Completion {
    /// The device's id.
    pub id: Arc<str>,
    pub copiers: Copiers,
    pub recorder: Mutex<Recorder>,
    /// Jobs that have not ended.
    pub open: Arc<Leases>,
    /// What traces call the pipeline.
    pub source: Source,
    /// When the pipeline started.
    pub started: Instant,
}

impl Completion {
    /// Adds what was recorded to the trace of the process.
    pub fn write_trace(&self) {
        let Some(trace) = trace::of_process() else { return };
        let source = (self.source, trace.at(self.started));
        let mut recorder = lock(&self.recorder);
        let written = match recorder.traces() {
            true => trace.write(|file| recorder.write_trace(file, &self.id, source)),
            false => Ok(()),
        };
        drop(recorder);
        trace.report(written);
    }

    /// Counts a job that has ended. After the last one, writes the trace: a pipeline that keeps running may never be dropped.
    pub fn count(&self, succeeded: bool) {
        let mut recorder = lock(&self.recorder);
        let stats = recorder.stats_mut();
        match succeeded {
            true => stats.completed += 1,
            false => stats.failed += 1,
        }
        let ended = stats.completed + stats.failed;
        let traces = recorder.traces();
        drop(recorder);
        if traces && ended + self.open.cancelled() >= self.open.taken() {
            self.write_trace();
        }
    }
}
