//! The registers of a thread, and the arrays that its blocks use.

use super::program::{Array, Op, Program, Register};
use crate::allocate;
use crate::cpu::buffer::Buffer;
use crate::error::{Error, Result};
use crate::kernel::bind::Elements;
use crate::kernel::tree::Value;

use super::lanes::{CHUNK, mask};
use super::memory::Shared;

/// The purpose of allocations.
const PURPOSE: &str = "a kernel's registers";

/// What a thread computes with.
pub struct Frame {
    /// Where each register is now.
    places: Vec<*mut u8>,
    /// Where each register's own memory is.
    homes: Vec<*mut u8>,
    /// The arrays of the program, in its order.
    pub arrays: Vec<Shared>,
    /// Where open calls go on.
    pub calls: Vec<u32>,
    lanes: usize,
    /// The registers' memory, if the thread's workspace is too small.
    memory: Option<Buffer>,
}

// SAFETY: the pointers lead to the frame's own memory or to that of the task that sets them, and to the launch's arrays,
// which any thread may use.
unsafe impl Send for Frame {}

/// Bytes that the registers of a program need for blocks of so many lanes.
fn bytes(program: &Program, lanes: usize) -> usize {
    let bytes = program.lane_bytes.checked_mul(lanes).and_then(|it| it.checked_add(program.shared_bytes));
    bytes.unwrap_or(usize::MAX)
}

impl Frame {
    /// A frame for blocks of so many lanes, on a thread with a workspace of so many bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(program: &Program, buffers: &[Elements], lanes: usize, workspace: usize) -> Result<Self> {
        let bytes = bytes(program, lanes);
        let memory = match bytes <= workspace {
            true => None,
            false => Some(Buffer::zeroed(bytes.div_ceil(size_of::<f32>()))?),
        };
        let array = |array: &Array| {
            Ok(match *array {
                Array::Buffer(slot) => {
                    let elements = buffers.get(slot);
                    let elements = elements.ok_or_else(|| Error::Internal("no such slot".to_owned()))?;
                    Shared { address: elements.address.cast(), len: elements.len }
                }
                Array::Shared(_, len) => Shared { address: std::ptr::null_mut(), len: len as usize },
            })
        };
        let nowhere = allocate::filled(std::ptr::null_mut(), program.registers.len(), PURPOSE)?;
        Ok(Frame {
            places: allocate::copied(&nowhere, PURPOSE)?,
            homes: nowhere,
            arrays: allocate::collected(program.arrays.iter().map(array), PURPOSE)?,
            calls: allocate::zeroed(program.depth, PURPOSE)?,
            lanes,
            memory,
        })
    }

    /// Puts the registers into the frame's memory or else into the thread's workspace, and the constants into them.
    /// The registers are valid as long as that memory.
    ///
    /// # Errors
    /// [`Error::Internal`] if the workspace is too small.
    pub fn enter(&mut self, program: &Program, workspace: &mut [f32]) -> Result<Registers> {
        let memory = self.memory.as_deref_mut().unwrap_or(workspace);
        if size_of_val(memory) < bytes(program, self.lanes) {
            return Err(Error::Internal("a workspace is too small".to_owned()));
        }
        let start = memory.as_mut_ptr().cast::<u8>();
        for (home, offset) in self.homes.iter_mut().zip(&program.registers) {
            // SAFETY: registers lie before `lane_bytes` of all lanes.
            *home = unsafe { start.add(*offset as usize * self.lanes) };
        }
        self.places.copy_from_slice(&self.homes);
        for (place, array) in self.arrays.iter_mut().zip(&program.arrays) {
            if let Array::Shared(offset, _) = *array {
                // SAFETY: workgroup memory lies behind the registers.
                place.address = unsafe { start.add(program.lane_bytes * self.lanes + offset) };
            }
        }
        let at = self.registers();
        let lanes = |register: Register| match program.spread[register.0 as usize] {
            true => at,
            false => at.first(CHUNK),
        };
        for constant in &program.constants {
            // SAFETY: the register has elements of the value's type.
            unsafe { lanes(constant.register).fill_value(constant.register, constant.value) };
        }
        for op in &program.prelude {
            let Op::Apply { to, .. } = *op else { continue };
            // SAFETY: the registers are of the program and have the types of the operation, which is for this CPU.
            unsafe { lanes(to).apply(op) };
        }
        Ok(at)
    }

    fn registers(&mut self) -> Registers {
        Registers { places: self.places.as_mut_ptr(), homes: self.homes.as_ptr(), lanes: self.lanes }
    }
}

