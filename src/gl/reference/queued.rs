//! Convolutions between a caller's own buffer objects, queued on the caller's context without waiting.
//!
//! Existing asynchronous programs dispatch the reference program themselves. This queues the planner's kernel in its
//! place. The weights are in a caller's buffer that may change at any time, so the device packs them again for each
//! convolution.

use crate::error::{Error, Result};
use crate::gl::convolution;
use crate::gl::driver::resource::{Buffer, Region};
use crate::gl::execution::budget::DispatchBudget;
use crate::gl::execution::dispatch;
use crate::gl::execution::passes::{self, Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::tunables::MAX_QUEUED_SHAPES;
use crate::gl::tune;
use crate::log::Level;
use crate::problem::Conv2d;
use crate::shader::pass_plan;

/// The passes that are ready on one context, the latest last. `None` if no kernel is better than the reference program.
#[derive(Default)]
pub struct Recent(Vec<(Conv2d, Option<Passes>)>);

impl Recent {
    /// Queues `problem` from `input` and `weights` into `output`. The buffers must be at least, or `exactly`, as long
    /// as it needs. Changes the program in use and the bound buffers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if no kernel is better than the reference program; [`Error::InvalidArgument`] for a
    /// buffer of the wrong size; what GL reports. The output is then undefined.
    pub fn enqueue(
        &mut self,
        programs: &mut Programs,
        problem: &Conv2d,
        [input, weights, output]: [u32; 3],
        exactly: bool,
    ) -> Result<()> {
        let region = |name, buffer, elements| region(programs, name, buffer, elements, exactly);
        let input = region("input", input, problem.input_len())?;
        let weights = region("weights", weights, problem.weights_len())?;
        let output = region("output", output, problem.output_len())?;
        let passes = self.passes(programs, problem)?;
        passes.enqueue_packing(&weights)?;
        let buffers =
            Buffers { input: &input, weights: &weights, bias: None, output: &output, epilogue: None };
        let dispatches = passes.enqueue_cut(&buffers)?;
        let (context, name) = (programs.context(), passes.name());
        context.note(
            Level::Debug,
            format_args!("{}: {name}: queued, {dispatches} dispatches", context.device()),
        );
        Ok(())
    }

    /// The passes for a problem, built at its first use.
    fn passes(&mut self, programs: &mut Programs, problem: &Conv2d) -> Result<&Passes> {
        let kept = self.0.iter().position(|(kept, _)| kept == problem).map(|index| self.0.remove(index));
        let kept = match kept {
            Some(kept) => kept,
            None => (*problem, build(programs, problem)?),
        };
        if self.0.len() == MAX_QUEUED_SHAPES {
            self.0.remove(0);
        }
        self.0.push(kept);
        self.0.last().and_then(|(_, passes)| passes.as_ref()).ok_or_else(|| Error::Unsupported {
            device: programs.context().device().to_owned(),
            what: "a better kernel than the reference program for this convolution".to_owned(),
        })
    }
}

/// Builds passes for the whole batch; `None` if the planner prefers the reference program, or nothing else fits or
/// compiles.
fn build(programs: &mut Programs, problem: &Conv2d) -> Result<Option<Passes>> {
    if convolution::images_at_once(programs.context(), problem)? < problem.sizes().n {
        return Ok(None);
    }
    let variant = tune::choose(programs, problem)?;
    let Some(plan) = pass_plan::generate(&variant, problem) else { return Ok(None) };
    let work = dispatch::together(plan.run.iter().map(passes::work));
    let expected = tune::expected(programs.context(), problem, &variant);
    let rate = expected.map(|seconds| f64::from(work.units) * work.operations / seconds);
    match Passes::with_packed(programs, &plan, DispatchBudget::new().expecting(rate)) {
        Ok(passes) => Ok(Some(passes)),
        Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. })) => {
            programs.context().note(Level::Warn, format_args!("{variant}: {error}"));
            programs.context().forget_errors();
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The beginning of a buffer object that holds at least, or `exactly`, `elements` numbers.
fn region(
    programs: &Programs,
    name: &'static str,
    buffer: u32,
    elements: usize,
    exactly: bool,
) -> Result<Region> {
    let (context, bytes) = (programs.context(), elements * size_of::<f32>());
    let there = Buffer::bytes_of(context, buffer)?;
    if there < bytes as u64 || exactly && there > bytes as u64 {
        let given = format!("a buffer of {there} bytes");
        return Err(Error::invalid(name, given, format!("{bytes}, as the parameters say")));
    }
    Ok(Region { buffer, offset: 0, bytes })
}
