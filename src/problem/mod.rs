//! Layer 1: validated problems and their exact solution. Every other layer may use it. It uses only errors and
//! allocations: no I/O, no devices, no threads.
//!
//! A [`Conv2d`] or a [`Gemm`] exists only if all its sizes are valid, so no other layer checks shapes again: all
//! element counts and sizes in bytes fit in `isize`, and all strides are positive. [`oracle`] solves both in float64 by
//! their definition; every test and every published error compares with it.

mod checks;
mod conv1d;
mod conv2d;
mod gemm;
mod layout;

pub mod exact;
pub mod oracle;
pub(crate) mod winograd;

pub(crate) use checks::{exact_length, min_length, side};
pub use conv1d::Conv1dDesc;
pub use conv2d::{Algorithm, Conv2d, Conv2dDesc, Conv2dSizes};
pub use gemm::{Gemm, GemmDesc, GemmSizes, Layout, Transpose};
pub use layout::{TensorLayout, TensorStrides, WeightsLayout, WeightsStrides};
