//! A device as the planner sees it: rates and caches, nothing else.

/// What a device was measured to do.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Hierarchy {
    /// fp32 operations a second that the engine's kernels reach on a problem of middling size.
    pub flops: f64,
    /// Bytes a second between the compute units and the device's main memory.
    pub memory: f64,
    /// Bytes a second from the caller's memory to the device's; infinite where they are the same.
    pub upload: f64,
    /// Bytes a second back; infinite where they are the same.
    pub download: f64,
    /// Seconds from handing over an empty job to its end.
    pub launch: f64,
    /// Its caches, as far as known.
    pub caches: Caches,
}

/// The caches between a core and memory, in bytes. Zero means not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Caches {
    /// Level 1, of data.
    pub l1: usize,
    /// Level 2.
    pub l2: usize,
    /// Level 3.
    pub l3: usize,
    /// Hardware threads that share one level 3.
    pub l3_threads: usize,
    /// A line.
    pub line: usize,
}

impl Caches {
    /// Nothing is known.
    pub const UNKNOWN: Self = Caches { l1: 0, l2: 0, l3: 0, l3_threads: 0, line: 0 };
}
