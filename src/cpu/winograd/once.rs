//! A convolution whose weights are used once: U never exists as a whole.
//!
//! ```text
//! for a block of tiles:  V of all input channels
//!   for some output channels:
//!     for some input channels:  weights --> a piece of U, in the L2 cache --> added to M
//!     M --> output
//! ```
//!
//! A piece of U is used while it is in the cache. Writing U out and reading it back would take several times as long as
//! making it, unless a convolution has many blocks of tiles; see [`super::choice`]. M is no more than the output channels
//! at work need. Sums run as in [`super::plan`]: the bits are the same.

use std::ops::Range;
use std::time::Instant;

use super::engine::Engine;
use super::form::Form;
use super::geometry::Planes;
use super::plan::{Blocks, Parts, SPACE, Slots};
use super::product::{Next, PANEL, ProductJob, panels, u_plane};
use super::steps::{Block, Steps};
use super::vector::MAX_LANES;
use super::weights::WeightsJob;
use crate::cpu::block::Shared;
use crate::cpu::buffer::Lent;
use crate::cpu::caches::described;
use crate::cpu::pool::Team;
use crate::error::Result;
use crate::memory::winograd::{OnceSchedule, TASKS_PER_THREAD};
use crate::problem::Conv2d;
use crate::report::Timing;

/// A convolution and its weights as given.
pub struct Once<'a, E, F> {
    steps: Steps<E, F>,
    weights: &'a [f32],
}

/// What a run needs: V, shared or each thread's own, and each thread's M, piece of U and scratch memory.
struct Space {
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
    /// Elements of a thread's own memory, V apart.
    fn own_len(&self) -> usize {
        self.m_len + self.u_len + self.scratch_len
    }

    /// Cuts that memory into M, U and scratch memory.
    fn cut<'a>(&self, own: &'a mut [f32]) -> [&'a mut [f32]; 3] {
        let (m, rest) = own.split_at_mut(self.m_len);
        let (u, scratch) = rest.split_at_mut(self.u_len);
        [m, u, scratch]
    }
}

impl<'a, E: Engine, F: Form> Once<'a, E, F> {
    /// Winograd's algorithm must support the problem ([`crate::problem::winograd::is_supported`]).
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(engine: E, problem: &Conv2d, (weights, bias): (&'a [f32], Option<&[f32]>)) -> Result<Self> {
        assert_eq!(weights.len(), problem.weights_len());
        Ok(Once { steps: Steps::new(engine, problem, bias)?, weights })
    }

    /// Computes the convolution. The lengths have been checked.
    ///
    /// # Errors
    /// Out of memory; the output is untouched then.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let start = Instant::now();
        // All memory first, so that the output is untouched if there is none.
        let mut team = Team::for_work(self.steps.problem.flops())?;
        let mut workspace = Lent::take(&SPACE, self.workspace_len(team.size()))?;
        let computing = Instant::now();
        self.execute(&mut team, &mut workspace, input, output)?;
        let kernel = computing.elapsed();
        drop((team, workspace));
        Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
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

    /// Elements of workspace for `threads` threads.
    pub(super) fn workspace_len(&self, threads: usize) -> usize {
        let space = self.space(threads);
        let shared = if space.plan.schedule.alone { threads } else { 1 };
        shared * space.v_len + threads * space.own_len()
    }

    /// Computes the convolution on `team`.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub(super) fn execute(
        &self,
        team: &mut Team,
        workspace: &mut [f32],
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let problem = &self.steps.problem;
        assert_eq!((input.len(), output.len()), (problem.input_len(), problem.output_len()));
        let space = self.space(team.size());
        let blocks = Blocks::new(self.steps.geometry.tiles(), space.plan.schedule.tiles);
        let all = problem.sizes().groups * blocks.count;
        let output = Shared::new(output);
        if space.plan.schedule.alone {
            let slots = Slots::new(workspace, space.v_len + space.own_len(), team.size())?;
            return team.run(all, |task, _| {
                slots.with(|slot| self.alone(&space, &blocks.of(task), input, output, slot));
            });
        }
        let (v, own) = workspace.split_at_mut(space.v_len);
        let slots = Slots::new(own, space.own_len(), team.size())?;
        for block in 0..all {
            self.together(team, &space, &blocks.of(block), input, output, (v, &slots))?;
        }
        Ok(())
    }

    /// One block of tiles by one thread.
    fn alone(&self, space: &Space, block: &Block, input: &[f32], output: Shared, slot: &mut [f32]) {
        let (c, k) = self.steps.blocks();
        let (v, own) = slot.split_at_mut(space.v_len);
        let v = Shared::new(v);
        for channels in 0..c {
            let [_, _, scratch] = space.cut(own);
            // SAFETY: V is this thread's.
            unsafe { self.steps.input(block, (channels, block.tiles.clone()), input, (v, space.v), scratch) };
        }
        for first in (0..k).step_by(space.plan.blocks) {
            // SAFETY: V has been filled, and blocks of tiles do not overlap.
            unsafe { self.outputs(space, block, first, v, (input, output), own) };
        }
    }

    /// One block of tiles by all threads: V, and when it is done all else, split over output channels.
    fn together(
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
                    let part = (task / parts.count, parts.of(task % parts.count));
                    let [_, _, scratch] = space.cut(own);
                    // SAFETY: each task has channels and tiles of V of its own.
                    unsafe { self.steps.input(block, part, input, (v, space.v), scratch) };
                } else {
                    // SAFETY: V has been filled, and each task has output channels of its own.
                    unsafe { self.outputs(space, block, task * space.plan.blocks, v, (input, output), own) };
                }
            });
        })
    }

    /// The outputs of a block of tiles in some vectors of output channels, from `first` on.
    ///
    /// # Safety
    /// V is readable; the outputs are writable, by nobody else meanwhile.
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
            // SAFETY: V is readable as the caller promises; M is this thread's, and the first pass fills it.
            unsafe { self.steps.multiply(&job) };
        }
        for (at, channels) in blocks.enumerate() {
            let part = ((channels, at), block.tiles.clone());
            // SAFETY: as the caller promises.
            unsafe { self.steps.output(block, (input, self.weights), part, (m, space.m), output, scratch) };
        }
    }

    /// Makes a piece of U.
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
            // SAFETY: U is this thread's and as long as its planes, and the panel is one of those.
            unsafe { self.steps.weights(&job) };
        }
    }

    /// The weights of the piece after the one that ends with input channel `end`.
    fn next(&self, group: usize, blocks: &Range<usize>, end: usize) -> Next {
        let (c, k) = self.steps.channels();
        let row = 9 * c;
        // After the last input channels the first ones of the output channels that follow.
        let (from, at) = if end < c { (blocks.start, 9 * end) } else { (blocks.end, 0) };
        let start = self.steps.group_weights(self.weights, group).as_ptr();
        let start = start.wrapping_add(from * E::LANES * row + at);
        let count = (blocks.len() * E::LANES).min(k.saturating_sub(from * E::LANES)).max(1);
        Next::Rows { start, row, count }
    }
}
