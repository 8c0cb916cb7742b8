//! Jobs on their way: cut into pieces, put together again, ended once.
//!
//! A [`Flight`] counts what is outstanding: two parts a piece, its data and its time on the device. It ends when the last part is
//! in, and after an error when nothing touches the caller's memory any more. An output that somebody may look at is
//! written last, when nothing can go wrong any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Core;
use super::ring::Source;
use super::slot::{Lease, Reservation};
use super::sync::{Mutex, lock};
use crate::backend::{Job, Recipe, Run, Ticket};
use crate::error::{Error, Result};
use crate::report::Timing;

/// A job under way, for the first or the second time.
pub struct Flight {
    pub recipe: Arc<Recipe>,
    ticket: Ticket,
    /// The caller's buffers; `None` if the data is in the slot.
    pub job: Option<Arc<Job>>,
    images_each: usize,
    /// Times the device was lost under it.
    losses: u32,
    /// Whether its ticket has been started.
    begun: AtomicBool,
    /// Keeps whoever flushes waiting.
    open: Arc<Lease>,
    /// The pipeline's count of jobs that never began.
    cancelled: Arc<AtomicU64>,
    start: Instant,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    outstanding: usize,
    all_cut: bool,
    ended: bool,
    /// The caller's own output is being written.
    delivers: bool,
    error: Option<Error>,
    /// Where the output is put together, if not in its own place.
    spill: Option<Vec<f32>>,
    kernel: Option<Arc<str>>,
    time: Duration,
    dispatches: u32,
}

/// What goes into a slot.
#[derive(Clone)]
pub enum Piece {
    /// `images` images of a job, from `first` on.
    Part { flight: Arc<Flight>, first: usize, images: usize },
    /// Nothing yet: the slot is for a caller.
    Reserve(Arc<Reservation>),
}

/// What waits for slots.
pub enum Work {
    /// A job, of which the images from `next` on are still to be cut.
    Fly { flight: Arc<Flight>, next: usize },
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
            Work::Fly { flight, next } => {
                // A job begins once, also one that flies again.
                if !flight.begun.load(Ordering::Relaxed) {
                    if !flight.ticket.start() {
                        flight.cancelled.fetch_add(1, Ordering::Relaxed);
                        return None;
                    }
                    flight.begun.store(true, Ordering::Relaxed);
                }
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
            Work::Reserve(_) => false,
            Work::Fly { flight, .. } => flight.begun.load(Ordering::Relaxed),
        }
    }
}

impl Flight {
    /// A job's first flight.
    pub fn new(job: Job, images_each: usize, core: &Core) -> Arc<Self> {
        Arc::new(Flight {
            recipe: job.recipe.clone(),
            ticket: job.ticket.clone(),
            job: Some(Arc::new(job)),
            images_each,
            losses: 0,
            begun: AtomicBool::new(false),
            open: Arc::new(core.open.take()),
            cancelled: core.cancelled.clone(),
            start: Instant::now(),
            progress: Mutex::default(),
        })
    }

    /// The flight of data that is in a slot.
    pub fn in_slot(recipe: &Arc<Recipe>, ticket: &Ticket, core: &Core) -> Arc<Self> {
        let flight = Flight {
            recipe: recipe.clone(),
            ticket: ticket.clone(),
            job: None,
            images_each: recipe.problem.sizes().n,
            losses: 0,
            begun: AtomicBool::new(true),
            open: Arc::new(core.open.take()),
            cancelled: core.cancelled.clone(),
            start: Instant::now(),
            progress: Mutex::default(),
        };
        flight.cut(true);
        Arc::new(flight)
    }

    /// The same job from the beginning, on a new device context.
    fn again(&self, lost: bool) -> Arc<Self> {
        Arc::new(Flight {
            recipe: self.recipe.clone(),
            ticket: self.ticket.clone(),
            job: self.job.clone(),
            images_each: self.images_each,
            losses: self.losses + u32::from(lost),
            begun: AtomicBool::new(true),
            open: self.open.clone(),
            cancelled: self.cancelled.clone(),
            start: self.start,
            progress: Mutex::default(),
        })
    }

    /// Counts a piece; `false` if the job has failed meanwhile.
    fn cut(&self, last: bool) -> bool {
        let mut progress = lock(&self.progress);
        if progress.error.is_some() {
            return false;
        }
        let is_seen = self.job.as_ref().is_some_and(|job| !job.output_is_private);
        if is_seen && !last && progress.spill.is_none() {
            progress.spill = Some(vec![0.0; self.recipe.problem.output_len()]);
        }
        progress.outstanding += 2;
        progress.all_cut = last;
        true
    }

    /// Where the output of the images from `first` on goes, of a job with buffers; `None` if it has failed. Once the caller's own
    /// output is being written, nothing that comes later makes the job fail: its data is right and complete by then.
    pub fn destination(&self, first: usize) -> Option<*mut f32> {
        let job = self.job.as_ref()?;
        let mut progress = lock(&self.progress);
        if progress.error.is_some() {
            return None;
        }
        progress.delivers = progress.spill.is_none() && !job.output_is_private;
        let output = progress.spill.as_mut().map_or(job.output, |spill| spill.as_mut_ptr());
        let image = self.recipe.problem.with_batch(1).output_len();
        // SAFETY: `first` is below the batch, so this is inside the output, or the spill, which is as long.
        Some(unsafe { output.add(first * image) })
    }

