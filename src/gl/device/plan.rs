//! A plan of the engine: a convolution that the worker holds, or makes again after its context was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::allocate;
use crate::backend::{Memory, PipelineOptions, Plan, Range, Recipe};
use crate::config::{Tune, config};
use crate::error::Result;
use crate::gl::convolution::{Buffered, Chosen};
use crate::gl::device::session::Session;
use crate::gl::device::worker::Worker;
use crate::gl::execution::dispatch::Ran;
use crate::gl::execution::epilogue::Arguments;
use crate::gl::execution::residents::{self, ResidentRange};
use crate::gl::pipeline;
use crate::gl::tune;
use crate::kernel::bind::Launch;
use crate::kernel::fused::Fused;
use crate::log::Level;
use crate::report::Timing;
use crate::shader::pass_plan::{self, generate};
use crate::shader::variant::Variant;

/// The times of a call that began at `start`.
pub fn timing(ran: Ran, start: Instant) -> Timing {
    Timing { kernel: ran.time, wall: start.elapsed(), dispatches: ran.dispatches }
}

/// A convolution prepared on the worker, under a key.
pub struct GlPlan {
    pub worker: Arc<Worker>,
    pub key: u64,
    /// Whether its runs go through the engine's pipeline for calls.
    pub streams: bool,
    /// Images computed at once.
    pub images: usize,
    pub kernel: String,
    /// Whether the worker may hold it, with buffers for a whole batch.
    pub is_held: AtomicBool,
    /// Whether it was run directly. A plan that only goes through pipelines holds nothing on the worker.
    pub has_run: AtomicBool,
    /// Kept for pipelines, and to upload everything again after the context is lost.
    pub recipe: Arc<Recipe>,
    /// The epilogue that every run applies.
    pub fused: Option<Fused>,
}

impl GlPlan {
    /// Runs it on the worker's copy, which is made if it is missing. What fails is not kept. Returns the times, and what
    /// is to be done after the caller has its outputs: whether to time a runner-up, whether to settle fresh programs.
    fn run_on_worker(
        &self,
        run: impl FnOnce(&mut Session, &Buffered) -> Result<Ran> + Send,
    ) -> Result<(Ran, [bool; 2])> {
        self.has_run.store(true, Ordering::Relaxed);
        self.worker.call(|session| {
            let prepared = match session.take(self.key) {
                Some(prepared) => prepared,
                None => {
                    let Recipe { problem, weights, bias, .. } = &*self.recipe;
                    let variant = &Chosen::of(&self.recipe).variant;
                    let (data, fused) = ((&weights[..], bias.as_deref()), self.fused.as_ref());
                    Buffered::finished(&mut session.programs, *variant, problem, data, fused)?
                }
            };
            let ran = run(session, &prepared)?;
            let explore = prepared.explorer().is_due() && prepared.variant() != Variant::FALLBACK;
            // A runner-up would lack the epilogue.
            let explore = explore && self.fused.is_none();
            // The outputs are ready; if it is not kept, the next run prepares it again.
            let _ = session.keep(self.key, prepared);
            Ok((ran, [explore, session.programs.is_fresh()]))
        })
    }

    /// Runs it on buffers of the program, with the arguments of its epilogue.
    fn run_in_place(
        &self,
        (input, output): (Range<'_>, Range<'_>),
        epilogue: Option<&Launch<'_>>,
    ) -> Result<Timing> {
        let start = Instant::now();
        let (from, to) = (ResidentRange::of(&input)?, ResidentRange::of(&output)?);
        let (ran, after) = self.run_on_worker(|session, prepared| {
            let Session { residents, programs, .. } = session;
            let context = programs.context();
            let arguments = epilogue.map(|it| Arguments::new(context, residents, it)).transpose();
            let ready = arguments.and_then(|arguments| {
                residents.ensure(context, &from, false)?;
                residents.ensure(context, &to, true)?;
                Ok(arguments)
            });
            let arguments = residents.keep_if(ready)?;
            let ran = prepared.run_resident(residents, &from, &to, arguments.as_ref());
            residents.end(ran, &[to.key])
        })?;
        self.after_run(after);
        Ok(timing(ran, start))
    }

