//! Checks a launch while it computes it: races, accesses outside of arrays, and variables that are read before they have a
//! value, each with its place in the source.
//!
//! Only `cpu` calls it, for `device::Kernel::check`. It runs the tree itself on one thread, point after point, far
//! more slowly than the engine, and touches the launch's arrays. Records of accesses ([`shadow`](mod@shadow)) need 12
//! to 48 bytes for each element that the kernel writes. The results have the engine's bits.

mod evaluate;
mod findings;
mod places;
mod shadow;
mod statements;
#[cfg(test)]
mod tests;
mod values;

use super::reduce::{self, Cell};
use super::run;
use crate::allocate;
use crate::error::{Error, Result};
use crate::kernel::bind::Launch;
use crate::kernel::diagnostics::Diagnostic;
use crate::kernel::tree::{ArgumentKind, Code, Intent, Kernel, LocalSize, Procedure, Value, VariableKind};

use shadow::Shadow;
use statements::Flow;

const PURPOSE: &str = "the check of a kernel";

/// Levels of statements and expressions, those of called procedures included, that fit into [`STACK_BYTES`].
const MAX_LEVELS: usize = 10_000;

/// The stack of the thread that checks.
const STACK_BYTES: usize = 64 << 20;

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Messages in the order of their places; empty if nothing is wrong.
    pub messages: Vec<Diagnostic>,
    /// Operations on reals: each sum, difference, product, quotient, power and function counts as one.
    pub operations: u64,
    /// The points that ran. In whole workgroups, points outside of the index space count, too.
    pub points: u64,
}

/// Which workgroups or points run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All.
    All,
    /// Some, evenly spread, which are at least so many points if there are as many. Nothing is recorded or reported
    /// then, and reductions have no results.
    Sample(u64),
}

/// The variables of a point in one procedure.
struct Frame {
    /// Scalars by variable, if they have a value.
    scalars: Vec<Option<Value>>,
    /// Private arrays by variable.
    arrays: Vec<Vec<Option<Value>>>,
}

impl Frame {
    fn new(code: &Code) -> Result<Self> {
        let mut arrays = Vec::new();
        if code.variables.iter().any(|it| matches!(it.kind, VariableKind::Private(_))) {
            for variable in &code.variables {
                let len = match &variable.kind {
                    VariableKind::Private(fixed) => fixed.iter().map(|it| it.extent as usize).product(),
                    _ => 0,
                };
                allocate::push(&mut arrays, allocate::filled(None, len, PURPOSE)?, PURPOSE)?;
            }
        }
        Ok(Frame { scalars: allocate::filled(None, code.variables.len(), PURPOSE)?, arrays })
    }

    fn clear(&mut self) {
        self.scalars.fill(None);
        self.arrays.iter_mut().for_each(|array| array.fill(None));
    }
}

/// A point that runs.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    /// Its number: the linear index, or with workgroups, that of its workgroup and its lane in it.
    number: u32,
    group: u32,
    /// Its index arguments.
    indices: [i32; 3],
    linear: usize,
    local: [i32; 3],
    group_index: [i32; 3],
}

/// A point of a workgroup.
struct Lane {
    point: Point,
    frame: Frame,
    flow: Flow,
}

/// An array argument.
struct Buffer {
    /// Nothing for an array that the kernel does not write.
    shadow: Option<Shadow>,
    /// For `intent(out)`: whether each element has been written.
    defined: Vec<u8>,
}

/// An array in workgroup memory.
struct Shared {
    values: Vec<Value>,
    /// The workgroup that wrote each element, from 1.
    defined: Vec<u32>,
    shadow: Shadow,
}

struct Checker<'l> {
    launch: &'l Launch<'l>,
    kernel: &'l Kernel,
    /// Bounds of arrays by slot.
    shapes: Vec<Vec<(i32, Option<u64>)>>,
    buffers: Vec<Buffer>,
    /// By variable of the kernel.
    shared: Vec<Option<Shared>>,
    /// By statement of the kernel.
    with_barriers: Vec<bool>,
    point: Point,
    /// Points of a workgroup; 1 without workgroups.
    group_size: u32,
    /// Barriers that the workgroup has passed.
    phase: u32,
    /// What the point contributes to each reduction.
    contributions: Vec<Cell>,
    depth: usize,
    operations: u64,
    messages: Vec<Diagnostic>,
}

