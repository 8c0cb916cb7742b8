//! Threads that copy between ordinary memory and the slots, several parts of one copy at once.
//!
//! One core moves a fifth of what the bus to a GPU takes; several together, more than it takes. Small copies are not worth waking
//! anybody: they are done on the spot. Threads stay awake a moment after a copy, since pieces come in rows and waking a core of a
//! virtual machine takes as long as copying some megabytes.

use std::collections::LinkedList;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::sync::{Condvar, Mutex, lock, wait};
use crate::gl::driver::exit::{self, Copying};
use crate::thread::is_current;

/// Copies up to this size are done by whoever asks.
const SMALL: usize = 64 << 10;
/// No part is smaller.
const PART: usize = 256 << 10;
/// More threads do not copy faster on any machine seen so far.
const MOST_THREADS: usize = 16;
/// Threads that one wakes.
const WAKES: usize = 3;
/// How long a thread without work stays awake.
const STAY_AWAKE: Duration = Duration::from_micros(50);

/// The threads. Dropping them ends what was asked for first.
pub struct Copiers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Tasks that nobody has taken, for those who are awake to see without the lock.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// What waits, piece by piece: however many there are, none asks for much memory at once.
    tasks: LinkedList<Task>,
    /// Threads that sleep.
    asleep: usize,
    closed: bool,
}

enum Task {
    Copy(Part),
    Run(Box<dyn FnOnce() + Send>),
}

struct Part {
    from: *const u8,
    to: *mut u8,
    bytes: usize,
    whole: Arc<Whole>,
    /// At exit a driver takes its mapped memory away.
    copying: Copying,
}

// SAFETY: who asks for a copy promises that the memory is there, for any thread, until it is over.
unsafe impl Send for Part {}

/// What the parts of one copy share.
struct Whole {
    left: AtomicUsize,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Copiers {
    /// Starts them: one a processor, but for `others`, which are threads that are busy while copies are made.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the system gives no thread.
    pub fn start(device: &str, others: usize) -> crate::Result<Self> {
        let shared = Arc::new(Shared::default());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = processors.min(MOST_THREADS).saturating_sub(others).max(1);
        let mut copiers = Copiers { shared, threads: vec![] };
        for _ in 0..count {
            let shared = copiers.shared.clone();
            copiers.threads.push(crate::thread::spawn(device, "copy", move || shared.serve())?);
        }
        Ok(copiers)
    }

    /// Copies `bytes` bytes, then runs `then` on some thread.
    ///
    /// # Safety
    /// Until `then` runs, `from` is valid for reads and `to` for writes of so many bytes, by any thread; they do not overlap, and
    /// nobody else writes to either or reads the latter.
    pub unsafe fn copy(
        &self,
        from: *const u8,
        to: *mut u8,
        bytes: usize,
        then: impl FnOnce() + Send + 'static,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { self.begin((from, to, bytes), then, LinkedList::push_back) };
    }

    /// As [`Copiers::copy`]; `put` puts each part among what waits.
    ///
    /// # Safety
    /// As there.
    unsafe fn begin(
        &self,
        (from, to, bytes): (*const u8, *mut u8, usize),
        then: impl FnOnce() + Send + 'static,
        put: fn(&mut LinkedList<Task>, Task),
    ) {
        if bytes <= SMALL {
            // SAFETY: as promised.
            unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
            return then();
        }
        let part = bytes.div_ceil(4 * self.threads.len()).max(PART).next_multiple_of(64);
        let parts = bytes.div_ceil(part);
        let then: Box<dyn FnOnce() + Send> = Box::new(then);
        let whole = Arc::new(Whole { left: AtomicUsize::new(parts), then: Mutex::new(Some(then)) });
        let mut state = lock(&self.shared.state);
        self.shared.waiting.fetch_add(parts, Ordering::Relaxed);
        for index in 0..parts {
            let offset = index * part;
            // SAFETY: within the memory that was promised.
            let (from, to) = unsafe { (from.add(offset), to.add(offset)) };
            let bytes = part.min(bytes - offset);
            put(
                &mut state.tasks,
                Task::Copy(Part { from, to, bytes, whole: whole.clone(), copying: Copying::begin() }),
            );
        }
        let sleepers = state.asleep.min(parts);
        drop(state);
        self.shared.wake(sleepers);
    }

    /// Copies `from` to `to` before all else that waits, and returns when that is done.
    ///
    /// # Safety
    /// `to` is valid for writes of as many bytes, by any thread; they do not overlap, and nobody else uses them meanwhile.
    pub unsafe fn copy_now(&self, from: &[u8], to: *mut u8) {
        let done = Arc::new(AtomicBool::new(false));
        let tell = done.clone();
        // SAFETY: both are there until this returns, which is not before `then` has run: it always does, since a copy cannot panic.
        unsafe {
            let then = move || tell.store(true, Ordering::Release);
            self.begin((from.as_ptr(), to, from.len()), then, LinkedList::push_front);
        }
        // Some hundred microseconds at most: to be put to sleep and woken would take as long.
        while !done.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    /// Runs `task` on one of the threads.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) {
        let mut state = lock(&self.shared.state);
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        state.tasks.push_back(Task::Run(Box::new(task)));
        drop(state);
        self.shared.work.notify_one();
    }
}

impl Drop for Copiers {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.work.notify_all();
        // The last to hold a pipeline may be a task of its own.
        self.threads.drain(..).filter(|it| !is_current(it)).for_each(|it| drop(exit::join(it)));
    }
}

