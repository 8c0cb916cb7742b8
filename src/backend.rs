//! Layer 4: the contract that an engine implements. The device layer above knows engines only through it.

use std::sync::Arc;

use crate::error::Result;
use crate::memory::Hierarchy;
use crate::problem::{Conv2d, Gemm};
use crate::report::{PipelineStats, Timing};

mod ticket;

pub use ticket::Ticket;

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Id of the device that did the work.
    pub device: Arc<str>,
    /// Name of its kernel.
    pub kernel: Arc<str>,
    /// What it took. After a fallback, only the successful part.
    pub timing: Timing,
    /// Why the work was not done where it was planned, if so.
    pub fallback: Option<Arc<str>>,
}

/// An engine bound to one device.
///
/// Callers have validated every problem and measured every buffer against it (`Conv2d::check_weights`,
/// `Conv2d::check_data`, `Gemm::check_data`); an engine need not check again. Empty batches of convolutions do not get here:
/// the device layer answers those itself. An engine writes an output only inside its bounds,
/// and leaves it untouched when it returns an error.
pub trait Backend: Send + Sync {
    /// The device's stable id: `cpu`, `gl:0`.
    fn id(&self) -> &str;

    /// The id, for a [`Run`] to keep. An engine whose calls may be short has it ready.
    fn shared_id(&self) -> Arc<str> {
        self.id().into()
    }

    /// What the device was measured to do. The first call may measure, for some tens of milliseconds.
    ///
    /// # Errors
    /// If the measurement failed; the device then is of no use.
    fn hierarchy(&self) -> Result<Hierarchy>;

    /// Prepares a convolution: kernel chosen and built, weights and bias packed or uploaded.
    ///
    /// # Errors
    /// What the device cannot do, or failed to do.
    fn plan_conv2d(&self, problem: &Conv2d, weights: &[f32], bias: Option<&[f32]>) -> Result<Box<dyn Plan>>;

