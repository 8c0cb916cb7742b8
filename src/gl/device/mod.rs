//! One GL device: found and probed, opened as an engine, run by a thread of its own.
//!
//! `crate::device` reaches it through `Backend`, and `reference` and `lab` through `registry`. It may use every other
//! folder of `gl` except `lab` and `reference`.

pub mod contexts;
pub mod discovery;
pub mod engine;
pub mod memory;
pub mod names;
pub mod plan;
pub mod registry;
pub mod session;
pub mod worker;