impl Shared {
    fn serve(&self) {
        while let Some(task) = self.next() {
            match task {
                Task::Copy(part) => part.copy(),
                // Tasks report their panics themselves; this keeps the thread.
                Task::Run(task) => drop(catch_unwind(AssertUnwindSafe(task))),
            }
        }
    }

    /// Wakes some of so many threads that there is work for. They wake the others: one by one that takes a thread as long as to copy
    /// megabytes.
    fn wake(&self, sleepers: usize) {
        (0..sleepers.min(WAKES)).for_each(|_| self.work.notify_one());
    }

    /// The next task; `None` if there will be none.
    fn next(&self) -> Option<Task> {
        let idle = Instant::now();
        loop {
            let mut state = lock(&self.state);
            loop {
                if let Some(task) = state.tasks.pop_front() {
                    let left = self.waiting.fetch_sub(1, Ordering::Relaxed) - 1;
                    let sleepers = state.asleep.min(left);
                    drop(state);
                    self.wake(sleepers);
                    return Some(task);
                }
                if state.closed {
                    return None;
                }
                if idle.elapsed() < STAY_AWAKE {
                    break;
                }
                state.asleep += 1;
                state = wait(&self.work, state);
                state.asleep -= 1;
            }
            drop(state);
            while self.waiting.load(Ordering::Relaxed) == 0 && idle.elapsed() < STAY_AWAKE {
                std::hint::spin_loop();
            }
        }
    }
}

impl Part {
    fn copy(self) {
        // SAFETY: the promise to `Copiers::copy`; parts are disjoint.
        unsafe { copy_past_caches(self.from, self.to, self.bytes) };
        drop(self.copying);
        if self.whole.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let then = lock(&self.whole.then).take();
            then.expect("only the last part takes it")();
        }
    }
}

/// Copies by stores that go past the caches: what is written here is read by a device, or much later, and to fetch its lines
/// first would be a third of the traffic.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `bytes` bytes, and they do not overlap.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_past_caches(from: *const u8, to: *mut u8, bytes: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LINE: usize = 64;
    const LANES: usize = LINE / size_of::<__m128i>();
    let head = to.align_offset(LINE).min(bytes);
    let lines = (bytes - head) / LINE;
    let tail = head + lines * LINE;
    // SAFETY: head, lines and tail are the parts of what the caller promised; the lines in `to` are aligned, loads need not be; SSE2 is
    // part of the architecture. The fence orders the stores before whatever tells others that they are there.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, head);
        for line in 0..lines {
            let (from, to) = (from.add(head + line * LINE), to.add(head + line * LINE));
            let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
            let values: [__m128i; LANES] = std::array::from_fn(|lane| _mm_loadu_si128(from.add(lane)));
            values.into_iter().enumerate().for_each(|(lane, value)| _mm_stream_si128(to.add(lane), value));
        }
        std::ptr::copy_nonoverlapping(from.add(tail), to.add(tail), bytes - tail);
        _mm_sfence();
    }
}

/// Copies.
///
/// # Safety
/// As the architecture's own.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_past_caches(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: passed on from the caller.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn copies_of_all_sizes_arrive_whole() {
        let copiers = Copiers::start("test", 0).unwrap();
        for bytes in [0, 1, SMALL, SMALL + 1, PART, 3 * PART + 17, 40 * PART + 1] {
            let from: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            let mut to = vec![0xff; bytes + 1];
            let (done, is_done) = channel();
            // SAFETY: both live until the answer has come.
            unsafe { copiers.copy(from.as_ptr(), to.as_mut_ptr(), bytes, move || done.send(()).unwrap()) };
            is_done.recv().unwrap();
            assert!(to[..bytes] == from && to[bytes] == 0xff, "{bytes}");
        }
    }

    #[test]
    fn a_copy_that_is_waited_for_does_not_wait_for_others() {
        let copiers = Copiers::start("test", usize::MAX).unwrap();
        let from: Vec<u8> = (0..3 * PART + 17).map(|index| (index % 251) as u8).collect();
        let mut to = vec![0xff; from.len()];
        let (address, len) = (to.as_mut_ptr() as usize, to.len());
        let ((begin, begun), (hold, held), (seen, later)) = (channel(), channel(), channel());
        // The only thread is busy, and has more to do.
        copiers.run(move || {
            begin.send(()).unwrap();
            held.recv().unwrap()
        });
        begun.recv().unwrap();
        // SAFETY: this runs on the thread that copies, which has copied by then; nobody else uses the memory meanwhile.
        let look = move || unsafe { std::slice::from_raw_parts(address as *const u8, len) }.to_vec();
        copiers.run(move || seen.send(look()).unwrap());
        std::thread::scope(|scope| {
            // SAFETY: the memory is there until the scope ends, and as long.
            scope.spawn(|| unsafe { copiers.copy_now(&from, address as *mut u8) });
            while copiers.shared.waiting.load(Ordering::Relaxed) < 5 {
                std::thread::yield_now();
            }
            hold.send(()).unwrap();
        });
        assert!(later.recv().unwrap() == from && to == from);
    }

    #[test]
    fn tasks_run_to_their_end_before_the_threads_do_and_may_panic() {
        let copiers = Copiers::start("test", 0).unwrap();
        let (done, is_done) = channel();
        for index in 0..20 {
            let done = done.clone();
            copiers.run(move || {
                done.send(index).unwrap();
                std::panic::resume_unwind(Box::new("on purpose"));
            });
        }
        drop((copiers, done));
        assert_eq!(is_done.iter().count(), 20);
    }
}
