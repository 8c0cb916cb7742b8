//! An engine each for uploads and downloads.
//!
//! NVIDIA's driver (580) copies with two engines. Which of them a context gets is settled at its first large copy after a rest, by whether an
//! even or an odd number of large copies, of whatever context, came before; and that lasts until the next rest. If
//! an even number lies between the first upload, itself counted, and the first download, both directions share one engine and take
//! twice as long, however long the stream is; if an odd number, each has its own. No document says so: it is what some hundreds of streams
//! of a bare program did (`benchmarks/contexts`). So where it would be even, one small copy is put in between, and one
//! more behind, so that after the next rest the count is what it was. Elsewhere these two copies do no harm.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::sync::{Mutex, lock};
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;

/// What the threads of a pipeline with three contexts know of each other's large copies.
pub struct CopyEngines {
    /// Bytes of a copy that counts: on NVIDIA's driver 512 KiB do, 256 KiB do not.
    counted: usize,
    /// How long uploads wait at most until the first download is submitted.
    wait: Duration,
    /// Slots between their upload and the end of their download, a bit each.
    under_way: AtomicU32,
    /// Large copies since there were none, until the first large download.
    copies: Mutex<usize>,
    /// How far the first large download is.
    phase: AtomicU8,
    /// Whether a copy was put in between, and none behind yet.
    owes: AtomicBool,
}

/// It has not come up: copies are counted.
const COUNTING: u8 = 0;
/// It is being given: an upload in between would make an odd number even.
const GIVING: u8 = 1;
/// It was given: nothing changes until the next rest.
const SETTLED: u8 = 2;

impl CopyEngines {
    /// Nothing is under way. Copies of `counted` bytes count; uploads wait at most `wait` for the first download.
    pub fn new(counted: usize, wait: Duration) -> Self {
        CopyEngines {
            counted,
            wait,
            under_way: AtomicU32::new(0),
            copies: Mutex::new(0),
            phase: AtomicU8::new(COUNTING),
            owes: AtomicBool::new(false),
        }
    }

