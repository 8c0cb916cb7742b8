//! Tries variants on this driver: builds, runs and times them, and compares rows of their output with the float64
//! oracle.
//!
//! Benchmarks, tests and the program use it, under the feature `lab`. It may use every other folder of `gl`.

pub mod baseline;
mod bench;
mod numbers;
#[cfg(feature = "patterns")]
mod patterns;
mod trial;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Backend, Job, PipelineOptions, Ticket, WhenFull};
use crate::error::Result;
use crate::gl::convolution::{Buffered, Chosen};
use crate::gl::device::engine::Engine;
use crate::gl::device::registry;
use crate::gl::execution::programs::Programs;
use crate::gl::tune;
use crate::problem::Conv2d;
use crate::report::Source;
use crate::shader::variant::{self, Variant};

pub use crate::gl::device::registry::gpu;
pub use bench::{Bench, Timed};
use numbers::Given;
pub use numbers::{Compared, Numbers};
#[cfg(feature = "patterns")]
pub use patterns::Exact;
use trial::time;
pub use trial::{Data, Effort};

/// The result of trying a variant.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The variant.
    pub variant: Variant,
    /// The time to build its programs and prepare the weights.
    pub build: Duration,
    /// Device time of one run among [`Effort::calls`].
    pub time: Duration,
    /// The largest error of the compared rows, relative to the direct algorithm's bound.
    pub error: f64,
}

fn measure(
    programs: &mut Programs,
    problem: &Conv2d,
    data: &Data,
    variant: &Variant,
    effort: &Effort,
) -> Result<Outcome> {
    let start = Instant::now();
    let prepared = Buffered::new(programs, *variant, problem, &data.weights, data.bias.as_deref())?;
    let build = start.elapsed();
    let mut output = vec![f32::NAN; problem.output_len()];
    prepared.run(&data.input, &mut output)?;
    let error = data.error(problem, &output);
    drop(output);
    let context = programs.context().clone();
    let time = time(&context, &|calls| prepared.enqueue(calls), effort)?;
    Ok(Outcome { variant: *variant, build, time, error })
}

/// Tries `variants` of `problem` on `gl:device` in sequence; none of an empty batch. A failure does not stop the
/// others.
///
/// # Errors
/// [`Error::NoDevice`](crate::Error::NoDevice) if there is no such device.
pub fn conv2d(
    device: usize,
    problem: &Conv2d,
    variants: &[Variant],
    effort: &Effort,
    mut done: impl FnMut(&Variant, Result<Outcome>),
) -> Result<()> {
    let engine = registry::engine(device)?;
    if problem.is_empty() {
        return Ok(());
    }
    let data = Data::new(problem, effort.rows);
    for variant in variants {
        let outcome =
            engine.worker().call(|session| measure(&mut session.programs, problem, &data, variant, effort));
        done(variant, outcome);
    }
    Ok(())
}

/// The result of tuning a problem.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// The planner's first choice, with its seconds if it could be timed.
    pub planned: (Variant, Option<f64>),
    /// The fastest variant with its seconds; none if there is no choice, or none could be timed.
    pub best: Option<(Variant, f64)>,
    /// How many were timed.
    pub timed: usize,
    /// How many were refused: they did not build, or their results were wrong.
    pub refused: usize,
    /// The total time, compiling included.
    pub took: Duration,
}

/// Tunes `problem` on `gl:device` and records the result, replacing any earlier record.
///
/// # Errors
/// [`Error::NoDevice`](crate::Error::NoDevice) if there is no such device; else the device's failure.
pub fn tune(device: usize, problem: &Conv2d, budget: Duration) -> Result<Tuned> {
    registry::engine(device)?.worker().call(|session| {
        let programs = &mut session.programs;
        let tile = tune::clip_batch(programs.context(), problem)?;
        let gpu = tune::gpu(programs)?;
        let first = variant::candidates(&tile, &gpu).first().copied().unwrap_or(Variant::FALLBACK);
        if variant::is_small(&tile) {
            let took = Duration::ZERO;
            return Ok(Tuned { planned: (first, None), best: None, timed: 0, refused: 0, took });
        }
        let start = Instant::now();
        let record = tune::tune(programs, &tile, budget)?;
        let seconds = |wanted: Variant| {
            record.entries().iter().find(|entry| entry.variant == wanted).and_then(|entry| entry.seconds)
        };
        let best = record.winners().next();
        let timed = record.winners().count();
        Ok(Tuned {
            planned: (first, seconds(first)),
            best: best.and_then(|best| Some((best, seconds(best)?))),
            timed,
            refused: record.entries().len() - timed,
            took: start.elapsed(),
        })
    })
}

