//! Slots lent to callers, who fill them and read results in place.
//!
//! A caller's slot keeps its memory mapped: it holds a [`Lease`], and the thread that owns the memory gives none of it up
//! while there are leases, also when the device is lost and everything else starts anew.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Core;
use super::job::{Flight, Piece};
use super::memory::SlotMemory;
use super::ring::Refused;
use super::sync::{Condvar, Mutex, lock, wait, wait_timeout};
use crate::backend::{Recipe, Slot, Ticket};
use crate::error::{Error, Result};

/// Counts what is out: the slots of one generation that callers hold, or a pipeline's jobs.
#[derive(Default)]
pub struct Leases {
    count: AtomicUsize,
    cancelled: AtomicU64,
    /// Whoever waits for the last.
    waits: Mutex<()>,
    ended: Condvar,
}

impl Leases {
    /// One more.
    pub fn take(self: &Arc<Self>) -> Lease {
        self.count.fetch_add(1, Ordering::Relaxed);
        Lease(self.clone())
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Waits until there is none.
    pub fn wait_for_none(&self) {
        let mut waits = lock(&self.waits);
        while self.any() {
            waits = wait(&self.ended, waits);
        }
    }

    /// As [`Leases::wait_for_none`], at most `limit` long; whether there is none.
    pub fn wait_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut waits = lock(&self.waits);
        while self.any() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waits = wait_timeout(&self.ended, waits, left);
        }
        true
    }

    /// How many were of jobs that never began.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// One of them, out for as long as this lives.
pub struct Lease(Arc<Leases>);

impl Lease {
    /// It is that of a job that never began.
    pub fn cancelled(&self) {
        self.0.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Whoever has looked before this is waiting by now.
            drop(lock(&self.0.waits));
            self.0.ended.notify_all();
        }
    }
}

/// A caller's wish for a slot.
pub struct Reservation {
    /// What it is for.
    pub recipe: Arc<Recipe>,
    answer: Mutex<Answer>,
    answered: Condvar,
}

enum Answer {
    None,
    Given(LentSlot),
    Failed(Error),
    Taken,
}

impl Reservation {
    /// A wish.
    pub fn new(recipe: &Arc<Recipe>) -> Arc<Self> {
        Arc::new(Reservation {
            recipe: recipe.clone(),
            answer: Mutex::new(Answer::None),
            answered: Condvar::new(),
        })
    }

    /// Whether it has not been answered.
    pub fn is_open(&self) -> bool {
        matches!(*lock(&self.answer), Answer::None)
    }

    fn answer(&self, with: Answer) {
        let mut answer = lock(&self.answer);
        if matches!(*answer, Answer::None) {
            *answer = with;
        }
        self.answered.notify_all();
    }

    /// Grants it.
    pub fn give(&self, slot: LentSlot) {
        self.answer(Answer::Given(slot));
    }

    /// Refuses it.
    pub fn fail(&self, error: Error) {
        self.answer(Answer::Failed(error));
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn wait(&self) -> Result<LentSlot> {
        let mut answer = lock(&self.answer);
        loop {
            match std::mem::replace(&mut *answer, Answer::Taken) {
                Answer::Given(slot) => return Ok(slot),
                Answer::Failed(error) => return Err(error),
                Answer::Taken => return Err(Error::Internal("a slot was taken twice".to_owned())),
                Answer::None => {
                    *answer = Answer::None;
                    answer = wait(&self.answered, answer);
                }
            }
        }
    }
}

/// A slot in a caller's hands.
pub struct LentSlot {
    core: Arc<Core>,
    recipe: Arc<Recipe>,
    slot: usize,
    generation: u64,
    input: NonNull<u8>,
    output: NonNull<u8>,
    _lease: Lease,
}

// SAFETY: the memory may be used on any thread; that nobody else does at the same time is what `backend::Slot` says.
unsafe impl Send for LentSlot {}

impl LentSlot {
    /// Slot `slot` of `generation`, with this memory.
    pub fn new(
        core: &Arc<Core>,
        recipe: &Arc<Recipe>,
        (slot, generation): (usize, u64),
        memory: &SlotMemory,
        lease: Lease,
    ) -> Self {
        LentSlot {
            core: core.clone(),
            recipe: recipe.clone(),
            slot,
            generation,
            input: memory.input,
            output: memory.output,
            _lease: lease,
        }
    }
}

impl Slot for LentSlot {
    fn input(&self) -> *mut f32 {
        self.input.as_ptr().cast()
    }

    fn output(&self) -> *const f32 {
        self.output.as_ptr().cast_const().cast()
    }

    fn submit(&mut self, ticket: &Ticket) -> Result<()> {
        self.core.check_process()?;
        crate::loader::check()?;
        let images = self.recipe.problem.sizes().n;
        let flight = Flight::in_slot(&self.recipe, ticket, &self.core);
        ticket.start();
        let piece = Piece::Part { flight, first: 0, images };
        self.core.ring.submit(self.slot, self.generation, piece).map_err(|refused| match refused {
            Refused::Closed => Error::closed("the pipeline of this slot"),
            _ => Error::DeviceLost {
                device: self.core.id.to_string(),
                what: "the slot belongs to contexts that are gone".to_owned(),
            },
        })
    }
}

impl Drop for LentSlot {
    fn drop(&mut self) {
        if self.core.check_process().is_ok() {
            self.core.ring.give_back(self.slot, self.generation);
        }
    }
}
