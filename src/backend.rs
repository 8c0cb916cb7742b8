//! Layer 4: the contract that an engine implements.
//!
//! `device` calls it, and knows the engines only through it; `cpu` and `gl` implement it. It may use `problem`,
//! `memory`, `report`, `shader` and `kernel`, but no engine.

use std::sync::Arc;

use crate::error::Result;
use crate::kernel::bind::Launch;
use crate::kernel::fused::Fused;
use crate::memory::{Ceilings, Hierarchy};
use crate::problem::{Conv2d, Gemm};
use crate::report::{PipelineStats, Source, Timing};

mod resident;
mod run;
mod ticket;

pub use resident::{DeviceMemory, EngineMemory, Guard, Range};
pub use run::{Dimension, Run, Share, Shares};
pub use ticket::Ticket;

/// An engine bound to one device.
///
/// Callers have validated every problem and checked the length of every buffer (`Conv2d::check_weights`,
/// `Conv2d::check_data`, `Gemm::check_data`), so an engine does not check again. The device layer handles empty batches
/// of convolutions; an engine never sees one. An engine writes an output only within its bounds, and leaves it
/// untouched if it returns an error.
pub trait Backend: Send + Sync {
    /// The device's stable id: `cpu`, `gl:0`.
    fn id(&self) -> &str;

    /// The id for a [`Run`]. An engine with short calls returns a stored one, to avoid an allocation.
    fn shared_id(&self) -> Arc<str> {
        self.id().into()
    }

    /// A text that names the device, its driver and what else decides how fast it is: the key of measurements.
    fn fingerprint(&self) -> String {
        self.id().to_owned()
    }

    /// The device's measured rates. The first call may measure, which takes some tens of milliseconds.
    ///
    /// # Errors
    /// If the measurement failed; the device is then unusable.
    fn hierarchy(&self) -> Result<Hierarchy>;

