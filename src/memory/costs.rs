//! The costs in the planners' models, in one place.
//!
//! Costs of a CPU are cycles of a core that starts two multiply-adds of a vector per cycle, unless stated otherwise.
//! Thresholds and block limits are not costs; they stay with the planner that uses them.

/// Costs on a CPU.
pub mod cpu {
    /// Tasks of a product of packed panels (`memory::blocking`), in multiplications of a panel of B by a panel of A.
    pub mod tasks {
        /// Packing a panel of B costs about as much as multiplying it by one panel of A.
        pub const PACKED_PANEL: f64 = 1.0;
        /// A panel of B that is a view costs a table of taps, and cache lines that are still on their way.
        pub const VIEWED_PANEL: f64 = 0.25;
        /// The tail: threads do not finish together. In tasks.
        pub const UNEVEN_END: f64 = 0.5;
    }

    /// Convolutions by im2col, explicit or implicit: panels of pixels.
    pub mod im2col {
        /// Copying a vector of a plane.
        pub const STAGING: f64 = 8.0;
        /// Packing a piece of a panel, a vector or less.
        pub const PACKING: f64 = 6.0;
        /// Loading, adding to and storing a vector of C.
        pub const PASSING: f64 = 6.0;
        /// A tile of a single vector, in vectors of wider tiles: it has a load for each multiply-add. Measured.
        pub const ALONE: f64 = 1.1;
        /// The overhead of a panel: its table of taps, its columns beside vectors. Measured on groups of 8 and 16
        /// channels.
        pub const PANEL: f64 = 250.0;
        /// The overhead of a vector of a register tile, in any kernel.
        pub const TILE: f64 = 6.25;
        /// Copying a vector of C out of a tile with gaps.
        pub const DROPPING: f64 = 4.0;
        /// Factor for a vector whose cache lines of B are each read in two halves. Measured: 1.05 to 1.15.
        pub const SPLIT: f64 = 1.06;
        /// Windows must be predicted to take at most this share of the time without them, for what their packed weights
        /// and short runs cost beyond the model.
        pub const WINDOWS: f64 = 0.85;
        /// Copying and packing one weight of a window, where weights are used once. Measured on a Zen 3: fresh memory
        /// is most of it.
        pub const WINDOW_WEIGHT: f64 = 15.0;
    }

    /// Convolutions of few pixels as dot products.
    pub mod dot_conv {
        /// Adding up the lanes of a tile.
        pub const ADDING: f64 = 50.0;
        /// Packing a weight next to a tile of a single vector, and next to wider ones, which leave time for it.
        /// Measured on 4x4 and 7x7 maps.
        pub const PACKING_WEIGHT: [f64; 2] = [0.25, 0.09];
        /// Transposing a square of 8 x 8.
        pub const TRANSPOSING: f64 = 14.0;
        /// Packing a piece of im2col's rows.
        pub const PACKING: f64 = 6.0;
    }

    /// Grouped and depthwise convolutions.
    pub mod grouped {
        /// Copying a vector into a band.
        pub const COPYING: f64 = 4.0;
    }

    /// Winograd's algorithm (`memory::winograd` and `cpu::winograd`).
    pub mod winograd {
        /// Share of the peak that the products reach.
        pub const PRODUCT_SHARE: f64 = 0.95;
        /// Share of the peak that the direct algorithm reaches.
        pub const DIRECT_SHARE: f64 = 0.9;
        /// Transforming one vector on the frequency side, of input or output.
        pub const TRANSFORM: f64 = 10.0;
        /// Making one vector of transformed weights, with gathering, where weights are used once. Measured on a Zen 5
        /// with AVX-512, in cache: 5.4 for F(2x2), 3.7 for F(4x4), 3.1 for F(6x6).
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
    /// Products in tiles (`memory::tiles`). Fitted to about 1,000 kernels on one GPU.
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
        /// Factor for a step of a workgroup that checks the places of its pixels and has its unit to itself. 3x3
        /// kernels on two GPUs took 1.26 to 1.48 times the prediction without it; 1x1 kernels did not.
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

    /// Kernels of the shader generator's variants (`shader::variant`).
    pub mod variants {
        /// Share of the multiply-add rate that one thread per output reaches.
        pub const FALLBACK_SHARE: f64 = 0.012;
        /// Seconds for one line of a convolution kernel in a thread of `Direct`, the fallback, that waits for it. Fitted, like the two
        /// below, to sixteen small layers on an H100.
        pub const FALLBACK_LINE: f64 = 0.45e-6;
        /// The same in a thread of `Grouped`, apart from its weights.
        pub const GROUPED_LINE: f64 = 0.18e-6;
        /// Seconds for each weight of such a line.
        pub const GROUPED_WEIGHT: f64 = 0.02e-6;
        /// Share of the multiply-add rate that `Grouped` reaches with many rows per thread.
        pub const GROUPED_SHARE: f64 = 0.25;
        /// Factor over the least transfer time in `Grouped`.
        pub const GROUPED_TRANSFERS: f64 = 1.5;
        /// Seconds for a step of `Pointwise` that it waits for. Fitted, like the two below, to four layers on an H100,
        /// batch 1 and 32.
        pub const POINTWISE_STEP: f64 = 0.11e-6;
        /// Seconds to add a part of the reduction.
        pub const POINTWISE_PART: f64 = 0.2e-6;
        /// Share of the multiply-add rate that `Pointwise` reaches with many threads.
        pub const POINTWISE_SHARE: f64 = 0.25;
        /// Factor over the least transfer time of Winograd's transforms: some of their data stay in caches.
        pub const TRANSFORMS: f64 = 0.88;
    }
}
