//! The plan of a grouped convolution, and its loops: tasks over images, blocks of the output and groups.

use std::ops::Range;

use super::band::{self, OutputBlock};
use super::kernel::GroupedKernel;
use super::lines::{Channels, Rows, Target};
use super::shape::GroupedShape;
use crate::backend::{Memory, Plan};
use crate::cpu::block::Shared;
use crate::cpu::buffer::Buffer;
use crate::cpu::kernel::finish::Finish;
use crate::cpu::kernels::CopyBlock;
use crate::cpu::pool::{self, Team};
use crate::cpu::tunables::{GROUPED_TASK_FLOPS, GROUPED_TASKS};
use crate::error::Result;
use crate::memory::blocking::even;
use crate::problem::{Conv2d, Conv2dSizes};
use crate::report::Timing;

/// A grouped convolution with its weights reordered.
pub struct GroupedPlan<K> {
    kernel: K,
    problem: Conv2d,
    shape: GroupedShape,
    /// The tasks for one thread. Computing them takes a good part of the time of the smallest convolutions.
    alone: Grid,
    taps: Vec<usize>,
    /// As [`by_rows`] or [`by_channels`] orders them.
    weights: Buffer,
    /// One value for each output channel. Empty if there is no bias.
    bias: Buffer,
}

/// How a call is cut into tasks.
#[derive(Clone, Copy)]
struct Grid {
    row_blocks: usize,
    col_blocks: usize,
    /// Groups of a task.
    groups: usize,
    group_blocks: usize,
}

impl Grid {
    fn new(problem: &Conv2d, shape: &GroupedShape, threads: usize) -> Self {
        let Conv2dSizes { n, p, q, groups, .. } = *problem.sizes();
        let (row_blocks, col_blocks) = (p.div_ceil(shape.rows), q.div_ceil(shape.cols));
        let blocks = n * row_blocks * col_blocks;
        let sensible = (problem.flops() / GROUPED_TASK_FLOPS).clamp(1, 1 << 20) as usize;
        let wanted = (threads * GROUPED_TASKS).min(sensible).div_ceil(blocks).min(groups);
        let mut groups_of_task = groups.div_ceil(wanted);
        if shape.maps {
            groups_of_task = groups_of_task.next_multiple_of(shape.panel);
        }
        Grid { row_blocks, col_blocks, groups: groups_of_task, group_blocks: groups.div_ceil(groups_of_task) }
    }
}

