//! The description of a convolution, and its computation in one call.

use super::buffer::{self, sparkle_buffer};
use super::device::{self, sparkle_device};
use super::handle;
use super::pointer::{self, Growing, truth};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::error::Error;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc, exact_length};

/// The algorithm of a convolution.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_algorithm {
    /// The algorithm that the environment variable SPARKLE_ALGORITHM names. Without it: Winograd where it is predicted
    /// to be faster and its error, measured on random data, is within a quarter of the direct algorithm's bound; else
    /// direct. A result is finite wherever the direct algorithm's result is.
    SPARKLE_ALGORITHM_AUTO = 0,
    /// Computes every product of the definition. It is exact on small integers; each output is within gamma_(K+3) of
    /// the exact sum of K terms.
    SPARKLE_ALGORITHM_DIRECT = 1,
    /// Winograd's algorithm, for 3x3 kernels with stride and dilation 1: on CPUs with AVX-512 or AVX2, and on OpenGL
    /// devices with one group. SPARKLE_ERROR_UNSUPPORTED for anything else. Its error is at most f/C times the direct
    /// algorithm's bound, taken with the largest magnitude in the output's image and channel: f = 1, 8 or 40 for tiles
    /// of 2x2, 4x4 or 6x6 outputs. The error is therefore relative to the largest input of a tile: if inputs of one
    /// tile differ by a factor of 1e6, small outputs may have no correct digits. A tile that overflows, or contains a
    /// NaN or an infinity, is computed by the definition.
    SPARKLE_ALGORITHM_WINOGRAD = 2,
}

/// A convolution of `n` images with `c` channels and `h` x `w` pixels to `k` output channels, with an `r` x `s` kernel.
///
/// Layouts, row-major without gaps: input `[n][c][h][w]`, weights `[k][c/groups][r][s]`, bias `[k]`, output
/// `[n][k][p][q]` where p = (h + 2 pad_h - dilation_h (r - 1) - 1) / stride_h + 1 and q likewise.
// The fields are those of `Conv2dDesc`, but C needs a layout that can grow. Conversions go field by field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_conv2d_desc {
    /// sizeof(sparkle_conv2d_desc), set by the caller. Fields that the caller does not know count as zero.
    pub size: usize,
    /// Images, at least 0. For an empty batch (0) nothing is computed, input and output have length 0 and may be NULL,
    /// and all times are 0. Weights and bias are checked as usual.
    pub n: i64,
    /// Input channels, at least 1.
    pub c: i64,
    /// Input height, at least 1.
    pub h: i64,
    /// Input width, at least 1.
    pub w: i64,
    /// Output channels, at least 1.
    pub k: i64,
    /// Kernel height, at least 1.
    pub r: i64,
    /// Kernel width, at least 1.
    pub s: i64,
    /// Vertical stride, at least 1.
    pub stride_h: i64,
    /// Horizontal stride, at least 1.
    pub stride_w: i64,
    /// Rows of zeros above and below the image, at least 0.
    pub pad_h: i64,
    /// Columns of zeros left and right of the image, at least 0.
    pub pad_w: i64,
    /// Distance of kernel rows in the image, at least 1.
    pub dilation_h: i64,
    /// Distance of kernel columns in the image, at least 1.
    pub dilation_w: i64,
    /// Number of groups, at least 1; it divides `c` and `k`. Each group of outputs depends on its group of inputs only.
    pub groups: i64,
    /// 1 if a bias is added to each output channel, else 0.
    pub bias: i32,
    /// 1 if negative outputs become zero, else 0.
    pub relu: i32,
    /// SPARKLE_ALGORITHM_AUTO, SPARKLE_ALGORITHM_DIRECT or SPARKLE_ALGORITHM_WINOGRAD.
    pub algorithm: i32,
    /// Zero.
    pub reserved: i32,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_conv2d_desc {
    const NAME: &'static str = "sparkle_conv2d_desc";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reserved) + size_of::<i32>();
}

