//! The machine's own driver, made to fail on command, and watched.
//!
//! [`FaultyEgl`] and the [`FaultyApi`] that it hands out pass every call on. A [`Fault`] and a number arm them: of the calls that
//! the fault can befall, the one of that number fails. Beside that they keep a list of the driver's live objects, and of
//! what no driver would forgive: a deletion of something dead, a call without the right context.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::guards::{GuardedApi, Guards};
use crate::gl::driver::api::{self, Api, DebugMessage};
use crate::gl::driver::egl::{
    self, Config, ContextHandle, DeviceHandle, Display, Egl, EglError, EglResult, Surface,
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A GL command does nothing; `glGetError` then gives this, once.
    Error(u32),
    /// Commands do nothing from here on, until there is a new root context; `glGetError` says `GL_CONTEXT_LOST`.
    Lost,
    /// The same, but only the reset status tells.
    LostSilently,
    /// `glClientWaitSync` gives `GL_WAIT_FAILED`.
    WaitFails,
    /// Fences never signal from here on.
    NeverSignals,
    /// `glGetBufferSubData` leaves the buffer as it is, with an error.
    ReadFails,
    /// A GL call that makes an object gives none.
    NoObject,
    /// A shader does not compile.
    NoCompile,
    /// A program does not link.
    NoLink,
    /// `eglMakeCurrent` fails.
    MakeCurrent,
    /// `eglCreateContext` fails.
    CreateContext,
    /// `eglCreateContext` fails from here on.
    CreateContexts,
    /// Somebody else terminates the display before this call, which makes a context or makes it current. What is current stays so;
    /// everything else that there is so far is gone, and there is nothing new before the display is initialised again.
    Terminated,
    /// `eglCreatePbufferSurface` fails for want of memory.
    CreatePbuffer,
    /// An entry point is missing.
    LoadGl,
    /// A call panics; not one that deletes.
    Panic,
}

/// GL calls that ask or tidy up rather than do: those that make no errors.
const ASKING: [&str; 10] = [
    "buffer_size",
    "client_wait_sync",
    "get_error",
    "get_integer64",
    "get_string",
    "get_integer_indexed",
    "program_linked",
    "shader_compiled",
    "timestamp_bits",
    "next_debug_message",
];

impl Fault {
    /// Whether it can befall `call`, named as in the seams.
    fn can_befall(self, call: &str) -> bool {
        let is = |names: &[&str]| names.contains(&call);
        match self {
            Fault::Error(_) | Fault::Lost | Fault::LostSilently => !call.starts_with("egl_") && !is(&ASKING),
            // Rust itself leaks a value that is being returned if a destructor panics then.
            Fault::Panic => Fault::Lost.can_befall(call) && !call.starts_with("delete_"),
            Fault::WaitFails | Fault::NeverSignals => is(&["client_wait_sync"]),
            Fault::ReadFails => is(&["get_buffer_sub_data"]),
            Fault::NoObject => is(&[
                "gen_buffer",
                "create_compute_shader",
                "create_program",
                "fence_sync",
                "gen_query",
                "map_buffer_range",
            ]),
            Fault::NoCompile => is(&["shader_compiled"]),
            Fault::NoLink => is(&["program_linked"]),
            Fault::MakeCurrent => is(&["egl_make_current", "egl_unbind"]),
            Fault::CreateContext | Fault::CreateContexts => is(&["egl_create_root", "egl_create_context"]),
            Fault::Terminated => is(&["egl_create_root", "egl_create_context", "egl_make_current"]),
            Fault::CreatePbuffer => is(&["egl_create_pbuffer"]),
            Fault::LoadGl => is(&["egl_load_gl"]),
        }
    }

    fn lasts(self) -> bool {
        matches!(self, Fault::NeverSignals | Fault::CreateContexts)
    }
}

/// Live objects by type.
pub type Objects = BTreeMap<&'static str, usize>;

