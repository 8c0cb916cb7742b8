//! Products: the bytes that each level serves, with the blocks of the CPU engine and without any.

use super::{Cost, LoopPlan, Machine, SAFE, size};
use crate::memory::Hierarchy;
use crate::memory::blocking::{Blocking, Products, Ukernel};
use crate::memory::tile::register_tiles;

/// The tile where the registers are not known: it fits in 32 registers without vectors.
const ASSUMED: Ukernel = Ukernel { mr: 4, nr: 4 };

pub(super) fn plan(hierarchy: &Hierarchy, machine: &Machine, [rows, cols, depth]: [usize; 3]) -> LoopPlan {
    let ukernel = register_tiles(hierarchy.registers)
        .first()
        .map_or(ASSUMED, |tile| Ukernel { mr: tile.mr, nr: tile.nr });
    let problem = Products { count: 1, rows, cols, depth, unit: 1 };
    let blocks = Blocking::product(hierarchy, ukernel, problem, machine.threads);
    let cost = with_blocks(machine, &problem, ukernel, &blocks);
    let naive = without_blocks(machine, &problem);
    let panel = (blocks.kc * ukernel.nr * 4) as f64;
    let why = format!(
        "each element that is loaded serves {:.1} multiply-adds in registers; a panel of B, {}, and the block of A, {}, stay in \
         caches, so memory serves {} instead of {}",
        (ukernel.mr * ukernel.nr) as f64 / (ukernel.mr + ukernel.nr) as f64,
        size(panel),
        size((blocks.mc * blocks.kc * 4) as f64),
        size(cost.bytes[3]),
        size(naive.bytes[3])
    );
    LoopPlan {
        tile: [ukernel.mr, ukernel.nr],
        block: [blocks.mc, blocks.nc, blocks.kc],
        tasks: blocks.tasks(),
        cost,
        naive,
        why,
    }
}

/// A step of a tile loads MR elements of A and NR of B. A panel of B is read once per panel of A, a block of A once per
/// panel of B, and C once per block of depth.
fn with_blocks(machine: &Machine, problem: &Products, ukernel: Ukernel, blocks: &Blocking) -> Cost {
    let [rows, cols, depth] = [problem.rows, problem.cols, problem.depth].map(|extent| extent as f64);
    let (mr, nr) = (ukernel.mr as f64, ukernel.nr as f64);
    let (work, cuts) = (rows * cols * depth, (depth / blocks.kc as f64).ceil());
    let sums = 2.0 * rows * cols * cuts;
    // Each operand is packed: read, written and read again.
    let once = 3.0 * (rows * depth + cols * depth * (rows / blocks.mc as f64).ceil());
    let panel = (blocks.kc * (ukernel.nr + ukernel.mr) * 4) as f64;
    let block = (blocks.mc * blocks.kc * 4) as f64;
    let all = (rows * depth + cols * depth + 2.0 * rows * cols) * 4.0;
    let missed = |cache: usize| {
        let fits = |bytes: f64| bytes <= SAFE * cache as f64;
        let of_a = if fits(block) { 0.0 } else { work / nr };
        let of_b = if fits(panel) { 0.0 } else { work / mr };
        let again = of_a + of_b + sums + once;
        // What fits as a whole is missed once.
        if fits(all) { all } else { (4.0 * again).max(all) }
    };
    let core = 4.0 * (work * (1.0 / mr + 1.0 / nr) + sums + once);
    machine.cost(2.0 * work, core, machine.caches.map(missed))
}

/// For each row, for each depth, for each column: two loads and a store for each multiply-add. A row reads all of B.
fn without_blocks(machine: &Machine, problem: &Products) -> Cost {
    let [rows, cols, depth] = [problem.rows, problem.cols, problem.depth].map(|extent| extent as f64);
    let work = rows * cols * depth;
    let all = 4.0 * (rows * depth + cols * depth + 2.0 * rows * cols);
    let missed = |cache: usize| {
        let fits = |elements: f64| 4.0 * elements <= SAFE * cache as f64;
        let of_b = if fits(cols * depth + 2.0 * cols) { 0.0 } else { work };
        let of_c = if fits(2.0 * cols) { 0.0 } else { 2.0 * work };
        (4.0 * (of_b + of_c)).max(all)
    };
    machine.cost(2.0 * work, 12.0 * work, machine.caches.map(missed))
}
