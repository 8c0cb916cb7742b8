//! A convolution on a context: prepared once, run any number of times.
//!
//! Plans, one-shot calls, pipelines, the tuner and the reference interface use it. It builds programs and submits work
//! through `execution`. It touches neither the store nor threads.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `prepared` | [`Convolution`]: weights on the device and the kernel; start here |
//! | `generated`, `fallback` | the two kinds of kernels |
//! | `choice` | the planner's choice, as a recipe carries it |
//! | `buffered` | a convolution with buffers of its own, for calls from ordinary memory |
//! | `limits`, `pacing` | block indices and sizes that fit; what is expected of a convolution |
//! | `queue` | many small convolutions in one dispatch |

pub mod buffered;
mod choice;
pub mod fallback;
mod generated;
mod limits;
mod pacing;
mod prepared;
pub mod queue;

pub use buffered::Buffered;
pub use choice::Chosen;
pub use limits::{INPUT, OUTPUT, PARAMS, WEIGHTS, images_at_once};
pub use pacing::Pacing;
pub use prepared::{Convolution, Images};
