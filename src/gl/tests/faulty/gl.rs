//! OpenGL with fault injection.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::{Fault, Faults, FaultyEgl, Machine};
use crate::gl::driver::api::{self, Api, DebugMessage};
use crate::gl::driver::egl::{ContextHandle, Egl};

/// The timeout for fences that do signal.
const PATIENCE: Duration = Duration::from_secs(120);

/// OpenGL with fault injection.
pub struct FaultyApi {
    inner: Box<dyn Api>,
    egl: Arc<dyn Egl>,
    context: Option<ContextHandle>,
    faults: Arc<Faults>,
    machine: Machine,
    group: u32,
    /// An injected error that was not queried yet.
    error: Cell<u32>,
    /// The buffer bound to the copy target, which gets memory next.
    written: Cell<u32>,
}

impl FaultyApi {
    /// The GL of the context that is current, on the newest share group.
    pub fn new(egl: &FaultyEgl, inner: Box<dyn Api>) -> Self {
        FaultyApi {
            inner,
            egl: egl.inner.clone(),
            context: egl.inner.current_context(),
            faults: egl.faults.clone(),
            machine: egl.machine,
            group: egl.faults.groups(),
            error: Cell::new(api::NO_ERROR),
            written: Cell::new(0),
        }
    }

    /// Whether its share group is lost, and if so, whether `glGetError` reports it.
    fn lost(&self) -> Option<bool> {
        self.faults.state().lost.get(&self.group).copied()
    }

    /// Forwards a call unless a fault hits it. A deletion always takes place, but may leave an error behind.
    fn call<R: Default>(&self, call: &'static str, forward: impl FnOnce() -> R) -> R {
        if self.egl.current_context() != self.context {
            self.faults.state().violations.push(format!("{call} without its context"));
        }
        let deletes = call.starts_with("delete_");
        let fault = self.faults.next(call);
        match fault {
            None if self.lost().is_none() => return forward(),
            None | Some(Fault::Panic) => {}
            Some(Fault::Error(code)) => self.error.set(code),
            Some(Fault::ReadFails) => self.error.set(api::INVALID_OPERATION),
            Some(lost @ (Fault::Lost | Fault::LostSilently)) => {
                self.faults.state().lost.insert(self.group, lost == Fault::Lost);
            }
            Some(_) => {}
        }
        let result = if deletes { forward() } else { R::default() };
        if fault == Some(Fault::Panic) {
            // Like panic!, without the message on stderr.
            std::panic::resume_unwind(Box::new("a fault"));
        }
        result
    }

    /// Identifies an object: contexts share all objects except queries.
    fn identity(&self, kind: &str, name: u32) -> usize {
        let context = self.context.map_or(0, |context| context.0);
        let own = if kind == "query" && name != 0 { context.wrapping_shl(16) } else { 0 };
        own ^ name as usize
    }

    /// Records that the bound buffer has memory.
    fn allocated(&self, target: u32, bytes: i64) {
        assert_eq!(target, api::COPY_WRITE_BUFFER);
        self.faults.state().bytes.insert((self.group, self.written.get()), bytes);
    }

    fn key(&self) -> Option<usize> {
        self.context.map(|context| context.0)
    }

    /// Records that this context's fences are flushed.
    fn flushed(&self) {
        self.faults.state().unflushed.remove(&self.key());
    }

    fn is_unflushed(&self, sync: usize) -> bool {
        self.faults.state().unflushed.values().any(|fences| fences.contains(&sync))
    }
}

