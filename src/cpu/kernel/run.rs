//! A launch: blocks of points, dealt to the threads.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::isa::Interpreter;
use super::lanes::{CHUNK, Registers, mask};
use super::lower;
use super::memory::Shared;
use super::program::{Array, Program, Register};
use super::reduce::{self, Cell};
use super::step::{self, Block};
use crate::allocate;
use crate::cpu::buffer::Buffer;
use crate::cpu::pool::{self, Team};
use crate::error::{Error, Result};
use crate::kernel::bind::{Elements, Launch};
use crate::kernel::tree::{ArgumentKind, Intent, LocalSize, REDUCTION_BLOCK, Value};
use crate::report::Timing;

/// The purpose of allocations.
const PURPOSE: &str = "a kernel's launch";

/// Tasks for each thread, so that uneven ones balance.
const TASKS: usize = 8;

/// The blocks of a launch.
struct Grid {
    /// The index space.
    extents: [usize; 3],
    /// The size of a workgroup; nothing if blocks are consecutive points.
    local: Option<[usize; 3]>,
    /// Workgroups on each axis.
    groups: [usize; 3],
    /// All blocks.
    blocks: usize,
}

impl Grid {
    fn new(launch: &Launch<'_>) -> Result<Self> {
        let extents = launch.extents();
        let too_many = || Error::invalid("number of points", launch.points(), "fewer than 2**63");
        let points = i64::try_from(launch.points()).map_err(|_| too_many())?;
        if !launch.kernel().cooperative {
            let blocks = (points as usize).div_ceil(REDUCTION_BLOCK);
            return Ok(Grid { extents, local: None, groups: [0; 3], blocks });
        }
        let LocalSize::Fixed(size) = launch.kernel().local_size else {
            return Err(Error::Internal("a kernel with workgroups has no local size".to_owned()));
        };
        let local = size.map(|size| size as usize);
        let groups = std::array::from_fn(|axis| extents[axis].div_ceil(local[axis].max(1)));
        let blocks = groups.iter().try_fold(1usize, |all, groups: &usize| all.checked_mul(*groups));
        Ok(Grid { extents, local: Some(local), groups, blocks: blocks.ok_or_else(too_many)? })
    }

    /// Lanes of a block.
    fn lanes(&self) -> usize {
        match self.local {
            None => REDUCTION_BLOCK,
            Some(local) => local.iter().product::<usize>().next_multiple_of(CHUNK),
        }
    }
}

/// What a thread computes with.
struct Frame {
    memory: Buffer,
    arrays: Vec<Shared>,
    calls: Vec<u32>,
}

// SAFETY: the pointers lead to the frame's own memory and to the launch's arrays, which any thread may use.
unsafe impl Send for Frame {}

impl Frame {
    fn new(program: &Program, buffers: &[Elements], grid: &Grid) -> Result<Self> {
        let memory = Buffer::zeroed(program.frame.div_ceil(size_of::<f32>()))?;
        let mut frame = Frame {
            memory,
            arrays: allocate::with_capacity(program.arrays.len(), PURPOSE)?,
            calls: allocate::zeroed(program.depth, PURPOSE)?,
        };
        let at = frame.registers(program);
        for array in &program.arrays {
            frame.arrays.push(match *array {
                Array::Buffer(slot) => {
                    let elements =
                        buffers.get(slot).ok_or_else(|| Error::Internal("no such slot".to_owned()))?;
                    Shared { address: elements.address.cast(), len: elements.len }
                }
                // SAFETY: the array lies in the frame.
                Array::Shared(start, len) => Shared { address: unsafe { at.at(start) }, len: len as usize },
            });
        }
        for constant in &program.constants {
            // SAFETY: the register has elements of the value's type.
            unsafe {
                match constant.value {
                    Value::Int32(value) => at.fill(constant.register, value),
                    Value::Int64(value) => at.fill(constant.register, value),
                    Value::Real32(value) => at.fill(constant.register, value),
                    Value::Real64(value) => at.fill(constant.register, value),
                    Value::Logical(value) => at.fill(constant.register, mask(value)),
                }
            }
        }
        if let Some(local) = grid.local {
            let size = local.iter().product::<usize>();
            // SAFETY: masks and local indices are of the program and have four bytes a lane.
            unsafe {
                at.set(program.mask, |lane| mask(lane < size));
                for (axis, register) in program.inputs.local.iter().enumerate() {
                    if let Some(register) = register {
                        at.set(*register, |lane| position(lane, local)[axis] as i32);
                    }
                }
            }
        }
        Ok(frame)
    }

