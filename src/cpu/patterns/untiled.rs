//! The kernel without tiling: one row times one vector of columns. Each multiply-add asks for both operands anew.
//!
//! The sum of an output has eight chains over the depth. With a single chain each multiply-add would wait for the one
//! before it, and the kernel would measure the latency of arithmetic.

use crate::cpu::kernels::vector::{Vector, unrolled};
use crate::cpu::kernels::{A_AHEAD, Epilogue, Tile, View};

/// Chains of a sum, and depths of a step.
const CHAINS: usize = 8;
/// Channels between a read of B and its prefetch.
const B_AHEAD: usize = 16;

/// Where operands are copied to while they are used: A, one element for each depth, and B, one vector for each depth.
#[derive(Clone, Copy)]
pub(super) struct Copies {
    pub a: *mut f32,
    pub b: *mut f32,
}

impl Copies {
    pub const NONE: Self = Copies { a: std::ptr::null_mut(), b: std::ptr::null_mut() };
}

/// One row of C, up to LANES columns, from a row of A that is contiguous in depth and a view of B. COPY_A and COPY_B say
/// which operands are copied meanwhile.
///
/// # Safety
/// The contract of [`Kernel::view`](crate::cpu::kernels::Kernel::view) for one row and one vector without columns
/// beside; copies are writable and overlap with nothing.
#[inline(always)]
pub(super) unsafe fn row<T: Vector, const MASKED: bool, const COPY_A: bool, const COPY_B: bool>(
    a: *const f32,
    b: &View,
    copies: Copies,
    c: Tile,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller keeps the contract: channels and taps are below their counts.
    unsafe {
        let part = T::mask(c.cols);
        let whole = !MASKED && (b.padded || c.cols == T::LANES);
        let mut sums = [T::splat(0.0); CHAINS];
        let taps = b.taps.len();
        if b.channels >= CHAINS || taps == 1 {
            // Channels inside: what a tap says is read once.
            for (index, tap) in b.taps.iter().enumerate() {
                let mask = if MASKED { T::lanes(tap.lanes) } else { part };
                let start = b.start.wrapping_offset(tap.offset);
                let steps = b.channels / CHAINS * CHAINS;
                for channel in (0..steps).step_by(CHAINS) {
                    unrolled!(chain below CHAINS: {
                        let (at, depth) = (start.wrapping_add((channel + chain) * b.pitch), (channel + chain) * taps + index);
                        step::<T, COPY_A, COPY_B>((a, depth), at, (whole, mask), copies, &mut sums[chain]);
                    });
                    T::prefetch(a.wrapping_add(channel * taps).wrapping_offset(A_AHEAD));
                    // Other taps of a channel find its rows in the cache. A single tap has no time for more than one.
                    if index == 0 && taps > 1 {
                        unrolled!(chain below CHAINS: {
                            T::prefetch(start.wrapping_add((channel + B_AHEAD + chain) * b.pitch));
                        });
                    } else if taps == 1 {
                        T::prefetch(start.wrapping_add((channel + B_AHEAD) * b.pitch));
                    }
                }
                unrolled!(chain below CHAINS: {
                    if steps + chain < b.channels {
                        let (at, depth) = (start.wrapping_add((steps + chain) * b.pitch), (steps + chain) * taps + index);
                        step::<T, COPY_A, COPY_B>((a, depth), at, (whole, mask), copies, &mut sums[chain]);
                    }
                });
            }
        } else {
            for channel in 0..b.channels {
                let start = b.start.wrapping_add(channel * b.pitch);
                for first in (0..taps).step_by(CHAINS) {
                    unrolled!(chain below CHAINS: {
                        if first + chain < taps {
                            let (tap, depth) = (&b.taps[first + chain], channel * taps + first + chain);
                            let mask = if MASKED { T::lanes(tap.lanes) } else { part };
                            let at = start.wrapping_offset(tap.offset);
                            step::<T, COPY_A, COPY_B>((a, depth), at, (whole, mask), copies, &mut sums[chain]);
                        }
                    });
                    T::prefetch(a.wrapping_add(channel * taps + first).wrapping_offset(A_AHEAD));
                }
            }
        }
        for half in [4, 2, 1] {
            for chain in 0..half {
                sums[chain] = sums[chain].add(sums[chain + half]);
            }
        }
        finish(sums[0], part, c, epilogue);
    }
}

/// One multiply-add: asks for an element of A and a vector of B.
///
/// # Safety
/// Both are readable, as far as the mask says unless all of B's vector is; copies are writable at this depth.
#[inline(always)]
unsafe fn step<T: Vector, const COPY_A: bool, const COPY_B: bool>(
    (a, depth): (*const f32, usize),
    at: *const f32,
    (whole, mask): (bool, T::Mask),
    copies: Copies,
    sum: &mut T,
) {
    // SAFETY: the caller guarantees it.
    unsafe {
        let vector = if whole { T::load(at) } else { T::load_part(at, mask) };
        let element = a.add(depth).read_volatile();
        if COPY_A {
            *copies.a.add(depth) = element;
        }
        if COPY_B {
            vector.store(copies.b.add(depth * T::LANES));
        }
        *sum = T::splat(element).mul_add(vector, *sum);
    }
}

/// Applies the epilogue to one row and stores it.
///
/// # Safety
/// The contract of [`row`] for C and the epilogue; `mask` has the lanes of C.
#[inline(always)]
unsafe fn finish<T: Vector>(sum: T, mask: T::Mask, c: Tile, epilogue: &Epilogue) {
    // SAFETY: the caller guarantees the lanes of C, and the bias unless it is null.
    unsafe {
        let mut value = if epilogue.alpha == 1.0 { sum } else { sum.mul(T::splat(epilogue.alpha)) };
        if epilogue.beta != 0.0 {
            value = value.add(T::splat(epilogue.beta).mul(T::load_part(c.start, mask)));
        }
        if !epilogue.bias.is_null() {
            value = value.add(T::splat(*epilogue.bias));
        }
        if epilogue.relu {
            value = value.relu();
        }
        if c.cols == T::LANES { value.store(c.start) } else { value.store_part(c.start, mask) }
    }
}