impl From<Conv2dDesc> for sparkle_conv2d_desc {
    fn from(desc: Conv2dDesc) -> Self {
        sparkle_conv2d_desc {
            size: size_of::<Self>(),
            n: desc.n,
            c: desc.c,
            h: desc.h,
            w: desc.w,
            k: desc.k,
            r: desc.r,
            s: desc.s,
            stride_h: desc.stride_h,
            stride_w: desc.stride_w,
            pad_h: desc.pad_h,
            pad_w: desc.pad_w,
            dilation_h: desc.dilation_h,
            dilation_w: desc.dilation_w,
            groups: desc.groups,
            bias: desc.bias.into(),
            relu: desc.relu.into(),
            algorithm: match desc.algorithm {
                Algorithm::Auto => sparkle_algorithm::SPARKLE_ALGORITHM_AUTO as i32,
                Algorithm::Direct => sparkle_algorithm::SPARKLE_ALGORITHM_DIRECT as i32,
                Algorithm::Winograd => sparkle_algorithm::SPARKLE_ALGORITHM_WINOGRAD as i32,
            },
            reserved: 0,
        }
    }
}

/// The validated convolution that `desc` describes.
///
/// # Safety
/// C's promise for `desc`.
pub(super) unsafe fn problem(desc: *const sparkle_conv2d_desc) -> Outcome<Conv2d> {
    // SAFETY: as promised.
    let desc = unsafe { pointer::read_struct(desc)? };
    if desc.reserved != 0 {
        return Err(Error::invalid("reserved", desc.reserved, "0").into());
    }
    Ok(Conv2d::new(Conv2dDesc {
        n: desc.n,
        c: desc.c,
        h: desc.h,
        w: desc.w,
        k: desc.k,
        r: desc.r,
        s: desc.s,
        stride_h: desc.stride_h,
        stride_w: desc.stride_w,
        pad_h: desc.pad_h,
        pad_w: desc.pad_w,
        dilation_h: desc.dilation_h,
        dilation_w: desc.dilation_w,
        groups: desc.groups,
        bias: truth("bias", desc.bias)?,
        relu: truth("relu", desc.relu)?,
        algorithm: algorithm(desc.algorithm)?,
    })?)
}

/// The algorithm that `value` stands for.
fn algorithm(value: i32) -> Outcome<Algorithm> {
    [
        (sparkle_algorithm::SPARKLE_ALGORITHM_AUTO, Algorithm::Auto),
        (sparkle_algorithm::SPARKLE_ALGORITHM_DIRECT, Algorithm::Direct),
        (sparkle_algorithm::SPARKLE_ALGORITHM_WINOGRAD, Algorithm::Winograd),
    ]
    .into_iter()
    .find_map(|(number, algorithm)| (number as i32 == value).then_some(algorithm))
    .ok_or_else(|| {
        let expected = "0, 1 or 2 (SPARKLE_ALGORITHM_AUTO, _DIRECT or _WINOGRAD)";
        Error::invalid("algorithm", value, expected).into()
    })
}

/// Weights and bias of `problem`. All lengths are checked before any slice is made, here and in [`data`].
///
/// # Safety
/// C's promise for both buffers.
pub(super) unsafe fn weights<'a>(
    problem: &Conv2d,
    (weights, weights_len): (*const f32, usize),
    (bias, bias_len): (*const f32, usize),
) -> Outcome<(&'a [f32], Option<&'a [f32]>)> {
    exact_length("weights length", weights_len, problem.weights_len())?;
    let expected_bias = if problem.bias() { problem.sizes().k } else { 0 };
    exact_length("bias length", bias_len, expected_bias)?;
    if !problem.bias() && !bias.is_null() {
        return Err(Error::invalid("bias", "given", "NULL, since desc.bias is 0").into());
    }
    // SAFETY: as promised.
    let (weights, bias) = unsafe {
        (pointer::input("weights", weights, weights_len)?, pointer::input("bias", bias, bias_len)?)
    };
    Ok((weights, problem.bias().then_some(bias)))
}

/// Input and output of `problem`. The output must not overlap the input, `weights` or `bias`.
///
/// # Safety
/// C's promise for both buffers.
pub(super) unsafe fn data<'a>(
    problem: &Conv2d,
    (input, input_len): (*const f32, usize),
    (output, output_len): (*mut f32, usize),
    (weights, bias): (&[f32], Option<&[f32]>),
) -> Outcome<(&'a [f32], &'a mut [f32])> {
    exact_length("input length", input_len, problem.input_len())?;
    exact_length("output length", output_len, problem.output_len())?;
    // SAFETY: as promised.
    let input = unsafe { pointer::input("input", input, input_len)? };
    let inputs = [("input", input), ("weights", weights), ("bias", bias.unwrap_or_default())];
    // SAFETY: as promised.
    let output = unsafe { pointer::output("output", output, output_len, &inputs)? };
    Ok((input, output))
}

