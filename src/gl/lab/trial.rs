//! A trial of one problem: its data, what to measure, and device times.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::tune::timing;
use crate::problem::exact::Random;
use crate::problem::oracle::{self, Expected};
use crate::problem::{Conv2d, Conv2dSizes};

/// What to measure, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long the device is kept busy first: an idle device is slow.
    pub busy: Duration,
    /// Runs back to back between two timestamps.
    pub calls: usize,
    /// Repetitions, of which the best counts.
    pub rounds: usize,
    /// Rows of the output to compare with the oracle.
    pub rows: usize,
}

/// Data to try variants of one problem: reals, and some rows of the expected output.
pub struct Data {
    /// The input.
    pub input: Vec<f32>,
    /// The weights.
    pub weights: Vec<f32>,
    /// The bias, if the problem has one.
    pub bias: Option<Vec<f32>>,
    rows: Vec<((usize, usize, usize), Vec<Expected>)>,
}

impl Data {
    /// The same data for the same problem each time; computes `rows` expected rows, including the last one.
    pub fn new(problem: &Conv2d, rows: usize) -> Self {
        let mut random = Random::new(20);
        let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
        let bias = problem.bias().then(|| random.reals(problem.sizes().k));
        let Conv2dSizes { n, k, p, q, .. } = *problem.sizes();
        let mut between = |high: usize| random.between(0, high as i64 - 1) as usize;
        let mut row = |first: bool| {
            let at = if first { (n - 1, k - 1, p - 1) } else { (between(n), between(k), between(p)) };
            let mut expected = vec![Expected::default(); q];
            oracle::conv2d_row(problem, (&input, &weights, bias.as_deref()), at, &mut expected);
            (at, expected)
        };
        let rows = (0..rows).map(|index| row(index == 0)).collect();
        Data { input, weights, bias, rows }
    }

    /// The largest error of the rows, relative to the direct algorithm's bound.
    pub(crate) fn error(&self, problem: &Conv2d, output: &[f32]) -> f64 {
        let strides = problem.sizes().output_strides();
        let row_error = |((n, ki, pi), expected): &((usize, usize, usize), Vec<Expected>)| {
            let got = output[strides.at(*n, *ki, *pi, 0)..].iter().step_by(strides.column);
            let errors = got.zip(expected);
            errors.map(|(&got, &it)| oracle::error_over_bound(got, it, problem.terms())).fold(0.0, worse)
        };
        self.rows.iter().map(row_error).fold(0.0, worse)
    }
}

/// The larger of two errors; NaN is the largest.
pub(crate) fn worse(one: f64, other: f64) -> f64 {
    if one >= other || one.is_nan() { one } else { other }
}

/// The longest time of runs back to back. Slow kernels are timed over fewer runs.
const MAX_TIME: Duration = Duration::from_millis(200);

/// Device time of one run; `enqueue` submits a given number of runs.
pub(crate) fn time(
    context: &Rc<Context>,
    enqueue: &dyn Fn(usize) -> Result<()>,
    effort: &Effort,
) -> Result<Duration> {
    let round = |calls: usize| timing::time(context, calls, || enqueue(1)).map(Duration::from_secs_f64);
    let busy = Instant::now();
    let mut time = round(1)?;
    while busy.elapsed() < effort.busy {
        time = round(2)?;
    }
    let limit = MAX_TIME.as_nanos() / time.as_nanos().max(1);
    let calls = effort.calls.min(limit as usize).max(1);
    for number in 0..effort.rounds {
        let once = round(calls)?;
        time = if number == 0 { once } else { time.min(once) };
    }
    Ok(time)
}