    /// What is left to do after a run.
    fn after_run(&self, [explore, fresh]: [bool; 2]) {
        if fresh {
            // The next run reports a lost device.
            self.worker.post(|session| drop(session.programs.settle()));
        }
        if explore && tune::policy(&self.recipe.problem, config()) == Tune::Full {
            self.explore();
        }
    }

    /// Drops the worker's copy.
    fn release(&self) {
        let key = self.key;
        self.worker.post(move |session| drop(session.take(key)));
    }

    /// Times a runner-up in the background: the caller already has the outputs.
    fn explore(&self) {
        let (key, recipe) = (self.key, self.recipe.clone());
        self.worker.post(move |session| {
            let Some(prepared) = session.take(key) else { return };
            match tune::explore(&mut session.programs, &prepared, &recipe.problem, &recipe.weights) {
                // If it is not kept, the next run prepares it again.
                Ok(()) => drop(session.keep(key, prepared)),
                Err(error) => session.context().note(Level::Debug, format_args!("exploring: {error}")),
            }
        });
    }
}

impl Plan for GlPlan {
    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn memory(&self) -> Memory {
        let Recipe { problem, weights, bias, .. } = &*self.recipe;
        let variant = &Chosen::of(&self.recipe).variant;
        let piece = problem.with_batch(self.images);
        let passes = generate(variant, &piece);
        let unpacked =
            if passes.as_ref().is_none_or(pass_plan::PassPlan::reads_weights) { weights.len() } else { 0 };
        let (packed, scratch) = passes.map_or((0, 0), |it| (it.packed, it.scratch.iter().sum::<usize>()));
        let bias = bias.as_ref().map_or(0, Vec::len);
        // One copy here, to upload again after the context is lost, and one on the device.
        let held = weights.len() + bias + unpacked + packed + bias;
        let moved = match self.streams {
            true => pipeline::workspace(&PipelineOptions::of_calls(), &piece),
            // The host holds the whole output once more until the run has succeeded.
            false => (piece.input_len() + piece.output_len() + problem.output_len()) * size_of::<f32>(),
        };
        Memory { packed: held * size_of::<f32>(), workspace: moved + scratch * size_of::<f32>() }
    }

    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing> {
        let start = Instant::now();
        let mut computed = allocate::zeroed(output.len(), "the output")?;
        let (ran, after) =
            self.run_on_worker(|_, prepared| prepared.run_fused(input, &mut computed, None))?;
        output.copy_from_slice(&computed);
        self.after_run(after);
        Ok(timing(ran, start))
    }

    fn run_fused(&self, input: &[f32], output: &mut [f32], epilogue: &Launch<'_>) -> Result<Timing> {
        let start = Instant::now();
        let mut computed = allocate::zeroed(output.len(), "the output")?;
        let (ran, after) = self.run_on_worker(|session, prepared| {
            let Session { residents, programs, .. } = session;
            let context = programs.context();
            let arguments = Arguments::new(context, residents, epilogue);
            let arguments = residents.keep_if(arguments)?;
            residents::see_writes(context);
            prepared.run_fused(input, &mut computed, Some(&arguments))
        })?;
        output.copy_from_slice(&computed);
        self.after_run(after);
        Ok(timing(ran, start))
    }

    fn run_resident(&self, input: Range<'_>, output: Range<'_>) -> Result<Timing> {
        self.run_in_place((input, output), None)
    }

    fn run_resident_fused(
        &self,
        input: Range<'_>,
        output: Range<'_>,
        epilogue: &Launch<'_>,
    ) -> Result<Timing> {
        self.run_in_place((input, output), Some(epilogue))
    }

    fn streams(&self) -> bool {
        self.streams
    }

    fn recipe(&self) -> Option<&Arc<Recipe>> {
        if self.fused.is_some() {
            return None;
        }
        if !self.has_run.load(Ordering::Relaxed) && self.is_held.swap(false, Ordering::Relaxed) {
            self.release();
        }
        Some(&self.recipe)
    }
}

impl Drop for GlPlan {
    fn drop(&mut self) {
        self.release();
    }
}
