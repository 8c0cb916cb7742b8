//! Running shaders on a context: programs are built, work is cut into short dispatches, passes follow each other.
//!
//! `convolution`, `product`, `measure`, `tune` and `pipeline` use it. It submits commands through `driver` and keeps program
//! binaries in `cache`; it knows no problem.

pub mod budget;
pub mod dispatch;
pub mod passes;
pub mod programs;
pub mod scratch;
