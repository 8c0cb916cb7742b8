//! One-dimensional convolutions: their description, which converts into one of images with one row, and a call.

use super::conv2d::{self, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::pointer::{self, Growing, truth};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::error::Error;
use crate::problem::{Conv1dDesc, side};

/// A convolution of `n` signals with `c` channels and `w` samples to `k` output channels, with a kernel of `s` taps.
///
/// It is a convolution of images with one row: sparkle_conv1d_as_conv2d() gives its description, for plans, buffers and
/// pipelines. Layouts, without gaps: SPARKLE_TENSOR_NCHW is `[n][c][w]`, SPARKLE_TENSOR_NHWC `[n][w][c]`;
/// SPARKLE_WEIGHTS_OIHW `[k][c/groups][s]`, SPARKLE_WEIGHTS_HWIO `[s][c/groups][k]`, SPARKLE_WEIGHTS_OHWI
/// `[k][s][c/groups]`. The output has q = (w + padding before and after - dilation (s - 1) - 1) / stride + 1 samples.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_conv1d_desc {
    /// sizeof(sparkle_conv1d_desc), set by the caller. Fields that the caller does not know count as zero.
    pub size: usize,
    /// Signals, at least 0.
    pub n: i64,
    /// Input channels, at least 1.
    pub c: i64,
    /// Samples, at least 1.
    pub w: i64,
    /// Output channels, at least 1.
    pub k: i64,
    /// Taps, at least 1.
    pub s: i64,
    /// Stride, at least 1.
    pub stride: i64,
    /// Zeros before the signal, at least 0; as many after it with SPARKLE_PADDING_SYMMETRIC.
    pub pad_left: i64,
    /// Zeros after the signal with SPARKLE_PADDING_SIDES, else 0.
    pub pad_right: i64,
    /// Distance of taps, at least 1.
    pub dilation: i64,
    /// Number of groups, at least 1; it divides `c` and `k`.
    pub groups: i64,
    /// 1 if a bias is added to each output channel, else 0.
    pub bias: i32,
    /// 1 if negative outputs become zero, else 0.
    pub relu: i32,
    /// SPARKLE_ALGORITHM_AUTO or SPARKLE_ALGORITHM_DIRECT.
    pub algorithm: i32,
    /// SPARKLE_PADDING_SYMMETRIC, SPARKLE_PADDING_SIDES or SPARKLE_PADDING_SAME.
    pub padding: i32,
    /// The order of the input.
    pub input_layout: i32,
    /// The order of the output.
    pub output_layout: i32,
    /// The order of the weights.
    pub weights_layout: i32,
    /// Zero.
    pub reserved: i32,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_conv1d_desc {
    const NAME: &'static str = "sparkle_conv1d_desc";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reserved) + size_of::<i32>();
}

/// The same convolution of images with one row.
///
/// # Safety
/// C's promise for `desc`.
unsafe fn as_conv2d(desc: *const sparkle_conv1d_desc) -> Outcome<sparkle_conv2d_desc> {
    // SAFETY: as promised.
    let desc = unsafe { pointer::read_struct(desc)? };
    if desc.reserved != 0 {
        return Err(Error::invalid("reserved", desc.reserved, "0").into());
    }
    // Here, where their names are those of this struct.
    let sides = [
        ("pad_left", desc.pad_left, 0),
        ("pad_right", desc.pad_right, 0),
        ("stride", desc.stride, 1),
        ("dilation", desc.dilation, 1),
    ];
    for (name, value, least) in sides {
        side(name, value, least)?;
    }
    let plain = Conv1dDesc {
        n: desc.n,
        c: desc.c,
        w: desc.w,
        k: desc.k,
        s: desc.s,
        stride: desc.stride,
        pad_left: desc.pad_left,
        dilation: desc.dilation,
        groups: desc.groups,
        bias: truth("bias", desc.bias)?,
        relu: truth("relu", desc.relu)?,
        ..Default::default()
    };
    Ok(sparkle_conv2d_desc {
        algorithm: desc.algorithm,
        padding: desc.padding,
        input_layout: desc.input_layout,
        output_layout: desc.output_layout,
        weights_layout: desc.weights_layout,
        pad_right: desc.pad_right,
        ..crate::problem::Conv2dDesc::from(plain).into()
    })
}

/// Initialises `*out` with a convolution of one sample with one tap: all sizes, stride, dilation and groups are 1, all
/// other fields 0, and `size` is that of version 0.2. The caller then sets the fields that differ.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv1d_desc_init(out: *mut sparkle_conv1d_desc) -> sparkle_status {
    boundary!(|_call| {
        let desc = sparkle_conv1d_desc {
            size: sparkle_conv1d_desc::FIRST_SIZE,
            n: 1,
            c: 1,
            w: 1,
            k: 1,
            s: 1,
            stride: 1,
            pad_left: 0,
            pad_right: 0,
            dilation: 1,
            groups: 1,
            bias: 0,
            relu: 0,
            algorithm: 0,
            padding: 0,
            input_layout: 0,
            output_layout: 0,
            weights_layout: 0,
            reserved: 0,
        };
        // The caller's struct may be as short as that of the first version, so no more may be written.
        const { assert!(size_of::<sparkle_conv1d_desc>() == sparkle_conv1d_desc::FIRST_SIZE) };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, desc) }
    })
}

/// Writes the description of the same convolution, of images with one row, to `*out`, whose `size` the caller has set,
/// for instance by sparkle_conv2d_desc_init(). It may be used wherever such a description is.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if a field of `desc` is wrong, or if `out->size` is too small for its fields.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv1d_as_conv2d(
    desc: *const sparkle_conv1d_desc,
    out: *mut sparkle_conv2d_desc,
) -> sparkle_status {
    boundary!(|_call| {
        // SAFETY: C's promise for both.
        let (converted, given) = unsafe { (as_conv2d(desc)?, pointer::read_struct(out.cast_const())?) };
        if given.size < size_of::<sparkle_conv2d_desc>() {
            let expected =
                format!("at least {}, sizeof(sparkle_conv2d_desc)", size_of::<sparkle_conv2d_desc>());
            return Err(Error::invalid("out->size", given.size, expected).into());
        }
        conv2d::check(&converted)?;
        // SAFETY: C's promise for `out`, which is at least that long.
        unsafe { pointer::write("out", out, converted) }
    })
}

/// Computes one convolution of signals and waits for its result, as sparkle_conv2d does: input, weights and output in the
/// orders that `desc` says, by default `[n][c][w]`, `[k][c/groups][s]` and `[n][k][q]`; bias `[k]`, NULL and length 0 if
/// desc->bias is 0.
///
/// The errors are those of sparkle_conv2d; the output is then untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv1d(
    device: *mut sparkle_device,
    desc: *const sparkle_conv1d_desc,
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
            let problem = conv2d::check(&as_conv2d(desc)?)?;
            let (weights, bias) = conv2d::weights(&problem, (weights, weights_len), (bias, bias_len))?;
            let (input, output) =
                conv2d::data(&problem, (input, input_len), (output, output_len), (weights, bias))?;
            (problem, weights, bias, input, output)
        };
        let device = device::resolve(call, device)?;
        timing::keep(device.conv2d_inside(&problem, input, (weights, bias), output)?);
        Ok(())
    })
}
