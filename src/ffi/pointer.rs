//! What C's pointers become: checked first, slices and values after.

use std::ffi::{CStr, c_char};

use super::status::{Failure, Outcome};
use crate::error::Error;

/// Checks that `pointer` is not NULL and aligned for a `T`.
pub(super) fn check<T>(argument: &'static str, pointer: *const T) -> Outcome<()> {
    if pointer.is_null() {
        return Err(Failure::null(argument));
    }
    if !pointer.is_aligned() {
        let expected = format!("a multiple of {}", align_of::<T>());
        return Err(
            Error::invalid(argument, format_args!("at address {:#x}", pointer.addr()), expected).into()
        );
    }
    Ok(())
}

/// Checks `len` elements from `pointer` on; NULL is fine for none.
fn check_range<T>(argument: &'static str, pointer: *const T, len: usize) -> Outcome<()> {
    if len == 0 {
        return Ok(());
    }
    check(argument, pointer)?;
    let fits = len
        .checked_mul(size_of::<T>())
        .filter(|&bytes| isize::try_from(bytes).is_ok() && pointer.addr().checked_add(bytes).is_some());
    let given = format_args!("{len} elements from address {:#x}", pointer.addr());
    fits.map(drop).ok_or_else(|| Error::invalid(argument, given, "a range of memory").into())
}

/// What C lets the call read.
///
/// # Safety
/// If `len` is not zero and `pointer` neither NULL nor misaligned, `len` elements from it on are readable and not written to
/// during `'a`.
pub(super) unsafe fn input<'a, T: bytemuck::Pod>(
    argument: &'static str,
    pointer: *const T,
    len: usize,
) -> Outcome<&'a [T]> {
    check_range(argument, pointer, len)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not NULL, aligned, and its size fits in isize, as just checked; readable and unchanging, as promised; any bits
    // are a `T`, since it is plain data.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// What C lets the call write, which must not overlap any of `inputs` (name and memory).
///
/// # Safety
/// As [`input`], and the elements are writable and not accessed otherwise during `'a`.
pub(super) unsafe fn output<'a, T: bytemuck::Pod>(
    argument: &'static str,
    pointer: *mut T,
    len: usize,
    inputs: &[(&'static str, &[T])],
) -> Outcome<&'a mut [T]> {
    check_range(argument, pointer.cast_const(), len)?;
    if len == 0 {
        return Ok(&mut []);
    }
    let (start, end) = (pointer.addr(), pointer.addr() + len * size_of::<T>());
    for (name, memory) in inputs {
        let other = memory.as_ptr_range();
        if !memory.is_empty() && start < other.end.addr() && other.start.addr() < end {
            let given = format_args!("in the same memory as {name}");
            return Err(Error::invalid(argument, given, "memory of its own").into());
        }
    }
    // SAFETY: as in `input`; nothing else refers to the memory: not the inputs, as just checked, and nobody else, as promised.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// Where a result goes that is one value.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, it is valid for writing a `T`.
pub(super) unsafe fn write<T>(argument: &'static str, pointer: *mut T, value: T) -> Outcome<()> {
    check(argument, pointer.cast_const())?;
    // SAFETY: not NULL and aligned, as just checked; writable, as promised.
    unsafe { pointer.write(value) };
    Ok(())
}

/// A C string as text.
///
/// # Safety
/// If `pointer` is not NULL, it points to a NUL-terminated string that does not change during `'a`.
pub(super) unsafe fn text<'a>(argument: &'static str, pointer: *const c_char) -> Outcome<&'a str> {
    check(argument, pointer)?;
    // SAFETY: not NULL, as just checked; NUL-terminated and unchanging, as promised.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    let lossy = || format!("\"{}\"", bytes.to_string_lossy());
    bytes.to_str().map_err(|_| Error::invalid(argument, lossy(), "UTF-8").into())
}

/// Copies `text` into a C array of characters, cut at a character's boundary if it is too long.
pub(super) fn copy_text<const N: usize>(text: &str, into: &mut [c_char; N]) {
    let room = N - 1;
    let cut = (0..=room.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    into.fill(0);
    for (to, from) in into.iter_mut().zip(text[..cut].bytes()) {
        // A NUL inside would hide the rest.
        *to = if from == 0 { b' ' } else { from } as c_char;
    }
}

/// A struct that may grow in later versions: its first field says how much of it the caller knows.
///
/// # Safety
/// The type is `repr(C)` and plain data (any bits are a value), and starts with a `usize`, its size.
pub(super) unsafe trait Growing: Sized {
    /// The struct's C name.
    const NAME: &'static str;
    /// Its size when it was first released; callers know at least so much of it.
    const FIRST_SIZE: usize;
}

/// More than any of the structs will ever be: a larger size is not a size.
const LARGEST_STRUCT: usize = 4096;

/// The size that the caller put into a growing struct.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, its first field is readable.
unsafe fn size_of_callers<T: Growing>(pointer: *const T) -> Outcome<usize> {
    check(T::NAME, pointer)?;
    // SAFETY: not NULL and aligned, as just checked; the first field is a readable usize, as promised and as `Growing` says.
    let size = unsafe { pointer.cast::<usize>().read() };
    if (T::FIRST_SIZE..=LARGEST_STRUCT).contains(&size) {
        return Ok(size);
    }
    let given = format_args!("a struct with size = {size}");
    Err(Error::invalid(T::NAME, given, format!("size = sizeof({}), {}", T::NAME, size_of::<T>())).into())
}

/// Reads a struct that the caller may know less or more of than we do: what it does not know is zero, what we do not know must be.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, as many bytes as its first field says are readable.
pub(super) unsafe fn read_struct<T: Growing>(pointer: *const T) -> Outcome<T> {
    // SAFETY: as promised.
    let size = unsafe { size_of_callers(pointer)? };
    // SAFETY: the caller promises `size` readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let (known, unknown) = bytes.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|&byte| byte != 0) {
        let expected = "zeros in the fields that this version of Sparkle does not know";
        return Err(Error::invalid(T::NAME, "a struct of a later version", expected).into());
    }
    // SAFETY: zeros are a value of a `Growing` type.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: `known` is no longer than `value`, and any bits are a value of a `Growing` type.
    unsafe { (&raw mut value).cast::<u8>().copy_from_nonoverlapping(known.as_ptr(), known.len()) };
    Ok(value)
}

/// Writes `value` into the caller's struct, as far as the caller knows it; its size field stays.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, its first field is readable and as many bytes as that says are writable.
pub(super) unsafe fn write_struct<T: Growing>(pointer: *mut T, value: &T) -> Outcome<()> {
    // SAFETY: as promised.
    let size = unsafe { size_of_callers(pointer.cast_const())? };
    let (from, to, start) =
        (std::ptr::from_ref(value).cast::<u8>(), pointer.cast::<u8>(), size_of::<usize>());
    // SAFETY: both are at least so long, the one by its type, the other as promised; they do not overlap, since `value` is ours.
    unsafe { to.add(start).copy_from_nonoverlapping(from.add(start), size.min(size_of::<T>()) - start) };
    Ok(())
}

/// A truth value from C.
pub(super) fn truth(argument: &'static str, value: i32) -> Outcome<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::invalid(argument, value, "0 or 1").into()),
    }
}