/// Initialises `*out` with a 1x1 convolution of one pixel: all sizes, strides, dilations and groups are 1, all other
/// fields 0, and `size` is that of version 0.1. The caller then sets the fields that differ.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_desc_init(out: *mut sparkle_conv2d_desc) -> sparkle_status {
    boundary!(|_call| {
        // The caller's struct may be as short as that of the first version, so no more may be written.
        const { assert!(size_of::<sparkle_conv2d_desc>() == sparkle_conv2d_desc::FIRST_SIZE) };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, Conv2dDesc::default().into()) }
    })
}

/// Writes the output's height and width to `*out_p` and `*out_q`.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if the description is invalid; the last error names the first wrong size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_output_size(
    desc: *const sparkle_conv2d_desc,
    out_p: *mut i64,
    out_q: *mut i64,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out_p", out_p)?;
        pointer::check("out_q", out_q)?;
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { problem(desc)? };
        // SAFETY: C's promises for both.
        unsafe {
            pointer::write("out_p", out_p, problem.sizes().p as i64)?;
            pointer::write("out_q", out_q, problem.sizes().q as i64)
        }
    })
}

/// Computes one convolution on buffers of one device, in place, and waits for its result: input from element `input_offset`
/// of `input` on, and so on, all SPARKLE_TYPE_REAL32. `bias` is NULL if desc->bias is 0. They may be parts of one buffer,
/// but the output overlaps none of the others. `device` is theirs, or NULL or "auto". For several convolutions with the same
/// weights, create a plan and run it with sparkle_plan_execute_buffers.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT names the buffer that is too short, of another type, or of another device;
/// SPARKLE_ERROR_INVALID_HANDLE the one that was destroyed; also the errors of sparkle_buffer_create. If the device failed,
/// the output may have lost its contents; otherwise it is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_buffers(
    device: *mut sparkle_device,
    desc: *const sparkle_conv2d_desc,
    input: *mut sparkle_buffer,
    input_offset: usize,
    weights: *mut sparkle_buffer,
    weights_offset: usize,
    bias: *mut sparkle_buffer,
    bias_offset: usize,
    output: *mut sparkle_buffer,
    output_offset: usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { problem(desc)? };
        let (input, weights) = (handle::get(call, "input", input)?, handle::get(call, "weights", weights)?);
        let wants_bias = problem.bias() || !bias.is_null();
        let bias = if wants_bias { Some(handle::get(call, "bias", bias)?) } else { None };
        let output = handle::get(call, "output", output)?;
        let input = buffer::part("input", &input, (input_offset, problem.input_len()))?;
        let weights = buffer::part("weights", &weights, (weights_offset, problem.weights_len()))?;
        let bias = bias.as_deref().map(|bias| buffer::part("bias", bias, (bias_offset, problem.sizes().k)));
        let output = buffer::part("output", &output, (output_offset, problem.output_len()))?;
        let device = device::resolve(call, device)?;
        timing::keep(device.conv2d_on_inside(&problem, (weights, bias.transpose()?), input, output)?);
        Ok(())
    })
}

/// Computes one convolution and waits for its result: input `[n][c][h][w]`, weights `[k][c/groups][r][s]`, bias `[k]`
/// (NULL and length 0 if desc->bias is 0), output `[n][k][p][q]`. Lengths are in floats and must match exactly.
/// `device` NULL means "auto". For several convolutions with the same weights, create a plan.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if a size, length or buffer is wrong; the last error names it. Other errors come from
/// the device. On an error the output is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d(
    device: *mut sparkle_device,
    desc: *const sparkle_conv2d_desc,
    input: *const f32,
    input_len: usize,
    weights: *const f32,
    weights_len: usize,
    bias: *const f32,
    bias_len: usize,
    output: *mut f32,
    output_len: usize,
) -> sparkle_status {
    boundary!(|call| {
        // SAFETY: C's promises for these buffers.
        let (problem, weights, bias, input, output) = unsafe {
            let problem = problem(desc)?;
            let (weights, bias) = self::weights(&problem, (weights, weights_len), (bias, bias_len))?;
            let (input, output) = data(&problem, (input, input_len), (output, output_len), (weights, bias))?;
            (problem, weights, bias, input, output)
        };
        let device = device::resolve(call, device)?;
        timing::keep(device.conv2d_inside(&problem, input, (weights, bias), output)?);
        Ok(())
    })
}
