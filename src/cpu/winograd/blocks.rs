//! The loop over blocks of tiles, which [`super::plan`] and [`super::once`] share.
//!
//! Either each block is computed by one thread, or all threads compute one block after the other.

use std::cell::Cell;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::allocate;
use crate::cpu::block::Shared;
use crate::cpu::buffer::{self, Borrowed, Buffer};
use crate::cpu::kernel::finish::Finish;
use crate::cpu::pool::{self, CachePadded, Team};
use crate::error::Result;
use crate::memory::winograd::Schedule;
use crate::problem::Conv2d;
use crate::report::Timing;

thread_local! {
    /// The workspace, which the calling thread keeps from call to call.
    static WORKSPACE: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Frees the calling thread's workspace.
pub fn clear() {
    buffer::clear(&WORKSPACE);
}

/// A block of tiles of one group.
#[derive(Clone)]
pub struct Block {
    pub group: usize,
    pub tiles: Range<usize>,
    /// What finishes its outputs.
    pub finish: Finish,
}

/// Elements of workspace that a block takes.
#[derive(Clone, Copy)]
pub struct WorkspaceLen {
    /// Memory that all threads use if they compute the block together.
    pub shared: usize,
    /// Memory of each thread.
    pub own: usize,
}

/// A convolution that is computed block by block.
pub trait ByBlocks: Sync {
    /// How the tiles are cut, and where data lie in the workspace.
    type Space: Sync;

    /// The convolution.
    fn problem(&self) -> &Conv2d;

    /// Tiles of a group, in all images.
    fn tiles(&self) -> usize;

    /// The space for `threads` threads.
    fn space(&self, threads: usize) -> Self::Space;

    /// The blocks of a space, and the workspace that one takes.
    fn layout(space: &Self::Space) -> (Schedule, WorkspaceLen);

    /// Computes a block on the calling thread. `memory` is the shared memory and the thread's own.
    fn on_one_thread(
        &self,
        space: &Self::Space,
        block: &Block,
        input: &[f32],
        output: Shared,
        memory: (&mut [f32], &mut [f32]),
    );

    /// Computes a block on all threads. `memory` is the shared memory and each thread's own.
    ///
    /// # Errors
    /// Only if a task panicked.
    fn on_all_threads(
        &self,
        team: &mut Team,
        space: &Self::Space,
        block: &Block,
        input: &[f32],
        output: Shared,
        memory: (&mut [f32], &Slots),
    ) -> Result<()>;

    /// Elements of workspace for `threads` threads.
    fn workspace_len(&self, threads: usize) -> usize {
        let (schedule, len) = Self::layout(&self.space(threads));
        let blocks = if schedule.block_per_thread { threads } else { 1 };
        blocks * len.shared + threads * len.own
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    fn execute(
        &self,
        team: &mut Team,
        workspace: &mut [f32],
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let problem = self.problem();
        assert_eq!((input.len(), output.len()), (problem.input_len(), problem.output_len()));
        let space = self.space(team.size());
        let (schedule, len) = Self::layout(&space);
        let blocks = Blocks::new(self.tiles(), schedule.tiles, team.finish());
        let count = problem.sizes().groups * blocks.count;
        let output = Shared::new(output);
        if schedule.block_per_thread {
            let slots = Slots::new(workspace, len.shared + len.own, team.size())?;
            return team.run(count, |task, _| {
                slots.with(|slot| {
                    let memory = slot.split_at_mut(len.shared);
                    self.on_one_thread(&space, &blocks.of(task), input, output, memory);
                });
            });
        }
        let (shared, own) = workspace.split_at_mut(len.shared);
        let slots = Slots::new(own, len.own, team.size())?;
        for block in 0..count {
            self.on_all_threads(team, &space, &blocks.of(block), input, output, (shared, &slots))?;
        }
        Ok(())
    }

    /// Computes the convolution on as many threads as it is worth. The lengths have been checked.
    ///
    /// # Errors
    /// Out of memory; the output is untouched then.
    fn execute_timed(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let start = Instant::now();
        // All memory is allocated first, so that a failure leaves the output untouched.
        let mut team = Team::for_work(self.problem().flops())?;
        let mut workspace = Borrowed::take(&WORKSPACE, self.workspace_len(team.size()))?;
        let computing = Instant::now();
        self.execute(&mut team, &mut workspace, input, output)?;
        let kernel = computing.elapsed();
        drop((team, workspace));
        Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
    }
}

/// The blocks of tiles of all groups.
struct Blocks {
    tiles: usize,
    total: usize,
    /// Blocks of one group.
    count: usize,
    finish: Finish,
}

impl Blocks {
    /// Cuts the `total` tiles of a group into blocks of `tiles` tiles.
    fn new(total: usize, tiles: usize, finish: Finish) -> Self {
        Blocks { tiles, total, count: total.div_ceil(tiles), finish }
    }

    /// Block `index`, counted through all groups.
    fn of(&self, index: usize) -> Block {
        let start = index % self.count * self.tiles;
        let tiles = start..self.total.min(start + self.tiles);
        Block { group: index / self.count, tiles, finish: self.finish }
    }
}

/// The tasks of a step that all threads work on: vectors of channels times parts of the block's tiles.
pub struct Parts {
    tiles: Range<usize>,
    piece: usize,
    /// Parts of the tiles.
    pub count: usize,
}

impl Parts {
    /// Cuts `tiles` into about `wanted` parts.
    pub fn new(tiles: &Range<usize>, wanted: usize) -> Self {
        let piece = tiles.len().div_ceil(wanted.min(tiles.len()));
        Parts { tiles: tiles.clone(), piece, count: tiles.len().div_ceil(piece) }
    }

    /// The vector of channels and the tiles of task `task`.
    pub fn of(&self, task: usize) -> (usize, Range<usize>) {
        let start = self.tiles.start + task % self.count * self.piece;
        (task / self.count, start..self.tiles.end.min(start + self.piece))
    }
}

/// Equal parts of a workspace, one for each thread.
pub struct Slots<'a>(Vec<CachePadded<Mutex<&'a mut [f32]>>>);

impl<'a> Slots<'a> {
    /// # Errors
    /// Out of memory.
    fn new(workspace: &'a mut [f32], len: usize, count: usize) -> Result<Self> {
        let parts = workspace.chunks_exact_mut(len).take(count).map(|slot| Ok(CachePadded(Mutex::new(slot))));
        allocate::collected(parts, "the parts of a workspace").map(Slots)
    }

    /// Runs `task` with the slot of the calling thread.
    pub fn with(&self, task: impl FnOnce(&mut [f32])) {
        // A task that panicked leaves nothing in the slot that later tasks read.
        task(&mut self.0[pool::worker()].0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
