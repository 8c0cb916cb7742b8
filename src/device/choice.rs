//! The choice among engines: the fastest by prediction, and the CPU after a GPU has failed.

use std::sync::Arc;

use crate::backend::Backend;
use crate::error::Result;
use crate::memory::roofline::{self, Work};
use crate::problem::Conv2d;

/// The engines of a device.
#[derive(Clone)]
pub enum EngineChoice {
    /// Chosen by name: its errors are returned to the caller.
    Fixed(Arc<dyn Backend>),
    /// The CPU and all hardware GPUs.
    Auto { cpu: Arc<dyn Backend>, gpus: Vec<Arc<dyn Backend>> },
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

/// The GPU with the shortest predicted time for `work`; `None` if the CPU is at least as fast.
pub fn fastest<'a>(
    cpu: &Arc<dyn Backend>,
    gpus: &'a [Arc<dyn Backend>],
    work: Work,
) -> Option<&'a Arc<dyn Backend>> {
    let predict = |backend: &Arc<dyn Backend>| match backend.hierarchy() {
        Ok(hierarchy) => roofline::seconds(&hierarchy, work),
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
