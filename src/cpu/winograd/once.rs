//! A single call: weights are used once, and only a piece of U exists at a time.
//!
//! ```text
//! for each block of tiles:  V of all input channels
//!   for some output channels:
//!     for some input channels:  weights --> a piece of U, in the L2 cache --> added to M
//!     M --> output
//! ```
//!
//! A piece of U is used while it is in the cache. Writing U to memory and reading it back takes several times as long
//! as computing it, unless a convolution has many blocks of tiles; see [`super::choice`]. M covers only the current
//! output channels. Sums run in the same order as in [`super::plan`], so the bits are the same.

use std::ops::Range;

use super::blocks::{Block, ByBlocks, Parts, Slots, WorkspaceLen};
use super::engine::WinogradKernel;
use super::form::Form;
use super::geometry::Planes;
use super::product::{Next, PANEL, ProductJob, panels, u_plane};
use super::steps::Steps;
use super::vector::MAX_LANES;
use super::weights::WeightsJob;
use crate::cpu::block::Shared;
use crate::cpu::caches::described;
use crate::cpu::pool::Team;
use crate::error::Result;
use crate::memory::winograd::{OnceSchedule, Schedule, TASKS_PER_THREAD};
use crate::problem::Conv2d;

/// A convolution with its original weights.
pub struct Once<'a, E, F> {
    steps: Steps<E, F>,
    weights: &'a [f32],
}

/// The blocks, and their memory: V, shared or for each thread, and for each thread M, a piece of U and scratch memory.
pub struct Space {
    plan: OnceSchedule,
    v: Planes,
    v_len: usize,
    m: Planes,
    m_len: usize,
    u_plane: usize,
    u_len: usize,
    scratch_len: usize,
}

impl Space {
    /// Elements of a thread's memory, apart from V.
    fn own_len(&self) -> usize {
        self.m_len + self.u_len + self.scratch_len
    }

    /// Splits that memory into M, U and scratch memory.
    fn cut<'a>(&self, own: &'a mut [f32]) -> [&'a mut [f32]; 3] {
        let (m, rest) = own.split_at_mut(self.m_len);
        let (u, scratch) = rest.split_at_mut(self.u_len);
        [m, u, scratch]
    }
}

impl<'a, E: WinogradKernel, F: Form> Once<'a, E, F> {
    /// Winograd's algorithm must support the problem ([`crate::problem::winograd::is_supported`]).
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(engine: E, problem: &Conv2d, (weights, bias): (&'a [f32], Option<&[f32]>)) -> Result<Self> {
        assert_eq!(weights.len(), problem.weights_len());
        Ok(Once { steps: Steps::new(engine, problem, bias)?, weights })
    }

    /// Computes the outputs of a block of tiles in some vectors of output channels, starting with `first`.
    ///
    /// # Safety
    /// V is readable. Only this call writes the outputs.
    unsafe fn outputs(
        &self,
        space: &Space,
        block: &Block,
        first: usize,
        v: Shared,
        (input, output): (&[f32], Shared),
        own: &mut [f32],
    ) {
        let (c, k) = (self.steps.channels().0, self.steps.blocks().1);
        let blocks = first..k.min(first + space.plan.blocks);
        let [m, u, scratch] = space.cut(own);
        for start in (0..c).step_by(space.plan.depth) {
            let depths = start..c.min(start + space.plan.depth);
            self.piece(space, block.group, blocks.clone(), depths.clone(), u);
            let job = ProductJob {
                units: 0..Steps::<E, F>::FREQUENCIES * panels(blocks.len()),
                depth: depths.len(),
                blocks: blocks.len(),
                u,
                u_plane: space.u_plane,
                // SAFETY: this vector of channels is in V.
                v: unsafe { v.start().add(start * space.v.tiles) },
                v_planes: space.v,
                m: m.as_mut_ptr(),
                m_planes: space.m,
                add: start > 0,
                next: self.next(block.group, &blocks, depths.end),
            };
            // SAFETY: V is readable, as the caller promises. Only this thread uses M, and the first pass fills it.
            unsafe { self.steps.multiply(&job) };
        }
        for (at, channels) in blocks.enumerate() {
            let part = ((channels, at), block.tiles.clone());
            // SAFETY: as the caller promises.
            unsafe { self.steps.output(block, (input, self.weights), part, (m, space.m), output, scratch) };
        }
    }

    /// Computes a piece of U.
    fn piece(&self, space: &Space, group: usize, blocks: Range<usize>, depths: Range<usize>, u: &mut [f32]) {
        assert!(u.len() >= Steps::<E, F>::FREQUENCIES * space.u_plane);
        for first in blocks.clone().step_by(PANEL) {
            let job = WeightsJob {
                weights: self.steps.group_weights(self.weights, group),
                channels: self.steps.channels(),
                blocks: first..blocks.end.min(first + PANEL),
                depths: depths.clone(),
                u: u[(first - blocks.start) * depths.len() * E::LANES..].as_mut_ptr(),
                plane: space.u_plane,
                stream: false,
            };
            // SAFETY: only this thread uses U, which holds all its planes, and the panel is in it.
            unsafe { self.steps.weights(&job) };
        }
    }

    /// The weights of the piece that follows the one ending before input channel `end`.
    fn next(&self, group: usize, blocks: &Range<usize>, end: usize) -> Next {
        let (c, k) = self.steps.channels();
        let row = 9 * c;
        // After the last input channels: the first input channels of the next output channels.
        let (from, at) = if end < c { (blocks.start, 9 * end) } else { (blocks.end, 0) };
        let start = self.steps.group_weights(self.weights, group).as_ptr();
        let start = start.wrapping_add(from * E::LANES * row + at);
        let count = (blocks.len() * E::LANES).min(k.saturating_sub(from * E::LANES)).max(1);
        Next::Rows { start, row, count }
    }
}

impl<E: WinogradKernel, F: Form> ByBlocks for Once<'_, E, F> {
    type Space = Space;

