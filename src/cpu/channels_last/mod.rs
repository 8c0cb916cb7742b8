//! Convolutions whose input or output holds the channels of a pixel side by side (NHWC), and mixtures of both orders.
//!
//! ```text
//!                  B: weights, packed once: panels of NR output channels, depths in the order (r, s, c)
//!                 +------------------------+
//!                 |  NR output channels    |    a run of depths is contiguous in the image: S*C elements of a row,
//!                 +------------------------+    or the C of a tap
//!  A: MR pixels   +------------------------+
//!  in place, one  |  C: pixels x channels  |    stored straight into an NHWC output
//!  a row          +------------------------+
//! ```
//!
//! A tile is up to MR neighbouring pixels of a row of the map. If all that its taps see is inside of an NHWC image, it
//! is read in place. Otherwise its pixels' depths are gathered, with zeros for the padding, a block of depth at a
//! time ([`gather`]). An NCHW output is written through a part of the workspace and transposed, a band of pixels at a
//! time. Groups of one channel with one output go channel by channel ([`depthwise`]). Nothing whole is ever transposed.
//!
//! Blocks of depth follow each other in ascending order and depend on the caches alone, so the bits do not depend on
//! the number of threads. `direct` calls this folder. It touches its callers' buffers and the threads' workspaces.

mod depthwise;
mod gather;
#[cfg(test)]
mod tests;
mod weights;

use std::ops::Range;

use super::block::Shared;
use super::buffer::Buffer;
use super::caches::described;
use super::kernels::{Kernel, Run, RunTile, Tile, TransposeBlock, ensure_kernel};
use super::pool::{self, Team};
use crate::allocate;
use crate::backend::{Memory, Plan};
use crate::cpu::tunables::{CHANNELS_LAST_TASKS, MAX_BAND_TILES};
use crate::error::Result;
use crate::memory::blocking::{L1_BYTES, WORKSPACE, even, known};
use crate::problem::{Conv2d, Conv2dSizes, TensorLayout, TensorStrides};
use crate::report::Timing;

pub use depthwise::DepthwisePlan;
pub use weights::ordered;

/// The assumed size of the L2 cache if the system does not report it, in bytes.
const L2_BYTES: usize = 256 << 10;

/// A convolution with its weights packed.
pub struct ChannelsLastPlan<K> {
    kernel: K,
    problem: Conv2d,
    cut: Cut,
    /// For each group, for each block of depth, panels of NR output channels.
    weights: Buffer,
    /// For each group its bias, rounded up to whole panels. Empty without a bias.
    bias: Buffer,
}

/// How a problem is cut.
struct Cut {
    strides: (TensorStrides, TensorStrides),
    /// Input and output channels of a group.
    channels: usize,
    rows: usize,
    /// Panels of a group.
    panels: usize,
    /// Depth of the whole sum.
    depth: usize,
    /// Blocks of depth, and the runs of each where a tile is read in place.
    blocks: Vec<Range<usize>>,
    runs: Vec<Vec<Run>>,
    /// Rows of pixels and pixels of a row. All pixels are one row if each sees only its own position.
    map: (usize, usize),
    /// Pixels of a tile, and tiles of a row.
    tile: usize,
    across: usize,
    /// Tiles of a band, at most.
    band: usize,
    /// Panels of a task, at most.
    wide: usize,
}

/// Some neighbouring pixels of a row of the map.
#[derive(Clone, Copy)]
struct Pixels {
    /// The first, counted in the map.
    first: usize,
    p: usize,
    q: usize,
    count: usize,
}

/// Where a tile reads its rows of A.
#[derive(Clone, Copy)]
struct Source {
    pixels: Pixels,
    start: *const f32,
    row: usize,
    in_place: bool,
}

