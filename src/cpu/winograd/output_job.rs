//! The arguments of the output transform and of the recomputation by the definition.

use std::ops::Range;

use crate::cpu::kernel::finish::Finish;

use super::geometry::{Channels, Geometry, Planes};

/// Some tiles in one vector of output channels.
pub struct OutputJob<'a> {
    pub geometry: &'a Geometry,
    /// The tiles.
    pub tiles: Range<usize>,
    /// The first tile of their block.
    pub first: usize,
    pub channels: Channels,
    /// Products of the block of tiles.
    pub products: &'a [f32],
    pub planes: Planes,
    /// Bias of these channels.
    pub bias: &'a [f32],
    pub relu: bool,
    /// All images, to recompute outputs that are not finite.
    pub input: &'a [f32],
    /// All original weights, for the same purpose.
    pub weights: &'a [f32],
    /// The outputs of all images.
    pub output: *mut f32,
    /// What finishes them.
    pub finish: Finish,
}
