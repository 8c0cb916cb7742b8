//! One GL device: found and probed, opened as an engine, worked by a thread of its own.
//!
//! `crate::device` reaches it through `Backend`. It uses every other folder of `gl` but `lab` and `reference`.

pub mod contexts;
pub mod discovery;
pub mod engine;
pub mod registry;
pub mod session;
pub mod worker;
