//! Buffers: memory that lives on a device, which kernels, convolutions and products read and write in place.

use std::sync::Arc;

use super::Device;
use super::choice::{EngineChoice, fall_back};
use crate::backend::{Backend, DeviceMemory, Range};
use crate::error::{Error, Result};
use crate::float_env::FloatEnv;
use crate::kernel::bind::{Arg, Resident};
use crate::kernel::tree::Type;

/// Memory that lives on a device: a number of elements of one type, zeros at first.
///
/// Calls that take buffers read and write them in place, without a transfer. A call that writes a buffer, or a part of it,
/// borrows it mutably; two parts at once are those of [`Buffer::split_at_mut`].
///
/// A lost device loses the contents of its buffers, and so does a call that fails while it writes. Every use is then an
/// [`Error::ContentsLost`], until all of the buffer is written.
///
/// ```no_run
/// use sparkle::kernel::tree::Type;
/// use sparkle::{Device, Kernel};
/// # let text = "";
/// let device = Device::open("gl:0")?;
/// let scale = Kernel::from_source(text, "scale")?;
/// let mut y = device.buffer(1000, Type::Real32)?;
/// y.write(0, &[1.0f32; 1000])?;
/// for _ in 0..10 {
///     device.launch(&scale, &[1000], &mut [2.0f32.into(), (&mut y).into()])?;
/// }
/// let mut result = [0.0f32; 1000];
/// y.read(0, &mut result)?;
/// # Ok::<(), sparkle::Error>(())
/// ```
pub struct Buffer {
    backend: Arc<dyn Backend>,
    device: Arc<str>,
    memory: DeviceMemory,
    ty: Type,
    len: usize,
}

/// A part of a buffer, to read.
#[derive(Clone, Copy)]
pub struct BufferView<'a> {
    buffer: &'a Buffer,
    offset: usize,
    len: usize,
}

/// A part of a buffer, to read and write.
pub struct BufferViewMut<'a>(BufferView<'a>);

/// A type of elements. Elements of type `i32` are those of buffers of integers and of logical values.
pub trait Element: bytemuck::Pod + sealed::Sealed {
    /// The type's name in the kernel language.
    const TYPE: Type;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty: $ty:ident),*) => {$(
        impl sealed::Sealed for $element {}
        impl Element for $element {
            const TYPE: Type = Type::$ty;
        }
    )*};
}
elements!(i32: Int32, i64: Int64, f32: Real32, f64: Real64);

/// What identifies an engine.
fn identity(backend: &Arc<dyn Backend>) -> usize {
    Arc::as_ptr(backend).cast::<()>().addr()
}

impl Device {
    /// Allocates a buffer of `len` elements on this device. `auto` takes its first GPU, or the CPU without one.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for several devices that share work: a buffer lives on one of them.
    /// [`Error::InvalidArgument`] if the address space has not so many bytes; [`Error::OutOfMemory`], or the device's
    /// failure.
    pub fn buffer(&self, len: usize, ty: Type) -> Result<Buffer> {
        let _library = FloatEnv::enter();
        self.buffer_inside(len, ty)
    }

