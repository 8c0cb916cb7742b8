//! Tiles whose B is read in place from an image.

use super::register::{MAX_LANES, Vector, finish, finish_one, unrolled};
use crate::cpu::kernels::contract::{Epilogue, Tile, View};

/// A tile of M rows and V vectors, and X more columns, of a [`View`]. For those columns a vector holds the M rows of
/// one column, so each costs an Mth of a column of vectors.
///
/// # Safety
/// The contract of [`Kernel::view`](crate::cpu::kernels::Kernel::view) for a tile of M rows, V vectors and X columns.
/// Panels of A have `step` rows. If X is not zero, M and `step` are the lanes of a column.
#[inline(always)]
pub(in crate::cpu) unsafe fn view<
    T: Vector,
    const M: usize,
    const V: usize,
    const X: usize,
    const MASKED: bool,
>(
    step: usize,
    a: *const f32,
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller keeps the contract; no mask is used only where the last vector is whole.
    unsafe {
        let nowhere = std::ptr::null_mut();
        if is_whole::<T, V, X, MASKED>(b, &c) {
            view_of::<T, M, V, X, MASKED, true, 0>(
                (step, a),
                b,
                nowhere,
                c,
                epilogue,
                usize::MAX,
                &mut |_| (),
            );
        } else {
            view_of::<T, M, V, X, MASKED, false, 0>(
                (step, a),
                b,
                nowhere,
                c,
                epilogue,
                usize::MAX,
                &mut |_| (),
            );
        }
    }
}

/// Whether all vectors of a tile can be read without a mask.
#[inline(always)]
pub(in crate::cpu) fn is_whole<T: Vector, const V: usize, const X: usize, const MASKED: bool>(
    b: &View,
    c: &Tile,
) -> bool {
    !MASKED && (b.padded || c.cols - X == V * T::LANES)
}

/// [`view`] for M = MR rows. Packs the vectors of B into a panel of NR columns.
///
/// # Safety
/// The contract of [`Kernel::view_packing`](crate::cpu::kernels::Kernel::view_packing) for a tile of M rows, V vectors
/// and X columns.
#[inline(always)]
pub(in crate::cpu) unsafe fn view_packing<
    T: Vector,
    const M: usize,
    const V: usize,
    const X: usize,
    const MASKED: bool,
    const NR: usize,
>(
    a: *const f32,
    b: &View,
    packed: *mut f32,
    c: Tile,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller keeps the contract; no mask is used only where the last vector is whole.
    unsafe {
        if is_whole::<T, V, X, MASKED>(b, &c) {
            view_of::<T, M, V, X, MASKED, true, NR>((M, a), b, packed, c, epilogue, usize::MAX, &mut |_| ());
        } else {
            view_of::<T, M, V, X, MASKED, false, NR>((M, a), b, packed, c, epilogue, usize::MAX, &mut |_| ());
        }
    }
}

/// [`view`]. WHOLE says that its last vector is read without a mask. Unless PACK is zero, the vectors of B are packed
/// into a panel of PACK columns. A is read in groups of channels, of about `group`
/// depths each. Before each group `before` is called with the group's end in A, and may write the group.
///
/// # Safety
/// As [`view`].
#[inline(always)]
pub(in crate::cpu) unsafe fn view_of<
    T: Vector,
    const M: usize,
    const V: usize,
    const X: usize,
    const MASKED: bool,
    const WHOLE: bool,
    const PACK: usize,
>(
    (step, a): (usize, *const f32),
    b: &View,
    packed: *mut f32,
    c: Tile,
    epilogue: &Epilogue,
    group: usize,
    before: &mut impl FnMut(*const f32),
) {
    let last = c.cols - X - (V - 1) * T::LANES;
    // SAFETY: as in tile(); rows of B lie where the taps say, and lanes that these leave out are not read. The
    // X further columns are packed one depth after the other.
    unsafe {
        let mask = T::mask(last);
        let mut sums = [[T::splat(0.0); V]; M];
        let mut columns = [T::Column::splat(0.0); X];
        let mut walk = Walk { a, channel: b.start, thin: b.thin, step, packed };
        // As in tile().
        let each = (b.channels / (M + 2)).max(1);
        let (mut row, mut rows, mut left) = (c.start.cast_const(), M, 1);
        let group = (group / b.taps.len()).max(1);
        let mut until = 1;
        for index in 0..b.channels {
            left -= 1;
            if left == 0 {
                left = each;
                if rows > 0 {
                    unrolled!(v below V: { T::prefetch(row.wrapping_add(v * T::LANES)) });
                    T::prefetch(row.wrapping_add(c.cols - 1));
                    row = row.wrapping_add(c.ld);
                    rows -= 1;
                }
            }
            until -= 1;
            if until == 0 {
                until = group.min(b.channels - index);
                before(walk.a.wrapping_add(until * b.taps.len() * step));
            }
            walk.channel::<T, M, V, X, MASKED, WHOLE, PACK>(b, (&mut sums, &mut columns), mask);
        }
        finish::<T, M, V, false>(&sums, Tile { cols: c.cols - X, ..c }, epilogue);
        unrolled!(x below X: {
            let mut values = [0.0; MAX_LANES];
            columns[x].store(values.as_mut_ptr());
            let to = c.start.add(c.cols - X + x);
            for (i, &sum) in values[..M].iter().enumerate() {
                finish_one(sum, to.add(i * c.ld), i, epilogue);
            }
        });
    }
}

