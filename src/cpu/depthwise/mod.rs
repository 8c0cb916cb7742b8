//! Convolutions in which an input meets few outputs: depthwise, and groups of few channels.
//!
//! As a matrix product such a group has few rows, so that little is done with a packed panel, and most rows of a
//! register tile are missing. Here nothing is packed: [`band`] keeps a padded copy of some rows of the input in the L1
//! cache, in which each tap is an offset, and [`lines`] multiplies straight from it. [`shape`] cuts the problem,
//! [`plan`] runs it, [`engine`] are the instruction sets.
//!
//! Padding is zeros, multiplied like any other value. All outputs are sums over channels, tap rows and tap columns,
//! upwards: the same bits at any number of threads.

mod band;
mod engine;
mod lines;
mod plan;
mod portable;
mod shape;
#[cfg(test)]
mod tests;

use super::caches;
use crate::backend::Plan;
use crate::error::Result;
use crate::problem::Conv2d;
use engine::Engine;
use plan::GroupedPlan;
use shape::{Shape, Tiles};

/// Assumed where the system does not tell.
const L1_BYTES: usize = 32 << 10;

/// A plan, if the problem is one of these.
///
/// # Errors
/// Out of memory.
pub fn plan<E: Engine>(
    engine: E,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Option<Box<dyn Plan>>> {
    let sizes = problem.sizes();
    let outputs = sizes.k / sizes.groups;
    if outputs > 2 * E::CHANNELS {
        return Ok(None);
    }
    cut(engine, problem)
        .map(|shape| Ok(Box::new(GroupedPlan::new(engine, shape, problem, weights, bias)?) as Box<dyn Plan>))
        .transpose()
}

/// How the problem is cut; none if it cannot be done.
fn cut<E: Engine>(_: E, problem: &Conv2d) -> Option<Shape> {
    let l1 = match caches::caches().l1 {
        0 => L1_BYTES,
        known => known,
    };
    let tiles = Tiles { lanes: E::LANES, channels: E::CHANNELS, rows: E::WIDEST.len() };
    Shape::new(problem, tiles, l1 / size_of::<f32>())
}
