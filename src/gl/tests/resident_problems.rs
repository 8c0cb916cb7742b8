//! Convolutions and products on programs' buffers, on the machine's first device: in place, at any offset, without
//! transfers; and every call fails once.

use super::buffers::Held;
use super::faulty::{Fault, Machine};
use super::kernels::unit;
use super::rig::{Case, Rig, SMALL_BLOCK};
use crate::backend::{Backend, Plan, Range};
use crate::error::{Error, Result};
use crate::gl::device::engine::Engine;
use crate::gl::driver::api;
use crate::kernel::bind::Launch;
use crate::problem::exact::Random;
use crate::problem::{Conv2dDesc, Gemm, GemmDesc, Layout, Transpose, oracle};

fn range<'a>(held: &'a Held, offset: usize, len: usize, name: &'static str) -> Range<'a> {
    Range { memory: &held.memory, offset: 4 * offset, bytes: 4 * len, name }
}

/// Elements around a range, which must stay.
const AROUND: f32 = -777.0;

/// `data` after `before` other elements and before some more.
fn placed(data: &[f32], before: usize) -> Vec<f32> {
    [vec![AROUND; before], data.to_vec(), vec![AROUND; 5]].concat()
}

/// Runs a plan with input and output at offsets, and checks everything around them.
fn check_conv(engine: &Engine, case: &Case, plan: &dyn Plan, (from, to): (usize, usize)) {
    let input = Held::new(engine, &placed(&case.input, from)).unwrap();
    let output = Held::new(engine, &placed(&vec![f32::NAN; case.expected.len()], to)).unwrap();
    let timing = plan
        .run_resident(
            range(&input, from, case.input.len(), "input"),
            range(&output, to, case.expected.len(), "output"),
        )
        .unwrap();
    assert!(timing.dispatches > 0);
    assert_eq!(output.read().unwrap(), placed(&case.expected, to), "at {from} and {to}");
    assert_eq!(input.read().unwrap(), placed(&case.input, from));
}

#[test]
fn convolutions_in_place_at_any_offset() {
    // With small blocks, a batch is computed in parts of two images, and one at the end.
    let small = Machine { max_block: Some(SMALL_BLOCK), ..Machine::default() };
    for machine in [Machine::default(), small] {
        let Some(rig) = Rig::new(machine) else { return };
        let engine = rig.open().unwrap();
        // Of a size for which shaders are generated.
        let generated = Conv2dDesc {
            n: 3,
            c: 16,
            h: 20,
            w: 20,
            k: 16,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            ..Default::default()
        };
        let generated =
            Case::new(Conv2dDesc { algorithm: crate::Algorithm::Direct, bias: true, ..generated }, 61);
        let mut cases = vec![&rig.square, &rig.direct, &rig.batch, &rig.mixed];
        if machine.max_block.is_none() {
            cases.push(&generated);
        }
        for case in cases {
            let plan = case.plan(&engine).unwrap();
            for offsets in [(0, 0), (64, 128), (1, 0), (0, 3), (5, 7)] {
                check_conv(&engine, case, &*plan, offsets);
            }
            // A second run makes nothing new, and moves nothing.
            let (input, output) =
                (Held::new(&engine, &case.input).unwrap(), Held::new(&engine, &case.expected).unwrap());
            let run = || {
                let (from, to) = (case.input.len(), case.expected.len());
                plan.run_resident(range(&input, 0, from, "input"), range(&output, 0, to, "output")).unwrap()
            };
            run();
            rig.faults.take_transfers();
            run();
            assert_eq!(rig.faults.take_transfers(), Vec::<i64>::new(), "{}", plan.kernel());
            assert_eq!(output.read().unwrap(), case.expected);
            // On arrays it still works.
            case.run(&*plan).unwrap();
        }
        assert_eq!(rig.faults.violations(), Vec::<String>::new());
    }
}

