//! Convolution as implicit GEMM: weights, K x (C/G)*R*S, times the im2col matrix, (C/G)*R*S x P*Q, for each
//! image and group.
//!
//! The im2col matrix never exists as a whole. Mostly it does not exist at all: the kernel reads its rows where they
//! lie in the image, or in copies of the image's planes if there is a stride ([`super::views`]). Where that would
//! waste more than it saves, a task packs one panel of the matrix straight from the image ([`super::im2col`]), KC
//! deep and NR pixels wide; while that panel is hot in the cache it meets all the task's weights, and then makes place for the
//! next. The planner decides ([`crate::memory::views`]).
//!
//! The weights were packed when the plan was made. Bias and ReLU ride on the last pass over the depth. Padding is
//! zeros, multiplied like any other value.

mod in_place;
mod packing;

use std::cell::Cell;
use std::ops::Range;
use std::time::Instant;

use super::block::Shared;
use super::buffer::{self, Buffer, Lent};
use super::caches::described;
use super::kernels::{Epilogue, Kernel};
use super::pack::{Lines, panels};
use super::plan;
use super::pool::{self, Team, num_threads};
use super::views::{Geometry, Planes, columns};
use crate::backend::{Memory, Plan};
use crate::error::Result;
use crate::memory::blocking::{Blocking, INLINE_FLOPS};
use crate::memory::views::{STAGE, Views};
use crate::problem::{Conv2d, Conv2dSizes};
use crate::report::Timing;

/// A convolution with its weights packed.
pub struct ConvPlan<K> {
    kernel: K,
    problem: Conv2d,
    shape: Shape,
    /// Weights: for each group, for each KC of the reduction, panels of MR output channels.
    weights: Buffer,
    /// Bias: for each group its channels, rounded up to MR. Empty if there is none.
    bias: Buffer,
    /// How the images are read in place; none if panels are packed.
    geometry: Option<Geometry>,
}

/// Where the weights are.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// In panels, as [`ConvPlan::weights`] says.
    Packed(&'a [f32]),
    /// As the caller gave them: a task packs what it needs while its first panel of B meets it. Into its workspace; or,
    /// if a single thread works, into memory for all of them, which serves the images that follow.
    Given(&'a [f32], Option<Shared>),
}

/// Panels of A that a task reads: from row `top` of `rows`, a multiple of MR, for each KC of the reduction.
#[derive(Clone, Copy)]
struct Block<'a> {
    packed: *mut f32,
    rows: usize,
    top: usize,
    /// These rows' weights, if they are not packed yet.
    given: Option<&'a [f32]>,
    /// Whether panels are read again once they are packed: else all of them may lie in one place.
    again: bool,
}

/// What panels of B are read from.
#[derive(Clone, Copy)]
struct Source<'a> {
    image: &'a [f32],
    /// Copies of all the image's planes, if there are such.
    planes: Option<Planes>,
}

/// What all panels of a pass have in common.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// Panels of A, and how far apart they are.
    a: *mut f32,
    panel: usize,
    depth: usize,
    channels: usize,
    epilogue: Epilogue,
    /// What they are to be packed from, from this pass' first depth on; none if they are packed.
    given: Option<&'a [f32]>,
}

/// A convolution as the products it consists of.
#[derive(Clone, Copy)]
struct Shape {
    /// Output channels of a group: rows of C.
    rows: usize,
    /// The same, rounded up to MR.
    padded: usize,
    /// Output pixels of an image: columns of C.
    pixels: usize,
    /// (C/G)*R*S.
    depth: usize,
    /// KC.
    step: usize,
    groups: usize,
    /// How one thread cuts it; for more the cut depends on how many there are.
    alone: Blocking,
}

impl Shape {
    fn new(problem: &Conv2d, step: usize, mr: usize, alone: Blocking) -> Self {
        let Conv2dSizes { k, p, q, groups, .. } = *problem.sizes();
        let (rows, depth) = (k / groups, problem.reduction());
        Shape { rows, padded: rows.next_multiple_of(mr), pixels: p * q, depth, step, groups, alone }
    }
}

impl<K: Kernel> ConvPlan<K> {
    /// Packs weights and bias.
    ///
    /// # Errors
    /// Out of memory.
    #[cfg(test)]
    pub fn new(kernel: K, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        Self::with_views(kernel, problem, (weights, bias), views(kernel, problem))
    }

