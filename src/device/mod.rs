//! Layer 6: lists the devices, chooses one for each call, and falls back to the CPU when a GPU fails.
//!
//! `ffi`, the program and Rust callers use it. It is the only layer that may use the engines `cpu` and `gl`: through
//! [`backend`](crate::backend), except to list and open devices, and except in `reference`, `architecture` and
//! `tuning_history`, which `ffi` calls because it has no access to the GL engine.
//!
//! A [`Device`] is either one engine that the caller named, or `auto`: for each problem the engine that is predicted
//! fastest, with the CPU as the fallback.

pub(crate) mod architecture;
mod buffer;
mod call;
mod choice;
mod discovery;
mod engine_plan;
mod epilogue;
mod experience;
mod jobs;
mod kernel;
mod kernel_text;
mod kind;
mod lanes;
mod multi;
mod pipeline;
mod plan;
mod predict;
mod real64;
mod record;
pub(crate) mod reference;
mod resident;
mod serial;
pub(crate) mod tuning_history;

use std::sync::Arc;
use std::time::Instant;

use crate::backend::Backend;
pub use crate::backend::{Contexts, Dimension, Order, PipelineOptions, Run, Share, Shares, Ticket, WhenFull};
use crate::error::Result;
use crate::float_env::FloatEnv;
use crate::memory::roofline;
use crate::memory::{Ceilings, Hierarchy};
use crate::problem::{Conv1dDesc, Conv2d, Gemm};
use crate::report::Timing;

use choice::{EngineChoice, PlanLearner, fall_back};
use predict::{conv2d_seconds, product_work};
use record::Why;

pub use architecture::{Architecture, Vendor};
pub use buffer::{Buffer, BufferView, BufferViewMut, Element};
pub(crate) use discovery::found;
pub use discovery::{DeviceInfo, DeviceKind, devices};
pub use epilogue::Epilogue;
pub use kernel::{Arg, Checked, Kernel};
pub use pipeline::{Done, Finished, Pipeline, PipelineSlot, Scope, ScopedTicket, SlotTicket, Submitted};
pub use plan::Conv2dPlan;

/// An opened device. Cheap to clone; any number of threads may use it at once.
#[derive(Clone)]
pub struct Device {
    choice: EngineChoice,
}

/// What is expected of one engine for a problem, transfers included, and what `auto` has learned of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Prediction {
    /// The engine's device id.
    pub device: String,
    /// Seconds, or the error why the device could not be measured; `auto` then skips it.
    pub seconds: Result<f64>,
    /// Seconds that plans of this kind have taken on this engine of `auto`, if it has been tried.
    pub measured: Option<f64>,
    /// Whether the next plan of this kind would go to it. On `multi`, every device may get a share.
    pub is_next: bool,
}

impl Device {
    /// Opens a device. `selector` is `auto`, `multi`, `cpu`, `gl:N` (N counts the usable GL devices of [`devices`] from
    /// 0), one of [`DeviceInfo::names`] or `name=TEXT` (the first usable device whose name contains TEXT; case is
    /// ignored).
    ///
    /// `multi` means the CPU and all hardware GPUs together: they share the images of each batch, or the output channels
    /// if there are fewer images than devices, or the rows or columns of a product. The shares follow from predictions
    /// at first and are learned from the calls; a call that one device computes fastest goes to that device alone.
    /// `multi:gl:0,gl:1=2,cpu` names the devices; if one has a weight, weights fix the shares. With
    /// `SPARKLE_DETERMINISTIC=1` all shares are equal, unless there are weights. [`Run::shares`] tells who did what. If a
    /// device fails, the others compute its share, and [`Run::fallback`] holds the reason; if all fail, the CPU does. An
    /// output may be partly written only if the CPU fails as well.
    ///
    /// `auto` means the device that `SPARKLE_DEVICE` names. Without that variable it chooses, for each problem, the
    /// device with the shortest predicted time, transfers included. The second call or plan of a kind goes to the
    /// runner-up, if that is predicted to take at most twice as long, and then the faster of the two is kept. Of
    /// equal devices the one with the fewest calls in flight computes. `auto` never chooses a software GL renderer, and with
    /// `SPARKLE_DETERMINISTIC=1` it always chooses the CPU. If a GPU fails, the CPU computes the problem, and
    /// [`Run::fallback`] holds the reason.
    ///
    /// A device chosen by name does not fall back: its errors are returned. There is one exception: if a GPU is lost in
    /// the middle of a large convolution, after part of the output was written, the CPU recomputes the whole output,
    /// and [`Run::fallback`] holds the reason.
    ///
    /// # Errors
    /// [`Error::NoDevice`](crate::Error::NoDevice) with the reason;
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an invalid selector.
    pub fn open(selector: &str) -> Result<Self> {
        let _library = FloatEnv::enter();
        discovery::open(selector).map(|choice| Device { choice })
    }

