//! The ring of slots: who may do what next. No device is touched here, and no clock is read.
//!
//! A slot is one place on the device. It goes around:
//!
//! ```text
//!   free ─► prepare ─► fill ─► upload ─► compute ─► download ─► drain ─► free
//!             │                  ▲                                │
//!             └── or: lent to a caller, who fills it and submits ─┘ reads it there, and gives it back
//! ```
//!
//! Every transition happens under one lock. A slot is in one place at a time: whoever was given it by [`Ring::next`], the
//! copiers between `prepare` and `upload` and behind `download`, a caller who was lent it, or one of the queues here. That a slot is free
//! therefore means that nobody uses its memory. A piece of work stays on record until its slot is freed, so that when
//! the device is lost all unfinished work can be found ([`Ring::recover`]) and nothing is lost or done twice.
//!
//! `Condvar` and `Mutex` come from the parent module, so that a model checker can put its own in their place.

use std::collections::VecDeque;

use super::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, lock, wait};

/// The stages on the device, each in a context of its own, and the one before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Input to the device; the same thread also prepares slots.
    Upload,
    /// The kernels.
    Compute,
    /// Output to the host.
    Download,
}

impl Stage {
    /// The stage behind it.
    pub fn next(self) -> Option<Stage> {
        [Some(Stage::Compute), Some(Stage::Download), None][self as usize]
    }
}

/// All of them, last stage first: what is nearly done goes first.
pub const STAGES: [Stage; 3] = [Stage::Download, Stage::Compute, Stage::Upload];

/// Work that waits for slots.
pub trait Source {
    /// What goes into one slot.
    type Piece: Clone;
    /// The next piece, and whether it is the last. `None` if the work has been called off.
    fn cut(&mut self) -> Option<(Self::Piece, bool)>;
    /// Whether a piece was cut off it already.
    fn has_begun(&self) -> bool;
    /// Whether it is so little that it shares a slot with others of its kind, which are gathered while slots are at work.
    fn shares(&self) -> bool {
        false
    }
    /// Adds to `piece`, whose work shares, what of `waiting` goes with it.
    fn gather(piece: Self::Piece, _waiting: &mut VecDeque<Self>) -> Self::Piece
    where
        Self: Sized,
    {
        piece
    }
}

/// Works that are worth a slot of their own while others of their kind are under way: with fewer, what a slot costs by
/// itself, three commands and their fences, is more than they are.
const CROWDED: usize = 64;

/// What a thread is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<P> {
    /// Make the slot ready for this piece and have it filled.
    Prepare(usize, P),
    /// Get ready to compute this piece, which is on its way.
    Expect(usize, P),
    /// Give this stage's commands to the device.
    Issue(Stage, usize, P),
    /// Stop: the ring is closed and empty, or broken.
    End,
}

/// When a thread that finds no task waits for one, asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Never: it has something else to look after.
    Never,
    /// While no piece is on its way: else there soon will be a task, and to be woken for it takes longer than many a stage.
    WhenQuiet,
    /// Whenever there is none, until there is one, or the first piece is on its way.
    Always,
}

/// Why work was not taken; it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full.
    Full,
    /// The ring is closed.
    Closed,
    /// There is no memory for a longer queue.
    NoMemory,
    /// The slot's memory is that of contexts that are gone.
    Gone,
}

/// The ring.
pub struct Ring<S: Source> {
    state: Mutex<State<S>>,
    /// Counts changes that may mean a task for somebody, so that who stays awake need not lock the ring to hear that there was none:
    /// whoever has to change it would find it locked, and its memory in others' caches.
    news: AtomicU64,
    /// How many slots wait for a kernel, for those who only want to know that.
    kernels: AtomicU64,
    /// Whoever waits for a task, one for each stage; and for room in the queue, or for the ring to be quiet.
    work: [Condvar; 3],
    room: Condvar,
}

