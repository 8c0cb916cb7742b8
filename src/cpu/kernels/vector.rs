//! The micro-kernel on explicit vectors, written once for every instruction set that has fused multiply-adds
//! and masks.
//!
//! ```text
//!                 b: one row of V vectors a step, in registers
//!                 +--------+--------+--------+
//!   a: M elements | vector | vector | vector |
//!   a step, one   +--------+--------+--------+
//!   at a time  +-+----------------------------
//!   broadcast  | |  M x V accumulators, all in registers; an element of A meets V vectors of B
//!              +-+
//! ```
//!
//! M and V are constants of the instance: an edge of C runs an instance as small as it is, so that nothing but
//! the lanes of one last vector is computed for nothing. Those lanes are masked: neither B nor C is touched
//! beyond its edge.

use super::{A_AHEAD, Dots, Epilogue, Panel, Part, Tile, View, dots};

/// A vector register. All functions are only for CPUs that have it: whoever calls the functions of this module
/// vouches for that.
pub(in crate::cpu) trait Vector: Copy {
    /// fp32 elements.
    const LANES: usize;
    /// Whether a mask takes no vector register: where it does, a tile that fills the registers has none left for it.
    const FREE_MASKS: bool;
    /// Which lanes take part in a load or a store.
    type Mask: Copy;
    /// A vector that holds one column of a tile, if the kernel takes columns along that way.
    type Column: Vector;

    /// The first `count` lanes, at most LANES.
    unsafe fn mask(count: usize) -> Self::Mask;
    /// The lanes whose bits are set, the first lane being the lowest.
    unsafe fn lanes(bits: u64) -> Self::Mask;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Lanes not in the mask are zero, and are not read.
    unsafe fn load_part(from: *const f32, mask: Self::Mask) -> Self;
    /// Lanes not in the mask are not written.
    unsafe fn store_part(self, to: *mut f32, mask: Self::Mask);
    /// `self*factor + addend`, rounded once.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// Zero where a lane is below zero; NaN stays.
    unsafe fn relu(self) -> Self;
    /// [`dots::six_by_four`], in a function of its own where registers are scarce otherwise.
    unsafe fn six_by_four(of: &Dots, l: usize, v: usize) {
        // SAFETY: the caller keeps the contract.
        unsafe { dots::six_by_four::<Self>(of, l, v) }
    }
    /// The sums of the lanes of four vectors: of those half a vector apart first, then a quarter, to the last two.
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        of.map(|vector| {
            let mut lanes = [0.0f32; MOST_ROWS];
            // SAFETY: no vector has more lanes.
            unsafe { vector.store(lanes.as_mut_ptr()) };
            let mut half = Self::LANES / 2;
            while half > 0 {
                (0..half).for_each(|lane| lanes[lane] += lanes[lane + half]);
                half /= 2;
            }
            lanes[0]
        })
    }
    /// Every other element from `from` on, as many as the mask has; reads no further than the last of them.
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self;
    unsafe fn prefetch(from: *const f32);
}

