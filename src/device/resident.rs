//! Convolutions and products on buffers.

use std::sync::Arc;

use super::Device;
use super::buffer::{BufferView, BufferViewMut};
use super::epilogue::{Epilogue, check_positions};
use super::kernel;
use super::plan::{Conv2dPlan, NO_KERNEL};
use super::record::{self, Why};
use crate::allocate;
use crate::backend::{Backend, DeviceMemory, Guard, Range, Run};
use crate::error::{Error, Result};
use crate::float_env::FloatEnv;
use crate::kernel::bind::{Arg, Launch};
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;

/// Checks that all buffers of a call belong to the engine `owner` of `device`.
fn check_owners(views: &[(&'static str, BufferView<'_>)], (owner, device): (usize, &str)) -> Result<()> {
    match views.iter().find(|(_, view)| view.owner() != owner) {
        None => Ok(()),
        Some((name, view)) => {
            let expected = format!("a buffer of the opened {device}");
            Err(Error::invalid(name, format_args!("a buffer of {}", view.device()), expected))
        }
    }
}

/// Checks that the output shares no bytes with an input.
fn check_overlaps(inputs: &[Range<'_>], output: &Range<'_>) -> Result<()> {
    let overlaps = |it: &&Range<'_>| {
        std::ptr::eq(it.memory, output.memory)
            && it.bytes.min(output.bytes) > 0
            && it.offset < output.offset + output.bytes
            && output.offset < it.offset + it.bytes
    };
    match inputs.iter().find(overlaps) {
        None => Ok(()),
        Some(input) => {
            let given = format_args!("in the same memory as {}", input.name);
            Err(Error::invalid(output.name, given, "memory of its own"))
        }
    }
}

/// Locks the memories of a call, each once. The last range is written.
fn lock<'a>(ranges: &[Range<'a>]) -> Result<Vec<Guard<'a>>> {
    let mut guards = Vec::new();
    for (at, range) in ranges.iter().enumerate() {
        let same = |other: &Range<'_>| std::ptr::eq(other.memory, range.memory);
        if ranges[..at].iter().any(same) {
            continue;
        }
        let writes = ranges.last().is_some_and(same);
        let guard = range.memory.lock(writes, || format!("the buffer of {}", range.name))?;
        allocate::push(&mut guards, guard, "the locks of a call")?;
    }
    Ok(guards)
}

/// A range of the host's memory as numbers; none if it is not the host's.
///
/// # Safety
/// The range is locked, and nothing writes it during `'a`.
unsafe fn numbers<'a>(range: &Range<'a>) -> Option<&'a [f32]> {
    let memory: &'a DeviceMemory = range.memory;
    let start = memory.engine().host()?;
    // SAFETY: the range lies within the memory, which is initialised, aligned, and lives during 'a; not written, as the
    // caller promises.
    Some(unsafe { std::slice::from_raw_parts(start.add(range.offset).cast().as_ptr(), range.bytes / 4) })
}

/// As [`numbers`], to be written.
///
/// # Safety
/// The range is locked for writing, and nothing else uses it during `'a`.
unsafe fn numbers_mut<'a>(range: &Range<'a>) -> Option<&'a mut [f32]> {
    let memory: &'a DeviceMemory = range.memory;
    let start = memory.engine().host()?;
    // SAFETY: as in `numbers`; used by nothing else, as the caller promises.
    Some(unsafe { std::slice::from_raw_parts_mut(start.add(range.offset).cast().as_ptr(), range.bytes / 4) })
}

/// Checks that the arrays of an epilogue are the host's or the engine's, and share no bytes with the output.
fn check_arguments(launch: Option<&Launch<'_>>, engine: &Arc<dyn Backend>, output: &Range<'_>) -> Result<()> {
    let Some(launch) = launch else { return Ok(()) };
    launch.check_owner(Device::owner(engine))?;
    let identity = std::ptr::from_ref(output.memory).addr();
    launch.check_output((0, output.bytes), Some((identity, output.offset)))
}

fn exact(argument: &'static str, given: usize, expected: usize) -> Result<()> {
    let elements = |count| format!("{count} elements");
    if given == expected {
        Ok(())
    } else {
        Err(Error::invalid(argument, elements(given), elements(expected)))
    }
}

