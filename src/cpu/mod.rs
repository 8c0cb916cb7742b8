//! Layer 5: the CPU engine.
//!
//! It computes convolutions and matrix products on this machine's CPU. `src/device` and `src/lib.rs` call it, through
//! [`open`] and the functions below. It touches the caller's buffers, its own threads and workspaces, the system's
//! description of the CPU, and the store of measurements.
//!
//! | file | what | reads |
//! | --- | --- | --- |
//! | `engine` | the backend: chooses an algorithm for each call | all below |
//! | `autotune` | measures the best predicted candidates | `direct`, `winograd` |
//! | `direct` | algorithms that multiply input by weights directly: chooses one of the next three | |
//! | `conv2d/` | implicit GEMM, from `implicit_im2col` (images in place) or `im2col` (packed panels) | `block`, `pack`, `feeding` |
//! | `feeding` | measured rates that say whether a strip packs its panel of B | `rates/` |
//! | `channels_last/` | images in NHWC, and mixtures of both orders | `im2col` |
//! | `turned` | maps of one column, computed as a row | |
//! | `grouped/` | depthwise, grouped and shallow convolutions | |
//! | `dot_conv` | few pixels with deep sums, as dot products | |
//! | `winograd/` | Winograd's algorithm for 3x3 kernels | |
//! | `kernel/` | kernels of the kernel language | |
//! | `product`, `gemm/` | matrix products | `block`, `pack` |
//! | `plan` | block sizes for this CPU | [`crate::memory::blocking`] |
//! | `block`, `pack` | the loop around the register tile; packing | `kernels` |
//! | `kernels/` | micro-kernels: the register tile | |
//! | `isa` | which kernels this CPU can run | |
//! | `pool`, `workers`, `lent`, `process_lock` | threads: the library's own, or a lent rayon pool | |
//! | `buffer` | aligned memory, reused between calls | |
//! | `resident` | buffers of programs | `buffer` |
//! | `tunables` | every number chosen for speed | |
//! | `caches`, `calibrate`, `describe` | the CPU as described and as measured | `rates/` |
//! | `ceilings`, `peak`, `reads` | what no program on this CPU exceeds | `rates/` |
//! | `rates/`, `call_watch` | measurements that are kept, improved and made again; calls that contradict them | |
//!
//! Sums are in fp32, in an order that depends on the problem alone: the bits are the same with any number of threads.
//! The engine runs in the library's floating-point environment ([`crate::float_env`]) and treats NaN, infinity and
//! denormals as IEEE 754 says (`docs/numbers.md`). `docs/cpu.md` explains the engine in two pages.

mod autotune;
mod block;
mod buffer;
mod caches;
mod calibrate;
mod call_watch;
mod ceilings;
mod channels_last;
mod conv2d;
mod describe;
mod direct;
mod dot_conv;
mod engine;
mod feeding;
mod gemm;
mod grouped;
mod im2col;
mod implicit_im2col;
mod isa;
mod kernel;
mod kernels;
#[cfg(feature = "rayon")]
mod lent;
mod pack;
#[cfg(feature = "patterns")]
pub mod patterns;
mod peak;
mod plan;
mod pool;
mod process_lock;
mod product;
mod rates;
mod reads;
mod resident;
#[cfg(test)]
mod special_values;
#[cfg(test)]
mod tests;
mod tunables;
mod turned;
mod winograd;
mod workers;

pub use describe::{describe, measurements};
pub use engine::open;
pub use kernel::{Checked, Coverage, check as check_kernel};
#[cfg(feature = "rayon")]
pub use pool::{end_rayon_loan, lend_rayon_pool};
pub use pool::{num_threads, set_num_threads, with_threads};
pub use rates::{MeasuredRate, Measurements};

/// Ends the pool after the last call that uses it. The next call starts another one.
pub fn shutdown() {
    pool::shutdown();
    clear();
}

/// Frees what the calling thread keeps between calls.
fn clear() {
    product::clear();
    winograd::clear();
    conv2d::clear();
    turned::clear();
}

/// Registers the calling thread's destructors now. That takes the dynamic loader's lock, which later calls then do not
/// need.
pub fn prepare_thread() {
    clear();
    pool::clear();
    direct::clear();
}
