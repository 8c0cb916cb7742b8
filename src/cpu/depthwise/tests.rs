//! Every kernel of this CPU, exact, at several team sizes, on more shapes than the choice sends here.

use super::cut;
use super::engine::Engine;
use super::plan::GroupedPlan;
use crate::cpu::isa::{Isa, with_kernel};
use crate::cpu::pool::Team;
use crate::cpu::tests::cpu_cases::{ConvCase, Values, same};
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc};

/// The output, and whether maps are flat, tiles are rows; none if the problem cannot be cut.
fn conv2d<E: Engine>(engine: E, team: &mut Team, case: &ConvCase) -> Option<(Vec<f32>, bool, bool)> {
    let shape = cut(engine, &case.problem)?;
    let kind = (shape.flat, shape.by_rows);
    let plan = GroupedPlan::new(engine, shape, &case.problem, &case.weights, case.bias()).unwrap();
    let mut output = vec![f32::NAN; case.problem.output_len()];
    plan.execute(team, &case.input, &mut output).unwrap();
    Some((output, kind.0, kind.1))
}

/// A random convolution of up to 20 groups of few channels.
fn desc(random: &mut Random) -> Conv2dDesc {
    loop {
        let groups = random.between(1, 20);
        let depthwise = random.between(0, 1) == 0;
        let (r, s) = (random.between(1, 7), random.between(1, 7));
        let desc = Conv2dDesc {
            n: random.between(1, 2),
            c: groups * if depthwise { 1 } else { random.between(1, 5) },
            h: random.between(1, 24),
            w: random.between(1, 40),
            k: groups * if depthwise { random.between(1, 2) } else { random.between(1, 17) },
            r,
            s,
            stride_h: random.pick(&[1, 1, 2, 3]),
            stride_w: random.pick(&[1, 1, 2, 3]),
            pad_h: random.between(0, r),
            pad_w: random.between(0, s),
            dilation_h: random.pick(&[1, 1, 2, 3]),
            dilation_w: random.pick(&[1, 1, 2, 3]),
            groups,
            bias: random.between(0, 1) == 1,
            relu: random.between(0, 1) == 1,
            algorithm: Algorithm::Direct,
        };
        if Conv2d::new(desc).is_ok_and(|problem| problem.flops() < 2_000_000) {
            return desc;
        }
    }
}

#[test]
fn every_kernel_is_exact_on_two_thousand_shapes() {
    for isa in Isa::all() {
        let mut random = Random::new(51);
        let (mut cases, mut flat, mut by_rows) = (0, 0, 0);
        for mut team in [1, 2, 3, 7].map(Team::of) {
            for _ in 0..500 {
                let case = ConvCase::new(desc(&mut random), Values::Exact, &mut random);
                let done = with_kernel!(isa, kernel => conv2d(kernel, &mut team, &case));
                let (output, is_flat, is_by_rows) = done.expect("small enough to be cut");
                for (index, (&got, expected)) in output.iter().zip(case.expected()).enumerate() {
                    assert!(
                        same(got, expected.value),
                        "{isa:?} {:?} at {index}: {got}, not {}",
                        case.desc,
                        expected.value
                    );
                }
                cases += 1;
                flat += usize::from(is_flat);
                by_rows += usize::from(is_by_rows);
            }
        }
        assert_eq!(cases, 2_000);
        assert!(flat > 20 && by_rows > 200 && cases - flat - by_rows > 200, "{flat} flat, {by_rows} by rows");
    }
}