    fn registers(&mut self, program: &Program) -> Registers {
        Registers { frame: self.memory.as_mut_ptr().cast(), lanes: program.lanes }
    }
}

/// The position of a linear index in a box.
fn position(index: usize, size: [usize; 3]) -> [usize; 3] {
    [index % size[0], index / size[0] % size[1], index / size[0] / size[1]]
}

impl Registers {
    /// Gives all lanes one value.
    ///
    /// # Safety
    /// The register is of the program and has elements of this size.
    unsafe fn fill<T: Copy>(self, register: Register, value: T) {
        // SAFETY: the register has `lanes` elements.
        unsafe { std::slice::from_raw_parts_mut(self.at::<T>(register), self.lanes).fill(value) };
    }

    /// Gives each lane its value.
    ///
    /// # Safety
    /// As [`Registers::fill`], for `i32`.
    unsafe fn set(self, register: Register, value: impl Fn(usize) -> i32) {
        for lane in 0..self.lanes {
            // SAFETY: the register has the lane.
            unsafe { self.at::<i32>(register).add(lane).write(value(lane)) };
        }
    }
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
pub fn launch<I: Interpreter>(isa: I, launch: &Launch<'_>) -> Result<Timing> {
    let start = Instant::now();
    let work = launch.points().saturating_mul(launch.kernel().code.expressions.len().max(1) as u128);
    let mut team = Team::for_work(u64::try_from(work).unwrap_or(u64::MAX))?;
    run(isa, launch, &mut team, start)
}

/// Runs a launch on a team.
pub(super) fn run<I: Interpreter>(
    isa: I,
    launch: &Launch<'_>,
    team: &mut Team,
    start: Instant,
) -> Result<Timing> {
    let grid = Grid::new(launch)?;
    let program = lower::lower(launch, grid.lanes())?;
    let reductions = &launch.kernel().reductions;
    let cells = grid.blocks.saturating_mul(reductions.len());
    let mut job = Job { launch, program, grid, results: allocate::zeroed(cells, PURPOSE)? };
    let computing = Instant::now();
    if job.grid.blocks > 0 {
        job.blocks(isa, team)?;
    }
    let kernel = computing.elapsed();
    job.finish()?;
    Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
}

impl Job<'_> {
    fn blocks<I: Interpreter>(&mut self, isa: I, team: &mut Team) -> Result<()> {
        let blocks = self.grid.blocks;
        let tasks = blocks.min(team.size().saturating_mul(TASKS));
        let frames = team.size().min(tasks).max(1);
        let frame = |_| Ok(Mutex::new(Frame::new(&self.program, self.launch.buffers(), &self.grid)?));
        let frames = allocate::collected((0..frames).map(frame), PURPOSE)?;
        let results = Results(self.results.as_mut_ptr());
        let job = &*self;
        team.run(tasks, |task, _| {
            let first = |task: usize| (task as u128 * blocks as u128 / tasks as u128) as usize;
            let mut frame =
                frames[pool::worker() % frames.len()].lock().unwrap_or_else(PoisonError::into_inner);
            for block in first(task)..first(task + 1) {
                job.block(isa, &mut frame, block, &results);
            }
        })
    }

