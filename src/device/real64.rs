//! Convolutions of double-precision buffers, until there is double-precision arithmetic: values are rounded to single
//! precision, one image at a time, and results are converted back. So the copies are of one image and of the weights.

use super::{Conv2dPlan, Device};
use crate::allocate;
use crate::error::Result;
use crate::float_env::FloatEnv;
use crate::problem::{Conv2d, exact_length};

impl Device {
    /// Computes one convolution of double-precision buffers in single precision. Values whose magnitude exceeds that of
    /// single precision become infinite. The images of a batch follow each other; each is converted, computed and
    /// converted back, with a copy of one image and of the weights.
    ///
    /// # Errors
    /// As [`Device::conv2d`]. If the device fails, `output` may hold the results of the images before; after any other
    /// error it is untouched.
    pub fn conv2d_f64(
        &self,
        problem: &Conv2d,
        input: &[f64],
        weights: &[f64],
        bias: Option<&[f64]>,
        output: &mut [f64],
    ) -> Result<()> {
        let _library = FloatEnv::enter();
        exact_length("input length", input.len(), problem.input_len())?;
        exact_length("output length", output.len(), problem.output_len())?;
        let mut single = allocate::zeroed(weights.len(), "weights in single precision")?;
        rounded(weights, &mut single);
        let mut of_bias = allocate::zeroed(bias.map_or(0, <[f64]>::len), "a bias in single precision")?;
        rounded(bias.unwrap_or_default(), &mut of_bias);
        let bias = bias.map(|_| &of_bias[..]);
        problem.check_weights(&single, bias)?;
        if problem.is_empty() {
            return Ok(());
        }
        let image = problem.with_batch(1);
        self.plan(&image, &single, bias)?.images_f64(input, output)
    }
}

impl Conv2dPlan {
    /// Runs the plan on double-precision buffers of any number of images of its shape, if it was made for one image.
    ///
    /// # Errors
    /// As [`Conv2dPlan::run`].
    fn images_f64(&self, input: &[f64], output: &mut [f64]) -> Result<()> {
        let (input_len, output_len) = (self.problem().input_len(), self.problem().output_len());
        let mut single = allocate::zeroed(input_len, "an image in single precision")?;
        let mut result = allocate::zeroed(output_len, "an output in single precision")?;
        for (input, output) in input.chunks_exact(input_len).zip(output.chunks_exact_mut(output_len)) {
            rounded(input, &mut single);
            self.run_inside(&single, &mut result)?;
            output.iter_mut().zip(&result).for_each(|(to, from)| *to = f64::from(*from));
        }
        Ok(())
    }
}

/// Rounds to single precision.
fn rounded(from: &[f64], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;
    use crate::problem::exact::Random;
    use crate::problem::oracle;

    #[test]
    fn integers_are_exact_and_wrong_lengths_are_named() {
        let cpu = Device::open("cpu").unwrap();
        let desc = Conv2dDesc { n: 3, c: 5, h: 8, w: 9, k: 6, r: 3, s: 3, bias: true, ..Default::default() };
        let problem = Conv2d::new(desc.channels_last().same_padding()).unwrap();
        let mut random = Random::new(77);
        let (input, weights, bias) = (
            random.integers(problem.input_len(), 5),
            random.integers(problem.weights_len(), 5),
            random.integers(6, 5),
        );
        let double = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
        let mut output = vec![f64::NAN; problem.output_len()];
        let (x, w, b) = (double(&input), double(&weights), double(&bias));
        cpu.conv2d_f64(&problem, &x, &w, Some(&b), &mut output).unwrap();
        for (got, expected) in output.iter().zip(oracle::conv2d(&problem, &input, &weights, Some(&bias))) {
            assert_eq!(*got, expected.value);
        }
        output.fill(1.0);
        let wrong = cpu.conv2d_f64(&problem, &x[1..], &w, Some(&b), &mut output).unwrap_err();
        assert!(wrong.to_string().starts_with("input length is "), "{wrong}");
        let wrong = cpu.conv2d_f64(&problem, &x, &w[1..], Some(&b), &mut output).unwrap_err();
        assert!(wrong.to_string().starts_with("weights length is "), "{wrong}");
        assert!(output.iter().all(|value| *value == 1.0));
    }
}
