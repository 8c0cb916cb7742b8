//! Layer 3: what a call took and what that amounts to. Pure.

mod timing;

pub use timing::{Timing, gflops};
