//! Layer 6: which devices there are, which one a call gets, and what happens when it fails.
//!
//! This is the only layer that knows which engines exist. A [`Device`] is either one engine, as asked for by name, or
//! `auto`: the engine predicted fastest for each problem, with the CPU standing in when a GPU fails.

pub(crate) mod architecture;
mod call;
mod discovery;
mod jobs;
mod pipeline;
mod plan;
pub(crate) mod reference;
mod serial;
pub(crate) mod tuning_history;

use std::sync::Arc;

use crate::backend::Backend;
pub use crate::backend::{Contexts, Order, PipelineOptions, Pressure, Run, Ticket};
use crate::error::Result;
use crate::float_env::FloatEnv;
use crate::memory::roofline::{self, Work};
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;

pub use architecture::{Architecture, Vendor};
pub(crate) use discovery::found;
pub use discovery::{DeviceInfo, DeviceKind, devices};
pub use pipeline::{Done, Finished, Pipeline, PipelineSlot, Scope, ScopedTicket, SlotTicket, Submitted};
pub use plan::Conv2dPlan;

/// An opened device. Cheap to clone; may be used from any number of threads at once.
#[derive(Clone)]
pub struct Device {
    choice: Choice,
}

#[derive(Clone)]
enum Choice {
    /// Asked for by name: its errors are the caller's to see.
    Fixed(Arc<dyn Backend>),
    /// The CPU and all hardware GPUs.
    Auto { cpu: Arc<dyn Backend>, gpus: Vec<Arc<dyn Backend>> },
}

/// What one engine is predicted to need for a problem, transfers included: what `auto` decides by.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The engine's device id.
    pub device: String,
    /// Seconds; or why the device could not be measured, so that it is passed over.
    pub seconds: Result<f64>,
}

impl Device {
    /// Opens a device: `auto`, `cpu`, `gl:N` (N counts the usable GL devices that [`devices`] lists) or `name=TEXT` (the first
    /// usable device whose name contains TEXT, in any case).
    ///
    /// `auto` means what `SPARKLE_DEVICE` says, or else: for each problem, the device predicted fastest, transfers
    /// included (with `SPARKLE_DETERMINISTIC=1` the CPU); software GL never; and if a GPU fails, the CPU does the work, the reason standing in [`Run::fallback`].
    /// A device asked for by name does not fall back: its errors are returned. One exception: where a GPU is lost for good in the middle of
    /// a large convolution, whose output has begun to arrive, the CPU computes it whole, and [`Run::fallback`](crate::Run) says so.
    ///
    /// # Errors
    /// [`Error::NoDevice`](crate::Error::NoDevice) with the reason, or [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a selector that is none.
    pub fn open(selector: &str) -> Result<Self> {
        let _library = FloatEnv::enter();
        discovery::open(selector).map(|choice| Device { choice })
    }

    /// The id: `auto`, `cpu`, `gl:0`.
    pub fn id(&self) -> &str {
        match &self.choice {
            Choice::Fixed(backend) => backend.id(),
            Choice::Auto { .. } => "auto",
        }
    }

    /// The engines this device chooses among and the time each is predicted to need for `problem`, the CPU first: none for an
    /// empty batch. The first call measures the engines, for some tens of milliseconds each.
    pub fn predictions(&self, problem: &Conv2d) -> Vec<Prediction> {
        let _library = FloatEnv::enter();
        let backends = match &self.choice {
            Choice::Fixed(backend) => vec![backend],
            Choice::Auto { cpu, gpus } => std::iter::once(cpu).chain(gpus).collect(),
        };
        let seconds = |backend: &Arc<dyn Backend>| match problem.is_empty() {
            true => Ok(0.0),
            false => Ok(roofline::seconds(&backend.hierarchy()?, conv2d_work(problem))),
        };
        let predict = |backend: &Arc<dyn Backend>| Prediction {
            device: backend.id().to_owned(),
            seconds: seconds(backend),
        };
        backends.into_iter().map(predict).collect()
    }

    /// The engine that is asked first: the CPU where there is a choice.
    fn first(&self) -> &Arc<dyn Backend> {
        match &self.choice {
            Choice::Fixed(backend) => backend,
            Choice::Auto { cpu, .. } => cpu,
        }
    }

