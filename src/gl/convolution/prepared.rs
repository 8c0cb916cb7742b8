//! A prepared convolution: its weights on the device, its programs built.
//!
//! Plans, one-shot calls, streams and queues all run it. The code that runs it owns the buffers for inputs and outputs.

use std::rc::Rc;
use std::time::Duration;

use super::fallback::{Fallback, FallbackChoice, reference_params};
use super::generated::Generated;
use super::limits::{BIAS, INPUT, OUTPUT, PARAMS, WEIGHTS};
use super::pacing::Pacing;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer};
use crate::gl::execution::dispatch::{self, Ran};
use crate::gl::execution::epilogue::{Arguments, check_bindings};
use crate::gl::execution::passes::Buffers;
use crate::gl::execution::programs::Programs;
use crate::kernel::fused::Fused;
use crate::problem::Conv2d;
use crate::shader::epilogue::{self, Outputs};
use crate::shader::pass_plan::ShaderSource;
use crate::shader::source::Kernel;
use crate::shader::variant::Variant;

/// The buffers and size of one run.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Holds at least as many images as the run computes.
    pub input: &'a dyn Bind,
    /// Holds at least as many images, too.
    pub output: &'a dyn Bind,
    /// The number of images that the run computes.
    pub count: usize,
}

/// A function that brings weights or bias to the device.
pub type Upload<'a> = &'a dyn Fn(&[f32]) -> Result<Buffer>;

/// The kernel of a convolution.
enum KernelKind {
    /// Passes generated for the problem.
    Generated(Generated),
    /// The fallback kernels, for any problem.
    Fallback(Fallback),
    /// A caller's program with the reference kernel's interface.
    Custom { program: u32, any_grid: bool },
}

/// A convolution prepared on one context.
pub struct Convolution {
    problem: Conv2d,
    kernel: KernelKind,
    /// The unpacked weights; empty if only packed ones are read.
    weights: Buffer,
    bias: Option<Buffer>,
    context: Rc<Context>,
}

impl Convolution {
    /// Prepares `problem` as `variant` says, for runs of `images` images at first.
    ///
    /// # Errors
    /// The compiler's log; what the device lacks.
    pub fn new(
        programs: &mut Programs,
        (problem, variant): (&Conv2d, Variant),
        (weights, bias): (&[f32], Option<&[f32]>),
        (images, pacing): (usize, Pacing),
        upload: Upload,
    ) -> Result<Self> {
        Convolution::finished(programs, (problem, variant), (weights, bias), (images, pacing), upload, None)
    }

    /// As [`Convolution::new`], with an epilogue that every run applies ([`Convolution::run_fused`]), if one is given.
    ///
    /// # Errors
    /// As [`Convolution::new`]; [`Error::Unsupported`](crate::Error::Unsupported) for an epilogue that the device cannot
    /// compute.
    pub fn finished(
        programs: &mut Programs,
        (problem, variant): (&Conv2d, Variant),
        (weights, bias): (&[f32], Option<&[f32]>),
        (images, pacing): (usize, Pacing),
        upload: Upload,
        fused: Option<&Fused>,
    ) -> Result<Self> {
        let Some(generated) = Generated::new(programs, problem, variant, (images, pacing), fused)? else {
            return match fused {
                None => Convolution::fallback(programs, problem, (weights, bias), pacing, upload),
                Some(fused) => {
                    Convolution::fused_fallback(programs, problem, (weights, bias), (pacing, upload), fused)
                }
            };
        };
        let mut weights = upload(weights)?;
        if generated.passes(images)?.prepare(&weights)? {
            // From now on only the packed ones are read.
            weights = Buffer::new(programs.context(), 0)?;
        }
        let bias = bias.map(upload).transpose()?;
        let (kernel, context) = (KernelKind::Generated(generated), programs.context().clone());
        Ok(Convolution { problem: *problem, kernel, weights, bias, context })
    }

