//! The device as the planner sees it, and whether what was measured on it still holds.

use crate::config::config;
use crate::error::Result;
use crate::gl::cache;
use crate::gl::convolution::images_at_once;
use crate::gl::driver::context::Context;
use crate::gl::execution::programs::Programs;
use crate::gl::measure::rates;
use crate::log::Level;
use crate::memory::tiles::Gpu;
use crate::problem::Conv2d;
use crate::shader::pass_plan;
use crate::shader::tuner::Entry;
use crate::shader::variant::{self, Variant};

/// Whether a measurement is valid for the present shaders and limits.
pub fn is_sound(problem: &Conv2d, gpu: &Gpu, entry: &Entry) -> bool {
    variant::is_candidate(problem, gpu, &entry.variant)
        && entry.source == source_hash(problem, &entry.variant)
}

/// A hash of the shaders of `variant`, for the problem's class.
pub fn source_hash(problem: &Conv2d, variant: &Variant) -> u64 {
    pass_plan::generate(variant, &cache::class(problem)).map_or(0, |plan| plan.hash())
}

/// The device as the planner sees it, measured at first use.
///
/// # Errors
/// The device's failure.
pub fn gpu(programs: &mut Programs) -> Result<Gpu> {
    if let Some(gpu) = programs.context().group().gpu().get() {
        return Ok(*gpu);
    }
    let capabilities = programs.context().capabilities().clone();
    let limit = programs.context().group().max_iterations();
    let gpu = match config().deterministic {
        // No measurement may decide.
        true => cache::with_limits(Gpu::ASSUMED, &capabilities, limit),
        false => cache::gpu(programs.store(), &capabilities, limit, || rates::measure(programs))?,
    };
    programs.settle()?;
    programs
        .context()
        .note(Level::Debug, format_args!("{}: the planner uses {gpu:?}", programs.context().device()));
    Ok(*programs.context().group().gpu().get_or_init(|| gpu))
}

/// `problem` with at most as many images as the device computes at once.
///
/// # Errors
/// [`Error::Unsupported`] if not even one fits.
pub fn clip_batch(context: &Context, problem: &Conv2d) -> Result<Conv2d> {
    Ok(problem.with_batch(images_at_once(context, problem)?))
}
