//! The loops over lanes, compiled for each instruction set. Each type has functions of its own: one function with all
//! loops would take minutes to compile.

#[cfg(target_arch = "x86_64")]
use crate::cpu::kernels::{Avx2, Avx512};
use crate::cpu::kernels::{Kernel, Portable};
use crate::kernel::tree::Type;

use super::lanes::{self, Registers};
use super::program::{Binary, Op, Register, Unary};
use super::step::{self, Block};

/// An instruction set that runs programs. A value proves that this CPU has it.
pub trait Interpreter: Kernel {
    /// Applies [`Op::Binary`].
    ///
    /// # Safety
    /// The registers are of the program, and have elements of the operation's types.
    unsafe fn binary(
        self,
        at: Registers,
        what: Binary,
        ty: Type,
        to: Register,
        operands: (Register, Register),
        mask: Register,
    );

    /// Applies [`Op::Unary`].
    ///
    /// # Safety
    /// As [`Interpreter::binary`].
    unsafe fn unary(self, at: Registers, what: Unary, ty: Type, to: Register, from: Register, mask: Register);

    /// Applies operations on masks and moves: [`step::simple`].
    ///
    /// # Safety
    /// As [`Interpreter::binary`].
    unsafe fn simple(self, at: Registers, op: &Op);

    /// Accesses memory: [`step::access`].
    ///
    /// # Safety
    /// As [`step::run`].
    unsafe fn access(self, block: &Block<'_>, op: &Op);

    /// Whether no lane is in a mask.
    ///
    /// # Safety
    /// As [`Interpreter::binary`].
    unsafe fn is_none(self, at: Registers, mask: Register) -> bool;
}

macro_rules! define_interpreter {
    ($name:ident: $($proof:ty),+ $(; $features:literal)?) => {
        mod $name {
            use super::*;

            $(#[target_feature(enable = $features)])?
            pub unsafe fn integer<T: crate::cpu::kernel::number::Integer>(
                at: Registers,
                what: Binary,
                to: Register,
                operands: (Register, Register),
                mask: Register,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { lanes::integer::<T>(at, what, to, operands, mask) }
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn real<T: crate::cpu::kernel::number::Real>(
                at: Registers,
                what: Binary,
                to: Register,
                operands: (Register, Register),
                mask: Register,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { lanes::real::<T>(at, what, to, operands, mask) }
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn unary_integer<T: crate::cpu::kernel::number::Integer>(
                at: Registers,
                what: Unary,
                to: Register,
                from: Register,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { lanes::unary_integer::<T>(at, what, to, from) }
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn unary_real<T: crate::cpu::kernel::number::Real>(
                at: Registers,
                what: Unary,
                to: Register,
                from: Register,
                mask: Register,
            ) {
                // SAFETY: the caller keeps the contract.
                unsafe { lanes::unary_real::<T>(at, what, to, from, mask) }
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn simple(at: Registers, op: &Op) {
                // SAFETY: the caller keeps the contract.
                unsafe { step::simple(at, op) }
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn access(block: &Block<'_>, op: &Op) {
                // SAFETY: the caller keeps the contract.
                unsafe { step::access(block, op) }
            }

            $(#[target_feature(enable = $features)])?
            pub unsafe fn is_none(at: Registers, mask: Register) -> bool {
                // SAFETY: the caller keeps the contract.
                unsafe { at.none_and_all(mask).0 }
            }
        }

        $(impl Interpreter for $proof {
            unsafe fn binary(
                self,
                at: Registers,
                what: Binary,
                ty: Type,
                to: Register,
                operands: (Register, Register),
                mask: Register,
            ) {
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the features.
                unsafe {
                    match ty {
                        Type::Int32 | Type::Logical => $name::integer::<i32>(at, what, to, operands, mask),
                        Type::Int64 => $name::integer::<i64>(at, what, to, operands, mask),
                        Type::Real32 => $name::real::<f32>(at, what, to, operands, mask),
                        Type::Real64 => $name::real::<f64>(at, what, to, operands, mask),
                    }
                }
            }

            unsafe fn unary(
                self,
                at: Registers,
                what: Unary,
                ty: Type,
                to: Register,
                from: Register,
                mask: Register,
            ) {
                // SAFETY: as above.
                unsafe {
                    match ty {
                        Type::Int32 | Type::Logical => $name::unary_integer::<i32>(at, what, to, from),
                        Type::Int64 => $name::unary_integer::<i64>(at, what, to, from),
                        Type::Real32 => $name::unary_real::<f32>(at, what, to, from, mask),
                        Type::Real64 => $name::unary_real::<f64>(at, what, to, from, mask),
                    }
                }
            }

            unsafe fn simple(self, at: Registers, op: &Op) {
                // SAFETY: as above.
                unsafe { $name::simple(at, op) }
            }

            unsafe fn access(self, block: &Block<'_>, op: &Op) {
                // SAFETY: as above.
                unsafe { $name::access(block, op) }
            }

            unsafe fn is_none(self, at: Registers, mask: Register) -> bool {
                // SAFETY: as above.
                unsafe { $name::is_none(at, mask) }
            }
        })+
    };
}

// A CPU with AVX-512 has AVX2 and FMA, too (`Avx512::detect`).
#[cfg(target_arch = "x86_64")]
define_interpreter!(avx2: Avx2, Avx512; "avx2,fma");
define_interpreter!(portable: Portable);