/// Repeats a block for i = 0, 1, ... below a constant, each with i as a constant: only then do arrays of
/// vectors indexed by it live in registers.
macro_rules! unrolled {
    ($i:ident below $count:ident: $body:block) => {
        unrolled!(@ $i, $count, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $i:ident, $count:ident, $body:block, $($index:literal)*) => {
        const { assert!($count <= 8) };
        $(if $index < $count {
            let $i: usize = $index;
            $body
        })*
    };
}
pub(in crate::cpu) use unrolled;

/// What the innermost loop does besides: nothing, as A lies in rows.
pub(super) const IN_PLACE: u8 = 0;
/// It fetches packed panels of A ahead.
pub(super) const FETCHING: u8 = 1;
/// It does that, and packs B on the way: loads of B, which are few beside those of A, then wait for memory while
/// there is arithmetic to do, and B is read once less. All vectors are whole.
pub(super) const PACKING: u8 = 2;
/// It packs A, which lies in rows, on the way, and fetches the rows of the next panel. B is packed.
pub(super) const PACKING_A: u8 = 3;

/// A tile of M rows and V vectors, the last of which may be a part. B, or A, goes to `packed` if that is what the loop
/// is WITH.
///
/// # Safety
/// The contract of [`Kernel::tile`](super::Kernel::tile) for a tile of M rows and V vectors; with PACKING, that of
/// [`Kernel::tile_packing`](super::Kernel::tile_packing); with PACKING_A, that of
/// [`Kernel::tile_packing_a`](super::Kernel::tile_packing_a).
#[inline(always)]
pub(super) unsafe fn tile<T: Vector, const M: usize, const V: usize, const WITH: u8>(
    depth: usize,
    a: Panel,
    b: (*const f32, usize, *mut f32),
    c: Tile,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller keeps the contract; without a mask only where the last vector is whole.
    unsafe {
        if !T::FREE_MASKS && c.cols == V * T::LANES {
            tile_of::<T, M, V, WITH, true>(depth, a, b, c, epilogue);
        } else {
            tile_of::<T, M, V, WITH, false>(depth, a, b, c, epilogue);
        }
    }
}

/// [`tile`], WHOLE if its last vector is to be read without a mask.
///
/// # Safety
/// As there.
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
    // SAFETY: everything read of A, B and C is inside of what the caller vouches for: rows below M, depths
    // below `depth`, and of the last vector only lanes below `last`. Prefetches may point anywhere.
    unsafe {
        let mask = T::mask(last);
        let mut sums = [[T::splat(0.0); V]; M];
        let mut at =
            Position { a: a.start, b, a_row: a.row, a_step: a.step, b_step, packed, ahead: std::ptr::null() };
        // C is fetched a row at a time, so that A and B never wait behind a burst of lines from memory.
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

/// A tile of M rows and V vectors, and X more columns, of a [`View`]. Those columns lie across: one vector holds
/// M rows of one column, so that they cost an Mth of a column of vectors each.
///
/// # Safety
/// The contract of [`Kernel::view`](super::Kernel::view) for a tile of M rows and V vectors and X columns, panels
/// of A being `step` rows. If X is not zero, M and `step` are the lanes of a column.
#[inline(always)]
pub(super) unsafe fn view<T: Vector, const M: usize, const V: usize, const X: usize, const MASKED: bool>(
    step: usize,
    a: *const f32,
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller keeps the contract; without a mask only where the last vector is whole.
    unsafe {
        if !T::FREE_MASKS && !MASKED && c.cols - X == V * T::LANES {
            view_of::<T, M, V, X, MASKED, true>(step, a, b, c, epilogue, usize::MAX, &mut |_| ());
        } else {
            view_of::<T, M, V, X, MASKED, false>(step, a, b, c, epilogue, usize::MAX, &mut |_| ());
        }
    }
}

/// [`view`], WHOLE if its last vector is to be read without a mask. Before the depths of some channels,
/// `most` or one channel's, are read from A, `before` is called with their end: it may be what writes them.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn view_of<
    T: Vector,
    const M: usize,
    const V: usize,
    const X: usize,
    const MASKED: bool,
    const WHOLE: bool,
>(
    step: usize,
    a: *const f32,
    b: &View,
    c: Tile,
    epilogue: &Epilogue,
    most: usize,
    before: &mut impl FnMut(*const f32),
) {
    let last = c.cols - X - (V - 1) * T::LANES;
    // SAFETY: as in tile(); rows of B lie where the taps say, and lanes that these leave out are not read. The
    // further columns are packed one depth after the other.
    unsafe {
        let mask = T::mask(last);
        let mut sums = [[T::splat(0.0); V]; M];
        let mut columns = [T::Column::splat(0.0); X];
        let mut walk = Walk { a, channel: b.start, thin: b.thin, step };
        // As in tile().
        let each = b.channels / (M + 2);
        let mut row = c.start.cast_const();
        for _ in 0..M {
            unrolled!(v below V: { T::prefetch(row.wrapping_add(v * T::LANES)) });
            T::prefetch(row.wrapping_add(c.cols - 1));
            row = row.wrapping_add(c.ld);
            walk.groups::<T, M, V, X, MASKED, WHOLE>(
                b,
                (each, most),
                (&mut sums, &mut columns),
                mask,
                before,
            );
        }
        let rest = (b.channels - M * each, most);
        walk.groups::<T, M, V, X, MASKED, WHOLE>(b, rest, (&mut sums, &mut columns), mask, before);
        finish::<T, M, V, false>(&sums, Tile { cols: c.cols - X, ..c }, epilogue);
        unrolled!(x below X: {
            let mut values = [0.0; MOST_ROWS];
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
/// The contract of [`Kernel::view_two`](super::Kernel::view_two), for M being MR.
#[inline(always)]
pub(super) unsafe fn view_two<T: Vector, const M: usize, const MASKED: bool>(
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
        // Nothing is fetched ahead: there is no time for more loads, and two streams a core finds by itself.
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

/// Where the innermost loop stands in A and a [`View`].
struct Walk {
    a: *const f32,
    channel: *const f32,
    thin: *const f32,
    /// Rows of a panel of A.
    step: usize,
}

impl Walk {
    /// The next `count` channels, in groups of about `most` depths, before each of which `before` is called with its end.
    ///
    /// # Safety
    /// As [`Walk::channels`].
    #[inline(always)]
    unsafe fn groups<
        T: Vector,
        const M: usize,
        const V: usize,
        const X: usize,
        const MASKED: bool,
        const WHOLE: bool,
    >(
        &mut self,
        b: &View,
        (count, most): (usize, usize),
        (sums, columns): (&mut [[T; V]; M], &mut [T::Column; X]),
        mask: T::Mask,
        before: &mut impl FnMut(*const f32),
    ) {
        let most = (most / b.taps.len()).max(1);
        let mut left = count;
        while left > 0 {
            let count = left.min(most);
            before(self.a.wrapping_add(count * b.taps.len() * self.step));
            // SAFETY: the caller keeps the contract.
            unsafe { self.channels::<T, M, V, X, MASKED, WHOLE>(b, count, (sums, columns), mask) };
            left -= count;
        }
    }

    /// The next `count` channels.
    ///
    /// # Safety
    /// The contract of [`view`] for these channels; `mask` has the lanes of the last vector.
    #[inline(always)]
    unsafe fn channels<
        T: Vector,
        const M: usize,
        const V: usize,
        const X: usize,
        const MASKED: bool,
        const WHOLE: bool,
    >(
        &mut self,
        b: &View,
        count: usize,
        (sums, columns): (&mut [[T; V]; M], &mut [T::Column; X]),
        mask: T::Mask,
    ) {
        for _ in 0..count {
            for tap in b.taps {
                let row = self.channel.wrapping_offset(tap.offset);
                // SAFETY: the caller vouches for these channels; prefetches may point anywhere.
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
                    });
                    unrolled!(i below M: {
                        let value = T::splat(*self.a.add(i));
                        unrolled!(v below V: { sums[i][v] = value.mul_add(values[v], sums[i][v]) });
                    });
                    unrolled!(x below X: {
                        let value = T::Column::splat(*self.thin.add(x));
                        columns[x] = T::Column::load(self.a).mul_add(value, columns[x]);
                    });
                    // Beside a single vector there is no time for more loads.
                    if V > 1 {
                        T::prefetch(self.channel.wrapping_offset(tap.ahead));
                        T::prefetch(self.a.wrapping_offset(b.a_ahead));
                    }
                }
                self.a = self.a.wrapping_add(self.step);
                self.thin = self.thin.wrapping_add(X);
            }
            self.channel = self.channel.wrapping_add(b.pitch);
        }
    }
}

/// How many rows ahead B is fetched while it is packed: the time it takes to come from the last-level cache.
const B_AHEAD: usize = 16;

/// Most rows of any tile.
const MOST_ROWS: usize = 16;

/// What becomes of one sum, in row `i` of a tile: the arithmetic of [`finish`].
///
/// # Safety
/// `to` is writable, and initialised if beta is not zero; the bias is null or readable at `i`.
#[inline(always)]
pub(super) unsafe fn finish_one(sum: f32, to: *mut f32, i: usize, epilogue: &Epilogue) {
    // SAFETY: the caller vouches for both.
    unsafe {
        let mut value = epilogue.alpha * sum;
        if epilogue.beta != 0.0 {
            value += epilogue.beta * *to;
        }
        if !epilogue.bias.is_null() {
            value += *epilogue.bias.add(i);
        }
        *to = if epilogue.relu && value < 0.0 { 0.0 } else { value };
    }
}

/// What becomes of a tile of sums of M rows and V vectors. Unless SCALED, alpha is 1, and beta is 0 or 1.
///
/// # Safety
/// The contract of [`Kernel::tile`](super::Kernel::tile) for C and the epilogue.
#[inline(always)]
unsafe fn finish<T: Vector, const M: usize, const V: usize, const SCALED: bool>(
    sums: &[[T; V]; M],
    c: Tile,
    epilogue: &Epilogue,
) {
    let last = c.cols - (V - 1) * T::LANES;
    // SAFETY: rows are below M, and of the last vector only lanes below `last` are touched.
    unsafe {
        let mask = T::mask(last);
        if epilogue.only_adds() {
            let to = (c.start, c.ld);
            return if last == T::LANES {
                store::<T, M, V, SCALED, false>(sums, to, mask, epilogue)
            } else {
                store::<T, M, V, SCALED, true>(sums, to, mask, epilogue)
            };
        }
        let (alpha, beta) = (T::splat(epilogue.alpha), T::splat(epilogue.beta));
        unrolled!(i below M: {
            let bias = if epilogue.bias.is_null() { 0.0 } else { *epilogue.bias.add(i) };
            unrolled!(v below V: {
                let at = c.start.add(i * c.ld + v * T::LANES);
                let part = v + 1 == V && last < T::LANES;
                let mut value = if SCALED { alpha.mul(sums[i][v]) } else { sums[i][v] };
                if epilogue.beta != 0.0 {
                    let old = if part { T::load_part(at, mask) } else { T::load(at) };
                    value = value.add(if SCALED { beta.mul(old) } else { old });
                }
                if !epilogue.bias.is_null() {
                    value = value.add(T::splat(bias));
                }
                if epilogue.relu {
                    value = value.relu();
                }
                if part { value.store_part(at, mask) } else { value.store(at) }
            });
        });
    }
}

/// Where the innermost loop stands in A and B.
struct Position {
    a: *const f32,
    b: *const f32,
    a_row: usize,
    a_step: usize,
    b_step: usize,
    packed: *mut f32,
    /// What is to be fetched of A's next rows.
    ahead: *const f32,
}

impl Position {
    /// The next `count` depths.
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
            // SAFETY: the caller vouches for these depths; pointers past the last are not used.
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
                    // So far a step that a row of the tile's share of them fetches all of one row.
                    T::prefetch(self.ahead);
                    self.ahead = self.ahead.wrapping_add(M + 2);
                } else if WITH != IN_PLACE && V > 1 {
                    // Beside a single vector there is no time for more loads.
                    T::prefetch(self.a.wrapping_offset(A_AHEAD));
                }
            }
            self.a = self.a.wrapping_add(self.a_step);
            self.b = self.b.wrapping_add(self.b_step);
        }
    }
}

