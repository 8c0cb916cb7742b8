//! Kernels of the kernel language on the CPU: a masked block interpreter.
//!
//! Only `engine` calls it. It touches the launch's arrays and the pool. A kernel becomes a list of flat operations (`lower`,
//! `program`). An operation covers all lanes of a block of points before the next one begins, so that the cost of interpreting is
//! spread over 256 points or more, and the loops over lanes are vectorised (`lanes`, `operations`, compiled for each instruction
//! set by `isa`). Elements in the order of points are read and written in place (`memory`). Branches and loops are masks of lanes
//! (`step`). A workgroup is one block, so that a barrier needs no operation. Blocks go to the threads of the pool (`run`), and
//! reductions combine their results in a fixed tree (`reduce`): the bits do not depend on the number of threads. `checker`
//! computes a launch slowly and looks for faults in the kernel.

mod checker;
pub mod finish;
mod isa;
mod lanes;
mod lower;
mod memory;
mod number;
mod operations;
mod program;
mod reduce;
mod registers;
mod run;
mod step;
#[cfg(test)]
mod tests;

use super::isa::Isa;
use crate::error::Result;
use crate::kernel::bind::Launch;
use crate::report::Timing;

pub use checker::{Checked, Coverage, check};

/// Runs a launch.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory); the arrays are then untouched.
pub fn launch(isa: Isa, launch: &Launch<'_>) -> Result<Timing> {
    run::launch(isa, launch)
}
