//! The instructions of the helpers: intrinsics on x86-64, portable code with the same effect elsewhere.

use std::ffi::c_void;

/// The cache level into which a line is prefetched.
#[derive(Clone, Copy)]
pub enum Locality {
    /// Non-temporal: no cache keeps it after its use.
    None,
    L3,
    L2,
    L1,
}

#[cfg(not(target_arch = "x86_64"))]
pub use portable::*;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{Locality, c_void};

    #[inline(always)]
    pub fn prefetch(address: *const c_void, locality: Locality) {
        // SAFETY: SSE is part of x86-64; a prefetch never faults, whatever the address.
        unsafe {
            match locality {
                Locality::None => _mm_prefetch::<_MM_HINT_NTA>(address.cast()),
                Locality::L3 => _mm_prefetch::<_MM_HINT_T2>(address.cast()),
                Locality::L2 => _mm_prefetch::<_MM_HINT_T1>(address.cast()),
                Locality::L1 => _mm_prefetch::<_MM_HINT_T0>(address.cast()),
            }
        }
    }

    /// There is only one instruction for writing, into L1; processors without it ignore it.
    #[inline(always)]
    pub fn prefetch_write(address: *const c_void, _: Locality) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) }
    }

    /// Stores `values` with non-temporal stores if possible, else with ordinary ones.
    ///
    /// # Safety
    /// `to` is writable for as many floats; it may have any alignment.
    #[inline(always)]
    pub unsafe fn stream<const LANES: usize>(to: *mut f32, values: &[f32; LANES]) {
        let aligned = to.addr().is_multiple_of(size_of::<[f32; LANES]>());
        // SAFETY: `to` is writable as promised, and aligned where an arm requires it; the processor supports what each
        // arm uses (SSE always, on x86-64), and `values` has as many floats as the arm stores.
        unsafe {
            match LANES {
                16 if aligned && is_x86_feature_detected!("avx512f") => stream_512(to, values.as_ptr()),
                8 if aligned && is_x86_feature_detected!("avx") => stream_256(to, values.as_ptr()),
                4 if aligned => _mm_stream_ps(to, _mm_loadu_ps(values.as_ptr())),
                _ => to.cast::<[f32; LANES]>().write_unaligned(*values),
            }
        }
    }

    /// # Safety
    /// 16 floats at both pointers, `to` aligned to them.
    #[target_feature(enable = "avx512f")]
    unsafe fn stream_512(to: *mut f32, from: *const f32) {
        // SAFETY: as promised.
        unsafe { _mm512_stream_ps(to, _mm512_loadu_ps(from)) }
    }

    /// # Safety
    /// 8 floats at both pointers, `to` aligned to them.
    #[target_feature(enable = "avx")]
    unsafe fn stream_256(to: *mut f32, from: *const f32) {
        // SAFETY: as promised.
        unsafe { _mm256_stream_ps(to, _mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    pub fn store_fence() {
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    pub fn ticks() -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and operating systems allow it in user mode.
        unsafe { _rdtsc() }
    }

    #[inline(always)]
    pub fn ticks_after() -> u64 {
        let mut processor = 0;
        // SAFETY: as above; `processor` is writable.
        unsafe { __rdtscp(&mut processor) }
    }

    #[inline(always)]
    pub fn ticks_fenced() -> u64 {
        // SAFETY: as above; SSE2 is part of x86-64.
        unsafe {
            _mm_lfence();
            let ticks = _rdtsc();
            _mm_lfence();
            ticks
        }
    }
}

/// Compiled everywhere, so that it is tested everywhere.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use std::sync::OnceLock;
    use std::sync::atomic::{Ordering, compiler_fence, fence};
    use std::time::Instant;

    use super::{Locality, c_void};

    /// A hint may be ignored.
    pub fn prefetch(_: *const c_void, _: Locality) {}

    /// A hint may be ignored.
    pub fn prefetch_write(_: *const c_void, _: Locality) {}

    /// Stores `values`.
    ///
    /// # Safety
    /// `to` is writable for as many floats; it may have any alignment.
    pub unsafe fn stream<const LANES: usize>(to: *mut f32, values: &[f32; LANES]) {
        // SAFETY: writable as promised.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(*values) }
    }

    pub fn store_fence() {
        fence(Ordering::Release);
    }

    /// Nanoseconds since the first call.
    pub fn ticks() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    pub fn ticks_after() -> u64 {
        ticks_fenced()
    }

    /// Reading a clock is ordered by itself; only the compiler could move it.
    pub fn ticks_fenced() -> u64 {
        compiler_fence(Ordering::SeqCst);
        let ticks = ticks();
        compiler_fence(Ordering::SeqCst);
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At every alignment of a float, and two misaligned addresses, exactly `LANES` floats are stored.
    fn stores<const LANES: usize>(store: unsafe fn(*mut f32, &[f32; LANES])) {
        #[repr(align(64))]
        struct Line([u8; 256]);
        let values: [f32; LANES] = std::array::from_fn(|lane| lane as f32 + 0.5);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let mut cases = 0;
        for offset in (0..=64).step_by(4).chain([1, 35]) {
            let mut memory = Line([0xA5; 256]);
            // SAFETY: 64 bytes at most, from an offset of 64 at most, in 256.
            unsafe { store(memory.0.as_mut_ptr().add(offset).cast(), &values) };
            store_fence();
            let (before, rest) = memory.0.split_at(offset);
            let (stored, after) = rest.split_at(bytes.len());
            assert_eq!(stored, bytes, "{LANES} at {offset}");
            assert!(before.iter().chain(after).all(|&byte| byte == 0xA5), "{LANES} at {offset}");
            cases += 1;
        }
        assert_eq!(cases, 19);
    }

    #[test]
    fn stores_reach_memory_at_any_alignment() {
        stores::<4>(stream);
        stores::<8>(stream);
        stores::<16>(stream);
        stores::<4>(portable::stream);
        stores::<8>(portable::stream);
        stores::<16>(portable::stream);
    }

    #[test]
    fn the_portable_ticks_are_monotonic_nanoseconds() {
        portable::ticks();
        let (first, clock) = (portable::ticks_fenced(), std::time::Instant::now());
        std::thread::sleep(std::time::Duration::from_millis(2));
        portable::store_fence();
        let waited = clock.elapsed().as_nanos() as u64;
        let second = portable::ticks_after();
        assert!(second - first >= waited && waited >= 2_000_000, "{first} {second} {waited}");
        portable::prefetch(std::ptr::null(), Locality::L1);
        portable::prefetch_write(std::ptr::null(), Locality::None);
    }
}
