//! Numbers to try variants on, and the results expected of them.

use crate::problem::Conv2d;
use crate::problem::exact::{Random, largest_integer};
use crate::problem::oracle::{self, Expected};
use crate::shader::variant::{Family, Variant};

/// Kinds of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Small integers, whose sums are all exact.
    Integers,
    /// Small integers with NaN and infinities among the input, the weights and the bias.
    NotFinite,
    /// Inputs up to the largest finite numbers, with weights so small that sums are finite.
    Huge,
}

/// How outputs compare with the expected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compared {
    /// Wrong outputs: NaN or an infinity in the wrong place; beyond the bound; or not exact where they must be.
    pub wrong: usize,
    /// Outputs that should be NaN or an infinity.
    pub not_finite: usize,
}

/// Numbers for one problem.
pub struct Given {
    pub input: Vec<f32>,
    pub weights: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    expected: Vec<Expected>,
    exactly: bool,
}

impl Given {
    /// The same numbers for the same seed.
    pub fn new(problem: &Conv2d, variant: &Variant, numbers: Numbers, seed: u64) -> Self {
        let [mut input, mut weights, mut bias] = match (numbers, variant.family) {
            (Numbers::Huge, _) => huge(problem, seed),
            (_, Family::Winograd(m)) => transformable(problem, m, seed),
            _ => integers(problem, seed),
        };
        if numbers == Numbers::NotFinite {
            spoil(problem, [&mut input, &mut weights, &mut bias], seed);
        }
        let bias = problem.bias().then_some(bias);
        let expected = oracle::conv2d(problem, &input, &weights, bias.as_deref());
        Given { input, weights, bias, expected, exactly: numbers != Numbers::Huge }
    }

    /// Compares the outputs of `problem`.
    pub fn compare(&self, problem: &Conv2d, output: &[f32]) -> Compared {
        let is_wrong = |(&got, &expected): (&f32, &Expected)| match self.exactly {
            true => f64::from(got) != expected.value && !(got.is_nan() && expected.value.is_nan()),
            // NaN counts as a large error.
            false => !matches!(oracle::error_over_bound(got, expected, problem.terms()), 0.0..=1.0),
        };
        let wrong = output.iter().zip(&self.expected).filter(|&pair| is_wrong(pair)).count();
        let not_finite = self.expected.iter().filter(|it| !it.value.is_finite()).count();
        Compared { wrong, not_finite }
    }
}

/// Input, weights and bias of integers with which every sum of `problem` is exact.
fn integers(problem: &Conv2d, seed: u64) -> [Vec<f32>; 3] {
    let (mut random, limit) = (Random::new(seed), largest_integer(problem.terms()));
    let bias = if problem.bias() { problem.sizes().k } else { 0 };
    [problem.input_len(), problem.weights_len(), bias].map(|len| random.integers(len, limit))
}

/// As [`integers`], for Winograd's F(m x m, 3 x 3), whose transforms have fractions. With these numbers all
/// intermediate results are integers, or multiples of small powers of two.
///
/// F(2 x 2) has only halves. F(4 x 4) has fifteenths, in both directions, and its points make numbers grow and shrink
/// by a factor of some hundred. So a kernel has one tap, and few pixels of a channel are not zero.
fn transformable(problem: &Conv2d, m: usize, seed: u64) -> [Vec<f32>; 3] {
    let mut random = Random::new(seed);
    let bias = random.integers(if problem.bias() { problem.sizes().k } else { 0 }, 8);
    let (inputs, weights) = (problem.input_len(), problem.weights_len());
    if m == 2 {
        let weights = random.integers(weights, 2).iter().map(|weight| 4.0 * weight).collect();
        return [random.integers(inputs, 2), weights, bias];
    }
    let mut taps = vec![0.0; weights];
    for kernel in taps.chunks_exact_mut(9) {
        kernel[random.between(0, 8) as usize] = random.pick(&[225.0, -225.0]);
    }
    // About six of the 36 pixels that a tile reads, over all channels.
    let gap = 6 * problem.sizes().c as i64;
    let mut pixel = |_| if random.between(1, gap) == 1 { random.pick(&[1.0, -1.0]) } else { 0.0 };
    [(0..inputs).map(&mut pixel).collect(), taps, bias]
}

/// Puts NaN and infinities into the input, the weights, both, or the bias; the seed decides which.
fn spoil(problem: &Conv2d, [input, weights, bias]: [&mut [f32]; 3], seed: u64) {
    let mut random = Random::new(!seed);
    let mut put = |values: &mut [f32], count: i64| {
        for _ in 0..count {
            let place = random.between(0, values.len() as i64 - 1) as usize;
            values[place] = random.pick(&[f32::NAN, f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY]);
        }
    };
    match seed % 6 {
        0 => put(input, 1),
        1 => put(weights, 1),
        2 => put(input, 4),
        3 => put(weights, 3),
        4 if problem.bias() => put(bias, 1),
        _ => {
            put(input, 2);
            put(weights, 2);
        }
    }
}

/// Inputs of all sizes up to the largest, with weights so small that the sum of the products' absolute values is
/// finite.
fn huge(problem: &Conv2d, seed: u64) -> [Vec<f32>; 3] {
    let mut random = Random::new(seed);
    let largest = random.pick(&[1e36, 1e37, 1e38, 3.3e38]);
    let mut scaled = |len: usize, largest: f32| -> Vec<f32> {
        random.reals(len).into_iter().map(|value| value * largest).collect()
    };
    let bias = if problem.bias() { problem.sizes().k } else { 0 };
    let weight = 0.9 / problem.terms() as f32;
    [
        scaled(problem.input_len(), largest),
        scaled(problem.weights_len(), weight),
        scaled(bias, weight * largest),
    ]
}
