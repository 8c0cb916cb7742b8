//! Every number of the GL engine that was chosen for speed or to share the device, in one place.
//!
//! Any module of `gl` may use it; it uses nothing. Numbers that follow from a device or a problem are measured or
//! computed elsewhere. Driver workarounds are in `driver/workarounds.rs`; the planner's cost model is in `memory`.

use std::ops::Range;
use std::time::Duration;

// Dispatches.

/// The time that a dispatch should take while no other context wants the device: short enough for a desktop on the same
/// GPU.
pub const DISPATCH_TARGET: Duration = Duration::from_millis(100);
/// The longest time that a dispatch may be predicted to take.
pub const DISPATCH_LIMIT: Duration = Duration::from_millis(250);
/// How much slower than the last problem a new one is assumed to be.
pub const NEW_PROBLEM_MARGIN: f64 = 4.0;
/// Workgroups of a dispatch from which it shows the device's speed: fewer may leave a GPU half empty.
pub const WIDE_DISPATCH: u32 = 4096;
/// Dispatches in flight at once, so that the device does not idle while the host handles the last one.
pub const DISPATCHES_IN_FLIGHT: usize = 2;
/// The time that a dispatch should take while other contexts have work for the device. Drivers switch contexts only
/// between dispatches, so an upload submitted during a long dispatch waits until it ends.
pub const SHARED_DISPATCH_TARGET: Duration = Duration::from_millis(1);

// Fallback kernels and products.

/// Operations that a fallback kernel spends on each output beside its multiply-adds: index arithmetic and the store.
pub const OPERATIONS_PER_OUTPUT: f64 = 32.0;
/// Floating-point operations from which a product is tiled. Smaller ones use the one kernel that needs no compiling.
pub const MIN_TILED_FLOPS: u64 = 50_000_000;
/// The most parts of a product's depth.
pub const MAX_DEPTH_SPLITS: usize = 32;

// The queue of small jobs.

/// The most workgroups of a dispatch: with 64 invocations each, they fill the largest devices.
pub const MAX_RESIDENT_GROUPS: u32 = 4096;
/// The most iterations that all loops of an invocation should make together.
pub const MAX_QUEUE_ITERATIONS: usize = 32_768;
/// The most outputs of a ticket for one invocation.
pub const MAX_TICKET_OUTPUTS: usize = 4;
/// The most tickets that a workgroup draws.
pub const MAX_DRAWS: usize = 64;
/// The most jobs of a batch.
pub const MAX_BATCH_JOBS: usize = 256;
/// The most bytes of a batch's inputs, and of its outputs. Transferring them takes about ten times as long as
/// submitting a slot's commands.
pub const MAX_BATCH_BYTES: usize = 4 << 20;
/// The largest input or output of a small job.
pub const SMALL_JOB_BYTES: usize = 64 << 10;
/// The longest device time of a small job. Longer ones gain nothing from batching.
pub const SMALL_JOB_TIME: Duration = Duration::from_millis(1);
/// The longest device time of a batch, so that no job waits long for the others in its batch.
pub const MAX_BATCH_TIME: Duration = Duration::from_millis(20);
/// Jobs of a batch before the device's rate is known: enough to show it, not just the time of one job.
pub const TRIAL_JOBS: usize = 16;

// Pipelines and streams.

/// Input and output bytes from which a call uses a pipeline: several threads copy, and stages overlap.
pub const STREAMED_BYTES: usize = 8 << 20;
/// Bytes of weights that are copied through mapped memory. Smaller ones gain nothing; larger ones would hold memory too
/// long.
pub const STAGED_WEIGHTS: Range<usize> = 256 << 10..64 << 20;
/// How long a thread rests between polls of the ring while the device works. It does not wait inside the driver:
/// drivers spin there, and the thread could accept no task.
pub const POLL_REST: Duration = Duration::from_micros(2);
/// How long a thread leaves the driver to other threads between polls of the device.
pub const DEVICE_LOOK: Duration = Duration::from_micros(10);
/// How long a thread polls at that pace; then it polls less often.
pub const EAGER_TIME: Duration = Duration::from_millis(10);
/// How long it then rests between polls.
pub const PATIENT_LOOK: Duration = Duration::from_micros(200);
/// The longest that a copy waits for kernels to be submitted before it.
pub const MAX_COPY_DELAY: Duration = Duration::from_millis(1);
/// Three contexts, or the other order, are used if they cut the time to this share or less.
pub const WORTHWHILE: f64 = 0.95;

// Copies by threads.

/// The most bytes that the calling thread copies by itself.
pub const SMALL_COPY: usize = 64 << 10;
/// The smallest part of a divided copy, in bytes.
pub const COPY_PART: usize = 256 << 10;
/// The most threads that copy. More were not faster on any machine measured.
pub const MAX_COPIERS: usize = 16;
/// Threads that one thread wakes; they wake the others.
pub const WAKES: usize = 3;
/// How long a copier without work stays awake.
pub const COPIER_AWAKE: Duration = Duration::from_micros(50);

// The tuner.

/// How long the device is kept busy before a measurement: an idle GPU runs at a fraction of its clock.
pub const WARM_UP: Duration = Duration::from_millis(250);
/// The fewest and most variants that the driver compiles at once. A limit lets the best be ready first.
pub const COMPILES_AT_ONCE: (usize, usize) = (2, 6);
/// How long the tuner waits before it asks the driver's compiler again.
pub const COMPILER_POLL: Duration = Duration::from_micros(300);
/// Rounds of timing for a runner-up while real work waits.
pub const EXPLORING_ROUNDS: usize = 3;
/// Shorter runs are timed together until they take this many seconds.
pub const TIMING_SECONDS: f64 = 3e-3;
/// The most runs that are timed together.
pub const MAX_TIMED_RUNS: usize = 20;

// What is kept in memory.

/// Generated programs that a context keeps beyond those in use.
pub const MAX_PROGRAMS: usize = 256;
/// The most numbers of images for which passes or parameters are kept. A pipeline cuts batches into pieces of one
/// size and a remainder.
pub const MAX_BATCH_SIZES: usize = 8;
/// The most problems whose choices are remembered for calls.
pub const MAX_CHOICES: usize = 1024;
/// The most shapes for which passes are kept: a program loops over the layers of a block.
pub const MAX_QUEUED_SHAPES: usize = 8;
/// The longest shader text, in bytes, whose binary is kept. Only callers' shaders are longer.
pub const MAX_CACHED_TEXT: usize = 48 << 10;
