//! Block sizes of matrix products, and of convolutions as matrix products, for caches and threads.
//!
//! The plan is a pure function of the described hierarchy, the micro-kernel's tile, the problem and the number of
//! threads. Measured rates differ from day to day and must not influence the bits of a result, so they are not used.
//! The model is a core that does one step of an MR x NR tile (MR*NR multiply-adds) in a fixed time:
//!
//! * **KC**. A packed panel of B, KC x NR, is read once for each panel of A. It should stay in L1 together with the
//!   current and the next panel of A: `KC (NR + 2 MR) 4 <= L1`. Every block of depth reads and writes C once more, so
//!   KC should be as large as that allows.
//! * **MC**. Panels of A stream past each panel of B: MR elements per step, slowly enough for the next cache level. All
//!   of them together should fit in L2, because each is used once per panel of B: `MC KC 4 <= L2`. Each panel of B is
//!   packed again for each block of A, at the cost of some rows of it, so MC should be as large as that allows.
//! * **NC**. A task adds to its part of C, rows x NC, for each block of depth, so that part should stay in the cache:
//!   `rows NC 4 <= L2/2`. A task also reads its block of A again, KC elements per row, which should be a fraction of
//!   the C that it moves: `NC >= 2 KC` wins if the two conflict.
//! * **Matrix products** have larger blocks ([`Blocking::product`]), because they pack both operands in every call and
//!   add to C once per block of depth. L2 feeds a panel of B as fast as a tile reads it (NR elements per step), so the
//!   panel may fill a part of L2: `KC NR 4 <= L2/8`. A's panels, MR elements per step, can come from L3. So a quarter
//!   of L3, at most 4 MiB, is packed at once, and B is packed more rarely. Without a known L3, L2 is used.
//! * **Threads**. Tasks are blocks of columns times groups of rows. A task of w panels of B and g panels of A costs
//!   `w (g + 1)`: packing a panel of B costs about as much as multiplying it by one panel of A. Where nothing is packed,
//!   it costs `w (g + 1/4)`. The cut with the least `ceil(tasks/threads) task + task/2` is used: the rounds, and half a
//!   task because threads do not finish together. Products (images and groups) multiply the tasks; a task never spans
//!   two.
//!
//! KC does not depend on the number of threads, and nothing else here changes the order of a sum. So results have the
//! same bits at any number of threads.

use super::costs::cpu::tasks::{PACKED_PANEL, UNEVEN_END, VIEWED_PANEL};
use super::{Caches, Hierarchy};
use crate::problem::Conv2d;

/// Elements of a thread's workspace for packing: 1 MiB of fp32.
pub const WORKSPACE: usize = 1 << 18;

/// Problems with fewer floating-point operations run on the calling thread: waking threads takes about 20 microseconds.
pub const INLINE_FLOPS: u64 = 3_000_000;

/// The assumed size of the L1 cache if the system does not report it, in bytes. Nearly every CPU has at least that.
pub(crate) const L1_BYTES: usize = 32 << 10;
/// The assumed size of the L2 cache, likewise.
pub(super) const L2_BYTES: usize = 256 << 10;

/// The largest tile of C that a micro-kernel keeps in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ukernel {
    /// Rows.
    pub mr: usize,
    /// Columns.
    pub nr: usize,
}

/// Some products C = A B of one shape. The rows of C are contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Products {
    /// The number of products: images times groups of a convolution.
    pub count: usize,
    /// Rows of C: output channels of a group.
    pub rows: usize,
    /// Columns of C: output pixels.
    pub cols: usize,
    /// Length of the sums.
    pub depth: usize,
    /// Depths that should stay in one block: the taps of a channel.
    pub unit: usize,
}

impl From<&Conv2d> for Products {
    fn from(problem: &Conv2d) -> Self {
        let sizes = problem.sizes();
        Products {
            count: sizes.n * sizes.groups,
            rows: sizes.k / sizes.groups,
            cols: sizes.p * sizes.q,
            depth: problem.reduction(),
            unit: sizes.r * sizes.s,
        }
    }
}

