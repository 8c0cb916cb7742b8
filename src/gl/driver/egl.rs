//! The EGL calls that the engine uses, which find devices and make contexts, as a thin trait.
//!
//! [`NativeEgl`] implements [`Egl`] with libEGL. The library is loaded at first use, since many machines have none.
//! It uses khronos-egl's function table, not its safe wrapper: the wrapper panics when a driver fails a call but
//! reports EGL_SUCCESS, as some do.
//!
//! `eglTerminate` is missing on purpose. A display is one object for the whole process, and the host program may be
//! using it. Displays stay initialised until the process ends.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::sync::{Arc, OnceLock};

use khronos_egl::api::{EGL1_0 as _, EGL1_2 as _, EGL1_4 as _};
use khronos_egl::{Boolean, Dynamic, EGL1_4, Int};
use libloading::Library;

use crate::gl::driver::api::Api;
use crate::gl::driver::native::Native;

pub use khronos_egl::{
    EXTENSIONS, HEIGHT, NONE, OPENGL_BIT, PBUFFER_BIT, RENDERABLE_TYPE, SURFACE_TYPE, VERSION, WIDTH,
};

/// `EGL_PLATFORM_DEVICE_EXT`.
pub const PLATFORM_DEVICE: u32 = 0x313f;
/// `EGL_PLATFORM_SURFACELESS_MESA`.
pub const PLATFORM_SURFACELESS: u32 = 0x31dd;
/// `EGL_DRM_DEVICE_FILE_EXT`.
pub const DRM_DEVICE_FILE: i32 = 0x3233;
/// `EGL_CUDA_DEVICE_NV`.
pub const CUDA_DEVICE: i32 = 0x323a;
/// `EGL_DRM_RENDER_NODE_FILE_EXT`.
pub const DRM_RENDER_NODE_FILE: i32 = 0x3377;

/// Declares handle types. They hold EGL's pointers as numbers: they are only passed back to EGL, and may cross threads.
macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])* #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)] pub struct $name(pub usize);)*
    };
}

handles! {
    /// `EGLDeviceEXT`: a GPU or a software renderer.
    DeviceHandle
    /// `EGLDisplay`: the connection to a device.
    Display
    /// `EGLConfig`.
    Config
    /// `EGLContext`.
    ContextHandle
    /// `EGLSurface`.
    Surface
}

/// The error of a failed EGL call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EglError(pub i32);

impl fmt::Display for EglError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = match self.0 {
            khronos_egl::SUCCESS => "no error given",
            khronos_egl::NOT_INITIALIZED => "EGL_NOT_INITIALIZED",
            khronos_egl::BAD_ACCESS => "EGL_BAD_ACCESS",
            khronos_egl::BAD_ALLOC => "EGL_BAD_ALLOC",
            khronos_egl::BAD_ATTRIBUTE => "EGL_BAD_ATTRIBUTE",
            khronos_egl::BAD_CONTEXT => "EGL_BAD_CONTEXT",
            khronos_egl::BAD_CONFIG => "EGL_BAD_CONFIG",
            khronos_egl::BAD_CURRENT_SURFACE => "EGL_BAD_CURRENT_SURFACE",
            khronos_egl::BAD_DISPLAY => "EGL_BAD_DISPLAY",
            khronos_egl::BAD_SURFACE => "EGL_BAD_SURFACE",
            khronos_egl::BAD_MATCH => "EGL_BAD_MATCH",
            khronos_egl::BAD_PARAMETER => "EGL_BAD_PARAMETER",
            khronos_egl::CONTEXT_LOST => "EGL_CONTEXT_LOST",
            other => return write!(f, "EGL error {other:#06x}"),
        };
        f.write_str(name)
    }
}

/// The result of an EGL call.
pub type EglResult<T> = Result<T, EglError>;

