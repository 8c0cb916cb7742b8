//! Whether a pipeline is faster with three contexts than with one: measured once a device, and kept.
//!
//! Three contexts let uploads, kernels and downloads overlap where the device has engines for each and the driver uses them. Where it
//! does not, they only cost switches from one to the other. No driver says which it is; so the same few jobs, nearly all
//! of whose time is transfers, go through a pipeline of either kind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capabilities::Capabilities;
use super::pipeline::Pipeline;
use crate::backend::{Contexts, PipelineOptions, Pressure, Queue, Recipe, Slot, Ticket};
use crate::error::Result;
use crate::problem::{Conv2d, Conv2dDesc};
use crate::shader::variant::Variant;
use crate::store::store;

/// What three contexts must save to be worth their threads.
const WORTH: f64 = 0.95;
/// Jobs before those that count, and those.
const JOBS: [usize; 2] = [6, 12];
/// Images of 4 MiB in a job: to switch between contexts takes as long as to move some of them.
const IMAGES: i64 = 16;

/// Seconds a job with one context and with three.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    pub one: f64,
    pub three: f64,
}

impl Seconds {
    /// Which it is.
    pub fn contexts(self) -> Contexts {
        if self.three < WORTH * self.one { Contexts::Three } else { Contexts::One }
    }

    /// That in words.
    pub fn words(self) -> String {
        let Seconds { one, three } = self;
        let count = if self.contexts() == Contexts::Three { "three contexts" } else { "one context" };
        format!(
            "{count}: a measured stream takes {:.3} ms a job in three, {:.3} in one",
            three * 1e3,
            one * 1e3
        )
    }
}

/// The entry that a device's measurement is kept under.
fn key(Capabilities { vendor, renderer, version, .. }: &Capabilities) -> String {
    format!("{vendor}\n{renderer}\n{version}")
}

/// What was measured of this device, by this process or one before it.
pub fn known(capabilities: &Capabilities) -> Option<Seconds> {
    let [one, three] = store().load("contexts", &key(capabilities))?;
    Some(Seconds { one, three })
}

/// The same, measured now if need be, with pipelines that `start` makes. If that fails, three: they are right everywhere.
pub fn measured(capabilities: &Capabilities, start: &dyn Fn(PipelineOptions) -> Result<Pipeline>) -> Seconds {
    if let Some(known) = known(capabilities) {
        return known;
    }
    match measure(capabilities, start) {
        Ok(seconds) => {
            store().save("contexts", &key(capabilities), &[seconds.one, seconds.three]);
            crate::log::debug!("{}: pipelines: {}", capabilities.renderer, seconds.words());
            seconds
        }
        Err(error) => {
            crate::log::debug!("{}: contexts could not be measured: {error}", capabilities.renderer);
            Seconds { one: f64::INFINITY, three: 0.0 }
        }
    }
}

fn measure(
    capabilities: &Capabilities,
    start: &dyn Fn(PipelineOptions) -> Result<Pipeline>,
) -> Result<Seconds> {
    // As many elements in as out, and one multiplication for each.
    let (n, side) = if capabilities.software { (1, 128) } else { (IMAGES, 1024) };
    let problem = Conv2d::new(Conv2dDesc { n, h: side, w: side, ..Default::default() })?;
    let recipe = Arc::new(Recipe { problem, variant: Variant::DIRECT, weights: vec![1.0], bias: None });
    let seconds = |contexts| -> Result<f64> {
        let pipeline = start(PipelineOptions { contexts, ..Default::default() })?;
        stream(&pipeline, &recipe).map(|took| took.as_secs_f64())
    };
    Ok(Seconds { one: seconds(Contexts::One)?, three: seconds(Contexts::Three)? })
}

/// The time of a job among jobs in all slots, in place.
fn stream(pipeline: &Pipeline, recipe: &Arc<Recipe>) -> Result<Duration> {
    let acquire = |_| pipeline.acquire(recipe, Pressure::Wait);
    let mut slots: Vec<Box<dyn Slot>> =
        (0..PipelineOptions::default().slots).map(acquire).collect::<Result<_>>()?;
    let mut tickets: Vec<Option<Ticket>> = slots.iter().map(|_| None).collect();
    let mut start = Instant::now();
    for job in 0..JOBS[0] + JOBS[1] {
        if job == JOBS[0] {
            start = Instant::now();
        }
        let place = job % slots.len();
        if let Some(before) = tickets[place].take() {
            before.wait()?;
        }
        let ticket = Ticket::new();
        slots[place].submit(&ticket)?;
        tickets[place] = Some(ticket);
    }
    tickets.into_iter().flatten().try_for_each(|ticket| ticket.wait().map(drop))?;
    Ok(start.elapsed() / JOBS[1] as u32)
}
