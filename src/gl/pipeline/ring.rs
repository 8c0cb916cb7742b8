//! The ring of slots decides which thread does what next. It touches no device and reads no clock. Each slot cycles:
//!
//! ```text
//!   free ─► prepare ─► fill ─► upload ─► compute ─► download ─► drain ─► free
//!             │                  ▲                                │
//!             └── or: lent to a caller, who fills it and submits ─┘ reads it there, and gives it back
//! ```
//!
//! Every transition happens under one lock. A slot is in one place at a time: with a thread that got it from
//! [`Ring::next`], with the copiers before `upload` or after `download`, lent to a caller, or in a queue here. So
//! nothing uses the memory of a free slot. A piece stays on record until its slot is freed. When the device is
//! lost, [`Ring::recover`] therefore finds all unfinished work; nothing is lost or done twice.
//!
//! `Condvar` and `Mutex` come from the parent module, so that a model checker can replace them.

use std::collections::VecDeque;

pub use super::tasks::{Refused, STAGES, Sleep, Source, Stage, Task};

use super::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, lock, wait};

/// While a shared slot is in flight, this many small works justify another. For fewer, a slot's own costs (three
/// submissions and their fences) exceed the work.
const MIN_BATCH_WORKS: usize = 64;

pub struct Ring<S: Source> {
    state: Mutex<State<S>>,
    /// Counts changes that may create a task. A thread that stays awake reads it without the lock: polling under
    /// the lock would delay the threads that change the ring and move its memory between caches.
    epoch: AtomicU64,
    /// Number of slots that wait for a kernel, readable without the lock.
    kernels: AtomicU64,
    /// Threads that wait for a task, by stage; `room`: those that wait for room in the queue, or for copiers.
    work: [Condvar; 3],
    room: Condvar,
}

struct State<S: Source> {
    /// Has capacity for `outstanding` works and one more per slot, so that requeuing cannot fail.
    waiting: VecDeque<S>,
    /// Works of the pieces on record, counted once per piece. They wait again if those cannot be computed.
    outstanding: usize,
    limit: usize,
    /// Submitters that wait for room. Without any, none is notified.
    waiting_for_room: usize,
    /// Sleeping threads, by stage.
    sleepers: [usize; 3],
    /// Slots whose piece several works share.
    shared: usize,
    free: VecDeque<usize>,
    /// Reserved slots, still to be prepared.
    reserved: VecDeque<usize>,
    slots: Vec<SlotState<S::Piece>>,
    /// Slots that wait for each stage.
    queues: [VecDeque<usize>; 3],
    /// Slots whose pieces need some preparation before they can be computed.
    expected: VecDeque<usize>,
    /// Slots with a piece on record.
    active: usize,
    /// Slots lent to callers, with nothing running in them.
    lent: usize,
    closed: bool,
    broken: bool,
    /// How often the device was given up. Slots lent in earlier generations are void.
    generation: u64,
}

/// The state of a slot.
#[derive(Clone)]
struct SlotState<P> {
    piece: Option<P>,
    /// BorrowedSlice to a caller. It stays with the caller when its piece is done.
    lent: bool,
    /// Copiers use its memory.
    copying: bool,
    /// Several works share its piece.
    shared: bool,
    /// Number of works in its piece, as counted in `outstanding`.
    works: usize,
}

impl<P> SlotState<P> {
    const FREE: Self = SlotState { piece: None, lent: false, copying: false, shared: false, works: 0 };
}

