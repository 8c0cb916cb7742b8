//! Layer 4: the contract that an engine implements. The device layer above knows engines only through it.

use std::sync::Arc;

use crate::error::Result;
use crate::memory::Hierarchy;
use crate::problem::{Conv2d, Gemm};
use crate::report::Timing;

/// An engine bound to one device.
///
/// Callers have validated every problem and measured every buffer against it (`Conv2d::check_weights`,
/// `Conv2d::check_data`, `Gemm::check_data`); an engine need not check again. An engine writes an output only inside its bounds,
/// and leaves it untouched when it returns an error.
pub trait Backend: Send + Sync {
    /// The device's stable id: `cpu`, `gl:0`.
    fn id(&self) -> &str;

    /// The id, for a [`Run`](crate::Run) to keep. An engine whose calls may be short has it ready.
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
}
