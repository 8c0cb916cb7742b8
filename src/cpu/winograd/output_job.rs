//! The arguments of the output transform and of the recomputation by the definition.

use std::ops::Range;

use super::geometry::{Channels, Geometry, Planes};

/// Some tiles of one block of output channels.
pub struct OutputJob<'a> {
    pub geometry: &'a Geometry,
    /// Which tiles, of the block that starts with tile `first`.
    pub tiles: Range<usize>,
    pub first: usize,
    pub channels: Channels,
    /// Products of the block of tiles.
    pub products: &'a [f32],
    pub planes: Planes,
    /// Bias of the block's channels.
    pub bias: &'a [f32],
    pub relu: bool,
    /// All images, and all weights as given: for outputs that are not finite.
    pub input: &'a [f32],
    pub weights: &'a [f32],
    /// All images.
    pub output: *mut f32,
}
