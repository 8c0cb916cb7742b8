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

/// A buffer of a recipe.
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
mod passes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tiles::{Gpu, TILES};
    use crate::problem::{Conv2dDesc, Gemm, GemmDesc, Layout, Transpose};
    use crate::shader::source::check_with_glslang;
    use crate::shader::variant::candidates;

    fn problems() -> Vec<Conv2d> {
        let layer =
            Conv2dDesc { c: 32, k: 33, h: 14, w: 14, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        let first = Conv2dDesc { c: 3, r: 7, s: 7, stride_h: 2, stride_w: 2, relu: true, ..layer };
        let pointwise = Conv2dDesc { r: 1, s: 1, pad_h: 0, pad_w: 0, bias: true, ..layer };
        let depthwise = Conv2dDesc { k: 32, groups: 32, ..layer };
        let dilated = Conv2dDesc { dilation_h: 2, dilation_w: 3, n: 2, ..layer };
        [layer, first, pointwise, depthwise, dilated].map(|desc| Conv2d::new(desc).unwrap()).to_vec()
    }

    /// Of each family the first and some others of every problem.
    #[test]
    fn glslang_accepts_what_is_generated() {
        let mut checked = 0;
        for problem in problems() {
            for variant in candidates(&problem, &Gpu::ASSUMED).iter().step_by(4) {
                let Some(recipe) = generate(variant, &problem) else { continue };
                for pass in recipe.prepare.iter().chain(&recipe.run) {
                    check_with_glslang(&pass.source.name, &pass.source.text);
                    checked += 1;
                }
            }
        }
        let odd = GemmDesc::packed(Layout::ColMajor, 100, 101, 102);
        let whole = GemmDesc { trans_b: Transpose::Yes, ..GemmDesc::packed(Layout::ColMajor, 64, 128, 128) };
        for (desc, beta, passes) in [(odd, 0.0, 2), (odd, 0.5, 2), (whole, 0.0, 1), (whole, 0.5, 1)] {
            for splits in [1, 3] {
                let run = gemm(&Gemm::new(GemmDesc { beta, ..desc }).unwrap(), &TILES[0], splits).run;
                assert_eq!(run.len(), passes + usize::from(splits > 1));
                for pass in run {
                    check_with_glslang(&pass.source.name, &pass.source.text);
                    checked += 1;
                }
            }
        }
        for pass in [measure_fma(1, 1), measure_read(1 << 20)] {
            check_with_glslang(&pass.source.name, &pass.source.text);
            checked += 1;
        }
        assert!(checked > 50, "{checked}");
    }

    /// What a device cannot run is not offered to it, and the same question has the same answer.
    #[test]
    fn candidates_fit_the_device() {
        let small = Gpu { shared_bytes: 16 << 10, max_threads: 128, max_elements: 1 << 16, ..Gpu::ASSUMED };
        let mut offered = 0;
        for problem in problems() {
            let all = candidates(&problem, &small);
            assert_eq!(all, candidates(&problem, &small));
            assert!(!all.is_empty());
            for variant in &all {
                let Some(recipe) = generate(variant, &problem) else { continue };
                let tiled = !matches!(variant.family, Family::Grouped(_) | Family::Pointwise(_));
                assert!(!tiled || variant.tile.fits(&small), "{variant}");
                assert!(
                    recipe.packed <= 1 << 16 && recipe.scratch.iter().all(|&it| it <= 1 << 16),
                    "{variant}"
                );
                offered += 1;
            }
        }
        assert!(offered > 10, "{offered}");
    }
}
