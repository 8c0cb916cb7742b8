//! The inner loops, instantiated for each instruction set and each tile.

use super::f32x4::F32x4;
use super::lines::{self, Channels, Rows, Target};
#[cfg(target_arch = "x86_64")]
use crate::cpu::kernels::{Avx2, Avx512};
use crate::cpu::kernels::{Kernel, Portable};

/// An instruction set with these loops. A value proves that this CPU has it.
pub trait GroupedKernel: Kernel {
    /// Name of the kernel if each group has one input channel.
    const DEPTHWISE: &'static str;
    /// Name of the kernel for other groups.
    const GROUPED: &'static str;
    /// Maximum vectors of a tile of 1, 2, ... lines.
    const WIDEST: &'static [usize];
    /// Maximum channels of a tile.
    const CHANNELS: usize;

    /// [`lines::channels`] for `lines` channels and the target's columns.
    ///
    /// # Safety
    /// As [`lines::channels`]; `lines` and the columns make a tile that [`GroupedKernel::WIDEST`] allows.
    unsafe fn channels(self, lines: usize, source: &Channels, target: &Target);

    /// [`lines::maps`] for `lines` maps and the target's columns.
    ///
    /// # Safety
    /// As for [`GroupedKernel::channels`].
    unsafe fn maps(self, lines: usize, source: &Channels, next: usize, target: &Target);

    /// [`lines::rows`] for `lines` rows at a time and the target's columns.
    ///
    /// # Safety
    /// As for [`GroupedKernel::channels`].
    unsafe fn rows(self, lines: usize, source: &Rows, target: &Target);
}

macro_rules! define_grouped_kernel {
    ($proof:ty, $vector:ty, $isa:literal, $(features: $features:literal,)? channels: $channels:literal, $($lines:literal: [$($vectors:literal)*])*) => {
        impl GroupedKernel for $proof {
            const DEPTHWISE: &'static str = concat!("conv_depthwise_", $isa);
            const GROUPED: &'static str = concat!("conv_grouped_", $isa);
            const WIDEST: &'static [usize] = &[$([$($vectors),*].len()),*];
            const CHANNELS: usize = $channels;

            #[inline]
            unsafe fn channels(self, lines: usize, source: &Channels, target: &Target) {
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled<const M: usize, const V: usize>(source: &Channels, target: &Target) {
                    // SAFETY: the caller keeps the contract.
                    unsafe { lines::channels::<$vector, M, V>(source, target) }
                }
                type Tile = unsafe fn(&Channels, &Target);
                const TILES: &[&[Tile]] = &[$(&[$(compiled::<$lines, $vectors>),*]),*];
                // SAFETY: the caller keeps the contract; that `self` exists proves that this CPU has the features.
                unsafe { TILES[lines - 1][target.cols.div_ceil(Self::LANES) - 1](source, target) }
            }

            #[inline]
            unsafe fn maps(self, lines: usize, source: &Channels, next: usize, target: &Target) {
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled<const M: usize, const V: usize>(
                    source: &Channels,
                    next: usize,
                    target: &Target,
                ) {
                    // SAFETY: the caller keeps the contract.
                    unsafe { lines::maps::<$vector, M, V>(source, next, target) }
                }
                type Tile = unsafe fn(&Channels, usize, &Target);
                const TILES: &[&[Tile]] = &[$(&[$(compiled::<$lines, $vectors>),*]),*];
                // SAFETY: as above.
                unsafe { TILES[lines - 1][target.cols.div_ceil(Self::LANES) - 1](source, next, target) }
            }

            #[inline]
            unsafe fn rows(self, lines: usize, source: &Rows, target: &Target) {
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled<const M: usize, const V: usize>(source: &Rows, target: &Target) {
                    // SAFETY: the caller keeps the contract.
                    unsafe { lines::rows::<$vector, M, V>(source, target) }
                }
                type Tile = unsafe fn(&Rows, &Target);
                const TILES: &[&[Tile]] = &[$(&[$(compiled::<$lines, $vectors>),*]),*];
                // SAFETY: as above.
                unsafe { TILES[lines - 1][target.cols.div_ceil(Self::LANES) - 1](source, target) }
            }
        }
    };
}

// Sums take at most 24 of 32 zmm and 12 of 16 ymm registers. The rest holds a tap's vectors and a weight.
#[cfg(target_arch = "x86_64")]
define_grouped_kernel!(Avx512, std::arch::x86_64::__m512, "avx512", features: "avx512f,avx2,fma", channels: 8,
    1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4 5 6 7 8] 3: [1 2 3 4 5 6 7 8] 4: [1 2 3 4 5 6]
    5: [1 2 3 4] 6: [1 2 3 4] 7: [1 2 3] 8: [1 2 3]);
#[cfg(target_arch = "x86_64")]
define_grouped_kernel!(Avx2, std::arch::x86_64::__m256, "avx2", features: "avx2,fma", channels: 4,
    1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4] 3: [1 2 3] 4: [1 2]
    5: [1 2] 6: [1 2] 7: [1] 8: [1]);
define_grouped_kernel!(Portable, F32x4, "portable", channels: 4,
    1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4] 3: [1 2 3] 4: [1 2]
    5: [1 2] 6: [1] 7: [1] 8: [1]);
