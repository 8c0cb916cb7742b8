//! Contexts and the share groups they belong to.
//!
//! A [`ShareGroup`] is the set of one device's contexts, which share buffers and programs. It owns a root context
//! that is never current on any thread. [`ShareGroup::context`] makes every working context on the thread that uses
//! it, sharing with the root, so contexts may be created and destroyed in any order.
//!
//! A [`Context`] stays on the thread that made it; the type is not `Send`. GL objects hold an `Rc` of it
//! (`resource.rs`), so it outlives them. During GL calls the context must be the thread's current one. On the library's
//! own threads that always holds; on a caller's thread [`Context::make_current`] ensures it.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::gl::driver::api::{self, Api};
use crate::gl::driver::capabilities::Capabilities;
use crate::gl::driver::egl::{self, Config, ContextHandle, Display, Egl, EglError, EglResult, Surface};
use crate::gl::driver::exit;
use crate::log::Level;
use crate::memory::tiles::Gpu;

/// EGL_CONTEXT_MAJOR_VERSION_KHR and so on. EGL 1.5 and EGL_KHR_create_context use the same numbers.
mod attribute {
    pub const MAJOR_VERSION: i32 = 0x3098;
    pub const MINOR_VERSION: i32 = 0x30fb;
    pub const FLAGS: i32 = 0x30fc;
    pub const DEBUG_BIT: i32 = 1;
    pub const ROBUST_ACCESS_BIT: i32 = 4;
    pub const PROFILE_MASK: i32 = 0x30fd;
    pub const CORE_PROFILE_BIT: i32 = 1;
    pub const RESET_NOTIFICATION_STRATEGY: i32 = 0x31bd;
    pub const LOSE_CONTEXT_ON_RESET: i32 = 0x31bf;
}

/// How many GL objects of each type are alive.
#[derive(Debug, Default)]
pub struct Live {
    pub buffers: AtomicUsize,
    pub programs: AtomicUsize,
    pub queries: AtomicUsize,
    pub syncs: AtomicUsize,
    pub contexts: AtomicUsize,
}

/// A snapshot of [`Live`], for tests.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LiveObjects {
    /// Buffers.
    pub buffers: usize,
    /// Programs, and shaders that are not yet linked into one.
    pub programs: usize,
    /// Queries.
    pub queries: usize,
    /// Fences.
    pub syncs: usize,
    /// Contexts, without the root.
    pub contexts: usize,
}

/// A device to open, with its settings.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its display.
    pub display: Display,
    /// Operations a second that its kernels reach: the probe's figure, or a guess.
    pub rate: f64,
    /// The longest wait for the device.
    pub wait_limit: Duration,
    /// Iterations that all loops of an invocation may make together: the probe's figure.
    pub max_iterations: usize,
}

/// One device's contexts, which share their objects.
pub struct ShareGroup {
    egl: Arc<dyn Egl>,
    display: Display,
    /// Id or name of the device, for messages.
    device: Arc<str>,
    config: Option<Config>,
    surfaceless: bool,
    /// The attributes of the root. All contexts of a group must agree about resets.
    attributes: Vec<i32>,
    root: ContextHandle,
    live: Arc<Live>,
    /// Operations a second that kernels recently reached on this device, as the bits of an f64.
    rate: AtomicU64,
    /// The device as the planner sees it, once measured.
    gpu: OnceLock<Gpu>,
    wait_limit: Duration,
    max_iterations: AtomicUsize,
    /// Set when another library has terminated the display. EGL has then forgotten all contexts except those that are
    /// current on some thread, and creates none that share with them.
    terminated: AtomicBool,
    process: u32,
}

