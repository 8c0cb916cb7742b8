//! Implicit GEMM on packed panels of the im2col matrix, for convolutions that do not read images in place.

use super::{ConvPlan, GemmShape};
use crate::cpu::block::{Panels, Shared, multiply};
use crate::cpu::im2col;
use crate::cpu::kernel::finish::Finish;
use crate::cpu::kernels::{Epilogue, Kernel, Tile};
use crate::cpu::plan::plan;
use crate::cpu::pool::{Team, worker};
use crate::error::Result;

impl<K: Kernel> ConvPlan<K> {
    /// Computes the convolution from packed panels.
    pub(super) fn packing(
        &self,
        weights: &[f32],
        team: &mut Team,
        input: &[f32],
        output: &mut [f32],
    ) -> Result<()> {
        let GemmShape { rows, pixels, groups, .. } = self.shape;
        let products = self.problem.sizes().n * groups;
        assert_eq!(output.len(), products * rows * pixels);
        let grid = match team.size() {
            1 => self.shape.alone,
            threads => plan(self.kernel, &self.problem, threads),
        };
        let (output, finish) = (Shared::new(output), team.finish());
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
            // SAFETY: the tile's elements are inside of the output, which is borrowed mutably, and tiles of different
            // tasks do not overlap.
            unsafe {
                let place = (image, cols.start);
                self.block((weights, product % groups, top), place, tile, workspace, finish);
            };
        })
    }

    /// Computes one tile: output channels of `group` from `top` on, pixels of `image` from `left` on.
    ///
    /// # Safety
    /// The tile's elements are writable and no other thread accesses them.
    unsafe fn block(
        &self,
        (weights, group, top): (&[f32], usize, usize),
        (image, left): (&[f32], usize),
        tile: Tile,
        workspace: &mut [f32],
        finish: Finish,
    ) {
        let GemmShape { padded, depth, step, .. } = self.shape;
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
                // SAFETY: the caller guarantees the tile, and from the second pass on it is initialised by the first.
                // Weights and bias reach to the tile's last row.
                unsafe {
                    let strip = Tile { start: tile.start.add(j), cols, ..tile };
                    multiply(self.kernel, count, a, (panel.as_ptr(), K::NR), strip, &epilogue, &ahead);
                    if last {
                        finish.tile(worker(), (strip.start, strip.ld), (strip.rows, strip.cols));
                    }
                }
            }
        }
    }
}
