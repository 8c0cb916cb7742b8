//! Winograd's algorithm on the CPU, for 3 x 3 kernels with stride and dilation 1 (Winograd 1980; Lavin and Gray 2016).
//! Only `cpu` calls it. It uses the thread pool and the buffers of `cpu`, and the planner `memory::winograd`.
//!
//! The modules in the order of the data: [`form`] is the mathematics. [`weights`], [`input`], [`product`] and
//! [`output`] are the four steps. [`blocks`] runs them over blocks of tiles, for [`mod@plan`] and [`mod@once`]. [`choice`]
//! selects the form. [`vector`] and [`engine`] are the instruction sets, AVX-512 and AVX2 with FMA. Other CPUs use the
//! direct algorithm.
//!
//! ```text
//! input --B^T d B--> V [f][c][tile] --\
//!                                      products, for each of alpha^2 frequencies f --> M [f][k][tile] --A^T t A--> output
//! weights --G g G^T--> U [f][k][c] ---/
//! ```
//!
//! A vector holds channels, so transforms are additions of whole vectors. Images hold pixels side by side; transposes
//! in registers convert between the two orders at both ends.
//!
//! The bits of a result do not depend on the number of threads: sums run over the channels in ascending order, and
//! each tile is transformed by itself.

mod blocks;
mod choice;
mod engine;
mod form;
mod geometry;
mod input;
mod once;
mod output;
mod output_job;
mod plan;
mod product;
mod recompute;
mod steps;
#[cfg(test)]
mod tests;
mod vector;
mod weights;

use super::caches::described;
use super::channels_last::ordered;
use super::isa::Isa;
use super::pool::Team;
use crate::backend::Plan;
use crate::config::config;
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Conv2d, winograd};
use crate::report::Timing;
use blocks::ByBlocks;
use engine::WinogradKernel;
use form::{F2, F4, F6, Form};
use once::Once;
use plan::WinogradPlan;

pub use blocks::clear;
pub use choice::FormChoice;

/// The weights and the bias of a convolution.
type WeightsAndBias<'a> = (&'a [f32], Option<&'a [f32]>);

/// A plan for `problem`, or `None` if the direct algorithm is the better choice.
///
/// # Errors
/// [`Error::Unsupported`] if the problem asks for Winograd's algorithm, but it does not apply. Out of memory.
pub fn plan(isa: Isa, problem: &Conv2d, parameters: WeightsAndBias) -> Result<Option<Box<dyn Plan>>> {
    if !possible(isa, problem)? {
        return Ok(None);
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => plan_with(engine, problem, parameters),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => plan_with(engine, problem, parameters),
        Isa::Portable(_) => Ok(None),
    }
}

/// Computes `problem` and returns the kernel's name; `None` if the direct algorithm is the better choice.
///
/// # Errors
/// As [`plan`]. The output is untouched then.
pub fn once(
    isa: Isa,
    problem: &Conv2d,
    parameters: WeightsAndBias,
    input: &[f32],
    output: &mut [f32],
) -> Result<Option<(&'static str, Timing)>> {
    if !possible(isa, problem)? {
        return Ok(None);
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => once_with(engine, problem, parameters, input, output),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => once_with(engine, problem, parameters, input, output),
        Isa::Portable(_) => Ok(None),
    }
}

/// Whether Winograd's algorithm supports the problem and this CPU has kernels for it.
///
/// # Errors
/// [`Error::Unsupported`] if not, and the problem asks for Winograd's algorithm.
fn possible(isa: Isa, problem: &Conv2d) -> Result<bool> {
    let missing = if !winograd::is_supported(problem.sizes()) {
        "Winograd's algorithm for anything but 3x3 kernels with stride 1 and dilation 1"
    } else if matches!(isa, Isa::Portable(_)) {
        "Winograd's algorithm without AVX-512 or AVX2 and FMA"
    } else {
        return Ok(true);
    };
    match problem.algorithm() {
        Algorithm::Winograd => Err(Error::Unsupported { device: "cpu".into(), what: missing.into() }),
        Algorithm::Auto | Algorithm::Direct => Ok(false),
    }
}

