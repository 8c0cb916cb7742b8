//! A plan: a convolution whose weights are transformed in advance, so that all of U is in memory.

use std::ops::Range;

use super::blocks::{Block, ByBlocks, Parts, Slots, WorkspaceLen};
use super::engine::WinogradKernel;
use super::form::Form;
use super::geometry::Planes;
use super::product::{Next, PANEL, ProductJob, panels, u_plane};
use super::steps::Steps;
use super::weights::WeightsJob;
use crate::backend::{Memory, Plan};
use crate::cpu::block::Shared;
use crate::cpu::buffer::Buffer;
use crate::cpu::caches::described;
use crate::cpu::pool::{self, Team, num_threads};
use crate::error::Result;
use crate::memory::blocking::{INLINE_FLOPS, even, known_bytes};
use crate::memory::winograd::{Schedule, TASKS_PER_THREAD};
use crate::problem::Conv2d;
use crate::report::Timing;

/// A convolution with transformed weights.
pub struct WinogradPlan<E, F> {
    steps: Steps<E, F>,
    name: &'static str,
    /// U of each group; its layout is in [`super::product`].
    transformed: Buffer,
    /// The original weights, to recompute outputs that are not finite: see [`super::recompute`].
    weights: Buffer,
}

/// The blocks, and the memory for one of them.
pub struct Space {
    schedule: Schedule,
    v: Planes,
    v_len: usize,
    m: Planes,
    m_len: usize,
    scratch_len: usize,
}

impl<E: WinogradKernel, F: Form> WinogradPlan<E, F> {
    /// Transforms the weights on `team`. Winograd's algorithm must support the problem
    /// ([`crate::problem::winograd::is_supported`]).
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        engine: E,
        name: &'static str,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        team: &mut Team,
    ) -> Result<Self> {
        let steps = Steps::<E, F>::new(engine, problem, bias)?;
        let ((c, _), (_, k)) = (steps.channels(), steps.blocks());
        // Saturating: a size that overflows fails as out of memory.
        let group = Steps::<E, F>::FREQUENCIES.saturating_mul(u_plane(c, k, E::LANES));
        let mut copy = Buffer::zeroed(weights.len())?;
        copy.copy_from_slice(weights);
        let mut plan = WinogradPlan {
            steps,
            name,
            transformed: Buffer::zeroed(group.saturating_mul(problem.sizes().groups))?,
            weights: copy,
        };
        plan.transform(team)?;
        Ok(plan)
    }

    /// Fills U. A task is some input channels of a panel's output channels.
    fn transform(&mut self, team: &mut Team) -> Result<()> {
        let Self { steps, transformed: u, weights, .. } = self;
        let (channels, blocks) = (steps.channels(), steps.blocks().1);
        let (c, panels) = (channels.0, panels(blocks));
        let wanted = if team.size() == 1 { 1 } else { (team.size() * TASKS_PER_THREAD).div_ceil(panels) };
        let piece = even(c, c.div_ceil(wanted), E::LANES);
        let pieces = c.div_ceil(piece);
        let (plane, group_len) = (u_plane(c, blocks, E::LANES), u.len() / steps.problem.sizes().groups);
        // A U that does not fit in the cache must not evict the weights.
        let stream = size_of_val(&**u) > known_bytes(described().caches.l2, 1 << 20);
        let u = Shared::new(u);
        team.run(steps.problem.sizes().groups * panels * pieces, |task, _| {
            let (panel, first) = (task / pieces % panels, task % pieces * piece);
            let group = task / pieces / panels;
            let of_panel = panel * PANEL..blocks.min((panel + 1) * PANEL);
            let at = group * group_len + (of_panel.start * c + first * of_panel.len()) * E::LANES;
            let job = WeightsJob {
                weights: steps.group_weights(weights, group),
                channels,
                blocks: of_panel,
                depths: first..c.min(first + piece),
                // SAFETY: channel `first` of the panel is in the group's part of U.
                u: unsafe { u.start().add(at) },
                plane,
                stream,
            };
            // SAFETY: each task writes its own channels of a panel.
            unsafe { steps.weights(&job) };
        })
    }

    /// Computes the products of `units`.
    ///
    /// # Safety
    /// V is readable. Only this call writes the products of the units.
    unsafe fn multiply(&self, space: &Space, block: &Block, units: Range<usize>, v: Shared, m: Shared) {
        let (c, blocks) = (self.steps.channels().0, self.steps.blocks().1);
        let job = ProductJob {
            units,
            depth: c,
            blocks,
            u: self.steps.group_weights(&self.transformed, block.group),
            u_plane: u_plane(c, blocks, E::LANES),
            v: v.start(),
            v_planes: space.v,
            m: m.start(),
            m_planes: space.m,
            add: false,
            next: Next::Panel,
        };
        // SAFETY: as the caller promises.
        unsafe { self.steps.multiply(&job) };
    }
}

