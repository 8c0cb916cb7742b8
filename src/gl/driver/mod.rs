//! The driver: EGL, OpenGL and the objects that live in it.
//!
//! Every module of `gl` may use it. It calls the driver's libraries, and knows neither convolutions nor plans.

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
pub mod workarounds;
