//! Block sizes for Winograd's algorithm: a pure function of caches, problem and threads.
//!
//! A block of T tiles is transformed into V: T vectors of the C input channels for each of F frequencies. The products
//! M are T vectors of the K output channels for each frequency; M is transformed back. A block uses each element of the
//! transformed weights, U, T times.
//!
//! * **T for plans**, where U is in memory. V is written by one step and read by the next, and so is M. Each should
//!   stay in the L2 cache while the other is not in use: `F T (C + K) 4 <= 2 L2`. U comes from the outer caches, anew
//!   for each block. A vector of U feeds T multiply-adds, which take T/2 cycles. At [`OUTER_BYTES`] per cycle it
//!   arrives in that time if `T >= 2 * vector / OUTER_BYTES`; [`FETCH_MARGIN`] times that, because bandwidth varies.
//!   Fewer tiles never pay, so this limit wins if the two conflict.
//! * **T for single calls**, which compute U piece by piece. M covers only the current output channels, so V alone
//!   should stay in the L2 cache. T is at least [`MIN_TILES`], so that the weight transform, which is repeated for each
//!   block, stays a small part of the time.
//! * **A piece of U** is used at once. Together with its weights it takes half of the L2 cache. It is two panels wide
//!   if there are as many, so that V is read half as often. Each piece adds to M once more, so it should be deep: where
//!   two panels would leave less than [`MIN_DEPTH_BLOCKS`] vectors of input channels, it is one panel wide and may take
//!   all of the L2 cache.
//! * **Threads** compute a block each if there are [`TASKS_PER_THREAD`] blocks per thread, to balance uneven ones, or
//!   fewer, but equally many for each thread. If blocks would have too few tiles, all threads compute one block at a
//!   time, step by step.
//!
//! None of this changes the order of a sum, so results have the same bits for all block sizes.

use super::Caches;
use super::blocking::{even, known_bytes};
use super::costs::cpu::winograd::{FETCH_MARGIN, L3_BYTES, OUTER_BYTES};
use crate::problem::Conv2dSizes;

/// Tiles of a block that keep reading or recomputing U cheap compared with the products.
const MIN_TILES: usize = 28;
/// Tasks for each thread.
pub const TASKS_PER_THREAD: usize = 3;
/// The most vectors of output channels of a piece of U.
const MAX_PIECE_BLOCKS: usize = 4;
/// The fewest vectors of input channels that a piece of U should have.
const MIN_DEPTH_BLOCKS: usize = 2;
/// The assumed size of an L2 cache, in bytes, if the system does not report it.
const L2_BYTES: usize = 1 << 20;

/// The sizes of a convolution that the planner uses. Channels are those of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Tiles of all images.
    pub tiles: usize,
    /// Elements of a tile on the frequency side.
    pub frequencies: usize,
    /// Lanes of a vector of channels.
    pub lanes: usize,
    /// Input channels.
    pub c: usize,
    /// Vectors of input channels.
    pub c_blocks: usize,
    /// Vectors of output channels.
    pub k_blocks: usize,
    /// Groups.
    pub groups: usize,
}

impl Tiling {
    /// Tiles of m x m outputs, for 3 x 3 kernels.
    pub fn new(sizes: &Conv2dSizes, m: usize, lanes: usize) -> Self {
        Tiling {
            tiles: sizes.n * sizes.p.div_ceil(m) * sizes.q.div_ceil(m),
            frequencies: (m + 2) * (m + 2),
            lanes,
            c: sizes.c / sizes.groups,
            c_blocks: (sizes.c / sizes.groups).div_ceil(lanes),
            k_blocks: (sizes.k / sizes.groups).div_ceil(lanes),
            groups: sizes.groups,
        }
    }

    /// Bytes of one vector in all frequencies.
    fn vector_bytes(&self) -> usize {
        self.frequencies * self.lanes * size_of::<f32>()
    }

    /// Tiles of a block of a plan.
    pub fn block(&self, caches: &Caches) -> usize {
        let fitting = 2 * l2(caches) / (self.vector_bytes() * (self.c_blocks + self.k_blocks));
        let feeding = FETCH_MARGIN * 2.0 * (self.lanes * size_of::<f32>()) as f64 / OUTER_BYTES;
        even(self.tiles, fitting.max(feeding as usize), 1)
    }