impl<K: GroupedKernel> GroupedPlan<K> {
    /// Reorders the weights and copies the bias.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(
        kernel: K,
        shape: GroupedShape,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let sizes = problem.sizes();
        let mut ordered = Buffer::zeroed(shape.weights(problem))?;
        if shape.by_rows {
            by_rows(sizes, shape.panel, weights, &mut ordered);
        } else {
            // Groups of a single channel are ordered like the channels of one group.
            let outputs = if shape.maps { sizes.k } else { shape.outputs };
            by_channels(outputs, shape.panel, problem.reduction(), weights, &mut ordered);
        }
        let mut kept = Buffer::zeroed(bias.map_or(0, <[f32]>::len))?;
        kept.copy_from_slice(bias.unwrap_or_default());
        let taps = shape.taps(problem.sizes())?;
        let alone = Grid::new(problem, &shape, 1);
        Ok(GroupedPlan { kernel, problem: *problem, shape, alone, taps, weights: ordered, bias: kept })
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        let sizes = self.problem.sizes();
        let Conv2dSizes { n, k, p, q, groups, .. } = *sizes;
        assert_eq!((input.len(), output.len()), (self.problem.input_len(), self.problem.output_len()));
        let grid = match team.size() {
            1 => self.alone,
            threads => Grid::new(&self.problem, &self.shape, threads),
        };
        let Grid { row_blocks, col_blocks, group_blocks, .. } = grid;
        let (output, finish) = (Shared::new(output), team.finish());
        team.run(n * group_blocks * row_blocks * col_blocks, |task, workspace| {
            let (col, task) = (task % col_blocks, task / col_blocks);
            let (row, task) = (task % row_blocks, task / row_blocks);
            let (part, image) = (task % group_blocks, task / group_blocks);
            let GroupedShape { rows, cols, .. } = self.shape;
            let block = OutputBlock {
                rows: row * rows..p.min((row + 1) * rows),
                cols: col * cols..q.min((col + 1) * cols),
            };
            let groups = part * grid.groups..groups.min((part + 1) * grid.groups);
            let len = input.len() / n;
            // SAFETY: image `image` of the output is inside of it, and blocks of different tasks do not overlap.
            unsafe {
                let output = output.start().add(image * k * p * q);
                self.task(&input[image * len..][..len], output, &block, groups, (workspace, finish));
            }
        })
    }

    /// Computes a block of the output for some groups of an image.
    ///
    /// # Safety
    /// The output is that of the image, and no other thread accesses the block.
    unsafe fn task(
        &self,
        image: &[f32],
        output: *mut f32,
        block: &OutputBlock,
        groups: Range<usize>,
        (workspace, finish): (&mut [f32], Finish),
    ) {
        let (sizes, shape) = (self.problem.sizes(), &self.shape);
        assert!(workspace.len() >= shape.band() + K::LANES + shape.panel * shape.map);
        let (band, maps) = workspace.split_at_mut(shape.band() + K::LANES);
        band::clear(sizes, shape, block, band);
        for first in groups.clone().step_by(shape.batch) {
            let batch = first..groups.end.min(first + shape.batch);
            let channels = batch.start * shape.inputs..batch.end * shape.inputs;
            band::fill(self.kernel, sizes, shape, block, (image, channels), band);
            if shape.maps {
                for first in batch.clone().step_by(shape.panel) {
                    let band = band[(first - batch.start) * shape.channel..].as_ptr();
                    let groups = first..batch.end.min(first + shape.panel);
                    // SAFETY: as below.
                    unsafe { self.maps(groups, band, output, maps) };
                }
                // SAFETY: as below.
                unsafe { self.finish(finish, batch, output, block) };
                continue;
            }
            for (index, group) in batch.clone().enumerate() {
                let band = band[index * shape.inputs * shape.channel..].as_ptr();
                // SAFETY: the caller keeps the contract. The band holds all that the block's taps read, and a vector
                // more.
                unsafe {
                    if shape.by_rows {
                        self.rows(group, band, output, block);
                    } else {
                        self.channels(group, band, output, block, maps);
                    }
                }
            }
            // SAFETY: these groups' block is done, and only this thread uses it.
            unsafe { self.finish(finish, batch, output, block) };
        }
    }

    /// Applies the epilogue to a block of some groups of an image.
    ///
    /// # Safety
    /// The block is done, and no other thread uses it.
    unsafe fn finish(&self, finish: Finish, groups: Range<usize>, output: *mut f32, block: &OutputBlock) {
        let Some(mut gathering) = finish.begin(pool::worker()) else { return };
        let (Conv2dSizes { p, q, .. }, outputs) = (*self.problem.sizes(), self.shape.outputs);
        for k in groups.start * outputs..groups.end * outputs {
            let start = |row: usize| output.wrapping_add((k * p + row) * q + block.cols.start);
            // SAFETY: the rows of the block in each channel, as the caller promises.
            unsafe {
                if block.cols.len() == q {
                    gathering.add(start(block.rows.start), block.rows.len() * q);
                } else {
                    block.rows.clone().for_each(|row| gathering.add(start(row), block.cols.len()));
                }
            }
        }
    }

    fn bias(&self, k: usize) -> *const f32 {
        self.bias.get(k).map_or(std::ptr::null(), std::ptr::from_ref)
    }

    /// Computes a group's block by tiles of rows.
    ///
    /// # Safety
    /// As for [`GroupedPlan::task`]; the band holds the group's input channel.
    unsafe fn rows(&self, group: usize, band: *const f32, output: *mut f32, block: &OutputBlock) {
        let (sizes, shape) = (self.problem.sizes(), &self.shape);
        let Conv2dSizes { p, q, r, s, stride_h, dilation_h, .. } = *sizes;
        // Output rows this far apart see lines of the band that are a whole number of tap rows apart.
        let apart = if stride_h == 1 { dilation_h } else { 1 };
        let cols = block.cols.len();
        let vectors = even(cols.div_ceil(K::LANES), K::WIDEST[shape.panel - 1], 1);
        for k in group * shape.outputs..(group + 1) * shape.outputs {
            for row in 0..apart.min(block.rows.len()) {
                for col in (0..cols).step_by(vectors * K::LANES) {
                    let at = (k * p + block.rows.start + row) * q + block.cols.start + col;
                    // SAFETY: rows and columns are inside of the block, k is an output channel.
                    unsafe {
                        let source = Rows {
                            band: band.add(row * shape.pitch + col),
                            line: dilation_h * shape.pitch,
                            step: stride_h,
                            r,
                            count: (block.rows.len() - row).div_ceil(apart),
                            cols: &self.taps[..s],
                            weights: self.weights[k * stride_h * s * shape.panel..].as_ptr(),
                        };
                        let target = Target {
                            start: output.add(at),
                            line: apart * q,
                            cols: (vectors * K::LANES).min(cols - col),
                            bias: self.bias(k),
                            relu: self.problem.relu(),
                        };
                        self.kernel.rows(shape.panel, &source, &target);
                    }
                }
            }
        }
    }

    /// Computes a group's block by tiles of channels.
    ///
    /// # Safety
    /// As for [`GroupedPlan::task`]; the band holds the group's input channels.
    unsafe fn channels(
        &self,
        group: usize,
        band: *const f32,
        output: *mut f32,
        block: &OutputBlock,
        maps: &mut [f32],
    ) {
        let (sizes, shape) = (self.problem.sizes(), &self.shape);
        let Conv2dSizes { p, q, stride_h, .. } = *sizes;
        let first = group * shape.outputs;
        for panel in (0..shape.outputs).step_by(shape.panel) {
            let lines = shape.panel.min(shape.outputs - panel);
            let k = first + panel;
            let source = Channels {
                band,
                taps: &self.taps,
                weights: self.weights[k * self.problem.reduction()..].as_ptr(),
            };
            let target = Target {
                start: maps.as_mut_ptr(),
                line: shape.map,
                cols: shape.map,
                bias: self.bias(k),
                relu: self.problem.relu(),
            };
            // SAFETY: rows and columns are inside of the block; k and the lines after it are output channels. The
            // memory for flat maps is large enough, and their rows are inside of them.
            unsafe {
                if shape.flat {
                    self.line(lines, &source, &target, None);
                    self.cut_out(maps, lines, output.add(k * p * q));
                } else {
                    for row in 0..block.rows.len() {
                        let at = (k * p + block.rows.start + row) * q + block.cols.start;
                        let band = band.add(row * stride_h * shape.pitch);
                        let (start, line, cols) = (output.add(at), p * q, block.cols.len());
                        self.line(
                            lines,
                            &Channels { band, ..source },
                            &Target { start, line, cols, ..target },
                            None,
                        );
                    }
                }
            }
        }
    }

    /// Computes flat maps of some groups of a single channel.
    ///
    /// # Safety
    /// As for [`GroupedPlan::task`]; the band holds the groups' channels.
    unsafe fn maps(&self, groups: Range<usize>, band: *const f32, output: *mut f32, maps: &mut [f32]) {
        let GroupedShape { panel, map, channel, .. } = self.shape;
        let Conv2dSizes { p, q, r, s, .. } = *self.problem.sizes();
        // Tasks and batches are whole panels, except for the last groups, whose weights are ordered as a smaller panel.
        let weights = self.weights[groups.start * r * s..].as_ptr();
        let source = Channels { band, taps: &self.taps, weights };
        let (bias, relu) = (self.bias(groups.start), self.problem.relu());
        let target = Target { start: maps.as_mut_ptr(), line: map, cols: map, bias, relu };
        debug_assert!(groups.start.is_multiple_of(panel));
        // SAFETY: the memory for flat maps is large enough; the groups' outputs are inside of the image's output.
        unsafe {
            self.line(groups.len(), &source, &target, Some(channel));
            self.cut_out(maps, groups.len(), output.add(groups.start * p * q));
        }
    }

    /// Copies the rows of some flat maps to the output.
    ///
    /// # Safety
    /// As many maps are writable at `output`.
    unsafe fn cut_out(&self, maps: &[f32], count: usize, output: *mut f32) {
        let Conv2dSizes { p, q, .. } = *self.problem.sizes();
        assert!(maps.len() >= count * self.shape.map);
        let part = CopyBlock {
            from: maps.as_ptr(),
            from_row: self.shape.pitch,
            stride: 1,
            to: output,
            to_row: q,
            rows: p,
            len: q,
            groups: count,
            from_group: self.shape.map,
            to_group: p * q,
        };
        // SAFETY: a map has (p - 1) times the pitch plus q elements; the caller guarantees the output.
        unsafe { self.kernel.copy(&part) }
    }

    /// Computes a line of outputs of some channels; of some groups, if the distance of their bands is given.
    ///
    /// # Safety
    /// As for [`GroupedKernel::channels`], for any number of columns.
    unsafe fn line(&self, lines: usize, source: &Channels, target: &Target, next: Option<usize>) {
        let vectors = even(target.cols.div_ceil(K::LANES), K::WIDEST[lines - 1], 1);
        for col in (0..target.cols).step_by(vectors * K::LANES) {
            let cols = (vectors * K::LANES).min(target.cols - col);
            // SAFETY: the columns are inside of the line.
            unsafe {
                let source = Channels { band: source.band.add(col), ..*source };
                let target = Target { start: target.start.add(col), cols, ..*target };
                match next {
                    Some(next) => self.kernel.maps(lines, &source, next, &target),
                    None => self.kernel.channels(lines, &source, &target),
                }
            }
        }
    }
}

