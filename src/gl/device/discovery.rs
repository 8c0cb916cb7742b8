//! Finds devices without a display server, and checks that they work.
//!
//! Three routes lead to a device. They are tried in this order until one yields hardware:
//!
//! 1. `EGL_EXT_device_enumeration` and `EGL_EXT_platform_device`: each GPU of the machine, without a server;
//! 2. `EGL_MESA_platform_surfaceless`: Mesa's own choice of a GPU, or its software renderer;
//! 3. the default display: the X or Wayland session of the process.
//!
//! A device counts only after a probe: initialise, create a 4.3 core context, run a small convolution, compare every
//! output. Containers list GPUs that they may not open, and a context alone proves nothing. Every rejected candidate
//! keeps its reason.
//!
//! Discovery runs once in a process, and again if there was no memory for it. It uses a thread of its own, so that the
//! caller's EGL state does not change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::allocate;
use crate::config::config;
use crate::error::Result;
use crate::gl::convolution::Buffered;
use crate::gl::device::names;
use crate::gl::driver::architecture::Architecture;
use crate::gl::driver::capabilities::Capabilities;
use crate::gl::driver::context::{ShareGroup, Target};
use crate::gl::driver::egl::{self, DeviceHandle, Display, Egl, EglResult};
use crate::gl::driver::exit;
use crate::gl::execution::dispatch::Ran;
use crate::gl::execution::programs::Programs;
use crate::gl::measure;
use crate::gl::tune;
use crate::problem::exact::Random;
use crate::problem::{Conv2d, Conv2dDesc, oracle};
use crate::shader::iterations;

/// A GL device that was found, usable or not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The renderer, or what is known of an unusable device.
    pub name: String,
    /// Whether it renders in software.
    pub software: bool,
    /// Why it is unusable; `None` if it is usable. Usable candidates are `gl:0`, `gl:1`... in this order.
    pub unusable: Option<String>,
    /// Its architecture; `None` if it is unusable.
    pub architecture: Option<Architecture>,
    /// Further names that open it.
    pub names: Vec<String>,
    /// Facts for `sparkle info`: vendor, version, how it was found, limits.
    pub facts: Vec<(&'static str, String)>,
}

/// A candidate and how to open it.
pub struct Found {
    /// What `sparkle info` shows.
    pub candidate: Candidate,
    /// How to open it; `None` if it is unusable.
    pub target: Option<Target>,
    /// The kernel's device files for it, if EGL names any.
    files: Vec<String>,
    /// What the driver can do, if it could be queried.
    pub capabilities: Option<Capabilities>,
}

/// What discovery found.
pub struct Discovered {
    /// All candidates: hardware, then software, then unusable ones.
    pub found: Vec<Found>,
    /// libEGL, if it could be loaded.
    pub egl: Option<Arc<dyn Egl>>,
}

/// The process that first looked for devices; 0 before that.
static LOOKED: AtomicU32 = AtomicU32::new(0);

/// Whether this process was forked from one that has looked for devices. Drivers do not survive a fork, and a thread
/// that does not exist here may hold one of our locks for ever.
pub fn is_forked() -> bool {
    ![0, std::process::id()].contains(&LOOKED.load(Ordering::Relaxed))
}

