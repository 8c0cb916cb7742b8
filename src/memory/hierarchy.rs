//! A device as the planner sees it: rates, nothing else.

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
}
