//! GL objects that delete themselves and are counted while they live.
//!
//! Each holds its context, so the context outlives it, and is deleted on the context's own thread. Each checks for GL
//! errors where it is created or copied, so an error is reported at the call that caused it.

use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::gl::driver::api;
use crate::gl::driver::context::{Context, Live};

/// The most bytes that one call uploads or reads back. Some drivers hold a copy of that size during the call.
const SLICE: usize = 256 << 20;

/// Counts one live object while it lives.
struct Counted(Rc<Context>, fn(&Live) -> &AtomicUsize);

impl Counted {
    fn new(context: &Rc<Context>, counter: fn(&Live) -> &AtomicUsize) -> Self {
        counter(context.live()).fetch_add(1, Ordering::Relaxed);
        Counted(context.clone(), counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1(self.0.live()).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The error for a call that returned no object. A lost context may return none without an error.
fn no_object(context: &Context, call: &str) -> Error {
    let reason = "it returned no object".to_owned();
    let nothing_said = Error::Driver { device: context.device().to_owned(), call: call.to_owned(), reason };
    context.check(call).and_then(|()| context.check_reset(call)).err().unwrap_or(nothing_said)
}

/// Deletes an object, unless the driver must be left alone or another context is current, whose objects may have the
/// same names. Then the object goes with the group's last context.
fn delete(context: &Context, how: impl FnOnce(&dyn api::Api)) {
    if !context.group().is_gone() && context.is_current() {
        how(context.api());
    }
}

/// A range of a buffer object of the share group.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// Its GL name.
    pub buffer: u32,
    /// Where the range begins, in bytes.
    pub offset: usize,
    /// Its length in bytes.
    pub bytes: usize,
}

impl Region {
    /// Copies it to another range of the same length, on the device.
    ///
    /// # Errors
    /// What GL reports.
    pub fn copy_to(&self, context: &Context, to: &Region) -> Result<()> {
        debug_assert!(self.bytes == to.bytes);
        let api = context.api();
        for (target, region) in [(api::COPY_READ_BUFFER, self), (api::COPY_WRITE_BUFFER, to)] {
            api.bind_buffer(target, region.buffer);
            // Otherwise the copy would use the target's old buffer.
            context.check("glBindBuffer")?;
        }
        let (from, into) = (self.offset as i64, to.offset as i64);
        let bytes = self.bytes as i64;
        api.copy_buffer_sub_data(api::COPY_READ_BUFFER, api::COPY_WRITE_BUFFER, from, into, bytes);
        context.check("glCopyBufferSubData")
    }
}

/// Anything that can be bound to a shader's storage block.
pub trait Bind {
    /// Binds it to the block at `index` of programs that run on `context`.
    fn bind_on(&self, context: &Context, index: u32);
}

impl Bind for Buffer {
    fn bind_on(&self, _: &Context, index: u32) {
        self.bind(index);
    }
}

impl Bind for Region {
    fn bind_on(&self, context: &Context, index: u32) {
        let (offset, bytes) = (self.offset as i64, self.bytes as i64);
        context.api().bind_buffer_range(api::SHADER_STORAGE_BUFFER, index, self.buffer, offset, bytes);
    }
}

/// A buffer in the device's memory.
pub struct Buffer {
    name: u32,
    bytes: usize,
    context: Rc<Context>,
    _counted: Counted,
}

impl Buffer {
    /// A buffer of `bytes` bytes with undefined contents, and at least 4: a binding must not be empty.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or what GL reports.
    pub fn new(context: &Rc<Context>, bytes: usize) -> Result<Self> {
        let buffer = Buffer::unallocated(context, bytes)?;
        context.api().buffer_data(api::COPY_WRITE_BUFFER, buffer.bytes as i64, api::DYNAMIC_COPY);
        context.check(&format!("glBufferData of {} bytes", buffer.bytes))?;
        Ok(buffer)
    }

    /// A buffer object without storage, bound as the target of copies.
    fn unallocated(context: &Rc<Context>, bytes: usize) -> Result<Self> {
        let name = context.api().gen_buffer();
        if name == 0 {
            return Err(no_object(context, "glGenBuffers"));
        }
        let counted = Counted::new(context, |live| &live.buffers);
        let buffer = Buffer { name, bytes: bytes.max(4), context: context.clone(), _counted: counted };
        buffer.bind_to_copy(api::COPY_WRITE_BUFFER)?;
        Ok(buffer)
    }

    /// A buffer mapped for its whole life, and its address. Either side may write; the other may read once a fence has
    /// signalled. Requires [`Capabilities::buffer_storage`](crate::gl::driver::capabilities::Capabilities).
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn mapped(context: &Rc<Context>, bytes: usize) -> Result<(Self, NonNull<u8>)> {
        let api = context.api();
        let buffer = Buffer::unallocated(context, bytes)?;
        let access = api::MAP_READ_BIT | api::MAP_WRITE_BIT | api::MAP_PERSISTENT_BIT | api::MAP_COHERENT_BIT;
        api.buffer_storage(api::COPY_WRITE_BUFFER, buffer.bytes as i64, access);
        context.check(&format!("glBufferStorage of {} bytes", buffer.bytes))?;
        let address = api.map_buffer_range(api::COPY_WRITE_BUFFER, 0, buffer.bytes as i64, access);
        context.check("glMapBufferRange")?;
        let address =
            NonNull::new(address as *mut u8).ok_or_else(|| no_object(context, "glMapBufferRange"))?;
        Ok((buffer, address))
    }

    /// A buffer that holds `data`.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn with_data(context: &Rc<Context>, data: &[u8]) -> Result<Self> {
        let buffer = Buffer::new(context, data.len())?;
        buffer.upload(data)?;
        Ok(buffer)
    }

    /// A buffer of `bytes` bytes filled with repetitions of `pattern`.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn repeating(context: &Rc<Context>, bytes: usize, pattern: &[u8]) -> Result<Self> {
        let buffer = Buffer::new(context, bytes)?;
        let mut filled = pattern.len().min(bytes);
        buffer.upload(&pattern[..filled])?;
        buffer.bind_to_copy(api::COPY_READ_BUFFER)?;
        while filled < bytes && filled > 0 {
            // The filled part holds whole patterns, and doubles.
            let more = filled.min(bytes - filled);
            let (from, to) = (api::COPY_READ_BUFFER, api::COPY_WRITE_BUFFER);
            context.api().copy_buffer_sub_data(from, to, 0, filled as i64, more as i64);
            context.check("glCopyBufferSubData")?;
            filled += more;
        }
        Ok(buffer)
    }

