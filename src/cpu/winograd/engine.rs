//! The steps, compiled for each instruction set.

use super::form::Form;
use super::input::{self, InputJob};
use super::output;
use super::output_job::OutputJob;
use super::product::{self, ProductJob};
use super::vector::Vector;
#[cfg(target_arch = "x86_64")]
use super::vector::{Lanes8, Lanes16};
use super::weights::{self, WeightsJob};
#[cfg(target_arch = "x86_64")]
use crate::cpu::kernels::{Avx2, Avx512};

/// An instruction set with Winograd kernels. A value proves that this CPU has it.
pub trait WinogradKernel: Copy + Send + Sync + 'static {
    /// Lanes of a vector: channels of a block.
    const LANES: usize;
    /// Kernel names of F(2x2), F(4x4) and F(6x6).
    const NAMES: [&'static str; 3];

    /// See [`weights::transform`].
    ///
    /// # Safety
    /// As there, except for the CPU, which `self` proves.
    unsafe fn weights<F: Form>(self, job: &WeightsJob);

    /// See [`input::transform`].
    ///
    /// # Safety
    /// As there, except for the CPU, which `self` proves.
    unsafe fn input<F: Form>(self, job: &InputJob, scratch: &mut [f32]);

    /// See [`product::multiply`].
    ///
    /// # Safety
    /// As there, except for the CPU, which `self` proves.
    unsafe fn multiply(self, job: &ProductJob);

    /// See [`output::transform`].
    ///
    /// # Safety
    /// As there, except for the CPU, which `self` proves.
    unsafe fn output<F: Form>(self, job: &OutputJob, scratch: &mut [f32]);
}

#[cfg(target_arch = "x86_64")]
macro_rules! define_engine {
    ($proof:ty, $vector:ty, $isa:literal, $features:literal, rows: $rows:literal) => {
        impl WinogradKernel for $proof {
            const LANES: usize = <$vector>::LANES;
            const NAMES: [&'static str; 3] = [
                concat!("conv_winograd_f2x3_", $isa),
                concat!("conv_winograd_f4x3_", $isa),
                concat!("conv_winograd_f6x3_", $isa),
            ];

            unsafe fn weights<F: Form>(self, job: &WeightsJob) {
                #[target_feature(enable = $features)]
                unsafe fn compiled<F: Form>(job: &WeightsJob) {
                    // SAFETY: as the caller promises.
                    unsafe { weights::transform::<$vector, F>(job) }
                }
                // SAFETY: as the caller promises. The existence of `self` proves that this CPU has the features, here
                // and below.
                unsafe { compiled::<F>(job) }
            }

            unsafe fn input<F: Form>(self, job: &InputJob, scratch: &mut [f32]) {
                #[target_feature(enable = $features)]
                unsafe fn compiled<F: Form>(job: &InputJob, scratch: &mut [f32]) {
                    // SAFETY: as the caller promises.
                    unsafe { input::transform::<$vector, F>(job, scratch) }
                }
                // SAFETY: as the caller promises, and as above.
                unsafe { compiled::<F>(job, scratch) }
            }

            unsafe fn multiply(self, job: &ProductJob) {
                #[target_feature(enable = $features)]
                unsafe fn compiled(job: &ProductJob) {
                    // SAFETY: as the caller promises.
                    unsafe { product::multiply::<$vector, $rows>(job) }
                }
                // SAFETY: as the caller promises, and as above.
                unsafe { compiled(job) }
            }

            unsafe fn output<F: Form>(self, job: &OutputJob, scratch: &mut [f32]) {
                #[target_feature(enable = $features)]
                unsafe fn compiled<F: Form>(job: &OutputJob, scratch: &mut [f32]) {
                    // SAFETY: as the caller promises.
                    unsafe { output::transform::<$vector, F>(job, scratch) }
                }
                // SAFETY: as the caller promises, and as above.
                unsafe { compiled::<F>(job, scratch) }
            }
        }
    };
}

// 28 of 32 zmm registers and 12 of 16 ymm registers hold sums, as in the direct kernels.
#[cfg(target_arch = "x86_64")]
define_engine!(Avx512, Lanes16, "avx512", "avx512f,avx2,fma", rows: 14);
#[cfg(target_arch = "x86_64")]
define_engine!(Avx2, Lanes8, "avx2", "avx2,fma", rows: 6);
