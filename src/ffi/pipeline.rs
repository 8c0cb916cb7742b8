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
use crate::backend::{Contexts, PipelineOptions, Ticket, WhenFull};
use crate::device::{Pipeline, PipelineSlot, SlotTicket};
use crate::error::{Error, Result};
use crate::loader;
use crate::report::PipelineStats;

/// A stream of jobs on one device, whose uploads, computations and downloads overlap. Any number of threads may use it
/// at once.
pub struct sparkle_pipeline {
    _opaque: [u8; 0],
}

/// A submitted job.
pub struct sparkle_ticket {
    _opaque: [u8; 0],
}

/// Memory of the device for the input and the output of one job.
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
        // If a running call of another thread also owns it, dropping ours does not wait for the jobs, so wait here.
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

/// The state of a slot that C has acquired.
pub(super) enum SlotState {
    /// No job runs in it.
    Idle(PipelineSlot),
    /// A job runs in it.
    Busy(SlotTicket),
    /// Its job failed, or it was released.
    Gone,
}

impl Opaque for sparkle_slot {
    type Value = Mutex<SlotState>;
    const MARK: usize = 9;
    const NAME: &'static str = "slot";
    fn table() -> &'static Table<Mutex<SlotState>> {
        static SLOTS: Table<Mutex<SlotState>> = Shared::new(std::collections::BTreeMap::new());
        &SLOTS
    }
    fn dies_in_a_fork(_: &Mutex<SlotState>) -> bool {
        true
    }
}

/// Options of a pipeline. Zero in a field means its default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_pipeline_options {
    /// sizeof(sparkle_pipeline_options), set by the caller.
    pub size: usize,
    /// Slots on the device, 1 to 16; 3 by default. Where kernels take longer than transfers, 8 keep a GPU busy.
    pub slots: i32,
    /// Maximum number of jobs that wait for a slot; 256 by default.
    pub queue: i32,
    /// A job whose input or output has more bytes than this is split into pieces of whole images; 128 MiB by default.
    pub piece_bytes: i64,
    /// 1 if upload, computation and download share one context, so that they do not overlap. 0 to use three contexts
    /// where measurements show that the device is faster with them.
    pub one_context: i32,
    /// Zero.
    pub reserved: i32,
}

// SAFETY: repr(C), integers only, size first.
unsafe impl Growing for sparkle_pipeline_options {
    const NAME: &'static str = "sparkle_pipeline_options";
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, reserved) + size_of::<i32>();
}

/// Statistics of a pipeline. The times are per stage; overlapping work of one stage counts once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sparkle_pipeline_stats {
    /// sizeof(sparkle_pipeline_stats), set by the caller.
    pub size: usize,
    /// Jobs that succeeded.
    pub completed: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs that were cancelled.
    pub cancelled: u64,
    /// Pieces of jobs that the device computed.
    pub pieces: u64,
    /// How often the device's contexts were recreated.
    pub rebuilt: u64,
    /// Bytes uploaded to the device.
    pub uploaded: u64,
    /// Bytes downloaded from the device.
    pub downloaded: u64,
    /// Milliseconds in which uploads ran.
    pub upload_ms: f64,
    /// Milliseconds in which kernels ran.
    pub compute_ms: f64,
    /// Milliseconds in which downloads ran.
    pub download_ms: f64,
    /// Milliseconds from the start of the first of these to the end of the last.
    pub span_ms: f64,
    /// Jobs that currently wait for a slot.
    pub waiting: u64,
    /// Slots in which a job currently runs.
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

/// Reads and checks the options; NULL means the defaults.
///
/// # Safety
/// C's promise for `options`.
unsafe fn options(options: *const sparkle_pipeline_options) -> Outcome<PipelineOptions> {
    let mut parsed = PipelineOptions::default();
    if options.is_null() {
        return Ok(parsed);
    }
    // SAFETY: as promised.
    let options = unsafe { pointer::read_struct(options)? };
    let given = |name, value: i64| match usize::try_from(value) {
        Ok(value) => Ok((value > 0).then_some(value)),
        Err(_) => Err(Error::invalid(name, value, "0 or more")),
    };
    parsed.slots = given("slots", options.slots.into())?.unwrap_or(parsed.slots);
    parsed.queue = given("queue", options.queue.into())?.unwrap_or(parsed.queue);
    parsed.piece_bytes = given("piece_bytes", options.piece_bytes)?.unwrap_or(parsed.piece_bytes);
    if truth("one_context", options.one_context)? {
        parsed.contexts = Contexts::One;
    }
    if !(1..=16).contains(&parsed.slots) {
        return Err(Error::invalid("slots", parsed.slots, "1 to 16").into());
    }
    if options.reserved != 0 {
        return Err(Error::invalid("reserved", options.reserved, "0").into());
    }
    Ok(parsed)
}

