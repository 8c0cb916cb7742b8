//! Two other forms of `sparkle_conv2d`: for double-precision buffers, and without a status.

use super::conv2d::{self, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::pointer;
use super::status::{Outcome, sparkle_status};
use crate::error::Error;
use crate::problem::{Conv2d, exact_length};

/// sparkle_conv2d() for double-precision buffers, until there is double-precision arithmetic: the convolution is computed
/// in single precision. One image at a time is rounded, computed and converted back, so that the library copies one
/// image and the weights, never the whole. Values whose magnitude exceeds that of single precision become infinite.
/// Lengths are in doubles.
///
/// The errors are those of sparkle_conv2d. If the device fails, the output may hold the results of earlier images; after
/// any other error it is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_f64(
    device: *mut sparkle_device,
    desc: *const sparkle_conv2d_desc,
    input: *const f64,
    input_len: usize,
    weights: *const f64,
    weights_len: usize,
    bias: *const f64,
    bias_len: usize,
    output: *mut f64,
    output_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { conv2d::problem(desc)? };
        check_lengths(&problem, [input_len, weights_len, bias_len, output_len], bias.is_null())?;
        // SAFETY: C's promises for these buffers.
        let (input, weights, bias) = unsafe {
            (
                pointer::input("input", input, input_len)?,
                pointer::input("weights", weights, weights_len)?,
                pointer::input("bias", bias, bias_len)?,
            )
        };
        let inputs = [("input", input), ("weights", weights), ("bias", bias)];
        // SAFETY: C's promise for the output.
        let output = unsafe { pointer::output("output", output, output_len, &inputs)? };
        let device = device::resolve(call, device)?;
        Ok(device.conv2d_f64(&problem, input, weights, problem.bias().then_some(bias), output)?)
    })
}

/// sparkle_conv2d() on the device "auto" without a status, for callers that may have no side effects, such as Fortran's
/// pure procedures: if anything is wrong, all `output_len` elements become NaN. sparkle_last_error() then says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_or_nan(
    desc: *const sparkle_conv2d_desc,
    input: *const f32,
    input_len: usize,
    weights: *const f32,
    weights_len: usize,
    bias: *const f32,
    bias_len: usize,
    output: *mut f32,
    output_len: usize,
) {
    boundary!(|call| {
        // Before anything else, so that a panic leaves NaN as well. The reference ends before others to the same memory are
        // made.
        // SAFETY: C's promise for the output.
        unsafe { pointer::output("output", output, output_len, &[])? }.fill(f32::NAN);
        // SAFETY: C's promises for these buffers.
        unsafe {
            let problem = conv2d::problem(desc)?;
            let (weights, bias) = conv2d::weights(&problem, (weights, weights_len), (bias, bias_len))?;
            let (input, output) =
                conv2d::data(&problem, (input, input_len), (output, output_len), (weights, bias))?;
            let device = device::resolve(call, std::ptr::null_mut())?;
            device.conv2d_inside(&problem, input, (weights, bias), output)?;
        }
        Ok(())
    })
}

/// Checks the lengths of input, weights, bias and output, before any slice is made.
fn check_lengths(problem: &Conv2d, lengths: [usize; 4], no_bias: bool) -> Outcome<()> {
    let [input, weights, bias, output] = lengths;
    exact_length("weights length", weights, problem.weights_len())?;
    exact_length("bias length", bias, if problem.bias() { problem.sizes().k } else { 0 })?;
    if !problem.bias() && !no_bias {
        return Err(Error::invalid("bias", "given", "NULL, since desc.bias is 0").into());
    }
    exact_length("input length", input, problem.input_len())?;
    Ok(exact_length("output length", output, problem.output_len())?)
}
