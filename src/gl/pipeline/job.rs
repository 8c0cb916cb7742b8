//! Jobs in flight: each is cut into pieces, reassembled, and ended once.
//!
//! An [`InFlightJob`] counts outstanding parts. Each piece has two: its data, and its time on the device. The job
//! ends when the last part arrives. After an error it ends when no thread uses the caller's memory any more. An
//! output that the caller can see is written last, when nothing can fail any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::completion::Completion;
use super::leases::Lease;
use super::sync::{Mutex, lock};
use crate::allocate;
use crate::backend::{BorrowedSlice, Job, Recipe, Run, Shares, Ticket};
use crate::error::{Error, Result};
use crate::problem::Conv2d;
use crate::report::Timing;

/// A job in flight, in its first or a later attempt.
pub struct InFlightJob {
    pub recipe: Arc<Recipe>,
    ticket: Ticket,
    origin: Origin,
    pub images_each: usize,
    /// How many jobs like it may share a slot; 0 if it runs alone.
    pub batch_limit: usize,
    /// How often the device was lost during this job.
    losses: u32,
    progress: Mutex<Progress>,
}

/// Where the state shared by all attempts is. The first attempt owns it; later ones hold a reference to the first.
enum Origin {
    Submitted(Submission),
    Resubmitted(Arc<InFlightJob>),
}

/// A job as submitted, shared by all its attempts. It is dropped with the last of them.
pub struct Submission {
    /// The caller's buffers; `None` if the data is in the slot.
    request: Option<Job>,
    /// The caller's weights, if the recipe has none.
    weights: Option<BorrowedSlice>,
    /// Whether part of an output that the caller can see was written. The output then has to be completed.
    touched: AtomicBool,
    /// Makes `flush` wait for this job.
    open: Lease,
    start: Instant,
}

impl Submission {
    /// The plan of a job with buffers.
    pub fn recipe(&self) -> Option<&Arc<Recipe>> {
        self.request.as_ref().map(|request| &request.recipe)
    }

