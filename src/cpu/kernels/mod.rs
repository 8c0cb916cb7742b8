//! Micro-kernels: the innermost product of two packed panels, and the epilogue that writes it to C.
//!
//! A kernel gets pointers, a depth and strides. It knows nothing of shapes, threads or memory. The loops around it
//! (`block.rs`) are generic over the [`Kernel`] trait, so a new instruction set is one more implementation.
//!
//! Only `src/cpu` calls this folder. It does no I/O, allocates nothing, and touches only the memory that its callers
//! name.
//!
//! | file | what |
//! | --- | --- |
//! | [`contract`] | the [`Kernel`] trait, its operands, and what the loops assume about a kernel |
//! | `avx512`, `avx2` | intrinsics and tile sizes of the x86 kernels |
//! | [`vector`] | the tile, written once for all instruction sets with fused multiply-adds and masks |
//! | `portable` | the fallback kernel in plain Rust |
//! | `transpose` | transposes in registers |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(super) mod contract;
mod portable;
#[cfg(test)]
mod tests;
pub(super) mod transpose;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports, unused_macros))]
pub(super) mod vector;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use contract::{
    A_AHEAD, CHANNELWISE, ChannelwiseTile, CopyBlock, DOT_LANES, Dots, Epilogue, Kernel, MAX_NR, MAX_TILE,
    NextRows, Panel, Run, RunTile, Tap, Tile, TransposeBlock, View, ensure_kernel, prefetch,
};
pub use portable::Portable;
