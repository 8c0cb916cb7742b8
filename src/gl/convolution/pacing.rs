//! What is expected of a convolution, and how long its dispatches may be.

use std::time::Duration;

use crate::gl::execution::budget::{DispatchBudget, KernelWork};
use crate::gl::tunables::DISPATCH_TARGET;

/// How long dispatches may be, and how long an image is expected to take.
#[derive(Debug, Clone, Copy)]
pub struct Pacing {
    /// The time that a dispatch should take.
    pub target: Duration,
    /// Seconds that the planner expects an image to take, if it was asked.
    pub image_seconds: Option<f64>,
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing { target: DISPATCH_TARGET, image_seconds: None }
    }
}

impl Pacing {
    /// The budget of `work`, the work of `images` images.
    pub fn budget(&self, work: &KernelWork, images: usize) -> DispatchBudget {
        let seconds = self.image_seconds.map(|it| it * images as f64);
        let rate = seconds.map(|seconds| f64::from(work.units) * work.operations / seconds);
        DispatchBudget::with_target(self.target).expecting(rate)
    }
}