/// What to do when the queue is full, from C's argument `wait`.
fn when_full(wait: i32) -> Outcome<WhenFull> {
    Ok(if truth("wait", wait)? { WhenFull::Wait } else { WhenFull::Refuse })
}

/// Creates a pipeline on `device` (NULL means "auto") and writes its handle to `*out`. `options` NULL means the
/// defaults. On a device without support for overlapping, a thread runs the jobs in order. The caller destroys the
/// pipeline with sparkle_pipeline_destroy.
///
/// SPARKLE_ERROR_INVALID_ARGUMENT for an invalid option; other errors come from the device.
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

/// Destroys a pipeline; NULL is ignored. It cancels jobs that have not started and waits for the others; after that the
/// library no longer uses their buffers. Calls of other threads that wait for one of its slots, or for room in its
/// queue, return SPARKLE_ERROR_INVALID_HANDLE. Tickets and slots stay valid until they are released: a slot's memory
/// may be read and written, but the slot can no longer be submitted.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_pipeline_destroy(pipeline: *mut sparkle_pipeline) -> sparkle_status {
    boundary!(|call| { if pipeline.is_null() { Ok(()) } else { handle::remove(call, "pipeline", pipeline) } })
}

/// Submits a run of `plan` and writes its ticket to `*out`: input `[n][c][h][w]`, output `[n][k][p][q]`, lengths in
/// floats. The caller releases the ticket with sparkle_ticket_release. Until the job is done, the input must stay valid
/// and unchanged, and the output must stay valid and not be accessed, even if the ticket is released earlier. If the
/// queue is full, this waits for room when `wait` is 1, and returns SPARKLE_ERROR_BUSY when it is 0.
///
/// Errors of the job itself are returned by sparkle_ticket_wait; the output is then untouched.
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
        let when_full = when_full(wait)?;
        let pipeline = handle::get(call, "pipeline", pipeline)?;
        let plan = handle::get(call, "plan", plan)?;
        let (input, output) = ((input, input_len), (output, output_len));
        // SAFETY: C's promises for both buffers; the plan owns its weights.
        let (input, output) = unsafe { conv2d::data(plan.conv2d().problem(), input, output, (&[], None))? };
        let addresses = (input.as_ptr(), output.as_mut_ptr());
        // SAFETY: both have the problem's lengths, as just checked; C promises above that they stay valid until the
        // ticket is done.
        let ticket = unsafe {
            pipeline.submit_raw(plan.conv2d(), Ticket::new(), addresses, (None, false), when_full)?
        };
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, ticket)?) }
    })
}

/// Writes 1 to `*out_done` if the job is done, successfully or not, else 0. Does not wait.
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

/// Waits until the job is done, but at most `timeout_ms` milliseconds; a negative value means no limit. Returns the
/// job's result: SPARKLE_OK, after which sparkle_last_timing has its times, or the job's error.
///
/// SPARKLE_ERROR_TIMEOUT if it is not done by then. The job continues, and the ticket can be waited for again.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_ticket_wait(ticket: *mut sparkle_ticket, timeout_ms: i64) -> sparkle_status {
    boundary!(|call| {
        let ticket = handle::get(call, "ticket", ticket)?;
        let result =
            ticket.wait_for(wait_limit(timeout_ms)).ok_or_else(|| timeout_error("the job", timeout_ms))?;
        timing::keep(result?);
        Ok(())
    })
}

/// Waits until one of the `count` tickets is done and writes the index of the first that is done to `*out_index`.
/// `count` is 1 to 1048576; `timeout_ms` is as for sparkle_ticket_wait, which then returns the job's result.
///
/// SPARKLE_ERROR_TIMEOUT if none is done by then.
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
        let index = Ticket::wait_any(&all, wait_limit(timeout_ms));
        let index = index.ok_or_else(|| timeout_error("any of the jobs", timeout_ms))?;
        // SAFETY: C's promise for `out_index`.
        unsafe { pointer::write("out_index", out_index, index) }
    })
}

/// Cancels the job if it has not started. Writes 1 to `*out_cancelled` if it was cancelled, else 0. A cancelled job is
/// done with SPARKLE_ERROR_CANCELLED, and the library no longer uses its buffers.
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

/// Releases a ticket; NULL is ignored. The job continues, and its buffers must stay valid until sparkle_pipeline_flush
/// or sparkle_pipeline_destroy has returned.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_ticket_release(ticket: *mut sparkle_ticket) -> sparkle_status {
    boundary!(|call| { if ticket.is_null() { Ok(()) } else { handle::remove(call, "ticket", ticket) } })
}

/// Waits until no job of the pipeline is waiting or running.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_pipeline_flush(pipeline: *mut sparkle_pipeline) -> sparkle_status {
    boundary!(|call| { Ok(handle::get(call, "pipeline", pipeline)?.flush()?) })
}

/// Writes the pipeline's statistics so far to `*out`, whose `size` the caller has set.
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

