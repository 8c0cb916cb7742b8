//! The choice of a form for a convolution, or of none.
//!
//! `auto` takes a form on three conditions: it is accurate ([`winograd::is_accurate`]), it is predicted to be faster
//! than the direct algorithm, and the work is not small. The model counts cycles of a core that starts two
//! multiply-adds a cycle. Small problems take a tenth of a millisecond either way; the direct algorithm keeps them
//! exact on integers.

use super::form::{F2, F4, F6, Form};
use crate::cpu::tunables::MIN_WINOGRAD_FLOPS;
use crate::memory::Caches;
use crate::memory::costs::cpu::winograd::{
    DIRECT_PACKING, DIRECT_SHARE, OUTER_BYTES, PRODUCT_SHARE, TRANSFORM, WEIGHTS,
};
use crate::memory::winograd::Tiling;
use crate::problem::{Algorithm, Conv2d, winograd};

/// A form F(m x m, 3 x 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormChoice {
    F2,
    F4,
    F6,
}

/// All forms.
pub const CHOICES: [FormChoice; 3] = [FormChoice::F2, FormChoice::F4, FormChoice::F6];

impl FormChoice {
    /// Outputs of a tile in each direction.
    pub fn m(self) -> usize {
        match self {
            FormChoice::F2 => F2::M,
            FormChoice::F4 => F4::M,
            FormChoice::F6 => F6::M,
        }
    }

    /// Predicted cycles on one thread. The number of threads must not influence the choice, since the bits of a result
    /// must not depend on it.
    fn cycles(self, caches: &Caches, problem: &Conv2d, lanes: usize) -> f64 {
        let tiling = Tiling::new(problem.sizes(), self.m(), lanes);
        let Tiling { tiles, frequencies, c, c_blocks, k_blocks, groups, .. } = tiling;
        let products = (tiles * frequencies * c * k_blocks) as f64 / 2.0 / PRODUCT_SHARE;
        let transforms = (tiles * frequencies * (c_blocks + k_blocks)) as f64 * TRANSFORM;
        // The elements of U, in vectors of output channels, and the bytes of the weights.
        let (vectors, vector_bytes) =
            ((frequencies * c * k_blocks) as f64, (lanes * size_of::<f32>()) as f64);
        let weight_bytes = vectors / frequencies as f64 * 9.0 * vector_bytes;
        let of_group = if problem.is_once() {
            let passes = tiles.div_ceil(tiling.once_block(caches)) as f64;
            products + passes * (vectors * WEIGHTS + weight_bytes / OUTER_BYTES)
        } else {
            let passes = tiles.div_ceil(tiling.block(caches)) as f64;
            products.max(passes * tiling.fetching(caches)) + passes * tiling.spilling(caches)
        };
        groups as f64 * (of_group + transforms)
    }
}

/// Predicted cycles of the direct algorithm.
fn direct_cycles(problem: &Conv2d, lanes: usize) -> f64 {
    let preparation = if problem.is_once() { problem.weights_len() as f64 * DIRECT_PACKING } else { 0.0 };
    problem.flops() as f64 / (4 * lanes) as f64 / DIRECT_SHARE + preparation
}

/// The accurate forms, sorted by predicted time; none if there is little work. Winograd's algorithm must support the
/// problem.
pub fn permitted(caches: &Caches, problem: &Conv2d, lanes: usize) -> Vec<FormChoice> {
    let mut forms = CHOICES.to_vec();
    forms.retain(|form| {
        problem.flops() >= MIN_WINOGRAD_FLOPS && winograd::is_accurate(problem.sizes(), form.m())
    });
    forms.sort_by(|a, b| a.cycles(caches, problem, lanes).total_cmp(&b.cycles(caches, problem, lanes)));
    forms
}

/// The form to use with vectors of `lanes`, or `None` for the direct algorithm. `algorithm` is the choice of the
/// problem or the environment. Winograd's algorithm must support the problem.
pub fn choose(caches: &Caches, problem: &Conv2d, algorithm: Algorithm, lanes: usize) -> Option<FormChoice> {
    let accurate = |choice: &FormChoice| winograd::is_accurate(problem.sizes(), choice.m());
    let fastest = |choices: &mut dyn Iterator<Item = FormChoice>| {
        choices
            .map(|choice| (choice.cycles(caches, problem, lanes), choice))
            .min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let best = fastest(&mut CHOICES.into_iter().filter(accurate));
    match algorithm {
        Algorithm::Direct => None,
        // Where no form is accurate by the rule, the most accurate one.
        Algorithm::Winograd => Some(best.map_or(FormChoice::F2, |best| best.1)),
        Algorithm::Auto => best
            .filter(|best| problem.flops() >= MIN_WINOGRAD_FLOPS && best.0 < direct_cycles(problem, lanes))
            .map(|best| best.1),
    }
}
