//! The choice among engines: the fastest by prediction.

use std::sync::Arc;

use super::multi::Multi;
use super::predict::conv2d_seconds;
pub use super::predict::fall_back;
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
    /// Several devices that share the work of each call.
    Multi(Arc<Multi>),
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
