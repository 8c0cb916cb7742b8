//! The OpenGL calls that the engine uses, as a thin trait.
//!
//! The engine reaches OpenGL only through [`Api`]. The product has one implementation,
//! [`Native`](crate::gl::driver::native::Native). Tests substitute others that fail the Nth call or have other limits.
//!
//! An `Api` belongs to one context. Like GL, its calls act on the calling thread's current context. The caller ensures
//! that this is the right one ([`Context`](crate::gl::driver::context::Context) does).

pub use glow::{
    ALREADY_SIGNALED, BUFFER_SIZE, BUFFER_UPDATE_BARRIER_BIT, CONDITION_SATISFIED, CONTEXT_LOST,
    COPY_READ_BUFFER, COPY_WRITE_BUFFER, DEBUG_SEVERITY_HIGH, DYNAMIC_COPY, INVALID_ENUM,
    INVALID_FRAMEBUFFER_OPERATION, INVALID_OPERATION, INVALID_VALUE, MAP_COHERENT_BIT, MAP_PERSISTENT_BIT,
    MAP_READ_BIT, MAP_WRITE_BIT, MAX_COMPUTE_SHARED_MEMORY_SIZE, MAX_COMPUTE_WORK_GROUP_COUNT,
    MAX_COMPUTE_WORK_GROUP_INVOCATIONS, MAX_SHADER_STORAGE_BLOCK_SIZE, NO_ERROR, NUM_PROGRAM_BINARY_FORMATS,
    OUT_OF_MEMORY, RENDERER, SHADER_STORAGE_BARRIER_BIT, SHADER_STORAGE_BUFFER,
    SHADER_STORAGE_BUFFER_BINDING, SHADING_LANGUAGE_VERSION, STACK_OVERFLOW, STACK_UNDERFLOW,
    SYNC_FLUSH_COMMANDS_BIT, TIMEOUT_EXPIRED, TIMESTAMP, VENDOR, VERSION, WAIT_FAILED,
};

/// `GL_MAX_COMPUTE_SHADER_STORAGE_BLOCKS`.
pub const MAX_COMPUTE_SHADER_STORAGE_BLOCKS: u32 = 0x90db;
/// `GL_MAX_SHADER_STORAGE_BUFFER_BINDINGS`.
pub const MAX_SHADER_STORAGE_BUFFER_BINDINGS: u32 = 0x90dd;
/// `GL_MAX_COMPUTE_WORK_GROUP_SIZE`.
pub const MAX_COMPUTE_WORK_GROUP_SIZE: u32 = 0x91bf;
/// `GL_SUBGROUP_SIZE_KHR`, of GL_KHR_shader_subgroup.
pub const SUBGROUP_SIZE: u32 = 0x9532;
/// `GL_SM_COUNT_NV`, of GL_NV_shader_thread_group.
pub const SM_COUNT: u32 = 0x933b;
/// `GL_COMPLETION_STATUS_KHR`, of GL_KHR_parallel_shader_compile.
pub const COMPLETION_STATUS: u32 = 0x91b1;

/// A message from the driver's debug log (KHR_debug).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugMessage {
    /// `DEBUG_SEVERITY_*`.
    pub severity: u32,
    /// The driver's text.
    pub text: String,
}

