//! Layer 3: the results of measurements: times, rates and traces. Every layer above may use it. It uses
//! the random numbers of `problem`, no devices and no threads.

#[cfg(any(test, feature = "patterns"))]
pub mod attribution;
mod pipeline;
mod statistics;
mod timing;

pub use pipeline::{ENGINES, Interval, PipelineStats, Recorder};
pub use statistics::{geomean, median};
pub use timing::{Timing, gflops};
