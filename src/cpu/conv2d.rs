//! Convolution as implicit GEMM: weights, K x (C/G)*R*S, times the im2col matrix, (C/G)*R*S x P*Q, for each
//! image and group.
//!
//! The im2col matrix never exists as a whole. Mostly it does not exist at all: the kernel reads its rows where they
//! lie in the image, or in copies of the image's planes if there is a stride ([`super::views`]). Where that would
//! waste more than it saves, a task packs one panel of the matrix straight from the image ([`super::im2col`]), KC
//! deep and NR pixels wide; while that panel is hot in the cache it meets all the task's weights, and then makes place for the
//! next. The planner decides ([`crate::memory::views`]).
//!
//! The weights were packed when the plan was made. Bias and ReLU ride on the last pass over the depth. Padding is
//! zeros, multiplied like any other value.

use std::ops::Range;
use std::time::Instant;

use super::block::{Ahead, Panels, Shared, multiply};
use super::buffer::Buffer;
use super::caches::described;
use super::im2col;
use super::kernels::{Epilogue, Kernel, Tile, View};
use super::pack::{Lines, panels};
use super::plan;
use super::pool::{self, Team};
use super::views::{Geometry, Planes, Strip, Table, columns};
use crate::backend::{Memory, Plan};
use crate::error::Result;
use crate::memory::blocking::{Blocking, INLINE_FLOPS};
use crate::memory::views::{Cut, STAGE, Views};
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
    /// How the images are read in place; none if panels are packed.
    geometry: Option<Geometry>,
}

/// What all panels of a pass have in common.
struct Job<'a> {
    /// Panels of A.
    a: &'a [f32],
    depth: usize,
    channels: usize,
    epilogue: Epilogue,
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
    /// How one thread cuts it; for more the cut depends on how many there are.
    alone: Blocking,
}

impl Shape {
    fn new(problem: &Conv2d, step: usize, mr: usize, alone: Blocking) -> Self {
        let Conv2dSizes { k, p, q, groups, .. } = *problem.sizes();
        let (rows, depth) = (k / groups, problem.reduction());
        Shape { rows, padded: rows.next_multiple_of(mr), pixels: p * q, depth, step, groups, alone }
    }
}

