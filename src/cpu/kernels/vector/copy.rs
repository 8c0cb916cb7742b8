//! Copies of rows, contiguous or with a stride.

use super::register::{MAX_LANES, Vector};
use crate::cpu::kernels::contract::CopyBlock;

/// Copies `part.rows` rows of `part.len` elements, every `part.stride`-th of a row.
///
/// # Safety
/// The contract of [`Kernel::copy`](crate::cpu::kernels::Kernel::copy).
#[inline(always)]
pub(in crate::cpu) unsafe fn copy<T: Vector>(part: &CopyBlock) {
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

/// [`copy`] with a constant stride. 0 stands for any stride.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn rows<T: Vector, const STRIDE: usize>(part: &CopyBlock) {
    let full = part.len / T::LANES * T::LANES;
    let rest = part.len - full;
    // SAFETY: groups, rows and elements are below the counts that the caller guarantees; a pointer past the last
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

/// Loads `count` elements, every fourth one from `from` on. Reads nothing after the last of them.
///
/// # Safety
/// They are readable; `count` is 1 to LANES.
#[inline(always)]
unsafe fn load_every_fourth<T: Vector>(from: *const f32, count: usize) -> T {
    const { assert!(T::LANES <= MAX_LANES) };
    let mut twos = [0.0f32; 2 * MAX_LANES];
    let wanted = 2 * count - 1;
    // SAFETY: the first two loads end with the last element that is wanted; the array has room for two vectors.
    unsafe {
        T::load_every_other(from, wanted.min(T::LANES)).store(twos.as_mut_ptr());
        if wanted > T::LANES {
            let second = T::load_every_other(from.add(2 * T::LANES), wanted - T::LANES);
            second.store(twos.as_mut_ptr().add(T::LANES));
        }
        T::load_every_other(twos.as_ptr(), count)
    }
}
