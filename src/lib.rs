//! fp32 convolution and matrix products on whatever the machine has: any GPU with an OpenGL 4.3 driver, headless
//! through EGL, and the CPU. One description of a problem, one planner, several engines.
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
//! Floors, top to bottom; imports point down only, and no two engines know each other:
//!
//! | floor | what it is |
//! | --- | --- |
//! | `src/bin/sparkle` | the program |
//! | `ffi` | the C ABI: checks pointers, calls the floors below, maps errors; no algorithm |
//! | [`mod@device`] | which devices there are, which one a call gets, what happens when it fails |
//! | `cpu`, `gl` | the engines |
//! | [`backend`] | what an engine implements |
//! | `shader`, [`report`] | GLSL text; times |
//! | [`memory`] | a device as measured rates, and what they mean for a problem |
//! | [`problem`] | validated problems and the float64 oracle |
//!
//! Start with [`problem`], then [`backend`], then `cpu`: the GL engine does the same with more ceremony.
//! `docs/architecture.md` tells it with pictures.

// Test helpers that integration and unit tests share name the crate as a user would.
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
pub use cpu::{num_threads, set_num_threads};
pub use device::{
    Architecture, Contexts, Conv2dPlan, Device, DeviceInfo, DeviceKind, Order, Pipeline, PipelineOptions,
    Prediction, Pressure, Run, Ticket, Vendor, devices,
};
pub use error::{Error, Result};
pub use gl::{baseline, trial};
pub use problem::{Algorithm, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, Transpose};

/// Ends all threads and closes all GPU contexts that nothing refers to any more. Idempotent; Sparkle can be used again.
pub fn finalize() {
    gl::shutdown();
    cpu::shutdown();
}

/// The README's Rust example, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
