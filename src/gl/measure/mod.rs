//! Measuring a device: the rates that the planner uses, the rates that `auto` compares devices by, and how many
//! iterations its loops make.
//!
//! `tune` and `device` ask for them once a device; `cache` keeps them. Measurements run shaders through `execution`.

pub mod hierarchy;
pub mod iterations;
pub mod rates;
