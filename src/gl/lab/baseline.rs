//! What the pipeline is measured against: one batch as the reference framework computes it.
//!
//! Fresh buffers filled by `glBufferData` and its kin, its kernel in one dispatch, `glFinish`, `glMapBuffer`, all deleted again. Only
//! programs are kept from call to call, as there. Nothing in the library computes like this; `sparkle stream` does, to tell what the
//! pipeline gains.

use crate::error::{Error, Result};
use crate::gl::convolution::fallback::{Choice, Fallback};
use crate::gl::convolution::{self, BIAS, INPUT, OUTPUT, PARAMS, WEIGHTS};
use crate::gl::device::session::Session;
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch::Pace;
use crate::problem::Conv2d;
use std::rc::Rc;

/// Computes one batch on `gl:device`.
///
/// # Errors
/// If there is no such device; what it cannot do at once, or failed to do. The output is then undefined.
pub fn conv2d(
    device: usize,
    problem: &Conv2d,
    (input, weights, bias): (&[f32], &[f32], Option<&[f32]>),
    output: &mut [f32],
) -> Result<()> {
    problem.check_data(input, output)?;
    problem.check_weights(weights, bias)?;
    let engine = crate::gl::engine(device)?;
    if problem.is_empty() {
        return Ok(());
    }
    engine.worker().call(|session| {
        let kernel = kernel(session, problem)?;
        run(session.context(), &kernel, problem, (input, weights, bias), output)
    })
}

fn kernel(session: &mut Session, problem: &Conv2d) -> Result<Fallback> {
    let refuse = |session: &Session, what: &str| {
        Err(Error::Unsupported { device: session.context().device().to_owned(), what: what.to_owned() })
    };
    if convolution::images_at_once(session.context(), problem)? < problem.sizes().n {
        return refuse(session, "a batch larger than its largest buffer at once");
    }
    let choice = Choice::new(problem, session.context().group().max_iterations())?;
    if choice.parts.len() > 1 {
        return refuse(session, "a sum with more iterations than its loops make, in one pass");
    }
    let program = session.program(choice.kernel)?;
    Ok(Fallback::new(choice, program, Pace::new))
}

fn run(
    context: &Rc<Context>,
    kernel: &Fallback,
    problem: &Conv2d,
    (input, weights, bias): (&[f32], &[f32], Option<&[f32]>),
    output: &mut [f32],
) -> Result<()> {
    let api = context.api();
    let upload = |data: &[f32]| Buffer::with_data(context, bytemuck::cast_slice(data));
    let (input, weights, bias) = (upload(input)?, upload(weights)?, bias.map(upload).transpose()?);
    let params = Buffer::with_data(context, &kernel.params(problem))?;
    let result = Buffer::new(context, size_of_val(output))?;
    let bind = || {
        let buffers = [(INPUT, &input), (WEIGHTS, &weights), (OUTPUT, &result), (PARAMS, &params)];
        buffers.into_iter().chain(bias.iter().map(|it| (BIAS, it))).for_each(|(index, it)| it.bind(index));
    };
    kernel.enqueue(context, problem, &bind)?;
    api.memory_barrier(api::BUFFER_UPDATE_BARRIER_BIT);
    api.finish();
    context.check("glFinish")?;
    result.read_mapped(bytemuck::cast_slice_mut(output))
}