/// Checks a launch of arrays in the host's memory, and computes it.
///
/// # Errors
/// [`Error::InvalidArgument`] for buffers of devices. [`Error::Unsupported`] for more than 2^32 - 2 points, and for calls
/// nested too deeply. [`Error::OutOfMemory`].
pub fn check(launch: &Launch<'_>, coverage: Coverage) -> Result<Checked> {
    if let Some(slot) = (0..launch.buffers().len()).find(|slot| launch.resident(*slot).is_some()) {
        let name = launch.name(slot);
        return Err(Error::invalid(
            "kernel argument",
            format!("\"{name}\" with a buffer"),
            "an array of the host",
        ));
    }
    crate::thread::run_with_stack("check", STACK_BYTES, || Checker::run(launch, coverage))?
}

fn unsupported(what: String) -> Error {
    Error::Unsupported { device: "cpu".to_owned(), what }
}

impl<'l> Checker<'l> {
    fn run(launch: &'l Launch<'l>, coverage: Coverage) -> Result<Checked> {
        let kernel = launch.kernel();
        let is_sample = coverage != Coverage::All;
        let local = match (kernel.cooperative, kernel.local_size) {
            (true, LocalSize::Fixed(size)) => Some(size.map(|it| it as usize)),
            _ => None,
        };
        let extents = launch.extents();
        let groups =
            local.map(|local| std::array::from_fn(|axis| extents[axis].div_ceil(local[axis].max(1))));
        let units = groups.unwrap_or(extents).iter().map(|it| *it as u128).product::<u128>();
        let size = local.map_or(1, |local| local.iter().product::<usize>());
        let points = units * size as u128;
        if points >= u128::from(u32::MAX) {
            return Err(unsupported(format!("a check of {points} points; at most {}", u32::MAX - 1)));
        }
        let step = match coverage {
            Coverage::All => 1,
            Coverage::Sample(wanted) => {
                (units / u128::from(wanted).div_ceil(size as u128).max(1)).max(1) as usize
            }
        };
        let mut checker = Checker::new(launch, size as u32, is_sample)?;
        let reductions = if is_sample { &[][..] } else { &kernel.reductions[..] };
        let mut results = Vec::new();
        for _ in reductions {
            allocate::push(&mut results, allocate::zeroed(points as usize, PURPOSE)?, PURPOSE)?;
        }
        let mut ran = 0;
        match (local, groups) {
            (Some(local), Some(groups)) => {
                let mut lanes = Vec::new();
                for _ in 0..size {
                    let lane =
                        Lane { point: Point::default(), frame: Frame::new(&kernel.code)?, flow: Flow::Next };
                    allocate::push(&mut lanes, lane, PURPOSE)?;
                }
                for group in (0..units as usize).step_by(step) {
                    checker.workgroup(group, local, groups, &mut lanes)?;
                    ran += size as u64;
                }
            }
            _ => {
                let mut frame = Frame::new(&kernel.code)?;
                for linear in (0..units as usize).step_by(step) {
                    checker.point = checker.of_linear(linear);
                    for (sum, reduction) in checker.contributions.iter_mut().zip(&kernel.reductions) {
                        *sum = reduce::cell(super::lower::identity(reduction.operator, reduction.ty));
                    }
                    frame.clear();
                    checker.block(&kernel.code, &kernel.code.body, &mut frame)?;
                    for (all, sum) in results.iter_mut().zip(&checker.contributions) {
                        all[linear] = *sum;
                    }
                    ran += 1;
                }
            }
        }
        for ((index, reduction), values) in reductions.iter().enumerate().zip(&mut results) {
            let blocks = run::combine(reduction, values);
            run::finish_reduction(launch, index, &mut values[..blocks])?;
        }
        let mut messages = checker.messages;
        messages.sort_by_key(|it| (it.span.line, it.span.column));
        Ok(Checked { messages, operations: checker.operations, points: ran })
    }