/// What the two halves share.
#[derive(Default)]
pub struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    armed: Option<(Fault, u64)>,
    /// Calls so far that the armed fault could befall.
    calls: u64,
    /// The call that it befell.
    befell: Option<&'static str>,
    /// Root contexts made so far: the name of the share group in use.
    group: u32,
    /// Groups that are lost, and whether `glGetError` tells.
    lost: BTreeMap<u32, bool>,
    /// Fences that were not sent off, by context.
    unsent: BTreeMap<Option<usize>, BTreeSet<usize>>,
    /// Type, group and name.
    objects: BTreeSet<(&'static str, u32, usize)>,
    /// Bytes of each buffer that has memory, by group and name.
    bytes: BTreeMap<(u32, u32), i64>,
    violations: Vec<String>,
    /// Whether the display was terminated and not initialised since; and the contexts that went with it.
    terminated: bool,
    forgotten: BTreeSet<usize>,
    /// Times that the device was told to wait for a fence.
    waits: u64,
    /// Timestamps asked for.
    stamps: u64,
    /// Bytes of each copy between buffers.
    copies: Vec<i64>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, lets `fault` befall the `number`-th call that it can; the first is 1.
    pub fn arm(&self, fault: Fault, number: u64) {
        let mut state = self.state();
        (state.armed, state.calls, state.befell) = (Some((fault, number)), 0, None);
    }

    /// Lets nothing go wrong any more. Gives the call that did.
    pub fn disarm(&self) -> Option<&'static str> {
        let mut state = self.state();
        state.armed = None;
        state.befell.take()
    }

    /// The driver's live objects.
    pub fn objects(&self) -> Objects {
        let mut objects = Objects::new();
        self.state().objects.iter().for_each(|(kind, ..)| *objects.entry(kind).or_default() += 1);
        objects
    }

    /// Bytes of all live buffers.
    pub fn bytes(&self) -> i64 {
        self.state().bytes.values().sum()
    }

    /// Share groups made so far.
    pub fn groups(&self) -> u32 {
        self.state().group
    }

    /// What no driver would forgive.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Times that the device was told to wait for a fence.
    pub fn waits(&self) -> u64 {
        self.state().waits
    }

    /// Timestamps asked for.
    pub fn stamps(&self) -> u64 {
        self.state().stamps
    }

    /// Bytes of each copy between buffers since they were last asked for.
    pub fn take_copies(&self) -> Vec<i64> {
        std::mem::take(&mut self.state().copies)
    }

    /// Counts a call; gives what befalls it.
    fn next(&self, call: &'static str) -> Option<Fault> {
        let mut state = self.state();
        let (fault, number) = state.armed.filter(|(fault, _)| fault.can_befall(call))?;
        state.calls += 1;
        let now = if fault.lasts() { state.calls >= number } else { state.calls == number };
        if now {
            state.befell.get_or_insert(call);
        }
        now.then_some(fault)
    }

    /// Terminates the display.
    pub fn terminate(&self) {
        let mut state = self.state();
        state.terminated = true;
        let contexts: Vec<usize> =
            state.objects.iter().filter(|it| it.0 == "context").map(|&(_, _, context)| context).collect();
        state.forgotten.extend(contexts);
    }

    /// Whether the display or `context` is gone, and what EGL says of it then.
    fn gone(&self, context: Option<ContextHandle>) -> EglResult<()> {
        let state = self.state();
        match context {
            _ if state.terminated => Err(NOT_INITIALIZED),
            Some(context) if state.forgotten.contains(&context.0) => Err(BAD_CONTEXT),
            _ => Ok(()),
        }
    }

    fn made(&self, kind: &'static str, group: u32, name: usize) {
        if name != 0 && !self.state().objects.insert((kind, group, name)) {
            self.state().violations.push(format!("{kind} {name} was made twice"));
        }
    }

    fn deleted(&self, kind: &'static str, group: u32, name: usize) {
        if name != 0 && !self.state().objects.remove(&(kind, group, name)) {
            self.state().violations.push(format!("{kind} {name} was deleted, but is not alive"));
        }
    }
}

