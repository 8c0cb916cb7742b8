//! Running a kernel over all its work: in dispatches short enough for a GPU that also draws a desktop, and timed.
//!
//! Drivers kill, or at least freeze the desktop behind, a dispatch that runs for long. So work is cut into slices, as long as a
//! [`DispatchBudget`] says (`budget.rs`).
//!
//! Two dispatches are in flight at once, so that the device does not idle while its last one is looked at. The time
//! reported runs from a timestamp query before the first dispatch to one behind the last.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::Fence;
use crate::gl::driver::resource::{Program, Query};
use crate::gl::execution::budget::believed;
use crate::log::Level;
use crate::shader::recipe::GRID_X;

pub use crate::gl::execution::budget::{DispatchBudget, Work};

/// Dispatches in flight at once.
const IN_FLIGHT: usize = 2;
/// Uniform locations of every kernel here.
const FIRST: u32 = 0;
const COUNT: u32 = 1;

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
    sent: Instant,
    /// Behind it, if the device has a clock.
    stamp: Option<Query>,
    fence: Fence,
}

/// The time since a run began: by the device's clock, or by ours, fence to fence, where it has none or one that cannot be right.
struct Clock {
    device: Option<Query>,
    host: Instant,
}

impl Clock {
    fn start(context: &Rc<Context>) -> Result<Self> {
        let host = Instant::now();
        if context.capabilities().timestamp_bits > 0 {
            return Ok(Clock { device: Some(Query::timestamp(context)?), host });
        }
        let device = context.device();
        context.note(Level::Debug, format_args!("{device}: no timestamp queries, timed by the CPU's clock"));
        Ok(Clock { device: None, host })
    }

    fn stamp(&self, context: &Rc<Context>) -> Result<Option<Query>> {
        self.device.is_some().then(|| Query::timestamp(context)).transpose()
    }

    /// The time at which a flight whose fence has signalled was over.
    fn read(&self, stamp: Option<&Query>) -> Result<Duration> {
        let host = self.host.elapsed();
        let (Some(start), Some(stamp)) = (&self.device, stamp) else { return Ok(host) };
        let device = stamp.since(start)?;
        // A clock that stands still, or is further than all the time that has passed, tells nothing.
        Ok(if device.is_zero() || device > host { host } else { device })
    }
}