    /// [`Device::buffer`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Device::buffer`].
    pub(crate) fn buffer_inside(&self, len: usize, ty: Type) -> Result<Buffer> {
        let bytes = len.checked_mul(ty.bytes()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let most = isize::MAX as usize / ty.bytes();
        let bytes = bytes.ok_or_else(|| Error::invalid("buffer length", len, format!("at most {most}")))?;
        let on = |backend: &Arc<dyn Backend>| {
            let memory = DeviceMemory::new(backend.memory(bytes)?, bytes);
            Ok(Buffer { backend: backend.clone(), device: backend.shared_id(), memory, ty, len })
        };
        match &self.choice {
            EngineChoice::Fixed(backend) => on(backend),
            EngineChoice::Auto { cpu, gpus, .. } => match gpus.first() {
                None => on(cpu),
                Some(gpu) => on(gpu).or_else(|error| fall_back(gpu, error).and_then(|_| on(cpu))),
            },
            EngineChoice::Multi(multi) => {
                let what = "buffers, which live on one device: open one of its devices for them".to_owned();
                Err(Error::Unsupported { device: multi.selector().to_owned(), what })
            }
        }
    }

    /// The engine that computes with buffers of the engine `owner`: the one that the caller named, or the owner of the
    /// first buffer.
    pub(super) fn engine_of(&self, owner: usize) -> Option<&Arc<dyn Backend>> {
        match &self.choice {
            EngineChoice::Fixed(backend) => Some(backend),
            EngineChoice::Auto { cpu, gpus, .. } => {
                std::iter::once(cpu).chain(gpus).find(|it| identity(it) == owner)
            }
            EngineChoice::Multi(multi) => multi.backends().find(|it| identity(it) == owner),
        }
    }

    /// The identity and name of an engine, for the check of a launch's buffers.
    pub(super) fn owner(backend: &Arc<dyn Backend>) -> (usize, &str) {
        (identity(backend), backend.id())
    }
}

impl Buffer {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of its elements.
    pub fn element_type(&self) -> Type {
        self.ty
    }

    /// The device that it lives on: `cpu`, `gl:0`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Copies `data` to it, from element `offset` on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another type of elements, or more of them than there are;
    /// [`Error::ContentsLost`] unless `data` is all of it; or the device's failure.
    pub fn write<T: Element>(&mut self, offset: usize, data: &[T]) -> Result<()> {
        let _library = FloatEnv::enter();
        self.check_type(T::TYPE)?;
        self.write_bytes((offset, data.len()), bytemuck::cast_slice(data))
    }

    /// Copies elements from `offset` on into `into`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another type of elements, or more of them than there are;
    /// [`Error::ContentsLost`]; or the device's failure. `into` is then undefined.
    pub fn read<T: Element>(&self, offset: usize, into: &mut [T]) -> Result<()> {
        let _library = FloatEnv::enter();
        self.check_type(T::TYPE)?;
        self.read_bytes((offset, into.len()), bytemuck::cast_slice_mut(into))
    }

    /// Writes a range of elements while nobody else uses the buffer.
    ///
    /// # Errors
    /// As [`Buffer::write`]; [`Error::InUse`].
    pub(crate) fn write_bytes(&self, (offset, len): (usize, usize), data: &[u8]) -> Result<()> {
        self.check_range(offset, len)?;
        let _lock = self.memory.lock(true, || "the buffer".to_owned())?;
        // SAFETY: the range lies within the buffer, and the lock keeps others away.
        unsafe { self.memory.engine().write(offset * self.ty.bytes(), data) }
    }

    /// Reads a range of elements while nobody writes the buffer.
    ///
    /// # Errors
    /// As [`Buffer::read`]; [`Error::InUse`].
    pub(crate) fn read_bytes(&self, (offset, len): (usize, usize), into: &mut [u8]) -> Result<()> {
        self.check_range(offset, len)?;
        let _lock = self.memory.lock(false, || "the buffer".to_owned())?;
        // SAFETY: the range lies within the buffer, and the lock keeps writers away.
        unsafe { self.memory.engine().read(offset * self.ty.bytes(), into) }
    }

    fn check_type(&self, ty: Type) -> Result<()> {
        if ty == self.ty || (ty, self.ty) == (Type::Int32, Type::Logical) {
            return Ok(());
        }
        Err(Error::invalid("element type", ty.fortran(), self.ty.fortran()))
    }

    /// Checks that `len` elements from `offset` on lie within the buffer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    fn check_range(&self, offset: usize, len: usize) -> Result<()> {
        if offset.checked_add(len).is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let given = format_args!("{len} elements from {offset} on");
        Err(Error::invalid("buffer range", given, format!("at most the {} that it has", self.len)))
    }

