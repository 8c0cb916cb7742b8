//! The programs' buffers on a context, and ranges of them as operands of shaders.
//!
//! A buffer is here as long as its contents are valid. They go with the context, and when a call fails that may have
//! written them. Then the buffer is missing here, until all of it is written.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;

use crate::allocate;
use crate::backend::Range;
use crate::error::{Error, Result};
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer, Region};

/// The alignment of a range in bytes that every device accepts. The standard allows no device to ask for more.
const ALIGNMENT: usize = 256;

/// What identifies a buffer, also after its contents were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResidentKey(pub u64);

impl ResidentKey {
    /// The key that this engine gave a memory.
    ///
    /// # Errors
    /// [`Error::Internal`] if the memory is another engine's, which the device layer has excluded.
    pub fn of(token: &(dyn Any + Send + Sync)) -> Result<ResidentKey> {
        let foreign = || Error::Internal("a buffer of another engine reached OpenGL".to_owned());
        token.downcast_ref().copied().ok_or_else(foreign)
    }
}

/// A range of a buffer, as a call names it.
#[derive(Debug, Clone, Copy)]
pub struct ResidentRange<'a> {
    pub key: ResidentKey,
    /// Bytes of the whole buffer.
    pub whole: usize,
    /// The range in bytes.
    pub offset: usize,
    pub bytes: usize,
    /// What the call names it.
    pub name: &'a str,
}

/// The buffers of a context.
#[derive(Default)]
pub struct Residents {
    buffers: HashMap<ResidentKey, Buffer>,
    /// Those that the running call made, because it writes all of their lost contents.
    fresh: Vec<ResidentKey>,
}

/// The error for a buffer whose contents were lost.
pub fn lost(context: &Context, name: &str) -> Error {
    Error::ContentsLost { device: context.device().to_owned(), what: name.to_owned() }
}

impl<'a> ResidentRange<'a> {
    /// The range that a call of the device layer names.
    ///
    /// # Errors
    /// As [`ResidentKey::of`].
    pub fn of(range: &Range<'a>) -> Result<Self> {
        let key = ResidentKey::of(range.memory.engine().token())?;
        let Range { memory, offset, bytes, name } = *range;
        Ok(ResidentRange { key, whole: memory.bytes(), offset, bytes, name })
    }

    /// `bytes` bytes of it, from `offset` on.
    pub fn part(&self, offset: usize, bytes: usize) -> Self {
        debug_assert!(offset + bytes <= self.bytes);
        ResidentRange { offset: self.offset + offset, bytes, ..*self }
    }
}

/// Makes what earlier calls wrote to buffers visible to shaders and copies. To be called before their first use.
pub fn see_writes(context: &Context) {
    context.api().memory_barrier(api::SHADER_STORAGE_BARRIER_BIT | api::BUFFER_UPDATE_BARRIER_BIT);
}

impl Residents {
    /// The buffer, if its contents are valid.
    pub fn get(&self, key: ResidentKey) -> Option<&Buffer> {
        self.buffers.get(&key)
    }

    /// Keeps a buffer.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn put(&mut self, key: ResidentKey, buffer: Buffer) -> Result<()> {
        allocate::reserve_one(&mut self.buffers, "the buffers of a device")?;
        self.buffers.insert(key, buffer);
        Ok(())
    }

    /// Drops a buffer: its contents are lost, or nobody needs it.
    pub fn forget(&mut self, key: ResidentKey) {
        self.buffers.remove(&key);
    }

    /// Makes sure that the contents of a range are valid, or are all of a buffer and will be overwritten.
    ///
    /// # Errors
    /// As [`Residents::operand`].
    pub fn ensure(
        &mut self,
        context: &Rc<Context>,
        range: &ResidentRange<'_>,
        overwrites: bool,
    ) -> Result<()> {
        if range.bytes == 0 || self.buffers.contains_key(&range.key) {
            return Ok(());
        }
        if !overwrites || range.bytes != range.whole {
            return Err(lost(context, range.name));
        }
        allocate::push(&mut self.fresh, range.key, "the buffers of a call")?;
        let buffer = Buffer::new(context, range.whole)?;
        self.put(range.key, buffer)
    }

    /// The range as a place of the context's memory; none if it has no bytes.
    pub fn region(&self, range: &ResidentRange<'_>) -> Option<Region> {
        let buffer = self.get(range.key).filter(|_| range.bytes > 0)?;
        Some(Region { buffer: buffer.name(), offset: range.offset, bytes: range.bytes })
    }

    /// A range of a buffer as an operand. If the call writes all of the range whatever it was (`overwrites`), its contents
    /// do not matter.
    ///
    /// # Errors
    /// [`Error::ContentsLost`], except where the range is the whole buffer and is overwritten; [`Error::OutOfMemory`], or
    /// what GL reports.
    pub fn operand(
        &mut self,
        context: &Rc<Context>,
        range: &ResidentRange<'_>,
        overwrites: bool,
    ) -> Result<Operand> {
        if range.bytes == 0 {
            // A binding must not be empty.
            return Ok(Operand { copy: Some(Buffer::new(context, 0)?), region: None });
        }
        self.ensure(context, range, overwrites)?;
        let buffer = self.buffers.get(&range.key).ok_or_else(|| lost(context, range.name))?;
        let region = Region { buffer: buffer.name(), offset: range.offset, bytes: range.bytes };
        if region.offset.is_multiple_of(ALIGNMENT) {
            return Ok(Operand { copy: None, region: Some(region) });
        }
        let copy = Buffer::new(context, range.bytes)?;
        if !overwrites {
            region.copy_to(context, &copy.first(range.bytes))?;
        }
        Ok(Operand { copy: Some(copy), region: Some(region) })
    }

    /// Ends the making of operands. Without all of them nothing has run, and buffers that were made to be overwritten go.
    pub fn keep_if<T>(&mut self, made: Result<T>) -> Result<T> {
        if made.is_err() {
            std::mem::take(&mut self.fresh).into_iter().for_each(|key| self.forget(key));
        }
        made
    }

    /// Ends a call. After a failure, the contents of what it may have written are lost.
    pub fn end<T>(&mut self, result: Result<T>, written: &[ResidentKey]) -> Result<T> {
        self.fresh.clear();
        if result.is_err() {
            written.iter().for_each(|key| self.forget(*key));
        }
        result
    }
}

/// A range of a buffer as a shader sees it: in place, or a copy on the device if the range begins where the device binds
/// no buffer.
pub struct Operand {
    copy: Option<Buffer>,
    region: Option<Region>,
}

impl Operand {
    /// Copies what shaders wrote to the range, if they saw a copy. Shader writes need a barrier of
    /// `BUFFER_UPDATE_BARRIER_BIT` before.
    ///
    /// # Errors
    /// What GL reports.
    pub fn store(&self, context: &Context) -> Result<()> {
        match (&self.copy, &self.region) {
            (Some(copy), Some(region)) => copy.first(region.bytes).copy_to(context, region),
            _ => Ok(()),
        }
    }
}

impl Bind for Operand {
    fn bind_on(&self, context: &Context, index: u32) {
        match (&self.copy, &self.region) {
            (Some(copy), _) => copy.bind(index),
            (None, Some(region)) => region.bind_on(context, index),
            (None, None) => {}
        }
    }
}
