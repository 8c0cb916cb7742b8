//! Memory whose size follows from input. It is reserved before it is filled, so that a lack of memory is an error
//! with a message and does not abort the process.
//!
//! Memory of small and fixed size (a line of a table, a picture of the demo) is allocated as usual.

use std::fmt::Display;

use sparkle::problem::exact::Random;

use crate::failure::Failure;

/// An empty vector with room for `len` elements.
///
/// # Errors
/// Names `what` the memory is for, and the missing bytes.
pub fn reserved<T>(what: impl Display, len: usize) -> Result<Vec<T>, Failure> {
    let mut vec = Vec::new();
    match vec.try_reserve_exact(len) {
        Ok(()) => Ok(vec),
        Err(_) => Err(lacking(what, len.saturating_mul(size_of::<T>()))),
    }
}

/// A vector of `len` elements, all `value`.
///
/// # Errors
/// As [`reserved`].
pub fn filled<T: Clone>(what: impl Display, len: usize, value: T) -> Result<Vec<T>, Failure> {
    let mut vec = reserved(what, len)?;
    vec.resize(len, value);
    Ok(vec)
}

/// An output of `len` elements, all NaN, so that an element that is not written is noticed.
///
/// # Errors
/// As [`reserved`].
pub fn unwritten(len: usize) -> Result<Vec<f32>, Failure> {
    filled(format_args!("an output of {len} elements"), len, f32::NAN)
}

/// A copy of `values`.
///
/// # Errors
/// As [`reserved`].
pub fn copied<T: Clone>(what: impl Display, values: &[T]) -> Result<Vec<T>, Failure> {
    let mut copy = reserved(what, values.len())?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// `len` random real values in -1..1.
///
/// # Errors
/// As [`reserved`].
pub fn reals(what: impl Display, random: &mut Random, len: usize) -> Result<Vec<f32>, Failure> {
    let mut values = filled(what, len, 0.0)?;
    random.fill_reals(&mut values);
    Ok(values)
}

/// Appends `value`.
///
/// # Errors
/// As [`reserved`].
pub fn push<T>(what: impl Display, vec: &mut Vec<T>, value: T) -> Result<(), Failure> {
    if vec.try_reserve(1).is_err() {
        return Err(lacking(what, (vec.len() + 1).saturating_mul(size_of::<T>())));
    }
    vec.push(value);
    Ok(())
}

/// Checks that `bytes` are available, before a call of code that allocates without a check. They are reserved and
/// released untouched, which costs nothing.
///
/// # Errors
/// As [`reserved`].
pub fn check(what: impl Display, bytes: usize) -> Result<(), Failure> {
    reserved::<u8>(what, bytes).map(drop)
}

/// The failure to allocate `bytes`.
pub fn lacking(what: impl Display, bytes: usize) -> Failure {
    Failure::Input(format!("{what}: not enough memory, {bytes} bytes are needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_names_the_purpose_and_the_bytes() {
        let most = isize::MAX as usize;
        let message = |result: Result<(), Failure>| result.unwrap_err().to_string();
        assert_eq!(
            message(check("x.npy", most)),
            format!("x.npy: not enough memory, {most} bytes are needed")
        );
        let outputs = message(unwritten(most / 4).map(drop));
        assert!(
            outputs.starts_with(&format!("an output of {} elements: not enough memory, ", most / 4)),
            "{outputs}"
        );
        // More bytes than fit in a usize.
        assert!(message(reserved::<u64>("times", usize::MAX).map(drop)).starts_with("times: "));
    }

    #[test]
    fn memory_is_filled_and_no_larger_than_asked_for() {
        let vec = filled("a test", 1000, 7u32).unwrap();
        assert_eq!((vec.len(), vec.capacity(), vec[999]), (1000, 1000, 7));
        assert!(unwritten(3).unwrap().iter().all(|value| value.is_nan()));
        assert_eq!(copied("a test", &[1.0, 2.0]).unwrap(), [1.0, 2.0]);
        assert_eq!(reals("a test", &mut Random::new(4), 9).unwrap(), Random::new(4).reals(9));
        let mut vec = vec![1];
        push("a test", &mut vec, 2).unwrap();
        assert_eq!(vec, [1, 2]);
    }
}