    /// Cycles to fetch all of U for a block.
    pub fn fetching(&self, caches: &Caches) -> f64 {
        let bytes = (self.c * self.k_blocks * self.vector_bytes()) as f64;
        // The other half of the cache is for data that stream through it.
        let stays = bytes <= (caches.l3 / 2) as f64;
        bytes / if stays { L3_BYTES } else { OUTER_BYTES }
    }

    /// Cycles to move the parts of V and M that exceed the L2 cache out and back, for a block.
    pub fn spilling(&self, caches: &Caches) -> f64 {
        let bytes = self.block(caches) * self.vector_bytes() * (self.c_blocks + self.k_blocks);
        2.0 * bytes.saturating_sub(2 * l2(caches)) as f64 / OUTER_BYTES
    }

    /// Tiles of a block of a single call.
    pub fn once_block(&self, caches: &Caches) -> usize {
        let fitting = l2(caches) / (self.vector_bytes() * self.c_blocks);
        even(self.tiles, fitting.max(MIN_TILES), 1)
    }
}

fn l2(caches: &Caches) -> usize {
    known_bytes(caches.l2, L2_BYTES)
}

/// The size of a block, and the threads that compute one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Tiles of a block.
    pub tiles: usize,
    /// Whether each thread computes blocks of its own, or all threads compute one block together, step by step.
    pub block_per_thread: bool,
}

impl Schedule {
    /// The schedule for blocks of at most `max` tiles.
    fn cut(tiling: &Tiling, max: usize, threads: usize) -> Self {
        let (total, wanted) = (tiling.tiles, (threads * TASKS_PER_THREAD).div_ceil(tiling.groups));
        if threads == 1 || total.div_ceil(max) >= wanted {
            // Equally many for each thread; groups add more.
            let count = if tiling.groups == 1 { total.div_ceil(max).next_multiple_of(threads) } else { 1 };
            return Schedule { tiles: total.div_ceil(count).min(max), block_per_thread: true };
        }
        let even_share = |rounds: usize| total.div_ceil((threads * rounds).div_ceil(tiling.groups));
        if let Some(tiles) = (1..=TASKS_PER_THREAD).rev().map(even_share).find(|&tiles| tiles >= MIN_TILES) {
            return Schedule { tiles: tiles.min(max), block_per_thread: true };
        }
        Schedule { tiles: even(total, max * threads, 1), block_per_thread: false }
    }

    /// The schedule of a plan.
    pub fn plan(caches: &Caches, tiling: &Tiling, threads: usize) -> Self {
        Self::cut(tiling, tiling.block(caches), threads)
    }
}

/// The schedule of a single call, which computes U piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnceSchedule {
    /// The blocks of tiles.
    pub schedule: Schedule,
    /// Input channels of a piece of U: all, or a multiple of the number of lanes.
    pub depth: usize,
    /// Vectors of output channels of a piece of U.
    pub blocks: usize,
}