    /// Prepares `problem` with a fallback kernel.
    ///
    /// # Errors
    /// As [`Convolution::new`].
    pub fn fallback(
        programs: &mut Programs,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        pacing: Pacing,
        upload: Upload,
    ) -> Result<Self> {
        let choice = FallbackChoice::new(problem, programs.context().group().max_iterations())?;
        let program = programs.kernel(choice.kernel)?;
        let work = dispatch::together(choice.work(&problem.with_batch(1)));
        let fallback = Fallback::new(choice, program, || pacing.budget(&work, 1));
        let (weights, bias) = (upload(weights)?, bias.map(upload).transpose()?);
        let (kernel, context) = (KernelKind::Fallback(fallback), programs.context().clone());
        Ok(Convolution { problem: *problem, kernel, weights, bias, context })
    }

    /// Prepares `problem` with a fallback kernel that applies an epilogue.
    ///
    /// # Errors
    /// As [`Convolution::finished`].
    fn fused_fallback(
        programs: &mut Programs,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        (pacing, upload): (Pacing, Upload),
        fused: &Fused,
    ) -> Result<Self> {
        let limit = programs.context().group().max_iterations();
        let choice = FallbackChoice::for_epilogue(problem, limit)?;
        let Kernel { name, source } = choice.kernel;
        let mut source = ShaderSource { name: name.to_owned(), text: source.to_owned() };
        let places = epilogue::fuse(&mut source, fused, BIAS + 1, Outputs::InPlace)?;
        check_bindings(programs.context(), fused, places.first_binding)?;
        let program = programs.generated(&source)?;
        let work = dispatch::together(choice.work(&problem.with_batch(1)));
        let fallback = Fallback::new(choice, program, || pacing.budget(&work, 1)).fused(fused, &places)?;
        let (weights, bias) = (upload(weights)?, bias.map(upload).transpose()?);
        let (kernel, context) = (KernelKind::Fallback(fallback), programs.context().clone());
        Ok(Convolution { problem: *problem, kernel, weights, bias, context })
    }

    /// Prepares `problem` with a caller's program that has the reference kernel's interface; `any_grid` says whether
    /// it works with any grid.
    ///
    /// # Errors
    /// What the device lacks.
    pub fn custom(
        context: &Rc<Context>,
        (program, any_grid): (u32, bool),
        problem: &Conv2d,
        weights: &[f32],
    ) -> Result<Self> {
        let weights = Buffer::with_data(context, bytemuck::cast_slice(weights))?;
        let kernel = KernelKind::Custom { program, any_grid };
        Ok(Convolution { problem: *problem, kernel, weights, bias: None, context: context.clone() })
    }

    /// Its context.
    pub fn context(&self) -> &Rc<Context> {
        &self.context
    }

    /// The problem, with the whole batch.
    pub fn problem(&self) -> &Conv2d {
        &self.problem
    }

