//! The five patterns switched off one by one: the CPU's side of `sparkle patterns`.
//!
//! Only the program and tests use this folder, through [`crate::patterns`], under the feature `patterns`. It wraps the
//! engine's kernels and loops, and touches its callers' buffers, the threads' workspaces and memory of its own.
//!
//! | file | what |
//! | --- | --- |
//! | `vector` | registers that are accessed element by element, and without prefetches |
//! | `untiled` | one row times one vector |
//! | `families` | the kernels of each instruction set without vectors, without prefetches |
//! | `kernels` | kernels that are switched at run time |
//! | `convolution`, `product` | cells |
//!
//! What is off in a cell ([`Pattern::off`]):
//!
//! * **T** `untiled`, and a plan for caches that hold everything. Its halves go alone.
//! * **V** all accesses of operands and results, packing included, are of 4 bytes. Broadcasts of A are that anyway.
//! * **P** no prefetch instruction names memory that is read later. Hardware prefetchers stay on.
//! * **L** the im2col matrix is written, and a 1x1 convolution reads it.
//! * **O** an operand is packed before it is computed with, not meanwhile.

#[cfg(target_arch = "x86_64")]
mod convolution;
#[cfg(target_arch = "x86_64")]
mod families;
#[cfg(target_arch = "x86_64")]
mod kernels;
#[cfg(target_arch = "x86_64")]
mod product;
#[cfg(target_arch = "x86_64")]
mod untiled;
#[cfg(target_arch = "x86_64")]
mod vector;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::isa::{self, Isa, with_kernel};
use super::pool::Team;
use super::{caches, direct, peak, product as products};
use crate::backend::Plan;
use crate::error::{Error, Result};
use crate::memory::Caches;
#[cfg(doc)]
use crate::memory::patterns::Pattern;
use crate::memory::patterns::{Cell, Requests};
use crate::problem::{Conv2d, Gemm};

/// What a cell computes.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// A convolution whose weights are packed beforehand.
    Prepared(Conv2d),
    /// A convolution that packs its weights in each run.
    Given(Conv2d),
    /// A matrix product. A takes the place of the weights, B that of the input.
    Product(Gemm),
}

/// Something that is ready to compute.
pub trait Computes: Send + Sync {
    /// Computes, and returns the time that it took.
    ///
    /// # Errors
    /// Out of memory; if a task panicked.
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Duration>;
}

/// A cell of `work`. Lengths are those of the problem.
///
/// # Errors
/// [`Error::Unsupported`] on a CPU whose kernels have no vectors to switch off; out of memory.
pub fn prepare(work: &Work, cell: Cell, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Computes>> {
    prepare_with(Isa::best(), work, cell, weights, bias)
}

/// The instruction sets of this CPU that cells may use, the one in use first.
pub fn isas() -> Vec<&'static str> {
    let best = Isa::best().name();
    let others = ["avx512", "avx2"].into_iter().filter(|&name| name != best && Isa::named(name).is_some());
    let mut names: Vec<_> = std::iter::once(best).chain(others).collect();
    names.retain(|&name| name != "portable");
    names
}

/// [`prepare`] with a named instruction set.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_named(
    isa: &str,
    work: &Work,
    cell: Cell,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Computes>> {
    prepare_with(Isa::named(isa).ok_or_else(|| unsupported(isa))?, work, cell, weights, bias)
}

fn unsupported(isa: &str) -> Error {
    let what = format!("kernels of {isa} with patterns switched off; expected AVX2 or AVX-512");
    Error::Unsupported { device: "cpu".to_owned(), what }
}

fn prepare_with(
    isa: Isa,
    work: &Work,
    cell: Cell,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Computes>> {
    if let Work::Prepared(problem) | Work::Given(problem) = work {
        problem.check_weights(weights, bias)?;
        if !problem.sizes().has_plain_images() {
            return Err(unsupported("images that are not NCHW"));
        }
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(family) => cell_of(family, work, cell, weights, bias),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(family) => cell_of(family, work, cell, weights, bias),
        Isa::Portable(_) => Err(unsupported(isa.name())),
    }
}

#[cfg(target_arch = "x86_64")]
fn cell_of<F: families::Family>(
    family: F,
    work: &Work,
    cell: Cell,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Computes>> {
    match work {
        Work::Prepared(problem) => convolution::prepare(family, (problem, false), cell, (weights, bias)),
        Work::Given(problem) => convolution::prepare(family, (problem, true), cell, (weights, bias)),
        Work::Product(problem) => Ok(product::prepare(family, problem, cell, weights)),
    }
}

/// What is on in a cell besides tiling.
#[cfg(target_arch = "x86_64")]
fn switches(cell: Cell) -> families::Switches {
    use crate::memory::patterns::Pattern;
    families::Switches {
        vectors: cell.patterns.has(Pattern::Vectors),
        prefetch: cell.patterns.has(Pattern::Prefetch),
        overlap: cell.patterns.has(Pattern::Overlap),
    }
}

/// The register tile of a cell.
pub fn tile(cell: Cell) -> Requests {
    use crate::cpu::kernels::Kernel;
    use crate::memory::patterns::Half;
    fn of<K: Kernel>(_: K, tiled: bool) -> Requests {
        if tiled { Requests { rows: K::MR, cols: K::NR } } else { Requests { rows: 1, cols: K::LANES } }
    }
    with_kernel!(Isa::best(), kernel => of(kernel, cell.tiles(Half::Registers)))
}

/// The product's own way to compute `work` with the direct algorithm.
///
/// # Errors
/// Out of memory.
pub fn product(work: &Work, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Computes>> {
    let (given, own) = ((weights.to_vec(), bias.map(<[f32]>::to_vec)), *work);
    match work {
        Work::Prepared(problem) => {
            Ok(Box::new(ProductPlan(direct::plan(Isa::best(), problem, weights, bias)?)))
        }
        Work::Given(_) | Work::Product(_) => Ok(Box::new(ProductCall { work: own, given })),
    }
}

struct ProductPlan(Box<dyn Plan>);

impl Computes for ProductPlan {
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Duration> {
        Ok(self.0.run(input, output)?.kernel)
    }
}

struct ProductCall {
    work: Work,
    given: (Vec<f32>, Option<Vec<f32>>),
}

impl Computes for ProductCall {
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Duration> {
        let (weights, bias) = (&self.given.0[..], self.given.1.as_deref());
        let timing = match &self.work {
            Work::Prepared(problem) | Work::Given(problem) => {
                direct::once(Isa::best(), problem, (weights, bias), input, output)?.1
            }
            Work::Product(problem) => {
                with_kernel!(Isa::best(), kernel => products::sgemm(kernel, problem, (weights, input), output))?
            }
        };
        Ok(timing.kernel)
    }
}

/// Operations a second that all threads reach at this moment on registers alone, with the instruction set in use.
///
/// # Errors
/// Out of memory.
pub fn ceiling() -> Result<f64> {
    /// Runs of 50 microseconds each.
    const RUNS: usize = 20;
    let (mut team, operations) = (Team::shared()?, AtomicU64::new(0));
    let threads = team.size();
    let start = Instant::now();
    team.run(threads, |_, _| {
        let done: u64 = (0..RUNS).map(|_| peak::run(Isa::best().name())).sum();
        operations.fetch_add(done, Ordering::Relaxed);
    })?;
    Ok(operations.into_inner() as f64 / start.elapsed().as_secs_f64().max(1e-9))
}

/// This CPU's model, the instruction set in use, and the caches as described.
pub fn machine() -> (&'static str, &'static str, Caches) {
    (isa::model(), Isa::best().name(), caches::described().caches)
}
