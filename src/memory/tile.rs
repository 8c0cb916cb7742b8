//! The register tile: how many rows and columns of C a micro-kernel keeps in vector registers.
//!
//! The model of Goto and van de Geijn (2008) and of BLIS (Low et al., Analytical modeling is enough for
//! high-performance BLIS, 2016). In each step of depth a tile of MR rows and V vectors of L lanes (NR = V L) takes MR
//! elements of A and V vectors of B, and does MR V multiply-adds of vectors:
//!
//! * it must fit: MR V sums, the V vectors of B, and two registers for an element of A spread over all lanes and the
//!   next one, which compilers load meanwhile, `MR V + V + 2 <= registers`. With one less they keep a sum in memory,
//!   and its chain of additions then passes through that: 4 x 24 on 16 registers reached 40 of 122 GFLOPS, 6 x 16 115;
//! * it must hide the units' latency: at least as many independent sums as are under way, two units of four or five
//!   steps, [`IN_FLIGHT`];
//! * it should load little: MR + V loads for MR V multiply-adds. The best tile has the largest
//!   `MR V / (MR + V)`. From 1 upwards a core that starts as many loads as multiply-adds in a cycle computes all the
//!   time; what is above that is reserve, for packing and for loads that miss.
//!
//! What the model cannot do is decide at run time. Registers have no addresses, so a tile is a constant of compiled
//! code. Each kernel is compiled with one, chosen among those that the model admits by what it does not see: how much
//! of a tile is computed for nothing at the edges of common maps, and measured speed. A test holds every kernel's tile
//! against this model for its registers. Nothing else in the planner or the loops knows a tile but through the
//! kernel's MR and NR.

use super::Registers;

/// Sums that two multiply-add units of four or five cycles latency have under way.
const IN_FLIGHT: usize = 8;

/// Registers for elements of A: the one in use, and the next.
const ELEMENTS_OF_A: usize = 2;

/// A tile and what it is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegisterTile {
    /// Rows.
    pub mr: usize,
    /// Columns: whole vectors.
    pub nr: usize,
    /// Multiply-adds of vectors for each load, MR V / (MR + V).
    pub reuse: f64,
}

/// All tiles that fit `registers` and hide the latency, the best first.
pub fn register_tiles(registers: Registers) -> Vec<RegisterTile> {
    let Registers { count, lanes } = registers;
    let room = |v: usize| count.saturating_sub(v + ELEMENTS_OF_A) / v;
    let of =
        |mr: usize, v: usize| RegisterTile { mr, nr: v * lanes, reuse: (mr * v) as f64 / (mr + v) as f64 };
    let mut tiles: Vec<_> =
        (1..count).flat_map(|v| (1..=room(v)).map(move |mr| (mr, v))).map(|(mr, v)| of(mr, v)).collect();
    tiles.retain(|tile| tile.mr * tile.nr >= IN_FLIGHT * lanes);
    // Of equals the one with more rows: fewer columns are computed for nothing at the edge of a small map.
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
        // What BLIS has for AVX2.
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
