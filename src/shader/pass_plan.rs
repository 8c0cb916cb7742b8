//! Generates the GLSL passes of a variant, in the order in which they run.
//!
//! A [`PassPlan`] is data: passes with their source, their buffers and the amount of their work. Some passes run once, to prepare
//! the weights. The others run for each convolution. The engine that runs a plan needs to know no more than that.
//! Sizes are constants in the source, so that the compiler folds address arithmetic and unrolls loops.

mod convolution;
mod defines;
mod gemm;
mod measure;
#[cfg(feature = "patterns")]
mod patterns;
mod plan;
mod tile;

pub use defines::GRID_X;
pub(crate) use gemm::{Product, gemm, gemm_name};
pub(crate) use measure::{measure_fma, measure_read, measure_reads, measure_shared};
#[cfg(feature = "patterns")]
pub(crate) use patterns::{patterns, requests};
pub use plan::{BufferRole, Pass, PassPlan, ShaderSource};

use super::variant::{Family, Variant};
use crate::problem::Conv2d;

/// Generates the passes by which `variant` computes `problem`; `None` for the fallback kernels, which are not generated.
pub fn generate(variant: &Variant, problem: &Conv2d) -> Option<PassPlan> {
    match variant.family {
        Family::Fallback => None,
        Family::Grouped(tm) => Some(convolution::grouped(problem, variant, tm)),
        Family::Igemm | Family::Table => Some(convolution::tiled(problem, variant)),
        Family::Pointwise(kg) => Some(convolution::pointwise(problem, variant, kg)),
        Family::Winograd(m) => Some(convolution::winograd(problem, variant, m)),
    }
}

#[cfg(test)]
mod tests;