    /// Takes ownership of a buffer object that other code made.
    pub fn adopt(context: &Rc<Context>, name: u32, bytes: usize) -> Self {
        let counted = Counted::new(context, |live| &live.buffers);
        Buffer { name, bytes, context: context.clone(), _counted: counted }
    }

    /// The length of a buffer object that other code made.
    ///
    /// # Errors
    /// What GL reports, for instance that there is no such buffer.
    pub fn bytes_of(context: &Context, name: u32) -> Result<u64> {
        let api = context.api();
        api.bind_buffer(api::COPY_READ_BUFFER, name);
        context.check("glBindBuffer")?;
        let bytes = if name == 0 { 0 } else { api.buffer_size(api::COPY_READ_BUFFER) };
        context.check("glGetBufferParameteri64v")?;
        Ok(bytes.max(0) as u64)
    }

    /// Releases the buffer object: the caller must delete it.
    pub fn into_name(mut self) -> u32 {
        std::mem::take(&mut self.name)
    }

    /// Binds it to a target for copies. If that fails the target keeps its old buffer, and a copy would go there. So
    /// this is checked separately.
    fn bind_to_copy(&self, target: u32) -> Result<()> {
        self.context.api().bind_buffer(target, self.name);
        self.context.check("glBindBuffer")
    }

    /// Its GL name.
    pub fn name(&self) -> u32 {
        self.name
    }

