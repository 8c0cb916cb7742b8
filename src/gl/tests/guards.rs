//! Guard words around every buffer. Each buffer is longer than requested.
//!
//! The engine's buffer lies between two guards. Buffer and guards are filled with NaNs at first. Bindings begin
//! after the first guard and end after the second. Some drivers keep shaders inside their binding, and this does
//! not hide a write beyond the end from the guards. A read beyond the end produces NaNs. Guards are checked when a
//! buffer is read or deleted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::faulty::{Faults, FaultyEgl, Machine};
use super::first_device;
use crate::gl::device::discovery::discovered;
use crate::gl::device::engine::Engine;
use crate::gl::driver::api::{self, Api, DebugMessage};

/// Bytes of a guard: a multiple of every alignment of bindings, and more than a tile's row.
pub const GUARD: i64 = 4096;
/// Fills the guards: a NaN that no kernel computes.
const CANARY: [u8; 4] = 0x7fc0_dead_u32.to_le_bytes();

/// An engine with guards on the machine's first device.
pub fn guarded() -> Option<(Engine, Arc<Guards>)> {
    guarded_on(Machine::default())
}

/// The same on a machine that differs from the real one.
pub fn guarded_on(machine: Machine) -> Option<(Engine, Arc<Guards>)> {
    let target = first_device()?;
    let inner = discovered().unwrap().egl.clone().expect("EGL found the device");
    let guards = Arc::new(Guards::default());
    let egl = FaultyEgl { inner, faults: Arc::new(Faults::default()), machine, guards: Some(guards.clone()) };
    let egl: Arc<dyn crate::gl::driver::egl::Egl> = Arc::new(egl);
    Some((Engine::new(&egl, "gl:guarded", true, target).unwrap(), guards))
}

/// State shared by the contexts of a machine.
#[derive(Default)]
pub struct Guards {
    /// Sizes of live buffers as requested by the engine.
    buffers: Mutex<BTreeMap<u32, i64>>,
    broken: Mutex<Vec<String>>,
    checked: AtomicUsize,
}

impl Guards {
    /// Guards that were overwritten.
    pub fn broken(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of guards checked.
    pub fn checked(&self) -> usize {
        self.checked.load(Ordering::Relaxed)
    }

    fn bytes(&self, buffer: u32) -> Option<i64> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).get(&buffer).copied()
    }
}

/// OpenGL with guards.
pub struct GuardedApi {
    inner: Box<dyn Api>,
    guards: Arc<Guards>,
    /// The buffers bound as source and target of copies.
    bound: RefCell<BTreeMap<u32, u32>>,
}

impl GuardedApi {
    pub fn new(inner: Box<dyn Api>, guards: Arc<Guards>) -> Self {
        GuardedApi { inner, guards, bound: RefCell::default() }
    }

    fn at(&self, target: u32) -> u32 {
        self.bound.borrow().get(&target).copied().unwrap_or_default()
    }

    /// Bytes from the start of the driver's buffer bound at `target` to the engine's data.
    fn shift(&self, target: u32) -> i64 {
        self.guards.bytes(self.at(target)).map_or(0, |_| GUARD)
    }

