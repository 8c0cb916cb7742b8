//! A defect of Mesa's, and how the reference interface lives with it: a context can forget which compute shader it runs.
//!
//! Where a driver cannot share compiled shaders between contexts (llvmpipe cannot), each context of a share group has its own. If
//! one context deletes a program, the others' shaders of it are put aside, and each context frees its own at its next flush.
//! Mesa (seen in 22.3; later sources read the same) then unbinds whatever shader the context has bound, behind the back
//! of its state cache (`free_zombie_shaders` in `st_context.c`). The cache takes the shader for bound, and the next dispatch of
//! the same program runs none: llvmpipe follows a null pointer.
//!
//! Only this interface has programs that several contexts know. So a thread that is not the only one to use it begins each call with
//! a flush, which frees what was put aside, and with a program that it makes and deletes: the deletion of a program of its own
//! is where Mesa binds anew. While a call runs nobody may delete programs, nor end a context, which deletes
//! them, too: that is what [`turn`] is for.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::exit;
use crate::gl::driver::resource::Program;

/// Contexts of the interface that are alive.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// Times that one came to others.
static ENCOUNTERS: AtomicU64 = AtomicU64::new(0);

/// One of the interface's contexts, as long as it lives.
pub struct Member {
    encounters: u64,
    came_to_others: bool,
}

impl Member {
    /// One more.
    pub fn new() -> Self {
        let came_to_others = ALIVE.fetch_add(1, Relaxed) > 0;
        if came_to_others {
            ENCOUNTERS.fetch_add(1, Relaxed);
        }
        Member { encounters: ENCOUNTERS.load(Relaxed), came_to_others }
    }

    /// Whether there ever was another beside it.
    fn had_company(&self) -> bool {
        self.came_to_others || self.encounters != ENCOUNTERS.load(Relaxed)
    }

    /// Sees to it that the next dispatch in `context`, this member's and current, binds its shader. Takes a [`turn`] for granted.
    ///
    /// # Errors
    /// What GL reports.
    pub fn remember(&self, context: &Rc<Context>) -> Result<()> {
        if !context.capabilities().forgets_shaders || !self.had_company() {
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

/// Held while a call dispatches, and while a context ends. Whoever holds it is inside the driver and waits for nobody else.
///
/// # Errors
/// As of [`exit::lock`].
pub fn turn() -> Result<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    exit::lock(&TURN)
}
