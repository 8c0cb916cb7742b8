//! Workgroup tiles for a GPU: the scheme of `blocking` with a workgroup as the core, shared memory as the L1 cache, and
//! a thread's registers as the vector registers.
//!
//! The cost model. A workgroup computes a tile of BM x BN; each of its threads computes TM x TN of it.
//!
//! * **Arithmetic.** A step of the reduction takes TM TN multiply-adds per thread, and (TM + TN)/4 reads of 16 bytes
//!   from shared memory. Reads take issue slots from the multiply-adds; the smaller the tile, the more. Each element
//!   that a thread moves into shared memory costs some instructions, and a pixel without adjacent neighbours costs
//!   most.
//! * **Occupancy.** Registers limit the workgroups that are resident on a compute unit, and a unit needs some hundred
//!   threads to be busy. Workgroups run in waves; the last wave is rarely full. Small outputs make less than a wave.
//!   Then groups of threads share the steps of a slice, or the reduction is cut into parts (`splits`) that a second
//!   pass adds up.
//! * **Bounds checks.** A workgroup that computes and checks the place of each pixel keeps its unit less busy if no
//!   other workgroup is resident, because nothing else computes in the meantime.
//! * **Latency.** A slice takes at least a round trip to memory; other workgroups of the unit run in that time.
//! * **Memory.** Device memory moves all data once.
//!
//! The slowest of these counts, plus a launch per pass. The costs were fitted to about 1,000 kernels on one GPU. A
//! device is its rates and limits; its name has no influence.

use std::fmt;

use super::costs::gpu::tiled::{
    ALONE, BUSY_THREADS, GATHER, LATENCY, MAX_RESIDENT, MIXED, MOVE, OTHER_REGISTERS, PARTS, PROLOGUE, READ,
    STEP, UNIT_REGISTERS, WEIGHT,
};

/// The properties of a GPU that planners use: limits from the driver and measured rates.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Gpu {
    /// fp32 operations per second of multiply-adds on registers; a multiply-add is two operations.
    pub flops: f64,
    /// Bytes per second from the device's memory.
    pub memory: f64,
    /// Seconds between consecutive dispatches in a queue.
    pub launch: f64,
    /// Compute units, estimated from how times grow with the number of workgroups.
    pub units: usize,
    /// The most bytes of shared memory of a workgroup.
    pub shared_bytes: usize,
    /// The most threads of a workgroup.
    pub max_threads: usize,
    /// The most elements of a buffer.
    pub max_elements: usize,
    /// The most iterations of all loops of an invocation together.
    pub max_iterations: usize,
}

impl Gpu {
    /// A medium GPU with the minimum limits of GL 4.3, for tests and for devices without measurements.
    pub const ASSUMED: Self = Gpu {
        flops: 5e12,
        memory: 3e11,
        launch: 5e-6,
        units: 32,
        shared_bytes: 32 << 10,
        max_threads: 1024,
        max_elements: (1 << 31) - 1,
        max_iterations: 900_000,
    };
}

/// A tile: the part of a product that a workgroup and a thread compute.
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

    /// Bytes of shared memory: two slices of both operands, and the partial sums that groups exchange at the end.
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

/// The tiles that are candidates on any device.
pub const TILES: [Tile; 19] = [
    Tile::new(128, 128, 8, 8, 8, 1),
    Tile::new(64, 128, 8, 8, 8, 1),
    Tile::new(128, 64, 8, 8, 8, 1),
    Tile::new(64, 64, 8, 8, 8, 1),
    Tile::new(64, 64, 16, 8, 4, 1),
    Tile::new(64, 64, 16, 4, 4, 1),
    Tile::new(32, 64, 16, 4, 4, 1),
    Tile::new(64, 32, 16, 4, 4, 1),
    Tile::new(32, 32, 16, 4, 4, 1),
    Tile::new(32, 32, 16, 4, 4, 2),
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

/// Some products C = A B of one shape. A is packed, B is read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TiledProducts {
    /// The number of products.
    pub count: usize,
    /// Rows of C.
    pub rows: usize,
    /// Columns of C.
    pub cols: usize,
    /// Slices of the reduction, each `bk` long.
    pub slices: usize,
    /// The least bytes that device memory moves.
    pub bytes: u64,
    /// Whether B is read one element at a time.
    pub gathered: bool,
    /// Whether reads of B need bounds checks: kernels of more than one tap, or padding.
    pub checked: bool,
}

