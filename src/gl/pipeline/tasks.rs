//! The words of the ring: stages and tasks, the work that waits for slots, and why work is refused.

use std::collections::VecDeque;

/// The stages on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Input to the device. The same thread also prepares slots.
    Upload,
    /// The kernels.
    Compute,
    /// Output to the host.
    Download,
}

impl Stage {
    /// The stage after it.
    pub fn next(self) -> Option<Stage> {
        [Some(Stage::Compute), Some(Stage::Download), None][self as usize]
    }
}

/// All stages, last first: pieces that are nearly done have priority.
pub const STAGES: [Stage; 3] = [Stage::Download, Stage::Compute, Stage::Upload];

/// Work that waits for slots.
pub trait Source {
    /// The contents of one slot.
    type Piece: Clone;
    /// The next piece, and whether it is the last. `None` if the work was cancelled.
    fn cut(&mut self) -> Option<(Self::Piece, bool)>;
    /// Whether a piece of it was cut already.
    fn has_begun(&self) -> bool;
    /// Whether it is so small that it shares a slot with others of its kind, which accumulate while slots are busy.
    fn shares(&self) -> bool {
        false
    }
    /// Adds to `piece`, whose work shares, the parts of `waiting` that go into the same slot.
    fn gather(piece: Self::Piece, _waiting: &mut VecDeque<Self>) -> Self::Piece
    where
        Self: Sized,
    {
        piece
    }
}

/// What a thread is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<P> {
    /// Make the slot ready for this piece and have it filled.
    Prepare(usize, P),
    /// Prepare to compute this piece, which is on its way.
    Expect(usize, P),
    /// Submit this stage's commands.
    Issue(Stage, usize, P),
    /// Stop: the ring is closed and empty, or broken.
    End,
}

/// When a thread without a task sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// Never: it has other things to do.
    Never,
    /// While no piece is in flight. Otherwise a task will come soon, and waking up takes longer than many a stage.
    WhenIdle,
    /// Always, until there is a task or the first piece is in flight.
    Always,
}

/// Why work was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Full,
    Closed,
    /// There is no memory for a longer queue.
    NoMemory,
    /// The slot's memory belongs to contexts that are gone.
    Gone,
}
