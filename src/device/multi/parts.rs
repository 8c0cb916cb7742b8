//! Calls that can be cut into parts: convolutions by images or by output channels, products by rows or columns of C.

use crate::backend::Dimension;
use crate::memory::roofline::Work;
use crate::problem::{Conv2d, Gemm};

/// How a call is cut: its dimension, and the units that shares consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// What is cut.
    pub dimension: Dimension,
    /// The length of that dimension.
    pub len: usize,
    /// The length of a unit. The last unit may be shorter.
    pub unit: usize,
}

/// Output channels of a unit, where there are enough of them: kernels compute channels in tiles.
const CHANNELS: usize = 16;
/// Rows or columns of a unit of a product, likewise.
const LINES: usize = 32;

impl Axis {
    /// How to cut `problem` for `devices` devices: by images if there is one for each of them, since a batch of images
    /// is contiguous, or if channels are not; otherwise by output channels, whole groups of them if there are several groups.
    pub fn of_conv2d(problem: &Conv2d, devices: usize) -> Self {
        let sizes = problem.sizes();
        // The channels of a part are contiguous only in NCHW and OIHW.
        if sizes.n >= devices || !sizes.is_plain() {
            return Axis { dimension: Dimension::Images, len: sizes.n, unit: 1 };
        }
        let unit = match sizes.groups {
            1 => unit(sizes.k, devices, CHANNELS),
            groups => sizes.k / groups,
        };
        Axis { dimension: Dimension::Channels, len: sizes.k, unit }
    }

    /// How to cut `problem`: by the lines of C that lie one after the other.
    pub fn of_gemm(problem: &Gemm, devices: usize) -> Self {
        let sizes = problem.sizes();
        let (dimension, len) = match sizes.c_col {
            1 => (Dimension::Rows, sizes.m),
            _ => (Dimension::Columns, sizes.n),
        };
        Axis { dimension, len, unit: unit(len, devices, LINES) }
    }

    /// The number of units.
    pub fn units(&self) -> usize {
        self.len.div_ceil(self.unit)
    }

    /// The length of the first `units` units.
    pub fn span(&self, units: usize) -> usize {
        (units * self.unit).min(self.len)
    }
}

/// A unit of `wanted` if each device then gets four of them, else a smaller one.
fn unit(len: usize, devices: usize, wanted: usize) -> usize {
    (len / (4 * devices.max(1))).clamp(1, wanted)
}

/// The convolution of a share of `count` along `dimension`, and how many times it runs: a share of the channels is
/// computed image by image, because its outputs are contiguous only within an image.
pub fn conv2d_part(problem: &Conv2d, dimension: Dimension, count: usize) -> (Conv2d, usize) {
    match dimension {
        Dimension::Images => (problem.with_batch(count), 1),
        _ => (problem.with_batch(1).with_channels(count), problem.sizes().n),
    }
}

/// The product of a share.
pub fn gemm_part(problem: &Gemm, dimension: Dimension, count: usize) -> Gemm {
    match dimension {
        Dimension::Rows => problem.with_rows(count),
        _ => problem.with_columns(count),
    }
}

/// The work of a product.
pub fn gemm_work(problem: &Gemm) -> Work {
    let [a, b, c] = problem.lens().map(|len| 4 * len as u64);
    let upload = a + b + if problem.beta() == 0.0 { 0 } else { c };
    Work { flops: problem.flops(), bytes: problem.bytes(), upload, download: c }
}

/// The weights of `count` output channels from `first`.
pub fn weights_of<'a>(problem: &Conv2d, weights: &'a [f32], first: usize, count: usize) -> &'a [f32] {
    &weights[first * problem.reduction()..][..count * problem.reduction()]
}

/// A piece of a convolution's buffers.
pub struct ConvPiece<'a> {
    /// The first image or channel, and how many there are.
    pub first: usize,
    pub count: usize,
    axis: Axis,
    problem: &'a Conv2d,
    /// Input and output of all its images together, or of each image.
    pub buffers: Vec<(&'a [f32], &'a mut [f32])>,
}

