//! Implicit GEMM in windows of the map: taps that see only padding are left out.
//! [`crate::memory::implicit_im2col::Window`] says how a map is cut.
//!
//! Each window is a convolution with its own taps and packed weights, which reads the whole image in place and writes
//! its part of the whole map.

use super::ConvPlan;
use crate::allocate;
use crate::backend::{Memory, Plan};
use crate::cpu::buffer::Buffer;
use crate::cpu::caches::described;
use crate::cpu::implicit_im2col::{Geometry, columns};
use crate::cpu::kernels::Kernel;
use crate::cpu::pool;
use crate::error::Result;
use crate::memory::implicit_im2col::{ImplicitIm2col, Window};
use crate::problem::Conv2d;
use crate::report::Timing;

/// A convolution cut into windows.
pub struct WindowsPlan<K> {
    windows: Vec<ConvPlan<K>>,
    /// Operations of all windows.
    flops: u64,
}

/// The windows of `problem`, if they are predicted to be faster than the whole map. `once` says that weights are used only
/// once.
pub fn choose<K: Kernel>(kernel: K, problem: &Conv2d, once: bool) -> Option<Vec<Window>> {
    let kc = super::plan(kernel, problem, 1).kc;
    ImplicitIm2col::windows(&described().caches, columns(kernel), problem, (kc, once))
}

/// Whether taps may be left out: an infinite weight times a zero of the padding is NaN.
pub fn allow(weights: &[f32]) -> bool {
    // No branch on each weight, so that the compiler uses vectors.
    weights.chunks(4096).all(|some| some.iter().fold(true, |finite, weight| finite & weight.is_finite()))
}

impl<K: Kernel> WindowsPlan<K> {
    /// Packs the weights of each window, which [`allow`] allows.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        kernel: K,
        problem: &Conv2d,
        windows: &[Window],
        (weights, bias): (&[f32], Option<&[f32]>),
    ) -> Result<Self> {
        let (mut plans, mut flops) =
            (allocate::with_capacity(windows.len(), "the windows of a convolution")?, 0);
        for window in windows {
            let geometry = Geometry::of_window(window, columns(kernel), problem);
            let own = own_weights(problem, window, weights)?;
            let pixels = window.rows.outputs.len() * window.cols.outputs.len();
            flops += 2 * (problem.sizes().n * pixels * own.len()) as u64;
            plans.push(ConvPlan::with_geometry(kernel, problem, (&own, bias), Some(geometry))?);
        }
        Ok(WindowsPlan { windows: plans, flops })
    }
}

/// The weights of a window's taps.
fn own_weights(problem: &Conv2d, window: &Window, weights: &[f32]) -> Result<Buffer> {
    let (sizes, rows, cols) = (problem.sizes(), &window.rows.taps, &window.cols.taps);
    let filters = sizes.k * (sizes.c / sizes.groups);
    let mut own = Buffer::zeroed(filters * rows.len() * cols.len())?;
    let lines = weights
        .chunks_exact(sizes.r * sizes.s)
        .flat_map(|filter| rows.clone().map(move |row| &filter[row * sizes.s..][cols.clone()]));
    lines.zip(own.chunks_exact_mut(cols.len())).for_each(|(from, to)| to.copy_from_slice(from));
    Ok(own)
}

impl<K: Kernel> Plan for WindowsPlan<K> {
    fn kernel(&self) -> &str {
        K::CONV
    }

