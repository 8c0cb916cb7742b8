//! The seam between the engine and a GL driver: the calls that are used, as thin as can be, and no others.
//!
//! Everything above speaks to OpenGL through [`Api`]. The product has one implementation, [`Native`](crate::gl::driver::native::Native); tests put others in
//! its place, to fail the Nth call or to play a driver with other limits.
//!
//! An `Api` belongs to one context. Its calls act on whatever context is current on the calling thread, as GL's do:
//! the caller sees to it that this is the right one ([`Context`](crate::gl::driver::context::Context) does).

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

/// `GL_SUBGROUP_SIZE_KHR`, of GL_KHR_shader_subgroup.
pub const SUBGROUP_SIZE: u32 = 0x9532;
/// `GL_SM_COUNT_NV`, of GL_NV_shader_thread_group.
pub const SM_COUNT: u32 = 0x933b;
/// `GL_COMPLETION_STATUS_KHR`, of GL_KHR_parallel_shader_compile.
pub const COMPLETION_STATUS: u32 = 0x91b1;

/// A message of the driver's debug log (KHR_debug).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugMessage {
    /// `DEBUG_SEVERITY_*`.
    pub severity: u32,
    /// What the driver has to say.
    pub text: String,
}

/// The OpenGL calls that Sparkle uses, under their GL names; sizes, offsets and timeouts have 64 bits.
///
/// A name of 0 stands for "none", as in GL, also where a call could not make an object.
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
    /// `glBufferStorage` without data; only where [`Api::has_buffer_storage`].
    fn buffer_storage(&self, target: u32, size: i64, flags: u32);
    /// `glMapBufferRange`: the address; 0 if it failed.
    fn map_buffer_range(&self, target: u32, offset: i64, size: i64, access: u32) -> usize;
    /// `glBufferData` without data.
    fn buffer_data(&self, target: u32, size: i64, usage: u32);
    /// `glBufferSubData`.
    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]);
    /// `glGetBufferSubData`.
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]);
    /// `glCopyBufferSubData`.
    fn copy_buffer_sub_data(&self, from: u32, to: u32, from_offset: i64, to_offset: i64, size: i64);
    /// `GL_BUFFER_SIZE` of the buffer at a target.
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
    /// `GL_COMPLETION_STATUS`: whether asking for more would not wait for the compiler. True where the driver cannot tell.
    fn program_is_ready(&self, program: u32) -> bool;
    /// `glGetProgramInfoLog`.
    fn program_log(&self, program: u32) -> String;
    /// `glMaxShaderCompilerThreads`: as many as the driver likes, where it has the extension; some have none until they are asked.
    fn compile_in_parallel(&self);
    /// `GL_PROGRAM_BINARY_RETRIEVABLE_HINT`, before a program is linked.
    fn keep_program_binary(&self, program: u32);
    /// `glGetProgramBinary`: its format and its bytes; none if the driver gives none.
    fn program_binary(&self, program: u32) -> Option<(u32, Vec<u8>)>;
    /// `glProgramBinary`; `GL_LINK_STATUS` says whether the driver took it.
    fn load_program_binary(&self, program: u32, format: u32, binary: &[u8]);
    /// `glDeleteProgram`.
    fn delete_program(&self, program: u32);
    /// `GL_COMPUTE_WORK_GROUP_SIZE`.
    fn program_local_size(&self, program: u32) -> [i32; 3];
    /// `glUseProgram`; nothing where that program is in use already, which drivers do not see by themselves: on an H100 the call
    /// alone puts 1.2 us between two dispatches.
    fn use_program(&self, program: u32);
    /// Others than this `Api` may have called `glUseProgram` on its context.
    fn forget_program(&self);
    /// `glUniform1ui` at an explicit location.
    fn uniform_1ui(&self, location: u32, value: u32);

    /// `glDispatchCompute`.
    fn dispatch_compute(&self, x: u32, y: u32, z: u32);
    /// `glMemoryBarrier`.
    fn memory_barrier(&self, barriers: u32);
    /// `glFlush`.
    fn flush(&self);
    /// `glFinish`.
    fn finish(&self);

    /// `glFenceSync`; 0 if it failed.
    fn fence_sync(&self) -> usize;
    /// `glClientWaitSync`.
    fn client_wait_sync(&self, sync: usize, flags: u32, timeout_ns: u64) -> u32;
    /// `glWaitSync`: the device waits, the calling thread does not.
    fn wait_sync(&self, sync: usize);
    /// `glDeleteSync`.
    fn delete_sync(&self, sync: usize);

    /// `glGenQueries` for one name.
    fn gen_query(&self) -> u32;
    /// `glDeleteQueries` for one name.
    fn delete_query(&self, query: u32);
    /// `glQueryCounter(GL_TIMESTAMP)`.
    fn query_timestamp(&self, query: u32);
    /// `GL_QUERY_RESULT` in nanoseconds; waits if it is not available.
    fn query_result(&self, query: u32) -> u64;
    /// `GL_QUERY_COUNTER_BITS` of timestamps; 0 if the driver has none.
    fn timestamp_bits(&self) -> i32;

    /// `glGetError`.
    fn get_error(&self) -> u32;
    /// `glGetInteger64v` for one value.
    fn get_integer64(&self, name: u32) -> i64;
    /// `glGetIntegeri_v` for one value.
    fn get_integer_indexed(&self, name: u32, index: u32) -> i32;
    /// `glGetString`; empty if the driver gives none.
    fn get_string(&self, name: u32) -> String;
    /// `glGetGraphicsResetStatus`; 0, no reset, where the driver lacks it.
    fn reset_status(&self) -> u32;
    /// Whether the driver has an extension, by its whole name.
    fn has_extension(&self, name: &str) -> bool;
    /// Whether the driver can tell about resets.
    fn has_reset_status(&self) -> bool;
    /// Whether buffers can stay mapped while they are used (GL 4.4 or ARB_buffer_storage).
    fn has_buffer_storage(&self) -> bool;
    /// `glEnable(GL_DEBUG_OUTPUT)`: from now on messages collect in the debug log.
    fn enable_debug_log(&self);
    /// The oldest message of the debug log, which leaves it.
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
