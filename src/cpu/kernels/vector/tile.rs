//! Tiles of packed panels, and of operands that are packed while the tile is computed.

use super::register::{Vector, finish, unrolled};
use crate::cpu::kernels::contract::{A_AHEAD, Epilogue, Panel, Tile};
use crate::cpu::tunables::B_AHEAD;

/// The innermost loop only computes. A is not packed.
pub(in crate::cpu::kernels) const IN_PLACE: u8 = 0;
/// It also prefetches packed panels of A.
pub(in crate::cpu::kernels) const FETCHING: u8 = 1;
/// It also prefetches packed panels of A and packs B. Loads of B are few compared with those of A, and wait for memory
/// while there is arithmetic to do. B is then read once less. All vectors are whole.
pub(in crate::cpu::kernels) const PACKING: u8 = 2;
/// It also packs A, which lies in rows, and prefetches the rows of the next panel. B is packed.
pub(in crate::cpu::kernels) const PACKING_A: u8 = 3;

/// A tile of M rows and V vectors, the last of which may be partial. WITH names what the innermost loop does. The third
/// part of `b` is where PACKING and PACKING_A pack to.
///
/// # Safety
/// The contract of [`Kernel::tile`](crate::cpu::kernels::Kernel::tile) for a tile of M rows and V vectors; with
/// PACKING, that of [`Kernel::tile_packing`](crate::cpu::kernels::Kernel::tile_packing); with PACKING_A, that of
/// [`Kernel::tile_packing_a`](crate::cpu::kernels::Kernel::tile_packing_a).
#[inline(always)]
pub(in crate::cpu::kernels) unsafe fn tile<T: Vector, const M: usize, const V: usize, const WITH: u8>(
    depth: usize,
    a: Panel,
    b: (*const f32, usize, *mut f32),
    c: Tile,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller keeps the contract; no mask is used only where the last vector is whole.
    unsafe {
        if !T::FREE_MASKS && c.cols == V * T::LANES {
            tile_of::<T, M, V, WITH, true>(depth, a, b, c, epilogue);
        } else {
            tile_of::<T, M, V, WITH, false>(depth, a, b, c, epilogue);
        }
    }
}

/// [`tile`]. WHOLE says that its last vector is read without a mask.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tile_of<T: Vector, const M: usize, const V: usize, const WITH: u8, const WHOLE: bool>(
    depth: usize,
    a: Panel,
    (b, b_step, packed): (*const f32, usize, *mut f32),
    c: Tile,
    epilogue: &Epilogue,
) {
    let Tile { start: c, ld: ldc, cols, .. } = c;
    let last = cols - (V - 1) * T::LANES;
    // SAFETY: everything read of A, B and C is inside of what the caller guarantees: rows below M, depths
    // below `depth`, and of the last vector only lanes below `last`. Prefetches may point anywhere.
    unsafe {
        let mask = T::mask(last);
        let mut sums = [[T::splat(0.0); V]; M];
        let mut at =
            Position { a: a.start, b, a_row: a.row, a_step: a.step, b_step, packed, ahead: std::ptr::null() };
        // C is prefetched one row at a time, so that A and B never wait for a burst of lines from memory.
        let each = depth / (M + 2);
        let mut row = c.cast_const();
        for i in 0..M {
            unrolled!(v below V: { T::prefetch(row.wrapping_add(v * T::LANES)) });
            T::prefetch(row.wrapping_add(cols - 1));
            row = row.wrapping_add(ldc);
            at.ahead = a.start.wrapping_add((M + i) * a.row);
            at.steps::<T, M, V, WITH, WHOLE>(each, &mut sums, mask);
        }
        at.steps::<T, M, V, WITH, WHOLE>(depth - M * each, &mut sums, mask);
        finish::<T, M, V, true>(&sums, Tile { start: c, ld: ldc, rows: M, cols }, epilogue);
    }
}

/// The position of the innermost loop in A and B.
struct Position {
    a: *const f32,
    b: *const f32,
    a_row: usize,
    a_step: usize,
    b_step: usize,
    packed: *mut f32,
    /// What is prefetched of A's next rows.
    ahead: *const f32,
}

impl Position {
    /// Computes the next `count` depths.
    ///
    /// # Safety
    /// The contract of [`tile`] for these depths; `mask` has the lanes of the last vector.
    #[inline(always)]
    unsafe fn steps<T: Vector, const M: usize, const V: usize, const WITH: u8, const WHOLE: bool>(
        &mut self,
        count: usize,
        sums: &mut [[T; V]; M],
        mask: T::Mask,
    ) {
        for _ in 0..count {
            // SAFETY: the caller guarantees these depths; pointers past the last are not used.
            unsafe {
                let mut values = [T::splat(0.0); V];
                unrolled!(v below V: {
                    let at = self.b.add(v * T::LANES);
                    let whole = WHOLE || v + 1 < V || WITH == PACKING || WITH == PACKING_A;
                    values[v] = if whole { T::load(at) } else { T::load_part(at, mask) };
                });
                if WITH == PACKING {
                    let ahead = self.b.wrapping_add(B_AHEAD * self.b_step);
                    unrolled!(v below V: {
                        values[v].store(self.packed.add(v * T::LANES));
                        T::prefetch(ahead.wrapping_add(v * T::LANES));
                    });
                    T::prefetch(ahead.wrapping_add(V * T::LANES - 1));
                    self.packed = self.packed.wrapping_add(V * T::LANES);
                }
                unrolled!(i below M: {
                    let element = *self.a.add(i * self.a_row);
                    if WITH == PACKING_A {
                        *self.packed.add(i) = element;
                    }
                    let value = T::splat(element);
                    unrolled!(v below V: { sums[i][v] = value.mul_add(values[v], sums[i][v]) });
                });
                if WITH == PACKING_A {
                    self.packed = self.packed.wrapping_add(M);
                    // The step is large enough that one row's share of the depths prefetches all of one row.
                    T::prefetch(self.ahead);
                    self.ahead = self.ahead.wrapping_add(M + 2);
                } else if WITH != IN_PLACE && V > 1 {
                    // With a single vector the load units have no time for prefetches.
                    T::prefetch(self.a.wrapping_offset(A_AHEAD));
                }
            }
            self.a = self.a.wrapping_add(self.a_step);
            self.b = self.b.wrapping_add(self.b_step);
        }
    }
}
