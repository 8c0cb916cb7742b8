//! Layer 8: the C ABI.
//!
//! It turns what C hands over (pointers, lengths, ids) into what the layers below take (slices, validated problems,
//! owned values), calls them, and turns the result into a status. There is no algorithm here, and no exported
//! function anywhere else. The names are C's own, so that they can be searched for on both sides; `build.rs` makes
//! `include/sparkle.h` out of these files, and the comments of the functions are the comments of the header.
//!
//! # What C must guarantee, once for all functions
//!
//! A pointer that is not NULL points to memory of the size its length argument or its type says (for a `size`-led struct: what
//! `size` says), readable, and writable unless `const`, for as long as the call takes; no other thread writes to it
//! meanwhile, nor reads it if it is an output. A C string ends with a NUL. Nothing else is taken on trust:
//!
//! | given | answer |
//! | --- | --- |
//! | NULL where a pointer is required | `SPARKLE_ERROR_NULL_POINTER` |
//! | a misaligned pointer, an output that overlaps an input, a length that does not fit the problem | `SPARKLE_ERROR_INVALID_ARGUMENT` |
//! | a handle that was closed, made up, or of the other kind | `SPARKLE_ERROR_INVALID_HANDLE` |
//! | a handle to GL from before a `fork()` | `SPARKLE_ERROR_FORKED` |
//! | any integer at all | checked in 64 bits before it sizes anything |
//!
//! # Ownership
//!
//! A handle is an id in a table (`ffi::handle`), which owns the value until C destroys the handle or finalises the
//! library; a running call shares the ownership, so nothing is freed under it. Buffers, strings and structs stay the
//! caller's; strings that come back are the library's (static, or the thread's last error).
//!
//! # Threads
//!
//! | functions | from several threads at once |
//! | --- | --- |
//! | all `sparkle_*` | yes, on the same handles too; last error and last timing are each thread's own |
//! | `sparkle_finalize` | yes; calls that run meanwhile end normally, later ones see invalid handles |
//! | the reference symbols (`gpu_*`, ...) | yes; they share one state and take turns |
//!
//! # Panics
//!
//! None gets out. Each exported function's body is one `boundary!`, which turns a panic into
//! `SPARKLE_ERROR_INTERNAL` (or the function's own failure value) with the panic's message as the last error. A test
//! reads these sources and fails on an exported function with any other body. The exceptions are the helpers of one
//! instruction each, which cannot panic and would be nothing but boundary (`ffi::helpers`); the test names them.

// The names are C's.
#![allow(non_camel_case_types, non_snake_case)]
// The contract above holds for every function; repeated under each it would fill the header.
#![allow(clippy::missing_safety_doc)]
// The ABI is as wide as it is.
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

pub mod architecture;
pub mod conv2d;
pub mod device;
pub mod gemm;
pub mod helpers;
pub mod library;
pub mod pipeline;
pub mod plan;
pub mod reference;
pub mod status;
pub mod timing;
pub mod tuning_history;
