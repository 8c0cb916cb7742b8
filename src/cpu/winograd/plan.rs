//! A convolution prepared for Winograd, and how its tiles are shared out.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

use super::engine::Engine;
use super::form::Form;
use super::geometry::{Geometry, Planes};
use super::input::{self, InputJob};
use super::output::{self, OutputJob};
use super::product::{ProductJob, panels};
use crate::backend::{Memory, Plan};
use crate::cpu::block::Shared;
use crate::cpu::buffer::{self, Buffer, Lent};
use crate::cpu::pool::{self, Team, num_threads};
use crate::error::Result;
use crate::memory::blocking::{INLINE_FLOPS, even};
use crate::problem::{Conv2d, Conv2dSizes};
use crate::report::Timing;

/// Tiles of a block for each thread: as many as keep V and the products within this many elements, 2 MiB, but
/// no fewer than [`LEAST_TILES`].
const WORKSPACE: usize = 1 << 19;
/// With fewer, reading U from the outer caches takes longer than the products: each of its elements is used
/// once for each tile.
const LEAST_TILES: usize = 28;
/// Tasks for each thread, so that uneven ones balance.
const TASKS_PER_THREAD: usize = 3;

thread_local! {
    /// V, products and scratch memory, kept by a thread that calls.
    static SPACE: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Frees what the calling thread keeps.
pub fn clear() {
    buffer::clear(&SPACE);
}

/// A convolution with its weights transformed.
pub struct WinogradPlan<E, F> {
    engine: E,
    problem: Conv2d,
    geometry: Geometry,
    name: &'static str,
    /// U: see [`super::product`].
    weights: Buffer,
    /// Bias, zeros if there is none, rounded up to whole blocks.
    bias: Buffer,
    form: PhantomData<F>,
}

/// How many tiles make a block, and who computes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Tiles of a block.
    pub tiles: usize,
    /// Whether each block is one thread's, or all threads work on one block, step after step.
    alone: bool,
}

