//! Aligned memory for packed panels, reused between calls.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::thread::LocalKey;

use crate::error::{Error, Result};

/// The size of a cache line and of the widest vector register, in bytes.
const ALIGNMENT: usize = 64;

/// Buffers from this size on request large pages, which cause 512 times fewer page faults and TLB misses.
const LARGE: usize = 4 << 20;

/// The size of a large page in bytes.
const LARGE_PAGE: usize = 2 << 20;

/// A heap allocation of fp32 elements, aligned to a cache line.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
    /// The whole allocation. `start` is its first aligned element.
    whole: NonNull<u8>,
}

// SAFETY: a Buffer owns its memory and lends it by the borrow rules only, like a Vec<f32>.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn zeroed(len: usize) -> Result<Self> {
        let exhausted = || Error::OutOfMemory {
            device: "cpu".into(),
            what: format!("{len} fp32 elements for packed panels"),
        };
        if len == 0 {
            return Ok(Buffer { start: NonNull::dangling(), len, whole: NonNull::dangling() });
        }
        let layout = Self::layout(len).ok_or_else(exhausted)?;
        // The layout asks for no alignment: only then does the allocator skip zeroing memory fresh from the system.
        // SAFETY: the layout's size is not zero, as len is not.
        let whole = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(exhausted)?;
        // SAFETY: the layout has room for `len` elements after the first aligned one.
        let start = unsafe { whole.add(whole.align_offset(Self::alignment(len))) }.cast();
        let buffer = Buffer { start, len, whole };
        if size_of_val(&*buffer) >= LARGE {
            request_large_pages(&buffer);
        }
        Ok(buffer)
    }

    fn alignment(len: usize) -> usize {
        if len >= LARGE / size_of::<f32>() { LARGE_PAGE } else { ALIGNMENT }
    }

    /// The layout of `len` elements plus the room to align them.
    fn layout(len: usize) -> Option<Layout> {
        Layout::array::<f32>(len.checked_add(Self::alignment(len) / size_of::<f32>())?).ok()
    }
}

/// Asks the system for large pages. It may refuse; nothing depends on it.
fn request_large_pages(buffer: &Buffer) {
    #[cfg(target_os = "linux")]
    // SAFETY: the buffer owns the range, and the advice does not change its contents.
    unsafe {
        libc::madvise(buffer.start.as_ptr().cast(), size_of_val(&**buffer), libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: start is aligned and valid for len initialised elements (or dangling for none), owned by
        // self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in deref, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len).filter(|_| self.len > 0) {
            // SAFETY: allocated in zeroed() with the same layout.
            unsafe { dealloc(self.whole.as_ptr(), layout) };
        }
    }
}

/// A thread-local place that keeps a buffer between calls.
pub type ThreadBuffer = LocalKey<Cell<Option<Buffer>>>;

/// A thread's buffer, borrowed for one call and put back when dropped. A nested call finds the place empty and gets a
/// new buffer.
pub struct Borrowed {
    place: &'static ThreadBuffer,
    buffer: Option<Buffer>,
}

impl Borrowed {
    /// A buffer of at least `len` elements with arbitrary values.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn take(place: &'static ThreadBuffer, len: usize) -> Result<Self> {
        // The place no longer exists when its thread is ending. Then nothing is reused.
        let kept = place.try_with(Cell::take).ok().flatten().filter(|buffer| buffer.len() >= len);
        let buffer = match kept {
            Some(buffer) => buffer,
            None => Buffer::zeroed(len)?,
        };
        #[cfg(test)]
        let buffer = tests::poisoned(buffer);
        Ok(Borrowed { place, buffer: Some(buffer) })
    }
}

impl Deref for Borrowed {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let buffer = self.buffer.take();
        let _ = self.place.try_with(|place| place.set(buffer));
    }
}

/// Frees the buffer that the calling thread keeps there.
pub fn clear(place: &'static ThreadBuffer) {
    let _ = place.try_with(Cell::take);
}

#[cfg(test)]
pub mod tests {
    use super::*;

    thread_local! { static POISON: Cell<bool> = const { Cell::new(false) }; }

    /// Runs `body` while every buffer that this thread borrows is filled with signalling NaNs: arithmetic on them
    /// raises a flag.
    pub fn with_poison<T>(body: impl FnOnce() -> T) -> T {
        POISON.set(true);
        let value = body();
        POISON.set(false);
        value
    }

    pub fn poisoned(mut buffer: Buffer) -> Buffer {
        const SIGNALLING: u32 = 0x7fa0_0000;
        if POISON.get() {
            bytemuck::cast_slice_mut::<f32, u32>(&mut buffer).fill(SIGNALLING);
        }
        buffer
    }

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0, 1, 63, 1_000, 3 << 20] {
            let buffer = Buffer::zeroed(len).unwrap();
            let alignment = if len == 0 { align_of::<f32>() } else { Buffer::alignment(len) };
            assert_eq!((buffer.len(), buffer.as_ptr().align_offset(alignment)), (len, 0));
            assert!(buffer.iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn too_much_is_an_error() {
        for len in [usize::MAX, isize::MAX as usize / 4, 1 << 50] {
            assert!(matches!(Buffer::zeroed(len), Err(Error::OutOfMemory { .. })), "{len}");
        }
    }

    #[test]
    fn a_thread_reuses_its_buffer_and_a_nested_call_gets_another_one() {
        thread_local! { static PLACE: Cell<Option<Buffer>> = const { Cell::new(None) }; }
        let first = Borrowed::take(&PLACE, 100).unwrap();
        let address = first.as_ptr();
        let inside = Borrowed::take(&PLACE, 10).unwrap();
        assert_ne!(inside.as_ptr(), address);
        drop(inside);
        drop(first);
        let again = Borrowed::take(&PLACE, 50).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (address, 100));
        drop(again);
        assert!(Borrowed::take(&PLACE, 101).unwrap().len() >= 101);
    }
}
