//! Memory that programs keep on the device.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::EngineMemory;
use crate::error::Result;
use crate::gl::device::worker::Worker;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::residents::{ResidentKey, lost};

/// How errors call it, where no argument has a name for it.
const NAME: &str = "the buffer";

/// A buffer in the sessions of a worker.
pub struct Memory {
    worker: Arc<Worker>,
    key: ResidentKey,
    bytes: usize,
}

impl Memory {
    /// `bytes` zeros on the device.
    ///
    /// # Errors
    /// The device's failure.
    pub fn zeroed(worker: &Arc<Worker>, bytes: usize) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let key = ResidentKey(NEXT.fetch_add(1, Ordering::Relaxed));
        worker.call(|session| {
            // Whole numbers of any type.
            let buffer = Buffer::repeating(session.context(), bytes, &[0; 4096])?;
            session.context().check_reset("glCopyBufferSubData")?;
            session.residents.put(key, buffer)
        })?;
        Ok(Memory { worker: worker.clone(), key, bytes })
    }
}

impl EngineMemory for Memory {
    unsafe fn write(&self, offset: usize, data: &[u8]) -> Result<()> {
        self.worker.call(|session| {
            let context = session.context().clone();
            let written = match session.residents.get(self.key) {
                Some(buffer) => buffer.upload_at(offset, data),
                None if data.len() == self.bytes => {
                    let made = Buffer::with_data(&context, data);
                    made.and_then(|buffer| session.residents.put(self.key, buffer))
                }
                None => return Err(lost(&context, NAME)),
            };
            let written = written.and_then(|()| context.check_reset("glBufferSubData"));
            session.residents.end(written, &[self.key])
        })
    }

    unsafe fn read(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        self.worker.call(|session| {
            let buffer = session.residents.get(self.key);
            buffer.ok_or_else(|| lost(session.context(), NAME))?.read_at(offset, into)
        })
    }

    fn token(&self) -> &(dyn Any + Send + Sync) {
        &self.key
    }

    fn dies_in_a_fork(&self) -> bool {
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let key = self.key;
        self.worker.post(move |session| session.residents.forget(key));
    }
}
