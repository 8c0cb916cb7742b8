//! Layer 3: the results of measurements: times, rates and traces. Every layer above may use it. It uses
//! the random numbers of `problem`, no devices and no threads. `trace` writes the file that `SPARKLE_TRACE` names.

#[cfg(any(test, feature = "patterns"))]
pub mod attribution;
mod pipeline;
mod statistics;
mod timing;
pub(crate) mod trace;

pub use pipeline::{ENGINES, Interval, PipelineStats, Recorder};
pub use statistics::{geomean, median};
pub use timing::{Timing, gflops};
pub use trace::{Event, Source, TraceFile, Track};
