//! A convolution prepared on a device, with a CPU fallback if `auto` chose the device.

use std::sync::{Arc, OnceLock};

use super::Device;
use super::choice::PlanLearner;
use super::engine_plan::EnginePlan;
use super::kernel;
use super::multi::{Multi, MultiPlan};
use super::predict::fall_back;
use super::record::{Recorded, Why};
use crate::allocate;
use crate::backend::{Backend, FallbackFn, Memory, Plan, Recipe, Run};
use crate::error::{Error, Result};
use crate::float_env::FloatEnv;
use crate::kernel::bind::{Arg, Launch};
use crate::kernel::fused::Fused;
use crate::problem::Conv2d;
use crate::report::Timing;

/// The kernel's name for an empty batch.
pub(super) const NO_KERNEL: &str = "none";

/// A prepared convolution. Any number of threads may run it at once. Cheap to clone.
#[derive(Clone)]
pub struct Conv2dPlan(Arc<PlanInner>);

struct PlanInner {
    problem: Conv2d,
    /// Why its engine was chosen, for the log.
    recorded: Arc<Recorded>,
    /// The plan on the chosen engine; `None` if that engine failed to make one.
    first: Option<Arc<EnginePlan>>,
    fallback: Option<CpuFallback>,
    /// The plan on several devices; without `first` and `fallback`.
    multi: Option<MultiPlan>,
    /// Measures the first runs, if `auto` learns from them.
    learner: Option<Arc<PlanLearner>>,
    /// The epilogue that every run applies.
    fused: Option<Fused>,
}

/// The plan for an empty batch. It uses no engine.
struct EmptyBatchPlan;

impl Plan for EmptyBatchPlan {
    fn kernel(&self) -> &str {
        NO_KERNEL
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }

    fn run(&self, _: &[f32], _: &mut [f32]) -> Result<Timing> {
        Ok(Timing::default())
    }
}

fn no_engine() -> Error {
    Error::Internal("a plan has neither an engine nor a fallback".to_owned())
}

/// What the CPU needs to replace the GPU after a failure.
struct CpuFallback {
    cpu: Arc<dyn Backend>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    fused: Option<Fused>,
    /// Set once the GPU has failed: the reason, and the CPU's plan.
    taken: OnceLock<(Arc<str>, Result<EnginePlan>)>,
}

impl PlanInner {
    fn of(problem: &Conv2d, why: Why, first: Option<Arc<EnginePlan>>, fallback: Option<CpuFallback>) -> Self {
        let recorded = Arc::new(Recorded { problem: *problem, why });
        PlanInner { problem: *problem, recorded, first, fallback, multi: None, learner: None, fused: None }
    }
}

impl Conv2dPlan {
    /// A plan on several devices.
    ///
    /// # Errors
    /// As [`MultiPlan::new`].
    pub(super) fn on_several(
        multi: &Arc<Multi>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let multi = Some(MultiPlan::new(multi, problem, weights, bias)?);
        Ok(Conv2dPlan(Arc::new(PlanInner { multi, ..PlanInner::of(problem, Why::Several, None, None) })))
    }

    /// A plan on `backend`, without fallback.
    pub(super) fn fixed(
        backend: &Arc<dyn Backend>,
        (problem, why): (&Conv2d, Why),
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let plan = EnginePlan::new(backend, problem, weights, bias)?;
        Ok(Conv2dPlan::on_engine((problem, why), Arc::new(plan)))
    }

    /// A plan on `backend` that applies an epilogue, without fallback.
    pub(super) fn fixed_fused(
        backend: &Arc<dyn Backend>,
        (problem, why): (&Conv2d, Why),
        data: (&[f32], Option<&[f32]>),
        fused: &Fused,
    ) -> Result<Self> {
        let plan = EnginePlan::fused(backend, problem, data, fused)?;
        Ok(Conv2dPlan::on_engine((problem, why), Arc::new(plan)).with_epilogue(fused))
    }

    /// A plan for an empty batch. Its runs name `backend` as their device.
    pub(super) fn empty_batch(backend: &Arc<dyn Backend>, problem: &Conv2d) -> Self {
        let plan = EnginePlan::with_plan(backend, Box::new(EmptyBatchPlan));
        Conv2dPlan::on_engine((problem, Why::Empty), Arc::new(plan))
    }

    /// A plan that runs `plan`, which was made for `problem`, without fallback.
    pub(super) fn on_engine((problem, why): (&Conv2d, Why), plan: Arc<EnginePlan>) -> Self {
        Conv2dPlan(Arc::new(PlanInner::of(problem, why, Some(plan), None)))
    }

