//! Every number of the CPU engine that was chosen for speed, in one place.
//!
//! Anything in `cpu` may use it; it uses nothing. The costs of the planner's models are in `memory::costs`, its limits on block sizes in
//! `memory::blocking`.

use std::time::Duration;

// Threads.

/// Time that an idle thread spins: somewhat more than waking a thread takes.
pub const SPIN_TIME: Duration = Duration::from_micros(50);
/// Maximum time that an idle thread spins while callers are computing, whose next jobs will come soon.
pub const MAX_SPIN_TIME: Duration = Duration::from_millis(1);
/// Checks between two readings of the clock.
pub const SPINS_PER_CLOCK_READ: usize = 32;
/// Sleeping helpers that one thread wakes. They wake others.
pub const MAX_WAKES: usize = 2;
/// Maximum number of threads that is accepted. More is taken for a mistake.
pub const MAX_THREADS: usize = 1024;
/// Maximum shares of a step; more threads use the same shares. All shares of a step take less than 64 KiB.
pub const MAX_SHARES: usize = 256;
/// Checks for the end of a step before a thread yields its core.
pub const SPINS: usize = 256;

// Tasks.

/// Tasks of grouped convolutions for each thread, so that uneven ones balance.
pub const GROUPED_TASKS: usize = 4;
/// Minimum operations of such a task of a grouped convolution. With fewer, taking the task would cost too much.
pub const GROUPED_TASK_FLOPS: u64 = 200_000;
/// Vectors of an output row that a band has at least, if it fits in the workspace.
pub const MIN_BAND_VECTORS: usize = 4;
/// Output rows that a band has at least, if possible. With fewer, too many input rows are copied more than once.
pub const MIN_BAND_ROWS: usize = 8;
/// Tasks of convolutions of NHWC images for each thread.
pub const CHANNELS_LAST_TASKS: usize = 4;
/// Maximum tiles of pixels of such a task: its list of tiles is on the stack.
pub const MAX_BAND_TILES: usize = 128;
/// The same for dot convolutions.
pub const DOT_TASKS: usize = 2;
/// Tasks of copying shared planes, for each thread.
pub const STAGE_TASKS: usize = 3;

// Sizes at which a way pays.

/// `auto` uses the direct algorithm for problems with less work.
pub const MIN_WINOGRAD_FLOPS: u64 = 20_000_000;
/// Convolutions with at least this much work wait for a measurement of the ways to feed a tile, if there is none yet.
pub const MIN_MEASURED_FLOPS: u64 = 4_000_000;
/// Products with at most this many multiply-adds skip the planner.
pub const MAX_TINY: usize = 1 << 10;
/// Maximum elements of shared planes for each thread: 2 MiB.
pub const MAX_STAGED: usize = 1 << 19;

// Prefetching.

/// Prefetch distance of a packed A, in elements. It is one page: the hardware prefetcher stops at page ends.
pub const A_AHEAD: isize = 1024;
/// Prefetch distance of B in rows while it is packed: the latency of the last-level cache.
pub const B_AHEAD: usize = 16;
/// Depths between the transpose and the read: a load from a store that has not reached the cache waits for it.
pub const TRANSPOSE_LEAD: usize = 16;
/// Prefetch distance of rows, in depths after those that are transposed.
pub const PREFETCH_DEPTHS: usize = 64;

// What is remembered, and what is measured.

/// Problems whose methods a thread caches: the layers of a network.
pub const MAX_RECENT: usize = 64;
/// Maximum elements of packed weights that a thread keeps: 16 MiB.
pub const MAX_KEPT: usize = 4 << 20;
/// Winograd forms that are measured besides the direct algorithm.
pub const MAX_RACED_FORMS: usize = 2;
/// Timed runs of each candidate, alternating, after one run that does not count. The best run decides.
pub const AUTOTUNE_ROUNDS: usize = 3;

// When calls contradict measured rates.

/// Minimum time of a call that is compared with the rates. The clock and the start of threads blur shorter ones.
pub const MIN_WATCHED: Duration = Duration::from_micros(500);
/// A call that is this many times faster than the rates allow contradicts them: more than the best of several runs
/// varies.
pub const CONTRADICTING_GAIN: f64 = 1.05;
/// A call is slow if it takes this many times the predicted time.
pub const CONTRADICTING_LOSS: f64 = 2.0;
/// Slow calls in a row that contradict the rates.
pub const SLOW_CALLS: u32 = 16;
