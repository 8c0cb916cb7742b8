//! The helpers of the reference interface: aligned memory, prefetch, non-temporal stores, the time-stamp counter.
//!
//! Existing Fortran kernels call these from their inner loops for what their language cannot say. Each is one
//! instruction, or a few, and must cost no more: a `boundary!`, which asks for the process id and registers for a panic,
//! takes longer than the store it would guard. They are `leaf!`s instead: nothing in them can panic, looks up a
//! handle, or takes a lock. Only what asks the allocator, and the refusal of NULL, goes through the boundary.
//!
//! A processor that lacks an instruction gets the same effect by ordinary ones, never a fault.

use std::ffi::{c_float, c_int, c_void};

use super::instructions::{self, Locality};
use super::status::{Failure, sparkle_status};
use crate::error::Error;

/// What SIMD loads and a cache line want, in bytes.
const ALIGNMENT: usize = 64;

/// The body of an exported function that needs no boundary.
macro_rules! leaf {
    ($body:block) => {
        $body
    };
}

/// Memory of `bytes` bytes, aligned to 64, for the caller to release with free(); NULL on failure.
#[unsafe(no_mangle)]
pub extern "C" fn posix_memalign_wrapper(bytes: usize) -> *mut c_void {
    boundary!(|_call| {
        let mut memory = std::ptr::null_mut();
        // SAFETY: `memory` is there to be written to; the alignment is a power of two and a multiple of a pointer's size.
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

/// Fetches the cache line at `address`, which need not be readable, into the caches that `hint` names: 0 past them all, 1
/// into L3, 2 into L2, any other into L1.
#[unsafe(no_mangle)]
pub extern "C" fn mm_prefetch_wrapper(address: *const c_void, hint: c_int) {
    leaf!({ instructions::prefetch(address, locality(hint)) })
}

/// Fetches the cache line at `address`, which need not be readable, to be read (`rw` 0) or written; `locality` says how
/// near to keep it, from 0, not at all, to 3, L1; any other is 3.
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

/// Fetches the cache line at `address`, which need not be readable, past the caches.
#[unsafe(no_mangle)]
pub extern "C" fn prefetchnta_wrapper(address: *const c_void) {
    leaf!({ instructions::prefetch(address, Locality::None) })
}

/// Copies 16 floats to `dst` past the caches; by ordinary stores if `dst` is not aligned to 64 bytes or the processor
/// lacks AVX-512. Others may see them only after sfence_wrapper. NULL is refused: nothing is copied, and
/// sparkle_last_error says so.
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

/// Ends the stores so far, the non-temporal ones too, before any later store.
#[unsafe(no_mangle)]
pub extern "C" fn sfence_wrapper() {
    leaf!({ instructions::store_fence() })
}

/// 1 if `address` is a multiple of `alignment`, else 0; 0 for an alignment of 0.
#[unsafe(no_mangle)]
pub extern "C" fn is_aligned_for_streaming(address: *const c_void, alignment: usize) -> c_int {
    leaf!({ address.addr().checked_rem(alignment).is_some_and(|rest| rest == 0).into() })
}

/// The time-stamp counter; on other processors than x86 nanoseconds of a monotonic clock.
#[unsafe(no_mangle)]
pub extern "C" fn rdtsc_wrapper() -> u64 {
    leaf!({ instructions::ticks() })
}

/// As rdtsc_wrapper, read after all earlier instructions have been executed.
#[unsafe(no_mangle)]
pub extern "C" fn rdtscp_wrapper() -> u64 {
    leaf!({ instructions::ticks_after() })
}

/// As rdtsc_wrapper, read after all earlier instructions have been executed and before any later one begins.
#[unsafe(no_mangle)]
pub extern "C" fn rdtsc_fenced() -> u64 {
    leaf!({ instructions::ticks_fenced() })
}

/// The number that both prefetches give a locality.
#[inline(always)]
fn locality(number: c_int) -> Locality {
    match number {
        0 => Locality::None,
        1 => Locality::L3,
        2 => Locality::L2,
        _ => Locality::L1,
    }
}

/// Copies `LANES` floats past the caches.
///
/// # Safety
/// What is not NULL is readable, or writable, for `LANES` floats.
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

/// Notes that `argument` is NULL, in functions that return nothing.
#[cold]
#[inline(never)]
fn refuse(argument: &'static str) {
    let _: sparkle_status = boundary!(|_call| { Err(Failure::null(argument)) });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No prefetch shows where a line went, so the numbers' meaning is told here.
    #[test]
    fn localities_have_their_numbers() {
        assert!(matches!(locality(0), Locality::None));
        assert!(matches!(locality(1), Locality::L3));
        assert!(matches!(locality(2), Locality::L2));
        assert!([3, 4, -1, i32::MAX].iter().all(|&number| matches!(locality(number), Locality::L1)));
    }
}
