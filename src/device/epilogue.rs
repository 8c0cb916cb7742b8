//! Epilogues of the kernel language, attached to convolutions and products.

use std::path::Path;
use std::sync::Arc;

use super::Device;
use super::choice::{EngineChoice, fall_back, fastest};
use super::kernel::{self, compile};
use super::kernel_text::named;
use super::plan::Conv2dPlan;
use super::predict::{conv2d_work, product_work};
use super::record::{self, Why};
use crate::allocate;
use crate::backend::{Backend, Run};
use crate::error::{Error, Result};
use crate::float_env::FloatEnv;
use crate::kernel::bind::{Arg, Launch};
use crate::kernel::describe::{self, Description};
use crate::kernel::fused::Fused;
use crate::problem::{Conv2d, Gemm};

/// An epilogue of the kernel language, for any device: a function of an output, its channel and its position, which is
/// applied where the output is computed. Cheap to clone.
///
/// ```
/// use sparkle::{Conv2d, Conv2dDesc, Device, Epilogue};
/// let text = "
///     !@epilogue
///     pure function leaky_relu(x, channel, position, slope) result(y)
///       use iso_fortran_env, only: int32, real32
///       real(real32), intent(in) :: x, slope
///       integer(int32), intent(in) :: channel, position
///       real(real32) :: y
///       y = merge(x, slope * x, x > 0)
///     end function
/// ";
/// let epilogue = Epilogue::from_source(text, "leaky_relu")?;
/// let problem = Conv2d::new(Conv2dDesc { h: 1, w: 3, ..Default::default() })?;
/// let plan = Device::open("cpu")?.plan_fused(&problem, &[2.0], None, &epilogue)?;
/// let mut output = [0.0; 3];
/// plan.run_fused(&[1.0, -1.0, -2.0], &mut output, &mut [0.25f32.into()])?;
/// assert_eq!(output, [2.0, -0.5, -1.0]);
/// # Ok::<(), sparkle::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Epilogue {
    fused: Fused,
    warnings: Arc<str>,
}

impl Epilogue {
    /// Compiles a source and takes the epilogue `name` of it: the exact spelling first, then any case.
    ///
    /// # Errors
    /// As [`Epilogue::from_bytes`].
    pub fn from_source(text: &str, name: &str) -> Result<Self> {
        Epilogue::from_bytes(text.as_bytes(), "epilogue source", Some(name))
    }

    /// As [`Epilogue::from_source`]; without a name it takes the only epilogue. `file` names the source in messages.
    ///
    /// # Errors
    /// [`Error::Source`] with the compiler's messages; [`Error::InvalidArgument`] if there is no such epilogue, or several
    /// without a name, with the names of those that there are; [`Error::OutOfMemory`].
    pub fn from_bytes(text: &[u8], file: &str, name: Option<&str>) -> Result<Self> {
        let source = compile(text, file)?;
        let Some(unit) = source.unit else {
            return Err(Error::Source { file: file.to_owned(), messages: source.messages });
        };
        let warnings: Arc<str> = source.messages.into();
        let all = Fused::all(unit)?.into_iter();
        let all = allocate::collected(
            all.map(|fused| Ok(Epilogue { fused, warnings: warnings.clone() })),
            "epilogues",
        )?;
        named(&all, Epilogue::name, name, ("epilogue name", "a source with epilogues"))
    }

    /// Reads a file and takes the epilogue `name` of it, as [`Epilogue::from_bytes`] does.
    ///
    /// # Errors
    /// As [`Epilogue::from_bytes`], and [`Error::InvalidArgument`] if the file cannot be read or has more than 1 MiB.
    pub fn from_file(path: impl AsRef<Path>, name: Option<&str>) -> Result<Self> {
        let path = path.as_ref();
        Epilogue::from_bytes(&crate::kernel::read(path)?, &path.display().to_string(), name)
    }

    /// Its name as declared.
    pub fn name(&self) -> &str {
        &self.fused.epilogue().name
    }

    /// The compiler's warnings about its source, as text; empty if there are none.
    pub fn warnings(&self) -> &str {
        &self.warnings
    }

    /// Its arguments with types, and what else a host needs to know.
    pub fn description(&self) -> Description {
        describe::epilogue(self.fused.epilogue())
    }

    /// What engines get.
    pub(crate) fn fused(&self) -> &Fused {
        &self.fused
    }
}

/// Refuses outputs whose positions are no `integer(int32)`.
pub(super) fn check_positions(device: &str, elements: usize) -> Result<()> {
    if i32::try_from(elements).is_ok() {
        return Ok(());
    }
    let what = format!("epilogues of outputs of {elements} elements; positions count {}", i32::MAX);
    Err(Error::Unsupported { device: device.to_owned(), what })
}