/// How the faulty machine differs from the real one even when nothing is armed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine {
    /// `GL_MAX_SHADER_STORAGE_BLOCK_SIZE`, if not the driver's own.
    pub max_block: Option<i64>,
    /// Contexts need a surface.
    pub needs_surface: bool,
    /// Buffers cannot stay mapped.
    pub no_storage: bool,
    /// Programs can be had as binaries. Otherwise each is compiled.
    pub binaries: bool,
    /// A fence signals only once it was sent off; and what does that.
    pub lazy: Option<SentBy>,
}

/// What sends commands to a device that otherwise never gets them.
#[derive(Debug, Clone, Copy)]
pub struct SentBy {
    /// `glFlush`.
    pub flush: bool,
    /// `GL_SYNC_FLUSH_COMMANDS_BIT` of a wait.
    pub wait: bool,
}

/// EGL, made to fail.
pub struct FaultyEgl {
    pub inner: Arc<dyn Egl>,
    pub faults: Arc<Faults>,
    pub machine: Machine,
    /// Room around every buffer, if any.
    pub guards: Option<Arc<Guards>>,
}

/// How long a fence is given that does signal.
const PATIENCE: Duration = Duration::from_secs(120);

/// `EGL_BAD_ALLOC`.
const BAD_ALLOC: EglError = EglError(0x3003);
/// `EGL_BAD_MATCH`.
const BAD_MATCH: EglError = EglError(0x3009);
/// `EGL_BAD_CONTEXT`.
const BAD_CONTEXT: EglError = EglError(0x3006);
/// `EGL_NOT_INITIALIZED`.
const NOT_INITIALIZED: EglError = EglError(0x3001);

impl FaultyEgl {
    fn call<R>(
        &self,
        call: &'static str,
        error: EglError,
        forward: impl FnOnce() -> EglResult<R>,
    ) -> EglResult<R> {
        match self.faults.next(call) {
            None => forward(),
            Some(Fault::Terminated) => {
                self.faults.terminate();
                Err(NOT_INITIALIZED)
            }
            Some(_) => Err(error),
        }
    }
}

