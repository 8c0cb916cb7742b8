//! The loops over lanes. They are plain loops that the compiler vectorises, once for each instruction set
//! ([`super::isa`]).
//!
//! Registers of one operation are the same or apart, and each lane of a result depends on that lane of operands alone.
//! Chunks are read before they are written, so a result may take an operand's register.

use crate::kernel::tree::{Comparison, Intrinsic, Type};

use super::number::{Integer, Number, Real};
use super::program::{Binary, Register, Unary};

/// Lanes that are read, computed and written together. Blocks are multiples of it.
pub const CHUNK: usize = 8;

/// The registers of a thread.
#[derive(Clone, Copy)]
pub struct Registers {
    /// The frame, aligned to 64 bytes.
    pub frame: *mut u8,
    /// The lanes of each register, a multiple of [`CHUNK`].
    pub lanes: usize,
}

impl Registers {
    /// The lanes of a register.
    ///
    /// # Safety
    /// The register is one of the program that the frame was made for.
    #[inline(always)]
    pub unsafe fn at<T>(self, register: Register) -> *mut T {
        // SAFETY: the program's registers lie within its frame.
        unsafe { self.frame.add(register.0 as usize).cast() }
    }

    /// `to = f(from)` for all lanes.
    ///
    /// # Safety
    /// As [`Registers::at`]; the registers have elements of the sizes of `A` and `R`.
    #[inline(always)]
    pub unsafe fn map<A: Copy, R: Copy>(self, to: Register, from: Register, f: impl Fn(A) -> R) {
        // SAFETY: both registers have `lanes` elements, a multiple of `CHUNK`, aligned to 64 bytes.
        unsafe {
            let (to, from) = (self.at::<R>(to), self.at::<A>(from));
            for chunk in (0..self.lanes).step_by(CHUNK) {
                let values = from.add(chunk).cast::<[A; CHUNK]>().read();
                let results: [R; CHUNK] = std::array::from_fn(|lane| f(values[lane]));
                to.add(chunk).cast::<[R; CHUNK]>().write(results);
            }
        }
    }

    /// `to = f(left, right)` for all lanes.
    ///
    /// # Safety
    /// As [`Registers::map`].
    #[inline(always)]
    pub unsafe fn zip<A: Copy, B: Copy, R: Copy>(
        self,
        to: Register,
        (left, right): (Register, Register),
        f: impl Fn(A, B) -> R,
    ) {
        // SAFETY: as in `map`.
        unsafe {
            let (to, left, right) = (self.at::<R>(to), self.at::<A>(left), self.at::<B>(right));
            for chunk in (0..self.lanes).step_by(CHUNK) {
                let a = left.add(chunk).cast::<[A; CHUNK]>().read();
                let b = right.add(chunk).cast::<[B; CHUNK]>().read();
                let results: [R; CHUNK] = std::array::from_fn(|lane| f(a[lane], b[lane]));
                to.add(chunk).cast::<[R; CHUNK]>().write(results);
            }
        }
    }

    /// `to = f(left, right)` for the lanes of a mask, one by one: for functions that no vector instruction computes.
    ///
    /// # Safety
    /// As [`Registers::map`].
    #[inline(always)]
    unsafe fn each<A: Copy, B: Copy, R>(
        self,
        to: Register,
        (left, right): (Register, Register),
        mask: Register,
        f: impl Fn(A, B) -> R,
    ) {
        // SAFETY: as in `map`.
        unsafe {
            let (to, left, right) = (self.at::<R>(to), self.at::<A>(left), self.at::<B>(right));
            let mask = self.at::<i32>(mask);
            for lane in (0..self.lanes).filter(|lane| *mask.add(*lane) != 0) {
                to.add(lane).write(f(*left.add(lane), *right.add(lane)));
            }
        }
    }

    /// Whether no lane is in a mask, and whether all are.
    ///
    /// # Safety
    /// As [`Registers::at`].
    #[inline(always)]
    pub unsafe fn none_and_all(self, mask: Register) -> (bool, bool) {
        // SAFETY: as in `map`.
        unsafe {
            let mask = self.at::<i32>(mask);
            let (mut some, mut all) = ([0i32; CHUNK], [-1i32; CHUNK]);
            for chunk in (0..self.lanes).step_by(CHUNK) {
                let values = mask.add(chunk).cast::<[i32; CHUNK]>().read();
                for ((some, all), value) in some.iter_mut().zip(&mut all).zip(values) {
                    *some |= value;
                    *all &= value;
                }
            }
            (some.iter().all(|it| *it == 0), all.iter().all(|it| *it == -1))
        }
    }
}