    /// The id: `auto`, `cpu`, `gl:0`.
    pub fn id(&self) -> &str {
        match &self.choice {
            EngineChoice::Fixed(backend) => backend.id(),
            EngineChoice::Auto { .. } => "auto",
            EngineChoice::Multi(multi) => multi.selector(),
        }
    }

    /// Whether it is one OpenGL device.
    pub(crate) fn is_gl(&self) -> bool {
        self.id().starts_with("gl:")
    }

    /// The engines this device chooses from, each with its predicted time for one run of a plan for `problem`, and what `auto`
    /// has measured of such plans; the CPU is first. [`Device::conv2d`] also brings the weights, and is learned apart. For an
    /// empty batch all times are 0. The first call measures each engine, which takes some tens of milliseconds. A prediction
    /// changes no later choice.
    pub fn predictions(&self, problem: &Conv2d) -> Vec<Prediction> {
        let _library = FloatEnv::enter();
        let backends = match &self.choice {
            EngineChoice::Fixed(backend) => vec![backend],
            EngineChoice::Auto { cpu, gpus, .. } => std::iter::once(cpu).chain(gpus).collect(),
            EngineChoice::Multi(multi) => multi.backends().collect(),
        };
        let predict = |backend: &Arc<dyn Backend>| Prediction {
            device: backend.id().to_owned(),
            seconds: match problem.is_empty() {
                true => Ok(0.0),
                false => conv2d_seconds(&**backend, problem),
            },
            measured: None,
            is_next: true,
        };
        let mut found: Vec<Prediction> = backends.into_iter().map(predict).collect();
        if let EngineChoice::Auto { learned, .. } = &self.choice {
            let seconds: Vec<f64> =
                found.iter().map(|it| it.seconds.as_ref().copied().unwrap_or(f64::INFINITY)).collect();
            let (measured, next) = learned.known(problem.into(), &seconds);
            for (index, (it, measured)) in found.iter_mut().zip(measured).enumerate() {
                (it.measured, it.is_next) = (measured, index == next);
            }
        }
        found
    }

    /// What no program on this device exceeds: the rates of multiply-adds on registers and of reads from each level of the
    /// memory. For `auto` that is the CPU, for `multi` its first device. The first call measures it, which takes some
    /// tenths of a second; the result is kept.
    ///
    /// # Errors
    /// The device's failure, or too little memory.
    pub fn ceilings(&self) -> Result<Ceilings> {
        let _library = FloatEnv::enter();
        self.first().ceilings()
    }

    /// The device as planners see it: registers, caches, measured rates and reads. [`memory::plan`](crate::memory::plan)
    /// plans loops for it. An L3 cache that is reported as much larger than reads see it has the size seen. For `auto` that
    /// is the CPU, for `multi` its first device. The first call measures.
    ///
    /// # Errors
    /// As [`Device::ceilings`].
    pub fn hierarchy(&self) -> Result<Hierarchy> {
        let _library = FloatEnv::enter();
        let (ceilings, mut hierarchy) = (self.first().ceilings()?, self.first().hierarchy()?);
        hierarchy.caches.l3 = ceilings.last_cache();
        hierarchy.reads = ceilings.reads();
        Ok(hierarchy)
    }