fn choose<E: WinogradKernel>(problem: &Conv2d) -> Option<FormChoice> {
    let algorithm = match (problem.algorithm(), config().algorithm) {
        (Algorithm::Auto, Some(preferred)) => preferred,
        (asked, _) => asked,
    };
    choice::choose(&described().caches, problem, algorithm, E::LANES)
}

/// The forms that `auto` may use for `problem`, with the names of their kernels, sorted by predicted time.
pub fn candidates(isa: Isa, problem: &Conv2d) -> Vec<(&'static str, FormChoice)> {
    fn named<E: WinogradKernel>(_: E, problem: &Conv2d) -> Vec<(&'static str, FormChoice)> {
        let permitted = choice::permitted(&described().caches, problem, E::LANES);
        permitted.into_iter().map(|form| (name::<E>(form), form)).collect()
    }
    if !winograd::is_supported(problem.sizes()) {
        return vec![];
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => named(engine, problem),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => named(engine, problem),
        Isa::Portable(_) => vec![],
    }
}

/// A plan with one of the [`candidates`].
///
/// # Errors
/// Out of memory.
pub fn build(
    isa: Isa,
    form: FormChoice,
    problem: &Conv2d,
    parameters: WeightsAndBias,
) -> Result<Box<dyn Plan>> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => form_plan(engine, form, problem, parameters),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => form_plan(engine, form, problem, parameters),
        Isa::Portable(_) => unreachable!("candidates() returns none"),
    }
}

fn name<E: WinogradKernel>(form: FormChoice) -> &'static str {
    let [f2, f4, f6] = E::NAMES;
    match form {
        FormChoice::F2 => f2,
        FormChoice::F4 => f4,
        FormChoice::F6 => f6,
    }
}

fn plan_with<E: WinogradKernel>(
    engine: E,
    problem: &Conv2d,
    parameters: WeightsAndBias,
) -> Result<Option<Box<dyn Plan>>> {
    choose::<E>(problem).map(|form| form_plan(engine, form, problem, parameters)).transpose()
}

fn form_plan<E: WinogradKernel>(
    engine: E,
    form: FormChoice,
    problem: &Conv2d,
    parameters: WeightsAndBias,
) -> Result<Box<dyn Plan>> {
    let ordered = ordered(problem, parameters.0)?;
    let parameters = (ordered.as_deref().unwrap_or(parameters.0), parameters.1);
    fn make<E: WinogradKernel, F: Form>(
        engine: E,
        name: &'static str,
        problem: &Conv2d,
        parameters: WeightsAndBias,
    ) -> Result<Box<dyn Plan>> {
        let mut team = Team::for_work(F::preparation(problem))?;
        Ok(Box::new(WinogradPlan::<E, F>::new(engine, name, problem, parameters, &mut team)?))
    }
    let name = name::<E>(form);
    match form {
        FormChoice::F2 => make::<E, F2>(engine, name, problem, parameters),
        FormChoice::F4 => make::<E, F4>(engine, name, problem, parameters),
        FormChoice::F6 => make::<E, F6>(engine, name, problem, parameters),
    }
}

fn once_with<E: WinogradKernel>(
    engine: E,
    problem: &Conv2d,
    parameters: WeightsAndBias,
    input: &[f32],
    output: &mut [f32],
) -> Result<Option<(&'static str, Timing)>> {
    let Some(form) = choose::<E>(problem) else { return Ok(None) };
    let ordered = ordered(problem, parameters.0)?;
    let parameters = (ordered.as_deref().unwrap_or(parameters.0), parameters.1);
    let timing = match form {
        FormChoice::F2 => Once::<E, F2>::new(engine, problem, parameters)?.execute_timed(input, output)?,
        FormChoice::F4 => Once::<E, F4>::new(engine, problem, parameters)?.execute_timed(input, output)?,
        FormChoice::F6 => Once::<E, F6>::new(engine, problem, parameters)?.execute_timed(input, output)?,
    };
    Ok(Some((name::<E>(form), timing)))
}
