//! The CPU backend: which algorithm plans or computes a problem.

use std::sync::{Arc, OnceLock};

use super::isa::{Isa, model, with_kernel};
use super::kernel::finish::{Channels, Finisher};
use super::kernels::Kernel;
use super::pool::num_threads;
use super::product::sgemm;
use super::resident::HostMemory;
use super::{autotune, calibrate, ceilings, direct, kernel, winograd};
use crate::backend::{Backend, EngineMemory, Memory, Plan};
use crate::error::Result;
use crate::kernel::bind::Launch;
use crate::kernel::fused::Fused;
use crate::memory::blocking::INLINE_FLOPS;
use crate::memory::{Ceilings, Hierarchy};
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;

/// The CPU engine.
pub struct Engine;

/// A plan whose outputs an epilogue finishes, if it is run with one.
struct FusedPlan {
    problem: Conv2d,
    plan: Box<dyn Plan>,
}

/// The most threads that finish outputs of a call of so many operations.
fn threads(flops: u64) -> usize {
    if flops < INLINE_FLOPS { 1 } else { num_threads() }
}

impl Plan for FusedPlan {
    fn kernel(&self) -> &str {
        self.plan.kernel()
    }

    fn memory(&self) -> Memory {
        self.plan.memory()
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        self.plan.run(input, output)
    }

    fn run_fused(&self, input: &[f32], output: &mut [f32], epilogue: &Launch<'_>) -> Result<Timing> {
        let sizes = self.problem.sizes();
        let channels = Channels::Planes(sizes.p * sizes.q, sizes.k);
        let threads = threads(self.problem.flops());
        let finisher = Finisher::new(Isa::best(), epilogue, channels, output, threads)?;
        finisher.during(|| self.plan.run(input, output))
    }
}

/// The engine. A process has one.
pub fn open() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| Arc::new(Engine)).clone()
}

fn sgemm_name<K: Kernel>(_: K) -> &'static str {
    K::SGEMM
}

impl Backend for Engine {
    fn id(&self) -> &str {
        "cpu"
    }

    fn shared_id(&self) -> Arc<str> {
        static ID: OnceLock<Arc<str>> = OnceLock::new();
        ID.get_or_init(|| self.id().into()).clone()
    }

    fn fingerprint(&self) -> String {
        format!("{}; {}; {} threads", model(), Isa::best().name(), num_threads())
    }

    fn hierarchy(&self) -> Result<Hierarchy> {
        calibrate::hierarchy()
    }

    fn ceilings(&self) -> Result<Ceilings> {
        ceilings::ceilings()
    }

    fn plan_conv2d(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        if let Some(plan) = autotune::plan(Isa::best(), problem, weights, bias)? {
            return Ok(plan);
        }
        if let Some(plan) = winograd::plan(Isa::best(), problem, (weights, bias))? {
            return Ok(plan);
        }
        direct::plan(Isa::best(), problem, weights, bias)
    }

    fn plan_fused(
        &self,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
        _epilogue: &Fused,
    ) -> Result<Box<dyn Plan>> {
        let plan = self.plan_conv2d(problem, weights, bias)?;
        Ok(Box::new(FusedPlan { problem: *problem, plan }))
    }

    fn conv2d(
        &self,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        input: &[f32],
        output: &mut [f32],
    ) -> Result<(Arc<str>, Timing)> {
        if let Some((kernel, timing)) = winograd::once(Isa::best(), problem, (weights, bias), input, output)?
        {
            return Ok((kernel.into(), timing));
        }
        if let Some(plan) = autotune::plan(Isa::best(), problem, weights, bias)? {
            let timing = plan.run(input, output)?;
            return Ok((plan.kernel().into(), timing));
        }
        direct::once(Isa::best(), problem, (weights, bias), input, output)
    }

    fn memory(&self, bytes: usize) -> Result<Box<dyn EngineMemory>> {
        Ok(Box::new(HostMemory::zeroed(bytes)?))
    }

    fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(Arc<str>, Timing)> {
        static KERNEL: OnceLock<Arc<str>> = OnceLock::new();
        with_kernel!(Isa::best(), kernel => {
            let timing = sgemm(kernel, problem, (a, b), c)?;
            Ok((KERNEL.get_or_init(|| sgemm_name(kernel).into()).clone(), timing))
        })
    }

    fn sgemm_fused(
        &self,
        problem: &Gemm,
        (a, b): (&[f32], &[f32]),
        c: &mut [f32],
        epilogue: &Launch<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let channels = Channels::of_product(problem.sizes());
        let finisher = Finisher::new(Isa::best(), epilogue, channels, c, threads(problem.flops()))?;
        finisher.during(|| self.sgemm(problem, a, b, c))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(Arc<str>, Timing)> {
        let timing = kernel::launch(Isa::best(), launch)?;
        Ok((launch.kernel().name.as_str().into(), timing))
    }
}
