//! A plan on one engine.

use std::sync::Arc;

use super::call;
use crate::backend::{Backend, Memory, Plan, Recipe, Run};
use crate::error::Result;
use crate::kernel::bind::Launch;
use crate::kernel::fused::Fused;
use crate::problem::Conv2d;

/// A plan of one engine, with the names for its runs.
pub struct EnginePlan {
    backend: Arc<dyn Backend>,
    device: Arc<str>,
    kernel: Arc<str>,
    /// Whether its runs go through the engine's queue of calls.
    streams: bool,
    plan: Box<dyn Plan>,
}

impl EnginePlan {
    /// A plan on `backend`.
    ///
    /// # Errors
    /// The device's failure.
    pub fn new(
        backend: &Arc<dyn Backend>,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Ok(EnginePlan::with_plan(backend, backend.plan_conv2d(problem, weights, bias)?))
    }

    /// A plan on `backend` that applies an epilogue.
    ///
    /// # Errors
    /// As [`Backend::plan_fused`].
    pub fn fused(
        backend: &Arc<dyn Backend>,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        epilogue: &Fused,
    ) -> Result<Self> {
        Ok(EnginePlan::with_plan(backend, backend.plan_fused(problem, weights, bias, epilogue)?))
    }

    /// Runs it with the epilogue that it was made for.
    ///
    /// # Errors
    /// As [`Plan::run_fused`].
    pub fn run_fused(
        &self,
        (input, output): (&[f32], &mut [f32]),
        epilogue: &Launch<'_>,
        fallback: Option<Arc<str>>,
    ) -> Result<Run> {
        let timing = self.plan.run_fused(input, output, epilogue)?;
        Ok(Run::new(self.device.clone(), self.kernel.clone(), timing, fallback))
    }

    /// A plan that was made by `backend`.
    pub fn with_plan(backend: &Arc<dyn Backend>, plan: Box<dyn Plan>) -> Self {
        let kernel = plan.kernel().into();
        let streams = plan.streams();
        EnginePlan { backend: backend.clone(), device: backend.id().into(), kernel, streams, plan }
    }

    /// The engine.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The engine's plan.
    pub fn plan(&self) -> &dyn Plan {
        &*self.plan
    }

    /// The engine's selector.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The recipe of its jobs; `None` if they cannot go through the engine's queue.
    pub fn recipe(&self) -> Option<&Arc<Recipe>> {
        self.plan.recipe()
    }

    /// The memory that it takes.
    pub fn memory(&self) -> Memory {
        self.plan.memory()
    }

    /// Runs it.
    ///
    /// # Errors
    /// The device's failure; the output is then untouched.
    pub fn run(&self, input: &[f32], output: &mut [f32], fallback: Option<Arc<str>>) -> Result<Run> {
        if self.streams
            && let Some(recipe) = self.plan.recipe()
        {
            let run = call::run(&self.backend, recipe, None, input, output)?;
            return Ok(Run { fallback: fallback.or(run.fallback), ..run });
        }
        let timing = self.plan.run(input, output)?;
        Ok(Run::new(self.device.clone(), self.kernel.clone(), timing, fallback))
    }
}