struct State<S: Source> {
    /// It has room for what is out, too, and for one more a slot: what comes back cannot fail.
    waiting: VecDeque<S>,
    /// Works whose last piece is on record in a slot, and which wait again if it cannot be computed.
    out: usize,
    limit: usize,
    /// Submitters that wait for room, so that nobody is woken for nothing.
    crowd: usize,
    /// Threads that wait for a task, by where they wait.
    sleepers: [usize; 3],
    /// Slots with a piece that works share.
    shared: usize,
    free: VecDeque<usize>,
    /// Slots that were reserved, to be prepared.
    reserved: VecDeque<usize>,
    slots: Vec<Place<S::Piece>>,
    /// Slots that wait for a stage.
    queues: [VecDeque<usize>; 3],
    /// Slots whose pieces take some preparation before they can be computed, and wait for no stage yet.
    expected: VecDeque<usize>,
    /// Slots with a piece on record.
    active: usize,
    /// Slots lent to callers, with nothing running in them.
    lent: usize,
    closed: bool,
    broken: bool,
    /// Times the device was given up: who was lent a slot before has nothing to give back.
    generation: u64,
}

/// Where a slot is.
#[derive(Clone)]
struct Place<P> {
    piece: Option<P>,
    /// It belongs to a caller, and goes back there when its piece is done.
    lent: bool,
    /// Copiers are at its memory.
    copying: bool,
    /// Several works share its piece.
    shared: bool,
    /// Works that its piece is of, as far as they are out.
    works: usize,
}

impl<P> Place<P> {
    /// Of a free slot.
    const FREE: Self = Place { piece: None, lent: false, copying: false, shared: false, works: 0 };
}

