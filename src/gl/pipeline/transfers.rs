//! Bytes in and out of slots: between a slot's two sides by the device, between a slot and jobs' buffers by copiers.

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

/// Bytes that one thread copies before another is worth waking.
const PART: usize = 256 << 10;

/// What slots' memory is filled with between uses where debug assertions are on: a NaN that nobody computes, so that
/// memory that is read too early is seen.
const POISON: Option<u32> = if cfg!(debug_assertions) { Some(0x7fc0_dead) } else { None };

/// Where numbers begin in a slot's memory.
#[derive(Clone, Copy)]
struct Base(*mut f32);

// SAFETY: an address; who uses what it stands for, the ring decides.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

impl Base {
    /// The address of `element`.
    ///
    /// # Safety
    /// It is inside the memory that this is the address of.
    unsafe fn at(&self, element: usize) -> *mut f32 {
        // SAFETY: as promised.
        unsafe { self.0.add(element) }
    }
}

/// Host's side to device's side, of the input.
pub fn upload(context: &Context, memory: &SlotMemory, bytes: [usize; 2]) -> Result<()> {
    let target = memory.regions(bytes)[0].buffer;
    match memory.staging {
        Some([from, _]) => copy(context, from, target, bytes[0]),
        None => {
            // SAFETY: the slot's input is as large as that, and this piece's alone.
            let data = unsafe { std::slice::from_raw_parts(memory.input.as_ptr(), bytes[0]) };
            context.api().bind_buffer(api::COPY_WRITE_BUFFER, target);
            context.check("glBindBuffer")?;
            context.api().buffer_sub_data(api::COPY_WRITE_BUFFER, 0, data);
            context.check("glBufferSubData")
        }
    }
}

/// Device's side to host's side, of the output; where nothing is mapped, that is done when it has landed.
pub fn download(context: &Context, memory: &SlotMemory, bytes: [usize; 2]) -> Result<()> {
    let source = memory.regions(bytes)[1].buffer;
    memory.staging.map_or(Ok(()), |[_, to]| copy(context, source, to, bytes[1]))
}

/// Copies between buffers of the share group. Each is bound anew, which is when a context sees what others have done to it.
fn copy(context: &Context, from: u32, to: u32, bytes: usize) -> Result<()> {
    let api = context.api();
    api.bind_buffer(api::COPY_READ_BUFFER, from);
    context.check("glBindBuffer")?;
    api.bind_buffer(api::COPY_WRITE_BUFFER, to);
    context.check("glBindBuffer")?;
    api.copy_buffer_sub_data(api::COPY_READ_BUFFER, api::COPY_WRITE_BUFFER, 0, 0, bytes as i64);
    context.check("glCopyBufferSubData")
}

/// Reads a buffer where nothing can be mapped.
pub fn read(context: &Context, buffer: u32, into: &mut [u8]) -> Result<()> {
    let api = context.api();
    api.bind_buffer(api::COPY_READ_BUFFER, buffer);
    context.check("glBindBuffer")?;
    api.get_buffer_sub_data(api::COPY_READ_BUFFER, 0, into);
    context.check("glGetBufferSubData")?;
    context.check_reset("glGetBufferSubData")
}

/// Fills memory between uses, where debug assertions are on.
pub fn poison(memory: *mut u8, bytes: usize) {
    if let Some(poison) = POISON {
        // SAFETY: the slot's memory is as large as that, aligned as buffers are, and in this thread's hands alone.
        unsafe { std::slice::from_raw_parts_mut(memory.cast::<u32>(), bytes / 4) }.fill(poison);
    }
}

/// Writes the queue and the inputs into slot `slot`, which is prepared, and passes it on to the upload.
pub fn fill_batch(batch: Arc<Batch>, core: &Arc<Core>, slot: usize, generation: u64, memory: SlotMemory) {
    if !core.ring.copying(slot) {
        return;
    }
    let (jobs, [input, output]) = (batch.flights.len(), strides(&batch.recipe.problem));
    let head = head_bytes(jobs);
    // SAFETY: the slot's input has room for the head, aligned as buffers are, and is this thread's alone until passed on.
    let queue = unsafe { std::slice::from_raw_parts_mut(memory.input.as_ptr().cast::<u32>(), head / 4) };
    queue.fill(0);
    for (job, begins) in queue[COUNTERS..].chunks_exact_mut(2).take(jobs).enumerate() {
        begins.copy_from_slice(&[(job * input) as u32, (job * output) as u32]);
    }
    let len = batch.recipe.problem.input_len();
    // SAFETY: behind the head, for which there is room.
    let inputs = Base(unsafe { memory.input.as_ptr().add(head) }.cast());
    let copy = move |range: Range<usize>| {
        for job in range {
            let from = batch.flights[job].job().expect("only jobs with buffers share a slot").input;
            // SAFETY: the input is the job's until it is done, and as long as the problem says; the slot's memory has room
            // for it there, stays while the ring says that it is being copied, and no other part copies to that place.
            unsafe { std::ptr::copy_nonoverlapping(from, inputs.at(job * input), len) };
        }
    };
    let keeper = core.clone();
    let then = move || {
        if keeper.ring.copied(slot) {
            keeper.ring.pass(Stage::Upload, slot, generation);
        }
    };
    in_parts(core, jobs, 4 * len, copy, then);
}

/// Brings the outputs from slot `slot`, into which they were downloaded, to their places; then the slot is free.
pub fn deliver_batch(batch: Arc<Batch>, core: &Arc<Core>, slot: usize, memory: SlotMemory) {
    if !core.ring.copying(slot) {
        return;
    }
    let stride = strides(&batch.recipe.problem)[1];
    let (jobs, len) = (batch.flights.len(), batch.recipe.problem.output_len());
    let outputs = Base(memory.output.as_ptr().cast());
    let keeper = core.clone();
    let deliver = move |range: Range<usize>| {
        for job in range {
            let flight = &batch.flights[job];
            if let Some(to) = flight.destination(0) {
                // SAFETY: the output is the job's until it is done, and as long as the problem says; the slot's output has
                // it there, and stays while the ring says that it is being copied.
                unsafe { std::ptr::copy_nonoverlapping(outputs.at(job * stride), to, len) };
            }
            flight.part_done(&keeper.completion, 1);
        }
    };
    let keeper = core.clone();
    in_parts(core, jobs, 4 * len, deliver, move || keeper.ring.delivered(slot));
}

/// Runs what it holds when it is dropped.
struct Finally<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Finally<F> {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|then| then());
    }
}

/// Does `work` for each of `jobs` jobs of `bytes` bytes and then `then`: on the spot, or in parts that copiers take.
fn in_parts(
    core: &Core,
    jobs: usize,
    bytes: usize,
    work: impl Fn(Range<usize>) + Send + Sync + 'static,
    then: impl FnOnce() + Send + Sync + 'static,
) {
    let finally = Finally(Some(then));
    let each = PART.div_ceil(bytes.max(1));
    if jobs <= each {
        work(0..jobs);
        return drop(finally);
    }
    // What comes last runs when the last part is gone, also if one has panicked.
    let shared = Arc::new((work, finally, Copying::begin()));
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
        let finally = Finally(Some(move || last.lock().unwrap().push(2)));
        first.lock().unwrap().push(1);
        drop(finally);
        assert_eq!(*order.lock().unwrap(), [1, 2]);
    }
}
