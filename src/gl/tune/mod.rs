//! Which variant computes a problem: by prediction, by what was measured before, and by measuring now.
//!
//! `device`, `reference` and `lab` ask it. It builds and times candidates through `execution` and keeps records in `cache`.
//!
//! | file | what it holds |
//! | --- | --- |
//! | this one | the policy, the order of candidates, the choice |
//! | `race` | the shortlist built, checked and timed |
//! | `explore` | a runner-up timed beside a plan that runs |
//! | `timing` | device seconds of a run |

mod explore;
mod race;
pub mod timing;

use std::time::Duration;

use crate::config::{Config, Tune, config};
use crate::error::{Error, Result};
use crate::gl::cache;
use crate::gl::convolution::fallback::Choice;
use crate::gl::convolution::{Buffered, images_at_once};
use crate::gl::driver::context::Context;
use crate::gl::execution::passes;
use crate::gl::execution::programs::Programs;
use crate::gl::measure::rates;
use crate::log::Level;
use crate::memory::tiles::Gpu;
use crate::problem::Conv2d;
use crate::shader::pass_plan;
use crate::shader::tuner::{Entry, Record, TUNING_BUDGET, shortlist};
use crate::shader::variant::{self, Variant};

pub use explore::explore;
use race::race;

/// Whether `problem` stays with the fallback kernels in any case. Where nothing measured may decide, all small ones do: in a pipeline, how fast the
/// device is says which of them share a slot, and the queue's kernel sums up as the floor does.
pub fn stays_with_fallback(problem: &Conv2d, config: &Config) -> bool {
    variant::stays_with_fallback(problem) || (config.deterministic && variant::is_small(problem))
}

/// Whether measurements decide for `problem`, and whether they are made.
pub fn policy(problem: &Conv2d, config: &Config) -> Tune {
    if variant::is_small(problem) { Tune::Off } else { config.tune_for(problem) }
}

/// Ways to compute `problem`, a batch that fits in the device's buffers, best first: by measurement, then by prediction.
///
/// # Errors
/// What the device failed to do.
pub fn order(programs: &mut Programs, problem: &Conv2d, policy: Tune) -> Result<Vec<Variant>> {
    let gpu = gpu(programs)?;
    let predicted = variant::candidates(problem, &gpu);
    if policy == Tune::Off {
        return Ok(predicted);
    }
    let capabilities = programs.context().capabilities().clone();
    let known = cache::record(programs.store(), &capabilities, problem).map(|mut record| {
        record.retain(|entry| is_sound(problem, &gpu, entry));
        record
    });
    let record = match (known.filter(|record| record.winners().next().is_some()), policy) {
        (None, Tune::Full) => tune(programs, problem, TUNING_BUDGET)?,
        (known, _) => known.unwrap_or_default(),
    };
    let measured: Vec<Variant> = record.winners().collect();
    let rest = predicted.into_iter().filter(|it| !measured.contains(it) && !record.refuses(it));
    Ok(measured.iter().copied().chain(rest).collect())
}

/// Remembers that `variant` turned out to be of no use, if there is a record that praises it.
pub fn refuse(programs: &Programs, problem: &Conv2d, variant: &Variant) {
    let capabilities = programs.context().capabilities();
    if let Some(mut record) = cache::record(programs.store(), capabilities, problem)
        && record.winners().any(|winner| winner == *variant)
    {
        record.update(&[Entry { variant: *variant, source: source_hash(problem, variant), seconds: None }]);
        cache::save_record(programs.store(), capabilities, problem, &record);
    }
}

/// Whether what was measured holds for the shaders and limits of today.
fn is_sound(problem: &Conv2d, gpu: &Gpu, entry: &Entry) -> bool {
    variant::is_candidate(problem, gpu, &entry.variant)
        && entry.source == source_hash(problem, &entry.variant)
}

/// A hash of the shaders of `variant`, for the problem's class.
fn source_hash(problem: &Conv2d, variant: &Variant) -> u64 {
    pass_plan::generate(variant, &cache::class(problem)).map_or(0, |recipe| recipe.hash())
}

/// Measures `problem`'s shortlist, whatever is on record, and records it.
///
/// # Errors
/// What the device failed to do, beyond a candidate's own failure.
pub fn tune(programs: &mut Programs, problem: &Conv2d, budget: Duration) -> Result<Record> {
    let gpu = gpu(programs)?;
    let predicted = variant::candidates(problem, &gpu);
    let timed = |variant: Variant| (variant, variant::seconds(problem, &gpu, &variant));
    let shortlist = shortlist(&predicted.into_iter().map(timed).collect::<Vec<_>>());
    let record = Record::new(race(programs, problem, &shortlist, budget)?);
    cache::save_record(programs.store(), programs.context().capabilities(), problem, &record);
    let device = programs.context().device();
    for Entry { variant, seconds, .. } in record.entries() {
        let took = seconds.map_or("refused".to_owned(), |seconds| format!("{:.1} us", seconds * 1e6));
        programs
            .context()
            .note(Level::Debug, format_args!("{device}: tuning {:?}: {variant}: {took}", problem.sizes()));
    }
    Ok(record)
}