/// The block sizes for a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocking {
    /// Depth of a block.
    pub kc: usize,
    /// Rows of A that are packed at a time, unless all of A is packed in advance.
    pub mc: usize,
    /// Columns of a task; a multiple of NR.
    pub nc: usize,
    /// Blocks of columns.
    pub col_blocks: usize,
    /// Panels of rows of a task.
    pub panels: usize,
    /// Groups of rows.
    pub row_groups: usize,
}

impl Blocking {
    /// Cuts `problem` for `threads` threads.
    pub fn plan(
        hierarchy: &Hierarchy,
        ukernel: Ukernel,
        problem: impl Into<Products>,
        threads: usize,
    ) -> Self {
        let caches = &hierarchy.caches;
        let (l1, l2) = (known(caches.l1, L1_BYTES), known(caches.l2, L2_BYTES));
        let max_kc = l1 / (ukernel.nr + 2 * ukernel.mr);
        Self::within(hierarchy, ukernel, problem.into(), threads, (max_kc, l2))
    }

    /// Cuts a matrix product without packed operands for `threads` threads.
    pub fn product(hierarchy: &Hierarchy, ukernel: Ukernel, problem: Products, threads: usize) -> Self {
        let caches = &hierarchy.caches;
        let l2 = known(caches.l2, L2_BYTES);
        let shared = if caches.l3 == 0 { l2 } else { l2.max(MAX_SHARED.min(known(caches.l3, 0) / 4)) };
        Self::within(hierarchy, ukernel, problem, threads, (l2 / 8 / ukernel.nr, shared))
    }

    /// Cuts `problem` into blocks of at most `max_kc` depths, and blocks of A of at most `room` elements.
    fn within(
        hierarchy: &Hierarchy,
        ukernel: Ukernel,
        problem: Products,
        threads: usize,
        (max_kc, room): (usize, usize),
    ) -> Self {
        let Ukernel { mr, nr } = ukernel;
        let limit = max_kc.min(WORKSPACE / nr).max(1);
        let unit = if problem.unit <= limit { problem.unit } else { 1 };
        let kc = even(problem.depth, limit, unit);
        let mc = even(problem.rows, room / kc, mr);
        let l2 = known(hierarchy.caches_for(threads).l2, L2_BYTES);
        let widest = (l2 / 2 / problem.rows.max(1)).max(2 * kc);
        let (panels, blocks) = (problem.rows.div_ceil(mr), problem.cols.div_ceil(nr));
        let (width, group) =
            cut(problem.count, panels, blocks, &Grain::PACKED.with_widest((widest / nr).max(1)), threads);
        let (col_blocks, row_groups) = (blocks.div_ceil(width), panels.div_ceil(group));
        Blocking { kc, mc, nc: width * nr, col_blocks, panels: group, row_groups }
    }

    /// Tasks of one product.
    pub fn tasks(&self) -> usize {
        self.col_blocks * self.row_groups
    }
}

/// The most elements of A that a matrix product packs at a time: 4 MiB of fp32.
const MAX_SHARED: usize = 1 << 20;

/// The memory layout of the operands of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperandLayout {
    /// Whether the rows of A are contiguous.
    pub a_rows: bool,
    /// Whether the rows of B are contiguous.
    pub b_rows: bool,
    /// Whether the columns of B are contiguous.
    pub b_cols: bool,
}

/// The method that computes a matrix product. It depends on how often operands are reused.
///
/// Packing reads and writes an element once more and makes each use cheaper. So it pays for elements that are used
/// often:
///
/// * **Dots**. With at most [`MAX_DOT_VECTORS`] rows or columns, each element of the large operand is used at most that
///   often. The operand streams through registers if its lines are contiguous in depth; the lines of the other operand
///   are copied if necessary. The depth must exceed [`MAX_SWEEP_DEPTH`]: below, adding up the lanes of a sum takes
///   longer than computing it.
/// * **Sweep**. With a depth of at most [`MAX_SWEEP_DEPTH`], writing a tile of C takes about as long as computing it,
///   so C is written row by row. Panels of B are packed; A is read in place.
/// * **Panels**. A is used once per panel of B's columns. It is read in place for at most two of them if its rows are
///   contiguous, or if all of it fits in L1. The same holds for B and the panels of A's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Dot products of lines.
    Dots,
    /// Row by row.
    Sweep,
    /// Panels, packed or in place.
    Panels {
        /// Whether A is read in place.
        a_in_place: bool,
        /// Whether B is read in place.
        b_in_place: bool,
    },
}

