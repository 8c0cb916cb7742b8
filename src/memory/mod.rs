//! Layer 2: what a device can do and what that means for a problem. Pure: no I/O, no handles.
//!
//! A device is nothing but its measured [`Hierarchy`]; [`roofline`] turns a hierarchy and a problem's work into a
//! time. Engines measure their hierarchy, the device layer compares the times.

mod hierarchy;
pub mod roofline;

pub use hierarchy::Hierarchy;