/// The usual end of a tile, with no decision in its course: hundreds of branches would cost as much as ten steps.
/// If it is PARTLY so, the last vector has the lanes of the mask only.
///
/// # Safety
/// The contract of [`finish`]. [`Epilogue::only_adds`].
#[inline(always)]
unsafe fn store<T: Vector, const M: usize, const V: usize, const SCALED: bool, const PARTLY: bool>(
    sums: &[[T; V]; M],
    (c, ldc): (*mut f32, usize),
    mask: T::Mask,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller vouches for M rows of V vectors.
    unsafe {
        let alpha = T::splat(epilogue.alpha);
        if epilogue.beta == 0.0 {
            unrolled!(i below M: {
                unrolled!(v below V: {
                    let value = if SCALED { alpha.mul(sums[i][v]) } else { sums[i][v] };
                    let at = c.add(i * ldc + v * T::LANES);
                    if PARTLY && v + 1 == V { value.store_part(at, mask) } else { value.store(at) }
                });
            });
        } else {
            unrolled!(i below M: {
                unrolled!(v below V: {
                    let at = c.add(i * ldc + v * T::LANES);
                    let value = if SCALED { alpha.mul(sums[i][v]) } else { sums[i][v] };
                    if PARTLY && v + 1 == V {
                        value.add(T::load_part(at, mask)).store_part(at, mask)
                    } else {
                        value.add(T::load(at)).store(at)
                    }
                });
            });
        }
    }
}

