//! Aligned memory for packed panels, and how it is reused from call to call.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::thread::LocalKey;

use crate::error::{Error, Result};

/// A cache line, and the widest vector register.
const ALIGNMENT: usize = 64;

/// Buffers from this size on are asked to lie in large pages, which fault and miss five hundred times less often.
const LARGE: usize = 4 << 20;

/// A large page, where the system has them.
const LARGE_PAGE: usize = 2 << 20;

/// fp32 elements on the heap, aligned to a cache line.
pub struct Buffer {
    start: NonNull<f32>,
    len: usize,
    /// What was allocated: somewhat more, in which `start` is the first aligned element.
    whole: NonNull<u8>,
}

// SAFETY: a Buffer owns its memory and gives it out only by the borrow rules, like a Vec<f32>.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
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
        // Asked for without an alignment, memory fresh from the system is not filled with zeros once more.
        // SAFETY: the layout's size is not zero, as len is not.
        let whole = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(exhausted)?;
        // SAFETY: the layout has room for `len` elements from the first aligned one on.
        let start = unsafe { whole.add(whole.align_offset(Self::alignment(len))) }.cast();
        let buffer = Buffer { start, len, whole };
        if size_of_val(&*buffer) >= LARGE {
            in_large_pages(&buffer);
        }
        Ok(buffer)
    }

    fn alignment(len: usize) -> usize {
        if len >= LARGE / size_of::<f32>() { LARGE_PAGE } else { ALIGNMENT }
    }

    /// Of `len` elements and what aligning them may cost.
    fn layout(len: usize) -> Option<Layout> {
        Layout::array::<f32>(len.checked_add(Self::alignment(len) / size_of::<f32>())?).ok()
    }
}

/// Asks the system for large pages. It may decline: nothing depends on it.
fn in_large_pages(buffer: &Buffer) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range is the buffer's own, and advice does not change what it holds.
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
            // SAFETY: allocated in zeroed() with this very layout.
            unsafe { dealloc(self.whole.as_ptr(), layout) };
        }
    }
}

/// Where a thread keeps a buffer between calls.
pub type Shelf = LocalKey<Cell<Option<Buffer>>>;

/// A thread's buffer, taken off its shelf for one call and put back afterwards. A call inside that call finds
/// the shelf empty and gets a new buffer.
pub struct Lent {
    shelf: &'static Shelf,
    buffer: Option<Buffer>,
}

impl Lent {
    /// At least `len` elements of any value.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn take(shelf: &'static Shelf, len: usize) -> Result<Self> {
        // A shelf is gone when its thread is ending; then nothing is reused.
        let kept = shelf.try_with(Cell::take).ok().flatten().filter(|buffer| buffer.len() >= len);
        let buffer = match kept {
            Some(buffer) => buffer,
            None => Buffer::zeroed(len)?,
        };
        #[cfg(test)]
        let buffer = tests::poisoned(buffer);
        Ok(Lent { shelf, buffer: Some(buffer) })
    }
}

impl Deref for Lent {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = self.buffer.take();
        let _ = self.shelf.try_with(|shelf| shelf.set(buffer));
    }
}

/// Frees what the calling thread keeps there.
pub fn clear(shelf: &'static Shelf) {
    let _ = shelf.try_with(Cell::take);
}

#[cfg(test)]
pub mod tests {
    use super::*;

    thread_local! { static POISON: Cell<bool> = const { Cell::new(false) }; }

    /// Runs `body` while all that this thread is lent is full of signalling NaNs, which arithmetic cannot overlook.
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
    fn a_shelf_gives_the_same_buffer_again_and_another_one_inside() {
        thread_local! { static SHELF: Cell<Option<Buffer>> = const { Cell::new(None) }; }
        let first = Lent::take(&SHELF, 100).unwrap();
        let address = first.as_ptr();
        let inside = Lent::take(&SHELF, 10).unwrap();
        assert_ne!(inside.as_ptr(), address);
        drop(inside);
        drop(first);
        let again = Lent::take(&SHELF, 50).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (address, 100));
        drop(again);
        assert!(Lent::take(&SHELF, 101).unwrap().len() >= 101);
    }
}
