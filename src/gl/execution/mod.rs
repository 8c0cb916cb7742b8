//! Running shaders on a context: building programs, cutting work into short dispatches, running passes in sequence.
//!
//! `convolution`, `product`, `measure`, `tune` and `pipeline` use it. It submits commands through `driver` and keeps
//! program binaries in `cache`. It knows no problems.

pub mod arrays;
pub mod budget;
pub mod dispatch;
pub mod epilogue;
pub mod passes;
pub mod programs;
pub mod residents;
pub mod scratch;
pub mod steps;
