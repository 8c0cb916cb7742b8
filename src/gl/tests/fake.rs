//! Machines that do not exist: EGL as described, and behind it a GPU of plain loops that runs the fallback kernels of convolution and
//! the shader that counts iterations.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use crate::gl::driver::api::{self, Api, DebugMessage};
use crate::gl::driver::egl::{
    self, Config, ContextHandle, DeviceHandle, Display, Egl, EglError, EglResult, Surface,
};
use crate::shader::source::{CONV_DIRECT, CONV_PART, CONV_REFERENCE, PROBE_LOOPS};

pub const SUCCESS: EglError = EglError(0x3000);
pub const NOT_INITIALIZED: EglError = EglError(0x3001);
pub const BAD_ALLOC: EglError = EglError(0x3003);
pub const BAD_ATTRIBUTE: EglError = EglError(0x3004);
pub const BAD_DISPLAY: EglError = EglError(0x3008);
pub const BAD_MATCH: EglError = EglError(0x3009);

/// What comes out of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Right ones.
    Right,
    /// All right but the seventh.
    OneWrong,
    /// Right ones, but for the number of iterations.
    MiscountedLoops,
    /// Reads leave the caller's memory as it is.
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
    /// Whether there is a configuration with pbuffers, and whether there is one for OpenGL at all.
    pub configs: (bool, bool),
    /// The newest OpenGL 4 there is: its minor version, or why there is none.
    pub minor: EglResult<i32>,
    /// An entry point that is missing.
    pub missing: Option<&'static str>,
    pub numbers: Numbers,
    pub max_block: i64,
    /// Iterations after which all loops of an invocation end, without an error.
    pub iterations: usize,
    /// Extensions of OpenGL.
    pub gl_extensions: &'static [&'static str],
    /// How fast it is; then it computes nothing, and runs whatever it is given.
    pub speed: Option<Speed>,
}

/// What a GPU with a clock takes for the shaders that measure rates.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Nanoseconds that a dispatch takes besides its work.
    pub launch: u64,
    /// Compute units, each of which runs one workgroup at a time, and nanoseconds of a step of multiply-adds there.
    pub units: u64,
    pub step: u64,
    /// Nanoseconds that a workgroup of reads takes, of all units.
    pub read: u64,
    /// Every fortieth dispatch takes so many nanoseconds more: others use the device, too.
    pub noise: u64,
}

/// Extensions of a display that needs neither surfaces nor configurations.
pub const MODERN: &str = "EGL_KHR_create_context EGL_KHR_no_config_context EGL_KHR_surfaceless_context";

impl Gpu {
    /// One that works.
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
    /// Which of the machine's GPUs it is; or why there is no display for it.
    pub gpu: EglResult<usize>,
    pub extensions: Option<&'static str>,
    /// Its DRM device file and its render node, if their extensions are there.
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
    /// The GPU that the surfaceless platform gives.
    pub surfaceless: EglResult<usize>,
    /// The GPU of the default display.
    pub default: EglResult<usize>,
}

/// EGL on such a machine.
pub struct FakeEgl {
    machine: Machine,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: usize,
    /// Live contexts with their display's GPU, and live surfaces.
    contexts: HashMap<usize, usize>,
    surfaces: Vec<usize>,
    current: HashMap<ThreadId, usize>,
    initialized: Vec<usize>,
    /// Displays asked for, in order.
    asked: Vec<String>,
}

/// Displays are numbered by the way to them, then by GPU.
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

    /// The ways to displays that were tried, in order.
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
        Ok(Box::new(FakeApi {
            gpu,
            names: Cell::new(0),
            buffers: RefCell::default(),
            bound: RefCell::default(),
            blocks: RefCell::default(),
            uniforms: Cell::default(),
            sources: RefCell::default(),
            used: Cell::new(0),
            clock: Cell::new(0),
            dispatches: Cell::new(0),
            stamps: RefCell::default(),
        }))
    }
}

