//! The program's reader of `.npy` files. Any bytes are an array or an error. An array is the same after writing and
//! reading it, and when the length of the file is unknown.

#![no_main]
// The target uses a part of what it includes.
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
#[path = "../../program/src/failure.rs"]
mod failure;
#[rustfmt::skip]
#[path = "../../program/src/memory.rs"]
mod memory;
#[rustfmt::skip]
#[path = "../../program/src/npy/mod.rs"]
mod npy;

use npy::Array;

/// The bits of an array: NaN equals itself.
fn bits(array: &Array) -> (&[usize], Vec<u32>) {
    (&array.shape, array.data.iter().map(|value| value.to_bits()).collect())
}

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    let Ok(array) = npy::parse(bytes, Some(length)) else { return };
    let piped = npy::parse(bytes, None).expect("its length is no secret to the reader");
    assert_eq!(bits(&piped), bits(&array));
    let mut written = vec![];
    npy::write(&mut written, &array.shape, &array.data).expect("memory takes all bytes");
    let again = npy::parse(&written[..], Some(written.len() as u64)).expect("the writer's own file");
    assert_eq!(bits(&again), bits(&array));
});
