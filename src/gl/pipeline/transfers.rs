//! Copies into and out of slots. The device copies between a slot's two sides; copiers copy between slots and jobs'
//! buffers.

use std::ops::Range;
use std::sync::Arc;

use super::batch::{Batch, strides};
use super::core::Core;
use super::memory::SlotMemory;
use super::ring::Stage;
use crate::error::Result;
use crate::gl::convolution::queue::{COUNTERS, head_bytes};
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::exit::Copying;

/// Bytes that one thread copies before waking another pays.
const MIN_PART_BYTES: usize = 256 << 10;

/// Fills slots' memory between uses, where debug assertions are on. It is a NaN that no kernel computes, so tests
/// detect memory that is read too early.
const POISON: Option<u32> = if cfg!(debug_assertions) { Some(0x7fc0_dead) } else { None };

/// The address of numbers in a slot's memory.
#[derive(Clone, Copy)]
struct SendPtr(*mut f32);

// SAFETY: this is only an address. The ring decides which thread uses the memory behind it.
unsafe impl Send for SendPtr {}
// SAFETY: as above.
unsafe impl Sync for SendPtr {}

impl SendPtr {
    /// The address of `element`.
    ///
    /// # Safety
    /// The element is inside the memory at this address.
    unsafe fn at(&self, element: usize) -> *mut f32 {
        // SAFETY: the caller promises that the element is inside the memory.
        unsafe { self.0.add(element) }
    }
}

/// Submits the copy of the input from the host's side to the device's.
pub fn upload(context: &Context, memory: &SlotMemory, bytes: [usize; 2]) -> Result<()> {
    let target = memory.regions(bytes)[0].buffer;
    match memory.staging {
        Some([from, _]) => copy(context, from, target, bytes[0]),
        None => {
            // SAFETY: the slot's input is at least `bytes[0]` long and belongs to this piece alone.
            let data = unsafe { std::slice::from_raw_parts(memory.input.as_ptr(), bytes[0]) };
            context.api().bind_buffer(api::COPY_WRITE_BUFFER, target);
            context.check("glBindBuffer")?;
            context.api().buffer_sub_data(api::COPY_WRITE_BUFFER, 0, data);
            context.check("glBufferSubData")
        }
    }
}

/// Submits the copy of the output from the device's side to the host's. Without mapped memory, [`read`] does it
/// after completion.
pub fn download(context: &Context, memory: &SlotMemory, bytes: [usize; 2]) -> Result<()> {
    let source = memory.regions(bytes)[1].buffer;
    memory.staging.map_or(Ok(()), |[_, to]| copy(context, source, to, bytes[1]))
}

/// Copies between buffers of the share group. Binds each anew, since that makes other contexts' changes visible.
fn copy(context: &Context, from: u32, to: u32, bytes: usize) -> Result<()> {
    let api = context.api();
    api.bind_buffer(api::COPY_READ_BUFFER, from);
    context.check("glBindBuffer")?;
    api.bind_buffer(api::COPY_WRITE_BUFFER, to);
    context.check("glBindBuffer")?;
    api.copy_buffer_sub_data(api::COPY_READ_BUFFER, api::COPY_WRITE_BUFFER, 0, 0, bytes as i64);
    context.check("glCopyBufferSubData")
}

/// Reads a buffer, where no buffer can stay mapped.
pub fn read(context: &Context, buffer: u32, into: &mut [u8]) -> Result<()> {
    let api = context.api();
    api.bind_buffer(api::COPY_READ_BUFFER, buffer);
    context.check("glBindBuffer")?;
    api.get_buffer_sub_data(api::COPY_READ_BUFFER, 0, into);
    context.check("glGetBufferSubData")?;
    context.check_reset("glGetBufferSubData")
}

/// Poisons memory between uses, where debug assertions are on.
pub fn poison(memory: *mut u8, bytes: usize) {
    if let Some(poison) = POISON {
        // SAFETY: the slot's memory is at least that long, aligned like any buffer, and used by this thread alone.
        unsafe { std::slice::from_raw_parts_mut(memory.cast::<u32>(), bytes / 4) }.fill(poison);
    }
}

