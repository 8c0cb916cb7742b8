//! Layer 3: GLSL text.