fn at_least(argument: &'static str, given: usize, least: usize) -> Result<()> {
    let expected = || format!("at least {least} elements");
    if given >= least {
        Ok(())
    } else {
        Err(Error::invalid(argument, format!("{given} elements"), expected()))
    }
}

impl Conv2dPlan {
    /// Runs it on buffers, or parts of them, of the device that it was made for, without a transfer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a buffer of the wrong length or type, of another device, or an output that
    /// overlaps the input; [`Error::ContentsLost`]; [`Error::InUse`]; or the device's failure, after which the output may
    /// have lost its contents.
    pub fn run_on<'a>(
        &self,
        input: impl Into<BufferView<'a>>,
        output: impl Into<BufferViewMut<'a>>,
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.run_on_inside(input.into(), output.into().view())
    }

    /// [`Conv2dPlan::run_on`] for a caller that has already entered the library's floating-point environment. The
    /// overlap of both is checked.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run_on`].
    pub(crate) fn run_on_inside(&self, input: BufferView<'_>, output: BufferView<'_>) -> Result<Run> {
        if self.fused().is_some() {
            return self.run_fused_on_inside(input, output, &mut []);
        }
        let result = self.run_on_unrecorded(input, output, None);
        record::conv2d("plan_execute", self.problem(), &Why::OfBuffers, &result);
        result
    }

    /// [`Conv2dPlan::run_fused`] on buffers, or parts of them, of the device that the plan was made for, without a transfer.
    /// Arrays among the epilogue's arguments may be buffers or the host's.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run_on`] and [`Conv2dPlan::run_fused`].
    pub fn run_fused_on<'a>(
        &self,
        input: impl Into<BufferView<'a>>,
        output: impl Into<BufferViewMut<'a>>,
        args: &mut [Arg<'_>],
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.run_fused_on_inside(input.into(), output.into().view(), args)
    }

    /// [`Conv2dPlan::run_fused_on`] for a caller that has already entered the library's floating-point environment. The
    /// overlap of all is checked.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run_fused_on`].
    pub(crate) fn run_fused_on_inside(
        &self,
        input: BufferView<'_>,
        output: BufferView<'_>,
        args: &mut [Arg<'_>],
    ) -> Result<Run> {
        let bound = self.bind(args);
        let result = bound.and_then(|launch| self.run_on_unrecorded(input, output, Some(&launch)));
        record::conv2d("plan_execute", self.problem(), &Why::OfBuffers, &result);
        result
    }

    fn run_on_unrecorded(
        &self,
        input: BufferView<'_>,
        output: BufferView<'_>,
        launch: Option<&Launch<'_>>,
    ) -> Result<Run> {
        exact("input length", input.len(), self.problem().input_len())?;
        exact("output length", output.len(), self.problem().output_len())?;
        let (from, to) = (input.range("input")?, output.range("output")?);
        let Some((engine, plan)) = self.of_owner(input.owner()) else {
            let expected = format!("a buffer of {}, for which the plan was made", self.device());
            return Err(Error::invalid("input", format_args!("a buffer of {}", input.device()), expected));
        };
        check_owners(&[("output", output)], Device::owner(engine))?;
        check_overlaps(&[from], &to)?;
        check_arguments(launch, engine, &to)?;
        let run = |kernel: &str, timing| Run::new(engine.shared_id(), kernel.into(), timing, None);
        if self.problem().is_empty() {
            return Ok(run(NO_KERNEL, Timing::default()));
        }
        let _locks = lock(&[from, to])?;
        let held = [from.memory, to.memory];
        let _arguments = launch.map(|launch| kernel::lock(launch, &held)).transpose()?;
        // SAFETY: the input is locked and overlaps no memory that is written, as just checked.
        let timing = match (unsafe { (numbers(&from), numbers_mut(&to)) }, launch) {
            ((Some(input), Some(output)), Some(launch)) => plan.run_fused(input, output, launch)?,
            ((Some(input), Some(output)), None) => plan.run(input, output)?,
            (_, Some(launch)) => plan.run_resident_fused(from, to, launch)?,
            (_, None) => plan.run_resident(from, to)?,
        };
        Ok(run(plan.kernel(), timing))
    }
}

