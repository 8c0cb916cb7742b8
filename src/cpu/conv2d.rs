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

use std::cell::Cell;
use std::ops::Range;
use std::time::Instant;

use super::block::{Ahead, Panels, Shared, multiply};
use super::buffer::{self, Buffer, Lent};
use super::caches::described;
use super::im2col;
use super::kernels::{A_AHEAD, Epilogue, Kernel, Part, Tile, Turn, View};
use super::pack::{Lines, panels};
use super::plan;
use super::pool::{self, Team, num_threads};
use super::views::{Geometry, Planes, Strip, Table, columns};
use crate::backend::{Memory, Plan};
use crate::error::Result;
use crate::memory::blocking::{Blocking, INLINE_FLOPS};
use crate::memory::views::{Cut, STAGE, Views};
use crate::problem::{Conv2d, Conv2dSizes};
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

/// Where the weights are.
#[derive(Clone, Copy)]
enum Weights<'a> {
    /// In panels, as [`ConvPlan::weights`] says.
    Packed(&'a [f32]),
    /// As the caller gave them: a task packs what it needs while its first panel of B meets it. Into its workspace; or,
    /// if a single thread works, into memory for all of them, which serves the images that follow.
    Given(&'a [f32], Option<Shared>),
}

/// Panels of A that a task reads: from row `top` of `rows`, a multiple of MR, for each KC of the reduction.
#[derive(Clone, Copy)]
struct Block<'a> {
    packed: *mut f32,
    rows: usize,
    top: usize,
    /// These rows' weights, if they are not packed yet.
    given: Option<&'a [f32]>,
    /// Whether panels are read again once they are packed: else all of them may lie in one place.
    again: bool,
}

/// What panels of B are read from.
#[derive(Clone, Copy)]
struct Source<'a> {
    image: &'a [f32],
    /// Copies of all the image's planes, if there are such.
    planes: Option<Planes>,
}

