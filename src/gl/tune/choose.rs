//! The policy, the order of candidates, the choice.

use std::time::Duration;

use super::device::{clip_batch, gpu, is_sound, source_hash};
use super::race::race;
use crate::config::{Config, Tune, config};
use crate::error::{Error, Result};
use crate::gl::cache;
use crate::gl::convolution::Buffered;
use crate::gl::convolution::fallback::FallbackChoice;
use crate::gl::driver::context::Context;
use crate::gl::execution::passes;
use crate::gl::execution::programs::Programs;
use crate::kernel::fused::Fused;
use crate::log::Level;
use crate::problem::Conv2d;
use crate::shader::pass_plan;
use crate::shader::tuner::{Entry, Record, TUNING_BUDGET, shortlist};
use crate::shader::variant::{self, Variant};

/// Whether `problem` always uses the fallback kernels. If no measurement may decide, all small problems do. In a
/// pipeline the device's speed decides which of them share a slot, and the queue's kernel adds in the same order as
/// the fallback kernels.
pub fn stays_with_fallback(problem: &Conv2d, config: &Config) -> bool {
    variant::stays_with_fallback(problem) || (config.deterministic && variant::is_small(problem))
}

/// Whether measurements decide for `problem`, and whether new ones are made.
pub fn policy(problem: &Conv2d, config: &Config) -> Tune {
    if variant::is_small(problem) { Tune::Off } else { config.tune_for(problem) }
}

/// Variants that compute `problem`, best first: measured ones, then predicted ones. Its batch must fit in the
/// device's buffers.
///
/// # Errors
/// The device's failure.
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

/// Records that `variant` does not work, if a record lists it as a winner.
pub fn refuse(programs: &Programs, problem: &Conv2d, variant: &Variant) {
    let capabilities = programs.context().capabilities();
    if let Some(mut record) = cache::record(programs.store(), capabilities, problem)
        && record.winners().any(|winner| winner == *variant)
    {
        record.update(&[Entry { variant: *variant, source: source_hash(problem, variant), seconds: None }]);
        cache::save_record(programs.store(), capabilities, problem, &record);
    }
}

/// Measures `problem`'s shortlist and records it, replacing any earlier record.
///
/// # Errors
/// The device's failure, except a failure of one candidate.
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

/// Prepares `problem` with the best variant that the driver can compile, with measurements as `policy` says.
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

/// As [`prepare`] for `part`, some images of `whole`, with a variant that is chosen for `whole`.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_part(
    programs: &mut Programs,
    (whole, part): (&Conv2d, &Conv2d),
    weights: &[f32],
    bias: Option<&[f32]>,
) -> Result<Buffered> {
    first_that_works(programs, policy(whole, config()), whole, |programs, variant| {
        Buffered::new(programs, *variant, part, weights, bias)
    })
}

/// As [`prepare`], with an epilogue that every run applies.
///
/// # Errors
/// As [`Buffered::finished`].
pub fn prepare_fused(
    programs: &mut Programs,
    problem: &Conv2d,
    data: (&[f32], Option<&[f32]>),
    fused: &Fused,
) -> Result<Buffered> {
    first_that_works(programs, policy(problem, config()), problem, |programs, variant| {
        Buffered::finished(programs, *variant, problem, data, Some(fused))
    })
}

/// Calls `prepare` with the variants for `problem`, best first, until the driver can build one.
///
/// # Errors
/// As [`Buffered::new`], and those of `prepare`.
pub fn first_that_works<T>(
    programs: &mut Programs,
    policy: Tune,
    problem: &Conv2d,
    mut prepare: impl FnMut(&mut Programs, &Variant) -> Result<T>,
) -> Result<T> {
    let batch = clip_batch(programs.context(), problem)?;
    let mut refused = None;
    for variant in candidates(programs, &batch, policy)? {
        match prepare(programs, &variant) {
            // A driver may fail on one shader and compile the next.
            Err(error @ (Error::Shader { .. } | Error::OutOfMemory { .. }))
                if variant != Variant::FALLBACK =>
            {
                programs.context().note(Level::Warn, format_args!("{variant}: {error}"));
                if policy != Tune::Off && matches!(error, Error::Shader { .. }) {
                    refuse(programs, &batch, &variant);
                }
                refused = Some(error);
            }
            other => return other,
        }
    }
    Err(refused.unwrap_or_else(|| no_winograd(programs.context(), problem)))
}

/// The best variant, measured or predicted. Builds nothing, except for measurements that are asked for.
///
/// # Errors
/// [`Error::Unsupported`].
pub fn choose(programs: &mut Programs, problem: &Conv2d) -> Result<Variant> {
    let batch = clip_batch(programs.context(), problem)?;
    let best = candidates(programs, &batch, policy(problem, config()))?.into_iter().next();
    best.ok_or_else(|| no_winograd(programs.context(), problem))
}

/// The best variant that the driver compiles for pieces of `images` images of `problem`, and its kernel's name.
/// Creates only programs.
///
/// # Errors
/// As [`Buffered::new`].
pub fn choose_built(programs: &mut Programs, problem: &Conv2d, images: usize) -> Result<(Variant, String)> {
    first_that_works(programs, policy(problem, config()), problem, |programs, variant| {
        let Some(plan) = pass_plan::generate(variant, &problem.with_batch(images)) else {
            let choice = FallbackChoice::new(problem, programs.context().group().max_iterations())?;
            return Ok((*variant, programs.kernel(choice.kernel)?.kernel_name().to_owned()));
        };
        passes::build(programs, &plan)?;
        Ok((*variant, plan.name))
    })
}

fn no_winograd(context: &Context, problem: &Conv2d) -> Error {
    let limit = context.group().max_iterations();
    let what = match variant::has_winograd_forms(problem.sizes()) {
        false => {
            "Winograd's algorithm, except for 3x3 kernels with stride and dilation 1 and one group".into()
        }
        true => format!(
            "Winograd's algorithm for {} channels and outputs of {} elements: it takes too large a buffer, or more than \
                          the {limit} iterations that the device's loops make",
            problem.sizes().c,
            problem.output_len()
        ),
    };
    Error::Unsupported { device: context.device().to_owned(), what }
}

/// Variants that compute `problem`, best first.
fn candidates(programs: &mut Programs, problem: &Conv2d, policy: Tune) -> Result<Vec<Variant>> {
    if stays_with_fallback(problem, config()) {
        // The device's rates could not change that, so they need not be measured.
        return Ok(vec![Variant::FALLBACK]);
    }
    order(programs, problem, policy)
}

/// Seconds that the planner expects `variant` to take, if the device was measured. An assumed device may be a hundred
/// times as fast as the real one, and dispatches cut for it a hundred times too long.
pub fn expected(context: &Context, problem: &Conv2d, variant: &Variant) -> Option<f64> {
    let gpu = context.group().gpu().get().filter(|_| !config().deterministic)?;
    Some(variant::seconds(problem, gpu, variant))
}
