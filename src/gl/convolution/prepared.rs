//! One prepared convolution: its weights on the device, its programs built.
//!
//! Plans, one-shot calls, streams and queues all run it. Buffers for inputs and outputs belong to the code that runs it.

use std::rc::Rc;
use std::time::Duration;

use super::fallback::{Choice, Fallback};
use super::generated::Generated;
use super::{BIAS, INPUT, OUTPUT, PARAMS, WEIGHTS, reference_params};
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Bind, Buffer};
use crate::gl::execution::budget::{self, DispatchBudget, Work};
use crate::gl::execution::dispatch::{self, Ran};
use crate::gl::execution::passes::Buffers;
use crate::gl::execution::programs::Programs;
use crate::problem::Conv2d;
use crate::shader::variant::Variant;

/// How long dispatches may be, and how long an image is expected to take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// What a dispatch should take.
    pub target: Duration,
    /// Seconds that the planner expects an image to take, if it was asked.
    pub image_seconds: Option<f64>,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { target: budget::TARGET, image_seconds: None }
    }
}

impl Timing {
    /// The budget of `work`, which is that of `images` images.
    pub fn budget(&self, work: &Work, images: usize) -> DispatchBudget {
        let seconds = self.image_seconds.map(|it| it * images as f64);
        let rate = seconds.map(|seconds| f64::from(work.units) * work.operations / seconds);
        DispatchBudget::with_target(self.target).expecting(rate)
    }
}

/// What a convolution reads and writes in one run.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Of as many images as the run computes, or more.
    pub input: &'a dyn Bind,
    /// As long.
    pub output: &'a dyn Bind,
    /// How many images the run computes.
    pub count: usize,
}

/// How weights and bias reach the device.
pub type Upload<'a> = &'a dyn Fn(&[f32]) -> Result<Buffer>;

