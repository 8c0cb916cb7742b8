//! Layer 3: the compiler of the kernel language, as pure functions: Fortran text in; a checked tree, GLSL and messages out.
//!
//! The engines, the C interface and the command line call it. It uses only `allocate` and `error`: no OpenGL, no files, no
//! clock. It never panics, whatever the text.
//!
//! - [`span`](mod@span): places in the source.
//! - [`tree`](mod@tree): the checked tree, the contract for back ends.

pub mod span;
pub mod tree;
