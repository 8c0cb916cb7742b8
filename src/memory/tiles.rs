//! Tiles for a GPU: the same patterns as `blocking`, one level up. A workgroup plays the core, its shared memory the
//! L1 cache, a thread's registers the vector registers.
//!
//! The cost model. A workgroup computes a tile of BM x BN, each of its threads TM x TN of it:
//!
//! * **Arithmetic.** A step of the reduction is TM TN multiply-adds a thread, and (TM + TN)/4 reads of 16 bytes from
//!   shared memory: those take issue slots from the multiply-adds, and the smaller the tile the more. Each element that a thread
//!   moves into shared memory costs some instructions; pixels that are not side by side in memory cost most.
//! * **Width.** Workgroups run in rounds over the compute units, and a unit needs some hundred threads to be busy. Small outputs
//!   make too few workgroups: then the steps of a slice are dealt to groups of threads, or the reduction is cut into
//!   parts (`splits`), summed by a second pass.
//! * **Latency.** However small a slice, it takes a round trip to memory.
//! * **Memory.** Device memory moves everything once.
//!
//! The slowest counts, and a launch for each pass. The costs were fitted to some 700 kernels on one GPU; a device is its rates and
//! limits, and no name appears here.

use std::fmt;

/// A GPU as the planner sees it: limits from its driver, rates as measured.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Gpu {
    /// Multiply-adds a second times two, from registers.
    pub flops: f64,
    /// Bytes a second from the device's memory.
    pub memory: f64,
    /// Seconds that a dispatch takes from the queue, behind another.
    pub launch: f64,
    /// Compute units, as far as they can be told from how times grow with the number of workgroups.
    pub units: usize,
    /// Bytes of shared memory that a workgroup may have.
    pub shared_bytes: usize,
    /// Threads that a workgroup may have.
    pub max_threads: usize,
    /// The most elements of a buffer.
    pub max_elements: usize,
}

impl Gpu {
    /// A middling GPU with the least that GL 4.3 promises, for tests and where nothing was measured.
    pub const ASSUMED: Self = Gpu {
        flops: 5e12,
        memory: 3e11,
        launch: 5e-6,
        units: 32,
        shared_bytes: 32 << 10,
        max_threads: 1024,
        max_elements: (1 << 31) - 1,
    };
}

/// How a product is cut for workgroups and threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Rows of a workgroup.
    pub bm: usize,
    /// Columns of a workgroup.
    pub bn: usize,
    /// Steps of the reduction in a slice.
    pub bk: usize,
    /// Rows of a thread; a multiple of four.
    pub tm: usize,
    /// Columns of a thread; a multiple of four.
    pub tn: usize,
    /// Groups of threads that share a slice's steps; a power of two.
    pub kg: usize,
}

impl Tile {
    /// A tile.
    pub const fn new(bm: usize, bn: usize, bk: usize, tm: usize, tn: usize, kg: usize) -> Self {
        Tile { bm, bn, bk, tm, tn, kg }
    }

    /// Threads of a workgroup.
    pub fn threads(&self) -> usize {
        (self.bm / self.tm) * (self.bn / self.tn) * self.kg
    }

    /// Bytes of shared memory: two slices of both operands, and what groups hand over at the end.
    pub fn shared_bytes(&self) -> usize {
        (2 * self.bk * (self.bm + self.bn) + self.kg / 2 * self.bm * self.bn) * size_of::<f32>()
    }

    /// Whether the device can run it.
    pub fn fits(&self, gpu: &Gpu) -> bool {
        self.threads() <= gpu.max_threads && self.shared_bytes() <= gpu.shared_bytes
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tile { bm, bn, bk, tm, tn, kg } = self;
        write!(f, "{bm}x{bn}x{bk}_t{tm}x{tn}")?;
        if *kg > 1 { write!(f, "_k{kg}") } else { Ok(()) }
    }
}

/// The tiles that are worth considering, on any device.
pub const TILES: [Tile; 18] = [
    Tile::new(128, 128, 8, 8, 8, 1),
    Tile::new(64, 128, 8, 8, 8, 1),
    Tile::new(128, 64, 8, 8, 8, 1),
    Tile::new(64, 64, 8, 8, 8, 1),
    Tile::new(64, 64, 16, 8, 4, 1),
    Tile::new(64, 64, 16, 4, 4, 1),
    Tile::new(32, 64, 16, 4, 4, 1),
    Tile::new(64, 32, 16, 4, 4, 1),
    Tile::new(32, 32, 16, 4, 4, 1),
    Tile::new(64, 64, 32, 4, 4, 1),
    Tile::new(32, 64, 32, 4, 4, 1),
    Tile::new(64, 32, 32, 4, 4, 1),
    Tile::new(32, 32, 32, 4, 4, 1),
    Tile::new(32, 32, 32, 4, 4, 2),
    Tile::new(32, 32, 32, 4, 4, 4),
    Tile::new(64, 32, 32, 8, 4, 4),
    Tile::new(64, 64, 32, 8, 8, 4),
    Tile::new(32, 32, 64, 4, 4, 4),
];

