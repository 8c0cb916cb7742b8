//! What waits for slots, and what goes into one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Batch;
use super::completion::Completion;
use super::job::{InFlightJob, Sent, bytes_of};
use super::reservation::Reservation;
use super::ring::Source;
use crate::backend::{BorrowedSlice, Job, Recipe};

/// What goes into a slot.
#[derive(Clone)]
pub enum Piece {
    /// `images` images of a job, from `first` on.
    Part { flight: Arc<InFlightJob>, first: usize, images: usize },
    /// Small jobs together.
    Batch(Arc<Batch>),
    /// Nothing yet: the slot is for a caller.
    Reserve(Arc<Reservation>),
}

/// What waits for slots.
pub enum Work {
    /// A job that was submitted; `room` like it may share a slot. Whoever begins with it makes a flight of it: the thread that submits
    /// has other things to do, and nothing of what that takes in its caches.
    Sent { sent: Option<Sent>, images_each: usize, room: usize },
    /// A job, of which the images from `next` on are still to be cut.
    Fly { flight: Arc<InFlightJob>, next: usize },
    /// A caller who wants a slot.
    Reserve(Arc<Reservation>),
}

impl Source for Work {
    type Piece = Piece;

    fn cut(&mut self) -> Option<(Piece, bool)> {
        match self {
            Work::Reserve(reservation) => {
                reservation.is_open().then(|| (Piece::Reserve(reservation.clone()), true))
            }
            Work::Sent { .. } => {
                let flight = self.take_off()?;
                if !flight.begin() {
                    return None;
                }
                *self = Work::Fly { flight, next: 0 };
                self.cut()
            }
            Work::Fly { flight, next } => {
                let n = flight.recipe.problem.sizes().n;
                let (first, images) = (*next, flight.images_each.min(n - *next));
                *next += images;
                let last = *next == n;
                flight.cut(last).then(|| (Piece::Part { flight: flight.clone(), first, images }, last))
            }
        }
    }

    fn has_begun(&self) -> bool {
        match self {
            Work::Sent { .. } | Work::Reserve(_) => false,
            Work::Fly { .. } => true,
        }
    }

    fn shares(&self) -> bool {
        self.recipe_to_share().is_some()
    }

    fn gather(piece: Piece, waiting: &mut VecDeque<Self>) -> Piece {
        let Piece::Part { flight, .. } = piece else { return piece };
        let (recipe, room) = (flight.recipe.clone(), flight.room);
        let mut flights = vec![flight];
        let mut index = 0;
        while index < waiting.len() && flights.len() < room {
            let goes = waiting[index].recipe_to_share().is_some_and(|other| Arc::ptr_eq(other, &recipe));
            let work = if goes { waiting.remove(index) } else { None };
            match work.map(|mut work| work.cut()) {
                None => index += 1,
                Some(Some((Piece::Part { flight, .. }, _))) => flights.push(flight),
                // Called off meanwhile.
                Some(_) => {}
            }
        }
        Piece::Batch(Arc::new(Batch { recipe, flights }))
    }
}

impl Work {
    /// A job that was submitted.
    pub fn new(
        job: Job,
        weights: Option<BorrowedSlice>,
        images_each: usize,
        room: usize,
        completion: &Completion,
    ) -> Self {
        Work::Sent { sent: Some(Sent::new(Some(job), weights, completion)), images_each, room }
    }

    /// The flight of a job; the first of one that was only sent. None of a caller's wish for a slot.
    pub fn take_off(&mut self) -> Option<Arc<InFlightJob>> {
        match self {
            Work::Sent { sent, images_each, room } => {
                Some(InFlightJob::new(sent.take()?, *images_each, *room))
            }
            Work::Fly { flight, .. } => Some(flight.clone()),
            Work::Reserve(_) => None,
        }
    }

    /// The plan of a job that shares a slot.
    fn recipe_to_share(&self) -> Option<&Arc<Recipe>> {
        match self {
            Work::Sent { sent, room, .. } if *room > 0 => sent.as_ref()?.recipe(),
            Work::Fly { flight, .. } if flight.room > 0 => Some(&flight.recipe),
            _ => None,
        }
    }
}

impl Piece {
    /// Its job's weights.
    ///
    /// # Safety
    /// It is outstanding for as long as they are looked at.
    pub unsafe fn weights(&self) -> &[f32] {
        match self {
            // SAFETY: as promised.
            Piece::Part { flight, .. } => unsafe { flight.weights() },
            Piece::Batch(batch) => &batch.recipe.weights,
            Piece::Reserve(_) => &[],
        }
    }

    /// The jobs that it is of.
    pub fn flights(&self) -> &[Arc<InFlightJob>] {
        match self {
            Piece::Part { flight, .. } => std::slice::from_ref(flight),
            Piece::Batch(batch) => &batch.flights,
            Piece::Reserve(_) => &[],
        }
    }

    /// What of it goes through the device: the plan, bytes of input and output, and the number of images, or of jobs in a
    /// batch.
    pub fn load(&self) -> Option<(&Arc<Recipe>, [usize; 2], usize)> {
        match self {
            Piece::Part { flight, images, .. } => {
                Some((&flight.recipe, bytes_of(&flight.recipe.problem, *images), *images))
            }
            Piece::Batch(batch) => Some((&batch.recipe, batch.bytes(), batch.flights.len())),
            Piece::Reserve(_) => None,
        }
    }
}
