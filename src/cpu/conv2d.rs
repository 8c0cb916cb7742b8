//! Convolution as implicit GEMM: weights, K x (C/G)*R*S, times the im2col matrix, (C/G)*R*S x P*Q, for each
//! image and group.
//!
//! The im2col matrix never exists as a whole. A task computes a block of output pixels for a group of output
//! channels. It packs one panel of the matrix straight from the image ([`super::im2col`]), KC deep and NR pixels
//! wide; while that panel is hot in the cache it meets all the task's weights, and then makes place for the next.
//! The weights were packed when the plan was made. Bias and ReLU ride on the last pass over the depth. Padding is
//! zeros, multiplied like any other value.

use std::time::Instant;

use super::block::{Panels, Shared, multiply};
use super::buffer::Buffer;
use super::im2col;
use super::kernels::{Epilogue, Kernel, Tile};
use super::pack::{Lines, panels};
use super::plan;
use super::pool::Team;
use crate::backend::Plan;
use crate::error::Result;
use crate::problem::{Conv2d, Conv2dSizes, Gemm, GemmDesc, Layout};
use crate::report::Timing;

/// A convolution with its weights packed.
pub struct ConvPlan<K> {
    kernel: K,
    problem: Conv2d,
    shape: Shape,
    /// Weights: for each group, for each KC of the reduction, panels of MR output channels.
    weights: Buffer,
    /// Bias: for each group its channels, rounded up to MR. Empty if there is none.
    bias: Buffer,
}

/// A convolution as the products it consists of.
#[derive(Clone, Copy)]
struct Shape {
    /// Output channels of a group: rows of C.
    rows: usize,
    /// The same, rounded up to MR.
    padded: usize,
    /// Output pixels of an image: columns of C.
    pixels: usize,
    /// (C/G)*R*S.
    depth: usize,
    /// KC.
    step: usize,
    groups: usize,
}

impl Shape {
    fn new<K: Kernel>(kernel: K, problem: &Conv2d) -> Self {
        let Conv2dSizes { k, p, q, groups, .. } = *problem.sizes();
        let (rows, depth) = (k / groups, problem.reduction());
        let step = plan(kernel, problem, 1).kc;
        Shape { rows, padded: rows.next_multiple_of(K::MR), pixels: p * q, depth, step, groups }
    }
}