/// `problem` with no more images than the device computes at once.
///
/// # Errors
/// If not even one fits.
pub fn clip_batch(context: &Context, problem: &Conv2d) -> Result<Conv2d> {
    Ok(problem.with_batch(images_at_once(context, problem)?))
}

/// Prepares `problem` in the way that the planner likes best and the driver can compile, with measurements as `policy` says.
///
/// # Errors
/// As [`Buffered::new`].
pub fn prepare(
    programs: &mut Programs,
    policy: Tune,
    problem: &Conv2d,
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Buffered> {
    first_that_works(programs, policy, problem, |programs, variant| {
        Buffered::new(programs, *variant, problem, weights, bias)
    })
}

/// What `prepare` makes of the best of the ways to compute `problem` that the driver can do.
fn first_that_works<T>(
    programs: &mut Programs,
    policy: Tune,
    problem: &Conv2d,
    mut prepare: impl FnMut(&mut Programs, &Variant) -> Result<T>,
) -> Result<T> {
    let tile = clip_batch(programs.context(), problem)?;
    let mut refused = None;
    for variant in candidates(programs, &tile, policy)? {
        match prepare(programs, &variant) {
            // A driver may fail at one shader and compile the next.
            Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. }))
                if variant != Variant::FALLBACK =>
            {
                programs.context().note(Level::Warn, format_args!("{variant}: {error}"));
                if policy != Tune::Off && matches!(error, Error::Shader { .. }) {
                    refuse(programs, &tile, &variant);
                }
                refused = Some(error);
            }
            other => return other,
        }
    }
    Err(refused.unwrap_or_else(|| no_winograd(programs.context(), problem)))
}

/// The way that is known or predicted to be best; nothing is built but what measuring takes, where that is asked for.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn choose(programs: &mut Programs, problem: &Conv2d) -> Result<Variant> {
    let tile = clip_batch(programs.context(), problem)?;
    let best = candidates(programs, &tile, policy(problem, config()))?.into_iter().next();
    best.ok_or_else(|| no_winograd(programs.context(), problem))
}

/// The best way that the driver compiles for pieces of `images` images of `problem`, and its kernel's name. Nothing but
/// programs is made.
///
/// # Errors
/// As [`Prepared::new`].
pub fn choose_built(programs: &mut Programs, problem: &Conv2d, images: usize) -> Result<(Variant, String)> {
    first_that_works(programs, policy(problem, config()), problem, |programs, variant| {
        let Some(recipe) = pass_plan::generate(variant, &problem.with_batch(images)) else {
            let choice = Choice::new(problem, programs.context().group().max_iterations())?;
            return Ok((*variant, programs.kernel(choice.kernel)?.kernel_name().to_owned()));
        };
        passes::build(programs, &recipe)?;
        Ok((*variant, recipe.name))
    })
}

fn no_winograd(context: &Context, problem: &Conv2d) -> Error {
    let most = context.group().max_iterations();
    let what = match variant::has_winograd_forms(problem.sizes()) {
        false => {
            "Winograd's algorithm, except for 3x3 kernels with stride and dilation 1 and one group".into()
        }
        true => format!(
            "Winograd's algorithm for {} channels and outputs of {} elements: it takes too large a buffer, or more than \
             the {most} iterations that the device's loops make",
            problem.sizes().c,
            problem.output_len()
        ),
    };
    Error::Unsupported { device: context.device().to_owned(), what }
}

/// Ways to compute `problem`, best first.
fn candidates(programs: &mut Programs, problem: &Conv2d, policy: Tune) -> Result<Vec<Variant>> {
    if stays_with_fallback(problem, config()) {
        // No rate of the device would change that; so none needs to be measured.
        return Ok(vec![Variant::FALLBACK]);
    }
    order(programs, problem, policy)
}

/// The device as the planner sees it, measured at first use.
///
/// # Errors
/// What the device failed to do.
pub fn gpu(programs: &mut Programs) -> Result<Gpu> {
    if let Some(gpu) = programs.context().group().gpu().get() {
        return Ok(*gpu);
    }
    let capabilities = programs.context().capabilities().clone();
    let most = programs.context().group().max_iterations();
    let gpu = match config().deterministic {
        // Nothing that was measured may decide.
        true => cache::with_limits(Gpu::ASSUMED, &capabilities, most),
        false => cache::gpu(programs.store(), &capabilities, most, || rates::measure(programs))?,
    };
    programs.settle()?;
    programs
        .context()
        .note(Level::Debug, format_args!("{}: planned for as {gpu:?}", programs.context().device()));
    Ok(*programs.context().group().gpu().get_or_init(|| gpu))
}

/// Seconds that the planner expects `variant` to take, if it knows the device: one that is only assumed may be a hundred times as
/// fast as this one, and dispatches cut for it as much too long.
pub fn expected(context: &Context, problem: &Conv2d, variant: &Variant) -> Option<f64> {
    let gpu = context.group().gpu().get().filter(|_| !config().deterministic)?;
    Some(variant::seconds(problem, gpu, variant))
}