    /// The device has computed a piece.
    pub fn computed(self: &Arc<Self>, core: &Arc<Core>, time: Duration, dispatches: u32, kernel: &str) {
        let mut progress = lock(&self.progress);
        progress.time += time;
        progress.dispatches += dispatches;
        progress.kernel.get_or_insert_with(|| kernel.into());
        drop(progress);
        self.part_done(core, 1);
    }

    /// `parts` more are in.
    pub fn part_done(self: &Arc<Self>, core: &Arc<Core>, parts: usize) {
        let mut progress = lock(&self.progress);
        progress.outstanding -= parts;
        let over = progress.outstanding == 0 && (progress.all_cut || progress.error.is_some());
        if !over || std::mem::replace(&mut progress.ended, true) {
            return;
        }
        let (error, spill) = (progress.error.take(), progress.spill.take());
        if let Some(error) = error {
            progress.error = Some(error.clone());
            drop(progress);
            return self.stand_in(core, error);
        }
        let run = Run {
            device: core.id.clone(),
            kernel: progress.kernel.clone().unwrap_or_else(|| "".into()),
            timing: Timing {
                kernel: progress.time,
                wall: self.start.elapsed(),
                dispatches: progress.dispatches,
            },
            fallback: None,
        };
        drop(progress);
        match spill {
            None => self.finish(core, Ok(run)),
            Some(spill) => self.deliver(core, spill, run),
        }
    }

    /// Copies an output that was put together elsewhere to its place.
    fn deliver(self: &Arc<Self>, core: &Arc<Core>, spill: Vec<f32>, mut run: Run) {
        let (flight, keeper) = (self.clone(), core.clone());
        let job = self.job.as_ref().expect("only jobs with buffers spill");
        let (from, to, bytes) = (spill.as_ptr().cast(), job.output.cast(), 4 * spill.len());
        let then = move || {
            drop(spill);
            run.timing.wall = flight.start.elapsed();
            flight.finish(&keeper, Ok(run));
        };
        // SAFETY: the spill lives in `then`; the output is the job's until it is finished, which `then` does.
        unsafe { core.copiers.copy(from, to, bytes, then) };
    }

    /// Notes an error; the first one counts. The flight ends when nothing of it is outstanding.
    pub fn fail(self: &Arc<Self>, core: &Arc<Core>, error: Error) {
        let mut progress = lock(&self.progress);
        if !progress.delivers {
            progress.error.get_or_insert(error);
        }
        drop(progress);
        self.part_done(core, 0);
    }

    /// After an error: somebody else computes it, or it has failed.
    fn stand_in(self: &Arc<Self>, core: &Arc<Core>, error: Error) {
        let job = self.job.clone().filter(|job| job.stand_in.is_some() && error.is_device_failure());
        let Some(job) = job else { return self.finish(core, Err(error)) };
        let (flight, keeper) = (self.clone(), core.clone());
        core.copiers.run(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let problem = &flight.recipe.problem;
                // SAFETY: the buffers are the job's until it is finished, are as long as the problem says, and no piece of it
                // is outstanding.
                let (input, output) = unsafe {
                    (
                        std::slice::from_raw_parts(job.input, problem.input_len()),
                        std::slice::from_raw_parts_mut(job.output, problem.output_len()),
                    )
                };
                (job.stand_in.as_ref().expect("there is one"))(&error, input, output)
            }));
            let panicked = |_| Err(Error::Internal("a stand-in for the device panicked".to_owned()));
            flight.finish(&keeper, result.unwrap_or_else(panicked));
        });
    }

    fn finish(&self, core: &Core, result: Result<Run>) {
        let mut recorder = lock(&core.recorder);
        match &result {
            Ok(_) => recorder.stats_mut().completed += 1,
            Err(_) => recorder.stats_mut().failed += 1,
        }
        drop(recorder);
        self.ticket.finish(result);
    }

    /// Calls it off before it has begun.
    pub fn cancel(&self) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
        self.ticket.cancel();
    }

    /// After the device was given up while this had pieces on it, and nobody is at its buffers: it flies again, or ends.
    pub fn recover(self: &Arc<Self>, core: &Arc<Core>, lost: Option<&Error>) -> Option<Arc<Self>> {
        let mut progress = lock(&self.progress);
        progress.outstanding = 0;
        let gone = || Error::DeviceLost {
            device: core.id.to_string(),
            what: "the slot's memory went with it".to_owned(),
        };
        let error = match (&progress.error, lost) {
            (Some(error), _) => Some(error.clone()),
            (None, Some(lost)) if self.losses > 0 => Some(lost.clone()),
            (None, lost) if self.job.is_none() => Some(lost.cloned().unwrap_or_else(gone)),
            _ => None,
        };
        drop(progress);
        match error {
            None => Some(self.again(lost.is_some())),
            Some(error) => {
                self.fail(core, error);
                None
            }
        }
    }

    /// Whether an error that befell it is to be forgotten, since it flies again.
    pub fn survives(&self, error: &Error) -> bool {
        matches!(error, Error::DeviceLost { .. }) && self.losses == 0 && self.job.is_some()
    }
}
