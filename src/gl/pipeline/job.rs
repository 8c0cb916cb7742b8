//! Jobs on their way: cut into pieces, put together again, ended once.
//!
//! A [`InFlightJob`] counts what is outstanding: two parts a piece, its data and its time on the device. It ends when the last part is
//! in, and after an error when nothing touches the caller's memory any more. An output that somebody may look at is
//! written last, when nothing can go wrong any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::completion::Completion;
use super::leases::Lease;
use super::sync::{Mutex, lock};
use crate::allocate;
use crate::backend::{BorrowedSlice, Job, Recipe, Run, Ticket};
use crate::error::{Error, Result};
use crate::problem::Conv2d;
use crate::report::Timing;

/// A job under way, for the first or the second time.
pub struct InFlightJob {
    pub recipe: Arc<Recipe>,
    ticket: Ticket,
    whose: Whose,
    pub images_each: usize,
    /// How many like it may share a slot; 0 if it flies alone.
    pub room: usize,
    /// Times the device was lost under it.
    losses: u32,
    progress: Mutex<Progress>,
}

/// Where what all flights of a job share is: with the first of them, to which the others hold on.
enum Whose {
    First(Sent),
    Again(Arc<InFlightJob>),
}

/// A job as it was sent, and what all its flights share. It goes when the last of them does.
pub struct Sent {
    /// The caller's buffers; `None` if the data is in the slot.
    job: Option<Job>,
    /// The caller's weights, if the recipe has none.
    weights: Option<BorrowedSlice>,
    /// Whether part of an output that somebody sees was written: then it has to be computed to its end.
    touched: AtomicBool,
    /// Keeps whoever flushes waiting.
    open: Lease,
    start: Instant,
}

impl Sent {
    /// The plan of a job with buffers.
    pub fn recipe(&self) -> Option<&Arc<Recipe>> {
        self.job.as_ref().map(|job| &job.recipe)
    }

    /// A job, or data that is in a slot.
    pub fn new(job: Option<Job>, weights: Option<BorrowedSlice>, completion: &Completion) -> Self {
        Sent {
            job,
            weights,
            touched: AtomicBool::new(false),
            open: completion.open.take(),
            start: Instant::now(),
        }
    }
}

#[derive(Default)]
struct Progress {
    outstanding: usize,
    all_cut: bool,
    ended: bool,
    /// It was on a device that was given up.
    recovered: bool,
    /// The caller's own output is being written.
    delivers: bool,
    error: Option<Error>,
    /// Where the output is put together, if not in its own place.
    spill: Option<Vec<f32>>,
    kernel: Option<Arc<str>>,
    time: Duration,
    dispatches: u32,
}

/// Bytes of the input and the output of `images` images.
pub fn bytes_of(problem: &Conv2d, images: usize) -> [usize; 2] {
    let part = problem.with_batch(images);
    [4 * part.input_len(), 4 * part.output_len()]
}

impl InFlightJob {
    /// The first flight of a job with buffers, `images_each` images a piece; `room` like it may share a slot.
    pub fn new(sent: Sent, images_each: usize, room: usize) -> Arc<Self> {
        let job = sent.job.as_ref().expect("data in slots has its own way");
        let (recipe, ticket) = (job.recipe.clone(), job.ticket.clone());
        let (whose, progress) = (Whose::First(sent), Mutex::default());
        Arc::new(InFlightJob { recipe, ticket, whose, images_each, room, losses: 0, progress })
    }

    /// The flight of data that is in a slot.
    pub fn in_slot(recipe: &Arc<Recipe>, ticket: &Ticket, completion: &Completion) -> Arc<Self> {
        let flight = InFlightJob {
            recipe: recipe.clone(),
            ticket: ticket.clone(),
            whose: Whose::First(Sent::new(None, None, completion)),
            images_each: recipe.problem.sizes().n,
            room: 0,
            losses: 0,
            progress: Mutex::default(),
        };
        flight.cut(true);
        Arc::new(flight)
    }

    /// The same job from the beginning: alone, and on a new device context if the device was `lost`.
    pub fn again(self: &Arc<Self>, lost: bool) -> Arc<Self> {
        let first = if let Whose::Again(first) = &self.whose { first } else { self };
        Arc::new(InFlightJob {
            recipe: self.recipe.clone(),
            ticket: self.ticket.clone(),
            whose: Whose::Again(first.clone()),
            images_each: self.images_each,
            room: 0,
            losses: self.losses + u32::from(lost),
            progress: Mutex::default(),
        })
    }

    fn sent(&self) -> &Sent {
        match &self.whose {
            Whose::First(sent) => sent,
            Whose::Again(first) => first.sent(),
        }
    }

