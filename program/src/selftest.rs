//! The numeric self-test of one device: what `sparkle doctor` runs.
//!
//! Problems are small and odd, because index arithmetic fails there: sides that divide nothing, strides, dilation,
//! padding up to the kernel, groups. Some have sums so deep that a driver might end its loops early. On integers any
//! wrong index is a difference; real values test the accuracy of the sums. Outputs are filled with NaN before, so
//! that an element that is not written is noticed.

use std::thread;

use sparkle::problem::exact::{Random, largest_integer};
use sparkle::problem::oracle;
use sparkle::{Algorithm, Conv2d, Conv2dDesc, Device, Gemm, GemmDesc, Layout, Transpose};

use crate::failure::Failure;
use crate::verify;

/// One check of a device.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Problems solved.
    pub cases: usize,
    /// Its outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// Passed, with a remark.
    Passed(String),
    /// Wrong numbers: which.
    Wrong(String),
    /// The device's error.
    Failed(String),
}

/// Why a case did not pass.
enum Trouble {
    Wrong(String),
    Failed(String),
}

impl From<sparkle::Error> for Trouble {
    fn from(error: sparkle::Error) -> Self {
        Trouble::Failed(error.to_string())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failed(failure.to_string())
    }
}

/// What one case contributes to its check's remark.
#[derive(Default)]
struct Passed {
    /// Largest error in units of the bound.
    error_over_bound: f64,
    outputs: usize,
    zeros: usize,
}

/// A check before it runs.
pub struct Test {
    /// What it checks.
    pub name: &'static str,
    cases: usize,
    case: fn(&Device, &mut Random) -> Result<Passed, Trouble>,
}

/// All checks, in the order they should run.
pub const TESTS: [Test; 6] = [
    Test { name: "conv2d on integers is exact", cases: 48, case: exact_conv2d },
    Test { name: "conv2d on reals is within the error bound", cases: 16, case: real_conv2d },
    Test { name: "conv2d writes every output of a large image", cases: 1, case: large_conv2d },
    Test {
        name: "conv2d returns the same bits on every call, from any thread",
        cases: 8,
        case: repeated_conv2d,
    },
    Test { name: "sgemm on integers is exact", cases: 48, case: exact_sgemm },
    Test { name: "sgemm on reals is within the error bound", cases: 16, case: real_sgemm },
];

impl Test {
    /// Runs the check on `device`.
    pub fn run(&self, device: &Device) -> Check {
        let (cases, outcome) = solve(self.cases, |random| (self.case)(device, random));
        Check { name: self.name, cases, outcome }
    }
}

/// Runs `count` cases, each with its own random numbers, until one fails.
fn solve(count: usize, case: impl Fn(&mut Random) -> Result<Passed, Trouble>) -> (usize, Outcome) {
    let mut all = Passed::default();
    for number in 0..count {
        match case(&mut Random::new(number as u64)) {
            Ok(passed) => {
                all.error_over_bound = all.error_over_bound.max(passed.error_over_bound);
                all.outputs += passed.outputs;
                all.zeros += passed.zeros;
            }
            Err(Trouble::Wrong(what)) => {
                return (number + 1, Outcome::Wrong(format!("case {number}, {what}")));
            }
            Err(Trouble::Failed(error)) => {
                return (number + 1, Outcome::Failed(format!("case {number}: {error}")));
            }
        }
    }
    // ReLU sets about half of the outputs to zero, and not every case has ReLU.
    if all.outputs == 0 || all.zeros > all.outputs / 2 {
        let what = format!("{} of {} outputs are zero, which proves little", all.zeros, all.outputs);
        return (count, Outcome::Wrong(what));
    }
    let error = match all.error_over_bound {
        0.0 => "no difference".to_owned(),
        error => format!("largest error {error:.3} of the bound"),
    };
    let plural = if count == 1 { "" } else { "s" };
    (count, Outcome::Passed(format!("{count} problem{plural}, {} outputs, {error}", all.outputs)))
}

