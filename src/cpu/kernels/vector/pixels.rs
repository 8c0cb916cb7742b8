//! Tiles whose rows are pixels and whose lanes are channels, for images that hold the channels of a pixel side by side.

use super::register::{Vector, unrolled};
use crate::cpu::kernels::contract::{CHANNELWISE, ChannelwiseTile, RunTile, Tile};

/// A tile of M pixels and V vectors of output channels, the last of which may be partial.
///
/// # Safety
/// The contract of [`Kernel::runs`](crate::cpu::kernels::Kernel::runs) for a tile of M rows and V vectors.
#[inline(always)]
pub(in crate::cpu) unsafe fn runs<T: Vector, const M: usize, const V: usize, const NR: usize>(
    tile: &RunTile,
) {
    let RunTile { a, row, runs, c, .. } = *tile;
    let mut b = tile.b;
    // SAFETY: the caller guarantees M rows of A, NR columns of B for each depth, and M rows of C. No run is empty, so each
    // that is begun is there. Prefetches may point anywhere.
    unsafe {
        let mut sums = [[T::splat(0.0); V]; M];
        unrolled!(i below M: { T::prefetch(c.start.wrapping_add(i * c.ld)) });
        // One loop with a branch: with a loop inside a loop, compilers move sums out of registers and back in between.
        let depth: usize = runs.iter().map(|run| run.len).sum();
        let (mut rest, mut at, mut left) = (runs.as_ptr(), a, 0);
        for _ in 0..depth {
            if left == 0 {
                let run = rest.read();
                (rest, at, left) = (rest.add(1), a.add(run.offset), run.len);
            }
            left -= 1;
            let mut values = [T::splat(0.0); V];
            unrolled!(v below V: { values[v] = T::load(b.add(v * T::LANES)) });
            unrolled!(i below M: {
                let value = T::splat(*at.add(i * row));
                unrolled!(v below V: { sums[i][v] = value.mul_add(values[v], sums[i][v]) });
            });
            at = at.wrapping_add(1);
            b = b.wrapping_add(NR);
        }
        store::<T, M, V>(&sums, c, tile);
    }
}

/// Adds the old C and the bias, applies ReLU, and stores.
///
/// # Safety
/// As [`runs`].
#[inline(always)]
unsafe fn store<T: Vector, const M: usize, const V: usize>(sums: &[[T; V]; M], c: Tile, tile: &RunTile) {
    let last = c.cols - (V - 1) * T::LANES;
    // SAFETY: rows are below M; of the last vector only lanes below `last` are touched in C. The bias reaches to its
    // end.
    unsafe {
        let mask = T::mask(last);
        let mut bias = [T::splat(0.0); V];
        if !tile.bias.is_null() {
            unrolled!(v below V: { bias[v] = T::load(tile.bias.add(v * T::LANES)) });
        }
        unrolled!(i below M: {
            unrolled!(v below V: {
                let at = c.start.add(i * c.ld + v * T::LANES);
                let part = v + 1 == V && last < T::LANES;
                let mut value = sums[i][v];
                if tile.add {
                    value = value.add(if part { T::load_part(at, mask) } else { T::load(at) });
                }
                if !tile.bias.is_null() {
                    value = value.add(bias[v]);
                }
                if tile.relu {
                    value = value.relu();
                }
                if part { value.store_part(at, mask) } else { value.store(at) }
            });
        });
    }
}

/// Some channels of some pixels, each channel by itself.
///
/// # Safety
/// The contract of [`Kernel::channelwise`](crate::cpu::kernels::Kernel::channelwise).
#[inline(always)]
pub(in crate::cpu) unsafe fn channelwise<T: Vector>(tile: &ChannelwiseTile) {
    let mut c = 0;
    // SAFETY: the caller keeps the contract; the channels of each call are below the tile's.
    unsafe {
        while c < tile.channels {
            let left = tile.channels - c;
            let two = left >= 2 * T::LANES;
            match (tile.pixels == CHANNELWISE, two) {
                (true, true) => channels::<T, CHANNELWISE, 2>(tile, c, T::LANES),
                (true, false) => channels::<T, CHANNELWISE, 1>(tile, c, left.min(T::LANES)),
                (false, true) => channels::<T, 1, 2>(tile, c, T::LANES),
                (false, false) => channels::<T, 1, 1>(tile, c, left.min(T::LANES)),
            }
            c += if two { 2 * T::LANES } else { T::LANES };
        }
    }
}

/// M pixels of V vectors of channels from channel `first` on. The last vector has `last` channels.
///
/// # Safety
/// As [`channelwise`].
#[inline(always)]
unsafe fn channels<T: Vector, const M: usize, const V: usize>(
    tile: &ChannelwiseTile,
    first: usize,
    last: usize,
) {
    // SAFETY: the caller guarantees these channels; lanes after the last channel are not touched.
    unsafe {
        let mask = T::mask(last);
        let whole = last == T::LANES;
        let load = |from: *const f32| if whole { T::load(from) } else { T::load_part(from, mask) };
        let mut sums = [[T::splat(0.0); V]; M];
        let mut weights = tile.weights.add(first);
        for &tap in tile.taps {
            let from = tap.add(first);
            unrolled!(v below V: {
                let weight = load(weights.add(v * T::LANES));
                unrolled!(i below M: {
                    let value = load(from.add(i * tile.row + v * T::LANES));
                    sums[i][v] = value.mul_add(weight, sums[i][v]);
                });
            });
            weights = weights.add(tile.pitch);
        }
        unrolled!(i below M: {
            unrolled!(v below V: {
                let mut value = sums[i][v];
                if !tile.bias.is_null() {
                    value = value.add(load(tile.bias.add(first + v * T::LANES)));
                }
                if tile.relu {
                    value = value.relu();
                }
                let to = tile.to.add(i * tile.line + first + v * T::LANES);
                if whole { value.store(to) } else { value.store_part(to, mask) }
            });
        });
    }
}
