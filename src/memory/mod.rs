//! Layer 2: what a device can do and what that means for a problem. Pure: no I/O, no handles.
//!
//! A device is nothing but its measured [`Hierarchy`]; [`roofline`] turns a hierarchy and a problem's work into a
//! time, `blocking` turns its caches into block sizes, and `tile` its registers into register tiles. Engines measure their hierarchy, the device layer compares the times.

pub(crate) mod blocking;
pub(crate) mod dot_conv;
mod hierarchy;
pub(crate) mod implicit_im2col;
pub mod roofline;
pub(crate) mod tile;
pub mod tiles;
pub(crate) mod winograd;

pub use hierarchy::{Caches, Hierarchy, Registers};