/// Workgroups of `tile` that are resident on a compute unit.
fn resident(tile: &Tile) -> f64 {
    let Tile { tm, tn, .. } = *tile;
    let registers = (tm * tn + 2 * (tm + tn)) as f64 + OTHER_REGISTERS;
    (UNIT_REGISTERS / (tile.threads() as f64 * registers)).floor().clamp(1.0, MAX_RESIDENT)
}

/// Predicted seconds of `products` in tiles, the reduction in `splits` parts.
pub fn seconds(gpu: &Gpu, tile: &Tile, products: &TiledProducts, splits: usize) -> f64 {
    let Tile { bm, bn, bk, tm, tn, kg } = *tile;
    let groups = products.count * products.rows.div_ceil(bm) * products.cols.div_ceil(bn) * splits;
    let slices = products.slices.div_ceil(splits) as f64 + PROLOGUE;
    let (threads, units) = (tile.threads() as f64, gpu.units as f64);
    let pixel_cost = if products.gathered { GATHER } else { MOVE };
    let moves = kg as f64 * (WEIGHT * bm as f64 + pixel_cost * bn as f64) / threads;
    let resident = resident(tile);
    let alone = if products.checked && resident < 2.0 { ALONE } else { 1.0 };
    let step = alone * ((tm * tn) as f64 + READ * (tm + tn) as f64 / 4.0 + STEP + moves);
    // Seconds for a slice of one workgroup that keeps its unit busy, and for a slice of each of some that share a unit.
    let busy = 2.0 * threads * step * (bk as f64 / kg as f64) / (gpu.flops / units);
    let together = |workgroups: f64| {
        let share = (workgroups * threads / BUSY_THREADS).min(1.0);
        (workgroups * busy / share).max(LATENCY)
    };
    let waves = (groups as f64 / (units * resident)).floor();
    let left_over = groups as f64 - waves * units * resident;
    let last = if left_over > 0.0 { together((left_over / units).ceil()) } else { 0.0 };
    let computing = slices * (waves * together(resident) + last);
    let memory = MIXED * products.bytes as f64 / gpu.memory;
    let outputs = (products.count * products.rows * products.cols * size_of::<f32>()) as f64;
    let second_pass =
        if splits > 1 { gpu.launch + PARTS * splits as f64 * outputs / gpu.memory } else { 0.0 };
    computing.max(memory) + gpu.launch + second_pass
}

