//! A vector register as a trait, and the epilogue of a tile of such registers.

use crate::cpu::kernels::contract::{Epilogue, Tile};

/// A vector register. Its functions, and all that use them, may only be called on CPUs that have the register: the
/// caller guarantees that.
pub(in crate::cpu) trait Vector: Copy {
    /// fp32 elements.
    const LANES: usize;
    /// Whether a mask takes no vector register. If it takes one, a tile that fills the registers has none left for it.
    const FREE_MASKS: bool;
    /// Selects the lanes of a load or a store.
    type Mask: Copy;
    /// A vector that holds one column of a tile, for columns that are computed beside whole vectors.
    type Column: Vector;

    /// The first `count` lanes, at most LANES.
    unsafe fn mask(count: usize) -> Self::Mask;
    /// The lanes whose bits are set. The lowest bit is the first lane.
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
    /// Negative lanes become zero. NaN stays NaN.
    unsafe fn relu(self) -> Self;
    /// Adds up the lanes of each of four vectors: first lanes half a vector apart, then a quarter, down to the last
    /// two.
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        of.map(|vector| {
            let mut lanes = [0.0f32; MAX_LANES];
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
    /// Loads `count` elements, every other one from `from` on. Reads nothing after the last of them.
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self;
    unsafe fn prefetch(from: *const f32);
}

/// Repeats a block for i = 0, 1, ... below a constant, with i a constant in each. Only then does the compiler keep
/// arrays that are indexed by i in registers.
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

/// Maximum lanes of any vector, and rows of any tile.
pub(super) const MAX_LANES: usize = 16;

/// Applies the epilogue to one sum in row `i` of a tile and stores it. Same arithmetic as [`finish`].
///
/// # Safety
/// `to` is writable, and initialised if beta is not zero; the bias is null or readable at `i`.
#[inline(always)]
pub(in crate::cpu) unsafe fn finish_one(sum: f32, to: *mut f32, i: usize, epilogue: &Epilogue) {
    // SAFETY: the caller guarantees both.
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

/// Applies the epilogue to a tile of sums of M rows and V vectors and stores it. Unless SCALED, alpha is 1, and beta is
/// 0 or 1.
///
/// # Safety
/// The contract of [`Kernel::tile`](crate::cpu::kernels::Kernel::tile) for C and the epilogue.
#[inline(always)]
pub(super) unsafe fn finish<T: Vector, const M: usize, const V: usize, const SCALED: bool>(
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

/// The common case of [`finish`], without branches: hundreds of them would cost as much as ten steps of the tile.
/// PARTLY says that the last vector has only the lanes of the mask.
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
    // SAFETY: the caller guarantees M rows of V vectors.
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