/// Calls that are forwarded and may fail.
macro_rules! forward {
    ($(fn $call:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {
        $(fn $call(&self, $($arg: $ty),*) $(-> $ret)? {
            self.call(stringify!($call), || self.inner.$call($($arg),*))
        })*
    };
}

/// Calls that create and delete objects of a type.
macro_rules! objects {
    ($($kind:literal: $make:ident, $delete:ident;)*) => {
        $(
            fn $make(&self) -> u32 {
                let name = self.call(stringify!($make), || self.inner.$make());
                self.faults.made($kind, self.group, self.identity($kind, name));
                name
            }
            fn $delete(&self, name: u32) {
                self.faults.deleted($kind, self.group, self.identity($kind, name));
                self.call(stringify!($delete), || self.inner.$delete(name));
            }
        )*
    };
}

impl Api for FaultyApi {
    objects! {
        "shader": create_compute_shader, delete_shader;
        "program": create_program, delete_program;
        "query": gen_query, delete_query;
    }
    fn gen_buffer(&self) -> u32 {
        let name = self.call("gen_buffer", || self.inner.gen_buffer());
        self.faults.made("buffer", self.group, self.identity("buffer", name));
        name
    }
    fn delete_buffer(&self, name: u32) {
        self.faults.deleted("buffer", self.group, self.identity("buffer", name));
        self.faults.state().bytes.remove(&(self.group, name));
        self.call("delete_buffer", || self.inner.delete_buffer(name));
    }
    fn bind_buffer(&self, target: u32, buffer: u32) {
        if target == api::COPY_WRITE_BUFFER {
            self.written.set(buffer);
        }
        self.call("bind_buffer", || self.inner.bind_buffer(target, buffer));
    }
    fn buffer_storage(&self, target: u32, size: i64, flags: u32) {
        self.allocated(target, size);
        self.call("buffer_storage", || self.inner.buffer_storage(target, size, flags));
    }
    fn buffer_data(&self, target: u32, size: i64, usage: u32) {
        self.allocated(target, size);
        self.call("buffer_data", || self.inner.buffer_data(target, size, usage));
    }
    forward! {
        fn bind_buffer_base(target: u32, index: u32, buffer: u32);
        fn bind_buffer_range(target: u32, index: u32, buffer: u32, offset: i64, size: i64);
        fn map_buffer_range(target: u32, offset: i64, size: i64, access: u32) -> usize;
        fn shader_source(shader: u32, source: &str);
        fn compile_shader(shader: u32);
        fn shader_compiled(shader: u32) -> bool;
        fn attach_shader(program: u32, shader: u32);
        fn detach_shader(program: u32, shader: u32);
        fn link_program(program: u32);
        fn program_linked(program: u32) -> bool;
        fn compile_in_parallel();
        fn keep_program_binary(program: u32);
        fn program_binary(program: u32) -> Option<(u32, Vec<u8>)>;
        fn load_program_binary(program: u32, format: u32, binary: &[u8]);
        fn program_local_size(program: u32) -> [i32; 3];
        fn use_program(program: u32);
        fn uniform_1ui(location: u32, value: u32);
        fn uniform_location(program: u32, name: &str) -> Option<u32>;
        fn uniform_3ui(location: u32, x: u32, y: u32, z: u32);
        fn uniform_1i(location: u32, value: i32);
        fn uniform_1f(location: u32, value: f32);
        fn uniform_1d(location: u32, value: f64);
        fn dispatch_compute(x: u32, y: u32, z: u32);
        fn memory_barrier(barriers: u32);
        fn finish();
        fn query_result(query: u32) -> u64;
        fn timestamp_bits() -> i32;
        fn get_integer_indexed(name: u32, index: u32) -> i32;
        fn buffer_size(target: u32) -> i64;
        fn get_string(name: u32) -> String;
        fn enable_debug_log();
    }

    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]) {
        self.faults.state().transfers.push(data.len() as i64);
        self.call("buffer_sub_data", || self.inner.buffer_sub_data(target, offset, data));
    }
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]) {
        self.faults.state().transfers.push(-(into.len() as i64));
        self.call("get_buffer_sub_data", || self.inner.get_buffer_sub_data(target, offset, into));
    }
    fn copy_buffer_sub_data(&self, from: u32, to: u32, from_offset: i64, to_offset: i64, size: i64) {
        self.faults.state().copies.push(size);
        let copy = || self.inner.copy_buffer_sub_data(from, to, from_offset, to_offset, size);
        self.call("copy_buffer_sub_data", copy);
    }
    fn forget_program(&self) {
        // No GL call.
        self.inner.forget_program();
    }
    fn program_is_ready(&self, program: u32) -> bool {
        self.inner.program_is_ready(program)
    }
    fn shader_log(&self, _shader: u32) -> String {
        "a fault\n\0".to_owned()
    }
    fn program_log(&self, _program: u32) -> String {
        "a fault".to_owned()
    }
    fn fence_sync(&self) -> usize {
        let sync = self.call("fence_sync", || self.inner.fence_sync());
        if self.machine.lazy.is_some() {
            self.faults.state().unflushed.entry(self.key()).or_default().insert(sync);
        }
        self.faults.made("sync", self.group, sync);
        sync
    }
    fn flush(&self) {
        if self.machine.lazy.is_none_or(|flushed_by| flushed_by.flush) {
            self.flushed();
        }
        self.call("flush", || self.inner.flush());
    }
    fn client_wait_sync(&self, sync: usize, flags: u32, timeout_ns: u64) -> u32 {
        let never = || {
            std::thread::sleep(Duration::from_nanos(timeout_ns).min(Duration::from_millis(5)));
            api::TIMEOUT_EXPIRED
        };
        if flags & api::SYNC_FLUSH_COMMANDS_BIT != 0 && self.machine.lazy.is_some_and(|it| it.wait) {
            self.flushed();
        }
        if self.is_unflushed(sync) {
            return never();
        }
        match self.faults.next("client_wait_sync") {
            Some(Fault::NeverSignals) => never(),
            Some(_) => api::WAIT_FAILED,
            // By the specification, waits on a lost context must not hang.
            None if self.lost().is_some() => api::ALREADY_SIGNALED,
            // A long timeout: the short limits of tests with fences that never signal must not hit others on a busy
            // machine.
            None => self.inner.client_wait_sync(sync, flags, PATIENCE.as_nanos() as u64),
        }
    }
    fn query_timestamp(&self, query: u32) {
        self.faults.state().stamps += 1;
        self.call("query_timestamp", || self.inner.query_timestamp(query));
    }
    fn wait_sync(&self, sync: usize) {
        self.faults.state().waits += 1;
        if self.is_unflushed(sync) {
            self.faults
                .state()
                .violations
                .push("the device waits for a fence that was not flushed".to_owned());
        }
        if !self.faults.state().objects.contains(&("sync", self.group, sync)) {
            self.faults.state().violations.push("the device waits for a fence that is gone".to_owned());
        }
        self.call("wait_sync", || self.inner.wait_sync(sync));
    }
    fn delete_sync(&self, sync: usize) {
        self.faults.deleted("sync", self.group, sync);
        self.call("delete_sync", || self.inner.delete_sync(sync));
    }
    fn get_error(&self) -> u32 {
        match (self.lost(), self.error.take()) {
            (Some(true), _) => api::CONTEXT_LOST,
            (_, api::NO_ERROR) => self.inner.get_error(),
            (_, error) => error,
        }
    }
    fn get_integer64(&self, name: u32) -> i64 {
        match self.machine.max_block {
            Some(max) if name == api::MAX_SHADER_STORAGE_BLOCK_SIZE => max,
            _ if name == api::NUM_PROGRAM_BINARY_FORMATS && !self.machine.binaries => 0,
            _ if name == api::SM_COUNT => self.machine.compute_units.unwrap_or_default().into(),
            _ => self.inner.get_integer64(name),
        }
    }
    fn reset_status(&self) -> u32 {
        /// `GL_GUILTY_CONTEXT_RESET`.
        const GUILTY: u32 = 0x8253;
        if self.lost() == Some(false) { GUILTY } else { self.inner.reset_status() }
    }
    fn has_extension(&self, name: &str) -> bool {
        let tells_units = name == "GL_NV_shader_thread_group" && self.machine.compute_units.is_some();
        tells_units || self.inner.has_extension(name)
    }
    fn has_reset_status(&self) -> bool {
        true
    }
    fn has_buffer_storage(&self) -> bool {
        !self.machine.no_storage && self.inner.has_buffer_storage()
    }
    fn next_debug_message(&self) -> Option<DebugMessage> {
        self.inner.next_debug_message()
    }
}
