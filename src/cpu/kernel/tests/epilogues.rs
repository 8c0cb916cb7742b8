//! Epilogues on the outputs of every driver: the same bits as the function of the test applied to the outputs without it, and
//! for integers to those of the oracle.

use std::collections::BTreeSet;

use super::super::finish::{Channels, Finisher};
use crate::backend::Plan;
use crate::cpu::isa::{Isa, with_kernel};
use crate::cpu::tests::cpu_cases::{ConvCase, GemmCase, Values, conv_desc, gemm_desc, same};
use crate::cpu::{direct, product, winograd};
use crate::kernel::bind::Arg;
use crate::kernel::fused::Fused;
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc};

const TEXT: &str = "
    module epilogues
      use iso_fortran_env, only: int32, real32
      implicit none
    contains
      !@epilogue
      pure function leaky(x, channel, position, slope) result(y)
        real(real32), intent(in) :: x, slope
        integer(int32), intent(in) :: channel, position
        real(real32) :: y
        y = merge(x, slope * x, x > 0)
      end function

      !@epilogue(base=1)
      pure function residual(x, channel, position, bias, skip) result(y)
        real(real32), intent(in) :: x, bias(:), skip(*)
        integer(int32), intent(in) :: channel, position
        real(real32) :: y
        y = x + skip(position) + bias(channel)
      end function

      !@epilogue
      pure function norm(x, channel, position, n, scale, shift, gates, on) result(y)
        real(real32), intent(in) :: x
        integer(int32), intent(in) :: channel, position
        integer(int32), intent(in) :: n
        real(real32), intent(in) :: scale(0:n-1), shift(0:n-1)
        logical, value :: on
        integer(int32), intent(in) :: gates(0:n-1)
        real(real32) :: y
        integer(int32) :: i
        y = x * scale(channel)
        do i = 1, gates(channel)
          y = y + shift(mod(channel + i, n))
        end do
        if (on .and. mod(position, 3) == 1) then
          y = -y
          return
        end if
        y = clamped(y)
      end function

      pure function clamped(x) result(y)
        real(real32), intent(in) :: x
        real(real32) :: y
        y = min(max(x, -50.0), 60.0)
      end function
    end module
";

fn epilogues() -> [Fused; 3] {
    let compiled = crate::kernel::compile(TEXT.as_bytes()).unwrap();
    let messages = crate::kernel::diagnostics::render_all(&compiled.diagnostics, "test", TEXT.as_bytes());
    let unit = compiled.unit.unwrap_or_else(|| panic!("{}", messages.unwrap()));
    Fused::all(unit).unwrap().try_into().unwrap()
}

/// Arguments of the epilogues for outputs of `channels` channels and `len` positions.
struct Data {
    slope: f32,
    bias: Vec<f32>,
    skip: Vec<f32>,
    gates: Vec<i32>,
}

impl Data {
    fn new(random: &mut Random, channels: usize, len: usize) -> Self {
        let gates = random.integers(channels, 3).into_iter().map(|it| it as i32).collect();
        Data { slope: -2.0, bias: random.integers(channels, 5), skip: random.integers(len, 9), gates }
    }

    fn args(&self, index: usize) -> Vec<Arg<'_>> {
        let n = self.bias.len() as i32;
        match index {
            0 => vec![self.slope.into()],
            1 => vec![(&self.bias).into(), (&self.skip).into()],
            _ => vec![n.into(), (&self.bias).into(), (&self.bias).into(), (&self.gates).into(), true.into()],
        }
    }

    /// What the epilogue means.
    fn apply(&self, index: usize, x: f32, channel: usize, position: usize) -> f32 {
        match index {
            0 if x > 0.0 => x,
            0 => self.slope * x,
            1 => x + self.skip[position] + self.bias[channel],
            _ => {
                let mut y = x * self.bias[channel];
                for i in 1..=self.gates[channel].max(0) as usize {
                    y += self.bias[(channel + i) % self.bias.len()];
                }
                if position % 3 == 1 {
                    return -y;
                }
                let y = if y > -50.0 { y } else { -50.0 };
                if y < 60.0 { y } else { 60.0 }
            }
        }
    }
}

