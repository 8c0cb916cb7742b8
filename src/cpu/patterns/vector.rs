//! Vector registers without vector accesses, without prefetches, or without both.

use std::arch::x86_64::*;

use crate::cpu::kernels::vector::dots::{DotVector, six_by_four};
use crate::cpu::kernels::{Dots, vector::Vector};

/// A register whose lanes can be named one by one.
pub(super) trait Lanes: Vector {
    /// The register whose lane i is `element(i)`.
    unsafe fn of(element: impl Fn(usize) -> f32) -> Self;
    /// Passes each lane on.
    unsafe fn each(self, with: impl FnMut(usize, f32));
}

impl Lanes for __m256 {
    #[inline(always)]
    unsafe fn of(element: impl Fn(usize) -> f32) -> Self {
        let e = element;
        // SAFETY: the caller guarantees AVX.
        unsafe { _mm256_setr_ps(e(0), e(1), e(2), e(3), e(4), e(5), e(6), e(7)) }
    }
    #[inline(always)]
    unsafe fn each(self, mut with: impl FnMut(usize, f32)) {
        // SAFETY: both have 32 bytes, and all bits are floats.
        let lanes: [f32; 8] = unsafe { std::mem::transmute(self) };
        (0..8).for_each(|lane| with(lane, lanes[lane]));
    }
}

impl Lanes for __m512 {
    #[inline(always)]
    unsafe fn of(element: impl Fn(usize) -> f32) -> Self {
        let e = element;
        // SAFETY: the caller guarantees AVX-512.
        unsafe {
            _mm512_setr_ps(
                e(0),
                e(1),
                e(2),
                e(3),
                e(4),
                e(5),
                e(6),
                e(7),
                e(8),
                e(9),
                e(10),
                e(11),
                e(12),
                e(13),
                e(14),
                e(15),
            )
        }
    }
    #[inline(always)]
    unsafe fn each(self, mut with: impl FnMut(usize, f32)) {
        // SAFETY: both have 64 bytes, and all bits are floats.
        let lanes: [f32; 16] = unsafe { std::mem::transmute(self) };
        (0..16).for_each(|lane| with(lane, lanes[lane]));
    }
}

/// What lanes read that are not selected.
static ZERO: f32 = 0.0;

/// A vector register, accessed as VECTORS and PREFETCH say. Without VECTORS each lane is loaded and stored by an access of
/// 4 bytes, which is volatile, as compilers merge neighbours. The arithmetic is the same.
#[derive(Clone, Copy)]
pub(super) struct Register<T, const VECTORS: bool, const PREFETCH: bool>(T);

/// Stores the lanes whose bits are set. Only edges of results and rows need it, so it is no part of their loops.
///
/// # Safety
/// They are writable.
#[inline(never)]
unsafe fn scatter(lanes: &[f32; 16], to: *mut f32, bits: u64) {
    for (lane, &value) in lanes.iter().enumerate() {
        if bits >> lane & 1 != 0 {
            // SAFETY: the caller guarantees it.
            unsafe { to.add(lane).write_volatile(value) };
        }
    }
}

/// The first `count` bits.
fn first(count: usize) -> u64 {
    if count < 64 { (1 << count) - 1 } else { u64::MAX }
}

// SAFETY (of all blocks): the caller guarantees the CPU features and the memory named by pointer and mask.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<T: Lanes, const VECTORS: bool, const PREFETCH: bool> Register<T, VECTORS, PREFETCH> {
    /// Every `stride`-th element whose bit is set. Others are zero, and are not read.
    #[inline(always)]
    unsafe fn gather(from: *const f32, stride: usize, bits: u64) -> Self {
        unsafe {
            Register(T::of(|lane| {
                let at =
                    if bits >> lane & 1 != 0 { from.wrapping_add(stride * lane) } else { &raw const ZERO };
                at.read_volatile()
            }))
        }
    }
}

// SAFETY (of all blocks): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<T: Lanes, const VECTORS: bool, const PREFETCH: bool> Vector for Register<T, VECTORS, PREFETCH> {
    const LANES: usize = T::LANES;
    const FREE_MASKS: bool = T::FREE_MASKS;
    /// The register's own, and the bits.
    type Mask = (T::Mask, u64);
    /// That of both registers.
    type Column = Register<__m256, VECTORS, PREFETCH>;

    #[inline(always)]
    unsafe fn mask(count: usize) -> Self::Mask {
        unsafe { (T::mask(count), first(count)) }
    }
    #[inline(always)]
    unsafe fn lanes(bits: u64) -> Self::Mask {
        unsafe { (T::lanes(bits), bits) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Register(T::splat(value)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe {
            if VECTORS {
                return Register(T::load(from));
            }
            Register(T::of(|lane| from.add(lane).read_volatile()))
        }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            if VECTORS {
                return self.0.store(to);
            }
            self.0.each(|lane, value| to.add(lane).write_volatile(value));
        }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, mask: Self::Mask) -> Self {
        unsafe { if VECTORS { Register(T::load_part(from, mask.0)) } else { Self::gather(from, 1, mask.1) } }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, mask: Self::Mask) {
        unsafe {
            if VECTORS {
                return self.0.store_part(to, mask.0);
            }
            let mut lanes = [0.0; 16];
            self.0.store(lanes.as_mut_ptr());
            scatter(&lanes, to, mask.1);
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        unsafe { Register(self.0.mul_add(factor.0, addend.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Register(self.0.mul(other.0)) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Register(self.0.add(other.0)) }
    }
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        unsafe { Register(self.0.relu()) }
    }
    #[inline(always)]
    unsafe fn sums(of: [Self; 4]) -> [f32; 4] {
        unsafe { T::sums(of.map(|it| it.0)) }
    }
    #[inline(always)]
    unsafe fn load_every_other(from: *const f32, count: usize) -> Self {
        unsafe {
            if VECTORS {
                Register(T::load_every_other(from, count))
            } else {
                Self::gather(from, 2, first(count))
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        if PREFETCH {
            unsafe { T::prefetch(from) }
        }
    }
}

impl<T: Lanes, const VECTORS: bool, const PREFETCH: bool> DotVector for Register<T, VECTORS, PREFETCH> {
    #[inline(always)]
    unsafe fn six_by_four(dots: &Dots, l: usize, v: usize) {
        // SAFETY: the caller keeps the contract.
        unsafe { six_by_four::<Self>(dots, l, v) }
    }
}

// SAFETY (of all blocks): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<T: Lanes, const VECTORS: bool, const PREFETCH: bool> Lanes for Register<T, VECTORS, PREFETCH> {
    #[inline(always)]
    unsafe fn of(element: impl Fn(usize) -> f32) -> Self {
        unsafe { Register(T::of(element)) }
    }
    #[inline(always)]
    unsafe fn each(self, with: impl FnMut(usize, f32)) {
        unsafe { self.0.each(with) }
    }
}
