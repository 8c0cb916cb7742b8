//! Layer 3: what a call took and what that amounts to. Pure.

mod pipeline;
mod statistics;
mod timing;

pub use pipeline::{ENGINES, Interval, PipelineStats, Recorder};
pub use statistics::{geomean, median};
pub use timing::{Timing, gflops};
