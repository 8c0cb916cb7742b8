//! Running a kernel over all its work: in dispatches short enough for a GPU that also draws a desktop, and timed.
//!
//! Drivers kill, or at least freeze the desktop behind, a dispatch that runs for long. So work is cut: a [`Pace`] knows how many
//! operations a second the kernel reaches on this device, and no dispatch is given more than what that predicts to take
//! 100 ms. The pace starts from what the device last reached (the probe, at first), with a margin while a problem is new,
//! and is corrected by each dispatch's own time.
//!
//! Two dispatches are in flight at once, so that the device does not idle while its last one is looked at. The time
//! reported runs from a timestamp query before the first dispatch to one behind the last.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::api;
use super::context::Context;
use super::fence::Fence;
use super::resource::{Program, Query};
use crate::error::{Error, Result};
use crate::log::Level;

/// What a dispatch should take.
const TARGET_SECONDS: f64 = 0.1;
/// How much slower than its predecessors a problem that never ran is taken to be.
const MARGIN: f64 = 4.0;
/// Dispatches of fewer workgroups than this may leave a GPU half empty: they say nothing about how slow it is.
const WIDE: u32 = 4096;
/// Dispatches in flight at once.
const IN_FLIGHT: usize = 2;
/// Uniform locations of every kernel here.
const FIRST: u32 = 0;
const COUNT: u32 = 1;

/// A kernel's work: `units` pieces that do not depend on each other, `per_group` of them a workgroup.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Pieces: outputs, or tiles.
    pub units: u32,
    /// Pieces that one workgroup does.
    pub per_group: u32,
    /// Operations a piece takes, indexing counted in.
    pub operations: f64,
}

/// How fast a problem runs on a device.
pub struct Pace {
    /// Operations a second of this very problem, once it has run.
    own: Cell<Option<f64>>,
}

impl Pace {
    /// The pace of a problem that has not run yet.
    pub fn new() -> Self {
        Pace { own: Cell::new(None) }
    }

    fn rate(&self, context: &Context) -> f64 {
        self.own.get().unwrap_or_else(|| context.group().rate() / MARGIN)
    }

    /// Units of the next dispatch, whole workgroups.
    fn slice(&self, context: &Context, work: &Work) -> u32 {
        let groups = TARGET_SECONDS * self.rate(context) / (work.operations * f64::from(work.per_group));
        // As casts of floats do, this saturates.
        (groups as u32).max(1).saturating_mul(work.per_group)
    }

    /// Learns from a dispatch of `units` units.
    fn learn(&self, context: &Context, work: &Work, units: u32, took: Duration) {
        let measured = f64::from(units) * work.operations / took.as_secs_f64().max(1e-9);
        let wide = units.div_ceil(work.per_group) >= WIDE;
        if wide || measured > self.rate(context) {
            self.own.set(Some(measured));
        }
        if wide || measured > context.group().rate() {
            context.group().set_rate(measured);
        }
    }
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ran {
    /// From before the first dispatch to behind the last.
    pub time: Duration,
    /// How many there were.
    pub dispatches: u32,
}

impl std::ops::AddAssign for Ran {
    fn add_assign(&mut self, other: Ran) {
        self.time += other.time;
        self.dispatches += other.dispatches;
    }
}

/// A dispatch in flight.
struct Flight {
    units: u32,
    /// Behind it, if the device has a clock.
    stamp: Option<Query>,
    fence: Fence,
}

/// The time since a run began: by the device's clock, or by ours, fence to fence, where it has none.
enum Clock {
    Device(Query),
    Host(Instant),
}

impl Clock {
    fn start(context: &Rc<Context>) -> Result<Self> {
        if context.capabilities().timestamp_bits > 0 {
            return Query::timestamp(context).map(Clock::Device);
        }
        let device = context.device();
        context.note(Level::Debug, format_args!("{device}: no timestamp queries, timed by the CPU's clock"));
        Ok(Clock::Host(Instant::now()))
    }

    fn stamp(&self, context: &Rc<Context>) -> Result<Option<Query>> {
        match self {
            Clock::Device(_) => Query::timestamp(context).map(Some),
            Clock::Host(_) => Ok(None),
        }
    }

