//! Exploring: now and then, a runner-up is timed beside the plan that runs, for the next plan.

use std::time::Instant;

use super::device::{clip_batch, gpu, is_sound, source_hash};
use super::timing::{calls, time};
use crate::error::{Error, Result};
use crate::gl::cache;
use crate::gl::convolution::Buffered;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::gl::tunables::EXPLORING_ROUNDS;
use crate::log::Level;
use crate::problem::Conv2d;
use crate::shader::pass_plan;
use crate::shader::tuner::Entry;

/// Times a runner-up of `prepared` beside it, on its own buffers, and records both times for the next plan. This plan
/// stays as it is, so its bits do not change. The buffers' contents are lost.
///
/// # Errors
/// The device's failure.
pub fn explore(
    programs: &mut Programs,
    prepared: &Buffered,
    problem: &Conv2d,
    weights: &[f32],
) -> Result<()> {
    let start = Instant::now();
    let (batch, incumbent) = (clip_batch(programs.context(), problem)?, prepared.variant());
    let (gpu, context) = (gpu(programs)?, programs.context().clone());
    let record = cache::record(programs.store(), context.capabilities(), &batch);
    let rivals = record.map_or(vec![], |mut record| {
        record.retain(|entry| is_sound(&batch, &gpu, entry));
        record.rivals(&incumbent)
    });
    let explorer = prepared.explorer();
    if let Some(rival) = explorer.turn(&rivals)
        && let Some(plan) = pass_plan::generate(&rival, &batch)
    {
        let mut entries = vec![];
        match compare(programs, prepared, &plan, weights) {
            Ok(seconds) => {
                for (variant, seconds) in [incumbent, rival].into_iter().zip(seconds) {
                    entries.push(Entry {
                        variant,
                        source: source_hash(&batch, &variant),
                        seconds: Some(seconds),
                    });
                }
                context.note(Level::Debug, format_args!("exploring: {incumbent}, {rival}: {seconds:?} s"));
            }
            Err(Error::Shader { .. }) => {
                entries.push(Entry { variant: rival, source: source_hash(&batch, &rival), seconds: None });
            }
            // Another time there may be enough memory.
            Err(Error::OutOfMemory { .. }) => {}
            Err(error) => return Err(error),
        }
        // Other processes may have written in the meantime.
        if let Some(mut record) = cache::record(programs.store(), context.capabilities(), &batch) {
            record.update(&entries);
            cache::save_record(programs.store(), context.capabilities(), &batch, &record);
        }
    }
    explorer.spend(start.elapsed());
    Ok(())
}

/// The best seconds of a run of `prepared`, and of the passes of `plan` in its place, timed in turns.
fn compare(
    programs: &mut Programs,
    prepared: &Buffered,
    plan: &pass_plan::PassPlan,
    weights: &[f32],
) -> Result<[f64; 2]> {
    let context = programs.context().clone();
    let mut passes = Passes::new(programs, plan)?;
    let weights = Buffer::with_data(&context, bytemuck::cast_slice(weights))?;
    if !passes.prepare(&weights)? {
        passes.hold(weights);
    }
    let own = prepared.convolution().buffers(prepared.images());
    let buffers = Buffers { weights: passes.held().map_or(own.weights, |it| it as _), ..own };
    let ways: [&dyn Fn() -> Result<()>; 2] = [&|| prepared.enqueue(1), &|| passes.enqueue(&buffers)];
    let mut best = [f64::INFINITY; 2];
    for round in 0..=EXPLORING_ROUNDS {
        for (best, enqueue) in best.iter_mut().zip(ways) {
            // The first round only determines how many runs to time together.
            let calls = if round == 0 { 1 } else { calls(*best) };
            let seconds = time(&context, calls, enqueue)?;
            *best = if round <= 1 { seconds } else { best.min(seconds) };
        }
    }
    Ok(best)
}
