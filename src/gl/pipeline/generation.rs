//! One set of contexts and its threads, replaced after each fault.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::core::{Core, threads};
use super::ring::Stage;
use super::stages;
use super::sync::{Condvar, Mutex, lock, wait};
use crate::error::{Error, Result};
use crate::gl::driver::context::{ShareGroup, Target, is_terminated};
use crate::gl::driver::egl::Egl;
use crate::gl::driver::exit;

pub fn new_group(egl: &Arc<dyn Egl>, id: &Arc<str>, target: Target) -> Result<Arc<ShareGroup>> {
    let _inside = exit::enter()?;
    let new = || ShareGroup::new(egl.clone(), id.clone(), target);
    // Another library may terminate the display at this very moment. A second time counts as an error.
    new().or_else(|error| if is_terminated(&error) { new() } else { Err(error) })
}

/// Runs generations of threads while there is work. After each fault a new generation starts, with contexts of its
/// own.
pub fn supervise(
    core: &Arc<Core>,
    egl: &Arc<dyn Egl>,
    id: &Arc<str>,
    target: Target,
    first: Arc<ShareGroup>,
) {
    let (mut first, mut no_context_before) = (Some(first), false);
    while core.ring.wait_for_work() {
        match first.take().map_or_else(|| new_group(egl, id, target), Ok) {
            Ok(group) => {
                Generation::start(core, &group).end(core);
                core.recover(&mut no_context_before);
            }
            Err(error) => core.fail_waiting(&error),
        }
    }
    let _inside = exit::enter();
    drop(first);
    exit::end_thread(|| egl.release_thread());
}

/// Lets the threads of one set of contexts wait for each other, twice. First until each has its context: a slot
/// that is lent earlier would be lost if a context could not be created. And again before they end: a thread that
/// ends with an error deletes its fences, and another thread may be about to pass their names to `glWaitSync`. GL
/// promises an error at best for a deleted name.
struct Barrier {
    /// Threads that have not arrived.
    left: Mutex<usize>,
    all: Condvar,
}

impl Barrier {
    fn of(threads: usize) -> Arc<Self> {
        Arc::new(Barrier { left: Mutex::new(threads), all: Condvar::new() })
    }
}

/// One thread's arrival at a [`Barrier`]. Dropping it counts as arriving, so a thread that fails blocks no other.
struct Arrival(Arc<Barrier>);

impl Arrival {
    /// Arrives, and waits until all threads have.
    fn wait(self) {
        let barrier = self.0.clone();
        drop(self);
        let mut left = lock(&barrier.left);
        while *left > 0 {
            left = wait(&barrier.all, left);
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        *lock(&self.0.left) -= 1;
        self.0.all.notify_all();
    }
}

/// The threads of one set of contexts.
struct Generation {
    /// The thread that owns the slots' memory.
    keeper: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// Receives a message, or is disconnected, when the keeper has no work left.
    served: Receiver<()>,
    /// Dropped when the keeper may free the memory.
    gate: SyncSender<()>,
}

impl Generation {
    fn start(core: &Arc<Core>, group: &Arc<ShareGroup>) -> Self {
        let each = threads(core.contexts());
        let ((serves, served), (gate, opens)) = (sync_channel::<()>(1), sync_channel::<()>(0));
        let leases = core.leases();
        let (beginning, end) = (Barrier::of(each.len()), Barrier::of(each.len()));
        let leaving = Arrival(end.clone());
        let wait_at_gate = move || {
            leaving.wait();
            let _ = serves.send(());
            drop(serves);
            let _ = opens.recv();
            leases.wait_for_none();
        };
        let keeper = spawn(core, group, each[0], Arrival(beginning.clone()), wait_at_gate);
        let other = |stages: &&'static [Stage]| {
            let leaving = Arrival(end.clone());
            spawn(core, group, stages, Arrival(beginning.clone()), move || leaving.wait())
        };
        let others = each[1..].iter().filter_map(other).collect();
        Generation { keeper, others, served, gate }
    }

    /// Waits until the threads have ended, and the copies that they started. While callers hold slots, the keeper
    /// keeps the memory and is not waited for.
    fn end(self, core: &Arc<Core>) {
        let Generation { keeper, others, served, gate } = self;
        for thread in others {
            if thread.join().is_err() {
                core.give_up(Error::Internal(format!("a thread of {} panicked", core.id())), false);
            }
        }
        let _ = served.recv();
        core.ring.wait_for_copiers();
        drop(gate);
        if !core.leases().any() {
            keeper.map(JoinHandle::join);
        }
    }
}

fn spawn(
    core: &Arc<Core>,
    group: &Arc<ShareGroup>,
    stages: &'static [Stage],
    arriving: Arrival,
    gate: impl FnOnce() + Send + 'static,
) -> Option<JoinHandle<()>> {
    let name = if let [stage] = stages { format!("{stage:?}").to_lowercase() } else { "stages".to_owned() };
    let (shared, group) = (core.clone(), group.clone());
    let body = move || stages::thread(&shared, group, stages, || arriving.wait(), gate);
    let spawned = crate::thread::spawn(core.id(), &name, body);
    spawned.map_err(|error| core.give_up(error, true)).ok()
}