/// OpenGL on such a machine: one context, one kernel.
struct FakeApi {
    gpu: Gpu,
    names: Cell<u32>,
    buffers: RefCell<HashMap<u32, Vec<u8>>>,
    bound: RefCell<HashMap<u32, u32>>,
    blocks: RefCell<[u32; 8]>,
    /// By location, `first` and `count` before all.
    uniforms: Cell<[u32; 8]>,
    /// What was last given to compile, and by program.
    sources: RefCell<HashMap<u32, String>>,
    used: Cell<u32>,
    /// Nanoseconds so far, dispatches, and timestamps by query.
    clock: Cell<u64>,
    dispatches: Cell<u64>,
    stamps: RefCell<HashMap<u32, u64>>,
}

impl FakeApi {
    fn new_name(&self) -> u32 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    fn with_buffer<R>(&self, target: u32, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let name = self.bound.borrow()[&target];
        work(self.buffers.borrow_mut().get_mut(&name).expect("a buffer is bound"))
    }

    fn block<T: bytemuck::Pod>(&self, index: usize) -> Vec<T> {
        bytemuck::pod_collect_to_vec(&self.buffers.borrow()[&self.blocks.borrow()[index]])
    }

    /// A dispatch on a GPU of that speed. The clock of the host goes on as far.
    fn take_time(&self, speed: &Speed) {
        let [_, groups, steps, ..] = self.uniforms.get().map(u64::from);
        let sources = self.sources.borrow();
        let source = &sources[&self.used.get()];
        let work = match source.contains("measure_fma") {
            true => groups.div_ceil(speed.units) * steps * speed.step,
            false => groups * speed.read,
        };
        self.dispatches.set(self.dispatches.get() + 1);
        let noise = if self.dispatches.get().is_multiple_of(40) { speed.noise } else { 0 };
        let time = speed.launch + work + noise;
        self.clock.set(self.clock.get() + time);
        std::thread::sleep(std::time::Duration::from_nanos(time));
    }

    fn write<T: bytemuck::Pod>(&self, index: usize, data: &[T]) {
        let name = self.blocks.borrow()[index];
        self.buffers.borrow_mut().insert(name, bytemuck::pod_collect_to_vec(data));
    }

    /// `probe_loops`.
    fn count(&self) {
        let [_, _, outer, middle, inner, ..] = self.uniforms.get().map(|it| it as usize);
        let (mut left, mut value, mut made) = (self.gpu.iterations, 1u32, 0u32);
        turns(&mut left, 0..outer, &mut |left, _| {
            turns(left, 0..middle, &mut |left, _| {
                turns(left, 0..inner, &mut |_, _| {
                    value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    made += 1;
                });
            });
        });
        let lie = u32::from(self.gpu.numbers == Numbers::MiscountedLoops);
        self.write(2, &[value, made - lie]);
    }

    /// `conv_reference_64`, `conv_direct_64` and that in parts.
    fn convolve(&self, source: &str) {
        let (input, weights, params) = (self.block::<f32>(0), self.block::<f32>(1), self.block::<i32>(3));
        let params: Vec<usize> = params.into_iter().map(|it| it as usize).collect();
        let reference = source == CONV_REFERENCE.source;
        let [
            n,
            c,
            h,
            w,
            k,
            r,
            s,
            p,
            q,
            down,
            across,
            top,
            left_pad,
            far_down,
            far_across,
            groups,
            biased,
            relu,
        ] = match params[..] {
            [n, h, w, c, k, size, stride, pad, p, q] if reference => {
                [n, c, h, w, k, size, size, p, q, stride, stride, pad, pad, 1, 1, 1, 0, 0]
            }
            ref all => <[usize; 18]>::try_from(all).unwrap(),
        };
        let mut output = self.block::<f32>(2);
        let [first, count, ranges @ ..] = self.uniforms.get().map(|it| it as usize);
        let whole = [0, c / groups, 0, r, 0, s];
        let ranges = if source == CONV_PART.source { ranges } else { whole };
        let [c_begin, c_end, r_begin, r_end, s_begin, s_end] = ranges;
        assert!(first + count <= output.len() && output.len() >= n * k * p * q, "a dispatch beyond the end");
        for (index, result) in output.iter_mut().enumerate().skip(first).take(count) {
            let (x, y, ki, ni) = (index % q, index / q % p, index / q / p % k, index / q / p / k);
            let begins = c_begin + r_begin + s_begin == 0;
            let bias = if biased > 0 { self.block::<f32>(4)[ki] } else { 0.0 };
            let mut sum = if begins { bias } else { *result };
            let mut left = self.gpu.iterations;
            turns(&mut left, c_begin..c_end, &mut |left, ci| {
                turns(left, r_begin..r_end, &mut |left, ri| {
                    turns(left, s_begin..s_end, &mut |_, si| {
                        let (row, column) = (y * down + ri * far_down, x * across + si * far_across);
                        let inside =
                            (top..h + top).contains(&row) && (left_pad..w + left_pad).contains(&column);
                        let channel = ki / (k / groups) * (c / groups) + ci;
                        let at = |row: usize, column: usize| {
                            ((ni * c + channel) * h + row - top) * w + column - left_pad
                        };
                        let pixel = if inside { input[at(row, column)] } else { 0.0 };
                        sum += pixel * weights[((ki * (c / groups) + ci) * r + ri) * s + si];
                    });
                });
            });
            if ranges[1] == whole[1] && ranges[3] == r && ranges[5] == s && relu > 0 && sum < 0.0 {
                sum = 0.0;
            }
            *result = if self.gpu.numbers == Numbers::OneWrong && index == 7 { -1e6 } else { sum };
        }
        self.write(2, &output);
    }
}

