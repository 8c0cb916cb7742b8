//! Access to memory: each index is checked, so nothing outside of an array is read or written.

use super::lanes::{CHUNK, is_all};
use super::program::{Index, Private, Register};
use super::registers::Registers;

/// An array that lanes share.
#[derive(Clone, Copy)]
pub struct Shared {
    /// The first element; dangling if there are none.
    pub address: *mut u8,
    /// The number of elements.
    pub len: usize,
}

/// Where the lanes of a block access an array.
#[derive(Clone, Copy)]
pub struct Indices {
    /// The index of each lane.
    pub index: Index,
    /// Is added to the index.
    pub offset: i64,
    /// The linear index of the first lane's point.
    pub first: i64,
}

/// The positions of a chunk of lanes, all within the array.
enum Pattern {
    /// They follow each other from this one on.
    Consecutive(usize),
    /// They are all this one.
    Same(usize),
    /// Neither, or some lie outside of the array.
    Other,
}

impl Indices {
    /// The positions of the chunk of lanes from `chunk` on, in an array of `len` elements.
    ///
    /// # Safety
    /// As [`Indices::of`].
    #[inline(always)]
    unsafe fn of_chunk(self, at: Registers, chunk: usize, len: usize) -> Pattern {
        // SAFETY: the register has the lanes of the chunk.
        unsafe {
            let Index::Narrow(register) = self.index else { return Pattern::Other };
            let values = at.at::<i32>(register).add(chunk).cast::<[i32; CHUNK]>().read();
            let (mut apart, mut different) = (0, 0);
            for (lane, value) in values.into_iter().enumerate() {
                apart |= value ^ values[0].wrapping_add(lane as i32);
                different |= value ^ values[0];
            }
            let start = i64::from(values[0]).wrapping_add(self.offset);
            let count = if different == 0 { 1 } else { CHUNK as i64 };
            let wraps = values[0] > i32::MAX - CHUNK as i32;
            if (apart != 0 && different != 0) || wraps || start < 0 || start > len as i64 - count {
                return Pattern::Other;
            }
            if different == 0 { Pattern::Same(start as usize) } else { Pattern::Consecutive(start as usize) }
        }
    }

    /// The position of a lane.
    ///
    /// # Safety
    /// The register is one of the program.
    #[inline(always)]
    unsafe fn of(self, at: Registers, lane: usize) -> i64 {
        // SAFETY: the register has the lane.
        unsafe {
            let index = match self.index {
                Index::Point => self.first + lane as i64,
                Index::Narrow(register) => i64::from(*at.at::<i32>(register).add(lane)),
                Index::Wide(register) => *at.at::<i64>(register).add(lane),
            };
            index.wrapping_add(self.offset)
        }
    }

    /// The position of the first lane if the positions of all lanes follow each other within `len` elements.
    ///
    /// # Safety
    /// As [`Indices::of`].
    #[inline(always)]
    unsafe fn consecutive(self, at: Registers, len: usize) -> Option<usize> {
        // SAFETY: as in `of`.
        unsafe {
            let start = self.of(at, 0);
            let end = start.checked_add(at.lanes as i64)?;
            if start < 0 || end as u64 > len as u64 {
                return None;
            }
            match self.index {
                Index::Point => {}
                Index::Narrow(register) => {
                    let index = at.at::<i32>(register);
                    let first = *index;
                    let mut apart = [0i32; CHUNK];
                    for chunk in (0..at.lanes).step_by(CHUNK) {
                        let values = index.add(chunk).cast::<[i32; CHUNK]>().read();
                        for (lane, (apart, value)) in apart.iter_mut().zip(values).enumerate() {
                            *apart |= value ^ first.wrapping_add((chunk + lane) as i32);
                        }
                    }
                    if apart.iter().any(|it| *it != 0) {
                        return None;
                    }
                }
                Index::Wide(_) => {
                    for lane in 1..at.lanes {
                        if self.of(at, lane) != start + lane as i64 {
                            return None;
                        }
                    }
                }
            }
            usize::try_from(start).ok()
        }
    }
}

