//! A convolution prepared for Winograd: all of U at hand; and how its tiles are shared out.

use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::engine::Engine;
use super::form::Form;
use super::geometry::Planes;
use super::product::{Next, PANEL, ProductJob, panels, u_plane};
use super::steps::{Block, Steps};
use super::weights::WeightsJob;
use crate::allocate;
use crate::backend::{Memory, Plan};
use crate::cpu::block::Shared;
use crate::cpu::buffer::{self, Buffer, Lent};
use crate::cpu::caches::described;
use crate::cpu::pool::{self, Apart, Team, num_threads};
use crate::error::Result;
use crate::memory::blocking::{INLINE_FLOPS, even, known_bytes};
use crate::memory::winograd::{Schedule, TASKS_PER_THREAD};
use crate::problem::Conv2d;
use crate::report::Timing;

thread_local! {
    /// V, products and scratch memory, kept by a thread that calls.
    pub(super) static SPACE: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Frees what the calling thread keeps.
pub fn clear() {
    buffer::clear(&SPACE);
}

/// A convolution with its weights transformed.
pub struct WinogradPlan<E, F> {
    steps: Steps<E, F>,
    name: &'static str,
    /// U of each group: see [`super::product`].
    weights: Buffer,
    /// The weights as given, for outputs that are not finite: see [`super::recompute`].
    given: Buffer,
}

/// The memory for one block of tiles, or for a thread's part of one.
struct Space {
    v: Planes,
    v_len: usize,
    m: Planes,
    m_len: usize,
    scratch_len: usize,
}

impl<E: Engine, F: Form> WinogradPlan<E, F> {
    /// Transforms the weights, on `team`. Winograd's algorithm must support the problem ([`crate::problem::winograd::is_supported`]).
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
        // Saturating: a size that overflows is refused as out of memory.
        let group = Steps::<E, F>::FREQUENCIES.saturating_mul(u_plane(c, k, E::LANES));
        let mut given = Buffer::zeroed(weights.len())?;
        given.copy_from_slice(weights);
        let mut plan = WinogradPlan {
            steps,
            name,
            weights: Buffer::zeroed(group.saturating_mul(problem.sizes().groups))?,
            given,
        };
        plan.transform(weights, team)?;
        Ok(plan)
    }

    /// Fills U: tasks are a panel's output channels and some input channels.
    fn transform(&mut self, weights: &[f32], team: &mut Team) -> Result<()> {
        let Self { steps, weights: u, .. } = self;
        let (channels, blocks) = (steps.channels(), steps.blocks().1);
        let (c, panels) = (channels.0, panels(blocks));
        let wanted = if team.size() == 1 { 1 } else { (team.size() * TASKS_PER_THREAD).div_ceil(panels) };
        let piece = even(c, c.div_ceil(wanted), E::LANES);
        let pieces = c.div_ceil(piece);
        let (plane, group_len) = (u_plane(c, blocks, E::LANES), u.len() / steps.problem.sizes().groups);
        // What does not stay in the cache anyway had better not push out the weights.
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
                // SAFETY: the panel's channel `first` is in the group's part of U.
                u: unsafe { u.start().add(at) },
                plane,
                stream,
            };
            // SAFETY: each task has channels of a panel of its own.
            unsafe { steps.weights(&job) };
        })
    }

    fn schedule(&self, threads: usize) -> Schedule {
        Schedule::plan(&described().caches, &self.steps.tiling(), threads)
    }

    fn space(&self, tiles: usize) -> Space {
        let (c, k) = self.steps.blocks();
        let (v, m) = (Planes::new(tiles, c, E::LANES), Planes::new(tiles, k, E::LANES));
        let len = Steps::<E, F>::len;
        Space { v, v_len: len(v), m, m_len: len(m), scratch_len: self.steps.scratch_len(tiles) }
    }

    /// Elements of workspace for `threads` threads.
    pub(super) fn workspace_len(&self, threads: usize) -> usize {
        let schedule = self.schedule(threads);
        let Space { v_len, m_len, scratch_len, .. } = self.space(schedule.tiles);
        if schedule.alone {
            threads * (v_len + m_len + scratch_len)
        } else {
            v_len + m_len + threads * scratch_len
        }
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(
        &self,
        team: &mut Team,
        workspace: &mut [f32],
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let problem = &self.steps.problem;
        assert_eq!((input.len(), output.len()), (problem.input_len(), problem.output_len()));
        let schedule = self.schedule(team.size());
        let blocks = Blocks::new(self.steps.geometry.tiles(), schedule.tiles);
        let groups = problem.sizes().groups;
        let space = self.space(schedule.tiles);
        let output = Shared::new(output);
        if schedule.alone {
            let len = space.v_len + space.m_len + space.scratch_len;
            let slots = Slots::new(workspace, len, team.size())?;
            return team.run(groups * blocks.count, |task, _| {
                slots.with(|slot| self.alone(&space, &blocks.of(task), input, output, slot));
            });
        }
        let (both, scratch) = workspace.split_at_mut(space.v_len + space.m_len);
        let slots = Slots::new(scratch, space.scratch_len, team.size())?;
        for block in 0..groups * blocks.count {
            self.together(team, &space, &blocks.of(block), input, output, (both, &slots))?;
        }
        Ok(())
    }

    /// One block of tiles by one thread.
    fn alone(&self, space: &Space, block: &Block, input: &[f32], output: Shared, slot: &mut [f32]) {
        let (c, k) = self.steps.blocks();
        let (v, rest) = slot.split_at_mut(space.v_len);
        let (m, scratch) = rest.split_at_mut(space.m_len);
        let (v, products) = (Shared::new(v), Shared::new(m));
        for channels in 0..c {
            // SAFETY: V is this thread's.
            unsafe { self.steps.input(block, (channels, block.tiles.clone()), input, (v, space.v), scratch) };
        }
        // SAFETY: so is M, and V has been filled.
        unsafe { self.multiply(space, block, 0..Steps::<E, F>::FREQUENCIES * panels(k), v, products) };
        for channels in 0..k {
            let part = ((channels, channels), block.tiles.clone());
            // SAFETY: M has been filled, and blocks of tiles do not overlap.
            unsafe { self.steps.output(block, (input, &self.given), part, (m, space.m), output, scratch) };
        }
    }

    /// One block of tiles by all threads: three steps, each ended before the next.
    fn together(
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
                let part = (task / in_parts.count, in_parts.of(task % in_parts.count));
                // SAFETY: each task has channels and tiles of V of its own.
                unsafe { self.steps.input(block, part, input, (v, space.v), scratch) };
            }),
            1 => {
                let units = task * piece..units.min((task + 1) * piece);
                // SAFETY: each task has planes and channels of M of its own; V has been filled.
                unsafe { self.multiply(space, block, units, v, products) };
            }
            _ => slots.with(|scratch| {
                let channels = task / out_parts.count;
                let part = ((channels, channels), out_parts.of(task % out_parts.count));
                // SAFETY: M has been filled, and is not written any more; each task has channels and tiles of the
                // output of its own.
                unsafe {
                    let m = std::slice::from_raw_parts(products.start(), space.m_len);
                    self.steps.output(block, (input, &self.given), part, (m, space.m), output, scratch);
                }
            }),
        })
    }

    /// # Safety
    /// V is readable, and the units' products writable by nobody else meanwhile.
    unsafe fn multiply(&self, space: &Space, block: &Block, units: Range<usize>, v: Shared, m: Shared) {
        let (c, blocks) = (self.steps.channels().0, self.steps.blocks().1);
        let job = ProductJob {
            units,
            depth: c,
            blocks,
            u: self.steps.group_weights(&self.weights, block.group),
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

/// The blocks of tiles of all groups.
pub struct Blocks {
    tiles: usize,
    total: usize,
    /// Of one group.
    pub count: usize,
}

impl Blocks {
    /// `total` tiles of a group, `tiles` a block.
    pub fn new(total: usize, tiles: usize) -> Self {
        Blocks { tiles, total, count: total.div_ceil(tiles) }
    }

    /// Block `index` of all groups'.
    pub fn of(&self, index: usize) -> Block {
        let start = index % self.count * self.tiles;
        Block { group: index / self.count, tiles: start..self.total.min(start + self.tiles) }
    }
}

/// A block's tiles, cut for several tasks.
pub struct Parts {
    tiles: Range<usize>,
    piece: usize,
    /// How many parts there are.
    pub count: usize,
}

impl Parts {
    /// About `wanted` parts.
    pub fn new(tiles: &Range<usize>, wanted: usize) -> Self {
        let piece = tiles.len().div_ceil(wanted.min(tiles.len()));
        Parts { tiles: tiles.clone(), piece, count: tiles.len().div_ceil(piece) }
    }

    /// Part `index`.
    pub fn of(&self, index: usize) -> Range<usize> {
        let start = self.tiles.start + index * self.piece;
        start..self.tiles.end.min(start + self.piece)
    }
}

/// Equal parts of a workspace, one for each thread at work.
pub struct Slots<'a>(Vec<Apart<Mutex<&'a mut [f32]>>>);

impl<'a> Slots<'a> {
    /// # Errors
    /// Out of memory.
    pub fn new(workspace: &'a mut [f32], len: usize, count: usize) -> Result<Self> {
        let parts = workspace.chunks_exact_mut(len).take(count).map(|slot| Ok(Apart(Mutex::new(slot))));
        allocate::collected(parts, "the parts of a workspace").map(Slots)
    }

    /// Gives `task` its thread's slot.
    pub fn with(&self, task: impl FnOnce(&mut [f32])) {
        // A task that panicked has left nothing half done that matters.
        task(&mut self.0[pool::worker()].0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<E: Engine, F: Form> Plan for WinogradPlan<E, F> {
    fn kernel(&self) -> &str {
        self.name
    }

    fn memory(&self) -> Memory {
        let flops = self.steps.problem.flops();
        let threads = if flops < INLINE_FLOPS { 1 } else { num_threads() };
        Memory {
            packed: (self.weights.len() + self.given.len() + self.steps.bias_len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(flops) + self.workspace_len(threads) * size_of::<f32>(),
        }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
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
}
