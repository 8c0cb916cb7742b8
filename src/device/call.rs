//! Blocking calls that move much data: split into pieces on the engine's queue, so that uploads, kernels and downloads
//! overlap.

use std::sync::Arc;

use crate::backend::{Backend, BorrowedSlice, FallbackFn, Job, Recipe, Run, Ticket, WhenFull};
use crate::cpu;
use crate::error::Result;
use crate::problem::Conv2d;

/// Computes one convolution on `backend`, with weights that are used once.
///
/// # Errors
/// The device's failure; the output is then untouched.
pub(super) fn once(
    backend: &Arc<dyn Backend>,
    problem: &Conv2d,
    (weights, bias): (&[f32], Option<&[f32]>),
    input: &[f32],
    output: &mut [f32],
) -> Result<Run> {
    if backend.streams(problem) {
        let recipe = backend.recipe(problem, bias)?;
        return run(backend, &recipe, Some(weights), input, output);
    }
    let (kernel, timing) = backend.conv2d(problem, (weights, bias), input, output)?;
    Ok(Run::new(backend.shared_id(), kernel, timing, None))
}

/// Runs one job of `recipe` on the queue of `backend` and waits for it. `weights` are given if the recipe has none.
///
/// # Errors
/// The device's failure; the output is then untouched.
pub(super) fn run(
    backend: &Arc<dyn Backend>,
    recipe: &Arc<Recipe>,
    weights: Option<&[f32]>,
    input: &[f32],
    output: &mut [f32],
) -> Result<Run> {
    let (queue, ticket, weights) = (backend.stream()?, Ticket::new(), weights.map(BorrowedSlice::new));
    let job = Job {
        ticket: ticket.clone(),
        recipe: recipe.clone(),
        input: input.as_ptr(),
        output: output.as_mut_ptr(),
        output_is_private: false,
        owner: None,
        fallback: None,
        partial_output_fallback: Some(recompute_on_cpu(recipe, weights)),
    };
    // SAFETY: the caller has checked that all have the lengths of the problem. They are borrowed until this function
    // returns, which it does only after the ticket is done.
    unsafe {
        match weights {
            Some(weights) => queue.submit_once(job, weights, WhenFull::Wait)?,
            None => queue.submit(job, WhenFull::Wait)?,
        }
    }
    ticket.wait()
}

/// Recomputes an output on the CPU when the device fails permanently after part of it was written: a slow result is
/// better than a partial one. It runs before the ticket is done, so borrowed buffers are still valid.
pub(super) fn recompute_on_cpu(recipe: &Arc<Recipe>, weights: Option<BorrowedSlice>) -> FallbackFn {
    let recipe = recipe.clone();
    Arc::new(move |error, input, output| {
        crate::log::warning!("the device failed in the middle of an output, the CPU recomputes it: {error}");
        // SAFETY: the weights are borrowed until the ticket is done, and it is done only after its fallback has run.
        let weights = weights.map_or(&recipe.weights[..], |borrowed| unsafe { borrowed.get() });
        let (cpu, data) = (cpu::open(), (weights, recipe.bias.as_deref()));
        let (kernel, timing) = cpu.conv2d(&recipe.problem, data, input, output)?;
        Ok(Run::new(cpu.shared_id(), kernel, timing, Some(error.to_string().into())))
    })
}
