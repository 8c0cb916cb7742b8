//! Layer 8: the C ABI.
