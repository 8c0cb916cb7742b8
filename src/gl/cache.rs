//! The entries of the store, which is kept from run to run: measured rates, program binaries, tuning records.
//!
//! All are keyed by device and driver; binaries also by the whole shader, so that a changed generator finds nothing.

use std::rc::Rc;

use crate::allocate;
use crate::error::Result;
use crate::gl::driver::capabilities::Capabilities;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::{Building, Program};
use crate::gl::tunables::MAX_CACHED_TEXT;
use crate::log::Level;
use crate::memory::tiles::Gpu;
use crate::memory::{Ceiling, Ceilings, Hierarchy};
use crate::problem::Conv2d;
use crate::shader::pass_plan::ShaderSource;
use crate::shader::tuner::Record;
use crate::store::Store;

/// The key of a shader's program.
pub fn program_key(capabilities: &Capabilities, source: &ShaderSource) -> String {
    format!("{}\n{}", capabilities.key(), source.text)
}

/// A program that is ready or that the driver is building.
pub enum PendingProgram {
    /// The driver accepted a binary.
    Ready(Program),
    /// The driver compiles it.
    Building(Building),
}

impl PendingProgram {
    /// Whether [`PendingProgram::finish`] would return without waiting for the driver.
    pub fn is_ready(&self) -> bool {
        match self {
            PendingProgram::Ready(_) => true,
            PendingProgram::Building(building) => building.is_ready(),
        }
    }

    /// The program, and whether it was compiled. A compiled one is saved in `store`.
    ///
    /// # Errors
    /// As [`Program::build`].
    pub fn finish(self, store: &Store, source: &ShaderSource) -> Result<(Program, bool)> {
        let program = match self {
            PendingProgram::Ready(program) => return Ok((program, false)),
            PendingProgram::Building(building) => building.finish()?,
        };
        keep(store, &program, source)?;
        Ok((program, true))
    }
}

/// Saves a program's binary.
///
/// # Errors
/// [`Error::DeviceLost`](crate::Error::DeviceLost).
pub fn keep(store: &Store, program: &Program, source: &ShaderSource) -> Result<()> {
    let capabilities = program.context().capabilities();
    if capabilities.program_binaries
        && source.text.len() <= MAX_CACHED_TEXT
        && let Some((format, binary)) = program.binary()?
        && let Ok(mut bytes) = allocate::with_capacity(size_of_val(&format) + binary.len(), "a program")
    {
        bytes.extend_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(&binary);
        let key = program_key(capabilities, source);
        if store.load::<Vec<u8>>("gl-program", &key).is_none_or(|kept| kept != bytes) {
            store.save("gl-program", &key, &bytes);
        }
    }
    Ok(())
}

/// The program of a shader: from a stored binary if the driver accepts it, or else being compiled.
///
/// # Errors
/// What GL reports immediately.
pub fn program(store: &Store, context: &Rc<Context>, source: &ShaderSource) -> Result<PendingProgram> {
    if context.capabilities().program_binaries
        && source.text.len() <= MAX_CACHED_TEXT
        && let Some(bytes) = store.load::<Vec<u8>>("gl-program", &program_key(context.capabilities(), source))
        && let Some((format, binary)) = bytes.split_first_chunk::<4>()
    {
        let format = u32::from_le_bytes(*format);
        if let Some(program) = Program::from_binary(context, &source.name, format, binary)? {
            return Ok(PendingProgram::Ready(program));
        }
        let device = context.device();
        context.note(
            Level::Debug,
            format_args!("{device}: {}: the driver rejects its stored binary", source.name),
        );
    }
    Building::begin(context, &source.name, &source.text).map(PendingProgram::Building)
}

/// Whether a rate is plausible.
fn sensible(rate: &f64) -> bool {
    rate.is_finite() && *rate > 0.0
}

