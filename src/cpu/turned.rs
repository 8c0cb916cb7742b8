//! Convolutions whose map is a single column: kernels as wide as the padded image.
//!
//! All other methods put pixels of a row side by side in vectors, and here each row has one pixel. With rows and columns
//! exchanged the map is a single row. Its memory is the same; only the input and the weights are transposed, which
//! costs one load and one store for each element.
//!
//! A map of a single row, whose kernel is as high as the image, is then a convolution of one dimension: each row of a
//! channel is a channel of its own. No memory changes, nor does the order of a sum. `direct` uses this file.

use std::cell::Cell;
use std::time::Instant;

use super::block::Shared;
use super::buffer::{self, Borrowed, Buffer};
use super::kernels::{Kernel, TransposeBlock};
use super::pool::Team;
use crate::backend::{Memory, Plan};
use crate::error::Result;
use crate::problem::{Conv2d, Conv2dDesc};
use crate::report::Timing;

/// The problem with rows and columns exchanged, if its map is one column of at least two vectors.
pub fn problem<K: Kernel>(_: K, given: &Conv2d) -> Option<Conv2d> {
    let sizes = given.sizes();
    if sizes.q != 1 || sizes.p < 2 * K::LANES {
        return None;
    }
    // No size of a valid problem exceeds i64.
    let size = |value: usize| value as i64;
    Conv2d::new(Conv2dDesc {
        n: size(sizes.n),
        c: size(sizes.c),
        h: size(sizes.w),
        w: size(sizes.h),
        k: size(sizes.k),
        r: size(sizes.s),
        s: size(sizes.r),
        stride_h: size(sizes.stride_w),
        stride_w: size(sizes.stride_h),
        pad_h: size(sizes.pad_w),
        pad_w: size(sizes.pad_h),
        pad_bottom: Some(size(sizes.pad_right)),
        pad_right: Some(size(sizes.pad_bottom)),
        dilation_h: size(sizes.dilation_w),
        dilation_w: size(sizes.dilation_h),
        groups: size(sizes.groups),
        bias: given.bias(),
        relu: given.relu(),
        algorithm: given.algorithm(),
        ..Default::default()
    })
    .ok()
}

/// The problem of one dimension, if the kernel is as high as the image: rows as channels.
pub fn rows_as_channels(given: &Conv2d) -> Option<Conv2d> {
    let sizes = given.sizes();
    if sizes.r != sizes.h || sizes.h == 1 || sizes.pad_h + sizes.pad_bottom > 0 || sizes.dilation_h != 1 {
        return None;
    }
    // No size of a valid problem exceeds i64. A product that is too large is refused there.
    let size = |value: usize| value as i64;
    Conv2d::new(Conv2dDesc {
        n: size(sizes.n),
        c: size(sizes.c * sizes.h),
        h: 1,
        w: size(sizes.w),
        k: size(sizes.k),
        r: 1,
        s: size(sizes.s),
        stride_h: 1,
        stride_w: size(sizes.stride_w),
        pad_w: size(sizes.pad_w),
        pad_right: Some(size(sizes.pad_right)),
        dilation_w: size(sizes.dilation_w),
        groups: size(sizes.groups),
        bias: given.bias(),
        relu: given.relu(),
        algorithm: given.algorithm(),
        ..Default::default()
    })
    .ok()
}

/// The weights of the turned problem.
///
/// # Errors
/// Out of memory.
pub fn weights<K: Kernel>(kernel: K, given: &Conv2d, weights: &[f32]) -> Result<Buffer> {
    let sizes = given.sizes();
    let mut turned = Buffer::zeroed(given.weights_len())?;
    let filters = weights.chunks_exact(sizes.r * sizes.s).zip(turned.chunks_exact_mut(sizes.r * sizes.s));
    filters.for_each(|(from, to)| transpose(kernel, from, (sizes.r, sizes.s), to));
    Ok(turned)
}

/// Transposes a matrix of `rows` rows and `cols` columns.
fn transpose<K: Kernel>(kernel: K, from: &[f32], (rows, cols): (usize, usize), to: &mut [f32]) {
    assert!(from.len() == rows * cols && to.len() == rows * cols);
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    let block = TransposeBlock { from, line: cols, to, width: rows, lines: rows, depths: cols, more: false };
    // SAFETY: both matrices have rows x cols elements, as asserted, and are different borrows.
    unsafe { kernel.transpose(&block) }
}

