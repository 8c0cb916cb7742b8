//! The workaround for a defect of Mesa's: a context can forget which compute shader it runs.
//!
//! If a driver cannot share compiled shaders between contexts (llvmpipe cannot), each context of a share group has
//! its own. When one context deletes a program, the others' shaders for it are set aside, and each context frees its
//! own at its next flush. Mesa (22.3, and later sources read the same) then unbinds whatever shader the context has
//! bound, without updating its state cache (`free_zombie_shaders` in `st_context.c`). The cache takes the shader for
//! bound, and the next dispatch of the same program runs none: llvmpipe follows a null pointer.
//!
//! Only the reference interface has programs that several contexts know. So if several threads use it, each call
//! begins with a flush, which frees what was set aside, and then makes and deletes a program of its own: deleting it
//! makes Mesa bind the shader anew. Nobody may delete programs while a call runs, nor end a context, which deletes
//! programs, too: [`turn`] is the lock that prevents it.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::exit;
use crate::gl::driver::resource::Program;

/// The interface's live contexts.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// How many contexts were made while others were alive.
static ENCOUNTERS: AtomicU64 = AtomicU64::new(0);

/// One of the interface's contexts, while it lives.
pub struct Member {
    encounters: u64,
    joined_others: bool,
}

impl Member {
    /// Registers a context.
    pub fn new() -> Self {
        let joined_others = ALIVE.fetch_add(1, Relaxed) > 0;
        if joined_others {
            ENCOUNTERS.fetch_add(1, Relaxed);
        }
        Member { encounters: ENCOUNTERS.load(Relaxed), joined_others }
    }

    /// Whether another context ever lived at the same time.
    fn was_shared(&self) -> bool {
        self.joined_others || self.encounters != ENCOUNTERS.load(Relaxed)
    }

    /// Ensures that the next dispatch binds its shader in `context`, which is this member's and current. Needs a
    /// [`turn`].
    ///
    /// # Errors
    /// What GL reports.
    pub fn remember(&self, context: &Rc<Context>) -> Result<()> {
        if !context.capabilities().forgets_shaders || !self.was_shared() {
            return Ok(());
        }
        context.api().flush();
        let text = "#version 430\nlayout(local_size_x = 1) in;\nvoid main() {}\n";
        Program::build(context, "nothing", text).map(drop)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Relaxed);
    }
}

/// The lock for dispatching and for ending a context. Its holder is inside the driver and waits for no other thread.
///
/// # Errors
/// As [`exit::lock`].
pub fn turn() -> Result<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    exit::lock(&TURN)
}
