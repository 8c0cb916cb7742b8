//! Two-dimensional convolutions: description, validation, sizes and work.

use super::checks::{elements, exact_length, side};
use super::layout::{TensorLayout, TensorStrides, WeightsLayout, WeightsStrides, same_padding};
use crate::error::{Error, Result};

/// The algorithm of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// The algorithm of `SPARKLE_ALGORITHM`. If that is not set, Winograd where it is predicted to be faster and its
    /// error, measured on random data, stays within a quarter of the direct algorithm's bound; otherwise direct.
    /// Outputs are finite wherever the direct algorithm's are.
    #[default]
    Auto,
    /// Computes and adds every product of the definition. Exact on small integers.
    Direct,
    /// Winograd's algorithm: fewer products, more additions, and a larger rounding error, which is relative to the
    /// largest input of a tile; see `docs/winograd.md`. A tile that overflows, or holds a NaN or an infinity, is
    /// computed by the definition. Supports 3x3 kernels with stride and dilation 1, on CPUs with AVX-512 or AVX2, and
    /// on OpenGL devices with one group.
    Winograd,
}

/// The description of a convolution. [`Conv2d::new`] validates it.
///
/// Names follow the convention of the field: N images of C channels and H x W pixels, K output channels, an R x S
/// kernel. `Default` is a 1x1 convolution of one pixel, so a caller sets only the fields that differ:
///
/// ```
/// use sparkle::{Conv2d, Conv2dDesc};
/// let first_layer = Conv2d::new(Conv2dDesc {
///     c: 3, h: 224, w: 224, k: 64, r: 7, s: 7,
///     stride_h: 2, stride_w: 2, pad_h: 3, pad_w: 3, ..Default::default()
/// })?;
/// assert_eq!((first_layer.sizes().p, first_layer.sizes().q), (112, 112));
/// # Ok::<(), sparkle::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conv2dDesc {
    /// Images in the batch. 0 is valid: input and output then have no elements.
    pub n: i64,
    /// Input channels.
    pub c: i64,
    /// Input height.
    pub h: i64,
    /// Input width.
    pub w: i64,
    /// Output channels.
    pub k: i64,
    /// Kernel height.
    pub r: i64,
    /// Kernel width.
    pub s: i64,
    /// Vertical stride, in pixels.
    pub stride_h: i64,
    /// Horizontal stride, in pixels.
    pub stride_w: i64,
    /// Rows of zeros above the image, and as many below unless `pad_bottom` says how many.
    pub pad_h: i64,
    /// Columns of zeros left of the image, and as many right unless `pad_right` says how many.
    pub pad_w: i64,
    /// Rows of zeros below the image. `None`: as many as above.
    pub pad_bottom: Option<i64>,
    /// Columns of zeros right of the image. `None`: as many as left.
    pub pad_right: Option<i64>,
    /// Vertical distance between taps of the kernel, in pixels.
    pub dilation_h: i64,
    /// Horizontal distance between taps of the kernel, in pixels.
    pub dilation_w: i64,
    /// Groups. C and K are divided into this many parts, which are independent convolutions.
    pub groups: i64,
    /// Whether to add a bias, one value per output channel.
    pub bias: bool,
    /// Whether to replace negative outputs by zero.
    pub relu: bool,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The order of the input in memory.
    pub input_layout: TensorLayout,
    /// The order of the output in memory.
    pub output_layout: TensorLayout,
    /// The order of the weights in memory.
    pub weights_layout: WeightsLayout,
}

impl Conv2dDesc {
    /// The same convolution with the padding that TensorFlow calls SAME: the output has H / stride_h rows and W /
    /// stride_w columns, rounded up. An odd number of rows or columns of zeros has one more below, or right. Sizes
    /// that are not valid give some padding; [`Conv2d::new`] refuses them.
    pub fn same_padding(self) -> Self {
        let rows = same_padding(self.h, self.r, self.stride_h, self.dilation_h).unwrap_or_default();
        let cols = same_padding(self.w, self.s, self.stride_w, self.dilation_w).unwrap_or_default();
        Conv2dDesc { pad_h: rows.0, pad_bottom: Some(rows.1), pad_w: cols.0, pad_right: Some(cols.1), ..self }
    }

