//! fp32 convolution and matrix products on any GPU with an OpenGL 4.3 driver (headless, through EGL) and on the CPU,
//! with one description of a problem for all engines.
//!
//! ```
//! use sparkle::{Conv2d, Conv2dDesc, Device};
//! let problem = Conv2d::new(Conv2dDesc { c: 2, h: 3, w: 3, k: 1, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() })?;
//! let (input, weights) = (vec![1.0; problem.input_len()], vec![1.0; problem.weights_len()]);
//! let mut output = vec![0.0; problem.output_len()];
//! let run = Device::open("auto")?.conv2d(&problem, &input, &weights, None, &mut output)?;
//! assert_eq!(output, [8.0, 12.0, 8.0, 12.0, 18.0, 12.0, 8.0, 12.0, 8.0]);
//! println!("{} on {} took {:?}", run.kernel, run.device, run.timing.wall);
//! # Ok::<(), sparkle::Error>(())
//! ```
//!
//! # Where to start reading
//!
//! The layers, from top to bottom. Imports point downwards only, and no engine imports another:
//!
//! | layer | purpose |
//! | --- | --- |
//! | `program` | the program |
//! | `ffi` | the C ABI: checks pointers, calls the layers below, converts errors; no algorithm |
//! | [`mod@device`] | lists the devices, chooses one for each call, falls back to the CPU |
//! | `cpu`, `gl` | the engines |
//! | [`backend`] | the contract that an engine implements |
//! | `shader`, [`kernel`], [`report`] | GLSL text; the compiler of the kernel language; times and statistics |
//! | [`memory`] | the measured rates of a device, and predictions from them |
//! | [`problem`] | validated problems and the float64 oracle |
//!
//! Start with [`problem`], then [`backend`], then `cpu`, which is simpler than the GL engine. `docs/architecture.md`
//! has diagrams.

// Test helpers are shared by integration and unit tests, so they refer to the crate by its name.
#[cfg(test)]
extern crate self as sparkle;

mod allocate;
pub mod backend;
mod config;
mod cpu;
pub mod device;
mod error;
pub mod ffi;
mod float_env;
mod gl;
pub mod kernel;
mod loader;
pub mod log;
pub mod memory;
pub mod problem;
mod process;
pub mod report;
pub mod shader;
mod store;
mod thread;

pub use config::{Config, Tune, config};
pub use cpu::{MeasuredRate, Measurements, measurements, num_threads, set_num_threads};
#[cfg(feature = "rayon")]
pub use cpu::{end_rayon_loan, lend_rayon_pool};
pub use device::{
    Architecture, Arg, Buffer, BufferView, BufferViewMut, Contexts, Conv2dPlan, Device, DeviceInfo,
    DeviceKind, Kernel, Order, Pipeline, PipelineOptions, Prediction, Run, Ticket, Vendor, WhenFull, devices,
};
pub use error::{Error, Result};
#[cfg(feature = "lab")]
pub use gl::lab;
pub use problem::{Algorithm, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose};

/// Ends all threads and closes all GPU contexts that are no longer in use. Idempotent; Sparkle can be used again
/// afterwards.
pub fn finalize() {
    gl::shutdown();
    cpu::shutdown();
}

/// The README's Rust example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
