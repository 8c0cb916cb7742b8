//! The operations, compiled for each instruction set: one small function for each operation and type.

use super::lanes::{self, Function, Lanewise};
use super::operations;
use super::program::{Binary, Ternary, Unary};
use crate::cpu::isa::Isa;
use crate::kernel::tree::Type;

/// An instruction set for which loops are compiled.
pub trait Target {
    /// An operation on all lanes.
    fn chunks<O: Lanewise>() -> Function;

    /// An operation on all lanes, whose first operand is the same in all.
    fn chunks_with<O: Lanewise>() -> Function;

    /// An operation on the lanes of the mask that is the third operand.
    fn each<O: Lanewise<C = ()>>() -> Function;
}

/// The architecture's baseline.
struct Baseline;

impl Target for Baseline {
    fn chunks<O: Lanewise>() -> Function {
        lanes::chunks::<O>
    }

    fn chunks_with<O: Lanewise>() -> Function {
        lanes::chunks_with::<O>
    }

    fn each<O: Lanewise<C = ()>>() -> Function {
        lanes::each::<O>
    }
}

/// AVX2.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Function, Lanewise, Target, lanes};

    pub struct Avx2;

    #[target_feature(enable = "avx2")]
    unsafe fn chunks<O: Lanewise>(to: *mut u8, a: *const u8, b: *const u8, c: *const u8, lanes: usize) {
        // SAFETY: the caller keeps the contract.
        unsafe { lanes::chunks::<O>(to, a, b, c, lanes) }
    }

    #[target_feature(enable = "avx2")]
    unsafe fn chunks_with<O: Lanewise>(to: *mut u8, a: *const u8, b: *const u8, c: *const u8, lanes: usize) {
        // SAFETY: the caller keeps the contract.
        unsafe { lanes::chunks_with::<O>(to, a, b, c, lanes) }
    }

    impl Target for Avx2 {
        fn chunks<O: Lanewise>() -> Function {
            chunks::<O>
        }

        fn chunks_with<O: Lanewise>() -> Function {
            chunks_with::<O>
        }

        fn each<O: Lanewise<C = ()>>() -> Function {
            // Nothing to gain: these call a function for each lane, or divide.
            lanes::each::<O>
        }
    }
}

/// The functions for an instruction set. Calling them needs a CPU that has it.
pub struct Functions {
    /// By operation and type of the operand.
    pub unary: fn(Unary, Type) -> Option<Function>,
    /// By operation and type of the first operand.
    pub binary: fn(Binary, Type) -> Option<Function>,
    /// By operation and type.
    pub ternary: fn(Ternary, Type) -> Option<Function>,
    /// As `binary`, for some operations, where the first operand is the same in all lanes.
    pub binary_with: fn(Binary, Type) -> Option<Function>,
    /// As `ternary`, likewise.
    pub ternary_with: fn(Ternary, Type) -> Option<Function>,
}

const fn functions<T: Target>() -> Functions {
    Functions {
        unary: operations::unary::<T>,
        binary: operations::binary::<T>,
        ternary: operations::ternary::<T>,
        binary_with: operations::binary_with::<T>,
        ternary_with: operations::ternary_with::<T>,
    }
}

/// The functions for this CPU, as `isa` proves.
pub fn of(isa: Isa) -> &'static Functions {
    static BASELINE: Functions = functions::<Baseline>();
    #[cfg(target_arch = "x86_64")]
    static AVX2: Functions = functions::<avx2::Avx2>();
    match isa {
        // A CPU with AVX-512 has AVX2, too (`Avx512::detect`).
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) | Isa::Avx2(_) => &AVX2,
        Isa::Portable(_) => &BASELINE,
    }
}