/// Copies `part.rows` rows of `part.len` elements, every `part.stride`-th of a row.
///
/// # Safety
/// The contract of [`Kernel::copy`](super::Kernel::copy).
#[inline(always)]
pub(super) unsafe fn copy<T: Vector>(part: &Part) {
    // SAFETY: the caller keeps the contract.
    unsafe {
        match part.stride {
            1 => rows::<T, 1>(part),
            2 => rows::<T, 2>(part),
            4 => rows::<T, 4>(part),
            _ => rows::<T, 0>(part),
        }
    }
}

/// [`copy`] with the stride as a constant; 0 stands for any.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn rows<T: Vector, const STRIDE: usize>(part: &Part) {
    let full = part.len / T::LANES * T::LANES;
    let rest = part.len - full;
    // SAFETY: groups, rows and elements are below the counts the caller vouches for; a pointer past the last
    // row is not used.
    unsafe {
        let mask = T::mask(rest);
        let (mut group_from, mut group_to) = (part.from, part.to);
        for _ in 0..part.groups {
            let (mut from, mut to) = (group_from, group_to);
            for _ in 0..part.rows {
                if STRIDE == 0 {
                    for at in 0..part.len {
                        *to.add(at) = *from.add(at * part.stride);
                    }
                } else {
                    let mut at = 0;
                    while at < full {
                        let from = from.add(STRIDE * at);
                        let value = match STRIDE {
                            1 => T::load(from),
                            2 => T::load_every_other(from, T::LANES),
                            _ => load_every_fourth::<T>(from, T::LANES),
                        };
                        value.store(to.add(at));
                        at += T::LANES;
                    }
                    if rest > 0 {
                        let from = from.add(STRIDE * full);
                        let value = match STRIDE {
                            1 => T::load_part(from, mask),
                            2 => T::load_every_other(from, rest),
                            _ => load_every_fourth::<T>(from, rest),
                        };
                        value.store_part(to.add(full), mask);
                    }
                }
                from = from.wrapping_add(part.from_row);
                to = to.wrapping_add(part.to_row);
            }
            group_from = group_from.wrapping_add(part.from_group);
            group_to = group_to.wrapping_add(part.to_group);
        }
    }
}