    /// Its first `bytes` bytes.
    pub fn first(&self, bytes: usize) -> Region {
        debug_assert!(bytes <= self.bytes);
        Region { buffer: self.name, offset: 0, bytes }
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies `data` to its beginning.
    ///
    /// # Errors
    /// What GL reports.
    pub fn upload(&self, data: &[u8]) -> Result<()> {
        self.upload_at(0, data)
    }

    /// Copies `data` to `offset` bytes after its beginning.
    ///
    /// # Errors
    /// What GL reports.
    pub fn upload_at(&self, offset: usize, data: &[u8]) -> Result<()> {
        debug_assert!(offset + data.len() <= self.bytes);
        let api = self.context.api();
        self.bind_to_copy(api::COPY_WRITE_BUFFER)?;
        for (index, slice) in data.chunks(SLICE).enumerate() {
            api.buffer_sub_data(api::COPY_WRITE_BUFFER, (offset + index * SLICE) as i64, slice);
            self.context.check("glBufferSubData")?;
        }
        Ok(())
    }

    /// Copies its beginning to `into`. Shader writes need a barrier of `BUFFER_UPDATE_BARRIER_BIT` before.
    ///
    /// # Errors
    /// What GL reports; the contents of `into` are then undefined.
    pub fn read(&self, into: &mut [u8]) -> Result<()> {
        self.read_at(0, into)
    }

    /// Like [`Buffer::read`], through a temporary mapping. Consumes the buffer. The device must have finished.
    ///
    /// # Errors
    /// As [`Buffer::read`].
    #[cfg(feature = "lab")]
    pub fn read_mapped(self, into: &mut [u8]) -> Result<()> {
        debug_assert!(into.len() <= self.bytes);
        self.bind_to_copy(api::COPY_READ_BUFFER)?;
        let bytes = into.len() as i64;
        let address = self.context.api().map_buffer_range(api::COPY_READ_BUFFER, 0, bytes, api::MAP_READ_BIT);
        self.context.check("glMapBufferRange")?;
        let address =
            NonNull::new(address as *mut u8).ok_or_else(|| no_object(&self.context, "glMapBufferRange"))?;
        // SAFETY: the driver has mapped this many bytes for reading, until the buffer is deleted at the end of this
        // function. Nothing writes to them: the device has finished and no other mapping exists.
        into.copy_from_slice(unsafe { std::slice::from_raw_parts(address.as_ptr(), into.len()) });
        self.context.check_reset("glMapBufferRange")
    }

    /// Copies from `offset` bytes after its beginning to `into`; otherwise like [`Buffer::read`].
    ///
    /// # Errors
    /// As [`Buffer::read`].
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        debug_assert!(offset + into.len() <= self.bytes);
        let api = self.context.api();
        self.bind_to_copy(api::COPY_READ_BUFFER)?;
        for (index, slice) in into.chunks_mut(SLICE).enumerate() {
            api.get_buffer_sub_data(api::COPY_READ_BUFFER, (offset + index * SLICE) as i64, slice);
            self.context.check("glGetBufferSubData")?;
        }
        // A lost context need not raise errors; reads then leave `into` unchanged.
        self.context.check_reset("glGetBufferSubData")
    }

    /// Copies the first `bytes` bytes to `to`, on the device.
    ///
    /// # Errors
    /// What GL reports.
    pub fn copy_to(&self, to: &Buffer, bytes: usize) -> Result<()> {
        debug_assert!(bytes <= self.bytes && bytes <= to.bytes);
        let api = self.context.api();
        self.bind_to_copy(api::COPY_READ_BUFFER)?;
        to.bind_to_copy(api::COPY_WRITE_BUFFER)?;
        api.copy_buffer_sub_data(api::COPY_READ_BUFFER, api::COPY_WRITE_BUFFER, 0, 0, bytes as i64);
        self.context.check("glCopyBufferSubData")
    }

    /// Binds it to the shaders' storage block at `index`.
    pub fn bind(&self, index: u32) {
        self.context.api().bind_buffer_base(api::SHADER_STORAGE_BUFFER, index, self.name);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.name != 0 {
            delete(&self.context, |api| api.delete_buffer(self.name));
        }
    }
}

