//! Memory that lives on a device.
//!
//! An engine that has such memory gives it as an [`EngineMemory`]. What other layers hold is a [`DeviceMemory`]: it adds the
//! lock that keeps two calls from using the memory while one of them writes it.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use crate::error::{Error, Result};

/// Memory of an engine. Its contents are valid until they are lost: with the device, or when a call fails that may have
/// written them. Then every use is an [`Error::ContentsLost`] until all of the memory is written.
pub trait EngineMemory: Send + Sync {
    /// Copies `data` to it, from `offset` bytes after its beginning.
    ///
    /// # Safety
    /// Nothing else uses these bytes, and they lie within the memory.
    ///
    /// # Errors
    /// [`Error::ContentsLost`] unless `data` is all of it; or the device's failure, after which the contents are lost.
    unsafe fn write(&self, offset: usize, data: &[u8]) -> Result<()>;

    /// Copies from `offset` bytes after its beginning.
    ///
    /// # Safety
    /// Nothing writes these bytes, and they lie within the memory.
    ///
    /// # Errors
    /// [`Error::ContentsLost`], or the device's failure; `into` is then undefined.
    unsafe fn read(&self, offset: usize, into: &mut [u8]) -> Result<()>;

    /// Its address, if it is memory of the host. It is aligned for any number, and stays the same.
    fn host(&self) -> Option<NonNull<u8>> {
        None
    }

    /// What its engine knows it by.
    fn token(&self) -> &(dyn Any + Send + Sync);

    /// Whether it cannot be used in a process forked from its own.
    fn dies_in_a_fork(&self) -> bool {
        false
    }
}

/// Memory on a device, and its lock.
pub struct DeviceMemory {
    engine: Box<dyn EngineMemory>,
    bytes: usize,
    lock: RwLock<()>,
}

/// The lock of a memory, held for a call.
pub enum Guard<'a> {
    /// Others may read, too.
    Reads(RwLockReadGuard<'a, ()>),
    /// Nobody else uses it.
    Writes(RwLockWriteGuard<'a, ()>),
}

impl DeviceMemory {
    /// Wraps `bytes` bytes of an engine's memory.
    pub fn new(engine: Box<dyn EngineMemory>, bytes: usize) -> Self {
        DeviceMemory { engine, bytes, lock: RwLock::new(()) }
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The engine's memory.
    pub fn engine(&self) -> &dyn EngineMemory {
        &*self.engine
    }

    /// Locks it for a call that writes it or not. It does not wait: waiting could last for ever where a log callback calls
    /// the library. `what` names the memory.
    ///
    /// # Errors
    /// [`Error::InUse`].
    pub fn lock(&self, writes: bool, what: impl Fn() -> String) -> Result<Guard<'_>> {
        fn unless_held<G>(tried: std::result::Result<G, TryLockError<G>>) -> Option<G> {
            match tried {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
                Err(TryLockError::WouldBlock) => None,
            }
        }
        let guard = match writes {
            true => unless_held(self.lock.try_write()).map(Guard::Writes),
            false => unless_held(self.lock.try_read()).map(Guard::Reads),
        };
        guard.ok_or_else(|| Error::InUse { what: what() })
    }
}

/// A range of a device's memory, which the caller has locked.
#[derive(Clone, Copy)]
pub struct Range<'a> {
    /// The memory.
    pub memory: &'a DeviceMemory,
    /// Where the range begins, in bytes.
    pub offset: usize,
    /// Its length in bytes.
    pub bytes: usize,
    /// The name of the argument that it is.
    pub name: &'static str,
}
