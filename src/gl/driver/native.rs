//! [`Api`] on the real OpenGL: glow where its types are wide enough, raw entry points for the rest.
//!
//! glow 0.18 takes 32-bit sizes and timeouts, has no reset status and hides the text of debug messages. It panics if a
//! driver that has lost its context returns nothing (a name of 0, a null string). This file loads those entry points
//! itself. All are core since GL 4.3, except those in `Option`.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::num::NonZeroU32;

use glow::HasContext as _;

use crate::allocate;
use crate::gl::driver::api::{Api, BUFFER_SIZE, COMPLETION_STATUS, DebugMessage};

/// Declares the table of raw entry points and its loader.
macro_rules! raw {
    ($($field:ident: $name:literal fn($($arg:ty),*) $(-> $ret:ty)?;)* ; optional $($opt:ident: [$($opt_name:literal),+] fn($($opt_arg:ty),*) $(-> $opt_ret:ty)?;)*) => {
        struct Raw {
            $($field: unsafe extern "system" fn($($arg),*) $(-> $ret)?,)*
            $($opt: Option<unsafe extern "system" fn($($opt_arg),*) $(-> $opt_ret)?>,)*
        }

        impl Raw {
            /// # Safety
            /// `load` returns the entry points of the requested GL functions, or null.
            unsafe fn load(load: &dyn Fn(&CStr) -> *const c_void) -> Result<Self, String> {
                let find = |name: &CStr| Some(load(name)).filter(|address| !address.is_null());
                Ok(Raw {
                    $($field: {
                        let address = find($name).ok_or_else(|| format!("{} is missing", $name.to_string_lossy()))?;
                        // SAFETY: the address is that of the GL function of this name, whose C prototype in the
                        // Khronos registry is the field's type.
                        unsafe { std::mem::transmute::<*const c_void, unsafe extern "system" fn($($arg),*) $(-> $ret)?>(address) }
                    },)*
                    $($opt: [$($opt_name),+].into_iter().find_map(find).map(|address| {
                        // SAFETY: as above.
                        unsafe { std::mem::transmute::<*const c_void, unsafe extern "system" fn($($opt_arg),*) $(-> $opt_ret)?>(address) }
                    }),)*
                })
            }
        }
    };
}

raw! {
    get_string: c"glGetString" fn(u32) -> *const c_char;
    gen_buffers: c"glGenBuffers" fn(i32, *mut u32);
    gen_queries: c"glGenQueries" fn(i32, *mut u32);
    buffer_data: c"glBufferData" fn(u32, isize, *const c_void, u32);
    buffer_sub_data: c"glBufferSubData" fn(u32, isize, isize, *const c_void);
    get_buffer_sub_data: c"glGetBufferSubData" fn(u32, isize, isize, *mut c_void);
    copy_buffer_sub_data: c"glCopyBufferSubData" fn(u32, u32, isize, isize, isize);
    get_buffer_parameter_i64v: c"glGetBufferParameteri64v" fn(u32, u32, *mut i64);
    bind_buffer_range: c"glBindBufferRange" fn(u32, u32, u32, isize, isize);
    map_buffer_range: c"glMapBufferRange" fn(u32, isize, isize, u32) -> *mut c_void;
    fence_sync: c"glFenceSync" fn(u32, u32) -> *mut c_void;
    client_wait_sync: c"glClientWaitSync" fn(*mut c_void, u32, u64) -> u32;
    wait_sync: c"glWaitSync" fn(*mut c_void, u32, u64);
    delete_sync: c"glDeleteSync" fn(*mut c_void);
    get_shader_info_log: c"glGetShaderInfoLog" fn(u32, i32, *mut i32, *mut c_char);
    get_program_info_log: c"glGetProgramInfoLog" fn(u32, i32, *mut i32, *mut c_char);
    get_programiv: c"glGetProgramiv" fn(u32, u32, *mut i32);
    program_parameteri: c"glProgramParameteri" fn(u32, u32, i32);
    get_program_binary: c"glGetProgramBinary" fn(u32, i32, *mut i32, *mut u32, *mut c_void);
    program_binary: c"glProgramBinary" fn(u32, u32, *const c_void, i32);
    uniform_1d: c"glUniform1d" fn(i32, f64);
    get_queryiv: c"glGetQueryiv" fn(u32, u32, *mut i32);
    get_query_object_ui64v: c"glGetQueryObjectui64v" fn(u32, u32, *mut u64);
    get_debug_message_log: c"glGetDebugMessageLog" fn(u32, i32, *mut u32, *mut u32, *mut u32, *mut u32, *mut i32, *mut c_char) -> u32;
    ; optional
    buffer_storage: [c"glBufferStorage"] fn(u32, isize, *const c_void, u32);
    compiler_threads: [c"glMaxShaderCompilerThreadsKHR", c"glMaxShaderCompilerThreadsARB"] fn(u32);
    reset_status: [c"glGetGraphicsResetStatus", c"glGetGraphicsResetStatusKHR", c"glGetGraphicsResetStatusARB"] fn() -> u32;
}