    /// Packs weights and bias for images that are read as `views` says, or packed if that is none.
    ///
    /// # Errors
    /// Out of memory.
    pub fn with_views(
        kernel: K,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        views: Option<Views>,
    ) -> Result<Self> {
        let mut convolution = Self::unpacked(kernel, problem, bias, views)?;
        // Saturating: a size that overflows is refused as out of memory.
        let Shape { padded, depth, groups, .. } = convolution.shape;
        let mut packed = Buffer::zeroed(groups.saturating_mul(padded).saturating_mul(depth))?;
        for (group, packed) in packed.chunks_exact_mut(padded * depth).enumerate() {
            // SAFETY: a group's panels are `padded` rows `depth` deep.
            unsafe { convolution.pack(weights, group, 0..padded / K::MR, (packed.as_mut_ptr(), 0, padded)) };
        }
        convolution.weights = packed;
        Ok(convolution)
    }

    /// A convolution that has no weights yet.
    ///
    /// # Errors
    /// Out of memory.
    fn unpacked(kernel: K, problem: &Conv2d, bias: Option<&[f32]>, views: Option<Views>) -> Result<Self> {
        let alone = plan(kernel, problem, 1);
        let geometry = views.map(|views| Geometry::new(views, columns(kernel), problem));
        let step = geometry.as_ref().map_or(alone.kc, |geometry| geometry.views.channels * geometry.taps());
        let shape = Shape::new(problem, step, K::MR, alone);
        let Shape { rows, padded, groups, .. } = shape;
        let mut packed_bias = Buffer::zeroed(bias.map_or(0, |_| groups * padded))?;
        for (bias, packed) in bias.unwrap_or(&[]).chunks_exact(rows).zip(packed_bias.chunks_exact_mut(padded))
        {
            packed[..rows].copy_from_slice(bias);
        }
        let weights = Buffer::zeroed(0)?;
        Ok(ConvPlan { kernel, problem: *problem, shape, weights, bias: packed_bias, geometry })
    }

    /// Packs panels `tiles` of a group's weights into a block of `rows` rows whose first panel is `first`.
    ///
    /// # Safety
    /// The block's elements of these panels are writable, and nobody else touches them meanwhile.
    unsafe fn pack(
        &self,
        weights: &[f32],
        group: usize,
        tiles: Range<usize>,
        (block, first, rows): (*mut f32, usize, usize),
    ) {
        let Shape { rows: all, depth, step, .. } = self.shape;
        let matrix = Lines { data: &weights[group * all * depth..][..all * depth], line: depth, depth: 1 };
        let lines = tiles.start * K::MR..all.min(tiles.end * K::MR);
        for p in (0..depth).step_by(step) {
            let depths = p..depth.min(p + step);
            let panel = K::MR * depths.len();
            // SAFETY: the caller vouches for these panels of this pass.
            let packed = unsafe {
                let start = block.add(p * rows + (tiles.start - first) * panel);
                std::slice::from_raw_parts_mut(start, tiles.len() * panel)
            };
            panels(self.kernel, matrix, K::MR, lines.clone(), depths, packed);
        }
    }

    /// Packs all weights on `team`.
    ///
    /// # Errors
    /// Only if a task panicked.
    fn pack_all(&self, team: &mut Team, weights: &[f32], packed: &mut [f32]) -> Result<()> {
        let Shape { padded, depth, groups, .. } = self.shape;
        assert!(packed.len() >= groups * padded * depth);
        let tiles = padded / K::MR;
        let each = tiles.div_ceil(4 * team.size());
        let parts = tiles.div_ceil(each);
        let packed = Shared::new(packed);
        team.run(groups * parts, |task, _| {
            let (group, part) = (task / parts, task % parts);
            let tiles = part * each..tiles.min((part + 1) * each);
            // SAFETY: the group's panels are inside of `packed`, whose length was checked above and which is borrowed
            // mutably; no other task has these.
            unsafe {
                let block = packed.start().add(group * padded * depth);
                self.pack(weights, group, tiles, (block, 0, padded));
            }
        })
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.compute(Weights::Packed(&self.weights), team, input, output)
    }

    /// Whether a task had better pack the weights it needs, used once, where its cache still has them when they are
    /// read: if a task reads the whole image, which then stays in the cache as well.
    fn packs_as_needed(&self, threads: usize) -> bool {
        let Shape { padded, depth, .. } = self.shape;
        self.geometry.as_ref().is_some_and(|geometry| {
            geometry.views.whole(&described().caches, self.image_len())
                && depth * K::MR <= STAGE
                && padded / K::MR >= 2 * threads
        })
    }

    /// Elements of an image's channels that belong to one group.
    fn image_len(&self) -> usize {
        self.problem.input_len() / (self.problem.sizes().n * self.shape.groups)
    }

