//! Pipelines: jobs in flight on one device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::conv2d;
use super::device::{self, sparkle_device};
use super::handle::{self, Opaque, Shared, Table};
use super::plan::sparkle_plan;
use super::pointer::{self, Growing, truth};
use super::status::{Failure, Outcome, sparkle_status};
use super::timing;
use crate::allocate;
use crate::backend::{Contexts, PipelineOptions, Pressure, Ticket};
use crate::device::{Pipeline, PipelineSlot, SlotTicket};
use crate::error::{Error, Result};
use crate::loader;
use crate::report::PipelineStats;

/// A stream of jobs on one device: uploads, computations and downloads overlap.
pub struct sparkle_pipeline {
    _opaque: [u8; 0],
}

/// A job that was submitted.
pub struct sparkle_ticket {
    _opaque: [u8; 0],
}

/// A place in the device's memory for one input and one output.
pub struct sparkle_slot {
    _opaque: [u8; 0],
}

impl Opaque for sparkle_pipeline {
    type Value = Pipeline;
    const MARK: usize = 5;
    const NAME: &'static str = "pipeline";
    fn table() -> &'static Table<Pipeline> {
        static PIPELINES: Table<Pipeline> = Shared::new(std::collections::BTreeMap::new());
        &PIPELINES
    }
    fn dies_in_a_fork(_: &Pipeline) -> bool {
        true
    }
    fn retire(pipeline: &Arc<Pipeline>) {
        pipeline.close();
        // A call on another thread holds it, too, and may be the last to let go: nobody waits for the jobs then but we.
        if Arc::strong_count(pipeline) > 1 {
            let _ = pipeline.flush();
        }
    }
}

impl Opaque for sparkle_ticket {
    type Value = Ticket;
    const MARK: usize = 7;
    const NAME: &'static str = "ticket";
    fn table() -> &'static Table<Ticket> {
        static TICKETS: Table<Ticket> = Shared::new(std::collections::BTreeMap::new());
        &TICKETS
    }
    fn dies_in_a_fork(_: &Ticket) -> bool {
        true
    }
}

/// A slot as C holds it.
pub(super) enum Place {
    /// Nothing runs in it.
    Idle(PipelineSlot),
    /// A job runs in it.
    Busy(SlotTicket),
    /// A job in it has failed, or it was given back.
    Gone,
}

impl Opaque for sparkle_slot {
    type Value = Mutex<Place>;
    const MARK: usize = 9;
    const NAME: &'static str = "slot";
    fn table() -> &'static Table<Mutex<Place>> {
        static SLOTS: Table<Mutex<Place>> = Shared::new(std::collections::BTreeMap::new());
        &SLOTS
    }
    fn dies_in_a_fork(_: &Mutex<Place>) -> bool {
        true
    }
}

/// How a pipeline is to be. Zero in a field means its default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_pipeline_options {
    /// sizeof(sparkle_pipeline_options), set by the caller.
    pub size: usize,
    /// Places on the device, 1 to 16; 3 by default. Where kernels take longer than transfers, 8 keep a GPU computing.
    pub slots: i32,
    /// Jobs that may wait for a place; 256 by default.
    pub queue: i32,
    /// A job whose input or output has more bytes than this is cut into pieces of whole images; 128 MiB by default.
    pub piece_bytes: i64,
    /// 1 if all steps are to share one context, so that they cannot overlap; 0 for three contexts where the device was measured
    /// to be faster with them.
    pub one_context: i32,
    /// Zero.
    pub reserved: i32,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_pipeline_options {
    const NAME: &'static str = "sparkle_pipeline_options";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reserved) + size_of::<i32>();
}

/// What a pipeline has done. Busy times are of each engine, with what overlaps counted once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_pipeline_stats {
    /// sizeof(sparkle_pipeline_stats), set by the caller.
    pub size: usize,
    /// Jobs that ended well.
    pub completed: u64,
    /// Jobs that ended with an error.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Pieces of jobs that went through the device.
    pub pieces: u64,
    /// Times the device's contexts were made again.
    pub rebuilt: u64,
    /// Bytes moved to the device.
    pub uploaded: u64,
    /// Bytes moved from the device.
    pub downloaded: u64,
    /// Milliseconds in which data was moved to the device.
    pub upload_ms: f64,
    /// Milliseconds in which the device computed.
    pub compute_ms: f64,
    /// Milliseconds in which data was moved from the device.
    pub download_ms: f64,
    /// Milliseconds from the first of those to the end of the last.
    pub span_ms: f64,
    /// Jobs that wait for a slot at present.
    pub waiting: u64,
    /// Slots at work at present.
    pub active: u64,
}