/// Writes the queue and the inputs of `batch` into `slot`, which is prepared. Then passes the slot to the upload.
pub fn fill_batch(batch: Arc<Batch>, core: &Arc<Core>, slot: usize, generation: u64, memory: SlotMemory) {
    if !core.ring.copying(slot) {
        return;
    }
    let (jobs, [input, output]) = (batch.jobs.len(), strides(&batch.recipe.problem));
    let head = head_bytes(jobs);
    // SAFETY: the slot's input has room for the head, is aligned like any buffer, and is this thread's alone until
    // passed on.
    let queue = unsafe { std::slice::from_raw_parts_mut(memory.input.as_ptr().cast::<u32>(), head / 4) };
    queue.fill(0);
    for (job, begins) in queue[COUNTERS..].chunks_exact_mut(2).take(jobs).enumerate() {
        begins.copy_from_slice(&[(job * input) as u32, (job * output) as u32]);
    }
    let len = batch.recipe.problem.input_len();
    // SAFETY: the slot's input continues after the head.
    let inputs = SendPtr(unsafe { memory.input.as_ptr().add(head) }.cast());
    let copy = move |range: Range<usize>| {
        for index in range {
            let from = batch.jobs[index].request().expect("only jobs with buffers share a slot").input;
            // SAFETY: the input is the job's until it is done, and as long as the problem says. The slot's memory
            // has room for it there and stays while the ring records it as being copied. No other part writes to
            // that place.
            unsafe { std::ptr::copy_nonoverlapping(from, inputs.at(index * input), len) };
        }
    };
    let shared_core = core.clone();
    let then = move || {
        if shared_core.ring.copied(slot) {
            shared_core.ring.pass(Stage::Upload, slot, generation);
        }
    };
    in_parts(core, jobs, 4 * len, copy, then);
}

/// Copies the downloaded outputs from `slot` to their destinations. Then frees the slot.
pub fn deliver_batch(batch: Arc<Batch>, core: &Arc<Core>, slot: usize, memory: SlotMemory) {
    if !core.ring.copying(slot) {
        return;
    }
    let stride = strides(&batch.recipe.problem)[1];
    let (jobs, len) = (batch.jobs.len(), batch.recipe.problem.output_len());
    let outputs = SendPtr(memory.output.as_ptr().cast());
    let shared_core = core.clone();
    let deliver = move |range: Range<usize>| {
        for index in range {
            let job = &batch.jobs[index];
            if let Some(to) = job.destination(0) {
                // SAFETY: the output is the job's until it is done, and as long as the problem says. The slot's
                // output holds it there and stays while the ring records it as being copied.
                unsafe { std::ptr::copy_nonoverlapping(outputs.at(index * stride), to, len) };
            }
            job.part_done(&shared_core.completion, 1);
        }
    };
    let shared_core = core.clone();
    in_parts(core, jobs, 4 * len, deliver, move || shared_core.ring.delivered(slot));
}

/// Runs a closure when dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|then| then());
    }
}

/// Runs `work` for each of `jobs` jobs of `bytes` bytes, here or in parts on the copiers; then runs `then`.
fn in_parts(
    core: &Core,
    jobs: usize,
    bytes: usize,
    work: impl Fn(Range<usize>) + Send + Sync + 'static,
    then: impl FnOnce() + Send + Sync + 'static,
) {
    let on_drop = OnDrop(Some(then));
    let each = MIN_PART_BYTES.div_ceil(bytes.max(1));
    if jobs <= each {
        work(0..jobs);
        return drop(on_drop);
    }
    // `then` runs when the last part is dropped, even if a part has panicked.
    let shared = Arc::new((work, on_drop, Copying::begin()));
    for first in (0..jobs).step_by(each) {
        let shared = shared.clone();
        core.copiers().run(move || (shared.0)(first..(first + each).min(jobs)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_last_runs_once_and_last() {
        let order = Arc::new(std::sync::Mutex::new(vec![]));
        let (first, last) = (order.clone(), order.clone());
        let on_drop = OnDrop(Some(move || last.lock().unwrap().push(2)));
        first.lock().unwrap().push(1);
        drop(on_drop);
        assert_eq!(*order.lock().unwrap(), [1, 2]);
    }
}
