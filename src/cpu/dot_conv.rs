//! Convolutions as dot products, for few pixels with deep sums. [`crate::memory::dot_conv`] explains the method and
//! when it is chosen.
//!
//! A one-shot call reads weights as given. A plan interleaves the rows that a tile reads together, so that they are
//! one stream of memory. For each block of depth a task transposes the pixels, so that KC depths of a pixel are
//! contiguous. Then a few rows of weights at a time are multiplied by all pixels while they are in L1. Blocks of
//! depth follow each other in ascending order, and the lanes of a sum are added in pairs: the bits do not depend on
//! the number of threads.

use std::ops::Range;

use super::block::Shared;
use super::buffer::Buffer;
use super::caches::described;
use super::im2col;
use super::implicit_im2col::columns;
use super::kernels::{DOT_LANES, Dots, Kernel, TransposeBlock};
use super::pool::{self, Team};
use crate::backend::{Memory, Plan};
use crate::cpu::tunables::DOT_TASKS;
use crate::error::Result;
use crate::memory::blocking::WORKSPACE;
use crate::memory::dot_conv::{DotConv, GAP, ROWS, packing_weights};
use crate::memory::implicit_im2col::ImplicitIm2col;
use crate::problem::{Conv2d, Conv2dSizes};
use crate::report::Timing;

/// A convolution by dot products, with its weights packed.
pub struct DotConvPlan<K> {
    kernel: K,
    problem: Conv2d,
    cut: DotConv,
    /// For each group, for each block of ROWS rows, for every DOT_LANES depths: those depths of all rows.
    weights: Buffer,
    /// One value for each output channel. Empty if there is no bias.
    bias: Buffer,
}

/// How `problem` is cut, if this method is predicted faster than implicit GEMM, which has to pack weights that are used
/// `once`.
pub fn choose<K: Kernel>(kernel: K, problem: &Conv2d, once: bool) -> Option<DotConv> {
    let caches = &described().caches;
    let (cycles, cut) = DotConv::plan(caches, K::LANES, problem).filter(|_| K::FAST_DOTS)?;
    let kc = super::plan::plan(kernel, problem, 1).kc;
    let packing = if once { packing_weights(K::LANES, problem) } else { 0.0 };
    (cycles < ImplicitIm2col::cycles(caches, columns(kernel), problem, kc) + packing).then_some(cut)
}

impl<K: Kernel> DotConvPlan<K> {
    /// Packs the weights and copies the bias.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        kernel: K,
        problem: &Conv2d,
        cut: DotConv,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let Conv2dSizes { k, groups, .. } = *problem.sizes();
        let (rows, depth) = (k / groups, problem.reduction());
        let block = ROWS * depth.next_multiple_of(DOT_LANES);
        // Saturating: a size that overflows is refused as out of memory.
        let mut packed = Buffer::zeroed(groups.saturating_mul(rows.div_ceil(ROWS)).saturating_mul(block))?;
        let blocks = weights.chunks_exact(rows * depth).flat_map(|group| group.chunks(ROWS * depth));
        for (given, packed) in blocks.zip(packed.chunks_exact_mut(block)) {
            for (row, given) in given.chunks_exact(depth).enumerate() {
                let places = packed.chunks_exact_mut(ROWS * DOT_LANES);
                for (given, to) in given.chunks(DOT_LANES).zip(places) {
                    to[row * DOT_LANES..][..given.len()].copy_from_slice(given);
                }
            }
        }
        let mut kept = Buffer::zeroed(bias.map_or(0, <[f32]>::len))?;
        kept.copy_from_slice(bias.unwrap_or_default());
        Ok(DotConvPlan { kernel, problem: *problem, cut, weights: packed, bias: kept })
    }

    /// The packed weights.
    pub fn weights(&self) -> WeightLayout<'_> {
        WeightLayout::Packed(&self.weights)
    }
}

/// The layout of weights in memory.
#[derive(Clone, Copy)]
pub enum WeightLayout<'a> {
    /// As the caller passes them.
    Given(&'a [f32]),
    /// As [`DotConvPlan`] packs them.
    Packed(&'a [f32]),
}

impl WeightLayout<'_> {
    /// Rows of a group from row `row`, a multiple of ROWS, and depth `start`, a multiple of DOT_LANES. Returns the
    /// first element, the distance between rows, and that between groups of DOT_LANES depths.
    fn lines(
        self,
        (group, rows, depth): (usize, usize, usize),
        row: usize,
        start: usize,
    ) -> (*const f32, usize, usize) {
        match self {
            WeightLayout::Given(weights) => {
                (weights[(group * rows + row) * depth + start..].as_ptr(), depth, DOT_LANES)
            }
            WeightLayout::Packed(weights) => {
                let block = group * rows.div_ceil(ROWS) + row / ROWS;
                let at = (block * depth.next_multiple_of(DOT_LANES) + start) * ROWS;
                (weights[at..].as_ptr(), DOT_LANES, ROWS * DOT_LANES)
            }
        }
    }
}