impl Cut {
    fn new<K: Kernel>(_: K, problem: &Conv2d) -> Result<Self> {
        const { ensure_kernel::<K>() };
        let sizes = problem.sizes();
        let Conv2dSizes { c, k, p, q, r, s, groups, .. } = *sizes;
        let (channels, rows, depth) = (c / groups, k / groups, problem.reduction());
        let caches = &described().caches;
        let (l1, l2) = (known(caches.l1, L1_BYTES), known(caches.l2, L2_BYTES));
        let step = even(depth, l1 / (K::NR + 2 * K::MR), 1);
        let input = sizes.input_strides();
        let mut blocks = allocate::with_capacity(depth.div_ceil(step), "blocks of depth")?;
        let mut runs = allocate::with_capacity(depth.div_ceil(step), "blocks of depth")?;
        // Of an NCHW image nothing is read in place.
        let in_place = sizes.input_layout == TensorLayout::Nhwc;
        let whole_rows = sizes.dilation_w == 1 && groups == 1;
        let (len, count) = if whole_rows { (s * channels, r) } else { (channels, r * s) };
        for start in (0..depth).step_by(step) {
            let block = start..depth.min(start + step);
            let of_block = if in_place { block.start / len..block.end.div_ceil(len) } else { 0..0 };
            let mut some = allocate::with_capacity(of_block.len(), "runs of depth")?;
            for index in of_block.filter(|&index| index < count) {
                let (tap_row, tap_col) = if whole_rows { (index, 0) } else { (index / s, index % s) };
                let (first, end) = ((index * len).max(block.start), ((index + 1) * len).min(block.end));
                let at = tap_row * sizes.dilation_h * input.row + tap_col * sizes.dilation_w * input.column;
                some.push(Run { offset: at + first - index * len, len: end - first });
            }
            blocks.push(block);
            runs.push(some);
        }
        let own = (r, s, sizes.stride_h, sizes.stride_w) == (1, 1, 1, 1) && !sizes.is_padded();
        let map = if own && in_place { (1, p * q) } else { (p, q) };
        let tile = even(map.1, K::MR, 1).min(K::MR);
        let panels = rows.div_ceil(K::NR);
        let output = sizes.output_strides();
        // A band's rows of A should stay in L2, and fit in the workspace if all are gathered. An NCHW output needs room
        // for the band's outputs, too.
        let wide = match sizes.output_layout {
            TensorLayout::Nhwc => panels,
            TensorLayout::Nchw => panels.min((WORKSPACE / 4 / tile / K::NR).max(1)),
        };
        let each = match sizes.output_layout {
            TensorLayout::Nhwc => step,
            TensorLayout::Nchw => step.max(wide * K::NR),
        };
        let pixels = (l2 / 2 / step).min(WORKSPACE / 2 / each);
        let band = (pixels / tile).clamp(1, MAX_BAND_TILES);
        let across = map.1.div_ceil(tile);
        Ok(Cut {
            strides: (input, output),
            channels,
            rows,
            panels,
            depth,
            blocks,
            runs,
            map,
            tile,
            across,
            band,
            wide,
        })
    }

    /// Tiles of an image.
    fn tiles(&self) -> usize {
        self.map.0 * self.across
    }

    /// The pixels of a tile.
    fn pixels(&self, index: usize) -> Pixels {
        let (p, q) = (index / self.across, index % self.across * self.tile);
        Pixels { first: p * self.map.1 + q, p, q, count: self.tile.min(self.map.1 - q) }
    }

    /// Elements of the packed weights of a group.
    fn packed<K: Kernel>(&self, _: K) -> usize {
        self.panels.saturating_mul(K::NR).saturating_mul(self.depth)
    }
}

