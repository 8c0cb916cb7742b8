//! A prepared convolution with device buffers of its own: inputs are uploaded, outputs read back.

use std::rc::Rc;

use super::limits::images_at_once;
use super::pacing::Pacing;
use super::prepared::{Convolution, Images};
use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch::Ran;
use crate::gl::execution::epilogue::Arguments;
use crate::gl::execution::programs::Programs;
use crate::gl::execution::residents::{self, ResidentRange, Residents};
use crate::gl::execution::steps;
use crate::kernel::fused::Fused;
use crate::problem::Conv2d;
use crate::shader::tuner::Explorer;
use crate::shader::variant::Variant;

/// A convolution with buffers for as many images as the device computes at once.
pub struct Buffered {
    convolution: Convolution,
    /// Images computed at once.
    images: usize,
    input: Buffer,
    output: Buffer,
    explorer: Explorer,
}

impl Buffered {
    /// Prepares `problem` with `variant`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for sizes beyond the device's limits; the compiler's log;
    /// what the device lacks.
    pub fn new(
        programs: &mut Programs,
        variant: Variant,
        problem: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        Buffered::finished(programs, variant, problem, (weights, bias), None)
    }

    /// As [`Buffered::new`], with an epilogue that every run applies, if one is given.
    ///
    /// # Errors
    /// As [`Buffered::new`], and [`Error::Unsupported`] for an epilogue that the device cannot compute, or a batch that
    /// it does not compute at once.
    pub fn finished(
        programs: &mut Programs,
        variant: Variant,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        fused: Option<&Fused>,
    ) -> Result<Self> {
        let images = images_at_once(programs.context(), problem)?;
        let context = programs.context().clone();
        if fused.is_some() && images < problem.sizes().n {
            // Positions count through the whole batch.
            let what = format!("epilogues of batches larger than a buffer, which holds {images} images");
            return Err(Error::Unsupported { device: context.device().to_owned(), what });
        }
        let upload = |data: &[f32]| Buffer::with_data(&context, bytemuck::cast_slice(data));
        let problem = (problem, variant);
        let size = (images, Pacing::default());
        let convolution = Convolution::finished(programs, problem, (weights, bias), size, &upload, fused)?;
        Buffered::with(&context, convolution, images)
    }