/// Every fourth element from `from` on, `count` of them; reads no further than the last.
///
/// # Safety
/// They are readable; `count` is 1 to LANES.
#[inline(always)]
unsafe fn load_every_fourth<T: Vector>(from: *const f32, count: usize) -> T {
    const { assert!(T::LANES <= MOST_ROWS) };
    let mut twos = [0.0f32; 2 * MOST_ROWS];
    let wanted = 2 * count - 1;
    // SAFETY: of every other element those up to the last that is wanted; the array has room for two vectors.
    unsafe {
        T::load_every_other(from, wanted.min(T::LANES)).store(twos.as_mut_ptr());
        if wanted > T::LANES {
            let second = T::load_every_other(from.add(2 * T::LANES), wanted - T::LANES);
            second.store(twos.as_mut_ptr().add(T::LANES));
        }
        T::load_every_other(twos.as_ptr(), count)
    }
}

/// An array of a function's instances, one for each number of vectors; of a view's, without a mask and with one.
macro_rules! for_vectors {
    ($function:ident, $rows:literal, ($($v:literal)*)) => { [$($function::<$rows, $v>),*] };
    ($function:ident, $rows:literal, $columns:literal, ($($v:literal)*)) => {
        [$([$function::<$rows, $v, $columns, false>, $function::<$rows, $v, $columns, true>]),*]
    };
}
pub(super) use for_vectors;