/// The most rows or columns of a product that is computed as dot products.
pub const MAX_DOT_VECTORS: usize = 4;

/// The largest depth of a product that is computed row by row.
pub const MAX_SWEEP_DEPTH: usize = 32;

impl Method {
    /// Chooses a method. The number of threads has no influence, so that the order of sums does not depend on it.
    pub fn plan(caches: &Caches, ukernel: Ukernel, problem: &Products, layout: OperandLayout) -> Self {
        let Products { rows, cols, depth, .. } = *problem;
        let Ukernel { mr, nr } = ukernel;
        // Lines of A stream past few columns of B, or lines of B past few rows of A.
        let dots = |few: usize, streams, ready| {
            few <= MAX_DOT_VECTORS
                && depth > MAX_SWEEP_DEPTH
                && streams
                && (ready || few * depth <= WORKSPACE)
        };
        if dots(cols, layout.a_rows, layout.b_cols) || dots(rows, layout.b_cols, layout.a_rows) {
            return Method::Dots;
        }
        let (row_panels, col_panels) = (rows.div_ceil(mr), cols.div_ceil(nr));
        if depth <= MAX_SWEEP_DEPTH && row_panels > 2 && col_panels > 2 {
            return Method::Sweep;
        }
        // A third of L1: the other operand and C need room as well.
        let small = |elements: usize| elements <= known(caches.l1, L1_BYTES) / 3;
        Method::Panels {
            a_in_place: small(rows.saturating_mul(depth)) || (col_panels <= 2 && layout.a_rows),
            b_in_place: layout.b_rows && (small(cols.saturating_mul(depth)) || row_panels <= 2),
        }
    }
}

/// Elements of fp32 in a cache of `bytes`, or of `assumed` bytes if `bytes` is 0, which means unknown.
pub(crate) fn known(bytes: usize, assumed: usize) -> usize {
    known_bytes(bytes, assumed) / size_of::<f32>()
}

/// The bytes of a cache, or `assumed` if `bytes` is 0, which means unknown.
pub(crate) fn known_bytes(bytes: usize, assumed: usize) -> usize {
    if bytes == 0 { assumed } else { bytes }
}

/// The limits on the size of tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grain {
    /// The most panels of B of a task.
    widest: usize,
    /// The cost of preparing a panel of B, in multiplications by a panel of A.
    preparing: f64,
    /// About the most tasks per thread.
    tasks: usize,
}

impl Grain {
    /// Panels of B are packed.
    pub(super) const PACKED: Self = Grain { widest: usize::MAX, preparing: PACKED_PANEL, tasks: 8 };
    /// Panels of B are views.
    pub(super) const VIEWED: Self = Grain { widest: usize::MAX, preparing: VIEWED_PANEL, tasks: 16 };

    /// The same limits, and at most `widest` panels of B per task.
    fn with_widest(self, widest: usize) -> Self {
        Grain { widest, ..self }
    }
}

/// The panels of B and of A of a task, for `products` products of `panels` panels of A and `blocks` panels of B.
pub(super) fn cut(
    products: usize,
    panels: usize,
    blocks: usize,
    grain: &Grain,
    threads: usize,
) -> (usize, usize) {
    let (panels, blocks) = (panels.max(1), blocks.max(1));
    let widest = even(blocks, grain.widest.min(blocks), 1);
    if threads == 1 {
        return (widest, panels);
    }
    let mut best = (f64::INFINITY, widest, panels);
    for groups in 1..=panels.min(2 * threads) {
        let group = panels.div_ceil(groups);
        let mut pieces = blocks.div_ceil(widest);
        loop {
            let width = blocks.div_ceil(pieces);
            let tasks = products * panels.div_ceil(group) * blocks.div_ceil(width);
            let task = width as f64 * (group as f64 + grain.preparing);
            let time = (tasks.div_ceil(threads) as f64 + UNEVEN_END) * task;
            if time < best.0 {
                best = (time, width, group);
            }
            if width == 1 || tasks >= grain.tasks * threads {
                break;
            }
            pieces += 1;
        }
    }
    (best.1, best.2)
}