impl<K: Kernel> ConvPlan<K> {
    /// Packs weights and bias.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(kernel: K, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Self> {
        let kc = plan(kernel, problem, 1).kc;
        let views = Views::plan(&described().caches, columns(kernel), problem, kc);
        Self::with_views(kernel, problem, (weights, bias), views)
    }

    /// Packs weights and bias for images that are read as `views` says, or packed if that is none.
    ///
    /// # Errors
    /// Out of memory.
    pub fn with_views(
        kernel: K,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        views: Option<Views>,
    ) -> Result<Self> {
        let alone = plan(kernel, problem, 1);
        let geometry = views.map(|views| Geometry::new(views, columns(kernel), problem));
        let step = geometry.as_ref().map_or(alone.kc, |geometry| geometry.views.channels * geometry.taps());
        let shape = Shape::new(problem, step, K::MR, alone);
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
        Ok(ConvPlan { kernel, problem: *problem, shape, weights: packed, bias: packed_bias, geometry })
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        match &self.geometry {
            Some(geometry) => self.in_place(geometry, team, input, output),
            None => self.packing(team, input, output),
        }
    }

    /// Reads images in place.
    fn in_place(
        &self,
        geometry: &Geometry,
        team: &mut Team,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let Shape { rows, pixels, groups, .. } = self.shape;
        let products = self.problem.sizes().n * groups;
        assert_eq!(output.len(), products * rows * pixels);
        let Cut { width, group: high, blocks, groups: row_groups } =
            geometry.views.cut(&geometry.columns, (products, rows), team.size());
        let panels = geometry.views.all_panels(&geometry.columns);
        let output = Shared::new(output);
        let image_len = input.len() / products;
        team.run(products * blocks * row_groups, |task, workspace| {
            let (product, task) = (task / (blocks * row_groups), task % (blocks * row_groups));
            let (part, block) = (task % row_groups, task / row_groups);
            let (top, bottom) = (part * high * K::MR, rows.min((part + 1) * high * K::MR));
            // SAFETY: row `top` of this product is inside of the output, whose length was checked above.
            let start = unsafe { output.start().add((product * rows + top) * pixels) };
            let tile = Tile { start, ld: pixels, rows: bottom - top, cols: pixels };
            let image = &input[product * image_len..][..image_len];
            let panels = block * width..panels.min((block + 1) * width);
            // SAFETY: the rows of these panels are inside of the output, which is borrowed mutably, and the
            // tasks' do not overlap.
            unsafe { self.strips(geometry, product % groups, top, (image, panels), tile, workspace) };
        })
    }

    /// Computes some panels for output channels of `group` from `top` on: `map` is these channels' whole map.
    ///
    /// # Safety
    /// The panels' elements of the map are writable and nobody else touches them meanwhile.
    unsafe fn strips(
        &self,
        geometry: &Geometry,
        group: usize,
        top: usize,
        (image, all): (&[f32], Range<usize>),
        map: Tile,
        workspace: &mut [f32],
    ) {
        let Shape { padded, depth, step, .. } = self.shape;
        let weights = &self.weights[group * padded * depth..][..padded * depth];
        let bias = self.bias.get(group * padded + top..).filter(|bias| !bias.is_empty());
        let (stage, thin) = workspace.split_at_mut(STAGE);
        let mut table = Table::new();
        for p in (0..depth).step_by(step) {
            let count = step.min(depth - p);
            let channels = p / geometry.taps()..(p + count) / geometry.taps();
            let last = p + count == depth;
            let job = Job {
                a: &weights[p * padded + top * count..],
                depth: count,
                channels: channels.len(),
                epilogue: Epilogue {
                    alpha: 1.0,
                    beta: if p == 0 { 0.0 } else { 1.0 },
                    bias: bias.filter(|_| last).map_or(std::ptr::null(), <[f32]>::as_ptr),
                    relu: last && self.problem.relu(),
                },
            };
            let mut from = all.start;
            while from < all.end {
                let panels = from..all.end.min(from.saturating_add(geometry.views.panels));
                from = panels.end;
                let planes = if geometry.views.staged {
                    geometry.stage(self.kernel, image, channels.clone(), panels.clone(), stage)
                } else {
                    geometry.in_place(image, channels.start)
                };
                // What is staged next is fetched little by little, while panels are computed.
                let next_stage = from..all.end.min(from.saturating_add(geometry.views.panels));
                let stage_ahead = if geometry.views.staged && !next_stage.is_empty() {
                    geometry.ahead_of_stage(image, channels.clone(), next_stage)
                } else {
                    Ahead::NOTHING
                };
                let mut next = geometry.strip(panels.start);
                for index in panels.clone() {
                    let strip = next;
                    next = geometry.strip((index + 1).min(all.end - 1));
                    let ahead = stage_ahead.part(index - panels.start, panels.len());
                    // SAFETY: the caller vouches for the map's elements, and from the second pass on they
                    // are initialised by the first. Weights and bias reach to the map's last row.
                    unsafe {
                        self.strip((geometry, &planes), [strip, next], &ahead, &job, map, (&mut table, thin))
                    };
                }
            }
        }
    }

    /// Computes one panel.
    ///
    /// # Safety
    /// The contract of [`Kernel::view`] for all rows of A and the strip's part of the map.
    unsafe fn strip(
        &self,
        (geometry, planes): (&Geometry, &Planes),
        [strip, next]: [Strip; 2],
        ahead: &Ahead,
        job: &Job,
        map: Tile,
        (table, thin): (&mut Table, &mut [f32]),
    ) {
        let kernel = self.kernel;
        let all = strip.cols <= K::THIN;
        let packed = if all { strip.cols } else { strip.beside };
        // SAFETY: the strip lies inside of the map. The planes hold all that its taps see; lanes that would
        // see more are left out.
        unsafe {
            if packed > 0 {
                geometry.pack(planes, &strip, (job.channels, packed), thin);
            }
            let map = Tile { start: map.start.add(geometry.pixel(&strip)), cols: strip.cols, ..map };
            if all {
                return kernel.thin(job.depth, job.a.as_ptr(), (thin.as_ptr(), packed), map, &job.epilogue);
            }
            let whole = geometry.fill(planes, &strip, table);
            let start = geometry.start(planes, &strip);
            let each = ahead.rows.div_ceil(map.rows.div_ceil(K::MR));
            for (index, i) in (0..map.rows).step_by(K::MR).enumerate() {
                ahead.prefetch(index, each);
                geometry.look_ahead([&strip, &next], index, table);
                let view = View {
                    start,
                    channels: job.channels,
                    pitch: planes.channel,
                    taps: &table.taps[..geometry.taps()],
                    whole,
                    beside: strip.beside,
                    thin: thin.as_ptr(),
                };
                let tile = Tile { start: map.start.add(i * map.ld), rows: K::MR.min(map.rows - i), ..map };
                let a = job.a[i * job.depth..].as_ptr();
                let epilogue = job.epilogue.below(i);
                if tile.rows == K::MR || strip.beside == 0 {
                    kernel.view(a, &view, tile, &epilogue);
                    continue;
                }
                // Only whole panels of A take columns along.
                let wide = strip.cols - strip.beside;
                let rest = Tile { start: tile.start.add(wide), cols: strip.beside, ..tile };
                kernel.view(a, &View { beside: 0, ..view }, Tile { cols: wide, ..tile }, &epilogue);
                kernel.thin(job.depth, a, (thin.as_ptr(), strip.beside), rest, &epilogue);
            }
        }
    }

    /// Packs every panel.
    fn packing(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        let Shape { rows, pixels, groups, .. } = self.shape;
        let products = self.problem.sizes().n * groups;
        assert_eq!(output.len(), products * rows * pixels);
        let grid = match team.size() {
            1 => self.shape.alone,
            threads => plan(self.kernel, &self.problem, threads),
        };
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

    fn memory(&self) -> Memory {
        Memory {
            packed: (self.weights.len() + self.bias.len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(self.problem.flops()),
        }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let start = Instant::now();
        let mut team = Team::for_work(self.problem.flops())?;
        if self.problem.flops() < INLINE_FLOPS {
            // There was no pool to get, so all of the time is computing; and it is so short that to look at the clock
            // four times would be a good part of it.
            self.execute(&mut team, input, output)?;
            let wall = start.elapsed();
            return Ok(Timing { kernel: wall, wall, dispatches: 1 });
        }
        let computing = Instant::now();
        self.execute(&mut team, input, output)?;
        let kernel = computing.elapsed();
        drop(team);
        Ok(Timing { kernel, wall: start.elapsed(), dispatches: 1 })
    }
}