/// A logical value of a register.
#[inline(always)]
pub fn mask(value: bool) -> i32 {
    -i32::from(value)
}

#[inline(always)]
unsafe fn compare<T: Number>(at: Registers, what: Comparison, to: Register, operands: (Register, Register)) {
    // SAFETY: as for `integer`.
    unsafe {
        match what {
            Comparison::Equal => at.zip(to, operands, |a: T, b: T| mask(a == b)),
            Comparison::NotEqual => at.zip(to, operands, |a: T, b: T| mask(a != b)),
            Comparison::Less => at.zip(to, operands, |a: T, b: T| mask(a < b)),
            Comparison::LessEqual => at.zip(to, operands, |a: T, b: T| mask(a <= b)),
            Comparison::Greater => at.zip(to, operands, |a: T, b: T| mask(a > b)),
            Comparison::GreaterEqual => at.zip(to, operands, |a: T, b: T| mask(a >= b)),
        }
    }
}

/// Operations with two operands on integers.
///
/// # Safety
/// The registers are of the program and have elements of the operation's types.
#[inline(always)]
pub unsafe fn integer<T: Integer>(
    at: Registers,
    what: Binary,
    to: Register,
    operands: (Register, Register),
    mask_of: Register,
) {
    // SAFETY: as for `integer`.
    unsafe {
        match what {
            Binary::Add => at.zip(to, operands, T::add),
            Binary::Subtract => at.zip(to, operands, T::subtract),
            Binary::Multiply => at.zip(to, operands, T::multiply),
            Binary::Divide => at.each(to, operands, mask_of, T::divide),
            Binary::Compare(comparison) => compare::<T>(at, comparison, to, operands),
            Binary::PowerInteger => at.each(to, operands, mask_of, |a: T, b: i32| a.power(b)),
            Binary::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Min => at.zip(to, operands, |a: T, b: T| if a < b { a } else { b }),
                Intrinsic::Max => at.zip(to, operands, |a: T, b: T| if a > b { a } else { b }),
                Intrinsic::Mod => at.each(to, operands, mask_of, T::modulus),
                Intrinsic::Modulo => at.each(to, operands, mask_of, T::modulo),
                Intrinsic::Sign => at.zip(to, operands, T::sign),
                Intrinsic::Dim => at.zip(to, operands, T::dim),
                Intrinsic::And => at.zip(to, operands, |a: T, b: T| a & b),
                Intrinsic::Or => at.zip(to, operands, |a: T, b: T| a | b),
                Intrinsic::ExclusiveOr => at.zip(to, operands, |a: T, b: T| a ^ b),
                Intrinsic::Shift => at.zip(to, operands, |a: T, b: i32| a.shift(b)),
                Intrinsic::TestBit => at.zip(to, operands, |a: T, b: i32| mask(a.test_bit(b))),
                _ => {}
            },
            Binary::PowerReal => {}
        }
    }
}

/// Operations with two operands on reals.
///
/// # Safety
/// The registers are of the program and have elements of the operation's types.
#[inline(always)]
pub unsafe fn real<T: Real>(
    at: Registers,
    what: Binary,
    to: Register,
    operands: (Register, Register),
    mask_of: Register,
) {
    // SAFETY: as for `integer`.
    unsafe {
        match what {
            Binary::Add => at.zip(to, operands, |a: T, b: T| a + b),
            Binary::Subtract => at.zip(to, operands, |a: T, b: T| a - b),
            Binary::Multiply => at.zip(to, operands, |a: T, b: T| a * b),
            Binary::Divide => at.zip(to, operands, |a: T, b: T| a / b),
            Binary::Compare(comparison) => compare::<T>(at, comparison, to, operands),
            Binary::PowerInteger => at.each(to, operands, mask_of, |a: T, b: i32| a.power(b)),
            Binary::PowerReal => at.each(to, operands, mask_of, T::power_real),
            Binary::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Min => at.zip(to, operands, |a: T, b: T| if a < b { a } else { b }),
                Intrinsic::Max => at.zip(to, operands, |a: T, b: T| if a > b { a } else { b }),
                Intrinsic::Mod => at.each(to, operands, mask_of, |a: T, b: T| a % b),
                Intrinsic::Modulo => at.each(to, operands, mask_of, T::modulo),
                Intrinsic::Sign => at.zip(to, operands, T::sign),
                Intrinsic::Dim => at.zip(to, operands, T::dim),
                Intrinsic::Atan2 => at.each(to, operands, mask_of, T::atan2),
                _ => {}
            },
        }
    }
}