/// Convolutions in one call, with weights and bias in buffers: nothing moves but the parameters of fallback kernels.
#[test]
fn convolutions_in_one_call() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    for (case, block) in [(&rig.square, 40), (&rig.direct, 104), (&rig.mixed, 104)] {
        let constants = Held::new(&engine, &placed(&case.weights, 2)).unwrap();
        let bias = case.bias.as_ref().map(|bias| Held::new(&engine, bias).unwrap());
        let (input, output) =
            (Held::new(&engine, &case.input).unwrap(), Held::new(&engine, &case.expected).unwrap());
        for _ in 0..2 {
            output.write(0, &vec![f32::NAN; output.len]).unwrap();
            rig.faults.take_transfers();
            let weights = range(&constants, 2, case.weights.len(), "weights");
            let bias = bias.as_ref().map(|bias| range(bias, 0, bias.len, "bias"));
            let (from, to) = (range(&input, 0, input.len, "input"), range(&output, 0, output.len, "output"));
            engine.conv2d_resident(&case.problem, (weights, bias), from, to).unwrap();
            assert_eq!(rig.faults.take_transfers(), [block]);
            assert_eq!(output.read().unwrap(), case.expected);
        }
        assert_eq!(constants.read().unwrap(), placed(&case.weights, 2));
        drop((constants, bias, input, output));
        engine.worker().call(|_| Ok(())).unwrap();
        assert_eq!(rig.faults.objects().get("buffer"), None, "nothing is left");
    }
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// A product of small integers, with gaps of `gap` elements between the lines of each matrix.
struct Product {
    problem: Gemm,
    matrices: [Vec<f32>; 3],
    expected: Vec<f32>,
}

impl Product {
    fn new(
        (layout, transpose): (Layout, Transpose),
        (m, n, k): (usize, usize, usize),
        (alpha, beta): (f32, f32),
        gap: usize,
    ) -> Self {
        let packed = GemmDesc::packed(layout, m as i64, n as i64, k as i64);
        let (lda, ldb) = match (layout == Layout::RowMajor) == (transpose == Transpose::No) {
            true => (k, n),
            false => (m, k),
        };
        let ldc = if layout == Layout::RowMajor { n } else { m };
        let [lda, ldb, ldc] = [lda, ldb, ldc].map(|it| (it + gap).max(1) as i64);
        let (trans_a, trans_b) = (transpose, transpose);
        let desc = GemmDesc { trans_a, trans_b, lda, ldb, ldc, alpha, beta, ..packed };
        let (problem, mut random) = (Gemm::new(desc).unwrap(), Random::new(62));
        let matrices = problem.lens().map(|len| random.integers(len, 3));
        let [a, b, c] = &matrices;
        let mut expected = c.clone();
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let at = if layout == Layout::RowMajor { i * ldc as usize + j } else { j * ldc as usize + i };
            expected[at] = oracle::gemm_element(&problem, a, b, c, i, j).value as f32;
        }
        Product { problem, matrices, expected }
    }

    /// The matrices in buffers, each after some other elements.
    fn held(&self, engine: &Engine, before: [usize; 3]) -> Result<[Held; 3]> {
        let [a, b, c] = &self.matrices;
        let [x, y, z] = before;
        Ok([
            Held::new(engine, &placed(a, x))?,
            Held::new(engine, &placed(b, y))?,
            Held::new(engine, &placed(c, z))?,
        ])
    }

    fn run(&self, engine: &Engine, held: &[Held; 3], before: [usize; 3]) -> Result<String> {
        let range = |at: usize, name| range(&held[at], before[at], self.matrices[at].len(), name);
        let ranges = [range(0, "a"), range(1, "b"), range(2, "c")];
        engine.sgemm_resident(&self.problem, ranges).map(|(kernel, _)| kernel.to_string())
    }

    /// Returns the kernel's name.
    fn check(&self, engine: &Engine, before: [usize; 3]) -> String {
        let held = self.held(engine, before).unwrap();
        let kernel = self.run(engine, &held, before).unwrap();
        assert_eq!(
            held[2].read().unwrap(),
            placed(&self.expected, before[2]),
            "{:?} {before:?}",
            self.problem
        );
        for at in 0..2 {
            assert_eq!(held[at].read().unwrap(), placed(&self.matrices[at], before[at]));
        }
        kernel
    }
}

