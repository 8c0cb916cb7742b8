//! How a strip of implicit GEMM is fed with B: from where it is, or from a panel that the first tile packs.
//!
//! A strip has a panel of B, and the panels of A of all rows. Each tile reads B once. In place that costs masks at
//! borders, rows that straddle cache lines, and, beyond L1, distances that no hardware prefetcher follows. A packed
//! panel is dense and aligned, but holds each element once for each tap that sees it, so it may leave L1 where the image
//! does not. Packing takes a store for each vector in the first tile. The order of all sums is the same, so the bits
//! of a result do not depend on this choice.
//!
//! What each way costs differs from CPU to CPU. [`Feeding`] holds rates of this machine; the engine measures them.

/// Rates of tiles of MR rows and NR columns, in depths a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feeding {
    /// From a packed panel in L1, and in L2.
    pub panel: [f64; 2],
    /// In place, all lanes read.
    pub in_place: [f64; 2],
    /// In place, some lanes masked.
    pub masked: [f64; 2],
    /// In place while packing, all lanes read or some masked.
    pub packing: [f64; 2],
}

impl Feeding {
    /// Rates for a machine that could not be measured: only their ratios count. In the middle of what two makers' CPUs
    /// showed.
    pub const UNMEASURED: Feeding =
        Feeding { panel: [1.0, 0.95], in_place: [0.9, 0.8], masked: [0.8, 0.75], packing: [0.65, 0.6] };

    /// Whether the first of `tiles` tiles should pack B. `masked` says whether lanes are masked. `view` and `panel` are
    /// the bytes of memory that the strip reads in place and packed, `l1` those of the cache.
    pub fn packs(&self, tiles: usize, masked: bool, (view, panel): (usize, usize), l1: usize) -> bool {
        // A's panels and C take the rest of the cache.
        let beyond = |bytes: usize| usize::from(bytes > l1 / 4 * 3);
        let in_place = if masked { self.masked } else { self.in_place }[beyond(view)];
        // A strip beyond L1 slows the tile that packs it as well.
        let first = self.packing[usize::from(masked)].min(in_place);
        let others = tiles.saturating_sub(1) as f64;
        tiles as f64 / in_place > 1.0 / first + others / self.panel[beyond(panel)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L1: usize = 48 << 10;
    const NEAR: usize = 20 << 10;
    const FAR: usize = 100 << 10;

    #[test]
    fn packing_pays_if_the_other_tiles_regain_what_the_first_one_loses() {
        // In place 10 units a tile; packed 8, after a first tile of 20: from six others on.
        let rates = Feeding {
            panel: [0.125, 0.1],
            in_place: [0.1, 0.05],
            masked: [0.1, 0.04],
            packing: [0.05, 0.04],
        };
        let near = |tiles| rates.packs(tiles, false, (NEAR, NEAR), L1);
        assert_eq!([1, 2, 5, 6, 7, 100].map(near), [false, false, false, false, true, true]);
        // A panel beyond L1 is as slow as reading in place from L1, which saves nothing.
        assert!(!rates.packs(1000, false, (NEAR, FAR), L1));
        // From L2, in place 20 units a tile; a panel in L2 takes 10.
        assert_eq!([1, 2, 3].map(|tiles| rates.packs(tiles, false, (FAR, FAR), L1)), [false, true, true]);
        // Masks: 25 units a tile, and the first tile as many.
        assert_eq!([1, 2].map(|tiles| rates.packs(tiles, true, (FAR, FAR), L1)), [false, true]);
        // The first tile of the packing way is not faster than a tile in place.
        let odd = Feeding { packing: [1.0, 1.0], panel: [0.1, 0.1], ..rates };
        assert!(!odd.packs(1000, false, (NEAR, NEAR), L1));
    }

    #[test]
    fn the_cache_has_room_for_three_quarters() {
        let rates = Feeding { panel: [1.0, 0.1], in_place: [0.5, 0.2], ..Feeding::UNMEASURED };
        assert!(rates.packs(100, false, (L1 / 4 * 3, L1 / 4 * 3), L1));
        assert!(!rates.packs(100, false, (L1 / 4 * 3, L1 / 4 * 3 + 1), L1));
        assert!(!rates.packs(100, false, (L1 / 4 * 3 + 1, L1 / 4 * 3 + 1), L1));
    }
}