    /// The same convolution on images in the order NHWC, input and output.
    pub fn channels_last(self) -> Self {
        Conv2dDesc { input_layout: TensorLayout::Nhwc, output_layout: TensorLayout::Nhwc, ..self }
    }
}

impl Default for Conv2dDesc {
    fn default() -> Self {
        Conv2dDesc {
            n: 1,
            c: 1,
            h: 1,
            w: 1,
            k: 1,
            r: 1,
            s: 1,
            stride_h: 1,
            stride_w: 1,
            pad_h: 0,
            pad_w: 0,
            pad_bottom: None,
            pad_right: None,
            dilation_h: 1,
            dilation_w: 1,
            groups: 1,
            bias: false,
            relu: false,
            algorithm: Algorithm::Auto,
            input_layout: TensorLayout::Nchw,
            output_layout: TensorLayout::Nchw,
            weights_layout: WeightsLayout::Oihw,
        }
    }
}

/// The sizes of a valid convolution, including the output.
///
/// All tensors are contiguous. 0-based offsets in elements, by layout:
///
/// | tensor | offset |
/// | --- | --- |
/// | input, NCHW | `((n*C + c)*H + h)*W + w` |
/// | input, NHWC | `((n*H + h)*W + w)*C + c` |
/// | weights, OIHW | `((k*(C/G) + c)*R + r)*S + s` |
/// | weights, HWIO | `((r*S + s)*(C/G) + c)*K + k` |
/// | weights, OHWI | `((k*R + r)*S + s)*(C/G) + c` |
/// | bias | `k` |
/// | output, NCHW | `((n*K + k)*P + p)*Q + q` |
/// | output, NHWC | `((n*P + p)*Q + q)*K + k` |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Conv2dSizes {
    /// Images in the batch.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels.
    pub k: usize,
    /// Kernel height.
    pub r: usize,
    /// Kernel width.
    pub s: usize,
    /// Vertical stride.
    pub stride_h: usize,
    /// Horizontal stride.
    pub stride_w: usize,
    /// Rows of zeros above.
    pub pad_h: usize,
    /// Columns of zeros left.
    pub pad_w: usize,
    /// Rows of zeros below.
    pub pad_bottom: usize,
    /// Columns of zeros right.
    pub pad_right: usize,
    /// Vertical distance between taps.
    pub dilation_h: usize,
    /// Horizontal distance between taps.
    pub dilation_w: usize,
    /// Groups.
    pub groups: usize,
    /// Output height: `(H + pad_h + pad_bottom - dilation_h (R-1) - 1) / stride_h + 1`.
    pub p: usize,
    /// Output width: `(W + pad_w + pad_right - dilation_w (S-1) - 1) / stride_w + 1`.
    pub q: usize,
    /// The order of the input.
    pub input_layout: TensorLayout,
    /// The order of the output.
    pub output_layout: TensorLayout,
    /// The order of the weights.
    pub weights_layout: WeightsLayout,
}

impl Conv2dSizes {
    /// Whether there is padding on any side.
    pub fn is_padded(&self) -> bool {
        (self.pad_h, self.pad_w, self.pad_bottom, self.pad_right) != (0, 0, 0, 0)
    }

    /// Whether there is as much padding below as above, and as much right as left.
    pub fn is_symmetric(&self) -> bool {
        (self.pad_h, self.pad_w) == (self.pad_bottom, self.pad_right)
    }

    /// The padded image's height and width.
    pub fn padded(&self) -> (usize, usize) {
        (self.h + self.pad_h + self.pad_bottom, self.w + self.pad_w + self.pad_right)
    }

    /// Whether input, output and weights are in the order NCHW, NCHW and OIHW.
    pub fn is_plain(&self) -> bool {
        self.has_plain_images() && self.weights_layout == WeightsLayout::Oihw
    }