    /// What no program on the device exceeds. The first call measures it, which takes some tenths of a second.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine does not measure it, or the device's failure.
    fn ceilings(&self) -> Result<Ceilings> {
        let what = "ceilings".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Prepares a convolution: chooses and builds the kernel, packs or uploads weights and bias.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported), or the device's failure.
    fn plan_conv2d(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>>;

    /// Prepares a convolution of some images of `whole`, with the kernel that `whole` would get: its results have the bits
    /// that they have in a run of `whole`. An engine whose bits do not depend on the number of images need not implement
    /// it.
    ///
    /// # Errors
    /// As [`Backend::plan_conv2d`].
    fn plan_images(
        &self,
        _whole: &Conv2d,
        part: &Conv2d,
        weights: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Box<dyn Plan>> {
        self.plan_conv2d(part, weights, bias)
    }

    /// As [`Backend::plan_conv2d`], for [`Plan::run_fused`] with this epilogue.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported), also if the engine cannot compute the epilogue; or the device's
    /// failure.
    fn plan_fused(
        &self,
        _problem: &Conv2d,
        _weights: &[f32],
        _bias: Option<&[f32]>,
        _epilogue: &Fused,
    ) -> Result<Box<dyn Plan>> {
        let what = "epilogues".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Creates a queue for jobs of this engine's plans, with threads and memory of its own. Traces call it `source`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine has no queues, or the device's failure.
    fn queue(&self, _options: PipelineOptions, _source: Source) -> Result<Arc<dyn Queue>> {
        let what = "queues of its own".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Whether calls for `problem` move so much data that they should go through [`Backend::stream`].
    fn streams(&self, _problem: &Conv2d) -> bool {
        false
    }

    /// The engine's shared queue for blocking calls; every call returns the same queue.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine has none, which is so if
    /// [`streams`](Backend::streams) is never true; else as [`Backend::queue`].
    fn stream(&self) -> Result<Arc<dyn Queue>> {
        let what = "a queue of calls".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// A recipe without weights, for jobs that bring their own ([`Queue::submit_once`]). It allocates nothing on the
    /// device.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine cannot compute the problem.
    fn recipe(&self, _problem: &Conv2d, _bias: Option<&[f32]>) -> Result<Arc<Recipe>> {
        let what = "queues of its own".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Computes one convolution. By default this makes a plan and runs it once. Returns the kernel's name and the
    /// times.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported), or the device's failure; the output is then untouched.
    fn conv2d(
        &self,
        problem: &Conv2d,
        (weights, bias): (&[f32], Option<&[f32]>),
        input: &[f32],
        output: &mut [f32],
    ) -> Result<(Arc<str>, Timing)> {
        let plan = self.plan_conv2d(problem, weights, bias)?;
        let timing = plan.run(input, output)?;
        Ok((plan.kernel().into(), timing))
    }

    /// Computes C = alpha op(A) op(B) + beta C. Returns the kernel's name and the times.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported), or the device's failure; C is then untouched.
    fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(Arc<str>, Timing)>;

    /// As [`Backend::sgemm`], with an epilogue that is applied to every element of the result. Its arguments have been checked.
    ///
    /// # Errors
    /// As [`Backend::sgemm`], and [`Error::ContentsLost`](crate::Error::ContentsLost).
    fn sgemm_fused(
        &self,
        _problem: &Gemm,
        _matrices: (&[f32], &[f32]),
        _c: &mut [f32],
        _epilogue: &Launch<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let what = "epilogues".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Allocates memory that lives on the device, filled with zeros.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine has none, or the device's failure.
    fn memory(&self, _bytes: usize) -> Result<Box<dyn EngineMemory>> {
        let what = "buffers".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// As [`Backend::conv2d`], on memory of this engine that is not the host's. The caller has locked it; all have the lengths
    /// of the problem, and the output overlaps none of the others.
    ///
    /// # Errors
    /// [`Error::ContentsLost`](crate::Error::ContentsLost), or as [`Backend::conv2d`]; the output may then have lost its
    /// contents.
    fn conv2d_resident(
        &self,
        _problem: &Conv2d,
        (_weights, _bias): (Range<'_>, Option<Range<'_>>),
        _input: Range<'_>,
        _output: Range<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let what = "convolutions of buffers".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// As [`Backend::sgemm`], on memory of this engine that is not the host's. The caller has locked it; A, B and C have
    /// at least the lengths of the problem, and C overlaps neither A nor B.
    ///
    /// # Errors
    /// [`Error::ContentsLost`](crate::Error::ContentsLost), or as [`Backend::sgemm`]; C may then have lost its contents.
    fn sgemm_resident(&self, _problem: &Gemm, _matrices: [Range<'_>; 3]) -> Result<(Arc<str>, Timing)> {
        let what = "products of buffers".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// [`Backend::sgemm_resident`] with an epilogue, as [`Backend::sgemm_fused`]. The epilogue's arrays do not overlap C.
    ///
    /// # Errors
    /// As [`Backend::sgemm_resident`].
    fn sgemm_resident_fused(
        &self,
        _problem: &Gemm,
        _matrices: [Range<'_>; 3],
        _epilogue: &Launch<'_>,
    ) -> Result<(Arc<str>, Timing)> {
        let what = "epilogues of products of buffers".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Runs a kernel of the kernel language. The launch has been checked ([`Launch`]) and has a point. Returns the
    /// kernel's name and the times.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine cannot run this kernel;
    /// [`Error::ContentsLost`](crate::Error::ContentsLost); or the device's failure. The arrays are then untouched, except
    /// that memory on the device may have lost its contents.
    fn launch(&self, _launch: &Launch<'_>) -> Result<(Arc<str>, Timing)> {
        let what = "kernels of one's own".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }
}

/// The memory of a plan in bytes, without the caller's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Held for the plan's lifetime: weights and bias, packed, transformed or uploaded.
    pub packed: usize,
    /// Maximum workspace of a run. It is kept and shared with later runs of any plan.
    pub workspace: usize,
}

/// A prepared convolution. It runs any number of times, from any thread.
pub trait Plan: Send + Sync {
    /// Name of the kernel that runs, for instance `conv_direct_gl64`.
    fn kernel(&self) -> &str;

    /// The memory it takes with the current number of threads.
    fn memory(&self) -> Memory;

    /// Runs it.
    ///
    /// # Errors
    /// The device's failure; the output is then untouched.
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing>;

    /// Runs it, and applies the epilogue that it was made for ([`Backend::plan_fused`]) to every output. The launch holds the
    /// epilogue's arguments, which have been checked; memory among them that lives on a device is the engine's, and locked.
    ///
    /// # Errors
    /// [`Error::ContentsLost`](crate::Error::ContentsLost), or the device's failure; the output is then untouched.
    fn run_fused(&self, _input: &[f32], _output: &mut [f32], _epilogue: &Launch<'_>) -> Result<Timing> {
        let what = "epilogues".to_owned();
        Err(crate::Error::Unsupported { device: self.kernel().to_owned(), what })
    }

    /// Runs it on memory of its engine that is not the host's. The caller has locked it; input and output have the lengths
    /// of the problem and do not overlap.
    ///
    /// # Errors
    /// [`Error::ContentsLost`](crate::Error::ContentsLost), or the device's failure; the output may then have lost its
    /// contents.
    fn run_resident(&self, _input: Range<'_>, _output: Range<'_>) -> Result<Timing> {
        let what = "convolutions of buffers".to_owned();
        Err(crate::Error::Unsupported { device: self.kernel().to_owned(), what })
    }

    /// [`Plan::run_resident`] with an epilogue, as [`Plan::run_fused`]. The epilogue's arrays do not overlap the output.
    ///
    /// # Errors
    /// As [`Plan::run_resident`].
    fn run_resident_fused(
        &self,
        _input: Range<'_>,
        _output: Range<'_>,
        _epilogue: &Launch<'_>,
    ) -> Result<Timing> {
        let what = "epilogues of convolutions of buffers".to_owned();
        Err(crate::Error::Unsupported { device: self.kernel().to_owned(), what })
    }

    /// Whether its runs should go through [`Backend::stream`]: they move much data.
    fn streams(&self) -> bool {
        false
    }

    /// The recipe of the plan; `None` if its jobs cannot go through the engine's [`Queue`]. An engine may release what
    /// only [`Plan::run`] needs, as long as the plan has not run.
    fn recipe(&self) -> Option<&Arc<Recipe>> {
        None
    }
}

/// What a plan is made from, kept so that it can be made again in another context.
pub struct Recipe {
    /// The convolution.
    pub problem: Conv2d,
    /// Its weights; empty if jobs bring their own.
    pub weights: Vec<f32>,
    /// Its bias.
    pub bias: Option<Vec<f32>>,
    /// How the engine that made it computes it. Only that engine reads this.
    pub choice: Box<dyn std::any::Any + Send + Sync>,
}

/// Options of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineOptions {
    /// Slots on the device, 1 to 16; each has memory for the input and the output of one piece of a job. Three suffice
    /// where transfers take longest. Where kernels take longest, eight keep a GPU busy.
    pub slots: usize,
    /// Maximum number of jobs that wait for a slot. [`WhenFull`] says what happens to more.
    pub queue: usize,
    /// A job whose input or output is larger than this many bytes is split into pieces of whole images.
    pub piece_bytes: usize,
    /// Whether upload, compute and download have command queues of their own, so that they overlap, or share one.
    pub contexts: Contexts,
    /// What makes a stage start after the one before it.
    pub order: Order,
    /// Whether small jobs of one plan are batched into one slot when they arrive faster than the device computes them
    /// singly.
    pub gather: bool,
}

/// How a stage in one command queue is ordered after a stage in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the device, unless that was measured to be slower: some drivers block the thread that asks the device to wait.
    Measured,
    /// The device waits for the other queue's fence, so that commands are submitted ahead of time.
    Device,
    /// A thread sees the fence signal and then submits the next stage's commands.
    Host,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        PipelineOptions {
            slots: 3,
            queue: 256,
            piece_bytes: 128 << 20,
            contexts: Contexts::Measured,
            order: Order::Measured,
            gather: true,
        }
    }
}

impl PipelineOptions {
    /// The options of the queue for blocking calls. Its pieces are small, so that the first upload ends early and the
    /// last download starts early.
    pub fn of_calls() -> Self {
        PipelineOptions { slots: 4, piece_bytes: 32 << 20, ..Default::default() }
    }

    /// Number of images of `problem` per piece, with pieces as equal as possible: at least one, but 0 for an empty
    /// batch. No buffer may have more than `max_elements` elements.
    pub fn images_each(&self, problem: &Conv2d, max_elements: usize) -> usize {
        let (n, image) = (problem.sizes().n, problem.with_batch(1));
        if n == 0 {
            return 0;
        }
        let image = image.input_len().max(image.output_len());
        let max = (self.piece_bytes / size_of::<f32>()).min(max_elements);
        let pieces = n.div_ceil((max / image).clamp(1, n));
        n.div_ceil(pieces)
    }
}

/// How many command queues of the device a pipeline uses. On GL each is a context on a thread of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contexts {
    /// Three if the device is faster with them, otherwise one. This is measured once for each device, and cached.
    Measured,
    /// One: the three stages run in sequence.
    One,
    /// One for upload and compute, one for download: the device switches less often.
    Two,
    /// One for each stage.
    Three,
}

/// What to do with a job while the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Wait until there is room.
    Wait,
    /// Return [`Error::Busy`](crate::Error::Busy).
    Refuse,
}

/// Computes a job on another device after the given error. Arguments: the error, the input, the output.
pub type FallbackFn = Arc<dyn Fn(&crate::Error, &[f32], &mut [f32]) -> Result<Run> + Send + Sync>;

/// One run of a prepared convolution, with its buffers.
pub struct Job {
    /// Its ticket.
    pub ticket: Ticket,
    /// The convolution.
    pub recipe: Arc<Recipe>,
    /// Its input, of the problem's input length.
    pub input: *const f32,
    /// Its output, of the problem's output length.
    pub output: *mut f32,
    /// Whether the output may be written before the job has succeeded. True if nothing can read it after a failure.
    pub output_is_private: bool,
    /// Kept alive until the job is done, for instance the buffers, unless the ticket keeps them.
    pub owner: Option<Arc<dyn std::any::Any + Send + Sync>>,
    /// Computes the job after a device failure. `None` if the caller chose the device by name.
    pub fallback: Option<FallbackFn>,
    /// Recomputes the whole output if the device fails permanently after part of the output was written. If this is
    /// set, pieces are written to the output as they arrive. If not, an output that is not private is assembled in a
    /// buffer first.
    pub partial_output_fallback: Option<FallbackFn>,
}

/// A slice that its owner lends for the time of a job, without a lifetime.
#[derive(Debug, Clone, Copy)]
pub struct BorrowedSlice {
    address: *const f32,
    len: usize,
}

// SAFETY: it is read-only, and by the contract of `get` nothing writes to the numbers while they are borrowed.
unsafe impl Send for BorrowedSlice {}
// SAFETY: as above.
unsafe impl Sync for BorrowedSlice {}

impl BorrowedSlice {
    /// Borrows `numbers`.
    pub fn new(numbers: &[f32]) -> Self {
        BorrowedSlice { address: numbers.as_ptr(), len: numbers.len() }
    }

    /// The numbers.
    ///
    /// # Safety
    /// The slice is still valid and unchanged, and stays so during `'a`.
    pub unsafe fn get<'a>(self) -> &'a [f32] {
        // SAFETY: address and length are those of a slice, which is still valid and unchanged, as promised.
        unsafe { std::slice::from_raw_parts(self.address, self.len) }
    }
}

// SAFETY: by the contract of `Queue::submit`, any thread may use the buffers that the pointers refer to until the job
// is done.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// A queue of jobs on one device. Uploads, computations and downloads of different jobs overlap.
pub trait Queue: Send + Sync {
    /// Submits a job; its ticket tells when it is done.
    ///
    /// # Safety
    /// Until the ticket is done, the input stays valid for reads and unchanged, and the output stays valid for writes
    /// and nothing else uses it. Both have the lengths of the recipe's problem.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) if the queue is full and `when_full` refuses;
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the device cannot compute the job;
    /// [`Error::Forked`](crate::Error::Forked). The job is then not queued, and its buffers are not used.
    unsafe fn submit(&self, job: Job, when_full: WhenFull) -> Result<()>;

    /// As [`Queue::submit`], for a job that brings its own weights: its recipe has none.
    ///
    /// # Safety
    /// As [`Queue::submit`]; `weights` have the length of the recipe's problem, and also stay valid and unchanged until
    /// the ticket is done.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    unsafe fn submit_once(&self, job: Job, weights: BorrowedSlice, when_full: WhenFull) -> Result<()>;

    /// Acquires a slot with memory for the input and output of `recipe`, to be filled and submitted in place. With
    /// [`WhenFull::Refuse`] it never waits for other jobs, waiters or holders of slots.
    ///
    /// # Errors
    /// As [`Queue::submit`]; also the device's failure to allocate the memory.
    fn acquire(&self, recipe: &Arc<Recipe>, when_full: WhenFull) -> Result<Box<dyn Slot>>;

    /// Closes the queue without waiting: it accepts no more jobs, cancels those that have not started, and ends the
    /// waits for room or slots with [`Error::Closed`](crate::Error::Closed).
    fn close(&self);

    /// Waits until no job is waiting or running.
    ///
    /// # Errors
    /// [`Error::Forked`](crate::Error::Forked) in a child process.
    fn flush(&self) -> Result<()>;

    /// Statistics so far.
    fn stats(&self) -> PipelineStats;
}

/// A slot of a queue. Its memory stays valid while the value lives; dropping the value releases the slot.
pub trait Slot: Send {
    /// The input's memory. Nothing else uses it unless a job is running in the slot.
    fn input(&self) -> *mut f32;
    /// The output's memory, as [`Slot::input`].
    fn output(&self) -> *const f32;
    /// Submits the slot's contents; the job counts as started. `ticket` is done when the output is ready.
    ///
    /// # Errors
    /// As [`Queue::submit`]; [`Error::Closed`](crate::Error::Closed) after the queue was closed. The memory is then
    /// unchanged.
    fn submit(&mut self, ticket: &Ticket) -> Result<()>;
}