fn is_same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Runs a plan with and without each epilogue.
fn check(isa: Isa, case: &ConvCase, plan: &dyn Plan, random: &mut Random) {
    let problem = &case.problem;
    let sizes = problem.sizes();
    let (pixels, len) = (sizes.p * sizes.q, problem.output_len());
    let mut plain = vec![f32::NAN; len];
    plan.run(&case.input, &mut plain).unwrap();
    let data = Data::new(random, sizes.k, len);
    for (index, epilogue) in epilogues().iter().enumerate() {
        let mut args = data.args(index);
        let launch = epilogue.bind(&mut args).unwrap();
        let mut output = vec![f32::NAN; len];
        let channels = Channels::Planes(pixels, sizes.k);
        let finisher = Finisher::new(isa, &launch, channels, &output, 2).unwrap();
        finisher.during(|| plan.run(&case.input, &mut output)).unwrap();
        for (position, (got, plain)) in output.iter().zip(&plain).enumerate() {
            let expected = data.apply(index, *plain, position / pixels % sizes.k, position);
            let kernel = plan.kernel();
            assert!(
                is_same(*got, expected),
                "{isa:?} {kernel} {index} {:?} at {position}: {got}, not {expected}",
                case.desc
            );
        }
        let mut again = vec![f32::NAN; len];
        plan.run(&case.input, &mut again).unwrap();
        assert!(again.iter().zip(&plain).all(|(a, b)| is_same(*a, *b)), "no epilogue stays");
    }
}

fn layer(c: i64, side: i64, k: i64, r: i64, groups: i64) -> Conv2dDesc {
    let pad = r / 2;
    Conv2dDesc { c, h: side, w: side, k, r, s: r, pad_h: pad, pad_w: pad, groups, ..Default::default() }
}

#[test]
fn every_direct_driver_applies_epilogues() {
    let column = Conv2dDesc { h: 200, w: 20, s: 20, pad_h: 0, pad_w: 0, ..layer(1, 20, 17, 3, 1) };
    let mut descs = vec![
        layer(3, 30, 20, 3, 1),
        layer(64, 14, 70, 1, 1),
        Conv2dDesc { n: 3, bias: true, relu: true, ..layer(40, 7, 33, 3, 1) },
        // Dot products.
        Conv2dDesc { n: 2, bias: true, ..layer(600, 4, 40, 1, 1) },
        layer(512, 2, 300, 3, 1),
        // Planes of strided images, and packed panels.
        Conv2dDesc { stride_h: 2, stride_w: 2, ..layer(64, 29, 40, 3, 1) },
        Conv2dDesc { stride_h: 2, stride_w: 2, n: 2, ..layer(3, 60, 16, 7, 1) },
        Conv2dDesc { stride_h: 3, stride_w: 3, dilation_h: 2, dilation_w: 2, ..layer(8, 25, 16, 5, 1) },
        // Windows, with taps in the padding.
        Conv2dDesc { pad_h: 18, pad_w: 18, dilation_h: 18, dilation_w: 18, ..layer(64, 33, 40, 3, 1) },
        // Grouped and depthwise.
        Conv2dDesc { n: 2, relu: true, ..layer(32, 20, 32, 3, 32) },
        layer(16, 7, 32, 3, 16),
        layer(12, 40, 24, 5, 4),
        Conv2dDesc { stride_h: 2, stride_w: 2, ..layer(24, 33, 24, 3, 24) },
        // A map of one column, and kernels as high as the image.
        Conv2dDesc { bias: true, ..column },
        Conv2dDesc { h: 3, w: 90, pad_h: 0, ..layer(9, 3, 12, 3, 1) },
        // Several blocks of depth.
        layer(300, 12, 24, 3, 1),
    ];
    let mut random = Random::new(1919);
    descs.extend((0..30).map(|_| conv_desc(&mut random)));
    let mut kernels = BTreeSet::new();
    for isa in Isa::all() {
        for desc in &descs {
            let case = ConvCase::new(*desc, Values::Exact, &mut random);
            let plan = direct::plan(isa, &case.problem, &case.weights, case.bias()).unwrap();
            kernels.insert(plan.kernel().to_owned());
            let mut plain = vec![f32::NAN; case.problem.output_len()];
            plan.run(&case.input, &mut plain).unwrap();
            assert!(plain.iter().zip(case.expected()).all(|(got, it)| same(*got, it.value)), "{desc:?}");
            check(isa, &case, &*plan, &mut random);
        }
    }
    let named = |part: &str| kernels.iter().any(|kernel| kernel.contains(part));
    assert!(named("depthwise") && named("grouped"), "{kernels:?}");
    assert!(kernels.len() >= 3 * Isa::all().len(), "{kernels:?}");
}

