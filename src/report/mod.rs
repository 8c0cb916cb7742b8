//! Layer 3: the results of measurements: times, rates and traces. Every layer above may use it. It uses no other
//! module, no devices and no threads.

mod pipeline;
mod statistics;
mod timing;

pub use pipeline::{ENGINES, Interval, PipelineStats, Recorder};
pub use statistics::{geomean, median};
pub use timing::{Timing, gflops};