impl<S: Source> Ring<S> {
    /// A ring of `slots` free slots. Up to `limit` works may wait for them.
    pub fn new(slots: usize, limit: usize) -> Self {
        Ring {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                outstanding: 0,
                limit,
                waiting_for_room: 0,
                sleepers: [0; 3],
                shared: 0,
                free: (0..slots).collect(),
                reserved: VecDeque::new(),
                slots: vec![SlotState::FREE; slots],
                queues: Default::default(),
                expected: VecDeque::new(),
                active: 0,
                lent: 0,
                closed: false,
                broken: false,
                generation: 0,
            }),
            epoch: AtomicU64::new(0),
            kernels: AtomicU64::new(0),
            work: [Condvar::new(), Condvar::new(), Condvar::new()],
            room: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        lock(&self.state)
    }

    /// Like [`Ring::state`], for a change that may create a task.
    fn change(&self) -> MutexGuard<'_, State<S>> {
        let state = self.state();
        self.epoch.fetch_add(1, Ordering::Release);
        state
    }

    /// A number that changes whenever a task may have been created. A thread that reads it, and then gets no
    /// task, will get none until it changes.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Unlocks the ring and wakes the thread of `stage` if it sleeps. A needless wake costs a system call.
    fn wake(&self, state: MutexGuard<'_, State<S>>, stage: Stage) {
        let sleeps = state.sleepers[stage as usize] > 0;
        drop(state);
        if sleeps {
            self.work[stage as usize].notify_one();
        }
    }

    /// Unlocks the ring. If its only piece has just begun, wakes the threads of the later stages, which are next.
    fn wake_later_stages(&self, state: MutexGuard<'_, State<S>>) {
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

    /// Queues work. If the queue is full, waits for room if `wait_for_room`.
    pub fn push(&self, work: S, wait_for_room: bool) -> Result<(), (Refused, S)> {
        let mut state = self.state();
        while !state.closed && state.waiting.len() >= state.limit {
            if !wait_for_room {
                return Err((Refused::Full, work));
            }
            state.waiting_for_room += 1;
            state = wait(&self.room, state);
            state.waiting_for_room -= 1;
        }
        if state.closed {
            return Err((Refused::Closed, work));
        }
        let room = 1 + state.outstanding + state.slots.len();
        if state.waiting.try_reserve(room).is_err() {
            return Err((Refused::NoMemory, work));
        }
        state.waiting.push_back(work);
        self.epoch.fetch_add(1, Ordering::Release);
        // Without a free slot this work cannot begin, and freeing a slot wakes the thread. Waking costs more than
        // the rest of this function.
        if !state.holds_back() && !state.free.is_empty() {
            self.wake(state, Stage::Upload);
        }
        Ok(())
    }

    /// Reserves a free slot that no work waits for, without blocking. Both checks happen under one lock. If
    /// `is_ready` returns a slot's memory, made by the contexts of `generation`, lends that slot. Otherwise `piece`
    /// is prepared in a free slot next.
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

    /// The next task among `stages`, later stages first. Without one, sleeps as `sleep` says.
    pub fn next(&self, stages: &[Stage], sleep: Sleep) -> Option<Task<S::Piece>> {
        let (mut state, mut woken) = (self.state(), false);
        loop {
            if state.broken || (state.closed && state.active == 0 && state.waiting.is_empty()) {
                return Some(Task::End);
            }
            for stage in STAGES.into_iter().filter(|stage| stages.contains(stage)) {
                if let Some(slot) = state.queues[stage as usize].pop_front() {
                    self.count_kernels(&state);
                    let piece = state.slots[slot].piece.clone().expect("a queued slot has a piece");
                    match stage {
                        Stage::Upload => self.wake_later_stages(state),
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
                if state.waiting.len() < before && state.waiting_for_room > 0 {
                    self.room.notify_all();
                }
                if let Some((slot, piece)) = prepared {
                    self.wake_later_stages(state);
                    return Some(Task::Prepare(slot, piece));
                }
                if state.closed && state.is_quiet() {
                    // Only cancelled work was left.
                    self.wake_all();
                    continue;
                }
            }
            if woken || sleep == Sleep::Never || (sleep == Sleep::WhenIdle && state.active > 0) {
                return None;
            }
            let quiet = state.active == 0;
            state = self.sleep(state, sleeping_stage(stages));
            if quiet && state.active > 0 && sleep == Sleep::Always {
                woken = true;
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

    /// The piece in `slot`, which is being filled, needs preparation before it can be computed. The compute thread
    /// can start that now. It is not told after the compute task was issued.
    pub fn expect(&self, slot: usize, generation: u64) {
        let mut state = self.change();
        if state.generation == generation && !state.broken {
            state.expected.push_back(slot);
            self.wake(state, Stage::Compute);
        }
    }

    /// Copiers start to use the slot's memory and a job's buffers. `false` if the ring was broken first: the
    /// buffers may belong to their owner again.
    #[must_use]
    pub fn copying(&self, slot: usize) -> bool {
        let mut state = self.state();
        let goes_on = !state.broken;
        state.slots[slot].copying |= goes_on;
        goes_on
    }

    /// Copiers have filled the slot. `false` if the ring was broken meanwhile: the copy then does not count.
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

    /// Copiers have delivered the slot's output. Its piece is done, even if the ring was broken meanwhile.
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

    /// The piece of `slot` is done. The slot is free, or stays with its borrower. `false` if the ring was broken
    /// first: the piece is then still on record and will be recovered.
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

    /// The piece of `slot` cannot be computed as it is. Frees the slot and puts `works` at the front of the queue
    /// instead. Returns as [`Ring::done`] does.
    pub fn requeue(&self, slot: usize, generation: u64, works: impl DoubleEndedIterator<Item = S>) -> bool {
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

    /// Lends a prepared slot. Its piece is done; the slot stays with the caller.
    pub fn lend(&self, slot: usize, generation: u64) {
        let mut state = self.change();
        if state.generation == generation && !state.broken {
            state.slots[slot].lent = true;
        }
        drop(state);
        self.done(slot, generation);
    }

    /// The borrower submits the contents of a slot.
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

    /// The borrower returns a slot. If a piece is running in it, the slot becomes free when that ends.
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

    /// Wakes threads after a slot may have become free or all work may be done.
    fn after_release(&self, state: MutexGuard<'_, State<S>>) {
        if state.closed && state.is_quiet() {
            drop(state);
            self.wake_all();
        } else {
            self.wake(state, Stage::Upload);
        }
    }

    /// Closes the ring: passes work that has not begun to `cancel`. The rest ends normally.
    pub fn close(&self, mut cancel: impl FnMut(S)) {
        self.change().closed = true;
        let next = || {
            let mut state = self.change();
            // Work that has begun is at the front.
            let first = state.waiting.iter().position(|work| !work.has_begun())?;
            state.waiting.remove(first)
        };
        while let Some(work) = next() {
            cancel(work);
        }
        self.wake_all();
    }

    /// The device is unusable: all threads have to end. Returns whether this is the first call that says so.
    pub fn break_up(&self) -> bool {
        let first = !std::mem::replace(&mut self.change().broken, true);
        self.wake_all();
        first
    }

    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Waits until no copier uses any slot's memory.
    pub fn wait_for_copiers(&self) {
        let mut state = self.state();
        while state.slots.iter().any(|slot| slot.copying) {
            state = wait(&self.room, state);
        }
    }

    /// Restarts the ring with all slots free, after all threads have ended. `requeue` gets the unfinished pieces
    /// and the queue, which has room for their works. BorrowedSlice slots stay with their borrowers and are void.
    pub fn recover(&self, requeue: impl FnOnce(Vec<S::Piece>, &mut VecDeque<S>)) {
        let mut state = self.change();
        let slots = state.slots.len();
        let pieces = state.slots.iter_mut().filter_map(|slot| slot.piece.take()).collect();
        requeue(pieces, &mut state.waiting);
        state.slots = vec![SlotState::FREE; slots];
        state.free = (0..slots).collect();
        state.reserved.clear();
        state.queues = Default::default();
        self.count_kernels(&state);
        state.expected.clear();
        (state.active, state.lent, state.shared, state.outstanding, state.broken) = (0, 0, 0, 0, false);
        state.generation += 1;
        drop(state);
        self.wake_all();
    }

    pub fn pieces(&self) -> Vec<S::Piece> {
        self.state().slots.iter().filter_map(|slot| slot.piece.clone()).collect()
    }

    /// Takes all waiting work.
    pub fn take_waiting(&self) -> Vec<S> {
        let waiting = std::mem::take(&mut self.change().waiting);
        self.wake_all();
        waiting.into()
    }

    /// Frees the slots that were reserved but not prepared. Returns their pieces.
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

    /// Waits until there is work; `false` if the ring is closed and nothing is left to do.
    pub fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        while state.waiting.is_empty() && state.reserved.is_empty() && !state.closed {
            state = self.sleep(state, Stage::Upload);
        }
        !state.waiting.is_empty() || !state.reserved.is_empty()
    }

    pub fn has_kernels(&self) -> bool {
        self.kernels.load(Ordering::Relaxed) > 0
    }

    fn count_kernels(&self, state: &State<S>) {
        self.kernels.store(state.queues[Stage::Compute as usize].len() as u64, Ordering::Relaxed);
    }

    /// The current generation. Slots and pieces belong to one.
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Number of works that wait, and of slots in use.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state();
        (state.waiting.len(), state.active)
    }
}

/// The condition variable that the thread of `stages` waits on.
fn sleeping_stage(stages: &[Stage]) -> Stage {
    if stages.contains(&Stage::Upload) { Stage::Upload } else { stages[0] }
}

impl<S: Source> State<S> {
    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.active == 0
    }

    /// Takes the piece of `slot` off the record.
    fn finish(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.piece = None;
        self.shared -= usize::from(std::mem::take(&mut slot.shared));
        self.outstanding -= std::mem::take(&mut slot.works);
        self.active -= 1;
    }

    /// Whether small works wait for a shared slot to become free, or for more of their kind.
    fn holds_back(&self) -> bool {
        let full = self.waiting.len() >= MIN_BATCH_WORKS.min(self.limit) || self.waiting_for_room > 0;
        self.shared > 0 && !full && self.waiting.front().is_some_and(Source::shares)
    }

    /// Puts the next piece of the first work into a free slot.
    fn prepare(&mut self) -> Option<(usize, S::Piece)> {
        while !self.free.is_empty() && !self.holds_back() {
            let before = self.waiting.len();
            let first = self.waiting.front_mut()?;
            if self.closed && !first.has_begun() {
                // It is about to be cancelled.
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
                    self.outstanding += works;
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
