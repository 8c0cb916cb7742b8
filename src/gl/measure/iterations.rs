//! Counts how many iterations the loops of an invocation make on a device.
//!
//! Drivers may end the loops of an invocation after a total number of iterations: llvmpipe after 65,535. They report no
//! error, and no query returns the number. So the probe of a device runs a shader that counts.

use crate::error::{Error, Result};
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch::{self, DispatchBudget, KernelWork};
use crate::gl::execution::programs::Programs;
use crate::shader::iterations::{MAX_PROBED, MIN_ITERATIONS, nested, safe_limit};
use crate::shader::source::PROBE_LOOPS;

/// The shader's output binding, and the uniform location of its first size.
const OUTPUT: u32 = 2;
const SIZES: u32 = 2;

/// The shader's value after `iterations` iterations.
fn expected(iterations: usize) -> u32 {
    (0..iterations).fold(1u32, |value, _| value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
}

/// Runs nested loops of `sizes` iterations. Returns how many the device made, and whether their value is right.
fn made(programs: &mut Programs, sizes: [usize; 3]) -> Result<(usize, bool)> {
    let program = programs.kernel(PROBE_LOOPS)?;
    let context = programs.context();
    let output = Buffer::with_data(context, &[0; 8])?;
    let api = context.api();
    api.use_program(program.name());
    for (location, size) in (SIZES..).zip(sizes) {
        api.uniform_1ui(location, size as u32);
    }
    output.bind(OUTPUT);
    context.check("glUniform1ui")?;
    let work = KernelWork { units: 1, per_group: 1, operations: sizes.iter().product::<usize>() as f64 };
    dispatch::run(context, &program, &work, &DispatchBudget::new())?;
    let mut result = [0u32; 2];
    output.read(bytemuck::cast_slice_mut(&mut result))?;
    let made = (result[1] as usize).min(MAX_PROBED);
    Ok((made, result == [expected(made), made as u32]))
}

/// How many iterations are safe to rely on.
///
/// # Errors
/// The device's failure; [`Error::Driver`] if its loops are unusable.
pub fn max_iterations(programs: &mut Programs) -> Result<usize> {
    let (all, right) = made(programs, [1, 1, MAX_PROBED])?;
    if !right || all < MIN_ITERATIONS {
        return Err(unusable(programs.context(), MAX_PROBED, all));
    }
    let limit = safe_limit(all);
    // Nested loops must make as many, counted as the planner counts them.
    let turns = nested(limit);
    let (all, right) = made(programs, [turns, 1, 1])?;
    if !right || all < turns {
        return Err(unusable(programs.context(), turns, all));
    }
    Ok(limit)
}

fn unusable(context: &Context, asked: usize, made: usize) -> Error {
    let reason = format!("loops of {asked} iterations made {made}, or a wrong value");
    Error::Driver { device: context.device().to_owned(), call: "the probe".to_owned(), reason }
}
