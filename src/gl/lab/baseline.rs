//! The baseline of the pipeline: one batch as the reference framework computes it.
//!
//! Each call makes fresh buffers with `glBufferData`, runs the framework's kernel in one dispatch, calls `glFinish` and
//! `glMapBuffer`, and deletes the buffers. Only programs are kept between calls, as in the framework. Only
//! `sparkle stream` uses this, to show what the pipeline gains.

use crate::error::{Error, Result};
use crate::gl::convolution::fallback::FallbackChoice;
use crate::gl::convolution::{self, Convolution, Images, Pacing};
use crate::gl::device::registry;
use crate::gl::driver::api;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::programs::Programs;
use crate::problem::Conv2d;

/// Computes one batch on `gl:device`.
///
/// # Errors
/// [`Error::NoDevice`] if there is no such device; what the device cannot do in one dispatch, or its failure. The
/// output is then undefined.
pub fn conv2d(
    device: usize,
    problem: &Conv2d,
    (input, weights, bias): (&[f32], &[f32], Option<&[f32]>),
    output: &mut [f32],
) -> Result<()> {
    problem.check_data(input, output)?;
    problem.check_weights(weights, bias)?;
    let engine = registry::engine(device)?;
    if problem.is_empty() {
        return Ok(());
    }
    engine.worker().call(|session| {
        check(&session.programs, problem)?;
        run(&mut session.programs, problem, (input, weights, bias), output)
    })
}

/// Refuses problems that take more than one dispatch.
fn check(programs: &Programs, problem: &Conv2d) -> Result<()> {
    let context = programs.context();
    let refuse =
        |what: &str| Err(Error::Unsupported { device: context.device().to_owned(), what: what.to_owned() });
    if convolution::images_at_once(context, problem)? < problem.sizes().n {
        return refuse("a batch larger than its largest buffer at once");
    }
    if FallbackChoice::new(problem, context.group().max_iterations())?.parts.len() > 1 {
        return refuse("a sum with more iterations than its loops make, in one pass");
    }
    Ok(())
}

fn run(
    programs: &mut Programs,
    problem: &Conv2d,
    (input, weights, bias): (&[f32], &[f32], Option<&[f32]>),
    output: &mut [f32],
) -> Result<()> {
    let context = programs.context().clone();
    let upload = |data: &[f32]| Buffer::with_data(&context, bytemuck::cast_slice(data));
    let input = upload(input)?;
    let convolution = Convolution::fallback(programs, problem, (weights, bias), Pacing::default(), &upload)?;
    let result = Buffer::new(&context, size_of_val(output))?;
    convolution.enqueue(Images { input: &input, output: &result, count: problem.sizes().n })?;
    context.api().memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
    context.api().finish();
    context.check("glFinish")?;
    result.read_mapped(bytemuck::cast_slice_mut(output))
}
