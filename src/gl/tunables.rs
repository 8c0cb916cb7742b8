//! Every number of the GL engine that was chosen for speed or for good manners, in one place.
//!
//! Anything in `gl` may use it; it uses nothing. Numbers that a device or a problem gives are measured or computed, not here. Those that
//! work around a driver are in `driver/workarounds.rs`; the planner's cost model is in `memory`.

use std::ops::Range;
use std::time::Duration;

// Dispatches.

/// What a dispatch should take while no other context wants the device: short enough for a desktop on the
/// same GPU.
pub const DISPATCH_TARGET: Duration = Duration::from_millis(100);
/// What no dispatch should be predicted to exceed.
pub const DISPATCH_LIMIT: Duration = Duration::from_millis(250);
/// How much slower than its predecessors a problem that never ran is assumed to be.
pub const NEW_PROBLEM_MARGIN: f64 = 4.0;
/// Dispatches of fewer workgroups may leave a GPU half empty: they do not show how slow it is.
pub const WIDE_DISPATCH: u32 = 4096;
/// Dispatches in flight at once, so that the device does not idle while the last one is looked at.
pub const DISPATCHES_IN_FLIGHT: usize = 2;
/// What a dispatch should take while other contexts have work for the device. Drivers switch contexts between
/// two dispatches at best, so an upload submitted during a long dispatch waits until it ends.
pub const SHARED_DISPATCH_TARGET: Duration = Duration::from_millis(1);

// Fallback kernels and products.

/// What a fallback kernel spends on each output beside its multiply-adds, in operations: index arithmetic and
/// the store.
pub const OPERATIONS_PER_OUTPUT: f64 = 32.0;
/// Products with less work stay with the one kernel that needs no compiling.
pub const MIN_TILED_FLOPS: u64 = 50_000_000;
/// The most parts of a product's depth.
pub const MAX_DEPTH_SPLITS: usize = 32;

// The queue of small jobs.

/// The most workgroups of a dispatch: of 64 threads each, what fills the largest devices.
pub const MAX_RESIDENT_GROUPS: u32 = 4096;
/// Iterations of all its loops together that an invocation should make.
pub const MAX_QUEUE_ITERATIONS: usize = 32_768;
/// The most outputs of a ticket for one invocation.
pub const MAX_TICKET_OUTPUTS: usize = 4;
/// The most tickets that a workgroup draws.
pub const MAX_DRAWS: usize = 64;
/// The most jobs of a batch.
pub const MAX_BATCH_JOBS: usize = 256;
/// The most bytes of a batch's inputs, and of its outputs: they take a bus about ten times as long as a
/// slot's commands cost.
pub const MAX_BATCH_BYTES: usize = 4 << 20;
/// The largest input or output of a small job.
pub const SMALL_JOB_BYTES: usize = 64 << 10;
/// A job that takes the device longer is not small: it gains nothing from batching.
pub const SMALL_JOB_TIME: Duration = Duration::from_millis(1);
/// What a batch should take the device at most, so that no job waits long for the others in its batch.
pub const MAX_BATCH_TIME: Duration = Duration::from_millis(20);
/// Jobs of a batch while nothing is known of the device. So many show its rate, not what one job takes alone.
pub const TRIAL_JOBS: usize = 16;

// Pipelines and streams.

/// Input and output bytes of a call from which a pipeline pays: several threads copy, and stages overlap.
pub const STREAMED_BYTES: usize = 8 << 20;
/// Bytes of weights that are copied through mapped memory. Fewer are not worth it; for more, memory would be
/// kept too long.
pub const STAGED_WEIGHTS: Range<usize> = 256 << 10..64 << 20;
/// How long a thread rests between looks at the ring while the device works. It does not wait inside the
/// driver: drivers spin there, and the thread could accept no task.
pub const POLL_REST: Duration = Duration::from_micros(2);
/// How long a thread leaves the driver to the other threads between looks at the device.
pub const DEVICE_LOOK: Duration = Duration::from_micros(10);
/// How long a thread keeps polling; a device that takes longer is looked at less often.
pub const EAGER_TIME: Duration = Duration::from_millis(10);
/// How long it then sleeps between looks.
pub const PATIENT_LOOK: Duration = Duration::from_micros(200);
/// How long a copy waits at most for kernels to be submitted before it.
pub const MAX_COPY_DELAY: Duration = Duration::from_millis(1);
/// The share of the time that three contexts, or the other order, must come down to before they are used.
pub const WORTHWHILE: f64 = 0.95;

// Copies by threads.

/// Copies up to this many bytes are made by the thread that asks.
pub const SMALL_COPY: usize = 64 << 10;
/// No part of a copy is smaller.
pub const COPY_PART: usize = 256 << 10;
/// More threads do not copy faster on any machine measured.
pub const MAX_COPIERS: usize = 16;
/// Threads that one thread wakes. They wake the others.
pub const WAKES: usize = 3;
/// How long a thread without work stays awake.
pub const COPIER_AWAKE: Duration = Duration::from_micros(50);

// The tuner.

/// How long the device is kept busy before anything counts: an idle GPU runs at a fraction of its clock.
pub const WARM_UP: Duration = Duration::from_millis(250);
/// Variants that the driver compiles at once, at least and at most: the best should be ready first.
pub const COMPILES_AT_ONCE: (usize, usize) = (2, 6);
/// How long the tuner waits before it asks the driver's compiler again.
pub const COMPILER_POLL: Duration = Duration::from_micros(300);
/// Rounds that a runner-up is timed for while real work waits.
pub const EXPLORING_ROUNDS: usize = 3;
/// Seconds of runs that are timed together, where one is shorter.
pub const TIMING_SECONDS: f64 = 3e-3;
/// The most runs that are timed together.
pub const MAX_TIMED_RUNS: usize = 20;

// What is kept in memory.

/// Generated programs that a context keeps beyond those in use.
pub const MAX_PROGRAMS: usize = 256;
/// Numbers of images for which passes or parameters are kept: a pipeline cuts batches into pieces of one size
/// and a rest.
pub const MAX_BATCH_SIZES: usize = 8;
/// The most problems whose choices are remembered for calls.
pub const MAX_CHOICES: usize = 1024;
/// Shapes for which passes are kept: a program in a loop over the layers of a block.
pub const MAX_QUEUED_SHAPES: usize = 8;
/// Bytes of a shader's text beyond which its binary is not kept: only callers' shaders are longer.
pub const MAX_CACHED_TEXT: usize = 48 << 10;
