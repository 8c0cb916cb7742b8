//! The device as the planner sees it: limits from the driver, rates from short shaders.
//!
//! Multiply-adds are measured with one workgroup and with many. Their ratio is about the number of compute units,
//! which GL does not report; the exact number is how many workgroups take no longer than one. Reads cover more memory
//! than most caches hold. An idle GPU runs at a fraction of its clock, so it is kept busy first, until it gets no
//! faster.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::allocate;
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::passes::{Buffers, Passes};
use crate::gl::execution::programs::Programs;
use crate::memory::tiles::Gpu;
use crate::shader::pass_plan::{Pass, PassPlan, measure_fma, measure_read};

/// Dispatches over which the time of one is averaged.
const LAUNCHES: usize = 16;
/// Reads of the whole memory that run together, so that starting one does not count.
const READS: usize = 8;
/// Repetitions of each measurement.
const ROUNDS: usize = 3;

/// The least ratio to one workgroup's time if two workgroups share a unit. It would be 2 without the constant
/// start-up time.
const CROWDED: f64 = 1.4;

/// The sizes of the measurements.
struct Size {
    /// Workgroups of multiply-adds, and steps of each.
    groups: usize,
    steps: usize,
    /// Elements that exceed every cache.
    far: usize,
    /// How long the clock may take to rise.
    warm_up: Duration,
}

const HARDWARE: Size = Size { groups: 4096, steps: 128, far: 32 << 20, warm_up: Duration::from_millis(300) };
const SOFTWARE: Size = Size { groups: 4, steps: 64, far: 1 << 20, warm_up: Duration::ZERO };

/// Measures the device of `programs`.
///
/// # Errors
/// The device's failure.
pub fn measure(programs: &mut Programs) -> Result<Gpu> {
    let context = programs.context().clone();
    let capabilities = context.capabilities();
    let size = if capabilities.software { SOFTWARE } else { HARDWARE };
    // Loops that end early would measure nothing.
    let steps = size.steps.min(context.group().max_iterations() / (16 * measure_fma(1, 1).iterations));
    let size = Size { steps, ..size };
    let output = Buffer::new(&context, 4)?;
    let far = size.far.min(capabilities.max_elements());
    let input = zeros(&context, far)?;
    let buffers = Buffers { input: &input, weights: &input, bias: None, output: &output, epilogue: None };

    // All are built first: the clock falls while a shader compiles.
    let (many, one) = (measure_fma(size.groups, size.steps), measure_fma(1, 16 * size.steps));
    let (many_flops, one_flops) = (flops_of(&many), flops_of(&one));
    let many = repeated(programs, many, 1)?;
    let one = repeated(programs, one, 1)?;
    let some =
        |programs: &mut Programs, groups: usize| repeated(programs, measure_fma(groups, 16 * size.steps), 1);
    // Two programs in turns, as in passes: some drivers run the same program again more cheaply.
    let mut other = measure_fma(1, 1);
    other.source.text += "// another program\n";
    let launches = [measure_fma(1, 1), other].into_iter().cycle().take(LAUNCHES).collect();
    let launches = passes_of(programs, launches)?;
    let read = repeated(programs, measure_read(far), READS)?;
    let keep_busy = |time: Duration| -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            many.run(&buffers)?;
        }
        Ok(())
    };
    keep_busy(size.warm_up)?;
    // The best of several: other programs may use the device, too.
    let seconds = |passes: &Passes| -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            keep_busy(size.warm_up / 100)?;
            best = best.min(passes.run(&buffers)?.time.as_secs_f64().max(1e-9));
        }
        Ok(best)
    };
    let flops = many_flops / seconds(&many)?;
    let alone = seconds(&one)?;
    let about = (flops / (one_flops / alone)).round().clamp(1.0, 4096.0) as usize;
    let units = if capabilities.software {
        about
    } else {
        max_at_once(about, |groups| Ok(seconds(&some(programs, groups)?)? < CROWDED * alone))?
    };
    let launch = seconds(&launches)? / LAUNCHES as f64;
    let memory = (READS * 4 * far) as f64 / seconds(&read)?;
    Ok(Gpu {
        flops,
        memory,
        launch,
        units,
        shared_bytes: capabilities.max_shared,
        max_threads: capabilities.max_threads,
        max_elements: capabilities.max_elements(),
        max_iterations: context.group().max_iterations(),
    })
}

/// The most workgroups, near `about`, that `fit` on units of their own.
fn max_at_once(about: usize, mut fit: impl FnMut(usize) -> Result<bool>) -> Result<usize> {
    let (mut fitting, mut crowded) = (about - about / 4, about + about / 4 + 1);
    if !fit(fitting)? || fit(crowded)? {
        // Not a device whose units fill one after another.
        return Ok(about);
    }
    while crowded - fitting > 1 {
        let middle = fitting.midpoint(crowded);
        *(if fit(middle)? { &mut fitting } else { &mut crowded }) = middle;
    }
    Ok(fitting)
}

/// A buffer of zeros. Undefined contents could be NaNs, which may be slow.
pub(super) fn zeros(context: &Rc<Context>, elements: usize) -> Result<Buffer> {
    let zeros: Vec<f32> = allocate::zeroed(elements, "a measurement")?;
    Buffer::with_data(context, bytemuck::cast_slice(&zeros))
}

/// The passes of `times` runs of `pass` together.
pub(super) fn repeated(programs: &mut Programs, pass: Pass, times: usize) -> Result<Passes> {
    passes_of(programs, vec![pass; times])
}

/// The passes of `run`.
fn passes_of(programs: &mut Programs, run: Vec<Pass>) -> Result<Passes> {
    Passes::new(
        programs,
        &PassPlan { name: "measure".into(), packed: 0, scratch: vec![], prepare: vec![], run },
    )
}

/// The operations of all workgroups of `pass`.
pub(super) fn flops_of(pass: &Pass) -> f64 {
    pass.operations * pass.groups as f64
}

#[cfg(test)]
mod tests {
    use super::max_at_once;

    #[test]
    fn units_are_counted_from_a_guess_that_is_nearly_right() {
        let mut asked = 0;
        for units in 1..300_usize {
            for about in [units - units / 6, units, units + units / 8] {
                let found = max_at_once(about, |groups| Ok(groups <= units));
                assert_eq!(found.unwrap(), units, "from {about}");
                asked += 1;
            }
        }
        assert_eq!(asked, 897);
    }

    #[test]
    fn where_times_do_not_step_the_guess_stays() {
        assert_eq!(max_at_once(40, |_| Ok(true)).unwrap(), 40);
        assert_eq!(max_at_once(40, |_| Ok(false)).unwrap(), 40);
    }
}
