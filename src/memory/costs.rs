//! The costs in the planners' models, in one place.
//!
//! Costs of a CPU are cycles of a core that starts two multiply-adds of a vector per cycle, unless stated otherwise.
//! Thresholds and block limits are not costs; they stay with the planner that uses them.

/// Costs on a CPU.
pub mod cpu {
    /// Tasks of a product of packed panels ([`blocking`](crate::memory::blocking)), in multiplications of a panel of B by a
    /// panel of A.
    pub mod tasks {
        /// Packing a panel of B costs about as much as multiplying it by one panel of A.
        pub const PACKED_PANEL: f64 = 1.0;
        /// A panel of B that is a view costs a table of taps, and cache lines that are still on their way.
        pub const VIEWED_PANEL: f64 = 0.25;
        /// The tail: threads do not finish together. In tasks.
        pub const UNEVEN_END: f64 = 0.5;
    }

    /// Winograd's algorithm ([`winograd`](crate::memory::winograd), `cpu::winograd`).
    pub mod winograd {
        /// Share of the peak that the products reach.
        pub const PRODUCT_SHARE: f64 = 0.95;
        /// Share of the peak that the direct algorithm reaches.
        pub const DIRECT_SHARE: f64 = 0.9;
        /// Transforming one vector on the frequency side, of input or output.
        pub const TRANSFORM: f64 = 10.0;
        /// Making one vector of transformed weights, with gathering, where weights are used once. Measured on a Zen 5 with
        /// AVX-512, in cache: 5.4 for F(2x2), 3.7 for F(4x4), 3.1 for F(6x6).
        pub const WEIGHTS: f64 = 3.5;
        /// Packing one weight for the direct algorithm, where weights are used once, while the first panel is computed.
        /// Measured on the same machine: 0.1 to 0.3.
        pub const DIRECT_PACKING: f64 = 0.3;
        /// Bytes per cycle from outside the L2 cache, at least.
        pub const OUTER_BYTES: f64 = 8.0;
        /// Bytes per cycle from the L3 cache.
        pub const L3_BYTES: f64 = 16.0;
        /// Factor by which a block's products must take longer than the fetch of U, because bandwidth varies.
        pub const FETCH_MARGIN: f64 = 1.75;
    }
}

/// Costs on a GPU.
pub mod gpu {
    /// Products in tiles ([`tiles`](crate::memory::tiles)). Fitted to about 1,000 kernels on one GPU.
    pub mod tiled {
        /// Registers of a compute unit, of 32 bits. GL does not report them; GPUs of all vendors have about as many.
        pub const UNIT_REGISTERS: f64 = 65536.0;
        /// Registers of a thread, apart from its sums and the operands of two steps.
        pub const OTHER_REGISTERS: f64 = 53.0;
        /// The most workgroups that are resident on a unit.
        pub const MAX_RESIDENT: f64 = 16.0;
        /// Threads that keep a unit busy.
        pub const BUSY_THREADS: f64 = 210.0;
        /// A read from shared memory, in multiply-adds of one thread.
        pub const READ: f64 = 0.79;
        /// The overhead of a step, in multiply-adds of one thread.
        pub const STEP: f64 = 1.0;
        /// Moving a pixel into shared memory together with its neighbours, in multiply-adds of one thread.
        pub const MOVE: f64 = 2.1;
        /// Moving a pixel that is gathered by itself with bounds checks, in multiply-adds of one thread.
        pub const GATHER: f64 = 25.3;
        /// Moving a weight into shared memory, in multiply-adds of one thread.
        pub const WEIGHT: f64 = 6.0;
        /// Factor for a step of a workgroup that checks the places of its pixels and has its unit to itself. 3x3 kernels on
        /// two GPUs took 1.26 to 1.48 times the prediction without it; 1x1 kernels did not.
        pub const ALONE: f64 = 1.3;
        /// The beginning and end of a tile, in slices.
        pub const PROLOGUE: f64 = 6.4;
        /// The least seconds for a slice: a round trip to memory.
        pub const LATENCY: f64 = 0.42e-6;
        /// Factor over the least transfer time in a kernel that also computes.
        pub const MIXED: f64 = 2.5;
        /// The same factor for writing and reading the parts of a split reduction.
        pub const PARTS: f64 = 0.93;
    }
}