/// What all panels of a pass have in common.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// Panels of A, and how far apart they are.
    a: *mut f32,
    panel: usize,
    depth: usize,
    channels: usize,
    epilogue: Epilogue,
    /// What they are to be packed from, from this pass' first depth on; none if they are packed.
    given: Option<&'a [f32]>,
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
        Self::with_views(kernel, problem, (weights, bias), views(kernel, problem))
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
        let mut convolution = Self::unpacked(kernel, problem, bias, views)?;
        // Saturating: a size that overflows is refused as out of memory.
        let Shape { padded, depth, groups, .. } = convolution.shape;
        let mut packed = Buffer::zeroed(groups.saturating_mul(padded).saturating_mul(depth))?;
        for (group, packed) in packed.chunks_exact_mut(padded * depth).enumerate() {
            // SAFETY: a group's panels are `padded` rows `depth` deep.
            unsafe { convolution.pack(weights, group, 0..padded / K::MR, (packed.as_mut_ptr(), 0, padded)) };
        }
        convolution.weights = packed;
        Ok(convolution)
    }

    /// A convolution that has no weights yet.
    ///
    /// # Errors
    /// Out of memory.
    fn unpacked(kernel: K, problem: &Conv2d, bias: Option<&[f32]>, views: Option<Views>) -> Result<Self> {
        let alone = plan(kernel, problem, 1);
        let geometry = views.map(|views| Geometry::new(views, columns(kernel), problem));
        let step = geometry.as_ref().map_or(alone.kc, |geometry| geometry.views.channels * geometry.taps());
        let shape = Shape::new(problem, step, K::MR, alone);
        let Shape { rows, padded, groups, .. } = shape;
        let mut packed_bias = Buffer::zeroed(bias.map_or(0, |_| groups * padded))?;
        for (bias, packed) in bias.unwrap_or(&[]).chunks_exact(rows).zip(packed_bias.chunks_exact_mut(padded))
        {
            packed[..rows].copy_from_slice(bias);
        }
        let weights = Buffer::zeroed(0)?;
        Ok(ConvPlan { kernel, problem: *problem, shape, weights, bias: packed_bias, geometry })
    }

    /// Packs panels `tiles` of a group's weights into a block of `rows` rows whose first panel is `first`.
    ///
    /// # Safety
    /// The block's elements of these panels are writable, and nobody else touches them meanwhile.
    unsafe fn pack(
        &self,
        weights: &[f32],
        group: usize,
        tiles: Range<usize>,
        (block, first, rows): (*mut f32, usize, usize),
    ) {
        let Shape { rows: all, depth, step, .. } = self.shape;
        let matrix = Lines { data: &weights[group * all * depth..][..all * depth], line: depth, depth: 1 };
        let lines = tiles.start * K::MR..all.min(tiles.end * K::MR);
        for p in (0..depth).step_by(step) {
            let depths = p..depth.min(p + step);
            let panel = K::MR * depths.len();
            // SAFETY: the caller vouches for these panels of this pass.
            let packed = unsafe {
                let start = block.add(p * rows + (tiles.start - first) * panel);
                std::slice::from_raw_parts_mut(start, tiles.len() * panel)
            };
            panels(self.kernel, matrix, K::MR, lines.clone(), depths, packed);
        }
    }

    /// Packs all weights on `team`.
    ///
    /// # Errors
    /// Only if a task panicked.
    fn pack_all(&self, team: &mut Team, weights: &[f32], packed: &mut [f32]) -> Result<()> {
        let Shape { padded, depth, groups, .. } = self.shape;
        assert!(packed.len() >= groups * padded * depth);
        let tiles = padded / K::MR;
        let each = tiles.div_ceil(4 * team.size());
        let parts = tiles.div_ceil(each);
        let packed = Shared::new(packed);
        team.run(groups * parts, |task, _| {
            let (group, part) = (task / parts, task % parts);
            let tiles = part * each..tiles.min((part + 1) * each);
            // SAFETY: the group's panels are inside of `packed`, whose length was checked above and which is borrowed
            // mutably; no other task has these.
            unsafe {
                let block = packed.start().add(group * padded * depth);
                self.pack(weights, group, tiles, (block, 0, padded));
            }
        })
    }

    /// Computes the convolution on `team`. The lengths have been checked.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute(&self, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        self.compute(Weights::Packed(&self.weights), team, input, output)
    }

    /// Whether a task had better pack the weights it needs, used once, where its cache still has them when they are
    /// read: if a task reads the whole image, which then stays in the cache as well.
    fn packs_as_needed(&self, threads: usize) -> bool {
        let Shape { padded, depth, .. } = self.shape;
        self.geometry.as_ref().is_some_and(|geometry| {
            geometry.views.whole(&described().caches, self.image_len())
                && depth * K::MR <= STAGE
                && padded / K::MR >= 2 * threads
        })
    }

    /// Elements of an image's channels that belong to one group.
    fn image_len(&self) -> usize {
        self.problem.input_len() / (self.problem.sizes().n * self.shape.groups)
    }

    /// A convolution for [`ConvPlan::execute_given`].
    ///
    /// # Errors
    /// Out of memory.
    pub fn once(kernel: K, problem: &Conv2d, bias: Option<&[f32]>) -> Result<Self> {
        Self::unpacked(kernel, problem, bias, views(kernel, problem))
    }

    /// Elements that packed weights take, if that many threads compute with weights as given.
    pub fn room(&self, threads: usize) -> usize {
        let Shape { padded, depth, groups, .. } = self.shape;
        if self.packs_as_needed(threads) { 0 } else { groups.saturating_mul(padded).saturating_mul(depth) }
    }

    /// [`ConvPlan::execute`] with weights as given; `packed` has [`ConvPlan::room`] for them.
    ///
    /// # Errors
    /// Only if a task panicked.
    pub fn execute_given(
        &self,
        weights: &[f32],
        packed: &mut [f32],
        team: &mut Team,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let weights = if self.packs_as_needed(team.size()) {
            Weights::Given(weights, None)
        } else if self.geometry.is_some() && team.size() == 1 {
            let Shape { padded, depth, groups, .. } = self.shape;
            assert!(packed.len() >= groups * padded * depth && weights.len() == self.problem.weights_len());
            Weights::Given(weights, Some(Shared::new(packed)))
        } else {
            self.pack_all(team, weights, packed)?;
            Weights::Packed(packed)
        };
        self.compute(weights, team, input, output)
    }

    /// The same with weights from elsewhere.
    fn compute(&self, weights: Weights, team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
        match (&self.geometry, weights) {
            (Some(geometry), _) => self.in_place(geometry, weights, team, input, output),
            (None, Weights::Packed(weights)) => self.packing(weights, team, input, output),
            (None, Weights::Given(..)) => unreachable!("only with images in place"),
        }
    }

    /// Elements that planes of all images take if the threads copy them together, before they compute; 0 if each task
    /// copies what it reads. That is less work where a task reads a good part of an image, but most of it is copied
    /// again and again where many threads share few images.
    pub fn shared_stage(&self, threads: usize) -> usize {
        let products = self.problem.sizes().n * self.shape.groups;
        let staged = self.geometry.as_ref().filter(|geometry| geometry.views.staged);
        let Some(geometry) = staged.filter(|_| threads > 1 && products < threads) else { return 0 };
        let len = products * self.problem.sizes().c / self.shape.groups * geometry.staged(&[]).channel;
        if len <= threads * MOST_STAGED { len } else { 0 }
    }

    /// Reads images in place, or planes of them.
    fn in_place(
        &self,
        geometry: &Geometry,
        weights: Weights,
        team: &mut Team,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let Shape { rows, padded, depth, pixels, groups, .. } = self.shape;
        let products = self.problem.sizes().n * groups;
        assert_eq!(output.len(), products * rows * pixels);
        let aligned = geometry.aligned(input);
        let geometry = aligned.as_ref().unwrap_or(geometry);
        let shape = (products, rows);
        let Cut { width, group: high, blocks, groups: row_groups } = match weights {
            Weights::Given(_, None) => {
                Cut::by_rows(&geometry.columns, geometry.panels(), (rows, depth), team.size())
            }
            _ => Views::cut(&geometry.columns, geometry.panels(), shape, team.size()),
        };
        let panels = geometry.panels();
        let output = Shared::new(output);
        let image_len = input.len() / products;
        let channels = self.problem.sizes().c / groups;
        let staged_len = self.shared_stage(team.size());
        let mut shared = Lent::take(&STAGED, staged_len)?;
        let planes = (staged_len > 0).then(|| geometry.staged(&shared));
        let stage = Shared::new(&mut shared);
        let piece = channels.div_ceil(STAGE_TASKS * team.size());
        let pieces = channels.div_ceil(piece);
        let copies = planes.map_or(0, |_| products * pieces);
        // A thread's tasks follow each other. What they share, output channels or pixels, had better be of the larger of
        // weights and image: then the thread's own caches may hold its part from call to call.
        let by_rows = rows * depth >= image_len;
        team.run_steps([copies, products * blocks * row_groups], |step, task, workspace| {
            if let (0, Some(planes)) = (step, planes) {
                let (product, first) = (task / pieces, task % pieces * piece);
                let some = first..channels.min(first + piece);
                let image = &input[product * image_len..][..image_len];
                // SAFETY: the buffer has room for the planes of all channels of all products, as shared_stage() says; no other
                // task has these channels, and nobody reads them before all are copied.
                let to = unsafe {
                    let start = stage.start().add((product * channels + first) * planes.channel);
                    std::slice::from_raw_parts_mut(start, some.len() * planes.channel)
                };
                geometry.stage(self.kernel, image, some, 0..panels, to);
                return;
            }
            let (product, task) = (task / (blocks * row_groups), task % (blocks * row_groups));
            let (part, block) =
                if by_rows { (task / blocks, task % blocks) } else { (task % row_groups, task / row_groups) };
            let planes = planes.map(|planes| planes.from(product * channels));
            let (top, bottom) = (part * high * K::MR, rows.min((part + 1) * high * K::MR));
            // SAFETY: row `top` of this product is inside of the output, whose length was checked above.
            let start = unsafe { output.start().add((product * rows + top) * pixels) };
            let tile = Tile { start, ld: pixels, rows: bottom - top, cols: pixels };
            let image = &input[product * image_len..][..image_len];
            let panels = block * width..panels.min((block + 1) * width);
            let source = Source { image, planes };
            let group = product % groups;
            // A single panel of few pixels meets all panels of A at once.
            let again =
                panels.len() > 1 || (!geometry.gaps() && geometry.strip(panels.start).cols <= K::THIN);
            let (a, workspace) = match weights {
                Weights::Packed(packed) => {
                    let packed = packed[group * padded * depth..][..padded * depth].as_ptr().cast_mut();
                    (Block { packed, rows: padded, top, given: None, again: true }, workspace)
                }
                Weights::Given(weights, kept) => {
                    let given = &weights[(group * rows + top) * depth..][..(bottom - top) * depth];
                    match kept {
                        Some(kept) => {
                            // SAFETY: there is room for all groups' panels.
                            let packed = unsafe { kept.start().add(group * padded * depth) };
                            // A single thread takes tasks in their order, and each group's first image first.
                            let given = (product < groups && block == 0).then_some(given);
                            let again = again || products > groups || blocks > 1;
                            (Block { packed, rows: padded, top, given, again }, workspace)
                        }
                        None => {
                            let high = (bottom - top).next_multiple_of(K::MR);
                            let (own, thin) = workspace.split_at_mut(STAGE);
                            assert!(high * depth <= own.len());
                            let packed = own.as_mut_ptr();
                            (Block { packed, rows: high, top: 0, given: Some(given), again }, thin)
                        }
                    }
                }
            };
            let bias = self.bias.get(group * padded + top..).filter(|bias| !bias.is_empty());
            // SAFETY: the rows of these panels are inside of the output, which is borrowed mutably, and the
            // tasks' do not overlap. Panels of A are packed; or they are given, and what they are packed into is this
            // thread's own, in its workspace or because it is the only one.
            unsafe { self.strips(geometry, (a, bias), (source, panels), tile, workspace) };
        })
    }

    /// Computes some panels for the output channels of a block of A, whose bias is `bias`: `map` is these channels'
    /// whole map. The workspace begins with room for planes, if they are copied.
    ///
    /// # Safety
    /// The panels' elements of the map are writable and nobody else touches them meanwhile. Panels of A are packed, or are
    /// given and writable by nobody else.
    unsafe fn strips(
        &self,
        geometry: &Geometry,
        (a, bias): (Block, Option<&[f32]>),
        (Source { image, planes: shared }, all): (Source, Range<usize>),
        map: Tile,
        workspace: &mut [f32],
    ) {
        let Shape { depth, step, .. } = self.shape;
        let staging = geometry.views.staged && shared.is_none();
        let (stage, thin) = workspace.split_at_mut(if staging { STAGE } else { 0 });
        let at_once = if staging { geometry.views.panels } else { usize::MAX };
        let mut table = Table::new();
        for p in (0..depth).step_by(step) {
            let count = step.min(depth - p);
            let channels = p / geometry.taps()..(p + count) / geometry.taps();
            let last = p + count == depth;
            let (first, panel) = if a.again { (p * a.rows + a.top * count, K::MR * count) } else { (0, 0) };
            let job = Job {
                a: a.packed.wrapping_add(first),
                panel,
                depth: count,
                channels: channels.len(),
                epilogue: Epilogue {
                    alpha: 1.0,
                    beta: if p == 0 { 0.0 } else { 1.0 },
                    bias: bias.filter(|_| last).map_or(std::ptr::null(), <[f32]>::as_ptr),
                    relu: last && self.problem.relu(),
                },
                given: None,
            };
            let mut from = all.start;
            while from < all.end {
                let panels = from..all.end.min(from.saturating_add(at_once));
                from = panels.end;
                let planes = match shared {
                    Some(planes) => planes.from(channels.start),
                    None if staging => {
                        geometry.stage(self.kernel, image, channels.clone(), panels.clone(), stage)
                    }
                    None => geometry.in_place(image, channels.start),
                };
                // What is staged next is fetched little by little, while panels are computed.
                let next_stage = from..all.end.min(from.saturating_add(at_once));
                let stage_ahead = if staging && !next_stage.is_empty() {
                    geometry.ahead_of_stage(image, channels.clone(), next_stage)
                } else {
                    Ahead::NOTHING
                };
                let mut next = geometry.strip(panels.start);
                for index in panels.clone() {
                    let strip = next;
                    next = geometry.strip((index + 1).min(all.end - 1));
                    let ahead = stage_ahead.part(index - panels.start, panels.len());
                    // The first panel of B has those of A packed.
                    let given = a.given.filter(|_| index == all.start).map(|given| &given[p..]);
                    let job = Job { given, ..job };
                    // SAFETY: the caller vouches for the map's elements, and from the second pass on they
                    // are initialised by the first. Weights, packed or given, and bias reach to the map's last row.
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
    /// The contract of [`Kernel::view`], or [`Kernel::view_packing`] if weights are given, for all rows of A and the
    /// strip's part of the map.
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
        let gaps = geometry.gaps();
        let all = !gaps && strip.cols <= K::THIN;
        let packed = if all { strip.cols } else { strip.beside };
        // SAFETY: the strip lies inside of the map. The planes hold all that its taps see; lanes that would
        // see more are left out.
        unsafe {
            if packed > 0 {
                geometry.pack(planes, &strip, (job.channels, packed), thin);
            }
            let pixel = if gaps { 0 } else { geometry.pixel(&strip) };
            let map = Tile { start: map.start.add(pixel), cols: strip.cols, ..map };
            // What a tile with gaps leaves before its pixels are copied to their places.
            let mut flat = [0.0f32; MOST_TILE];
            const { assert!(K::MR * K::NR <= MOST_TILE) };
            let turn = |i: usize, given: &[f32]| Turn {
                from: given[i * self.shape.depth..].as_ptr(),
                line: self.shape.depth,
                to: job.a.add(i / K::MR * job.panel),
                width: K::MR,
                lines: K::MR.min(map.rows - i),
                depths: job.depth,
                more: false,
            };
            if all {
                for (i, given) in
                    job.given.iter().flat_map(|given| (0..map.rows).step_by(K::MR).map(move |i| (i, given)))
                {
                    kernel.transpose(&turn(i, given));
                }
                return kernel.thin(job.depth, job.a, (thin.as_ptr(), packed), map, &job.epilogue);
            }
            let whole = geometry.fill(planes, &strip, table);
            let start = geometry.start(planes, &strip);
            let each = ahead.rows.div_ceil(map.rows.div_ceil(K::MR));
            let alone = !gaps && job.given.is_none() && strip.beside == 0 && strip.cols <= K::LANES;
            for (index, i) in (0..map.rows).step_by(K::MR).enumerate() {
                ahead.prefetch(index, each);
                geometry.look_ahead([&strip, &next], index, table);
                let a = job.a.add(index * job.panel).cast_const();
                let view = View {
                    // What is packed on the way has been fetched as well.
                    a_ahead: if job.given.is_some() { 0 } else { A_AHEAD },
                    start,
                    channels: job.channels,
                    pitch: planes.channel,
                    taps: &table.taps[..geometry.taps()],
                    whole,
                    beside: strip.beside,
                    thin: thin.as_ptr(),
                };
                let below = map.start.add(i * map.ld);
                let mut tile = Tile { start: below, rows: K::MR.min(map.rows - i), ..map };
                let epilogue = job.epilogue.below(i);
                if gaps {
                    (tile.start, tile.ld) = (flat.as_mut_ptr(), K::NR);
                    if epilogue.beta != 0.0 {
                        self.pixels((geometry, &strip), (tile.start, tile.rows), (below, map.ld), true);
                    }
                }
                let given = job.given.map(|given| turn(i, given));
                // A single vector has a load for each multiply-add: two panels of A share those of B.
                if alone && tile.rows == K::MR && (index % 2 == 1 || map.rows - i >= 2 * K::MR) {
                    if index % 2 == 0 {
                        let both = Tile { rows: 2 * K::MR, ..tile };
                        kernel.view_two([a, a.add(job.panel)], &view, both, &epilogue);
                    }
                    continue;
                }
                // Only whole panels of A take columns along.
                if tile.rows < K::MR && strip.beside > 0 {
                    if let Some(turn) = given {
                        kernel.transpose(&turn);
                    }
                    let wide = strip.cols - strip.beside;
                    let rest = Tile { start: tile.start.add(wide), cols: strip.beside, ..tile };
                    kernel.view(a, &View { beside: 0, ..view }, Tile { cols: wide, ..tile }, &epilogue);
                    kernel.thin(job.depth, a, (thin.as_ptr(), strip.beside), rest, &epilogue);
                } else if let Some(turn) = given {
                    kernel.view_packing(&turn, &view, tile, &epilogue);
                } else {
                    kernel.view(a, &view, tile, &epilogue);
                }
                if gaps {
                    self.pixels((geometry, &strip), (flat.as_mut_ptr(), tile.rows), (below, map.ld), false);
                }
            }
        }
    }

    /// Copies the pixels of a strip with gaps from a flat tile of some rows to C, or from there.
    ///
    /// # Safety
    /// The tile has rows of NR elements; C, which begins at the map's first pixel, is as [`Kernel::tile`] says.
    unsafe fn pixels(
        &self,
        (geometry, strip): (&Geometry, &Strip),
        (flat, rows): (*mut f32, usize),
        (map, ld): (*mut f32, usize),
        from_map: bool,
    ) {
        for (pixel, columns) in geometry.pixels(strip) {
            // SAFETY: a pixel of the map, and a column of the tile; they are apart.
            unsafe {
                let ((from, from_row), (to, to_row)) =
                    ((flat.add(columns.start), K::NR), (map.add(pixel), ld));
                let ((from, from_row), (to, to_row)) = if from_map {
                    ((to, to_row), (from, from_row))
                } else {
                    ((from, from_row), (to, to_row))
                };
                self.kernel.copy(&Part {
                    from,
                    from_row,
                    stride: 1,
                    to,
                    to_row,
                    rows,
                    len: columns.len(),
                    groups: 1,
                    from_group: 0,
                    to_group: 0,
                });
            }
        }
    }

    /// Packs every panel.
    fn packing(&self, weights: &[f32], team: &mut Team, input: &[f32], output: &mut [f32]) -> Result<()> {
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
            unsafe { self.block((weights, product % groups, top), (image, cols.start), tile, workspace) };
        })
    }

    /// Computes one tile: output channels of `group` from `top` on, pixels of `image` from `left` on.
    ///
    /// # Safety
    /// The tile's elements are writable and nobody else touches them meanwhile.
    unsafe fn block(
        &self,
        (weights, group, top): (&[f32], usize, usize),
        (image, left): (&[f32], usize),
        tile: Tile,
        workspace: &mut [f32],
    ) {
        let Shape { padded, depth, step, .. } = self.shape;
        let weights = &weights[group * padded * depth..][..padded * depth];
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

/// Computes a convolution once, with weights as they are given.
///
/// # Errors
/// Out of memory; the output is untouched then.
pub fn once<K: Kernel>(
    kernel: K,
    problem: &Conv2d,
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<Timing> {
    let start = Instant::now();
    let convolution = ConvPlan::once(kernel, problem, bias)?;
    let mut team = Team::for_work(problem.flops())?;
    let len = convolution.room(team.size());
    let mut packed = Lent::take(&PACKED, len)?;
    let computing = Instant::now();
    convolution.execute_given(weights, &mut packed, &mut team, input, output)?;
    let end = Instant::now();
    drop(packed);
    if len > MOST_KEPT {
        buffer::clear(&PACKED);
    }
    Ok(Timing { kernel: end - computing, wall: end - start, dispatches: 1 })
}

/// How images are best read.
fn views<K: Kernel>(kernel: K, problem: &Conv2d) -> Option<Views> {
    let kc = plan(kernel, problem, 1).kc;
    Views::plan(&described().caches, columns(kernel), problem, kc)
}

thread_local! {
    /// Packed weights of calls that use them once, kept by a thread that makes such calls: fresh memory would cost
    /// more than packing.
    static PACKED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

thread_local! {
    /// Planes that threads copied together.
    static STAGED: Cell<Option<Buffer>> = const { Cell::new(None) };
}

/// Elements of the largest register tile.
const MOST_TILE: usize = 512;

/// Elements of them at most, for each thread: 2 MiB.
const MOST_STAGED: usize = 1 << 19;

/// Tasks of copying them, for each thread.
const STAGE_TASKS: usize = 3;

/// Elements that are kept at most: 16 MiB.
const MOST_KEPT: usize = 4 << 20;

/// Frees what the calling thread keeps.
pub fn clear() {
    buffer::clear(&PACKED);
    buffer::clear(&STAGED);
}

impl<K: Kernel> Plan for ConvPlan<K> {
    fn kernel(&self) -> &str {
        K::CONV
    }

    fn memory(&self) -> Memory {
        let flops = self.problem.flops();
        let threads = if flops < INLINE_FLOPS { 1 } else { num_threads() };
        Memory {
            packed: (self.weights.len() + self.bias.len()) * size_of::<f32>(),
            workspace: pool::workspace_bytes(flops) + self.shared_stage(threads) * size_of::<f32>(),
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
