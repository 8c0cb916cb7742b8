//! Epilogues: outputs of convolutions and products go through the interpreter while they are in a core's cache.
//!
//! A driver gets a [`Finish`] from its team and hands every output over once, when its sum, bias and ReLU are done. Outputs
//! are gathered from their places into the lanes of a block, with the channel and the position that follow from the address;
//! the block runs, and the results go back. Which outputs share a block does not matter: lanes do not see each other.

use std::cell::Cell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::isa;
use super::lanes::{CHUNK, mask};
use super::lower;
use super::program::{Program, Register};
use super::registers::{Frame, Registers};
use super::step::{self, Block};
use crate::allocate;
use crate::cpu::isa::Isa;
use crate::error::{Error, Result};
use crate::kernel::bind::Launch;
use crate::problem::GemmSizes;

/// Blocks have as many lanes as let the registers that they write fit into this many bytes of a core's cache.
const REGISTERS: usize = 24 << 10;

/// Fewest and most lanes of a block.
const LANES: [usize; 2] = [128, 1024];

/// The most pieces of memory that a block gathers.
const PIECES: usize = 96;

/// Which channel an output belongs to, by the number of elements from the first output to it.
#[derive(Debug, Clone, Copy)]
pub enum Channels {
    /// Of a convolution: the plane it is in, of so many elements, counted within an image of so many planes.
    Planes(usize, usize),
    /// Of a product whose rows are contiguous, so many elements apart: the row.
    Rows(usize),
    /// Of a product whose columns are contiguous, so many elements apart: the place in the column.
    Columns(usize),
}

impl Channels {
    /// Those of a product.
    pub fn of_product(sizes: &GemmSizes) -> Self {
        match sizes {
            // Both of C's strides may be 1, and its only row is channel 0.
            GemmSizes { m: 1, .. } => Channels::Rows(usize::MAX),
            GemmSizes { c_col: 1, c_row, .. } => Channels::Rows(*c_row),
            GemmSizes { c_col, .. } => Channels::Columns(*c_col),
        }
    }
}

/// An epilogue that is applied to the outputs of one call.
pub struct Finisher<'l> {
    program: Program,
    result: Register,
    channels: Channels,
    /// Added to channels and positions.
    base: i32,
    /// The addresses of the outputs. Outputs elsewhere are those of other calls, which a log callback may make meanwhile.
    outputs: Range<usize>,
    lanes: usize,
    /// One for each thread, with where its registers are.
    frames: Vec<Mutex<(Frame, Registers)>>,
    /// The arrays are those of the launch.
    _launch: &'l Launch<'l>,
}

// SAFETY: the registers lead to the memory of the frames beside them, each behind a lock. The program's functions may run on
// any thread, and so may accesses to the launch's arrays, which are only read.
unsafe impl Send for Finisher<'_> {}
// SAFETY: as above.
unsafe impl Sync for Finisher<'_> {}

impl<'l> Finisher<'l> {
    /// Prepares the epilogue of a launch for these outputs and so many threads.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; nothing has been computed then.
    pub fn new(
        isa: Isa,
        launch: &'l Launch<'l>,
        channels: Channels,
        outputs: &[f32],
        threads: usize,
    ) -> Result<Self> {
        let program = lower::lower(launch, isa::of(isa))?;
        let result =
            program.result.ok_or_else(|| Error::Internal("an epilogue without result".to_owned()))?;
        let fitting = REGISTERS / program.busy_bytes.max(1);
        let lanes = fitting.clamp(LANES[0], LANES[1]) / CHUNK * CHUNK;
        let frame = |_| {
            let mut frame = Frame::new(&program, launch.buffers(), lanes, 0)?;
            let at = frame.enter(&program, &mut [])?;
            // SAFETY: the register is of the program and has four bytes a lane.
            unsafe { at.fill(program.mask, mask(true)) };
            Ok(Mutex::new((frame, at)))
        };
        let frames = allocate::collected((0..threads.max(1)).map(frame), "the registers of an epilogue")?;
        let base = launch.kernel().base;
        let Range { start, end } = outputs.as_ptr_range();
        let outputs = start.addr()..end.addr();
        Ok(Finisher { program, result, channels, base, outputs, lanes, frames, _launch: launch })
    }

    /// Runs `work`, whose teams finish their outputs by this epilogue.
    pub fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Restore(Finish);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let this = Finish(Some(NonNull::from(self).cast()));
        let _restore = Restore(CURRENT.replace(this));
        work()
    }
}

thread_local! {
    /// The epilogue of the call that this thread makes.
    static CURRENT: Cell<Finish> = const { Cell::new(Finish(None)) };
}

