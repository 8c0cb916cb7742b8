//! Slots lent to callers, who fill them and read them in place.
//!
//! A lent slot holds a [`Lease`]. The thread that owns the memory frees none of it while leases exist, even if the
//! device is lost and new contexts are created.

use std::ptr::NonNull;
use std::sync::Arc;

use super::core::Core;
use super::job::InFlightJob;
use super::leases::Lease;
use super::memory::SlotMemory;
use super::ring::Refused;
use super::work::Piece;
use crate::backend::{Recipe, Slot, Ticket};
use crate::error::{Error, Result};

/// A slot lent to a caller.
pub struct LentSlot {
    core: Arc<Core>,
    recipe: Arc<Recipe>,
    slot: usize,
    generation: u64,
    input: NonNull<u8>,
    output: NonNull<u8>,
    _lease: Lease,
}

// SAFETY: any thread may use the memory. `backend::Slot` demands that no other code uses it at the same time.
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
        let job = InFlightJob::in_slot(&self.recipe, ticket, &self.core.completion);
        ticket.start();
        let piece = Piece::Part { job, first: 0, images };
        self.core.ring.submit(self.slot, self.generation, piece).map_err(|refused| match refused {
            Refused::Closed => Error::closed("the pipeline of this slot"),
            _ => Error::DeviceLost {
                device: self.core.id().to_string(),
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