// SAFETY: repr(C), numbers only, size first.
unsafe impl Growing for sparkle_pipeline_stats {
    const NAME: &'static str = "sparkle_pipeline_stats";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, active) + size_of::<u64>();
}

impl From<PipelineStats> for sparkle_pipeline_stats {
    fn from(stats: PipelineStats) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let [upload_ms, compute_ms, download_ms] = stats.busy.map(ms);
        sparkle_pipeline_stats {
            size: size_of::<Self>(),
            completed: stats.completed,
            failed: stats.failed,
            cancelled: stats.cancelled,
            pieces: stats.pieces,
            rebuilt: stats.rebuilt,
            uploaded: stats.uploaded,
            downloaded: stats.downloaded,
            upload_ms,
            compute_ms,
            download_ms,
            span_ms: ms(stats.span),
            waiting: stats.depth.0 as u64,
            active: stats.depth.1 as u64,
        }
    }
}

/// The options that C means.
///
/// # Safety
/// C's promise for `options`.
unsafe fn options(options: *const sparkle_pipeline_options) -> Outcome<PipelineOptions> {
    let mut meant = PipelineOptions::default();
    if options.is_null() {
        return Ok(meant);
    }
    // SAFETY: as promised.
    let options = unsafe { pointer::read_struct(options)? };
    let given = |name, value: i64| match usize::try_from(value) {
        Ok(value) => Ok((value > 0).then_some(value)),
        Err(_) => Err(Error::invalid(name, value, "0 or more")),
    };
    meant.slots = given("slots", options.slots.into())?.unwrap_or(meant.slots);
    meant.queue = given("queue", options.queue.into())?.unwrap_or(meant.queue);
    meant.piece_bytes = given("piece_bytes", options.piece_bytes)?.unwrap_or(meant.piece_bytes);
    if truth("one_context", options.one_context)? {
        meant.contexts = Contexts::One;
    }
    if !(1..=16).contains(&meant.slots) {
        return Err(Error::invalid("slots", meant.slots, "1 to 16").into());
    }
    if options.reserved != 0 {
        return Err(Error::invalid("reserved", options.reserved, "0").into());
    }
    Ok(meant)
}

fn pressure(wait: i32) -> Outcome<Pressure> {
    Ok(if truth("wait", wait)? { Pressure::Wait } else { Pressure::Refuse })
}

/// Makes a pipeline on `device` (NULL means "auto") and puts its handle into `*out`; `options` NULL means the defaults.
/// On a device that cannot overlap its steps jobs are computed in order on a thread. The caller destroys the pipeline.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_pipeline_create(
    device: *mut sparkle_device,
    options: *const sparkle_pipeline_options,
    out: *mut *mut sparkle_pipeline,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        // SAFETY: C's promise for `options`.
        let options = unsafe { self::options(options)? };
        let device = device::resolve(call, device)?;
        let pipeline = device.pipeline(options)?;
        let pipeline = handle::insert(call, pipeline)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, pipeline) }
    })
}

/// Destroys a pipeline; NULL is fine. Jobs that have not begun are cancelled, the others are waited for; after that the
/// library uses none of their buffers any more. Calls of other threads that wait for a slot of it, or for room in its
/// queue, return SPARKLE_ERROR_INVALID_HANDLE. Tickets and slots stay valid until they are released: a slot's memory may be
/// read and written, its last job's ticket asked, but nothing can be submitted in it any more.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_pipeline_destroy(pipeline: *mut sparkle_pipeline) -> sparkle_status {
    boundary!(|call| { if pipeline.is_null() { Ok(()) } else { handle::remove(call, "pipeline", pipeline) } })
}

/// Submits a run of `plan` and puts its ticket into `*out`; the caller releases the ticket. Until the ticket is done the
/// input must stay valid and unchanged, and the output valid and used by nobody else, also if the ticket is released
/// before. While the queue is full this waits, or, if `wait` is 0, returns SPARKLE_ERROR_BUSY.
///
/// What becomes of the job, its ticket tells. If it fails the output is untouched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_submit(
    pipeline: *mut sparkle_pipeline,
    plan: *mut sparkle_plan,
    input: *const f32,
    input_len: usize,
    output: *mut f32,
    output_len: usize,
    wait: i32,
    out: *mut *mut sparkle_ticket,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let pressure = pressure(wait)?;
        let stream = handle::get(call, "pipeline", pipeline)?;
        let plan = handle::get(call, "plan", plan)?;
        let (input, output) = ((input, input_len), (output, output_len));
        // SAFETY: C's promises for both buffers; the plan has weights of its own.
        let (input, output) = unsafe { conv2d::data(plan.conv2d().problem(), input, output, (&[], None))? };
        let addresses = (input.as_ptr(), output.as_mut_ptr());
        // SAFETY: checked to be as long as the problem says; that they stay until the ticket is done is C's promise above.
        let ticket =
            unsafe { stream.submit_raw(plan.conv2d(), Ticket::new(), addresses, (None, false), pressure)? };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, ticket)?) }
    })
}