#[test]
fn products_in_place_at_any_offset() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let mut checked = 0;
    let ways = [Layout::RowMajor, Layout::ColMajor].map(|it| [(it, Transpose::No), (it, Transpose::Yes)]);
    for way in ways.into_iter().flatten() {
        for factors in [(1.0, 0.0), (2.0, 1.0), (-1.0, 3.0)] {
            for gap in [0, 3] {
                let product = Product::new(way, (18, 7, 5), factors, gap);
                for before in [[0; 3], [1, 2, 3], [64, 128, 64]] {
                    assert_eq!(product.check(&engine, before), "sgemm_direct_16x16");
                    checked += 1;
                }
            }
        }
    }
    // Without terms, without lines.
    for (sizes, factors) in
        [((5, 6, 0), (1.0, 2.0)), ((5, 6, 4), (0.0, 0.0)), ((5, 6, 4), (0.0, 1.0)), ((0, 6, 4), (1.0, 1.0))]
    {
        for gap in [0, 2] {
            Product::new((Layout::RowMajor, Transpose::No), sizes, factors, gap).check(&engine, [3, 2, 1]);
            checked += 1;
        }
    }
    assert_eq!(checked, 80);
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

#[test]
fn products_in_tiles() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    for (factors, gap, before) in
        [((1.0, 0.0), 0, [0; 3]), ((2.0, -1.0), 0, [0, 3, 5]), ((1.0, 2.0), 4, [1, 0, 64])]
    {
        let product = Product::new((Layout::RowMajor, Transpose::No), (300, 310, 320), factors, gap);
        let kernel = product.check(&engine, before);
        assert_ne!(kernel, "sgemm_direct_16x16");
    }
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

const SCALE: &str = "!@kernel
subroutine scale(i, n, a, x)
  integer, value :: i, n
  real, value :: a
  real, intent(inout) :: x(0:n-1)
  x(i) = a * x(i)
end subroutine
";