    /// A small copy that counts, on `context`.
    ///
    /// # Errors
    /// What the device lacks.
    pub fn filler(&self, context: &Rc<Context>) -> Result<Filler> {
        Filler::new(context, 2 * self.counted)
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    /// Contexts are new, and nothing is under way.
    pub fn start(&self) {
        self.under_way.store(0, Ordering::Release);
    }

    /// Nothing of `slot` is under way any more.
    pub fn landed(&self, slot: usize) {
        self.under_way.fetch_and(!(1 << slot), Ordering::AcqRel);
    }

    /// Has `give` give `slot`'s upload of `bytes`.
    pub fn upload<T>(&self, slot: usize, bytes: usize, give: impl FnOnce() -> T) -> T {
        let first = self.under_way.fetch_or(1 << slot, Ordering::AcqRel) & !(1 << slot) == 0;
        if first {
            *lock(&self.copies) = 0;
            self.phase.store(COUNTING, Ordering::Release);
        }
        if bytes < self.counted {
            return give();
        }
        let start = Instant::now();
        loop {
            match self.phase() {
                SETTLED => return give(),
                GIVING if start.elapsed() > self.wait => self.downloaded(),
                GIVING => std::hint::spin_loop(),
                _ => {
                    let mut copies = lock(&self.copies);
                    // Under the lock, so that it does not come behind a download that it was counted before.
                    if self.phase() == COUNTING {
                        *copies += 1;
                        return give();
                    }
                }
            }
        }
    }

    /// Another copy of `bytes` was given, as that of weights.
    pub fn other(&self, bytes: usize) {
        if bytes >= self.counted && self.phase() == COUNTING {
            *lock(&self.copies) += 1;
        }
    }

    /// A download of `bytes` is about to be given; `copy` gives a large copy, in a context that neither uploads nor downloads.
    ///
    /// # Errors
    /// Those of `copy`.
    pub fn before_download(&self, bytes: usize, copy: impl FnOnce() -> Result<()>) -> Result<()> {
        if bytes < self.counted {
            return Ok(());
        }
        match self.phase() {
            COUNTING => {}
            // Behind the first download, not beside it.
            SETTLED if self.owes.swap(false, Ordering::AcqRel) => return copy(),
            _ => return Ok(()),
        }
        let copies = lock(&self.copies);
        if *copies == 0 {
            // Uploads are small: nobody shares anything with them for long.
            return Ok(());
        }
        self.phase.store(GIVING, Ordering::Release);
        if copies.is_multiple_of(2) {
            copy()?;
            self.owes.fetch_xor(true, Ordering::AcqRel);
        }
        Ok(())
    }

    /// A download was given.
    pub fn downloaded(&self) {
        // One that comes up while there is none to be given changes nothing.
        let _ = self.phase.compare_exchange(GIVING, SETTLED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// What is copied only to be counted.
pub struct Filler {
    from: Buffer,
    to: Buffer,
    bytes: usize,
}

impl Filler {
    fn new(context: &Rc<Context>, bytes: usize) -> Result<Self> {
        // From mapped memory: copies of that kind were measured to count.
        Ok(Filler { from: Buffer::mapped(context, bytes)?.0, to: Buffer::new(context, bytes)?, bytes })
    }

    /// Gives the copy to the device.
    ///
    /// # Errors
    /// What GL reports.
    pub fn copy(&self, context: &Context) -> Result<()> {
        self.from.copy_to(&self.to, self.bytes)?;
        context.api().flush();
        context.check("glFlush")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 512 << 10;
    const WAIT: Duration = Duration::from_millis(50);

    fn engines() -> CopyEngines {
        CopyEngines::new(LARGE, WAIT)
    }

    /// A copy, counted by `count`.
    fn counted(count: &mut usize) -> Result<()> {
        *count += 1;
        Ok(())
    }

    /// Whatever is uploaded before the first download, and whatever weights go with it.
    #[test]
    fn an_odd_number_of_copies_comes_before_the_first_download_and_an_even_one_between_rests() {
        let (engines, mut filled) = (engines(), 0);
        for uploads in 1..9 {
            for weights in [0, 1, 2] {
                let (mut before, mut behind) = (0, 0);
                for slot in 0..uploads {
                    engines.upload(slot, LARGE, || before += 1);
                    engines.upload(8 + slot, LARGE - 1, || ());
                    if slot == 0 {
                        (0..weights).for_each(|_| engines.other(LARGE));
                        before += weights;
                    }
                }
                let copies = before;
                engines.before_download(LARGE, || counted(&mut before)).unwrap();
                assert!(before % 2 == 1, "{uploads} and {weights}: {before}");
                filled += before - copies;
                engines.downloaded();
                for slot in 1..uploads {
                    engines.before_download(LARGE, || counted(&mut behind)).unwrap();
                    engines.landed(slot - 1);
                    engines.upload(slot - 1, LARGE, || ());
                }
                (0..16).for_each(|slot| engines.landed(slot));
                // One upload alone cannot have made an even number; weights beside it can.
                let owed = uploads == 1 && before > copies;
                assert_eq!(behind, usize::from(before > copies && !owed), "{uploads} and {weights}");
                if owed {
                    engines.before_download(LARGE, || counted(&mut behind)).unwrap();
                    assert_eq!(behind, 1);
                }
            }
        }
        assert_eq!(filled, 4 + 4 + 4);
    }

    #[test]
    fn small_copies_do_not_count_and_a_failed_one_owes_nothing() {
        let engines = engines();
        let never = || -> Result<()> { panic!("a copy that is not needed") };
        engines.upload(0, LARGE - 1, || ());
        engines.before_download(LARGE, never).unwrap();
        engines.before_download(LARGE - 1, never).unwrap();
        // A burst that begins with a small one counts like any other.
        engines.upload(2, LARGE, || ());
        engines.before_download(LARGE, never).unwrap();
        engines.downloaded();
        [0, 2].into_iter().for_each(|slot| engines.landed(slot));
        engines.upload(3, LARGE - 1, || ());
        engines.upload(0, LARGE, || ());
        engines.upload(1, LARGE, || ());
        let error = || Err(crate::Error::Internal("no memory".into()));
        engines.before_download(LARGE, error).unwrap_err();
        engines.before_download(LARGE, never).unwrap();
    }

    /// An upload waits for the first download to be given; but not for ever, should that never be.
    #[test]
    fn no_upload_comes_between() {
        let engines = engines();
        engines.upload(0, LARGE, || ());
        engines.before_download(LARGE, || Ok(())).unwrap();
        let start = Instant::now();
        engines.upload(1, LARGE, || assert!(start.elapsed() >= WAIT));
        let start = Instant::now();
        engines.before_download(LARGE, || Ok(())).unwrap();
        engines.upload(1, LARGE, || assert!(start.elapsed() < WAIT * 100));
    }
}