    fn check(&self, buffer: u32) {
        let Some(bytes) = self.guards.bytes(buffer) else { return };
        let before = self.at(api::COPY_READ_BUFFER);
        self.inner.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
        self.inner.bind_buffer(api::COPY_READ_BUFFER, buffer);
        for (what, offset) in [("before", 0), ("behind", GUARD + bytes)] {
            let mut guard = vec![0; GUARD as usize];
            self.inner.get_buffer_sub_data(api::COPY_READ_BUFFER, offset, &mut guard);
            let intact = |(index, byte): (usize, &u8)| *byte == CANARY[(offset as usize + index) % 4];
            if !guard.iter().enumerate().all(intact) {
                let mut broken = self.guards.broken.lock().unwrap_or_else(PoisonError::into_inner);
                broken.push(format!("the guard {what} a buffer of {bytes} bytes"));
            }
            self.guards.checked.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.bind_buffer(api::COPY_READ_BUFFER, before);
    }
}

/// Calls that are forwarded unchanged.
macro_rules! forward {
    ($(fn $call:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {
        $(fn $call(&self, $($arg: $ty),*) $(-> $ret)? {
            self.inner.$call($($arg),*)
        })*
    };
}

impl Api for GuardedApi {
    fn delete_buffer(&self, buffer: u32) {
        self.check(buffer);
        self.guards.buffers.lock().unwrap_or_else(PoisonError::into_inner).remove(&buffer);
        self.bound.borrow_mut().retain(|_, bound| *bound != buffer);
        self.inner.delete_buffer(buffer);
    }
    fn bind_buffer(&self, target: u32, buffer: u32) {
        self.bound.borrow_mut().insert(target, buffer);
        self.inner.bind_buffer(target, buffer);
    }
    fn bind_buffer_base(&self, target: u32, index: u32, buffer: u32) {
        match self.guards.bytes(buffer) {
            Some(bytes) => self.inner.bind_buffer_range(target, index, buffer, GUARD, bytes + GUARD),
            None => self.inner.bind_buffer_base(target, index, buffer),
        }
    }
    fn bind_buffer_range(&self, target: u32, index: u32, buffer: u32, offset: i64, size: i64) {
        let (shift, more) = self.guards.bytes(buffer).map_or((0, 0), |_| (GUARD, GUARD));
        self.inner.bind_buffer_range(target, index, buffer, shift + offset, size + more);
    }
    fn buffer_data(&self, target: u32, size: i64, usage: u32) {
        let whole = size + 2 * GUARD;
        self.inner.buffer_data(target, whole, usage);
        let canaries: Vec<u8> = CANARY.iter().copied().cycle().take(whole as usize).collect();
        self.inner.buffer_sub_data(target, 0, &canaries);
        self.guards.buffers.lock().unwrap_or_else(PoisonError::into_inner).insert(self.at(target), size);
    }
    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]) {
        self.inner.buffer_sub_data(target, self.shift(target) + offset, data);
    }
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]) {
        self.inner.get_buffer_sub_data(target, self.shift(target) + offset, into);
        self.check(self.at(target));
    }
    fn copy_buffer_sub_data(&self, from: u32, to: u32, from_offset: i64, to_offset: i64, size: i64) {
        let (from_offset, to_offset) = (self.shift(from) + from_offset, self.shift(to) + to_offset);
        self.inner.copy_buffer_sub_data(from, to, from_offset, to_offset, size);
    }
    fn buffer_size(&self, target: u32) -> i64 {
        self.guards.bytes(self.at(target)).unwrap_or_else(|| self.inner.buffer_size(target))
    }

    forward! {
        fn gen_buffer() -> u32;
        fn buffer_storage(target: u32, size: i64, flags: u32);
        fn map_buffer_range(target: u32, offset: i64, size: i64, access: u32) -> usize;
        fn create_compute_shader() -> u32;
        fn shader_source(shader: u32, source: &str);
        fn compile_shader(shader: u32);
        fn shader_compiled(shader: u32) -> bool;
        fn shader_log(shader: u32) -> String;
        fn delete_shader(shader: u32);
        fn create_program() -> u32;
        fn attach_shader(program: u32, shader: u32);
        fn detach_shader(program: u32, shader: u32);
        fn link_program(program: u32);
        fn program_linked(program: u32) -> bool;
        fn program_is_ready(program: u32) -> bool;
        fn program_log(program: u32) -> String;
        fn compile_in_parallel();
        fn keep_program_binary(program: u32);
        fn program_binary(program: u32) -> Option<(u32, Vec<u8>)>;
        fn load_program_binary(program: u32, format: u32, binary: &[u8]);
        fn delete_program(program: u32);
        fn program_local_size(program: u32) -> [i32; 3];
        fn use_program(program: u32);
        fn forget_program();
        fn uniform_1ui(location: u32, value: u32);
        fn uniform_location(program: u32, name: &str) -> Option<u32>;
        fn uniform_3ui(location: u32, x: u32, y: u32, z: u32);
        fn uniform_1i(location: u32, value: i32);
        fn uniform_1f(location: u32, value: f32);
        fn uniform_1d(location: u32, value: f64);
        fn dispatch_compute(x: u32, y: u32, z: u32);
        fn memory_barrier(barriers: u32);
        fn flush();
        fn finish();
        fn fence_sync() -> usize;
        fn client_wait_sync(sync: usize, flags: u32, timeout_ns: u64) -> u32;
        fn wait_sync(sync: usize);
        fn delete_sync(sync: usize);
        fn gen_query() -> u32;
        fn delete_query(query: u32);
        fn query_timestamp(query: u32);
        fn query_result(query: u32) -> u64;
        fn timestamp_bits() -> i32;
        fn get_error() -> u32;
        fn get_integer64(name: u32) -> i64;
        fn get_integer_indexed(name: u32, index: u32) -> i32;
        fn get_string(name: u32) -> String;
        fn reset_status() -> u32;
        fn has_extension(name: &str) -> bool;
        fn has_reset_status() -> bool;
        fn has_buffer_storage() -> bool;
        fn enable_debug_log();
        fn next_debug_message() -> Option<DebugMessage>;
    }
}
