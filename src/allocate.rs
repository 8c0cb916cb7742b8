//! Fallible allocation of memory whose size depends on data.
//!
//! The standard collections abort the process if an allocation fails, and the process belongs to the caller. So memory
//! sized by buffers, problems, options, files or drivers is allocated by these functions, or by `cpu::buffer`; they
//! return an error. Other allocations are smaller than 64 KiB each, for any input. The header documents this limit
//! (`cbindgen.toml`), and `tests/out_of_memory` lets each larger allocation fail in turn.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// The name of the host in error messages.
const HOST: &str = "the host";

/// The error for a failed allocation of host memory for `what`.
pub fn out_of_memory(what: &str) -> Error {
    Error::OutOfMemory { device: HOST.to_owned(), what: what.to_owned() }
}

/// Whether `error` is about the host's memory, not a device's.
pub fn is_of_host(error: &Error) -> bool {
    matches!(error, Error::OutOfMemory { device, .. } if device == HOST)
}

fn exhausted(bytes: Option<usize>, what: &str) -> Error {
    let bytes =
        bytes.map_or("more bytes than the address space has".to_owned(), |bytes| format!("{bytes} bytes"));
    out_of_memory(&format!("{bytes} for {what}"))
}

/// An empty vector with room for `capacity` elements.
///
/// # Errors
/// [`Error::OutOfMemory`] with the number of bytes and their purpose, `what`.
pub fn with_capacity<T>(capacity: usize, what: &str) -> Result<Vec<T>> {
    let mut memory = Vec::new();
    let reserved = memory.try_reserve_exact(capacity);
    reserved.map_err(|_| exhausted(capacity.checked_mul(size_of::<T>()), what))?;
    Ok(memory)
}

/// `len` zeros. Fresh memory from the system is zero already and is not written.
///
/// # Errors
/// As [`with_capacity`].
pub fn zeroed<T: bytemuck::Zeroable>(len: usize, what: &str) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| exhausted(len.checked_mul(size_of::<T>()), what))
}

/// A copy of `data`.
///
/// # Errors
/// As [`with_capacity`].
pub fn copied<T: Copy>(data: &[T], what: &str) -> Result<Vec<T>> {
    let mut copy = with_capacity(data.len(), what)?;
    copy.extend_from_slice(data);
    Ok(copy)
}

/// A copy of `text`.
///
/// # Errors
/// As [`with_capacity`].
pub fn text(text: &str, what: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| exhausted(Some(text.len()), what))?;
    copy.push_str(text);
    Ok(copy)
}

/// `len` copies of `value`.
///
/// # Errors
/// As [`with_capacity`].
pub fn filled<T: Copy>(value: T, len: usize, what: &str) -> Result<Vec<T>> {
    let mut memory = with_capacity(len, what)?;
    memory.resize(len, value);
    Ok(memory)
}

/// Reserves room for one more entry in `map`.
///
/// # Errors
/// As [`with_capacity`].
pub fn reserve_one<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V>, what: &str) -> Result<()> {
    let bytes = (map.len() + 1).checked_mul(size_of::<(K, V)>());
    map.try_reserve(1).map_err(|_| exhausted(bytes, what))
}

/// Makes room for `count` more items in `to`.
///
/// # Errors
/// As [`with_capacity`].
pub fn reserve<T>(to: &mut Vec<T>, count: usize, what: &str) -> Result<()> {
    let bytes = to.len().saturating_add(count).checked_mul(size_of::<T>());
    to.try_reserve_exact(count).map_err(|_| exhausted(bytes, what))
}

/// Appends `items` to `to`.
///
/// # Errors
/// As [`with_capacity`]. Some of the items may have been added then.
pub fn append<T>(to: &mut Vec<T>, items: impl Iterator<Item = T>, what: &str) -> Result<()> {
    for item in items {
        push(to, item, what)?;
    }
    Ok(())
}

/// Appends one item to `to`.
///
/// # Errors
/// As [`with_capacity`].
pub fn push<T>(to: &mut Vec<T>, item: T, what: &str) -> Result<()> {
    to.try_reserve(1).map_err(|_| exhausted((to.len() + 1).checked_mul(size_of::<T>()), what))?;
    to.push(item);
    Ok(())
}

/// Appends `text` to `to`.
///
/// # Errors
/// As [`with_capacity`].
pub fn push_str(to: &mut String, text: &str, what: &str) -> Result<()> {
    to.try_reserve(text.len()).map_err(|_| exhausted(to.len().checked_add(text.len()), what))?;
    to.push_str(text);
    Ok(())
}

/// Collects `items`, whose length must be exact.
///
/// # Errors
/// As [`with_capacity`], and the first error among the items.
pub fn collected<T>(items: impl ExactSizeIterator<Item = Result<T>>, what: &str) -> Result<Vec<T>> {
    let mut all = with_capacity(items.len(), what)?;
    for item in items.take(all.capacity()) {
        all.push(item?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_succeed_or_name_their_purpose() {
        assert_eq!(zeroed::<f32>(3, "a test").unwrap(), [0.0; 3]);
        assert_eq!(copied(&[1, 2], "a test").unwrap(), [1, 2]);
        assert_eq!(text("ab", "a test").unwrap(), "ab");
        assert_eq!(filled(7, 2, "a test").unwrap(), [7, 7]);
        assert_eq!(collected((0..4).map(Ok), "a test").unwrap(), [0, 1, 2, 3]);
        assert_eq!(collected([Ok(1), Err(Error::Cancelled)].into_iter(), "a test"), Err(Error::Cancelled));
        let mut all = vec![1];
        append(&mut all, 2..4, "a test").unwrap();
        push(&mut all, 4, "a test").unwrap();
        assert_eq!(all, [1, 2, 3, 4]);
        reserve(&mut all, 9, "a test").unwrap();
        assert!(all.capacity() >= 13 && reserve(&mut all, usize::MAX, "a test").is_err());
        let mut letters = "a".to_owned();
        push_str(&mut letters, "bc", "a test").unwrap();
        assert_eq!(letters, "abc");
        assert!(is_of_host(&zeroed::<f32>(1 << 60, "a test").unwrap_err()) && !is_of_host(&Error::Cancelled));
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(zeroed::<f32>(1 << 60, "a test").unwrap_err()),
            "the host is out of memory: 4611686018427387904 bytes for a test"
        );
        assert_eq!(
            message(with_capacity::<f32>(usize::MAX, "a test").unwrap_err()),
            "the host is out of memory: more bytes than the address space has for a test"
        );
    }
}
