//! The reference interface's helpers.

use std::ffi::c_void;
use std::ptr::{null, null_mut, without_provenance};

use sparkle::ffi::helpers::*;

use crate::cases::{CANARY, Cases, extremes};

type Stream = unsafe extern "C" fn(*mut f32, *const f32);

#[test]
fn memory() {
    let mut cases = Cases::default();
    // More than any address space has, and sizes that overflow when they are aligned.
    for bytes in [usize::MAX, usize::MAX - 63, usize::MAX / 2 + 1, 1 << 60] {
        cases.refused(null_mut(), "bytes", || posix_memalign_wrapper(bytes));
    }
    cases.at_least(4);
    let mut sizes = 0;
    for bytes in [0, 1, 63, 64, 65, 1 << 20] {
        let memory = posix_memalign_wrapper(bytes);
        // NULL is valid for zero bytes.
        assert!(bytes == 0 || !memory.is_null());
        assert_eq!(memory.addr() % 64, 0);
        // SAFETY: the memory has the requested size, comes from the C allocator, and is freed once.
        unsafe {
            memory.cast::<u8>().write_bytes(0x5A, bytes);
            libc::free(memory);
        }
        sizes += 1;
    }
    assert_eq!(sizes, 6);
}

#[test]
fn prefetches_take_any_address_and_number() {
    let valid = 1.0f32;
    let mut cases = 0;
    for address in [null(), (&raw const valid).cast(), without_provenance::<c_void>(usize::MAX - 7)] {
        prefetchnta_wrapper(address);
        for hint in extremes().map(|edge| edge as i32).chain(0..5) {
            mm_prefetch_wrapper(address, hint);
            for rw in [0, 1, -1] {
                builtin_prefetch_wrapper(address, rw, hint);
            }
            cases += 1;
        }
    }
    assert!(cases >= 87, "{cases}");
}

fn streams(lanes: usize, stream: Stream) {
    let from: Vec<f32> = (0..lanes + 1).map(|lane| lane as f32 + 0.5).collect();
    let mut to = vec![CANARY; 64];
    let mut cases = Cases::default();
    // SAFETY: the call refuses NULL; the other pointer is valid.
    unsafe {
        cases.refused((), "dst is NULL", || stream(null_mut(), from.as_ptr()));
        cases.refused((), "dst is NULL", || stream(null_mut(), null()));
        cases.refused((), "src is NULL", || stream(to.as_mut_ptr(), null()));
    }
    cases.at_least(3);
    assert!(to.iter().all(|&value| value == CANARY));
    // With any alignment of both pointers.
    for offset in 0..32 {
        to.fill(CANARY);
        // SAFETY: at most 16 of 64 floats from at most the 32nd; `lanes` of `lanes + 1`.
        unsafe { stream(to.as_mut_ptr().add(offset), from.as_ptr().add(offset % 2)) };
        sfence_wrapper();
        for (index, &value) in to.iter().enumerate() {
            let copied = (offset..offset + lanes).contains(&index);
            let expected = if copied { (index - offset + offset % 2) as f32 + 0.5 } else { CANARY };
            assert_eq!(value, expected, "{lanes} lanes at {offset}: {index}");
        }
    }
}

#[test]
fn streams_of_all_widths() {
    streams(16, mm512_stream_ps_wrapper);
    streams(8, mm256_stream_ps_wrapper);
    streams(4, mm128_stream_ps_wrapper);
}

#[test]
fn alignments() {
    let mut cases = 0;
    for address in [0usize, 1, 16, 32, 48, 64, 96, usize::MAX, 1 << 63] {
        for alignment in [0usize, 1, 3, 4, 16, 32, 64, usize::MAX, 1 << 63] {
            let expected = alignment != 0 && address.is_multiple_of(alignment);
            let found = is_aligned_for_streaming(without_provenance(address), alignment);
            assert_eq!(found, i32::from(expected), "{address} {alignment}");
            cases += 1;
        }
    }
    assert_eq!(cases, 81);
}

#[test]
fn ticks_go_on() {
    let clocks: [extern "C" fn() -> u64; 3] = [rdtsc_wrapper, rdtscp_wrapper, rdtsc_fenced];
    for clock in clocks {
        let before = clock();
        std::thread::sleep(std::time::Duration::from_millis(2));
        // At least one tick per microsecond, which measuring kernels needs.
        let passed = clock().checked_sub(before).expect("time goes forward");
        assert!(passed > 2000, "{passed} ticks in 2 ms");
    }
    // The test for forgotten functions looks for calls in the source.
    assert!(rdtsc_wrapper() > 0 && rdtscp_wrapper() > 0 && rdtsc_fenced() > 0);
    // SAFETY: both arrays have enough floats for the widest function.
    unsafe {
        let (from, mut to) = ([1.0; 16], [0.0; 16]);
        mm128_stream_ps_wrapper(to.as_mut_ptr(), from.as_ptr());
        mm256_stream_ps_wrapper(to.as_mut_ptr(), from.as_ptr());
        mm512_stream_ps_wrapper(to.as_mut_ptr(), from.as_ptr());
        assert_eq!(to, from);
    }
}
