//! Keeps uploads and downloads on different copy engines.
//!
//! NVIDIA's driver (580) has two engines for the copies of GL contexts. It assigns one to a context at the
//! context's first large copy after an idle period, by the parity of the number of large copies so far, in all
//! contexts. The assignment lasts until the next idle period. What counts are the copies from the first upload on,
//! itself included, to the first download. If their number is odd, each direction has its own engine. If it is
//! even, both share one, and copies take twice as long for the whole stream. No document says so; it is the result
//! of some hundreds of streams of a bare program (`benchmarks/contexts`).
//!
//! So where the number would be even, one small filler copy precedes the first download. Another follows it, to
//! restore the parity for the time after the next idle period. With other drivers the two copies do no harm.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::sync::{Mutex, lock};
use crate::error::Result;
use crate::gl::driver::context::Context;
use crate::gl::driver::resource::Buffer;

/// What the threads of a pipeline with three contexts share about their large copies.
pub struct CopyEngines {
    /// Smallest copy in bytes that counts: on NVIDIA's driver 512 KiB counts, 256 KiB does not.
    min_counted: usize,
    /// How long uploads wait at most until the first download is submitted.
    wait: Duration,
    /// Slots between their upload and the end of their download, as a bit set.
    busy_slots: AtomicU32,
    /// Large copies since no slot was busy, until the first large download.
    copies: Mutex<usize>,
    /// The state of the first large download.
    phase: AtomicU8,
    /// Whether a filler came before a download, and none after it yet.
    owes_filler: AtomicBool,
}

/// It has not come up yet: copies are counted.
const COUNTING: u8 = 0;
/// It is being submitted. An upload now would make an odd number even.
const SUBMITTING: u8 = 1;
/// It was submitted. Nothing changes until the next idle period.
const SETTLED: u8 = 2;

impl CopyEngines {
    /// No slot is busy. Copies of `min_counted` bytes count; uploads wait at most `wait` for the first download.
    pub fn new(min_counted: usize, wait: Duration) -> Self {
        CopyEngines {
            min_counted,
            wait,
            busy_slots: AtomicU32::new(0),
            copies: Mutex::new(0),
            phase: AtomicU8::new(COUNTING),
            owes_filler: AtomicBool::new(false),
        }
    }

    /// A small copy that counts, on `context`.
    ///
    /// # Errors
    /// What the device lacks.
    pub fn filler(&self, context: &Rc<Context>) -> Result<Filler> {
        Filler::new(context, 2 * self.min_counted)
    }

    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    /// New contexts exist. No slot is busy.
    pub fn start(&self) {
        self.busy_slots.store(0, Ordering::Release);
    }

    /// Nothing of `slot` is in flight any more.
    pub fn slot_finished(&self, slot: usize) {
        self.busy_slots.fetch_and(!(1 << slot), Ordering::AcqRel);
    }

    /// Calls `submit` to submit `slot`'s upload of `bytes` bytes. Waits while the first download is being submitted.
    pub fn upload<T>(&self, slot: usize, bytes: usize, submit: impl FnOnce() -> T) -> T {
        let first = self.busy_slots.fetch_or(1 << slot, Ordering::AcqRel) & !(1 << slot) == 0;
        if first {
            *lock(&self.copies) = 0;
            self.phase.store(COUNTING, Ordering::Release);
        }
        if bytes < self.min_counted {
            return submit();
        }
        let start = Instant::now();
        loop {
            match self.phase() {
                SETTLED => return submit(),
                SUBMITTING if start.elapsed() > self.wait => self.download_submitted(),
                SUBMITTING => std::hint::spin_loop(),
                _ => {
                    let mut copies = lock(&self.copies);
                    // Under the lock, so that the upload cannot come after a download that did not count it.
                    if self.phase() == COUNTING {
                        *copies += 1;
                        return submit();
                    }
                }
            }
        }
    }

    /// Another copy of `bytes` bytes was submitted, for example of weights.
    pub fn other_copy(&self, bytes: usize) {
        if bytes >= self.min_counted && self.phase() == COUNTING {
            *lock(&self.copies) += 1;
        }
    }

    /// Called before a download of `bytes` bytes is submitted. `copy` submits a large copy in a context that
    /// neither uploads nor downloads.
    ///
    /// # Errors
    /// Those of `copy`.
    pub fn before_download(&self, bytes: usize, copy: impl FnOnce() -> Result<()>) -> Result<()> {
        if bytes < self.min_counted {
            return Ok(());
        }
        match self.phase() {
            COUNTING => {}
            // After the first download, not at the same time.
            SETTLED if self.owes_filler.swap(false, Ordering::AcqRel) => return copy(),
            _ => return Ok(()),
        }
        let copies = lock(&self.copies);
        if *copies == 0 {
            // All uploads are small. Sharing an engine with them costs little.
            return Ok(());
        }
        self.phase.store(SUBMITTING, Ordering::Release);
        if copies.is_multiple_of(2) {
            copy()?;
            self.owes_filler.fetch_xor(true, Ordering::AcqRel);
        }
        Ok(())
    }

    /// A download was submitted.
    pub fn download_submitted(&self) {
        // Without a first download in submission this changes nothing.
        let _ = self.phase.compare_exchange(SUBMITTING, SETTLED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Buffers for a copy that only serves to be counted.
pub struct Filler {
    from: Buffer,
    to: Buffer,
    bytes: usize,
}

impl Filler {
    fn new(context: &Rc<Context>, bytes: usize) -> Result<Self> {
        // From mapped memory: measurements show that such copies count.
        Ok(Filler { from: Buffer::mapped(context, bytes)?.0, to: Buffer::new(context, bytes)?, bytes })
    }

    /// Submits the copy.
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

    /// A copy, counted in `count`.
    fn counted(count: &mut usize) -> Result<()> {
        *count += 1;
        Ok(())
    }

    /// Holds for any uploads and any copies of weights before the first download.
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
                        (0..weights).for_each(|_| engines.other_copy(LARGE));
                        before += weights;
                    }
                }
                let copies = before;
                engines.before_download(LARGE, || counted(&mut before)).unwrap();
                assert!(before % 2 == 1, "{uploads} and {weights}: {before}");
                filled += before - copies;
                engines.download_submitted();
                for slot in 1..uploads {
                    engines.before_download(LARGE, || counted(&mut behind)).unwrap();
                    engines.slot_finished(slot - 1);
                    engines.upload(slot - 1, LARGE, || ());
                }
                (0..16).for_each(|slot| engines.slot_finished(slot));
                // One upload alone cannot make the number even. Together with weights it can.
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
        // A stream that begins with a small upload counts like any other.
        engines.upload(2, LARGE, || ());
        engines.before_download(LARGE, never).unwrap();
        engines.download_submitted();
        [0, 2].into_iter().for_each(|slot| engines.slot_finished(slot));
        engines.upload(3, LARGE - 1, || ());
        engines.upload(0, LARGE, || ());
        engines.upload(1, LARGE, || ());
        let error = || Err(crate::Error::Internal("no memory".into()));
        engines.before_download(LARGE, error).unwrap_err();
        engines.before_download(LARGE, never).unwrap();
    }

    /// An upload waits until the first download is submitted, but for a limited time only.
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