    /// Whether input and output are in the order NCHW.
    pub fn has_plain_images(&self) -> bool {
        (self.input_layout, self.output_layout) == (TensorLayout::Nchw, TensorLayout::Nchw)
    }

    /// Distances in the input.
    pub fn input_strides(&self) -> TensorStrides {
        self.input_layout.strides(self.c, self.h, self.w)
    }

    /// Distances in the output.
    pub fn output_strides(&self) -> TensorStrides {
        self.output_layout.strides(self.k, self.p, self.q)
    }

    /// Distances in the weights.
    pub fn weights_strides(&self) -> WeightsStrides {
        self.weights_layout.strides(self.k, self.c / self.groups, self.r, self.s)
    }
}

/// A valid convolution: all sizes are valid, and the size of every buffer in bytes fits in `isize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2d {
    sizes: Conv2dSizes,
    bias: bool,
    relu: bool,
    algorithm: Algorithm,
    /// Whether a plan will run only once.
    once: bool,
    /// Whether to confirm plans by measurement.
    measured: bool,
    /// Floating-point operations of one image.
    image_flops: u64,
}

impl Conv2d {
    /// Validates `desc`, in checked 64-bit arithmetic.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the first argument that is negative, zero where that is invalid, or too large,
    /// that does not divide the channels, or that makes a buffer or the work overflow. The image of an empty batch must
    /// be valid as well.
    pub fn new(desc: Conv2dDesc) -> Result<Self> {
        let (n, c) = (side("n", desc.n, 0)?, side("c", desc.c, 1)?);
        let (h, w) = (side("h", desc.h, 1)?, side("w", desc.w, 1)?);
        let (k, r, s) = (side("k", desc.k, 1)?, side("r", desc.r, 1)?, side("s", desc.s, 1)?);
        let (stride_h, stride_w) = (side("stride_h", desc.stride_h, 1)?, side("stride_w", desc.stride_w, 1)?);
        let (pad_h, pad_w) = (side("pad_h", desc.pad_h, 0)?, side("pad_w", desc.pad_w, 0)?);
        let pad_bottom = side("pad_bottom", desc.pad_bottom.unwrap_or(desc.pad_h), 0)?;
        let pad_right = side("pad_right", desc.pad_right.unwrap_or(desc.pad_w), 0)?;
        let dilation_h = side("dilation_h", desc.dilation_h, 1)?;
        let dilation_w = side("dilation_w", desc.dilation_w, 1)?;
        let groups = side("groups", desc.groups, 1)?;
        if c % groups != 0 || k % groups != 0 {
            let expected = format!("a divisor of c = {c} and of k = {k}");
            return Err(Error::invalid("groups", groups, expected));
        }
        // Sides are below 2^31, so these sums and products cannot overflow 64 bits.
        let p = output_side("r", h + pad_h + pad_bottom, r, stride_h, dilation_h)?;
        let q = output_side("s", w + pad_w + pad_right, s, stride_w, dilation_w)?;
        // For an empty batch, the sizes of one image must not overflow.
        let images = n.max(1);
        elements("input size n*c*h*w", &[images, c, h, w])?;
        elements("padded input size", &[images, c, h + pad_h + pad_bottom, w + pad_w + pad_right])?;
        elements("weights size k*(c/groups)*r*s", &[k, c / groups, r, s])?;
        elements("output size n*k*p*q", &[images, k, p, q])?;
        let image_flops = [2, k, p, q, c / groups, r, s]
            .iter()
            .try_fold(1u64, |product, &side| product.checked_mul(side as u64))
            .filter(|flops| flops.checked_mul(images as u64).is_some())
            .ok_or_else(|| Error::invalid("work 2*n*k*p*q*(c/groups)*r*s", "over 2^64", "under 2^64"))?;
        let sizes = Conv2dSizes {
            n,
            c,
            h,
            w,
            k,
            r,
            s,
            stride_h,
            stride_w,
            pad_h,
            pad_w,
            pad_bottom,
            pad_right,
            dilation_h,
            dilation_w,
            groups,
            p,
            q,
            input_layout: desc.input_layout,
            output_layout: desc.output_layout,
            weights_layout: desc.weights_layout,
        };
        Ok(Conv2d {
            sizes,
            bias: desc.bias,
            relu: desc.relu,
            algorithm: desc.algorithm,
            once: false,
            measured: false,
            image_flops,
        })
    }