impl<S: Source> Ring<S> {
    /// A ring of `slots` free slots; `limit` works may wait for them.
    pub fn new(slots: usize, limit: usize) -> Self {
        Ring {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                out: 0,
                limit,
                crowd: 0,
                sleepers: [0; 3],
                shared: 0,
                free: (0..slots).collect(),
                reserved: VecDeque::new(),
                slots: vec![Place::FREE; slots],
                queues: Default::default(),
                expected: VecDeque::new(),
                active: 0,
                lent: 0,
                closed: false,
                broken: false,
                generation: 0,
            }),
            news: AtomicU64::new(0),
            kernels: AtomicU64::new(0),
            work: [Condvar::new(), Condvar::new(), Condvar::new()],
            room: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }

    /// As [`Ring::state`], for a change that others have to hear of.
    fn change(&self) -> MutexGuard<'_, State<S>> {
        let state = self.state();
        self.news.fetch_add(1, Ordering::Release);
        state
    }

    /// A number that is another one after any change that may mean a task. Who was given none after looking at it will be given
    /// none as long as it stays the same.
    pub fn news(&self) -> u64 {
        self.news.load(Ordering::Acquire)
    }

    /// Lets go of the ring and wakes who waits for a task of `stage`. Telling nobody would cost a system call, too.
    fn wake(&self, state: MutexGuard<'_, State<S>>, stage: Stage) {
        let sleeps = state.sleepers[stage as usize] > 0;
        drop(state);
        if sleeps {
            self.work[stage as usize].notify_one();
        }
    }

    /// Lets go of the ring and, if its only piece has just begun, wakes the threads of the stages behind the upload: it is theirs next.
    fn rouse(&self, state: MutexGuard<'_, State<S>>) {
        let sleep = [Stage::Compute, Stage::Download]
            .map(|stage| state.active == 1 && state.sleepers[stage as usize] > 0);
        drop(state);
        for (work, _) in self.work[1..].iter().zip(sleep).filter(|(_, sleep)| *sleep) {
            work.notify_one();
        }
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State<S>>, stage: Stage) -> MutexGuard<'a, State<S>> {
        state.sleepers[stage as usize] += 1;
        state = wait(&self.work[stage as usize], state);
        state.sleepers[stage as usize] -= 1;
        state
    }

    fn wake_all(&self) {
        self.work.iter().for_each(Condvar::notify_all);
        self.room.notify_all();
    }

    /// Queues work; waits for room if `patient`.
    pub fn push(&self, work: S, patient: bool) -> Result<(), (Refused, S)> {
        let mut state = self.state();
        while !state.closed && state.waiting.len() >= state.limit {
            if !patient {
                return Err((Refused::Full, work));
            }
            state.crowd += 1;
            state = wait(&self.room, state);
            state.crowd -= 1;
        }
        if state.closed {
            return Err((Refused::Closed, work));
        }
        let room = 1 + state.out + state.slots.len();
        if state.waiting.try_reserve(room).is_err() {
            return Err((Refused::NoMemory, work));
        }
        state.waiting.push_back(work);
        self.news.fetch_add(1, Ordering::Release);
        // Without a free slot nobody could begin with it; whoever frees one wakes the thread that does, and to wake one costs more
        // than all the rest here.
        if !state.holds() && !state.free.is_empty() {
            self.wake(state, Stage::Upload);
        }
        Ok(())
    }

    /// Reserves a free slot that nobody waits for, at once or not at all: whether there is one is seen under the lock that it is
    /// taken under. If `is_ready` has its memory, which the contexts of `generation` have made, the slot is lent. Else
    /// `piece` is prepared in it next.
    pub fn reserve<T>(
        &self,
        piece: S::Piece,
        generation: u64,
        is_ready: impl Fn(usize) -> Option<T>,
    ) -> Result<Option<(usize, T)>, Refused> {
        let mut state = self.change();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.broken || state.free.is_empty() || !state.waiting.is_empty() {
            return Err(Refused::Full);
        }
        if state.generation == generation {
            let ready =
                state.free.iter().enumerate().find_map(|(at, &slot)| Some((at, slot, is_ready(slot)?)));
            if let Some((at, slot, memory)) = ready {
                state.free.remove(at);
                state.slots[slot].lent = true;
                state.lent += 1;
                return Ok(Some((slot, memory)));
            }
        }
        let slot = state.free.pop_front().expect("not empty");
        state.slots[slot].piece = Some(piece);
        state.active += 1;
        state.reserved.push_back(slot);
        self.wake(state, Stage::Upload);
        Ok(None)
    }

    /// The next task among `stages`; waits for one as `rest` says. Tasks of the last stages come first.
    pub fn next(&self, stages: &[Stage], rest: Rest) -> Option<Task<S::Piece>> {
        let (mut state, mut roused) = (self.state(), false);
        loop {
            if state.broken || (state.closed && state.active == 0 && state.waiting.is_empty()) {
                return Some(Task::End);
            }
            for stage in STAGES.into_iter().filter(|stage| stages.contains(stage)) {
                if let Some(slot) = state.queues[stage as usize].pop_front() {
                    self.count_kernels(&state);
                    let piece = state.slots[slot].piece.clone().expect("a queued slot has a piece");
                    match stage {
                        Stage::Upload => self.rouse(state),
                        Stage::Compute => state.expected.retain(|&it| it != slot),
                        Stage::Download => {}
                    }
                    return Some(Task::Issue(stage, slot, piece));
                }
            }
            if stages.contains(&Stage::Compute)
                && let Some(slot) = state.expected.pop_front()
                && let Some(piece) = state.slots[slot].piece.clone()
            {
                return Some(Task::Expect(slot, piece));
            }
            if stages.contains(&Stage::Upload) {
                if let Some(slot) = state.reserved.pop_front() {
                    let piece = state.slots[slot].piece.clone().expect("a reserved slot has a piece");
                    return Some(Task::Prepare(slot, piece));
                }
                let before = state.waiting.len();
                let prepared = state.prepare();
                if state.waiting.len() < before && state.crowd > 0 {
                    self.room.notify_all();
                }
                if let Some((slot, piece)) = prepared {
                    self.rouse(state);
                    return Some(Task::Prepare(slot, piece));
                }
                if state.closed && state.is_quiet() {
                    // What was called off was all there was.
                    self.wake_all();
                    continue;
                }
            }
            if roused || rest == Rest::Never || (rest == Rest::WhenQuiet && state.active > 0) {
                return None;
            }
            let quiet = state.active == 0;
            state = self.sleep(state, station(stages));
            if quiet && state.active > 0 && rest == Rest::Always {
                roused = true;
            }
        }
    }

    /// Slot `slot` is ready for `stage`.
    pub fn pass(&self, stage: Stage, slot: usize, generation: u64) {
        let mut state = self.change();
        if state.generation != generation || state.broken {
            return;
        }
        state.queues[stage as usize].push_back(slot);
        self.count_kernels(&state);
        self.wake(state, stage);
    }

    /// The piece in `slot`, which is being filled, takes some preparation before it can be computed: whoever computes it can begin with that
    /// now. Nobody is told any more once its computing was given out.
    pub fn expect(&self, slot: usize, generation: u64) {
        let mut state = self.change();
        if state.generation == generation && !state.broken {
            state.expected.push_back(slot);
            self.wake(state, Stage::Compute);
        }
    }

    /// Copiers begin at the slot's memory, and at a job's buffers. `false` if the ring was broken first: then the latter may be
    /// their owner's again.
    #[must_use]
    pub fn copying(&self, slot: usize) -> bool {
        let mut state = self.state();
        let goes_on = !state.broken;
        state.slots[slot].copying |= goes_on;
        goes_on
    }

    /// Copiers are done with it: their work counts if the ring has not been broken meanwhile, which this tells.
    pub fn copied(&self, slot: usize) -> bool {
        let mut state = self.change();
        state.slots[slot].copying = false;
        let counts = !state.broken;
        drop(state);
        if !counts {
            self.room.notify_all();
        }
        counts
    }

    /// Copiers have brought the slot's output to its place: its piece is done, also if the ring was broken meanwhile.
    pub fn delivered(&self, slot: usize) {
        let mut state = self.change();
        state.slots[slot].copying = false;
        state.finish(slot);
        if state.broken {
            drop(state);
            return self.room.notify_all();
        }
        state.free.push_back(slot);
        self.after_release(state);
    }

    /// The piece of `slot` is done: the slot is free again, or its borrower's. `false` if the ring was broken first: then the
    /// piece is still on record, and will be recovered.
    pub fn done(&self, slot: usize, generation: u64) -> bool {
        let mut state = self.change();
        if state.generation != generation || state.broken || state.slots[slot].piece.is_none() {
            return false;
        }
        state.finish(slot);
        if state.slots[slot].lent {
            state.lent += 1;
        } else {
            state.free.push_back(slot);
        }
        self.after_release(state);
        true
    }

    /// The piece of `slot` cannot be computed as it is: the slot is free again, and `works` are next, in its place. `false` as
    /// with [`Ring::done`].
    pub fn again(&self, slot: usize, generation: u64, works: impl DoubleEndedIterator<Item = S>) -> bool {
        let mut state = self.change();
        if state.generation != generation || state.broken || state.slots[slot].piece.is_none() {
            return false;
        }
        state.finish(slot);
        state.free.push_back(slot);
        works.rev().for_each(|work| state.waiting.push_front(work));
        self.after_release(state);
        true
    }

    /// Lends a slot that was prepared: its piece is done, the slot stays with the caller.
    pub fn lend(&self, slot: usize, generation: u64) {
        let mut state = self.change();
        if state.generation == generation && !state.broken {
            state.slots[slot].lent = true;
        }
        drop(state);
        self.done(slot, generation);
    }

    /// The borrower submits what it has filled.
    pub fn submit(&self, slot: usize, generation: u64, piece: S::Piece) -> Result<(), Refused> {
        let mut state = self.change();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.broken || state.generation != generation {
            return Err(Refused::Gone);
        }
        state.slots[slot].piece = Some(piece);
        state.active += 1;
        state.lent -= 1;
        state.queues[Stage::Upload as usize].push_back(slot);
        self.wake(state, Stage::Upload);
        Ok(())
    }

    /// The borrower gives a slot back in which nothing is running; or does so when what is running ends.
    pub fn give_back(&self, slot: usize, generation: u64) {
        let mut state = self.change();
        if state.generation != generation || state.broken {
            return;
        }
        state.slots[slot].lent = false;
        if state.slots[slot].piece.is_none() {
            state.lent -= 1;
            state.free.push_back(slot);
        }
        self.after_release(state);
    }

    /// A slot may be free, or all may be done.
    fn after_release(&self, state: MutexGuard<'_, State<S>>) {
        if state.closed && state.is_quiet() {
            drop(state);
            self.wake_all();
        } else {
            self.wake(state, Stage::Upload);
        }
    }

    /// Takes no more work. What has not begun goes to `call_off`, and will not begin; the rest ends normally.
    pub fn close(&self, mut call_off: impl FnMut(S)) {
        self.change().closed = true;
        let next = || {
            let mut state = self.change();
            // What has begun is in front.
            let first = state.waiting.iter().position(|work| !work.has_begun())?;
            state.waiting.remove(first)
        };
        while let Some(work) = next() {
            call_off(work);
        }
        self.wake_all();
    }

    /// The device is of no use any more: all threads are to end. Gives whether this is the first to say so.
    pub fn break_up(&self) -> bool {
        let first = !std::mem::replace(&mut self.change().broken, true);
        self.wake_all();
        first
    }

    /// Whether it is broken.
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Waits until no copier is at any slot's memory.
    pub fn wait_for_copiers(&self) {
        let mut state = self.state();
        while state.slots.iter().any(|place| place.copying) {
            state = wait(&self.room, state);
        }
    }

    /// After all threads have ended: starts anew with all slots free. `again` gets the pieces that were not done and the work that
    /// waits, which has room for the work that those pieces are of. Slots that are lent stay with their borrowers and lead nowhere.
    pub fn recover(&self, again: impl FnOnce(Vec<S::Piece>, &mut VecDeque<S>)) {
        let mut state = self.change();
        let slots = state.slots.len();
        let pieces = state.slots.iter_mut().filter_map(|place| place.piece.take()).collect();
        again(pieces, &mut state.waiting);
        state.slots = vec![Place::FREE; slots];
        state.free = (0..slots).collect();
        state.reserved.clear();
        state.queues = Default::default();
        self.count_kernels(&state);
        state.expected.clear();
        (state.active, state.lent, state.shared, state.out, state.broken) = (0, 0, 0, 0, false);
        state.generation += 1;
        drop(state);
        self.wake_all();
    }

    /// The pieces on record.
    pub fn pieces(&self) -> Vec<S::Piece> {
        self.state().slots.iter().filter_map(|place| place.piece.clone()).collect()
    }

    /// Takes out all work that waits.
    pub fn take_waiting(&self) -> Vec<S> {
        let waiting = std::mem::take(&mut self.change().waiting);
        self.wake_all();
        waiting.into()
    }

    /// Frees the slots that were reserved and not prepared yet; gives what they are for.
    pub fn take_reserved(&self) -> Vec<S::Piece> {
        let mut state = self.change();
        let reserved = std::mem::take(&mut state.reserved);
        let pieces = reserved.iter().filter_map(|&slot| state.slots[slot].piece.clone()).collect();
        for slot in reserved {
            state.finish(slot);
            state.free.push_back(slot);
        }
        self.after_release(state);
        pieces
    }

    /// Waits until there is work; `false` if the ring was closed instead and nothing is left to do.
    pub fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        while state.waiting.is_empty() && state.reserved.is_empty() && !state.closed {
            state = self.sleep(state, Stage::Upload);
        }
        !state.waiting.is_empty() || !state.reserved.is_empty()
    }

    /// Whether a slot waits for a kernel.
    pub fn has_kernels(&self) -> bool {
        self.kernels.load(Ordering::Relaxed) > 0
    }

    fn count_kernels(&self, state: &State<S>) {
        self.kernels.store(state.queues[Stage::Compute as usize].len() as u64, Ordering::Relaxed);
    }

    /// The present generation, which slots and pieces are given out under.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Works that wait, and slots at work.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state();
        (state.waiting.len(), state.active)
    }
}

