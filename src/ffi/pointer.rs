//! Checks C's pointers and turns them into slices and values.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;

use super::mapping::{self, Access};
use super::status::{Failure, Outcome};
use crate::error::Error;

/// Checks that `pointer` is not NULL and is aligned for a `T`.
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

/// Checks the range of `len` elements at `pointer`. NULL is allowed if `len` is 0.
fn check_range<T>(argument: &'static str, pointer: *const T, len: usize, access: Access) -> Outcome<()> {
    if len == 0 {
        return Ok(());
    }
    check(argument, pointer)?;
    let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
    let end = bytes.and_then(|bytes| pointer.addr().checked_add(bytes));
    let range = end.map(|end| pointer.addr()..end).filter(|range| mapping::may_be_memory(range, access));
    let given = format_args!("{len} elements from address {:#x}", pointer.addr());
    range.map(drop).ok_or_else(|| Error::invalid(argument, given, access.expected()).into())
}

/// Checks memory of `len` elements of `bytes` bytes each, aligned to as many. NULL is allowed if `len` is 0.
pub(super) fn check_range_of(
    argument: &'static str,
    memory: (*const c_void, usize),
    bytes: usize,
    access: Access,
) -> Outcome<()> {
    let wrong = |given: std::fmt::Arguments, expected: &str| Error::invalid(argument, given, expected);
    check_memory(memory, bytes, access, || argument.to_owned(), wrong)
}

/// As [`check_range_of`], for the kernel argument `name`.
pub(super) fn check_elements(
    name: &str,
    memory: (*const c_void, usize),
    bytes: usize,
    access: Access,
) -> Outcome<()> {
    let wrong = |given: std::fmt::Arguments, expected: &str| {
        Error::invalid("kernel argument", format_args!("\"{name}\" with {given}"), expected)
    };
    check_memory(memory, bytes, access, || format!("the address of kernel argument \"{name}\""), wrong)
}

fn check_memory(
    (address, len): (*const c_void, usize),
    bytes: usize,
    access: Access,
    name: impl Fn() -> String,
    wrong: impl Fn(std::fmt::Arguments, &str) -> Error,
) -> Outcome<()> {
    if len == 0 {
        return Ok(());
    }
    if address.is_null() {
        return Err(Failure::null(&name()));
    }
    let start = address.addr();
    if !start.is_multiple_of(bytes) {
        let expected = format!("a multiple of {bytes}");
        return Err(wrong(format_args!("the address {start:#x}"), &expected).into());
    }
    let size = len.checked_mul(bytes).filter(|&size| isize::try_from(size).is_ok());
    let end = size.and_then(|size| start.checked_add(size));
    if end.is_some_and(|end| mapping::may_be_memory(&(start..end), access)) {
        return Ok(());
    }
    Err(wrong(format_args!("{len} elements from address {start:#x}"), access.expected()).into())
}

/// An input buffer of C as a slice.
///
/// # Safety
/// If `len` is not zero and `pointer` is neither NULL nor misaligned, the `len` elements at `pointer` are readable and
/// not written to during `'a`.
pub(super) unsafe fn input<'a, T: bytemuck::Pod>(
    argument: &'static str,
    pointer: *const T,
    len: usize,
) -> Outcome<&'a [T]> {
    check_range(argument, pointer, len, Access::Read)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not NULL, aligned, and its size fits in isize, as just checked; readable and not written to, as promised;
    // any bits are a valid `T`, since it is plain data.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Whether `memory` shares bytes with the `len` elements at `pointer`, which need not be mapped.
pub(super) fn overlap<T>(memory: &[T], pointer: *mut T, len: usize) -> bool {
    let (other, start) = (memory.as_ptr_range(), pointer.addr());
    let end = start.saturating_add(len.saturating_mul(size_of::<T>()));
    !memory.is_empty() && len != 0 && start < other.end.addr() && other.start.addr() < end
}