    /// The sizes.
    pub fn sizes(&self) -> &Conv2dSizes {
        &self.sizes
    }

    /// Whether a bias is added.
    pub fn bias(&self) -> bool {
        self.bias
    }

    /// Whether negative outputs are replaced by zero.
    pub fn relu(&self) -> bool {
        self.relu
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The same convolution with another algorithm.
    pub(crate) fn with_algorithm(&self, algorithm: Algorithm) -> Self {
        Conv2d { algorithm, ..*self }
    }

    /// The same convolution with input, output and weights in these orders. All lengths stay the same.
    pub fn with_layouts(
        &self,
        input_layout: TensorLayout,
        output_layout: TensorLayout,
        weights_layout: WeightsLayout,
    ) -> Self {
        Conv2d { sizes: Conv2dSizes { input_layout, output_layout, weights_layout, ..self.sizes }, ..*self }
    }

    /// The same convolution with weights in the order OIHW.
    pub(crate) fn plain_weights(&self) -> Self {
        self.with_layouts(self.sizes.input_layout, self.sizes.output_layout, WeightsLayout::Oihw)
    }

    /// The same convolution for a plan that runs once, so that preparing the weights counts as much as running.
    pub(crate) fn once(&self) -> Self {
        Conv2d { once: true, ..*self }
    }

    /// Whether a plan will run only once.
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }

    /// The same convolution with plans that are confirmed by measurement. Making such a plan times the candidates with
    /// the best predictions, unless the cache has an earlier measurement, and keeps the fastest. That takes the time of
    /// several runs.
    pub fn measured(&self) -> Self {
        Conv2d { measured: true, ..*self }
    }

    /// Whether plans are confirmed by measurement.
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// The same convolution over `n` images of the batch. One image is valid for an empty batch as well.
    pub(crate) fn with_batch(&self, n: usize) -> Self {
        debug_assert!(n <= self.sizes.n.max(1));
        Conv2d { sizes: Conv2dSizes { n, ..self.sizes }, ..*self }
    }

    /// The same convolution to `k` of its output channels: a multiple of the channels of a group, if there are several
    /// groups, and then from the input channels of these groups alone.
    pub(crate) fn with_channels(&self, k: usize) -> Self {
        let whole = &self.sizes;
        debug_assert!(whole.groups == 1 || k.is_multiple_of(whole.k / whole.groups));
        debug_assert!(k > 0 && k <= whole.k);
        let (c, groups) = match whole.groups {
            1 => (whole.c, 1),
            groups => (whole.c / groups * (k / (whole.k / groups)), k / (whole.k / groups)),
        };
        let image_flops = self.image_flops / whole.k as u64 * k as u64;
        Conv2d { sizes: Conv2dSizes { c, k, groups, ..self.sizes }, image_flops, ..*self }
    }

    /// The same convolution of images with `h` rows and no padding above and below them.
    ///
    /// # Errors
    /// As [`Conv2d::new`].
    pub(crate) fn with_unpadded_rows(&self, h: usize) -> Result<Self> {
        let part = Conv2d::new(Conv2dDesc { h: h as i64, pad_h: 0, pad_bottom: Some(0), ..self.desc() })?;
        Ok(Conv2d { once: self.once, measured: self.measured, ..part })
    }

