//! Products with little depth. Writing C takes about as long as computing it, so C is written row by row.
//!
//! ```text
//! LOOP 2  columns that fit in the workspace     packs their panels of B; tasks are these times groups of rows
//! LOOP 1  rows by MR                            A in place
//! LOOP 0  columns by NR                         adjacent tiles: C streams
//! ```

use super::product::Product;
use crate::cpu::block::{Ahead, Panels, Shared, multiply};
use crate::cpu::kernels::{Epilogue, Kernel, Panel, Tile};
use crate::cpu::pack::panels;
use crate::cpu::pool::{Team, worker};
use crate::error::Result;
use crate::memory::blocking::{WORKSPACE, even};

/// Computes `product` on `team`.
pub fn run<K: Kernel>(
    kernel: K,
    team: &mut Team,
    product: &Product,
    c: &mut [f32],
    (alpha, beta): (f32, f32),
) -> Result<()> {
    let Product { rows, cols, depth, a, b, ld } = *product;
    // Half of the workspace, which leaves room in L2 for C.
    let width = even(cols, WORKSPACE / 2 / depth, K::NR);
    let height = even(rows, rows.div_ceil(if team.size() == 1 { 1 } else { 4 * team.size() }), K::MR);
    let (across, down) = (cols.div_ceil(width), rows.div_ceil(height));
    assert!(width * depth <= WORKSPACE && a.data.len() > (rows - 1) * a.line + (depth - 1) * a.depth);
    let (c, finish) = (Shared::new(c), team.finish());
    team.run(across * down, |task, workspace| {
        let cols = task % across * width..cols.min((task % across + 1) * width);
        let rows = task / across * height..rows.min((task / across + 1) * height);
        let packed = &mut workspace[..cols.len().next_multiple_of(K::NR) * depth];
        panels(kernel, b, K::NR, cols.clone(), 0..depth, packed);
        for i in rows.clone().step_by(K::MR) {
            let start = a.data[i * a.line..].as_ptr();
            let a = Panels { first: Panel { start, row: a.line, step: a.depth }, next: 0 };
            for (j, panel) in cols.clone().step_by(K::NR).zip(packed.chunks_exact(K::NR * depth)) {
                let start = c.start().wrapping_add(i * ld + j);
                let tile = Tile { start, ld, rows: K::MR.min(rows.end - i), cols: K::NR.min(cols.end - j) };
                let epilogue = Epilogue::scaled(alpha, beta);
                // SAFETY: A holds these rows, as asserted, and the panel these columns. gemm::run() checked that C
                // holds its rows and columns, and borrows it mutably. Each task has tiles of its own. There is no bias.
                unsafe {
                    multiply(kernel, depth, a, (panel.as_ptr(), K::NR), tile, &epilogue, &Ahead::NOTHING)
                };
            }
            let start = c.start().wrapping_add(i * ld + cols.start);
            // SAFETY: these rows and columns are done, and only this task uses them.
            unsafe { finish.tile(worker(), (start, ld), (K::MR.min(rows.end - i), cols.len())) };
        }
    })
}