    /// The engine that names the device of an empty batch: the CPU for `auto`.
    fn first(&self) -> &Arc<dyn Backend> {
        match &self.choice {
            EngineChoice::Fixed(backend) => backend,
            EngineChoice::Auto { cpu, .. } => cpu,
            EngineChoice::Multi(multi) => multi.backends().next().expect("it has a member"),
        }
    }

    /// Prepares a convolution with constant weights, to be run any number of times. A plan for an empty batch holds no
    /// memory, and its runs do nothing.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a buffer of the wrong length, or the device's
    /// failure.
    pub fn plan(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Conv2dPlan> {
        let _library = FloatEnv::enter();
        problem.check_weights(weights, bias)?;
        if problem.is_empty() {
            return Ok(Conv2dPlan::empty_batch(self.first(), problem));
        }
        match &self.choice {
            EngineChoice::Fixed(backend) => Conv2dPlan::fixed(backend, (problem, Why::Named), weights, bias),
            EngineChoice::Auto { cpu, learned, .. } => {
                let chosen = learned.choose(problem.into(), |backend| conv2d_seconds(&**backend, problem));
                let why = chosen.why;
                let plan = match chosen.gpu {
                    Some(gpu) => Conv2dPlan::with_fallback(gpu, cpu, (problem, why), (weights, bias), None),
                    None => Conv2dPlan::fixed(cpu, (problem, why), weights, bias),
                }?;
                Ok(match chosen.pick {
                    Some(pick) => plan.learning(PlanLearner::new(learned, pick)),
                    None => plan,
                })
            }
            EngineChoice::Multi(multi) => Conv2dPlan::on_several(multi, problem, weights, bias),
        }
    }

    /// Creates a pipeline on this device: a stream of jobs whose uploads, computations and downloads overlap. `auto`
    /// uses its first GPU that supports it. A thread runs, in order, the jobs of CPU plans and of devices without such
    /// support.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an invalid option, or the device's failure.
    pub fn pipeline(&self, options: PipelineOptions) -> Result<Pipeline> {
        let _library = FloatEnv::enter();
        match &self.choice {
            EngineChoice::Fixed(backend) => Pipeline::new(&[backend], options),
            EngineChoice::Auto { gpus, .. } => Pipeline::new(&gpus.iter().collect::<Vec<_>>(), options),
            EngineChoice::Multi(multi) => Pipeline::on_several(multi, options),
        }
    }

    /// Computes one convolution. For several with the same weights, make a [`Device::plan`]. For an empty batch no
    /// kernel runs and all times are zero.
    ///
    /// # Errors
    /// As [`Device::plan`]; `output` is then untouched.
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

    /// Computes one convolution of signals. For several with the same weights, make a [`Device::plan`] of
    /// `Conv2d::new(desc.into())`.
    ///
    /// ```
    /// use sparkle::{Conv1dDesc, Device};
    /// let desc = Conv1dDesc { w: 4, s: 2, ..Default::default() };
    /// let mut output = [0.0; 3];
    /// Device::open("cpu")?.conv1d(desc, &[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0], None, &mut output)?;
    /// assert_eq!(output, [21.0, 32.0, 43.0]);
    /// # Ok::<(), sparkle::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Conv2d::new`] and [`Device::conv2d`]; `output` is then untouched.
    pub fn conv1d(
        &self,
        desc: Conv1dDesc,
        input: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<Run> {
        self.conv2d(&Conv2d::new(desc.into())?, input, weights, bias, output)
    }

    /// [`Device::conv2d`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Device::conv2d`].
    pub(crate) fn conv2d_inside(
        &self,
        problem: &Conv2d,
        input: &[f32],
        data: (&[f32], Option<&[f32]>),
        output: &mut [f32],
    ) -> Result<Run> {
        let mut why = Why::default();
        let result = self.conv2d_chosen(problem, input, data, output, &mut why);
        record::conv2d("conv2d", problem, &why, &result);
        result
    }

    /// Checks and computes a convolution, and says why on that device.
    fn conv2d_chosen(
        &self,
        problem: &Conv2d,
        input: &[f32],
        (weights, bias): (&[f32], Option<&[f32]>),
        output: &mut [f32],
        why: &mut Why,
    ) -> Result<Run> {
        problem.check_data(input, output)?;
        problem.check_weights(weights, bias)?;
        if problem.is_empty() {
            *why = Why::Empty;
            let device = self.first().shared_id();
            return Ok(Run::new(device, plan::NO_KERNEL.into(), Timing::default(), None));
        }
        let problem = problem.once();
        let mut on = |backend: &Arc<dyn Backend>, fallback: Option<Arc<str>>| {
            let run = call::once(backend, &problem, (weights, bias), input, output)?;
            Ok(Run { fallback: fallback.or(run.fallback), ..run })
        };
        match &self.choice {
            EngineChoice::Fixed(backend) => {
                *why = Why::Named;
                on(backend, None)
            }
            EngineChoice::Auto { cpu, learned, .. } => {
                let seconds = |backend: &Arc<dyn Backend>| conv2d_seconds(&**backend, &problem);
                let (mut chosen, start) = (learned.choose((&problem).into(), seconds), Instant::now());
                *why = std::mem::take(&mut chosen.why);
                let run = match chosen.gpu {
                    None => on(cpu, None),
                    Some(gpu) => on(gpu, None).or_else(|error| on(cpu, Some(fall_back(gpu, error)?))),
                }?;
                chosen.took(&run, start.elapsed().as_secs_f64());
                Ok(run)
            }
            EngineChoice::Multi(multi) => {
                *why = Why::Several;
                multi.conv2d(&problem, (weights, bias), input, output)
            }
        }
    }

    /// Computes C = alpha op(A) op(B) + beta C.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a buffer that is too short, or the device's
    /// failure. C is then untouched.
    pub fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.sgemm_inside(problem, a, b, c)
    }

    /// [`Device::sgemm`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Device::sgemm`].
    pub(crate) fn sgemm_inside(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<Run> {
        let mut why = Why::default();
        let result = self.sgemm_chosen(problem, (a, b), c, &mut why);
        record::sgemm(problem, &why, &result);
        result
    }

    /// Checks and computes a product, and says why on that device.
    fn sgemm_chosen(
        &self,
        problem: &Gemm,
        (a, b): (&[f32], &[f32]),
        c: &mut [f32],
        why: &mut Why,
    ) -> Result<Run> {
        problem.check_data(a, b, c)?;
        let mut on = |backend: &Arc<dyn Backend>, fallback: Option<Arc<str>>| {
            let (kernel, timing) = backend.sgemm(problem, a, b, c)?;
            Ok(Run::new(backend.shared_id(), kernel, timing, fallback))
        };
        match &self.choice {
            EngineChoice::Fixed(backend) => {
                *why = Why::Named;
                on(backend, None)
            }
            EngineChoice::Auto { cpu, learned, .. } => {
                let work = product_work(problem);
                let seconds = |backend: &Arc<dyn Backend>| Ok(roofline::seconds(&backend.hierarchy()?, work));
                let (mut chosen, start) = (learned.choose(problem.into(), seconds), Instant::now());
                *why = std::mem::take(&mut chosen.why);
                let run = match chosen.gpu {
                    None => on(cpu, None),
                    Some(gpu) => on(gpu, None).or_else(|error| on(cpu, Some(fall_back(gpu, error)?))),
                }?;
                chosen.took(&run, start.elapsed().as_secs_f64());
                Ok(run)
            }
            EngineChoice::Multi(multi) => {
                *why = Why::Several;
                multi.sgemm(problem, a, b, c)
            }
        }
    }
}

#[cfg(test)]
mod launch_tests;
#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod tests;
