//! Kinds of calls: those that take the same time on a device.

use crate::problem::{Conv2d, Gemm, GemmSizes};

/// Calls that take the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A convolution, and whether its weights come with the call ([`Conv2d::is_once`]).
    Conv2d(Conv2d),
    /// A product, and whether C is read.
    Gemm(GemmSizes, bool),
}

impl From<&Conv2d> for Kind {
    fn from(problem: &Conv2d) -> Self {
        Kind::Conv2d(*problem)
    }
}

impl From<&Gemm> for Kind {
    fn from(problem: &Gemm) -> Self {
        Kind::Gemm(*problem.sizes(), problem.beta() != 0.0)
    }
}
