//! A convolution prepared on a device, with a CPU fallback if `auto` chose the device.

use std::sync::{Arc, OnceLock};

use super::Device;
use super::choice::PlanLearner;
use super::engine_plan::EnginePlan;
use super::multi::{Multi, MultiPlan};
use super::predict::fall_back;
use crate::allocate;
use crate::backend::{Backend, FallbackFn, Memory, Plan, Recipe, Run};
use crate::error::Result;
use crate::float_env::FloatEnv;
use crate::problem::Conv2d;
use crate::report::Timing;

/// The kernel's name for an empty batch.
pub(super) const NO_KERNEL: &str = "none";

/// A prepared convolution. Any number of threads may run it at once. Cheap to clone.
#[derive(Clone)]
pub struct Conv2dPlan(Arc<PlanInner>);

struct PlanInner {
    problem: Conv2d,
    /// The plan on the chosen engine; `None` if that engine failed to make one.
    first: Option<Arc<EnginePlan>>,
    fallback: Option<CpuFallback>,
    /// The plan on several devices; without `first` and `fallback`.
    multi: Option<MultiPlan>,
    /// Measures the first runs, if `auto` learns from them.
    learner: Option<PlanLearner>,
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

/// What the CPU needs to replace the GPU after a failure.
struct CpuFallback {
    cpu: Arc<dyn Backend>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// Set once the GPU has failed: the reason, and the CPU's plan.
    taken: OnceLock<(Arc<str>, Result<EnginePlan>)>,
}

impl PlanInner {
    fn of(problem: &Conv2d, first: Option<Arc<EnginePlan>>, fallback: Option<CpuFallback>) -> Self {
        PlanInner { problem: *problem, first, fallback, multi: None, learner: None }
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
        Ok(Conv2dPlan(Arc::new(PlanInner { multi, ..PlanInner::of(problem, None, None) })))
    }

    /// A plan on `backend`, without fallback.
    pub(super) fn fixed(
        backend: &Arc<dyn Backend>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Ok(Conv2dPlan::on_engine(problem, Arc::new(EnginePlan::new(backend, problem, weights, bias)?)))
    }

    /// A plan for an empty batch. Its runs name `backend` as their device.
    pub(super) fn empty_batch(backend: &Arc<dyn Backend>, problem: &Conv2d) -> Self {
        Conv2dPlan::on_engine(problem, Arc::new(EnginePlan::with_plan(backend, Box::new(EmptyBatchPlan))))
    }

    /// A plan that runs `plan`, which was made for `problem`, without fallback.
    pub(super) fn on_engine(problem: &Conv2d, plan: Arc<EnginePlan>) -> Self {
        Conv2dPlan(Arc::new(PlanInner::of(problem, Some(plan), None)))
    }

    /// The plan on several devices, if this is one.
    pub(super) fn of_several(&self) -> Option<&MultiPlan> {
        self.0.multi.as_ref()
    }

    /// A plan on `gpu` that falls back to `cpu` when the GPU fails.
    pub(super) fn with_fallback(
        gpu: &Arc<dyn Backend>,
        cpu: &Arc<dyn Backend>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let fallback = CpuFallback {
            cpu: cpu.clone(),
            weights: allocate::copied(weights, "a copy of the weights")?,
            bias: bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?,
            taken: OnceLock::new(),
        };
        let first = match EnginePlan::new(gpu, problem, weights, bias) {
            Ok(first) => Some(Arc::new(first)),
            Err(error) => {
                fallback.take(problem, fall_back(gpu, error)?);
                None
            }
        };
        Ok(Conv2dPlan(Arc::new(PlanInner::of(problem, first, Some(fallback)))))
    }

    /// The same plan, whose first runs `learner` measures. For a plan without clones.
    pub(super) fn learning(mut self, learner: PlanLearner) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.learner = Some(learner);
        }
        self
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
        let PlanInner { problem, first, fallback, multi, learner } = &*self.0;
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
    /// Switches to the CPU for good, if that has not happened yet.
    fn take(&self, problem: &Conv2d, reason: Arc<str>) -> &(Arc<str>, Result<EnginePlan>) {
        self.taken.get_or_init(|| {
            (reason, EnginePlan::new(&self.cpu, problem, &self.weights, self.bias.as_deref()))
        })
    }
}
