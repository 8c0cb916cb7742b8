//! Calls that move much data: through the engine's own queue, in pieces, so that copies, transfers and kernels overlap.

use std::sync::Arc;

use super::Run;
use crate::backend::{Backend, Job, Lent, Pressure, Recipe, StandIn, Ticket};
use crate::cpu;
use crate::error::Result;

/// Runs one job of `recipe` on the queue of `backend`, with `weights` if the recipe has none, and waits for it.
///
/// # Errors
/// What the device failed to do; the output is untouched then.
pub(super) fn run(
    backend: &Arc<dyn Backend>,
    recipe: &Arc<Recipe>,
    weights: Option<&[f32]>,
    input: &[f32],
    output: &mut [f32],
) -> Result<Run> {
    let (queue, ticket, lent) = (backend.stream()?, Ticket::new(), weights.map(Lent::new));
    let job = Job {
        ticket: ticket.clone(),
        recipe: recipe.clone(),
        input: input.as_ptr(),
        output: output.as_mut_ptr(),
        output_is_private: false,
        owner: None,
        stand_in: None,
        rescue: Some(rescue(recipe, lent)),
    };
    // SAFETY: all are as long as the problem says, which the caller has checked, and are borrowed until the ticket is done,
    // which nothing here comes before.
    unsafe {
        match lent {
            Some(weights) => queue.submit_once(job, weights, Pressure::Wait)?,
            None => queue.submit(job, Pressure::Wait)?,
        }
    }
    ticket.wait()
}

/// The CPU, for outputs that are written in part when the device fails for good: half a result is worse than a slow one.
/// It runs before the ticket is done, so that what is lent is still there.
pub(super) fn rescue(recipe: &Arc<Recipe>, weights: Option<Lent>) -> StandIn {
    let recipe = recipe.clone();
    Arc::new(move |error, input, output| {
        crate::log::warning!("the device failed in the midst of an output, the CPU computes it: {error}");
        // SAFETY: weights are lent until the ticket is done, which it is only after its stand-in.
        let weights = weights.map_or(&recipe.weights[..], |lent| unsafe { lent.get() });
        let (cpu, data) = (cpu::open(), (weights, recipe.bias.as_deref()));
        let (kernel, timing) = cpu.conv2d(&recipe.problem, data, input, output)?;
        Ok(Run { device: cpu.shared_id(), kernel, timing, fallback: Some(error.to_string().into()) })
    })
}