/// An output buffer of C as a slice. It must not overlap any of `inputs` (name and memory).
///
/// # Safety
/// As [`input`]; the elements are also writable, and nothing else accesses them during `'a`.
pub(super) unsafe fn output<'a, T: bytemuck::Pod>(
    argument: &'static str,
    pointer: *mut T,
    len: usize,
    inputs: &[(&'static str, &[T])],
) -> Outcome<&'a mut [T]> {
    check_range(argument, pointer.cast_const(), len, Access::Write)?;
    if len == 0 {
        return Ok(&mut []);
    }
    for (name, memory) in inputs {
        if overlap(memory, pointer, len) {
            let given = format_args!("in the same memory as {name}");
            return Err(Error::invalid(argument, given, "memory of its own").into());
        }
    }
    // SAFETY: as in `input`; nothing else refers to the memory: not the inputs, as just checked, and nothing else, as
    // promised.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// Writes a single result.
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
/// If `pointer` is not NULL, it points to a NUL-terminated string that is not modified during `'a`.
pub(super) unsafe fn text<'a>(argument: &'static str, pointer: *const c_char) -> Outcome<&'a str> {
    check(argument, pointer)?;
    // SAFETY: not NULL, as just checked; NUL-terminated and not modified, as promised.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|_| {
        let lossy = OsStr::from_bytes(bytes.to_bytes());
        Error::invalid(argument, format_args!("\"{}\"", lossy.display()), "UTF-8").into()
    })
}

/// Maximum length of a name in bytes.
const MAX_NAME_LEN: usize = 1000;

/// A C string as a name: a text of limited length.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn name<'a>(argument: &'static str, pointer: *const c_char) -> Outcome<&'a str> {
    // SAFETY: as promised.
    let name = unsafe { text(argument, pointer)? };
    if name.len() <= MAX_NAME_LEN {
        return Ok(name);
    }
    Err(Error::invalid(argument, format_args!("\"{name}\""), format!("at most {MAX_NAME_LEN} bytes")).into())
}

/// Copies `text` into a C array of characters. A text that is too long is truncated at a character boundary.
pub(super) fn copy_text<const N: usize>(text: &str, into: &mut [c_char; N]) {
    let room = N - 1;
    let cut = (0..=room.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    into.fill(0);
    for (to, from) in into.iter_mut().zip(text[..cut].bytes()) {
        // A NUL inside the text would hide the rest.
        *to = if from == 0 { b' ' } else { from } as c_char;
    }
}

/// A struct that may grow in later versions. Its first field is the size that the caller knows.
///
/// # Safety
/// The type is `repr(C)` and plain data (any bits are valid), and its first field is a `usize`, its size.
pub(super) unsafe trait Growing: Sized {
    /// The struct's C name.
    const NAME: &'static str;
    /// Its size when it was first released, without trailing padding. Every caller knows at least this much.
    const FIRST_SIZE: usize;
}

/// An upper bound for the size of every struct; a larger `size` is invalid.
pub(super) const MAX_STRUCT_SIZE: usize = 4096;

/// The size that the caller has set in a growing struct.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, its first field is readable.
unsafe fn callers_size<T: Growing>(pointer: *const T) -> Outcome<usize> {
    check(T::NAME, pointer)?;
    // SAFETY: not NULL and aligned, as just checked; the first field is a readable usize, as promised and as `Growing`
    // says.
    let size = unsafe { pointer.cast::<usize>().read() };
    if (T::FIRST_SIZE..=MAX_STRUCT_SIZE).contains(&size) {
        return Ok(size);
    }
    let given = format_args!("a struct with size = {size}");
    Err(Error::invalid(T::NAME, given, format!("size = sizeof({}), {}", T::NAME, size_of::<T>())).into())
}

/// Reads a struct whose version may be older or newer than the library's. Fields that the caller does not know are
/// zero; fields that the library does not know must be zero.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, as many bytes as its first field says are readable.
pub(super) unsafe fn read_struct<T: Growing>(pointer: *const T) -> Outcome<T> {
    // SAFETY: as promised.
    let size = unsafe { callers_size(pointer)? };
    // SAFETY: the caller promises `size` readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let (known, unknown) = bytes.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|&byte| byte != 0) {
        let expected = "zeros in the fields that this version of Sparkle does not know";
        return Err(Error::invalid(T::NAME, "a struct of a later version", expected).into());
    }
    // SAFETY: zeros are a valid value of a `Growing` type.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: `known` is no longer than `value`, and any bits are a valid value of a `Growing` type.
    unsafe { (&raw mut value).cast::<u8>().copy_from_nonoverlapping(known.as_ptr(), known.len()) };
    Ok(value)
}

/// Reads the struct at `index` of an array. All structs of the array have the size of the first.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, the first field of the first struct is readable, and so are `index + 1`
/// structs of the size that it says.
pub(super) unsafe fn read_struct_at<T: Growing>(pointer: *const T, index: usize) -> Outcome<T> {
    // SAFETY: as promised.
    let size = unsafe { callers_size(pointer)? };
    if !size.is_multiple_of(align_of::<T>()) {
        let expected = format!("size = sizeof({}), {}", T::NAME, size_of::<T>());
        return Err(Error::invalid(T::NAME, format_args!("a struct with size = {size}"), expected).into());
    }
    let it = pointer.wrapping_byte_add(index * size);
    // SAFETY: one of the structs that the caller promises; `size` keeps it aligned.
    let its = unsafe { it.cast::<usize>().read() };
    if its != size {
        let given = format_args!("a struct with size = {its} at index {index}");
        return Err(Error::invalid(T::NAME, given, format!("{size}, the size of the first")).into());
    }
    // SAFETY: as above.
    unsafe { read_struct(it) }
}

