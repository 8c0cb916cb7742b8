//! The shares of the last call on `multi`.

use std::ffi::c_char;

use super::pointer::{self, Growing};
use super::status::sparkle_status;
use super::timing;
use crate::device::{Dimension, Share};

/// What a call on "multi" was cut into.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum sparkle_dimension {
    /// The images of a batch.
    SPARKLE_DIMENSION_IMAGES = 0,
    /// The output channels of a convolution.
    SPARKLE_DIMENSION_CHANNELS = 1,
    /// The rows of a matrix product.
    SPARKLE_DIMENSION_ROWS = 2,
    /// The columns of a matrix product.
    SPARKLE_DIMENSION_COLUMNS = 3,
}

/// The part of a call that one device computed. The text is UTF-8 and ends with a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_share {
    /// sizeof(sparkle_share); the caller sets it in the first element of an array.
    pub size: usize,
    /// The first index of the share in its dimension, from 0.
    pub first: i64,
    /// How many there are.
    pub count: i64,
    /// The predicted time of the share in milliseconds; 0 if the shares are fixed.
    pub predicted_ms: f64,
    /// The time that it took on its device in milliseconds, transfers included.
    pub measured_ms: f64,
    /// A sparkle_dimension.
    pub dimension: i32,
    /// Zero.
    pub reserved: i32,
    /// The device that computed it, as a selector.
    pub device: [c_char; 32],
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_share {
    const NAME: &'static str = "sparkle_share";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, device) + size_of::<[c_char; 32]>();
}

impl From<&Share> for sparkle_share {
    fn from(share: &Share) -> Self {
        let dimension = match share.dimension {
            Dimension::Images => sparkle_dimension::SPARKLE_DIMENSION_IMAGES,
            Dimension::Channels => sparkle_dimension::SPARKLE_DIMENSION_CHANNELS,
            Dimension::Rows => sparkle_dimension::SPARKLE_DIMENSION_ROWS,
            Dimension::Columns => sparkle_dimension::SPARKLE_DIMENSION_COLUMNS,
        };
        let mut found = sparkle_share {
            size: size_of::<Self>(),
            first: share.first as i64,
            count: share.count as i64,
            predicted_ms: share.predicted.as_secs_f64() * 1e3,
            measured_ms: share.measured.as_secs_f64() * 1e3,
            dimension: dimension as i32,
            reserved: 0,
            device: [0; 32],
        };
        pointer::copy_text(&share.device, &mut found.device);
        found
    }
}

/// Writes the shares of this thread's last successful call, the one that sparkle_last_timing is about, and their number
/// to `*out_count`: 0 unless the call ran on "multi". At most `capacity` shares are written to the array `out`, in the
/// order of their first index. The caller sets `size` in the first element only; all elements have that size. `out` may
/// be NULL if `capacity` is 0.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT if this thread has made no such call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_last_shares(
    out: *mut sparkle_share,
    capacity: usize,
    out_count: *mut usize,
) -> sparkle_status {
    boundary!(|_call| {
        pointer::check("out_count", out_count)?;
        let shares = timing::of_last(|run| run.shares.clone())?;
        // SAFETY: C's promise for the array.
        unsafe { pointer::write_structs(out, capacity, shares.iter().map(sparkle_share::from)) }?;
        // SAFETY: C's promise for `out_count`.
        unsafe { pointer::write("out_count", out_count, shares.len()) }
    })
}
