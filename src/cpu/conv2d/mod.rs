//! Convolution as implicit GEMM: weights, K x (C/G)*R*S, times the im2col matrix, (C/G)*R*S x P*Q, for each image and
//! group.
//!
//! The im2col matrix never exists as a whole. Mostly it is read in place from the image, or from copies of the image's
//! planes if there is a stride ([`super::implicit_im2col`]). Otherwise a task packs one panel of it straight from the
//! image ([`super::im2col`]), KC deep and NR pixels wide. The panel is multiplied by all of the task's weights while it
//! is in L1; the next panel replaces it. The planner decides ([`crate::memory::implicit_im2col`]).
//!
//! A plan packs its weights once. Bias and ReLU are applied in the last pass over the depth. Padding is zeros, which
//! are multiplied like any other value.
//!
//! `direct` calls this folder. It touches its callers' buffers, the threads' workspaces, and two buffers that a calling
//! thread keeps between calls. It does no I/O.

mod in_place;
mod packing;
mod strip;
pub mod windows;

use std::cell::Cell;
use std::ops::Range;
use std::time::Instant;

use super::block::Shared;
use super::buffer::{self, Borrowed, Buffer};
use super::caches::described;
use super::feeding::feeding;
use super::implicit_im2col::{Geometry, Planes, columns};
use super::kernels::{Epilogue, Kernel, ensure_kernel};
use super::pack::{Lines, panels};
use super::plan::plan;
use super::pool::{self, Team, num_threads};
use crate::backend::{Memory, Plan};
use crate::cpu::tunables::{MAX_KEPT, MAX_STAGED, MIN_MEASURED_FLOPS, STAGE_TASKS};
use crate::error::Result;
use crate::memory::blocking::{Blocking, INLINE_FLOPS};
use crate::memory::feeding::Feeding;
use crate::memory::implicit_im2col::{ImplicitIm2col, STAGE};
use crate::problem::{Conv2d, Conv2dSizes};
use crate::report::Timing;

/// A convolution with its weights packed.
pub struct ConvPlan<K> {
    kernel: K,
    problem: Conv2d,
    shape: GemmShape,
    /// Packed weights: for each group and each KC of the reduction, panels of MR output channels.
    weights: Buffer,
    /// Bias: for each group its channels, rounded up to MR. Empty if there is no bias.
    bias: Buffer,
    /// How images are read in place. `None` if panels are packed.
    geometry: Option<Geometry>,
    /// Whether strips pack their panels of B.
    feeding: Feeding,
}

/// The weights of a call.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// In panels, as in [`ConvPlan::weights`].
    Packed(&'a [f32]),
    /// As the caller passes them. A task packs what it needs while it computes its first panel of B. It packs into its
    /// workspace; or, with a single thread, into memory for all weights, which later images use.
    Given(&'a [f32], Option<Shared>),
}

/// The panels of A of a task: from row `top` of `rows`, a multiple of MR, for each KC of the reduction.
#[derive(Clone, Copy)]
struct PackedBlock<'a> {
    packed: *mut f32,
    rows: usize,
    top: usize,
    /// The weights of these rows, if they are not packed yet.
    given: Option<&'a [f32]>,
    /// Whether panels are read again after the first use. If not, all of them are packed to the same place.
    again: bool,
}

/// The memory that panels of B are read from.
#[derive(Clone, Copy)]
struct PanelSource<'a> {
    image: &'a [f32],
    /// Copies of all planes of the image, if the threads have made them together.
    planes: Option<Planes>,
}

/// What all panels of a pass over one block of depth have in common.
#[derive(Clone, Copy)]
struct Pass<'a> {
    /// The panels of A, and their distance.
    a: *mut f32,
    panel: usize,
    depth: usize,
    channels: usize,
    epilogue: Epilogue,
    /// The weights to pack them from, from this pass's first depth on. `None` if they are packed.
    given: Option<&'a [f32]>,
}

/// A convolution as matrix products.
#[derive(Clone, Copy)]
struct GemmShape {
    /// Output channels of a group: rows of C.
    rows: usize,
    /// The same, rounded up to MR.
    padded: usize,
    /// Output pixels of an image: columns of C.
    pixels: usize,
    /// (C/G)*R*S; of a window, C/G times its taps.
    depth: usize,
    /// KC.
    step: usize,
    groups: usize,
    /// Block sizes for one thread. For more they depend on the number of threads.
    alone: Blocking,
}