/// Bytes of a compiler's log to read.
const MAX_LOG: usize = 16 << 10;

/// OpenGL itself.
pub struct Native {
    gl: glow::Context,
    raw: Raw,
    /// Some loaders return an address for any name, so an entry point counts only if the driver claims the feature.
    storage: bool,
    resets: bool,
    parallel: bool,
    /// The program in use, if known.
    used: Cell<Option<u32>>,
}

/// Wraps a GL name for glow.
macro_rules! name {
    ($kind:ident, $name:expr) => {
        NonZeroU32::new($name).map(glow::$kind)
    };
}

impl Native {
    /// Loads the entry points.
    ///
    /// # Errors
    /// Names a missing function, or says that the context is unusable.
    ///
    /// # Safety
    /// A GL 4.3 core context is current on this thread, and `load` returns GL's entry points for it or null. Whenever a
    /// method is called, that context or one like it is current on the calling thread.
    pub unsafe fn load(load: &dyn Fn(&CStr) -> *const c_void) -> Result<Self, String> {
        // SAFETY: the caller's contract.
        let raw = unsafe { Raw::load(load)? };
        // SAFETY: a context is current.
        if unsafe { (raw.get_string)(glow::VERSION) }.is_null() {
            return Err("the new context has no GL_VERSION".to_owned());
        }
        // SAFETY: a context is current and has a version string, which glow reads first.
        let gl = unsafe { glow::Context::from_loader_function_cstr(load) };
        let (version, has) = (gl.version(), |name: &str| gl.supported_extensions().contains(name));
        let at_least = |minor| (version.major, version.minor) >= (4, minor);
        let storage = at_least(4) || has("GL_ARB_buffer_storage");
        let resets = at_least(5) || has("GL_KHR_robustness") || has("GL_ARB_robustness");
        let parallel = has("GL_KHR_parallel_shader_compile") || has("GL_ARB_parallel_shader_compile");
        Ok(Native { gl, raw, storage, resets, parallel, used: Cell::new(None) })
    }