impl ShareGroup {
    /// Makes a group on `target`'s display, and initialises the display if needed. Messages call the device `device`.
    ///
    /// # Errors
    /// [`Error::Driver`] names the EGL call that failed.
    pub fn new(egl: Arc<dyn Egl>, device: Arc<str>, target: Target) -> Result<Arc<Self>> {
        let Target { display, rate, wait_limit, max_iterations } = target;
        let failed = |call: &str, error: EglError| egl_error(&device, call, error);
        // The host may have terminated the display since it was initialised. Otherwise this does no harm.
        egl.initialize(display).map_err(|error| failed("eglInitialize", error))?;
        exit::register();
        egl.bind_opengl().map_err(|error| failed("eglBindAPI", error))?;
        let extensions = egl.query_string(Some(display), egl::EXTENSIONS).unwrap_or_default();
        let has = |name: &str| extensions.split_ascii_whitespace().any(|it| it == name);
        let surfaceless = has("EGL_KHR_surfaceless_context");
        let config = choose_config(&*egl, display, surfaceless).map_err(|e| failed("eglChooseConfig", e))?;
        if config.is_none() && !(surfaceless && has("EGL_KHR_no_config_context")) {
            let reason = "no framebuffer configuration for OpenGL".to_owned();
            return Err(Error::Driver { device: device.to_string(), call: "eglChooseConfig".into(), reason });
        }
        let (root, attributes) = create_root(&*egl, display, config).map_err(|error| match error.0 {
            // It was initialised just above.
            khronos_egl::NOT_INITIALIZED => terminated(&device, "eglCreateContext", error),
            _ => failed("eglCreateContext for OpenGL 4.3 core", error),
        })?;
        exit::register();
        Ok(Arc::new(ShareGroup {
            egl,
            display,
            device,
            config,
            surfaceless,
            attributes,
            root,
            live: Arc::default(),
            rate: AtomicU64::new(rate.to_bits()),
            gpu: OnceLock::new(),
            wait_limit,
            max_iterations: AtomicUsize::new(max_iterations),
            terminated: AtomicBool::new(false),
            process: std::process::id(),
        }))
    }

    /// Makes a context of the group and makes it current on the calling thread.
    ///
    /// # Errors
    /// [`Error::Driver`] names the EGL call that failed. The thread's current context is then unchanged.
    pub fn context(self: &Arc<Self>) -> Result<Rc<Context>> {
        let failed = |call: &str, error: EglError| self.error(call, error);
        self.egl.bind_opengl().map_err(|error| failed("eglBindAPI", error))?;
        // Owns both handles, so that an early return leaks neither.
        let mut binding = Binding { group: self.clone(), context: None, surface: None };
        let context = self
            .egl
            .create_context(self.display, self.config, Some(self.root), &self.attributes)
            .map_err(|error| failed("eglCreateContext", error))?;
        binding.context = Some(context);
        if !self.surfaceless {
            let size = [egl::WIDTH, 1, egl::HEIGHT, 1, egl::NONE];
            let surface = self.egl.create_pbuffer(self.display, self.config, &size);
            binding.surface = Some(surface.map_err(|error| failed("eglCreatePbufferSurface", error))?);
        }
        binding.make_current()?;
        let api = self.egl.load_gl().map_err(|reason| Error::Driver {
            device: self.device.to_string(),
            call: "loading OpenGL".to_owned(),
            reason,
        })?;
        let capabilities = Capabilities::query(&*api);
        api.enable_debug_log();
        self.live.contexts.fetch_add(1, Ordering::Relaxed);
        let context = Rc::new(Context { api, capabilities, messages: RefCell::default(), binding });
        context.check("setting up the context")?;
        Ok(context)
    }

    /// Converts the error of an EGL call on one of the group's contexts.
    fn error(&self, call: &str, error: EglError) -> Error {
        use khronos_egl::{BAD_CONTEXT, BAD_DISPLAY, NOT_INITIALIZED};
        if [NOT_INITIALIZED, BAD_CONTEXT, BAD_DISPLAY].contains(&error.0) {
            self.terminated.store(true, Ordering::Relaxed);
            return terminated(&self.device, call, error);
        }
        egl_error(&self.device, call, error)
    }

    /// Makes EGL forget the calling thread. Its contexts must be destroyed.
    pub fn release_thread(&self) {
        if !self.is_gone() {
            self.egl.release_thread();
        }
    }

    /// Whether this process was forked from the one that made the group. Nothing of the group may be touched then.
    pub fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Whether the driver and its objects must be left alone: after a fork they are the parent's, and while the process
    /// ends the driver shuts itself down.
    pub fn is_gone(&self) -> bool {
        self.is_forked() || exit::is_shut_out()
    }

    /// The number of live objects in the group's contexts.
    #[cfg(test)]
    pub fn live_objects(&self) -> LiveObjects {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        LiveObjects {
            buffers: count(&self.live.buffers),
            programs: count(&self.live.programs),
            queries: count(&self.live.queries),
            syncs: count(&self.live.syncs),
            contexts: count(&self.live.contexts),
        }
    }

    /// The longest wait for the device.
    pub fn wait_limit(&self) -> Duration {
        self.wait_limit
    }

    /// Operations a second that kernels recently reached, or a guess.
    pub fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// The device as the planner sees it, if measured.
    pub fn gpu(&self) -> &OnceLock<Gpu> {
        &self.gpu
    }

