//! The direct algorithm: which of its ways computes a problem, and with what.
//!
//! As sums of lines where few pixels meet deep weights ([`deep`]), straight from bands of the image where an input meets few outputs
//! ([`depthwise`]), else as a matrix product ([`conv2d`]). The models in [`crate::memory`] decide, from the problem alone.

use std::cell::RefCell;
use std::sync::Arc;

use super::depthwise::{self, Engine, Shape};
use super::isa::{Isa, with_kernel};
use super::{conv2d, deep};
use crate::backend::Plan;
use crate::error::Result;
use crate::memory::deep::Deep;
use crate::memory::views::Views;
use crate::problem::Conv2d;
use crate::report::Timing;

/// A way to compute a problem.
#[derive(Debug, Clone)]
enum Way {
    Lines(Deep),
    Bands(Shape),
    /// The images read as views, or panels of them packed.
    Product(Option<Views>),
}

impl Way {
    fn choose<E: Engine>(engine: E, problem: &Conv2d, once: bool) -> Self {
        if let Some(deep) = deep::choose(engine, problem, once) {
            return Way::Lines(deep);
        }
        let bands = depthwise::choose(engine, problem).map(Way::Bands);
        bands.unwrap_or_else(|| Way::Product(conv2d::views(engine, problem)))
    }

    /// The way of a call, remembered: to weigh all ways takes some microseconds, a few hundredths of a call on a small layer.
    fn of_call<E: Engine>(engine: E, problem: &Conv2d) -> Self {
        let remembered = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            let known = recent.iter().position(|(other, kernel, _)| other == problem && *kernel == E::CONV);
            let entry = match known {
                Some(index) => recent.remove(index),
                None => (*problem, E::CONV, Way::choose(engine, problem, true)),
            };
            let way = entry.2.clone();
            recent.truncate(MOST_RECENT - 1);
            recent.insert(0, entry);
            way
        });
        // A thread that is ending remembers nothing.
        remembered.unwrap_or_else(|_| Way::choose(engine, problem, true))
    }
}

/// Problems whose ways a thread remembers: a network's layers.
const MOST_RECENT: usize = 64;

thread_local! {
    /// The last first.
    static RECENT: RefCell<Vec<(Conv2d, &'static str, Way)>> = const { RefCell::new(vec![]) };
}

/// Forgets the calling thread's.
pub fn clear() {
    let _ = RECENT.try_with(|recent| recent.borrow_mut().clear());
}

/// A plan.
///
/// # Errors
/// Out of memory.
pub fn plan(isa: Isa, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>> {
    with_kernel!(isa, kernel => match Way::choose(kernel, problem, false) {
        Way::Lines(deep) => Ok(Box::new(deep::DeepPlan::new(kernel, problem, deep, weights, bias)?)),
        Way::Bands(shape) => Ok(Box::new(depthwise::GroupedPlan::new(kernel, shape, problem, weights, bias)?)),
        Way::Product(views) => {
            Ok(Box::new(conv2d::ConvPlan::with_views(kernel, problem, (weights, bias), views)?))
        }
    })
}

/// Computes a convolution with weights that are used once; gives the kernel's name.
///
/// # Errors
/// Out of memory; the output is untouched then.
pub fn once(
    isa: Isa,
    problem: &Conv2d,
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<(Arc<str>, Timing)> {
    with_kernel!(isa, kernel => once_with(kernel, problem, (weights, bias), input, output))
}

fn once_with<E: Engine>(
    engine: E,
    problem: &Conv2d,
    given: (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<(Arc<str>, Timing)> {
    match Way::of_call(engine, problem) {
        Way::Lines(deep) => Ok((E::DOTS.into(), deep::once(engine, (problem, deep), given, input, output)?)),
        Way::Bands(shape) => {
            let plan = depthwise::GroupedPlan::new(engine, shape, problem, given.0, given.1)?;
            let timing = plan.run(input, output)?;
            Ok((plan.kernel().into(), timing))
        }
        Way::Product(views) => {
            Ok((E::CONV.into(), conv2d::once(engine, (problem, views), given, input, output)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;

    /// Problems of all ways, more of them than are remembered, and each asked for again at once and after all others.
    #[test]
    fn what_is_remembered_is_what_would_be_chosen() {
        let layer = |index: i64| {
            let (c, side, r) = [(3, 30, 3), (600, 4, 1), (40, 20, 3), (64, 9, 5)][index as usize % 4];
            let pad = r / 2;
            let desc = Conv2dDesc {
                c,
                k: 20 + index,
                h: side,
                w: side,
                r,
                s: r,
                pad_h: pad,
                pad_w: pad,
                ..Default::default()
            };
            Conv2d::new(desc).unwrap()
        };
        let mut ways = [0; 3];
        for isa in Isa::all() {
            for index in (0..2 * MOST_RECENT as i64).flat_map(|index| [index, index]).chain(0..10) {
                let problem = layer(index);
                let (remembered, chosen) = with_kernel!(isa, kernel =>
                    (Way::of_call(kernel, &problem), Way::choose(kernel, &problem, true)));
                assert_eq!(format!("{remembered:?}"), format!("{chosen:?}"), "{isa:?} {problem:?}");
                ways[match chosen {
                    Way::Lines(_) => 0,
                    Way::Bands(_) => 1,
                    Way::Product(_) => 2,
                }] += 1;
            }
        }
        assert!(ways[1] > 0 && ways[2] > 0, "{ways:?}");
        assert!(RECENT.with_borrow(Vec::len) == MOST_RECENT);
    }
}
