//! Layer 2: devices as numbers, and the plans that follow from them. Every layer above may use it. It uses only
//! `problem`: no I/O, no handles, no state.
//!
//! A device is its [`Hierarchy`], which a backend measures. [`roofline`] predicts times from it, `shares` cuts work for several
//! devices, `blocking` and
//! `winograd` choose block sizes for its caches, `tile` register tiles for its registers, [`tiles`] workgroup tiles for
//! a GPU. `costs` holds the constants of their models.

pub(crate) mod blocking;
pub(crate) mod costs;
pub(crate) mod dot_conv;
pub(crate) mod feeding;
mod hierarchy;
pub(crate) mod implicit_im2col;
pub mod roofline;
pub(crate) mod shares;
pub(crate) mod tile;
pub mod tiles;
pub(crate) mod winograd;

pub use hierarchy::{Caches, Hierarchy, Registers};