impl Egl for FaultyEgl {
    fn query_string(&self, display: Option<Display>, name: i32) -> Option<String> {
        let text = self.inner.query_string(display, name)?;
        let hides = self.machine.needs_surface && name == egl::EXTENSIONS;
        Some(if hides { text.replace("EGL_KHR_surfaceless_context", "") } else { text })
    }
    fn query_devices(&self) -> EglResult<Vec<DeviceHandle>> {
        self.inner.query_devices()
    }
    fn query_device_string(&self, device: DeviceHandle, name: i32) -> Option<String> {
        self.inner.query_device_string(device, name)
    }
    fn platform_display(&self, platform: u32, device: Option<DeviceHandle>) -> EglResult<Display> {
        self.inner.platform_display(platform, device)
    }
    fn default_display(&self) -> EglResult<Display> {
        self.inner.default_display()
    }
    fn initialize(&self, display: Display) -> EglResult<(i32, i32)> {
        self.faults.state().terminated = false;
        self.inner.initialize(display)
    }
    fn bind_opengl(&self) -> EglResult<()> {
        self.inner.bind_opengl()
    }
    fn choose_config(&self, display: Display, attributes: &[i32]) -> EglResult<Option<Config>> {
        self.inner.choose_config(display, attributes)
    }
    fn create_context(
        &self,
        display: Display,
        config: Option<Config>,
        share: Option<ContextHandle>,
        attributes: &[i32],
    ) -> EglResult<ContextHandle> {
        let call = if share.is_some() { "egl_create_context" } else { "egl_create_root" };
        self.faults.gone(share)?;
        let made =
            self.call(call, BAD_MATCH, || self.inner.create_context(display, config, share, attributes))?;
        self.faults.state().group += u32::from(share.is_none());
        self.faults.made("context", 0, made.0);
        Ok(made)
    }
    fn destroy_context(&self, display: Display, context: ContextHandle) {
        self.faults.deleted("context", 0, context.0);
        self.faults.state().forgotten.remove(&context.0);
        self.inner.destroy_context(display, context);
    }
    fn create_pbuffer(
        &self,
        display: Display,
        config: Option<Config>,
        attributes: &[i32],
    ) -> EglResult<Surface> {
        let made = self.call("egl_create_pbuffer", BAD_ALLOC, || {
            self.inner.create_pbuffer(display, config, attributes)
        })?;
        self.faults.made("surface", 0, made.0);
        Ok(made)
    }
    fn destroy_surface(&self, display: Display, surface: Surface) {
        self.faults.deleted("surface", 0, surface.0);
        self.inner.destroy_surface(display, surface);
    }
    fn make_current(
        &self,
        display: Display,
        surface: Option<Surface>,
        context: Option<ContextHandle>,
    ) -> EglResult<()> {
        let call = if context.is_some() { "egl_make_current" } else { "egl_unbind" };
        if context.is_some() && self.inner.current_context() != context {
            self.faults.gone(context)?;
        }
        if context.is_some() && self.machine.needs_surface && surface.is_none() {
            return Err(BAD_MATCH);
        }
        self.call(call, BAD_MATCH, || self.inner.make_current(display, surface, context))
    }
    fn current_context(&self) -> Option<ContextHandle> {
        self.inner.current_context()
    }
    fn release_thread(&self) {
        self.inner.release_thread();
    }
    fn load_gl(&self) -> Result<Box<dyn Api>, String> {
        if self.faults.next("egl_load_gl").is_some() {
            return Err("glDispatchCompute is missing".to_owned());
        }
        let mut inner = self.inner.load_gl()?;
        if let Some(guards) = &self.guards {
            inner = Box::new(GuardedApi::new(inner, guards.clone()));
        }
        Ok(Box::new(FaultyApi {
            inner,
            egl: self.inner.clone(),
            context: self.inner.current_context(),
            faults: self.faults.clone(),
            machine: self.machine,
            group: self.faults.groups(),
            error: Cell::new(api::NO_ERROR),
            written: Cell::new(0),
        }))
    }
}

/// OpenGL, made to fail.
struct FaultyApi {
    inner: Box<dyn Api>,
    egl: Arc<dyn Egl>,
    context: Option<ContextHandle>,
    faults: Arc<Faults>,
    machine: Machine,
    group: u32,
    /// An error made up, not yet asked for.
    error: Cell<u32>,
    /// The buffer that is given memory: the one bound as the target of copies.
    written: Cell<u32>,
}

impl FaultyApi {
    /// Whether its group is lost, and if so, whether `glGetError` tells.
    fn lost(&self) -> Option<bool> {
        self.faults.state().lost.get(&self.group).copied()
    }

    /// Passes a call on, unless it fails. A deletion cannot fail; it may leave an error behind.
    fn call<R: Default>(&self, call: &'static str, forward: impl FnOnce() -> R) -> R {
        if self.egl.current_context() != self.context {
            self.faults.state().violations.push(format!("{call} without its context"));
        }
        let tidies = call.starts_with("delete_");
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
        let result = if tidies { forward() } else { R::default() };
        if fault == Some(Fault::Panic) {
            // As panic!, without the message on stderr.
            std::panic::resume_unwind(Box::new("a fault"));
        }
        result
    }

    /// What an object's name stands for: contexts share all objects but queries.
    fn identity(&self, kind: &str, name: u32) -> usize {
        let context = self.context.map_or(0, |context| context.0);
        let own = if kind == "query" && name != 0 { context.wrapping_shl(16) } else { 0 };
        own ^ name as usize
    }

    /// The bound buffer has memory now.
    fn gets(&self, target: u32, bytes: i64) {
        assert_eq!(target, api::COPY_WRITE_BUFFER);
        self.faults.state().bytes.insert((self.group, self.written.get()), bytes);
    }

    fn key(&self) -> Option<usize> {
        self.context.map(|context| context.0)
    }

    /// This context's fences are on their way.
    fn send(&self) {
        self.faults.state().unsent.remove(&self.key());
    }

