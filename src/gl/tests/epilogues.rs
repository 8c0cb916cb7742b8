//! Epilogues in every family of shaders, exact on small integers: the outputs are what the function of the test makes of the
//! oracle's.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::buffers::Held;
use super::faulty::Machine;
use super::kernels::unit;
use super::rig::{Case, Rig};
use crate::backend::{Backend, Range};
use crate::error::Error;
use crate::gl::convolution::Buffered;
use crate::gl::device::engine::Engine;
use crate::gl::device::session::Session;
use crate::gl::execution::epilogue::Arguments;
use crate::gl::product;
use crate::kernel::bind::Arg;
use crate::kernel::fused::Fused;
use crate::memory::tiles::{TILES, Tile};
use crate::problem::exact::Random;
use crate::problem::{Algorithm, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose, oracle};
use crate::shader::variant::{Family, Variant};

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
      pure function everything(x, channel, position, n, on, scale, shift, skip, gates) result(y)
        real(real32), intent(in) :: x
        integer(int32), intent(in) :: channel, position, n
        logical, intent(in) :: on
        real(real32), intent(in) :: scale(n), shift(:), skip(*)
        integer(int32), intent(in) :: gates(n)
        real(real32) :: y
        y = x * scale(channel) + shift(channel)
        y = y + skip(position)
        if (on .and. gates(channel) > 0) y = clamped(y)
      end function

      pure function clamped(x) result(y)
        real(real32), intent(in) :: x
        real(real32) :: y
        y = min(max(x, -90.0), 120.0)
      end function
    end module
";

fn epilogues() -> [Fused; 2] {
    let unit = Arc::into_inner(unit(TEXT)).unwrap();
    Fused::all(unit).unwrap().try_into().unwrap()
}

/// Arguments for outputs of `channels` channels and `len` positions.
struct Data {
    scale: Vec<f32>,
    shift: Vec<f32>,
    skip: Vec<f32>,
    gates: Vec<i32>,
}

impl Data {
    fn new(channels: usize, len: usize) -> Self {
        let mut random = Random::new(1919);
        let gates = random.integers(channels, 2).into_iter().map(|it| it as i32).collect();
        let mut small = |len, most| random.integers(len, most);
        Data { scale: small(channels, 3), shift: small(channels, 9), skip: small(len, 99), gates }
    }

    fn args(&self, index: usize) -> Vec<Arg<'_>> {
        let n = self.scale.len() as i32;
        let (scale, shift, skip) = ((&self.scale).into(), (&self.shift).into(), (&self.skip).into());
        match index {
            0 => vec![(-2.0f32).into()],
            _ => vec![n.into(), true.into(), scale, shift, skip, (&self.gates).into()],
        }
    }

    fn apply(&self, index: usize, x: f32, channel: usize, position: usize) -> f32 {
        if index == 0 {
            return if x > 0.0 { x } else { -2.0 * x };
        }
        let y = x * self.scale[channel] + self.shift[channel] + self.skip[position];
        if self.gates[channel] > 0 { y.clamp(-90.0, 120.0) } else { y }
    }
}

fn expected(case: &Case, data: &Data, index: usize) -> Vec<f32> {
    let sizes = case.problem.sizes();
    let channel = |position| position / (sizes.p * sizes.q) % sizes.k;
    let outputs = case.expected.iter().enumerate();
    outputs.map(|(position, x)| data.apply(index, *x, channel(position), position)).collect()
}

fn assert_same(got: &[f32], expected: &[f32], what: &str) {
    let pairs = got.iter().zip(expected).enumerate();
    let wrong = pairs.clone().find(|(_, (got, right))| got != right && !(got.is_nan() && right.is_nan()));
    assert!(wrong.is_none() && got.len() == expected.len(), "{what}: {wrong:?}");
}

/// Runs a variant with each epilogue.
fn check(engine: &Engine, case: &Case, variant: Variant) -> String {
    let sizes = case.problem.sizes();
    let data = Data::new(sizes.k, case.expected.len());
    let mut name = String::new();
    for (index, epilogue) in epilogues().iter().enumerate() {
        let mut args = data.args(index);
        let launch = epilogue.bind(&mut args).unwrap();
        let mut output = vec![f32::NAN; case.expected.len()];
        let weights = (&case.weights[..], case.bias.as_deref());
        name = engine
            .worker()
            .call(|session| {
                let Session { programs, residents, .. } = session;
                let prepared = Buffered::finished(programs, variant, &case.problem, weights, Some(epilogue))?;
                let arguments = Arguments::new(programs.context(), residents, &launch)?;
                prepared.run_fused(&case.input, &mut output, Some(&arguments))?;
                Ok(prepared.kernel().to_owned())
            })
            .unwrap();
        let what = format!("{variant} {index} {:?}", case.problem.sizes());
        assert_same(&output, &expected(case, &data, index), &what);
    }
    name
}

