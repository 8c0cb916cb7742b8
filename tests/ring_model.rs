//! The pipeline's ring under a model checker: in every interleaving of its threads, each piece passes each stage once, and all
//! threads end.

use std::collections::VecDeque;
use std::sync::Arc;

#[path = "../src/gl/pipeline/ring.rs"]
#[allow(dead_code)]
mod ring;
#[path = "../src/gl/pipeline/tasks.rs"]
mod tasks;

/// The checker's locks, which replace the system's.
mod sync {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
    pub use loom::sync::{Condvar, Mutex, MutexGuard};

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).unwrap()
    }
}

use ring::{Refused, Ring, Sleep, Source, Stage, Task};

/// Work of `left` pieces. Work that shares a slot has one piece, whose value is the number of works in it.
struct Work {
    left: usize,
    begun: bool,
    shares: bool,
}

impl Source for Work {
    type Piece = usize;
    fn cut(&mut self) -> Option<(usize, bool)> {
        self.begun = true;
        self.left -= 1;
        Some((if self.shares { 1 } else { self.left }, self.left == 0))
    }
    fn has_begun(&self) -> bool {
        self.begun
    }
    fn shares(&self) -> bool {
        self.shares
    }
    fn gather(piece: usize, waiting: &mut VecDeque<Self>) -> usize {
        let before = waiting.len();
        waiting.retain(|work| !work.shares);
        piece + before - waiting.len()
    }
}

/// Executes `stages` until the ring ends. Returns the number of tasks.
fn serve(ring: &Ring<Work>, stages: &[Stage]) -> usize {
    let (generation, mut tasks) = (ring.generation(), 0);
    loop {
        match ring.next(stages, Sleep::Always) {
            Some(Task::End) => return tasks,
            Some(Task::Prepare(slot, _)) => {
                ring.expect(slot, generation);
                ring.pass(Stage::Upload, slot, generation);
            }
            // Whether it comes in time depends on the other threads, so it is not counted.
            Some(Task::Expect(..)) => continue,
            Some(Task::Issue(Stage::Upload, slot, _)) => ring.pass(Stage::Compute, slot, generation),
            Some(Task::Issue(Stage::Compute, slot, _)) => ring.pass(Stage::Download, slot, generation),
            Some(Task::Issue(Stage::Download, slot, _)) => drop(ring.done(slot, generation)),
            // Woken, because the first piece is in flight.
            None => continue,
        }
        tasks += 1;
    }
}

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

fn work(pieces: usize) -> Work {
    Work { left: pieces, begun: false, shares: false }
}

#[test]
fn two_steps_and_two_callers() {
    model(|| {
        let ring = Arc::new(Ring::new(1, 1));
        let back = {
            let ring = ring.clone();
            loom::thread::spawn(move || serve(&ring, &[Stage::Compute, Stage::Download]))
        };
        let front = {
            let ring = ring.clone();
            loom::thread::spawn(move || serve(&ring, &[Stage::Upload]))
        };
        for _ in 0..2 {
            assert!(ring.push(work(1), true).is_ok());
        }
        let mut called_off = 0;
        ring.close(|_| called_off += 1);
        let (front, back) = (front.join().unwrap(), back.join().unwrap());
        // Two tasks per piece on each side.
        assert_eq!((front, back), (2 * (2 - called_off), 2 * (2 - called_off)));
    });
}

#[test]
fn a_break_at_any_moment_loses_nothing() {
    model(|| {
        let ring = Arc::new(Ring::new(2, 4));
        assert!(ring.push(work(2), true).is_ok());
        let breaker = {
            let ring = ring.clone();
            loom::thread::spawn(move || ring.break_up())
        };
        serve_until_end(&ring);
        assert!(breaker.join().unwrap());
        let mut found = 0;
        ring.recover(|pieces, waiting| {
            found = pieces.len() + waiting.iter().map(|work| work.left).sum::<usize>();
            waiting.clear();
        });
        let done = 2 - found;
        assert!(done <= 2);
        assert_eq!(ring.depth(), (0, 0));
        // Everything works after that.
        assert!(ring.push(work(1), true).is_ok());
        let Some(Task::Prepare(slot, 0)) = ring.next(&[Stage::Upload], Sleep::Never) else {
            panic!("no task")
        };
        assert!(ring.done(slot, ring.generation()));
    });
}