    /// A convolution for [`ConvPlan::execute_given`].
    ///
    /// # Errors
    /// Out of memory.
    #[cfg(test)]
    pub fn once(kernel: K, problem: &Conv2d, bias: Option<&[f32]>) -> Result<Self> {
        Self::unpacked(kernel, problem, bias, views(kernel, problem))
    }

    /// Elements that packed weights take, if that many threads compute with weights as given.
    pub fn room(&self, threads: usize) -> usize {
        let Shape { padded, depth, groups, .. } = self.shape;
        if self.packs_as_needed(threads) { 0 } else { groups.saturating_mul(padded).saturating_mul(depth) }
    }

    /// [`ConvPlan::execute`] with weights as given; `packed` has [`ConvPlan::room`] for them.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute_given(
        &self,
        weights: &[f32],
        packed: &mut [f32],
        team: &mut Team,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let weights = if self.packs_as_needed(team.size()) {
            Weights::Given(weights, None)
        } else if self.geometry.is_some() && team.size() == 1 {
            let Shape { padded, depth, groups, .. } = self.shape;
            assert!(packed.len() >= groups * padded * depth && weights.len() == self.problem.weights_len());
            Weights::Given(weights, Some(Shared::new(packed)))
        } else {
            self.pack_all(team, weights, packed)?;
            Weights::Packed(packed)
        };
        self.compute(weights, team, input, output)
    }

    /// The same with weights from elsewhere.
    fn compute(&self, weights: Weights, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        match (&self.geometry, weights) {
            (Some(geometry), _) => self.in_place(geometry, weights, team, input, output),
            (None, Weights::Packed(weights)) => self.packing(weights, team, input, output),
            (None, Weights::Given(..)) => unreachable!("only with images in place"),
        }
    }

    /// Elements that planes of all images take if the threads copy them together, before they compute; 0 if each task
    /// copies what it reads. That is less work where a task reads a good part of an image, but most of it is copied
    /// again and again where many threads share few images.
    pub fn shared_stage(&self, threads: usize) -> usize {
        let products = self.problem.sizes().n * self.shape.groups;
        let staged = self.geometry.as_ref().filter(|geometry| geometry.views.staged);
        let Some(geometry) = staged.filter(|_| threads > 1 && products < threads) else { return 0 };
        let len = products * self.problem.sizes().c / self.shape.groups * geometry.staged(&[]).channel;
        if len <= threads * MOST_STAGED { len } else { 0 }
    }
}

/// Computes a convolution once, with weights as they are given.
///
/// # Errors
/// Out of memory; the output is untouched then.
pub fn once<K: Kernel>(
    kernel: K,
    (problem, views): (&Conv2d, Option<Views>),
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<Timing> {
    let start = Instant::now();
    let convolution = ConvPlan::unpacked(kernel, problem, bias, views)?;
    let mut team = Team::for_work(problem.flops())?;
    let len = convolution.room(team.size());
    let mut packed = Lent::take(&PACKED, len)?;
    let computing = Instant::now();
    convolution.execute_given(weights, &mut packed, &mut team, input, output)?;
    let end = Instant::now();
    drop(packed);
    if len > MOST_KEPT {
        buffer::clear(&PACKED);
    }
    Ok(Timing { kernel: end - computing, wall: end - start, dispatches: 1 })
}

/// How images are best read.
pub fn views<K: Kernel>(kernel: K, problem: &Conv2d) -> Option<Views> {
    let kc = plan(kernel, problem, 1).kc;
    Views::plan(&described().caches, columns(kernel), problem, kc)
}

thread_local! {
    /// Packed weights of calls that use them once, kept by a thread that makes such calls: fresh memory would cost
    /// more than packing.
    static PACKED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

thread_local! {
    /// Planes that threads copied together.
    static STAGED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Elements of the largest register tile.
const MOST_TILE: usize = 512;

/// Elements of them at most, for each thread: 2 MiB.
const MOST_STAGED: usize = 1 << 19;

/// Tasks of copying them, for each thread.
const STAGE_TASKS: usize = 3;

/// Elements that are kept at most: 16 MiB.
const MOST_KEPT: usize = 4 << 20;

/// Frees what the calling thread keeps.
pub fn clear() {
    buffer::clear(&PACKED);
    buffer::clear(&STAGED);
}

impl<K: Kernel> Plan for ConvPlan<K> {
    fn kernel(&self) -> &str {
        K::CONV
    }

    fn memory(&self) -> Memory {
        let flops = self.problem.flops();
        let threads = if flops < INLINE_FLOPS { 1 } else { num_threads() };
        Memory {
            packed: (self.weights.len() + self.bias.len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(flops) + self.shared_stage(threads) * size_of::<f32>(),
        }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        pool::timed(self.problem.flops(), |team| self.execute(team, input, output))
    }
}
