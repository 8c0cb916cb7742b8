//! A launch: blocks of points, dealt to the threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::isa;
use super::lanes::{CHUNK, mask};
use super::lower;
use super::program::Program;
use super::reduce::{self, Cell};
use super::registers::{Frame, Registers};
use super::step::{self, Block};
use crate::allocate;
use crate::cpu::isa::Isa;
use crate::cpu::pool::{self, Team};
use crate::error::{Error, Result};
use crate::kernel::bind::Launch;
use crate::kernel::tree::{ArgumentKind, Intent, LocalSize, REDUCTION_BLOCK, Reduction};
use crate::memory::blocking::WORKSPACE;
use crate::report::Timing;

/// The purpose of allocations.
const PURPOSE: &str = "a kernel's launch";

/// Tasks for each thread, so that uneven ones balance.
const TASKS: usize = 8;

/// Blocks have as many lanes as let the registers that they write fit into this many bytes of a core's cache.
const REGISTERS: usize = 16 << 10;

/// Reduction blocks of a block at most: beyond, the cost of interpreting no longer counts.
const MOST_PARTS: usize = 16;

/// The blocks of a launch.
struct Grid {
    /// The index space.
    extents: [usize; 3],
    /// The size of a workgroup; nothing if blocks are consecutive points.
    local: Option<[usize; 3]>,
    /// Workgroups on each axis.
    groups: [usize; 3],
    /// Lanes of a block.
    lanes: usize,
    /// All blocks.
    blocks: usize,
    /// Blocks of reductions.
    reduced: usize,
}

impl Grid {
    fn new(launch: &Launch<'_>, program: &Program) -> Result<Self> {
        let extents = launch.extents();
        let too_many = || Error::invalid("number of points", launch.points(), "fewer than 2**63");
        let points = i64::try_from(launch.points()).map_err(|_| too_many())? as usize;
        if !launch.kernel().cooperative {
            let reduced = points.div_ceil(REDUCTION_BLOCK);
            let fitting = REGISTERS / program.busy_bytes.max(1) / REDUCTION_BLOCK;
            let lanes = fitting.clamp(1, MOST_PARTS).min(reduced.max(1)) * REDUCTION_BLOCK;
            let blocks = points.div_ceil(lanes);
            return Ok(Grid { extents, local: None, groups: [0; 3], lanes, blocks, reduced });
        }
        let LocalSize::Fixed(size) = launch.kernel().local_size else {
            return Err(Error::Internal("a kernel with workgroups has no local size".to_owned()));
        };
        let local = size.map(|size| size as usize);
        let groups = std::array::from_fn(|axis| extents[axis].div_ceil(local[axis].max(1)));
        let blocks = groups.iter().try_fold(1usize, |all, groups: &usize| all.checked_mul(*groups));
        let lanes = local.iter().product::<usize>().next_multiple_of(CHUNK);
        Ok(Grid {
            extents,
            local: Some(local),
            groups,
            lanes,
            blocks: blocks.ok_or_else(too_many)?,
            reduced: 0,
        })
    }
}

/// The position of a linear index in a box.
pub(super) fn position(index: usize, size: [usize; 3]) -> [usize; 3] {
    [index % size[0], index / size[0] % size[1], index / size[0] / size[1]]
}

/// One launch.
struct Job<'l> {
    launch: &'l Launch<'l>,
    program: Program,
    grid: Grid,
    /// The results of blocks, for each reduction in turn.
    results: Vec<Cell>,
}

/// The results of blocks, each written by the thread that runs the block.
struct Results(*mut Cell);

// SAFETY: each element is written by one thread, and read after all have ended.
unsafe impl Sync for Results {}

/// Runs a launch on the pool.
///
/// # Errors
/// [`Error::OutOfMemory`]; nothing has run then.
pub fn launch(isa: Isa, launch: &Launch<'_>) -> Result<Timing> {
    let start = Instant::now();
    let work = launch.points().saturating_mul(launch.kernel().code.expressions.len().max(1) as u128);
    let mut team = Team::for_work(u64::try_from(work).unwrap_or(u64::MAX))?;
    run(isa, launch, &mut team, start)
}

/// Runs a launch on a team.
pub(super) fn run(isa: Isa, launch: &Launch<'_>, team: &mut Team, start: Instant) -> Result<Timing> {
    let program = lower::lower(launch, isa::of(isa))?;
    let grid = Grid::new(launch, &program)?;
    let reductions = &launch.kernel().reductions;
    let cells = grid.reduced.saturating_mul(reductions.len());
    let mut job = Job { launch, program, grid, results: allocate::zeroed(cells, PURPOSE)? };
    let computing = Instant::now();
    if job.grid.blocks > 0 {
        job.blocks(team)?;
    }
    let kernel = computing.elapsed();
    job.finish()?;
    Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
}

