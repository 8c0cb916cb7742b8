//! Fake machines: descriptions of devices, and an EGL that behaves as described. The GL of such a machine is in
//! `gpu`.

mod gpu;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use self::gpu::FakeApi;
use crate::gl::driver::api::Api;
use crate::gl::driver::egl::{
    self, Config, ContextHandle, DeviceHandle, Display, Egl, EglError, EglResult, Surface,
};

pub const SUCCESS: EglError = EglError(0x3000);
pub const NOT_INITIALIZED: EglError = EglError(0x3001);
pub const BAD_ALLOC: EglError = EglError(0x3003);
pub const BAD_ATTRIBUTE: EglError = EglError(0x3004);
pub const BAD_DISPLAY: EglError = EglError(0x3008);
pub const BAD_MATCH: EglError = EglError(0x3009);

/// The results of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// All right.
    Right,
    /// All right except the seventh.
    OneWrong,
    /// Right, except for the number of iterations.
    MiscountedLoops,
    /// Reads leave the caller's memory unchanged.
    Nothing,
    /// The driver panics.
    Panic,
}

/// A GPU with its driver.
#[derive(Debug, Clone)]
pub struct Gpu {
    pub renderer: &'static str,
    /// Its display's extensions; `None` is a NULL string.
    pub extensions: Option<&'static str>,
    pub initialize: EglResult<(i32, i32)>,
    /// Whether a configuration with pbuffers exists, and whether any configuration for OpenGL exists.
    pub configs: (bool, bool),
    /// The newest minor version of OpenGL 4, or the error of creating a context.
    pub minor: EglResult<i32>,
    /// A missing entry point.
    pub missing: Option<&'static str>,
    pub numbers: Numbers,
    pub max_block: i64,
    /// Iterations after which all loops of an invocation end, without an error.
    pub iterations: usize,
    /// Extensions of OpenGL.
    pub gl_extensions: &'static [&'static str],
    /// How fast it is. It then computes nothing and accepts any shader.
    pub speed: Option<Speed>,
}

/// The times of a GPU with a clock, for the shaders that measure rates.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Overhead of a dispatch in nanoseconds.
    pub launch: u64,
    /// Compute units, which run one workgroup at a time each, and nanoseconds of a step of multiply-adds on one.
    pub units: u64,
    pub step: u64,
    /// Nanoseconds of a workgroup of reads on the whole GPU.
    pub read: u64,
    /// Additional nanoseconds of every fortieth dispatch, as if others used the device, too.
    pub noise: u64,
}

/// Extensions of a display that needs neither surfaces nor configurations.
pub const MODERN: &str = "EGL_KHR_create_context EGL_KHR_no_config_context EGL_KHR_surfaceless_context";

impl Gpu {
    /// A working GPU.
    pub fn new(renderer: &'static str) -> Self {
        Gpu {
            renderer,
            extensions: Some(MODERN),
            initialize: Ok((1, 5)),
            configs: (true, true),
            minor: Ok(6),
            missing: None,
            numbers: Numbers::Right,
            max_block: 128 << 20,
            iterations: usize::MAX,
            gl_extensions: &[],
            speed: None,
        }
    }
}

/// A device as EGL lists it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The index of its GPU, or the error of getting a display for it.
    pub gpu: EglResult<usize>,
    pub extensions: Option<&'static str>,
    /// Its DRM device file and its render node, if it has those extensions.
    pub files: [Option<&'static str>; 2],
}

impl Listed {
    pub fn new(gpu: usize) -> Self {
        Listed { gpu: Ok(gpu), extensions: Some(""), files: [None, None] }
    }
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The client library's extensions; `None` is a NULL string.
    pub extensions: Option<&'static str>,
    pub gpus: Vec<Gpu>,
    pub listed: EglResult<Vec<Listed>>,
    /// The GPU of the surfaceless platform.
    pub surfaceless: EglResult<usize>,
    /// The GPU of the default display.
    pub default: EglResult<usize>,
}

/// The EGL of such a machine.
pub struct FakeEgl {
    machine: Machine,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: usize,
    /// Live contexts with the GPU of their display, and live surfaces.
    contexts: HashMap<usize, usize>,
    surfaces: Vec<usize>,
    current: HashMap<ThreadId, usize>,
    initialized: Vec<usize>,
    /// Displays requested, in order.
    asked: Vec<String>,
}

/// Displays are numbered by platform, then by GPU.
fn display(way: usize, gpu: usize) -> Display {
    Display(way * 100 + gpu + 1)
}