    fn block<I: Interpreter>(&self, isa: I, frame: &mut Frame, number: usize, results: &Results) {
        let (program, at) = (&self.program, frame.registers(&self.program));
        let first = match self.grid.local {
            Some(local) => {
                self.group(at, number, local);
                0
            }
            None => self.points(at, number * REDUCTION_BLOCK),
        };
        for (reduction, register) in self.launch.kernel().reductions.iter().zip(&program.reductions) {
            // SAFETY: the register has elements of the reduction's type.
            unsafe {
                match lower::identity(reduction.operator, reduction.ty) {
                    Value::Int32(value) => at.fill(*register, value),
                    Value::Int64(value) => at.fill(*register, value),
                    Value::Real32(value) => at.fill(*register, value),
                    Value::Real64(value) => at.fill(*register, value),
                    Value::Logical(value) => at.fill(*register, mask(value)),
                }
            }
        }
        let mut block = Block { program, at, arrays: &frame.arrays, first, calls: &mut frame.calls };
        // SAFETY: the frame was made for the program, and its inputs are set. The launch's arrays are borrowed for the
        // launch, and those that the kernel writes may be written and overlap no other (`Launch::new`).
        unsafe { step::run(isa, &mut block) };
        for (position, register) in program.reductions.iter().enumerate() {
            let reduction = &self.launch.kernel().reductions[position];
            let mut values = [0; REDUCTION_BLOCK];
            for (lane, value) in values.iter_mut().enumerate() {
                // SAFETY: a kernel with reductions is not cooperative, so that its blocks have this many lanes.
                *value = unsafe {
                    match reduction.ty.bytes() {
                        8 => *at.at::<u64>(*register).add(lane),
                        _ => (*at.at::<u32>(*register).add(lane)).into(),
                    }
                };
            }
            let result = reduce::block(reduction.operator, reduction.ty, &values);
            // SAFETY: there is an element for each block of each reduction, and this thread alone runs the block.
            unsafe { results.0.add(position * self.grid.blocks + number).write(result) };
        }
    }

    /// Sets the inputs of a block of consecutive points. Returns the linear index of the first.
    fn points(&self, at: Registers, first: usize) -> i64 {
        let (program, extents) = (&self.program, self.grid.extents);
        let base = self.launch.kernel().base;
        let points = self.launch.points() as usize;
        let indices = program.inputs.indices;
        // SAFETY: the registers are of the program and have four bytes a lane.
        unsafe {
            at.set(program.mask, |lane| mask(first + lane < points));
            let mut at_point = position(first, extents);
            if extents[1] == 1 && extents[2] == 1 {
                if let Some(register) = indices[0] {
                    at.set(register, |lane| (first as i32).wrapping_add(lane as i32).wrapping_add(base));
                }
                for register in indices.into_iter().skip(1).flatten() {
                    at.fill(register, base);
                }
                return first as i64;
            }
            for lane in 0..at.lanes {
                for (register, index) in indices.iter().zip(at_point) {
                    if let Some(register) = register {
                        at.at::<i32>(*register).add(lane).write((index as i32).wrapping_add(base));
                    }
                }
                at_point[0] += 1;
                for axis in 0..2 {
                    if at_point[axis] == extents[axis] {
                        at_point[axis] = 0;
                        at_point[axis + 1] += 1;
                    }
                }
            }
        }
        first as i64
    }

    /// Sets the inputs of a workgroup.
    fn group(&self, at: Registers, number: usize, local: [usize; 3]) {
        let program = &self.program;
        let base = self.launch.kernel().base;
        let group = position(number, self.grid.groups);
        // SAFETY: the registers are of the program and have four bytes a lane.
        unsafe {
            // A return may have taken lanes out of it.
            let size = local.iter().product::<usize>();
            at.set(program.mask, |lane| mask(lane < size));
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
    }

    /// Combines the blocks' results and stores those of the launch.
    fn finish(&mut self) -> Result<()> {
        let blocks = self.grid.blocks;
        let kernel = self.launch.kernel();
        for (index, reduction) in kernel.reductions.iter().enumerate() {
            let (operator, ty) = (reduction.operator, reduction.ty);
            let identity = reduce::cell(lower::identity(operator, ty));
            let values = &mut self.results[index * blocks..][..blocks];
            let mut left = blocks;
            while left > 1 {
                for block in 0..left.div_ceil(REDUCTION_BLOCK) {
                    let mut cells = [identity; REDUCTION_BLOCK];
                    let from = &values[block * REDUCTION_BLOCK..left.min((block + 1) * REDUCTION_BLOCK)];
                    cells[..from.len()].copy_from_slice(from);
                    values[block] = reduce::block(operator, ty, &cells);
                }
                left = left.div_ceil(REDUCTION_BLOCK);
            }
            let value = values.first().copied().unwrap_or(identity);
            let ArgumentKind::Buffer(buffer) = &kernel.arguments[reduction.argument].kind else { continue };
            let to = self.launch.buffers()[buffer.slot];
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
        }
        Ok(())
    }
}
