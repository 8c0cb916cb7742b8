//! The driver: EGL, OpenGL and the objects that live in it.
//!
//! Everything else in `gl` may use it. It knows no convolution and no plan; it calls the driver's libraries and nothing else.

pub mod api;
pub mod architecture;
pub mod capabilities;
pub mod context;
pub mod egl;
pub mod exit;
pub mod fence;
pub mod forgotten;
pub mod native;
pub mod resource;
