//! A stream: one context on one thread, into which one stage's commands go, and what of them the device has not finished.
//!
//! Commands are never waited for on the spot. Each lot of them is followed by a fence; [`CommandStream::land`] looks whether the oldest has
//! signalled.

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

/// One context's commands.
pub struct CommandStream {
    pub stage: Stage,
    /// Whether its commands lie between timestamps. Copies in contexts of their own do not: a timestamp waits for what is before it
    /// at the head of the device's queue, where kernels of other contexts then cannot pass, and copies and kernels took turns.
    stamped: bool,
    pub context: Rc<Context>,
    core: Arc<Core>,
    clock: Clock,
    flights: VecDeque<Issued>,
    /// Timestamps that were read. To make new ones takes the share group's lock, which contexts that copy hold for long.
    spare: Vec<Query>,
    /// When the oldest became that.
    front_since: Instant,
    /// The fence of each slot's last commands: kept until the next, since another context may be about to wait for it.
    fences: Vec<Option<Rc<Fence>>>,
}

/// Commands that were given to the device.
pub struct Issued {
    pub slot: usize,
    pub piece: Piece,
    pub dispatches: u32,
    /// Who computes, if this is computing.
    pub encode: Option<Rc<Encoder>>,
    bytes: u64,
    fence: Rc<Fence>,
    stamps: Option<[Query; 2]>,
    at: Instant,
}

/// Commands that are done.
pub struct Landed {
    pub issued: Issued,
    /// How long the device was at it.
    pub time: Duration,
}

/// What a lot of commands is.
pub struct Commands {
    pub slot: usize,
    pub piece: Piece,
    pub bytes: u64,
}

impl CommandStream {
    /// A stream on `context`, the calling thread's.
    pub fn new(core: &Arc<Core>, context: &Rc<Context>, stage: Stage) -> Self {
        CommandStream {
            stage,
            stamped: stage == Stage::Compute || core.threads() == 1,
            context: context.clone(),
            core: core.clone(),
            clock: Clock::default(),
            flights: VecDeque::new(),
            spare: vec![],
            front_since: Instant::now(),
            fences: core.slots().map(|_| None).collect(),
        }
    }

    /// Gives the device `commands`, behind what the stage before has done in this slot. `give` gives the commands, and says
    /// how many dispatches they are, and of whom.
    ///
    /// # Errors
    /// What GL reports, or `give`.
    pub fn issue(
        &mut self,
        commands: Commands,
        give: impl FnOnce(&SlotMemory) -> Result<(u32, Option<Rc<Encoder>>)>,
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
        let (dispatches, encode) = give(&memory)?;
        let stamps = begin.zip(self.stamp()?).map(|(begin, end)| [begin, end]);
        let fence = Rc::new(Fence::new(&self.context)?);
        self.fences[slot] = Some(fence.clone());
        let dispatches_before = memory.dispatches;
        self.core.update_memory(slot, |memory| {
            memory.fences[self.stage as usize] = fence.name();
            memory.dispatches = dispatches;
        });
        // A download waits for the convolution, which may be many dispatches.
        let dispatches = if self.stage == Stage::Download { dispatches_before } else { dispatches };
        self.flights.push_back(Issued { slot, piece, dispatches, encode, bytes, fence, stamps, at });
        Ok(())
    }

    fn stamp(&mut self) -> Result<Option<Query>> {
        if !self.stamped || self.context.capabilities().timestamp_bits == 0 {
            return Ok(None);
        }
        match self.spare.pop() {
            Some(query) => query.restamp().map(|()| Some(query)),
            None => Query::timestamp(&self.context).map(Some),
        }
    }

    /// Whether the device has something left to do.
    pub fn is_busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// The oldest commands, if they are done, or will be within `patience`.
    ///
    /// # Errors
    /// What GL reports; [`Error::Timeout`](crate::Error::Timeout) for commands that take too long. They are then still the oldest.
    pub fn land(&mut self, patience: Duration) -> Result<Option<Landed>> {
        let Some(oldest) = self.flights.front() else { return Ok(None) };
        let what = ["an upload", "a convolution", "a download"][self.stage as usize];
        if !oldest.fence.poll(what, patience)? {
            // Each dispatch may take as long as the limit says, as where they are waited for one by one; and what comes
            // before this stage has limits of its own, and is to be blamed first.
            let times = self.stage as u32 + encoders::limits(oldest.dispatches, self.core.contexts());
            let limit = self.context.group().wait_limit().saturating_mul(times);
            if self.front_since.max(oldest.at).elapsed() > limit {
                return Err(fence::timeout(&self.context, what, limit));
            }
            return Ok(None);
        }
        let issued = self.flights.front().expect("there is one");
        let (given, now) = (issued.at - self.core.epoch, self.core.epoch.elapsed());
        let (start, end) = match &issued.stamps {
            Some([begin, end]) => {
                self.clock.set(&self.context, self.core.epoch);
                // Each is asked for once: that takes the share group's lock, too.
                let (start, stop) = (begin.nanoseconds()?, end.nanoseconds()?);
                let span = end.between(start, stop);
                let end = self.clock.host_time(stop).unwrap_or(now).clamp(given, now);
                // A clock that runs wild tells no more than ours does.
                (end.saturating_sub(span).max(given), end)
            }
            // It began behind what is before it: in this context, and in this slot.
            None => {
                let before = self.front_since.saturating_duration_since(self.core.epoch);
                (given.max(before).max(self.core.memory(issued.slot).landed).min(now), now)
            }
        };
        let mut issued = self.flights.pop_front().expect("there is one");
        self.spare.extend(issued.stamps.take().into_iter().flatten());
        self.front_since = Instant::now();
        self.core.update_memory(issued.slot, |memory| memory.landed = end);
        let interval =
            Interval { engine: self.stage as usize, slot: issued.slot, start, end, bytes: issued.bytes };
        lock(&self.core.completion.recorder).add(interval);
        Ok(Some(Landed { issued, time: end - start }))
    }

    /// The piece of the oldest commands.
    pub fn oldest(&self) -> Option<(usize, Piece)> {
        self.flights.front().map(|issued| (issued.slot, issued.piece.clone()))
    }

    /// Commands that never landed.
    pub fn take_flights(&mut self) -> impl Iterator<Item = Issued> {
        std::mem::take(&mut self.flights).into_iter()
    }
}

/// What the device's clock shows when the host's shows the pipeline's age.
#[derive(Default)]
struct Clock {
    /// Nanoseconds to add to the device's clock, and when they were measured.
    measured: Option<(i128, Instant)>,
}

impl Clock {
    /// Measures it, if it was not just now.
    fn set(&mut self, context: &Context, epoch: Instant) {
        const FRESH: Duration = Duration::from_secs(1);
        let is_fresh = self.measured.is_some_and(|(_, at)| at.elapsed() < FRESH);
        if is_fresh || context.capabilities().timestamp_bits == 0 {
            return;
        }
        // The quickest of a few questions has the answer of the narrowest moment.
        let ask = || {
            let before = epoch.elapsed();
            let device = context.api().get_integer64(api::TIMESTAMP);
            let after = epoch.elapsed();
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