fn layer(c: i64, side: i64, k: i64, r: i64, groups: i64) -> Conv2dDesc {
    let pad = r / 2;
    let desc = Conv2dDesc {
        n: 2,
        c,
        h: side,
        w: side,
        k,
        r,
        s: r,
        pad_h: pad,
        pad_w: pad,
        groups,
        ..Default::default()
    };
    Conv2dDesc { bias: true, algorithm: Algorithm::Direct, ..desc }
}

#[test]
fn every_family_applies_epilogues() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let small = Tile::new(32, 32, 8, 4, 4, 1);
    let tile = *TILES.iter().min_by_key(|tile| tile.bm * tile.bn).unwrap();
    assert!(tile.bm <= 2 * small.bm);
    let variant = |family, splits| Variant { family, tile, splits };
    let relu = |desc| Conv2dDesc { relu: true, ..desc };
    let cases = [
        (layer(12, 8, 20, 3, 1), variant(Family::Igemm, 1)),
        (relu(layer(16, 7, 20, 1, 1)), variant(Family::Igemm, 1)),
        (layer(16, 8, 20, 1, 2), variant(Family::Igemm, 2)),
        (layer(16, 7, 20, 3, 1), variant(Family::Igemm, 3)),
        (relu(layer(3, 9, 20, 3, 1)), variant(Family::Table, 1)),
        (layer(8, 8, 8, 3, 8), variant(Family::Grouped(1), 1)),
        (layer(8, 6, 16, 3, 8), variant(Family::Grouped(2), 1)),
        (relu(layer(8, 7, 8, 3, 8)), variant(Family::Grouped(1), 1)),
        (layer(32, 8, 40, 1, 1), variant(Family::Pointwise(2), 1)),
        (layer(5, 7, 6, 3, 1), Variant::FALLBACK),
        (relu(layer(6, 5, 6, 3, 3)), Variant::FALLBACK),
    ];
    let mut names = BTreeSet::new();
    for (seed, (desc, variant)) in cases.into_iter().enumerate() {
        names.insert(check(&engine, &Case::new(desc, 40 + seed as u64), variant));
    }
    assert!(names.len() >= 6, "{names:?}");
    // Winograd's forms are exact for inputs of zero, and sum again what is not finite.
    for (side, m) in [(8, 4), (6, 4), (7, 4), (8, 2), (7, 2)] {
        let desc = Conv2dDesc { algorithm: Algorithm::Winograd, ..layer(16, side, 20, 3, 1) };
        for case in [Case::blank(desc, 7), Case::spoilt(desc, 8)] {
            let finite = case.expected.iter().filter(|it| it.is_finite()).count();
            if finite == case.expected.len() {
                check(&engine, &case, variant(Family::Winograd(m), 1));
            }
        }
        let Case { problem, input, weights, bias, .. } = Case::new(desc, 9);
        // With F(2 x 2, 3 x 3) small integers are exact, too.
        if m == 2 {
            let expected = oracle::conv2d(&problem, &input, &weights, bias.as_deref());
            let expected = expected.into_iter().map(|it| it.value as f32).collect();
            check(
                &engine,
                &Case { problem, input, weights, bias, expected },
                variant(Family::Winograd(2), 1),
            );
        }
    }
}

/// A sum that is longer than the loops that a device makes is cut into parts, as on llvmpipe.
#[test]
fn sums_in_parts_apply_epilogues_once() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let one = Conv2dDesc { n: 2, k: 2, bias: true, algorithm: Algorithm::Direct, ..Default::default() };
    let limit = engine.share_group().unwrap().max_iterations();
    let case = Case::new(Conv2dDesc { c: 60_000, ..one }, 3);
    let name = check(&engine, &case, Variant::FALLBACK);
    assert_eq!(name.contains("parts"), limit < 60_000, "{name}");
}