impl<K: Kernel> ConvPlan<K> {
    /// Packs weights and bias.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(kernel: K, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let shape = Shape::new(kernel, problem);
        let Shape { rows, padded, depth, step, groups, .. } = shape;
        // Saturating: a size that overflows is refused as out of memory.
        let mut packed = Buffer::zeroed(groups.saturating_mul(padded).saturating_mul(depth))?;
        for (group, packed) in packed.chunks_exact_mut(padded * depth).enumerate() {
            let matrix =
                Lines { data: &weights[group * rows * depth..][..rows * depth], line: depth, depth: 1 };
            for (p, packed) in (0..depth).step_by(step).zip(packed.chunks_mut(padded * step)) {
                panels(kernel, matrix, K::MR, 0..rows, p..depth.min(p + step), packed);
            }
        }
        let mut packed_bias = Buffer::zeroed(bias.map_or(0, |_| groups * padded))?;
        for (bias, packed) in bias.unwrap_or(&[]).chunks_exact(rows).zip(packed_bias.chunks_exact_mut(padded))
        {
            packed[..rows].copy_from_slice(bias);
        }
        Ok(ConvPlan { kernel, problem: *problem, shape, weights: packed, bias: packed_bias })
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        let Shape { rows, pixels, groups, .. } = self.shape;
        let products = self.problem.sizes().n * groups;
        assert_eq!(output.len(), products * rows * pixels);
        let grid = plan(self.kernel, &self.problem, team.size());
        let output = Shared::new(output);
        let image_len = input.len() / products;
        team.run(products * grid.tasks(), |task, workspace| {
            let (product, task) = (task / grid.tasks(), task % grid.tasks());
            let (group, block) = (task % grid.row_groups, task / grid.row_groups);
            let cols = block * grid.nc..pixels.min((block + 1) * grid.nc);
            let (top, bottom) = (group * grid.panels * K::MR, rows.min((group + 1) * grid.panels * K::MR));
            // SAFETY: (product, top, cols.start) is an element of the output, whose length was checked above.
            let start = unsafe { output.start().add((product * rows + top) * pixels + cols.start) };
            let tile = Tile { start, ld: pixels, rows: bottom - top, cols: cols.len() };
            let image = &input[product * image_len..][..image_len];
            // SAFETY: the tile's elements are inside of the output, which is borrowed mutably, and the tasks'
            // do not overlap.
            unsafe { self.block(product % groups, top, (image, cols.start), tile, workspace) };
        })
    }

    /// Computes one tile: output channels of `group` from `top` on, pixels of `image` from `left` on.
    ///
    /// # Safety
    /// The tile's elements are writable and nobody else touches them meanwhile.
    unsafe fn block(
        &self,
        group: usize,
        top: usize,
        (image, left): (&[f32], usize),
        tile: Tile,
        workspace: &mut [f32],
    ) {
        let Shape { padded, depth, step, .. } = self.shape;
        let weights = &self.weights[group * padded * depth..][..padded * depth];
        let bias = self.bias.get(group * padded + top..).filter(|bias| !bias.is_empty());
        for p in (0..depth).step_by(step) {
            let depths = p..depth.min(p + step);
            let (count, last) = (depths.len(), depths.end == depth);
            let panel = &mut workspace[..K::NR * count];
            let epilogue = Epilogue {
                alpha: 1.0,
                beta: if p == 0 { 0.0 } else { 1.0 },
                bias: bias.filter(|_| last).map_or(std::ptr::null(), <[f32]>::as_ptr),
                relu: last && self.problem.relu(),
            };
            let a = Panels::packed(&weights[p * padded + top * count..], K::MR, count);
            for j in (0..tile.cols).step_by(K::NR) {
                let cols = K::NR.min(tile.cols - j);
                im2col::pack(
                    self.kernel,
                    self.problem.sizes(),
                    image,
                    left + j..left + j + cols,
                    depths.clone(),
                    panel,
                );
                let next = left + j + K::NR;
                let ahead = im2col::ahead(self.problem.sizes(), image, K::NR, next, depths.clone());
                // SAFETY: the caller vouches for the tile, and from the second pass on it is initialised by the
                // first. Weights and bias reach to the tile's last row.
                unsafe {
                    let strip = Tile { start: tile.start.add(j), cols, ..tile };
                    multiply(self.kernel, count, a, (panel.as_ptr(), K::NR), strip, &epilogue, &ahead);
                }
            }
        }
    }
}

/// The product of matrices that `problem` is, if it is one and no more, and its weights are larger than its image: used
/// once they are better read as a matrix's blocks are needed than packed as a whole.
pub fn as_product(problem: &Conv2d) -> Option<Gemm> {
    let Conv2dSizes { n, c, k, p, q, groups, .. } = *problem.sizes();
    let plain = (n, groups) == (1, 1) && !problem.bias() && !problem.relu() && k > p * q;
    if !plain || !im2col::is_image(problem.sizes()) {
        return None;
    }
    let desc = GemmDesc::packed(Layout::RowMajor, k as i64, (p * q) as i64, c as i64);
    Gemm::new(desc).ok()
}

impl<K: Kernel> Plan for ConvPlan<K> {
    fn kernel(&self) -> &str {
        K::CONV
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let start = Instant::now();
        let mut team = Team::for_work(self.problem.flops())?;
        let computing = Instant::now();
        self.execute(&mut team, input, output)?;
        let kernel = computing.elapsed();
        drop(team);
        Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
    }
}