    fn problem(&self) -> &Conv2d {
        &self.steps.problem
    }

    fn tiles(&self) -> usize {
        self.steps.geometry.tiles()
    }

    fn space(&self, threads: usize) -> Space {
        let plan = OnceSchedule::plan(&described().caches, &self.steps.tiling(), threads);
        let tiles = plan.schedule.tiles;
        let v = Planes::new(tiles, self.steps.blocks().0, E::LANES);
        let m = Planes::new(tiles, plan.blocks, E::LANES);
        let (len, plane) = (Steps::<E, F>::len, u_plane(plan.depth, plan.blocks, E::LANES));
        Space {
            plan,
            v,
            v_len: len(v),
            m,
            m_len: len(m),
            u_plane: plane,
            u_len: (Steps::<E, F>::FREQUENCIES * plane).next_multiple_of(MAX_LANES),
            scratch_len: self.steps.scratch_len(tiles),
        }
    }

    fn layout(space: &Space) -> (Schedule, WorkspaceLen) {
        (space.plan.schedule, WorkspaceLen { shared: space.v_len, own: space.own_len() })
    }

    fn on_one_thread(
        &self,
        space: &Space,
        block: &Block,
        input: &[f32],
        output: Shared,
        (v, own): (&mut [f32], &mut [f32]),
    ) {
        let v = Shared::new(v);
        let [_, _, scratch] = space.cut(own);
        // SAFETY: only this thread uses V.
        unsafe { self.steps.all_input(block, input, (v, space.v), scratch) };
        for first in (0..self.steps.blocks().1).step_by(space.plan.blocks) {
            // SAFETY: V is filled, and blocks of tiles do not overlap.
            unsafe { self.outputs(space, block, first, v, (input, output), own) };
        }
    }

    /// Two steps: V, then everything else, split over output channels.
    fn on_all_threads(
        &self,
        team: &mut Team,
        space: &Space,
        block: &Block,
        input: &[f32],
        output: Shared,
        (v, slots): (&mut [f32], &Slots),
    ) -> Result<()> {
        let (c, k) = self.steps.blocks();
        let v = Shared::new(v);
        let parts = Parts::new(&block.tiles, (team.size() * TASKS_PER_THREAD).div_ceil(c));
        let steps = [c * parts.count, k.div_ceil(space.plan.blocks)];
        team.run_steps(steps, |step, task, _| {
            slots.with(|own| {
                if step == 0 {
                    let [_, _, scratch] = space.cut(own);
                    // SAFETY: each task writes its own channels and tiles of V.
                    unsafe { self.steps.input(block, parts.of(task), input, (v, space.v), scratch) };
                } else {
                    // SAFETY: V is filled, and each task writes its own output channels.
                    unsafe { self.outputs(space, block, task * space.plan.blocks, v, (input, output), own) };
                }
            });
        })
    }
}
