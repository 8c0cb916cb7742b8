//! The device as the planner sees it: limits asked, rates measured by short shaders.
//!
//! Multiply-adds are measured with one workgroup and with many: their ratio is the number of compute units, which
//! GL does not tell. Reads are measured over more than any cache holds, and over little, again and again. An idle GPU runs at a
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

/// How much is measured.
struct Size {
    /// Workgroups of multiply-adds, and steps of each.
    groups: usize,
    steps: usize,
    /// Elements that no cache holds, and elements that one does.
    far: usize,
    near: usize,
    /// How long it may take until the clock is up.
    warm_up: Duration,
}

const HARDWARE: Size =
    Size { groups: 4096, steps: 128, far: 32 << 20, near: 2 << 20, warm_up: Duration::from_millis(300) };
const SOFTWARE: Size = Size { groups: 4, steps: 64, far: 1 << 20, near: 1 << 16, warm_up: Duration::ZERO };

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
    let mut run = |pass: Pass, times: usize| seconds(session, &input, &output, pass, times);

    let many = || measure_fma(size.groups, size.steps);
    let flops_of = |pass: &Pass| pass.operations * pass.groups as f64;
    let (start, mut best) = (Instant::now(), run(many(), 1)?);
    while start.elapsed() < size.warm_up {
        best = best.min(run(many(), 1)?);
    }
    let flops = flops_of(&many()) / best.min(run(many(), 1)?);
    let one = measure_fma(1, 16 * size.steps);
    let unit = flops_of(&one) / run(one, 1)?;
    let launch = run(measure_fma(1, 1), 16)? / 16.0;
    let memory = (4 * far) as f64 / run(measure_read(far, 1), 1)?;
    let near = size.near.min(far);
    let cache = (4 * near * 16) as f64 / run(measure_read(near, 16), 1)?;
    Ok(Gpu {
        flops,
        memory,
        cache: cache.max(memory),
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

/// Device seconds of `times` runs of `pass` together, the second time they are made.
fn seconds(session: &mut Session, input: &Buffer, output: &Buffer, pass: Pass, times: usize) -> Result<f64> {
    let run = vec![pass; times];
    let recipe = Recipe { name: "measure".into(), packed: 0, scratch: vec![], prepare: vec![], run };
    let passes = Passes::new(session, &recipe)?;
    let buffers = Buffers { input, weights: input, bias: None, output };
    passes.run(&buffers)?;
    Ok(passes.run(&buffers)?.time.as_secs_f64().max(1e-9))
}