#[test]
fn products_apply_epilogues() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let tile = *TILES.iter().min_by_key(|tile| tile.bm * tile.bn).unwrap();
    let mut random = Random::new(77);
    let mut cases = 0;
    for layout in [Layout::RowMajor, Layout::ColMajor] {
        for (beta, gap, kernel) in
            [(0.0, 0, None), (2.0, 3, None), (2.0, 3, Some(1)), (0.0, 0, Some(1)), (2.0, 0, Some(2))]
        {
            let (m, n, k) = (36, 20, 48);
            let packed = GemmDesc::packed(layout, m, n, k);
            let trans_b = if gap == 0 { Transpose::No } else { Transpose::Yes };
            let ldb = if (layout == Layout::RowMajor) == (gap == 0) { n } else { k };
            let desc = GemmDesc { beta, trans_b, ldb, ldc: packed.ldc + gap, ..packed };
            let problem = Gemm::new(desc).unwrap();
            let sizes = *problem.sizes();
            let [a, b, c] = problem.lens().map(|len| random.integers(len, 4));
            let data = Data::new(m as usize, c.len());
            for (index, epilogue) in epilogues().iter().enumerate() {
                let mut args = data.args(index);
                let launch = epilogue.bind(&mut args).unwrap();
                let mut got = c.clone();
                let mut tight = vec![0.0; sizes.m * sizes.n];
                engine
                    .worker()
                    .call(|session| {
                        let Session { programs, residents, .. } = session;
                        let arguments = Arguments::new(&programs.context().clone(), residents, &launch)?;
                        let (finish, matrices) = (Some(&(epilogue, &arguments)), (&a[..], &b[..], &c[..]));
                        match kernel {
                            None => product::run(programs, &problem, matrices, &mut tight, finish),
                            Some(splits) => {
                                let tile = (&tile, splits);
                                product::run_tiled(programs, tile, &problem, matrices, &mut tight, finish)
                            }
                        }
                    })
                    .unwrap();
                product::store(&problem, &tight, &mut got);
                let mut right = c.clone();
                for (i, j) in (0..sizes.m).flat_map(|i| (0..sizes.n).map(move |j| (i, j))) {
                    let position = i * sizes.c_row + j * sizes.c_col;
                    let value = oracle::gemm_element(&problem, &a, &b, &c, i, j).value as f32;
                    right[position] = data.apply(index, value, i, position);
                }
                assert_same(&got, &right, &format!("{desc:?} {kernel:?} {index}"));
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 20);
}

#[test]
fn plans_apply_epilogues_to_arrays_and_buffers() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let case = Case::new(layer(16, 20, 16, 3, 1), 5);
    let len = case.expected.len();
    let data = Data::new(16, len);
    let epilogue = &epilogues()[1];
    let plan = engine.plan_fused(&case.problem, &case.weights, case.bias.as_deref(), epilogue).unwrap();
    assert!(plan.recipe().is_none() && !plan.streams());
    let right = expected(&case, &data, 1);
    let mut args = data.args(1);
    let launch = epilogue.bind(&mut args).unwrap();
    let mut output = vec![f32::NAN; len];
    plan.run_fused(&case.input, &mut output, &launch).unwrap();
    assert_same(&output, &right, "arrays");

    // Input, output and one array stay on the device; the array is a part of the output's buffer.
    let input = Held::new(&engine, &case.input).unwrap();
    let both = Held::new(&engine, &[vec![f32::NAN; len], data.skip.clone()].concat()).unwrap();
    let mut args = data.args(1);
    args[4] = both.arg((len, len), false);
    let launch = epilogue.bind(&mut args).unwrap();
    let range = |held: &'static str, it, len| Range { memory: it, offset: 0, bytes: 4 * len, name: held };
    let (from, to) = (range("input", &input.memory, input.len), range("output", &both.memory, len));
    plan.run_resident_fused(from, to, &launch).unwrap();
    assert_same(&both.read().unwrap()[..len], &right, "buffers");
    assert_eq!(both.read().unwrap()[len..], data.skip[..]);
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// 64-bit integers are refused when the plan is made.
#[test]
fn what_glsl_lacks_is_unsupported() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let text = TEXT.replace("y = merge(x, slope * x, x > 0)", "y = real(int(x, int64) * 2_int64, real32)");
    let text = text.replacen("only: int32", "only: int64, int32", 1);
    let unit = Arc::into_inner(unit(&text)).unwrap();
    let epilogue = &Fused::all(unit).unwrap()[0];
    let case = Case::new(layer(5, 7, 6, 3, 1), 5);
    match engine.plan_fused(&case.problem, &case.weights, case.bias.as_deref(), epilogue) {
        Err(Error::Unsupported { what, .. }) => assert!(what.contains("\"leaky\""), "{what}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}