    /// As [`Buffered::new`], with weights and bias in buffers of the program, whose contents are valid. They are copied on
    /// the device.
    ///
    /// # Errors
    /// As [`Buffered::new`].
    pub fn from_residents(
        programs: &mut Programs,
        residents: &Residents,
        variant: Variant,
        problem: &Conv2d,
        (weights, bias): (&ResidentRange<'_>, Option<&ResidentRange<'_>>),
    ) -> Result<Self> {
        let images = images_at_once(programs.context(), problem)?;
        let context = programs.context().clone();
        let copy = |range: &ResidentRange<'_>| {
            let copy = Buffer::new(&context, range.bytes)?;
            let region = residents.region(range).ok_or_else(|| residents::lost(&context, range.name))?;
            region.copy_to(&context, &copy.first(range.bytes))?;
            Ok(copy)
        };
        residents::see_writes(&context);
        // Nothing is uploaded: no number stands for the weights, one for the bias.
        let copied = |of: &[f32]| copy(bias.filter(|_| !of.is_empty()).unwrap_or(weights));
        let size = (images, Pacing::default());
        let constants = (&[][..], bias.map(|_| &[0.0][..]));
        let convolution = Convolution::new(programs, (problem, variant), constants, size, &copied)?;
        Buffered::with(&context, convolution, images)
    }

    /// As [`Buffered::new`], for a caller's program that has the reference kernel's interface; `any_grid` says
    /// whether it works with any grid.
    ///
    /// # Errors
    /// As [`Buffered::new`].
    pub fn custom(
        context: &Rc<Context>,
        program: (u32, bool),
        problem: &Conv2d,
        weights: &[f32],
    ) -> Result<Self> {
        let images = images_at_once(context, problem)?;
        Buffered::with(context, Convolution::custom(context, program, problem, weights)?, images)
    }

    fn with(context: &Rc<Context>, convolution: Convolution, images: usize) -> Result<Self> {
        let part = convolution.problem().with_batch(images);
        Ok(Buffered {
            images,
            input: Buffer::new(context, part.input_len() * size_of::<f32>())?,
            output: Buffer::new(context, part.output_len() * size_of::<f32>())?,
            explorer: Explorer::default(),
            convolution,
        })
    }

    /// The variant that computes it.
    pub fn variant(&self) -> Variant {
        self.convolution.variant()
    }

    /// The kernel's name.
    pub fn kernel(&self) -> &str {
        self.convolution.kernel()
    }

    /// The convolution.
    pub fn convolution(&self) -> &Convolution {
        &self.convolution
    }

    /// Its buffers, for as many images as they hold.
    pub fn images(&self) -> Images<'_> {
        Images { input: &self.input, output: &self.output, count: self.images }
    }

    /// Computes `input` into `output`, for a probe or a measurement. On failure the output is undefined, so callers pass a
    /// buffer of their own.
    ///
    /// # Errors
    /// The device's failure.
    pub fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Ran> {
        self.compute((input, output), None, false)
    }

    /// As [`Buffered::run`], for a call of the program, with the arguments of the epilogue that it was prepared with.
    ///
    /// # Errors
    /// As [`Buffered::run`].
    pub fn run_fused(&self, input: &[f32], output: &mut [f32], epilogue: Option<&Arguments>) -> Result<Ran> {
        self.compute((input, output), epilogue, true)
    }

    fn compute(
        &self,
        (input, output): (&[f32], &mut [f32]),
        epilogue: Option<&Arguments>,
        is_of_call: bool,
    ) -> Result<Ran> {
        let image = self.convolution.problem().with_batch(1);
        let inputs = input.chunks(self.images * image.input_len());
        let outputs = output.chunks_mut(self.images * image.output_len());
        let mut ran = Ran::default();
        for (input, output) in inputs.zip(outputs) {
            let context = self.convolution.context();
            steps::traced(context, is_of_call, "upload", || self.input.upload(bytemuck::cast_slice(input)))?;
            // With sizes fixed in the shaders, the last part of a batch is computed like a whole one; the rest is
            // never read.
            let whole = self.convolution.has_fixed_sizes();
            let count = if whole { self.images } else { input.len() / image.input_len() };
            let images = Images { count, ..self.images() };
            ran += steps::traced(context, is_of_call, "compute", || {
                self.convolution.run_fused(images, epilogue)
            })?;
            steps::traced(context, is_of_call, "download", || {
                self.output.read(bytemuck::cast_slice_mut(output))
            })?;
        }
        self.explorer.work(ran.time);
        Ok(ran)
    }

    /// Computes images of a buffer of the program into another one, in place where the device can bind their places. The
    /// contents of the input are valid. On failure the output is undefined. `epilogue` is as in [`Buffered::run_fused`].
    ///
    /// # Errors
    /// The device's failure.
    pub fn run_resident(
        &self,
        residents: &mut Residents,
        input: &ResidentRange<'_>,
        output: &ResidentRange<'_>,
        epilogue: Option<&Arguments>,
    ) -> Result<Ran> {
        let image = self.convolution.problem().with_batch(1);
        let [in_bytes, out_bytes] = [image.input_len(), image.output_len()].map(|it| it * size_of::<f32>());
        let (all, context) = (input.bytes / in_bytes, self.convolution.context());
        let mut ran = Ran::default();
        residents::see_writes(context);
        for first in (0..all).step_by(self.images) {
            let count = self.images.min(all - first);
            let from = input.part(first * in_bytes, count * in_bytes);
            let to = output.part(first * out_bytes, count * out_bytes);
            if count < self.images && self.convolution.has_fixed_sizes() {
                // Computed like a whole part, in buffers that have room for one.
                let own = self.input.first(from.bytes);
                residents.region(&from).map_or(Ok(()), |from| from.copy_to(context, &own))?;
                ran += self.convolution.run_fused(self.images(), epilogue)?;
                let own = self.output.first(to.bytes);
                residents.region(&to).map_or(Ok(()), |to| own.copy_to(context, &to))?;
                continue;
            }
            let from = residents.operand(context, &from, false)?;
            let to = residents.operand(context, &to, true)?;
            let images = Images { input: &from, output: &to, count };
            ran += self.convolution.run_fused(images, epilogue)?;
            to.store(context)?;
        }
        // Nothing that was read has told.
        context.check_reset("glDispatchCompute")?;
        self.explorer.work(ran.time);
        Ok(ran)
    }

    /// When its runner-ups are timed.
    pub fn explorer(&self) -> &Explorer {
        &self.explorer
    }

    /// Submits the work `times` times, without waiting or reading back: for measurements.
    ///
    /// # Errors
    /// What GL reports.
    pub fn enqueue(&self, times: usize) -> Result<()> {
        (0..times).try_for_each(|_| self.convolution.enqueue(self.images()))
    }
}