impl FakeEgl {
    pub fn new(machine: Machine) -> Arc<Self> {
        Arc::new(FakeEgl { machine, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gpu(&self, display: Display) -> &Gpu {
        &self.machine.gpus[(display.0 - 1) % 100]
    }

    /// Live contexts and surfaces.
    pub fn alive(&self) -> (usize, usize) {
        let state = self.state();
        (state.contexts.len(), state.surfaces.len())
    }

    /// The platforms tried for displays, in order.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    fn surfaceless(&self, display: Display) -> bool {
        self.gpu(display).extensions.is_some_and(|it| it.contains("EGL_KHR_surfaceless_context"))
    }
}

impl Egl for FakeEgl {
    fn query_string(&self, display: Option<Display>, name: i32) -> Option<String> {
        match (display, name) {
            (None, egl::EXTENSIONS) => self.machine.extensions.map(str::to_owned),
            (Some(display), egl::EXTENSIONS) => self.gpu(display).extensions.map(str::to_owned),
            (Some(display), egl::VERSION) => self.gpu(display).extensions.map(|_| "1.5 fake".to_owned()),
            _ => None,
        }
    }
    fn query_devices(&self) -> EglResult<Vec<DeviceHandle>> {
        self.state().asked.push("list".to_owned());
        let listed = self.machine.listed.as_ref().map_err(|error| *error)?;
        Ok((0..listed.len()).map(DeviceHandle).collect())
    }
    fn query_device_string(&self, device: DeviceHandle, name: i32) -> Option<String> {
        let listed = &self.machine.listed.as_ref().unwrap()[device.0];
        let extensions = listed.extensions?;
        let (text, extension) = match name {
            egl::EXTENSIONS => return Some(extensions.to_owned()),
            egl::DRM_DEVICE_FILE => (listed.files[0], "EGL_EXT_device_drm"),
            egl::DRM_RENDER_NODE_FILE => (listed.files[1], "EGL_EXT_device_drm_render_node"),
            other => panic!("no device string {other:#x}"),
        };
        assert!(extensions.split(' ').any(|it| it == extension), "{extension} was not checked");
        text.map(str::to_owned)
    }
    fn platform_display(&self, platform: u32, device: Option<DeviceHandle>) -> EglResult<Display> {
        match (platform, device) {
            (egl::PLATFORM_DEVICE, Some(device)) => {
                self.state().asked.push(format!("device {}", device.0));
                let listed = self.machine.listed.as_ref().map_err(|error| *error)?;
                listed[device.0].gpu.map(|gpu| display(1 + device.0, gpu))
            }
            (egl::PLATFORM_SURFACELESS, None) => {
                self.state().asked.push("surfaceless".to_owned());
                self.machine.surfaceless.map(|gpu| display(50, gpu))
            }
            other => panic!("no such platform: {other:?}"),
        }
    }
    fn default_display(&self) -> EglResult<Display> {
        self.state().asked.push("default".to_owned());
        self.machine.default.map(|gpu| display(60, gpu))
    }
    fn initialize(&self, display: Display) -> EglResult<(i32, i32)> {
        let version = self.gpu(display).initialize?;
        self.state().initialized.push(display.0);
        Ok(version)
    }
    fn bind_opengl(&self) -> EglResult<()> {
        Ok(())
    }
    fn choose_config(&self, display: Display, attributes: &[i32]) -> EglResult<Option<Config>> {
        let wants_pbuffer = attributes.chunks(2).any(|it| it == [egl::SURFACE_TYPE, egl::PBUFFER_BIT]);
        let (with_pbuffer, any) = self.gpu(display).configs;
        Ok((if wants_pbuffer { with_pbuffer } else { any }).then_some(Config(7)))
    }
    fn create_context(
        &self,
        display: Display,
        config: Option<Config>,
        share: Option<ContextHandle>,
        attributes: &[i32],
    ) -> EglResult<ContextHandle> {
        /// `EGL_CONTEXT_MINOR_VERSION`.
        const MINOR_VERSION: i32 = 0x30fb;
        let (gpu, mut state) = (self.gpu(display), self.state());
        let minor = gpu.minor?;
        let asked = attributes.chunks(2).find(|it| it[0] == MINOR_VERSION).unwrap()[1];
        let needs_config = !gpu.extensions.is_some_and(|it| it.contains("EGL_KHR_no_config_context"));
        if asked > minor || (config.is_none() && needs_config) {
            return Err(BAD_MATCH);
        }
        if !state.initialized.contains(&display.0) {
            return Err(NOT_INITIALIZED);
        }
        assert!(share.is_none_or(|it| state.contexts.contains_key(&it.0)), "shares with a dead context");
        state.next += 1;
        let context = state.next;
        state.contexts.insert(context, (display.0 - 1) % 100);
        Ok(ContextHandle(context))
    }
    fn destroy_context(&self, _display: Display, context: ContextHandle) {
        assert!(self.state().contexts.remove(&context.0).is_some(), "destroyed twice");
    }
    fn create_pbuffer(&self, display: Display, config: Option<Config>, _: &[i32]) -> EglResult<Surface> {
        if config.is_none() || !self.gpu(display).configs.0 {
            return Err(BAD_MATCH);
        }
        let mut state = self.state();
        state.next += 1;
        let surface = state.next;
        state.surfaces.push(surface);
        Ok(Surface(surface))
    }
    fn destroy_surface(&self, _display: Display, surface: Surface) {
        let mut state = self.state();
        let index = state.surfaces.iter().position(|&it| it == surface.0).expect("destroyed twice");
        state.surfaces.remove(index);
    }
    fn make_current(
        &self,
        display: Display,
        surface: Option<Surface>,
        context: Option<ContextHandle>,
    ) -> EglResult<()> {
        if context.is_some() && surface.is_none() && !self.surfaceless(display) {
            return Err(BAD_MATCH);
        }
        let (thread, mut state) = (std::thread::current().id(), self.state());
        match context {
            Some(context) => state.current.insert(thread, context.0),
            None => state.current.remove(&thread),
        };
        Ok(())
    }
    fn current_context(&self) -> Option<ContextHandle> {
        self.state().current.get(&std::thread::current().id()).copied().map(ContextHandle)
    }
    fn release_thread(&self) {
        self.state().current.remove(&std::thread::current().id());
    }
    fn load_gl(&self) -> Result<Box<dyn Api>, String> {
        let context = self.current_context().expect("no context is current");
        let gpu = self.machine.gpus[self.state().contexts[&context.0]].clone();
        if let Some(missing) = gpu.missing {
            return Err(format!("{missing} is missing"));
        }
        Ok(Box::new(FakeApi::new(gpu)))
    }
}
