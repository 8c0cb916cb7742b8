//! The passes that combine the results of a reduction's blocks, 256 at a time, until one is left.

use std::rc::Rc;

use crate::error::Result;
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;
use crate::gl::execution::arrays::Array;
use crate::kernel::bind::Launch;
use crate::kernel::tree::{ArgumentKind, REDUCTION_BLOCK, Reduction};

use super::prepared::Finishing;

/// The bindings of a finisher.
const VALUES: u32 = 0;
const RESULTS: u32 = 1;
/// What its uniform `last` says.
const MORE_FOLLOWS: u32 = 0;
const STORES: u32 = 1;
const COMBINES: u32 = 2;

/// The buffers of a reduction.
pub struct Reducing {
    slot: usize,
    /// The blocks' results; the passes write into both in turn.
    scratch: [Buffer; 2],
}

/// The blocks of so many values.
fn blocks(values: usize) -> usize {
    values.div_ceil(REDUCTION_BLOCK)
}

/// The blocks of a launch, whose points fit into 31 bits.
fn blocks_of(launch: &Launch<'_>) -> usize {
    blocks(launch.points() as usize)
}

impl Reducing {
    /// Makes the buffers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), or what GL reports.
    pub fn new(context: &Rc<Context>, launch: &Launch<'_>, reduction: &Reduction) -> Result<Self> {
        let first = blocks_of(launch);
        let scratch = |elements: usize| Buffer::new(context, elements * reduction.ty.bytes());
        let slot = match &launch.kernel().arguments[reduction.argument].kind {
            ArgumentKind::Buffer(buffer) => buffer.slot,
            ArgumentKind::Index(_) | ArgumentKind::Scalar => 0,
        };
        Ok(Reducing { slot, scratch: [scratch(first)?, scratch(blocks(first))?] })
    }

    /// Binds the buffer that the kernel's program writes.
    pub fn bind_scratch(&self) {
        self.scratch[0].bind(self.slot as u32);
    }
}

/// Submits the passes of a reduction.
///
/// # Errors
/// What GL reports.
pub fn finish(
    context: &Context,
    launch: &Launch<'_>,
    reducing: &Reducing,
    finishing: &Finishing,
    arrays: &[Array],
) -> Result<()> {
    let api = context.api();
    let max_groups = context.capabilities().max_groups[0] as usize;
    api.use_program(finishing.sliced.program().name());
    let mut left = blocks_of(launch);
    let [mut from, mut to] = reducing.scratch.each_ref();
    loop {
        let is_last = left <= REDUCTION_BLOCK;
        let last = match (is_last, finishing.combines) {
            (false, _) => MORE_FOLLOWS,
            (true, false) => STORES,
            (true, true) => COMBINES,
        };
        // The pass sees what was written before.
        api.memory_barrier(api::SHADER_STORAGE_BARRIER_BIT);
        from.bind(VALUES);
        match is_last {
            true => arrays[reducing.slot].bind(context, RESULTS),
            false => to.bind(RESULTS),
        }
        finishing.sliced.set(context, [0; 3], [left as u32, 1, 1]);
        finishing.last.into_iter().for_each(|at| api.uniform_1ui(at, last));
        // Workgroups take blocks in turn.
        api.dispatch_compute(blocks(left).min(max_groups) as u32, 1, 1);
        context.check("glDispatchCompute")?;
        if is_last {
            return Ok(());
        }
        left = blocks(left);
        std::mem::swap(&mut from, &mut to);
    }
}
