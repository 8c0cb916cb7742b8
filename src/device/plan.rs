//! A convolution prepared on a device, with the CPU behind it where the choice was ours.

use std::sync::{Arc, OnceLock};

use super::{Run, call, fall_back};
use crate::allocate;
use crate::backend::{Backend, Memory, Plan, Recipe, StandIn};
use crate::error::Result;
use crate::float_env::FloatEnv;
use crate::problem::Conv2d;
use crate::report::Timing;

/// The kernel's name where there was nothing to compute.
pub(super) const NO_KERNEL: &str = "none";

/// A prepared convolution; may be run from any number of threads at once. Cheap to clone.
#[derive(Clone)]
pub struct Conv2dPlan(Arc<Inside>);

struct Inside {
    problem: Conv2d,
    first: Option<Prepared>,
    fallback: Option<Fallback>,
}

/// An engine's plan with its names.
struct Prepared {
    backend: Arc<dyn Backend>,
    device: Arc<str>,
    kernel: Arc<str>,
    /// Whether its runs go through the engine's queue of calls.
    streams: bool,
    plan: Box<dyn Plan>,
}

/// The plan for an empty batch: no engine is asked.
struct Nothing;

impl Plan for Nothing {
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

/// What it takes to go on without the GPU.
struct Fallback {
    cpu: Arc<dyn Backend>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// Set once the GPU has failed: why, and the CPU's plan.
    taken: OnceLock<(Arc<str>, Result<Prepared>)>,
}

impl Prepared {
    fn new(
        backend: &Arc<dyn Backend>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Ok(Prepared::with_plan(backend, backend.plan_conv2d(problem, weights, bias)?))
    }

    fn with_plan(backend: &Arc<dyn Backend>, plan: Box<dyn Plan>) -> Self {
        let kernel = plan.kernel().into();
        let streams = plan.streams();
        Prepared { backend: backend.clone(), device: backend.id().into(), kernel, streams, plan }
    }

    fn run(&self, input: &[f32], output: &mut [f32], fallback: Option<Arc<str>>) -> Result<Run> {
        if self.streams
            && let Some(recipe) = self.plan.recipe()
        {
            let run = call::run(&self.backend, recipe, None, input, output)?;
            return Ok(Run { fallback: fallback.or(run.fallback), ..run });
        }
        let timing = self.plan.run(input, output)?;
        Ok(Run { device: self.device.clone(), kernel: self.kernel.clone(), timing, fallback })
    }
}

impl Conv2dPlan {
    /// A plan on `backend` alone.
    pub(super) fn fixed(
        backend: &Arc<dyn Backend>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let first = Prepared::new(backend, problem, weights, bias)?;
        Ok(Conv2dPlan(Arc::new(Inside { problem: *problem, first: Some(first), fallback: None })))
    }

    /// A plan for an empty batch, in the name of `backend`.
    pub(super) fn of_nothing(backend: &Arc<dyn Backend>, problem: &Conv2d) -> Self {
        let first = Prepared::with_plan(backend, Box::new(Nothing));
        Conv2dPlan(Arc::new(Inside { problem: *problem, first: Some(first), fallback: None }))
    }

    /// A plan on `gpu`, and on `cpu` from the moment that fails.
    pub(super) fn with_fallback(
        gpu: &Arc<dyn Backend>,
        cpu: &Arc<dyn Backend>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let fallback = Fallback {
            cpu: cpu.clone(),
            weights: allocate::copied(weights, "a copy of the weights")?,
            bias: bias.map(|bias| allocate::copied(bias, "a copy of the bias")).transpose()?,
            taken: OnceLock::new(),
        };
        let first = match Prepared::new(gpu, problem, weights, bias) {
            Ok(first) => Some(first),
            Err(error) => {
                fallback.take(problem, fall_back(gpu, error)?);
                None
            }
        };
        Ok(Conv2dPlan(Arc::new(Inside { problem: *problem, first, fallback: Some(fallback) })))
    }

