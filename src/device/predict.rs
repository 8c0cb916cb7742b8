//! What a call is predicted to take, and what a failure means for it.

use std::sync::Arc;

use crate::backend::{Backend, PipelineOptions};
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::roofline::{self, Work};
use crate::problem::{Conv2d, Gemm};

/// The work of one run of a plan. The weights are already on the device.
pub fn conv2d_work(problem: &Conv2d) -> Work {
    Work {
        flops: problem.flops(),
        bytes: problem.bytes(),
        upload: 4 * problem.input_len() as u64,
        download: 4 * problem.output_len() as u64,
    }
}

/// The work of a product whose matrices are the host's.
pub fn product_work(problem: &Gemm) -> Work {
    let [a, b, c] = problem.lens().map(|len| 4 * len as u64);
    let upload = a + b + if problem.beta() == 0.0 { 0 } else { c };
    Work { flops: problem.flops(), bytes: problem.bytes(), upload, download: c }
}

/// The predicted seconds of one run of a plan for `problem` on `backend`.
///
/// # Errors
/// If the device could not be measured.
pub fn conv2d_seconds(backend: &dyn Backend, problem: &Conv2d) -> Result<f64> {
    Ok(work_seconds(backend, problem, &backend.hierarchy()?, conv2d_work(problem)))
}

/// The predicted seconds of a call for `problem` that is this much work.
pub fn work_seconds(backend: &dyn Backend, problem: &Conv2d, hierarchy: &Hierarchy, work: Work) -> f64 {
    if !backend.streams(problem) {
        return roofline::seconds(hierarchy, work);
    }
    let images = PipelineOptions::of_calls().images_each(problem, usize::MAX);
    roofline::streamed_seconds(hierarchy, work, problem.sizes().n.div_ceil(images.max(1)))
}

/// Logs the fallback to the CPU and returns its reason.
///
/// # Errors
/// `error` itself if it is not a device failure, because the CPU would fail as well.
pub fn fall_back(gpu: &Arc<dyn Backend>, error: crate::Error) -> Result<Arc<str>> {
    if !error.is_device_failure() {
        return Err(error);
    }
    crate::log::warning!("{} failed, the CPU takes over: {error}", gpu.id());
    Ok(error.to_string().into())
}
