//! Checks of sizes and buffer lengths.

use crate::error::{Error, Result};

/// `value` as a size of at least `min` and at most `i32::MAX`.
///
/// # Errors
/// [`Error::InvalidArgument`] for any other value.
pub fn side(argument: &'static str, value: i64, min: i64) -> Result<usize> {
    if value < min || value > i64::from(i32::MAX) {
        return Err(Error::invalid(argument, value, format!("{min} to {}", i32::MAX)));
    }
    Ok(value as usize)
}

/// The product of `sides`: a number of fp32 elements.
///
/// # Errors
/// [`Error::InvalidArgument`] if their size in bytes does not fit in `isize`.
pub fn elements(argument: &'static str, sides: &[usize]) -> Result<usize> {
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
///
/// # Errors
/// [`Error::InvalidArgument`] if it does not.
pub fn exact_length(argument: &'static str, given: usize, expected: usize) -> Result<()> {
    if given == expected {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("{given} elements"), format!("{expected} elements")))
}

/// Checks that a buffer has at least `min` elements.
///
/// # Errors
/// [`Error::InvalidArgument`] if it does not.
pub fn min_length(argument: &'static str, given: usize, min: usize) -> Result<()> {
    if given >= min {
        return Ok(());
    }
    Err(Error::invalid(argument, format!("{given} elements"), format!("at least {min} elements")))
}