impl Schedule {
    /// For `total` tiles, of which each takes `per_tile` elements of workspace.
    pub fn new(total: usize, per_tile: usize, threads: usize) -> Self {
        let most = (WORKSPACE / per_tile).max(LEAST_TILES);
        let tiles = even(total, most, 1);
        let wanted = threads * TASKS_PER_THREAD;
        if threads == 1 || total.div_ceil(tiles) >= wanted {
            return Schedule { tiles, alone: true };
        }
        let fewer = total.div_ceil(wanted);
        if fewer >= LEAST_TILES {
            return Schedule { tiles: fewer, alone: true };
        }
        Schedule { tiles: even(total, most * threads, 1), alone: false }
    }
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
    /// Transforms the weights. The problem must be one that [`super::can`] take.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        engine: E,
        name: &'static str,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let Conv2dSizes { c, k, .. } = *problem.sizes();
        let padded = k.next_multiple_of(E::LANES);
        // Saturating: a size that overflows is refused as out of memory.
        let mut u = Buffer::zeroed((F::ALPHA * F::ALPHA).saturating_mul(padded).saturating_mul(c))?;
        engine.weights::<F>(weights, (c, k), &mut u);
        let mut padded_bias = Buffer::zeroed(padded)?;
        if let Some(bias) = bias {
            padded_bias[..k].copy_from_slice(bias);
        }
        Ok(WinogradPlan {
            engine,
            problem: *problem,
            geometry: Geometry::new(problem.sizes(), F::M),
            name,
            weights: u,
            bias: padded_bias,
            form: PhantomData,
        })
    }

    /// Blocks of input channels and of output channels.
    fn blocks(&self) -> (usize, usize) {
        let Conv2dSizes { c, k, .. } = *self.problem.sizes();
        (c.div_ceil(E::LANES), k.div_ceil(E::LANES))
    }

    fn schedule(&self, threads: usize) -> Schedule {
        let (c, k) = self.blocks();
        Schedule::new(self.geometry.tiles(), F::ALPHA * F::ALPHA * (c + k) * E::LANES, threads)
    }

    fn space(&self, tiles: usize) -> Space {
        let (c, k) = self.blocks();
        let (v, m) = (Planes::new(tiles, c, E::LANES), Planes::new(tiles, k, E::LANES));
        let longest = tiles.min(self.geometry.across);
        let scratch =
            input::scratch_len::<F>(longest, E::LANES).max(output::scratch_len::<F>(longest, E::LANES));
        let [v_len, m_len, scratch_len] =
            [F::ALPHA * F::ALPHA * v.plane, F::ALPHA * F::ALPHA * m.plane, scratch]
                .map(|len| len.next_multiple_of(16));
        Space { v, v_len, m, m_len, scratch_len }
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
        assert_eq!((input.len(), output.len()), (self.problem.input_len(), self.problem.output_len()));
        let schedule = self.schedule(team.size());
        let (tiles, total) = (schedule.tiles, self.geometry.tiles());
        let space = self.space(tiles);
        let output = Shared::new(output);
        if schedule.alone {
            let len = space.v_len + space.m_len + space.scratch_len;
            let slots = Slots::new(workspace, len, team.size());
            return team.run(total.div_ceil(tiles), |block, _| {
                slots.with(|slot| {
                    let block = block * tiles..total.min((block + 1) * tiles);
                    self.alone(&space, block, input, output, slot);
                });
            });
        }
        let (both, scratch) = workspace.split_at_mut(space.v_len + space.m_len);
        let slots = Slots::new(scratch, space.scratch_len, team.size());
        for start in (0..total).step_by(tiles) {
            self.together(team, &space, start..total.min(start + tiles), input, output, (both, &slots))?;
        }
        Ok(())
    }

    /// One block of tiles by one thread.
    fn alone(&self, space: &Space, block: Range<usize>, input: &[f32], output: Shared, slot: &mut [f32]) {
        let (c, k) = self.blocks();
        let (v, rest) = slot.split_at_mut(space.v_len);
        let (m, scratch) = rest.split_at_mut(space.m_len);
        let (v, products) = (Shared::new(v), Shared::new(m));
        for channels in 0..c {
            // SAFETY: V is this thread's.
            unsafe { self.input(space, channels, block.clone(), block.start, input, v, scratch) };
        }
        // SAFETY: so is M, and V has been filled.
        unsafe { self.multiply(space, 0..F::ALPHA * F::ALPHA * panels(k), v, products) };
        for channels in 0..k {
            // SAFETY: M has been filled, and blocks of tiles do not overlap.
            unsafe {
                self.output(space, channels, block.clone(), block.start, m, output, scratch);
            }
        }
    }

    /// One block of tiles by all threads: three steps, each ended before the next.
    fn together(
        &self,
        team: &mut Team,
        space: &Space,
        block: Range<usize>,
        input: &[f32],
        output: Shared,
        (both, slots): (&mut [f32], &Slots),
    ) -> Result<()> {
        let (c, k) = self.blocks();
        let wanted = team.size() * TASKS_PER_THREAD;
        let parts = |blocks: usize| {
            let piece = block.len().div_ceil(wanted.div_ceil(blocks).min(block.len()));
            (piece, block.len().div_ceil(piece))
        };
        let part = |piece: usize, index: usize| {
            let start = block.start + index * piece;
            start..block.end.min(start + piece)
        };
        let (v, m) = both.split_at_mut(space.v_len);
        let (v, products) = (Shared::new(v), Shared::new(m));
        let (piece, count) = parts(c);
        team.run(c * count, |task, _| {
            slots.with(|scratch| {
                let tiles = part(piece, task % count);
                // SAFETY: each task has channels and tiles of V of its own.
                unsafe { self.input(space, task / count, tiles, block.start, input, v, scratch) };
            });
        })?;
        let units = F::ALPHA * F::ALPHA * panels(k);
        let step = units.div_ceil(wanted);
        team.run(units.div_ceil(step), |task, _| {
            // SAFETY: each task has planes and channels of M of its own; V has been filled.
            unsafe { self.multiply(space, task * step..units.min((task + 1) * step), v, products) };
        })?;
        let (piece, count) = parts(k);
        let m = &*m;
        team.run(k * count, |task, _| {
            slots.with(|scratch| {
                let tiles = part(piece, task % count);
                // SAFETY: each task has channels and tiles of the output of its own; M has been filled.
                unsafe { self.output(space, task / count, tiles, block.start, m, output, scratch) };
            });
        })
    }

    /// # Safety
    /// The tiles are writable in V, in this block of channels, by nobody else meanwhile.
    #[allow(clippy::too_many_arguments)]
    unsafe fn input(
        &self,
        space: &Space,
        channels: usize,
        tiles: Range<usize>,
        first: usize,
        input: &[f32],
        v: Shared,
        scratch: &mut [f32],
    ) {
        let job = InputJob {
            geometry: &self.geometry,
            input,
            tiles,
            first,
            channels,
            v: v.start(),
            planes: space.v,
        };
        // SAFETY: as the caller promises; the scratch is as long as space() says.
        unsafe { self.engine.input::<F>(&job, scratch) };
    }

    /// # Safety
    /// V is readable, and the units' products writable by nobody else meanwhile.
    unsafe fn multiply(&self, space: &Space, units: Range<usize>, v: Shared, m: Shared) {
        let job = ProductJob {
            units,
            depth: self.problem.sizes().c,
            blocks: self.blocks().1,
            u: &self.weights,
            v: v.start(),
            v_planes: space.v,
            m: m.start(),
            m_planes: space.m,
        };
        // SAFETY: as the caller promises.
        unsafe { self.engine.multiply(&job) };
    }

    /// # Safety
    /// The outputs of the tiles are writable, by nobody else meanwhile.
    #[allow(clippy::too_many_arguments)]
    unsafe fn output(
        &self,
        space: &Space,
        channels: usize,
        tiles: Range<usize>,
        first: usize,
        products: &[f32],
        output: Shared,
        scratch: &mut [f32],
    ) {
        let job = OutputJob {
            geometry: &self.geometry,
            tiles,
            first,
            channels,
            products,
            planes: space.m,
            bias: &self.bias,
            relu: self.problem.relu(),
            output: output.start(),
        };
        // SAFETY: as the caller promises; the scratch is as long as space() says.
        unsafe { self.engine.output::<F>(&job, scratch) };
    }
}