    /// Its description.
    pub(crate) fn desc(&self) -> Conv2dDesc {
        let sizes = &self.sizes;
        Conv2dDesc {
            n: sizes.n as i64,
            c: sizes.c as i64,
            h: sizes.h as i64,
            w: sizes.w as i64,
            k: sizes.k as i64,
            r: sizes.r as i64,
            s: sizes.s as i64,
            stride_h: sizes.stride_h as i64,
            stride_w: sizes.stride_w as i64,
            pad_h: sizes.pad_h as i64,
            pad_w: sizes.pad_w as i64,
            pad_bottom: Some(sizes.pad_bottom as i64),
            pad_right: Some(sizes.pad_right as i64),
            dilation_h: sizes.dilation_h as i64,
            dilation_w: sizes.dilation_w as i64,
            groups: sizes.groups as i64,
            bias: self.bias,
            relu: self.relu,
            algorithm: self.algorithm,
            input_layout: sizes.input_layout,
            output_layout: sizes.output_layout,
            weights_layout: sizes.weights_layout,
        }
    }

    /// Whether the batch has no images.
    pub fn is_empty(&self) -> bool {
        self.sizes.n == 0
    }

    /// Length of the input in elements: N*C*H*W.
    pub fn input_len(&self) -> usize {
        self.sizes.n * self.sizes.c * self.sizes.h * self.sizes.w
    }

    /// Length of the weights in elements: K*(C/G)*R*S.
    pub fn weights_len(&self) -> usize {
        self.sizes.k * self.reduction()
    }

    /// Length of the output in elements: N*K*P*Q.
    pub fn output_len(&self) -> usize {
        self.sizes.n * self.sizes.k * self.sizes.p * self.sizes.q
    }

    /// Products in the sum of one output: (C/G)*R*S.
    pub fn reduction(&self) -> usize {
        self.sizes.c / self.sizes.groups * self.sizes.r * self.sizes.s
    }

    /// Terms in the sum of one output, including the bias: the K of the error bound gamma_(K+3).
    pub fn terms(&self) -> usize {
        self.reduction() + usize::from(self.bias)
    }

    /// Floating-point operations of the direct algorithm. A multiply-add counts as two.
    pub fn flops(&self) -> u64 {
        self.image_flops * self.sizes.n as u64
    }

    /// The least bytes that must move: input, weights, bias and output once each. 0 for an empty batch.
    pub fn bytes(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let bias = if self.bias { self.sizes.k } else { 0 };
        let elements = [self.input_len(), self.weights_len(), bias, self.output_len()];
        elements.iter().map(|&count| count as u64 * size_of::<f32>() as u64).sum()
    }

    /// Checks the lengths of the weights and the bias.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the buffer, its length and the expected length, or says that the presence of a
    /// bias does not match the problem.
    pub fn check_weights(&self, weights: &[f32], bias: Option<&[f32]>) -> Result<()> {
        exact_length("weights length", weights.len(), self.weights_len())?;
        match (bias, self.bias) {
            (Some(bias), true) => exact_length("bias length", bias.len(), self.sizes.k),
            (None, false) => Ok(()),
            (Some(_), false) => Err(Error::invalid("bias", "given", "none: the problem has no bias")),
            (None, true) => Err(Error::invalid("bias", "missing", format!("{} elements", self.sizes.k))),
        }
    }

    /// Checks the lengths of the input and the output.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the buffer, its length and the expected length.
    pub fn check_data(&self, input: &[f32], output: &[f32]) -> Result<()> {
        exact_length("input length", input.len(), self.input_len())?;
        exact_length("output length", output.len(), self.output_len())
    }
}

/// One side of the output.
///
/// # Errors
/// [`Error::InvalidArgument`] if the kernel is larger than the padded input.
fn output_side(
    argument: &'static str,
    padded: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
) -> Result<usize> {
    let extent = dilation * (kernel - 1) + 1;
    if extent > padded {
        let expected = format!(
            "a kernel no larger than the padded input: with dilation {dilation} it spans {extent}, the input {padded}"
        );
        return Err(Error::invalid(argument, kernel, expected));
    }
    Ok((padded - extent) / stride + 1)
}

#[cfg(test)]
mod tests;