/// Acquires a slot for runs of `plan`, to be filled and read in place without a copy, and writes its handle to `*out`.
/// The caller releases it with sparkle_slot_release. If all slots are held or in use, or other callers wait for them,
/// this waits for a slot when `wait` is 1, and returns SPARKLE_ERROR_BUSY at once when it is 0. A slot that is used for
/// the first time, or for larger data than before, allocates its memory, which takes time.
///
/// SPARKLE_ERROR_UNSUPPORTED if the plan's batch does not fit into one slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_slot_acquire(
    pipeline: *mut sparkle_pipeline,
    plan: *mut sparkle_plan,
    wait: i32,
    out: *mut *mut sparkle_slot,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let when_full = when_full(wait)?;
        let pipeline = handle::get(call, "pipeline", pipeline)?;
        let plan = handle::get(call, "plan", plan)?;
        let slot = pipeline.acquire(plan.conv2d(), when_full)?;
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, handle::insert(call, Mutex::new(SlotState::Idle(slot)))?) }
    })
}

/// Writes the addresses of the slot's input and output memory to `*out_input` and `*out_output`; either pointer may be
/// NULL. The memory has the lengths of the plan's input and output. The caller may use it from the acquisition, or the
/// end of the slot's job, until the next sparkle_slot_submit or sparkle_slot_release, even after the pipeline was
/// destroyed.
///
/// SPARKLE_ERROR_BUSY while a job runs in the slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_slot_memory(
    slot: *mut sparkle_slot,
    out_input: *mut *mut f32,
    out_output: *mut *const f32,
) -> sparkle_status {
    boundary!(|call| {
        let slot = handle::get(call, "slot", slot)?;
        let mut state = slot.lock().unwrap_or_else(PoisonError::into_inner);
        make_idle_if_done(&mut state)?;
        let SlotState::Idle(slot) = &mut *state else { return Err(gone()) };
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

/// Submits the contents of the slot as a job and writes its ticket to `*out`. The caller releases the ticket. Until the
/// job is done the slot's memory must not be accessed.
///
/// SPARKLE_ERROR_INVALID_HANDLE if the slot's pipeline was destroyed; SPARKLE_ERROR_DEVICE_LOST if the device was lost
/// since the slot was acquired. Nothing is computed then, and the caller may still use the memory until the slot is
/// released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sparkle_slot_submit(
    slot: *mut sparkle_slot,
    out: *mut *mut sparkle_ticket,
) -> sparkle_status {
    boundary!(|call| {
        pointer::check("out", out)?;
        let slot = handle::get(call, "slot", slot)?;
        let mut state = slot.lock().unwrap_or_else(PoisonError::into_inner);
        make_idle_if_done(&mut state)?;
        let SlotState::Idle(slot) = std::mem::replace(&mut *state, SlotState::Gone) else {
            return Err(gone());
        };
        let running = match slot.try_submit() {
            Ok(running) => running,
            Err((error, slot)) => {
                *state = SlotState::Idle(slot);
                return Err(error.into());
            }
        };
        let ticket = handle::insert(call, running.ticket().clone())?;
        *state = SlotState::Busy(running);
        // SAFETY: C's promise for `out`.
        unsafe { pointer::write("out", out, ticket) }
    })
}

/// Releases a slot; NULL is ignored. A job that runs in it ends normally.
#[unsafe(no_mangle)]
pub extern "C" fn sparkle_slot_release(slot: *mut sparkle_slot) -> sparkle_status {
    boundary!(|call| { if slot.is_null() { Ok(()) } else { handle::remove(call, "slot", slot) } })
}

/// Makes a slot idle whose job is done.
///
/// # Errors
/// [`Error::Busy`] while the job runs; the error of a job that failed.
fn make_idle_if_done(state: &mut SlotState) -> Result<()> {
    match std::mem::replace(state, SlotState::Gone) {
        SlotState::Busy(running) if !running.wait_for(Duration::ZERO) => {
            *state = SlotState::Busy(running);
            return Err(Error::Busy { what: "the slot".to_owned() });
        }
        SlotState::Busy(running) => *state = SlotState::Idle(running.wait()?.1),
        other => *state = other,
    }
    Ok(())
}

fn gone() -> Failure {
    Failure::handle("slot", "one whose job has failed; acquire another")
}

/// The duration of a wait; negative means no limit.
fn wait_limit(timeout_ms: i64) -> Duration {
    let asked = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
    if loader::is_held() { asked.min(loader::PATIENCE) } else { asked }
}

/// The error of a wait that has timed out.
fn timeout_error(what: &str, timeout_ms: i64) -> Error {
    if !(0..=loader::PATIENCE.as_millis() as i64).contains(&timeout_ms)
        && let Err(error) = loader::check()
    {
        return error;
    }
    let limit_ms = timeout_ms.unsigned_abs();
    Error::Timeout { device: "the pipeline".to_owned(), what: what.to_owned(), limit_ms }
}