/// Puts 1 into `*out_done` if the job is done, well or not, else 0. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_ticket_poll(
    ticket: *mut sparkle_ticket,
    out_done: *mut i32,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out_done", out_done)?;
        let ticket = handle::get(call, "ticket", ticket)?;
        // SAFETY: C's promise for `out_done`.
        unsafe { pointer::write("out_done", out_done, ticket.poll().is_some().into()) }
    })
}

/// Waits until the job is done, at most `timeout_ms` milliseconds, negative for any time, and returns what became of it:
/// SPARKLE_OK, with sparkle_last_timing telling what it took, or the job's own error. SPARKLE_ERROR_TIMEOUT if it is not
/// done by then; it goes on, and may be waited for again.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_ticket_wait(ticket: *mut sparkle_ticket, timeout_ms: i64) -> sparkle_status {
    boundary!(|call| {
        let ticket = handle::get(call, "ticket", ticket)?;
        let result = ticket.wait_for(limit(timeout_ms)).ok_or_else(|| too_late("the job", timeout_ms))?;
        timing::keep(result?);
        Ok(())
    })
}

/// Waits until one of `count` tickets is done, as sparkle_ticket_wait does, and puts the first such one's index into
/// `*out_index`. The job's own result sparkle_ticket_wait tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_ticket_wait_any(
    tickets: *const *mut sparkle_ticket,
    count: usize,
    timeout_ms: i64,
    out_index: *mut usize,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out_index", out_index)?;
        pointer::check("tickets", tickets)?;
        if !(1..=1 << 20).contains(&count) {
            return Err(Error::invalid("count", count, "1 to 1048576").into());
        }
        // SAFETY: C's promise for `tickets`: an array of `count` handles.
        let handles = unsafe { std::slice::from_raw_parts(tickets, count) };
        let tickets = handles.iter().map(|&ticket| handle::get(call, "ticket", ticket));
        let mut found = allocate::with_capacity(count, "tickets")?;
        for ticket in tickets {
            found.push(ticket?);
        }
        let all = allocate::collected(found.iter().map(|ticket| Ok(&**ticket)), "tickets")?;
        let index = Ticket::wait_any(&all, limit(timeout_ms));
        let index = index.ok_or_else(|| too_late("any of the jobs", timeout_ms))?;
        // SAFETY: C's promise for `out_index`.
        unsafe { pointer::write("out_index", out_index, index) }
    })
}

/// Cancels the job if it has not begun, and puts 1 into `*out_cancelled` if that is so, else 0. A cancelled job is done,
/// with SPARKLE_ERROR_CANCELLED, and its buffers are the caller's again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_ticket_cancel(
    ticket: *mut sparkle_ticket,
    out_cancelled: *mut i32,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out_cancelled", out_cancelled)?;
        let ticket = handle::get(call, "ticket", ticket)?;
        // SAFETY: C's promise for `out_cancelled`.
        unsafe { pointer::write("out_cancelled", out_cancelled, ticket.cancel().into()) }
    })
}

/// Releases a ticket; NULL is fine. The job goes on all the same, and its buffers must stay until
/// sparkle_pipeline_flush or sparkle_pipeline_destroy has returned.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_ticket_release(ticket: *mut sparkle_ticket) -> sparkle_status {
    boundary!(|call| { if ticket.is_null() { Ok(()) } else { handle::remove(call, "ticket", ticket) } })
}

/// Waits until no job of the pipeline is waiting or running.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_pipeline_flush(pipeline: *mut sparkle_pipeline) -> sparkle_status {
    boundary!(|call| { Ok(handle::get(call, "pipeline", pipeline)?.flush()?) })
}

/// What the pipeline has done so far, into `*out`, whose `size` the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_pipeline_get_stats(
    pipeline: *mut sparkle_pipeline,
    out: *mut sparkle_pipeline_stats,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let stats = handle::get(call, "pipeline", pipeline)?.stats();
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write_struct(out, &stats.into()) }
    })
}