/// conv -> kernel -> conv -> sgemm: nothing moves between host and device, but the sizes of the product.
#[test]
fn a_chain_of_calls_moves_no_data() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let first = Conv2dDesc {
        c: 3,
        h: 9,
        w: 8,
        k: 4,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        bias: true,
        ..Default::default()
    };
    let second = Conv2dDesc { c: 4, k: 5, relu: true, bias: false, ..first };
    let (first, second) = (Case::new(first, 71), Case::new(second, 72));
    // C (5 x 6) = maps (5 x 72) times B (72 x 6).
    let gemm = Gemm::new(GemmDesc::packed(Layout::RowMajor, 5, 6, 72)).unwrap();
    let b = Random::new(73).integers(72 * 6, 2);

    // The same on the host, by the oracles.
    let scaled: Vec<f32> = first.expected.iter().map(|value| 0.5 * value).collect();
    let maps: Vec<f32> = oracle::conv2d(&second.problem, &scaled, &second.weights, None)
        .iter()
        .map(|it| it.value as f32)
        .collect();
    let expected: Vec<f32> =
        (0..30).map(|at| oracle::gemm_element(&gemm, &maps, &b, &[], at / 6, at % 6).value as f32).collect();
    assert!(expected.iter().filter(|value| **value != 0.0).count() > 20);

    let plans = [first.plan(&engine).unwrap(), second.plan(&engine).unwrap()];
    let unit = unit(SCALE);
    let blank = |len| Held::new(&engine, &vec![f32::NAN; len]).unwrap();
    let x = Held::new(&engine, &first.input).unwrap();
    let (middle, on_maps) = (blank(first.expected.len()), blank(maps.len()));
    let (on_b, c) = (Held::new(&engine, &b).unwrap(), blank(30));
    let chain = || -> Result<()> {
        let n = middle.len;
        plans[0].run_resident(range(&x, 0, x.len, "input"), range(&middle, 0, n, "output"))?;
        let mut args = [(n as i32).into(), 0.5f32.into(), middle.whole(true)];
        engine.launch(&Launch::new(&unit, 0, &[n], &mut args)?)?;
        plans[1].run_resident(range(&middle, 0, n, "input"), range(&on_maps, 0, on_maps.len, "output"))?;
        let matrices = [range(&on_maps, 0, 5 * 72, "a"), range(&on_b, 0, 72 * 6, "b"), range(&c, 0, 30, "c")];
        engine.sgemm_resident(&gemm, matrices).map(drop)
    };
    chain().unwrap();
    for _ in 0..3 {
        rig.faults.take_transfers();
        rig.faults.take_copies();
        chain().unwrap();
        assert_eq!(rig.faults.take_transfers(), [52], "the sizes of the product");
        assert_eq!(rig.faults.take_copies(), Vec::<i64>::new());
        assert_eq!(c.read().unwrap(), expected);
    }
    assert_eq!(on_maps.read().unwrap(), maps);
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// What a call only reads stays, unless the device is lost. What it writes is as before or lost, never half written.
#[test]
fn every_call_fails_once() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let case = &rig.direct;
    let plan = case.plan(&engine).unwrap();
    let (input, output) =
        (Held::new(&engine, &case.input).unwrap(), Held::new(&engine, &case.expected).unwrap());
    let old: Vec<f32> = (0..output.len).map(|at| at as f32 + 0.25).collect();
    let product = Product::new((Layout::RowMajor, Transpose::No), (18, 7, 5), (1.0, 1.0), 2);
    let held = product.held(&engine, [0, 1, 2]).unwrap();
    let (old_c, expected_c) = (placed(&product.matrices[2], 2), placed(&product.expected, 2));
    let conv = || {
        let (from, to) = (range(&input, 0, input.len, "input"), range(&output, 0, output.len, "output"));
        plan.run_resident(from, to).map(drop)
    };
    let multiply = || product.run(&engine, &held, [0, 1, 2]).map(drop);
    type Job<'a> = (&'a dyn Fn() -> Result<()>, &'a Held, &'a [f32], &'a [f32]);
    let jobs: [Job<'_>; 2] =
        [(&conv, &output, &old, &case.expected), (&multiply, &held[2], &old_c, &expected_c)];
    let faults = [
        Fault::Error(api::OUT_OF_MEMORY),
        Fault::Error(api::INVALID_OPERATION),
        Fault::Lost,
        Fault::LostSilently,
        Fault::WaitFails,
        Fault::NeverSignals,
        Fault::NoObject,
        Fault::Panic,
    ];
    let (mut hits, mut kept, mut lost) = (0, 0, 0);
    for ((run, written, before, after), fault) in
        jobs.iter().flat_map(|job| faults.map(|fault| (*job, fault)))
    {
        for number in 1.. {
            input.write(0, &case.input).unwrap();
            held[0].write(0, &placed(&product.matrices[0], 0)).unwrap();
            held[1].write(0, &placed(&product.matrices[1], 1)).unwrap();
            written.write(0, before).unwrap();
            rig.faults.arm(fault, number);
            let result = run();
            let hit = rig.faults.disarm();
            let when = format!("{fault:?} at call {number}, {hit:?}: {result:?}");
            let is_lost = matches!(fault, Fault::Lost | Fault::LostSilently | Fault::Panic);
            match (written.read(), &result) {
                (Ok(it), Ok(())) => assert_eq!(it, after, "{when}"),
                (Ok(it), Err(_)) => {
                    assert_eq!(it, before, "{when}");
                    kept += 1;
                }
                (Err(Error::ContentsLost { .. } | Error::DeviceLost { .. }), _) => {
                    assert!(result.is_err() || is_lost, "{when}");
                    lost += 1;
                }
                (Err(error), _) => panic!("{when}: {error}"),
            }
            for (it, data) in [(&input, &case.input), (&held[0], &placed(&product.matrices[0], 0))] {
                match it.read() {
                    Ok(it) => assert_eq!(it, *data, "{when}"),
                    Err(error) => assert!(is_lost, "{when}: {error}"),
                }
            }
            if hit.is_none() {
                result.unwrap();
                break;
            }
            hits += 1;
        }
    }
    assert!(hits > 150 && kept > 10 && lost > 80, "{hits} {kept} {lost}");
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}
