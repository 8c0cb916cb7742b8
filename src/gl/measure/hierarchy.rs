//! A device's rates for `auto`, by short measurements: tens of milliseconds on a GPU.
//!
//! Each measurement runs once more than it counts, since the first use of a program or a buffer costs extra. One sample
//! suffices to tell a device that is ten times faster from one that is not.

use std::rc::Rc;
use std::time::Instant;

use crate::allocate;
use crate::error::Result;
use crate::gl::convolution::Buffered;
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::Fence;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::dispatch::{self, DispatchBudget, KernelWork};
use crate::gl::execution::programs::Programs;
use crate::memory::Hierarchy;
use crate::problem::{Conv2d, Conv2dDesc};
use crate::shader::source::CONV_REFERENCE;

/// The sizes of the measurements.
struct Size {
    /// Channels in and out, height and width of a 3x3 convolution.
    channels: i64,
    side: i64,
    /// Bytes of each transfer.
    bytes: usize,
}

const HARDWARE: Size = Size { channels: 64, side: 56, bytes: 32 << 20 };
const SOFTWARE: Size = Size { channels: 8, side: 16, bytes: 1 << 20 };

/// Prepares a convolution with the planner's best variant.
pub type Prepare<'a> = &'a dyn Fn(&mut Programs, &Conv2d, &[f32]) -> Result<Buffered>;

/// Measures the device of `programs`, with convolutions from `prepare`.
///
/// # Errors
/// The device's failure.
pub fn measure(programs: &mut Programs, software: bool, prepare: Prepare) -> Result<Hierarchy> {
    let size = if software { SOFTWARE } else { HARDWARE };
    let flops = flops(programs, &size, prepare)?;
    let launch = launch(programs, prepare)?;
    let context = programs.context();
    let (near, far) = (Buffer::new(context, size.bytes)?, Buffer::new(context, size.bytes)?);
    let mut data = allocate::zeroed(size.bytes, "a transfer that is timed")?;
    let upload = seconds(context, || near.upload(&data))?;
    // A copy reads and writes each byte.
    let copy = seconds(context, || near.copy_to(&far, size.bytes))? / 2.0;
    let download = seconds(context, || far.read(&mut data))?;
    let bytes = size.bytes as f64;
    Ok(Hierarchy {
        flops,
        memory: bytes / copy,
        upload: bytes / upload,
        download: bytes / download,
        launch,
        ..Hierarchy::UNKNOWN
    })
}

/// Operations a second of a convolution.
fn flops(programs: &mut Programs, size: &Size, prepare: Prepare) -> Result<f64> {
    let problem = Conv2d::new(Conv2dDesc {
        c: size.channels,
        k: size.channels,
        h: size.side,
        w: size.side,
        r: 3,
        s: 3,
        pad_h: 1,
        pad_w: 1,
        ..Default::default()
    })?;
    let ones = |len| allocate::filled(1.0, len, "a convolution that is timed");
    let prepared = prepare(programs, &problem, &ones(problem.weights_len())?)?;
    let (input, mut output) = (ones(problem.input_len())?, ones(problem.output_len())?);
    prepared.run(&input, &mut output)?;
    let ran = prepared.run(&input, &mut output)?;
    Ok(problem.flops() as f64 / ran.time.as_secs_f64().max(1e-9))
}

/// Seconds from submitting an empty dispatch to the end of the wait for it.
fn launch(programs: &mut Programs, prepare: Prepare) -> Result<f64> {
    let problem = Conv2d::new(Conv2dDesc::default())?;
    // Leaves the buffers of a one-element convolution bound, so the dispatch is almost empty.
    let prepared = prepare(programs, &problem, &[1.0])?;
    prepared.run(&[1.0], &mut [0.0])?;
    let program = programs.kernel(CONV_REFERENCE)?;
    let work = KernelWork { units: 1, per_group: 64, operations: 1.0 };
    let start = Instant::now();
    dispatch::run(programs.context(), &program, &work, &DispatchBudget::new())?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds that the second run of `transfer` takes, until the device has finished.
fn seconds(context: &Rc<Context>, mut transfer: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut once = || {
        let start = Instant::now();
        transfer()?;
        Fence::new(context)?.wait("a transfer")?;
        Ok(start.elapsed().as_secs_f64().max(1e-9))
    };
    once()?;
    once()
}
