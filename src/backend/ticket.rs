//! Tickets: handles of submitted jobs.
//!
//! ```text
//!   waiting ──start──► running ──finish──► done: a Run, or the job's error
//!      └──────cancel──────────────────────► done: Error::Cancelled
//! ```
//!
//! A ticket reaches `done` exactly once and stays there, even after its queue is gone.

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::run::Run;
use crate::error::{Error, Result};

/// Polling interval of a wait that could not register with all its tickets.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A submitted job. Cheap to clone; all clones refer to the same job.
#[derive(Clone)]
pub struct Ticket(Arc<TicketInner<dyn Any + Send + Sync>>);

struct TicketInner<T: ?Sized> {
    state: Mutex<TicketState>,
    done: Condvar,
    process: u32,
    /// Lives as long as the ticket, and so as long as the job, which holds a clone. It may be the job's buffers.
    payload: T,
}

struct TicketState {
    stage: TicketStage,
    /// Number of waiting threads; without one, `done` is not notified, which saves a system call.
    waiting: usize,
    /// Waits for any of several tickets.
    listeners: Vec<Arc<Signal>>,
    /// Sees the result before the job is done.
    observer: Option<Observer>,
}

/// What [`Ticket::when_done`] keeps.
type Observer = Box<dyn FnOnce(&Result<Run>) + Send>;

impl TicketState {
    /// Registers `signal`, to be set when the job is done. Registering it again has no effect. Returns `false` if there
    /// is no memory for it.
    fn listen(&mut self, signal: &Arc<Signal>) -> bool {
        if self.listeners.iter().any(|other| Arc::ptr_eq(other, signal)) {
            return true;
        }
        let has_room = self.listeners.try_reserve(1).is_ok();
        if has_room {
            self.listeners.push(signal.clone());
        }
        has_room
    }
}

enum TicketStage {
    Waiting,
    Running,
    Done(Result<Run>),
}