/// Implements [`Kernel`](super::Kernel) for a proof type on a vector type, both of which need `$features`.
macro_rules! define_vector_kernel {
    ($type:ty, $vector:ty, $isa:literal, $mr:literal x $nr:literal, $features:literal, rows: $($rows:literal)*, vectors: $vectors:tt, columns: $($columns:literal)*; $($thin:tt)*) => {
        impl $crate::cpu::kernels::Kernel for $type {
            const MR: usize = $mr;
            const NR: usize = $nr;
            const LANES: usize = <$vector as $crate::cpu::kernels::vector::Vector>::LANES;
            const SGEMM: &'static str = concat!("sgemm_", $isa, "_", $mr, "x", $nr);
            const CONV: &'static str = concat!("conv_igemm_", $isa, "_", $mr, "x", $nr);
            const DOTS: &'static str = concat!("conv_dots_", $isa);

            unsafe fn tile(
                self,
                depth: usize,
                a: $crate::cpu::kernels::Panel,
                b: (*const f32, usize),
                c: $crate::cpu::kernels::Tile,
                epilogue: &$crate::cpu::kernels::Epilogue,
            ) {
                use $crate::cpu::kernels::{Epilogue, Panel, Tile, vector};

                #[target_feature(enable = $features)]
                unsafe fn packed<const M: usize, const V: usize>(
                    depth: usize,
                    a: Panel,
                    b: (*const f32, usize),
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // Strides known here spare the innermost loop registers and additions.
                    let (a, b) = (Panel::packed(a.start, $mr), (b.0, $nr, std::ptr::null_mut()));
                    // SAFETY: the caller keeps the contract of Kernel::tile.
                    unsafe { vector::tile::<$vector, M, V, { vector::FETCHING }>(depth, a, b, c, epilogue) }
                }
                #[target_feature(enable = $features)]
                unsafe fn in_place<const M: usize, const V: usize>(
                    depth: usize,
                    a: Panel,
                    b: (*const f32, usize),
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    let b = (b.0, b.1, std::ptr::null_mut());
                    // SAFETY: as above.
                    unsafe { vector::tile::<$vector, M, V, { vector::IN_PLACE }>(depth, a, b, c, epilogue) }
                }
                type Instance = unsafe fn(usize, Panel, (*const f32, usize), Tile, &Epilogue);
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::Vector>::LANES;
                const PACKED: [[Instance; V]; $mr] = [$(for_vectors!(packed, $rows, $vectors)),*];
                const IN_PLACE: [[Instance; V]; $mr] = [$(for_vectors!(in_place, $rows, $vectors)),*];
                let is_packed = (a.row, a.step, b.1) == (1, $mr, $nr);
                let table = if is_packed { &PACKED } else { &IN_PLACE };
                let instance = table[c.rows - 1][c.cols.div_ceil(Self::LANES) - 1];
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the
                // features.
                unsafe { instance(depth, a, b, c, epilogue) }
            }

            unsafe fn tile_packing(
                self,
                depth: usize,
                a: *const f32,
                b: (*const f32, usize),
                packed: *mut f32,
                c: $crate::cpu::kernels::Tile,
                epilogue: &$crate::cpu::kernels::Epilogue,
            ) {
                use $crate::cpu::kernels::{Epilogue, Panel, Tile, vector};

                #[target_feature(enable = $features)]
                unsafe fn compiled(
                    depth: usize,
                    a: Panel,
                    b: (*const f32, usize, *mut f32),
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::tile_packing.
                    unsafe {
                        vector::tile::<$vector, $mr, V, { vector::PACKING }>(depth, a, b, c, epilogue)
                    }
                }
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::Vector>::LANES;
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(depth, Panel::packed(a, $mr), (b.0, b.1, packed), c, epilogue) }
            }

            unsafe fn tile_packing_a(
                self,
                depth: usize,
                a: (*const f32, usize),
                b: *const f32,
                packed: *mut f32,
                c: $crate::cpu::kernels::Tile,
                epilogue: &$crate::cpu::kernels::Epilogue,
            ) {
                use $crate::cpu::kernels::{Epilogue, Panel, Tile, vector};

                #[target_feature(enable = $features)]
                unsafe fn compiled(
                    depth: usize,
                    (start, row): (*const f32, usize),
                    (b, packed): (*const f32, *mut f32),
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    let (a, b) = (Panel { start, row, step: 1 }, (b, $nr, packed));
                    // SAFETY: the caller keeps the contract of Kernel::tile_packing_a.
                    unsafe {
                        vector::tile::<$vector, $mr, V, { vector::PACKING_A }>(depth, a, b, c, epilogue)
                    }
                }
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::Vector>::LANES;
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(depth, a, (b, packed), c, epilogue) }
            }

            const MASKS: bool = <$vector as Vector>::FREE_MASKS;
            const BESIDE: usize = {
                const COLUMNS: &[usize] = &[$($columns),*];
                COLUMNS.len()
            };

            unsafe fn view(
                self,
                a: *const f32,
                b: &$crate::cpu::kernels::View,
                c: $crate::cpu::kernels::Tile,
                epilogue: &$crate::cpu::kernels::Epilogue,
            ) {
                use $crate::cpu::kernels::{Epilogue, Tile, View, vector};

                #[target_feature(enable = $features)]
                unsafe fn compiled<const M: usize, const V: usize, const X: usize, const MASKED: bool>(
                    a: *const f32,
                    b: &View,
                    c: Tile,
                    epilogue: &Epilogue,
                ) {
                    // SAFETY: the caller keeps the contract of Kernel::view.
                    unsafe { vector::view::<$vector, M, V, X, MASKED>($mr, a, b, c, epilogue) }
                }
                type Instance = unsafe fn(*const f32, &View, Tile, &Epilogue);
                const V: usize = $nr / <$vector as $crate::cpu::kernels::vector::Vector>::LANES;
                const TILES: [[[Instance; 2]; V]; $mr] =
                    [$(for_vectors!(compiled, $rows, 0, $vectors)),*];
                const BESIDE: &[[[Instance; 2]; V]] =
                    &[$(for_vectors!(compiled, $mr, $columns, $vectors)),*];
                let vectors = (c.cols - b.beside).div_ceil(Self::LANES) - 1;
                let table = if b.beside == 0 { &TILES[c.rows - 1] } else { &BESIDE[b.beside - 1] };
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the
                // features.
                unsafe { table[vectors][usize::from(!b.whole)](a, b, c, epilogue) }
            }

            unsafe fn view_two(
                self,
                a: [*const f32; 2],
                b: &$crate::cpu::kernels::View,
                c: $crate::cpu::kernels::Tile,
                epilogue: &$crate::cpu::kernels::Epilogue,
            ) {
                use $crate::cpu::kernels::{Epilogue, Tile, View, vector};

                #[target_feature(enable = $features)]
                unsafe fn compiled<const MASKED: bool>(a: [*const f32; 2], b: &View, c: Tile, epilogue: &Epilogue) {
                    // SAFETY: the caller keeps the contract of Kernel::view_two.
                    unsafe { vector::view_two::<$vector, $mr, MASKED>(a, b, c, epilogue) }
                }
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the features.
                unsafe { if b.whole { compiled::<false>(a, b, c, epilogue) } else { compiled::<true>(a, b, c, epilogue) } }
            }

            $($thin)*

            unsafe fn dots(self, dots: &$crate::cpu::kernels::Dots) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(dots: &$crate::cpu::kernels::Dots) {
                    // SAFETY: the caller keeps the contract of Kernel::dots.
                    unsafe { $crate::cpu::kernels::dots::on_vectors::<$vector>(dots) }
                }
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(dots) }
            }

            unsafe fn transpose(self, turn: &$crate::cpu::kernels::Turn) {
                // SAFETY: the caller keeps the contract of Kernel::transpose; that `self` exists proves that this
                // CPU has AVX2.
                unsafe { $crate::cpu::kernels::transpose::by_eights(turn) }
            }

            unsafe fn copy(self, part: &$crate::cpu::kernels::Part) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(part: &$crate::cpu::kernels::Part) {
                    // SAFETY: the caller keeps the contract of Kernel::copy.
                    unsafe { $crate::cpu::kernels::vector::copy::<$vector>(part) }
                }
                // SAFETY: as above; that `self` exists proves that this CPU has the features.
                unsafe { compiled(part) }
            }
        }
    };
}
pub(super) use define_vector_kernel;