/// A compute program.
pub struct Program {
    name: u32,
    kernel: String,
    context: Rc<Context>,
    _counted: Counted,
}

impl Program {
    /// Compiles and links `source`; messages call the program `kernel`.
    ///
    /// # Errors
    /// [`Error::Shader`] with the driver's log.
    pub fn build(context: &Rc<Context>, kernel: &str, source: &str) -> Result<Self> {
        Building::begin(context, kernel, source)?.finish()
    }

    fn new(context: &Rc<Context>, kernel: &str) -> Result<Self> {
        let name = context.api().create_program();
        if name == 0 {
            return Err(no_object(context, "glCreateProgram"));
        }
        let counted = Counted::new(context, |live| &live.programs);
        Ok(Program { name, kernel: kernel.to_owned(), context: context.clone(), _counted: counted })
    }

    /// A program from the result of [`Program::binary`]; none if the driver rejects it, which needs no reason.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn from_binary(
        context: &Rc<Context>,
        kernel: &str,
        format: u32,
        binary: &[u8],
    ) -> Result<Option<Self>> {
        let api = context.api();
        let program = Program::new(context, kernel)?;
        api.load_program_binary(program.name, format, binary);
        let linked = api.program_linked(program.name);
        refusal_is_no_error(context.check("glProgramBinary"))?;
        context.check_reset("glProgramBinary")?;
        Ok(linked.then_some(program))
    }

    /// The linked program as the driver's binary with its format; none if the driver returns none.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn binary(&self) -> Result<Option<(u32, Vec<u8>)>> {
        let binary = self.context.api().program_binary(self.name);
        let got = refusal_is_no_error(self.context.check("glGetProgramBinary"))?;
        Ok(binary.filter(|_| got))
    }

    /// Releases the program: the caller must delete it.
    pub fn into_name(mut self) -> u32 {
        std::mem::take(&mut self.name)
    }

    /// Its GL name.
    pub fn name(&self) -> u32 {
        self.name
    }

    /// The context that it was made in.
    pub fn context(&self) -> &Rc<Context> {
        &self.context
    }

    /// Its name in messages.
    pub fn kernel_name(&self) -> &str {
        &self.kernel
    }
}

/// Ignores all errors but a lost device: without binaries programs are compiled. Returns whether there was no error.
fn refusal_is_no_error(checked: Result<()>) -> Result<bool> {
    match checked {
        Err(lost @ Error::DeviceLost { .. }) => Err(lost),
        checked => Ok(checked.is_ok()),
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.name != 0 {
            delete(&self.context, |api| api.delete_program(self.name));
        }
    }
}

/// A program that is being compiled and linked. Many drivers build several at once on their own threads, until their
/// status is queried.
pub struct Building {
    shader: Shader,
    program: Program,
}

impl Building {
    /// Starts compiling and linking.
    ///
    /// # Errors
    /// What GL reports immediately.
    pub fn begin(context: &Rc<Context>, kernel: &str, source: &str) -> Result<Self> {
        let api = context.api();
        let shader = Shader::new(context)?;
        api.shader_source(shader.name, source);
        api.compile_shader(shader.name);
        context.check("glCompileShader")?;
        let program = Program::new(context, kernel)?;
        api.keep_program_binary(program.name);
        api.attach_shader(program.name, shader.name);
        api.link_program(program.name);
        context.check("glLinkProgram")?;
        Ok(Building { shader, program })
    }

    /// Whether [`Building::finish`] would return without waiting, as far as the driver can tell.
    pub fn is_ready(&self) -> bool {
        self.program.context.api().program_is_ready(self.program.name)
    }