/// The number of parts, at most `max`, with the least [`seconds`].
pub fn best_splits(gpu: &Gpu, tile: &Tile, products: &TiledProducts, max: usize) -> usize {
    let sensible = |&splits: &usize| splits == 1 || products.slices / splits >= 4;
    let all = (1..=max.max(1)).filter(|splits| *splits <= 4 || splits % 2 == 0).filter(sensible);
    all.min_by(|&a, &b| seconds(gpu, tile, products, a).total_cmp(&seconds(gpu, tile, products, b)))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Gpu = Gpu { flops: 60e12, memory: 4e12, launch: 3e-6, units: 100, ..Gpu::ASSUMED };
    const LARGE: Tile = Tile::new(128, 128, 8, 8, 8, 1);

    /// Products that make `tiles` workgroups of [`LARGE`], with memory out of the way.
    fn products(tiles: usize, slices: usize) -> TiledProducts {
        TiledProducts {
            count: 1,
            rows: 128,
            cols: 128 * tiles,
            slices,
            bytes: 0,
            gathered: false,
            checked: false,
        }
    }

    fn computing(tiles: usize, splits: usize) -> f64 {
        seconds(&DEVICE, &LARGE, &products(tiles, 1024), splits) - DEVICE.launch
    }

    #[test]
    fn threads_and_shared_memory_worked_by_hand() {
        for (tile, threads, elements) in [
            // Two slices of 8 x (128 + 128).
            (LARGE, 16 * 16, 2 * 8 * 256),
            (Tile::new(64, 128, 8, 8, 8, 1), 8 * 16, 2 * 8 * 192),
            (Tile::new(64, 64, 16, 8, 4, 1), 8 * 16, 2 * 16 * 128),
            // One of two groups passes its sums on at the end, two of four do.
            (Tile::new(32, 32, 16, 4, 4, 2), 8 * 8 * 2, 2 * 16 * 64 + 32 * 32),
            (Tile::new(64, 32, 32, 8, 4, 4), 8 * 8 * 4, 2 * 32 * 96 + 2 * 64 * 32),
        ] {
            assert_eq!((tile.threads(), tile.shared_bytes()), (threads, 4 * elements), "{tile}");
            // Just enough, and one less of either.
            let gpu = Gpu { max_threads: threads, shared_bytes: 4 * elements, ..Gpu::ASSUMED };
            assert!(tile.fits(&gpu), "{tile}");
            assert!(!tile.fits(&Gpu { max_threads: threads - 1, ..gpu }), "{tile}");
            assert!(!tile.fits(&Gpu { shared_bytes: 4 * elements - 1, ..gpu }), "{tile}");
        }
        assert!(TILES.iter().any(|tile| !tile.fits(&Gpu::ASSUMED)), "the largest is for larger devices");
        assert_eq!(LARGE.to_string(), "128x128x8_t8x8");
        assert_eq!(Tile::new(64, 32, 32, 8, 4, 4).to_string(), "64x32x32_t8x4_k4");
    }

    #[test]
    fn resident_workgroups_worked_by_hand() {
        for (tile, registers, held) in [
            // Sums, and two steps' operands.
            (LARGE, 64 + 2 * 16, 1.0),
            (
                Tile::new(64, 64, 16, 8, 4, 1),
                32 + 2 * 12,
                (65536.0f64 / (128.0 * (56.0 + OTHER_REGISTERS))).floor(),
            ),
            (
                Tile::new(32, 32, 16, 4, 4, 2),
                16 + 2 * 8,
                (65536.0f64 / (128.0 * (32.0 + OTHER_REGISTERS))).floor(),
            ),
            (Tile::new(256, 256, 8, 8, 8, 1), 64 + 2 * 16, 1.0),
            (Tile::new(16, 16, 8, 4, 4, 1), 16 + 2 * 8, MAX_RESIDENT),
        ] {
            let all = UNIT_REGISTERS / (tile.threads() as f64 * (f64::from(registers) + OTHER_REGISTERS));
            assert_eq!((resident(&tile), all.floor().clamp(1.0, MAX_RESIDENT)), (held, held), "{tile}");
        }
    }

    /// Two parts of 3 x 2 x 8 tiles in a wave that is not full, each alone on its unit.
    #[test]
    fn the_time_of_large_tiles_worked_by_hand() {
        let products = TiledProducts {
            count: 3,
            rows: 200,
            cols: 1000,
            slices: 99,
            bytes: 1000,
            gathered: true,
            checked: true,
        };
        for (gathered, checked, splits) in
            [(true, true, 2.0), (false, true, 1.0), (true, false, 1.0), (false, false, 4.0)]
        {
            let moves = (WEIGHT * 128.0 + if gathered { GATHER } else { MOVE } * 128.0) / 256.0;
            let step = (64.0 + READ * 4.0 + STEP + moves) * if checked { ALONE } else { 1.0 };
            // 8 steps of 256 threads, two operations each, at a unit's share of 60 TFLOPS.
            let slice = 2.0 * 256.0 * step * 8.0 / 0.6e12;
            // 48 tiles, of which a unit computes one at a time: 48, 96 or 192 of 100 at once.
            let waves = (48.0 * splits / 100.0f64).ceil();
            let computing = ((99.0 / splits).ceil() + PROLOGUE) * slice * waves;
            let outputs = 4.0 * 3.0 * 200.0 * 1000.0;
            let second_pass = if splits > 1.0 { 3e-6 + PARTS * splits * outputs / 4e12 } else { 0.0 };
            let got =
                seconds(&DEVICE, &LARGE, &TiledProducts { gathered, checked, ..products }, splits as usize);
            let expected = computing + 3e-6 + second_pass;
            assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}: {gathered} {checked} {splits}");
        }
    }

    /// Two groups of threads share a slice. A unit holds three workgroups; one alone does not keep it fully busy.
    #[test]
    fn the_time_of_small_tiles_worked_by_hand() {
        let slow = Gpu { flops: 6e12, ..DEVICE };
        let tile = Tile::new(32, 64, 16, 4, 4, 2);
        assert_eq!((tile.threads(), resident(&tile)), (256, 3.0));
        let moves = 2.0 * (WEIGHT * 32.0 + MOVE * 64.0) / 256.0;
        // With bounds checks, but other workgroups are resident.
        let step = 16.0 + READ * 2.0 + STEP + moves;
        let slice = 2.0 * 256.0 * step * 8.0 / 0.06e12;
        let products = |tiles: usize| TiledProducts {
            count: 1,
            rows: 32,
            cols: 64 * tiles,
            slices: 500,
            bytes: 0,
            gathered: false,
            checked: true,
        };
        // 650 tiles: two full waves of 300, and 50 on as many units.
        let got = seconds(&slow, &tile, &products(650), 1);
        let expected = (500.0 + PROLOGUE) * (2.0 * 3.0 * slice + slice) + 3e-6;
        assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}");
        // 150 tiles: two on some units.
        let got = seconds(&slow, &tile, &products(150), 1);
        let expected = (500.0 + PROLOGUE) * 2.0 * slice + 3e-6;
        assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}");
        // A workgroup of 64 threads alone on its unit: 210 would keep that busy.
        let tile = Tile::new(32, 32, 64, 4, 4, 1);
        let moves = (WEIGHT * 32.0 + MOVE * 32.0) / 64.0;
        let slice = 2.0 * 64.0 * (16.0 + READ * 2.0 + STEP + moves) * 64.0 / 0.06e12;
        let got = seconds(&slow, &tile, &TiledProducts { cols: 32, ..products(1) }, 1);
        let expected = (500.0 + PROLOGUE) * slice * BUSY_THREADS / 64.0 + 3e-6;
        assert!((got / expected - 1.0).abs() < 1e-12, "{got} {expected}");
    }

    /// Two resident workgroups are enough.
    #[test]
    fn bounds_checks_cost_more_only_where_a_workgroup_is_alone() {
        let time = |tile: Tile, checked| {
            let products = TiledProducts { checked, ..products(50, 1024) };
            seconds(&DEVICE, &tile, &products, 1)
        };
        let two = Tile::new(96, 128, 8, 8, 8, 1);
        assert_eq!((resident(&LARGE), resident(&two)), (1.0, 2.0));
        assert!(time(LARGE, true) > time(LARGE, false));
        assert_eq!(time(two, true), time(two, false));
    }

    #[test]
    fn a_slice_takes_a_round_trip_and_transfers_take_time() {
        let tiny = Tile::new(16, 16, 1, 4, 4, 1);
        let products = TiledProducts {
            count: 1,
            rows: 16,
            cols: 16,
            slices: 10,
            bytes: 0,
            gathered: false,
            checked: false,
        };
        let got = seconds(&DEVICE, &tiny, &products, 1);
        assert!((got / ((10.0 + PROLOGUE) * LATENCY + 3e-6) - 1.0).abs() < 1e-12, "{got}");
        let got = seconds(&DEVICE, &tiny, &TiledProducts { bytes: 1 << 30, ..products }, 1);
        assert!((got / (MIXED * (1 << 30) as f64 / 4e12 + 3e-6) - 1.0).abs() < 1e-12, "{got}");
    }

    /// The number of parts is small or even, and parts have at least four slices. The best of these is chosen.
    #[test]
    fn the_best_number_of_parts_is_the_best() {
        let mut several = 0;
        for (tiles, slices) in
            [1, 3, 10, 40, 101].into_iter().flat_map(|tiles| [1, 3, 7, 16, 100, 3000].map(|it| (tiles, it)))
        {
            for max in [0, 1, 2, 3, 9, 32] {
                let products = products(tiles, slices);
                let best = best_splits(&DEVICE, &LARGE, &products, max);
                let allowed = |splits: &usize| {
                    *splits == 1
                        || *splits <= max
                            && slices / *splits >= 4
                            && (*splits <= 4 || splits.is_multiple_of(2))
                };
                assert!(allowed(&best), "{best} of {max} parts, {slices} slices");
                let time = |splits| seconds(&DEVICE, &LARGE, &products, splits);
                let least = (1..=32).filter(allowed).map(time).fold(f64::INFINITY, f64::min);
                assert_eq!(time(best), least);
                several += usize::from(best > 1);
            }
        }
        assert!(several > 10, "{several}");
    }

    #[test]
    fn the_assumed_gpu_has_the_limits_of_gl_4_3() {
        let Gpu { shared_bytes, max_threads, max_elements, .. } = Gpu::ASSUMED;
        assert_eq!((shared_bytes, max_threads, max_elements), (32_768, 1024, 2_147_483_647));
    }

    /// A unit holds one workgroup of this tile: the 101st waits until the others are done.
    #[test]
    fn one_workgroup_too_many_makes_another_wave() {
        assert_eq!(resident(&LARGE), 1.0);
        let (one, full, over) = (computing(1, 1), computing(100, 1), computing(101, 1));
        assert_eq!(one, full);
        assert!((over / full - 2.0).abs() < 1e-9, "{over} after {full}");
        assert_eq!(computing(200, 1), over);
    }

    /// Workgroups that share a unit each take longer, but a full unit is busier than one with a single small workgroup.
    #[test]
    fn small_workgroups_fill_a_unit_together() {
        let small = Tile::new(32, 32, 16, 4, 4, 1);
        assert!(resident(&small) > 4.0);
        let time = |tiles: usize| {
            let products = TiledProducts { rows: 32, cols: 32 * tiles, ..products(1, 512) };
            seconds(&DEVICE, &small, &products, 1) - DEVICE.launch
        };
        assert!(time(400) < 4.0 * time(100), "{} and {}", time(400), time(100));
        assert!(time(400) >= time(100));
    }

    /// A product of few tiles is cut into parts; one that fills the device is not.
    #[test]
    fn reductions_are_cut_where_tiles_are_few() {
        assert!(best_splits(&DEVICE, &LARGE, &products(10, 1024), 32) > 1);
        assert_eq!(best_splits(&DEVICE, &LARGE, &products(100, 1024), 32), 1);
        assert_eq!(best_splits(&DEVICE, &LARGE, &products(10, 1024), 1), 1);
    }

    #[test]
    fn transfers_take_time_even_without_arithmetic() {
        let moved = TiledProducts { bytes: 1 << 32, ..products(1, 1) };
        assert!(seconds(&DEVICE, &LARGE, &moved, 1) > (1_u64 << 32) as f64 / DEVICE.memory);
    }
}
