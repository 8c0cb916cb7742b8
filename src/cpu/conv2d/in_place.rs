//! Implicit GEMM on images in place, or on staged planes of them.
//!
//! LOOPS: tasks over images, groups, blocks of pixels and of output channels ([`ConvPlan::in_place`]); blocks of depth,
//! and strips of up to NR pixels ([`ConvPlan::strips`]); panels of MR output channels ([`ConvPlan::strip`]).

use std::ops::Range;

use super::strip::Scratch;
use super::{ConvPlan, GemmShape, PackedBlock, PanelSource, Pass, STAGE_TASKS, STAGED, Weights};
use crate::cpu::block::{Ahead, Shared};
use crate::cpu::buffer::Borrowed;
use crate::cpu::feeding::l1_bytes;
use crate::cpu::implicit_im2col::{Geometry, Strip, TapTable};
use crate::cpu::kernel::finish::Finish;
use crate::cpu::kernels::{Epilogue, Kernel, MAX_TILE, Tile};
use crate::cpu::pool::{Team, worker};
use crate::error::Result;
use crate::memory::implicit_im2col::{ImplicitIm2col, PANEL_ROOM, STAGE, TaskGrid};

impl<K: Kernel> ConvPlan<K> {
    /// Computes the convolution from images in place, or from planes of them.
    pub(super) fn in_place(
        &self,
        geometry: &Geometry,
        weights: Weights,
        team: &mut Team,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let GemmShape { rows, padded, depth, pixels, groups, .. } = self.shape;
        let products = self.problem.sizes().n * groups;
        assert_eq!(output.len(), products * rows * pixels);
        let aligned = geometry.aligned(input);
        let geometry = aligned.as_ref().unwrap_or(geometry);
        let shape = (products, rows);
        let TaskGrid { width, group: high, blocks, groups: row_groups } = match weights {
            Weights::Given(_, None) => {
                TaskGrid::by_rows(&geometry.columns, geometry.panels(), (rows, depth), team.size())
            }
            _ => ImplicitIm2col::cut(&geometry.columns, geometry.panels(), shape, team.size()),
        };
        let panels = geometry.panels();
        let (output, finish) = (Shared::new(output), team.finish());
        let image_len = input.len() / products;
        let channels = self.problem.sizes().c / groups;
        let staged_len = self.shared_stage(team.size());
        let mut shared = Borrowed::take(&STAGED, staged_len)?;
        let planes = (staged_len > 0).then(|| geometry.staged(&shared));
        let stage = Shared::new(&mut shared);
        let piece = channels.div_ceil(STAGE_TASKS * team.size());
        let pieces = channels.div_ceil(piece);
        let copies = planes.map_or(0, |_| products * pieces);
        // Consecutive tasks run on one thread. They share output channels if the weights are larger than the image,
        // else pixels. So the thread's own caches may keep its part of the larger one from call to call.
        let by_rows = rows * depth >= image_len;
        team.run_steps([copies, products * blocks * row_groups], |step, task, workspace| {
            if let (0, Some(planes)) = (step, planes) {
                let (product, first) = (task / pieces, task % pieces * piece);
                let some = first..channels.min(first + piece);
                let image = &input[product * image_len..][..image_len];
                // SAFETY: the buffer has room for the planes of all channels of all products, as shared_stage() says.
                // No other task writes these channels, and none reads them before all are copied.
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
            let source = PanelSource { image, planes };
            let group = product % groups;
            // A single panel of few pixels is multiplied by all panels of A in one call of the kernel.
            let again =
                panels.len() > 1 || (!geometry.gaps() && geometry.strip(panels.start).cols <= K::THIN);
            let (a, workspace) = match weights {
                Weights::Packed(packed) => {
                    let packed = packed[group * padded * depth..][..padded * depth].as_ptr().cast_mut();
                    (PackedBlock { packed, rows: padded, top, given: None, again: true }, workspace)
                }
                Weights::Given(weights, kept) => {
                    let given = &weights[(group * rows + top) * depth..][..(bottom - top) * depth];
                    match kept {
                        Some(kept) => {
                            // SAFETY: the memory has room for all groups' panels.
                            let packed = unsafe { kept.start().add(group * padded * depth) };
                            // A single thread runs tasks in order, so each group's first image comes first.
                            let given = (product < groups && block == 0).then_some(given);
                            let again = again || products > groups || blocks > 1;
                            (PackedBlock { packed, rows: padded, top, given, again }, workspace)
                        }
                        None => {
                            let high = (bottom - top).next_multiple_of(K::MR);
                            let (own, thin) = workspace.split_at_mut(STAGE);
                            assert!(high * depth <= own.len());
                            let packed = own.as_mut_ptr();
                            (PackedBlock { packed, rows: high, top: 0, given: Some(given), again }, thin)
                        }
                    }
                }
            };
            let bias = self.bias.get(group * padded + top..).filter(|bias| !bias.is_empty());
            // SAFETY: the rows of these panels are inside of the output, which is borrowed mutably, and those of
            // different tasks do not overlap. Panels of A are packed; or weights are given, and they are packed into
            // memory that only this thread uses: its workspace, or shared memory if it is the only thread.
            unsafe { self.strips(geometry, (a, bias), (source, panels), tile, (workspace, finish)) };
        })
    }

    /// Computes some panels for the output channels of a block of A with the bias `bias`. `map` is these channels'
    /// whole output. The workspace begins with room for staged planes, if there are any.
    ///
    /// # Safety
    /// The panels' elements of the map are writable and no other thread accesses them. Panels of A are packed, or
    /// weights are given and only this thread accesses the panels.
    unsafe fn strips(
        &self,
        geometry: &Geometry,
        (a, bias): (PackedBlock, Option<&[f32]>),
        (PanelSource { image, planes: shared }, all): (PanelSource, Range<usize>),
        map: Tile,
        (workspace, finish): (&mut [f32], Finish),
    ) {
        let GemmShape { depth, step, .. } = self.shape;
        let staging = geometry.implicit.staged && shared.is_none();
        let (stage, rest) = workspace.split_at_mut(if staging { STAGE } else { 0 });
        let (thin, panel) = rest.split_at_mut(rest.len() - PANEL_ROOM);
        let mut scratch =
            Scratch { table: TapTable::new(), thin, panel, flat: [0.0; MAX_TILE], l1: l1_bytes() };
        let at_once = if staging { geometry.implicit.panels } else { usize::MAX };
        for p in (0..depth).step_by(step) {
            let count = step.min(depth - p);
            let channels = p / geometry.taps()..(p + count) / geometry.taps();
            let last = p + count == depth;
            let (first, panel) = if a.again { (p * a.rows + a.top * count, K::MR * count) } else { (0, 0) };
            let pass = Pass {
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
                // The memory to stage next is prefetched in small parts, while panels are computed.
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
                    // The panels of A are packed while the first panel of B is computed.
                    let given = a.given.filter(|_| index == all.start).map(|given| &given[p..]);
                    let pass = Pass { given, ..pass };
                    // SAFETY: the caller guarantees the map's elements, and from the second pass on they
                    // are initialised by the first. Weights, packed or given, and bias reach to the map's last row.
                    unsafe {
                        self.strip((geometry, &planes), [strip, next], &ahead, &pass, map, &mut scratch);
                        if last && finish.is_some() {
                            finish_strip(finish, geometry, &strip, map);
                        }
                    };
                }
            }
        }
    }
}

/// Applies the epilogue to a strip of all rows of the map.
///
/// # Safety
/// The strip is done, and no other thread uses it.
#[cold]
unsafe fn finish_strip(finish: Finish, geometry: &Geometry, strip: &Strip, map: Tile) {
    let Some(mut block) = finish.begin(worker()) else { return };
    for row in 0..map.rows {
        let start = map.start.wrapping_add(row * map.ld);
        // SAFETY: the pixels of the strip in each row, as the caller promises.
        unsafe {
            if geometry.gaps() {
                for (pixel, columns) in geometry.pixels(strip) {
                    block.add(start.wrapping_add(pixel), columns.len());
                }
            } else {
                block.add(start.wrapping_add(geometry.position(strip)), strip.cols);
            }
        }
    }
}
