//! Depthwise convolution of NHWC images: every group has one input and one output channel. Lanes are channels.
//!
//! Pixels of a row are computed a few at a time if all their taps see the image. At the borders a tap that sees padding
//! reads zeros instead, which are multiplied like any other value.

use crate::backend::{Memory, Plan};
use crate::cpu::block::Shared;
use crate::cpu::buffer::Buffer;
use crate::cpu::kernels::{CHANNELWISE, ChannelwiseTile, Kernel};
use crate::cpu::pool::{self, Team};
use crate::cpu::tunables::CHANNELS_LAST_TASKS;
use crate::error::Result;
use crate::problem::{Conv2d, Conv2dSizes, TensorLayout};
use crate::report::Timing;

/// The most taps.
const MAX_TAPS: usize = 128;
/// Channels that are computed together.
const CHANNELS: usize = 64;

/// The source of zeros.
static ZEROS: [f32; CHANNELS] = [0.0; CHANNELS];

/// A depthwise convolution.
pub struct DepthwisePlan<K> {
    kernel: K,
    problem: Conv2d,
    /// `[tap][channel]`.
    weights: Buffer,
    /// One value for each channel. Empty without a bias.
    bias: Buffer,
}

impl<K: Kernel> DepthwisePlan<K> {
    /// Whether this method computes `problem`.
    pub fn supports(problem: &Conv2d) -> bool {
        let Conv2dSizes { c, k, r, s, groups, input_layout, output_layout, .. } = *problem.sizes();
        let last = (input_layout, output_layout) == (TensorLayout::Nhwc, TensorLayout::Nhwc);
        last && groups > 1 && c == groups && k == groups && r * s <= MAX_TAPS
    }

    /// Orders the weights, which are in the problem's order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(kernel: K, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let packed = Buffer::zeroed(problem.weights_len())?;
        let kept = Buffer::zeroed(bias.map_or(0, <[f32]>::len))?;
        let mut plan = DepthwisePlan { kernel, problem: *problem, weights: packed, bias: kept };
        plan.pack(weights, bias);
        Ok(plan)
    }

    fn pack(&mut self, weights: &[f32], bias: Option<&[f32]>) {
        let sizes = self.problem.sizes();
        let strides = sizes.weights_strides();
        for (tap, row) in self.weights.chunks_exact_mut(sizes.c).enumerate() {
            for (k, to) in row.iter_mut().enumerate() {
                *to = weights[strides.at(k, 0, tap / sizes.s, tap % sizes.s)];
            }
        }
        self.bias.copy_from_slice(bias.unwrap_or_default());
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        let Conv2dSizes { n, p, q, k, .. } = *self.problem.sizes();
        assert!(input.len() == self.problem.input_len() && output.len() == self.problem.output_len());
        let rows = n * p;
        let each = rows.div_ceil(if team.size() == 1 { 1 } else { CHANNELS_LAST_TASKS * team.size() });
        let output = Shared::new(output);
        team.run(rows.div_ceil(each), |task, _| {
            for row in task * each..rows.min((task + 1) * each) {
                for first in (0..k).step_by(CHANNELS) {
                    let count = CHANNELS.min(k - first);
                    // SAFETY: the row is inside of the output, as asserted, and no other task writes it.
                    unsafe {
                        let to = output.start().add(row * q * k + first);
                        self.row(input, (row / p, row % p), (first, count), to);
                    }
                }
            }
        })
    }

    /// Computes row `p` of an image in `count` channels from `first` on.
    ///
    /// # Safety
    /// These outputs are writable from `to` on, and no other thread accesses them.
    unsafe fn row(
        &self,
        input: &[f32],
        (image, p): (usize, usize),
        (first, count): (usize, usize),
        to: *mut f32,
    ) {
        let sizes = self.problem.sizes();
        let Conv2dSizes {
            h, w, c, q, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, ..
        } = *sizes;
        let strides = sizes.input_strides();
        let mut taps = [ZEROS.as_ptr(); MAX_TAPS];
        let mut at = 0;
        while at < q {
            let left = at * stride_w;
            let last = left + (CHANNELWISE - 1) * stride_w + (s - 1) * dilation_w;
            let together = left >= pad_w && last - pad_w < w && at + CHANNELWISE <= q;
            let pixels = if together { CHANNELWISE } else { 1 };
            let mut outside = false;
            for (tap, to) in taps.iter_mut().enumerate().take(r * s) {
                let y = (p * stride_h + tap / s * dilation_h).checked_sub(pad_h).filter(|&y| y < h);
                let x = (left + tap % s * dilation_w).checked_sub(pad_w).filter(|&x| x < w);
                *to = match (y, x) {
                    (Some(y), Some(x)) => input[strides.at(image, first, y, x)..].as_ptr(),
                    _ => ZEROS.as_ptr(),
                };
                outside |= y.is_none() || x.is_none();
            }
            // Zeros are the same for all pixels, but these are a distance apart.
            let pixels = if outside { 1 } else { pixels };
            let tile = ChannelwiseTile {
                taps: &taps[..r * s],
                row: stride_w * strides.column,
                weights: self.weights[first..].as_ptr(),
                pitch: c,
                to: to.wrapping_add(at * c),
                line: c,
                pixels,
                channels: count,
                bias: self
                    .bias
                    .get(first..)
                    .filter(|bias| !bias.is_empty())
                    .map_or(std::ptr::null(), |it| it.as_ptr()),
                relu: self.problem.relu(),
            };
            // SAFETY: a tap is at `count` channels of the image for every pixel, as the pixels' first and last column are
            // in the image; or at as many zeros, for a single pixel. The caller guarantees the output.
            unsafe { self.kernel.channelwise(&tile) };
            at += pixels;
        }
    }
}

impl<K: Kernel> Plan for DepthwisePlan<K> {
    fn kernel(&self) -> &str {
        K::CHANNELWISE_NAME
    }

    fn memory(&self) -> Memory {
        pool::plan_memory(self.weights.len() + self.bias.len(), self.problem.flops())
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        pool::timed(self.problem.flops(), |team| self.execute(team, input, output))
    }
}
