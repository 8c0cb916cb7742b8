//! The direct algorithm: which method computes a problem. "Direct" means what [`crate::problem::Algorithm::Direct`]
//! means: every method but Winograd's.
//!
//! * Dot products ([`dot_conv`]) for few pixels with deep sums.
//! * Grouped ([`grouped`]) where an input channel is used by few output channels.
//! * Implicit GEMM in windows ([`windows`]) where many taps see only padding.
//! * Implicit GEMM ([`conv2d`]) for the rest.
//!
//! Input or output in NHWC: [`channels_last`].
//!
//! A map of a single column is computed as a row, and a kernel as high as the image in one dimension ([`turned`]).
//!
//! The cost models in [`crate::memory`] decide, from the problem alone.

use std::cell::RefCell;
use std::sync::Arc;

use super::channels_last::{self, ChannelsLastPlan, DepthwisePlan};
use super::conv2d::windows::{self, WindowsPlan};
use super::grouped::{self, GroupedKernel, GroupedShape};
use super::isa::{Isa, with_kernel};
use super::turned::TurnedPlan;
use super::{conv2d, dot_conv, turned};
use crate::backend::Plan;
use crate::cpu::tunables::MAX_RECENT;
use crate::error::Result;
use crate::memory::dot_conv::DotConv;
use crate::memory::implicit_im2col::{ImplicitIm2col, Window};
use crate::problem::Conv2d;
use crate::report::Timing;

/// How a problem is computed, and how it is cut.
#[derive(Debug, Clone)]
enum Method {
    DotConv(DotConv),
    Grouped(GroupedShape),
    /// With images read in place, or with packed panels if `None`.
    ImplicitGemm(Option<ImplicitIm2col>),
    /// Implicit GEMM in windows, for finite weights.
    Windows(Vec<Window>),
}

impl Method {
    fn choose<K: GroupedKernel>(kernel: K, problem: &Conv2d, once: bool) -> Self {
        if let Some(cut) = dot_conv::choose(kernel, problem, once) {
            return Method::DotConv(cut);
        }
        let grouped = grouped::choose(kernel, problem).map(Method::Grouped);
        if let Some(method) = grouped.or_else(|| windows::choose(kernel, problem, once).map(Method::Windows))
        {
            return method;
        }
        Self::implicit_gemm(kernel, problem)
    }

    /// Implicit GEMM of the whole map.
    fn implicit_gemm<K: GroupedKernel>(kernel: K, problem: &Conv2d) -> Self {
        Method::ImplicitGemm(conv2d::implicit_im2col(kernel, problem))
    }

    /// This method, or one that computes with these weights.
    fn with_weights<K: GroupedKernel>(self, kernel: K, problem: &Conv2d, weights: &[f32]) -> Self {
        let may = !matches!(self, Method::Windows(_)) || windows::allow(weights);
        if may { self } else { Self::implicit_gemm(kernel, problem) }
    }

    /// The method of a one-shot call, cached: comparing all methods takes some microseconds, a few percent of a call
    /// on a small layer.
    fn for_call<K: GroupedKernel>(kernel: K, problem: &Conv2d) -> Self {
        let cached = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            let known = recent.iter().position(|(other, kernel, _)| other == problem && *kernel == K::CONV);
            let entry = match known {
                Some(index) => recent.remove(index),
                None => (*problem, K::CONV, Method::choose(kernel, problem, true)),
            };
            let method = entry.2.clone();
            recent.truncate(MAX_RECENT - 1);
            recent.insert(0, entry);
            method
        });
        // The cache no longer exists when its thread is ending.
        cached.unwrap_or_else(|_| Method::choose(kernel, problem, true))
    }
}