/// Some products of one shape, C = A B, with A prepared and B read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TiledProducts {
    /// How many.
    pub count: usize,
    /// Rows of C.
    pub rows: usize,
    /// Columns of C.
    pub cols: usize,
    /// Slices of the reduction, when one is `bk` long.
    pub slices: usize,
    /// Bytes that device memory moves at least.
    pub bytes: u64,
    /// Whether B is read one element at a time, from places that must be checked.
    pub gathered: bool,
}

/// Threads that keep a compute unit busy, and that one holds at a time: tiles need many registers.
const BUSY_THREADS: f64 = 200.0;
const RESIDENT_THREADS: f64 = 600.0;
/// What a shared-memory read costs in multiply-adds of one thread.
const READ_COST: f64 = 2.0;
/// What it costs to move a pixel into shared memory if its neighbours come along, if it is gathered with bounds checked, and
/// a weight.
const MOVE_COST: f64 = 6.5;
const GATHER_COST: f64 = 30.0;
const WEIGHT_COST: f64 = 19.0;
/// Slices that beginning and ending a tile cost.
const PROLOGUE: f64 = 2.4;
/// Seconds that a slice takes at least: a round trip to memory.
const LATENCY: f64 = 0.57e-6;
/// How much longer than the least possible transfers take in a kernel that also computes.
const MIXED: f64 = 2.5;

/// Predicted seconds of `products` in tiles, the reduction in `splits` parts.
pub fn seconds(gpu: &Gpu, tile: &Tile, products: &TiledProducts, splits: usize) -> f64 {
    let Tile { bm, bn, bk, tm, tn, kg } = *tile;
    let groups = products.count * products.rows.div_ceil(bm) * products.cols.div_ceil(bn) * splits;
    let slices = products.slices.div_ceil(splits) as f64 + PROLOGUE;
    let (threads, units) = (tile.threads() as f64, gpu.units as f64);
    let pixel_cost = if products.gathered { GATHER_COST } else { MOVE_COST };
    let moves = kg as f64 * (WEIGHT_COST * bm as f64 + pixel_cost * bn as f64) / threads;
    let step = (tm * tn) as f64 + READ_COST * (tm + tn) as f64 / 4.0 + moves;
    // Seconds of a workgroup that has a compute unit to itself and keeps it busy.
    let alone = 2.0 * threads * step * slices * bk as f64 / kg as f64 / (gpu.flops / units);
    // Workgroups of the fullest unit; how many of them run at once, and how busy they keep it.
    let rounds = groups.div_ceil(gpu.units) as f64;
    let resident = rounds.min((RESIDENT_THREADS / threads).max(1.0));
    // With many rounds units do not wait for each other.
    let share = if rounds > 2.0 * resident { groups as f64 / units } else { rounds };
    let arithmetic = share * alone / (resident * threads / BUSY_THREADS).min(1.0);
    let latency = (rounds / resident.floor()).ceil() * slices * LATENCY;
    let memory = MIXED * products.bytes as f64 / gpu.memory;
    let outputs = (products.count * products.rows * products.cols * size_of::<f32>()) as f64;
    let second_pass =
        if splits > 1 { gpu.launch + splits as f64 * outputs / (4.0 * gpu.memory) } else { 0.0 };
    arithmetic.max(latency).max(memory) + gpu.launch + second_pass
}

/// The number of parts for which [`seconds`] is least.
pub fn best_splits(gpu: &Gpu, tile: &Tile, products: &TiledProducts, most: usize) -> usize {
    let sensible = |&splits: &usize| splits == 1 || products.slices / splits >= 4;
    let all = (1..=most.max(1)).filter(|splits| *splits <= 4 || splits % 2 == 0).filter(sensible);
    all.min_by(|&a, &b| seconds(gpu, tile, products, a).total_cmp(&seconds(gpu, tile, products, b)))
        .unwrap_or(1)
}
