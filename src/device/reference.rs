//! The reference interface's functions, re-exported from the GL engine for `ffi`, which has no access to it.
//!
//! These are the GL engine's own functions, so a call costs nothing extra. Unlike a [`Device`](super::Device), they
//! work on process-wide state and leave a context current on the calling thread.

pub(crate) use crate::gl::reference::{
    cleanup, compile, compile_custom, create_buffer, download_buffer, enqueue, execute, execute_custom,
    execute_source, free_buffer, initialize, is_initialized, is_reference_program, program,
    set_shader_source,
};
