//! Stencils: layer conditions, and the block of rows for which the planes stay in a cache.
//!
//! A step of the outermost loop computes one plane. It reads `2 rz + 1` planes of the array with neighbours. If all of them
//! fit in a cache, together with what the plane reads and writes of other arrays, the next step finds all but one there,
//! so the cache misses one element per point. If only the rows of a step of the middle loop fit, each plane is missed
//! again: `2 rz + 1` elements. If not even they fit, each row is: a star has `2 rz + 2 ry + 1`, a box `(2 rz + 1)(2 ry + 1)`.
//!
//! The block of rows is as large as the fastest prediction allows. Its first and last rows are read by two blocks, so
//! small blocks cost more. Rows are cut only if a single row of each plane does not fit: short rows stop the prefetchers
//! of the hardware.

use super::{Cost, LoopPlan, Machine, SAFE, Stencil, StencilShape, size};
use crate::memory::Hierarchy;
use crate::memory::blocking::even;
use crate::memory::tile::{ELEMENTS_OF_A, IN_FLIGHT};

/// Tasks for each thread, so that they end at about the same time.
const TASKS: usize = 2;
/// The least elements of a row that is cut.
const MIN_ROW: usize = 512;

/// Which data of a step stay in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Planes,
    Rows,
    Nothing,
}

impl Stencil {
    /// Points that are computed: all but those at the edges.
    fn inner(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.extents[axis] - 2 * self.radius[axis])
    }

    /// Neighbours, the point included.
    fn neighbours(&self) -> f64 {
        let [z, y, x] = self.radius.map(|radius| radius as f64);
        match self.shape {
            StencilShape::Star => 2.0 * (z + y + x) + 1.0,
            StencilShape::Box => (2.0 * z + 1.0) * (2.0 * y + 1.0) * (2.0 * x + 1.0),
        }
    }

    fn planes(&self) -> f64 {
        (2 * self.radius[0] + 1) as f64
    }

    /// Rows of the array with neighbours that a step of the middle loop reads.
    fn rows(&self) -> f64 {
        let [z, y, _] = self.radius.map(|radius| radius as f64);
        match self.shape {
            StencilShape::Star => 2.0 * z + 2.0 * y + 1.0,
            StencilShape::Box => (2.0 * z + 1.0) * (2.0 * y + 1.0),
        }
    }

    /// Arrays of which only the point itself is read or written.
    fn others(&self) -> f64 {
        (self.reads + self.writes) as f64
    }

    /// Bytes of the planes that a step touches of a block of rows and columns.
    fn planes_bytes(&self, [rows, cols]: [usize; 2]) -> f64 {
        let (one, wide) = ((rows * cols) as f64, self.with_halo([rows, cols]));
        let neighbours = match self.shape {
            StencilShape::Star => (self.planes() - 1.0) * one + wide,
            StencilShape::Box => self.planes() * wide,
        };
        (neighbours + self.others() * one) * self.element as f64
    }

    fn rows_bytes(&self, cols: usize) -> f64 {
        (self.rows() + self.others()) * cols as f64 * self.element as f64
    }

    /// Points of a block, and the neighbours around it in the plane.
    fn with_halo(&self, [rows, cols]: [usize; 2]) -> f64 {
        ((rows + 2 * self.radius[1]) * (cols + 2 * self.radius[2])) as f64
    }

    fn layer(&self, cache: usize, block: [usize; 2]) -> Layer {
        let fits = |bytes: f64| bytes <= SAFE * cache as f64;
        match () {
            () if fits(self.planes_bytes(block)) => Layer::Planes,
            () if fits(self.rows_bytes(block[1])) => Layer::Rows,
            () => Layer::Nothing,
        }
    }

    /// Bytes per point that a cache misses.
    fn missed(&self, cache: usize, block: [usize; 2]) -> f64 {
        // What lies at the edge of the whole grid is not read twice.
        let [_, rows, cols] = self.inner();
        let cut = block[0] < rows || block[1] < cols;
        let halo = if cut { self.with_halo(block) / (block[0] * block[1]) as f64 } else { 1.0 };
        let neighbours = match self.layer(cache, block) {
            Layer::Planes => halo,
            Layer::Rows if self.shape == StencilShape::Box => self.planes() * halo,
            Layer::Rows => self.planes() - 1.0 + halo,
            Layer::Nothing => self.rows(),
        };
        (neighbours + self.reads as f64 + 2.0 * self.writes as f64) * self.element as f64
    }

    fn cost(&self, machine: &Machine, block: [usize; 2]) -> Cost {
        let points: f64 = self.inner().iter().map(|&extent| extent as f64).product();
        let flops = if self.flops > 0.0 { self.flops } else { 2.0 * self.neighbours() };
        // A vector holds half as many elements of 8 bytes.
        let flops = flops * (self.element as f64 / 4.0);
        let core = (self.neighbours() + self.others()) * self.element as f64;
        let misses = machine.caches.map(|cache| points * self.missed(cache, block));
        machine.cost(points * flops, points * core, misses)
    }
}

