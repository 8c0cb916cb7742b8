//! Passes that measure a device.

use super::defines::Defines;
use super::plan::{BufferRole, Pass};
use crate::shader::iterations;

const MEASURE_FMA: &str = include_str!("../../../glsl/measure_fma.comp");
const MEASURE_READ: &str = include_str!("../../../glsl/measure_read.comp");
const MEASURE_SHARED: &str = include_str!("../../../glsl/measure_shared.comp");

/// Measures multiply-adds: `groups` workgroups of 512 threads, 64 operations per step and thread.
pub(crate) fn measure_fma(groups: usize, steps: usize) -> Pass {
    let source = Defines::default().source("measure_fma", &[MEASURE_FMA]);
    let (operations, iterations) = ((512 * 64 * steps) as f64, iterations::measure_fma(steps));
    let (bindings, uniforms) = (vec![(2, BufferRole::Output)], vec![(2, steps as u32)]);
    Pass { source, bindings, groups, operations, iterations, uniforms }
}

/// Measures reads from shared memory: `groups` workgroups of 256 threads, eight reads of 16 bytes per step and thread.
pub(crate) fn measure_shared(groups: usize, steps: usize) -> Pass {
    let source = Defines::default().source("measure_shared", &[MEASURE_SHARED]);
    let (operations, iterations) = ((256 * 32 * steps) as f64, iterations::measure_shared(steps));
    let (bindings, uniforms) = (vec![(2, BufferRole::Output)], vec![(2, steps as u32)]);
    Pass { source, bindings, groups, operations, iterations, uniforms }
}

/// Measures reads of `elements` elements of `Input`.
pub(crate) fn measure_read(elements: usize) -> Pass {
    measure_reads(elements, 1)
}

/// Measures reads of `elements` elements of `Input`, each `times` times.
pub(crate) fn measure_reads(elements: usize, times: usize) -> Pass {
    let vectors = elements / 4;
    let source =
        Defines::default().text("VECTORS", &format!("{vectors}u")).source("measure_read", &[MEASURE_READ]);
    let groups = (times * vectors).div_ceil(16 * 256);
    let bindings = vec![(0, BufferRole::Input), (2, BufferRole::Output)];
    let (operations, iterations) = ((16 * 256 * 8) as f64, iterations::measure_read());
    Pass { source, bindings, groups, operations, iterations, uniforms: vec![] }
}
