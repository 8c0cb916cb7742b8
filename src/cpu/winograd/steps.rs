//! The four steps of a convolution, each for some channels and tiles. The caller provides the memory.

use std::marker::PhantomData;
use std::ops::Range;

use super::blocks::Block;
use super::engine::WinogradKernel;
use super::form::Form;
use super::geometry::{Channels, Geometry, Planes};
use super::input::{self, InputJob};
use super::output;
use super::output_job::OutputJob;
use super::product::ProductJob;
use super::vector::MAX_LANES;
use super::weights::WeightsJob;
use crate::cpu::block::Shared;
use crate::cpu::buffer::Buffer;
use crate::error::Result;
use crate::memory::winograd::Tiling;
use crate::problem::{Conv2d, Conv2dSizes};

/// A convolution with its bias and its kernels.
pub struct Steps<E, F> {
    pub problem: Conv2d,
    pub geometry: Geometry,
    engine: E,
    /// The bias, or zeros: the channels of each group, padded to whole vectors.
    bias: Buffer,
    form: PhantomData<F>,
}

impl<E: WinogradKernel, F: Form> Steps<E, F> {
    /// Elements of a tile on the frequency side.
    pub const FREQUENCIES: usize = F::ALPHA * F::ALPHA;

    /// Winograd's algorithm must support the problem ([`crate::problem::winograd::is_supported`]).
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(engine: E, problem: &Conv2d, bias: Option<&[f32]>) -> Result<Self> {
        let Conv2dSizes { k, groups, .. } = *problem.sizes();
        let (k, padded) = (k / groups, (k / groups).next_multiple_of(E::LANES));
        let mut padded_bias = Buffer::zeroed(groups * padded)?;
        for (to, from) in padded_bias.chunks_exact_mut(padded).zip(bias.unwrap_or(&[]).chunks_exact(k)) {
            to[..k].copy_from_slice(from);
        }
        let geometry = Geometry::new(problem.sizes(), F::M);
        Ok(Steps { problem: *problem, geometry, engine, bias: padded_bias, form: PhantomData })
    }

    /// Elements of the padded bias.
    pub fn bias_len(&self) -> usize {
        self.bias.len()
    }

    /// Input and output channels of a group.
    pub fn channels(&self) -> (usize, usize) {
        let Conv2dSizes { c, k, groups, .. } = *self.problem.sizes();
        (c / groups, k / groups)
    }

    /// Vectors of input and output channels of a group.
    pub fn blocks(&self) -> (usize, usize) {
        let (c, k) = self.channels();
        (c.div_ceil(E::LANES), k.div_ceil(E::LANES))
    }

    /// The sizes for the planner.
    pub fn tiling(&self) -> Tiling {
        Tiling::new(self.problem.sizes(), F::M, E::LANES)
    }

    /// Elements of scratch memory that a thread needs for blocks of at most `tiles` tiles.
    pub fn scratch_len(&self, tiles: usize) -> usize {
        let longest = tiles.min(self.geometry.across);
        let len = input::scratch_len::<F>(longest, E::LANES).max(output::scratch_len::<F>(longest, E::LANES));
        len.next_multiple_of(MAX_LANES)
    }

    /// Elements of a V or M for all frequencies.
    pub fn len(planes: Planes) -> usize {
        (Self::FREQUENCIES * planes.plane).next_multiple_of(MAX_LANES)
    }

    /// The part of `group` in the weights of all groups.
    pub fn group_weights<'a>(&self, all: &'a [f32], group: usize) -> &'a [f32] {
        let len = all.len() / self.problem.sizes().groups;
        &all[group * len..][..len]
    }

    /// Transforms weights of one group.
    ///
    /// # Safety
    /// U is writable for the panels of the job. Only this call writes them.
    pub unsafe fn weights(&self, job: &WeightsJob) {
        // SAFETY: as the caller promises.
        unsafe { self.engine.weights::<F>(job) };
    }

    /// Transforms tiles of a block in vector `channels` of the group's input channels.
    ///
    /// # Safety
    /// V is writable for these tiles in this vector of channels. Only this call writes them.
    pub unsafe fn input(
        &self,
        block: &Block,
        (channels, tiles): (usize, Range<usize>),
        input: &[f32],
        (v, planes): (Shared, Planes),
        scratch: &mut [f32],
    ) {
        let c = self.channels().0;
        let job = InputJob {
            geometry: &self.geometry,
            input,
            tiles,
            first: block.tiles.start,
            channels: Channels::new(channels, channels, (block.group * c, c), E::LANES),
            v: v.start(),
            planes,
        };
        // SAFETY: as the caller promises; the scratch memory has the length of scratch_len().
        unsafe { self.engine.input::<F>(&job, scratch) };
    }

    /// Transforms all tiles of a block, in all input channels of its group.
    ///
    /// # Safety
    /// V is writable. Only this call writes it.
    pub unsafe fn all_input(
        &self,
        block: &Block,
        input: &[f32],
        (v, planes): (Shared, Planes),
        scratch: &mut [f32],
    ) {
        for channels in 0..self.blocks().0 {
            // SAFETY: as the caller promises.
            unsafe { self.input(block, (channels, block.tiles.clone()), input, (v, planes), scratch) };
        }
    }

    /// Computes products.
    ///
    /// # Safety
    /// As for [`super::product::multiply`].
    pub unsafe fn multiply(&self, job: &ProductJob) {
        // SAFETY: as the caller promises.
        unsafe { self.engine.multiply(job) };
    }

    /// Transforms the products of tiles of a block in vector `channels` of the group's output channels, which is vector
    /// `at` of M. `input` and `weights` are the whole originals.
    ///
    /// # Safety
    /// The outputs of the tiles are writable. Only this call writes them.
    pub unsafe fn output(
        &self,
        block: &Block,
        (input, weights): (&[f32], &[f32]),
        ((channels, at), tiles): ((usize, usize), Range<usize>),
        (products, planes): (&[f32], Planes),
        output: Shared,
        scratch: &mut [f32],
    ) {
        let k = self.channels().1;
        let job = OutputJob {
            geometry: &self.geometry,
            tiles,
            first: block.tiles.start,
            channels: Channels::new(channels, at, (block.group * k, k), E::LANES),
            products,
            planes,
            bias: &self.bias[(block.group * self.blocks().1 + channels) * E::LANES..],
            relu: self.problem.relu(),
            input,
            weights,
            output: output.start(),
            finish: block.finish,
        };
        // SAFETY: as the caller promises; the scratch memory has the length of scratch_len().
        unsafe { self.engine.output::<F>(&job, scratch) };
    }
}
