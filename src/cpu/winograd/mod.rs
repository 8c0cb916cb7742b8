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

mod choice;
mod engine;
mod form;
mod geometry;
mod input;
mod output;
mod plan;
mod product;
#[cfg(test)]
mod tests;
mod vector;
mod weights;

use super::isa::Isa;
use crate::backend::Plan;
use crate::config::config;
use crate::error::{Error, Result};
use crate::problem::{Algorithm, Conv2d};
use engine::Engine;
use form::{F2, F4, F6};
use plan::WinogradPlan;

pub use choice::Choice;
pub use plan::clear;

/// A plan, if the problem is to be computed by Winograd's algorithm.
///
/// # Errors
/// [`Error::Unsupported`] if the problem asks for it, but it cannot be done. Out of memory.
pub fn plan(
    isa: Isa,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Option<Box<dyn Plan>>> {
    let asked = problem.algorithm();
    let unsupported = |what: &str| match asked {
        Algorithm::Winograd => Err(Error::Unsupported { device: "cpu".into(), what: what.into() }),
        Algorithm::Auto | Algorithm::Direct => Ok(None),
    };
    if !choice::can(problem.sizes()) {
        return unsupported("Winograd's algorithm but for 3x3 kernels, stride 1, dilation 1 and one group");
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => with_engine(engine, problem, weights, bias),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => with_engine(engine, problem, weights, bias),
        Isa::Portable(_) => unsupported("Winograd's algorithm without AVX-512 or AVX2 and FMA"),
    }
}

fn with_engine<E: Engine>(
    engine: E,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Option<Box<dyn Plan>>> {
    let algorithm = match (problem.algorithm(), config().algorithm) {
        (Algorithm::Auto, Some(preferred)) => preferred,
        (asked, _) => asked,
    };
    choice::choose(problem, algorithm, E::LANES)
        .map(|choice| form_plan(engine, choice, problem, weights, bias))
        .transpose()
}

/// The forms that could compute `problem` for `auto`, with their kernels' names, the fastest by prediction first.
pub fn candidates(isa: Isa, problem: &Conv2d) -> Vec<(&'static str, Choice)> {
    fn named<E: Engine>(_: E, problem: &Conv2d) -> Vec<(&'static str, Choice)> {
        let [f2, f4, f6] = E::NAMES;
        let name = |form| match form {
            Choice::F2 => f2,
            Choice::F4 => f4,
            Choice::F6 => f6,
        };
        choice::permitted(problem, E::LANES).into_iter().map(|form| (name(form), form)).collect()
    }
    if !choice::can(problem.sizes()) {
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
pub fn build(
    isa: Isa,
    form: Choice,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Plan>> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(engine) => form_plan(engine, form, problem, weights, bias),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(engine) => form_plan(engine, form, problem, weights, bias),
        Isa::Portable(_) => unreachable!("candidates() has none"),
    }
}

fn form_plan<E: Engine>(
    engine: E,
    choice: Choice,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Plan>> {
    let [f2, f4, f6] = E::NAMES;
    Ok(match choice {
        Choice::F2 => Box::new(WinogradPlan::<E, F2>::new(engine, f2, problem, weights, bias)?),
        Choice::F4 => Box::new(WinogradPlan::<E, F4>::new(engine, f4, problem, weights, bias)?),
        Choice::F6 => Box::new(WinogradPlan::<E, F6>::new(engine, f6, problem, weights, bias)?),
    })
}