impl GemmShape {
    /// With taps and channels of a block of depth, where images are read in place.
    fn new(problem: &Conv2d, taps: Option<(usize, usize)>, mr: usize, alone: Blocking) -> Self {
        let Conv2dSizes { c, k, p, q, groups, .. } = *problem.sizes();
        let rows = k / groups;
        let (depth, step) = match taps {
            Some((taps, channels)) => (c / groups * taps, channels * taps),
            None => (problem.reduction(), alone.kc),
        };
        GemmShape { rows, padded: rows.next_multiple_of(mr), pixels: p * q, depth, step, groups, alone }
    }
}

impl<K: Kernel> ConvPlan<K> {
    /// Packs weights and bias.
    ///
    /// # Errors
    /// Out of memory.
    #[cfg(test)]
    pub fn new(kernel: K, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        Self::with_geometry(
            kernel,
            problem,
            (weights, bias),
            geometry(kernel, problem, implicit_im2col(kernel, problem)),
        )
    }

    /// Packs weights and bias for images that are read as `geometry` says, or packed if it is `None`. The weights are
    /// those of the geometry's taps.
    ///
    /// # Errors
    /// Out of memory.
    pub fn with_geometry(
        kernel: K,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        geometry: Option<Geometry>,
    ) -> Result<Self> {
        let mut convolution = Self::unpacked(kernel, problem, bias, geometry)?;
        // Saturating: a size that overflows is refused as out of memory.
        let GemmShape { padded, depth, groups, .. } = convolution.shape;
        let mut packed = Buffer::zeroed(groups.saturating_mul(padded).saturating_mul(depth))?;
        for (group, packed) in packed.chunks_exact_mut(padded * depth).enumerate() {
            // SAFETY: a group's panels are `padded` rows `depth` deep.
            unsafe { convolution.pack(weights, group, 0..padded / K::MR, (packed.as_mut_ptr(), 0, padded)) };
        }
        convolution.weights = packed;
        Ok(convolution)
    }

    /// A convolution without weights.
    ///
    /// # Errors
    /// Out of memory.
    fn unpacked(
        kernel: K,
        problem: &Conv2d,
        bias: Option<&[f32]>,
        geometry: Option<Geometry>,
    ) -> Result<Self> {
        const { ensure_kernel::<K>() };
        let alone = plan(kernel, problem, 1);
        let taps = geometry.as_ref().map(|geometry| (geometry.taps(), geometry.implicit.channels));
        let shape = GemmShape::new(problem, taps, K::MR, alone);
        let GemmShape { rows, padded, groups, .. } = shape;
        let mut packed_bias = Buffer::zeroed(bias.map_or(0, |_| groups * padded))?;
        for (bias, packed) in bias.unwrap_or(&[]).chunks_exact(rows).zip(packed_bias.chunks_exact_mut(padded))
        {
            packed[..rows].copy_from_slice(bias);
        }
        let weights = Buffer::zeroed(0)?;
        // A small problem does not wait for a measurement.
        let feeding = if geometry.is_some() && problem.flops() >= MIN_MEASURED_FLOPS {
            feeding()
        } else {
            Feeding::UNMEASURED
        };
        Ok(ConvPlan { kernel, problem: *problem, shape, weights, bias: packed_bias, geometry, feeding })
    }