/// The registers of a frame.
#[derive(Clone, Copy)]
pub struct Registers {
    places: *mut *mut u8,
    homes: *const *mut u8,
    /// The lanes of each register, a multiple of [`CHUNK`](super::lanes::CHUNK).
    pub lanes: usize,
}

impl Registers {
    /// The lanes of a register.
    ///
    /// # Safety
    /// The register is one of the program that the frame was made for.
    #[inline(always)]
    pub unsafe fn at<T>(self, register: Register) -> *mut T {
        // SAFETY: the program's registers are in the table.
        unsafe { (*self.places.add(register.0 as usize)).cast() }
    }

    /// The register's own memory.
    ///
    /// # Safety
    /// As [`Registers::at`].
    #[inline(always)]
    pub unsafe fn home<T>(self, register: Register) -> *mut T {
        // SAFETY: as in `at`.
        unsafe { (*self.homes.add(register.0 as usize)).cast() }
    }

    /// Lets a register be elsewhere.
    ///
    /// # Safety
    /// As [`Registers::at`], and the place serves for all uses of the register.
    #[inline(always)]
    pub unsafe fn place(self, register: Register, place: *mut u8) {
        // SAFETY: as in `at`.
        unsafe { *self.places.add(register.0 as usize) = place };
    }

    /// Runs [`Op::Apply`]; nothing else.
    ///
    /// # Safety
    /// The registers are of the program and have elements of the operation's types, and this CPU has the function's
    /// instruction set.
    #[inline(always)]
    pub unsafe fn apply(self, op: &Op) {
        if let Op::Apply { function, to, a, b, c } = *op {
            // SAFETY: the caller keeps the contract.
            unsafe { function(self.at(to), self.at(a), self.at(b), self.at(c), self.lanes) };
        }
    }

    /// The same registers for fewer lanes.
    pub fn first(self, lanes: usize) -> Self {
        Registers { lanes, ..self }
    }

    /// Gives all lanes one value.
    ///
    /// # Safety
    /// The register is of the program and has elements of this size.
    pub unsafe fn fill<T: Copy>(self, register: Register, value: T) {
        // SAFETY: the register has `lanes` elements.
        unsafe { std::slice::from_raw_parts_mut(self.at::<T>(register), self.lanes).fill(value) };
    }

    /// Gives all lanes one value.
    ///
    /// # Safety
    /// The register is of the program and has elements of the value's type.
    pub unsafe fn fill_value(self, register: Register, value: Value) {
        // SAFETY: the caller keeps the contract.
        unsafe {
            match value {
                Value::Int32(value) => self.fill(register, value),
                Value::Int64(value) => self.fill(register, value),
                Value::Real32(value) => self.fill(register, value),
                Value::Real64(value) => self.fill(register, value),
                Value::Logical(value) => self.fill(register, mask(value)),
            }
        }
    }

    /// Gives each lane its value.
    ///
    /// # Safety
    /// As [`Registers::fill`], for `i32`.
    pub unsafe fn set(self, register: Register, value: impl Fn(usize) -> i32) {
        // SAFETY: the register has `lanes` elements.
        let all = unsafe { std::slice::from_raw_parts_mut(self.at::<i32>(register), self.lanes) };
        all.iter_mut().enumerate().for_each(|(lane, to)| *to = value(lane));
    }
}
