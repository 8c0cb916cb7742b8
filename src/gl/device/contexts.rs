//! Measures whether a pipeline is faster with three contexts or one, and whether the host or the device should order
//! stages in different contexts. Results are kept for each device.
//!
//! With three contexts, uploads, kernels and downloads overlap if the device has engines for each and the driver uses
//! them. Otherwise they only cost context switches. With `glWaitSync` the device orders stages: commands can be
//! submitted before the work that they depend on is done. But NVIDIA's driver blocks the calling thread until the
//! fence has signalled. No driver reports either property, so the same few jobs run through pipelines of each kind.
//! Small jobs, whose cost is mostly submission, show the better order. Large jobs, whose cost is mostly transfers,
//! show the better number of contexts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Contexts, Order, PipelineOptions, Queue, Slot, Ticket, WhenFull};
use crate::error::Result;
use crate::gl::convolution::Chosen;
use crate::gl::driver::capabilities::Capabilities;
use crate::gl::pipeline::Pipeline;
use crate::gl::tunables::WORTHWHILE;
use crate::problem::{Conv2d, Conv2dDesc};
use crate::store::store;

/// Jobs of 16 images of 4 MiB. Switching contexts takes as long as moving a few of these images.
const LARGE: Jobs = Jobs { images: 16, side: 1024, before: 6, timed: 12 };
/// Jobs of 64 KiB.
const SMALL: Jobs = Jobs { images: 1, side: 128, before: 12, timed: 96 };
/// Jobs for both measurements on software devices.
const TINY: Jobs = Jobs { images: 1, side: 128, before: 6, timed: 12 };

/// The jobs of a measurement.
#[derive(Clone, Copy)]
struct Jobs {
    images: i64,
    /// Height and width of an image.
    side: i64,
    /// Jobs to warm up, and jobs that count.
    before: usize,
    timed: usize,
}

/// Seconds per job: large jobs with one context and with three, small jobs with three ordered by the device and by
/// the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    pub one: f64,
    pub three: f64,
    pub device: f64,
    pub host: f64,
}

impl Seconds {
    /// The better number of contexts.
    pub fn contexts(self) -> Contexts {
        if self.three < WORTHWHILE * self.one { Contexts::Three } else { Contexts::One }
    }

    /// The better way to order stages.
    pub fn order(self) -> Order {
        if self.host < WORTHWHILE * self.device { Order::Host } else { Order::Device }
    }

    /// `options` with its open choices filled in.
    pub fn choose(self, options: PipelineOptions) -> PipelineOptions {
        let contexts =
            if options.contexts == Contexts::Measured { self.contexts() } else { options.contexts };
        let order = if options.order == Order::Measured { self.order() } else { options.order };
        PipelineOptions { contexts, order, ..options }
    }

    /// The result in words.
    pub fn words(self) -> String {
        let Seconds { one, three, device, host } = self;
        let count = if self.contexts() == Contexts::Three { "three contexts" } else { "one context" };
        let order = if self.order() == Order::Host { "host" } else { "device" };
        let [one, three, device, host] = [one, three, device, host].map(|it| it * 1e3);
        format!(
            "{count}: large jobs take {three:.3} ms each with three contexts, {one:.3} ms with one; ordered by the \
             {order}: small jobs take {host:.3} ms each in the host's order, {device:.3} ms in the device's"
        )
    }
}

/// Measurements of this device by this process or an earlier one.
pub fn known(capabilities: &Capabilities) -> Option<Seconds> {
    let [one, three, device, host] = store().load("pipelines", &capabilities.key())?;
    Some(Seconds { one, three, device, host })
}

/// The known measurements, or new ones with pipelines that `start` makes. If measuring fails, the result chooses three
/// contexts ordered by the device, which is correct everywhere.
pub fn measured(capabilities: &Capabilities, start: &dyn Fn(PipelineOptions) -> Result<Pipeline>) -> Seconds {
    if let Some(known) = known(capabilities) {
        return known;
    }
    match measure(capabilities, start) {
        Ok(seconds) => {
            store().save(
                "pipelines",
                &capabilities.key(),
                &[seconds.one, seconds.three, seconds.device, seconds.host],
            );
            crate::log::debug!("{}: pipelines: {}", capabilities.renderer, seconds.words());
            seconds
        }
        Err(error) => {
            crate::log::debug!("{}: contexts could not be measured: {error}", capabilities.renderer);
            Seconds { one: f64::INFINITY, three: 0.0, device: 0.0, host: f64::INFINITY }
        }
    }
}

fn measure(
    capabilities: &Capabilities,
    start: &dyn Fn(PipelineOptions) -> Result<Pipeline>,
) -> Result<Seconds> {
    let (large, small) = if capabilities.software { (TINY, TINY) } else { (LARGE, SMALL) };
    let seconds = |contexts, order, jobs| -> Result<f64> {
        let pipeline = start(PipelineOptions { contexts, order, ..Default::default() })?;
        stream(&pipeline, jobs).map(|took| took.as_secs_f64())
    };
    let mut measured = Seconds {
        one: seconds(Contexts::One, Order::Device, large)?,
        three: f64::INFINITY,
        device: seconds(Contexts::Three, Order::Device, small)?,
        host: seconds(Contexts::Three, Order::Host, small)?,
    };
    measured.three = seconds(Contexts::Three, measured.order(), large)?;
    Ok(measured)
}

/// The time of a job when jobs run in place in all slots.
fn stream(pipeline: &Pipeline, jobs: Jobs) -> Result<Duration> {
    // As many output elements as input elements, with one multiplication each.
    let Jobs { images: n, side, before, timed } = jobs;
    let problem = Conv2d::new(Conv2dDesc { n, h: side, w: side, ..Default::default() })?;
    let recipe = Arc::new(Chosen::FALLBACK.recipe(problem, vec![1.0], None));
    let acquire = |_| pipeline.acquire(&recipe, WhenFull::Wait);
    let mut slots: Vec<Box<dyn Slot>> =
        (0..PipelineOptions::default().slots).map(acquire).collect::<Result<_>>()?;
    let mut tickets: Vec<Option<Ticket>> = slots.iter().map(|_| None).collect();
    let mut start = Instant::now();
    for job in 0..before + timed {
        if job == before {
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
    Ok(start.elapsed() / timed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_fills_in_what_was_left_open() {
        let asked = PipelineOptions { contexts: Contexts::Two, order: Order::Device, ..Default::default() };
        let open = PipelineOptions::default();
        for ((one, three, device, host), contexts, order) in [
            ((3.0, 2.0, 1.0, 0.5), Contexts::Three, Order::Host),
            ((3.0, 2.0, 1.0, 0.99), Contexts::Three, Order::Device),
            ((3.0, 2.9, 1.0, 2.0), Contexts::One, Order::Device),
            ((3.0, 4.0, 2.0, 1.0), Contexts::One, Order::Host),
        ] {
            let seconds = Seconds { one, three, device, host };
            let chosen = seconds.choose(open);
            assert_eq!((chosen.contexts, chosen.order), (contexts, order), "{seconds:?}");
            assert_eq!(seconds.choose(asked), asked);
            let named = if order == Order::Host { "ordered by the host" } else { "ordered by the device" };
            assert!(seconds.words().contains(named), "{}", seconds.words());
        }
    }
}