/// A small random convolution that may use every option.
fn conv2d_problem(random: &mut Random) -> sparkle::Result<Conv2d> {
    let groups = random.pick(&[1, 1, 1, 2, 3]);
    let (r, s) = (random.between(1, 7), random.between(1, 7));
    let (dilation_h, dilation_w) = (random.between(1, 2), random.between(1, 2));
    let (pad_h, pad_w) = (random.between(0, r), random.between(0, s));
    let least = |kernel: i64, dilation: i64, pad: i64| (dilation * (kernel - 1) + 1 - 2 * pad).max(1);
    let (h, w) = (least(r, dilation_h, pad_h), least(s, dilation_w, pad_w));
    Conv2d::new(Conv2dDesc {
        n: random.between(1, 3),
        c: groups * random.between(1, 5),
        h: h + random.between(0, 12),
        w: w + random.between(0, 12),
        k: groups * random.between(1, 5),
        r,
        s,
        stride_h: random.between(1, 3),
        stride_w: random.between(1, 3),
        pad_h,
        pad_w,
        dilation_h,
        dilation_w,
        groups,
        bias: random.pick(&[false, true]),
        relu: random.between(0, 3) == 0,
        // Winograd is not exact on integers.
        algorithm: Algorithm::Direct,
        ..Default::default()
    })
}

/// Input, weights and bias.
type Data = (Vec<f32>, Vec<f32>, Option<Vec<f32>>);

fn data(problem: &Conv2d, mut values: impl FnMut(usize) -> Vec<f32>) -> Data {
    let (input, weights) = (values(problem.input_len()), values(problem.weights_len()));
    (input, weights, problem.bias().then(|| values(problem.sizes().k)))
}

fn run(device: &Device, problem: &Conv2d, (input, weights, bias): &Data) -> sparkle::Result<Vec<f32>> {
    let mut output = vec![f32::NAN; problem.output_len()];
    device.conv2d(problem, input, weights, bias.as_deref(), &mut output)?;
    Ok(output)
}

fn exact_conv2d(device: &Device, random: &mut Random) -> Result<Passed, Trouble> {
    let problem = if is_deep(random) { deep_conv2d_problem(random)? } else { conv2d_problem(random)? };
    exactly(device, problem, random)
}

/// Whether a case has deep sums.
fn is_deep(random: &mut Random) -> bool {
    random.between(0, 7) == 0
}

/// A problem with few outputs, each a sum of tens of thousands of products.
fn deep_conv2d_problem(random: &mut Random) -> sparkle::Result<Conv2d> {
    let (side, most) = random.pick(&[(1, 70_000), (3, 9_000), (7, 1_500)]);
    let c = random.between(most * 3 / 4, most);
    let (k, algorithm) = (random.between(1, 3), Algorithm::Direct);
    Conv2d::new(Conv2dDesc { c, h: side, w: side + 1, k, r: side, s: side, algorithm, ..Default::default() })
}

/// A cheap problem with more outputs than 65,535 workgroups of one invocation could write.
fn large_conv2d(device: &Device, random: &mut Random) -> Result<Passed, Trouble> {
    let problem = Conv2d::new(Conv2dDesc { h: 211, w: 223, k: 3, ..Default::default() })?;
    debug_assert!(problem.output_len() > 2 * 65_535);
    exactly(device, problem, random)
}

fn exactly(device: &Device, problem: Conv2d, random: &mut Random) -> Result<Passed, Trouble> {
    let largest = largest_integer(problem.terms());
    let data = data(&problem, |len| random.integers(len, largest));
    let output = run(device, &problem, &data)?;
    let expected = oracle::conv2d(&problem, &data.0, &data.1, data.2.as_deref());
    let pairs = output.iter().zip(&expected).map(|(&got, expected)| (got, expected.value as f32));
    exact(pairs).map_err(|what| Trouble::Wrong(format!("{what} of {:?}", problem.sizes())))
}

/// Compares pairs of computed and expected values.
fn exact(pairs: impl Iterator<Item = (f32, f32)>) -> Result<Passed, String> {
    let mut passed = Passed::default();
    for (index, (got, expected)) in pairs.enumerate() {
        if got != expected {
            let got = if got.is_nan() { "NaN or was not written".to_owned() } else { got.to_string() };
            return Err(format!("element {index} is {got}, expected {expected},"));
        }
        passed.outputs += 1;
        passed.zeros += usize::from(got == 0.0);
    }
    Ok(passed)
}