pub(super) fn plan(hierarchy: &Hierarchy, machine: &Machine, stencil: &Stencil) -> LoopPlan {
    let [planes, rows, cols] = stencil.inner();
    let naive = stencil.cost(machine, [rows, cols]);
    let last = machine.caches[2];
    let widths =
        if stencil.layer(last, [1, cols]) == Layer::Planes { vec![cols] } else { pieces(cols, MIN_ROW) };
    // Several threads need several blocks.
    let highest = if machine.threads > 1 { rows.div_ceil(TASKS * machine.threads).max(1) } else { rows };
    let mut best = ([highest, cols], stencil.cost(machine, [highest, cols]));
    for width in widths {
        for height in pieces(rows, 1).into_iter().filter(|&height| height <= highest) {
            let cost = stencil.cost(machine, [height, width]);
            // Of equals the largest, which comes first.
            if cost.seconds < best.1.seconds * (1.0 - 1e-3) {
                best = ([height, width], cost);
            }
        }
    }
    let ([height, width], cost) = best;
    let across = rows.div_ceil(height) * cols.div_ceil(width);
    // Too few blocks of rows for the threads: planes are cut as well.
    let cuts = (TASKS * machine.threads).div_ceil(across).min(planes.div_ceil(2 * stencil.planes() as usize));
    let depth = if machine.threads > 1 { even(planes, planes.div_ceil(cuts.max(1)), 1) } else { planes };
    LoopPlan {
        tile: tile(hierarchy, stencil, width),
        block: [depth, height, width],
        tasks: across * planes.div_ceil(depth),
        cost,
        naive,
        why: why(machine, stencil, [height, width], (&cost, &naive)),
    }
}

/// Lengths of pieces of about equal length, the largest first, of at least `least`.
fn pieces(total: usize, least: usize) -> Vec<usize> {
    let mut found = vec![];
    let mut limit = total;
    while limit >= least.min(total) && limit > 0 {
        let length = even(total, limit, 1);
        found.push(length);
        // Steps of about a sixteenth.
        limit = length.min(limit) - (limit / 16).max(1);
    }
    found.dedup();
    found
}

/// Sums of one row, in as many vectors as hide the latency of the units.
fn tile(hierarchy: &Hierarchy, stencil: &Stencil, width: usize) -> [usize; 2] {
    let registers = hierarchy.registers;
    let lanes = (registers.lanes * 4 / stencil.element).max(1);
    let vectors = IN_FLIGHT.min(registers.count.saturating_sub(ELEMENTS_OF_A)).max(1);
    [1, (vectors * lanes).min(width)]
}

fn why(machine: &Machine, stencil: &Stencil, block: [usize; 2], (cost, naive): (&Cost, &Cost)) -> String {
    let [_, rows, cols] = stencil.inner();
    let name = |level: usize| ["L1", "L2", "L3"][level];
    let whole = stencil.planes_bytes([rows, cols]);
    let naive_fits =
        (0..3).find(|&level| stencil.layer(machine.caches[level], [rows, cols]) == Layer::Planes);
    let fits = (0..3).find(|&level| stencil.layer(machine.caches[level], block) == Layer::Planes);
    let points: f64 = stencil.inner().iter().map(|&extent| extent as f64).product();
    let each = |cost: &Cost| cost.bytes[3] / points;
    let step = format!("the planes of a step, {}", size(whole));
    let first = match naive_fits {
        Some(level) => format!("{step}, fit in half of {}", name(level)),
        None => format!("{step}, exceed half of every cache"),
    };
    let is_cut = block != [rows, cols];
    let second = match fits {
        Some(level) if is_cut && Some(level) != naive_fits => format!(
            "those of the block, {}, fit in half of {}, so memory serves {:.1} bytes a point instead of {:.1}",
            size(stencil.planes_bytes(block)),
            name(level),
            each(cost),
            each(naive)
        ),
        _ if is_cut => "the block gives each thread work".to_owned(),
        _ => "no smaller block is predicted to be faster".to_owned(),
    };
    format!("{first}; {second}")
}
