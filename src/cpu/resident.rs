//! Buffers of the CPU: memory of the host, aligned as the engine's own.

use std::any::Any;
use std::ptr::NonNull;

use super::buffer::Buffer;
use crate::backend::EngineMemory;
use crate::error::Result;

/// Memory that its users lock.
pub struct HostMemory {
    start: NonNull<u8>,
    /// Owns the memory, and is not used otherwise.
    _owner: Buffer,
}

// SAFETY: it owns the memory, which is accessed under the conditions of `EngineMemory` alone.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// `bytes` zeros.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn zeroed(bytes: usize) -> Result<Self> {
        let mut owner = Buffer::zeroed(bytes.div_ceil(size_of::<f32>()))?;
        let start = NonNull::from(&mut *owner).cast();
        Ok(HostMemory { start, _owner: owner })
    }
}

impl EngineMemory for HostMemory {
    unsafe fn write(&self, offset: usize, data: &[u8]) -> Result<()> {
        // SAFETY: the caller promises that the bytes lie within the memory and that nothing else uses them, so `data` does
        // not overlap them.
        unsafe { self.start.add(offset).copy_from_nonoverlapping(NonNull::from(data).cast(), data.len()) };
        Ok(())
    }

    unsafe fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        // SAFETY: the caller promises that the bytes lie within the memory and that nothing writes them; `into` is the
        // caller's own. All bytes were initialised with zeros.
        unsafe {
            self.start.add(offset).copy_to_nonoverlapping(NonNull::from(&mut *into).cast(), into.len())
        };
        Ok(())
    }

    fn host(&self) -> Option<NonNull<u8>> {
        Some(self.start)
    }

    fn token(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_keeps_what_is_written() {
        for bytes in [0, 1, 4, 4097, 5 << 20] {
            let memory = HostMemory::zeroed(bytes).unwrap();
            let mut back = vec![1; bytes];
            // SAFETY: this is the only user, and all ranges lie within the memory.
            unsafe {
                memory.read(0, &mut back).unwrap();
                assert!(back.iter().all(|&byte| byte == 0));
                if bytes > 0 {
                    memory.write(bytes - 1, &[7]).unwrap();
                    memory.read(bytes - 1, &mut back[..1]).unwrap();
                    assert_eq!(back[0], 7);
                }
            }
            assert_eq!(memory.host().unwrap().addr().get() % 64 * bytes.min(1), 0);
        }
    }
}