    /// The variant that computes it.
    pub fn variant(&self) -> Variant {
        match &self.kernel {
            KernelKind::Generated(generated) => generated.variant(),
            KernelKind::Fallback(_) | KernelKind::Custom { .. } => Variant::FALLBACK,
        }
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &str {
        match &self.kernel {
            KernelKind::Generated(generated) => generated.name(),
            KernelKind::Fallback(fallback) => fallback.name(),
            KernelKind::Custom { .. } => "the caller's program",
        }
    }

    /// Whether each number of images must be prepared before it runs.
    pub fn has_fixed_sizes(&self) -> bool {
        matches!(self.kernel, KernelKind::Generated(_))
    }

    /// Prepares runs of `images` images.
    ///
    /// # Errors
    /// As [`Convolution::new`].
    pub fn prepare(&self, programs: &mut Programs, images: usize) -> Result<()> {
        match &self.kernel {
            KernelKind::Generated(generated) => generated.prepare(programs, images),
            KernelKind::Fallback(fallback) => fallback.params(&self.context, &self.part(images)).map(drop),
            KernelKind::Custom { .. } => Ok(()),
        }
    }

    /// Computes `images` and waits until they are done.
    ///
    /// # Errors
    /// The device's failure.
    #[cfg(any(test, feature = "lab"))]
    pub fn run(&self, images: Images) -> Result<Ran> {
        self.run_fused(images, None)
    }

    /// Computes `images` with the arguments of the epilogue that it was prepared with, if any, and waits until they are
    /// done.
    ///
    /// # Errors
    /// The device's failure.
    pub fn run_fused(&self, images: Images, epilogue: Option<&Arguments>) -> Result<Ran> {
        match &self.kernel {
            KernelKind::Generated(generated) => {
                let buffers = Buffers { epilogue, ..self.buffers(images) };
                generated.passes(images.count)?.run(&buffers)
            }
            KernelKind::Fallback(fallback) => {
                let part = self.part(images.count);
                let params = fallback.params(&self.context, &part)?;
                fallback.run(&self.context, &part, &|| {
                    self.bind(images, &params);
                    epilogue.into_iter().for_each(|it| fallback.bind_epilogue(&self.context, it));
                })
            }
            KernelKind::Custom { program, any_grid } => {
                let part = self.part(images.count);
                let block = reference_params(&part);
                let params = Buffer::with_data(&self.context, bytemuck::bytes_of(&block))?;
                self.bind(images, &params);
                self.context.check("glBindBufferBase")?;
                dispatch::run_whole(&self.context, *program, part.output_len(), *any_grid)
            }
        }
    }

    /// Submits the commands that compute `images`, in dispatches as short as the budget says, and a barrier that lets
    /// later buffer copies see the output. Does not wait. Returns the number of dispatches.
    ///
    /// # Errors
    /// What GL reports.
    pub fn encode(&self, images: Images) -> Result<u32> {
        match &self.kernel {
            KernelKind::Generated(generated) => {
                generated.passes(images.count)?.enqueue_cut(&self.buffers(images))
            }
            KernelKind::Fallback(fallback) => {
                let part = self.part(images.count);
                let params = fallback.params(&self.context, &part)?;
                fallback.enqueue_cut(&self.context, &part, &|| self.bind(images, &params))
            }
            KernelKind::Custom { .. } => unreachable!("a caller's program is run, not encoded"),
        }
    }

    /// Submits the whole work, each pass in one dispatch, and does not wait. For measurements.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue(&self, images: Images) -> Result<()> {
        match &self.kernel {
            KernelKind::Generated(generated) => {
                generated.passes(images.count)?.enqueue(&self.buffers(images))
            }
            KernelKind::Fallback(fallback) => {
                let part = self.part(images.count);
                let params = fallback.params(&self.context, &part)?;
                fallback.enqueue(&self.context, &part, &|| self.bind(images, &params))
            }
            KernelKind::Custom { .. } => unreachable!("a caller's program is not measured"),
        }
    }

    /// Learns that `images` images took `took`.
    pub fn learn(&self, images: usize, took: Duration) {
        match &self.kernel {
            KernelKind::Generated(generated) => generated.learn(images, took),
            KernelKind::Fallback(fallback) => fallback.learn(&self.context, &self.part(images), took),
            KernelKind::Custom { .. } => {}
        }
    }

    fn part(&self, images: usize) -> Conv2d {
        self.problem.with_batch(images)
    }

    /// The buffers that the passes of a run read and write.
    pub fn buffers<'a>(&'a self, images: Images<'a>) -> Buffers<'a> {
        Buffers {
            input: images.input,
            weights: &self.weights,
            bias: self.bias.as_ref().map(|it| it as _),
            output: images.output,
            epilogue: None,
        }
    }

    fn bind(&self, images: Images, params: &Buffer) {
        images.input.bind_on(&self.context, INPUT);
        images.output.bind_on(&self.context, OUTPUT);
        params.bind(PARAMS);
        self.weights.bind(WEIGHTS);
        if let Some(bias) = &self.bias {
            bias.bind(BIAS);
        }
    }
}
