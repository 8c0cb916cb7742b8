//! Convolutions of few pixels and deep sums, as sums of lines: see [`crate::memory::deep`] for what that means and when it is done.
//!
//! A call that uses weights once reads them as they come. A plan keeps the rows that a tile reads together side by side, so that
//! they are one stream of memory. For each block of depth a task turns the pixels around, KC depths of each side by side; then every few rows of weights
//! meet all pixels while they are in the first cache. Blocks of depth follow each other upwards, and the lanes of a sum are added in
//! pairs: the same bits at any number of threads.

use std::ops::Range;

use super::block::Shared;
use super::buffer::Buffer;
use super::caches::described;
use super::im2col;
use super::kernels::{DOT_LANES, Dots, Kernel, Turn};
use super::pool::{self, Team};
use super::views::columns;
use crate::backend::{Memory, Plan};
use crate::error::Result;
use crate::memory::blocking::WORKSPACE;
use crate::memory::deep::{Deep, GAP, ROWS, packing_weights};
use crate::memory::views::Views;
use crate::problem::{Conv2d, Conv2dSizes};
use crate::report::Timing;

/// Tasks of a thread, so that uneven ones balance.
const TASKS: usize = 2;

/// A convolution whose weights are read in lines.
pub struct DeepPlan<K> {
    kernel: K,
    problem: Conv2d,
    deep: Deep,
    /// For each group, for each ROWS of its rows: for every LANES depths, those of all rows.
    weights: Buffer,
    /// One value for each output channel. Empty if there is none.
    bias: Buffer,
}

/// How `problem` is cut, if this beats the matrix product, which has to pack weights that are used `once`.
pub fn choose<K: Kernel>(kernel: K, problem: &Conv2d, once: bool) -> Option<Deep> {
    let caches = &described().caches;
    let (cycles, deep) = Deep::plan(caches, K::LANES, problem).filter(|_| K::LINES)?;
    let kc = super::plan(kernel, problem, 1).kc;
    let packing = if once { packing_weights(K::LANES, problem) } else { 0.0 };
    (cycles < Views::cycles(caches, columns(kernel), problem, kc) + packing).then_some(deep)
}

impl<K: Kernel> DeepPlan<K> {
    /// Packs weights, keeps bias.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        kernel: K,
        problem: &Conv2d,
        deep: Deep,
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
        Ok(DeepPlan { kernel, problem: *problem, deep, weights: packed, bias: kept })
    }

    /// The packed weights.
    pub fn weights(&self) -> Lie<'_> {
        Lie::Packed(&self.weights)
    }
}