/// Runs `program` over all of `work`, its buffers being bound. When this returns the device has finished and buffer
/// reads see what it wrote.
///
/// # Errors
/// What the device failed to do. Dispatches may then still be running.
pub fn run(context: &Rc<Context>, program: &Program, work: &Work, budget: &DispatchBudget) -> Result<Ran> {
    let (api, group) = (context.api(), context.group());
    api.use_program(program.name());
    context.check("glUseProgram")?;
    let clock = Clock::start(context)?;
    let mut last_seen = clock.host;
    let (mut first, mut dispatches, mut time) = (0, 0, Duration::ZERO);
    let mut flights: VecDeque<Flight> = VecDeque::new();
    while first < work.units || !flights.is_empty() {
        if first < work.units && flights.len() < IN_FLIGHT {
            let units = budget.slice(group.rate(), work).min(work.units - first);
            let sent = Instant::now();
            dispatch(context, first, units, work.per_group)?;
            first += units;
            dispatches += 1;
            if first == work.units {
                api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
            }
            let stamp = clock.stamp(context)?;
            flights.push_back(Flight { units, sent, stamp, fence: Fence::new(context)? });
        } else if let Some(flight) = flights.pop_front() {
            flight.fence.wait(program.kernel_name())?;
            let over = clock.read(flight.stamp.as_ref())?;
            let (now, before) = (Instant::now(), last_seen.max(flight.sent));
            let took = believed(over.saturating_sub(time), now - before, now - flight.sent);
            last_seen = now;

            group.set_rate(budget.learn(group.rate(), work, flight.units, took));
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

/// What lists of [`Step`]s are for.
pub const STEPS: &str = "the passes of a long sum";

/// A kernel of several that follow each other, with a way to bind its buffers.
pub struct Step<'a> {
    /// Its program.
    pub program: &'a Program,
    /// Its work.
    pub work: Work,
    /// How long its dispatches may be.
    pub budget: &'a DispatchBudget,
    /// Binds its buffers.
    pub bind: &'a dyn Fn(),
}

/// Runs `steps` one after the other, each seeing what those before it wrote: all at once if that is predicted to be short, else
/// cut like [`run`]. `budget` is that of all of them together.
///
/// # Errors
/// As [`run`].
pub fn run_steps(context: &Rc<Context>, steps: &[Step], budget: &DispatchBudget) -> Result<Ran> {
    let all = together(steps.iter().map(|step| step.work));
    let [.., last] = steps else { return Ok(Ran::default()) };
    if budget.slice(context.group().rate(), &all) < all.units {
        let mut ran = Ran::default();
        for step in steps {
            context.api().use_program(step.program.name());
            (step.bind)();
            context.api().memory_barrier(api::SHADER_STORAGE_BARRIER_BIT);
            ran += run(context, step.program, &step.work, step.budget)?;
        }
        return Ok(ran);
    }
    let clock = Clock::start(context)?;
    enqueue(context, steps)?;
    context.api().memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
    let stamp = clock.stamp(context)?;
    Fence::new(context)?.wait(last.program.kernel_name())?;
    let time = clock.read(stamp.as_ref())?;
    let host = clock.host.elapsed();
    context.group().set_rate(budget.learn(
        context.group().rate(),
        &all,
        all.units,
        believed(time, host, host),
    ));
    let (device, name) = (context.device(), last.program.kernel_name());
    context.note(Level::Debug, format_args!("{device}: {name}: {} dispatches, {time:?}", steps.len()));
    Ok(Ran { time, dispatches: steps.len() as u32 })
}

/// Hands all of `steps` to the device, each whole, and does not wait.
///
/// # Errors
/// What GL reports.
pub fn enqueue(context: &Rc<Context>, steps: &[Step]) -> Result<()> {
    let api = context.api();
    for step in steps {
        api.use_program(step.program.name());
        (step.bind)();
        context.check("glUseProgram")?;
        dispatch(context, 0, step.work.units, step.work.per_group)?;
        api.memory_barrier(api::SHADER_STORAGE_BARRIER_BIT);
    }
    Ok(())
}

/// The work of several steps together, as a [`DispatchBudget`] sees it.
pub fn together(steps: impl Iterator<Item = Work> + Clone) -> Work {
    let units: u32 = steps.clone().map(|work| work.units.div_ceil(work.per_group)).sum();
    let operations: f64 = steps.map(|work| f64::from(work.units) * work.operations).sum();
    Work { units, per_group: 1, operations: operations / f64::from(units.max(1)) }
}

/// Hands all of `steps` to the device like [`enqueue`], but in dispatches as short as `budget`, that of all of them together, says.
/// Gives their number.
///
/// # Errors
/// What GL reports.
pub fn enqueue_cut(context: &Rc<Context>, steps: &[Step], budget: &DispatchBudget) -> Result<u32> {
    let (api, mut dispatches) = (context.api(), 0);
    for (index, Step { program, work, bind, .. }) in steps.iter().enumerate() {
        api.use_program(program.name());
        bind();
        context.check("glUseProgram")?;
        let mut first = 0;
        while first < work.units {
            let units = budget.slice(context.group().rate(), work).min(work.units - first);
            dispatch(context, first, units, work.per_group)?;
            first += units;
            dispatches += 1;
        }
        let last = index + 1 == steps.len();
        let copies = if last { api::BUFFER_UPDATE_BARRIER_BIT } else { 0 };
        api.memory_barrier(api::SHADER_STORAGE_BARRIER_BIT | copies);
    }
    context.check("glMemoryBarrier")?;
    Ok(dispatches)
}

/// Runs a program that is not ours, and so knows nothing of slices: one dispatch, with workgroups enough in x for an invocation
/// of each of `outputs`, or, if `any_grid` will do, as many of them as the driver allows. Like [`run`] otherwise.
///
/// # Errors
/// [`Error::Unsupported`] for more workgroups than fit in one dimension; else as [`run`].
pub fn run_whole(context: &Rc<Context>, program: u32, outputs: usize, any_grid: bool) -> Result<Ran> {
    let api = context.api();
    let local_size = api.program_local_size(program)[0];
    context.check("glGetProgramiv of GL_COMPUTE_WORK_GROUP_SIZE")?;
    let mut groups = outputs.div_ceil(local_size.max(1) as usize);
    let most = context.capabilities().max_groups[0] as usize;
    if any_grid {
        groups = groups.min(most);
    }
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
    // Generated kernels number their workgroups along rows of GRID_X; the others stride by the grid, whatever its shape.
    let groups = units.div_ceil(per_group);
    let x = groups.min(GRID_X);
    let y = groups.div_ceil(x);
    let [most_x, most_y, _] = context.capabilities().max_groups;
    if x > most_x || y > most_y {
        let what = format!("a grid of {x} x {y} workgroups; it takes {most_x} x {most_y}");
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    api.dispatch_compute(x, y, 1);
    context.check("glDispatchCompute")
}