/// A loop of an invocation that makes `left` iterations yet, in all its loops.
fn turns(left: &mut usize, range: std::ops::Range<usize>, body: &mut dyn FnMut(&mut usize, usize)) {
    for index in range {
        body(left, index);
        if *left <= 1 {
            *left = 0;
            return;
        }
        *left -= 1;
    }
    // The turn in which it finds that it is over.
    *left = left.saturating_sub(1);
}

impl Api for FakeApi {
    fn gen_buffer(&self) -> u32 {
        self.new_name()
    }
    fn delete_buffer(&self, buffer: u32) {
        self.buffers.borrow_mut().remove(&buffer);
    }
    fn bind_buffer(&self, target: u32, buffer: u32) {
        self.bound.borrow_mut().insert(target, buffer);
    }
    fn bind_buffer_base(&self, _target: u32, index: u32, buffer: u32) {
        self.blocks.borrow_mut()[index as usize] = buffer;
    }
    fn bind_buffer_range(&self, _: u32, _: u32, _: u32, _: i64, _: i64) {
        unreachable!("whole buffers are bound")
    }
    fn buffer_storage(&self, _: u32, _: i64, _: u32) {
        unreachable!("it has no buffer storage")
    }
    fn map_buffer_range(&self, _: u32, _: i64, _: i64, _: u32) -> usize {
        unreachable!("nothing is mapped")
    }
    fn buffer_data(&self, target: u32, size: i64, _usage: u32) {
        let name = self.bound.borrow()[&target];
        self.buffers.borrow_mut().insert(name, vec![0xaa; size as usize]);
    }
    fn buffer_sub_data(&self, target: u32, offset: i64, data: &[u8]) {
        self.with_buffer(target, |it| it[offset as usize..][..data.len()].copy_from_slice(data));
    }
    fn get_buffer_sub_data(&self, target: u32, offset: i64, into: &mut [u8]) {
        if self.gpu.numbers != Numbers::Nothing {
            self.with_buffer(target, |it| into.copy_from_slice(&it[offset as usize..][..into.len()]));
        }
    }
    fn copy_buffer_sub_data(&self, _: u32, _: u32, _: i64, _: i64, _: i64) {
        unreachable!("convolutions copy nothing")
    }
    fn buffer_size(&self, _: u32) -> i64 {
        unreachable!("the sizes of its own buffers the library knows")
    }
    fn create_compute_shader(&self) -> u32 {
        self.new_name()
    }
    fn shader_source(&self, _shader: u32, source: &str) {
        let known = [CONV_REFERENCE, CONV_DIRECT, CONV_PART, PROBE_LOOPS];
        assert!(self.gpu.speed.is_some() || known.iter().any(|kernel| kernel.source == source));
        // Programs are linked one after the other, each from the last shader.
        self.sources.borrow_mut().insert(0, source.to_owned());
    }
    fn compile_shader(&self, _shader: u32) {}
    fn shader_compiled(&self, _shader: u32) -> bool {
        true
    }
    fn shader_log(&self, _shader: u32) -> String {
        String::new()
    }
    fn delete_shader(&self, _shader: u32) {}
    fn create_program(&self) -> u32 {
        self.new_name()
    }
    fn attach_shader(&self, _program: u32, _shader: u32) {}
    fn detach_shader(&self, _program: u32, _shader: u32) {}
    fn link_program(&self, program: u32) {
        let mut sources = self.sources.borrow_mut();
        let source = sources[&0].clone();
        sources.insert(program, source);
    }
    fn program_linked(&self, _program: u32) -> bool {
        true
    }
    fn program_log(&self, _program: u32) -> String {
        String::new()
    }
    fn compile_in_parallel(&self) {}
    fn keep_program_binary(&self, _program: u32) {}
    fn program_binary(&self, _program: u32) -> Option<(u32, Vec<u8>)> {
        None
    }
    fn load_program_binary(&self, _program: u32, _format: u32, _binary: &[u8]) {}
    fn delete_program(&self, _program: u32) {}
    fn program_local_size(&self, _program: u32) -> [i32; 3] {
        [64, 1, 1]
    }
    fn use_program(&self, program: u32) {
        self.used.set(program);
    }
    fn forget_program(&self) {}
    fn program_is_ready(&self, _program: u32) -> bool {
        true
    }
    fn uniform_1ui(&self, location: u32, value: u32) {
        let mut uniforms = self.uniforms.get();
        uniforms[location as usize] = value;
        self.uniforms.set(uniforms);
    }
    fn dispatch_compute(&self, _x: u32, _y: u32, _z: u32) {
        match self.gpu.numbers {
            _ if self.gpu.speed.is_some() => self.take_time(&self.gpu.speed.unwrap()),
            Numbers::Panic => std::panic::resume_unwind(Box::new("a driver's wrapper")),
            _ => {
                let source = self.sources.borrow()[&self.used.get()].clone();
                if source == PROBE_LOOPS.source { self.count() } else { self.convolve(&source) }
            }
        }
    }
    fn memory_barrier(&self, _barriers: u32) {}
    fn flush(&self) {}
    fn finish(&self) {}
    fn fence_sync(&self) -> usize {
        1
    }
    fn client_wait_sync(&self, _sync: usize, _flags: u32, _timeout_ns: u64) -> u32 {
        api::ALREADY_SIGNALED
    }
    fn wait_sync(&self, _sync: usize) {}
    fn delete_sync(&self, _sync: usize) {}
    fn gen_query(&self) -> u32 {
        self.new_name()
    }
    fn delete_query(&self, _query: u32) {}
    fn query_timestamp(&self, query: u32) {
        self.stamps.borrow_mut().insert(query, self.clock.get());
    }
    fn query_result(&self, query: u32) -> u64 {
        self.stamps.borrow()[&query]
    }
    fn timestamp_bits(&self) -> i32 {
        64
    }
    fn get_error(&self) -> u32 {
        api::NO_ERROR
    }
    fn get_integer64(&self, name: u32) -> i64 {
        match name {
            api::SUBGROUP_SIZE | api::SM_COUNT => {
                assert!(!self.gpu.gl_extensions.is_empty(), "asked of a driver that cannot answer");
                if name == api::SUBGROUP_SIZE { 16 } else { 132 }
            }
            _ => self.gpu.max_block,
        }
    }
    fn get_integer_indexed(&self, _name: u32, _index: u32) -> i32 {
        65_535
    }
    fn get_string(&self, name: u32) -> String {
        match name {
            api::RENDERER => self.gpu.renderer.to_owned(),
            api::VERSION if !self.gpu.renderer.is_empty() => "4.6 fake".to_owned(),
            _ => String::new(),
        }
    }
    fn reset_status(&self) -> u32 {
        0
    }
    fn has_extension(&self, name: &str) -> bool {
        self.gpu.gl_extensions.contains(&name)
    }
    fn has_reset_status(&self) -> bool {
        false
    }
    fn has_buffer_storage(&self) -> bool {
        false
    }
    fn enable_debug_log(&self) {}
    fn next_debug_message(&self) -> Option<DebugMessage> {
        None
    }
}
