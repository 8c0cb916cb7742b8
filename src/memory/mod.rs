//! Layer 2: what a device can do and what that means for a problem. Pure: no I/O, no handles.
//!
//! A device is nothing but its measured [`Hierarchy`]; [`roofline`] turns a hierarchy and a problem's work into a
//! time, and `blocking` turns its caches into block sizes. Engines measure their hierarchy, the device layer compares the times.

pub(crate) mod blocking;
mod hierarchy;
pub mod roofline;
pub mod tiles;

pub use hierarchy::{Caches, Hierarchy};
