//! The operations of a block, one after the other.

use crate::kernel::tree::Type;

use super::lanes::{is_all, is_none, mask};
use super::memory::{self, Indices, Shared};
use super::program::{Access, Op, Program, Register};
use super::registers::Registers;

/// A block that runs.
pub struct Block<'p> {
    /// The program.
    pub program: &'p Program,
    /// The registers of the thread.
    pub at: Registers,
    /// The arrays of the program, in its order.
    pub arrays: &'p [Shared],
    /// The linear index of the first lane's point.
    pub first: i64,
    /// Whether all lanes are in the block's mask.
    pub is_whole: bool,
    /// Where open calls go on; as long as the program's depth.
    pub calls: &'p mut [u32],
}

impl Block<'_> {
    #[inline(always)]
    fn place(&self, access: Access) -> (Shared, Indices) {
        let indices = Indices { index: access.index, offset: access.offset, first: self.first };
        (self.arrays[access.array as usize], indices)
    }
}

/// Runs a block from the program's start to its end.
///
/// # Safety
/// `at` has a frame of the program, and its mask, inputs and constants are set. This CPU has the instruction set that the
/// program was made for. `arrays` are those of the program: valid for reads of their elements, and for writes where the
/// program stores. No other thread stores to the elements that the block uses, unless the kernel's points use each other's
/// elements, which is an error of the kernel: then the elements' values are arbitrary.
pub unsafe fn run(block: &mut Block<'_>) {
    let (at, program) = (block.at, block.program);
    let (mut next, mut open) = (program.start as usize, 0usize);
    while let Some(op) = program.ops.get(next) {
        next += 1;
        // SAFETY: the operations name registers of the program, which have the sizes of the operations' types. The
        // caller vouches for the instruction set and for the arrays.
        unsafe {
            match *op {
                Op::Apply { .. } => at.apply(op),
                Op::Jump { to } => next = to as usize,
                Op::JumpIfNone { mask, to } => {
                    if is_none(at.at(mask), at.lanes) {
                        next = to as usize;
                    }
                }
                Op::JumpUnlessWhole { to } => {
                    if !block.is_whole {
                        next = to as usize;
                    }
                }
                Op::Call { to } => {
                    block.calls[open] = next as u32;
                    open += 1;
                    next = to as usize;
                }
                Op::Return if open == 0 => return,
                Op::Return => {
                    open -= 1;
                    next = block.calls[open] as usize;
                }
                Op::InRange { ty, to, from, low, high } => in_range(at, ty, (to, from), low, high),
                Op::Trip { ty, active, left, first, last, step } => {
                    trip(at, ty, (active, left), (first, last, step));
                }
                Op::View { bytes, to, access, mask } => {
                    if !view(block, bytes, to, access) {
                        load(block, bytes, to, access, mask);
                    }
                }
                Op::Open { bytes, to, access, mask, is_whole } => {
                    if is_whole && block.is_whole || is_all(at.at(mask), at.lanes) {
                        view(block, bytes, to, access);
                    } else {
                        at.place(to, at.home(to));
                    }
                }
                Op::Close { bytes, from, access, mask } => {
                    if at.at::<u8>(from) == at.home(from) {
                        store(block, bytes, from, access, (mask, false));
                    }
                }
                _ => access(block, op),
            }
        }
    }
}

/// Accesses to memory.
///
/// # Safety
/// As [`run`].
unsafe fn access(block: &Block<'_>, op: &Op) {
    let at = block.at;
    // SAFETY: the caller keeps the contract.
    unsafe {
        match *op {
            Op::Load { bytes, to, access, mask } => load(block, bytes, to, access, mask),
            Op::Store { bytes, from, access, mask, is_whole } => {
                let is_whole = is_whole && block.is_whole;
                store(block, bytes, from, access, (mask, is_whole));
            }
            Op::LoadPrivate { bytes: 8, to, access } => memory::load_private::<u64>(at, to, access),
            Op::LoadPrivate { to, access, .. } => memory::load_private::<u32>(at, to, access),
            Op::StorePrivate { bytes: 8, from, access, mask } => {
                memory::store_private::<u64>(at, from, access, mask);
            }
            Op::StorePrivate { from, access, mask, .. } => {
                memory::store_private::<u32>(at, from, access, mask);
            }
            _ => {}
        }
    }
}

unsafe fn load(block: &Block<'_>, bytes: u8, to: Register, access: Access, mask: Register) {
    let (array, indices) = block.place(access);
    // SAFETY: as for `run`.
    unsafe {
        match bytes {
            8 => memory::load::<u64>(block.at, to, array, indices, mask),
            _ => memory::load::<u32>(block.at, to, array, indices, mask),
        }
    }
}

#[inline(always)]
unsafe fn view(block: &Block<'_>, bytes: u8, to: Register, access: Access) -> bool {
    let (array, indices) = block.place(access);
    // SAFETY: as for `run`.
    unsafe { memory::view(block.at, bytes, to, array, indices) }
}

unsafe fn store(block: &Block<'_>, bytes: u8, from: Register, access: Access, mask: (Register, bool)) {
    let (array, indices) = block.place(access);
    // SAFETY: as for `run`.
    unsafe {
        match bytes {
            8 => memory::store::<u64>(block.at, from, array, indices, mask),
            _ => memory::store::<u32>(block.at, from, array, indices, mask),
        }
    }
}

unsafe fn in_range(at: Registers, ty: Type, (to, from): (Register, Register), low: i64, high: i64) {
    // SAFETY: as for `run`.
    unsafe {
        let to = at.at::<i32>(to);
        for lane in 0..at.lanes {
            let value = match ty {
                Type::Int64 => *at.at::<i64>(from).add(lane),
                Type::Logical => (*at.at::<i32>(from).add(lane) & 1).into(),
                _ => (*at.at::<i32>(from).add(lane)).into(),
            };
            *to.add(lane) |= mask(low <= value && value <= high);
        }
    }
}

/// The iterations of a loop less one; nothing if it has none.
macro_rules! iterations {
    ($first:expr, $last:expr, $step:expr) => {{
        let (first, last, step) = ($first, $last, $step);
        if step == 0 { None } else { u64::try_from((last - first + step) / step - 1).ok() }
    }};
}

unsafe fn trip(
    at: Registers,
    ty: Type,
    (active, left): (Register, Register),
    (first, last, step): (Register, Register, Register),
) {
    // SAFETY: as for `run`.
    unsafe {
        let active = at.at::<i32>(active);
        for lane in (0..at.lanes).filter(|lane| *active.add(*lane) != 0) {
            let count = if ty == Type::Int64 {
                let value = |register| i128::from(*at.at::<i64>(register).add(lane));
                let count = iterations!(value(first), value(last), value(step));
                at.at::<u64>(left).add(lane).write(count.unwrap_or(0));
                count
            } else {
                let value = |register| i64::from(*at.at::<i32>(register).add(lane));
                let count = iterations!(value(first), value(last), value(step));
                at.at::<u32>(left).add(lane).write(count.unwrap_or(0) as u32);
                count
            };
            if count.is_none() {
                active.add(lane).write(0);
            }
        }
    }
}
