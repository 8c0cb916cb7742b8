//! The ceilings of a device: multiply-adds on registers, and reads from shared memory, from the last cache and from memory.
//!
//! GL tells no sizes of caches. A sweep of reads over sizes shows the last one: the rate falls where the data no longer
//! fit.

use std::time::{Duration, Instant};

use super::rates::{flops_of, repeated, zeros};
use crate::error::Result;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::memory::ceilings::capacity;
use crate::shader::pass_plan::{measure_fma, measure_reads, measure_shared};

/// Repetitions of each measurement. The best one counts.
const ROUNDS: usize = 3;

/// What is measured: operations a second; bytes a second from shared memory, from the last cache and from memory; bytes of
/// the last cache. The rate and the bytes of a cache that no sweep shows are 0.
pub type Measured = [f64; 5];

/// The sizes of the measurements.
struct Size {
    /// Workgroups of multiply-adds and of reads from shared memory, and steps of each.
    groups: usize,
    steps: usize,
    /// Elements of the smallest and the largest data that are read. The smallest exceed what the units keep for themselves.
    near: usize,
    far: usize,
    /// Elements that a measurement reads.
    total: usize,
    /// How long the clock may take to rise.
    warm_up: Duration,
}

const HARDWARE: Size = Size {
    groups: 4096,
    steps: 128,
    near: 1 << 20,
    far: 32 << 20,
    total: 128 << 20,
    warm_up: Duration::from_millis(200),
};
const SOFTWARE: Size =
    Size { groups: 4, steps: 64, near: 1 << 16, far: 1 << 20, total: 1 << 20, warm_up: Duration::ZERO };

/// Measures the device of `programs`.
///
/// # Errors
/// The device's failure.
pub fn measure(programs: &mut Programs) -> Result<Measured> {
    let context = programs.context().clone();
    let capabilities = context.capabilities();
    let size = if capabilities.software { SOFTWARE } else { HARDWARE };
    // Loops that end early would measure nothing.
    let limit = context.group().max_iterations();
    let steps =
        size.steps.min(limit / measure_fma(1, 1).iterations.max(measure_shared(1, 1).iterations)).max(1);
    let far = size.far.min(capabilities.max_elements());
    let (input, output) = (zeros(&context, far)?, Buffer::new(&context, 4)?);
    let buffers = Buffers { input: &input, weights: &input, bias: None, epilogue: None, output: &output };

    // All are built first: the clock falls while a shader compiles.
    let fma = measure_fma(size.groups, steps);
    let (operations, shared) = (flops_of(&fma), measure_shared(size.groups, steps));
    let shared_bytes = (size.groups * steps * 256 * 8 * 16) as f64;
    let (fma, shared) = (repeated(programs, fma, 1)?, repeated(programs, shared, 1)?);
    let mut sweep = vec![];
    let mut elements = size.near.min(far);
    while elements <= far {
        let times = (size.total / elements).max(1);
        sweep.push((elements, times, repeated(programs, measure_reads(elements, times), 1)?));
        elements *= 2;
    }
    let start = Instant::now();
    while start.elapsed() < size.warm_up {
        fma.run(&buffers)?;
    }
    // The best of several: other programs may use the device, too.
    let seconds = |passes: &Passes| -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            best = best.min(passes.run(&buffers)?.time.as_secs_f64().max(1e-9));
        }
        Ok(best)
    };
    let (flops, shared) = (operations / seconds(&fma)?, shared_bytes / seconds(&shared)?);
    let mut rates = vec![];
    for (elements, times, passes) in &sweep {
        rates.push((4 * elements, (4 * elements * times) as f64 / seconds(passes)?));
    }
    let seen = capacity(&rates);
    let memory = rates.last().map_or(0.0, |&(_, rate)| rate);
    let within = rates.iter().filter(|&&(size, _)| seen.is_some_and(|seen| size <= seen));
    let cache = within.map(|&(_, rate)| rate).fold(0.0, f64::max);
    Ok([flops, shared, cache, memory, seen.unwrap_or(0) as f64])
}
