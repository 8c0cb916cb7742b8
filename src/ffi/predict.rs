//! What a plan is expected to take on each device, and what such plans have taken.

use std::ffi::c_char;

use super::conv2d::{problem, sparkle_conv2d_desc};
use super::device::{self, sparkle_device};
use super::pointer::{self, Growing};
use super::status::sparkle_status;
use crate::device::Prediction;

/// What is expected of one device for a convolution. Texts are UTF-8, end with a NUL, and are truncated if they are too
/// long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_prediction {
    /// sizeof(sparkle_prediction); the caller sets it in the first element of an array.
    pub size: usize,
    /// The predicted time of a run in milliseconds, transfers included; -1 if the device could not be measured.
    pub predicted_ms: f64,
    /// The time that runs of such plans have taken on this device of "auto", in milliseconds; -1 if it was not tried.
    pub measured_ms: f64,
    /// 1 if the next plan of this kind would go to this device, else 0. On "multi" it is 1 for all, because each may get
    /// a share.
    pub is_next: i32,
    /// Zero.
    pub reserved: i32,
    /// The device, as a selector.
    pub device: [c_char; 32],
    /// Why the device could not be measured; "" if it could.
    pub reason: [c_char; 256],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_prediction {
    const NAME: &'static str = "sparkle_prediction";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reason) + size_of::<[c_char; 256]>();
}

impl From<&Prediction> for sparkle_prediction {
    fn from(it: &Prediction) -> Self {
        let mut found = sparkle_prediction {
            size: size_of::<Self>(),
            predicted_ms: it.seconds.as_ref().map_or(-1.0, |seconds| seconds * 1e3),
            measured_ms: it.measured.map_or(-1.0, |seconds| seconds * 1e3),
            is_next: it.is_next.into(),
            reserved: 0,
            device: [0; 32],
            reason: [0; 256],
        };
        pointer::copy_text(&it.device, &mut found.device);
        if let Err(error) = &it.seconds {
            pointer::copy_text(&error.to_string(), &mut found.reason);
        }
        found
    }
}

/// Predicts one run of a plan on each device that `device` chooses from, the CPU first, and tells what "auto" has measured of
/// such plans. sparkle_conv2d also brings the weights, and is learned apart. Writes the number of devices to `*out_count` and at
/// most `capacity` predictions to the array `out`. The caller sets `size` in the first element only; all elements have that size.
/// `out` may be NULL if `capacity` is 0. `device` may be NULL, which means "auto". Nothing is computed and no later choice
/// changes; the first call measures the devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_device_predict(
    device: *mut sparkle_device,
    desc: *const sparkle_conv2d_desc,
    out: *mut sparkle_prediction,
    capacity: usize,
    out_count: *mut usize,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out_count", out_count)?;
        // SAFETY: C's promise for `desc`.
        let problem = unsafe { problem(desc)? };
        let found = device::resolve(call, device)?.predictions(&problem);
        // SAFETY: C's promise for the array.
        unsafe { pointer::write_structs(out, capacity, found.iter().map(sparkle_prediction::from)) }?;
        // SAFETY: C's promise for `out_count`.
        unsafe { pointer::write("out_count", out_count, found.len()) }
    })
}
