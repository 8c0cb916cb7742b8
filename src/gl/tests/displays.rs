//! Two devices on a machine with one: the first device's own display, and Mesa's surfaceless display. They share
//! neither contexts nor objects. Only tests see them as two devices.

use std::sync::Arc;

use super::faulty::{Faults, FaultyEgl, Machine};
use super::first_device;
use crate::gl::device::discovery::discovered;
use crate::gl::device::engine::Engine;
use crate::gl::driver::context::Target;
use crate::gl::driver::egl::{self, Egl};

pub use super::faulty::Fault;
pub use crate::gl::driver::api::OUT_OF_MEMORY;

/// The two devices, `gl:0` and `gl:1`. Calls of the driver of `gl:0` can be made to fail.
pub struct TwoDisplays {
    pub faults: Arc<Faults>,
    pub engines: [Arc<Engine>; 2],
}

impl TwoDisplays {
    /// `None` without a GL device or without such a second display.
    pub fn open() -> Option<Self> {
        let first = first_device()?;
        let native = discovered().unwrap().egl.clone().expect("EGL found the device");
        let extensions = native.query_string(None, egl::EXTENSIONS).unwrap_or_default();
        if !extensions.contains("EGL_MESA_platform_surfaceless") {
            println!("skipped: no second display");
            return None;
        }
        let display = native.platform_display(egl::PLATFORM_SURFACELESS, None).unwrap();
        assert_ne!(display, first.display, "the displays are two");
        let faults = Arc::new(Faults::default());
        let faulty = FaultyEgl {
            inner: native.clone(),
            faults: faults.clone(),
            machine: Machine::default(),
            guards: None,
        };
        let faulty: Arc<dyn Egl> = Arc::new(faulty);
        let engine = |egl: &Arc<dyn Egl>, id, target| Arc::new(Engine::new(egl, id, true, target).unwrap());
        let engines = [engine(&faulty, "gl:0", first), engine(&native, "gl:1", Target { display, ..first })];
        Some(TwoDisplays { faults, engines })
    }
}