    fn is_unsent(&self, sync: usize) -> bool {
        self.faults.state().unsent.values().any(|fences| fences.contains(&sync))
    }
}

/// Calls that are passed on, and may fail.
macro_rules! forward {
    ($(fn $call:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {
        $(fn $call(&self, $($arg: $ty),*) $(-> $ret)? {
            self.call(stringify!($call), || self.inner.$call($($arg),*))
        })*
    };
}

/// Calls that make and delete objects of a type.
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
        self.gets(target, size);
        self.call("buffer_storage", || self.inner.buffer_storage(target, size, flags));
    }
    fn buffer_data(&self, target: u32, size: i64, usage: u32) {
        self.gets(target, size);
        self.call("buffer_data", || self.inner.buffer_data(target, size, usage));
    }
    forward! {
        fn bind_buffer_base(target: u32, index: u32, buffer: u32);
        fn bind_buffer_range(target: u32, index: u32, buffer: u32, offset: i64, size: i64);
        fn map_buffer_range(target: u32, offset: i64, size: i64, access: u32) -> usize;
        fn buffer_sub_data(target: u32, offset: i64, data: &[u8]);
        fn get_buffer_sub_data(target: u32, offset: i64, into: &mut [u8]);
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

    fn copy_buffer_sub_data(&self, from: u32, to: u32, from_offset: i64, to_offset: i64, size: i64) {
        self.faults.state().copies.push(size);
        let copy = || self.inner.copy_buffer_sub_data(from, to, from_offset, to_offset, size);
        self.call("copy_buffer_sub_data", copy);
    }
    fn forget_program(&self) {
        // No call of GL's.
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
            self.faults.state().unsent.entry(self.key()).or_default().insert(sync);
        }
        self.faults.made("sync", self.group, sync);
        sync
    }
    fn flush(&self) {
        if self.machine.lazy.is_none_or(|sent_by| sent_by.flush) {
            self.send();
        }
        self.call("flush", || self.inner.flush());
    }
    fn client_wait_sync(&self, sync: usize, flags: u32, timeout_ns: u64) -> u32 {
        let never = || {
            std::thread::sleep(Duration::from_nanos(timeout_ns).min(Duration::from_millis(5)));
            api::TIMEOUT_EXPIRED
        };
        if flags & api::SYNC_FLUSH_COMMANDS_BIT != 0 && self.machine.lazy.is_some_and(|it| it.wait) {
            self.send();
        }
        if self.is_unsent(sync) {
            return never();
        }
        match self.faults.next("client_wait_sync") {
            Some(Fault::NeverSignals) => never(),
            Some(_) => api::WAIT_FAILED,
            // Waits on a lost context must not hang, says the specification.
            None if self.lost().is_some() => api::ALREADY_SIGNALED,
            // Patiently, so that limits made short for fences that never signal hit no others, however busy the machine.
            None => self.inner.client_wait_sync(sync, flags, PATIENCE.as_nanos() as u64),
        }
    }
    fn query_timestamp(&self, query: u32) {
        self.faults.state().stamps += 1;
        self.call("query_timestamp", || self.inner.query_timestamp(query));
    }
    fn wait_sync(&self, sync: usize) {
        self.faults.state().waits += 1;
        if self.is_unsent(sync) {
            self.faults.state().violations.push("the device waits for a fence that nobody sent".to_owned());
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
            Some(most) if name == api::MAX_SHADER_STORAGE_BLOCK_SIZE => most,
            _ if name == api::NUM_PROGRAM_BINARY_FORMATS && !self.machine.binaries => 0,
            _ => self.inner.get_integer64(name),
        }
    }
    fn reset_status(&self) -> u32 {
        /// `GL_GUILTY_CONTEXT_RESET`.
        const GUILTY: u32 = 0x8253;
        if self.lost() == Some(false) { GUILTY } else { self.inner.reset_status() }
    }
    fn has_extension(&self, name: &str) -> bool {
        self.inner.has_extension(name)
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