/// Equal parts of a workspace, one for each thread at work.
struct Slots<'a>(Vec<Mutex<&'a mut [f32]>>);

impl<'a> Slots<'a> {
    fn new(workspace: &'a mut [f32], len: usize, count: usize) -> Self {
        Slots(workspace.chunks_exact_mut(len).take(count).map(Mutex::new).collect())
    }

    /// Gives `task` a slot that nobody uses. There is one, as no more tasks run at once than there are slots.
    fn with(&self, task: impl FnOnce(&mut [f32])) {
        let free = self.0.iter().find_map(|slot| slot.try_lock().ok());
        task(&mut free.expect("a slot for each thread"));
    }
}

impl<E: Engine, F: Form> Plan for WinogradPlan<E, F> {
    fn kernel(&self) -> &str {
        self.name
    }

    fn memory(&self) -> Memory {
        let flops = self.problem.flops();
        let threads = if flops < INLINE_FLOPS { 1 } else { num_threads() };
        Memory {
            packed: (self.weights.len() + self.bias.len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(flops) + self.workspace_len(threads) * size_of::<f32>(),
        }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let start = Instant::now();
        // All memory first, so that the output is untouched if there is none.
        let mut team = Team::for_work(self.problem.flops())?;
        let mut workspace = Lent::take(&SPACE, self.workspace_len(team.size()))?;
        let computing = Instant::now();
        self.execute(&mut team, &mut workspace, input, output)?;
        let kernel = computing.elapsed();
        drop((team, workspace));
        Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
    }
}
