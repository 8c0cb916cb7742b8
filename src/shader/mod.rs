//! Layer 3: GLSL kernels and the choice among them, as pure functions: problem and device limits in, text out.
//!
//! The GPU engine, the C interface and the command line call it. It uses only `problem`, `memory`, `kernel`, `allocate`,
//! `error` and `store::hash`: no OpenGL, no files, no clock.
//!
//! - [`source`](mod@source): fixed kernels.
//! - [`variant`](mod@variant): ways to compute a convolution, ranked by predicted time.
//! - [`pass_plan`](mod@pass_plan): the passes and the generated GLSL of a variant.
//! - [`epilogue`](mod@epilogue): epilogues of the kernel language in these texts.
//! - [`iterations`](mod@iterations): loop iterations of each kernel, for drivers that limit them.
//! - [`tuner`](mod@tuner): the policy that finds the fastest variant on a device.
//! - [`single`](mod@single): one-pass kernels that other programs compile themselves.
//! - `cases`: problems for correctness tests, with the feature `lab`.

#[cfg(any(test, feature = "lab"))]
pub mod cases;
pub mod epilogue;
pub mod iterations;
pub mod pass_plan;
pub mod single;
pub mod source;
pub mod tuner;
pub mod variant;