/// Where the thread of `stages` waits.
fn station(stages: &[Stage]) -> Stage {
    if stages.contains(&Stage::Upload) { Stage::Upload } else { stages[0] }
}

impl<S: Source> State<S> {
    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.active == 0
    }

    /// The piece of `slot` is off the record.
    fn finish(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        place.piece = None;
        self.shared -= usize::from(std::mem::take(&mut place.shared));
        self.out -= std::mem::take(&mut place.works);
        self.active -= 1;
    }

    /// Whether what waits stays until a slot is free again that its like are in, or there is more of it.
    fn holds(&self) -> bool {
        let full = self.waiting.len() >= CROWDED.min(self.limit) || self.crowd > 0;
        self.shared > 0 && !full && self.waiting.front().is_some_and(Source::shares)
    }

    /// Gives a free slot to the next piece of the work in front.
    fn prepare(&mut self) -> Option<(usize, S::Piece)> {
        while !self.free.is_empty() && !self.holds() {
            let before = self.waiting.len();
            let first = self.waiting.front_mut()?;
            if self.closed && !first.has_begun() {
                // It is about to be called off.
                return None;
            }
            let shares = first.shares();
            match first.cut() {
                None => {
                    self.waiting.pop_front();
                }
                Some((piece, last)) => {
                    if last {
                        self.waiting.pop_front();
                    }
                    let piece = if shares { S::gather(piece, &mut self.waiting) } else { piece };
                    let slot = self.free.pop_front().expect("not empty");
                    let works = (before - self.waiting.len()).max(1);
                    self.slots[slot].works = works;
                    self.out += works;
                    self.slots[slot].shared = shares;
                    self.shared += usize::from(shares);
                    self.slots[slot].piece = Some(piece.clone());
                    self.active += 1;
                    return Some((slot, piece));
                }
            }
        }
        None
    }
}