    /// Iterations that all loops of an invocation may make together. Beyond them a driver may end the loops without
    /// an error.
    pub fn max_iterations(&self) -> usize {
        self.max_iterations.load(Ordering::Relaxed)
    }

    /// Stores the limit that the probe counted.
    pub fn set_max_iterations(&self, limit: usize) {
        self.max_iterations.store(limit, Ordering::Relaxed);
    }

    /// Sets the rate.
    pub fn set_rate(&self, rate: f64) {
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }
}

impl Drop for ShareGroup {
    fn drop(&mut self) {
        if !self.is_gone() {
            self.egl.destroy_context(self.display, self.root);
        }
    }
}

/// The end of the text of an error for which [`is_terminated`] is true.
const TERMINATED: &str = "the display was terminated";

/// The error for a display that another library has terminated together with its contexts.
fn terminated(device: &Arc<str>, call: &str, error: EglError) -> Error {
    Error::DeviceLost { device: device.to_string(), what: format!("{call} says {error}: {TERMINATED}") }
}

/// Whether the only fault is that the display was terminated. A new group can then be made at once.
pub fn is_terminated(error: &Error) -> bool {
    matches!(error, Error::DeviceLost { what, .. } if what.ends_with(TERMINATED))
}

fn egl_error(device: &Arc<str>, call: &str, error: EglError) -> Error {
    let device = device.to_string();
    match error.0 {
        khronos_egl::BAD_ALLOC => Error::OutOfMemory { device, what: call.to_owned() },
        khronos_egl::CONTEXT_LOST => Error::DeviceLost { device, what: call.to_owned() },
        _ => Error::Driver { device, call: call.to_owned(), reason: error.to_string() },
    }
}

/// Chooses any configuration for OpenGL, with pbuffers if contexts need a surface.
fn choose_config(egl: &dyn Egl, display: Display, surfaceless: bool) -> EglResult<Option<Config>> {
    let with_pbuffer =
        [egl::SURFACE_TYPE, egl::PBUFFER_BIT, egl::RENDERABLE_TYPE, egl::OPENGL_BIT, egl::NONE];
    let with_any_surface = [egl::SURFACE_TYPE, 0, egl::RENDERABLE_TYPE, egl::OPENGL_BIT, egl::NONE];
    match egl.choose_config(display, &with_pbuffer)? {
        None if surfaceless => egl.choose_config(display, &with_any_surface),
        config => Ok(config),
    }
}

/// Makes the root context with the most that the driver accepts: reset notification, robust buffer access, and debug
/// messages if they are wanted.
fn create_root(
    egl: &dyn Egl,
    display: Display,
    config: Option<Config>,
) -> EglResult<(ContextHandle, Vec<i32>)> {
    use attribute::*;
    let wants_debug = cfg!(debug_assertions) || crate::config::config().log == Some(Level::Debug);
    let debug = if wants_debug { DEBUG_BIT } else { 0 };
    let resets = [RESET_NOTIFICATION_STRATEGY, LOSE_CONTEXT_ON_RESET];
    // Drivers without robustness refuse the attributes with various errors, so each set is tried.
    let attempts: [(i32, &[i32]); 4] =
        [(debug | ROBUST_ACCESS_BIT, &resets), (debug, &resets), (debug, &[]), (0, &[])];
    let mut last_error = None;
    for (flags, resets) in attempts {
        let mut attributes = vec![MAJOR_VERSION, 4, MINOR_VERSION, 3, PROFILE_MASK, CORE_PROFILE_BIT];
        if flags != 0 {
            attributes.extend([FLAGS, flags]);
        }
        attributes.extend(resets);
        attributes.push(egl::NONE);
        match egl.create_context(display, config, None, &attributes) {
            Ok(context) => return Ok((context, attributes)),
            // The error of the last set, which asks for the least, is the one that matters.
            Err(error) => last_error = Some(error),
        }
    }
    Err(last_error.expect("at least one set of attributes was tried"))
}

/// The EGL side of a context: makes it current, and destroys it when dropped.
struct Binding {
    group: Arc<ShareGroup>,
    context: Option<ContextHandle>,
    surface: Option<Surface>,
}

impl Binding {
    fn make_current(&self) -> Result<()> {
        let ShareGroup { egl, display, .. } = &*self.group;
        egl.make_current(*display, self.surface, self.context)
            .map_err(|error| self.group.error("eglMakeCurrent", error))
    }

