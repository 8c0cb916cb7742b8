//! From a variant to GLSL: what is run on the device, and in which order.
//!
//! A [`PassPlan`] is data: passes with their source, the buffers they see and the work they do. Some run once, when weights are
//! prepared, the others at each convolution; an engine needs to know no more. Everything is specialised on the problem: sizes are
//! constants in the source, so that the compiler folds address arithmetic and unrolls loops.

mod convolution;
mod defines;
mod gemm;
mod measure;
mod tile;

pub use defines::GRID_X;
pub(crate) use gemm::{Product, gemm, gemm_name};
pub(crate) use measure::{measure_fma, measure_read};

use super::variant::{Family, Variant};
use crate::allocate;
use crate::error::Result;
use crate::problem::Conv2d;

/// A shader, complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShaderSource {
    /// What messages call it.
    pub name: String,
    /// Its GLSL.
    pub text: String,
}

impl ShaderSource {
    /// A copy; a text of a caller's may be long.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn copied(&self) -> Result<Self> {
        Ok(ShaderSource { name: self.name.clone(), text: allocate::text(&self.text, "a shader")? })
    }
}

/// A buffer of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferRole {
    /// The caller's input.
    Input,
    /// The caller's weights, as they came.
    Weights,
    /// The caller's bias.
    Bias,
    /// The output.
    Output,
    /// Weights as the kernel reads them.
    Packed,
    /// What passes hand on to each other, by number.
    Scratch(usize),
}

/// One kernel over all its work.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// The shader.
    pub source: ShaderSource,
    /// What is bound where.
    pub bindings: Vec<(u32, BufferRole)>,
    /// Workgroups.
    pub groups: usize,
    /// Operations of a workgroup.
    pub operations: f64,
    /// Iterations of all loops of an invocation, at most.
    pub iterations: usize,
    /// Uniforms besides `first` and `count`: location and bits.
    pub uniforms: Vec<(u32, u32)>,
}

/// How a variant computes a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct PassPlan {
    /// The variant's name.
    pub name: String,
    /// Elements of the packed weights; 0 if weights are used as they came.
    pub packed: usize,
    /// Elements of each scratch buffer.
    pub scratch: Vec<usize>,
    /// Passes that prepare the weights.
    pub prepare: Vec<Pass>,
    /// Passes of a convolution.
    pub run: Vec<Pass>,
}

impl PassPlan {
    /// A hash of its shaders, the same in every process.
    pub fn hash(&self) -> u64 {
        crate::store::hash(self.sources().flat_map(|source| source.text.bytes()))
    }

    /// Whether a convolution reads the weights as they came, packed or not.
    pub fn reads_weights(&self) -> bool {
        self.run.iter().any(|pass| pass.bindings.iter().any(|(_, slot)| *slot == BufferRole::Weights))
    }

    /// Its shaders.
    pub fn sources(&self) -> impl Iterator<Item = &ShaderSource> {
        self.prepare.iter().chain(&self.run).map(|pass| &pass.source)
    }
}

/// How `variant` computes `problem`; `None` for the floor, whose kernels are not generated.
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