impl<E: WinogradKernel, F: Form> ByBlocks for WinogradPlan<E, F> {
    type Space = Space;

    fn problem(&self) -> &Conv2d {
        &self.steps.problem
    }

    fn tiles(&self) -> usize {
        self.steps.geometry.tiles()
    }

    fn space(&self, threads: usize) -> Space {
        let schedule = Schedule::plan(&described().caches, &self.steps.tiling(), threads);
        let (c, k) = self.steps.blocks();
        let (v, m) = (Planes::new(schedule.tiles, c, E::LANES), Planes::new(schedule.tiles, k, E::LANES));
        let len = Steps::<E, F>::len;
        let scratch_len = self.steps.scratch_len(schedule.tiles);
        Space { schedule, v, v_len: len(v), m, m_len: len(m), scratch_len }
    }

    fn layout(space: &Space) -> (Schedule, WorkspaceLen) {
        (space.schedule, WorkspaceLen { shared: space.v_len + space.m_len, own: space.scratch_len })
    }

    fn on_one_thread(
        &self,
        space: &Space,
        block: &Block,
        input: &[f32],
        output: Shared,
        (both, scratch): (&mut [f32], &mut [f32]),
    ) {
        let k = self.steps.blocks().1;
        let (v, m) = both.split_at_mut(space.v_len);
        let (v, products) = (Shared::new(v), Shared::new(m));
        // SAFETY: only this thread uses V.
        unsafe { self.steps.all_input(block, input, (v, space.v), scratch) };
        // SAFETY: only this thread uses M, and V is filled.
        unsafe { self.multiply(space, block, 0..Steps::<E, F>::FREQUENCIES * panels(k), v, products) };
        for channels in 0..k {
            let part = ((channels, channels), block.tiles.clone());
            // SAFETY: M is filled, and blocks of tiles do not overlap.
            unsafe { self.steps.output(block, (input, &self.weights), part, (m, space.m), output, scratch) };
        }
    }

    /// Three steps: V, M, output. Each ends before the next begins.
    fn on_all_threads(
        &self,
        team: &mut Team,
        space: &Space,
        block: &Block,
        input: &[f32],
        output: Shared,
        (both, slots): (&mut [f32], &Slots),
    ) -> Result<()> {
        let (c, k) = self.steps.blocks();
        let wanted = team.size() * TASKS_PER_THREAD;
        let (v, m) = both.split_at_mut(space.v_len);
        let (v, products) = (Shared::new(v), Shared::new(m));
        let in_parts = Parts::new(&block.tiles, wanted.div_ceil(c));
        let out_parts = Parts::new(&block.tiles, wanted.div_ceil(k));
        let units = Steps::<E, F>::FREQUENCIES * panels(k);
        let piece = units.div_ceil(wanted);
        let steps = [c * in_parts.count, units.div_ceil(piece), k * out_parts.count];
        team.run_steps(steps, |step, task, _| match step {
            0 => slots.with(|scratch| {
                // SAFETY: each task writes its own channels and tiles of V.
                unsafe { self.steps.input(block, in_parts.of(task), input, (v, space.v), scratch) };
            }),
            1 => {
                let units = task * piece..units.min((task + 1) * piece);
                // SAFETY: each task writes its own planes and channels of M; V is filled.
                unsafe { self.multiply(space, block, units, v, products) };
            }
            _ => slots.with(|scratch| {
                let (channels, tiles) = out_parts.of(task);
                let part = ((channels, channels), tiles);
                // SAFETY: M is filled and no longer written. Each task writes its own channels and tiles of the output.
                unsafe {
                    let m = std::slice::from_raw_parts(products.start(), space.m_len);
                    self.steps.output(block, (input, &self.weights), part, (m, space.m), output, scratch);
                }
            }),
        })
    }
}

impl<E: WinogradKernel, F: Form> Plan for WinogradPlan<E, F> {
    fn kernel(&self) -> &str {
        self.name
    }

    fn memory(&self) -> Memory {
        let flops = self.steps.problem.flops();
        let threads = if flops < INLINE_FLOPS { 1 } else { num_threads() };
        Memory {
            packed: (self.transformed.len() + self.weights.len() + self.steps.bias_len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(flops) + self.workspace_len(threads) * size_of::<f32>(),
        }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        self.execute_timed(input, output)
    }
}