fn real_conv2d(device: &Device, random: &mut Random) -> Result<Passed, Trouble> {
    let problem = conv2d_problem(random)?;
    let data = data(&problem, |len| random.reals(len));
    let output = run(device, &problem, &data)?;
    let verdict = verify::conv2d(&problem, (&data.0, &data.1, data.2.as_deref()), &output)?;
    within(verdict.error_over_bound, output.len(), verdict.zeros)
        .map_err(|what| Trouble::Wrong(format!("{what} in {:?}", problem.sizes())))
}

fn within(error_over_bound: f64, outputs: usize, zeros: usize) -> Result<Passed, String> {
    if error_over_bound <= 1.0 {
        Ok(Passed { error_over_bound, outputs, zeros })
    } else {
        Err(format!("the error is {error_over_bound:.3e} times the bound"))
    }
}

/// Runs one plan several times in turn, and from four threads at once.
fn repeated_conv2d(device: &Device, random: &mut Random) -> Result<Passed, Trouble> {
    let problem = conv2d_problem(random)?;
    let (input, weights, bias) = data(&problem, |len| random.reals(len));
    let plan = device.plan(&problem, &weights, bias.as_deref())?;
    let call = || {
        let mut output = vec![f32::NAN; problem.output_len()];
        plan.run(&input, &mut output).map(|_| output)
    };
    let first = call()?;
    let others = thread::scope(|scope| {
        let callers = (0..4).map(|_| thread::Builder::new().spawn_scoped(scope, call));
        let callers: Vec<_> =
            callers.collect::<Result<_, _>>().map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(callers
            .into_iter()
            .map(|caller| caller.join().expect("a call does not panic"))
            .collect::<Vec<_>>())
    });
    let others = others.map_err(Trouble::Failed)?;
    for other in std::iter::once(call()).chain(others) {
        let same = other?.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits());
        if !same {
            return Err(Trouble::Wrong(format!("two calls differ for {:?}", problem.sizes())));
        }
    }
    let verdict = verify::conv2d(&problem, (&input, &weights, bias.as_deref()), &first)?;
    within(verdict.error_over_bound, first.len(), verdict.zeros).map_err(Trouble::Wrong)
}

/// A small matrix product with gaps between the lines of all three matrices, and a depth of up to `deepest`.
fn gemm_problem(random: &mut Random, deepest: i64) -> sparkle::Result<Gemm> {
    let layout = random.pick(&[Layout::RowMajor, Layout::ColMajor]);
    let [trans_a, trans_b] = [(); 2].map(|()| random.pick(&[Transpose::No, Transpose::Yes]));
    let [m, n] = [(); 2].map(|()| random.between(1, 40));
    let k = if deepest > 40 { random.between(deepest * 3 / 4, deepest) } else { random.between(1, 40) };
    let mut line = |rows: i64, cols: i64, transpose| {
        let by_columns = (layout == Layout::ColMajor) != (transpose == Transpose::Yes);
        (if by_columns { rows } else { cols }) + random.between(0, 3)
    };
    let (lda, ldb, ldc) = (line(m, k, trans_a), line(k, n, trans_b), line(m, n, Transpose::No));
    let alpha = random.pick(&[1.0, 1.0, -1.0, 2.0]);
    let beta = random.pick(&[0.0, 0.0, 1.0, -1.0, 2.0]);
    Gemm::new(GemmDesc { layout, trans_a, trans_b, m, n, k, alpha, lda, ldb, beta, ldc })
}

fn exact_sgemm(device: &Device, random: &mut Random) -> Result<Passed, Trouble> {
    sgemm(device, random, true)
}

fn real_sgemm(device: &Device, random: &mut Random) -> Result<Passed, Trouble> {
    sgemm(device, random, false)
}