    /// The plan on several devices, if this is one.
    pub(super) fn of_several(&self) -> Option<&MultiPlan> {
        self.0.multi.as_ref()
    }

    /// A plan on `gpu` that falls back to `cpu` when the GPU fails.
    pub(super) fn with_fallback(
        gpu: &Arc<dyn Backend>,
        cpu: &Arc<dyn Backend>,
        (problem, why): (&Conv2d, Why),
        (weights, bias): (&[f32], Option<&[f32]>),
        fused: Option<&Fused>,
    ) -> Result<Self> {
        let fallback = CpuFallback::new(cpu, weights, bias, fused)?;
        let made = match fused {
            Some(fused) => EnginePlan::fused(gpu, problem, (weights, bias), fused),
            None => EnginePlan::new(gpu, problem, weights, bias),
        };
        let first = match made {
            Ok(first) => Some(Arc::new(first)),
            Err(error) => {
                fallback.take(problem, fall_back(gpu, error)?);
                None
            }
        };
        let fused = fused.cloned();
        Ok(Conv2dPlan(Arc::new(PlanInner { fused, ..PlanInner::of(problem, why, first, Some(fallback)) })))
    }

    /// The same plan with the epilogue that its engine's plan was made for. For a plan without clones.
    pub(super) fn with_epilogue(mut self, fused: &Fused) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.fused = Some(fused.clone());
        }
        self
    }

    /// The epilogue of the plan.
    pub(crate) fn fused(&self) -> Option<&Fused> {
        self.0.fused.as_ref()
    }

    /// Refuses a plan with an epilogue.
    ///
    /// # Errors
    /// [`Error::Unsupported`] that says what does not support it.
    pub(super) fn check_no_epilogue(&self, what: &str) -> Result<()> {
        match &self.0.fused {
            None => Ok(()),
            Some(fused) => {
                let what = format!("{what} of plans with an epilogue (\"{}\")", fused.epilogue().name);
                Err(Error::Unsupported { device: self.device().to_owned(), what })
            }
        }
    }

    /// The same plan, whose first runs `learner` measures. For a plan without clones.
    pub(super) fn learning(mut self, learner: PlanLearner) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.learner = Some(Arc::new(learner));
        }
        self
    }

    /// Replaces the weights and the bias. The device and the algorithm are not chosen again. Other clones of the plan and
    /// jobs that have been submitted keep the old weights.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for weights or a bias of the wrong length, and the
    /// device's failure. The plan then has its old weights.
    pub fn set_weights(&mut self, weights: &[f32], bias: Option<&[f32]>) -> Result<()> {
        let _library = FloatEnv::enter();
        *self = self.with_weights(weights, bias)?;
        Ok(())
    }

    /// The same plan with other weights.
    ///
    /// # Errors
    /// As [`Conv2dPlan::set_weights`].
    pub(crate) fn with_weights(&self, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let PlanInner { problem, recorded, first, fallback, multi, learner, fused } = &*self.0;
        problem.check_weights(weights, bias)?;
        if problem.is_empty() {
            return Ok(self.clone());
        }
        let mut other = PlanInner {
            problem: *problem,
            recorded: recorded.clone(),
            first: None,
            fallback: None,
            multi: None,
            learner: learner.clone(),
            fused: fused.clone(),
        };
        if let Some(multi) = multi {
            other.multi = Some(MultiPlan::new(multi.multi(), problem, weights, bias)?);
        }
        if let Some(fallback) = fallback {
            let own = CpuFallback::new(&fallback.cpu, weights, bias, fused.as_ref())?;
            if let Some((reason, _)) = fallback.taken.get() {
                // The device has failed before: the CPU stays.
                own.take(problem, reason.clone()).1.as_ref().map_err(Clone::clone)?;
            }
            other.fallback = Some(own);
        }
        let failed = other.fallback.as_ref().is_some_and(|fallback| fallback.taken.get().is_some());
        if let Some(first) = first.as_ref().filter(|_| !failed) {
            let plan = match fused {
                Some(fused) => EnginePlan::fused(first.backend(), problem, (weights, bias), fused)?,
                None => EnginePlan::new(first.backend(), problem, weights, bias)?,
            };
            other.first = Some(Arc::new(plan));
        }
        Ok(Conv2dPlan(Arc::new(other)))
    }

    /// The convolution.
    pub fn problem(&self) -> &Conv2d {
        &self.0.problem
    }

    /// The plan on the engine that has this identity, with the engine.
    pub(super) fn of_owner(&self, owner: usize) -> Option<(&Arc<dyn Backend>, &dyn Plan)> {
        let plan = self.engine_plans().find(|it| Device::owner(it.backend()).0 == owner)?;
        Some((plan.backend(), plan.plan()))
    }

    /// The device that it was made for.
    pub(super) fn device(&self) -> &str {
        self.engine_plans().next().map_or("no device", |it| it.device())
    }

    /// The plan's recipe, if `id` is this plan's engine and it has not failed.
    pub(super) fn recipe_on(&self, id: &str) -> Option<&Arc<Recipe>> {
        let failed = self.0.fallback.as_ref().is_some_and(|fallback| fallback.taken.get().is_some());
        let first = self.0.first.as_ref().filter(|first| !failed && first.backend().id() == id)?;
        first.recipe()
    }

    /// The fallback for jobs of this plan; `None` if the caller chose the device by name.
    pub(super) fn fallback(&self) -> Option<FallbackFn> {
        self.0.fallback.as_ref()?;
        let plan = self.clone();
        Some(Arc::new(move |error, input, output| {
            let PlanInner { problem, first, fallback, .. } = &*plan.0;
            let (Some(first), Some(fallback)) = (first, fallback) else { return Err(error.clone()) };
            let (reason, cpu) = fallback.take(problem, fall_back(first.backend(), error.clone())?);
            cpu.as_ref().map_err(Clone::clone)?.run(input, output, Some(reason.clone()))
        }))
    }

    /// Bytes that the plan holds for its lifetime: packed or uploaded weights, and copies of them for the fallback.
    /// After a fallback this includes the CPU's plan. On an OpenGL device, a plan with 8 MiB or more of input and
    /// output uploads its weights at the first run. Each pipeline that the plan is submitted to holds another copy of
    /// the weights on the device, which is not counted here.
    pub fn packed_bytes(&self) -> usize {
        let copies = self.0.fallback.as_ref().map_or(0, |fallback| {
            (fallback.weights.len() + fallback.bias.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
        });
        let multi = self.0.multi.as_ref().map_or(0, MultiPlan::packed_bytes);
        self.engine_plans().map(|it| it.memory().packed).sum::<usize>() + copies + multi
    }

    /// Maximum workspace of a run in bytes with the current number of threads, without the caller's buffers. A direct
    /// algorithm on the CPU uses 1 MiB per thread, and up to 2 MiB more per thread where the threads pack the planes of
    /// a strided image together. The workspace is kept for later runs.
    pub fn workspace_bytes(&self) -> usize {
        let multi = self.0.multi.as_ref().map_or(0, MultiPlan::workspace_bytes);
        self.engine_plans().map(|it| it.memory().workspace).sum::<usize>() + multi
    }

    /// The engines' plans that exist.
    fn engine_plans(&self) -> impl Iterator<Item = &EnginePlan> {
        let taken = self.0.fallback.as_ref().and_then(|fallback| fallback.taken.get()?.1.as_ref().ok());
        self.0.first.iter().map(|first| &**first).chain(taken)
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a buffer of the wrong length, or the device's
    /// failure. The output is then untouched.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.run_inside(input, output)
    }

    /// [`Conv2dPlan::run`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run`].
    #[inline]
    pub(crate) fn run_inside(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        if self.0.fused.is_some() {
            return self.run_fused_inside(input, output, &mut []);
        }
        let result = self.run_unrecorded(input, output);
        self.0.recorded.write("plan_execute", &result);
        result
    }

    /// Runs it, and applies its epilogue to every output. `args` are the epilogue's arguments: one for each dummy after the
    /// value, the channel and the position, in their order. [`Conv2dPlan::run`] is for an epilogue without any.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names the argument: a wrong number of arguments, a wrong type, an array that is too
    /// short or shares memory with the output, a buffer of another device; or a plan without an epilogue. Nothing has run then.
    /// [`Error::ContentsLost`] for a buffer that has no contents. As [`Conv2dPlan::run`] else. With a buffer among the
    /// arguments, a plan of `auto` does not fall back to the CPU.
    pub fn run_fused(&self, input: &[f32], output: &mut [f32], args: &mut [Arg<'_>]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.run_fused_inside(input, output, args)
    }

    /// [`Conv2dPlan::run_fused`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run_fused`].
    pub(crate) fn run_fused_inside(
        &self,
        input: &[f32],
        output: &mut [f32],
        args: &mut [Arg<'_>],
    ) -> Result<Run> {
        let result = self.run_fused_unrecorded(input, output, args);
        self.0.recorded.write("plan_execute", &result);
        result
    }

    fn run_fused_unrecorded(&self, input: &[f32], output: &mut [f32], args: &mut [Arg<'_>]) -> Result<Run> {
        let PlanInner { problem, first, fallback, .. } = &*self.0;
        problem.check_data(input, output)?;
        let launch = self.bind(args)?;
        launch.check_output((output.as_ptr().addr(), size_of_val(output)), None)?;
        let owner = kernel::first_owner(&launch);
        if let Some(owner) = owner {
            // Buffers of another device are refused below.
            let (engine, plan) = self.of_owner(owner).or_else(|| self.of_any()).ok_or_else(no_engine)?;
            launch.check_owner(Device::owner(engine))?;
            let _locks = kernel::lock(&launch, &[])?;
            let timing = match problem.is_empty() {
                true => Timing::default(),
                false => plan.run_fused(input, output, &launch)?,
            };
            return Ok(Run::new(engine.shared_id(), plan.kernel().into(), timing, None));
        }
        if problem.is_empty() {
            return first.as_ref().ok_or_else(no_engine)?.run(input, output, None);
        }
        let Some(fallback) = fallback else {
            return first.as_ref().ok_or_else(no_engine)?.run_fused((input, output), &launch, None);
        };
        let (reason, cpu) = match (fallback.taken.get(), first) {
            (Some(taken), _) => taken,
            (None, None) => return Err(no_engine()),
            (None, Some(first)) => match first.run_fused((input, &mut *output), &launch, None) {
                Ok(run) => return Ok(run),
                Err(error) => fallback.take(problem, fall_back(first.backend(), error)?),
            },
        };
        let cpu = cpu.as_ref().map_err(Clone::clone)?;
        cpu.run_fused((input, output), &launch, Some(reason.clone()))
    }

    /// Binds the arguments of the plan's epilogue.
    ///
    /// # Errors
    /// As [`Fused::bind`]; [`Error::InvalidArgument`] if the plan has no epilogue.
    pub(super) fn bind<'a>(&self, args: &'a mut [Arg<'_>]) -> Result<Launch<'a>> {
        let missing = || Error::invalid("plan", "one without an epilogue", "a plan made with an epilogue");
        self.0.fused.as_ref().ok_or_else(missing)?.bind(args)
    }

    /// Any of its engine's plans, with the engine.
    fn of_any(&self) -> Option<(&Arc<dyn Backend>, &dyn Plan)> {
        self.engine_plans().next().map(|it| (it.backend(), it.plan()))
    }

    /// What a record says of its jobs.
    pub(super) fn recorded(&self) -> &Arc<Recorded> {
        &self.0.recorded
    }

    /// Runs it for a job, whose ticket is recorded.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run`].
    pub(super) fn run_job(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.run_unrecorded(input, output)
    }

    #[inline]
    fn run_unrecorded(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        let PlanInner { problem, first, fallback, multi, learner, .. } = &*self.0;
        problem.check_data(input, output)?;
        if let Some(multi) = multi {
            return multi.run(input, output);
        }
        let Some(fallback) = fallback else {
            let run = first.as_ref().expect("a plan has an engine or a fallback").run(input, output, None)?;
            learner.iter().for_each(|learner| learner.ran(&run));
            return Ok(run);
        };
        let (reason, cpu) = match (fallback.taken.get(), first) {
            (Some(taken), _) => taken,
            (None, None) => unreachable!("without a first engine the fallback is taken"),
            (None, Some(first)) => match first.run(input, output, None) {
                Ok(run) => {
                    learner.iter().for_each(|learner| learner.ran(&run));
                    return Ok(run);
                }
                Err(error) => fallback.take(problem, fall_back(first.backend(), error)?),
            },
        };
        cpu.as_ref().map_err(Clone::clone)?.run(input, output, Some(reason.clone()))
    }
}

impl CpuFallback {
    /// With copies of the weights.
    ///
    /// # Errors
    /// Out of memory.
    fn new(
        cpu: &Arc<dyn Backend>,
        weights: &[f32],
        bias: Option<&[f32]>,
        fused: Option<&Fused>,
    ) -> Result<Self> {
        Ok(CpuFallback {
            cpu: cpu.clone(),
            fused: fused.cloned(),
            weights: allocate::copied(weights, "a copy of the weights")?,
            bias: bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?,
            taken: OnceLock::new(),
        })
    }

    /// Switches to the CPU for good, if that has not happened yet.
    fn take(&self, problem: &Conv2d, reason: Arc<str>) -> &(Arc<str>, Result<EnginePlan>) {
        self.taken.get_or_init(|| {
            let (weights, bias) = (&self.weights[..], self.bias.as_deref());
            let plan = match &self.fused {
                Some(fused) => EnginePlan::fused(&self.cpu, problem, (weights, bias), fused),
                None => EnginePlan::new(&self.cpu, problem, weights, bias),
            };
            (reason, plan)
        })
    }
}