    fn memory(&self) -> Memory {
        let packed = self.windows.iter().map(|window| window.memory().packed).sum();
        Memory { packed, workspace: pool::workspace_bytes(self.flops) }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        pool::timed(self.flops, |team| {
            self.windows.iter().try_for_each(|window| window.execute(team, input, output))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::direct;
    use crate::cpu::isa::{Isa, with_kernel};
    use crate::cpu::tests::cpu_cases::{ConvCase, Values, same};
    use crate::problem::Conv2dDesc;
    use crate::problem::exact::Random;

    fn dilated(n: i64, c: i64, side: i64, k: i64, dilation: i64, groups: i64) -> Conv2dDesc {
        Conv2dDesc {
            n,
            c,
            h: side,
            w: side + 1,
            k,
            r: 3,
            s: 3,
            pad_h: dilation,
            pad_w: dilation,
            dilation_h: dilation,
            dilation_w: dilation,
            groups,
            ..Default::default()
        }
    }

    #[test]
    fn windows_are_exact_in_plans_and_calls() {
        let shapes = [
            dilated(2, 24, 33, 40, 18, 1),
            Conv2dDesc { bias: true, relu: true, ..dilated(1, 64, 20, 33, 12, 1) },
            // The taps of only one row and column see the image.
            Conv2dDesc { bias: true, ..dilated(1, 40, 17, 50, 30, 1) },
            // No tap at all sees the image from the outputs at the border.
            Conv2dDesc { pad_h: 40, pad_w: 37, ..dilated(1, 32, 20, 24, 36, 1) },
            dilated(1, 96, 24, 96, 14, 2),
            Conv2dDesc { r: 5, pad_h: 16, dilation_h: 8, ..dilated(1, 32, 30, 24, 20, 1) },
        ];
        let (mut cases, mut random) = (0, Random::new(18));
        for (isa, desc) in Isa::all().into_iter().flat_map(|isa| shapes.map(|desc| (isa, desc))) {
            let case = ConvCase::new(desc, Values::Exact, &mut random);
            let windows = with_kernel!(isa, kernel => choose(kernel, &case.problem, false));
            cases += usize::from(windows.is_some_and(|windows| windows.len() > 1 || desc.dilation_h == 30));
            let given = (&case.weights[..], case.bias.as_deref());
            let mut outputs = [(); 2].map(|()| vec![f32::NAN; case.problem.output_len()]);
            direct::plan(isa, &case.problem, given.0, given.1)
                .unwrap()
                .run(&case.input, &mut outputs[0])
                .unwrap();
            direct::once(isa, &case.problem, given, &case.input, &mut outputs[1]).unwrap();
            for (got, expected) in outputs.iter().flat_map(|output| output.iter().zip(case.expected())) {
                assert!(same(*got, expected.value), "{isa:?} {desc:?}: {got}");
            }
        }
        assert!(cases >= shapes.len() / 2, "{cases} of {} cut", Isa::all().len() * shapes.len());
    }

    #[test]
    fn windows_change_no_bits() {
        let (mut cases, mut random) = (0, Random::new(19));
        for (isa, c) in Isa::all().into_iter().flat_map(|isa| [64, 600].map(|c| (isa, c))) {
            let case = ConvCase::new(dilated(1, c, 33, 40, 18, 1), Values::Real, &mut random);
            let given = (&case.weights[..], None);
            with_kernel!(isa, kernel => {
                let Some(windows) = choose(kernel, &case.problem, false) else { continue };
                let whole = crate::cpu::conv2d::ConvPlan::new(kernel, &case.problem, given.0, None).unwrap();
                let cut = WindowsPlan::new(kernel, &case.problem, &windows, given).unwrap();
                let mut outputs = [(); 2].map(|()| vec![f32::NAN; case.problem.output_len()]);
                whole.run(&case.input, &mut outputs[0]).unwrap();
                cut.run(&case.input, &mut outputs[1]).unwrap();
                assert!(outputs[0].iter().zip(&outputs[1]).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa:?} {c}");
            });
            cases += 1;
        }
        assert!(cases > 0);
    }

    /// An infinite weight times a zero of the padding is NaN, also for taps that would have been left out.
    #[test]
    fn infinite_weights_meet_the_padding() {
        let mut cases = 0;
        for isa in Isa::all() {
            let desc = dilated(1, 64, 33, 40, 18, 1);
            let problem = Conv2d::new(desc).unwrap();
            if with_kernel!(isa, kernel => choose(kernel, &problem, false)).is_none() {
                continue;
            }
            let mut weights = vec![1.0; problem.weights_len()];
            let mut input = vec![1.0; problem.input_len()];
            // Channel 3, tap (0, 0) of filter 7 sees padding above row 18 and left of column 18.
            weights[(7 * 64 + 3) * 9] = f32::INFINITY;
            input[0] = 2.0;
            let mut outputs = [(); 2].map(|()| vec![0.0; problem.output_len()]);
            direct::plan(isa, &problem, &weights, None).unwrap().run(&input, &mut outputs[0]).unwrap();
            direct::once(isa, &problem, (&weights, None), &input, &mut outputs[1]).unwrap();
            for output in &outputs {
                for (index, value) in output.iter().enumerate() {
                    let (k, p, q) = (index / (33 * 34), index / 34 % 33, index % 34);
                    let inside = p >= 18 && q >= 18;
                    assert_eq!(value.is_nan(), k == 7 && !inside, "{isa:?} {k} {p} {q}: {value}");
                    assert_eq!(value.is_infinite(), k == 7 && inside, "{isa:?} {k} {p} {q}: {value}");
                }
            }
            cases += 1;
        }
        assert!(cases > 0);
        assert!(
            allow(&[0.0; 5000]) && !allow(&[f32::NAN]) && !allow(&[0.0, f32::NEG_INFINITY]) && allow(&[])
        );
    }
}