/// Acquires a slot for runs of `plan`, to be filled and read in place, without a copy, and puts its handle into `*out`; the
/// caller releases it. While all slots are held or at work, or others wait for them, this waits until another
/// thread gives one back; or, if `wait` is 0, returns SPARKLE_ERROR_BUSY at once. Only a slot that is used for the first time, or
/// for larger data than before, takes the time that its memory takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_slot_acquire(
    pipeline: *mut sparkle_pipeline,
    plan: *mut sparkle_plan,
    wait: i32,
    out: *mut *mut sparkle_slot,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let pressure = pressure(wait)?;
        let stream = handle::get(call, "pipeline", pipeline)?;
        let plan = handle::get(call, "plan", plan)?;
        let slot = stream.acquire(plan.conv2d(), pressure)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, Mutex::new(Place::Idle(slot)))?) }
    })
}

/// The slot's memory, as long as the plan's input and output, into `*out_input` and `*out_output`; either may be NULL. It is
/// the caller's from the acquisition, or the end of the job in it, until the next sparkle_slot_submit or
/// sparkle_slot_release, also after its pipeline was destroyed. SPARKLE_ERROR_BUSY while a job runs in the slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_slot_memory(
    slot: *mut sparkle_slot,
    out_input: *mut *mut f32,
    out_output: *mut *const f32,
) -> sparkle_status {
    boundary!(|call| {
        let place = handle::get(call, "slot", slot)?;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        settle(&mut place)?;
        let Place::Idle(slot) = &mut *place else { return Err(gone()) };
        let (input, output) = (slot.input().as_mut_ptr(), slot.output().as_ptr());
        if !out_input.is_null() {
            // SAFETY: C's promise for `out_input`.
            unsafe { pointer::write("out_input", out_input, input)? };
        }
        if !out_output.is_null() {
            // SAFETY: C's promise for `out_output`.
            unsafe { pointer::write("out_output", out_output, output)? };
        }
        Ok(())
    })
}

/// Computes what is in the slot, and puts the job's ticket into `*out`; the caller releases the ticket. Until it is done the
/// slot's memory is not to be touched.
///
/// SPARKLE_ERROR_INVALID_HANDLE if the slot's pipeline was destroyed, SPARKLE_ERROR_DEVICE_LOST if the device was lost since the
/// slot was acquired. Nothing was computed then, and the memory stays as it is, the caller's, until the slot is released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_slot_submit(
    slot: *mut sparkle_slot,
    out: *mut *mut sparkle_ticket,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let place = handle::get(call, "slot", slot)?;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        settle(&mut place)?;
        let Place::Idle(slot) = std::mem::replace(&mut *place, Place::Gone) else { return Err(gone()) };
        let running = match slot.try_submit() {
            Ok(running) => running,
            Err((error, slot)) => {
                *place = Place::Idle(slot);
                return Err(error.into());
            }
        };
        let ticket = handle::insert(call, running.ticket().clone())?;
        *place = Place::Busy(running);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, ticket) }
    })
}

/// Gives a slot back; NULL is fine. A job that runs in it ends normally.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_slot_release(slot: *mut sparkle_slot) -> sparkle_status {
    boundary!(|call| { if slot.is_null() { Ok(()) } else { handle::remove(call, "slot", slot) } })
}

/// A slot whose job is done is idle again.
fn settle(place: &mut Place) -> Result<()> {
    match std::mem::replace(place, Place::Gone) {
        Place::Busy(running) if !running.wait_for(Duration::ZERO) => {
            *place = Place::Busy(running);
            return Err(Error::Busy { what: "the slot".to_owned() });
        }
        Place::Busy(running) => *place = Place::Idle(running.wait()?.1),
        other => *place = other,
    }
    Ok(())
}

fn gone() -> Failure {
    Failure::handle("slot", "one whose job has failed; acquire another")
}

fn limit(timeout_ms: i64) -> Duration {
    let asked = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
    if loader::is_held() { asked.min(loader::PATIENCE) } else { asked }
}

fn too_late(what: &str, timeout_ms: i64) -> Error {
    if !(0..=loader::PATIENCE.as_millis() as i64).contains(&timeout_ms)
        && let Err(error) = loader::check()
    {
        return error;
    }
    let limit_ms = timeout_ms.unsigned_abs();
    Error::Timeout { device: "the pipeline".to_owned(), what: what.to_owned(), limit_ms }
}
