//! Register tiles: the rows and columns of C that a micro-kernel keeps in vector registers.
//!
//! The model follows Goto and van de Geijn (2008) and BLIS (Low et al., Analytical modeling is enough for
//! high-performance BLIS, 2016). A tile has MR rows and V vectors of L lanes, NR = V L. A step of depth loads MR
//! elements of A and V vectors of B, and does MR V multiply-adds of vectors:
//!
//! * The tile must fit: MR V sums, V vectors of B, and two registers for the current and the next element of A,
//!   broadcast to all lanes, which compilers load ahead: `MR V + V + 2 <= registers`. With one register less, compilers
//!   keep a sum in memory, and its chain of additions passes through memory: 4 x 24 on 16 registers reaches 40 of 122
//!   GFLOPS, 6 x 16 reaches 115.
//! * The tile must hide the latency of the units: it needs as many independent sums as are in flight, two units times
//!   four or five cycles, [`IN_FLIGHT`].
//! * The tile should load little: MR + V loads for MR V multiply-adds. The best tile has the largest `MR V / (MR + V)`.
//!   A core that starts as many loads as multiply-adds per cycle is compute-bound from 1 upwards; more leaves room for
//!   packing and for loads that miss.
//!
//! Registers have no addresses, so a tile is a constant of compiled code and cannot be chosen at run time. Each
//! kernel's tile is one that the model admits, selected by measured speed and by the padding at the edges of common
//! maps. A test checks every kernel's tile against this model. Planners and loops know a tile only through the kernel's
//! MR and NR.

use super::Registers;

/// Sums in flight in two multiply-add units with a latency of four or five cycles.
pub(super) const IN_FLIGHT: usize = 8;

/// Registers for elements of A: the current one and the next.
pub(super) const ELEMENTS_OF_A: usize = 2;

/// A tile and its reuse of loaded values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegisterTile {
    /// Rows.
    pub mr: usize,
    /// Columns: whole vectors.
    pub nr: usize,
    /// Multiply-adds of vectors per load, MR V / (MR + V).
    pub reuse: f64,
}

/// All tiles that fit in `registers` and hide the latency, the best first.
pub fn register_tiles(registers: Registers) -> Vec<RegisterTile> {
    let Registers { count, lanes } = registers;
    let room = |v: usize| count.saturating_sub(v + ELEMENTS_OF_A) / v;
    let of =
        |mr: usize, v: usize| RegisterTile { mr, nr: v * lanes, reuse: (mr * v) as f64 / (mr + v) as f64 };
    let mut tiles: Vec<_> =
        (1..count).flat_map(|v| (1..=room(v)).map(move |mr| (mr, v))).map(|(mr, v)| of(mr, v)).collect();
    tiles.retain(|tile| tile.mr * tile.nr >= IN_FLIGHT * lanes);
    // Of equal tiles, the one with more rows comes first: it wastes fewer columns at the edge of a small map.
    tiles.sort_by(|a, b| b.reuse.total_cmp(&a.reuse).then(b.mr.cmp(&a.mr)));
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTERS: [(usize, usize); 5] = [(32, 16), (16, 8), (32, 4), (16, 4), (64, 32)];

    #[test]
    fn the_best_tiles_are_the_known_ones() {
        let best = |count, lanes| {
            let tile = register_tiles(Registers { count, lanes })[0];
            (tile.mr, tile.nr)
        };
        // The tile of BLIS for AVX2.
        assert_eq!(best(16, 8), (6, 16));
        assert_eq!(best(32, 16), (5, 80));
    }

    #[test]
    fn every_tile_fits_and_they_are_ranked() {
        let mut cases = 0;
        for (count, lanes) in REGISTERS {
            let tiles = register_tiles(Registers { count, lanes });
            assert!(tiles.windows(2).all(|pair| pair[0].reuse >= pair[1].reuse));
            for tile in tiles {
                let v = tile.nr / lanes;
                assert!(
                    tile.nr.is_multiple_of(lanes) && tile.mr * v + v + 2 <= count && tile.mr * v >= IN_FLIGHT
                );
                cases += 1;
            }
        }
        assert!(cases > 100);
        assert_eq!(register_tiles(Registers::UNKNOWN), []);
        assert_eq!(register_tiles(Registers { count: 8, lanes: 4 }), [], "too few to hide the latency");
    }

    #[test]
    fn more_registers_never_make_the_best_tile_worse() {
        let best =
            |count| register_tiles(Registers { count, lanes: 8 }).first().map_or(0.0, |tile| tile.reuse);
        assert!((1..64).all(|count| best(count) <= best(count + 1)));
    }
}
