//! The description of a convolution, and its computation in one call.

use super::buffer::{self, sparkle_buffer};
use super::device::{self, sparkle_device};
use super::handle;
use super::pointer::{self, Growing, truth};
use super::status::{Outcome, sparkle_status};
use super::timing;
use crate::error::Error;
use crate::problem::{Algorithm, Conv2d, Conv2dDesc, TensorLayout, WeightsLayout, exact_length};

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

/// What is around the image.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_padding {
    /// `pad_h` rows of zeros above and as many below, `pad_w` columns left and as many right. `pad_bottom` and
    /// `pad_right` are 0.
    SPARKLE_PADDING_SYMMETRIC = 0,
    /// `pad_h` rows above, `pad_bottom` below, `pad_w` columns left, `pad_right` right.
    SPARKLE_PADDING_SIDES = 1,
    /// So many zeros that p = h / stride_h and q = w / stride_w, rounded up: TensorFlow's SAME. If their number is odd,
    /// one more is below, or right. All four fields are 0.
    SPARKLE_PADDING_SAME = 2,
}

/// The order of an image tensor in memory, slowest first, without gaps.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_tensor_layout {
    /// `[n][c][h][w]`.
    SPARKLE_TENSOR_NCHW = 0,
    /// `[n][h][w][c]`: the channels of a pixel side by side.
    SPARKLE_TENSOR_NHWC = 1,
}

/// The order of weights in memory, slowest first, without gaps: O output channels, I input channels of a group.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_weights_layout {
    /// `[k][c/groups][r][s]`.
    SPARKLE_WEIGHTS_OIHW = 0,
    /// `[r][s][c/groups][k]`.
    SPARKLE_WEIGHTS_HWIO = 1,
    /// `[k][r][s][c/groups]`.
    SPARKLE_WEIGHTS_OHWI = 2,
}

/// A convolution of `n` images with `c` channels and `h` x `w` pixels to `k` output channels, with an `r` x `s` kernel.
///
/// Without gaps, in the order that the layouts say; where they are 0, input `[n][c][h][w]`, weights
/// `[k][c/groups][r][s]`, output `[n][k][p][q]`; bias `[k]`. p = (h + padding above and below - dilation_h (r - 1) - 1) /
/// stride_h + 1 and q likewise.
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
    /// Rows of zeros above the image, at least 0; as many below unless `padding` says otherwise.
    pub pad_h: i64,
    /// Columns of zeros left of the image, at least 0; as many right unless `padding` says otherwise.
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
    /// SPARKLE_PADDING_SYMMETRIC, SPARKLE_PADDING_SIDES or SPARKLE_PADDING_SAME. Since 0.2, as all that follow.
    pub padding: i32,
    /// The order of the input: SPARKLE_TENSOR_NCHW or SPARKLE_TENSOR_NHWC.
    pub input_layout: i32,
    /// The order of the output: SPARKLE_TENSOR_NCHW or SPARKLE_TENSOR_NHWC.
    pub output_layout: i32,
    /// The order of the weights: SPARKLE_WEIGHTS_OIHW, SPARKLE_WEIGHTS_HWIO or SPARKLE_WEIGHTS_OHWI.
    pub weights_layout: i32,
    /// Rows of zeros below the image, at least 0, if `padding` is SPARKLE_PADDING_SIDES, else 0.
    pub pad_bottom: i64,
    /// Columns of zeros right of the image, at least 0, if `padding` is SPARKLE_PADDING_SIDES, else 0.
    pub pad_right: i64,
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
            padding: match (desc.pad_bottom, desc.pad_right) {
                (None, None) => sparkle_padding::SPARKLE_PADDING_SYMMETRIC as i32,
                _ => sparkle_padding::SPARKLE_PADDING_SIDES as i32,
            },
            input_layout: tensor_number(desc.input_layout),
            output_layout: tensor_number(desc.output_layout),
            weights_layout: match desc.weights_layout {
                WeightsLayout::Oihw => sparkle_weights_layout::SPARKLE_WEIGHTS_OIHW as i32,
                WeightsLayout::Hwio => sparkle_weights_layout::SPARKLE_WEIGHTS_HWIO as i32,
                WeightsLayout::Ohwi => sparkle_weights_layout::SPARKLE_WEIGHTS_OHWI as i32,
            },
            pad_bottom: sides(desc).0,
            pad_right: sides(desc).1,
        }
    }
}

