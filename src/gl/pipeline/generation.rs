//! One set of contexts and the threads that work in it, made anew after each fault.

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
    // Another library may end the display just then; and once more at the next try, but then it means it.
    new().or_else(|error| if is_terminated(&error) { new() } else { Err(error) })
}

/// Keeps threads at work while there is work: a new generation of them, with contexts of their own, after each fault.
pub fn supervise(
    core: &Arc<Core>,
    egl: &Arc<dyn Egl>,
    id: &Arc<str>,
    target: Target,
    first: Arc<ShareGroup>,
) {
    let (mut first, mut barren) = (Some(first), false);
    while core.ring.wait_for_work() {
        match first.take().map_or_else(|| new_group(egl, id, target), Ok) {
            Ok(group) => {
                Generation::start(core, &group).end(core);
                core.recover(&mut barren);
            }
            Err(error) => core.fail_waiting(&error),
        }
    }
    let inside = exit::enter();
    drop(first);
    if inside.is_ok() {
        egl.release_thread();
    }
}

/// Where the threads of a set of contexts wait for each other. At their beginning, until each has its context: a slot that is lent
/// before may be lost for want of one. And at their end: one that ends with an error deletes its fences, whose
/// names another may be about to give to `glWaitSync`; and of a deleted fence's name GL promises an error at best.
struct Meeting {
    /// Threads that have not come.
    left: Mutex<usize>,
    all: Condvar,
}

impl Meeting {
    fn of(threads: usize) -> Arc<Self> {
        Arc::new(Meeting { left: Mutex::new(threads), all: Condvar::new() })
    }
}

/// One thread's place in a [`Meeting`]; given up also if the thread never comes to it.
struct Place(Arc<Meeting>);

impl Place {
    /// The thread is there: waits until the others are.
    fn together(self) {
        let meeting = self.0.clone();
        drop(self);
        let mut left = lock(&meeting.left);
        while *left > 0 {
            left = wait(&meeting.all, left);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0.left) -= 1;
        self.0.all.notify_all();
    }
}

/// The threads of one set of contexts.
struct Generation {
    /// The one that owns the memory.
    keeper: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// Says, or ends, when the keeper has nothing left to do.
    served: Receiver<()>,
    /// Dropped when the keeper may give up the memory.
    gate: SyncSender<()>,
}

impl Generation {
    fn start(core: &Arc<Core>, group: &Arc<ShareGroup>) -> Self {
        let each = threads(core.contexts());
        let ((serves, served), (gate, opens)) = (sync_channel::<()>(1), sync_channel::<()>(0));
        let leases = core.leases();
        let (beginning, end) = (Meeting::of(each.len()), Meeting::of(each.len()));
        let leaving = Place(end.clone());
        let wait_at_gate = move || {
            leaving.together();
            let _ = serves.send(());
            drop(serves);
            let _ = opens.recv();
            leases.wait_for_none();
        };
        let keeper = spawn(core, group, each[0], Place(beginning.clone()), wait_at_gate);
        let other = |stages: &&'static [Stage]| {
            let leaving = Place(end.clone());
            spawn(core, group, stages, Place(beginning.clone()), move || leaving.together())
        };
        let others = each[1..].iter().filter_map(other).collect();
        Generation { keeper, others, served, gate }
    }

    /// Waits for their end, and for that of the copies that they have begun. A keeper of memory that callers hold goes on
    /// keeping it.
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
    arriving: Place,
    gate: impl FnOnce() + Send + 'static,
) -> Option<JoinHandle<()>> {
    let name = if let [stage] = stages { format!("{stage:?}").to_lowercase() } else { "stages".to_owned() };
    let (shared, group) = (core.clone(), group.clone());
    let body = move || stages::thread(&shared, group, stages, || arriving.together(), gate);
    let spawned = crate::thread::spawn(core.id(), &name, body);
    spawned.map_err(|error| core.give_up(error, true)).ok()
}
