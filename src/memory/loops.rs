//! Plans for users' own loops: products and stencils.
//!
//! The model counts the bytes that each level of the memory serves to one thread's loads and stores, and divides them by
//! the measured rate of reads from that level. That rate includes the way through the nearer levels, so the times of the
//! levels add up. Arithmetic and the loads of the core overlap with them: the longer of the two counts.
//!
//! * A **stencil** reads neighbours of each point. Whether a neighbour is still in a cache follows from the layer conditions
//!   of Kerncraft (Hammer, Eitzinger, Hager and Wellein, 2017): all planes that a step touches fit, or all rows do, or
//!   neither (`stencil`). A block of rows makes the planes smaller.
//! * A **product** has the register tile and the blocks of the CPU engine (`memory::tile`, `memory::blocking`);
//!   `product` counts its bytes.
//!
//! A store into memory that is not in the nearest cache reads its line first, so it counts twice.

mod product;
mod stencil;

use std::fmt;

use super::Hierarchy;
use super::blocking::{L1_BYTES, L2_BYTES, known_bytes};
use crate::error::{Error, Result};

/// The arrays' neighbours that a stencil reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StencilShape {
    /// Neighbours along the axes only.
    Star,
    /// All neighbours within the radius.
    Box,
}

/// A stencil: for each point of a grid, neighbours of one array are read, and the point of others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stencil {
    /// Points along each axis: planes, rows, and columns, which are contiguous. A two-dimensional grid has one plane.
    pub extents: [usize; 3],
    /// How far the neighbours are along each axis.
    pub radius: [usize; 3],
    /// Which neighbours are read.
    pub shape: StencilShape,
    /// Further arrays of which only the point itself is read.
    pub reads: usize,
    /// Arrays that are written.
    pub writes: usize,
    /// Bytes of an element: 4 or 8.
    pub element: usize,
    /// Operations per point; 0: a multiplication and an addition for each neighbour and the point.
    pub flops: f64,
}