thread_local! {
    /// Turned inputs.
    static TURNED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Frees the buffer that the calling thread keeps.
pub fn clear() {
    buffer::clear(&TURNED);
}

/// Turns the input and lets `compute` compute with it. Returns what that returns, with the time of both.
///
/// # Errors
/// Out of memory, and those of `compute`.
pub fn compute<K: Kernel, T>(
    kernel: K,
    given: &Conv2d,
    input: &[f32],
    compute: impl FnOnce(&[f32]) -> Result<(T, Timing)>,
) -> Result<(T, Timing)> {
    let sizes = given.sizes();
    let len = sizes.h * sizes.w;
    let mut turned = Borrowed::take(&TURNED, input.len())?;
    let to = Shared::new(&mut turned[..input.len()]);
    let start = Instant::now();
    // Not `pool::timed`, which compares the time with the operations: no operation is done here.
    Team::for_work(given.flops())?.run(sizes.n * sizes.c, |channel, _| {
        // SAFETY: the buffer has room for all channels, and each task writes one.
        let to = unsafe { std::slice::from_raw_parts_mut(to.start().add(channel * len), len) };
        transpose(kernel, &input[channel * len..][..len], (sizes.h, sizes.w), to);
    })?;
    let turning = start.elapsed();
    let (result, timing) = compute(&turned[..input.len()])?;
    Ok((result, Timing { kernel: turning + timing.kernel, wall: turning + timing.wall, ..timing }))
}

/// A plan of the turned problem.
pub struct TurnedPlan<K> {
    kernel: K,
    problem: Conv2d,
    plan: Box<dyn Plan>,
}

impl<K: Kernel> TurnedPlan<K> {
    /// `plan` computes the turned problem.
    pub fn new(kernel: K, problem: &Conv2d, plan: Box<dyn Plan>) -> Self {
        TurnedPlan { kernel, problem: *problem, plan }
    }
}

impl<K: Kernel> Plan for TurnedPlan<K> {
    fn kernel(&self) -> &str {
        self.plan.kernel()
    }

    fn memory(&self) -> Memory {
        let memory = self.plan.memory();
        Memory { workspace: memory.workspace + self.problem.input_len() * size_of::<f32>(), ..memory }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let run = |input: &[f32]| Ok(((), self.plan.run(input, output)?));
        Ok(compute(self.kernel, &self.problem, input, run)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::direct;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::cpu::tests::cpu_cases::{ConvCase, Values, same};
    use crate::problem::exact::Random;

    #[test]
    fn only_maps_of_one_long_column_are_turned() {
        let desc = Conv2dDesc { h: 100, w: 20, r: 3, s: 20, stride_h: 2, pad_h: 1, ..Default::default() };
        let wide = Conv2d::new(desc).unwrap();
        for isa in Isa::all() {
            let turned = with_kernel!(isa, kernel => problem(kernel, &wide)).unwrap();
            let sizes = turned.sizes();
            assert_eq!((sizes.h, sizes.w, sizes.r, sizes.s, sizes.p, sizes.q), (20, 100, 20, 3, 1, 50));
            assert_eq!((sizes.stride_h, sizes.stride_w, sizes.pad_h, sizes.pad_w), (1, 2, 0, 1));
            assert_eq!(turned.flops(), wide.flops());
            for other in [Conv2dDesc { s: 19, ..desc }, Conv2dDesc { h: 6, ..desc }] {
                let other = Conv2d::new(other).unwrap();
                assert!(with_kernel!(isa, kernel => problem(kernel, &other)).is_none());
            }
            assert!(with_kernel!(isa, kernel => problem(kernel, &turned)).is_none(), "not turned back");
        }
    }

    #[test]
    fn a_map_of_one_column_is_exact_in_plans_and_calls() {
        let layer = |n, c, h, w, k, r, groups| Conv2dDesc {
            n,
            c,
            h,
            w,
            k,
            r,
            s: w,
            groups,
            bias: true,
            ..Default::default()
        };
        let shapes = [
            layer(1, 1, 200, 20, 17, 3, 1),
            layer(2, 3, 50, 9, 40, 2, 1),
            Conv2dDesc { stride_h: 2, pad_h: 1, relu: true, ..layer(2, 4, 99, 5, 6, 4, 2) },
            // A padded image of two columns, and a kernel with dilation.
            Conv2dDesc { s: 4, pad_w: 1, ..layer(1, 5, 40, 2, 9, 1, 1) },
            Conv2dDesc { s: 3, dilation_w: 2, dilation_h: 3, ..layer(1, 2, 70, 5, 8, 3, 1) },
            Conv2dDesc { s: 1, ..layer(3, 6, 64, 1, 12, 3, 3) },
        ];
        let (mut cases, mut random) = (0, Random::new(33));
        for (isa, desc) in Isa::all().into_iter().flat_map(|isa| shapes.map(|desc| (isa, desc))) {
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            assert!(with_kernel!(isa, kernel => problem(kernel, &case.problem)).is_some(), "{desc:?}");
            let given = (&case.weights[..], case.bias.as_deref());
            let mut outputs = [(); 2].map(|()| vec![f32::NAN; case.problem.output_len()]);
            let plan = direct::plan(isa, &case.problem, given.0, given.1).unwrap();
            plan.run(&case.input, &mut outputs[0]).unwrap();
            direct::once(isa, &case.problem, given, &case.input, &mut outputs[1]).unwrap();
            for (got, expected) in outputs.iter().flat_map(|output| output.iter().zip(case.expected())) {
                assert!(same(*got, expected.value), "{isa:?} {desc:?}: {got}");
            }
            cases += 1;
        }
        assert!(cases >= shapes.len());
    }
}
