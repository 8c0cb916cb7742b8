//! Chooses the variant that computes a problem: by prediction, by earlier measurements, or by measuring now.
//!
//! `device`, `reference` and `lab` call it. It builds and times candidates through `execution` and keeps records in
//! `cache`.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `choose` | the policy, the order of candidates, the choice; start here |
//! | `device` | the device as the planner sees it |
//! | `race` | builds, checks and times the shortlist |
//! | `explore` | times a runner-up beside a plan that runs |
//! | `timing` | device seconds of a run |

mod choose;
mod device;
mod explore;
mod race;
pub mod timing;

#[cfg(feature = "lab")]
pub use choose::tune;
pub use choose::{
    choose, choose_built, expected, first_that_works, policy, prepare, prepare_fused, prepare_part,
};
#[cfg(test)]
pub use choose::{order, refuse, stays_with_fallback};
#[cfg(feature = "lab")]
pub use device::clip_batch;
pub use device::gpu;
pub use explore::explore;