    /// Prepares a convolution whose weights stay the same: run it any number of times. A plan for an empty batch holds nothing,
    /// and its runs do nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for buffers of the wrong length; else what the device failed to do.
    pub fn plan(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Conv2dPlan> {
        let _library = FloatEnv::enter();
        problem.check_weights(weights, bias)?;
        if problem.is_empty() {
            return Ok(Conv2dPlan::of_nothing(self.first(), problem));
        }
        match &self.choice {
            Choice::Fixed(backend) => Conv2dPlan::fixed(backend, problem, weights, bias),
            Choice::Auto { cpu, gpus } => match fastest(cpu, gpus, conv2d_work(problem)) {
                Some(gpu) => Conv2dPlan::with_fallback(gpu, cpu, problem, weights, bias),
                None => Conv2dPlan::fixed(cpu, problem, weights, bias),
            },
        }
    }

    /// A stream of jobs on this device: uploads, computations and downloads overlap. `auto` streams through its first GPU that
    /// can; plans that are the CPU's, and those of a device without such a stream, are computed in order on a thread.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for options that make no sense; else what the device failed to do.
    pub fn pipeline(&self, options: PipelineOptions) -> Result<Pipeline> {
        let _library = FloatEnv::enter();
        match &self.choice {
            Choice::Fixed(backend) => Pipeline::new(&[backend], options),
            Choice::Auto { gpus, .. } => Pipeline::new(&gpus.iter().collect::<Vec<_>>(), options),
        }
    }

    /// Computes one convolution: a plan used once. An empty batch is done at once: no kernel runs, and all times are zero.
    ///
    /// # Errors
    /// As [`Device::plan`]; `output` is untouched then.
    pub fn conv2d(
        &self,
        problem: &Conv2d,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.conv2d_inside(problem, input, (weights, bias), output)
    }

    /// [`Device::conv2d`] for a caller that is in the library's floating-point environment already.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn conv2d_inside(
        &self,
        problem: &Conv2d,
        input: &[f32],
        (weights, bias): (&[f32], Option<&[f32]>),
        output: &mut [f32],
    ) -> Result<Run> {
        problem.check_data(input, output)?;
        problem.check_weights(weights, bias)?;
        if problem.is_empty() {
            let device = self.first().shared_id();
            return Ok(Run {
                device,
                kernel: plan::NO_KERNEL.into(),
                timing: Timing::default(),
                fallback: None,
            });
        }
        let problem = problem.once();
        let mut on = |backend: &Arc<dyn Backend>, fallback: Option<Arc<str>>| {
            if backend.streams(&problem) {
                let recipe = backend.recipe(&problem, bias)?;
                let run = call::run(backend, &recipe, Some(weights), input, output)?;
                return Ok(Run { fallback: fallback.or(run.fallback), ..run });
            }
            let (kernel, timing) = backend.conv2d(&problem, (weights, bias), input, output)?;
            Ok(Run { device: backend.id().into(), kernel, timing, fallback })
        };
        match &self.choice {
            Choice::Fixed(backend) => on(backend, None),
            Choice::Auto { cpu, gpus } => match fastest(cpu, gpus, conv2d_work(&problem)) {
                None => on(cpu, None),
                Some(gpu) => on(gpu, None).or_else(|error| on(cpu, Some(fall_back(gpu, error)?))),
            },
        }
    }

    /// Computes C = alpha op(A) op(B) + beta C.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for buffers that are too short; else what the device failed to do. C is untouched then.
    pub fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.sgemm_inside(problem, a, b, c)
    }

    /// [`Device::sgemm`] for a caller that is in the library's floating-point environment already.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn sgemm_inside(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<Run> {
        problem.check_data(a, b, c)?;
        let mut on = |backend: &Arc<dyn Backend>, fallback: Option<Arc<str>>| {
            let (kernel, timing) = backend.sgemm(problem, a, b, c)?;
            Ok(Run { device: backend.shared_id(), kernel, timing, fallback })
        };
        match &self.choice {
            Choice::Fixed(backend) => on(backend, None),
            Choice::Auto { cpu, gpus } => {
                let [a_len, b_len, c_len] = problem.lens().map(|len| 4 * len as u64);
                let upload = a_len + b_len + if problem.beta() == 0.0 { 0 } else { c_len };
                let work = Work { flops: problem.flops(), bytes: problem.bytes(), upload, download: c_len };
                match fastest(cpu, gpus, work) {
                    None => on(cpu, None),
                    Some(gpu) => on(gpu, None).or_else(|error| on(cpu, Some(fall_back(gpu, error)?))),
                }
            }
        }
    }
}

/// The work of one call of a plan: weights are on the device already.
fn conv2d_work(problem: &Conv2d) -> Work {
    Work {
        flops: problem.flops(),
        bytes: problem.bytes(),
        upload: 4 * problem.input_len() as u64,
        download: 4 * problem.output_len() as u64,
    }
}

/// The GPU that is predicted to finish `work` before the CPU and all others; `None` if that is the CPU.
fn fastest<'a>(
    cpu: &Arc<dyn Backend>,
    gpus: &'a [Arc<dyn Backend>],
    work: Work,
) -> Option<&'a Arc<dyn Backend>> {
    let predict = |backend: &Arc<dyn Backend>| match backend.hierarchy() {
        Ok(hierarchy) => roofline::seconds(&hierarchy, work),
        Err(error) => {
            crate::log::warning!("{} is passed over: {error}", backend.id());
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

/// Logs why the CPU takes over; returns the reason, or the error itself if no other device could do better.
fn fall_back(gpu: &Arc<dyn Backend>, error: crate::Error) -> Result<Arc<str>> {
    if !error.is_device_failure() {
        return Err(error);
    }
    crate::log::warning!("{} failed, the CPU takes over: {error}", gpu.id());
    Ok(error.to_string().into())
}

#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod tests;
