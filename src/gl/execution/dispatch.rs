//! Runs a kernel over all its work, in dispatches short enough for a GPU that also draws a desktop, and times it.
//!
//! A long dispatch freezes the desktop, and some drivers kill it. So work is cut into slices as long as a
//! [`DispatchBudget`] allows (`budget.rs`).
//!
//! Two dispatches are in flight at once, so that the device does not idle while the host handles the last one. The
//! reported time runs from a timestamp query before the first dispatch to one after the last.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::Fence;
use crate::gl::driver::resource::{Program, Query};
use crate::gl::execution::budget::believed;
use crate::gl::tunables::DISPATCHES_IN_FLIGHT;
use crate::log::Level;
use crate::shader::pass_plan::GRID_X;

pub use crate::gl::execution::budget::{DispatchBudget, KernelWork};

/// Uniform locations that every kernel here shares.
const FIRST: u32 = 0;
const COUNT: u32 = 1;

/// The time and dispatches of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ran {
    /// From before the first dispatch to after the last.
    pub time: Duration,
    /// The number of dispatches.
    pub dispatches: u32,
}

impl std::ops::AddAssign for Ran {
    fn add_assign(&mut self, other: Ran) {
        self.time += other.time;
        self.dispatches += other.dispatches;
    }
}

/// A dispatch in flight.
struct InFlight {
    units: u32,
    sent: Instant,
    /// A timestamp after it, if the device has a clock.
    stamp: Option<Query>,
    fence: Fence,
}

/// The time since a run began: by the device's clock, or by the host's, if the device's is missing or implausible.
struct RunClock {
    device: Option<Query>,
    host: Instant,
}

impl RunClock {
    fn start(context: &Rc<Context>) -> Result<Self> {
        let host = Instant::now();
        if context.capabilities().timestamp_bits > 0 {
            return Ok(RunClock { device: Some(Query::timestamp(context)?), host });
        }
        let device = context.device();
        context.note(Level::Debug, format_args!("{device}: no timestamp queries, timed by the host's clock"));
        Ok(RunClock { device: None, host })
    }

    fn stamp(&self, context: &Rc<Context>) -> Result<Option<Query>> {
        self.device.is_some().then(|| Query::timestamp(context)).transpose()
    }

    /// The time at which a dispatch whose fence has signalled ended.
    fn read(&self, stamp: Option<&Query>) -> Result<Duration> {
        let host = self.host.elapsed();
        let (Some(start), Some(stamp)) = (&self.device, stamp) else { return Ok(host) };
        let device = stamp.since(start)?;
        // A clock that stands still, or shows more than all the time that has passed, is useless.
        Ok(if device.is_zero() || device > host { host } else { device })
    }
}

/// Runs `program` over all of `work`; its buffers are bound. On return the device has finished, and buffer reads see
/// its output.
///
/// # Errors
/// The device's failure. Dispatches may then still be running.
pub fn run(
    context: &Rc<Context>,
    program: &Program,
    work: &KernelWork,
    budget: &DispatchBudget,
) -> Result<Ran> {
    run_with(context, program, (work, budget, None), &mut |first, units| {
        dispatch(context, first, units, work.per_group).map(|()| units)
    })
}