/// Computes the convolution on `team`. The lengths have been checked.
///
/// # Errors
/// Only if a task panicked.
pub fn execute<K: Kernel>(
    kernel: K,
    (problem, cut): (&Conv2d, DotConv),
    team: &mut Team,
    (weights, bias): (WeightLayout, &[f32]),
    input: &[f32],
    output: &mut [f32],
) -> Result<()> {
    let Conv2dSizes { n, k, p, q, groups, .. } = *problem.sizes();
    let (products, rows, depth, pixels) = (n * groups, k / groups, problem.reduction(), p * q);
    let len = match weights {
        WeightLayout::Given(weights) => weights.len() == k * depth,
        WeightLayout::Packed(weights) => {
            weights.len() == groups * rows.div_ceil(ROWS) * ROWS * depth.next_multiple_of(DOT_LANES)
        }
    };
    assert!(len && output.len() == products * rows * pixels);
    let tasks = if team.size() == 1 { 1 } else { (DOT_TASKS * team.size()).div_ceil(products) };
    let each = rows.div_ceil(tasks).next_multiple_of(ROWS);
    let blocks = rows.div_ceil(each);
    let image_len = input.len() / products;
    let (output, finish) = (Shared::new(output), team.finish());
    team.run(products * blocks, |task, workspace| {
        let (product, block) = (task / blocks, task % blocks);
        let some = block * each..rows.min((block + 1) * each);
        let first = product % groups * rows + some.start;
        let bias = bias.get(first..first + some.len());
        let lines = |row, start| weights.lines((product % groups, rows, depth), some.start + row, start);
        let image = &input[product * image_len..][..image_len];
        // SAFETY: these rows of this product are inside of the output, whose length was checked above and which is
        // borrowed mutably. No other task writes them.
        let to = unsafe {
            let start = output.start().add((product * rows + some.start) * pixels);
            std::slice::from_raw_parts_mut(start, some.len() * pixels)
        };
        rows_of(kernel, (problem, cut), (lines, bias), image, to, workspace);
        let to = (to.as_mut_ptr(), pixels);
        // SAFETY: these rows are done, and only this task uses them.
        unsafe { finish.tile(pool::worker(), to, (some.len(), pixels)) };
    })
}

/// Computes some rows of a group of an image into `output`. `lines` returns the position of weights from a row and a
/// depth on.
fn rows_of<K: Kernel>(
    kernel: K,
    (problem, cut): (&Conv2d, DotConv),
    (lines, bias): (impl Fn(usize, usize) -> (*const f32, usize, usize), Option<&[f32]>),
    image: &[f32],
    output: &mut [f32],
    workspace: &mut [f32],
) {
    let sizes = problem.sizes();
    let (depth, pixels) = (problem.reduction(), sizes.p * sizes.q);
    let (transposed, panel) = workspace.split_at_mut(WORKSPACE / 2);
    let line = cut.kc + GAP;
    assert!(transposed.len() >= pixels * line && panel.len() >= K::NR * cut.kc);
    let rows = output.len() / pixels;
    for start in (0..depth).step_by(cut.kc) {
        let depths = start..depth.min(start + cut.kc);
        for first in (0..pixels).step_by(K::NR) {
            let some = first..pixels.min(first + K::NR);
            transpose(kernel, problem, image, (some, depths.clone()), panel, (transposed, line));
        }
        for row in (0..rows).step_by(ROWS) {
            let (a, a_line, step) = lines(row, start);
            // After the last rows come the next depths of the first ones.
            let next = if row + ROWS < rows { (row + ROWS, start) } else { (0, depths.end % depth) };
            let dots = Dots {
                a,
                line: a_line,
                step,
                lines: ROWS.min(rows - row),
                next: lines(next.0, next.1).0,
                b: transposed.as_ptr(),
                vector: line,
                vectors: pixels,
                depth: depths.len(),
                c: output[row * pixels..].as_mut_ptr(),
                c_line: pixels,
                c_vector: 1,
                alpha: 1.0,
                beta: if start == 0 { 0.0 } else { 1.0 },
            };
            // SAFETY: weights hold these rows' depths, `transposed` those of all pixels, as asserted, and the output
            // the rows' pixels, which the first block of depth has initialised.
            unsafe { kernel.dots(&dots) };
        }
    }
    if let Some(bias) = bias {
        for (bias, row) in bias.iter().zip(output.chunks_exact_mut(pixels)) {
            row.iter_mut().for_each(|value| *value += bias);
        }
    }
    if problem.relu() {
        // NaN stays NaN.
        output.iter_mut().filter(|value| **value < 0.0).for_each(|value| *value = 0.0);
    }
}

/// Transposes rows `depths` of some pixels' im2col matrix: one line for each pixel.
fn transpose<K: Kernel>(
    kernel: K,
    problem: &Conv2d,
    image: &[f32],
    (pixels, depths): (Range<usize>, Range<usize>),
    panel: &mut [f32],
    (transposed, line): (&mut [f32], usize),
) {
    im2col::pack(kernel, problem.sizes(), image, pixels.clone(), depths.clone(), panel);
    let to = &mut transposed[pixels.start * line..];
    assert!(to.len() >= pixels.len() * line && panel.len() >= depths.len() * K::NR && line >= depths.len());
    let block = TransposeBlock {
        from: panel.as_ptr(),
        line: K::NR,
        to: to.as_mut_ptr(),
        width: line,
        lines: depths.len(),
        depths: pixels.len(),
        more: false,
    };
    // SAFETY: the panel has a row for each depth, of NR columns, and there is a line for each pixel, as asserted.
    unsafe { kernel.transpose(&block) }
}

/// Computes a convolution once, with weights as given.
///
/// # Errors
/// Out of memory; the output is untouched then.
pub fn once<K: Kernel>(
    kernel: K,
    (problem, cut): (&Conv2d, DotConv),
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<Timing> {
    let given = (WeightLayout::Given(weights), bias.unwrap_or_default());
    pool::timed(problem.flops(), |team| execute(kernel, (problem, cut), team, given, input, output))
}

impl<K: Kernel> Plan for DotConvPlan<K> {
    fn kernel(&self) -> &str {
        K::DOTS
    }

    fn memory(&self) -> Memory {
        pool::plan_memory(self.weights.len() + self.bias.len(), self.problem.flops())
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let (work, weights) = ((&self.problem, self.cut), (self.weights(), &*self.bias));
        pool::timed(self.problem.flops(), |team| execute(self.kernel, work, team, weights, input, output))
    }
}