thread_local! {
    /// The most recent first.
    static RECENT: RefCell<Vec<(Conv2d, &'static str, Method)>> = const { RefCell::new(vec![]) };
}

/// Clears the calling thread's cache.
pub fn clear() {
    let _ = RECENT.try_with(|recent| recent.borrow_mut().clear());
}

/// Makes a plan.
///
/// # Errors
/// Out of memory.
pub fn plan(isa: Isa, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>> {
    with_kernel!(isa, kernel => plan_with(kernel, problem, weights, bias))
}

fn plan_with<K: GroupedKernel>(
    kernel: K,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Plan>> {
    if !problem.sizes().has_plain_images() {
        return channels_last(kernel, problem, weights, bias);
    }
    let (given, plain) = (channels_last::ordered(problem, weights)?, &problem.plain_weights());
    let (problem, weights) = (plain, given.as_deref().unwrap_or(weights));
    if let Some(other) = turned::problem(kernel, problem) {
        let weights = turned::weights(kernel, problem, weights)?;
        let plan = plan_with(kernel, &other, &weights, bias)?;
        return Ok(Box::new(TurnedPlan::new(kernel, problem, plan)));
    }
    let problem = &turned::rows_as_channels(problem).unwrap_or(*problem);
    match Method::choose(kernel, problem, false).with_weights(kernel, problem, weights) {
        Method::DotConv(cut) => {
            Ok(Box::new(dot_conv::DotConvPlan::new(kernel, problem, cut, weights, bias)?))
        }
        Method::Grouped(shape) => {
            Ok(Box::new(grouped::GroupedPlan::new(kernel, shape, problem, weights, bias)?))
        }
        Method::ImplicitGemm(implicit) => {
            let geometry = conv2d::geometry(kernel, problem, implicit);
            Ok(Box::new(conv2d::ConvPlan::with_geometry(kernel, problem, (weights, bias), geometry)?))
        }
        Method::Windows(windows) => {
            Ok(Box::new(WindowsPlan::new(kernel, problem, &windows, (weights, bias))?))
        }
    }
}

/// A plan for input or output in NHWC.
fn channels_last<K: GroupedKernel>(
    kernel: K,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Box<dyn Plan>> {
    if DepthwisePlan::<K>::supports(problem) {
        return Ok(Box::new(DepthwisePlan::new(kernel, problem, weights, bias)?));
    }
    Ok(Box::new(ChannelsLastPlan::new(kernel, problem, weights, bias)?))
}

/// Computes a convolution with weights that are used once. Returns the kernel's name.
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

fn once_with<K: GroupedKernel>(
    kernel: K,
    problem: &Conv2d,
    given: (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<(Arc<str>, Timing)> {
    if !problem.sizes().has_plain_images() {
        let plan = channels_last(kernel, problem, given.0, given.1)?;
        let timing = plan.run(input, output)?;
        return Ok((plan.kernel().into(), timing));
    }
    let ordered = channels_last::ordered(problem, given.0)?;
    let (problem, given) = (&problem.plain_weights(), (ordered.as_deref().unwrap_or(given.0), given.1));
    if let Some(other) = turned::problem(kernel, problem) {
        let weights = turned::weights(kernel, problem, given.0)?;
        return turned::compute(kernel, problem, input, |input| {
            once_with(kernel, &other, (&weights, given.1), input, output)
        });
    }
    let problem = &turned::rows_as_channels(problem).unwrap_or(*problem);
    match Method::for_call(kernel, problem).with_weights(kernel, problem, given.0) {
        Method::DotConv(cut) => {
            Ok((K::DOTS.into(), dot_conv::once(kernel, (problem, cut), given, input, output)?))
        }
        Method::Grouped(shape) => {
            let plan = grouped::GroupedPlan::new(kernel, shape, problem, given.0, given.1)?;
            let timing = plan.run(input, output)?;
            Ok((plan.kernel().into(), timing))
        }
        Method::Windows(windows) => {
            let plan = WindowsPlan::new(kernel, problem, &windows, given)?;
            Ok((plan.kernel().into(), plan.run(input, output)?))
        }
        Method::ImplicitGemm(implicit) => {
            Ok((K::CONV.into(), conv2d::once(kernel, (problem, implicit), given, input, output)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;

    /// More problems than are cached, of all methods. Each is looked up twice in a row, and some again after all
    /// others.
    #[test]
    fn cached_methods_equal_chosen_ones() {
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
        let mut methods = [0; 3];
        for isa in Isa::all() {
            for index in (0..2 * MAX_RECENT as i64).flat_map(|index| [index, index]).chain(0..10) {
                let problem = layer(index);
                let (cached, chosen) = with_kernel!(isa, kernel =>
                    (Method::for_call(kernel, &problem), Method::choose(kernel, &problem, true)));
                assert_eq!(format!("{cached:?}"), format!("{chosen:?}"), "{isa:?} {problem:?}");
                methods[match chosen {
                    Method::DotConv(_) => 0,
                    Method::Grouped(_) => 1,
                    Method::ImplicitGemm(_) | Method::Windows(_) => 2,
                }] += 1;
            }
        }
        assert!(methods[1] > 0 && methods[2] > 0, "{methods:?}");
        assert!(RECENT.with_borrow(Vec::len) == MAX_RECENT);
    }
}
