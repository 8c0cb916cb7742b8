//! Tiles of packed panels, and of operands that are packed while the tile is computed.

use super::register::{Vector, finish, unrolled};
use crate::cpu::kernels::contract::{A_AHEAD, Epilogue, NextRows, Panel, Tile, prefetch};
use crate::cpu::tunables::B_AHEAD;

/// The innermost loop only computes. A is not packed.
pub(in crate::cpu) const IN_PLACE: u8 = 0;
/// It also prefetches packed panels of A.
pub(in crate::cpu) const FETCHING: u8 = 1;
/// It also prefetches packed panels of A and packs B. Loads of B are few compared with those of A, and wait for memory
/// while there is arithmetic to do. B is then read once less. All vectors are whole.
pub(in crate::cpu) const PACKING: u8 = 2;
/// It also packs A, which lies in rows, and prefetches the rows of the next panel. B is packed.
pub(in crate::cpu) const PACKING_A: u8 = 3;

/// A tile of M rows and V vectors, the last of which may be partial. WITH names what the innermost loop does. The third
/// part of `b` is where PACKING and PACKING_A pack to.
///
/// # Safety
/// The contract of [`Kernel::tile`](crate::cpu::kernels::Kernel::tile) for a tile of M rows and V vectors; with
/// PACKING, that of [`Kernel::tile_packing`](crate::cpu::kernels::Kernel::tile_packing); with PACKING_A, that of
/// [`Kernel::tile_packing_a`](crate::cpu::kernels::Kernel::tile_packing_a).
#[inline(always)]
pub(in crate::cpu) unsafe fn tile<
    T: Vector,
    const M: usize,
    const V: usize,
    const WITH: u8,
    const MR: usize,
    const NR: usize,
>(
    depth: usize,
    a: Panel,
    b: (*const f32, usize, *mut f32),
    c: Tile,
    epilogue: &Epilogue,
    next: &NextRows,
) {
    // SAFETY: the caller keeps the contract; no mask is used only where the last vector is whole.
    unsafe {
        if c.cols == V * T::LANES {
            tile_of::<T, M, V, WITH, true, MR, NR>(depth, a, b, c, epilogue, next);
        } else {
            tile_of::<T, M, V, WITH, false, MR, NR>(depth, a, b, c, epilogue, next);
        }
    }
}

/// [`tile`]. WHOLE says that its last vector is read without a mask.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tile_of<
    T: Vector,
    const M: usize,
    const V: usize,
    const WITH: u8,
    const WHOLE: bool,
    const MR: usize,
    const NR: usize,
>(
    depth: usize,
    a: Panel,
    (b, b_step, packed): (*const f32, usize, *mut f32),
    c: Tile,
    epilogue: &Epilogue,
    next: &NextRows,
) {
    let Tile { start: c, ld: ldc, cols, .. } = c;
    let last = cols - (V - 1) * T::LANES;
    // SAFETY: everything read of A, B and C is inside of what the caller guarantees: rows below M, depths
    // below `depth`, and of the last vector only lanes below `last`. Prefetches may point anywhere.
    unsafe {
        let mask = T::mask(last);
        let mut sums = [[T::splat(0.0); V]; M];
        let mut at = Position {
            a: a.start,
            b,
            a_row: a.row,
            a_step: a.step,
            b_step,
            packed,
            ahead: std::ptr::null(),
            next: next.start,
            next_row: 0,
        };
        // Of narrow tiles the loop itself would take a good part of the time.
        const UNROLL: usize = 4;
        let unroll = if M * V <= 12 && WITH == FETCHING { UNROLL } else { 1 };
        // C is prefetched one row at a time, so that A and B never wait for a burst of lines from memory. This is one
        // loop with a branch: with a loop inside a loop, compilers move sums out of registers and back in between.
        let each = (depth / unroll / (M + 2)).max(1);
        let (mut row, mut index, mut left) = (c.cast_const(), 0, 1);
        let mut rows = next.rows;
        for _ in 0..depth / unroll {
            left -= 1;
            if left == 0 {
                if index < M {
                    unrolled!(v below V: { T::prefetch(row.wrapping_add(v * T::LANES)) });
                    T::prefetch(row.wrapping_add(cols - 1));
                    row = row.wrapping_add(ldc);
                    at.ahead = a.start.wrapping_add((M + index) * a.row);
                    index += 1;
                }
                at.next_row = if rows > 0 { next.row } else { 0 };
                rows = rows.saturating_sub(each * unroll);
                left = each;
            }
            if unroll == UNROLL {
                unrolled!(u below UNROLL: {
                    at.step::<T, M, V, WITH, WHOLE, MR, NR>(&mut sums, mask, u.is_multiple_of(2));
                });
            } else {
                at.step::<T, M, V, WITH, WHOLE, MR, NR>(&mut sums, mask, true);
            }
        }
        for _ in 0..depth % unroll {
            at.step::<T, M, V, WITH, WHOLE, MR, NR>(&mut sums, mask, true);
        }
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
    /// What else is prefetched, and how far this moves each time.
    next: *const f32,
    next_row: usize,
}

impl Position {
    /// Computes the next depth.
    ///
    /// # Safety
    /// The contract of [`tile`] for this depth; `mask` has the lanes of the last vector.
    #[inline(always)]
    unsafe fn step<
        T: Vector,
        const M: usize,
        const V: usize,
        const WITH: u8,
        const WHOLE: bool,
        const MR: usize,
        const NR: usize,
    >(
        &mut self,
        sums: &mut [[T; V]; M],
        mask: T::Mask,
        fetch: bool,
    ) {
        // Constant strides save registers, and additions that would wait for each other.
        let a_is_packed = WITH == FETCHING || WITH == PACKING;
        let (a_row, a_step) = if a_is_packed { (1, MR) } else { (self.a_row, self.a_step) };
        let b_step = if WITH == FETCHING || WITH == PACKING_A { NR } else { self.b_step };
        // SAFETY: the caller guarantees these depths; pointers past the last are not used.
        unsafe {
            let mut values = [T::splat(0.0); V];
            unrolled!(v below V: {
                let at = self.b.add(v * T::LANES);
                let whole = WHOLE || v + 1 < V || WITH == PACKING || WITH == PACKING_A;
                values[v] = if whole { T::load(at) } else { T::load_part(at, mask) };
            });
            if WITH == PACKING {
                let ahead = self.b.wrapping_add(B_AHEAD * b_step);
                unrolled!(v below V: {
                    values[v].store(self.packed.add(v * T::LANES));
                    T::prefetch(ahead.wrapping_add(v * T::LANES));
                });
                T::prefetch(ahead.wrapping_add(V * T::LANES - 1));
                self.packed = self.packed.wrapping_add(V * T::LANES);
            }
            unrolled!(i below M: {
                let element = *self.a.add(i * a_row);
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
            } else if WITH != IN_PLACE && V > 1 && fetch {
                // With a single vector the load units have no time for prefetches.
                T::prefetch(self.a.wrapping_offset(A_AHEAD));
            }
            if WITH == FETCHING && V > 1 {
                prefetch(self.next);
                self.next = self.next.wrapping_add(self.next_row);
            }
        }
        self.a = self.a.wrapping_add(a_step);
        self.b = self.b.wrapping_add(b_step);
    }
}
