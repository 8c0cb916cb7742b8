//! The interpreter, compiled for each instruction set.

#[cfg(target_arch = "x86_64")]
use crate::cpu::kernels::{Avx2, Avx512};
use crate::cpu::kernels::{Kernel, Portable};

use super::step::{self, Block};

/// An instruction set that runs programs. A value proves that this CPU has it.
pub trait Interpreter: Kernel {
    /// Runs a block: [`step::run`].
    ///
    /// # Safety
    /// As [`step::run`].
    unsafe fn run(self, block: &mut Block<'_>);
}

macro_rules! define_interpreter {
    ($proof:ty $(, $features:literal)?) => {
        impl Interpreter for $proof {
            unsafe fn run(self, block: &mut Block<'_>) {
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled(block: &mut Block<'_>) {
                    // SAFETY: the caller keeps the contract.
                    unsafe { step::run(block) }
                }
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the features.
                unsafe { compiled(block) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
define_interpreter!(Avx512, "avx512f,avx2,fma");
#[cfg(target_arch = "x86_64")]
define_interpreter!(Avx2, "avx2,fma");
define_interpreter!(Portable);
