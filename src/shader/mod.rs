//! Layer 3: GLSL text.

pub mod source;