impl Device {
    /// Computes one convolution on buffers, or parts of them, of this device: input, weights, bias and output. Nothing moves
    /// between host and device. For several with the same weights, make a [`Device::plan`] and run it on buffers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a buffer of the wrong length, of another type or device, or an output that overlaps
    /// one of the others; [`Error::ContentsLost`]; [`Error::InUse`]; or the device's failure, after which the output may
    /// have lost its contents.
    pub fn conv2d_on<'a>(
        &self,
        problem: &Conv2d,
        input: impl Into<BufferView<'a>>,
        weights: impl Into<BufferView<'a>>,
        bias: Option<BufferView<'a>>,
        output: impl Into<BufferViewMut<'a>>,
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.conv2d_on_inside(problem, (weights.into(), bias), input.into(), output.into().view())
    }

    /// [`Device::conv2d_on`] for a caller that has already entered the library's floating-point environment. The overlap of
    /// the buffers is checked.
    ///
    /// # Errors
    /// As [`Device::conv2d_on`].
    pub(crate) fn conv2d_on_inside(
        &self,
        problem: &Conv2d,
        data: (BufferView<'_>, Option<BufferView<'_>>),
        input: BufferView<'_>,
        output: BufferView<'_>,
    ) -> Result<Run> {
        let result = self.conv2d_on_unrecorded(problem, data, input, output);
        record::conv2d("conv2d", problem, &Why::OfBuffers, &result);
        result
    }

    fn conv2d_on_unrecorded(
        &self,
        problem: &Conv2d,
        (weights, bias): (BufferView<'_>, Option<BufferView<'_>>),
        input: BufferView<'_>,
        output: BufferView<'_>,
    ) -> Result<Run> {
        exact("input length", input.len(), problem.input_len())?;
        exact("output length", output.len(), problem.output_len())?;
        exact("weights length", weights.len(), problem.weights_len())?;
        match (bias, problem.bias()) {
            (Some(bias), true) => exact("bias length", bias.len(), problem.sizes().k)?,
            (None, false) => {}
            (Some(_), false) => return Err(Error::invalid("bias", "given", "none: the problem has no bias")),
            (None, true) => {
                return Err(Error::invalid("bias", "missing", format!("{} elements", problem.sizes().k)));
            }
        }
        let views =
            [("input", input), ("weights", weights), ("bias", bias.unwrap_or(weights)), ("output", output)];
        let (from, to, constants) =
            (input.range("input")?, output.range("output")?, weights.range("weights")?);
        let added = bias.map(|bias| bias.range("bias")).transpose()?;
        let engine = self.engine_for(&views, output.owner())?;
        let ranges = [from, constants, added.unwrap_or(constants), to];
        check_overlaps(&ranges[..3], &to)?;
        if problem.is_empty() {
            return Ok(Run::new(engine.shared_id(), NO_KERNEL.into(), Timing::default(), None));
        }
        let _locks = lock(&ranges)?;
        let problem = &problem.once();
        // SAFETY: all are locked, and the output overlaps none of the others, as just checked.
        let (kernel, timing) = match unsafe { (numbers(&from), numbers(&constants), numbers_mut(&to)) } {
            (Some(input), Some(weights), Some(output)) => {
                // SAFETY: as above.
                let bias = added.as_ref().and_then(|bias| unsafe { numbers(bias) });
                engine.conv2d(problem, (weights, bias), input, output)?
            }
            _ => engine.conv2d_resident(problem, (constants, added), from, to)?,
        };
        Ok(Run::new(engine.shared_id(), kernel, timing, None))
    }

    /// The engine that computes with these buffers, all of which belong to it. `owner` is that of one of them.
    fn engine_for(
        &self,
        views: &[(&'static str, BufferView<'_>)],
        owner: usize,
    ) -> Result<&Arc<dyn Backend>> {
        let Some(engine) = self.engine_of(owner) else {
            check_owners(views, (0, self.id()))?;
            return Err(Error::Internal("the device of a buffer is none of the engines".to_owned()));
        };
        check_owners(views, Device::owner(engine))?;
        Ok(engine)
    }

    /// Computes C = alpha op(A) op(B) + beta C on buffers, or parts of them, of this device, without a transfer. Products
    /// without terms (k or alpha is 0) move C to the host and back.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a buffer that is too short, of another type or device, or a C that overlaps A or B;
    /// [`Error::ContentsLost`]; [`Error::InUse`]; or the device's failure, after which C may have lost its contents.
    pub fn sgemm_on<'a>(
        &self,
        problem: &Gemm,
        a: impl Into<BufferView<'a>>,
        b: impl Into<BufferView<'a>>,
        c: impl Into<BufferViewMut<'a>>,
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.sgemm_on_inside(problem, [a.into(), b.into(), c.into().view()])
    }

    /// [`Device::sgemm_on`] for a caller that has already entered the library's floating-point environment. The overlap of
    /// the matrices is checked.
    ///
    /// # Errors
    /// As [`Device::sgemm_on`].
    pub(crate) fn sgemm_on_inside(&self, problem: &Gemm, data: [BufferView<'_>; 3]) -> Result<Run> {
        let result = self.sgemm_on_unrecorded(problem, data, None);
        record::sgemm(problem, &Why::OfBuffers, &result);
        result
    }

    /// [`Device::sgemm_fused`] on buffers, or parts of them, of this device, without a transfer. Arrays among the epilogue's
    /// arguments may be buffers or the host's.
    ///
    /// # Errors
    /// As [`Device::sgemm_on`] and [`Device::sgemm_fused`].
    pub fn sgemm_fused_on<'a>(
        &self,
        problem: &Gemm,
        (a, b): (impl Into<BufferView<'a>>, impl Into<BufferView<'a>>),
        c: impl Into<BufferViewMut<'a>>,
        epilogue: &Epilogue,
        args: &mut [Arg<'_>],
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.sgemm_fused_on_inside(problem, [a.into(), b.into(), c.into().view()], (epilogue, args))
    }

    /// [`Device::sgemm_fused_on`] for a caller that has already entered the library's floating-point environment. The
    /// overlap of all is checked.
    ///
    /// # Errors
    /// As [`Device::sgemm_fused_on`].
    pub(crate) fn sgemm_fused_on_inside(
        &self,
        problem: &Gemm,
        data: [BufferView<'_>; 3],
        (epilogue, args): (&Epilogue, &mut [Arg<'_>]),
    ) -> Result<Run> {
        let bound = check_positions(self.id(), problem.lens()[2]).and_then(|()| epilogue.fused().bind(args));
        let result = bound.and_then(|launch| self.sgemm_on_unrecorded(problem, data, Some(&launch)));
        record::sgemm(problem, &Why::OfBuffers, &result);
        result
    }

    fn sgemm_on_unrecorded(
        &self,
        problem: &Gemm,
        [a, b, c]: [BufferView<'_>; 3],
        launch: Option<&Launch<'_>>,
    ) -> Result<Run> {
        let [a_len, b_len, c_len] = problem.lens();
        if problem.reads_operands() {
            at_least("a length", a.len(), a_len)?;
            at_least("b length", b.len(), b_len)?;
        }
        at_least("c length", c.len(), c_len)?;
        let views = [("a", a), ("b", b), ("c", c)];
        let ranges = [a.range("a")?, b.range("b")?, c.range("c")?];
        let engine = self.engine_for(&views, c.owner())?;
        check_overlaps(&ranges[..2], &ranges[2])?;
        check_arguments(launch, engine, &ranges[2])?;
        let _locks = lock(&ranges)?;
        let held = ranges.map(|range| range.memory);
        let _arguments = launch.map(|launch| kernel::lock(launch, &held)).transpose()?;
        let [a, b, c] = ranges;
        // SAFETY: all are locked, and C overlaps neither A nor B, as just checked.
        let (kernel, timing) = match (unsafe { (numbers(&a), numbers(&b), numbers_mut(&c)) }, launch) {
            ((Some(a), Some(b), Some(c)), Some(launch)) => engine.sgemm_fused(problem, (a, b), c, launch)?,
            ((Some(a), Some(b), Some(c)), None) => engine.sgemm(problem, a, b, c)?,
            (_, Some(launch)) => engine.sgemm_resident_fused(problem, ranges, launch)?,
            (_, None) => engine.sgemm_resident(problem, ranges)?,
        };
        Ok(Run::new(engine.shared_id(), kernel, timing, None))
    }
}