/// The EGL calls that Sparkle uses.
pub trait Egl: Send + Sync {
    /// `eglQueryString`; without a display it queries the client library.
    fn query_string(&self, display: Option<Display>, name: i32) -> Option<String>;
    /// `eglQueryDeviceAttribEXT`; needs `EGL_EXT_device_query` and the attribute's extension.
    fn query_device_attribute(&self, _device: DeviceHandle, _name: i32) -> Option<isize> {
        None
    }
    /// `eglQueryDevicesEXT`; needs `EGL_EXT_device_enumeration`.
    fn query_devices(&self) -> EglResult<Vec<DeviceHandle>>;
    /// `eglQueryDeviceStringEXT`; drivers may return none.
    fn query_device_string(&self, device: DeviceHandle, name: i32) -> Option<String>;
    /// `eglGetPlatformDisplayEXT`; needs the platform's extension.
    fn platform_display(&self, platform: u32, device: Option<DeviceHandle>) -> EglResult<Display>;
    /// `eglGetDisplay(EGL_DEFAULT_DISPLAY)`.
    fn default_display(&self) -> EglResult<Display>;
    /// `eglInitialize`: major and minor version.
    fn initialize(&self, display: Display) -> EglResult<(i32, i32)>;
    /// `eglBindAPI(EGL_OPENGL_API)`, for the calling thread.
    fn bind_opengl(&self) -> EglResult<()>;
    /// `eglChooseConfig`: the first configuration that fits.
    fn choose_config(&self, display: Display, attributes: &[i32]) -> EglResult<Option<Config>>;
    /// `eglCreateContext`.
    fn create_context(
        &self,
        display: Display,
        config: Option<Config>,
        share: Option<ContextHandle>,
        attributes: &[i32],
    ) -> EglResult<ContextHandle>;
    /// `eglDestroyContext`.
    fn destroy_context(&self, display: Display, context: ContextHandle);
    /// `eglCreatePbufferSurface`.
    fn create_pbuffer(
        &self,
        display: Display,
        config: Option<Config>,
        attributes: &[i32],
    ) -> EglResult<Surface>;
    /// `eglDestroySurface`.
    fn destroy_surface(&self, display: Display, surface: Surface);
    /// `eglMakeCurrent` on the calling thread. Without a context it unbinds the current one.
    fn make_current(
        &self,
        display: Display,
        surface: Option<Surface>,
        context: Option<ContextHandle>,
    ) -> EglResult<()>;
    /// `eglGetCurrentContext` of the calling thread.
    fn current_context(&self) -> Option<ContextHandle>;
    /// `eglReleaseThread`: EGL forgets the calling thread.
    fn release_thread(&self);
    /// Loads the GL calls for the calling thread's current context.
    ///
    /// # Errors
    /// Names a missing entry point.
    fn load_gl(&self) -> Result<Box<dyn Api>, String>;
}

// Returns a pointer that may be null. khronos-egl declares it as a function pointer, which must not be null.
type GetProcAddress = unsafe extern "system" fn(*const c_char) -> *const c_void;
type QueryDevices = unsafe extern "system" fn(Int, *mut *mut c_void, *mut Int) -> Boolean;
type QueryDeviceString = unsafe extern "system" fn(*mut c_void, Int) -> *const c_char;
type QueryDeviceAttribute = unsafe extern "system" fn(*mut c_void, Int, *mut isize) -> Boolean;
type GetPlatformDisplay = unsafe extern "system" fn(u32, *mut c_void, *const Int) -> *mut c_void;

/// libEGL.
pub struct NativeEgl {
    table: Dynamic<Library, EGL1_4>,
    get_proc_address: GetProcAddress,
    query_devices: Option<QueryDevices>,
    query_device_string: Option<QueryDeviceString>,
    query_device_attribute: Option<QueryDeviceAttribute>,
    get_platform_display: Option<GetPlatformDisplay>,
}

/// Names of libEGL: of the runtime package, then of the development package.
const LIBRARIES: [&str; 2] = ["libEGL.so.1", "libEGL.so"];

/// libEGL, loaded at the first call and never unloaded; or the reason why it cannot be loaded.
pub fn native() -> Result<Arc<dyn Egl>, String> {
    static EGL: OnceLock<Result<Arc<dyn Egl>, String>> = OnceLock::new();
    EGL.get_or_init(|| {
        if is_static() {
            return Err(
                "this program is linked statically, so that no driver can be loaded into it".to_owned()
            );
        }
        load(&LIBRARIES)
    })
    .clone()
}

/// Whether the program has no dynamic linker, as with `-static` and `-static-pie`. Loaded libraries would bring a
/// second C library into the process, and drivers crash in it.
#[cfg(target_os = "linux")]
fn is_static() -> bool {
    #[cfg(target_pointer_width = "32")]
    use libc::Elf32_Phdr as Header;
    #[cfg(target_pointer_width = "64")]
    use libc::Elf64_Phdr as Header;
    // SAFETY: no preconditions. Values that the kernel does not provide are 0.
    let [headers, count, size] =
        [libc::AT_PHDR, libc::AT_PHNUM, libc::AT_PHENT].map(|what| unsafe { libc::getauxval(what) } as usize);
    if headers == 0 || count == 0 || size != size_of::<Header>() {
        return false;
    }
    // SAFETY: these are the program's own headers. Type and number match what the kernel says, and they stay mapped
    // as long as the program runs.
    let headers =
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<Header>(headers), count) };
    headers.iter().all(|header| header.p_type != libc::PT_INTERP)
}

