//! Tiles for a GPU: the same patterns as `blocking`, one level up. A workgroup plays the core, its shared memory the
//! L1 cache, a thread's registers the vector registers.
//!
//! The cost model. A workgroup computes a tile of BM x BN, each of its threads TM x TN of it:
//!
//! * **Arithmetic.** A step of the reduction is TM TN multiply-adds a thread, and (TM + TN)/4 reads of 16 bytes from
//!   shared memory: those take issue slots from the multiply-adds, and the smaller the tile the more. Fetching a slice
//!   and walking through it costs something for each of the (BM + BN)/threads elements a thread moves.
//! * **Width.** All workgroups run in rounds over the device's compute units; a unit needs some hundred threads to be
//!   busy. Small outputs make too few workgroups: the reduction is then cut into parts (`splits`), summed by a second pass.
//! * **Memory.** Each tile reads (BM + BN) depth elements, mostly from the last cache; device memory moves everything once.
//!
//! The slowest of the three counts, and a launch for each pass. A device is its rates: no name appears here.

use std::fmt;

/// A GPU as the planner sees it: limits from its driver, rates as measured.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Gpu {
    /// Multiply-adds a second times two, from registers.
    pub flops: f64,
    /// Bytes a second from the device's memory.
    pub memory: f64,
    /// Bytes a second that the compute units get together from the cache they share.
    pub cache: f64,
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
        cache: 1e12,
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
}

/// Threads that keep a compute unit busy.
const BUSY_THREADS: f64 = 384.0;
/// What a shared-memory read costs in multiply-adds of one thread.
const READ_COST: f64 = 2.0;
/// What it costs to move an element of a slice into shared memory, bounds and addresses included.
const MOVE_COST: f64 = 6.0;

/// Predicted seconds of `products` in tiles, the reduction in `splits` parts.
pub fn seconds(gpu: &Gpu, tile: &Tile, products: &TiledProducts, splits: usize) -> f64 {
    let Tile { bm, bn, bk, tm, tn, kg } = *tile;
    let groups = products.count * products.rows.div_ceil(bm) * products.cols.div_ceil(bn) * splits;
    let slices = products.slices.div_ceil(splits) + 1;
    let threads = tile.threads() as f64;
    let products_a_step = (tm * tn) as f64;
    let step = products_a_step + READ_COST * (tm + tn) as f64 / 4.0 + MOVE_COST * (bm + bn) as f64 / threads;
    // Seconds of a workgroup that has a compute unit to itself and keeps it busy.
    let unit = gpu.flops / gpu.units as f64;
    let alone = 2.0 * threads * step * (slices * bk) as f64 / kg as f64 / unit;
    // Workgroups of the fullest unit; how many of them run at once, and how busy they keep it.
    let rounds = groups.div_ceil(gpu.units) as f64;
    let resident = rounds.min((1024.0 / threads).max(1.0));
    let arithmetic = rounds * alone / (resident * threads / BUSY_THREADS).min(1.0);
    let moved = (groups * slices * bk * (bm + bn) * size_of::<f32>()) as f64;
    let outputs = (products.count * products.rows * products.cols * size_of::<f32>()) as f64;
    let parts = if splits > 1 { (splits + 1) as f64 * outputs } else { 0.0 };
    let memory = products.bytes as f64 / gpu.memory;
    let second_pass = if splits > 1 { gpu.launch + parts / gpu.cache } else { 0.0 };
    arithmetic.max(moved / gpu.cache).max(memory) + gpu.launch + second_pass
}

/// The number of parts for which [`seconds`] is least.
pub fn best_splits(gpu: &Gpu, tile: &Tile, products: &TiledProducts, most: usize) -> usize {
    let sensible = |&splits: &usize| splits == 1 || products.slices / splits >= 4;
    let all = (1..=most.max(1)).filter(|splits| *splits <= 4 || splits % 2 == 0).filter(sensible);
    all.min_by(|&a, &b| seconds(gpu, tile, products, a).total_cmp(&seconds(gpu, tile, products, b))).unwrap_or(1)
}
