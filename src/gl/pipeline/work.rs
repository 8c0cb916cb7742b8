//! Work that waits for slots, and pieces of it that go into one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::Batch;
use super::completion::Completion;
use super::job::{InFlightJob, Submission, bytes_of};
use super::reservation::Reservation;
use super::ring::Source;
use crate::backend::{BorrowedSlice, Job, Recipe};

/// The contents of one slot.
#[derive(Clone)]
pub enum Piece {
    /// `images` images of a job, from image `first` on.
    Part { job: Arc<InFlightJob>, first: usize, images: usize },
    /// Several small jobs.
    Batch(Arc<Batch>),
    /// Nothing yet: the slot is for a caller.
    Reserve(Arc<Reservation>),
}

/// Work that waits for slots.
pub enum QueuedWork {
    /// A submitted job. Up to `batch_limit` jobs like it may share a slot. The upload thread turns it into an
    /// [`InFlightJob`]: that keeps `submit` short, since the memory involved is in the upload thread's cache and
    /// not in the caller's.
    Submitted { submission: Option<Submission>, images_each: usize, batch_limit: usize },
    /// A job whose images from `next` on have not been cut yet.
    InFlight { job: Arc<InFlightJob>, next: usize },
    /// A caller's request for a slot.
    Reserve(Arc<Reservation>),
}

impl Source for QueuedWork {
    type Piece = Piece;

    fn cut(&mut self) -> Option<(Piece, bool)> {
        match self {
            QueuedWork::Reserve(reservation) => {
                reservation.is_open().then(|| (Piece::Reserve(reservation.clone()), true))
            }
            QueuedWork::Submitted { .. } => {
                let job = self.take_job()?;
                if !job.begin() {
                    return None;
                }
                *self = QueuedWork::InFlight { job, next: 0 };
                self.cut()
            }
            QueuedWork::InFlight { job, next } => {
                let n = job.recipe.problem.sizes().n;
                let (first, images) = (*next, job.images_each.min(n - *next));
                *next += images;
                let last = *next == n;
                job.count_piece(last).then(|| (Piece::Part { job: job.clone(), first, images }, last))
            }
        }
    }

    fn has_begun(&self) -> bool {
        match self {
            QueuedWork::Submitted { .. } | QueuedWork::Reserve(_) => false,
            QueuedWork::InFlight { .. } => true,
        }
    }

    fn shares(&self) -> bool {
        self.recipe_to_share().is_some()
    }

    fn gather(piece: Piece, waiting: &mut VecDeque<Self>) -> Piece {
        let Piece::Part { job, .. } = piece else { return piece };
        let (recipe, batch_limit) = (job.recipe.clone(), job.batch_limit);
        let mut jobs = vec![job];
        let mut index = 0;
        while index < waiting.len() && jobs.len() < batch_limit {
            let goes = waiting[index].recipe_to_share().is_some_and(|other| Arc::ptr_eq(other, &recipe));
            let work = if goes { waiting.remove(index) } else { None };
            match work.map(|mut work| work.cut()) {
                None => index += 1,
                Some(Some((Piece::Part { job, .. }, _))) => jobs.push(job),
                // Cancelled meanwhile.
                Some(_) => {}
            }
        }
        Piece::Batch(Arc::new(Batch { recipe, jobs }))
    }
}

impl QueuedWork {
    /// A submitted job.
    pub fn new(
        job: Job,
        weights: Option<BorrowedSlice>,
        images_each: usize,
        batch_limit: usize,
        completion: &Completion,
    ) -> Self {
        QueuedWork::Submitted {
            submission: Some(Submission::new(Some(job), weights, completion)),
            images_each,
            batch_limit,
        }
    }

    /// The job in flight; its first attempt if it was only submitted. `None` for a request for a slot.
    pub fn take_job(&mut self) -> Option<Arc<InFlightJob>> {
        match self {
            QueuedWork::Submitted { submission, images_each, batch_limit } => {
                Some(InFlightJob::new(submission.take()?, *images_each, *batch_limit))
            }
            QueuedWork::InFlight { job, .. } => Some(job.clone()),
            QueuedWork::Reserve(_) => None,
        }
    }

    /// The plan of a job that may share a slot.
    fn recipe_to_share(&self) -> Option<&Arc<Recipe>> {
        match self {
            QueuedWork::Submitted { submission, batch_limit, .. } if *batch_limit > 0 => {
                submission.as_ref()?.recipe()
            }
            QueuedWork::InFlight { job, .. } if job.batch_limit > 0 => Some(&job.recipe),
            _ => None,
        }
    }
}

impl Piece {
    /// The weights of its job.
    ///
    /// # Safety
    /// The piece stays outstanding while the slice is in use.
    pub unsafe fn weights(&self) -> &[f32] {
        match self {
            // SAFETY: the caller promises that the piece stays outstanding.
            Piece::Part { job, .. } => unsafe { job.weights() },
            Piece::Batch(batch) => &batch.recipe.weights,
            Piece::Reserve(_) => &[],
        }
    }

    /// The jobs that it belongs to.
    pub fn jobs(&self) -> &[Arc<InFlightJob>] {
        match self {
            Piece::Part { job, .. } => std::slice::from_ref(job),
            Piece::Batch(batch) => &batch.jobs,
            Piece::Reserve(_) => &[],
        }
    }

    /// What goes through the device: the plan, bytes of input and output, and the number of images, or of jobs in a
    /// batch.
    pub fn load(&self) -> Option<(&Arc<Recipe>, [usize; 2], usize)> {
        match self {
            Piece::Part { job, images, .. } => {
                Some((&job.recipe, bytes_of(&job.recipe.problem, *images), *images))
            }
            Piece::Batch(batch) => Some((&batch.recipe, batch.bytes(), batch.jobs.len())),
            Piece::Reserve(_) => None,
        }
    }
}
