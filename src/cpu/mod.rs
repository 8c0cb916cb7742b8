//! Layer 5: the CPU engine.
//!
//! Read it from the inside out: [`kernels`], the register tile; [`block`], the loops around it; [`pack`] and
//! [`im2col`], which bring data into the order these read; [`gemm`] and [`conv2d`], which cut a problem into
//! tasks; [`pool`], which runs them. [`direct`] chooses among [`conv2d`], [`depthwise`] and [`deep`]. [`winograd`] is the other algorithm for 3 x 3 kernels, with a kernel of its own.
//! [`crate::memory::blocking`] plans the direct path's block sizes, [`isa`] knows which kernels this
//! CPU can run.
//!
//! The engine adds in fp32, in an order that depends on the problem alone: the same bits at any number of
//! threads. It runs in the library's floating-point environment ([`crate::float_env`]) and treats NaN, infinity and
//! denormals as IEEE 754 asks (`docs/numbers.md`).

mod block;
mod buffer;
mod caches;
mod calibrate;
mod confirm;
mod conv2d;
mod crew;
mod deep;
mod depthwise;
mod direct;
mod gemm;
mod im2col;
mod isa;
mod kernels;
mod pack;
mod peak;
mod pool;
mod process_lock;
#[cfg(test)]
mod special_values;
#[cfg(test)]
mod tests;
mod views;
mod winograd;

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::backend::{Backend, Plan};
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::blocking::{Blocking, Products, Ukernel};
use crate::memory::tile::register_tiles;
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
    let (names, tile) = with_kernel!(Isa::best(), kernel => (names(kernel), tile(kernel)));
    let mut facts = vec![
        ("features", isa::features().join(" ")),
        ("kernels", names),
        ("register tile", tile),
        ("caches", caches::words(&caches::described().caches)),
        ("threads", num_threads().to_string()),
    ];
    // A list of devices is no reason to measure.
    facts.extend(calibrate::known(num_threads()).map(|measured| ("measured", rates(&measured))));
    (isa::model().to_owned(), facts)
}

/// A kernel's tile beside the model's best.
fn tile<K: Kernel>(_: K) -> String {
    let registers = caches::described().registers;
    let tiles = register_tiles(registers);
    let mine = tiles.iter().find(|tile| (tile.mr, tile.nr) == (K::MR, K::NR));
    match (mine, tiles.first()) {
        (Some(mine), Some(best)) => format!(
            "{}x{} of {} registers of {}: {:.2} multiply-adds a load, at most {:.2} ({}x{})",
            K::MR,
            K::NR,
            registers.count,
            registers.lanes,
            mine.reuse,
            best.reuse,
            best.mr,
            best.nr
        ),
        _ => format!("{}x{}", K::MR, K::NR),
    }
}

/// What was measured, in words; levels that were not are left out.
fn rates(measured: &Hierarchy) -> String {
    let Hierarchy { peak, flops, l2, l3, memory, .. } = *measured;
    [
        ("GFLOPS a thread in registers", peak),
        ("GFLOPS in products", flops),
        ("GB/s a thread in level 2", l2),
        ("GB/s a thread in level 3", l3),
        ("GB/s of memory", memory),
    ]
    .into_iter()
    .filter(|&(_, rate)| rate > 0.0)
    .map(|(what, rate)| format!("{:.0} {what}", rate / 1e9))
    .collect::<Vec<_>>()
    .join(", ")
}

fn names<K: Kernel>(_: K) -> String {
    format!("{} {}", K::SGEMM, K::CONV)
}

/// How a problem is cut for this CPU and a kernel.
fn plan<K: Kernel>(_: K, problem: impl Into<Products>, threads: usize) -> Blocking {
    Blocking::plan(caches::described(), Ukernel { mr: K::MR, nr: K::NR }, problem, threads)
}

/// Ends the pool once no call uses it; the next call starts another.
pub fn shutdown() {
    pool::shutdown();
    clear();
}

/// Frees what the calling thread keeps between calls.
fn clear() {
    buffer::clear(&SHARED);
    winograd::clear();
    conv2d::clear();
}

/// Notes the calling thread's destructors now, which takes the dynamic loader's lock: its calls need no such lock later.
pub fn prepare_thread() {
    clear();
    pool::clear();
    direct::clear();
}

thread_local! {
    /// Packed rows of A, kept by a thread that calls sgemm.
    static SHARED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

fn sgemm_name<K: Kernel>(_: K) -> &'static str {
    K::SGEMM
}

fn sgemm<K: Kernel>(kernel: K, problem: &Gemm, (a, b): (&[f32], &[f32]), c: &mut [f32]) -> Result<Timing> {
    let start = Instant::now();
    if gemm::in_place(kernel, problem, (a, b), c) {
        // Nothing but the kernel ran; and a further look at the clock would take as long as the least products.
        let kernel = start.elapsed();
        return Ok(Timing { kernel, wall: kernel, dispatches: 1 });
    }
    // All memory first, so that C is untouched if there is none.
    let mut team = Team::for_work(problem.flops())?;
    let mut shared =
        Lent::take(&SHARED, if problem.is_scaling() { 0 } else { gemm::shared_len(kernel, problem) })?;
    let computing = Instant::now();
    gemm::run(kernel, &mut team, problem, (a, b), c, &mut shared)?;
    let end = Instant::now();
    Ok(Timing { kernel: end - computing, wall: end - start, dispatches: 1 })
}

impl Backend for Engine {
    fn id(&self) -> &str {
        "cpu"
    }

    fn shared_id(&self) -> Arc<str> {
        static ID: OnceLock<Arc<str>> = OnceLock::new();
        ID.get_or_init(|| self.id().into()).clone()
    }

    fn hierarchy(&self) -> Result<Hierarchy> {
        calibrate::hierarchy()
    }

    fn plan_conv2d(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>> {
        if let Some(plan) = confirm::plan(Isa::best(), problem, weights, bias)? {
            return Ok(plan);
        }
        if let Some(plan) = winograd::plan(Isa::best(), problem, (weights, bias))? {
            return Ok(plan);
        }
        direct::plan(Isa::best(), problem, weights, bias)
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
        if let Some(plan) = confirm::plan(Isa::best(), problem, weights, bias)? {
            let timing = plan.run(input, output)?;
            return Ok((plan.kernel().into(), timing));
        }
        direct::once(Isa::best(), problem, (weights, bias), input, output)
    }

    fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(Arc<str>, Timing)> {
        static KERNEL: OnceLock<Arc<str>> = OnceLock::new();
        with_kernel!(Isa::best(), kernel => {
            let timing = sgemm(kernel, problem, (a, b), c)?;
            Ok((KERNEL.get_or_init(|| sgemm_name(kernel).into()).clone(), timing))
        })
    }
}
