//! Convolution on a context: prepared once, run any number of times.
//!
//! Everything here works on a [`Context`] that is current on the calling thread, whoever's that is. A good place to start
//! reading: [`Prepared::run`] uploads, dispatches and reads back; the rest decides which kernel, and how many images fit.

use std::rc::Rc;

use super::context::Context;
use super::dispatch::{self, Ran};
use super::fallback::Fallback;
use super::passes::{self, Passes};
use super::resource::Buffer;
use crate::error::{Error, Result};
use crate::problem::{Conv2d, Conv2dSizes};
use crate::shader::tuner::Explorer;
use crate::shader::variant::Variant;

pub use super::fallback::reference_params;

/// Indices of the shaders' blocks.
pub(super) const INPUT: u32 = 0;
pub(super) const WEIGHTS: u32 = 1;
pub(super) const OUTPUT: u32 = 2;
pub(super) const PARAMS: u32 = 3;
pub(super) const BIAS: u32 = 4;

/// How many images of the batch are computed at once: as many as the largest buffer that a shader may see can hold.
///
/// # Errors
/// [`Error::Unsupported`] if the weights or a single image are too large.
pub(super) fn images_at_once(context: &Context, problem: &Conv2d) -> Result<usize> {
    let (most, reason) =
        (context.capabilities().max_elements(), context.capabilities().max_elements_reason());
    let refuse = |what: String| {
        let what = format!("{what}; a buffer holds at most {most} ({reason})");
        Err(Error::Unsupported { device: context.device().to_owned(), what })
    };
    let Conv2dSizes { n, h, w, pad_h, pad_w, .. } = *problem.sizes();
    let image = problem.with_batch(1);
    if problem.weights_len() > most {
        return refuse(format!("weights of {} elements", problem.weights_len()));
    }
    if image.input_len() > most {
        return refuse(format!("an input image of {} elements", image.input_len()));
    }
    if image.output_len() > most {
        return refuse(format!("an output image of {} elements", image.output_len()));
    }
    if (h + 2 * pad_h).max(w + 2 * pad_w) >= 1 << 31 {
        return refuse(format!("a padded image of {} x {}", h + 2 * pad_h, w + 2 * pad_w));
    }
    Ok(n.min(most / image.input_len()).min(most / image.output_len()))
}

/// How a kernel is run.
enum Launch {
    /// Generated for the problem.
    Generated(Box<Passes>),
    /// Ours, for any problem.
    Fallback(Fallback),
    /// A caller's own program with the reference kernel's interface, by its GL name, and whether it strides over any grid.
    Whole(u32, bool),
}

impl Launch {
    /// The parameter block for `problem`; empty if there is none.
    fn params(&self, problem: &Conv2d) -> Vec<u8> {
        match self {
            Launch::Generated(_) => vec![],
            Launch::Fallback(fallback) => fallback.params(problem),
            Launch::Whole(..) => bytemuck::bytes_of(&reference_params(problem)).to_vec(),
        }
    }
}

/// A convolution on the device: weights uploaded, buffers allocated, kernel built.
pub struct Prepared {
    problem: Conv2d,
    variant: Variant,
    /// Images computed at once.
    images: usize,
    launch: Launch,
    input: Buffer,
    weights: Buffer,
    bias: Option<Buffer>,
    output: Buffer,
    params: Buffer,
    explorer: Explorer,
    context: Rc<Context>,
}

impl Prepared {
    /// Uploads weights and bias and allocates what a run of `fallback`, which was chosen for the problem, needs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for sizes beyond the device's limits; else what it failed to do.
    pub fn new(
        context: &Rc<Context>,
        fallback: Fallback,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Prepared::with(context, Launch::Fallback(fallback), problem, weights, bias)
    }

    /// How it is computed.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Its kernel's name.
    pub fn kernel(&self) -> &str {
        match &self.launch {
            Launch::Generated(passes) => passes.name(),
            Launch::Fallback(fallback) => fallback.name(),
            Launch::Whole(..) => "the caller's program",
        }
    }