impl Job<'_> {
    fn blocks(&mut self, team: &mut Team) -> Result<()> {
        let blocks = self.grid.blocks;
        let tasks = match team.size() {
            1 => 1,
            size => blocks.min(size.saturating_mul(TASKS)),
        };
        let frames = team.size().min(tasks).max(1);
        let workspace = WORKSPACE * size_of::<f32>();
        let frame =
            |_| Ok(Mutex::new(Frame::new(&self.program, self.launch.buffers(), self.grid.lanes, workspace)?));
        let frames = allocate::collected((0..frames).map(frame), PURPOSE)?;
        let results = Results(self.results.as_mut_ptr());
        let (job, failed) = (&*self, AtomicBool::new(false));
        team.run(tasks, |task, workspace| {
            let first = |task: usize| (task as u128 * blocks as u128 / tasks as u128) as usize;
            let frame = &frames[pool::worker() % frames.len()];
            let mut frame = frame.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(at) = frame.enter(&job.program, workspace) else {
                return failed.store(true, Ordering::Relaxed);
            };
            job.local_indices(at);
            let mut was_whole = false;
            for block in first(task)..first(task + 1) {
                was_whole = job.block(&mut frame, at, block, was_whole, &results);
            }
        })?;
        match failed.into_inner() {
            true => Err(Error::Internal("a thread's workspace is too small".to_owned())),
            false => Ok(()),
        }
    }

    /// Runs a block. Returns whether its mask has all lanes, and kept them, as `was_whole` says of the block before.
    fn block(
        &self,
        frame: &mut Frame,
        at: Registers,
        number: usize,
        was_whole: bool,
        results: &Results,
    ) -> bool {
        let program = &self.program;
        for (reduction, register) in self.launch.kernel().reductions.iter().zip(&program.reductions) {
            // SAFETY: the register has elements of the reduction's type.
            unsafe { at.fill_value(*register, lower::identity(reduction.operator, reduction.ty)) };
        }
        let mut run = |at: Registers, first: i64, is_whole: bool| {
            let Frame { arrays, calls, .. } = &mut *frame;
            let mut block = Block { program, at, arrays, first, is_whole, calls };
            // SAFETY: the frame was made for the program, and its inputs are set. The launch's arrays are borrowed for
            // the launch, and those that the kernel writes may be written and overlap no other (`Launch::new`). The
            // program is for this CPU's instruction set.
            unsafe { step::run(&mut block) };
        };
        if let Some(local) = self.grid.local {
            let is_whole = self.group(at, number, local, was_whole);
            run(at, 0, is_whole);
            return is_whole && !program.returns;
        }
        // Points that are no whole chunk run by themselves, so that the others need no mask.
        let first = number * at.lanes;
        let count = (self.launch.points() as usize - first).min(at.lanes);
        let rest = count % CHUNK;
        let whole = count - rest;
        if whole > 0 {
            self.points(at.first(whole), first, was_whole, whole);
            run(at.first(whole), first as i64, true);
        }
        if rest > 0 {
            self.points(at.first(CHUNK), first + whole, false, rest);
            self.move_reductions(at, whole);
            run(at.first(CHUNK), (first + whole) as i64, false);
            self.move_reductions(at, 0);
        }
        self.reduce(at, number, results);
        rest == 0 && !program.returns
    }

    /// Lets the reductions of the first lanes be those of later ones.
    fn move_reductions(&self, at: Registers, lane: usize) {
        for (reduction, register) in self.launch.kernel().reductions.iter().zip(&self.program.reductions) {
            // SAFETY: the register is of the program, and a chunk of lanes follows.
            unsafe { at.place(*register, at.home::<u8>(*register).add(lane * reduction.ty.bytes())) };
        }
    }

    /// Combines a block's contributions to reductions.
    fn reduce(&self, at: Registers, number: usize, results: &Results) {
        let parts = self.grid.lanes / REDUCTION_BLOCK;
        let reductions = self.launch.kernel().reductions.iter().enumerate();
        for ((position, reduction), (register, function)) in
            reductions.zip(self.program.reductions.iter().zip(&self.program.combinations))
        {
            let (first, bytes) = (number * parts, reduction.ty.bytes());
            for part in 0..parts.min(self.grid.reduced - first) {
                // SAFETY: the register has whole blocks of lanes, as such a kernel is not cooperative. There is a
                // result for each block of each reduction, and this thread alone runs the block.
                unsafe {
                    let values = at.at::<u8>(*register).add(part * REDUCTION_BLOCK * bytes);
                    let result = reduce::lanes(*function, reduction.operator, reduction.ty, values);
                    results.0.add(position * self.grid.reduced + first + part).write(result);
                }
            }
        }
    }

    /// Sets the inputs of consecutive points, of which there are `count`.
    fn points(&self, at: Registers, first: usize, was_whole: bool, count: usize) {
        let (program, extents) = (&self.program, self.grid.extents);
        let base = self.launch.kernel().base;
        let indices = program.inputs.indices;
        // SAFETY: the registers are of the program and have four bytes a lane.
        unsafe {
            if !was_whole {
                at.set(program.mask, |lane| mask(lane < count));
            }
            if extents[1] == 1 && extents[2] == 1 {
                if let Some(register) = indices[0] {
                    at.set(register, |lane| (first as i32).wrapping_add(lane as i32).wrapping_add(base));
                }
                for register in indices.into_iter().skip(1).flatten() {
                    at.fill(register, base);
                }
                return;
            }
            let mut at_point = position(first, extents);
            let mut lane = 0;
            // Row by row.
            while lane < at.lanes {
                let count = (extents[0] - at_point[0]).min(at.lanes - lane);
                for (axis, register) in indices.iter().enumerate() {
                    let Some(register) = register else { continue };
                    let row = std::slice::from_raw_parts_mut(at.at::<i32>(*register).add(lane), count);
                    let start = (at_point[axis] as i32).wrapping_add(base);
                    match axis {
                        0 => (0..).zip(row).for_each(|(lane, to)| *to = start.wrapping_add(lane)),
                        _ => row.fill(start),
                    }
                }
                lane += count;
                at_point = [0, at_point[1] + 1, at_point[2]];
                if at_point[1] == extents[1] {
                    at_point = [0, 0, at_point[2] + 1];
                }
            }
        }
    }

    /// Sets the indices within a workgroup, which are the same for all.
    fn local_indices(&self, at: Registers) {
        let Some(local) = self.grid.local else { return };
        for (axis, register) in self.program.inputs.local.iter().enumerate() {
            if let Some(register) = register {
                // SAFETY: the register is of the program and has four bytes a lane.
                unsafe { at.set(*register, |lane| position(lane, local)[axis] as i32) };
            }
        }
    }

    /// Sets the inputs of a workgroup. Returns whether its points are all lanes.
    fn group(&self, at: Registers, number: usize, local: [usize; 3], was_whole: bool) -> bool {
        let program = &self.program;
        let base = self.launch.kernel().base;
        let group = position(number, self.grid.groups);
        let size = local.iter().product::<usize>();
        // SAFETY: the registers are of the program and have four bytes a lane.
        unsafe {
            if !was_whole {
                // A return may have taken lanes out of it.
                at.set(program.mask, |lane| mask(lane < size));
            }
            for axis in 0..3 {
                if let Some(register) = program.inputs.group[axis] {
                    at.fill(register, group[axis] as i32);
                }
                if let Some(register) = program.inputs.indices[axis] {
                    let first = (group[axis] * local[axis]) as i32;
                    let index = |lane| first.wrapping_add(position(lane, local)[axis] as i32);
                    at.set(register, |lane| index(lane).wrapping_add(base));
                }
            }
        }
        size == at.lanes
    }

    /// Combines the blocks' results and stores those of the launch.
    fn finish(&mut self) -> Result<()> {
        let blocks = self.grid.reduced;
        for index in 0..self.launch.kernel().reductions.len() {
            finish_reduction(self.launch, index, &mut self.results[index * blocks..][..blocks])?;
        }
        Ok(())
    }
}

