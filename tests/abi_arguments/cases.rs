//! Support for all cases.

use std::ffi::CStr;
use std::ptr::null_mut;

use sparkle::ffi::device::*;
use sparkle::ffi::library::*;
use sparkle::ffi::status::sparkle_status::*;

/// The value of outputs before they are written.
pub const CANARY: f32 = -12345.0;

pub fn last_error() -> String {
    // SAFETY: this is a NUL-terminated string, which is copied before the next call.
    unsafe { CStr::from_ptr(sparkle_last_error()) }.to_str().unwrap().to_owned()
}

/// Sets a last error that no other call sets.
fn old_error() -> String {
    let mut device = null_mut();
    // SAFETY: both arguments are sound.
    let status = unsafe { sparkle_device_open(c"the error before".as_ptr(), &mut device) };
    assert_eq!(status, SPARKLE_ERROR_INVALID_ARGUMENT);
    last_error()
}

/// Counts cases, and checks their common conditions.
#[derive(Default)]
pub struct Cases(usize);

impl Cases {
    /// Runs `call`, which must return `expected` and set a new last error that contains `part`.
    #[track_caller]
    pub fn refused<T: PartialEq + std::fmt::Debug>(
        &mut self,
        expected: T,
        part: &str,
        call: impl FnOnce() -> T,
    ) {
        let old = old_error();
        assert_eq!(call(), expected, "{}", last_error());
        let new = last_error();
        assert!(!new.is_empty() && new != old && new.contains(part), "\"{new}\" should name {part}");
        self.0 += 1;
    }

    #[track_caller]
    pub fn at_least(&self, count: usize) {
        assert!(self.0 >= count, "only {} cases", self.0);
    }
}

/// Extreme integers, for any width.
pub fn extremes() -> impl Iterator<Item = i64> {
    let edges = [i64::MIN, i64::from(i32::MIN), -1, 0, 1, i64::from(i32::MAX), i64::from(u32::MAX), i64::MAX];
    edges.into_iter().flat_map(|edge| [edge.wrapping_sub(1), edge, edge.wrapping_add(1)])
}

pub fn open_cpu() -> *mut sparkle_device {
    let mut device = null_mut();
    // SAFETY: both arguments are sound.
    assert_eq!(unsafe { sparkle_device_open(c"cpu".as_ptr(), &mut device) }, SPARKLE_OK);
    device
}
