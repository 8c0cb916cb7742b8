//! Layer 3: what a call took and what that amounts to. Pure.

mod statistics;
mod timing;

pub use statistics::{geomean, median};
pub use timing::{Timing, gflops};