impl<K: Kernel> ChannelsLastPlan<K> {
    /// Packs the weights, which are in the problem's order, and the bias.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(kernel: K, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let cut = Cut::new(kernel, problem)?;
        let groups = problem.sizes().groups;
        // Saturating: a size that overflows is refused as out of memory.
        let len = cut.packed(kernel).saturating_mul(groups);
        let padded = cut.panels * K::NR;
        let biases = bias.map_or(0, |_| groups.saturating_mul(padded));
        let (packed, kept) = (Buffer::zeroed(len)?, Buffer::zeroed(biases)?);
        let mut plan = ChannelsLastPlan { kernel, problem: *problem, cut, weights: packed, bias: kept };
        plan.pack(weights, bias);
        Ok(plan)
    }

    fn pack(&mut self, weights: &[f32], bias: Option<&[f32]>) {
        let (cut, sizes) = (&self.cut, self.problem.sizes());
        let group_len = cut.packed(self.kernel);
        for (group, packed) in self.weights.chunks_exact_mut(group_len).enumerate() {
            for block in &cut.blocks {
                let at = block.start * cut.panels * K::NR;
                for panel in 0..cut.panels {
                    let first = group * cut.rows + panel * K::NR;
                    let some = first..(group * cut.rows + cut.rows).min(first + K::NR);
                    let len = block.len() * K::NR;
                    let to = &mut packed[at + panel * len..][..len];
                    weights::pack(self.kernel, sizes, weights, some, block.clone(), to);
                }
            }
        }
        let padded = cut.panels * K::NR;
        let biases = bias.unwrap_or_default().chunks_exact(cut.rows);
        for (to, from) in self.bias.chunks_exact_mut(padded).zip(biases) {
            to[..cut.rows].copy_from_slice(from);
        }
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        let (cut, sizes) = (&self.cut, self.problem.sizes());
        let products = sizes.n * sizes.groups;
        assert!(input.len() == self.problem.input_len() && output.len() == self.problem.output_len());
        let tiles = cut.tiles();
        let wanted =
            if team.size() == 1 { 1 } else { (CHANNELS_LAST_TASKS * team.size()).div_ceil(products) };
        let band = cut.band.min(tiles.div_ceil(wanted));
        let bands = tiles.div_ceil(band);
        let wide = cut.wide.min(cut.panels.div_ceil(wanted.div_ceil(bands)));
        let parts = cut.panels.div_ceil(wide);
        let output = Shared::new(output);
        team.run(products * bands * parts, |task, workspace| {
            let (product, task) = (task / (bands * parts), task % (bands * parts));
            let (band, first) =
                (task / parts * band..tiles.min((task / parts + 1) * band), task % parts * wide);
            let panels = first..cut.panels.min(first + wide);
            let (image, group) = (product / sizes.groups, product % sizes.groups);
            // SAFETY: the output has been checked to hold all images, and no other task writes these pixels of these
            // channels.
            unsafe { self.band(input, (image, group), band, panels, output.start(), workspace) };
        })
    }

    /// Computes some tiles of an image in some panels of a group.
    ///
    /// # Safety
    /// These outputs are writable, and no other thread accesses them.
    unsafe fn band(
        &self,
        input: &[f32],
        (image, group): (usize, usize),
        band: Range<usize>,
        panels: Range<usize>,
        output: *mut f32,
        workspace: &mut [f32],
    ) {
        let (cut, sizes) = (&self.cut, self.problem.sizes());
        let (of_input, of_output) = cut.strides;
        let (gathered, staged) = workspace.split_at_mut(WORKSPACE / 2);
        let first = group * cut.rows + panels.start * K::NR;
        let end = group * cut.rows + cut.rows.min(panels.end * K::NR);
        let columns = end - first;
        let transposes = sizes.output_layout == TensorLayout::Nchw;
        let start = cut.pixels(band.start).first;
        let last = cut.pixels(band.end - 1);
        let count = last.first + last.count - start;
        // SAFETY: the first channel of an image is inside of the output.
        let of_image = unsafe { output.add(image * of_output.image + first * of_output.channel) };
        let (to, ld) = if transposes {
            assert!(staged.len() >= count * columns);
            (staged.as_mut_ptr(), columns)
        } else {
            // SAFETY: as above.
            (unsafe { of_image.add(start * of_output.column) }, of_output.column)
        };
        let mut sources = [Source::NOWHERE; MAX_BAND_TILES];
        let sources = &mut sources[..band.len()];
        for (source, index) in sources.iter_mut().zip(band) {
            *source = self.locate(input, (image, group), cut.pixels(index));
        }
        let packed = &self.weights[group * cut.packed(self.kernel)..][..cut.packed(self.kernel)];
        for (number, block) in cut.blocks.iter().enumerate() {
            let mut room = &mut *gathered;
            for source in sources.iter_mut().filter(|source| !source.in_place) {
                let (own, rest) = room.split_at_mut(source.pixels.count * block.len());
                let channels = group * cut.channels..(group + 1) * cut.channels;
                let of_image = (input, image, &of_input);
                gather::pixels(self.kernel, sizes, of_image, channels, &source.pixels, block.clone(), own);
                (source.start, source.row) = (own.as_ptr(), block.len());
                room = rest;
            }
            let together = [Run { offset: 0, len: block.len() }];
            let final_block = number + 1 == cut.blocks.len();
            let bias =
                self.bias.get(group * cut.panels * K::NR..).filter(|bias| final_block && !bias.is_empty());
            for panel in panels.clone() {
                let column = (panel - panels.start) * K::NR;
                let b = &packed[block.start * cut.panels * K::NR + panel * block.len() * K::NR..];
                assert!(b.len() >= block.len() * K::NR);
                for source in &*sources {
                    let Pixels { first, count, .. } = source.pixels;
                    let runs = if source.in_place { &cut.runs[number][..] } else { &together };
                    let tile = RunTile {
                        a: source.start,
                        row: source.row,
                        runs,
                        b: b.as_ptr(),
                        c: Tile {
                            start: to.wrapping_add((first - start) * ld + column),
                            ld,
                            rows: count,
                            cols: K::NR.min(columns - column),
                        },
                        add: number > 0,
                        bias: bias.map_or(std::ptr::null(), |bias| bias[panel * K::NR..].as_ptr()),
                        relu: final_block && self.problem.relu(),
                    };
                    // SAFETY: a tile that is in place sees only the image, as locate() has found, others have been
                    // gathered. The panel holds the block's depths. The caller guarantees the output; the staged one has
                    // room for all pixels, as asserted. The first block initialises what others add to. The bias has
                    // whole panels.
                    unsafe { self.kernel.runs(&tile) };
                }
            }
        }
        if transposes {
            let block = TransposeBlock {
                from: to.cast_const(),
                line: columns,
                to: of_image.wrapping_add(start),
                width: of_output.channel,
                lines: count,
                depths: columns,
                more: false,
            };
            // SAFETY: all blocks of depth have been added up in `count` lines of `columns` elements. The caller
            // guarantees these pixels of these channels.
            unsafe { self.kernel.transpose(&block) };
        }
    }

    /// Where a tile reads its pixels, if that is the image itself.
    fn locate(&self, input: &[f32], (image, group): (usize, usize), pixels: Pixels) -> Source {
        let (cut, sizes) = (&self.cut, self.problem.sizes());
        let of_input = &cut.strides.0;
        let nowhere = Source { pixels, ..Source::NOWHERE };
        if sizes.input_layout == TensorLayout::Nchw {
            return nowhere;
        }
        let at = image * of_input.image + group * cut.channels;
        if cut.map.0 != sizes.p {
            let start = input[at + pixels.first * of_input.column..].as_ptr();
            return Source { start, row: of_input.column, in_place: true, ..nowhere };
        }
        let inside = |first: usize, steps: usize, stride: usize, taps: usize, pad: usize, side: usize| {
            let from = first * stride;
            (from >= pad && from + steps * stride + taps - pad < side).then(|| from - pad)
        };
        let (down, across) = ((sizes.r - 1) * sizes.dilation_h, (sizes.s - 1) * sizes.dilation_w);
        let y = inside(pixels.p, 0, sizes.stride_h, down, sizes.pad_h, sizes.h);
        let x = inside(pixels.q, pixels.count - 1, sizes.stride_w, across, sizes.pad_w, sizes.w);
        let (Some(y), Some(x)) = (y, x) else { return nowhere };
        let start = input[at + y * of_input.row + x * of_input.column..].as_ptr();
        Source { start, row: sizes.stride_w * of_input.column, in_place: true, ..nowhere }
    }
}

impl Source {
    const NOWHERE: Source = Source {
        pixels: Pixels { first: 0, p: 0, q: 0, count: 0 },
        start: std::ptr::null(),
        row: 0,
        in_place: false,
    };
}

impl<K: Kernel> Plan for ChannelsLastPlan<K> {
    fn kernel(&self) -> &str {
        K::CHANNELS_LAST
    }

    fn memory(&self) -> Memory {
        pool::plan_memory(self.weights.len() + self.bias.len(), self.problem.flops())
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        pool::timed(self.problem.flops(), |team| self.execute(team, input, output))
    }
}