/// Weights as they lie.
#[derive(Clone, Copy)]
pub enum Lie<'a> {
    /// As the caller gave them.
    Given(&'a [f32]),
    /// As [`DeepPlan`] packs them.
    Packed(&'a [f32]),
}

impl Lie<'_> {
    /// Row `row` of group `group`, a multiple of ROWS, from depth `start` on, a multiple of LANES: where it begins, from row to row, and from
    /// LANES depths to the next.
    fn lines(
        self,
        (group, rows, depth): (usize, usize, usize),
        row: usize,
        start: usize,
    ) -> (*const f32, usize, usize) {
        match self {
            Lie::Given(weights) => {
                (weights[(group * rows + row) * depth + start..].as_ptr(), depth, DOT_LANES)
            }
            Lie::Packed(weights) => {
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
    (problem, deep): (&Conv2d, Deep),
    team: &mut Team,
    (weights, bias): (Lie, &[f32]),
    input: &[f32],
    output: &mut [f32],
) -> Result<()> {
    let Conv2dSizes { n, k, p, q, groups, .. } = *problem.sizes();
    let (products, rows, depth, pixels) = (n * groups, k / groups, problem.reduction(), p * q);
    let len = match weights {
        Lie::Given(weights) => weights.len() == k * depth,
        Lie::Packed(weights) => {
            weights.len() == groups * rows.div_ceil(ROWS) * ROWS * depth.next_multiple_of(DOT_LANES)
        }
    };
    assert!(len && output.len() == products * rows * pixels);
    let tasks = if team.size() == 1 { 1 } else { (TASKS * team.size()).div_ceil(products) };
    let each = rows.div_ceil(tasks).next_multiple_of(ROWS);
    let blocks = rows.div_ceil(each);
    let image_len = input.len() / products;
    let output = Shared::new(output);
    team.run(products * blocks, |task, workspace| {
        let (product, block) = (task / blocks, task % blocks);
        let some = block * each..rows.min((block + 1) * each);
        let first = product % groups * rows + some.start;
        let bias = bias.get(first..first + some.len());
        let lines = |row, start| weights.lines((product % groups, rows, depth), some.start + row, start);
        let image = &input[product * image_len..][..image_len];
        // SAFETY: these rows of this product are inside of the output, whose length was checked above, and which is borrowed
        // mutably; no other task has them.
        let to = unsafe {
            let start = output.start().add((product * rows + some.start) * pixels);
            std::slice::from_raw_parts_mut(start, some.len() * pixels)
        };
        rows_of(kernel, (problem, deep), (lines, bias), image, to, workspace);
    })
}

/// Computes some rows of an image's group: `output` is theirs; `lines` tells where weights lie from a row and a depth on.
fn rows_of<K: Kernel>(
    kernel: K,
    (problem, deep): (&Conv2d, Deep),
    (lines, bias): (impl Fn(usize, usize) -> (*const f32, usize, usize), Option<&[f32]>),
    image: &[f32],
    output: &mut [f32],
    workspace: &mut [f32],
) {
    let sizes = problem.sizes();
    let (depth, pixels) = (problem.reduction(), sizes.p * sizes.q);
    let (turned, panel) = workspace.split_at_mut(WORKSPACE / 2);
    let line = deep.kc + GAP;
    assert!(turned.len() >= pixels * line && panel.len() >= K::NR * deep.kc);
    let rows = output.len() / pixels;
    for start in (0..depth).step_by(deep.kc) {
        let depths = start..depth.min(start + deep.kc);
        for first in (0..pixels).step_by(K::NR) {
            let some = first..pixels.min(first + K::NR);
            turn(kernel, problem, image, (some, depths.clone()), panel, (turned, line));
        }
        for row in (0..rows).step_by(ROWS) {
            let (a, a_line, step) = lines(row, start);
            // Behind the last rows, the first ones' next depths.
            let next = if row + ROWS < rows { (row + ROWS, start) } else { (0, depths.end % depth) };
            let dots = Dots {
                a,
                line: a_line,
                step,
                lines: ROWS.min(rows - row),
                next: lines(next.0, next.1).0,
                b: turned.as_ptr(),
                vector: line,
                vectors: pixels,
                depth: depths.len(),
                c: output[row * pixels..].as_mut_ptr(),
                c_line: pixels,
                c_vector: 1,
                alpha: 1.0,
                beta: if start == 0 { 0.0 } else { 1.0 },
            };
            // SAFETY: weights hold these rows' depths, `turned` those of all pixels, as asserted, and the output the rows' pixels, which
            // the first block of depth has initialised.
            unsafe { kernel.dots(&dots) };
        }
    }
    if let Some(bias) = bias {
        for (bias, row) in bias.iter().zip(output.chunks_exact_mut(pixels)) {
            row.iter_mut().for_each(|value| *value += bias);
        }
    }
    if problem.relu() {
        // NaN stays.
        output.iter_mut().filter(|value| **value < 0.0).for_each(|value| *value = 0.0);
    }
}

/// Puts rows `depths` of some pixels' im2col matrix side by side, a line a pixel.
fn turn<K: Kernel>(
    kernel: K,
    problem: &Conv2d,
    image: &[f32],
    (pixels, depths): (Range<usize>, Range<usize>),
    panel: &mut [f32],
    (turned, line): (&mut [f32], usize),
) {
    im2col::pack(kernel, problem.sizes(), image, pixels.clone(), depths.clone(), panel);
    let to = &mut turned[pixels.start * line..];
    assert!(to.len() >= pixels.len() * line && panel.len() >= depths.len() * K::NR && line >= depths.len());
    let turn = Turn {
        from: panel.as_ptr(),
        line: K::NR,
        to: to.as_mut_ptr(),
        width: line,
        lines: depths.len(),
        depths: pixels.len(),
        more: false,
    };
    // SAFETY: the panel has a row for each depth, of NR columns, and there is a line for each pixel, as asserted.
    unsafe { kernel.transpose(&turn) }
}

/// Computes a convolution once, with weights as they are given.
///
/// # Errors
/// Out of memory; the output is untouched then.
pub fn once<K: Kernel>(
    kernel: K,
    (problem, deep): (&Conv2d, Deep),
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<Timing> {
    let given = (Lie::Given(weights), bias.unwrap_or_default());
    pool::timed(problem.flops(), |team| execute(kernel, (problem, deep), team, given, input, output))
}

impl<K: Kernel> Plan for DeepPlan<K> {
    fn kernel(&self) -> &str {
        K::DOTS
    }

    fn memory(&self) -> Memory {
        Memory {
            packed: (self.weights.len() + self.bias.len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(self.problem.flops()),
        }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let (work, weights) = ((&self.problem, self.deep), (self.weights(), &*self.bias));
        pool::timed(self.problem.flops(), |team| execute(self.kernel, work, team, weights, input, output))
    }
}