    fn is_current(&self) -> bool {
        self.context.is_some() && self.group.egl.current_context() == self.context
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if self.group.is_gone() {
            return;
        }
        let ShareGroup { egl, display, .. } = &*self.group;
        if self.is_current() {
            // If this fails the context is destroyed when the thread ends or binds another.
            let _ = egl.make_current(*display, None, None);
        }
        if let Some(surface) = self.surface {
            egl.destroy_surface(*display, surface);
        }
        if let Some(context) = self.context {
            egl.destroy_context(*display, context);
        }
    }
}

/// A context on the thread that made it.
pub struct Context {
    // Dropped in this order: the entry points before the context that they belong to.
    api: Box<dyn Api>,
    capabilities: Capabilities,
    messages: RefCell<Vec<(Level, String)>>,
    binding: Binding,
}

impl Context {
    /// The GL calls, unchecked. Call [`Context::check`] after a group of them.
    pub fn api(&self) -> &dyn Api {
        &*self.api
    }

    /// What the driver can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The group it belongs to.
    pub fn group(&self) -> &Arc<ShareGroup> {
        &self.binding.group
    }

    /// Id or name of the device.
    pub fn device(&self) -> &str {
        &self.binding.group.device
    }

    pub fn live(&self) -> &Arc<Live> {
        &self.binding.group.live
    }

    /// Whether it is current on the calling thread.
    pub fn is_current(&self) -> bool {
        self.binding.is_current()
    }

    /// Makes it current again, after other code has bound another context.
    ///
    /// # Errors
    /// [`Error::Driver`] with EGL's error.
    pub fn make_current(&self) -> Result<()> {
        self.binding.make_current()
    }

    /// Discards errors of earlier calls, so that they are not attributed to later ones.
    pub fn forget_errors(&self) {
        self.take_error();
    }

    /// Whether the context was lost since the last call and is unusable. Also discards pending errors.
    pub fn is_lost(&self) -> bool {
        self.take_error() == api::CONTEXT_LOST
            || self.check_reset("idling").is_err()
            || self.group().terminated.load(Ordering::Relaxed)
    }

    /// Checks for a GL error.
    ///
    /// # Errors
    /// The first error since the last check; `call` names the operation.
    pub fn check(&self, call: &str) -> Result<()> {
        match self.take_error() {
            api::NO_ERROR => Ok(()),
            code => Err(self.error(call, code)),
        }
    }

    /// Checks whether the device was reset, if the driver reports resets.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if so.
    pub fn check_reset(&self, what: &str) -> Result<()> {
        if self.capabilities.reset_status && self.api.reset_status() != 0 {
            return Err(Error::DeviceLost {
                device: self.device().to_owned(),
                what: format!("reset during {what}"),
            });
        }
        Ok(())
    }

    /// Returns the first pending GL error and clears them all.
    fn take_error(&self) -> u32 {
        let first = self.api.get_error();
        // A distributed implementation may hold several errors; a lost context may report them for ever.
        let mut left = 16;
        while first != api::NO_ERROR && left > 0 && self.api.get_error() != api::NO_ERROR {
            left -= 1;
        }
        first
    }

    fn error(&self, call: &str, code: u32) -> Error {
        let (device, what) = (self.device().to_owned(), call.to_owned());
        match code {
            api::OUT_OF_MEMORY => Error::OutOfMemory { device, what },
            api::CONTEXT_LOST => Error::DeviceLost { device, what },
            _ => match self.check_reset(call) {
                Err(lost) => lost,
                Ok(()) => Error::Driver { device, call: what, reason: api::error_name(code) },
            },
        }
    }

    /// Keeps a message for the log. The caller of [`Context::take_messages`] logs it: a log callback may call Sparkle,
    /// which would deadlock on a worker's thread.
    pub fn note(&self, level: Level, text: fmt::Arguments) {
        self.messages.borrow_mut().push((level, text.to_string()));
    }

    /// Takes all messages since the last call, including the driver's.
    pub fn take_messages(&self) -> Vec<(Level, String)> {
        let mut messages = self.messages.take();
        // At most as many as a driver's log holds: a log that never empties must not block the thread.
        for message in std::iter::from_fn(|| self.api.next_debug_message()).take(256) {
            let level = if message.severity == api::DEBUG_SEVERITY_HIGH { Level::Warn } else { Level::Debug };
            messages.push((level, format!("{}: driver: {}", self.device(), message.text)));
        }
        messages
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.live().contexts.fetch_sub(1, Ordering::Relaxed);
    }
}
