//! A command stream: one context on one thread, one stage's commands, and those of them that are in flight.
//!
//! A fence follows each submission. No submission waits; [`CommandStream::poll_completed`] checks whether the
//! oldest fence has signalled.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::encoders::{self, Encoder};
use super::memory::SlotMemory;
use super::ring::Stage;
use super::sync::lock;
use super::work::Piece;
use crate::backend::Order;
use crate::error::Result;
use crate::gl::driver::api;
use crate::gl::driver::context::Context;
use crate::gl::driver::fence::{self, Fence};
use crate::gl::driver::resource::Query;
use crate::report::Interval;

/// The commands of one stage in one context.
pub struct CommandStream {
    pub stage: Stage,
    /// Whether timestamps enclose its commands. Copies in contexts of their own have none: at the head of the
    /// device's queue, a timestamp waits for the copy before it, and blocks the kernels of other contexts. Copies
    /// and kernels would not overlap.
    stamped: bool,
    pub context: Rc<Context>,
    core: Arc<Core>,
    clock: DeviceClock,
    in_flight: VecDeque<Issued>,
    /// Timestamp queries for reuse. Creating one takes the share group's lock, which contexts that copy hold for
    /// long.
    spare_queries: Vec<Query>,
    /// Since when the oldest commands have been the oldest.
    oldest_since: Instant,
    /// The fence of each slot's last commands. Kept until the next ones, since another context may be about to wait
    /// for it.
    fences: Vec<Option<Rc<Fence>>>,
}

/// Submitted commands.
pub struct Issued {
    pub slot: usize,
    pub piece: Piece,
    pub dispatches: u32,
    /// The encoder of compute commands.
    pub encoder: Option<Rc<Encoder>>,
    bytes: u64,
    fence: Rc<Fence>,
    stamps: Option<[Query; 2]>,
    at: Instant,
}

/// Commands that have completed.
pub struct Completed {
    pub issued: Issued,
    /// The device's time for them.
    pub time: Duration,
}

/// What a submission is for.
pub struct Commands {
    pub slot: usize,
    pub piece: Piece,
    pub bytes: u64,
}

impl CommandStream {
    /// A stream on `context`, which belongs to the calling thread.
    pub fn new(core: &Arc<Core>, context: &Rc<Context>, stage: Stage) -> Self {
        CommandStream {
            stage,
            stamped: stage == Stage::Compute || core.threads() == 1,
            context: context.clone(),
            core: core.clone(),
            clock: DeviceClock::default(),
            in_flight: VecDeque::new(),
            spare_queries: vec![],
            oldest_since: Instant::now(),
            fences: core.slots().map(|_| None).collect(),
        }
    }

    /// Submits `commands` after the previous stage's work in this slot. `submit` makes the GL calls and returns the
    /// number of dispatches and their encoder.
    ///
    /// # Errors
    /// What GL or `submit` reports.
    pub fn issue(
        &mut self,
        commands: Commands,
        submit: impl FnOnce(&SlotMemory) -> Result<(u32, Option<Rc<Encoder>>)>,
    ) -> Result<()> {
        let Commands { slot, piece, bytes } = commands;
        let memory = self.core.memory(slot);
        let api = self.context.api();
        if self.core.order_before(self.stage) == Some(Order::Device)
            && let Some(fence) = memory.fence_before(self.stage)
        {
            api.wait_sync(fence);
            self.context.check("glWaitSync")?;
        }
        let at = Instant::now();
        let begin = self.stamp()?;
        let (dispatches, encoder) = submit(&memory)?;
        let stamps = begin.zip(self.stamp()?).map(|(begin, end)| [begin, end]);
        let fence = Rc::new(Fence::new(&self.context)?);
        self.fences[slot] = Some(fence.clone());
        let dispatches_before = memory.dispatches;
        self.core.update_memory(slot, |memory| {
            memory.fences[self.stage as usize] = fence.name();
            memory.dispatches = dispatches;
        });
        // A download also waits for the convolution, which may be many dispatches.
        let dispatches = if self.stage == Stage::Download { dispatches_before } else { dispatches };
        self.in_flight.push_back(Issued { slot, piece, dispatches, encoder, bytes, fence, stamps, at });
        Ok(())
    }

    fn stamp(&mut self) -> Result<Option<Query>> {
        if !self.stamped || self.context.capabilities().timestamp_bits == 0 {
            return Ok(None);
        }
        match self.spare_queries.pop() {
            Some(query) => query.restamp().map(|()| Some(query)),
            None => Query::timestamp(&self.context).map(Some),
        }
    }

