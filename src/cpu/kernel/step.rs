//! The operations of a block, one after the other.

use crate::kernel::tree::Type;

use super::isa::Interpreter;
use super::lanes::{Registers, mask};
use super::memory::{self, Indices, Shared};
use super::program::{Access, Op, Program, Register};

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
/// `at` has a frame of the program's size and lanes, and its mask, inputs and constants are set. `arrays` are those of
/// the program: valid for reads of their elements, and for writes where the program stores. No other thread stores to
/// the elements that the block uses, unless the kernel's points use each other's elements, which is an error of the
/// kernel: then the elements' values are arbitrary.
pub unsafe fn run<I: Interpreter>(isa: I, block: &mut Block<'_>) {
    let (at, program) = (block.at, block.program);
    let (mut next, mut open) = (program.start as usize, 0usize);
    while let Some(op) = program.ops.get(next) {
        next += 1;
        // SAFETY: the operations name registers of the program, which have the sizes of the operations' types. The
        // caller vouches for the arrays.
        unsafe {
            match *op {
                Op::Unary { what, ty, to, from, mask } => isa.unary(at, what, ty, to, from, mask),
                Op::Binary { what, ty, to, left, right, mask } => {
                    isa.binary(at, what, ty, to, (left, right), mask);
                }
                Op::Jump { to } => next = to as usize,
                Op::JumpIfNone { mask, to } => {
                    if isa.is_none(at, mask) {
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
                Op::Load { .. } | Op::Store { .. } | Op::LoadPrivate { .. } | Op::StorePrivate { .. } => {
                    isa.access(block, op);
                }
                _ => isa.simple(at, op),
            }
        }
    }
}

/// Operations on masks, and moves.
///
/// # Safety
/// The registers are of the program and have elements of the operation's types.
#[inline(always)]
pub unsafe fn simple(at: Registers, op: &Op) {
    // SAFETY: the caller keeps the contract.
    unsafe {
        match *op {
            Op::Select { bytes: 8, to, mask, from, other } => select_long(at, to, mask, (from, other)),
            Op::Select { to, mask, from, other, .. } => select(at, to, mask, (from, other)),
            Op::Move { bytes: 8, to, from } => at.map(to, from, |a: u64| a),
            Op::Move { to, from, .. } => at.map(to, from, |a: u32| a),
            Op::And { to, left, right } => at.zip(to, (left, right), |a: i32, b: i32| a & b),
            Op::AndNot { to, left, right } => at.zip(to, (left, right), |a: i32, b: i32| a & !b),
            Op::Not { to, from } => at.map(to, from, |a: i32| !a),
            Op::InRange { ty, to, from, low, high } => in_range(at, ty, (to, from), low, high),
            Op::Clear { to } => at.map(to, to, |_: i32| 0),
            Op::Trip { ty, active, left, first, last, step } => {
                trip(at, ty, (active, left), (first, last, step));
            }
            Op::Count { ty: Type::Int64, active, left } => {
                at.zip(active, (active, left), |a: i32, left: u64| a & mask(left != 0));
                at.map(left, left, |left: u64| left.wrapping_sub(1));
            }
            Op::Count { active, left, .. } => {
                at.zip(active, (active, left), |a: i32, left: u32| a & mask(left != 0));
                at.map(left, left, |left: u32| left.wrapping_sub(1));
            }
            Op::FromMemory { to, from } => at.map(to, from, |a: i32| mask(a != 0)),
            Op::ToMemory { to, from } => at.map(to, from, |a: i32| a & 1),
            _ => {}
        }
    }
}

/// Accesses to memory.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn access(block: &Block<'_>, op: &Op) {
    let at = block.at;
    // SAFETY: the caller keeps the contract.
    unsafe {
        match *op {
            Op::Load { bytes, to, access, mask } => {
                let (array, indices) = block.place(access);
                match bytes {
                    8 => memory::load::<u64>(at, to, array, indices, mask),
                    _ => memory::load::<u32>(at, to, array, indices, mask),
                }
            }
            Op::Store { bytes, from, access, mask } => {
                let (array, indices) = block.place(access);
                match bytes {
                    8 => memory::store::<u64>(at, from, array, indices, mask),
                    _ => memory::store::<u32>(at, from, array, indices, mask),
                }
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

#[inline(always)]
unsafe fn select(at: Registers, to: Register, mask: Register, (from, other): (Register, Register)) {
    // SAFETY: as for `run`.
    unsafe {
        let (to, mask) = (at.at::<u32>(to), at.at::<u32>(mask));
        let (from, other) = (at.at::<u32>(from), at.at::<u32>(other));
        for lane in 0..at.lanes {
            let which = *mask.add(lane);
            to.add(lane).write(*from.add(lane) & which | *other.add(lane) & !which);
        }
    }
}

#[inline(always)]
unsafe fn select_long(at: Registers, to: Register, mask: Register, (from, other): (Register, Register)) {
    // SAFETY: as for `run`.
    unsafe {
        let (to, mask) = (at.at::<u64>(to), at.at::<i32>(mask));
        let (from, other) = (at.at::<u64>(from), at.at::<u64>(other));
        for lane in 0..at.lanes {
            let which = i64::from(*mask.add(lane)) as u64;
            to.add(lane).write(*from.add(lane) & which | *other.add(lane) & !which);
        }
    }
}

#[inline(always)]
unsafe fn in_range(at: Registers, ty: Type, (to, from): (Register, Register), low: i64, high: i64) {
    let is_inside = |value: i64| mask(low <= value && value <= high);
    // SAFETY: as for `run`.
    unsafe {
        match ty {
            Type::Int64 => at.zip(to, (to, from), |old: i32, value: i64| old | is_inside(value)),
            Type::Logical => {
                at.zip(to, (to, from), |old: i32, value: i32| old | is_inside((value & 1).into()))
            }
            _ => at.zip(to, (to, from), |old: i32, value: i32| old | is_inside(value.into())),
        }
    }
}

/// The iterations of a loop less one; nothing if it has none.
fn iterations(first: i128, last: i128, step: i128) -> Option<u64> {
    if step == 0 {
        return None;
    }
    let count = (last - first + step) / step;
    u64::try_from(count - 1).ok()
}

#[inline(always)]
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
                let count = iterations(value(first), value(last), value(step));
                at.at::<u64>(left).add(lane).write(count.unwrap_or(0));
                count
            } else {
                let value = |register| *at.at::<i32>(register).add(lane);
                let (first, last, step) = (value(first), value(last), value(step));
                let count = match step {
                    1 if first <= last => Some(u64::from(last.abs_diff(first))),
                    1 => None,
                    _ => iterations(first.into(), last.into(), step.into()),
                };
                at.at::<u32>(left).add(lane).write(count.unwrap_or(0) as u32);
                count
            };
            if count.is_none() {
                active.add(lane).write(0);
            }
        }
    }
}