/// Padding below and right, as the struct has it.
fn sides(desc: Conv2dDesc) -> (i64, i64) {
    match (desc.pad_bottom, desc.pad_right) {
        (None, None) => (0, 0),
        (bottom, right) => (bottom.unwrap_or(desc.pad_h), right.unwrap_or(desc.pad_w)),
    }
}

fn tensor_number(layout: TensorLayout) -> i32 {
    match layout {
        TensorLayout::Nchw => sparkle_tensor_layout::SPARKLE_TENSOR_NCHW as i32,
        TensorLayout::Nhwc => sparkle_tensor_layout::SPARKLE_TENSOR_NHWC as i32,
    }
}

/// The padding that a description asks for.
#[derive(Clone, Copy)]
enum Padding {
    Symmetric,
    Sides,
    Same,
}

/// The validated convolution that `desc` describes.
///
/// # Safety
/// C's promise for `desc`.
pub(super) unsafe fn problem(desc: *const sparkle_conv2d_desc) -> Outcome<Conv2d> {
    // SAFETY: as promised.
    check(&unsafe { pointer::read_struct(desc)? })
}

/// The validated convolution that a description, read as a whole, describes.
pub(super) fn check(desc: &sparkle_conv2d_desc) -> Outcome<Conv2d> {
    if desc.reserved != 0 {
        return Err(Error::invalid("reserved", desc.reserved, "0").into());
    }
    let padding = named(
        "padding",
        desc.padding,
        &[
            (sparkle_padding::SPARKLE_PADDING_SYMMETRIC as i32, Padding::Symmetric),
            (sparkle_padding::SPARKLE_PADDING_SIDES as i32, Padding::Sides),
            (sparkle_padding::SPARKLE_PADDING_SAME as i32, Padding::Same),
        ],
        "0, 1 or 2 (SPARKLE_PADDING_SYMMETRIC, _SIDES or _SAME)",
    )?;
    let unused: &[(&'static str, i64)] = match padding {
        Padding::Sides => &[],
        Padding::Symmetric => &[("pad_bottom", desc.pad_bottom), ("pad_right", desc.pad_right)],
        Padding::Same => &[
            ("pad_h", desc.pad_h),
            ("pad_w", desc.pad_w),
            ("pad_bottom", desc.pad_bottom),
            ("pad_right", desc.pad_right),
        ],
    };
    if let Some(&(name, value)) = unused.iter().find(|(_, value)| *value != 0) {
        let expected = match padding {
            Padding::Same => "0 with SPARKLE_PADDING_SAME, which computes the padding",
            _ => "0 unless desc.padding is SPARKLE_PADDING_SIDES",
        };
        return Err(Error::invalid(name, value, expected).into());
    }
    let side = |value: i64| matches!(padding, Padding::Sides).then_some(value);
    let described = Conv2dDesc {
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
        pad_bottom: side(desc.pad_bottom),
        pad_right: side(desc.pad_right),
        dilation_h: desc.dilation_h,
        dilation_w: desc.dilation_w,
        groups: desc.groups,
        bias: truth("bias", desc.bias)?,
        relu: truth("relu", desc.relu)?,
        algorithm: algorithm(desc.algorithm)?,
        input_layout: tensor_layout("input_layout", desc.input_layout)?,
        output_layout: tensor_layout("output_layout", desc.output_layout)?,
        weights_layout: named(
            "weights_layout",
            desc.weights_layout,
            &[
                (sparkle_weights_layout::SPARKLE_WEIGHTS_OIHW as i32, WeightsLayout::Oihw),
                (sparkle_weights_layout::SPARKLE_WEIGHTS_HWIO as i32, WeightsLayout::Hwio),
                (sparkle_weights_layout::SPARKLE_WEIGHTS_OHWI as i32, WeightsLayout::Ohwi),
            ],
            "0, 1 or 2 (SPARKLE_WEIGHTS_OIHW, _HWIO or _OHWI)",
        )?,
    };
    let described = if matches!(padding, Padding::Same) { described.same_padding() } else { described };
    Ok(Conv2d::new(described)?)
}

/// The order of an image tensor that `value` stands for.
fn tensor_layout(argument: &'static str, value: i32) -> Outcome<TensorLayout> {
    let numbers = [
        (sparkle_tensor_layout::SPARKLE_TENSOR_NCHW as i32, TensorLayout::Nchw),
        (sparkle_tensor_layout::SPARKLE_TENSOR_NHWC as i32, TensorLayout::Nhwc),
    ];
    named(argument, value, &numbers, "0 or 1 (SPARKLE_TENSOR_NCHW or SPARKLE_TENSOR_NHWC)")
}

/// What `value` stands for.
fn named<T: Copy>(
    argument: &'static str,
    value: i32,
    numbers: &[(i32, T)],
    expected: &'static str,
) -> Outcome<T> {
    let found = numbers.iter().find(|(number, _)| *number == value);
    found.map(|(_, what)| *what).ok_or_else(|| Error::invalid(argument, value, expected).into())
}

/// The algorithm that `value` stands for.
fn algorithm(value: i32) -> Outcome<Algorithm> {
    let numbers = [
        (sparkle_algorithm::SPARKLE_ALGORITHM_AUTO as i32, Algorithm::Auto),
        (sparkle_algorithm::SPARKLE_ALGORITHM_DIRECT as i32, Algorithm::Direct),
        (sparkle_algorithm::SPARKLE_ALGORITHM_WINOGRAD as i32, Algorithm::Winograd),
    ];
    named("algorithm", value, &numbers, "0, 1 or 2 (SPARKLE_ALGORITHM_AUTO, _DIRECT or _WINOGRAD)")
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
/// fields 0. The caller then sets the fields that differ. A program that is compiled with this header gets all of its
/// fields, through a macro of the same name. The function itself, which older programs call, initialises the fields of
/// version 0.1 alone, and `size` is the size of those.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_desc_init(out: *mut sparkle_conv2d_desc) -> sparkle_status {
    boundary!(|_call| {
        // The caller's struct may be as short as that of the first version, so no more may be written.
        // SAFETY: C's promise for `out`.
        unsafe { initialise(out, sparkle_conv2d_desc::FIRST_SIZE) }
    })
}

/// sparkle_conv2d_desc_init() for a struct of `size` bytes, sizeof(sparkle_conv2d_desc) in the caller's program.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if `size` is less than that of version 0.1 or more than this library knows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_conv2d_desc_init_sized(
    out: *mut sparkle_conv2d_desc,
    size: usize,
) -> sparkle_status {
    boundary!(|_call| {
        let known = sparkle_conv2d_desc::FIRST_SIZE..=size_of::<sparkle_conv2d_desc>();
        if !known.contains(&size) {
            let expected = format!("{} to {}", known.start(), known.end());
            return Err(Error::invalid("size", size, expected).into());
        }
        // SAFETY: C's promise for `out`, and for its first `size` bytes.
        unsafe { initialise(out, size) }
    })
}

/// Writes the first `size` bytes of a default description.
///
/// # Safety
/// `out` is null, or these bytes are writable.
unsafe fn initialise(out: *mut sparkle_conv2d_desc, size: usize) -> Outcome<()> {
    pointer::check("out", out)?;
    let whole = sparkle_conv2d_desc { size, ..Conv2dDesc::default().into() };
    // SAFETY: the struct has no padding and at least `size` bytes, and the caller guarantees those of `out`.
    unsafe { std::ptr::copy_nonoverlapping((&raw const whole).cast::<u8>(), out.cast::<u8>(), size) };
    Ok(())
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

/// Computes one convolution and waits for its result: input, weights and output in the orders that `desc` says, by default
/// `[n][c][h][w]`, `[k][c/groups][r][s]` and `[n][k][p][q]`; bias `[k]`, NULL and length 0 if desc->bias is 0. Lengths are in
/// floats and must match exactly. `device` NULL means "auto". For several convolutions with the same weights, create a plan.
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
