//! The machine's own driver with fault injection and checks.
//!
//! [`FaultyEgl`] and the [`FaultyApi`] that it creates forward every call. Arming a [`Fault`] with a number makes
//! one call fail: the call of that number among those that the fault can hit. Both also track the driver's live
//! objects. They record violations that no driver forgives: deleting a dead object, or a call without the right
//! context.

mod gl;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::gl::FaultyApi;
use super::guards::{GuardedApi, Guards};
use crate::gl::driver::api::Api;
use crate::gl::driver::egl::{
    self, Config, ContextHandle, DeviceHandle, Display, Egl, EglError, EglResult, Surface,
};

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A GL command does nothing. The next `glGetError` returns this, once.
    Error(u32),
    /// Commands do nothing from here on, until a new root context exists. `glGetError` returns `GL_CONTEXT_LOST`.
    Lost,
    /// The same, but only the reset status reports it.
    LostSilently,
    /// `glClientWaitSync` returns `GL_WAIT_FAILED`.
    WaitFails,
    /// Fences never signal from here on.
    NeverSignals,
    /// `glGetBufferSubData` fails with an error and leaves the caller's memory as it is.
    ReadFails,
    /// A GL call that creates an object returns none.
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
    /// Another library terminates the display before this call, which creates a context or makes one current.
    /// Current contexts continue. All others are gone, and new ones need a new initialization of the display.
    Terminated,
    /// `eglCreatePbufferSurface` fails because of memory.
    CreatePbuffer,
    /// An entry point is missing.
    LoadGl,
    /// A call panics, other than a deletion.
    Panic,
}

/// GL calls that only query or clean up. They raise no errors.
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
    /// Whether it can hit `call`, named like the method of [`Api`] or [`Egl`].
    fn can_hit(self, call: &str) -> bool {
        let is = |names: &[&str]| names.contains(&call);
        match self {
            Fault::Error(_) | Fault::Lost | Fault::LostSilently => !call.starts_with("egl_") && !is(&ASKING),
            // Rust itself leaks a value that is being returned when a destructor panics.
            Fault::Panic => Fault::Lost.can_hit(call) && !call.starts_with("delete_"),
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

/// State shared by [`FaultyEgl`] and [`FaultyApi`].
#[derive(Default)]
pub struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    armed: Option<(Fault, u64)>,
    /// Calls so far that the armed fault could hit.
    calls: u64,
    /// The call that it hit.
    hit: Option<&'static str>,
    /// Number of root contexts created so far; identifies the current share group.
    group: u32,
    /// Lost share groups, and whether `glGetError` reports the loss.
    lost: BTreeMap<u32, bool>,
    /// Fences that were not flushed, by context.
    unflushed: BTreeMap<Option<usize>, BTreeSet<usize>>,
    /// Type, group and name.
    objects: BTreeSet<(&'static str, u32, usize)>,
    /// Bytes of each buffer that has memory, by group and name.
    bytes: BTreeMap<(u32, u32), i64>,
    violations: Vec<String>,
    /// Whether the display was terminated and not initialized again, and the contexts that were lost with it.
    terminated: bool,
    forgotten: BTreeSet<usize>,
    /// `glWaitSync` calls.
    waits: u64,
    /// Timestamp queries.
    stamps: u64,
    /// Bytes of each copy between buffers.
    copies: Vec<i64>,
    /// Bytes of each upload, and of each read with a minus.
    transfers: Vec<i64>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the `number`-th call that `fault` can hit fail. The first is 1.
    pub fn arm(&self, fault: Fault, number: u64) {
        let mut state = self.state();
        (state.armed, state.calls, state.hit) = (Some((fault, number)), 0, None);
    }

    /// Stops injecting faults. Returns the call that was hit.
    pub fn disarm(&self) -> Option<&'static str> {
        let mut state = self.state();
        state.armed = None;
        state.hit.take()
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

    /// Share groups created so far.
    pub fn groups(&self) -> u32 {
        self.state().group
    }

    /// Violations that no driver forgives.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// `glWaitSync` calls.
    pub fn waits(&self) -> u64 {
        self.state().waits
    }

    /// Timestamp queries.
    pub fn stamps(&self) -> u64 {
        self.state().stamps
    }

    /// Bytes of each copy between buffers since the last call of this.
    pub fn take_copies(&self) -> Vec<i64> {
        std::mem::take(&mut self.state().copies)
    }

    /// Bytes of each transfer between host and device since the last call of this: uploads, and reads with a minus.
    pub fn take_transfers(&self) -> Vec<i64> {
        std::mem::take(&mut self.state().transfers)
    }

    /// Counts a call. Returns the fault that hits it.
    fn next(&self, call: &'static str) -> Option<Fault> {
        let mut state = self.state();
        let (fault, number) = state.armed.filter(|(fault, _)| fault.can_hit(call))?;
        state.calls += 1;
        let now = if fault.lasts() { state.calls >= number } else { state.calls == number };
        if now {
            state.hit.get_or_insert(call);
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

    /// The EGL error if the display or `context` is gone.
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

/// How the faulty machine differs from the real one even without a fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine {
    /// `GL_MAX_SHADER_STORAGE_BLOCK_SIZE`, if not the driver's.
    pub max_block: Option<i64>,
    /// Contexts need a surface.
    pub needs_surface: bool,
    /// Buffers cannot stay mapped.
    pub no_storage: bool,
    /// Program binaries are available. Otherwise each program is compiled.
    pub binaries: bool,
    /// If set, a fence signals only after a flush of this kind.
    pub lazy: Option<FlushedBy>,
    /// The compute units that the driver tells, as NVIDIA's does.
    pub compute_units: Option<u32>,
}

/// What flushes commands to the device.
#[derive(Debug, Clone, Copy)]
pub struct FlushedBy {
    /// `glFlush`.
    pub flush: bool,
    /// `GL_SYNC_FLUSH_COMMANDS_BIT` of a wait.
    pub wait: bool,
}

/// EGL with fault injection.
pub struct FaultyEgl {
    pub inner: Arc<dyn Egl>,
    pub faults: Arc<Faults>,
    pub machine: Machine,
    /// Guards around every buffer, if any.
    pub guards: Option<Arc<Guards>>,
}

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
        Ok(Box::new(FaultyApi::new(self, inner)))
    }
}
