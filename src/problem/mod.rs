//! Layer 1: validated problems. Pure: no I/O, no devices, no threads.
//!
//! A [`Conv2d`] or [`Gemm`] exists only if every size in it is sound, so nothing below this layer checks a
//! shape again: all counts and byte sizes fit in `isize`, all strides are positive, all buffers were measured.
//! [`oracle`] solves both in float64 the naive way; it is what every figure and every test is compared with.

mod conv2d;
mod gemm;

pub mod exact;
pub mod oracle;
pub(crate) mod winograd;

pub use conv2d::{Algorithm, Conv2d, Conv2dDesc, Conv2dSizes};
pub use gemm::{Gemm, GemmDesc, GemmSizes, Layout, Transpose};

use crate::error::{Error, Result};

/// A size that must be at least `least` and at most `i32::MAX` (a tensor side no format or API exceeds).
fn side(argument: &'static str, value: i64, least: i64) -> Result<usize> {
    if value < least || value > i64::from(i32::MAX) {
        return Err(Error::invalid(argument, value, format!("{least} to {}", i32::MAX)));
    }
    Ok(value as usize)
}

/// The product of `sides`, as a number of fp32 elements whose byte size fits in `isize`.
fn elements(argument: &'static str, sides: &[usize]) -> Result<usize> {
    sides
        .iter()
        .try_fold(1usize, |product, &side| product.checked_mul(side))
        .filter(|&count| count <= isize::MAX as usize / size_of::<f32>())
        .ok_or_else(|| {
            let shape = sides.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            Error::invalid(argument, shape, "a buffer of fp32 elements that fits in memory")
        })
}

/// Checks that a buffer has exactly `expected` elements.
pub(crate) fn exact_length(argument: &'static str, given: usize, expected: usize) -> Result<()> {
    if given == expected {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("{given} elements"), format!("{expected} elements")))
}

/// Checks that a buffer has at least `least` elements.
pub(crate) fn least_length(argument: &'static str, given: usize, least: usize) -> Result<()> {
    if given >= least {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("{given} elements"), format!("at least {least} elements")))
}