/// What finishes the outputs of a call: an epilogue, or nothing.
#[derive(Clone, Copy)]
pub struct Finish(Option<NonNull<Finisher<'static>>>);

// SAFETY: it leads to a `Finisher`, which may be used from any thread.
unsafe impl Send for Finish {}
// SAFETY: as above.
unsafe impl Sync for Finish {}

impl Finish {
    /// That of the call that the calling thread makes. It is valid until the call ends.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Whether there is an epilogue.
    pub fn is_some(self) -> bool {
        self.0.is_some()
    }

    /// Applies the epilogue to `rows` rows of `cols` outputs, `ld` apart. `worker` is the number of the thread in its team.
    ///
    /// # Safety
    /// The call that made the team has not ended. The outputs are those of the call, written, and nothing else uses them; each is
    /// handed over once.
    pub unsafe fn tile(self, worker: usize, (start, ld): (*mut f32, usize), (rows, cols): (usize, usize)) {
        let Some(mut block) = self.begin(worker) else { return };
        if cols == ld {
            // SAFETY: the caller keeps the contract; the rows follow each other.
            return unsafe { block.add(start, rows * cols) };
        }
        for row in 0..rows {
            // SAFETY: as above.
            unsafe { block.add(start.wrapping_add(row * ld), cols) };
        }
    }

    /// A block to hand outputs over to; nothing without an epilogue. Drop it before the task ends.
    pub fn begin<'a>(self, worker: usize) -> Option<Gathering<'a>> {
        // SAFETY: the finisher lives for the whole call, as `Finisher::during` borrows it; teams are made by the thread that
        // runs it, and tasks end before.
        let finisher: &'a Finisher<'a> = unsafe { self.0?.cast::<Finisher<'a>>().as_ref() };
        let frame = &finisher.frames[worker % finisher.frames.len()];
        let frame = frame.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Gathering { finisher, frame, filled: 0, pieces: [(std::ptr::null_mut(), 0); PIECES], count: 0 })
    }
}

/// A block that is being filled with outputs.
pub struct Gathering<'f> {
    finisher: &'f Finisher<'f>,
    frame: MutexGuard<'f, (Frame, Registers)>,
    filled: usize,
    pieces: [(*mut f32, usize); PIECES],
    count: usize,
}

impl Gathering<'_> {
    /// Adds `len` outputs from `start` on. The block runs whenever it is full.
    ///
    /// # Safety
    /// As [`Finish::tile`], until the block is dropped.
    pub unsafe fn add(&mut self, mut start: *mut f32, mut len: usize) {
        if !self.finisher.outputs.contains(&start.addr()) {
            return;
        }
        while len > 0 {
            if self.filled == self.finisher.lanes || self.count == PIECES {
                self.run();
            }
            let position = (start.addr() - self.finisher.outputs.start) / size_of::<f32>();
            let (channel, step, same) = match self.finisher.channels {
                Channels::Planes(plane, channels) => {
                    (position / plane % channels, 0, plane - position % plane)
                }
                Channels::Rows(distance) => (position / distance, 0, distance - position % distance),
                Channels::Columns(distance) => (position % distance, 1, distance - position % distance),
            };
            let some = len.min(same).min(self.finisher.lanes - self.filled);
            // SAFETY: the caller vouches for the outputs, and the registers have so many lanes.
            unsafe { self.gather(start, some, (channel, step), position) };
            self.pieces[self.count] = (start, some);
            self.count += 1;
            self.filled += some;
            (start, len) = (start.wrapping_add(some), len - some);
        }
    }

    /// Fills the next lanes with `len` outputs.
    ///
    /// # Safety
    /// The outputs may be read, and there are as many lanes left.
    #[inline(always)]
    unsafe fn gather(&self, start: *const f32, len: usize, (channel, step): (usize, i32), position: usize) {
        let Finisher { program, base, .. } = self.finisher;
        let at = self.frame.1;
        let [value, channels, positions] = program.inputs.indices;
        // SAFETY: the registers are of the program and have four bytes a lane; the caller vouches for the outputs.
        unsafe {
            if let Some(value) = value {
                start.copy_to_nonoverlapping(at.at::<f32>(value).add(self.filled), len);
            }
            let numbers = |register, first: usize, step: i32| {
                let lanes = at.at::<i32>(register).add(self.filled);
                let lanes = std::slice::from_raw_parts_mut(lanes, len);
                let first = (first as i32).wrapping_add(*base);
                match step {
                    0 => lanes.fill(first),
                    _ => (0..).zip(lanes).for_each(|(lane, to)| *to = first.wrapping_add(lane)),
                }
            };
            channels.into_iter().for_each(|register| numbers(register, channel, step));
            positions.into_iter().for_each(|register| numbers(register, position, 1));
        }
    }

    /// Runs the block and puts the results where the values were.
    fn run(&mut self) {
        let (filled, program) = (self.filled, &self.finisher.program);
        if filled == 0 {
            return;
        }
        let (frame, at) = &mut *self.frame;
        let all = filled.next_multiple_of(CHUNK);
        // SAFETY: the registers are of the program, have four bytes a lane and `lanes` lanes, a multiple of a chunk. The frame was
        // made for the program, which is for this CPU; its inputs, constants and mask are set, and it reads arrays of the
        // launch only within their lengths. The callers of `add` vouch for the pieces.
        unsafe {
            // Lanes without an output do as the last one does.
            for register in program.inputs.indices.into_iter().flatten() {
                let lanes = std::slice::from_raw_parts_mut(at.at::<u32>(register), all);
                let last = lanes[filled - 1];
                lanes[filled..].fill(last);
            }
            if program.returns {
                at.first(all).fill(program.mask, mask(true));
            }
            let Frame { arrays, calls, .. } = frame;
            step::run(&mut Block { program, at: at.first(all), arrays, first: 0, is_whole: true, calls });
            let mut from = at.at::<f32>(self.finisher.result).cast_const();
            for (to, len) in &self.pieces[..self.count] {
                from.copy_to_nonoverlapping(*to, *len);
                from = from.add(*len);
            }
        }
        (self.filled, self.count) = (0, 0);
    }
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.run();
    }
}
