//! The shares of one call, computed at once.

use std::sync::{Arc, Mutex, PoisonError};

use super::crew::Task;
use super::learner::Split;
use super::parts::{Axis, Piece};
use super::{Member, Multi};
use crate::backend::{Run, Share, Shares};
use crate::cpu;
use crate::error::Result;
use crate::report::{Timing, trace};

/// Threads that drive a GPU during a call: one for each stage of a stream.
const STAGE_THREADS: usize = 3;

/// A share that was computed.
pub struct Done {
    /// The member that computed it; `None` for the CPU in place of all members.
    pub member: Option<usize>,
    /// Its first index and its length.
    pub range: (usize, usize),
    /// Seconds that were predicted.
    pub predicted: f64,
    /// Seconds that it took.
    pub measured: f64,
    pub run: Run,
}

/// A call whose shares were all computed.
pub struct Outcome {
    pub done: Vec<Done>,
    /// Why a member did not compute its share.
    pub fallback: Option<Arc<str>>,
}

/// Computes a piece on a member, or on the CPU in place of all members. Returns what it did, and the seconds that count
/// for the choice of shares.
pub trait Compute<P>: Sync {
    /// # Errors
    /// The device's failure.
    fn compute(&self, member: Option<usize>, piece: &mut P) -> Result<(Run, f64)>;
}

impl<P, F: Fn(Option<usize>, &mut P) -> Result<(Run, f64)> + Sync> Compute<P> for F {
    fn compute(&self, member: Option<usize>, piece: &mut P) -> Result<(Run, f64)> {
        self(member, piece)
    }
}

/// A piece for a member, and then its result.
struct Assigned<P> {
    member: usize,
    predicted: f64,
    piece: P,
    result: Option<Result<(Run, f64)>>,
}

impl Multi {
    /// Computes `whole`, cut by `split`. What a device fails to compute is divided by `divide` among those that are
    /// left; the CPU computes what is left of all.
    ///
    /// # Errors
    /// The first error that is no device's failure, or the CPU's failure. Other shares may have been written then.
    pub(super) fn together<P: Piece>(
        &self,
        whole: P,
        split: Split,
        divide: &dyn Fn(&[bool], usize) -> Option<Split>,
        compute: &dyn Compute<P>,
    ) -> Result<Outcome> {
        let mut available: Vec<bool> = vec![true; self.members.len()];
        let mut outcome = Outcome { done: vec![], fallback: None };
        let mut pending = vec![(whole, split)];
        while let Some((piece, split)) = pending.pop() {
            let mut assigned = assign(piece, &split);
            self.run_all(&mut assigned, compute);
            let mut left = vec![];
            let mut refused = None;
            for Assigned { member, predicted, piece, result } in assigned {
                let range = piece.range();
                match result.unwrap_or_else(|| Err(crate::Error::Internal("a share did not run".to_owned())))
                {
                    Ok((run, measured)) => {
                        self.members[member].stay();
                        let fallback = run.fallback.clone();
                        outcome.fallback = outcome.fallback.take().or(fallback);
                        outcome.done.push(Done { member: Some(member), range, predicted, measured, run });
                    }
                    Err(error) => match self.lost(&self.members[member], error) {
                        Ok(reason) => {
                            available[member] = false;
                            outcome.fallback.get_or_insert(reason);
                            left.push(piece);
                        }
                        Err(error) => drop(refused.get_or_insert(error)),
                    },
                }
            }
            if let Some(error) = refused {
                return Err(error);
            }
            for mut piece in left {
                match divide(&available, piece.units()) {
                    Some(split) => pending.push((piece, split)),
                    None => {
                        let (run, measured) =
                            traced("cpu", &mut piece, |piece| compute.compute(None, piece))?;
                        let range = piece.range();
                        outcome.done.push(Done { member: None, range, predicted: 0.0, measured, run });
                    }
                }
            }
        }
        outcome.done.sort_by_key(|done| done.range.0);
        Ok(outcome)
    }