impl OnceSchedule {
    /// The schedule for `threads` threads.
    pub fn plan(caches: &Caches, tiling: &Tiling, threads: usize) -> Self {
        let schedule = Schedule::cut(tiling, tiling.once_block(caches), threads);
        // With few output channels and many threads, a task is one panel.
        let panels = tiling.k_blocks.div_ceil(2);
        let wide = schedule.block_per_thread || panels >= 2 * threads * TASKS_PER_THREAD;
        let depths = |bytes: usize, blocks: usize| {
            bytes / ((tiling.frequencies + 9) * blocks * tiling.lanes * size_of::<f32>())
        };
        let half = l2(caches) / 2;
        let shallow = depths(half, MAX_PIECE_BLOCKS) < MIN_DEPTH_BLOCKS * tiling.lanes;
        let blocks = if wide && !shallow { MAX_PIECE_BLOCKS } else { 2 }.min(tiling.k_blocks);
        let share = if shallow { 2 * half } else { half };
        let depth = even(tiling.c, depths(share, blocks), tiling.lanes).min(tiling.c);
        OnceSchedule { schedule, depth, blocks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Conv2d, Conv2dDesc};

    fn tiling(c: i64, k: i64, side: i64, groups: i64, m: usize, lanes: usize) -> Tiling {
        let desc = Conv2dDesc {
            c,
            h: side,
            w: side,
            k,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            groups,
            ..Default::default()
        };
        Tiling::new(Conv2d::new(desc).unwrap().sizes(), m, lanes)
    }

    /// Caches from a microcontroller's to larger than any, and unknown ones.
    fn machines() -> impl Iterator<Item = Caches> {
        [0, 16, 128, 256, 512, 1 << 10, 2 << 10, 16 << 10, 1 << 20]
            .map(|l2| Caches { l2: l2 << 10, ..Caches::UNKNOWN })
            .into_iter()
    }

    /// Tiles of 6 x 6 outputs and vectors of 16 lanes, 4,096 bytes for all frequencies.
    fn large() -> Tiling {
        tiling(256, 256, 224, 1, 6, 16)
    }

    fn mib(l2: usize, l3: usize) -> Caches {
        Caches { l2: l2 << 20, l3: l3 << 20, ..Caches::UNKNOWN }
    }

    #[test]
    fn tiles_worked_by_hand() {
        let desc = Conv2dDesc {
            n: 3,
            c: 40,
            h: 14,
            w: 10,
            k: 70,
            r: 3,
            s: 3,
            pad_h: 1,
            pad_w: 1,
            groups: 2,
            ..Default::default()
        };
        let of = |m| Tiling::new(Conv2d::new(desc).unwrap().sizes(), m, 16);
        // 4 x 3 tiles an image, or 3 x 2.
        let expected =
            Tiling { tiles: 36, frequencies: 36, lanes: 16, c: 20, c_blocks: 2, k_blocks: 3, groups: 2 };
        assert_eq!((of(4), of(6).tiles, of(6).frequencies), (expected, 18, 64));
        assert_eq!((of(4).vector_bytes(), large().vector_bytes()), (2304, 4096));
        assert_eq!((large().tiles, large().c_blocks, large().k_blocks), (38 * 38, 16, 16));
    }

    #[test]
    fn blocks_worked_by_hand() {
        // 2 MiB hold 16 tiles of 32 vectors; U arrives for 28. 1,444 tiles are 52 times 28.
        assert_eq!((large().block(&mib(1, 0)), large().block(&mib(4, 0))), (28, 63));
        assert_eq!(tiling(256, 256, 224, 1, 6, 8).block(&mib(1, 0)), 16, "with 8 lanes 14 would do");
        assert_eq!(tiling(256, 256, 224, 1, 6, 32).block(&mib(1, 0)), 56);
        // V alone: 1 MiB holds 16 tiles of 16 vectors, 4 MiB 64.
        assert_eq!((large().once_block(&mib(1, 0)), large().once_block(&mib(4, 0))), (28, 63));
        // 16 MiB of U stay in half of 32 MiB.
        let bytes = (16 << 20) as f64;
        assert_eq!(large().fetching(&mib(1, 32)), bytes / L3_BYTES);
        assert_eq!(large().fetching(&mib(1, 31)), bytes / OUTER_BYTES);
        // 28 tiles of 32 vectors less what fits, out and back.
        let over = 28 * 32 * 4096 - (2 << 20);
        assert_eq!(large().spilling(&mib(1, 0)), 2.0 * f64::from(over) / OUTER_BYTES);
        assert_eq!(large().spilling(&mib(8, 0)), 0.0);
        assert_eq!((l2(&Caches::UNKNOWN), l2(&mib(3, 0))), (1 << 20, 3 << 20));
    }

    #[test]
    fn schedules_worked_by_hand() {
        let cut = |tiles, groups, max, threads| {
            let Schedule { tiles, block_per_thread } =
                Schedule::cut(&Tiling { tiles, groups, ..large() }, max, threads);
            (tiles, block_per_thread)
        };
        // Enough blocks: equally many for each thread.
        assert_eq!(cut(1444, 1, 28, 1), (28, true));
        assert_eq!(cut(1444, 1, 28, 3), (27, true), "54 blocks");
        assert_eq!(cut(1444, 1, 28, 17), (22, true), "52 blocks, one more than 51, become 68");
        // Groups add blocks.
        assert_eq!(cut(1444, 4, 28, 17), (28, true));
        assert_eq!(cut(20, 4, 28, 1), (20, true));
        // Fewer than three blocks per thread: even blocks, in as many rounds as leave 28 tiles, no larger than the
        // limit.
        assert_eq!(cut(336, 1, 120, 4), (28, true), "three rounds");
        assert_eq!(cut(324, 1, 120, 4), (41, true), "two");
        assert_eq!(cut(216, 1, 120, 4), (54, true), "one");
        assert_eq!(cut(216, 1, 50, 4), (50, true));
        assert_eq!(cut(252, 1, 28, 4), (28, true), "nine blocks are not three for each of four threads");
        assert_eq!(cut(112, 2, 120, 4), (28, true), "two rounds, shared with the other group");
        // Otherwise all threads compute one block, as large as their limits together.
        assert_eq!(cut(100, 1, 120, 4), (100, false));
        assert_eq!(cut(100, 1, 20, 4), (50, false));
        assert_eq!(Schedule::plan(&mib(1, 0), &large(), 3), Schedule { tiles: 27, block_per_thread: true });
    }

    #[test]
    fn pieces_of_weights_worked_by_hand() {
        let plan = |tiling: &Tiling, l2, threads| {
            let OnceSchedule { depth, blocks, .. } = OnceSchedule::plan(&mib(l2, 0), tiling, threads);
            (depth, blocks)
        };
        // 45 x 16 elements for each input channel and vector: half of 1 MiB holds 45 channels of four, so 32.
        let four = tiling(256, 256, 224, 1, 4, 16);
        assert_eq!(plan(&four, 1, 1), (32, 4));
        assert_eq!(plan(&four, 4, 1), (128, 4));
        let exactly = Caches { l2: 2 * 32 * 11_520, ..Caches::UNKNOWN };
        let OnceSchedule { depth, blocks, .. } = OnceSchedule::plan(&exactly, &four, 1);
        assert_eq!((depth, blocks), (32, 4), "half holds two vectors of channels of four, just so");
        // 73 x 16: half holds 28 of four, less than two vectors; all of it 112 of two, so 96.
        assert_eq!(plan(&large(), 1, 1), (96, 2));
        assert_eq!(plan(&large(), 2, 1), (48, 4));
        // No more than there are.
        assert_eq!(plan(&tiling(40, 20, 224, 1, 4, 16), 4, 1), (40, 2));
        // Few output channels of a small map, many threads: one panel at a time, unless there are many panels.
        let small = |k| tiling(256, k, 14, 1, 4, 16);
        assert_eq!(plan(&small(256), 4, 8), (256, 2));
        assert_eq!(plan(&small(32 * 48), 4, 8), (128, 4));
        assert_eq!(plan(&small(32 * 47), 4, 8), (256, 2));
        let once = OnceSchedule::plan(&mib(4, 0), &large(), 3).schedule;
        assert_eq!(once, Schedule { tiles: 61, block_per_thread: true }, "24 blocks of at most 63");
    }

    #[test]
    fn blocks_fit_the_cache_or_feed_the_multipliers() {
        let mut cases = 0;
        for (caches, lanes) in machines().flat_map(|caches| [(caches, 16), (caches, 8)]) {
            for (c, k, side, m) in
                [(64, 64, 224, 6), (512, 512, 14, 4), (512, 512, 7, 2), (1, 3, 3, 6), (40, 2048, 60, 4)]
            {
                let tiling = tiling(c, k, side, 1, m, lanes);
                let block = tiling.block(&caches);
                let bytes = block * tiling.vector_bytes() * (tiling.c_blocks + tiling.k_blocks);
                assert!(bytes <= 2 * l2(&caches) || block <= 28, "{caches:?} {tiling:?}: {block}");
                let block = tiling.once_block(&caches);
                let bytes = block * tiling.vector_bytes() * tiling.c_blocks;
                assert!(bytes <= l2(&caches) || block <= MIN_TILES, "{caches:?} {tiling:?}: {block}");
                assert!(block > 0 && block <= tiling.tiles);
                cases += 1;
            }
        }
        assert!(cases > 0);
    }

    #[test]
    fn larger_caches_mean_larger_blocks_and_pieces() {
        let tiling = tiling(256, 256, 224, 1, 4, 16);
        let of = |l2: usize| Caches { l2: l2 << 20, ..Caches::UNKNOWN };
        assert!(tiling.block(&of(1)) < tiling.block(&of(8)));
        assert!(tiling.once_block(&of(1)) < tiling.once_block(&of(8)));
        let depth = |l2| OnceSchedule::plan(&of(l2), &tiling, 1).depth;
        assert!(depth(1) < depth(4));
    }

    #[test]
    fn data_that_fit_in_the_caches_arrive_sooner() {
        let tiling = tiling(64, 512, 28, 1, 6, 16);
        let of = |l2: usize, l3: usize| Caches { l2: l2 << 20, l3: l3 << 20, ..Caches::UNKNOWN };
        assert!(tiling.fetching(&of(1, 32)) < tiling.fetching(&of(1, 8)));
        assert!(tiling.spilling(&of(1, 32)) > 0.0 && tiling.spilling(&of(8, 32)) == 0.0);
        // A piece of U is deep, and then wide.
        let once = |l2| OnceSchedule::plan(&of(l2, 32), &tiling, 1);
        assert_eq!((once(1).blocks, once(1).depth), (2, 64));
        assert_eq!((once(8).blocks, once(8).depth), (4, 64));
    }

    #[test]
    fn many_threads_have_even_shares_of_small_maps() {
        let (mut cases, caches) = (0, Caches { l2: 1 << 20, ..Caches::UNKNOWN });
        for threads in [2, 3, 7, 16, 64] {
            for (c, side, m) in [(64, 56, 6), (128, 28, 6), (256, 14, 4), (512, 7, 2), (512, 14, 4)] {
                let tiling = tiling(c, c, side, 1, m, 16);
                let Schedule { tiles, block_per_thread } = Schedule::plan(&caches, &tiling, threads);
                // Tiles of products that the busiest thread computes, in shares of what it would be at best.
                let units = tiling.frequencies * tiling.k_blocks.div_ceil(2);
                let busiest = if block_per_thread {
                    (tiling.tiles.div_ceil(tiles).div_ceil(threads) * tiles).min(tiling.tiles) * units
                } else {
                    let piece = units.div_ceil(threads * TASKS_PER_THREAD);
                    tiling.tiles * (units.div_ceil(piece).div_ceil(threads) * piece)
                };
                let best = (tiling.tiles * units) as f64 / threads as f64;
                assert!(busiest as f64 <= 1.35 * best, "{threads} threads, {c} channels: {busiest}, {best}");
                cases += 1;
            }
        }
        assert_eq!(cases, 25);
    }

    #[test]
    fn every_thread_has_work_and_the_first_pieces_are_whole_vectors() {
        let mut cases = 0;
        for threads in 1..=64 {
            for (c, k, side, groups) in
                [(64, 64, 224, 1), (512, 512, 7, 1), (3, 64, 9, 1), (256, 512, 28, 4), (37, 5, 40, 1)]
            {
                for (caches, m) in machines().flat_map(|caches| [(caches, 2), (caches, 4), (caches, 6)]) {
                    let tiling = tiling(c, k, side, groups, m, 16);
                    let plan = Schedule::plan(&caches, &tiling, threads);
                    let once = OnceSchedule::plan(&caches, &tiling, threads);
                    for schedule in [plan, once.schedule] {
                        assert!((1..=tiling.tiles).contains(&schedule.tiles), "{tiling:?} {schedule:?}");
                        let tasks = groups as usize * tiling.tiles.div_ceil(schedule.tiles);
                        // Rounding a block up to whole tiles may leave the last threads without one.
                        let enough = tasks * MIN_TILES >= threads * (MIN_TILES - 1);
                        assert!(
                            !schedule.block_per_thread || threads == 1 || enough,
                            "{tiling:?} {schedule:?}"
                        );
                    }
                    assert!(once.depth == tiling.c || once.depth.is_multiple_of(16), "{once:?}");
                    assert!((1..=tiling.k_blocks).contains(&once.blocks) && once.depth > 0);
                    cases += 1;
                }
            }
        }
        assert!(cases > 0);
    }
}
