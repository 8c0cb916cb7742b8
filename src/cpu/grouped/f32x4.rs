//! A vector of four lanes in plain Rust. The compiler keeps it in a vector register of the architecture.

use crate::cpu::kernels::vector::Vector;

/// Four lanes.
#[derive(Clone, Copy)]
pub struct F32x4([f32; 4]);

impl F32x4 {
    #[inline(always)]
    fn with(self, other: Self, op: impl Fn(f32, f32) -> f32) -> Self {
        F32x4(std::array::from_fn(|lane| op(self.0[lane], other.0[lane])))
    }
}

/// Whether the target has a fused multiply-add. Without it, `mul_add` would be a slow function call.
const FMA: bool = cfg!(target_arch = "aarch64");

// SAFETY (of all blocks): the caller guarantees the memory named by pointer and count.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for F32x4 {
    const LANES: usize = 4;
    const FREE_MASKS: bool = false;
    type Mask = u64;
    type Column = F32x4;

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
        F32x4([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        F32x4(unsafe { *from.cast::<[f32; 4]>() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { *to.cast::<[f32; 4]>() = self.0 }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: u64) -> Self {
        F32x4(std::array::from_fn(
            |lane| if mask >> lane & 1 == 1 { unsafe { *from.add(lane) } } else { 0.0 },
        ))
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
        F32x4(std::array::from_fn(product))
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
        F32x4(self.0.map(|value| if value < 0.0 { 0.0 } else { value }))
    }
    #[inline(always)]
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self {
        F32x4(std::array::from_fn(|lane| if lane < count { unsafe { *from.add(2 * lane) } } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
}