fn sgemm(device: &Device, random: &mut Random, integers: bool) -> Result<Passed, Trouble> {
    let deepest = if integers && is_deep(random) { 70_000 } else { 40 };
    let problem = gemm_problem(random, deepest)?;
    let mut values = |len| if integers { random.integers(len, 8) } else { random.reals(len) };
    let [a, b, old] = problem.lens().map(&mut values);
    // With beta = 0 the old C must not be read.
    let mut c = if problem.beta() == 0.0 { vec![f32::NAN; old.len()] } else { old.clone() };
    let before = c.clone();
    device.sgemm(&problem, &a, &b, &mut c)?;
    let wrong = |what: String| Trouble::Wrong(format!("{what} in {:?}", problem.sizes()));
    let sizes = problem.sizes();
    let (mut worst, mut zeros, mut is_element, mut pairs) = (0f64, 0, vec![false; c.len()], vec![]);
    for (i, j) in (0..sizes.m).flat_map(|i| (0..sizes.n).map(move |j| (i, j))) {
        let at = i * sizes.c_row + j * sizes.c_col;
        let expected = oracle::gemm_element(&problem, &a, &b, &old, i, j);
        worst = worst.max(oracle::error_over_bound(c[at], expected, problem.terms()));
        zeros += usize::from(c[at] == 0.0);
        is_element[at] = true;
        pairs.push((c[at], expected.value as f32));
    }
    let gaps = (0..c.len()).filter(|&at| !is_element[at]);
    if let Some(at) = gaps.into_iter().find(|&at| c[at].to_bits() != before[at].to_bits()) {
        return Err(wrong(format!("C was written in the gap between its lines, at {at},")));
    }
    if integers { exact(pairs.into_iter()) } else { within(worst, pairs.len(), zeros) }.map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_odd_and_not_all_alike() {
        let problems: Vec<Conv2d> =
            (0..48).map(|seed| conv2d_problem(&mut Random::new(seed)).unwrap()).collect();
        let with = |what: fn(&Conv2d) -> bool| problems.iter().filter(|problem| what(problem)).count();
        assert!(with(|it| it.sizes().groups > 1) > 5);
        assert!(with(|it| it.sizes().stride_h != it.sizes().stride_w) > 5);
        assert!(with(|it| it.sizes().dilation_h > 1) > 5);
        assert!(with(|it| it.bias()) > 5 && with(|it| it.relu()) > 5);
        assert!(with(|it| it.sizes().q % 2 == 1) > 5);
        assert!(problems.iter().all(|it| it.flops() < 20_000_000));
        assert!((0..48).all(|seed| gemm_problem(&mut Random::new(seed), 40).is_ok()));
        let deep: Vec<u64> = (0..48).filter(|&seed| is_deep(&mut Random::new(seed))).collect();
        assert!(deep.len() > 3 && deep.len() < 12, "{deep:?}");
        for seed in deep {
            let (conv2d, gemm) =
                (deep_conv2d_problem(&mut Random::new(seed)), gemm_problem(&mut Random::new(seed), 70_000));
            assert!(conv2d.unwrap().reduction() > 50_000 && gemm.unwrap().sizes().k > 50_000);
        }
    }

    #[test]
    fn differences_are_reported() {
        assert!(exact([(1.0, 1.0), (-0.0, 0.0)].into_iter()).is_ok());
        let what = exact([(1.0, 1.0), (f32::NAN, 2.0)].into_iter()).err().unwrap();
        assert_eq!(what, "element 1 is NaN or was not written, expected 2,");
        assert!(within(1.5, 1, 0).is_err() && within(f64::NAN, 1, 0).is_err());
    }

    #[test]
    fn a_check_ends_at_its_first_trouble() {
        let wrong = solve(9, |random| match random.bits() == Random::new(3).bits() {
            true => Err(Trouble::Wrong("bad".into())),
            false => Ok(Passed { outputs: 1, ..Passed::default() }),
        });
        assert_eq!(wrong, (4, Outcome::Wrong("case 3, bad".into())));
        let failed = solve(9, |_| Err(sparkle::Error::Internal("oh".into()).into()));
        assert!(matches!(failed.1, Outcome::Failed(_)));
        let idle = solve(9, |_| Ok(Passed { outputs: 2, zeros: 2, ..Passed::default() }));
        assert!(matches!(idle.1, Outcome::Wrong(_)));
    }
}