    /// The caller's buffers; `None` if the data is in the slot.
    pub fn job(&self) -> Option<&Job> {
        self.sent().job.as_ref()
    }

    /// Whether its weights are its own, so that the device has to get them first.
    pub fn brings_weights(&self) -> bool {
        self.sent().weights.is_some()
    }

    /// The weights.
    ///
    /// # Safety
    /// A piece of it is outstanding for as long as they are looked at.
    pub unsafe fn weights(&self) -> &[f32] {
        // SAFETY: weights are lent until the ticket is done, which it is not while a piece is outstanding.
        self.sent().weights.map_or(&self.recipe.weights, |lent| unsafe { lent.get() })
    }

    /// Starts its ticket; `false` if the job was called off before.
    pub fn begin(&self) -> bool {
        let begins = self.ticket.start();
        if !begins {
            self.sent().open.cancelled();
        }
        begins
    }

    /// Counts a piece; `false` if the job has failed meanwhile.
    pub fn cut(&self, last: bool) -> bool {
        let mut progress = lock(&self.progress);
        if progress.error.is_some() {
            return false;
        }
        progress.outstanding += 2;
        progress.all_cut = last;
        true
    }

    /// Makes sure that an output that somebody sees, and that comes in pieces, can be put together elsewhere.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn make_room(&self) -> Result<()> {
        let problem = &self.recipe.problem;
        let is_seen =
            self.job().is_some_and(|job| !job.output_is_private && job.partial_output_fallback.is_none());
        let comes_in_pieces = self.images_each < problem.sizes().n;
        if is_seen && comes_in_pieces && lock(&self.progress).spill.is_none() {
            let spill = allocate::zeroed(problem.output_len(), "an output that comes in pieces")?;
            lock(&self.progress).spill = Some(spill);
        }
        Ok(())
    }

    /// Where the output of the images from `first` on goes, of a job with buffers; `None` if it has failed. Once the caller's own
    /// output is being written, nothing that comes later makes the job fail: its data is right and complete by then.
    pub fn destination(&self, first: usize) -> Option<*mut f32> {
        let job = self.job()?;
        let mut progress = lock(&self.progress);
        if progress.error.is_some() {
            return None;
        }
        let is_seen = progress.spill.is_none() && !job.output_is_private;
        let is_whole = self.images_each >= self.recipe.problem.sizes().n;
        progress.delivers = is_seen && is_whole;
        if is_seen && !is_whole {
            self.sent().touched.store(true, Ordering::Relaxed);
        }
        let output = progress.spill.as_mut().map_or(job.output, |spill| spill.as_mut_ptr());
        let image = self.recipe.problem.with_batch(1).output_len();
        // SAFETY: `first` is below the batch, so this is inside the output, or the spill, which is as long.
        Some(unsafe { output.add(first * image) })
    }

    /// The device has computed a piece. Of a job in a batch, the time is that of all of the batch.
    pub fn computed(
        self: &Arc<Self>,
        completion: &Arc<Completion>,
        time: Duration,
        dispatches: u32,
        kernel: &Arc<str>,
    ) {
        let mut progress = lock(&self.progress);
        progress.time += time;
        progress.dispatches += dispatches;
        progress.kernel.get_or_insert_with(|| kernel.clone());
        drop(progress);
        self.part_done(completion, 1);
    }

    /// `parts` more are in.
    pub fn part_done(self: &Arc<Self>, completion: &Arc<Completion>, parts: usize) {
        let mut progress = lock(&self.progress);
        if progress.recovered && parts > 0 {
            // It has given way to another, or ended: a copier may say only now that it has delivered a piece.
            return;
        }
        progress.outstanding -= parts;
        let over = progress.outstanding == 0 && (progress.all_cut || progress.error.is_some());
        if !over || std::mem::replace(&mut progress.ended, true) {
            return;
        }
        let (error, spill) = (progress.error.take(), progress.spill.take());
        if let Some(error) = error {
            progress.error = Some(error.clone());
            drop(progress);
            return self.fall_back(completion, error);
        }
        let run = Run {
            device: completion.id.clone(),
            kernel: progress.kernel.clone().unwrap_or_else(|| "".into()),
            timing: Timing {
                kernel: progress.time,
                wall: self.sent().start.elapsed(),
                dispatches: progress.dispatches,
            },
            fallback: None,
        };
        drop(progress);
        match spill {
            None => self.finish(completion, Ok(run)),
            Some(spill) => self.deliver(completion, spill, run),
        }
    }

    /// Copies an output that was put together elsewhere to its place.
    fn deliver(self: &Arc<Self>, completion: &Arc<Completion>, spill: Vec<f32>, mut run: Run) {
        let (flight, keeper) = (self.clone(), completion.clone());
        let job = self.job().expect("only jobs with buffers spill");
        let (from, to, bytes) = (spill.as_ptr().cast(), job.output.cast(), 4 * spill.len());
        let then = move || {
            drop(spill);
            run.timing.wall = flight.sent().start.elapsed();
            flight.finish(&keeper, Ok(run));
        };
        // SAFETY: the spill lives in `then`; the output is the job's until it is finished, which `then` does.
        unsafe { completion.copiers.copy(from, to, bytes, then) };
    }

    /// Notes an error; the first one counts. The flight ends when nothing of it is outstanding.
    pub fn fail(self: &Arc<Self>, completion: &Arc<Completion>, error: Error) {
        let mut progress = lock(&self.progress);
        if !progress.delivers {
            progress.error.get_or_insert(error);
        }
        drop(progress);
        self.part_done(completion, 0);
    }

    /// After an error: somebody else computes it, or it has failed.
    fn fall_back(self: &Arc<Self>, completion: &Arc<Completion>, error: Error) {
        let touched = self.sent().touched.load(Ordering::Relaxed);
        let helper = self.job().and_then(|job| {
            let fallback = job.fallback.as_ref().filter(|_| error.is_device_failure());
            let helper = fallback.or(job.partial_output_fallback.as_ref().filter(|_| touched))?;
            Some(helper.clone())
        });
        let Some(helper) = helper else { return self.finish(completion, Err(error)) };
        let (flight, keeper) = (self.clone(), completion.clone());
        completion.copiers.run(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let job = flight.job().expect("only jobs with buffers have helpers");
                let problem = &flight.recipe.problem;
                // SAFETY: the buffers are the job's until it is finished, are as long as the problem says, and no piece of it
                // is outstanding.
                let (input, output) = unsafe {
                    (
                        std::slice::from_raw_parts(job.input, problem.input_len()),
                        std::slice::from_raw_parts_mut(job.output, problem.output_len()),
                    )
                };
                helper(&error, input, output)
            }));
            let panicked = |_| Err(Error::Internal("the fallback for the device panicked".to_owned()));
            flight.finish(&keeper, result.unwrap_or_else(panicked));
        });
    }

    fn finish(&self, completion: &Completion, result: Result<Run>) {
        let mut recorder = lock(&completion.recorder);
        match &result {
            Ok(_) => recorder.stats_mut().completed += 1,
            Err(_) => recorder.stats_mut().failed += 1,
        }
        drop(recorder);
        self.ticket.finish(result);
    }

    /// Calls it off before it has begun.
    pub fn cancel(&self) {
        self.sent().open.cancelled();
        self.ticket.cancel();
    }

    /// Ends it although pieces of it are outstanding, whose threads cannot go on now. What these still do has no effect; nobody is at its
    /// buffers.
    pub fn abandon(&self, completion: &Completion, error: Error) {
        let mut progress = lock(&self.progress);
        progress.recovered = true;
        progress.error.get_or_insert(error.clone());
        let ended = std::mem::replace(&mut progress.ended, true);
        drop(progress);
        if !ended {
            self.finish(completion, Err(error));
        }
    }

    /// After the device was given up while this had pieces on it, and nobody is at its buffers: it flies again, or ends. Of several
    /// pieces, that is done for the first.
    pub fn recover(
        self: &Arc<Self>,
        completion: &Arc<Completion>,
        lost: Option<&Error>,
    ) -> Option<Arc<Self>> {
        let mut progress = lock(&self.progress);
        if std::mem::replace(&mut progress.recovered, true) {
            return None;
        }
        progress.outstanding = 0;
        let gone = || Error::DeviceLost {
            device: completion.id.to_string(),
            what: "the slot's memory went with it".to_owned(),
        };
        let error = match (&progress.error, lost) {
            (Some(error), _) => Some(error.clone()),
            (None, Some(lost)) if self.losses > 0 => Some(lost.clone()),
            (None, lost) if self.job().is_none() => Some(lost.cloned().unwrap_or_else(gone)),
            _ => None,
        };
        drop(progress);
        match error {
            None => Some(self.again(lost.is_some())),
            Some(error) => {
                self.fail(completion, error);
                None
            }
        }
    }

    /// Whether it has given way to another, or ended, after the device was given up.
    pub fn is_over(&self) -> bool {
        lock(&self.progress).recovered
    }

    /// Whether an error that befell it is to be forgotten, since it flies again.
    pub fn survives(&self, error: &Error) -> bool {
        matches!(error, Error::DeviceLost { .. }) && self.losses == 0 && self.job().is_some()
    }
}