    /// A queue for jobs of this engine's plans, with threads and memory of its own.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine has none; else what the device failed to do.
    fn queue(&self, _options: PipelineOptions) -> Result<Arc<dyn Queue>> {
        let what = "queues of its own".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Whether calls for `problem` move so much data that they had better go through [`Backend::stream`].
    fn streams(&self, _problem: &Conv2d) -> bool {
        false
    }

    /// The queue of calls from ordinary memory, the same one at every call.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the engine has none, as one for which nothing
    /// [`streams`](Backend::streams); else as [`Backend::queue`].
    fn stream(&self) -> Result<Arc<dyn Queue>> {
        let what = "a queue of calls".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// What a job that brings its own weights along ([`Queue::submit_once`]) is made from; nothing is on the device before that.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for what the engine cannot do.
    fn recipe(&self, _problem: &Conv2d, _bias: Option<&[f32]>) -> Result<Arc<Recipe>> {
        let what = "queues of its own".to_owned();
        Err(crate::Error::Unsupported { device: self.id().to_owned(), what })
    }

    /// Computes one convolution: a plan used once, unless the engine can do without one. Returns the kernel's name and
    /// the time.
    ///
    /// # Errors
    /// What the device cannot do, or failed to do; the output is untouched then.
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

    /// C = alpha op(A) op(B) + beta C. Returns the kernel's name and the time.
    ///
    /// # Errors
    /// What the device cannot do, or failed to do; C is untouched then.
    fn sgemm(&self, problem: &Gemm, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<(Arc<str>, Timing)>;
}

/// The memory that a plan takes, in bytes, beside the caller's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// What the plan holds as long as it lives: weights and bias, packed, transformed or uploaded.
    pub packed: usize,
    /// What a run works in at most. Kept for the runs that follow, of whatever plan.
    pub workspace: usize,
}

/// A prepared convolution, run any number of times, from any thread.
pub trait Plan: Send + Sync {
    /// Name of the kernel that runs, for instance `conv_direct_gl64`.
    fn kernel(&self) -> &str;

    /// The memory it takes, with the threads there are at present.
    fn memory(&self) -> Memory;

    /// Runs it.
    ///
    /// # Errors
    /// What the device failed to do; the output is untouched then.
    fn run(&self, input: &[f32], output: &mut [f32]) -> Result<Timing>;

    /// Whether its runs should go through [`Backend::stream`]: they move much data.
    fn streams(&self) -> bool {
        false
    }

    /// What the plan was made from, if jobs of it can go through the engine's [`Queue`].
    fn recipe(&self) -> Option<&Arc<Recipe>> {
        None
    }
}

/// What a plan is made from, kept to make it again.
pub struct Recipe {
    /// The convolution.
    pub problem: Conv2d,
    /// Its weights; none where jobs bring them along.
    pub weights: Vec<f32>,
    /// Its bias.
    pub bias: Option<Vec<f32>>,
    /// How the engine that made it computes it. Only that engine reads this.
    pub choice: Box<dyn std::any::Any + Send + Sync>,
}

/// How a queue is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineOptions {
    /// Places on the device, each with memory for the input and the output of one piece of work: 1 to 16. Three
    /// do where transfers take longest; where kernels do, eight keep a GPU computing.
    pub slots: usize,
    /// Jobs that may wait for a place; beyond that [`Pressure`] says what happens.
    pub queue: usize,
    /// A job whose input or output is larger than this is cut into pieces of whole images.
    pub piece_bytes: usize,
    /// Upload, compute and download in contexts of their own, so that they overlap, or all in one.
    pub contexts: Contexts,
    /// Who sees to it that a step begins behind the one before it.
    pub order: Order,
    /// Small jobs of one plan go through the device together, many in one place, if they come faster than one by one they
    /// would be done.
    pub gather: bool,
}

/// How a step in one context is put behind a step in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By the device, unless that was measured to be slower: some drivers keep the thread that asks the device to wait until the
    /// wait is over.
    Measured,
    /// The device waits for the other context's fence (`glWaitSync`), so that commands are given ahead of time.
    Device,
    /// A thread sees the fence signal and then gives the next step's commands.
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
    /// Those of the pipeline that calls from ordinary memory go through: pieces so small that the first is soon on its way and
    /// the last soon over.
    pub fn of_calls() -> Self {
        PipelineOptions { slots: 4, piece_bytes: 32 << 20, ..Default::default() }
    }

    /// How many images of `problem` go into one piece, all pieces being alike as far as that is possible: at least one, but
    /// none of an empty batch. No buffer may have more than `most_elements`.
    pub fn images_each(&self, problem: &Conv2d, most_elements: usize) -> usize {
        let (n, image) = (problem.sizes().n, problem.with_batch(1));
        if n == 0 {
            return 0;
        }
        let image = image.input_len().max(image.output_len());
        let most = (self.piece_bytes / size_of::<f32>()).min(most_elements);
        let pieces = n.div_ceil((most / image).clamp(1, n));
        n.div_ceil(pieces)
    }
}

/// How many contexts a GL pipeline works in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contexts {
    /// Three if the device is faster with them, which is measured once a device and kept; else one.
    Measured,
    /// One on one thread: the three steps follow each other.
    One,
    /// One for upload and compute, one for download, each on its own thread: the device switches less often.
    Two,
    /// One a step, each on its own thread.
    Three,
}

/// What to do with a job while the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Wait.
    Wait,
    /// Refuse it with [`Error::Busy`](crate::Error::Busy).
    Refuse,
}

/// Computes a job elsewhere when the device has failed, the error being given.
pub type StandIn = Arc<dyn Fn(&crate::Error, &[f32], &mut [f32]) -> Result<Run> + Send + Sync>;

