//! Measures a device: the rates that the planner uses, the rates by which `auto` compares devices, what no program exceeds,
//! and how many iterations its loops make.
//!
//! `tune` and `device` call it once for each device; `cache` keeps the results. Measurements run shaders through
//! `execution`.

pub mod ceilings;
pub mod hierarchy;
pub mod iterations;
pub mod rates;
