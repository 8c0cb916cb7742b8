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
//! A [`Device`] computes; [`Conv2d`] and [`Gemm`] are validated problems. For several inputs with the same weights, make a
//! [`Conv2dPlan`] once: [`Device::plan`]. Its weights may be replaced ([`Conv2dPlan::set_weights`]). A [`Pipeline`] overlaps
//! transfers with computing, a [`Buffer`] stays on its device, a [`Kernel`] is one's own code, written in Fortran.
//!
//! # Arrays
//!
//! Arrays are slices of `f32` without gaps, by default NCHW: element `[n][c][h][w]` is at `((n*C + c)*H + h)*W + w`. Other
//! orders ([`TensorLayout`], [`WeightsLayout`]) are read and written as they are. An `ndarray` in standard layout is such a
//! slice:
//!
//! ```
//! use ndarray::Array4;
//! use sparkle::{Conv2d, Conv2dDesc, Device};
//! let (input, weights) = (Array4::<f32>::ones((1, 2, 8, 8)), Array4::<f32>::ones((4, 2, 3, 3)));
//! let problem = Conv2d::new(Conv2dDesc { c: 2, h: 8, w: 8, k: 4, r: 3, s: 3, ..Default::default() }.same_padding())?;
//! let mut output = Array4::<f32>::zeros((1, 4, 8, 8));
//! let slices = (input.as_slice().unwrap(), weights.as_slice().unwrap(), output.as_slice_mut().unwrap());
//! Device::open("auto")?.conv2d(&problem, slices.0, slices.1, None, slices.2)?;
//! assert_eq!(output[[0, 3, 4, 4]], 18.0);
//! # Ok::<(), sparkle::Error>(())
//! ```
//!
//! # Errors
//!
//! Every function that can fail returns [`Error`], which names the argument, its value and what was expected. Outputs are
//! written only on success. Nothing panics because of a size, a length or a device.
//!
//! # Threads
//!
//! Any number of threads may use one device or plan. The CPU engine has a pool of its own, which all calls of the process
//! share: no more threads compute at the same time than [`set_num_threads`] asks for. Small calls run on the caller's thread.
//! With the feature `rayon`, `lend_rayon_pool` lends a rayon pool instead. After `fork`, the CPU works in the child; GPUs do
//! not. [`finalize`] ends all threads.
//!
//! # Environment
//!
//! | variable | meaning |
//! | --- | --- |
//! | `SPARKLE_DEVICE` | the device that `auto` means |
//! | `SPARKLE_NUM_THREADS` | threads of the CPU engine; default: `OMP_NUM_THREADS`, else all cores |
//! | `SPARKLE_ISA`, `SPARKLE_ALGORITHM` | instruction set of the CPU kernels; `direct` or `winograd` |
//! | `SPARKLE_DETERMINISTIC` | `1`: no measurement decides what computes |
//! | `SPARKLE_TUNE`, `SPARKLE_CACHE_DIR` | measuring kernels, and where measurements are kept |
//! | `SPARKLE_LOG`, `SPARKLE_LOG_FORMAT` | messages on stderr: [`log`] |
//!
//! README.md lists all. [`config()`] has the values; one that is not understood is ignored, with a warning in the log.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `rayon` | no | `lend_rayon_pool`, `end_rayon_loan` |
//! | `lab` | no | `lab`: timing and checking of shader variants, for benchmarks and tests; no promise of stability |
//!
//! The crate needs no C library at build time: EGL and OpenGL are loaded when they are first needed, and without them the CPU
//! computes.
//!
//! # For those who change Sparkle
//!
//! The modules `backend`, `shader` and `ffi` are public for tests and for the C interface. They may change with every version,
//! and are not shown here. `docs/architecture.md` shows the layers. Start with [`problem`], then `backend`, then `cpu`, which
//! is simpler than the GL engine.

// Test helpers are shared by integration and unit tests, so they refer to the crate by its name.
#[cfg(test)]
extern crate self as sparkle;

mod allocate;
#[doc(hidden)]
pub mod backend;
mod config;
mod cpu;
pub mod device;
mod error;
#[doc(hidden)]
pub mod ffi;
mod float_env;
mod gl;
pub mod kernel;
mod loader;
pub mod log;
pub mod memory;
pub mod problem;
mod process;
pub mod ranks;
pub mod report;
#[doc(hidden)]
pub mod shader;
mod store;
mod thread;

pub use config::{CacheSize, CacheSizes, Config, IgnoredVariable, LogFormat, Tune, config};
pub use cpu::{MeasuredRate, Measurements, measurements, num_threads, set_num_threads};
#[cfg(feature = "rayon")]
pub use cpu::{end_rayon_loan, lend_rayon_pool};
pub use device::{
    Architecture, Arg, Buffer, BufferView, BufferViewMut, Checked, Contexts, Conv2dPlan, Device, DeviceInfo,
    DeviceKind, Epilogue, Kernel, Order, Pipeline, PipelineOptions, Prediction, Run, Ticket, Vendor,
    WhenFull, devices,
};
pub use error::{Error, Result};
#[cfg(feature = "lab")]
pub use gl::lab;
pub use problem::{
    Algorithm, Conv1dDesc, Conv2d, Conv2dDesc, Gemm, GemmDesc, Layout, TensorLayout, Transpose, WeightsLayout,
};

/// The five patterns switched off one by one, for the program and tests: see `docs/patterns.md`.
#[cfg(feature = "patterns")]
pub mod patterns {
    pub use crate::cpu::patterns as cpu;
}

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