#[cfg(not(target_os = "linux"))]
fn is_static() -> bool {
    false
}

/// Loads the first of `libraries` that exists.
pub fn load(libraries: &[&str]) -> Result<Arc<dyn Egl>, String> {
    NativeEgl::load(libraries).map(|egl| Arc::new(egl) as Arc<dyn Egl>)
}

impl NativeEgl {
    fn load(libraries: &[&str]) -> Result<Self, String> {
        // SAFETY: libEGL is a system library whose initialisers may run at any time and on any thread.
        let mut tried = libraries.iter().map(|name| unsafe { Library::new(name) });
        let first = tried.next().expect("libEGL has a name");
        // The error for the runtime package's name is the useful one.
        let library = first
            .or_else(|error| tried.find_map(Result::ok).ok_or(error))
            .map_err(|error| format!("no EGL library: {error}"))?;
        // SAFETY: this is the C prototype of the function of this name.
        let get_proc_address = *unsafe { library.get::<GetProcAddress>(b"eglGetProcAddress\0") }
            .map_err(|error| format!("the EGL library is broken: {error}"))?;
        // SAFETY: the library under this name implements EGL.
        let table = unsafe { Dynamic::<_, EGL1_4>::load_required(library) }
            .map_err(|error| format!("the EGL library is too old: {error}"))?;
        let find = |name: &CStr| {
            // SAFETY: the name is a C string.
            let address = unsafe { get_proc_address(name.as_ptr()) };
            (!address.is_null()).then_some(address)
        };
        // The four transmutes below are sound: the address is that of the EGL function of this name, and the type is
        // its C prototype.
        let query_devices = find(c"eglQueryDevicesEXT").map(|address| {
            // SAFETY: address and type match, as said above.
            unsafe { std::mem::transmute::<*const c_void, QueryDevices>(address) }
        });
        let query_device_string = find(c"eglQueryDeviceStringEXT").map(|address| {
            // SAFETY: address and type match, as said above.
            unsafe { std::mem::transmute::<*const c_void, QueryDeviceString>(address) }
        });
        let query_device_attribute = find(c"eglQueryDeviceAttribEXT").map(|address| {
            // SAFETY: address and type match, as said above.
            unsafe { std::mem::transmute::<*const c_void, QueryDeviceAttribute>(address) }
        });
        let get_platform_display = find(c"eglGetPlatformDisplayEXT").map(|address| {
            // SAFETY: address and type match, as said above.
            unsafe { std::mem::transmute::<*const c_void, GetPlatformDisplay>(address) }
        });
        Ok(NativeEgl {
            table,
            get_proc_address,
            query_devices,
            query_device_string,
            query_device_attribute,
            get_platform_display,
        })
    }

    /// The calling thread's last error.
    fn error(&self) -> EglError {
        // SAFETY: no preconditions.
        EglError(unsafe { self.table.eglGetError() })
    }

    fn check(&self, success: Boolean) -> EglResult<()> {
        if success == khronos_egl::TRUE { Ok(()) } else { Err(self.error()) }
    }

    fn not_null(&self, handle: *mut c_void) -> EglResult<usize> {
        if handle.is_null() { Err(self.error()) } else { Ok(handle as usize) }
    }
}

fn pointer(handle: Option<usize>) -> *mut c_void {
    handle.unwrap_or(0) as *mut c_void
}