impl<'a> ConvPiece<'a> {
    /// The whole convolution, which is not an empty batch.
    pub fn whole(problem: &'a Conv2d, axis: Axis, input: &'a [f32], output: &'a mut [f32]) -> Self {
        let images = match axis.dimension {
            Dimension::Images => 1,
            _ => problem.sizes().n,
        };
        let (input_len, output_len) = (input.len() / images, output.len() / images);
        let buffers = input.chunks_exact(input_len).zip(output.chunks_exact_mut(output_len)).collect();
        ConvPiece { first: 0, count: axis.len, axis, problem, buffers }
    }

    /// A range without buffers, to prepare a plan for.
    pub fn of_range(problem: &'a Conv2d, axis: Axis, first: usize, count: usize) -> Self {
        ConvPiece { first, count, axis, problem, buffers: vec![] }
    }
}

/// A piece of a product's matrices.
pub struct GemmPiece<'a> {
    /// The first row or column, and how many there are.
    pub first: usize,
    pub count: usize,
    axis: Axis,
    /// The product of this piece.
    pub problem: Gemm,
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub c: &'a mut [f32],
}

impl<'a> GemmPiece<'a> {
    /// The whole product.
    pub fn whole(problem: &Gemm, axis: Axis, a: &'a [f32], b: &'a [f32], c: &'a mut [f32]) -> Self {
        GemmPiece { first: 0, count: axis.len, axis, problem: *problem, a, b, c }
    }
}

/// A piece that can be cut in two.
pub trait Piece: Sized + Send {
    /// What traces call its computation.
    const NAME: &'static str;
    /// Its units.
    fn units(&self) -> usize;
    /// Its range along the dimension: the first index and the length.
    fn range(&self) -> (usize, usize);
    /// Cuts off the first `units` units, more than none and less than all.
    fn cut(self, units: usize) -> (Self, Self);
}

impl Piece for ConvPiece<'_> {
    const NAME: &'static str = "conv2d";

    fn units(&self) -> usize {
        self.count.div_ceil(self.axis.unit)
    }

    fn range(&self) -> (usize, usize) {
        (self.first, self.count)
    }

    fn cut(self, units: usize) -> (Self, Self) {
        let ConvPiece { first, count, axis, problem, buffers } = self;
        let (head, sizes, image) = (units * axis.unit, problem.sizes(), problem.with_batch(1));
        let by_images = axis.dimension == Dimension::Images;
        let output_len = head * if by_images { image.output_len() } else { sizes.p * sizes.q };
        // Without groups every share of the channels reads all inputs. With groups a unit is a group.
        let input_len = match (by_images, sizes.groups) {
            (true, _) => Some(head * image.input_len()),
            (false, 1) => None,
            (false, groups) => Some(units * (image.input_len() / groups)),
        };
        let (mut heads, mut tails) = (Vec::with_capacity(buffers.len()), Vec::with_capacity(buffers.len()));
        for (input, output) in buffers {
            let (input_head, input_tail) = input_len.map_or((input, input), |len| input.split_at(len));
            let (output_head, output_tail) = output.split_at_mut(output_len);
            heads.push((input_head, output_head));
            tails.push((input_tail, output_tail));
        }
        let piece = |first, count, buffers| ConvPiece { first, count, axis, problem, buffers };
        (piece(first, head, heads), piece(first + head, count - head, tails))
    }
}

impl Piece for GemmPiece<'_> {
    const NAME: &'static str = "sgemm";

    fn units(&self) -> usize {
        self.count.div_ceil(self.axis.unit)
    }

    fn range(&self) -> (usize, usize) {
        (self.first, self.count)
    }

    fn cut(self, units: usize) -> (Self, Self) {
        let GemmPiece { first, count, axis, problem, a, b, c } = self;
        let (head, sizes) = (units * axis.unit, *problem.sizes());
        let by_rows = axis.dimension == Dimension::Rows;
        let (c_head, c_tail) = c.split_at_mut(head * if by_rows { sizes.c_row } else { sizes.c_col });
        // Operands that are not read may be shorter.
        let (a_tail, b_tail) = match by_rows {
            true => (a.get(head * sizes.a_row..).unwrap_or_default(), b),
            false => (a, b.get(head * sizes.b_col..).unwrap_or_default()),
        };
        let piece = |first, count, (a, b), c| {
            let problem = gemm_part(&problem, axis.dimension, count);
            GemmPiece { first, count, axis, problem, a, b, c }
        };
        (piece(first, head, (a, b), c_head), piece(first + head, count - head, (a_tail, b_tail), c_tail))
    }
}
