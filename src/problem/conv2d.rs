//! Two-dimensional convolution: shape, validation, work.

use super::checks::{elements, exact_length, side};
use crate::error::{Error, Result};

/// How a convolution is to be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// What `SPARKLE_ALGORITHM` says; or else Winograd where it is predicted faster and its error, measured on random
    /// data, stays within a quarter of the direct algorithm's bound. A result is finite wherever the direct algorithm's is.
    #[default]
    Auto,
    /// Every product of the definition is computed and added: exact on small integers.
    Direct,
    /// Winograd's algorithm: fewer products, more additions, a larger rounding error, which is relative to a tile's largest
    /// input; see `docs/winograd.md`. A tile that overflows, or holds a NaN or an infinity, is computed by the definition. For
    /// 3x3 kernels with stride and dilation 1, on CPUs with AVX-512 or AVX2, and on OpenGL devices in one group.
    Winograd,
}

/// A convolution as the caller describes it; [`Conv2d::new`] validates it.
///
/// Field names are the field's: N images of C channels, H x W pixels; K output channels; an R x S kernel.
/// `Default` is a 1x1 convolution of one pixel, so a caller names only what differs:
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
    /// Images in the batch. An empty batch, 0, is valid: there is nothing to compute, and input and output have no elements.
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
    /// Step of the kernel down the image.
    pub stride_h: i64,
    /// Step of the kernel across the image.
    pub stride_w: i64,
    /// Rows of zeros above and below.
    pub pad_h: i64,
    /// Columns of zeros left and right.
    pub pad_w: i64,
    /// Distance between kernel rows in the image.
    pub dilation_h: i64,
    /// Distance between kernel columns in the image.
    pub dilation_w: i64,
    /// Groups: C and K are cut into this many parts that do not see each other.
    pub groups: i64,
    /// Whether one bias value is added to each output channel.
    pub bias: bool,
    /// Whether outputs below zero become zero.
    pub relu: bool,
    /// How it is to be computed.
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

/// The sizes of a valid convolution, with the output's.
///
/// Layouts, flat and 0-based: input `((n*C + c)*H + h)*W + w`, weights `((k*(C/G) + c)*R + r)*S + s`,
/// bias `k`, output `((n*K + k)*P + p)*Q + q`.
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
    /// Step down.
    pub stride_h: usize,
    /// Step across.
    pub stride_w: usize,
    /// Zero rows above and below.
    pub pad_h: usize,
    /// Zero columns left and right.
    pub pad_w: usize,
    /// Distance between kernel rows.
    pub dilation_h: usize,
    /// Distance between kernel columns.
    pub dilation_w: usize,
    /// Groups.
    pub groups: usize,
    /// Output height: `(H + 2 pad_h - dilation_h (R-1) - 1) / stride_h + 1`.
    pub p: usize,
    /// Output width, likewise.
    pub q: usize,
}

/// A valid convolution: every size is sound and every buffer size fits in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2d {
    sizes: Conv2dSizes,
    bias: bool,
    relu: bool,
    algorithm: Algorithm,
    /// Whether a plan for it will be run only once.
    once: bool,
    /// Whether a plan for it is to be confirmed by measurement.
    measured: bool,
    /// Floating-point operations of one image.
    image_flops: u64,
}

impl Conv2d {
    /// Validates `desc`, in checked 64-bit arithmetic.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the first argument that is negative, too large, zero where it must not be, does not
    /// divide, or makes a buffer or the work overflow. In an empty batch the image must still be sound.
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
        // An empty batch is measured by one image: products of that must not overflow either.
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

    /// All sizes.
    pub fn sizes(&self) -> &Conv2dSizes {
        &self.sizes
    }

    /// Whether a bias is added.
    pub fn bias(&self) -> bool {
        self.bias
    }

    /// Whether outputs below zero become zero.
    pub fn relu(&self) -> bool {
        self.relu
    }

    /// How it is to be computed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The same convolution, to be computed in a given way.
    pub(crate) fn with_algorithm(&self, algorithm: Algorithm) -> Self {
        Conv2d { algorithm, ..*self }
    }

    /// The same convolution for a plan that is run once: preparing weights then counts as much as running.
    pub(crate) fn once(&self) -> Self {
        Conv2d { once: true, ..*self }
    }