/// The devices of this machine; none in a process that [`is_forked`].
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the host has no memory or no thread for discovery. The next
/// call tries again.
pub fn discovered() -> Result<&'static Discovered> {
    static DISCOVERED: OnceLock<Discovered> = OnceLock::new();
    static LOOKING: Mutex<()> = Mutex::new(());
    static FORKED: OnceLock<Discovered> = OnceLock::new();
    let _ = LOOKED.compare_exchange(0, std::process::id(), Ordering::Relaxed, Ordering::Relaxed);
    if is_forked() {
        let reason = "this process was forked from one that used OpenGL, whose drivers do not survive that";
        return Ok(FORKED
            .get_or_init(|| Discovered { found: vec![rejected("OpenGL", reason.to_owned())], egl: None }));
    }
    if let Some(all) = DISCOVERED.get() {
        return Ok(all);
    }
    crate::loader::check()?;
    let _looking = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(all) = DISCOVERED.get() {
        return Ok(all);
    }
    let work = || {
        let _inside = exit::enter()?;
        // Early, so that there is a handler even if the process ends before the drivers are loaded.
        exit::register();
        let egl = egl::native();
        let found = discover(egl.as_ref().map_err(Clone::clone));
        if let Ok(egl) = &egl {
            egl.release_thread();
        }
        Ok((found?, egl.ok()))
    };
    let (found, egl) = match crate::thread::spawn("gl", "discovery", work)?.join() {
        Ok(all) => all?,
        Err(_) => (vec![rejected("OpenGL", "discovery panicked".to_owned())], None),
    };
    Ok(DISCOVERED.get_or_init(|| Discovered { found, egl }))
}

/// An unusable candidate with its reason.
pub fn rejected(name: &str, reason: String) -> Found {
    let candidate = Candidate {
        name: name.to_owned(),
        software: false,
        unusable: Some(reason),
        architecture: None,
        names: vec![],
        facts: vec![],
    };
    Found { candidate, target: None, files: vec![], capabilities: None }
}

/// A route to a display, not yet tried.
struct Route {
    /// Its name in `sparkle info`.
    name: String,
    display: EglResult<Display>,
    /// Whether it leads to one particular device, not to EGL's choice.
    enumerated: bool,
    /// Whether EGL itself reports software.
    software: bool,
    /// The kernel's device files, if EGL names any.
    files: Vec<String>,
    /// Its number in CUDA, if EGL knows that.
    cuda: Option<isize>,
}

impl Route {
    /// A route to a device of EGL's choice.
    fn any(name: &str, display: EglResult<Display>) -> Self {
        Route {
            name: name.to_owned(),
            display,
            enumerated: false,
            software: false,
            files: vec![],
            cuda: None,
        }
    }
}

/// Finds and probes all devices.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the host has no memory to probe a device.
pub fn discover(egl: std::result::Result<&Arc<dyn Egl>, String>) -> Result<Vec<Found>> {
    let egl = match egl {
        Ok(egl) => egl,
        Err(reason) => return Ok(vec![rejected("OpenGL", reason)]),
    };
    let extensions = egl.query_string(None, egl::EXTENSIONS).unwrap_or_default();
    let has = |name: &str| extensions.split_ascii_whitespace().any(|it| it == name);
    let mut found: Vec<Found> = vec![];
    if has("EGL_EXT_device_enumeration") || has("EGL_EXT_device_base") {
        if has("EGL_EXT_platform_device") {
            let routes = enumerated(&**egl, &mut found);
            routes.into_iter().try_for_each(|route| add(egl, route, &mut found))?;
        } else {
            found.push(rejected("EGL devices", "EGL_EXT_platform_device is missing".to_owned()));
        }
    }
    if !any_hardware(&found) && has("EGL_MESA_platform_surfaceless") {
        let display = egl.platform_display(egl::PLATFORM_SURFACELESS, None);
        add(egl, Route::any("surfaceless", display), &mut found)?;
    }
    if !any_hardware(&found) {
        let display = egl.default_display();
        add(egl, Route::any("default display", display), &mut found)?;
    }
    // A stable sort: the order of discovery stays within each kind.
    found.sort_by_key(|it| (it.target.is_none(), it.candidate.software));
    Ok(found)
}

fn any_hardware(found: &[Found]) -> bool {
    found.iter().any(|it| it.target.is_some() && !it.candidate.software)
}