/// Reads elements. Lanes whose position is outside of the array get zeros; those outside of the mask any value.
///
/// # Safety
/// The registers are of the program, and the array is valid for reads of `T`.
pub unsafe fn load<T: Copy + Default>(
    at: Registers,
    to: Register,
    array: Shared,
    indices: Indices,
    mask: Register,
) {
    // SAFETY: each position is checked against the array's length. Registers have `lanes` elements.
    unsafe {
        let (to, from) = (at.at::<T>(to), array.address.cast::<T>());
        // Lanes outside of the mask may get what they would read.
        if let Some(start) = indices.consecutive(at, array.len) {
            std::ptr::copy_nonoverlapping(from.add(start), to, at.lanes);
            return;
        }
        let mask = at.at::<i32>(mask);
        for chunk in (0..at.lanes).step_by(CHUNK) {
            match indices.of_chunk(at, chunk, array.len) {
                Pattern::Consecutive(start) => {
                    std::ptr::copy_nonoverlapping(from.add(start), to.add(chunk), CHUNK);
                }
                Pattern::Same(position) => {
                    let values = [from.add(position).read(); CHUNK];
                    to.add(chunk).cast::<[T; CHUNK]>().write_unaligned(values);
                }
                Pattern::Other => {
                    for lane in chunk..chunk + CHUNK {
                        let position = indices.of(at, lane);
                        let is_inside = *mask.add(lane) != 0 && (position as u64) < array.len as u64;
                        let value = if is_inside { from.add(position as usize).read() } else { T::default() };
                        to.add(lane).write(value);
                    }
                }
            }
        }
    }
}

/// Writes elements in the order of lanes. Lanes outside of the mask, and those whose position is outside of the array,
/// write nothing.
///
/// # Safety
/// As [`load`], for writes.
pub unsafe fn store<T: Copy>(
    at: Registers,
    from: Register,
    array: Shared,
    indices: Indices,
    (mask, is_whole): (Register, bool),
) {
    // SAFETY: as in `load`.
    unsafe {
        let (to, from) = (array.address.cast::<T>(), at.at::<T>(from));
        if (is_whole || is_all(at.at(mask), at.lanes))
            && let Some(start) = indices.consecutive(at, array.len)
        {
            // The values may be a view of the array.
            std::ptr::copy(from, to.add(start), at.lanes);
            return;
        }
        let mask = at.at::<i32>(mask);
        for lane in (0..at.lanes).filter(|lane| *mask.add(*lane) != 0) {
            let position = indices.of(at, lane);
            if (position as u64) < array.len as u64 {
                to.add(position as usize).write(*from.add(lane));
            }
        }
    }
}

/// Lets a register be a part of an array where all lanes have an element of it, of so many bytes each, and else its own
/// memory. Nothing is read. Returns whether it is a part of the array.
///
/// # Safety
/// As [`load`]; the index is that of points.
#[inline(always)]
pub unsafe fn view(at: Registers, bytes: u8, to: Register, array: Shared, indices: Indices) -> bool {
    let start = indices.first.wrapping_add(indices.offset);
    let end = start.saturating_add(at.lanes as i64);
    // SAFETY: a place in the array has `lanes` elements.
    unsafe {
        if start >= 0 && end as u64 <= array.len as u64 {
            at.place(to, array.address.add(start as usize * usize::from(bytes)));
            true
        } else {
            at.place(to, at.home(to));
            false
        }
    }
}

/// Reads elements of private arrays.
///
/// # Safety
/// The registers are of the program.
pub unsafe fn load_private<T: Copy + Default>(at: Registers, to: Register, access: Private) {
    // SAFETY: the array has `len` elements for each lane, and each position is checked.
    unsafe {
        let (to, from) = (at.at::<T>(to), at.at::<T>(access.array));
        let index = at.at::<i32>(access.index);
        for lane in 0..at.lanes {
            let position = i64::from(*index.add(lane)).wrapping_add(access.offset);
            let is_inside = (position as u64) < u64::from(access.len);
            let value = if is_inside { *from.add(position as usize * at.lanes + lane) } else { T::default() };
            to.add(lane).write(value);
        }
    }
}

/// Writes elements of private arrays.
///
/// # Safety
/// As [`load_private`].
pub unsafe fn store_private<T: Copy>(at: Registers, from: Register, access: Private, mask: Register) {
    // SAFETY: as in `load_private`.
    unsafe {
        let (to, from) = (at.at::<T>(access.array), at.at::<T>(from));
        let (index, mask) = (at.at::<i32>(access.index), at.at::<i32>(mask));
        for lane in (0..at.lanes).filter(|lane| *mask.add(*lane) != 0) {
            let position = i64::from(*index.add(lane)).wrapping_add(access.offset);
            if (position as u64) < u64::from(access.len) {
                to.add(position as usize * at.lanes + lane).write(*from.add(lane));
            }
        }
    }
}