/// Set when one of several tickets is done.
#[derive(Default)]
struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Ticket {
    /// A ticket of a job that has not started.
    pub(crate) fn new() -> Self {
        Self::with_payload(())
    }

    /// A ticket that owns `payload`, which lives until the last clone is dropped.
    pub(crate) fn with_payload<T: Any + Send + Sync>(payload: T) -> Self {
        let state =
            TicketState { stage: TicketStage::Waiting, waiting: 0, listeners: vec![], observer: None };
        let (state, done, process) = (Mutex::new(state), Condvar::new(), crate::process::id());
        Ticket(Arc::new(TicketInner { state, done, process, payload }))
    }

    /// The payload, if it is a `T`.
    pub(crate) fn payload<T: Any>(&self) -> Option<&T> {
        self.0.payload.downcast_ref()
    }

    fn state(&self) -> MutexGuard<'_, TicketState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a ticket from before a fork: no thread of this process runs the job, and the lock may be held for ever.
    fn check_process(&self) -> Result<()> {
        if self.0.process == crate::process::id() {
            return Ok(());
        }
        Err(Error::Forked { what: "the ticket of a job".to_owned() })
    }

    /// The job's result, or `None` if it is not done.
    pub fn poll(&self) -> Option<Result<Run>> {
        if let Err(forked) = self.check_process() {
            return Some(Err(forked));
        }
        match &self.state().stage {
            TicketStage::Done(result) => Some(result.clone()),
            _ => None,
        }
    }

    /// Waits until the job is done.
    ///
    /// # Errors
    /// The job's error; [`Error::Cancelled`]; [`Error::Forked`] in a child process.
    pub fn wait(&self) -> Result<Run> {
        self.wait_for(Duration::MAX)
            .unwrap_or_else(|| Err(Error::Internal("a wait without a limit timed out".into())))
    }

    /// Waits until the job is done, but at most for `limit`; `None` if it is not done by then.
    pub fn wait_for(&self, limit: Duration) -> Option<Result<Run>> {
        if let Err(forked) = self.check_process() {
            return Some(Err(forked));
        }
        let deadline = Instant::now().checked_add(limit);
        let mut state = self.state();
        loop {
            if let TicketStage::Done(result) = &state.stage {
                return Some(result.clone());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            state.waiting += 1;
            state = match left {
                None => self.0.done.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.0.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.waiting -= 1;
        }
    }

    /// Waits until one of `tickets` is done, but at most for `limit`. Returns the index of the first that is done;
    /// `None` after a timeout or if `tickets` is empty.
    pub fn wait_any(tickets: &[&Ticket], limit: Duration) -> Option<usize> {
        let first_done = || tickets.iter().position(|ticket| ticket.poll().is_some());
        if let Some(index) = first_done() {
            return Some(index);
        }
        if tickets.is_empty() {
            return None;
        }
        let signal = Arc::new(Signal::default());
        let listened =
            tickets.iter().filter(|ticket| ticket.state().listen(&signal)).count() == tickets.len();
        let deadline = Instant::now().checked_add(limit);
        // A ticket may have been done before the signal was registered.
        let mut found = first_done();
        while found.is_none() {
            let left = deadline.map_or(Duration::MAX, |it| it.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            signal.wait(if listened { left } else { left.min(POLL_INTERVAL) });
            found = first_done();
        }
        for ticket in tickets {
            ticket.state().listeners.retain(|other| !Arc::ptr_eq(other, &signal));
        }
        found
    }

    /// Cancels the job if it has not started. It is then done with [`Error::Cancelled`], and its buffers are no longer
    /// used. Returns whether it was cancelled.
    pub fn cancel(&self) -> bool {
        self.check_process().is_ok()
            && self.end(Err(Error::Cancelled), |stage| matches!(stage, TicketStage::Waiting))
    }

    /// Calls `observer` with the result, on the thread that ends the job, before anybody learns that it is done. It must
    /// not wait for this ticket. It replaces an earlier observer.
    pub(crate) fn when_done(&self, observer: impl FnOnce(&Result<Run>) + Send + 'static) {
        self.state().observer = Some(Box::new(observer));
    }

    /// Marks the job as started; called by the engine. Returns `false` if the job was cancelled: its buffers must then
    /// not be used.
    pub(crate) fn start(&self) -> bool {
        let mut state = self.state();
        let starts = matches!(state.stage, TicketStage::Waiting);
        if starts {
            state.stage = TicketStage::Running;
        }
        starts
    }

    /// Sets the job's result; called by the engine. A ticket that is done does not change.
    pub(crate) fn finish(&self, result: Result<Run>) {
        self.end(result, |stage| !matches!(stage, TicketStage::Done(_)));
    }

    fn end(&self, result: Result<Run>, from: impl FnOnce(&TicketStage) -> bool) -> bool {
        let mut state = self.state();
        if !from(&state.stage) {
            return false;
        }
        if let Some(observer) = state.observer.take() {
            // Nobody else may end the job meanwhile: a cancellation needs one that waits.
            state.stage = TicketStage::Running;
            drop(state);
            observer(&result);
            state = self.state();
            if matches!(state.stage, TicketStage::Done(_)) {
                return false;
            }
        }
        state.stage = TicketStage::Done(result);
        let listeners = std::mem::take(&mut state.listeners);
        if state.waiting > 0 {
            self.0.done.notify_all();
        }
        drop(state);
        listeners.iter().for_each(|listener| listener.set());
        true
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Ticket({})", if self.poll().is_some() { "done" } else { "not done" })
    }
}

impl Signal {
    fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it is set, but at most for about `limit`, and clears it.
    fn wait(&self, limit: Duration) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if !*set {
            // A wait of centuries overflows the clocks of some systems.
            let limit = limit.min(Duration::from_secs(3600));
            set = self.changed.wait_timeout(set, limit).unwrap_or_else(PoisonError::into_inner).0;
        }
        *set = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run::new("d".into(), "k".into(), Default::default(), None)
    }

    #[test]
    fn a_ticket_is_done_once() {
        let ticket = Ticket::new();
        assert!(ticket.poll().is_none() && ticket.wait_for(Duration::from_millis(1)).is_none());
        assert!(ticket.start() && !ticket.start() && !ticket.cancel());
        ticket.finish(Ok(run()));
        ticket.finish(Err(Error::Cancelled));
        assert_eq!((ticket.poll(), ticket.wait()), (Some(Ok(run())), Ok(run())));
        assert!(!ticket.start() && !ticket.cancel());
    }

    #[test]
    fn a_job_is_cancelled_only_before_it_starts() {
        let ticket = Ticket::new();
        assert!(ticket.cancel() && !ticket.cancel());
        assert!(!ticket.start());
        ticket.finish(Ok(run()));
        assert_eq!(ticket.wait(), Err(Error::Cancelled));
    }

    #[test]
    fn wait_any_wakes_when_any_ticket_is_done() {
        let tickets: Vec<Ticket> = (0..8).map(|_| Ticket::new()).collect();
        let all: Vec<&Ticket> = tickets.iter().collect();
        assert_eq!(Ticket::wait_any(&[], Duration::MAX), None);
        // The same signal is registered only once.
        let signal = Arc::new(Signal::default());
        assert!((0..10).all(|_| tickets[0].state().listen(&signal)));
        assert_eq!(std::mem::take(&mut tickets[0].state().listeners).len(), 1);
        assert_eq!(Ticket::wait_any(&all, Duration::from_millis(1)), None);
        for index in [5, 2, 7] {
            let ticket = tickets[index].clone();
            let finisher = std::thread::spawn(move || ticket.finish(Ok(run())));
            let waiting: Vec<&Ticket> = all.iter().copied().filter(|it| it.poll().is_none()).collect();
            if !waiting.is_empty() {
                Ticket::wait_any(&all[index..=index], Duration::MAX).unwrap();
            }
            finisher.join().unwrap();
            assert_eq!(all[index].wait(), Ok(run()));
        }
        assert_eq!(Ticket::wait_any(&all, Duration::MAX), Some(2));
        assert!(tickets.iter().all(|ticket| ticket.state().listeners.is_empty()));
    }
}