    /// A job with buffers, or one whose data is in a slot (`request` is `None`).
    pub fn new(request: Option<Job>, weights: Option<BorrowedSlice>, completion: &Completion) -> Self {
        Submission {
            request,
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
    /// The device was given up while this job was on it.
    recovered: bool,
    /// The caller's own output is being written.
    delivers: bool,
    error: Option<Error>,
    /// Where the output is assembled, if not in the caller's buffer.
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
    /// The first attempt of a job with buffers, cut into pieces of `images_each` images. Up to `batch_limit` jobs
    /// may share a slot.
    pub fn new(submission: Submission, images_each: usize, batch_limit: usize) -> Arc<Self> {
        let request = submission.request.as_ref().expect("`in_slot` makes the jobs without buffers");
        let (recipe, ticket) = (request.recipe.clone(), request.ticket.clone());
        let (origin, progress) = (Origin::Submitted(submission), Mutex::default());
        Arc::new(InFlightJob { recipe, ticket, origin, images_each, batch_limit, losses: 0, progress })
    }

    /// The job of data that is in a slot.
    pub fn in_slot(recipe: &Arc<Recipe>, ticket: &Ticket, completion: &Completion) -> Arc<Self> {
        let job = InFlightJob {
            recipe: recipe.clone(),
            ticket: ticket.clone(),
            origin: Origin::Submitted(Submission::new(None, None, completion)),
            images_each: recipe.problem.sizes().n,
            batch_limit: 0,
            losses: 0,
            progress: Mutex::default(),
        };
        job.count_piece(true);
        Arc::new(job)
    }

    /// A new attempt of this job, in slots of its own. `lost`: the device was lost during this attempt.
    pub fn resubmit(self: &Arc<Self>, lost: bool) -> Arc<Self> {
        let first = if let Origin::Resubmitted(first) = &self.origin { first } else { self };
        Arc::new(InFlightJob {
            recipe: self.recipe.clone(),
            ticket: self.ticket.clone(),
            origin: Origin::Resubmitted(first.clone()),
            images_each: self.images_each,
            batch_limit: 0,
            losses: self.losses + u32::from(lost),
            progress: Mutex::default(),
        })
    }

    fn submission(&self) -> &Submission {
        match &self.origin {
            Origin::Submitted(submission) => submission,
            Origin::Resubmitted(first) => first.submission(),
        }
    }

    /// The caller's buffers; `None` if the data is in the slot.
    pub fn request(&self) -> Option<&Job> {
        self.submission().request.as_ref()
    }

    /// Whether it has weights of its own, which have to be uploaded first.
    pub fn brings_weights(&self) -> bool {
        self.submission().weights.is_some()
    }

    /// The weights.
    ///
    /// # Safety
    /// A piece of the job stays outstanding while the slice is in use.
    pub unsafe fn weights(&self) -> &[f32] {
        // SAFETY: weights are lent until the ticket is done. It is not done while a piece is outstanding.
        self.submission().weights.map_or(&self.recipe.weights, |lent| unsafe { lent.get() })
    }

    /// Starts its ticket; `false` if the job was cancelled before.
    pub fn begin(&self) -> bool {
        let begins = self.ticket.start();
        if !begins {
            self.submission().open.mark_cancelled();
        }
        begins
    }

    /// Counts a piece as outstanding; `false` if the job has failed meanwhile.
    pub fn count_piece(&self, last: bool) -> bool {
        let mut progress = lock(&self.progress);
        if progress.error.is_some() {
            return false;
        }
        progress.outstanding += 2;
        progress.all_cut = last;
        true
    }

    /// Allocates memory to assemble the output in, if the caller can see the output and it arrives in pieces.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn allocate_spill(&self) -> Result<()> {
        let problem = &self.recipe.problem;
        let is_seen = self
            .request()
            .is_some_and(|request| !request.output_is_private && request.partial_output_fallback.is_none());
        let comes_in_pieces = self.images_each < problem.sizes().n;
        if is_seen && comes_in_pieces && lock(&self.progress).spill.is_none() {
            let spill = allocate::zeroed(problem.output_len(), "an output that comes in pieces")?;
            lock(&self.progress).spill = Some(spill);
        }
        Ok(())
    }

    /// Where the output of the images from `first` on goes, of a job with buffers; `None` if the job has failed.
    /// Once the caller's own output is being written, later errors do not fail the job: its data is complete and
    /// right by then.
    pub fn destination(&self, first: usize) -> Option<*mut f32> {
        let request = self.request()?;
        let mut progress = lock(&self.progress);
        if progress.error.is_some() {
            return None;
        }
        let is_seen = progress.spill.is_none() && !request.output_is_private;
        let is_whole = self.images_each >= self.recipe.problem.sizes().n;
        progress.delivers = is_seen && is_whole;
        if is_seen && !is_whole {
            self.submission().touched.store(true, Ordering::Relaxed);
        }
        let output = progress.spill.as_mut().map_or(request.output, |spill| spill.as_mut_ptr());
        let image = self.recipe.problem.with_batch(1).output_len();
        // SAFETY: `first` is below the batch, so the result is inside the output, or inside the spill, which is as
        // long.
        Some(unsafe { output.add(first * image) })
    }

    /// The device has computed a piece. A job in a batch gets the time of the whole batch.
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

    /// Counts `parts` more parts as done. Ends the job after the last.
    pub fn part_done(self: &Arc<Self>, completion: &Arc<Completion>, parts: usize) {
        let mut progress = lock(&self.progress);
        if progress.recovered && parts > 0 {
            // Another attempt has replaced it, or it has ended. A copier may report a delivered piece only now.
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
            return self.finish_failed(completion, error);
        }
        let run = Run {
            device: completion.id.clone(),
            kernel: progress.kernel.clone().unwrap_or_else(|| "".into()),
            timing: Timing {
                kernel: progress.time,
                wall: self.submission().start.elapsed(),
                dispatches: progress.dispatches,
            },
            fallback: None,
            shares: Shares::default(),
        };
        drop(progress);
        match spill {
            None => self.finish(completion, Ok(run)),
            Some(spill) => self.deliver(completion, spill, run),
        }
    }

    /// Copies an output that was assembled elsewhere to the caller's buffer.
    fn deliver(self: &Arc<Self>, completion: &Arc<Completion>, spill: Vec<f32>, mut run: Run) {
        let (job, keeper) = (self.clone(), completion.clone());
        let request = self.request().expect("only jobs with buffers have a spill");
        let (from, to, bytes) = (spill.as_ptr().cast(), request.output.cast(), 4 * spill.len());
        let then = move || {
            drop(spill);
            run.timing.wall = job.submission().start.elapsed();
            job.finish(&keeper, Ok(run));
        };
        // SAFETY: `then` owns the spill. The output is the job's until the job is finished, which `then` does.
        unsafe { completion.copiers.copy(from, to, bytes, then) };
    }

    /// Records an error; the first one counts. The job ends when nothing of it is outstanding.
    pub fn fail(self: &Arc<Self>, completion: &Arc<Completion>, error: Error) {
        let mut progress = lock(&self.progress);
        if !progress.delivers {
            progress.error.get_or_insert(error);
        }
        drop(progress);
        self.part_done(completion, 0);
    }

    /// After an error: a fallback computes the job, or the job fails.
    fn finish_failed(self: &Arc<Self>, completion: &Arc<Completion>, error: Error) {
        let touched = self.submission().touched.load(Ordering::Relaxed);
        let helper = self.request().and_then(|request| {
            let fallback = request.fallback.as_ref().filter(|_| error.is_device_failure());
            let helper = fallback.or(request.partial_output_fallback.as_ref().filter(|_| touched))?;
            Some(helper.clone())
        });
        let Some(helper) = helper else { return self.finish(completion, Err(error)) };
        let (job, keeper) = (self.clone(), completion.clone());
        completion.copiers.run(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let request = job.request().expect("only jobs with buffers have fallbacks");
                let problem = &job.recipe.problem;
                // SAFETY: the buffers are the job's until it is finished. They are as long as the problem says. No
                // piece of the job is outstanding.
                let (input, output) = unsafe {
                    (
                        std::slice::from_raw_parts(request.input, problem.input_len()),
                        std::slice::from_raw_parts_mut(request.output, problem.output_len()),
                    )
                };
                helper(&error, input, output)
            }));
            let panicked = |_| Err(Error::Internal("the fallback for the device panicked".to_owned()));
            job.finish(&keeper, result.unwrap_or_else(panicked));
        });
    }

    fn finish(&self, completion: &Completion, result: Result<Run>) {
        completion.count(result.is_ok());
        self.ticket.finish(result);
    }

    /// Cancels it before it has begun.
    pub fn cancel(&self) {
        self.submission().open.mark_cancelled();
        self.ticket.cancel();
    }

    /// Ends it although pieces are outstanding whose threads cannot continue now. What they still do has no effect.
    /// No thread uses the job's buffers.
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

    /// Restarts or ends a job that had pieces on a device that was given up. No thread uses its buffers. Only the
    /// call for the first of several pieces has an effect. Returns the new attempt.
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
            (None, lost) if self.request().is_none() => Some(lost.cloned().unwrap_or_else(gone)),
            _ => None,
        };
        drop(progress);
        match error {
            None => Some(self.resubmit(lost.is_some())),
            Some(error) => {
                self.fail(completion, error);
                None
            }
        }
    }

    /// Whether another attempt has replaced it, or it has ended, after the device was given up.
    pub fn is_recovered(&self) -> bool {
        lock(&self.progress).recovered
    }

    /// Whether `error` does not count, because the job restarts.
    pub fn survives(&self, error: &Error) -> bool {
        matches!(error, Error::DeviceLost { .. }) && self.losses == 0 && self.request().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gl::pipeline::copiers::Copiers;
    use crate::problem::Conv2dDesc;
    use crate::report::{Recorder, Source};

    /// A copier frees its slot before it reports the piece. If the device is given up in between, the report comes after
    /// the job was recovered for its other piece.
    #[test]
    fn a_piece_reported_after_the_recovery_counts_no_more() {
        let completion = Arc::new(Completion {
            id: "test".into(),
            copiers: Copiers::alone().unwrap(),
            recorder: Mutex::new(Recorder::new(false)),
            open: Arc::default(),
            source: Source::Nobody,
            started: Instant::now(),
        });
        let problem = Conv2d::new(Conv2dDesc { n: 2, ..Default::default() }).unwrap();
        let recipe = Arc::new(Recipe { problem, weights: vec![1.0], bias: None, choice: Box::new(()) });
        let (input, mut output, ticket) = ([1.0; 2], [0.0; 2], Ticket::new());
        let request = Job {
            ticket: ticket.clone(),
            recipe,
            input: input.as_ptr(),
            output: output.as_mut_ptr(),
            output_is_private: false,
            owner: None,
            fallback: None,
            partial_output_fallback: None,
        };
        let job = InFlightJob::new(Submission::new(Some(request), None, &completion), 1, 0);
        assert!(job.begin() && job.count_piece(false) && job.count_piece(true));
        job.part_done(&completion, 3);
        let next = job.recover(&completion, None).expect("the job starts again");
        job.part_done(&completion, 1);
        assert!(ticket.poll().is_none(), "one attempt ends the job");
        assert!(next.count_piece(false) && next.count_piece(true));
        next.part_done(&completion, 4);
        assert!(ticket.poll().unwrap().is_ok() && completion.open.any());
        drop((job, next));
        assert!(!completion.open.any());
    }
}
