//! Convolutions described by a struct, and computed at once.

use super::device::{self, sparkle_device};
use super::pointer::{self, Growing, truth};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::error::Error;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc, exact_length};

/// How a convolution is computed.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_algorithm {
    /// What the environment variable SPARKLE_ALGORITHM says; or else Winograd where it is predicted faster and its error,
    /// measured on random data, stays within a quarter of the direct algorithm's bound. A result is finite wherever the
    /// direct algorithm's is.
    SPARKLE_ALGORITHM_AUTO = 0,
    /// Every product of the definition: exact on small integers, each output within gamma_(K+3) of the exact sum (K terms).
    SPARKLE_ALGORITHM_DIRECT = 1,
    /// Winograd's, with its own error bound: 3x3 kernels, stride and dilation 1, on CPUs with AVX-512 or AVX2, and on OpenGL
    /// devices in one group; for anything else SPARKLE_ERROR_UNSUPPORTED. The error is at most f/C times the direct algorithm's
    /// bound, taken with the largest magnitude in the output's image and channel: f = 1, 8 or 40 for tiles of 2x2, 4x4 or 6x6
    /// outputs. So it is relative to a tile's largest input: where inputs of one tile differ by a factor of 1e6, small outputs
    /// may have no digits left. A tile that overflows, or holds a NaN or an infinity, is computed by the definition.
    SPARKLE_ALGORITHM_WINOGRAD = 2,
}

/// A convolution: `n` images of `c` channels and `h` x `w` pixels, `k` output channels, an `r` x `s` kernel.
///
/// Layouts, without gaps: input `[n][c][h][w]`, weights `[k][c/groups][r][s]`, bias `[k]`, output `[n][k][p][q]` where
/// p = (h + 2 pad_h - dilation_h (r - 1) - 1) / stride_h + 1 and q likewise.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_conv2d_desc {
    /// sizeof(sparkle_conv2d_desc), so that the struct can grow. Fields that the caller does not know are zero.
    pub size: usize,
    /// Images. An empty batch, 0, is valid: there is nothing to compute, input and output have length 0 and may be NULL, and
    /// all times are 0. Weights and bias are checked as ever.
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
    /// Step of the kernel down the image, at least 1.
    pub stride_h: i64,
    /// Step of the kernel across the image, at least 1.
    pub stride_w: i64,
    /// Rows of zeros above and below.
    pub pad_h: i64,
    /// Columns of zeros left and right.
    pub pad_w: i64,
    /// Distance of kernel rows in the image, at least 1.
    pub dilation_h: i64,
    /// Distance of kernel columns in the image, at least 1.
    pub dilation_w: i64,
    /// Parts that c and k are cut into and that do not see each other, at least 1; must divide both.
    pub groups: i64,
    /// 1 if a bias is added to each output channel, else 0.
    pub bias: i32,
    /// 1 if outputs below zero become zero, else 0.
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

/// Weights and bias of `problem`. Lengths are compared before any slice is made, here and in [`data`].
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

/// Input and output of `problem`; the output must not overlap the input nor `weights` nor `bias`, where the call has those.
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

/// Fills `*out` with a 1x1 convolution of one pixel: all sizes, strides, dilations and groups 1, the rest 0, `size` as
/// of version 0.1. A caller sets what differs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_desc_init(out: *mut sparkle_conv2d_desc) -> sparkle_status {
    boundary!(|_call| {
        // A caller's struct may be as short as the first version's: what is behind that is not ours to write.
        const { assert!(size_of::<sparkle_conv2d_desc>() == sparkle_conv2d_desc::FIRST_SIZE) };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, Conv2dDesc::default().into()) }
    })
}

/// The output's height and width into `*out_p` and `*out_q`. SPARKLE_ERROR_INVALID_ARGUMENT names the first size that
/// is wrong.
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

/// Computes one convolution: input `[n][c][h][w]`, weights `[k][c/groups][r][s]`, bias `[k]` (NULL and 0 if desc->bias
/// is 0), output `[n][k][p][q]`. `device` NULL means "auto". For many convolutions with the same weights, make a plan.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT names the size, length or buffer that is wrong; other errors are the device's. The
/// output is untouched then.
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