/// A tile of 2 M rows and a single vector, of a [`View`], from two panels of A of M rows.
///
/// # Safety
/// The contract of [`Kernel::view_two`](crate::cpu::kernels::Kernel::view_two), with M = MR.
#[inline(always)]
pub(in crate::cpu) unsafe fn view_two<T: Vector, const M: usize, const MASKED: bool>(
    a: [*const f32; 2],
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
) {
    let [mut upper, mut lower] = a;
    // SAFETY: as in view_of().
    unsafe {
        let mask = T::mask(c.cols);
        let mut sums = [[[T::splat(0.0); 1]; M]; 2];
        for row in 0..2 * M {
            T::prefetch(c.start.wrapping_add(row * c.ld));
        }
        // No prefetches: the load units have no time for them, and the hardware prefetcher follows two streams.
        let mut channel = b.start;
        for _ in 0..b.channels {
            for tap in b.taps {
                let at = channel.wrapping_offset(tap.offset);
                let value = T::load_part(at, if MASKED { T::lanes(tap.lanes) } else { mask });
                unrolled!(i below M: { sums[0][i][0] = T::splat(*upper.add(i)).mul_add(value, sums[0][i][0]) });
                unrolled!(i below M: { sums[1][i][0] = T::splat(*lower.add(i)).mul_add(value, sums[1][i][0]) });
                upper = upper.wrapping_add(M);
                lower = lower.wrapping_add(M);
            }
            channel = channel.wrapping_add(b.pitch);
        }
        finish::<T, M, 1, false>(&sums[0], Tile { rows: M, ..c }, epilogue);
        let below = Tile { start: c.start.add(M * c.ld), rows: M, ..c };
        finish::<T, M, 1, false>(&sums[1], below, &epilogue.below(M));
    }
}

/// The position of the innermost loop in A and a [`View`].
struct Walk {
    a: *const f32,
    channel: *const f32,
    thin: *const f32,
    /// Rows of a panel of A.
    step: usize,
    /// Where B is packed to.
    packed: *mut f32,
}

impl Walk {
    /// Computes the next channel.
    ///
    /// # Safety
    /// The contract of [`view`] for this channel; `mask` has the lanes of the last vector.
    #[inline(always)]
    unsafe fn channel<
        T: Vector,
        const M: usize,
        const V: usize,
        const X: usize,
        const MASKED: bool,
        const WHOLE: bool,
        const PACK: usize,
    >(
        &mut self,
        b: &View,
        (sums, columns): (&mut [[T; V]; M], &mut [T::Column; X]),
        mask: T::Mask,
    ) {
        for tap in b.taps {
            let row = self.channel.wrapping_offset(tap.offset);
            // SAFETY: the caller guarantees this channel; prefetches may point anywhere.
            unsafe {
                let mut values = [T::splat(0.0); V];
                unrolled!(v below V: {
                    let at = row.wrapping_add(v * T::LANES);
                    values[v] = if MASKED {
                        T::load_part(at, T::lanes(tap.lanes >> (v * T::LANES)))
                    } else if WHOLE || v + 1 < V {
                        T::load(at)
                    } else {
                        T::load_part(at, mask)
                    };
                    if PACK > 0 {
                        values[v].store(self.packed.add(v * T::LANES));
                    }
                });
                self.packed = self.packed.wrapping_add(PACK);
                unrolled!(i below M: {
                    let value = T::splat(*self.a.add(i));
                    unrolled!(v below V: { sums[i][v] = value.mul_add(values[v], sums[i][v]) });
                });
                unrolled!(x below X: {
                    let value = T::Column::splat(*self.thin.add(x));
                    columns[x] = T::Column::load(self.a).mul_add(value, columns[x]);
                });
                // With a single vector the load units have no time for prefetches.
                if V > 1 {
                    let ahead = self.channel.wrapping_offset(tap.ahead);
                    T::prefetch(ahead);
                    if PACK > 0 && b.taps.len() == 1 {
                        // No other tap fetches the rest of the row.
                        unrolled!(v below V: { T::prefetch(ahead.wrapping_add((v + 1) * T::LANES - 1)) });
                    }
                    T::prefetch(self.a.wrapping_offset(b.a_ahead));
                }
            }
            self.a = self.a.wrapping_add(self.step);
            self.thin = self.thin.wrapping_add(X);
        }
        self.channel = self.channel.wrapping_add(b.pitch);
    }
}