/// Orders the weights of each output channel as [`Rows`] needs them, with `lines` rows in progress.
fn by_rows(sizes: &Conv2dSizes, lines: usize, weights: &[f32], ordered: &mut [f32]) {
    let Conv2dSizes { r, s, stride_h, .. } = *sizes;
    for (given, ordered) in weights.chunks_exact(r * s).zip(ordered.chunks_exact_mut(stride_h * s * lines)) {
        for (row, given) in given.chunks_exact(s).enumerate() {
            let (tap, line) = (row % stride_h, row / stride_h);
            for (col, weight) in given.iter().enumerate() {
                ordered[(tap * s + col) * lines + line] = *weight;
            }
        }
    }
}

/// Orders weights by group, panel of output channels and tap, with one weight for each channel of the panel.
fn by_channels(outputs: usize, panel: usize, depth: usize, weights: &[f32], ordered: &mut [f32]) {
    let (group, panel) = (outputs * depth, panel * depth);
    for (given, ordered) in weights.chunks_exact(group).zip(ordered.chunks_exact_mut(group)) {
        for (given, ordered) in given.chunks(panel).zip(ordered.chunks_mut(panel)) {
            let lines = given.len() / depth;
            for (line, given) in given.chunks_exact(depth).enumerate() {
                for (weight, to) in given.iter().zip(ordered[line..].iter_mut().step_by(lines)) {
                    *to = *weight;
                }
            }
        }
    }
}

impl<K: GroupedKernel> Plan for GroupedPlan<K> {
    fn kernel(&self) -> &str {
        if self.shape.inputs == 1 { K::DEPTHWISE } else { K::GROUPED }
    }

    fn memory(&self) -> Memory {
        pool::plan_memory(self.weights.len() + self.bias.len(), self.problem.flops())
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        pool::timed(self.problem.flops(), |team| self.execute(team, input, output))
    }
}