    fn new(launch: &'l Launch<'l>, group_size: u32, is_sample: bool) -> Result<Self> {
        let kernel = launch.kernel();
        let (mut shapes, mut buffers) = (Vec::new(), Vec::new());
        let mut arrays = Vec::new();
        for (position, argument) in kernel.arguments.iter().enumerate() {
            if let ArgumentKind::Buffer(buffer) = &argument.kind {
                allocate::push(&mut arrays, (buffer.slot, position, buffer), PURPOSE)?;
            }
        }
        arrays.sort_unstable_by_key(|it| it.0);
        for (slot, position, buffer) in arrays {
            let len = launch.buffers()[slot].len;
            let records = buffer.is_written && !is_sample;
            let shadow = || Shadow::of_buffer(len, buffer.is_read, kernel.cooperative);
            let is_out = buffer.intent == Intent::Out && !is_sample;
            let defined = allocate::zeroed(if is_out { len } else { 0 }, PURPOSE)?;
            let shadow = if records { Some(shadow()?) } else { None };
            allocate::push(&mut buffers, Buffer { shadow, defined }, PURPOSE)?;
            allocate::push(&mut shapes, launch.shape(position)?, PURPOSE)?;
        }
        let mut shared = Vec::new();
        for variable in &kernel.code.variables {
            let array = match &variable.kind {
                VariableKind::Shared(fixed) => {
                    let len = fixed.iter().map(|it| it.extent as usize).product();
                    Some(Shared {
                        values: allocate::filled(values::zero(variable.ty), len, PURPOSE)?,
                        defined: allocate::zeroed(len, PURPOSE)?,
                        shadow: Shadow::of_workgroup(len)?,
                    })
                }
                _ => None,
            };
            allocate::push(&mut shared, array, PURPOSE)?;
        }
        Ok(Checker {
            launch,
            kernel,
            shapes,
            buffers,
            shared,
            with_barriers: statements::with_barriers(&kernel.code)?,
            point: Point::default(),
            group_size,
            phase: 0,
            contributions: allocate::zeroed(kernel.reductions.len(), PURPOSE)?,
            depth: 0,
            operations: 0,
            messages: allocate::with_capacity(crate::kernel::diagnostics::MAX_DIAGNOSTICS, PURPOSE)?,
        })
    }

    /// A point of an index space without workgroups.
    fn of_linear(&self, linear: usize) -> Point {
        let at = run::position(linear, self.launch.extents());
        let indices = at.map(|it| (it as i32).wrapping_add(self.kernel.base));
        Point { number: linear as u32, group: linear as u32, indices, linear, ..Point::default() }
    }

    /// A point of a workgroup.
    fn of_lane(&self, group: usize, lane: usize, local: [usize; 3], groups: [usize; 3]) -> Point {
        let (group_index, place) = (run::position(group, groups), run::position(lane, local));
        let index = |axis: usize| (group_index[axis] * local[axis] + place[axis]) as i32;
        Point {
            number: (group * self.group_size as usize + lane) as u32,
            group: group as u32,
            indices: std::array::from_fn(|axis| index(axis).wrapping_add(self.kernel.base)),
            linear: 0,
            local: place.map(|it| it as i32),
            group_index: group_index.map(|it| it as i32),
        }
    }

    /// The index arguments of a point, by its number.
    fn indices_of(&self, number: u32) -> [i32; 3] {
        match (self.kernel.cooperative, self.kernel.local_size) {
            (true, LocalSize::Fixed(size)) => {
                let local = size.map(|it| it as usize);
                let extents = self.launch.extents();
                let groups = std::array::from_fn(|axis| extents[axis].div_ceil(local[axis].max(1)));
                let (group, lane) = (number / self.group_size, number % self.group_size);
                self.of_lane(group as usize, lane as usize, local, groups).indices
            }
            _ => self.of_linear(number as usize).indices,
        }
    }

    fn workgroup(
        &mut self,
        group: usize,
        local: [usize; 3],
        groups: [usize; 3],
        lanes: &mut [Lane],
    ) -> Result<()> {
        for (number, lane) in lanes.iter_mut().enumerate() {
            lane.point = self.of_lane(group, number, local, groups);
            lane.frame.clear();
            lane.flow = Flow::Next;
        }
        self.phase = 0;
        let mut active: Vec<usize> = (0..lanes.len()).collect();
        let kernel = self.kernel;
        self.group(&kernel.code.body, lanes, &mut active)
    }

    /// Lets a point of a workgroup run.
    fn enter(&mut self, lane: &Lane) {
        self.point = lane.point;
    }

    fn procedure(&self, index: usize) -> Result<&'l Procedure> {
        let procedure = self.launch.unit().procedures.get(index);
        procedure.ok_or_else(|| Error::Internal("a procedure's index is wrong".to_owned()))
    }

    /// Counts a level of the walk.
    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_LEVELS {
            return Err(unsupported("a check of calls that are nested so deeply".to_owned()));
        }
        Ok(())
    }
}