/// The OpenGL calls that Sparkle uses, under their GL names. Sizes, offsets and timeouts have 64 bits.
///
/// A name of 0 means "none", as in GL. Calls that could not create an object return it, too.
pub trait Api {
    /// `glGenBuffers` for one name.
    fn gen_buffer(&self) -> u32;
    /// `glDeleteBuffers` for one name.
    fn delete_buffer(&self, buffer: u32);
    /// `glBindBuffer`.
    fn bind_buffer(&self, target: u32, buffer: u32);
    /// `glBindBufferBase`.
    fn bind_buffer_base(&self, target: u32, index: u32, buffer: u32);
    /// `glBindBufferRange`.
    fn bind_buffer_range(&self, target: u32, index: u32, buffer: u32, offset: i64, size: i64);
    /// `glBufferStorage` without data. Requires [`Api::has_buffer_storage`].
    fn buffer_storage(&self, target: u32, size: i64, flags: u32);
    /// `glMapBufferRange`: the address, or 0 on failure.
    fn map_buffer_range(&self, target: u32, offset: i64, size: i64, access: u32) -> usize;
    /// `glBufferData` without data.
    fn buffer_data(&self, target: u32, size: i64, usage: u32);
    /// `glBufferSubData`.
    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]);
    /// `glGetBufferSubData`.
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]);
    /// `glCopyBufferSubData`.
    fn copy_buffer_sub_data(&self, from: u32, to: u32, from_offset: i64, to_offset: i64, size: i64);
    /// `GL_BUFFER_SIZE` of the buffer bound to a target.
    fn buffer_size(&self, target: u32) -> i64;

    /// `glCreateShader(GL_COMPUTE_SHADER)`.
    fn create_compute_shader(&self) -> u32;
    /// `glShaderSource`.
    fn shader_source(&self, shader: u32, source: &str);
    /// `glCompileShader`.
    fn compile_shader(&self, shader: u32);
    /// `GL_COMPILE_STATUS`.
    fn shader_compiled(&self, shader: u32) -> bool;
    /// `glGetShaderInfoLog`.
    fn shader_log(&self, shader: u32) -> String;
    /// `glDeleteShader`.
    fn delete_shader(&self, shader: u32);
    /// `glCreateProgram`.
    fn create_program(&self) -> u32;
    /// `glAttachShader`.
    fn attach_shader(&self, program: u32, shader: u32);
    /// `glDetachShader`.
    fn detach_shader(&self, program: u32, shader: u32);
    /// `glLinkProgram`.
    fn link_program(&self, program: u32);
    /// `GL_LINK_STATUS`.
    fn program_linked(&self, program: u32) -> bool;
    /// `GL_COMPLETION_STATUS`: whether other queries return without waiting for the compiler. True if the driver
    /// cannot tell.
    fn program_is_ready(&self, program: u32) -> bool;
    /// `glGetProgramInfoLog`.
    fn program_log(&self, program: u32) -> String;
    /// `glMaxShaderCompilerThreads` with no limit, where the driver has it. Some drivers start no threads without
    /// this call.
    fn compile_in_parallel(&self);
    /// `GL_PROGRAM_BINARY_RETRIEVABLE_HINT`, before a program is linked.
    fn keep_program_binary(&self, program: u32);
    /// `glGetProgramBinary`: format and bytes, or none if the driver returns none.
    fn program_binary(&self, program: u32) -> Option<(u32, Vec<u8>)>;
    /// `glProgramBinary`; `GL_LINK_STATUS` says whether the driver accepted it.
    fn load_program_binary(&self, program: u32, format: u32, binary: &[u8]);
    /// `glDeleteProgram`.
    fn delete_program(&self, program: u32);
    /// `GL_COMPUTE_WORK_GROUP_SIZE`.
    fn program_local_size(&self, program: u32) -> [i32; 3];
    /// `glUseProgram`, skipped if that program is already in use. Drivers do not skip it: on an H100 the call alone
    /// adds 1.2 us between two dispatches.
    fn use_program(&self, program: u32);
    /// Forgets which program is in use. For code other than this `Api` that may have called `glUseProgram` on its
    /// context.
    fn forget_program(&self);
    /// `glUniform1ui` at a location.
    fn uniform_1ui(&self, location: u32, value: u32);
    /// `glGetUniformLocation`; none if the program does not use a uniform of this name.
    fn uniform_location(&self, program: u32, name: &str) -> Option<u32>;
    /// `glUniform3ui`.
    fn uniform_3ui(&self, location: u32, x: u32, y: u32, z: u32);
    /// `glUniform1i`, also for `bool`.
    fn uniform_1i(&self, location: u32, value: i32);
    /// `glUniform1f`.
    fn uniform_1f(&self, location: u32, value: f32);
    /// `glUniform1d`.
    fn uniform_1d(&self, location: u32, value: f64);

    /// `glDispatchCompute`.
    fn dispatch_compute(&self, x: u32, y: u32, z: u32);
    /// `glMemoryBarrier`.
    fn memory_barrier(&self, barriers: u32);
    /// `glFlush`.
    fn flush(&self);
    /// `glFinish`.
    fn finish(&self);

    /// `glFenceSync`; 0 on failure.
    fn fence_sync(&self) -> usize;
    /// `glClientWaitSync`.
    fn client_wait_sync(&self, sync: usize, flags: u32, timeout_ns: u64) -> u32;
    /// `glWaitSync`: the device waits, not the calling thread.
    fn wait_sync(&self, sync: usize);
    /// `glDeleteSync`.
    fn delete_sync(&self, sync: usize);

    /// `glGenQueries` for one name.
    fn gen_query(&self) -> u32;
    /// `glDeleteQueries` for one name.
    fn delete_query(&self, query: u32);
    /// `glQueryCounter(GL_TIMESTAMP)`.
    fn query_timestamp(&self, query: u32);
    /// `GL_QUERY_RESULT` in nanoseconds. Blocks until it is available.
    fn query_result(&self, query: u32) -> u64;
    /// `GL_QUERY_COUNTER_BITS` of timestamps; 0 if the driver has no timestamps.
    fn timestamp_bits(&self) -> i32;

    /// `glGetError`.
    fn get_error(&self) -> u32;
    /// `glGetInteger64v` for one value.
    fn get_integer64(&self, name: u32) -> i64;
    /// `glGetIntegeri_v` for one value.
    fn get_integer_indexed(&self, name: u32, index: u32) -> i32;
    /// `glGetString`; empty if the driver returns none.
    fn get_string(&self, name: u32) -> String;
    /// `glGetGraphicsResetStatus`; 0 (no reset) if the driver lacks it.
    fn reset_status(&self) -> u32;
    /// Whether the driver has the extension of exactly this name.
    fn has_extension(&self, name: &str) -> bool;
    /// Whether the driver reports resets.
    fn has_reset_status(&self) -> bool;
    /// Whether buffers can stay mapped while in use (GL 4.4 or ARB_buffer_storage).
    fn has_buffer_storage(&self) -> bool;
    /// `glEnable(GL_DEBUG_OUTPUT)`: messages collect in the debug log from now on.
    fn enable_debug_log(&self);
    /// Takes the oldest message from the debug log.
    fn next_debug_message(&self) -> Option<DebugMessage>;
}

/// The name of a GL error.
pub fn error_name(code: u32) -> String {
    match code {
        INVALID_ENUM => "GL_INVALID_ENUM",
        INVALID_VALUE => "GL_INVALID_VALUE",
        INVALID_OPERATION => "GL_INVALID_OPERATION",
        INVALID_FRAMEBUFFER_OPERATION => "GL_INVALID_FRAMEBUFFER_OPERATION",
        OUT_OF_MEMORY => "GL_OUT_OF_MEMORY",
        STACK_OVERFLOW => "GL_STACK_OVERFLOW",
        STACK_UNDERFLOW => "GL_STACK_UNDERFLOW",
        CONTEXT_LOST => "GL_CONTEXT_LOST",
        other => return format!("GL error {other:#06x}"),
    }
    .to_owned()
}