/// The length of pieces if `total` is cut into as few as possible, of at most `limit` and about equal length. The
/// length is a multiple of `step`.
pub(crate) fn even(total: usize, limit: usize, step: usize) -> usize {
    let limit = (limit / step).max(1) * step;
    let pieces = total.div_ceil(limit).max(1);
    total.div_ceil(pieces).next_multiple_of(step).max(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Caches;
    use crate::problem::Conv2dDesc;

    fn machine(l1: usize, l2: usize) -> Hierarchy {
        Hierarchy { caches: Caches { l1, l2, ..Caches::UNKNOWN }, ..Hierarchy::UNKNOWN }
    }

    const TILES: [Ukernel; 4] = [
        Ukernel { mr: 8, nr: 48 },
        Ukernel { mr: 4, nr: 24 },
        Ukernel { mr: 4, nr: 8 },
        Ukernel { mr: 14, nr: 32 },
    ];

    #[test]
    fn assumed_sizes_and_the_workspace() {
        assert_eq!((4 * WORKSPACE, L1_BYTES, L2_BYTES), (1_048_576, 32_768, 262_144));
        assert_eq!(
            (known(0, 400), known(800, 400), known_bytes(0, 400), known_bytes(8, 400)),
            (100, 200, 400, 8)
        );
    }

    #[test]
    fn a_convolution_as_products() {
        let desc = Conv2dDesc { n: 3, c: 8, h: 10, w: 11, k: 6, r: 2, s: 5, groups: 2, ..Default::default() };
        let products = Products::from(&Conv2d::new(desc).unwrap());
        let expected = Products { count: 6, rows: 3, cols: 9 * 7, depth: 4 * 10, unit: 10 };
        assert_eq!(products, expected);
    }

    #[test]
    fn blocks_worked_by_hand() {
        // 12,288 elements of L1 hold 192 of (48 + 2 x 8); 576 in four even blocks of whole channels; L2 holds 1,820
        // rows of those.
        let problem = Products { count: 1, rows: 64, cols: 50_176, depth: 576, unit: 9 };
        let plan = Blocking::plan(&machine(48 << 10, 1 << 20), TILES[0], problem, 1);
        // Half of L2 holds 2,048 columns of 64 rows: 42 panels; 1,046 panels are 25 times that.
        let expected = Blocking { kc: 144, mc: 64, nc: 42 * 48, col_blocks: 25, panels: 8, row_groups: 1 };
        assert_eq!((plan, plan.tasks()), (expected, 25));
        // 4,096 rows leave 32 columns of that half; twice KC is more.
        let tall = Products { rows: 4096, cols: 1000, ..problem };
        let plan = Blocking::plan(&machine(48 << 10, 1 << 20), TILES[0], tall, 1);
        assert_eq!((plan.mc, plan.nc, plan.col_blocks), (1368, 6 * 48, 4));
        // With an L2 that two threads share, each has half: 21 panels.
        let caches = Caches { l2_threads: 2, ..machine(48 << 10, 1 << 20).caches };
        let shared = Hierarchy { threads: 2, caches, ..Hierarchy::UNKNOWN };
        let panels = |threads| Blocking::plan(&shared, TILES[0], problem, threads).nc / 48;
        assert_eq!(panels(1), 42);
        assert!(panels(2) <= 21);
        let tasks = Blocking { col_blocks: 7, row_groups: 3, ..expected }.tasks();
        assert_eq!(tasks, 21);
        // A panel of B fills an eighth of L2, 682 deep; A's block a quarter of L3, but no more than 4 MiB.
        let mut large = machine(48 << 10, 1 << 20);
        large.caches.l3 = 8 << 20;
        let square = Products { count: 1, rows: 4096, cols: 4096, depth: 4096, unit: 1 };
        let plan = Blocking::product(&large, TILES[0], square, 1);
        assert_eq!(
            (plan.kc, plan.mc),
            (586, 824),
            "7 blocks of depth; 2 MiB hold 894 rows, in 5 even blocks"
        );
        // However large the caches, a panel of B fits a workspace: 5,461 deep.
        let deep = Products { depth: 6000, ..square };
        assert_eq!(Blocking::product(&machine(1 << 20, 64 << 20), TILES[0], deep, 1).kc, 3000);
    }

    /// The cut has the least time of all cuts that are considered: more and more pieces, up to the limit of tasks per
    /// thread.
    #[test]
    fn a_cut_is_the_best_there_is() {
        let (mut cases, mut cut_up) = (0, 0);
        let shapes = [
            (1, 1, 1),
            (1, 3, 5),
            (3, 2, 4),
            (2, 1, 7),
            (1, 8, 1047),
            (5, 3, 65),
            (1, 64, 2),
            (300, 8, 2),
            (1, 40, 40),
        ];
        for ((products, panels, blocks), threads) in
            shapes.into_iter().flat_map(|it| [2usize, 3, 8, 16].map(|threads| (it, threads)))
        {
            for (grain, preparing, max) in [(Grain::PACKED, 1.0, 8), (Grain::VIEWED, 0.25, 16)] {
                for widest in [usize::MAX, 20] {
                    let tasks = |width: usize, group: usize| {
                        products * usize::div_ceil(panels, group) * usize::div_ceil(blocks, width)
                    };
                    let time = |(width, group): (usize, usize)| {
                        let rounds = tasks(width, group).div_ceil(threads) as f64;
                        (rounds + 0.5) * width as f64 * (group as f64 + preparing)
                    };
                    let fewest = blocks.div_ceil(widest.min(blocks));
                    let mut least = f64::INFINITY;
                    for group in (1..=panels.min(2 * threads)).map(|groups| panels.div_ceil(groups)) {
                        for pieces in fewest..=blocks {
                            let many = |pieces: usize| tasks(blocks.div_ceil(pieces), group) >= max * threads;
                            if pieces > fewest && many(pieces - 1) {
                                break;
                            }
                            least = least.min(time((blocks.div_ceil(pieces), group)));
                        }
                    }
                    let got = cut(products, panels, blocks, &grain.with_widest(widest), threads);
                    assert_eq!(time(got), least, "{products} {panels} {blocks} {threads}: {got:?}");
                    assert!(got.0 <= widest);
                    cut_up += usize::from(got != (blocks, panels));
                    cases += 1;
                }
            }
        }
        assert!(cases > 100 && cut_up > 80, "{cases} {cut_up}");
        assert_eq!(
            cut(2, 7, 100, &Grain::PACKED.with_widest(30), 1),
            (25, 7),
            "one thread: as wide as allowed, evenly"
        );
        assert_eq!(cut(1, 0, 0, &Grain::PACKED, 4), (1, 1));
    }

    #[test]
    fn even_pieces_cover_the_whole_and_keep_the_limit() {
        assert_eq!(even(576, 256, 1), 192);
        assert_eq!(even(147, 256, 1), 147);
        assert_eq!(even(196, 224, 32), 224);
        assert_eq!(even(1, 8, 32), 32);
        let mut cases = 0;
        for (total, limit, step) in (1..300).flat_map(|total| [(total, 64, 8), (total, 37, 6), (total, 5, 1)])
        {
            let piece = even(total, limit, step);
            assert!(piece.is_multiple_of(step) && piece <= limit && piece >= step, "{total} {limit} {step}");
            assert_eq!(total.div_ceil(piece), total.div_ceil(limit / step * step), "as few as possible");
            cases += 1;
        }
        assert!(cases > 0);
    }

    #[test]
    fn blocks_fit_the_caches_of_any_machine_and_cover_the_problem() {
        let mut cases = 0;
        for (l1, l2) in [(4, 16), (16, 128), (32, 256), (48, 1024), (128, 12 << 10), (1024, 1 << 20), (0, 0)]
        {
            let machine = machine(l1 << 10, l2 << 10);
            for tile in TILES {
                for (rows, cols, depth, unit) in [
                    (64, 50_176, 576, 9),
                    (512, 49, 4608, 9),
                    (1, 1, 1, 1),
                    (2048, 7, 512, 1),
                    (3, 9, 961, 961),
                ] {
                    for (count, threads) in [(1, 1), (1, 2), (1, 64), (5, 3), (300, 16)] {
                        let problem = Products { count, rows, cols, depth, unit };
                        let plan = Blocking::plan(&machine, tile, problem, threads);
                        let l1 = known(machine.caches.l1, L1_BYTES);
                        assert!(plan.kc * (tile.nr + 2 * tile.mr) <= l1 || plan.kc == 1, "{plan:?}");
                        assert!(plan.kc * tile.nr <= WORKSPACE);
                        assert!(
                            plan.mc * plan.kc <= known(machine.caches.l2, L2_BYTES) || plan.mc == tile.mr
                        );
                        assert!(plan.nc.is_multiple_of(tile.nr) && plan.nc > 0 && plan.kc > 0);
                        assert_eq!(plan.col_blocks, cols.div_ceil(plan.nc), "{plan:?}");
                        assert_eq!(plan.row_groups, rows.div_ceil(tile.mr).div_ceil(plan.panels), "{plan:?}");
                        let alone = Blocking::plan(&machine, tile, problem, 1);
                        assert_eq!((alone.kc, alone.mc, alone.row_groups), (plan.kc, plan.mc, 1));
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 0);
    }

    #[test]
    fn operands_are_packed_where_they_are_used_often() {
        let caches = Caches { l1: 48 << 10, l2: 1 << 20, ..Caches::UNKNOWN };
        let plain = OperandLayout { a_rows: true, b_rows: true, b_cols: false };
        let way = |rows, cols, depth, layout| {
            Method::plan(&caches, TILES[0], &Products { count: 1, rows, cols, depth, unit: 1 }, layout)
        };
        let in_place = |a_in_place, b_in_place| Method::Panels { a_in_place, b_in_place };
        assert_eq!(way(1000, 1000, 1000, plain), in_place(false, false));
        assert_eq!(way(20, 20, 20, plain), in_place(true, true));
        assert_eq!(way(10_000, 16, 1000, plain), in_place(true, false));
        assert_eq!(way(1, 1000, 1000, plain), in_place(true, true));
        assert_eq!(way(1, 1000, 1000, OperandLayout { b_cols: true, b_rows: false, ..plain }), Method::Dots);
        assert_eq!(way(1000, 1, 1000, OperandLayout { b_cols: true, ..plain }), Method::Dots);
        assert_eq!(way(1000, 4, 1000, plain), Method::Dots);
        assert_eq!(way(1000, 4, MAX_SWEEP_DEPTH + 1, plain), Method::Dots);
        assert_eq!(way(100, 3, 5, plain), in_place(true, true));
        assert_eq!(way(1000, 4, MAX_SWEEP_DEPTH, plain), in_place(true, true));
        // Four columns of that length do not fit in a workspace.
        assert!(matches!(way(1000, 4, 100_000, plain), Method::Panels { .. }));
        assert_eq!(way(1000, 1000, 8, plain), Method::Sweep);
        // That takes three panels in each direction.
        assert_eq!(
            (way(17, 97, 8, plain), way(17, 97, MAX_SWEEP_DEPTH, plain)),
            (Method::Sweep, Method::Sweep)
        );
        assert_eq!(
            (way(16, 97, 8, plain), way(17, 96, 8, plain)),
            (in_place(true, true), in_place(true, true))
        );
        // B's columns cannot be read in place, however small it is.
        assert_eq!(
            way(20, 20, 20, OperandLayout { b_rows: false, b_cols: true, ..plain }),
            in_place(true, false)
        );
        // A's columns can be read in place only if all of A is small.
        assert_eq!(way(10_000, 16, 1000, OperandLayout { a_rows: false, ..plain }), in_place(false, false));
    }

    #[test]
    fn larger_caches_mean_larger_blocks() {
        let problem = Products { count: 1, rows: 4096, cols: 4096, depth: 4096, unit: 1 };
        let kc = |l1| Blocking::plan(&machine(l1, 0), TILES[0], problem, 1).kc;
        assert!(kc(8 << 10) < kc(32 << 10) && kc(32 << 10) < kc(128 << 10));
    }

    #[test]
    fn products_fill_a_part_of_the_outer_caches() {
        let mut cases = 0;
        for (l2, l3) in [(128, 0), (256, 6 << 10), (1024, 32 << 10), (12 << 10, 0), (2048, 512 << 10), (0, 0)]
        {
            let mut machine = machine(32 << 10, l2 << 10);
            machine.caches.l3 = l3 << 10;
            let l2 = known(machine.caches.l2, L2_BYTES);
            for (tile, side, threads) in
                TILES.iter().flat_map(|&tile| [1, 33, 512, 1000, 4096].map(|side| (tile, side, 1 + side % 3)))
            {
                let problem = Products { count: 1, rows: side, cols: side, depth: side, unit: 16 };
                let plan = Blocking::product(&machine, tile, problem, threads);
                assert!(plan.kc * tile.nr <= (l2 / 8).max(16 * tile.nr) && plan.kc * tile.nr <= WORKSPACE);
                let room = (l3 << 10) / 16;
                assert!(plan.mc * plan.kc <= l2.max(room.min(1 << 20)) || plan.mc == tile.mr, "{plan:?}");
                let alone = Blocking::product(&machine, tile, problem, 1);
                assert_eq!((alone.kc, alone.mc), (plan.kc, plan.mc), "threads must not change the sums");
                cases += 1;
            }
        }
        assert!(cases > 0);
        let block = |l3| {
            let mut machine = machine(48 << 10, 1 << 20);
            machine.caches.l3 = l3;
            let problem = Products { count: 1, rows: 4096, cols: 4096, depth: 4096, unit: 16 };
            Blocking::product(&machine, TILES[0], problem, 1).mc
        };
        assert!(block(0) < block(8 << 20) && block(8 << 20) < block(32 << 20));
        assert_eq!(block(32 << 20), block(1 << 30), "4 MiB at most");
    }

    #[test]
    fn small_maps_are_split_over_rows_and_large_ones_over_columns() {
        let machine = machine(48 << 10, 1 << 20);
        let shape = |rows, cols| Products { count: 1, rows, cols, depth: 512, unit: 1 };
        let small = Blocking::plan(&machine, TILES[0], shape(512, 49), 2);
        assert!(small.row_groups >= 2, "{small:?}");
        let large = Blocking::plan(&machine, TILES[0], shape(64, 50_176), 2);
        assert!(large.row_groups == 1 && large.col_blocks >= 4, "{large:?}");
        let batch = Blocking::plan(&machine, TILES[0], Products { count: 64, ..shape(64, 49) }, 4);
        assert_eq!(batch.row_groups, 1, "{batch:?}");
    }

    #[test]
    fn every_thread_has_work_where_there_is_enough() {
        let mut cases = 0;
        for threads in 1..=64 {
            for (rows, cols) in [(512, 49), (64, 3136), (256, 196), (2048, 49)] {
                let problem = Products { count: 1, rows, cols, depth: 256, unit: 1 };
                let plan = Blocking::plan(&Hierarchy::UNKNOWN, TILES[0], problem, threads);
                let total = rows.div_ceil(8) * cols.div_ceil(48);
                if threads > total / 2 {
                    continue;
                }
                // Rounds of the largest task: at most twice as long as if all threads ended together.
                let rounds = plan.tasks().div_ceil(threads) * plan.panels * plan.nc / 48;
                assert!(rounds * threads <= 2 * total, "{threads} threads: {plan:?}");
                cases += 1;
            }
        }
        assert!(cases > 0);
    }
}
