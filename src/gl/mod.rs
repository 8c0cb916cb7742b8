//! Layer 5: the OpenGL engine. Compute shaders on any GPU with a GL 4.3 driver, headless through EGL.
//!
//! | folder or file | what it holds |
//! | --- | --- |
//! | `driver` | EGL, OpenGL and its objects; what a driver can do; leaving the process |
//! | `execution` | programs, passes of generated shaders, dispatches cut into bounded slices and timed |
//! | `cache`, `tuning_history` | what is kept from run to run: the engine's measurements, and those of programs |
//! | `convolution`, `product` | a convolution prepared on a context; matrix products |
//! | `kernel` | kernels of the kernel language |
//! | `measure` | a device's measured rates and limits |
//! | `tune` | which variant computes a problem, by prediction and by measurement |
//! | `device` | discovery, the engine, its worker thread and its session |
//! | `pipeline` | jobs in flight: upload, compute and download at once |
//! | `reference` | the reference interface, on the caller's own thread |
//! | `experience` | measurements that programs keep of shaders they choose themselves |
//! | `tunables` | every number chosen for speed |
//! | `lab` | timing and checking variants, for benchmarks and tests |
//!
//! `crate::device` opens engines here and calls them through `Backend`. Imports point down the layers that
//! `docs/architecture.md` draws. Modules from `execution` to `tune` work on any thread whose current context is the one
//! that they are handed: the worker's, a pipeline's, or a caller's own in [`reference`](mod@reference).

mod cache;
mod convolution;
mod device;
mod driver;
mod execution;
mod kernel;
#[cfg(feature = "lab")]
pub mod lab;
mod measure;
mod pipeline;
mod product;
pub mod reference;
mod tunables;
mod tune;
pub mod tuning_history;

pub use device::names::{is_name, means};
pub use device::registry::{candidates, gpu, look, open, shutdown};
pub use driver::architecture;

#[cfg(test)]
pub mod tests;