    /// `len` elements from `offset` on, to read.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they do not lie within the buffer.
    pub fn view(&self, offset: usize, len: usize) -> Result<BufferView<'_>> {
        self.check_range(offset, len)?;
        Ok(BufferView { buffer: self, offset, len })
    }

    /// `len` elements from `offset` on, to read and write.
    ///
    /// # Errors
    /// As [`Buffer::view`].
    pub fn view_mut(&mut self, offset: usize, len: usize) -> Result<BufferViewMut<'_>> {
        self.view(offset, len).map(BufferViewMut)
    }

    /// The elements before `middle`, and the others, to read and write both in one call. Two calls at once that write one
    /// buffer are an [`Error::InUse`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `middle` is beyond the end.
    pub fn split_at_mut(&mut self, middle: usize) -> Result<(BufferViewMut<'_>, BufferViewMut<'_>)> {
        self.check_range(middle, 0)?;
        let part = |offset, len| BufferViewMut(BufferView { buffer: self, offset, len });
        Ok((part(0, middle), part(middle, self.len - middle)))
    }

    /// Whether it cannot be used in a process forked from its own.
    pub(crate) fn dies_in_a_fork(&self) -> bool {
        self.memory.engine().dies_in_a_fork()
    }

    /// A range as an argument of a launch. Two arguments may overlap: the launch is then refused where one is written.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(crate) fn arg(&self, offset: usize, len: usize, is_writable: bool) -> Result<Arg<'_>> {
        Ok(self.view(offset, len)?.arg(is_writable))
    }
}

impl BufferView<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<'a> BufferView<'a> {
    fn arg(self, is_writable: bool) -> Arg<'a> {
        let BufferView { buffer, offset, len } = self;
        let (memory, offset) = (&buffer.memory, offset * buffer.ty.bytes());
        let owner = (identity(&buffer.backend), &*buffer.device);
        // SAFETY: the view lies within the memory.
        let host = memory.engine().host().map(|start| unsafe { start.add(offset) }.as_ptr().cast());
        let resident = Resident { memory, offset, owner };
        // SAFETY: the memory is initialised, aligned, and lives as long as the borrow of the buffer; `Device::launch` locks
        // it, so nobody else uses it meanwhile.
        unsafe { Arg::resident(resident, (host, len), buffer.ty, is_writable) }
    }

    /// The view in bytes, as the argument `name` of a call that takes real32 elements.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another type.
    pub(super) fn range(self, name: &'static str) -> Result<Range<'a>> {
        let BufferView { buffer, offset, len } = self;
        if buffer.ty != Type::Real32 {
            let given = format!("a buffer of {}", buffer.ty.fortran());
            return Err(Error::invalid(name, given, Type::Real32.fortran()));
        }
        Ok(Range { memory: &buffer.memory, offset: offset * 4, bytes: len * 4, name })
    }
}

impl<'a> BufferView<'a> {
    /// What identifies its engine.
    pub(super) fn owner(&self) -> usize {
        identity(&self.buffer.backend)
    }

    /// Its device.
    pub(super) fn device(&self) -> &'a str {
        &self.buffer.device
    }
}

impl<'a> BufferViewMut<'a> {
    /// As a view to read.
    pub(super) fn view(self) -> BufferView<'a> {
        self.0
    }
}

impl BufferViewMut<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }
}

impl<'a> From<&'a Buffer> for BufferView<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        BufferView { buffer, offset: 0, len: buffer.len }
    }
}

impl<'a> From<&'a mut Buffer> for BufferViewMut<'a> {
    fn from(buffer: &'a mut Buffer) -> Self {
        BufferViewMut(BufferView { buffer, offset: 0, len: buffer.len })
    }
}

impl<'a> From<BufferView<'a>> for Arg<'a> {
    fn from(view: BufferView<'a>) -> Self {
        view.arg(false)
    }
}

impl<'a> From<BufferViewMut<'a>> for Arg<'a> {
    fn from(view: BufferViewMut<'a>) -> Self {
        view.0.arg(true)
    }
}

impl<'a> From<&'a Buffer> for Arg<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        BufferView::from(buffer).into()
    }
}

impl<'a> From<&'a mut Buffer> for Arg<'a> {
    fn from(buffer: &'a mut Buffer) -> Self {
        BufferViewMut::from(buffer).into()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} elements of {} on {}", self.len, self.ty.fortran(), self.device)
    }
}
