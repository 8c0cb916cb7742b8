//! One-dimensional convolutions: signals are images of one row.

use super::conv2d::{Algorithm, Conv2dDesc};
use super::layout::{TensorLayout, WeightsLayout};

/// The description of a convolution of signals: N signals of C channels and W samples, K output channels, a kernel of S
/// taps. It converts into the description of the same convolution of images with one row, whose buffers are the same.
///
/// ```
/// use sparkle::problem::Conv1dDesc;
/// use sparkle::{Conv2d, Conv2dDesc};
/// let desc = Conv1dDesc { c: 4, w: 100, k: 8, s: 5, pad_left: 2, ..Default::default() };
/// let problem = Conv2d::new(desc.into())?;
/// assert_eq!((problem.sizes().q, problem.output_len()), (100, 800));
/// # Ok::<(), sparkle::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conv1dDesc {
    /// Signals in the batch; 0 is valid.
    pub n: i64,
    /// Input channels.
    pub c: i64,
    /// Samples of a signal.
    pub w: i64,
    /// Output channels.
    pub k: i64,
    /// Taps of the kernel.
    pub s: i64,
    /// Stride, in samples.
    pub stride: i64,
    /// Zeros before the signal, and as many after it unless `pad_right` says how many.
    pub pad_left: i64,
    /// Zeros after the signal. `None`: as many as before it.
    pub pad_right: Option<i64>,
    /// Distance between taps, in samples.
    pub dilation: i64,
    /// Groups.
    pub groups: i64,
    /// Whether to add a bias, one value per output channel.
    pub bias: bool,
    /// Whether to replace negative outputs by zero.
    pub relu: bool,
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The order of the input: NCHW is `[n][c][w]`, NHWC is `[n][w][c]`.
    pub input_layout: TensorLayout,
    /// The order of the output.
    pub output_layout: TensorLayout,
    /// The order of the weights: OIHW is `[k][c/groups][s]`, HWIO is `[s][c/groups][k]`, OHWI is `[k][s][c/groups]`.
    pub weights_layout: WeightsLayout,
}

impl Default for Conv1dDesc {
    fn default() -> Self {
        Conv1dDesc {
            n: 1,
            c: 1,
            w: 1,
            k: 1,
            s: 1,
            stride: 1,
            pad_left: 0,
            pad_right: None,
            dilation: 1,
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

impl From<Conv1dDesc> for Conv2dDesc {
    fn from(desc: Conv1dDesc) -> Self {
        Conv2dDesc {
            n: desc.n,
            c: desc.c,
            w: desc.w,
            k: desc.k,
            s: desc.s,
            stride_w: desc.stride,
            pad_w: desc.pad_left,
            pad_right: desc.pad_right,
            dilation_w: desc.dilation,
            groups: desc.groups,
            bias: desc.bias,
            relu: desc.relu,
            algorithm: desc.algorithm,
            input_layout: desc.input_layout,
            output_layout: desc.output_layout,
            weights_layout: desc.weights_layout,
            ..Default::default()
        }
    }
}