/// As [`run`], with the caller's way to dispatch: `dispatch(first, units)` dispatches units from `first` on, about
/// `units` of them and at least one, and returns how many these are. `rate` stands for the device's rate, if operations
/// are counted in another way than elsewhere.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    context: &Rc<Context>,
    program: &Program,
    (work, budget, rate): (&KernelWork, &DispatchBudget, Option<&Cell<f64>>),
    dispatch: &mut dyn FnMut(u32, u32) -> Result<u32>,
) -> Result<Ran> {
    let (api, group) = (context.api(), context.group());
    let device_rate = || rate.map_or_else(|| group.rate(), Cell::get);
    api.use_program(program.name());
    context.check("glUseProgram")?;
    let clock = RunClock::start(context)?;
    let mut last_seen = clock.host;
    let (mut first, mut dispatches, mut time) = (0, 0, Duration::ZERO);
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    while first < work.units || !in_flight.is_empty() {
        if first < work.units && in_flight.len() < DISPATCHES_IN_FLIGHT {
            let units = budget.slice(device_rate(), work).min(work.units - first);
            let sent = Instant::now();
            let units = dispatch(first, units)?.clamp(1, work.units - first);
            first += units;
            dispatches += 1;
            if first == work.units {
                api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
            }
            let stamp = clock.stamp(context)?;
            in_flight.push_back(InFlight { units, sent, stamp, fence: Fence::new(context)? });
        } else if let Some(done) = in_flight.pop_front() {
            done.fence.wait(program.kernel_name())?;
            let over = clock.read(done.stamp.as_ref())?;
            let (now, before) = (Instant::now(), last_seen.max(done.sent));
            let took = believed(over.saturating_sub(time), now - before, now - done.sent);
            last_seen = now;

            let learnt = budget.learn(device_rate(), work, done.units, took);
            rate.map_or_else(|| group.set_rate(learnt), |rate| rate.set(learnt));
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

/// What lists of [`PassStep`]s hold, for messages.
pub const STEPS: &str = "the passes of a long sum";

/// One of several kernels that run in sequence, with a way to bind its buffers.
pub struct PassStep<'a> {
    /// Its program.
    pub program: &'a Program,
    /// Its work.
    pub work: KernelWork,
    /// The budget of its dispatches.
    pub budget: &'a DispatchBudget,
    /// Binds its buffers.
    pub bind: &'a dyn Fn(),
}

/// Runs `steps` in sequence; each sees the output of those before it. Submits all at once if that is predicted to be
/// short, and else cuts them like [`run`]. `budget` is for all of them together.
///
/// # Errors
/// As [`run`].
pub fn run_steps(context: &Rc<Context>, steps: &[PassStep], budget: &DispatchBudget) -> Result<Ran> {
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
    let clock = RunClock::start(context)?;
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

/// Submits all of `steps`, each in one dispatch, and does not wait.
///
/// # Errors
/// What GL reports.
pub fn enqueue(context: &Rc<Context>, steps: &[PassStep]) -> Result<()> {
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

/// The work of several steps together, for a [`DispatchBudget`].
pub fn together(steps: impl Iterator<Item = KernelWork> + Clone) -> KernelWork {
    let units: u32 = steps.clone().map(|work| work.units.div_ceil(work.per_group)).sum();
    let operations: f64 = steps.map(|work| f64::from(work.units) * work.operations).sum();
    KernelWork { units, per_group: 1, operations: operations / f64::from(units.max(1)) }
}

/// Submits all of `steps` like [`enqueue`], in dispatches as short as `budget` says, which is for all of them together.
/// Returns the number of dispatches.
///
/// # Errors
/// What GL reports.
pub fn enqueue_cut(context: &Rc<Context>, steps: &[PassStep], budget: &DispatchBudget) -> Result<u32> {
    let (api, mut dispatches) = (context.api(), 0);
    for (index, PassStep { program, work, bind, .. }) in steps.iter().enumerate() {
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

/// Runs a caller's program, which knows no slices, in one dispatch. It gets enough workgroups in x for one invocation
/// per element of `outputs`, or at most as many as the driver allows if `any_grid` is set. Otherwise like [`run`].
///
/// # Errors
/// [`Error::Unsupported`] if one dimension cannot hold that many workgroups; else as [`run`].
pub fn run_whole(context: &Rc<Context>, program: u32, outputs: usize, any_grid: bool) -> Result<Ran> {
    let api = context.api();
    let local_size = api.program_local_size(program)[0];
    context.check("glGetProgramiv of GL_COMPUTE_WORK_GROUP_SIZE")?;
    let mut groups = outputs.div_ceil(local_size.max(1) as usize);
    let limit = context.capabilities().max_groups[0] as usize;
    if any_grid {
        groups = groups.min(limit);
    }
    if groups > limit {
        let what = format!("{groups} workgroups in one dimension; it takes {limit}");
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    api.use_program(program);
    context.check("glUseProgram")?;
    let clock = RunClock::start(context)?;
    api.dispatch_compute(groups as u32, 1, 1);
    context.check("glDispatchCompute")?;
    api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
    let stamp = clock.stamp(context)?;
    Fence::new(context)?.wait("the caller's program")?;
    Ok(Ran { time: clock.read(stamp.as_ref())?, dispatches: 1 })
}

/// Dispatches `units` units, beginning with `first`.
fn dispatch(context: &Context, first: u32, units: u32, per_group: u32) -> Result<()> {
    let api = context.api();
    api.uniform_1ui(FIRST, first);
    api.uniform_1ui(COUNT, units);
    // Generated kernels number their workgroups along rows of GRID_X. Others stride by the grid, whatever its shape.
    let groups = units.div_ceil(per_group);
    let x = groups.min(GRID_X);
    let y = groups.div_ceil(x);
    let [max_x, max_y, _] = context.capabilities().max_groups;
    if x > max_x || y > max_y {
        let what = format!("a grid of {x} x {y} workgroups; it takes {max_x} x {max_y}");
        return Err(Error::Unsupported { device: context.device().to_owned(), what });
    }
    api.dispatch_compute(x, y, 1);
    context.check("glDispatchCompute")
}
