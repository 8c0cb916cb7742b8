//! Block sizes: the one table of the CPU engine, and how a C is cut into tasks.
//!
//! None of this changes a result. Sums run over depth in blocks that depend on the problem alone, and how C
//! is cut decides only which thread computes an element; so results are the same bits at any number of
//! threads.

/// Sizes of blocks and when to use threads.
#[derive(Debug, Clone, Copy)]
pub struct Blocking {
    /// KC: the depth of a block. A panel of A, MR x KC, stays in the L1 cache while panels of B stream past.
    pub depth: usize,
    /// Elements of the packed block of B that a task works on, KC x NC; it stays in the L2 cache. The whole
    /// workspace of a thread.
    pub block: usize,
    /// Elements of A that all tasks share at a time, MC x KC; they stay in the last-level cache.
    pub shared: usize,
    /// Problems with fewer floating-point operations are not worth waking threads for: that takes some 20
    /// microseconds.
    pub inline_flops: u64,
    /// Tasks for each thread, so that uneven ones balance.
    pub tasks_per_thread: usize,
}

/// The sizes in use: 256 KiB of B a thread and 512 KiB of A a call.
pub const BLOCKING: Blocking =
    Blocking { depth: 192, block: 1 << 16, shared: 1 << 17, inline_flops: 3_000_000, tasks_per_thread: 3 };

/// The length of the pieces when `total` is cut into as few as possible of at most `limit`, all about as
/// long, and their lengths multiples of `step`.
pub fn even(total: usize, limit: usize, step: usize) -> usize {
    let limit = (limit / step).max(1) * step;
    let pieces = total.div_ceil(limit).max(1);
    total.div_ceil(pieces).next_multiple_of(step).max(step)
}

/// How each of several equal products C = A B is cut into tasks: blocks of columns and, if these are too few,
/// groups of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Columns of a block; a multiple of NR.
    pub cols: usize,
    /// Number of column blocks.
    pub col_blocks: usize,
    /// Row panels of a group.
    pub panels: usize,
    /// Number of row groups.
    pub row_groups: usize,
}

impl Grid {
    /// Cuts `products` products of `panels` row panels and `cols` columns for `threads` threads. A block of B
    /// is at most `depth` deep; `nr` is the kernel's NR.
    pub fn new(products: usize, panels: usize, cols: usize, depth: usize, nr: usize, threads: usize) -> Self {
        let mut width = even(cols, BLOCKING.block / depth, nr);
        let wanted = if threads > 1 { threads * BLOCKING.tasks_per_thread } else { 1 };
        if products * cols.div_ceil(width) < wanted {
            // Narrower blocks repeat no packing of B, so they come before row groups; below two panels A is
            // read too often.
            let pieces = wanted.div_ceil(products);
            width = cols.div_ceil(pieces).next_multiple_of(nr).max(2 * nr).min(width);
        }
        let col_blocks = cols.div_ceil(width);
        let lacking = threads.div_ceil(products * col_blocks).min(panels.div_ceil(2)).max(1);
        let group = panels.div_ceil(lacking);
        Grid { cols: width, col_blocks, panels: group, row_groups: panels.div_ceil(group) }
    }

    /// Tasks of one product.
    pub fn tasks(&self) -> usize {
        self.col_blocks * self.row_groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(
                piece.is_multiple_of(step) && piece <= limit && piece >= step,
                "{total} {limit} {step}: {piece}"
            );
            assert_eq!(total.div_ceil(piece), total.div_ceil(limit / step * step), "as few as possible");
            cases += 1;
        }
        assert!(cases > 0);
    }

    #[test]
    fn grids_cover_c_fit_the_block_and_feed_the_threads() {
        let mut cases = 0;
        for products in [1, 2, 64] {
            for panels in [1, 2, 5, 37] {
                for cols in [1, 31, 49, 196, 3_136, 50_176] {
                    for threads in [1, 2, 3, 16] {
                        let (depth, nr) = (256, 32);
                        let grid = Grid::new(products, panels, cols, depth, nr, threads);
                        assert!(
                            grid.cols.is_multiple_of(nr) && grid.cols * depth <= BLOCKING.block,
                            "{grid:?}"
                        );
                        assert_eq!(grid.col_blocks, cols.div_ceil(grid.cols));
                        assert_eq!(grid.row_groups, panels.div_ceil(grid.panels));
                        let most = products * cols.div_ceil(nr).div_ceil(2) * panels.div_ceil(2);
                        assert!(
                            products * grid.tasks() >= threads.min(most).div_ceil(2),
                            "{grid:?} {threads}"
                        );
                        cases += 1;
                    }
                }
            }
        }
        assert!(cases > 0);
    }

    #[test]
    fn one_thread_does_not_pay_for_balance() {
        let grid = Grid::new(1, 37, 196, 256, 32, 1);
        assert_eq!(grid, Grid { cols: 224, col_blocks: 1, panels: 37, row_groups: 1 });
    }
}