/// What computes it.
enum Kernel {
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
    kernel: Kernel,
    /// As they came; empty if only the packed ones are read.
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
        (images, timing): (usize, Timing),
        upload: Upload,
    ) -> Result<Self> {
        let Some(generated) = Generated::new(programs, problem, variant, images, timing)? else {
            return Convolution::fallback(programs, problem, (weights, bias), timing, upload);
        };
        let mut weights = upload(weights)?;
        if generated.passes(images)?.prepare(&weights)? {
            // From now on only the packed ones are read.
            weights = Buffer::new(programs.context(), 0)?;
        }
        let bias = bias.map(upload).transpose()?;
        let (kernel, context) = (Kernel::Generated(generated), programs.context().clone());
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
        timing: Timing,
        upload: Upload,
    ) -> Result<Self> {
        let choice = Choice::new(problem, programs.context().group().max_iterations())?;
        let program = programs.kernel(choice.kernel)?;
        let work = dispatch::together(choice.work(&problem.with_batch(1)));
        let fallback = Fallback::new(choice, program, || timing.budget(&work, 1));
        let (weights, bias) = (upload(weights)?, bias.map(upload).transpose()?);
        let (kernel, context) = (Kernel::Fallback(fallback), programs.context().clone());
        Ok(Convolution { problem: *problem, kernel, weights, bias, context })
    }

    /// Prepares `problem` with a program of the caller's that has the reference kernel's interface; `any_grid` if it strides over any
    /// grid.
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
        let kernel = Kernel::Custom { program, any_grid };
        Ok(Convolution { problem: *problem, kernel, weights, bias: None, context: context.clone() })
    }

    /// The problem, with the whole batch.
    pub fn problem(&self) -> &Conv2d {
        &self.problem
    }

    /// How it is computed.
    pub fn variant(&self) -> Variant {
        match &self.kernel {
            Kernel::Generated(generated) => generated.variant(),
            Kernel::Fallback(_) | Kernel::Custom { .. } => Variant::DIRECT,
        }
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &str {
        match &self.kernel {
            Kernel::Generated(generated) => generated.name(),
            Kernel::Fallback(fallback) => fallback.name(),
            Kernel::Custom { .. } => "the caller's program",
        }
    }

    /// Whether a run must be of a number of images that it was prepared for.
    pub fn has_fixed_sizes(&self) -> bool {
        matches!(self.kernel, Kernel::Generated(_))
    }

    /// The weights as they came; empty if only packed ones are read.
    pub fn weights(&self) -> &Buffer {
        &self.weights
    }

    /// The bias.
    pub fn bias(&self) -> Option<&Buffer> {
        self.bias.as_ref()
    }

    /// Gets ready for runs of `images` images.
    ///
    /// # Errors
    /// As [`Convolution::new`].
    pub fn prepare(&self, programs: &mut Programs, images: usize) -> Result<()> {
        match &self.kernel {
            Kernel::Generated(generated) => generated.prepare(programs, images),
            Kernel::Fallback(fallback) => fallback.params(&self.context, &self.part(images)).map(drop),
            Kernel::Custom { .. } => Ok(()),
        }
    }

    /// Computes `images` and waits until they are done.
    ///
    /// # Errors
    /// What the device failed to do.
    pub fn run(&self, images: Images) -> Result<Ran> {
        match &self.kernel {
            Kernel::Generated(generated) => generated.passes(images.count)?.run(&self.buffers(images)),
            Kernel::Fallback(fallback) => {
                let part = self.part(images.count);
                let params = fallback.params(&self.context, &part)?;
                fallback.run(&self.context, &part, &|| self.bind(images, &params))
            }
            Kernel::Custom { program, any_grid } => {
                let part = self.part(images.count);
                let block = reference_params(&part);
                let params = Buffer::with_data(&self.context, bytemuck::bytes_of(&block))?;
                self.bind(images, &params);
                self.context.check("glBindBufferBase")?;
                dispatch::run_whole(&self.context, *program, part.output_len(), *any_grid)
            }
        }
    }

    /// Submits the commands that compute `images`, in dispatches as short as the budget says, and a barrier that lets buffer copies after
    /// them see the output. Does not wait. Returns the number of dispatches.
    ///
    /// # Errors
    /// What GL reports.
    pub fn encode(&self, images: Images) -> Result<u32> {
        match &self.kernel {
            Kernel::Generated(generated) => {
                generated.passes(images.count)?.enqueue_cut(&self.buffers(images))
            }
            Kernel::Fallback(fallback) => {
                let part = self.part(images.count);
                let params = fallback.params(&self.context, &part)?;
                fallback.enqueue_cut(&self.context, &part, &|| self.bind(images, &params))
            }
            Kernel::Custom { .. } => unreachable!("a caller's program is run, not encoded"),
        }
    }

    /// Submits the whole work once and does not wait: for measurements.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue(&self, images: Images) -> Result<()> {
        match &self.kernel {
            Kernel::Generated(generated) => generated.passes(images.count)?.enqueue(&self.buffers(images)),
            Kernel::Fallback(fallback) => {
                let part = self.part(images.count);
                let params = fallback.params(&self.context, &part)?;
                fallback.enqueue(&self.context, &part, &|| self.bind(images, &params))
            }
            Kernel::Custom { .. } => unreachable!("a caller's program is not measured"),
        }
    }

    /// Learns that `images` images took so long.
    pub fn learn(&self, images: usize, took: Duration) {
        match &self.kernel {
            Kernel::Generated(generated) => generated.learn(images, took),
            Kernel::Fallback(fallback) => fallback.learn(&self.context, &self.part(images), took),
            Kernel::Custom { .. } => {}
        }
    }

    fn part(&self, images: usize) -> Conv2d {
        self.problem.with_batch(images)
    }

    /// What the passes of a run read and write.
    pub fn buffers<'a>(&'a self, images: Images<'a>) -> Buffers<'a> {
        Buffers {
            input: images.input,
            weights: &self.weights,
            bias: self.bias.as_ref().map(|it| it as _),
            output: images.output,
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