/// The routes by enumeration. If EGL fails, that becomes a candidate.
fn enumerated(egl: &dyn Egl, found: &mut Vec<Found>) -> Vec<Route> {
    let devices = match egl.query_devices() {
        Ok(devices) => devices,
        Err(error) => {
            found.push(rejected("EGL devices", format!("eglQueryDevicesEXT failed: {error}")));
            return vec![];
        }
    };
    let route = |(index, device): (usize, DeviceHandle)| {
        let extensions = egl.query_device_string(device, egl::EXTENSIONS).unwrap_or_default();
        let has = |name: &str| extensions.split_ascii_whitespace().any(|it| it == name);
        // Software and drivers without DRM have no files.
        let files: Vec<String> = [
            ("EGL_EXT_device_drm_render_node", egl::DRM_RENDER_NODE_FILE),
            ("EGL_EXT_device_drm", egl::DRM_DEVICE_FILE),
        ]
        .into_iter()
        .filter_map(|(extension, file)| has(extension).then(|| egl.query_device_string(device, file))?)
        .filter(|file| !file.is_empty())
        .collect();
        let file = files.first().map_or_else(String::new, |file| format!(" ({file})"));
        Route {
            name: format!("EGL device {index}{file}"),
            display: egl.platform_display(egl::PLATFORM_DEVICE, Some(device)),
            enumerated: true,
            software: has("EGL_MESA_device_software"),
            files,
            cuda: has("EGL_NV_device_cuda")
                .then(|| egl.query_device_attribute(device, egl::CUDA_DEVICE))
                .flatten(),
        }
    };
    devices.into_iter().enumerate().map(route).collect()
}

/// Probes a route's device and adds it, unless it is listed already.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the host has no memory to probe it.
fn add(egl: &Arc<dyn Egl>, route: Route, found: &mut Vec<Found>) -> Result<()> {
    // If several vendors' EGLs are installed, each may list the same GPU. The first that works keeps it.
    if found.iter().any(|it| it.target.is_some() && it.files.iter().any(|file| route.files.contains(file))) {
        return Ok(());
    }
    let probed = match route.display {
        // One driver's panic must not exclude the others.
        Ok(display) => match catch_unwind(AssertUnwindSafe(|| probe(egl, display, &route.name))) {
            Err(_) => Err(format!("{}: the probe panicked", route.name)),
            // A lack of host memory says nothing about the device.
            Ok(Err(error)) if allocate::is_of_host(&error) => return Err(error),
            Ok(probed) => probed.map_err(|error| error.to_string()),
        },
        Err(error) => Err(format!("{}: no display: {error}", route.name)),
    };
    // Another driver may have been loaded and used.
    exit::register();
    let probed = match probed {
        Ok(probed) => probed,
        Err(reason) => {
            found.push(rejected(&route.name, reason));
            return Ok(());
        }
    };
    let software = route.software || probed.capabilities.software;
    let name = Some(probed.capabilities.renderer.clone()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| route.name.clone());
    // All routes to software lead to the same renderer, and after enumeration any other route leads to a GPU that is
    // listed. Two enumerated GPUs of the same model are two devices.
    let same = |it: &Found| it.target.is_some() && it.candidate.name == name;
    if (software || !route.enumerated) && found.iter().any(same) {
        return Ok(());
    }
    let names = names::of_device(Path::new("/"), &route.files, route.cuda);
    let mut facts = facts(&route.name, &probed);
    facts.push(("also named", if names.is_empty() { "-".to_owned() } else { names.join(", ") }));
    let architecture = Some(probed.capabilities.architecture());
    let candidate = Candidate { name, software, unusable: None, architecture, names, facts };
    let (target, capabilities) = (Some(probed.target), Some(probed.capabilities));
    found.push(Found { candidate, target, files: route.files, capabilities });
    Ok(())
}

/// A device that has passed its probe.
struct Probed {
    target: Target,
    capabilities: Capabilities,
    egl_version: String,
}