#[inline(always)]
unsafe fn convert<T: Number>(at: Registers, result: Type, to: Register, from: Register) {
    // SAFETY: as for `integer`.
    unsafe {
        match result {
            Type::Int32 | Type::Logical => at.map(to, from, T::to_i32),
            Type::Int64 => at.map(to, from, T::to_i64),
            Type::Real32 => at.map(to, from, T::to_f32),
            Type::Real64 => at.map(to, from, T::to_f64),
        }
    }
}

/// Operations with one operand on integers.
///
/// # Safety
/// The registers are of the program and have elements of the operation's types.
#[inline(always)]
pub unsafe fn unary_integer<T: Integer>(at: Registers, what: Unary, to: Register, from: Register) {
    // SAFETY: as for `integer`.
    unsafe {
        match what {
            Unary::Negate => at.map(to, from, T::negate),
            Unary::Intrinsic(Intrinsic::Abs, _) => at.map(to, from, T::absolute),
            Unary::Intrinsic(Intrinsic::Complement, _) => at.map(to, from, |a: T| !a),
            Unary::Intrinsic(..) => {}
            Unary::Convert(result) => convert::<T>(at, result, to, from),
        }
    }
}

/// Operations with one operand on reals.
///
/// # Safety
/// The registers are of the program and have elements of the operation's types.
#[inline(always)]
pub unsafe fn unary_real<T: Real>(
    at: Registers,
    what: Unary,
    to: Register,
    from: Register,
    mask_of: Register,
) {
    // SAFETY: as for `integer`.
    unsafe {
        let rounded = |round: fn(T) -> T, result: Type| {
            if result == Type::Int64 {
                at.each(to, (from, from), mask_of, |a: T, _: T| round(a).to_i64());
            } else {
                at.each(to, (from, from), mask_of, |a: T, _: T| round(a).to_i32());
            }
        };
        let function = |f: fn(T) -> T| at.each(to, (from, from), mask_of, |a: T, _: T| f(a));
        match what {
            Unary::Negate => at.map(to, from, |a: T| -a),
            Unary::Convert(result) => convert::<T>(at, result, to, from),
            Unary::Intrinsic(intrinsic, result) => match intrinsic {
                Intrinsic::Abs => at.map(to, from, T::absolute),
                Intrinsic::Sqrt => at.map(to, from, T::sqrt),
                Intrinsic::Truncate => at.map(to, from, T::truncate),
                Intrinsic::IsNan => at.map(to, from, |a: T| mask(a.is_nan())),
                Intrinsic::Floor if result == Type::Int64 => at.map(to, from, |a: T| a.floor().to_i64()),
                Intrinsic::Floor => at.map(to, from, |a: T| a.floor().to_i32()),
                Intrinsic::Ceiling if result == Type::Int64 => at.map(to, from, |a: T| a.ceiling().to_i64()),
                Intrinsic::Ceiling => at.map(to, from, |a: T| a.ceiling().to_i32()),
                Intrinsic::Nint => rounded(T::round, result),
                Intrinsic::Exp => function(T::exp),
                Intrinsic::Log => function(T::log),
                Intrinsic::Log10 => function(T::log10),
                Intrinsic::Sin => function(T::sin),
                Intrinsic::Cos => function(T::cos),
                Intrinsic::Tan => function(T::tan),
                Intrinsic::Asin => function(T::asin),
                Intrinsic::Acos => function(T::acos),
                Intrinsic::Atan => function(T::atan),
                Intrinsic::Sinh => function(T::sinh),
                Intrinsic::Cosh => function(T::cosh),
                Intrinsic::Tanh => function(T::tanh),
                _ => {}
            },
        }
    }
}