/// The computing thread may look at an expected piece until its compute task is issued. Before that, no other thread can finish
/// the piece.
#[test]
fn a_piece_is_expected_until_it_is_computed() {
    model(|| {
        let (front, back) = (&[Stage::Upload], &[Stage::Compute, Stage::Download]);
        for in_time in [true, false] {
            let ring = Ring::new(2, 4);
            assert!(ring.push(work(1), true).is_ok());
            let generation = ring.generation();
            let Some(Task::Prepare(slot, 0)) = ring.next(front, Sleep::Never) else { panic!("no task") };
            ring.expect(slot, generation);
            if in_time {
                assert_eq!(ring.next(back, Sleep::Never), Some(Task::Expect(slot, 0)));
            }
            ring.pass(Stage::Compute, slot, generation);
            assert_eq!(ring.next(back, Sleep::Never), Some(Task::Issue(Stage::Compute, slot, 0)));
            assert_eq!(ring.next(back, Sleep::Never), None);
            // A thread whose contexts are gone expects nothing.
            ring.break_up();
            ring.expect(slot, generation);
            ring.recover(|_, waiting| waiting.push_back(work(1)));
            ring.expect(slot, generation);
            let Some(Task::Prepare(..)) = ring.next(front, Sleep::Never) else { panic!("no task") };
            assert_eq!(ring.next(back, Sleep::Never), None);
        }
    });
}

/// A thread that got no task need not ask again before the epoch counter changes. Only the work itself changes the counter, and
/// the ring is closed when the work is done. A thread that missed the change would listen forever, which the checker detects.
#[test]
fn a_thread_that_watches_the_epoch_misses_no_task() {
    fn work_off(ring: &Ring<Work>, stage: Stage, listens: bool) {
        let (generation, mut idle_epoch) = (ring.generation(), None);
        loop {
            let epoch = ring.epoch();
            if listens && idle_epoch == Some(epoch) {
                loom::thread::yield_now();
                continue;
            }
            match ring.next(&[stage], if listens { Sleep::Never } else { Sleep::Always }) {
                None => idle_epoch = Some(epoch),
                Some(Task::Prepare(slot, _)) => ring.pass(Stage::Download, slot, generation),
                Some(Task::Issue(_, slot, _)) => {
                    assert!(ring.done(slot, generation));
                    ring.close(|_| panic!("all has begun"));
                }
                Some(Task::End) => return,
                Some(Task::Expect(..)) => unreachable!("nobody computes"),
            }
        }
    }
    for listener in [Stage::Upload, Stage::Download] {
        model(move || {
            let ring = Arc::new(Ring::new(1, 2));
            let threads = [Stage::Upload, Stage::Download].map(|stage| {
                let ring = ring.clone();
                loom::thread::spawn(move || work_off(&ring, stage, stage == listener))
            });
            assert!(ring.push(work(1), true).is_ok());
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(ring.depth(), (0, 0));
        });
    }
}

/// One thread with all stages, which ends when the ring breaks.
fn serve_until_end(ring: &Ring<Work>) {
    serve(ring, &[Stage::Upload, Stage::Compute, Stage::Download]);
}

#[test]
fn a_lent_slot_comes_back_however_it_is_returned() {
    model(|| {
        let ring = Arc::new(Ring::new(1, 1));
        assert!(ring.push(work(1), true).is_ok());
        let Some(Task::Prepare(slot, _)) = ring.next(&[Stage::Upload], Sleep::Never) else {
            panic!("no task")
        };
        let generation = ring.generation();
        ring.lend(slot, generation);
        assert!(ring.submit(slot, generation, 7).is_ok());
        let worker = {
            let ring = ring.clone();
            loom::thread::spawn(move || serve(&ring, &[Stage::Upload, Stage::Compute, Stage::Download]))
        };
        // The slot is returned while the job runs, before or after; then another caller gets it.
        ring.give_back(slot, generation);
        assert!(ring.push(work(1), true).is_ok());
        let mut called_off = 0;
        ring.close(|_| called_off += 1);
        assert_eq!(worker.join().unwrap(), 3 + 4 * (1 - called_off));
    });
}

/// With any number of concurrent callers, a slot belongs to one of them. Each caller gets an answer without the help of another
/// thread.
#[test]
fn a_slot_is_reserved_at_once_or_refused_at_once() {
    model(|| {
        let ring = Arc::new(Ring::<Work>::new(1, 1));
        let held = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let ask = |ring: &Ring<Work>, held: &loom::sync::atomic::AtomicUsize| {
            let order = loom::sync::atomic::Ordering::SeqCst;
            match ring.reserve(0, 0, Some) {
                Ok(Some((slot, memory))) => {
                    assert_eq!((slot, memory, held.fetch_add(1, order)), (0, 0, 0));
                    held.fetch_sub(1, order);
                    ring.give_back(slot, 0);
                    1
                }
                Err(Refused::Full) => 0,
                other => panic!("{:?}", other.map(|_| ())),
            }
        };
        let threads = [(), ()].map(|()| {
            let (ring, held) = (ring.clone(), held.clone());
            loom::thread::spawn(move || ask(&ring, &held))
        });
        let own = ask(&ring, &held);
        let given = threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>() + own;
        assert!(given >= 1, "a slot was free, and no caller got it");
        assert_eq!((ask(&ring, &held), ring.depth()), (1, (0, 0)));
    });
}

