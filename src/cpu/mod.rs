//! Layer 5: the CPU engine.
//!
//! Read it from the inside out: [`kernels`], the register tile; [`block`], the loops around it; [`pack`] and
//! [`im2col`], which bring data into the order these read; [`gemm`] and [`conv2d`], which cut a problem into
//! tasks; [`pool`], which runs them. [`winograd`] is the other algorithm for 3 x 3 kernels, with a kernel of its own.
//! [`crate::memory::blocking`] plans the direct path's block sizes, [`isa`] knows which kernels this
//! CPU can run.
//!
//! The engine adds in fp32, in an order that depends on the problem alone: the same bits at any number of
//! threads. It leaves the floating-point mode as it finds it, and treats NaN, infinity and denormals as IEEE
//! 754 asks.

mod block;
mod buffer;
mod caches;
mod calibrate;
mod conv2d;
mod gemm;
mod im2col;
mod isa;
mod kernels;
mod pack;
mod pool;
mod process_lock;
#[cfg(test)]
mod tests;
mod winograd;

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::backend::{Backend, Plan};
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::blocking::{Blocking, Products, Ukernel};
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;
use buffer::{Buffer, Lent};
use isa::{Isa, with_kernel};
use kernels::Kernel;
use pool::Team;

pub use pool::{num_threads, set_num_threads};

/// The CPU engine.
pub struct Engine;

/// The engine; there is one a process.
pub fn open() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| Arc::new(Engine)).clone()
}

/// Name and facts of this CPU, for `sparkle info`.
pub fn describe() -> (String, Vec<(&'static str, String)>) {
    let kernels = with_kernel!(Isa::best(), kernel => names(kernel));
    let facts = vec![
        ("features", isa::features().join(" ")),
        ("kernels", kernels),
        ("threads", num_threads().to_string()),
    ];
    (isa::model(), facts)
}

fn names<K: Kernel>(_: K) -> String {
    format!("{} {}", K::SGEMM, K::CONV)
}

/// How a problem is cut for this CPU and a kernel.
fn plan<K: Kernel>(_: K, problem: impl Into<Products>, threads: usize) -> Blocking {
    Blocking::plan(caches::caches(), Ukernel { mr: K::MR, nr: K::NR }, problem, threads)
}

/// Ends the pool once no call uses it; the next call starts another.
pub fn shutdown() {
    pool::shutdown();
    buffer::clear(&SHARED);
    winograd::clear();
}

thread_local! {
    /// Packed rows of A, kept by a thread that calls sgemm.
    static SHARED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

fn sgemm<K: Kernel>(
    kernel: K,
    problem: &Gemm,
    (a, b): (&[f32], &[f32]),
    c: &mut [f32],
) -> Result<(&'static str, Timing)> {
    let start = Instant::now();
    // All memory first, so that C is untouched if there is none.
    let mut team = Team::for_work(problem.flops())?;
    let mut shared =
        Lent::take(&SHARED, if problem.is_scaling() { 0 } else { gemm::shared_len(kernel, problem) })?;
    let computing = Instant::now();
    gemm::run(kernel, &mut team, problem, (a, b), c, &mut shared)?;
    let timing = Timing { kernel: computing.elapsed(), wall: start.elapsed(), dispatches: 1 };
    Ok((K::SGEMM, timing))
}

impl Backend for Engine {
    fn id(&self) -> &str {
        "cpu"
    }

    fn hierarchy(&self) -> Result<Hierarchy> {
        calibrate::hierarchy()
    }

    fn plan_conv2d(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        if let Some(plan) = winograd::plan(Isa::best(), problem, (weights, bias))? {
            return Ok(plan);
        }
        with_kernel!(Isa::best(), kernel => {
            Ok(Box::new(conv2d::ConvPlan::new(kernel, problem, weights, bias)?))
        })
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
        if let Some(product) = conv2d::as_product(problem) {
            let (kernel, timing) = self.sgemm(&product, weights, input, output)?;
            return Ok((kernel.into(), timing));
        }
        let plan = self.plan_conv2d(problem, weights, bias)?;
        let timing = plan.run(input, output)?;
        Ok((plan.kernel().into(), timing))
    }

    fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(&'static str, Timing)> {
        with_kernel!(Isa::best(), kernel => sgemm(kernel, problem, (a, b), c))
    }
}