/// A job: a prepared convolution and the buffers of one run of it.
pub struct Job {
    /// Its ticket.
    pub ticket: Ticket,
    /// The convolution.
    pub recipe: Arc<Recipe>,
    /// Its input, as long as the problem says.
    pub input: *const f32,
    /// Its output.
    pub output: *mut f32,
    /// Whether the output may be written before the job has succeeded: if nobody sees it otherwise.
    pub output_is_private: bool,
    /// What is to live as long as the job, its buffers for one, if the ticket does not keep them.
    pub owner: Option<Arc<dyn std::any::Any + Send + Sync>>,
    /// Who computes it if the device fails.
    pub stand_in: Option<StandIn>,
    /// Who computes it whole if the device fails for good after part of the output was written. With a rescuer, pieces go
    /// to their place as they come; without, an output that somebody sees is put together elsewhere first.
    pub rescue: Option<StandIn>,
}

/// Numbers that stay their owner's.
#[derive(Debug, Clone, Copy)]
pub struct Lent {
    address: *const f32,
    len: usize,
}

// SAFETY: an address of numbers that nobody writes to while they are lent.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// Lends `numbers`.
    pub fn new(numbers: &[f32]) -> Self {
        Lent { address: numbers.as_ptr(), len: numbers.len() }
    }

    /// The numbers.
    ///
    /// # Safety
    /// They are still lent, and stay so for as long as they are looked at.
    pub unsafe fn get<'a>(self) -> &'a [f32] {
        // SAFETY: the address and length of a slice, which, as promised, is still there and unchanged.
        unsafe { std::slice::from_raw_parts(self.address, self.len) }
    }
}

// SAFETY: the pointers are to buffers that, by the contract of `Queue::submit`, any thread may use until the job is done.
unsafe impl Send for Job {}
// SAFETY: as above.
unsafe impl Sync for Job {}

/// Jobs in flight on one device: uploads, computations and downloads overlap.
pub trait Queue: Send + Sync {
    /// Hands a job over; its ticket tells when it is done.
    ///
    /// # Safety
    /// Until the ticket is done, the input stays valid for reads and unchanged, and the output valid for writes and unused by anybody
    /// else; both are as long as the recipe's problem says.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy); [`Error::Unsupported`](crate::Error::Unsupported) for what the device cannot do;
    /// [`Error::Forked`](crate::Error::Forked). The job then never was.
    unsafe fn submit(&self, job: Job, pressure: Pressure) -> Result<()>;

    /// As [`Queue::submit`], for a plan used once: its recipe has no weights, and `weights` stay the caller's.
    ///
    /// # Safety
    /// As [`Queue::submit`]; until the ticket is done, `weights`, which are as many as the recipe's problem says, stay valid and
    /// unchanged, too.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    unsafe fn submit_once(&self, job: Job, weights: Lent, pressure: Pressure) -> Result<()>;

    /// A slot with memory for the input and output of `recipe`: to be filled and submitted in place. Refused, if that is wanted, at
    /// once: whoever else waits or holds slots, this waits for none of them.
    ///
    /// # Errors
    /// As [`Queue::submit`]; also what keeps the device from giving the memory.
    fn acquire(&self, recipe: &Arc<Recipe>, pressure: Pressure) -> Result<Box<dyn Slot>>;

    /// Takes no more work, calls off what has not begun, and sends away who waits for a place. Waits for nothing.
    fn close(&self);

    /// Waits until no job is waiting or running.
    ///
    /// # Errors
    /// [`Error::Forked`](crate::Error::Forked) in a child process.
    fn flush(&self) -> Result<()>;

    /// What it has done so far.
    fn stats(&self) -> PipelineStats;
}

/// A place in a queue's memory. The memory stays valid while the value lives; dropping it gives the place back.
pub trait Slot: Send {
    /// The input's memory. Nobody else uses it unless a job is running in the slot.
    fn input(&self) -> *mut f32;
    /// The output's memory, as [`Slot::input`].
    fn output(&self) -> *const f32;
    /// Computes what is in it; the job has then begun. `ticket` is done when the output is there.
    ///
    /// # Errors
    /// As [`Queue::submit`]; [`Error::Closed`](crate::Error::Closed) after the queue's end. The memory stays as it is then.
    fn submit(&mut self, ticket: &Ticket) -> Result<()>;
}
