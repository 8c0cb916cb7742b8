//! The device as the planner sees it: limits asked, rates measured by short shaders.
//!
//! Multiply-adds are measured with one workgroup and with many: their ratio is the number of compute units, which
//! GL does not tell. Reads are measured over more than most caches hold. An idle GPU runs at a
//! fraction of its clock, so it is kept busy first, until it gets no faster.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::passes::{Buffers, Passes};
use super::resource::Buffer;
use super::session::Session;
use crate::error::Result;
use crate::memory::tiles::Gpu;
use crate::shader::recipe::{Pass, Recipe, measure_fma, measure_read};

/// Dispatches of which the time of one is taken.
const LAUNCHES: usize = 16;
/// Reads of all memory that are made together, so that starting one does not count.
const READS: usize = 8;
/// How often each is measured.
const ROUNDS: usize = 3;

/// How much is measured.
struct Size {
    /// Workgroups of multiply-adds, and steps of each.
    groups: usize,
    steps: usize,
    /// Elements that no cache holds.
    far: usize,
    /// How long it may take until the clock is up.
    warm_up: Duration,
}

const HARDWARE: Size = Size { groups: 4096, steps: 128, far: 32 << 20, warm_up: Duration::from_millis(300) };
const SOFTWARE: Size = Size { groups: 4, steps: 64, far: 1 << 20, warm_up: Duration::ZERO };

/// Measures the device of `session`.
///
/// # Errors
/// What the device failed to do.
pub fn measure(session: &mut Session) -> Result<Gpu> {
    let context = session.context().clone();
    let capabilities = context.capabilities();
    let size = if capabilities.software { SOFTWARE } else { HARDWARE };
    let output = Buffer::new(&context, 4)?;
    let far = size.far.min(capabilities.max_elements());
    let input = zeros(&context, far)?;
    let buffers = Buffers { input: &input, weights: &input, bias: None, output: &output };

    // All built first: while a shader is compiled the clock falls.
    let (many, one) = (measure_fma(size.groups, size.steps), measure_fma(1, 16 * size.steps));
    let (many_flops, one_flops) = (flops_of(&many), flops_of(&one));
    let many = repeated(session, many, 1)?;
    let one = repeated(session, one, 1)?;
    let launches = repeated(session, measure_fma(1, 1), LAUNCHES)?;
    let read = repeated(session, measure_read(far), READS)?;
    let keep_busy = |time: Duration| -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < time {
            many.run(&buffers)?;
        }
        Ok(())
    };
    keep_busy(size.warm_up)?;
    // The best of some: others may use the device, too.
    let seconds = |passes: &Passes| -> Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            keep_busy(size.warm_up / 100)?;
            best = best.min(passes.run(&buffers)?.time.as_secs_f64().max(1e-9));
        }
        Ok(best)
    };
    let flops = many_flops / seconds(&many)?;
    let unit = one_flops / seconds(&one)?;
    let launch = seconds(&launches)? / LAUNCHES as f64;
    let memory = (READS * 4 * far) as f64 / seconds(&read)?;
    Ok(Gpu {
        flops,
        memory,
        launch,
        units: (flops / unit).round().clamp(1.0, 4096.0) as usize,
        shared_bytes: capabilities.max_shared,
        max_threads: capabilities.max_threads,
        max_elements: capabilities.max_elements(),
    })
}

/// A buffer of zeros: its contents would be undefined otherwise, and NaNs may be slow.
fn zeros(context: &Rc<Context>, elements: usize) -> Result<Buffer> {
    Buffer::with_data(context, bytemuck::cast_slice(&vec![0f32; elements]))
}

/// `times` runs of `pass`, ready to be made together.
fn repeated(session: &mut Session, pass: Pass, times: usize) -> Result<Passes> {
    let run = vec![pass; times];
    Passes::new(session, &Recipe { name: "measure".into(), packed: 0, scratch: vec![], prepare: vec![], run })
}

/// Operations of all of `pass`.
fn flops_of(pass: &Pass) -> f64 {
    pass.operations * pass.groups as f64
}