    fn run_all<P: Piece>(&self, assigned: &mut [Assigned<P>], compute: &dyn Compute<P>) {
        let threads = self.cpu_threads(assigned.iter().map(|it| &self.members[it.member]));
        // The CPU computes on the calling thread, since its pool expects that.
        let own = assigned.iter().position(|it| &*self.members[it.member].id == "cpu").unwrap_or(0);
        let run = |assigned: &mut Assigned<P>| {
            let Assigned { member, piece, result, .. } = assigned;
            let id = &*self.members[*member].id;
            *result = Some(traced(id, piece, |piece| match id {
                "cpu" => cpu::with_threads(threads, || compute.compute(Some(*member), piece)),
                _ => compute.compute(Some(*member), piece),
            }));
        };
        let (mut mine, mut others) = (None, Vec::<Task>::with_capacity(assigned.len()));
        for (index, assigned) in assigned.iter_mut().enumerate() {
            match index == own {
                true => mine = Some(assigned),
                false => others.push(Box::new(move || run(assigned))),
            }
        }
        self.crew.run(others, || mine.into_iter().for_each(run));
    }

    /// The threads that are left for the CPU beside the threads that drive the other members at work.
    pub(super) fn cpu_threads<'a>(&self, at_work: impl Iterator<Item = &'a Member>) -> usize {
        let gpus = at_work.filter(|member| member.is_hardware_gpu).count();
        cpu::num_threads().saturating_sub(STAGE_THREADS * gpus).max(1)
    }

    /// The report of a call.
    pub(super) fn report(&self, axis: Axis, outcome: Outcome, wall: std::time::Duration) -> Run {
        let Outcome { done, fallback } = outcome;
        let mut timing = Timing { wall, ..Timing::default() };
        let mut kernels: Vec<Arc<str>> = vec![];
        for Done { run, .. } in &done {
            timing.kernel = timing.kernel.max(run.timing.kernel);
            timing.dispatches = timing.dispatches.saturating_add(run.timing.dispatches);
            if !kernels.contains(&run.kernel) {
                kernels.push(run.kernel.clone());
            }
        }
        let seconds = |seconds: f64| std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let share = |done: &Done| Share {
            device: done.run.device.clone(),
            dimension: axis.dimension,
            first: done.range.0,
            count: done.range.1,
            predicted: seconds(done.predicted),
            measured: seconds(done.measured),
        };
        let device = match done.as_slice() {
            [one] => one.run.device.clone(),
            _ => "multi".into(),
        };
        let kernel = match kernels.as_slice() {
            [one] => one.clone(),
            several => several.join(" + ").into(),
        };
        let shares = Shares::from(done.iter().map(share).collect::<Vec<_>>());
        Run { device, kernel, timing, fallback, shares }
    }
}

/// Computes `piece` on `device`, and adds that to the trace of the process.
fn traced<P: Piece, T>(device: &str, piece: &mut P, compute: impl FnOnce(&mut P) -> Result<T>) -> Result<T> {
    let Some(trace) = trace::of_process() else { return compute(piece) };
    let start = trace.now();
    let result = compute(piece);
    let ((first, count), name) = (piece.range(), if result.is_ok() { P::NAME } else { "failed" });
    let args = [("first", first as u64), ("count", count as u64), ("", 0)];
    trace.call(device, name, (start, trace.now()), args);
    result
}

/// Cuts `piece` by `split`.
fn assign<P: Piece>(piece: P, split: &Split) -> Vec<Assigned<P>> {
    let mut rest = Some(piece);
    let mut assigned = vec![];
    for (member, (&count, &predicted)) in split.counts.iter().zip(&split.seconds).enumerate() {
        if count == 0 {
            continue;
        }
        let Some(whole) = rest.take() else { break };
        let piece = if count >= whole.units() {
            whole
        } else {
            let (head, tail) = whole.cut(count);
            rest = Some(tail);
            head
        };
        assigned.push(Assigned { member, predicted, piece, result: None });
    }
    assigned
}

/// Puts the runs of a piece that was computed image by image together.
pub fn merged(first: Run, second: Run) -> Run {
    let timing = Timing {
        kernel: first.timing.kernel + second.timing.kernel,
        wall: first.timing.wall + second.timing.wall,
        dispatches: first.timing.dispatches.saturating_add(second.timing.dispatches),
    };
    Run { timing, fallback: first.fallback.or(second.fallback), ..second }
}

/// A lock that no panic closes.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