    /// The convolution.
    pub fn problem(&self) -> &Conv2d {
        &self.0.problem
    }

    /// What the engine `id` can make the plan from, as long as it is this plan's engine and has not failed.
    pub(super) fn recipe_on(&self, id: &str) -> Option<&Arc<Recipe>> {
        let failed = self.0.fallback.as_ref().is_some_and(|fallback| fallback.taken.get().is_some());
        let first = self.0.first.as_ref().filter(|first| !failed && &*first.device == id)?;
        first.plan.recipe()
    }

    /// Who computes it when its engine has failed; nobody if that was asked for by name.
    pub(super) fn stand_in(&self) -> Option<StandIn> {
        self.0.fallback.as_ref()?;
        let plan = self.clone();
        Some(Arc::new(move |error, input, output| {
            let Inside { problem, first, fallback } = &*plan.0;
            let (Some(first), Some(fallback)) = (first, fallback) else { return Err(error.clone()) };
            let (reason, cpu) = fallback.take(problem, fall_back(&first.backend, error.clone())?);
            cpu.as_ref().map_err(Clone::clone)?.run(input, output, Some(reason.clone()))
        }))
    }

    /// Bytes that the plan holds as long as it lives, weights packed or uploaded; after a fallback also the CPU's. On an OpenGL
    /// device, a plan with 8 MiB or more of input and output uploads them at its first run. Each pipeline that the plan is
    /// submitted to makes a copy of the weights there, which counts as the pipeline's.
    pub fn packed_bytes(&self) -> usize {
        let copies = self.0.fallback.as_ref().map_or(0, |fallback| {
            (fallback.weights.len() + fallback.bias.as_ref().map_or(0, Vec::len)) * size_of::<f32>()
        });
        self.prepared().map(|prepared| prepared.plan.memory().packed).sum::<usize>() + copies
    }

    /// Bytes that a run works in at most, beside the caller's buffers, with the threads there are at present: for a direct
    /// algorithm on the CPU 1 MiB a thread, and at most 2 MiB more a thread where they copy the planes of a strided image
    /// together. They are kept for the runs that follow.
    pub fn workspace_bytes(&self) -> usize {
        self.prepared().map(|prepared| prepared.plan.memory().workspace).sum()
    }

    /// The engines' plans there are.
    fn prepared(&self) -> impl Iterator<Item = &Prepared> {
        let taken = self.0.fallback.as_ref().and_then(|fallback| fallback.taken.get()?.1.as_ref().ok());
        self.0.first.iter().chain(taken)
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for buffers of the wrong length; else what the device failed to do. The
    /// output is untouched then.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.run_inside(input, output)
    }

    /// [`Conv2dPlan::run`] for a caller that is in the library's floating-point environment already.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub(crate) fn run_inside(&self, input: &[f32], output: &mut [f32]) -> Result<Run> {
        let Inside { problem, first, fallback } = &*self.0;
        problem.check_data(input, output)?;
        let Some(fallback) = fallback else {
            return first.as_ref().expect("a plan has an engine or a fallback").run(input, output, None);
        };
        let (reason, cpu) = match (fallback.taken.get(), first) {
            (Some(taken), _) => taken,
            (None, None) => unreachable!("without a first engine the fallback is taken"),
            (None, Some(first)) => match first.run(input, output, None) {
                Ok(run) => return Ok(run),
                Err(error) => fallback.take(problem, fall_back(&first.backend, error)?),
            },
        };
        cpu.as_ref().map_err(Clone::clone)?.run(input, output, Some(reason.clone()))
    }
}

impl Fallback {
    fn take(&self, problem: &Conv2d, reason: Arc<str>) -> &(Arc<str>, Result<Prepared>) {
        self.taken
            .get_or_init(|| (reason, Prepared::new(&self.cpu, problem, &self.weights, self.bias.as_deref())))
    }
}
