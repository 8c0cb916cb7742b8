//! Winograd's algorithm for 3 x 3 kernels with stride and dilation 1 (Winograd 1980; Lavin and Gray 2016).
//!
//! Read it in the order of the data: [`form`], the mathematics; [`weights`], [`input`], [`product`] and [`output`],
//! the four steps; [`plan`], which runs them over blocks of tiles; [`choice`], which form for which problem.
//! [`vector`] and [`engine`] are the instruction sets: AVX-512 and AVX2 with FMA; elsewhere convolutions are direct.
//!
//! ```text
//! input --B^T d B--> V [f][c][tile] --\
//!                                      products, for each of alpha^2 frequencies f --> M [f][k][tile] --A^T t A--> output
//! weights --G g G^T--> U [f][k][c] ---/
//! ```
//!
//! In all of these a vector holds channels, so that transforms are additions of whole vectors. The images' own
//! order, pixels side by side, is met only at both ends, by transposes in registers.
//!
//! The bits of a result do not depend on the number of threads: sums run over all channels upwards, and each tile
//! is transformed on its own.

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
use super::isa::Isa;
use super::pool::Team;
use crate::backend::Plan;
use crate::config::config;
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Conv2d, winograd};
use crate::report::Timing;
use blocks::ByBlocks;
use engine::Engine;
use form::{F2, F4, F6, Form};
use once::Once;
use plan::WinogradPlan;

pub use blocks::clear;
pub use choice::Choice;

/// What a convolution is given: weights and bias.
type Given<'a> = (&'a [f32], Option<&'a [f32]>);

/// A plan, if the problem is to be computed by Winograd's algorithm.
///
/// # Errors
/// [`Error::Unsupported`] if the problem asks for it, but it cannot be done. Out of memory.
pub fn plan(isa: Isa, problem: &Conv2d, given: Given) -> Result<Option<Box<dyn Plan>>> {
    if !possible(isa, problem)? {
        return Ok(None);
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => plan_with(engine, problem, given),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => plan_with(engine, problem, given),
        Isa::Portable(_) => Ok(None),
    }
}

/// Computes the problem, if that is to be done by Winograd's algorithm; gives the kernel's name.
///
/// # Errors
/// As [`plan`]; the output is untouched then.
pub fn once(
    isa: Isa,
    problem: &Conv2d,
    given: Given,
    input: &[f32],
    output: &mut [f32],
) -> Result<Option<(&'static str, Timing)>> {
    if !possible(isa, problem)? {
        return Ok(None);
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => once_with(engine, problem, given, input, output),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => once_with(engine, problem, given, input, output),
        Isa::Portable(_) => Ok(None),
    }
}

/// Whether there are forms and kernels for the problem.
///
/// # Errors
/// [`Error::Unsupported`] if there are not, but the problem asks for them.
fn possible(isa: Isa, problem: &Conv2d) -> Result<bool> {
    let lacking = if !winograd::is_supported(problem.sizes()) {
        "Winograd's algorithm but for 3x3 kernels, stride 1 and dilation 1"
    } else if matches!(isa, Isa::Portable(_)) {
        "Winograd's algorithm without AVX-512 or AVX2 and FMA"
    } else {
        return Ok(true);
    };
    match problem.algorithm() {
        Algorithm::Winograd => Err(Error::Unsupported { device: "cpu".into(), what: lacking.into() }),
        Algorithm::Auto | Algorithm::Direct => Ok(false),
    }
}

fn choose<E: Engine>(problem: &Conv2d) -> Option<Choice> {
    let algorithm = match (problem.algorithm(), config().algorithm) {
        (Algorithm::Auto, Some(preferred)) => preferred,
        (asked, _) => asked,
    };
    choice::choose(&described().caches, problem, algorithm, E::LANES)
}

/// The forms that could compute `problem` for `auto`, with their kernels' names, the fastest by prediction first.
pub fn candidates(isa: Isa, problem: &Conv2d) -> Vec<(&'static str, Choice)> {
    fn named<E: Engine>(_: E, problem: &Conv2d) -> Vec<(&'static str, Choice)> {
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

/// A plan of one of [`candidates`].
///
/// # Errors
/// Out of memory.
pub fn build(isa: Isa, form: Choice, problem: &Conv2d, given: Given) -> Result<Box<dyn Plan>> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => form_plan(engine, form, problem, given),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => form_plan(engine, form, problem, given),
        Isa::Portable(_) => unreachable!("candidates() has none"),
    }
}

fn name<E: Engine>(form: Choice) -> &'static str {
    let [f2, f4, f6] = E::NAMES;
    match form {
        Choice::F2 => f2,
        Choice::F4 => f4,
        Choice::F6 => f6,
    }
}

fn plan_with<E: Engine>(engine: E, problem: &Conv2d, given: Given) -> Result<Option<Box<dyn Plan>>> {
    choose::<E>(problem).map(|form| form_plan(engine, form, problem, given)).transpose()
}

fn form_plan<E: Engine>(engine: E, form: Choice, problem: &Conv2d, given: Given) -> Result<Box<dyn Plan>> {
    fn make<E: Engine, F: Form>(
        engine: E,
        name: &'static str,
        problem: &Conv2d,
        given: Given,
    ) -> Result<Box<dyn Plan>> {
        let mut team = Team::for_work(F::preparation(problem))?;
        Ok(Box::new(WinogradPlan::<E, F>::new(engine, name, problem, given, &mut team)?))
    }
    let name = name::<E>(form);
    match form {
        Choice::F2 => make::<E, F2>(engine, name, problem, given),
        Choice::F4 => make::<E, F4>(engine, name, problem, given),
        Choice::F6 => make::<E, F6>(engine, name, problem, given),
    }
}

fn once_with<E: Engine>(
    engine: E,
    problem: &Conv2d,
    (weights, bias): Given,
    input: &[f32],
    output: &mut [f32],
) -> Result<Option<(&'static str, Timing)>> {
    let Some(form) = choose::<E>(problem) else { return Ok(None) };
    let timing = match form {
        Choice::F2 => Once::<E, F2>::new(engine, problem, (weights, bias))?.execute_timed(input, output)?,
        Choice::F4 => Once::<E, F4>::new(engine, problem, (weights, bias))?.execute_timed(input, output)?,
        Choice::F6 => Once::<E, F6>::new(engine, problem, (weights, bias))?.execute_timed(input, output)?,
    };
    Ok(Some((name::<E>(form), timing)))
}