impl Device {
    /// As [`Device::plan`], with an epilogue that every run applies to each output, after bias and ReLU. Runs pass the
    /// epilogue's arguments ([`Conv2dPlan::run_fused`]). Pipelines refuse such a plan.
    ///
    /// `auto` chooses by predicted time; a device that cannot compute the epilogue leaves the convolution to the CPU.
    ///
    /// # Errors
    /// As [`Device::plan`], and [`Error::Unsupported`] for `multi`, for images in NHWC, for outputs of more than 2^31 - 1 elements, and for what
    /// the device lacks.
    pub fn plan_fused(
        &self,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
        epilogue: &Epilogue,
    ) -> Result<Conv2dPlan> {
        let _library = FloatEnv::enter();
        problem.check_weights(weights, bias)?;
        check_positions(self.id(), problem.output_len())?;
        if !problem.sizes().has_plain_images() {
            let what = "epilogues of a convolution whose input or output is in NHWC".to_owned();
            return Err(Error::Unsupported { device: self.id().to_owned(), what });
        }
        let fused = epilogue.fused();
        let fixed = |backend: &Arc<dyn Backend>, why| {
            Conv2dPlan::fixed_fused(backend, (problem, why), (weights, bias), fused)
        };
        match &self.choice {
            EngineChoice::Multi(_) => self.no_epilogues(),
            _ if problem.is_empty() => {
                Ok(Conv2dPlan::empty_batch(self.first(), problem).with_epilogue(fused))
            }
            EngineChoice::Fixed(backend) => fixed(backend, Why::Named),
            EngineChoice::Auto { cpu, gpus, .. } => match fastest(cpu, gpus, conv2d_work(problem)) {
                (Some(gpu), why) => {
                    Conv2dPlan::with_fallback(gpu, cpu, (problem, why), (weights, bias), Some(fused))
                }
                (None, why) => fixed(cpu, why),
            },
        }
    }

    fn no_epilogues<T>(&self) -> Result<T> {
        let what = "epilogues on several devices together".to_owned();
        Err(Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Computes C = f(alpha op(A) op(B) + beta C), where the epilogue f is applied to every element. Its channel is the row
    /// of C, its position the number of elements in memory from the first one of C to it. `args` are its arguments: one for
    /// each dummy after the value, the channel and the position, in their order.
    ///
    /// # Errors
    /// As [`Device::sgemm`] and [`Conv2dPlan::run_fused`]; [`Error::Unsupported`] for `multi`, for a C of more than 2^31 - 1
    /// elements with its gaps, and for what the device lacks. C is then untouched.
    pub fn sgemm_fused(
        &self,
        problem: &Gemm,
        (a, b): (&[f32], &[f32]),
        c: &mut [f32],
        epilogue: &Epilogue,
        args: &mut [Arg<'_>],
    ) -> Result<Run> {
        let _library = FloatEnv::enter();
        self.sgemm_fused_inside(problem, (a, b), c, (epilogue, args))
    }

    /// [`Device::sgemm_fused`] for a caller that has already entered the library's floating-point environment.
    ///
    /// # Errors
    /// As [`Device::sgemm_fused`].
    pub(crate) fn sgemm_fused_inside(
        &self,
        problem: &Gemm,
        operands: (&[f32], &[f32]),
        c: &mut [f32],
        (epilogue, args): (&Epilogue, &mut [Arg<'_>]),
    ) -> Result<Run> {
        let mut why = Why::default();
        let result = self.sgemm_fused_chosen(problem, operands, c, (epilogue, args), &mut why);
        record::sgemm(problem, &why, &result);
        result
    }

    fn sgemm_fused_chosen(
        &self,
        problem: &Gemm,
        (a, b): (&[f32], &[f32]),
        c: &mut [f32],
        (epilogue, args): (&Epilogue, &mut [Arg<'_>]),
        why: &mut Why,
    ) -> Result<Run> {
        problem.check_data(a, b, c)?;
        check_positions(self.id(), problem.lens()[2])?;
        let launch = epilogue.fused().bind(args)?;
        launch.check_output((c.as_ptr().addr(), size_of_val(c)), None)?;
        let mut on = |backend: &Arc<dyn Backend>, fallback: Option<Arc<str>>| {
            let (kernel, timing) = backend.sgemm_fused(problem, (a, b), c, &launch)?;
            Ok(Run::new(backend.shared_id(), kernel, timing, fallback))
        };
        if let EngineChoice::Multi(_) = &self.choice {
            return self.no_epilogues();
        }
        if let Some(owner) = kernel::first_owner(&launch) {
            *why = Why::OfBuffers;
            let backend = self.engine_for_arguments(&launch, owner)?;
            let _locks = kernel::lock(&launch, &[])?;
            return on(backend, None);
        }
        match &self.choice {
            EngineChoice::Fixed(backend) => {
                *why = Why::Named;
                on(backend, None)
            }
            EngineChoice::Auto { cpu, gpus, .. } => {
                let gpu;
                (gpu, *why) = fastest(cpu, gpus, product_work(problem));
                match gpu {
                    None => on(cpu, None),
                    Some(gpu) => on(gpu, None).or_else(|error| on(cpu, Some(fall_back(gpu, error)?))),
                }
            }
            EngineChoice::Multi(_) => self.no_epilogues(),
        }
    }

    /// The engine of the buffers among the arguments of an epilogue; `owner` is that of one of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that names an argument of another device.
    fn engine_for_arguments(&self, launch: &Launch<'_>, owner: usize) -> Result<&Arc<dyn Backend>> {
        let Some(backend) = self.engine_of(owner) else {
            launch.check_owner((0, self.id()))?;
            return Err(Error::Internal("the device of a buffer is none of the engines".to_owned()));
        };
        launch.check_owner(Device::owner(backend))?;
        Ok(backend)
    }
}