impl Stencil {
    /// An fp32 star stencil that writes one other array.
    pub fn star(extents: [usize; 3], radius: [usize; 3]) -> Self {
        Stencil { extents, radius, shape: StencilShape::Star, reads: 0, writes: 1, element: 4, flops: 0.0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Nest {
    Product([usize; 3]),
    Stencil(Stencil),
}

/// Nested loops of a user's program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loops {
    nest: Nest,
    threads: usize,
}

/// The most points, elements or multiply-adds of loops. Sums of bytes stay exact in an f64.
const MAX_WORK: f64 = 1e15;

impl Loops {
    /// The product C += A B in fp32: A has `rows` x `depth` elements, B `depth` x `cols`. Rows are contiguous.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an extent of 0, or more than 10^15 multiply-adds.
    pub fn gemm(rows: usize, cols: usize, depth: usize) -> Result<Self> {
        check_extents([rows, cols, depth])?;
        Ok(Loops { nest: Nest::Product([rows, cols, depth]), threads: 1 })
    }

    /// A stencil.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an extent of 0, a radius that leaves no point inside, no array that is written, an
    /// element of other than 4 or 8 bytes, or more than 10^15 points.
    pub fn stencil(stencil: Stencil) -> Result<Self> {
        check_extents(stencil.extents)?;
        for (extent, radius) in stencil.extents.into_iter().zip(stencil.radius) {
            if radius >= extent.div_ceil(2) {
                let expected = format!("less than half of the extent {extent}");
                return Err(Error::invalid("radius", radius, expected));
            }
        }
        if !(1..=64).contains(&stencil.writes) {
            return Err(Error::invalid("writes", stencil.writes, "1 to 64 arrays that are written"));
        }
        if stencil.reads > 64 {
            return Err(Error::invalid("reads", stencil.reads, "at most 64 arrays"));
        }
        if ![4, 8].contains(&stencil.element) {
            return Err(Error::invalid("element", stencil.element, "4 or 8 bytes"));
        }
        if !(0.0..1e9).contains(&stencil.flops) {
            return Err(Error::invalid("flops", stencil.flops, "0 or a number of operations per point"));
        }
        Ok(Loops { nest: Nest::Stencil(stencil), threads: 1 })
    }

    /// The same loops on `threads` threads.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 threads, or more than 65536.
    pub fn on(self, threads: usize) -> Result<Self> {
        match threads {
            1..=65536 => Ok(Loops { threads, ..self }),
            _ => Err(Error::invalid("threads", threads, "1 to 65536 threads")),
        }
    }
}

fn check_extents(extents: [usize; 3]) -> Result<()> {
    if let Some(extent) = extents.iter().find(|&&extent| extent == 0) {
        return Err(Error::invalid("extents", extent, "at least 1"));
    }
    let work: f64 = extents.iter().map(|&extent| extent as f64).product();
    if work > MAX_WORK {
        return Err(Error::invalid("extents", format_args!("{extents:?}"), "at most 10^15 points"));
    }
    Ok(())
}

/// What binds loops: they would take as long if everything else were free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Multiply-adds.
    Arithmetic,
    /// Data from the L1 cache.
    L1,
    /// Data from the L2 cache.
    L2,
    /// Data from the L3 cache.
    L3,
    /// Data from main memory.
    Memory,
}

impl Bound {
    /// The name.
    pub fn name(self) -> &'static str {
        ["arithmetic", "L1", "L2", "L3", "memory"][self as usize]
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one way of looping costs, on all threads together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// The predicted time.
    pub seconds: f64,
    /// The time of the arithmetic alone.
    pub arithmetic: f64,
    /// Bytes that L1, L2, L3 and memory serve.
    pub bytes: [f64; 4],
    /// Seconds that each of them takes for these.
    pub levels: [f64; 4],
    /// What takes longest.
    pub binds: Bound,
}

/// How to loop, and what to expect of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LoopPlan {
    /// Results that are kept in registers: rows and columns.
    pub tile: [usize; 2],
    /// A stencil's block: planes, rows and columns; plane after plane is computed within it. A product's: rows of A,
    /// columns of a task, and depth.
    pub block: [usize; 3],
    /// Blocks that can be computed at the same time.
    pub tasks: usize,
    /// The cost with these blocks.
    pub cost: Cost,
    /// The cost of the loops as they are usually written: a stencil plane by plane and row by row; a product over rows,
    /// depth and columns, from the outermost to the innermost loop.
    pub naive: Cost,
    /// Why, in a sentence or two.
    pub why: String,
}

impl LoopPlan {
    /// How many times faster the blocks are predicted to be than the loops as they are usually written.
    pub fn gain(&self) -> f64 {
        self.naive.seconds / self.cost.seconds
    }
}

impl fmt::Display for LoopPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ([rows, cols], [a, b, c]) = (self.tile, self.block);
        writeln!(f, "registers  {rows} x {cols}")?;
        writeln!(f, "block      {a} x {b} x {c}, {} tasks", self.tasks)?;
        writeln!(
            f,
            "predicted  {:.3} ms, {:.3} ms without blocks: {:.2} times as fast",
            self.cost.seconds * 1e3,
            self.naive.seconds * 1e3,
            self.gain()
        )?;
        write!(f, "bound      {}: {}", self.cost.binds, self.why)
    }
}

/// Plans loops for a CPU. [`Device::hierarchy`](crate::Device::hierarchy) measures the hierarchy of this machine.
///
/// # Errors
/// [`Error::InvalidArgument`] if the hierarchy has no rates of multiply-adds and of reads from memory: it was not measured, or
/// is that of a GPU.
///
/// ```
/// use sparkle::memory::{Loops, Stencil, plan};
/// let cpu = sparkle::Device::open("cpu")?.hierarchy()?;
/// // Neighbours up to four planes away: nine planes of 4.4 MB do not stay in a cache.
/// let stencil = Stencil::star([48, 1010, 1100], [4, 1, 1]);
/// let plan = plan(&cpu, &Loops::stencil(stencil)?)?;
/// println!("{plan}");
/// for first in (0..1010).step_by(plan.block[1]) {
///     // for each plane, for each row from `first` to `first + plan.block[1]`, for each column
/// }
/// # Ok::<(), sparkle::Error>(())
/// ```
pub fn plan(hierarchy: &Hierarchy, loops: &Loops) -> Result<LoopPlan> {
    let machine = Machine::new(hierarchy, loops.threads)?;
    Ok(match &loops.nest {
        Nest::Product(extents) => product::plan(hierarchy, &machine, *extents),
        Nest::Stencil(stencil) => stencil::plan(hierarchy, &machine, stencil),
    })
}

