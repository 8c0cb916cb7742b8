//! Grouped convolution: depthwise, groups of few channels, and convolutions of so few input channels that all of them
//! fit in L1, as in a network's first layer. What these have in common is that an input is used by few outputs.
//!
//! As a matrix product such a group has few rows: a packed panel is used little, and most rows of a register tile are
//! missing. So nothing is packed here. [`band`] keeps a padded copy of some rows of the input in L1, in which each
//! tap is an offset, and [`lines`] multiplies straight from it. [`shape`] cuts the problem, [`plan`] runs it,
//! [`kernel`] holds the instruction sets.
//!
//! Padding is zeros, which are multiplied like any other value. All outputs are sums over channels, tap rows and tap
//! columns in ascending order: the bits do not depend on the number of threads.
//!
//! `direct` calls this folder. It touches its callers' buffers and the threads' workspaces. It does no I/O.

mod band;
mod f32x4;
mod kernel;
mod lines;
mod plan;
mod shape;
#[cfg(test)]
mod tests;

use super::caches;
use super::implicit_im2col::columns;
use crate::memory::blocking::{L1_BYTES, known};
use crate::memory::implicit_im2col::ImplicitIm2col;
use crate::problem::Conv2d;
pub use kernel::GroupedKernel;
pub use plan::GroupedPlan;
pub use shape::GroupedShape;
use shape::TileLimits;

/// How the problem is cut, if this method is predicted to be the fastest.
pub fn choose<K: GroupedKernel>(kernel: K, problem: &Conv2d) -> Option<GroupedShape> {
    cut(kernel, problem).filter(|shape| is_better(kernel, problem, shape))
}

/// Whether this method is faster than implicit GEMM: because a panel of that would be used by few rows only, or by the
/// predicted cycles of both.
fn is_better<K: GroupedKernel>(kernel: K, problem: &Conv2d, shape: &GroupedShape) -> bool {
    let sizes = problem.sizes();
    // The band of a 1x1 kernel would be read only once. But without cheap masks a tile with missing rows is slow.
    let few = if sizes.r * sizes.s > 1 {
        K::CHANNELS
    } else if K::MASKS {
        0
    } else {
        K::MR - 1
    };
    if shape.outputs <= few {
        return true;
    }
    // For maps of few pixels implicit GEMM has a kernel whose lanes are outputs.
    if sizes.p * sizes.q <= K::THIN && shape.outputs > K::CHANNELS {
        return false;
    }
    // The model ignores caches, so check that a band stays in a near cache while all output channels read it.
    if shape.inputs.saturating_mul(shape.channel) > 2 * l1() {
        return false;
    }
    let kc = super::plan::plan(kernel, problem, 1).kc;
    let product = ImplicitIm2col::cycles(&caches::described().caches, columns(kernel), problem, kc);
    shape.all_cycles(sizes, tiles(kernel)) < product
}

/// Elements that fit in L1.
fn l1() -> usize {
    known(caches::described().caches.l1, L1_BYTES)
}

/// How the problem is cut. `None` if it cannot be computed by this method.
fn cut<K: GroupedKernel>(kernel: K, problem: &Conv2d) -> Option<GroupedShape> {
    GroupedShape::new(problem, tiles(kernel), l1())
}

fn tiles<K: GroupedKernel>(_: K) -> TileLimits {
    TileLimits { lanes: K::LANES, channels: K::CHANNELS, rows: K::WIDEST.len() }
}