    /// Waits for the driver and returns the program.
    ///
    /// # Errors
    /// As [`Program::build`].
    pub fn finish(self) -> Result<Program> {
        let Building { shader, program } = self;
        let (context, kernel) = (&program.context, &program.kernel);
        let api = context.api();
        if !api.shader_compiled(shader.name) {
            return Err(shader_error(context, kernel, api.shader_log(shader.name)));
        }
        if !api.program_linked(program.name) {
            return Err(shader_error(context, kernel, api.program_log(program.name)));
        }
        api.detach_shader(program.name, shader.name);
        context.check("glDetachShader")?;
        Ok(program)
    }
}

/// A compute shader, not yet linked into a program.
struct Shader {
    name: u32,
    context: Rc<Context>,
    _counted: Counted,
}

impl Shader {
    fn new(context: &Rc<Context>) -> Result<Self> {
        let name = context.api().create_compute_shader();
        if name == 0 {
            return Err(no_object(context, "glCreateShader"));
        }
        let counted = Counted::new(context, |live| &live.programs);
        Ok(Shader { name, context: context.clone(), _counted: counted })
    }
}

impl Drop for Shader {
    fn drop(&mut self) {
        delete(&self.context, |api| api.delete_shader(self.name));
    }
}

fn shader_error(context: &Context, kernel: &str, log: String) -> Error {
    if let Err(lost) = context.check_reset("building a shader") {
        return lost;
    }
    let log = log.trim_end_matches(['\0', '\n', ' ']);
    let log = if log.is_empty() { "the driver gave no reason" } else { log }.to_owned();
    Error::Shader { device: context.device().to_owned(), kernel: kernel.to_owned(), log }
}

/// A timestamp: the device's clock when it reaches this point in the commands.
pub struct Query {
    name: u32,
    context: Rc<Context>,
    _counted: Counted,
}

impl Query {
    /// Inserts a timestamp after the commands submitted so far.
    ///
    /// # Errors
    /// What GL reports.
    pub fn timestamp(context: &Rc<Context>) -> Result<Self> {
        let name = context.api().gen_query();
        if name == 0 {
            return Err(no_object(context, "glGenQueries"));
        }
        let counted = Counted::new(context, |live| &live.queries);
        let query = Query { name, context: context.clone(), _counted: counted };
        query.restamp()?;
        Ok(query)
    }

    /// Moves it to after the commands submitted so far.
    ///
    /// # Errors
    /// What GL reports.
    pub fn restamp(&self) -> Result<()> {
        self.context.api().query_timestamp(self.name);
        self.context.check("glQueryCounter")
    }

    /// The time from `start` to this. Does not block if a fence after both has signalled.
    ///
    /// # Errors
    /// What GL reports.
    pub fn since(&self, start: &Query) -> Result<Duration> {
        Ok(self.between(start.nanoseconds()?, self.nanoseconds()?))
    }

    /// The time between two values of the device's clock.
    pub fn between(&self, start: u64, end: u64) -> Duration {
        // A counter of fewer than 64 bits wraps to 0.
        let unused_bits = 64 - self.context.capabilities().timestamp_bits.clamp(1, 64);
        Duration::from_nanos(end.wrapping_sub(start) & (u64::MAX >> unused_bits))
    }

    /// The value of the device's clock at that point.
    ///
    /// # Errors
    /// As [`Query::since`].
    pub fn nanoseconds(&self) -> Result<u64> {
        let nanoseconds = self.context.api().query_result(self.name);
        self.context.check("glGetQueryObjectui64v")?;
        Ok(nanoseconds)
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        delete(&self.context, |api| api.delete_query(self.name));
    }
}

/// A GL sync object. `fence.rs` waits for it.
pub struct Sync {
    name: usize,
    context: Rc<Context>,
    _counted: Counted,
}

impl Sync {
    pub fn new(context: &Rc<Context>) -> Result<Self> {
        let name = context.api().fence_sync();
        if name == 0 {
            return Err(no_object(context, "glFenceSync"));
        }
        let counted = Counted::new(context, |live| &live.syncs);
        Ok(Sync { name, context: context.clone(), _counted: counted })
    }

    pub fn name(&self) -> usize {
        self.name
    }

    pub fn context(&self) -> &Rc<Context> {
        &self.context
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        delete(&self.context, |api| api.delete_sync(self.name));
    }
}