/// A slot without memory is prepared next, for the caller that reserved it. Jobs come after that. While a job waits, no later
/// request overtakes it. Nothing is lost if the ring breaks or closes meanwhile.
#[test]
fn a_reserved_slot_is_prepared_or_found_again() {
    for breaks in [false, true] {
        model(move || {
            let ring = Arc::new(Ring::<Work>::new(1, 2));
            let server = {
                let ring = ring.clone();
                // Lends a prepared slot; finishes computed pieces.
                loom::thread::spawn(move || {
                    let mut lent = 0;
                    loop {
                        match ring.next(&[Stage::Upload, Stage::Compute, Stage::Download], Sleep::Always) {
                            Some(Task::End) => return lent,
                            Some(Task::Prepare(slot, 7)) => {
                                ring.lend(slot, 0);
                                lent += 1;
                                ring.give_back(slot, 0);
                            }
                            Some(Task::Prepare(slot, _)) => ring.pass(Stage::Upload, slot, 0),
                            Some(Task::Issue(stage, slot, _)) => match stage.next() {
                                Some(next) => ring.pass(next, slot, 0),
                                None => drop(ring.done(slot, 0)),
                            },
                            Some(Task::Expect(..)) | None => {}
                        }
                    }
                })
            };
            let ender = {
                let ring = ring.clone();
                loom::thread::spawn(move || match breaks {
                    true => drop(ring.break_up()),
                    false => ring.close(|_| {}),
                })
            };
            let reserved = match ring.reserve(7, 0, |_| None::<()>) {
                Ok(None) => 1,
                Err(Refused::Closed) if !breaks => 0,
                Err(Refused::Full) if breaks => 0,
                other => panic!("{other:?}"),
            };
            if reserved == 1 && !breaks {
                // After the reservation, or not at all.
                let pushed = ring.push(work(1), false);
                assert!(matches!(pushed, Ok(()) | Err((Refused::Closed, _))));
            }
            ender.join().unwrap();
            let lent = server.join().unwrap();
            let mut found = 0;
            if breaks {
                ring.recover(|pieces, _| {
                    found = pieces.len();
                    Default::default()
                });
                ring.close(|_| {});
            }
            // Recovery also finds the slot that was lent when the ring broke. Its caller has got an answer by then.
            assert!(lent <= reserved && found <= reserved && lent + found >= reserved, "{lent}, {found}");
            assert_eq!(ring.depth(), (0, 0));
        });
    }
}

/// If no context can be created, a reserved slot becomes free again.
#[test]
fn a_reservation_can_be_taken_back() {
    model(|| {
        let ring = Ring::<Work>::new(1, 1);
        assert_eq!(ring.reserve(7, 0, |_| None::<()>), Ok(None));
        assert_eq!(ring.reserve(8, 0, Some), Err(Refused::Full));
        assert!(ring.wait_for_work());
        assert_eq!((ring.take_reserved(), ring.depth()), (vec![7], (0, 0)));
        assert_eq!(ring.reserve(9, 0, Some), Ok(Some((0, 0))));
        // Waiting work goes first.
        ring.give_back(0, 0);
        assert!(ring.push(work(1), false).is_ok());
        assert_eq!(ring.reserve(9, 0, Some), Err(Refused::Full));
    });
}

/// A thread that holds back small work is woken for it.
#[test]
fn what_shares_a_slot_is_never_left_behind() {
    model(|| {
        let ring = Arc::new(Ring::new(2, 4));
        let front = {
            let ring = ring.clone();
            loom::thread::spawn(move || serve(&ring, &[Stage::Upload]))
        };
        let back = {
            let ring = ring.clone();
            // Ends by itself when all three have arrived; no other thread tells it.
            loom::thread::spawn(move || {
                let (generation, mut jobs) = (ring.generation(), 0);
                while jobs < 3 {
                    match ring.next(&[Stage::Compute, Stage::Download], Sleep::Always) {
                        Some(Task::Issue(Stage::Compute, slot, _)) => {
                            ring.pass(Stage::Download, slot, generation)
                        }
                        Some(Task::Issue(Stage::Download, slot, piece)) => {
                            jobs += piece;
                            assert!(ring.done(slot, generation));
                        }
                        Some(Task::Expect(..)) | None => {}
                        _ => unreachable!("more work is to come"),
                    }
                }
                jobs
            })
        };
        for _ in 0..3 {
            assert!(ring.push(Work { left: 1, begun: false, shares: true }, true).is_ok());
        }
        assert_eq!(back.join().unwrap(), 3);
        ring.close(|_| panic!("all has begun"));
        front.join().unwrap();
        assert_eq!(ring.depth(), (0, 0));
    });
}