/// A copy of a string that EGL owns.
///
/// # Safety
/// `text` is null or a C string.
unsafe fn copied(text: *const c_char) -> Option<String> {
    // SAFETY: not null here; the rest is the caller's contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Calls an EGL entry point.
macro_rules! call {
    ($call:expr) => {{
        // SAFETY: handles come from EGL or are none; EGL answers dead ones with an error. The callers' constants end
        // attribute lists with EGL_NONE. Output pointers are to variables that outlive the call.
        unsafe { $call }
    }};
}

impl Egl for NativeEgl {
    fn query_string(&self, display: Option<Display>, name: i32) -> Option<String> {
        call!(copied(self.table.eglQueryString(pointer(display.map(|it| it.0)), name)))
    }

    fn query_devices(&self) -> EglResult<Vec<DeviceHandle>> {
        let missing = EglError(khronos_egl::BAD_DISPLAY);
        let query_devices = self.query_devices.ok_or(missing)?;
        let mut count = 0;
        self.check(call!(query_devices(0, std::ptr::null_mut(), &mut count)))?;
        let mut devices = vec![std::ptr::null_mut(); count.max(0) as usize];
        self.check(call!(query_devices(count, devices.as_mut_ptr(), &mut count)))?;
        devices.truncate(count.max(0) as usize);
        Ok(devices.into_iter().map(|device| DeviceHandle(device as usize)).collect())
    }

    fn query_device_string(&self, device: DeviceHandle, name: i32) -> Option<String> {
        let query_device_string = self.query_device_string?;
        call!(copied(query_device_string(pointer(Some(device.0)), name)))
    }

    fn query_device_attribute(&self, device: DeviceHandle, name: i32) -> Option<isize> {
        let (query, mut value) = (self.query_device_attribute?, 0);
        let is_known = call!(query(pointer(Some(device.0)), name, &mut value)) == khronos_egl::TRUE;
        is_known.then_some(value)
    }

    fn platform_display(&self, platform: u32, device: Option<DeviceHandle>) -> EglResult<Display> {
        let get = self.get_platform_display.ok_or(EglError(khronos_egl::BAD_PARAMETER))?;
        let display = call!(get(platform, pointer(device.map(|it| it.0)), std::ptr::null()));
        self.not_null(display).map(Display)
    }

    fn default_display(&self) -> EglResult<Display> {
        self.not_null(call!(self.table.eglGetDisplay(khronos_egl::DEFAULT_DISPLAY))).map(Display)
    }

    fn initialize(&self, display: Display) -> EglResult<(i32, i32)> {
        let (mut major, mut minor) = (0, 0);
        self.check(call!(self.table.eglInitialize(pointer(Some(display.0)), &mut major, &mut minor)))?;
        Ok((major, minor))
    }

    fn bind_opengl(&self) -> EglResult<()> {
        self.check(call!(self.table.eglBindAPI(khronos_egl::OPENGL_API)))
    }

    fn choose_config(&self, display: Display, attributes: &[i32]) -> EglResult<Option<Config>> {
        debug_assert_eq!(attributes.last(), Some(&NONE));
        let (mut config, mut count) = (std::ptr::null_mut(), 0);
        let (display, list) = (pointer(Some(display.0)), attributes.as_ptr());
        self.check(call!(self.table.eglChooseConfig(display, list, &mut config, 1, &mut count)))?;
        Ok((count > 0).then_some(Config(config as usize)))
    }

    fn create_context(
        &self,
        display: Display,
        config: Option<Config>,
        share: Option<ContextHandle>,
        attributes: &[i32],
    ) -> EglResult<ContextHandle> {
        debug_assert_eq!(attributes.last(), Some(&NONE));
        let (display, config) = (pointer(Some(display.0)), pointer(config.map(|it| it.0)));
        let share = pointer(share.map(|it| it.0));
        let context = call!(self.table.eglCreateContext(display, config, share, attributes.as_ptr()));
        self.not_null(context).map(ContextHandle)
    }

    fn destroy_context(&self, display: Display, context: ContextHandle) {
        call!(self.table.eglDestroyContext(pointer(Some(display.0)), pointer(Some(context.0))));
    }

    fn create_pbuffer(
        &self,
        display: Display,
        config: Option<Config>,
        attributes: &[i32],
    ) -> EglResult<Surface> {
        debug_assert_eq!(attributes.last(), Some(&NONE));
        let (display, config) = (pointer(Some(display.0)), pointer(config.map(|it| it.0)));
        let surface = call!(self.table.eglCreatePbufferSurface(display, config, attributes.as_ptr()));
        self.not_null(surface).map(Surface)
    }

    fn destroy_surface(&self, display: Display, surface: Surface) {
        call!(self.table.eglDestroySurface(pointer(Some(display.0)), pointer(Some(surface.0))));
    }

    fn make_current(
        &self,
        display: Display,
        surface: Option<Surface>,
        context: Option<ContextHandle>,
    ) -> EglResult<()> {
        let (display, surface) = (pointer(Some(display.0)), pointer(surface.map(|it| it.0)));
        let context = pointer(context.map(|it| it.0));
        self.check(call!(self.table.eglMakeCurrent(display, surface, surface, context)))
    }

    fn current_context(&self) -> Option<ContextHandle> {
        let context = call!(self.table.eglGetCurrentContext());
        (!context.is_null()).then_some(ContextHandle(context as usize))
    }

    fn release_thread(&self) {
        call!(self.table.eglReleaseThread());
    }

    fn load_gl(&self) -> Result<Box<dyn Api>, String> {
        let load = |name: &CStr| call!((self.get_proc_address)(name.as_ptr()));
        // SAFETY: `Context` has made a GL 4.3 core context current on this thread and keeps it current while it uses
        // the result, and `load` is EGL's own loader.
        Ok(Box::new(unsafe { Native::load(&load)? }))
    }
}
