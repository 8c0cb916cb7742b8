//! Texts that C receives in memory of its own: it asks for the length, then for the text.

use std::ffi::c_char;

use super::pointer;
use super::status::Outcome;
use crate::error::Error;

/// Where a text and its length go. With no memory only the length is written.
pub(super) struct TextOut<'a> {
    into: Option<&'a mut [u8]>,
    length: *mut usize,
}

impl TextOut<'_> {
    /// Checks the pointers.
    ///
    /// # Safety
    /// If they are neither NULL nor misaligned, `capacity` bytes at `text` and a `usize` at `length` are writable while
    /// the value lives, and nothing else accesses them.
    pub(super) unsafe fn new(text: *mut c_char, capacity: usize, length: *mut usize) -> Outcome<Self> {
        pointer::check("length", length)?;
        if text.is_null() && capacity == 0 {
            return Ok(TextOut { into: None, length });
        }
        // SAFETY: as promised.
        let into = unsafe { pointer::output("text", text.cast::<u8>(), capacity, &[])? };
        Ok(TextOut { into: Some(into), length })
    }

    /// Writes `text`, a NUL after it, and its length. Nothing is written if there is too little room.
    pub(super) fn write(self, text: &str) -> Outcome<()> {
        if let Some(into) = self.into {
            let room = into.len();
            let Some((end, whole)) = into.get_mut(..=text.len()).and_then(<[u8]>::split_last_mut) else {
                return Err(Error::invalid("capacity", room, format!("at least {}", text.len() + 1)).into());
            };
            whole.copy_from_slice(text.as_bytes());
            *end = 0;
        }
        // SAFETY: writable, as the caller of `new` promised, where it was checked.
        unsafe { pointer::write("length", self.length, text.len()) }
    }
}