    /// Whether a plan for it will be run only once.
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }

    /// The same convolution, whose plans are confirmed by measurement: the candidates predicted best are timed when a plan
    /// is made, unless an earlier measurement is on record, and the fastest is kept. That takes several runs' time.
    pub fn measured(&self) -> Self {
        Conv2d { measured: true, ..*self }
    }

    /// Whether plans for it are to be confirmed by measurement.
    pub fn is_measured(&self) -> bool {
        self.measured
    }

    /// The same convolution over `n` of the batch's images; one image can be had of an empty batch as well.
    pub(crate) fn with_batch(&self, n: usize) -> Self {
        debug_assert!(n <= self.sizes.n.max(1));
        Conv2d { sizes: Conv2dSizes { n, ..self.sizes }, ..*self }
    }

    /// Whether the batch has no images: there is nothing to compute then.
    pub fn is_empty(&self) -> bool {
        self.sizes.n == 0
    }

    /// Elements of the input, N*C*H*W.
    pub fn input_len(&self) -> usize {
        self.sizes.n * self.sizes.c * self.sizes.h * self.sizes.w
    }

    /// Elements of the weights, K*(C/G)*R*S.
    pub fn weights_len(&self) -> usize {
        self.sizes.k * self.reduction()
    }

    /// Elements of the output, N*K*P*Q.
    pub fn output_len(&self) -> usize {
        self.sizes.n * self.sizes.k * self.sizes.p * self.sizes.q
    }

    /// Products summed for one output, (C/G)*R*S.
    pub fn reduction(&self) -> usize {
        self.sizes.c / self.sizes.groups * self.sizes.r * self.sizes.s
    }

    /// Terms of one output's sum, the bias included: the K of the error bound gamma_(K+3).
    pub fn terms(&self) -> usize {
        self.reduction() + usize::from(self.bias)
    }

    /// Floating-point operations of the direct algorithm, a multiply-add counted as two.
    pub fn flops(&self) -> u64 {
        self.image_flops * self.sizes.n as u64
    }

    /// Bytes that must move at least: input, weights, bias and output once each; none for an empty batch.
    pub fn bytes(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let bias = if self.bias { self.sizes.k } else { 0 };
        let elements = [self.input_len(), self.weights_len(), bias, self.output_len()];
        elements.iter().map(|&count| count as u64 * size_of::<f32>() as u64).sum()
    }

    /// Checks the lengths of weights and bias.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the buffer, its length and the length expected.
    pub fn check_weights(&self, weights: &[f32], bias: Option<&[f32]>) -> Result<()> {
        exact_length("weights length", weights.len(), self.weights_len())?;
        match (bias, self.bias) {
            (Some(bias), true) => exact_length("bias length", bias.len(), self.sizes.k),
            (None, false) => Ok(()),
            (Some(_), false) => Err(Error::invalid("bias", "given", "none, as the problem says")),
            (None, true) => Err(Error::invalid("bias", "missing", format!("{} elements", self.sizes.k))),
        }
    }

    /// Checks the lengths of input and output.
    ///
    /// # Errors
    /// As [`Conv2d::check_weights`].
    pub fn check_data(&self, input: &[f32], output: &[f32]) -> Result<()> {
        exact_length("input length", input.len(), self.input_len())?;
        exact_length("output length", output.len(), self.output_len())
    }
}

/// One side of the output; refuses a kernel that does not fit into the padded input.
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

    /// Every side another number, groups, bias, and a stride that does not divide.
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
        // A group's channels, not all.
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
    fn what_was_asked_for_is_kept() {
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
        // 2^65 operations of a batch, 2^62 of an image; and 2^63 of half as many.
        let batch = Conv2dDesc { n: 8, h: 1 << 21, c: 1 << 20, k: 1 << 20, ..Default::default() };
        assert!(refused(batch).starts_with("work "), "{}", refused(batch));
        assert_eq!(Conv2d::new(Conv2dDesc { n: 2, ..batch }).unwrap().flops(), 1 << 63);
        // An empty batch of what would be too large.
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

    /// 2^61 - 1 elements are the most; (2^31 - 1) (2^30 + 1) of a padded image are more, by less than a column.
    #[test]
    fn padding_and_groups_are_measured_exactly() {
        let far = i64::from(i32::MAX);
        let desc = Conv2dDesc { stride_h: far, stride_w: far, ..Default::default() };
        for (pad_h, pad_w) in [((1 << 30) - 1, 1 << 29), (1 << 29, (1 << 30) - 1)] {
            let message = refused(Conv2dDesc { pad_h, pad_w, ..desc });
            assert!(message.starts_with("padded input size is 1 x 1 x "), "{message}");
            assert!(Conv2d::new(Conv2dDesc { pad_h: pad_h - 1, pad_w, ..desc }).is_ok());
        }
        // So many groups that their square is no number of weights.
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
