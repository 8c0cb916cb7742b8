//! Block sizes of a problem for this CPU and a kernel.

use super::caches;
use super::kernels::Kernel;
use crate::memory::blocking::{Blocking, Products, Ukernel};

/// Cuts `problem` into blocks for this CPU's caches, the kernel's tile and `threads` threads.
pub fn plan<K: Kernel>(_: K, problem: impl Into<Products>, threads: usize) -> Blocking {
    Blocking::plan(caches::described(), Ukernel { mr: K::MR, nr: K::NR }, problem, threads)
}