    /// The time at which a flight whose fence has signalled was over.
    fn read(&self, stamp: Option<&Query>) -> Result<Duration> {
        match (self, stamp) {
            (Clock::Device(start), Some(stamp)) => {
                let nanoseconds = stamp.nanoseconds()?.saturating_sub(start.nanoseconds()?);
                Ok(Duration::from_nanos(nanoseconds))
            }
            (Clock::Host(start), _) => Ok(start.elapsed()),
            (Clock::Device(_), None) => unreachable!("the device's clock stamps every flight"),
        }
    }
}

/// Runs `program` over all of `work`, its buffers being bound. When this returns the device has finished and buffer
/// reads see what it wrote.
///
/// # Errors
/// What the device failed to do. Dispatches may then still be running.
pub fn run(context: &Rc<Context>, program: &Program, work: &Work, pace: &Pace) -> Result<Ran> {
    let api = context.api();
    api.use_program(program.name());
    context.check("glUseProgram")?;
    let clock = Clock::start(context)?;
    let (mut first, mut dispatches, mut time) = (0, 0, Duration::ZERO);
    let mut flights: VecDeque<Flight> = VecDeque::new();
    while first < work.units || !flights.is_empty() {
        if first < work.units && flights.len() < IN_FLIGHT {
            let units = pace.slice(context, work).min(work.units - first);
            dispatch(context, first, units, work.per_group)?;
            first += units;
            dispatches += 1;
            if first == work.units {
                api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
            }
            let stamp = clock.stamp(context)?;
            flights.push_back(Flight { units, stamp, fence: Fence::new(context)? });
        } else if let Some(flight) = flights.pop_front() {
            flight.fence.wait(program.kernel_name())?;
            let over = clock.read(flight.stamp.as_ref())?;
            pace.learn(context, work, flight.units, over.saturating_sub(time));
            time = over;
        }
    }
    let cut = if dispatches == 1 { "" } else { ", cut to stay short" };
    context.note(
        Level::Debug,
        format_args!(
            "{}: {}: {dispatches} dispatches{cut}, {time:?}",
            context.device(),
            program.kernel_name()
        ),
    );
    Ok(Ran { time, dispatches })
}

/// Runs a program that is not ours, and so knows nothing of slices: one dispatch, with workgroups enough in x for an invocation
/// of each of `outputs`. Like [`run`] otherwise.
///
/// # Errors
/// [`Error::Unsupported`] for more workgroups than fit in one dimension; else as [`run`].
pub fn run_whole(context: &Rc<Context>, program: u32, outputs: usize) -> Result<Ran> {
    let api = context.api();
    let local_size = api.program_local_size(program)[0];
    context.check("glGetProgramiv of GL_COMPUTE_WORK_GROUP_SIZE")?;
    let groups = outputs.div_ceil(local_size.max(1) as usize);
    let most = context.capabilities().max_groups[0] as usize;
    if groups > most {
        let what = format!("{groups} workgroups in one dimension; it takes {most}");
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    api.use_program(program);
    context.check("glUseProgram")?;
    let clock = Clock::start(context)?;
    api.dispatch_compute(groups as u32, 1, 1);
    context.check("glDispatchCompute")?;
    api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
    let stamp = clock.stamp(context)?;
    Fence::new(context)?.wait("the caller's program")?;
    Ok(Ran { time: clock.read(stamp.as_ref())?, dispatches: 1 })
}

/// Dispatches `units` units from `first` on.
fn dispatch(context: &Context, first: u32, units: u32, per_group: u32) -> Result<()> {
    let api = context.api();
    api.uniform_1ui(FIRST, first);
    api.uniform_1ui(COUNT, units);
    // Kernels number their workgroups over x, y and z and stride by the grid, so its shape is free.
    let groups = units.div_ceil(per_group);
    let x = groups.min(context.capabilities().max_groups[0]);
    let y = groups.div_ceil(x).min(context.capabilities().max_groups[1]);
    api.dispatch_compute(x, y, 1);
    context.check("glDispatchCompute")
}
