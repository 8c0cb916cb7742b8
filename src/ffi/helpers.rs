//! The helpers of the reference interface: aligned memory, prefetch, non-temporal stores, the time-stamp counter.
//!
//! Existing Fortran kernels call these in their inner loops. Each is one instruction, or a few, and must cost no more:
//! a `boundary!`, which reads the process id and prepares for a panic, takes longer than the store it would guard. They
//! are `leaf!`s instead: they cannot panic, look up no handle and take no lock. Only the allocation and the refusal of
//! NULL use a boundary.
//!
//! On a processor without an instruction, ordinary instructions have the same effect; there is never a fault.

use std::ffi::{c_float, c_int, c_void};

use super::instructions::{self, Locality};
use super::status::{Failure, sparkle_status};
use crate::error::Error;

/// Alignment of SIMD loads and cache lines in bytes.
const ALIGNMENT: usize = 64;

/// The body of an exported function that needs no boundary.
macro_rules! leaf {
    ($body:block) => {
        $body
    };
}

/// Allocates `bytes` bytes aligned to 64. The caller releases them with free(). NULL on failure.
#[unsafe(no_mangle)]
pub extern "C" fn posix_memalign_wrapper(bytes: usize) -> *mut c_void {
    boundary!(|_call| {
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is writable; the alignment is a power of two and a multiple of a pointer's size.
        match unsafe { libc::posix_memalign(&mut memory, ALIGNMENT, bytes) } {
            0 => Ok(memory),
            _ => Err(Error::OutOfMemory {
                device: "cpu".into(),
                what: format!("{bytes} bytes aligned to {ALIGNMENT}"),
            }
            .into()),
        }
    })
}

/// Prefetches the cache line at `address`, which need not be readable. `hint`: 0 bypasses the caches, 1 is L3, 2 is L2,
/// anything else is L1.
#[unsafe(no_mangle)]
pub extern "C" fn mm_prefetch_wrapper(address: *const c_void, hint: c_int) {
    leaf!({ instructions::prefetch(address, locality(hint)) })
}

/// Prefetches the cache line at `address`, which need not be readable, for reading (`rw` 0) or writing. `locality`: 0
/// bypasses the caches, 1 is L3, 2 is L2, anything else is L1.
#[unsafe(no_mangle)]
pub extern "C" fn builtin_prefetch_wrapper(address: *const c_void, rw: c_int, locality: c_int) {
    leaf!({
        let locality = self::locality(locality);
        if rw == 0 {
            instructions::prefetch(address, locality)
        } else {
            instructions::prefetch_write(address, locality)
        }
    })
}

/// Prefetches the cache line at `address`, which need not be readable, bypassing the caches.
#[unsafe(no_mangle)]
pub extern "C" fn prefetchnta_wrapper(address: *const c_void) {
    leaf!({ instructions::prefetch(address, Locality::None) })
}

/// Copies 16 floats from `src` to `dst` with non-temporal stores, or with ordinary stores if `dst` is not aligned to 64
/// bytes or the processor lacks AVX-512. Other threads are guaranteed to see them only after sfence_wrapper. If a
/// pointer is NULL nothing is copied, and sparkle_last_error names it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mm512_stream_ps_wrapper(dst: *mut c_float, src: *const c_float) {
    leaf!({
        // SAFETY: C's promises for both.
        unsafe { stream::<16>(dst, src) }
    })
}

/// As mm512_stream_ps_wrapper, for 8 floats, 32 bytes and AVX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mm256_stream_ps_wrapper(dst: *mut c_float, src: *const c_float) {
    leaf!({
        // SAFETY: C's promises for both.
        unsafe { stream::<8>(dst, src) }
    })
}

/// As mm512_stream_ps_wrapper, for 4 floats, 16 bytes and SSE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mm128_stream_ps_wrapper(dst: *mut c_float, src: *const c_float) {
    leaf!({
        // SAFETY: C's promises for both.
        unsafe { stream::<4>(dst, src) }
    })
}

/// Completes all earlier stores, including non-temporal ones, before any later store.
#[unsafe(no_mangle)]
pub extern "C" fn sfence_wrapper() {
    leaf!({ instructions::store_fence() })
}

/// Returns 1 if `address` is a multiple of `alignment`, else 0; 0 if `alignment` is 0.
#[unsafe(no_mangle)]
pub extern "C" fn is_aligned_for_streaming(address: *const c_void, alignment: usize) -> c_int {
    leaf!({ address.addr().checked_rem(alignment).is_some_and(|rest| rest == 0).into() })
}

/// Reads the time-stamp counter. On processors other than x86-64 it reads a monotonic clock in nanoseconds.
#[unsafe(no_mangle)]
pub extern "C" fn rdtsc_wrapper() -> u64 {
    leaf!({ instructions::ticks() })
}

/// As rdtsc_wrapper, after all earlier instructions have been executed.
#[unsafe(no_mangle)]
pub extern "C" fn rdtscp_wrapper() -> u64 {
    leaf!({ instructions::ticks_after() })
}

/// As rdtsc_wrapper, after all earlier instructions have been executed and before any later one starts.
#[unsafe(no_mangle)]
pub extern "C" fn rdtsc_fenced() -> u64 {
    leaf!({ instructions::ticks_fenced() })
}

/// The locality for a number; both prefetches use the same numbers.
#[inline(always)]
fn locality(number: c_int) -> Locality {
    match number {
        0 => Locality::None,
        1 => Locality::L3,
        2 => Locality::L2,
        _ => Locality::L1,
    }
}

/// Copies `LANES` floats with non-temporal stores.
///
/// # Safety
/// `dst` is NULL or writable, and `src` is NULL or readable, for `LANES` floats.
#[inline(always)]
unsafe fn stream<const LANES: usize>(dst: *mut c_float, src: *const c_float) {
    if dst.is_null() || src.is_null() {
        return refuse(if dst.is_null() { "dst" } else { "src" });
    }
    // SAFETY: not NULL, so readable as promised; any alignment is fine.
    let values = unsafe { src.cast::<[f32; LANES]>().read_unaligned() };
    // SAFETY: not NULL, so writable as promised.
    unsafe { instructions::stream(dst, &values) }
}

/// Sets the last error "`argument` is NULL", for functions that return nothing.
#[cold]
#[inline(never)]
fn refuse(argument: &'static str) {
    let _: sparkle_status = boundary!(|_call| { Err(Failure::null(argument)) });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The effect of a prefetch cannot be observed, so this tests the numbers.
    #[test]
    fn localities_have_their_numbers() {
        assert!(matches!(locality(0), Locality::None));
        assert!(matches!(locality(1), Locality::L3));
        assert!(matches!(locality(2), Locality::L2));
        assert!([3, 4, -1, i32::MAX].iter().all(|&number| matches!(locality(number), Locality::L1)));
    }
}