/// Writes the fields of `value` that the caller knows to the caller's struct. Its size field is not changed.
///
/// # Safety
/// If `pointer` is neither NULL nor misaligned, its first field is readable and as many bytes as that says are
/// writable.
pub(super) unsafe fn write_struct<T: Growing>(pointer: *mut T, value: &T) -> Outcome<()> {
    // SAFETY: as promised.
    let size = unsafe { callers_size(pointer.cast_const())? };
    let (from, to, start) =
        (std::ptr::from_ref(value).cast::<u8>(), pointer.cast::<u8>(), size_of::<usize>());
    // SAFETY: both are at least that long, the one by its type, the other as promised; they do not overlap, since
    // `value` belongs to the library.
    unsafe { to.add(start).copy_from_nonoverlapping(from.add(start), size.min(size_of::<T>()) - start) };
    Ok(())
}

/// Writes the first `capacity` of `values` to an array as [`write_struct`] does. The caller has set the size of the first
/// element; all get that size. Errors call the array `out`.
///
/// # Safety
/// If `out` is neither NULL nor misaligned, the first field of its first element is readable, and `capacity` elements of
/// the size that it says are writable. With a capacity of 0 `out` may be anything.
pub(super) unsafe fn write_structs<T: Growing>(
    out: *mut T,
    capacity: usize,
    values: impl Iterator<Item = T>,
) -> Outcome<()> {
    if capacity == 0 {
        return Ok(());
    }
    check("out", out)?;
    // SAFETY: as promised.
    let size = unsafe { callers_size(out.cast_const())? };
    if !size.is_multiple_of(align_of::<T>()) {
        let expected = format!("sizeof({}), {}", T::NAME, size_of::<T>());
        return Err(Error::invalid("the size of the first element of out", size, expected).into());
    }
    for (index, value) in values.take(capacity).enumerate() {
        let element = out.wrapping_byte_add(index * size);
        // SAFETY: one of the promised elements; `size` keeps it aligned and is at least that of the first field.
        unsafe {
            element.cast::<usize>().write(size);
            write_struct(element, &value)?;
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::status::sparkle_status::*;
    use super::*;

    fn refused<T>(outcome: Outcome<T>) -> (i32, String) {
        let failure = outcome.err().expect("should be refused");
        (failure.status as i32, failure.message)
    }

    #[test]
    fn invalid_ranges_are_refused() {
        let memory = [1.0f32, 2.0, 3.0, 4.0];
        let start = memory.as_ptr();
        // SAFETY: refused, or within `memory`.
        unsafe {
            assert_eq!(input("x", start, 4).unwrap(), memory);
            assert!(input::<f32>("x", std::ptr::null(), 0).unwrap().is_empty());
            assert_eq!(refused(input::<f32>("x", std::ptr::null(), 1)), (2, "x is NULL".into()));
            let (code, message) = refused(input("x", start.wrapping_byte_add(1), 1));
            assert_eq!(code, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
            assert!(message.ends_with("; expected a multiple of 4"), "{message}");
            for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4 + 1] {
                assert_eq!(refused(input("x", start, len)).0, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
            }
            // Past the end of the address space.
            let last = std::ptr::without_provenance::<f32>(usize::MAX - 3);
            assert_eq!(refused(input("x", last, 2)).0, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
        }
    }

    #[test]
    fn outputs_that_overlap_an_input() {
        let mut memory = [0.0f32; 12];
        let start = memory.as_mut_ptr();
        // SAFETY: refused, or within `memory`, which nothing else uses.
        unsafe {
            let between = std::slice::from_raw_parts(start.add(4), 4);
            let inputs = [("nothing", &[][..]), ("between", between)];
            for (first, len) in [(4, 4), (0, 5), (7, 1), (0, 12), (5, 2), (7, 5)] {
                let (code, message) = refused(output("y", start.add(first), len, &inputs));
                assert_eq!(code, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
                assert_eq!(message, "y is in the same memory as between; expected memory of its own");
            }
            for (first, len) in [(0, 4), (8, 4), (5, 0)] {
                assert_eq!(output("y", start.add(first), len, &inputs).unwrap().len(), len);
            }
        }
    }

    #[test]
    fn texts() {
        // SAFETY: NULL or NUL-terminated.
        unsafe {
            assert_eq!(text("t", c"gl:0".as_ptr()).unwrap(), "gl:0");
            assert_eq!(refused(text("t", std::ptr::null())), (2, "t is NULL".into()));
            assert_eq!(
                refused(text("t", c"a\xffb".as_ptr())),
                (1, "t is \"a\u{fffd}b\"; expected UTF-8".into())
            );
        }
    }

    #[test]
    fn texts_are_truncated_between_characters() {
        let copied = |text: &str| {
            let mut into = [1; 6];
            copy_text(text, &mut into);
            into.map(|byte| byte as u8)
        };
        assert_eq!(copied(""), [0; 6]);
        assert_eq!(&copied("abcde"), b"abcde\0");
        assert_eq!(&copied("abcdef"), b"abcde\0");
        assert_eq!(&copied("abcd\u{e9}"), b"abcd\0\0");
        assert_eq!(&copied("a\0b"), b"a b\0\0\0");
    }

    /// A struct that has grown by one field since its first release.
    #[repr(C)]
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Grown {
        size: usize,
        old: u64,
        new: u64,
    }

    // SAFETY: repr(C), integers only, size first.
    unsafe impl Growing for Grown {
        const NAME: &'static str = "grown";
        const FIRST_SIZE: usize = 16;
    }

    #[test]
    fn structs_of_every_age() {
        let mut memory = [0u64, 1, 2, 0, 9];
        let pointer = memory.as_mut_ptr().cast::<Grown>();
        // SAFETY: `memory` is larger than every size that is not refused.
        unsafe {
            let with = |size: usize, last: u64| {
                pointer.cast::<usize>().write(size);
                pointer.cast::<u64>().add(3).write(last);
                read_struct(pointer)
            };
            assert_eq!(with(16, 9).unwrap(), Grown { size: 16, old: 1, new: 0 });
            assert_eq!(with(24, 9).unwrap(), Grown { size: 24, old: 1, new: 2 });
            assert_eq!(with(32, 0).unwrap(), Grown { size: 32, old: 1, new: 2 });
            let (code, message) = refused(with(32, 1 << 63));
            assert_eq!(code, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
            assert!(message.starts_with("grown is a struct of a later version"), "{message}");
            for size in [0, 1, 15, 4097, usize::MAX] {
                let (code, message) = refused(with(size, 0));
                assert_eq!(code, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
                assert_eq!(
                    message,
                    format!("grown is a struct with size = {size}; expected size = sizeof(grown), 24")
                );
            }
            assert_eq!(refused(read_struct(std::ptr::null::<Grown>())).0, SPARKLE_ERROR_NULL_POINTER as i32);
            let (code, _) = refused(read_struct(pointer.wrapping_byte_add(4)));
            assert_eq!(code, SPARKLE_ERROR_INVALID_ARGUMENT as i32);
        }
    }

    #[test]
    fn results_fill_the_fields_that_the_caller_knows() {
        for (size, expected) in [(16u64, [16u64, 5, 7, 7]), (24, [24, 5, 6, 7]), (32, [32, 5, 6, 7])] {
            let mut memory = [size, 7, 7, 7];
            // SAFETY: `memory` is as large as the largest size.
            unsafe { write_struct(memory.as_mut_ptr().cast(), &Grown { size: 24, old: 5, new: 6 }).unwrap() };
            assert_eq!(memory, expected);
        }
        let mut memory = [8u64, 7, 7, 7];
        // SAFETY: refused.
        let outcome =
            unsafe { write_struct(memory.as_mut_ptr().cast(), &Grown { size: 24, old: 5, new: 6 }) };
        assert_eq!((refused(outcome).0, memory), (SPARKLE_ERROR_INVALID_ARGUMENT as i32, [8, 7, 7, 7]));
    }

    #[test]
    fn nothing_overlaps_nothing() {
        let mut memory = [0.0_f32; 8];
        let start = memory.as_mut_ptr();
        let at = |index: usize| start.wrapping_add(index);
        assert!(overlap(&memory[2..4], at(3), 1) && overlap(&memory[2..4], at(0), 3));
        assert!(!overlap(&memory[2..4], at(4), 4) && !overlap(&memory[2..4], at(0), 2));
        assert!(!overlap(&memory[2..4], at(3), 0) && !overlap(&memory[3..3], at(0), 8));
    }
}
