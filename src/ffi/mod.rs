//! Layer 8: the C ABI.
//!
//! Only C, Fortran and tests call it; no other module does. It may use `ranks`, `device` and the layers below them, but no
//! engine (`cpu`, `gl`). It converts what C passes (pointers, lengths, ids) into slices, validated problems and owned values,
//! calls `device`, and converts the result into a status.
//!
//! There is no algorithm here, and no exported function anywhere else. The names are those of C. `build.rs` generates
//! `include/sparkle.h` and `include/sparkle_reference.h` from these files, so the doc comments of the functions are the comments of the header.
//!
//! # What C must guarantee for every function
//!
//! A pointer that is not NULL points to memory of the size that its length argument or its type says (for a struct with
//! a `size` field: what `size` says). The memory is readable, and writable unless `const`, for the duration of the
//! call. During the call no other thread writes to it, nor reads it if it is an output. A C string ends with a NUL.
//! Everything else is checked:
//!
//! | argument | result |
//! | --- | --- |
//! | NULL where a pointer is required | `SPARKLE_ERROR_NULL_POINTER` |
//! | a misaligned pointer, an output that overlaps an input, a length that does not match the problem | `SPARKLE_ERROR_INVALID_ARGUMENT` |
//! | a handle that was closed, never existed, or is of another kind | `SPARKLE_ERROR_INVALID_HANDLE` |
//! | a GL handle from before a `fork()` | `SPARKLE_ERROR_FORKED` |
//! | any integer | checked in 64 bits before it is used as a size |
//!
//! # Ownership
//!
//! A handle is an id in a table (`ffi::handle`). The table owns the value until C destroys the handle or finalises the
//! library. A running call shares the ownership, so a value is not freed during a call. Buffers, strings and structs
//! that C passes remain the caller's. Strings that are returned belong to the library: they are static, or the thread's
//! last error.
//!
//! # Threads
//!
//! | functions | from several threads at once |
//! | --- | --- |
//! | all `sparkle_*` | yes, also on the same handles; last error and last timing are per thread |
//! | `sparkle_finalize` | yes; running calls end normally, later ones see invalid handles |
//! | the reference symbols (`gpu_*`, ...) | yes; they share one state, and a lock serialises them |
//!
//! # Panics
//!
//! No panic leaves the library. The body of each exported function is one `boundary!`, which turns a panic into
//! `SPARKLE_ERROR_INTERNAL` (or the function's failure value) with the panic's message as the last error. A test reads
//! these sources and rejects an exported function with any other body. The exceptions are the helpers of one
//! instruction each (`ffi::helpers`), which cannot panic and for which a boundary would be too slow; the test lists
//! them.

// The names are C's.
#![allow(non_camel_case_types, non_snake_case)]
// The contract above holds for every function. Repeating it at each one would bloat the header.
#![allow(clippy::missing_safety_doc)]
// The argument lists are given by the ABI.
#![allow(clippy::too_many_arguments)]

#[macro_use]
mod boundary;
mod handle;
mod instructions;
mod mapping;
#[cfg(test)]
mod panics;
mod pointer;
#[cfg(test)]
mod sizes;
mod text;

pub mod architecture;
pub mod buffer;
pub mod conv1d;
pub mod conv2d;
pub mod conv2d_forms;
pub mod device;
pub mod epilogue;
pub mod gemm;
pub mod group;
pub mod group_gemm;
pub mod helpers;
pub mod kernel;
pub mod launch;
pub mod library;
pub mod loops;
pub mod pipeline;
pub mod plan;
pub mod predict;
pub mod reference;
pub mod shares;
pub mod status;
pub mod timing;
pub mod transport;
pub mod tuning_history;