    /// Whether commands are in flight.
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Returns the oldest commands if they have completed or do so within `patience`.
    ///
    /// # Errors
    /// What GL reports; [`Error::Timeout`](crate::Error::Timeout) for commands that take too long, which then stay
    /// the oldest.
    pub fn poll_completed(&mut self, patience: Duration) -> Result<Option<Completed>> {
        let Some(oldest) = self.in_flight.front() else { return Ok(None) };
        let what = ["an upload", "a convolution", "a download"][self.stage as usize];
        if !oldest.fence.poll(what, patience)? {
            // The limit applies to each dispatch, as in synchronous execution. Stages before this one have limits
            // of their own and should report a timeout first.
            let times = self.stage as u32 + encoders::limits(oldest.dispatches, self.core.contexts());
            let limit = self.context.group().wait_limit().saturating_mul(times);
            if self.oldest_since.max(oldest.at).elapsed() > limit {
                return Err(fence::timeout(&self.context, what, limit));
            }
            return Ok(None);
        }
        let issued = self.in_flight.front().expect("the queue is not empty");
        let (submitted, now) = (issued.at - self.core.started, self.core.started.elapsed());
        let (start, end) = match &issued.stamps {
            Some([begin, end]) => {
                self.clock.set(&self.context, self.core.started);
                // Read each query once: reading takes the share group's lock, too.
                let (start, stop) = (begin.nanoseconds()?, end.nanoseconds()?);
                let span = end.between(start, stop);
                let end = self.clock.host_time(stop).unwrap_or(now).clamp(submitted, now);
                // Clamp a device clock that drifts to what the host saw.
                (end.saturating_sub(span).max(submitted), end)
            }
            // It began after the commands before it in this context and the previous stage in this slot.
            None => {
                let before = self.oldest_since.saturating_duration_since(self.core.started);
                (submitted.max(before).max(self.core.memory(issued.slot).completed_at).min(now), now)
            }
        };
        let mut issued = self.in_flight.pop_front().expect("the queue is not empty");
        self.spare_queries.extend(issued.stamps.take().into_iter().flatten());
        self.oldest_since = Instant::now();
        self.core.update_memory(issued.slot, |memory| memory.completed_at = end);
        let interval =
            Interval { engine: self.stage as usize, slot: issued.slot, start, end, bytes: issued.bytes };
        lock(&self.core.completion.recorder).add(interval);
        Ok(Some(Completed { issued, time: end - start }))
    }

    /// The piece of the oldest commands.
    pub fn oldest(&self) -> Option<(usize, Piece)> {
        self.in_flight.front().map(|issued| (issued.slot, issued.piece.clone()))
    }

    /// Commands that never completed.
    pub fn take_in_flight(&mut self) -> impl Iterator<Item = Issued> {
        std::mem::take(&mut self.in_flight).into_iter()
    }
}

/// Maps the device's clock to the pipeline's age.
#[derive(Default)]
struct DeviceClock {
    /// Nanoseconds to add to the device's clock, and when they were measured.
    measured: Option<(i128, Instant)>,
}

impl DeviceClock {
    /// Measures the offset, unless it was measured recently.
    fn set(&mut self, context: &Context, started: Instant) {
        const FRESH: Duration = Duration::from_secs(1);
        let is_fresh = self.measured.is_some_and(|(_, at)| at.elapsed() < FRESH);
        if is_fresh || context.capabilities().timestamp_bits == 0 {
            return;
        }
        // The fastest of a few readings has the narrowest bounds.
        let ask = || {
            let before = started.elapsed();
            let device = context.api().get_integer64(api::TIMESTAMP);
            let after = started.elapsed();
            let middle = (before + (after - before) / 2).as_nanos() as i128;
            (after - before, middle - i128::from(device))
        };
        let best = (0..4).map(|_| ask()).min_by_key(|(took, _)| *took);
        self.measured = best.map(|(_, offset)| (offset, Instant::now()));
    }

    /// The pipeline's age at a time of the device's clock.
    fn host_time(&self, nanoseconds: u64) -> Option<Duration> {
        let (offset, _) = self.measured?;
        let age = (i128::from(nanoseconds) + offset).max(0);
        Some(Duration::from_nanos(u64::try_from(age).ok()?))
    }
}