/// Combines consecutive blocks of values, and puts the results first. Returns how many there are.
pub(super) fn combine(reduction: &Reduction, values: &mut [Cell]) -> usize {
    let identity = reduce::cell(lower::identity(reduction.operator, reduction.ty));
    let blocks = values.len().div_ceil(REDUCTION_BLOCK);
    for block in 0..blocks {
        let mut cells = [identity; REDUCTION_BLOCK];
        let from = &values[block * REDUCTION_BLOCK..values.len().min((block + 1) * REDUCTION_BLOCK)];
        cells[..from.len()].copy_from_slice(from);
        values[block] = reduce::block(reduction.operator, reduction.ty, &cells);
    }
    blocks
}

/// Combines the results of blocks of points, which it overwrites, and stores the result of a reduction.
///
/// # Errors
/// [`Error::Internal`] if there is no place for it.
pub(super) fn finish_reduction(launch: &Launch<'_>, index: usize, values: &mut [Cell]) -> Result<()> {
    let kernel = launch.kernel();
    let reduction = &kernel.reductions[index];
    let (operator, ty) = (reduction.operator, reduction.ty);
    let identity = reduce::cell(lower::identity(operator, ty));
    let mut left = values.len();
    while left > 1 {
        left = combine(reduction, &mut values[..left]);
    }
    let value = values.first().copied().unwrap_or(identity);
    let ArgumentKind::Buffer(buffer) = &kernel.arguments[reduction.argument].kind else { return Ok(()) };
    let to = launch.buffers()[buffer.slot];
    if to.len == 0 || !to.is_writable {
        return Err(Error::Internal("a reduction has no place".to_owned()));
    }
    // SAFETY: the place has an element of the type and may be written, and no thread uses it now.
    unsafe {
        if ty.bytes() == 8 {
            let to = to.address.cast::<u64>();
            let old = (buffer.intent != Intent::Out).then(|| *to);
            to.write(old.map_or(value, |old| reduce::pair(operator, ty, old, value)));
        } else {
            let to = to.address.cast::<u32>();
            let old = (buffer.intent != Intent::Out).then(|| u64::from(*to));
            to.write(old.map_or(value, |old| reduce::pair(operator, ty, old, value)) as u32);
        }
    }
    Ok(())
}
