//! Convolutions with memory patterns switched off, timed and checked on this driver.

use std::time::Instant;

use super::bench::{Bench, Held, Timed};
use super::trial::Data;
use crate::error::Result;
use crate::memory::patterns::{Cell, Requests};
use crate::problem::exact::{Random, largest_integer};
use crate::problem::{Conv2d, oracle};
use crate::shader::pass_plan;

/// Integers whose sums are exact, and the oracle's results, for all cells of a problem.
pub struct Exact {
    input: Vec<f32>,
    weights: Vec<f32>,
    expected: Vec<f64>,
}

impl Exact {
    /// The same for the same problem each time. On large batches the oracle takes seconds.
    pub fn new(problem: &Conv2d) -> Self {
        let (mut random, most) = (Random::new(5), largest_integer(problem.terms()));
        let input = random.integers(problem.input_len(), most);
        let weights = random.integers(problem.weights_len(), most);
        let expected = oracle::conv2d(problem, &input, &weights, None);
        Exact { input, weights, expected: expected.into_iter().map(|it| it.value).collect() }
    }
}

impl Bench {
    /// A cell of `problem`, run once on `data` and compared with the oracle. `None` if no tiled kernel computes it.
    ///
    /// # Errors
    /// The device's failure.
    pub fn cell(&mut self, problem: &Conv2d, data: &Data, cell: Cell) -> Result<Option<Timed>> {
        let start = Instant::now();
        let Some((name, held)) = self.held(problem, (&data.input, &data.weights), cell)? else {
            return Ok(None);
        };
        let build = start.elapsed();
        let mut output = vec![f32::NAN; problem.output_len()];
        held.run(&mut output)?;
        let error = data.error(problem, &output);
        Ok(Some(held.timed(&name, build, error, problem.flops() as f64)))
    }

    /// Runs a cell on integers whose results are exact, and counts the outputs that differ. `None` as for [`Bench::cell`].
    ///
    /// # Errors
    /// The device's failure.
    pub fn cell_differences(&mut self, problem: &Conv2d, exact: &Exact, cell: Cell) -> Result<Option<usize>> {
        let Some((_, held)) = self.held(problem, (&exact.input, &exact.weights), cell)? else {
            return Ok(None);
        };
        let mut output = vec![f32::NAN; problem.output_len()];
        held.run(&mut output)?;
        let wrong = output.iter().zip(&exact.expected).filter(|(got, it)| f64::from(**got) != **it).count();
        Ok(Some(wrong))
    }

    /// The tile of a cell.
    ///
    /// # Errors
    /// The reason why the device could not be measured.
    pub fn requests(&self, problem: &Conv2d, cell: Cell) -> Result<Requests> {
        Ok(pass_plan::requests(problem, &self.gpu()?, cell))
    }

    fn held(
        &mut self,
        problem: &Conv2d,
        (input, weights): (&[f32], &[f32]),
        cell: Cell,
    ) -> Result<Option<(String, Held)>> {
        let Some(plan) = pass_plan::patterns(problem, &self.gpu()?, cell)? else { return Ok(None) };
        let held = Held::new(self.programs(), &plan, [input, weights], problem.output_len())?;
        held.prepare()?;
        Ok(Some((plan.name, held)))
    }
}
