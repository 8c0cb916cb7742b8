//! The inner loops, compiled for each instruction set and each tile.

use super::lines::{self, Channels, Rows, Target};
use super::portable::Four;
#[cfg(target_arch = "x86_64")]
use crate::cpu::kernels::{Avx2, Avx512};
use crate::cpu::kernels::{Kernel, Portable};

/// An instruction set with these loops; a value proves that this CPU has it.
pub trait Engine: Kernel {
    /// Name of the kernel where each group has one input channel.
    const DEPTHWISE: &'static str;
    /// Name of the kernel for any group.
    const GROUPED: &'static str;
    /// The most vectors of a tile with 1, 2, ... lines at a time.
    const WIDEST: &'static [usize];
    /// The most channels of a tile.
    const CHANNELS: usize;

    /// [`lines::channels`] for `lines` channels, the target's columns wide.
    ///
    /// # Safety
    /// As there; `lines` and the columns make a tile that [`Engine::WIDEST`] allows.
    unsafe fn channels(self, lines: usize, source: &Channels, target: &Target);

    /// [`lines::maps`] for `lines` maps, the target's columns wide.
    ///
    /// # Safety
    /// As for [`Engine::channels`].
    unsafe fn maps(self, lines: usize, source: &Channels, next: usize, target: &Target);

    /// [`lines::rows`] for `lines` rows at a time, the target's columns wide.
    ///
    /// # Safety
    /// As for [`Engine::channels`].
    unsafe fn rows(self, lines: usize, source: &Rows, target: &Target);
}

macro_rules! define_engine {
    ($proof:ty, $vector:ty, $isa:literal, $(features: $features:literal,)? channels: $channels:literal, $($lines:literal: [$($vectors:literal)*])*) => {
        impl Engine for $proof {
            const DEPTHWISE: &'static str = concat!("conv_depthwise_", $isa);
            const GROUPED: &'static str = concat!("conv_grouped_", $isa);
            const WIDEST: &'static [usize] = &[$([$($vectors),*].len()),*];
            const CHANNELS: usize = $channels;

            #[inline]
            unsafe fn channels(self, lines: usize, source: &Channels, target: &Target) {
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled<const M: usize, const V: usize>(source: &Channels, target: &Target) {
                    // SAFETY: as the caller promises.
                    unsafe { lines::channels::<$vector, M, V>(source, target) }
                }
                type Tile = unsafe fn(&Channels, &Target);
                const TILES: &[&[Tile]] = &[$(&[$(compiled::<$lines, $vectors>),*]),*];
                // SAFETY: as the caller promises; that `self` exists proves that this CPU has the features.
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
                    // SAFETY: as the caller promises.
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
                    // SAFETY: as the caller promises.
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

// Sums take at most 24 of 32 zmm and 12 of 16 ymm; the rest holds a tap's vectors and a weight.
#[cfg(target_arch = "x86_64")]
define_engine!(Avx512, std::arch::x86_64::__m512, "avx512", features: "avx512f,avx2,fma", channels: 8,
    1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4 5 6 7 8] 3: [1 2 3 4 5 6 7 8] 4: [1 2 3 4 5 6]
    5: [1 2 3 4] 6: [1 2 3 4] 7: [1 2 3] 8: [1 2 3]);
#[cfg(target_arch = "x86_64")]
define_engine!(Avx2, std::arch::x86_64::__m256, "avx2", features: "avx2,fma", channels: 4,
    1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4] 3: [1 2 3] 4: [1 2]
    5: [1 2] 6: [1 2] 7: [1] 8: [1]);
define_engine!(Portable, Four, "portable", channels: 4,
    1: [1 2 3 4 5 6 7 8] 2: [1 2 3 4] 3: [1 2 3] 4: [1 2]
    5: [1 2] 6: [1] 7: [1] 8: [1]);
