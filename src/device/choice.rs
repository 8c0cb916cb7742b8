//! The choice among engines: the fastest by prediction, and the CPU after a GPU has failed.

use std::sync::Arc;

use super::multi::Multi;
use crate::backend::{Backend, PipelineOptions};
use crate::error::Result;
use crate::memory::Hierarchy;
use crate::memory::roofline::{self, Work};
use crate::problem::Conv2d;

/// The engines of a device.
#[derive(Clone)]
pub enum EngineChoice {
    /// Chosen by name: its errors are returned to the caller.
    Fixed(Arc<dyn Backend>),
    /// The CPU and all hardware GPUs.
    Auto { cpu: Arc<dyn Backend>, gpus: Vec<Arc<dyn Backend>> },
    /// Several devices that share the work of each call.
    Multi(Arc<Multi>),
}

/// The work of one run of a plan. The weights are already on the device.
pub fn conv2d_work(problem: &Conv2d) -> Work {
    Work {
        flops: problem.flops(),
        bytes: problem.bytes(),
        upload: 4 * problem.input_len() as u64,
        download: 4 * problem.output_len() as u64,
    }
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

/// [`fastest`] for a run of a plan for `problem`.
pub fn fastest_for<'a>(
    cpu: &Arc<dyn Backend>,
    gpus: &'a [Arc<dyn Backend>],
    problem: &Conv2d,
) -> Option<&'a Arc<dyn Backend>> {
    fastest_by(cpu, gpus, |backend| conv2d_seconds(&**backend, problem))
}

/// The GPU with the shortest predicted time for `work`; `None` if the CPU is at least as fast.
pub fn fastest<'a>(
    cpu: &Arc<dyn Backend>,
    gpus: &'a [Arc<dyn Backend>],
    work: Work,
) -> Option<&'a Arc<dyn Backend>> {
    fastest_by(cpu, gpus, |backend| Ok(roofline::seconds(&backend.hierarchy()?, work)))
}

fn fastest_by<'a>(
    cpu: &Arc<dyn Backend>,
    gpus: &'a [Arc<dyn Backend>],
    seconds: impl Fn(&Arc<dyn Backend>) -> Result<f64>,
) -> Option<&'a Arc<dyn Backend>> {
    let predict = |backend: &Arc<dyn Backend>| match seconds(backend) {
        Ok(seconds) => seconds,
        Err(error) => {
            crate::log::warning!("auto: {} is skipped: {error}", backend.id());
            f64::INFINITY
        }
    };
    let timed = gpus.iter().map(|gpu| (predict(gpu), gpu));
    let (gpu_seconds, gpu) = timed.min_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let cpu_seconds = predict(cpu);
    crate::log::debug!(
        "auto: cpu {:.3} ms, {} {:.3} ms predicted",
        cpu_seconds * 1e3,
        gpu.id(),
        gpu_seconds * 1e3
    );
    (gpu_seconds < cpu_seconds).then_some(gpu)
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
