//! Compares every element of a result with the float64 oracle.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sparkle::Conv2d;
use sparkle::problem::oracle::{self, Expected};

use crate::failure::Failure;
use crate::memory;

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The largest error in units of the bound: at most 1 for a correct result.
    pub error_over_bound: f64,
    /// Outputs that are exactly zero.
    pub zeros: usize,
    /// Outputs compared.
    pub compared: usize,
}

impl Verdict {
    /// Says what is wrong, if anything: an error over the bound, or a result that is mostly zero and so proves nothing.
    pub fn complaint(&self) -> Option<String> {
        if self.compared == 0 {
            return Some("nothing was compared".to_owned());
        }
        if self.error_over_bound.is_nan() || self.error_over_bound > 1.0 {
            return Some(format!("the error is {:.3e} times the bound", self.error_over_bound));
        }
        let mostly_zero = self.zeros > self.compared / 2;
        mostly_zero
            .then(|| format!("{} of {} outputs are zero, which proves little", self.zeros, self.compared))
    }
}

/// Compares a convolution's output with the oracle, on as many cores as threads can be started.
///
/// # Errors
/// If there is no memory for the expected values.
pub fn conv2d(
    problem: &Conv2d,
    data: (&[f32], &[f32], Option<&[f32]>),
    output: &[f32],
) -> Result<Verdict, Failure> {
    let (k, p, q) = (problem.sizes().k, problem.sizes().p, problem.sizes().q);
    let strides = problem.sizes().output_strides();
    let rows = output.len() / q;
    let next = AtomicUsize::new(0);
    let work = || -> Result<Verdict, Failure> {
        let mut expected = memory::filled("the expected outputs", q, Expected::default())?;
        let (mut worst, mut zeros, mut compared) = (0f64, 0, 0);
        loop {
            let row = next.fetch_add(1, Ordering::Relaxed);
            if row >= rows {
                return Ok(Verdict { error_over_bound: worst, zeros, compared });
            }
            let at = (row / p / k, row / p % k, row % p);
            oracle::conv2d_row(problem, data, at, &mut expected);
            let got = output[strides.at(at.0, at.1, at.2, 0)..].iter().step_by(strides.column);
            for (&got, &expected) in got.zip(&expected) {
                worst = worst.max(oracle::error_over_bound(got, expected, problem.terms()));
                zeros += usize::from(got == 0.0);
                compared += 1;
            }
        }
    };
    let helpers = thread::available_parallelism().map_or(1, usize::from).min(rows).saturating_sub(1);
    thread::scope(|scope| {
        // Without helpers this thread does all the work.
        let helpers = (0..helpers).map_while(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let own = work()?;
        let verdicts = helpers.into_iter().map(|helper| helper.join().expect("the oracle does not panic"));
        verdicts.into_iter().try_fold(own, |all, verdict| Ok(all.and(verdict?)))
    })
}

impl Verdict {
    /// Both results together.
    pub fn and(self, other: Verdict) -> Verdict {
        Verdict {
            error_over_bound: self.error_over_bound.max(other.error_over_bound),
            zeros: self.zeros + other.zeros,
            compared: self.compared + other.compared,
        }
    }
}

/// Checks that memory for a problem's buffers, with two outputs, is available before the work begins.
///
/// # Errors
/// If there is not enough memory.
pub fn check_memory(problem: &Conv2d) -> Result<(), Failure> {
    let lens = [problem.input_len(), problem.weights_len(), problem.output_len(), problem.output_len()];
    let bytes = lens.iter().fold(0usize, |sum, len| sum.saturating_add(len.saturating_mul(size_of::<f32>())));
    memory::check(format_args!("buffers of {lens:?} elements"), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparkle::Conv2dDesc;
    use sparkle::problem::exact::Random;

    #[test]
    fn a_right_result_passes_and_one_wrong_element_does_not() {
        let desc = Conv2dDesc { n: 2, c: 3, h: 6, w: 5, k: 4, r: 3, s: 3, pad_w: 1, ..Default::default() };
        let problem = Conv2d::new(desc).unwrap();
        let mut random = Random::new(1);
        let (input, weights) = (random.reals(problem.input_len()), random.reals(problem.weights_len()));
        let data = (&input[..], &weights[..], None);
        let mut output: Vec<f32> =
            oracle::conv2d(&problem, &input, &weights, None).iter().map(|it| it.value as f32).collect();
        let verdict = conv2d(&problem, data, &output).unwrap();
        assert_eq!((verdict.compared, verdict.zeros), (2 * 4 * 4 * 5, 0));
        assert!(verdict.error_over_bound <= 1.0 && verdict.error_over_bound > 0.0);
        assert_eq!(verdict.complaint(), None);
        for index in [0, 77, output.len() - 1] {
            for wrong in [f32::NAN, f32::INFINITY, output[index] + 1e-3] {
                let right = std::mem::replace(&mut output[index], wrong);
                assert!(conv2d(&problem, data, &output).unwrap().complaint().is_some(), "{index} {wrong}");
                output[index] = right;
            }
        }
    }

    #[test]
    fn results_that_prove_nothing_are_not_trusted() {
        let verdict = Verdict { error_over_bound: 0.0, zeros: 6, compared: 10 };
        assert!(verdict.complaint().unwrap().starts_with("6 of 10 outputs are zero"));
        assert!(Verdict { zeros: 0, compared: 0, ..verdict }.complaint().is_some());
        assert!(Verdict { zeros: 5, ..verdict }.complaint().is_none());
        assert!(Verdict { error_over_bound: f64::NAN, ..verdict }.complaint().is_some());
    }
}