    /// A string that GL returned.
    ///
    /// # Safety
    /// `text` is null or a C string that stays alive.
    unsafe fn text(text: *const c_char) -> Option<String> {
        // SAFETY: not null here; the rest is the caller's contract.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

/// `glGetShaderInfoLog` or `glGetProgramInfoLog`.
type GetInfoLog = unsafe extern "system" fn(u32, i32, *mut i32, *mut c_char);

/// Calls an entry point.
macro_rules! call {
    ($call:expr) => {{
        // SAFETY: by the constructor's contract a GL 4.3 core context is current on the calling thread, and the entry
        // points are that driver's. Slices are passed as a pointer with exactly their own length, and variables outlive
        // the call. GL answers wrong names, sizes and enums with an error, not with undefined behaviour.
        unsafe { $call }
    }};
}

impl Native {
    /// The beginning of the compiler's log for an object.
    fn log(&self, get: GetInfoLog, object: u32) -> String {
        let (mut text, mut length) = ([0u8; MAX_LOG], 0);
        call!(get(object, MAX_LOG as i32, &mut length, text.as_mut_ptr().cast()));
        String::from_utf8_lossy(&text[..length.clamp(0, MAX_LOG as i32) as usize]).into_owned()
    }
}

impl Api for Native {
    fn gen_buffer(&self) -> u32 {
        let mut name = 0;
        call!((self.raw.gen_buffers)(1, &mut name));
        name
    }
    fn delete_buffer(&self, buffer: u32) {
        if let Some(buffer) = name!(NativeBuffer, buffer) {
            call!(self.gl.delete_buffer(buffer));
        }
    }
    fn bind_buffer(&self, target: u32, buffer: u32) {
        call!(self.gl.bind_buffer(target, name!(NativeBuffer, buffer)));
    }
    fn bind_buffer_base(&self, target: u32, index: u32, buffer: u32) {
        call!(self.gl.bind_buffer_base(target, index, name!(NativeBuffer, buffer)));
    }
    fn bind_buffer_range(&self, target: u32, index: u32, buffer: u32, offset: i64, size: i64) {
        call!((self.raw.bind_buffer_range)(target, index, buffer, offset as isize, size as isize));
    }
    fn buffer_storage(&self, target: u32, size: i64, flags: u32) {
        if let Some(buffer_storage) = self.raw.buffer_storage {
            call!(buffer_storage(target, size as isize, std::ptr::null(), flags));
        }
    }
    fn map_buffer_range(&self, target: u32, offset: i64, size: i64, access: u32) -> usize {
        call!((self.raw.map_buffer_range)(target, offset as isize, size as isize, access) as usize)
    }
    fn buffer_data(&self, target: u32, size: i64, usage: u32) {
        call!((self.raw.buffer_data)(target, size as isize, std::ptr::null(), usage));
    }
    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]) {
        let (size, data) = (data.len() as isize, data.as_ptr().cast());
        call!((self.raw.buffer_sub_data)(target, offset as isize, size, data));
    }
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]) {
        let (size, into) = (into.len() as isize, into.as_mut_ptr().cast());
        call!((self.raw.get_buffer_sub_data)(target, offset as isize, size, into));
    }
    fn copy_buffer_sub_data(&self, from: u32, to: u32, from_offset: i64, to_offset: i64, size: i64) {
        let (from_offset, to_offset) = (from_offset as isize, to_offset as isize);
        call!((self.raw.copy_buffer_sub_data)(from, to, from_offset, to_offset, size as isize));
    }
    fn buffer_size(&self, target: u32) -> i64 {
        let mut size = 0;
        call!((self.raw.get_buffer_parameter_i64v)(target, BUFFER_SIZE, &raw mut size));
        size
    }

    fn create_compute_shader(&self) -> u32 {
        call!(self.gl.create_shader(glow::COMPUTE_SHADER)).map_or(0, |shader| shader.0.get())
    }
    fn shader_source(&self, shader: u32, source: &str) {
        if let Some(shader) = name!(NativeShader, shader) {
            call!(self.gl.shader_source(shader, source));
        }
    }
    fn compile_shader(&self, shader: u32) {
        if let Some(shader) = name!(NativeShader, shader) {
            call!(self.gl.compile_shader(shader));
        }
    }
    fn shader_compiled(&self, shader: u32) -> bool {
        name!(NativeShader, shader).is_some_and(|shader| call!(self.gl.get_shader_compile_status(shader)))
    }
    fn shader_log(&self, shader: u32) -> String {
        self.log(self.raw.get_shader_info_log, shader)
    }
    fn delete_shader(&self, shader: u32) {
        if let Some(shader) = name!(NativeShader, shader) {
            call!(self.gl.delete_shader(shader));
        }
    }
    fn create_program(&self) -> u32 {
        call!(self.gl.create_program()).map_or(0, |program| program.0.get())
    }
    fn attach_shader(&self, program: u32, shader: u32) {
        if let (Some(program), Some(shader)) = (name!(NativeProgram, program), name!(NativeShader, shader)) {
            call!(self.gl.attach_shader(program, shader));
        }
    }
    fn detach_shader(&self, program: u32, shader: u32) {
        if let (Some(program), Some(shader)) = (name!(NativeProgram, program), name!(NativeShader, shader)) {
            call!(self.gl.detach_shader(program, shader));
        }
    }
    fn compile_in_parallel(&self) {
        if let Some(compiler_threads) = self.raw.compiler_threads.filter(|_| self.parallel) {
            // SAFETY: a context is current by the contract of `load`, and its driver claims the extension.
            unsafe { compiler_threads(u32::MAX) };
        }
    }

    fn link_program(&self, program: u32) {
        if let Some(program) = name!(NativeProgram, program) {
            call!(self.gl.link_program(program));
        }
    }
    fn program_linked(&self, program: u32) -> bool {
        name!(NativeProgram, program).is_some_and(|program| call!(self.gl.get_program_link_status(program)))
    }
    fn program_is_ready(&self, program: u32) -> bool {
        let mut ready = 1;
        if self.parallel {
            call!((self.raw.get_programiv)(program, COMPLETION_STATUS, &mut ready));
        }
        ready != 0
    }
    fn program_local_size(&self, program: u32) -> [i32; 3] {
        let mut size = [0; 3];
        call!((self.raw.get_programiv)(program, glow::COMPUTE_WORK_GROUP_SIZE, size.as_mut_ptr()));
        size
    }
    fn program_log(&self, program: u32) -> String {
        self.log(self.raw.get_program_info_log, program)
    }
    fn keep_program_binary(&self, program: u32) {
        call!((self.raw.program_parameteri)(program, glow::PROGRAM_BINARY_RETRIEVABLE_HINT, 1));
    }
    fn program_binary(&self, program: u32) -> Option<(u32, Vec<u8>)> {
        let mut capacity = 0;
        call!((self.raw.get_programiv)(program, glow::PROGRAM_BINARY_LENGTH, &mut capacity));
        if capacity <= 0 {
            return None;
        }
        // A binary too large for memory is not kept.
        let mut binary: Vec<u8> = allocate::zeroed(capacity as usize, "a program").ok()?;
        let (mut length, mut format) = (0, 0);
        let into = binary.as_mut_ptr().cast();
        call!((self.raw.get_program_binary)(program, capacity, &mut length, &mut format, into));
        binary.truncate(length.max(0) as usize);
        (!binary.is_empty()).then_some((format, binary))
    }
    fn load_program_binary(&self, program: u32, format: u32, binary: &[u8]) {
        let Ok(length) = i32::try_from(binary.len()) else { return };
        call!((self.raw.program_binary)(program, format, binary.as_ptr().cast(), length));
    }
    fn delete_program(&self, program: u32) {
        self.forget_program();
        if let Some(program) = name!(NativeProgram, program) {
            call!(self.gl.delete_program(program));
        }
    }
    fn use_program(&self, program: u32) {
        if self.used.replace(Some(program)) != Some(program) {
            call!(self.gl.use_program(name!(NativeProgram, program)));
        }
    }
    fn forget_program(&self) {
        self.used.set(None);
    }
    fn uniform_1ui(&self, location: u32, value: u32) {
        call!(self.gl.uniform_1_u32(Some(&glow::NativeUniformLocation(location)), value));
    }

    fn uniform_location(&self, program: u32, name: &str) -> Option<u32> {
        let program = name!(NativeProgram, program)?;
        call!(self.gl.get_uniform_location(program, name)).map(|location| location.0)
    }
    fn uniform_3ui(&self, location: u32, x: u32, y: u32, z: u32) {
        call!(self.gl.uniform_3_u32(Some(&glow::NativeUniformLocation(location)), x, y, z));
    }
    fn uniform_1i(&self, location: u32, value: i32) {
        call!(self.gl.uniform_1_i32(Some(&glow::NativeUniformLocation(location)), value));
    }
    fn uniform_1f(&self, location: u32, value: f32) {
        call!(self.gl.uniform_1_f32(Some(&glow::NativeUniformLocation(location)), value));
    }
    fn uniform_1d(&self, location: u32, value: f64) {
        call!((self.raw.uniform_1d)(location as i32, value));
    }

    fn dispatch_compute(&self, x: u32, y: u32, z: u32) {
        call!(self.gl.dispatch_compute(x, y, z));
    }
    fn memory_barrier(&self, barriers: u32) {
        call!(self.gl.memory_barrier(barriers));
    }
    fn flush(&self) {
        call!(self.gl.flush());
    }
    fn finish(&self) {
        call!(self.gl.finish());
    }

    fn fence_sync(&self) -> usize {
        call!((self.raw.fence_sync)(glow::SYNC_GPU_COMMANDS_COMPLETE, 0) as usize)
    }
    fn client_wait_sync(&self, sync: usize, flags: u32, timeout_ns: u64) -> u32 {
        call!((self.raw.client_wait_sync)(sync as *mut c_void, flags, timeout_ns))
    }
    fn wait_sync(&self, sync: usize) {
        call!((self.raw.wait_sync)(sync as *mut c_void, 0, glow::TIMEOUT_IGNORED));
    }
    fn delete_sync(&self, sync: usize) {
        call!((self.raw.delete_sync)(sync as *mut c_void));
    }

    fn gen_query(&self) -> u32 {
        let mut name = 0;
        call!((self.raw.gen_queries)(1, &mut name));
        name
    }
    fn delete_query(&self, query: u32) {
        if let Some(query) = name!(NativeQuery, query) {
            call!(self.gl.delete_query(query));
        }
    }
    fn query_timestamp(&self, query: u32) {
        if let Some(query) = name!(NativeQuery, query) {
            call!(self.gl.query_counter(query, glow::TIMESTAMP));
        }
    }
    fn query_result(&self, query: u32) -> u64 {
        let mut nanoseconds = 0;
        call!((self.raw.get_query_object_ui64v)(query, glow::QUERY_RESULT, &mut nanoseconds));
        nanoseconds
    }
    fn timestamp_bits(&self) -> i32 {
        let mut bits = 0;
        call!((self.raw.get_queryiv)(glow::TIMESTAMP, glow::QUERY_COUNTER_BITS, &mut bits));
        bits
    }

    fn get_error(&self) -> u32 {
        let error = call!(self.gl.get_error());
        if error != glow::NO_ERROR {
            // The call that failed may have been glUseProgram.
            self.forget_program();
        }
        error
    }
    fn get_integer64(&self, name: u32) -> i64 {
        call!(self.gl.get_parameter_i64(name))
    }
    fn get_integer_indexed(&self, name: u32, index: u32) -> i32 {
        call!(self.gl.get_parameter_indexed_i32(name, index))
    }
    fn get_string(&self, name: u32) -> String {
        call!(Self::text((self.raw.get_string)(name))).unwrap_or_default()
    }
    fn reset_status(&self) -> u32 {
        match self.raw.reset_status {
            Some(reset_status) if self.resets => call!(reset_status()),
            _ => 0,
        }
    }
    fn has_extension(&self, name: &str) -> bool {
        self.gl.supported_extensions().contains(name)
    }
    fn has_reset_status(&self) -> bool {
        self.resets && self.raw.reset_status.is_some()
    }
    fn has_buffer_storage(&self) -> bool {
        self.storage && self.raw.buffer_storage.is_some()
    }
    fn enable_debug_log(&self) {
        call!(self.gl.enable(glow::DEBUG_OUTPUT));
    }
    fn next_debug_message(&self) -> Option<DebugMessage> {
        let (mut source, mut kind, mut id, mut severity, mut length) = (0, 0, 0, 0, 0i32);
        let mut text = [0u8; 4096];
        let got = call!({
            let text = text.as_mut_ptr().cast();
            (self.raw.get_debug_message_log)(
                1,
                4096,
                &mut source,
                &mut kind,
                &mut id,
                &mut severity,
                &mut length,
                text,
            )
        });
        let text = &text[..(length.max(1) as usize - 1).min(4095)];
        (got == 1)
            .then(|| DebugMessage { severity, text: String::from_utf8_lossy(text).trim_end().to_owned() })
    }
}