    /// Packs panels `tiles` of a group's weights into a block of `rows` rows whose first panel is `first`.
    ///
    /// # Safety
    /// The block's elements of these panels are writable, and no other thread accesses them.
    unsafe fn pack(
        &self,
        weights: &[f32],
        group: usize,
        tiles: Range<usize>,
        (block, first, rows): (*mut f32, usize, usize),
    ) {
        let GemmShape { rows: all, depth, step, .. } = self.shape;
        let matrix = Lines { data: &weights[group * all * depth..][..all * depth], line: depth, depth: 1 };
        let lines = tiles.start * K::MR..all.min(tiles.end * K::MR);
        for p in (0..depth).step_by(step) {
            let depths = p..depth.min(p + step);
            let panel = K::MR * depths.len();
            // SAFETY: the caller guarantees these panels of this pass.
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
        let GemmShape { padded, depth, groups, .. } = self.shape;
        assert!(packed.len() >= groups * padded * depth);
        let tiles = padded / K::MR;
        let each = tiles.div_ceil(4 * team.size());
        let parts = tiles.div_ceil(each);
        let packed = Shared::new(packed);
        team.run(groups * parts, |task, _| {
            let (group, part) = (task / parts, task % parts);
            let tiles = part * each..tiles.min((part + 1) * each);
            // SAFETY: the group's panels are inside of `packed`, whose length was checked above and which is borrowed
            // mutably. No other task writes these.
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

    /// Whether, in a one-shot call, each task packs the weights it needs, which are then still in its cache when it
    /// reads them. That pays if a task reads the whole image and the image stays in the cache as well.
    fn packs_as_needed(&self, threads: usize) -> bool {
        let GemmShape { padded, depth, .. } = self.shape;
        self.geometry.as_ref().is_some_and(|geometry| {
            geometry.implicit.whole(&described().caches, self.image_len())
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
        Self::unpacked(kernel, problem, bias, geometry(kernel, problem, implicit_im2col(kernel, problem)))
    }

    /// Elements of memory for packed weights in [`ConvPlan::execute_given`] with that many threads.
    pub fn room(&self, threads: usize) -> usize {
        let GemmShape { padded, depth, groups, .. } = self.shape;
        if self.packs_as_needed(threads) { 0 } else { groups.saturating_mul(padded).saturating_mul(depth) }
    }

    /// [`ConvPlan::execute`] with weights as given. `packed` has [`ConvPlan::room`] elements.
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
            let GemmShape { padded, depth, groups, .. } = self.shape;
            assert!(packed.len() >= groups * padded * depth && weights.len() == self.problem.weights_len());
            Weights::Given(weights, Some(Shared::new(packed)))
        } else {
            self.pack_all(team, weights, packed)?;
            Weights::Packed(packed)
        };
        self.compute(weights, team, input, output)
    }

    /// Computes the convolution with any weights.
    fn compute(&self, weights: Weights, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        match (&self.geometry, weights) {
            (Some(geometry), _) => self.in_place(geometry, weights, team, input, output),
            (None, Weights::Packed(weights)) => self.packing(weights, team, input, output),
            (None, Weights::Given(..)) => {
                unreachable!("weights stay unpacked only if images are read in place")
            }
        }
    }

    /// Elements for planes of all images if the threads copy them together before they compute; 0 if each task copies
    /// what it reads. The latter is less work if a task reads a good part of an image. But if many threads share few
    /// images, most of an image would be copied many times.
    pub fn shared_stage(&self, threads: usize) -> usize {
        let products = self.problem.sizes().n * self.shape.groups;
        let staged = self.geometry.as_ref().filter(|geometry| geometry.implicit.staged);
        let Some(geometry) = staged.filter(|_| threads > 1 && products < threads) else { return 0 };
        let len = products * self.problem.sizes().c / self.shape.groups * geometry.staged(&[]).channel;
        if len <= threads * MAX_STAGED { len } else { 0 }
    }
}

/// Computes a convolution once, with weights as given.
///
/// # Errors
/// Out of memory; the output is untouched then.
pub fn once<K: Kernel>(
    kernel: K,
    (problem, implicit): (&Conv2d, Option<ImplicitIm2col>),
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<Timing> {
    let start = Instant::now();
    let convolution = ConvPlan::unpacked(kernel, problem, bias, geometry(kernel, problem, implicit))?;
    let mut team = Team::for_work(problem.flops())?;
    let len = convolution.room(team.size());
    let mut packed = Borrowed::take(&PACKED, len)?;
    let computing = Instant::now();
    convolution.execute_given(weights, &mut packed, &mut team, input, output)?;
    let end = Instant::now();
    drop(packed);
    if len > MAX_KEPT {
        buffer::clear(&PACKED);
    }
    Ok(Timing { kernel: end - computing, wall: end - start, dispatches: 1 })
}

/// The cheapest way to read images in place. `None` if packing panels is cheaper.
pub fn implicit_im2col<K: Kernel>(kernel: K, problem: &Conv2d) -> Option<ImplicitIm2col> {
    let kc = plan(kernel, problem, 1).kc;
    ImplicitIm2col::plan(&described().caches, columns(kernel), problem, kc)
}

/// How images are read in place.
pub fn geometry<K: Kernel>(
    kernel: K,
    problem: &Conv2d,
    implicit: Option<ImplicitIm2col>,
) -> Option<Geometry> {
    implicit.map(|implicit| Geometry::new(implicit, columns(kernel), problem))
}

thread_local! {
    /// Packed weights of one-shot calls, kept by the calling thread: fresh memory would cost more than packing.
    static PACKED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

thread_local! {
    /// Planes that threads copy together.
    static STAGED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Frees the buffers that the calling thread keeps.
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