/// Runs a small convolution and compares it, counts how many iterations the device's loops make, and compares a
/// convolution whose sums are as deep as one pass may be. Then runs the small one again, now warm, to measure the
/// device's rate.
fn probe(egl: &Arc<dyn Egl>, display: Display, name: &str) -> Result<Probed> {
    let wait_limit = Duration::from_millis(config().gl_timeout_ms());
    // A guess that is too low only makes the first dispatches short.
    let target = Target { display, rate: 1e8, wait_limit, max_iterations: iterations::MIN_ITERATIONS };
    let group = ShareGroup::new(egl.clone(), name.into(), target)?;
    let mut programs = Programs::new(group.context()?);
    let problem = Conv2d::new(Conv2dDesc {
        n: 2,
        c: 5,
        h: 9,
        w: 7,
        k: 6,
        r: 3,
        s: 3,
        stride_h: 2,
        stride_w: 2,
        pad_h: 1,
        pad_w: 1,
        ..Default::default()
    })?;
    let small = Checked::new(&mut programs, name, "small", &problem)?;
    let max_iterations = measure::iterations::max_iterations(&mut programs)?;
    group.set_max_iterations(max_iterations);
    let c = iterations::max_channels(max_iterations) as i64;
    Checked::new(&mut programs, name, "deep", &Conv2d::new(Conv2dDesc { c, k: 2, ..Default::default() })?)?;
    let ran = small.again()?;
    programs.settle()?;
    let rate = problem.flops() as f64 / ran.time.as_secs_f64().max(1e-6);
    Ok(Probed {
        target: Target { rate, max_iterations, ..target },
        capabilities: programs.context().capabilities().clone(),
        egl_version: egl.query_string(Some(display), egl::VERSION).unwrap_or_default(),
    })
}

/// A convolution of small integers whose outputs were all right.
struct Checked {
    prepared: Buffered,
    input: Vec<f32>,
    output: Vec<f32>,
}

impl Checked {
    /// Runs `problem`, which messages call `what`, and compares the results.
    fn new(programs: &mut Programs, name: &str, what: &str, problem: &Conv2d) -> Result<Self> {
        let mut random = Random::new(1);
        let mut integers = |len| -> Result<Vec<f32>> {
            let mut values = allocate::zeroed(len, "the probe of a device")?;
            random.fill_integers(&mut values, 8);
            Ok(values)
        };
        let (input, weights) = (integers(problem.input_len())?, integers(problem.weights_len())?);
        let prepared = tune::prepare(programs, tune::policy(problem, config()), problem, &weights, None)?;
        let mut output = vec![f32::NAN; problem.output_len()];
        prepared.run(&input, &mut output)?;
        let expected = oracle::conv2d(problem, &input, &weights, None);
        let is_wrong = |&(&got, expected): &(&f32, &oracle::Expected)| f64::from(got) != expected.value;
        let wrong = output.iter().zip(&expected).filter(is_wrong).count();
        if wrong > 0 {
            return Err(crate::Error::Driver {
                device: name.to_owned(),
                call: "the probe".to_owned(),
                reason: format!("{wrong} of {} results of a {what} convolution are wrong", output.len()),
            });
        }
        Ok(Checked { prepared, input, output })
    }

    /// Runs it again.
    fn again(mut self) -> Result<Ran> {
        self.prepared.run(&self.input, &mut self.output)
    }
}

fn facts(route: &str, probed: &Probed) -> Vec<(&'static str, String)> {
    let it = &probed.capabilities;
    let [x, y, z] = it.max_groups;
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    vec![
        ("vendor", it.vendor.clone()),
        ("architecture", it.architecture().to_string()),
        ("OpenGL", it.version.clone()),
        ("GLSL", it.glsl.clone()),
        ("EGL", probed.egl_version.clone()),
        ("found by", route.to_owned()),
        ("largest shader buffer", format!("{} MiB", it.max_block >> 20)),
        ("shared memory", format!("{} KiB a workgroup", it.max_shared >> 10)),
        ("largest workgroup", it.max_threads.to_string()),
        ("loop iterations", format!("{} relied on", probed.target.max_iterations)),
        ("most workgroups", format!("{x} x {y} x {z}")),
        ("timestamp bits", it.timestamp_bits.to_string()),
        ("persistent mapping", yes_no(it.buffer_storage)),
        ("reports resets", yes_no(it.reset_status)),
    ]
}
