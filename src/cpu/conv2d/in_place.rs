//! Images in place, or planes of them: tasks, the strips of a task, and the tiles of a strip.
//!
//! LOOPS: tasks over images, groups, blocks of pixels and of output channels ([`ConvPlan::in_place`]); blocks of depth, and strips of
//! up to NR pixels ([`ConvPlan::strips`]); panels of MR output channels ([`ConvPlan::strip`]).

use std::ops::Range;

use super::{Block, ConvPlan, Job, MOST_TILE, STAGE_TASKS, STAGED, Shape, Source, Weights};
use crate::cpu::block::{Ahead, Shared};
use crate::cpu::buffer::Lent;
use crate::cpu::kernels::{A_AHEAD, Epilogue, Kernel, Part, Tile, Turn, View};
use crate::cpu::pack::clear_missing;
use crate::cpu::pool::Team;
use crate::cpu::views::{Geometry, Planes, Strip, Table};
use crate::error::Result;
use crate::memory::views::{Cut, STAGE, Views};

impl<K: Kernel> ConvPlan<K> {
    /// Reads images in place, or planes of them.
    pub(super) fn in_place(
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
            // The kernel reads panels to their end where columns are few.
            let clear_rest = |turn: &Turn| {
                if K::THIN > 0 && turn.lines < K::MR {
                    clear_missing(
                        std::slice::from_raw_parts_mut(turn.to, turn.depths * K::MR),
                        K::MR,
                        turn.lines,
                    );
                }
            };
            if all {
                for (i, given) in
                    job.given.iter().flat_map(|given| (0..map.rows).step_by(K::MR).map(move |i| (i, given)))
                {
                    let turn = turn(i, given);
                    kernel.transpose(&turn);
                    clear_rest(&turn);
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
                        clear_rest(&turn);
                    }
                    let wide = strip.cols - strip.beside;
                    let rest = Tile { start: tile.start.add(wide), cols: strip.beside, ..tile };
                    kernel.view(a, &View { beside: 0, ..view }, Tile { cols: wide, ..tile }, &epilogue);
                    kernel.thin(job.depth, a, (thin.as_ptr(), strip.beside), rest, &epilogue);
                } else if let Some(turn) = given {
                    kernel.view_packing(&turn, &view, tile, &epilogue);
                    clear_rest(&turn);
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
}
