//! Four lanes in plain Rust, which the compiler keeps in whatever vector register the architecture has.

use crate::cpu::kernels::vector::Vector;

/// Four lanes.
#[derive(Clone, Copy)]
pub struct Four([f32; 4]);

impl Four {
    #[inline(always)]
    fn with(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        Four(std::array::from_fn(|lane| op(self.0[lane], other.0[lane])))
    }
}

/// Without the instruction a fused multiply-add would be a slow call.
const FMA: bool = cfg!(target_arch = "aarch64");

// SAFETY (of all blocks): the caller vouches for the memory named by pointer and count.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Four {
    const LANES: usize = 4;
    const FREE_MASKS: bool = false;
    type Mask = u64;
    type Column = Four;

    #[inline(always)]
    unsafe fn mask(count: usize) -> u64 {
        (1 << count) - 1
    }
    #[inline(always)]
    unsafe fn lanes(bits: u64) -> u64 {
        bits
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Four([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Four(unsafe { *from.cast::<[f32; 4]>() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { *to.cast::<[f32; 4]>() = self.0 }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: u64) -> Self {
        Four(std::array::from_fn(|lane| if mask >> lane & 1 == 1 { unsafe { *from.add(lane) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, mask: u64) {
        for (lane, value) in self.0.into_iter().enumerate().filter(|(lane, _)| mask >> lane & 1 == 1) {
            unsafe { *to.add(lane) = value }
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let product = |lane: usize| {
            if FMA {
                self.0[lane].mul_add(factor.0[lane], addend.0[lane])
            } else {
                self.0[lane] * factor.0[lane] + addend.0[lane]
            }
        };
        Four(std::array::from_fn(product))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Four(self.0.map(|value| if value < 0.0 { 0.0 } else { value }))
    }
    #[inline(always)]
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self {
        Four(std::array::from_fn(|lane| if lane < count { unsafe { *from.add(2 * lane) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
}
