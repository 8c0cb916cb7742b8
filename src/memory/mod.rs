//! Layer 2: devices as numbers, and the plans that follow from them. Every layer above may use it. It uses only
//! `problem`: no I/O, no handles, no state.
//!
//! A device is its [`Hierarchy`], which a backend measures. No program exceeds its [`ceilings`]. [`roofline`] predicts
//! times from the hierarchy, `shares` cuts work for several devices, `blocking` and `winograd` choose block sizes for
//! caches, `tile` register tiles for registers, [`tiles`] workgroup tiles for a GPU, [`plan`] users'
//! own loops. `costs` holds the constants of
//! their models.

pub(crate) mod blocking;
pub mod ceilings;
pub(crate) mod costs;
pub(crate) mod dot_conv;
pub(crate) mod feeding;
mod hierarchy;
pub(crate) mod implicit_im2col;
pub mod loops;
#[cfg(any(test, feature = "patterns"))]
pub mod patterns;
pub mod roofline;
pub(crate) mod shares;
pub(crate) mod tile;
pub mod tiles;
pub(crate) mod winograd;

pub use ceilings::{Ceiling, Ceilings, Reads};
pub use hierarchy::{Caches, Hierarchy, Registers};
pub use loops::{LoopPlan, Loops, Stencil, StencilShape, plan};