/// The device as the planner sees it: rates from the store or from `measure`, limits from the present driver.
///
/// # Errors
/// Those of `measure`.
pub fn gpu(
    store: &Store,
    capabilities: &Capabilities,
    max_iterations: usize,
    measure: impl FnOnce() -> Result<Gpu>,
) -> Result<Gpu> {
    let key = capabilities.key();
    let known = store.load::<[f64; 4]>("gl-rates", &key);
    if let Some([flops, memory, launch, units]) = known.filter(|rates| rates.iter().all(sensible)) {
        let units = units.clamp(1.0, 4096.0) as usize;
        let known = Gpu { flops, memory, launch, units, ..Gpu::ASSUMED };
        return Ok(with_limits(known, capabilities, max_iterations));
    }
    let gpu = measure()?;
    store.save("gl-rates", &key, &[gpu.flops, gpu.memory, gpu.launch, gpu.units as f64]);
    Ok(gpu)
}

/// `gpu` with the limits of this driver.
pub fn with_limits(gpu: Gpu, capabilities: &Capabilities, max_iterations: usize) -> Gpu {
    Gpu {
        max_iterations,
        shared_bytes: capabilities.max_shared,
        max_threads: capabilities.max_threads,
        max_elements: capabilities.max_elements(),
        ..gpu
    }
}

/// The rates by which `auto` compares devices, from the store or from `measure`.
///
/// # Errors
/// Those of `measure`.
pub fn hierarchy(
    store: &Store,
    capabilities: &Capabilities,
    measure: impl FnOnce() -> Result<Hierarchy>,
) -> Result<Hierarchy> {
    let key = capabilities.key();
    let known = store.load::<[f64; 5]>("gl-hierarchy", &key);
    if let Some([flops, memory, upload, download, launch]) = known.filter(|it| it.iter().all(sensible)) {
        return Ok(Hierarchy { flops, memory, upload, download, launch, ..Hierarchy::UNKNOWN });
    }
    let measured = measure()?;
    let Hierarchy { flops, memory, upload, download, launch, .. } = measured;
    store.save("gl-hierarchy", &key, &[flops, memory, upload, download, launch]);
    Ok(measured)
}

/// The ceilings of a device, from the store or from `measure`.
///
/// # Errors
/// Those of `measure`.
pub fn ceilings(
    store: &Store,
    capabilities: &Capabilities,
    measure: impl FnOnce() -> Result<[f64; 5]>,
) -> Result<Ceilings> {
    let key = capabilities.key();
    let is_sound = |measured: &[f64; 5]| {
        let [flops, shared, cache, memory, seen] = *measured;
        let known = [flops, shared, memory].iter().all(sensible);
        known && (sensible(&cache) == sensible(&seen)) && (0.0..1e15).contains(&seen)
    };
    let measured = match store.load("gl-ceilings", &key).filter(is_sound) {
        Some(known) => known,
        None => {
            let measured = measure()?;
            store.save("gl-ceilings", &key, &measured);
            measured
        }
    };
    let [flops, shared, cache, memory, seen] = measured;
    let ceiling = |name, together| Ceiling { name, alone: None, together };
    let levels = [ceiling("shared", shared), ceiling("L2", cache), ceiling("memory", memory)];
    Ok(Ceilings {
        threads: 0,
        peaks: vec![ceiling("fp32", flops)],
        levels: levels.into_iter().filter(|level| level.together > 0.0).collect(),
        described: 0,
        seen: (seen > 0.0).then_some(seen as usize),
    })
}

/// The problem's tuning class: its batch is rounded down to a power of two.
pub fn class(problem: &Conv2d) -> Conv2d {
    let n = problem.sizes().n;
    problem.with_batch(if n == 0 { 0 } else { 1 << n.ilog2() })
}

fn record_key(capabilities: &Capabilities, problem: &Conv2d) -> String {
    let class = class(problem);
    let (bias, relu, algorithm) = (class.bias(), class.relu(), class.algorithm());
    format!("{}\n{:?} {bias} {relu} {algorithm:?}", capabilities.key(), class.sizes())
}

/// The tuning record of `problem`'s class.
pub fn record(store: &Store, capabilities: &Capabilities, problem: &Conv2d) -> Option<Record> {
    Record::from_text(&store.load::<String>("gl-tuned", &record_key(capabilities, problem))?)
}

/// Saves the tuning record of `problem`'s class.
pub fn save_record(store: &Store, capabilities: &Capabilities, problem: &Conv2d, record: &Record) {
    store.save("gl-tuned", &record_key(capabilities, problem), &record.to_text());
}