/// A CPU as loops on some threads see it.
struct Machine {
    threads: usize,
    /// fp32 operations a second of all threads.
    peak: f64,
    /// Bytes of L1, L2 and L3 for a thread. A level that does not exist has the size of the one before it.
    caches: [usize; 3],
    /// Bytes a second of all threads from L1, L2, L3 and memory.
    rates: [f64; 4],
}

impl Machine {
    fn new(hierarchy: &Hierarchy, threads: usize) -> Result<Self> {
        let reads = hierarchy.reads;
        if !(hierarchy.peak > 0.0 && reads.memory.iter().all(|&rate| rate > 0.0)) {
            let expected = "the peak and the reads of a CPU that was measured (Device::hierarchy)";
            return Err(Error::invalid("hierarchy", "one without rates", expected));
        }
        let hardware = hierarchy.threads.max(1);
        // Threads add up until they share what they read from. More threads than the hardware's take turns.
        let at_once = threads.min(hardware) as f64;
        let rate = |[alone, together]: [f64; 2]| match threads {
            _ if threads >= hardware => together,
            _ => (alone * at_once).min(together.max(alone)),
        };
        let mut rates = [reads.l1, reads.l2, reads.l3, reads.memory].map(rate);
        // A level without a rate is as slow as the one behind it.
        for level in (0..3).rev() {
            if rates[level] <= 0.0 {
                rates[level] = rates[level + 1];
            }
        }
        let caches = hierarchy.caches_for(threads);
        let l1 = known_bytes(caches.l1, L1_BYTES);
        let l2 = known_bytes(caches.l2, L2_BYTES).max(l1);
        let caches = [l1, l2, caches.l3.max(l2)];
        Ok(Machine { threads, peak: hierarchy.peak * at_once, caches, rates })
    }

    /// The cost of `flops` operations and of loops that move `core` bytes between registers and L1, and `misses` beyond L1,
    /// L2 and L3.
    fn cost(&self, flops: f64, core: f64, misses: [f64; 3]) -> Cost {
        let [l1, l2, l3] = misses;
        let bytes = [core - l1, l1 - l2, l2 - l3, l3].map(|bytes| bytes.max(0.0));
        let levels = std::array::from_fn(|level| bytes[level] / self.rates[level]);
        let (arithmetic, loads) = (flops / self.peak, core / self.rates[0]);
        let moved = levels.iter().sum::<f64>();
        let all = [Bound::L1, Bound::L2, Bound::L3, Bound::Memory];
        let slowest = all.into_iter().zip(levels).max_by(|a, b| a.1.total_cmp(&b.1));
        let binds = match slowest {
            Some((level, _)) if moved >= arithmetic => level,
            _ => Bound::Arithmetic,
        };
        Cost { seconds: arithmetic.max(loads).max(moved), arithmetic, bytes, levels, binds }
    }
}

/// The part of a cache that data should fill: other data, and lines that share a set, need the rest.
const SAFE: f64 = 0.5;

/// Bytes in words.
fn size(bytes: f64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|&(unit, _)| bytes >= unit as f64) {
        Some((unit, name)) => {
            let count = bytes / unit as f64;
            if count < 10.0 { format!("{count:.1} {name}") } else { format!("{count:.0} {name}") }
        }
        None => format!("{bytes:.0} bytes"),
    }
}

#[cfg(test)]
mod tests;
