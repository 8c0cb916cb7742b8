//! A plan as data: shaders, passes, the roles of buffers.

use crate::allocate;
use crate::error::Result;

/// A complete shader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShaderSource {
    /// Its name in messages.
    pub name: String,
    /// Its GLSL.
    pub text: String,
}

impl ShaderSource {
    /// Copies the shader. A caller's text may be long, so running out of memory is an error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn copied(&self) -> Result<Self> {
        Ok(ShaderSource { name: self.name.clone(), text: allocate::text(&self.text, "a shader")? })
    }
}

/// What a buffer of a plan holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferRole {
    /// The caller's input.
    Input,
    /// The caller's weights, unpacked.
    Weights,
    /// The caller's bias.
    Bias,
    /// The output.
    Output,
    /// Packed weights, in the layout that the kernel reads.
    Packed,
    /// An intermediate buffer, by its index in [`PassPlan::scratch`].
    Scratch(usize),
}

/// One kernel and all its work.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// The shader.
    pub source: ShaderSource,
    /// Binding points and their buffers.
    pub bindings: Vec<(u32, BufferRole)>,
    /// Number of workgroups.
    pub groups: usize,
    /// Arithmetic operations of one workgroup.
    pub operations: f64,
    /// Upper bound of the iterations of all loops of one invocation.
    pub iterations: usize,
    /// Uniforms besides `first` and `count`: location and bit pattern.
    pub uniforms: Vec<(u32, u32)>,
}

/// The passes by which a variant computes a problem.
#[derive(Debug, Clone, PartialEq)]
pub struct PassPlan {
    /// The variant's name.
    pub name: String,
    /// Elements of the packed weights; 0 if the passes read the weights unpacked.
    pub packed: usize,
    /// Elements of each scratch buffer.
    pub scratch: Vec<usize>,
    /// Passes that prepare the weights.
    pub prepare: Vec<Pass>,
    /// Passes of a convolution.
    pub run: Vec<Pass>,
}

impl PassPlan {
    /// Hashes all shaders. The hash is the same in every process.
    pub fn hash(&self) -> u64 {
        crate::store::hash(self.sources().flat_map(|source| source.text.bytes()))
    }

    /// Whether the passes of a convolution read the unpacked weights, also if there are packed ones.
    pub fn reads_weights(&self) -> bool {
        self.run.iter().any(|pass| pass.bindings.iter().any(|(_, slot)| *slot == BufferRole::Weights))
    }

    /// All shaders.
    pub fn sources(&self) -> impl Iterator<Item = &ShaderSource> {
        self.prepare.iter().chain(&self.run).map(|pass| &pass.source)
    }
}
