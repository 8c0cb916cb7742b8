//! Convolutions in which an input meets few outputs: depthwise, and groups of few channels; and those of so few input
//! channels that all of them fit into the first cache, as in a network's first layer.
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
use super::views::columns;
use crate::memory::blocking::{L1_BYTES, known};
use crate::memory::views::Views;
use crate::problem::Conv2d;
pub use engine::Engine;
pub use plan::GroupedPlan;
pub use shape::Shape;
use shape::Tiles;

/// How the problem is cut, if it is one of these.
pub fn choose<E: Engine>(engine: E, problem: &Conv2d) -> Option<Shape> {
    cut(engine, problem).filter(|shape| is_better(engine, problem, shape))
}

/// Whether this beats the matrix product: where a panel of that would meet a few rows only, or by the cycles that both
/// are predicted.
fn is_better<E: Engine>(engine: E, problem: &Conv2d, shape: &Shape) -> bool {
    let sizes = problem.sizes();
    // The band of a 1x1 kernel would be read once. But without masks a tile that misses rows is slow.
    let few = if sizes.r * sizes.s > 1 {
        E::CHANNELS
    } else if E::MASKS {
        0
    } else {
        E::MR - 1
    };
    if shape.outputs <= few {
        return true;
    }
    // Maps of few pixels have a product of their own, its lanes being outputs.
    if sizes.p * sizes.q <= E::THIN && shape.outputs > E::CHANNELS {
        return false;
    }
    // The model knows no caches: a band is to stay near while all output channels read it.
    if shape.inputs.saturating_mul(shape.channel) > 2 * l1() {
        return false;
    }
    let kc = super::plan(engine, problem, 1).kc;
    let product = Views::cycles(&caches::described().caches, columns(engine), problem, kc);
    shape.all_cycles(sizes, tiles(engine)) < product
}

/// Elements of the first cache.
fn l1() -> usize {
    known(caches::described().caches.l1, L1_BYTES)
}

/// How the problem is cut; none if it cannot be done.
fn cut<E: Engine>(engine: E, problem: &Conv2d) -> Option<Shape> {
    Shape::new(problem, tiles(engine), l1())
}

fn tiles<E: Engine>(_: E) -> Tiles {
    Tiles { lanes: E::LANES, channels: E::CHANNELS, rows: E::WIDEST.len() }
}