    /// As [`Prepared::new`], with `variant`'s passes for the problem's batch of [`images_at_once`].
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn generated(
        context: &Rc<Context>,
        variant: Variant,
        passes: Passes,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let mut prepared =
            Prepared::with(context, Launch::Generated(Box::new(passes)), problem, weights, bias)?;
        prepared.variant = variant;
        let Launch::Generated(passes) = &prepared.launch else { unreachable!("as made") };
        if passes.prepare(&prepared.weights)? {
            // From now on only the packed ones are read.
            prepared.weights = Buffer::new(context, 0)?;
        }
        Ok(prepared)
    }

    /// As [`Prepared::new`], for a program of the caller's that has the reference kernel's interface; `any_grid` if it strides.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn custom(
        context: &Rc<Context>,
        (program, any_grid): (u32, bool),
        problem: &Conv2d,
        weights: &[f32],
    ) -> Result<Self> {
        Prepared::with(context, Launch::Whole(program, any_grid), problem, weights, None)
    }

    fn with(
        context: &Rc<Context>,
        launch: Launch,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let images = images_at_once(context, problem)?;
        let tile = problem.with_batch(images);
        let upload = |data: &[f32]| Buffer::with_data(context, bytemuck::cast_slice(data));
        let params = launch.params(&tile);
        Ok(Prepared {
            problem: *problem,
            variant: Variant::FALLBACK,
            images,
            launch,
            input: Buffer::new(context, tile.input_len() * size_of::<f32>())?,
            weights: upload(weights)?,
            bias: bias.map(upload).transpose()?,
            output: Buffer::new(context, tile.output_len() * size_of::<f32>())?,
            params: Buffer::with_data(context, &params)?,
            explorer: Explorer::default(),
            context: context.clone(),
        })
    }

    /// Computes `input` into `output`, which is undefined if it fails: callers give a buffer of their own.
    ///
    /// # Errors
    /// What the device failed to do.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Ran> {
        let image = self.problem.with_batch(1);
        let inputs = input.chunks(self.images * image.input_len());
        let outputs = output.chunks_mut(self.images * image.output_len());
        let mut ran = Ran::default();
        for (input, output) in inputs.zip(outputs) {
            ran += self.run_tile(input, output)?;
        }
        self.explorer.work(ran.time);
        Ok(ran)
    }

    /// Computes as many images as fit at once, or fewer.
    fn run_tile(&self, input: &[f32], output: &mut [f32]) -> Result<Ran> {
        let image = self.problem.with_batch(1);
        let tile = self.problem.with_batch(input.len() / image.input_len());
        self.input.upload(bytemuck::cast_slice(input))?;
        if self.images != self.problem.sizes().n && !matches!(self.launch, Launch::Generated(_)) {
            self.params.upload(&self.launch.params(&tile))?;
        }
        let ran = match &self.launch {
            // A smaller last part of the batch is computed as if it were whole: the rest is never read.
            Launch::Generated(passes) => passes.run(&self.buffers()),
            Launch::Whole(program, any_grid) => {
                self.bind();
                self.context.check("glBindBufferBase")?;
                dispatch::run_whole(&self.context, *program, tile.output_len(), *any_grid)
            }
            Launch::Fallback(fallback) => fallback.run(&self.context, &tile, &|| self.bind()),
        }?;
        self.output.read(bytemuck::cast_slice_mut(output))?;
        Ok(ran)
    }

    /// When its runner-ups get their turn.
    pub fn explorer(&self) -> &Explorer {
        &self.explorer
    }

    /// What its passes read and write.
    pub fn buffers(&self) -> passes::Buffers<'_> {
        passes::Buffers {
            input: &self.input,
            weights: &self.weights,
            bias: self.bias.as_ref().map(|it| it as _),
            output: &self.output,
        }
    }

    /// Hands the work to the device `times` times, without waiting or reading back: for measurements.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue(&self, times: usize) -> Result<()> {
        for _ in 0..times {
            match &self.launch {
                Launch::Generated(passes) => passes.enqueue(&self.buffers())?,
                Launch::Fallback(fallback) => {
                    let tile = self.problem.with_batch(self.images);
                    fallback.enqueue(&self.context, &tile, &|| self.bind())?;
                }
                Launch::Whole(..) => unreachable!("a caller's program is not measured"),
            }
        }
        Ok(())
    }

    fn bind(&self) {
        self.input.bind(INPUT);
        self.weights.bind(WEIGHTS);
        self.output.bind(OUTPUT);
        self.params.bind(PARAMS);
        if let Some(bias) = &self.bias {
            bias.bind(BIAS);
        }
    }
}