#[test]
fn winograds_algorithm_applies_epilogues() {
    let mut random = Random::new(1920);
    let mut kernels = BTreeSet::new();
    for isa in Isa::all() {
        for (n, c, side, k, groups) in
            [(1, 32, 30, 40, 1), (2, 40, 13, 24, 1), (2, 64, 56, 32, 1), (1, 32, 17, 32, 2)]
        {
            let algorithm = Algorithm::Winograd;
            let desc = Conv2dDesc { n, bias: true, relu: n == 2, algorithm, ..layer(c, side, k, 3, groups) };
            let mut case = ConvCase::new(desc, Values::Real, &mut random);
            for broken in [false, true] {
                if broken {
                    let at = case.input.len() / 3;
                    (case.input[at], case.input[at / 2]) = (f32::NAN, f32::INFINITY);
                }
                for (_, form) in winograd::candidates(isa, &case.problem) {
                    let data = (&case.weights[..], case.bias());
                    let plan = winograd::build(isa, form, &case.problem, data).unwrap();
                    kernels.insert(plan.kernel().to_owned());
                    check(isa, &case, &*plan, &mut random);
                }
            }
        }
    }
    assert!(kernels.len() >= Isa::all().len() - 1, "{kernels:?}");
}

#[test]
fn every_method_of_products_applies_epilogues() {
    let mut random = Random::new(1921);
    let mut scaled = 0;
    for isa in Isa::all() {
        for _ in 0..60 {
            let case = GemmCase::new(gemm_desc(&mut random), Values::Exact, &mut random);
            let sizes = *case.problem.sizes();
            if sizes.m * sizes.n == 0 {
                continue;
            }
            scaled += usize::from(case.problem.is_scaling());
            let channels = Channels::of_product(&sizes);
            let data = Data::new(&mut random, sizes.m, case.c.len());
            for (index, epilogue) in epilogues().iter().enumerate() {
                let mut args = data.args(index);
                let launch = epilogue.bind(&mut args).unwrap();
                let mut c = case.c.clone();
                let finisher = Finisher::new(isa, &launch, channels, &c, 2).unwrap();
                with_kernel!(isa, kernel => {
                    finisher.during(|| product::sgemm(kernel, &case.problem, (&case.a, &case.b), &mut c))
                })
                .unwrap();
                let mut right = case.c.clone();
                // Row by row.
                for (index_of_element, (position, expected)) in case.expected().into_iter().enumerate() {
                    let row = index_of_element / sizes.n;
                    right[position] = data.apply(index, expected.value as f32, row, position);
                }
                let pairs = c.iter().zip(&right).enumerate();
                for (position, (got, right)) in pairs {
                    let same = is_same(*got + 0.0, *right + 0.0);
                    assert!(same, "{isa:?} {index} {:?} at {position}: {got}, not {right}", case.desc);
                }
            }
        }
    }
    assert!(scaled > 0);
}

/// All threads of the pool apply it, to large problems.
#[test]
fn threads_share_an_epilogue() {
    let mut random = Random::new(1922);
    let desc = Conv2dDesc { n: 4, algorithm: Algorithm::Direct, ..layer(32, 40, 64, 3, 1) };
    let problem = Conv2d::new(desc).unwrap();
    let case = ConvCase::new(desc, Values::Exact, &mut random);
    let plan = direct::plan(Isa::best(), &problem, &case.weights, None).unwrap();
    (0..3).for_each(|_| check(Isa::best(), &case, &*plan, &mut random));
}
