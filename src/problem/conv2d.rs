//! Two-dimensional convolutions: description, validation, sizes and work.

use super::checks::{elements, exact_length, side};
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
    /// Rows of zeros above the image, and as many below.
    pub pad_h: i64,
    /// Columns of zeros left of the image, and as many right.
    pub pad_w: i64,
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
            dilation_h: 1,
            dilation_w: 1,
            groups: 1,
            bias: false,
            relu: false,
            algorithm: Algorithm::Auto,
        }
    }
}

/// The sizes of a valid convolution, including the output.
///
/// All tensors are contiguous. 0-based offsets in elements:
///
/// * input: `((n*C + c)*H + h)*W + w`
/// * weights: `((k*(C/G) + c)*R + r)*S + s`
/// * bias: `k`
/// * output: `((n*K + k)*P + p)*Q + q`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Rows of zeros above and below.
    pub pad_h: usize,
    /// Zero columns left and right.
    pub pad_w: usize,
    /// Vertical distance between taps.
    pub dilation_h: usize,
    /// Horizontal distance between taps.
    pub dilation_w: usize,
    /// Groups.
    pub groups: usize,
    /// Output height: `(H + 2 pad_h - dilation_h (R-1) - 1) / stride_h + 1`.
    pub p: usize,
    /// Output width: `(W + 2 pad_w - dilation_w (S-1) - 1) / stride_w + 1`.
    pub q: usize,
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
        let dilation_h = side("dilation_h", desc.dilation_h, 1)?;
        let dilation_w = side("dilation_w", desc.dilation_w, 1)?;
        let groups = side("groups", desc.groups, 1)?;
        if c % groups != 0 || k % groups != 0 {
            let expected = format!("a divisor of c = {c} and of k = {k}");
            return Err(Error::invalid("groups", groups, expected));
        }
        // Sides are below 2^31, so these sums and products cannot overflow 64 bits.
        let p = output_side("r", h, r, stride_h, pad_h, dilation_h)?;
        let q = output_side("s", w, s, stride_w, pad_w, dilation_w)?;
        // For an empty batch, the sizes of one image must not overflow.
        let images = n.max(1);
        elements("input size n*c*h*w", &[images, c, h, w])?;
        elements("padded input size", &[images, c, h + 2 * pad_h, w + 2 * pad_w])?;
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
            dilation_h,
            dilation_w,
            groups,
            p,
            q,
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
    input: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    dilation: usize,
) -> Result<usize> {
    let padded = input + 2 * pad;
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
mod tests {
    use super::*;

    fn refused(desc: Conv2dDesc) -> String {
        Conv2d::new(desc).expect_err("should be refused").to_string()
    }

    #[test]
    fn sizes_and_work_of_a_known_layer() {
        let desc = Conv2dDesc {
            n: 2,
            c: 128,
            h: 56,
            w: 56,
            k: 128,
            r: 3,
            s: 3,
            stride_h: 2,
            stride_w: 2,
            pad_h: 1,
            pad_w: 1,
            ..Default::default()
        };
        let conv = Conv2d::new(desc).unwrap();
        assert_eq!((conv.sizes().p, conv.sizes().q), (28, 28));
        assert_eq!(conv.flops(), 2 * 2 * 128 * 28 * 28 * 128 * 9);
        assert_eq!(conv.bytes(), 4 * (2 * 128 * 56 * 56 + 128 * 128 * 9 + 2 * 128 * 28 * 28));
        assert_eq!(conv.with_batch(1).flops() * 2, conv.flops());
    }

    #[test]
    fn parts_of_the_channels_are_the_convolutions_that_they_say() {
        let one_group =
            Conv2dDesc { n: 3, c: 8, h: 9, w: 9, k: 6, r: 3, s: 3, bias: true, ..Default::default() };
        let same = |whole: Conv2dDesc, part: Conv2dDesc| {
            assert_eq!(
                Conv2d::new(whole).unwrap().with_channels(part.k as usize),
                Conv2d::new(part).unwrap()
            );
        };
        same(one_group, Conv2dDesc { k: 5, ..one_group });
        // Two output channels of each of three groups, from four input channels.
        let groups = Conv2dDesc { c: 12, groups: 3, ..one_group };
        same(groups, Conv2dDesc { c: 8, k: 4, groups: 2, ..groups });
        same(groups, Conv2dDesc { c: 4, k: 2, groups: 1, ..groups });
    }

    /// Different sizes everywhere, groups, bias, and strides that do not divide.
    fn odd() -> Conv2dDesc {
        Conv2dDesc {
            n: 3,
            c: 8,
            h: 11,
            w: 13,
            k: 6,
            r: 2,
            s: 5,
            stride_h: 2,
            stride_w: 3,
            pad_h: 1,
            pad_w: 2,
            dilation_h: 3,
            dilation_w: 2,
            groups: 2,
            bias: true,
            ..Default::default()
        }
    }

    #[test]
    fn sizes_and_work_worked_by_hand() {
        let conv = Conv2d::new(odd()).unwrap();
        // (11 + 2 - 3 - 1) / 2 + 1 and (13 + 4 - 8 - 1) / 3 + 1.
        assert_eq!((conv.sizes().p, conv.sizes().q), (5, 3));
        assert_eq!((conv.reduction(), conv.terms(), conv.weights_len()), (4 * 10, 41, 6 * 40));
        assert_eq!((conv.input_len(), conv.output_len()), (3 * 8 * 143, 3 * 6 * 15));
        // The channels of a group, not all channels.
        assert_eq!(conv.flops(), 2 * (3 * 6 * 15) * 40);
        assert_eq!(conv.bytes(), 4 * (3432 + 240 + 6 + 270));
        let without = Conv2d::new(Conv2dDesc { bias: false, ..odd() }).unwrap();
        assert_eq!((without.bytes(), without.terms()), (4 * (3432 + 240 + 270), 40));
        let part = conv.with_batch(2);
        assert_eq!((part.sizes().n, part.flops(), part.input_len()), (2, 2 * 2 * 90 * 40, 2 * 1144));
        assert_eq!(part, Conv2d::new(Conv2dDesc { n: 2, ..odd() }).unwrap());
        let none = conv.with_batch(0);
        assert!(none.is_empty() && !part.is_empty() && none.with_batch(1).output_len() == 90);
        assert_eq!((none.flops(), none.bytes(), none.weights_len()), (0, 0, 240));
    }

    #[test]
    fn a_problem_keeps_its_options() {
        for (bias, relu, algorithm) in [
            (false, true, Algorithm::Direct),
            (true, false, Algorithm::Winograd),
            (false, false, Algorithm::Auto),
        ] {
            let conv = Conv2d::new(Conv2dDesc { bias, relu, algorithm, ..odd() }).unwrap();
            assert_eq!((conv.bias(), conv.relu(), conv.algorithm()), (bias, relu, algorithm));
            assert_eq!((conv.is_once(), conv.is_measured()), (false, false));
            assert_eq!((conv.once().is_once(), conv.once().is_measured()), (true, false));
            assert_eq!((conv.measured().is_once(), conv.measured().is_measured()), (false, true));
            let direct = conv.with_algorithm(Algorithm::Direct);
            assert_eq!(
                direct,
                Conv2d::new(Conv2dDesc { bias, relu, algorithm: Algorithm::Direct, ..odd() }).unwrap()
            );
            for same in [conv.once(), conv.measured(), direct] {
                assert_eq!((same.sizes(), same.flops(), same.bias()), (conv.sizes(), conv.flops(), bias));
            }
        }
    }

    #[test]
    fn every_bad_size_is_named_with_its_value() {
        type Set = fn(&mut Conv2dDesc, i64);
        let fields: [(&str, Set); 14] = [
            ("n", |d, v| d.n = v),
            ("c", |d, v| d.c = v),
            ("h", |d, v| d.h = v),
            ("w", |d, v| d.w = v),
            ("k", |d, v| d.k = v),
            ("r", |d, v| d.r = v),
            ("s", |d, v| d.s = v),
            ("stride_h", |d, v| d.stride_h = v),
            ("stride_w", |d, v| d.stride_w = v),
            ("pad_h", |d, v| d.pad_h = v),
            ("pad_w", |d, v| d.pad_w = v),
            ("dilation_h", |d, v| d.dilation_h = v),
            ("dilation_w", |d, v| d.dilation_w = v),
            ("groups", |d, v| d.groups = v),
        ];
        for (name, set) in fields {
            for value in [-1, i64::MIN, i64::MAX, 1 << 31] {
                let mut desc = Conv2dDesc::default();
                set(&mut desc, value);
                let message = refused(desc);
                assert!(message.starts_with(&format!("{name} is {value}; expected ")), "{message}");
            }
            if name != "n" && !name.starts_with("pad") {
                let mut desc = Conv2dDesc::default();
                set(&mut desc, 0);
                assert!(refused(desc).starts_with(&format!("{name} is 0; ")));
            }
        }
    }

    #[test]
    fn kernels_that_do_not_fit_and_groups_that_do_not_divide() {
        let small = Conv2dDesc { h: 4, w: 9, r: 3, s: 3, dilation_h: 2, ..Default::default() };
        assert!(refused(small).starts_with("r is 3; expected a kernel no larger than the padded input"));
        assert!(Conv2d::new(Conv2dDesc { pad_h: 1, ..small }).is_ok());
        let grouped = Conv2dDesc { c: 6, k: 4, groups: 4, ..Default::default() };
        assert_eq!(refused(grouped), "groups is 4; expected a divisor of c = 6 and of k = 4");
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let big = i64::from(i32::MAX);
        let input = Conv2dDesc { n: big, c: big, h: 4, ..Default::default() };
        assert!(refused(input).starts_with("input size n*c*h*w is 2147483647 x 2147483647 x 4 x 1;"));
        let padding =
            Conv2dDesc { pad_h: big, pad_w: big, stride_h: big, stride_w: big, ..Default::default() };
        assert!(refused(padding).starts_with("padded input size is "));
        let work = Conv2dDesc { h: 1 << 30, c: 1 << 20, k: 1 << 20, ..Default::default() };
        assert!(refused(work).starts_with("work "), "{}", refused(work));
        // 2^65 operations for the batch, 2^62 per image; and 2^63 for two images.
        let batch = Conv2dDesc { n: 8, h: 1 << 21, c: 1 << 20, k: 1 << 20, ..Default::default() };
        assert!(refused(batch).starts_with("work "), "{}", refused(batch));
        assert_eq!(Conv2d::new(Conv2dDesc { n: 2, ..batch }).unwrap().flops(), 1 << 63);
        // An empty batch of images that are too large.
        let large = |desc: Conv2dDesc| refused(Conv2dDesc { n: 0, ..desc });
        assert!(large(Conv2dDesc { c: big, h: big, w: big, ..input }).starts_with("input size n*c*h*w is"));
        assert!(
            large(Conv2dDesc { k: big, w: 2, h: 1 << 30, ..Default::default() })
                .starts_with("output size n*k*p*q is")
        );
        assert!(large(padding).starts_with("padded input size is ") && large(work).starts_with("work "));
        let weights = Conv2dDesc { c: big, k: big, h: 8, r: 8, ..Default::default() };
        assert!(refused(weights).starts_with("weights size k*(c/groups)*r*s is"));
    }

    /// The limit is 2^61 - 1 elements. A padded image of (2^31 - 1) (2^30 + 1) exceeds it by less than a column.
    #[test]
    fn padding_and_groups_are_measured_exactly() {
        let far = i64::from(i32::MAX);
        let desc = Conv2dDesc { stride_h: far, stride_w: far, ..Default::default() };
        for (pad_h, pad_w) in [((1 << 30) - 1, 1 << 29), (1 << 29, (1 << 30) - 1)] {
            let message = refused(Conv2dDesc { pad_h, pad_w, ..desc });
            assert!(message.starts_with("padded input size is 1 x 1 x "), "{message}");
            assert!(Conv2d::new(Conv2dDesc { pad_h: pad_h - 1, pad_w, ..desc }).is_ok());
        }
        // So many groups that their square would overflow the number of weights.
        let wide = Conv2dDesc { c: 1 << 21, k: 1 << 21, groups: 1 << 21, ..Default::default() };
        let wide = Conv2d::new(wide).unwrap();
        assert_eq!((wide.weights_len(), wide.flops()), (1 << 21, 1 << 22));
    }

    #[test]
    fn wrong_lengths_name_the_buffer() {
        let conv = Conv2d::new(Conv2dDesc { bias: true, k: 3, ..Default::default() }).unwrap();
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(
            message(conv.check_weights(&[0.0; 2], Some(&[0.0; 3]))),
            "weights length is 2 elements; expected 3 elements"
        );
        assert_eq!(message(conv.check_weights(&[0.0; 3], None)), "bias is missing; expected 3 elements");
        assert_eq!(
            message(conv.check_data(&[0.0], &[0.0; 4])),
            "output length is 4 elements; expected 3 elements"
        );
    }
}