/// Runs `variant` on integers whose results are exact, and counts the outputs that differ.
///
/// # Errors
/// [`Error::NoDevice`](crate::Error::NoDevice) if there is no such device; else the variant's failure.
pub fn differences(device: usize, problem: &Conv2d, variant: &Variant, seed: u64) -> Result<usize> {
    compare(device, problem, variant, Numbers::Integers, seed).map(|compared| compared.wrong)
}

/// Runs `variant` on the numbers that `numbers` names, and compares every output.
///
/// # Errors
/// As [`differences`].
pub fn compare(
    device: usize,
    problem: &Conv2d,
    variant: &Variant,
    numbers: Numbers,
    seed: u64,
) -> Result<Compared> {
    compare_on(&*registry::engine(device)?, problem, variant, numbers, seed)
}

/// As [`compare`], on a given engine.
///
/// # Errors
/// As [`differences`].
pub fn compare_on(
    engine: &Engine,
    problem: &Conv2d,
    variant: &Variant,
    numbers: Numbers,
    seed: u64,
) -> Result<Compared> {
    let given = Given::new(problem, variant, numbers, seed);
    // Not NaN, which may be a right result.
    let mut output = vec![12345.5; problem.output_len()];
    engine.worker().call(|session| {
        let prepared =
            Buffered::new(&mut session.programs, *variant, problem, &given.weights, given.bias.as_deref())?;
        prepared.run(&given.input, &mut output)
    })?;
    Ok(given.compare(problem, &output))
}

/// As [`differences`], for `jobs` jobs in a pipeline with `options`. Also returns what computed the last one.
///
/// # Errors
/// As [`differences`].
pub fn streamed_differences(
    device: usize,
    problem: &Conv2d,
    variant: &Variant,
    (jobs, seed): (usize, u64),
    options: PipelineOptions,
) -> Result<(usize, Arc<str>)> {
    let (compared, kernel) =
        compare_streamed(device, problem, variant, (Numbers::Integers, jobs, seed), options)?;
    Ok((compared.wrong, kernel))
}

/// As [`compare`], for several jobs in a pipeline with `options`. Also returns what computed the last one.
///
/// # Errors
/// As [`differences`].
pub fn compare_streamed(
    device: usize,
    problem: &Conv2d,
    variant: &Variant,
    (numbers, jobs, seed): (Numbers, usize, u64),
    options: PipelineOptions,
) -> Result<(Compared, Arc<str>)> {
    let engine = registry::engine(device)?;
    let queue = engine.queue(options, Source::Nobody)?;
    let given = Given::new(problem, variant, numbers, seed);
    let (weights, bias) = (given.weights.clone(), given.bias.clone());
    let recipe = Arc::new(Chosen::variant(*variant).recipe(*problem, weights, bias));
    let mut outputs = vec![vec![12345.5; problem.output_len()]; jobs];
    let submit = |output: &mut Vec<f32>| {
        let ticket = Ticket::new();
        let job = Job {
            ticket: ticket.clone(),
            recipe: recipe.clone(),
            input: given.input.as_ptr(),
            output: output.as_mut_ptr(),
            output_is_private: false,
            owner: None,
            fallback: None,
            partial_output_fallback: None,
        };
        // SAFETY: input and outputs have the lengths of the problem and outlive `flush`; nothing returns before it.
        unsafe { queue.submit(job, WhenFull::Wait) }.map(|()| ticket)
    };
    let tickets: Vec<Result<Ticket>> = outputs.iter_mut().map(submit).collect();
    queue.flush()?;
    let mut kernel = "".into();
    for ticket in tickets {
        kernel = ticket?.wait()?.kernel;
    }
    let mut all = Compared::default();
    for output in &outputs {
        let Compared { wrong, not_finite } = given.compare(problem, output);
        (all.wrong, all.not_finite) = (all.wrong + wrong, all.not_finite + not_finite);
    }
    Ok((all, kernel))
}
