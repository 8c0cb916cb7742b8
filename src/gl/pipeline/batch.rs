//! Small jobs that share a slot.
//!
//! A slot costs three lots of commands, three fences and the threads' attention, some tens of microseconds, whatever is in it. A
//! job of a few kilobytes is not worth that. So small jobs of one plan go into one slot together: one upload, one dispatch in
//! which workgroups draw the jobs from a queue (`queue`), one download. Nobody waits for a batch to become full: what waits
//! when a slot is free goes. Only while a batch is under way fewer than a good deal are kept back until it is done ([`super::ring`]).
//!
//! ```text
//!   the slot's input   │ counters │ where job 0, 1, ... begin │ input 0 │ input 1 │ ...
//!   the slot's output  │ output 0 │ output 1 │ ...
//! ```
//!
//! Jobs are small if they take the device little time, which the first of them tell ([`Rate`]): a renderer in software computes them
//! one by one, as it would anyway.
//!
//! Each job keeps its own ticket and its own end. A batch that cannot be computed for want of memory or of a shader is taken
//! apart: its jobs fly again, each alone and the usual way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::job::InFlightJob;
use crate::backend::Recipe;
use crate::gl::convolution::queue::head_bytes;
use crate::problem::Conv2d;
use crate::shader::variant;

/// The most jobs of a batch.
const MOST_JOBS: usize = 256;
/// The most bytes of a batch's inputs, and of its outputs: what takes a bus to a GPU about ten times as long as a slot costs.
const MOST_BYTES: usize = 4 << 20;
/// The largest input or output of a small job.
const SMALL: usize = 64 << 10;
/// A job that takes the device longer is not small: it has no use for company.
const SMALL_TIME: Duration = Duration::from_millis(1);
/// What a batch should take the device at most, so that nobody waits long for the jobs beside his own.
const LONGEST: Duration = Duration::from_millis(20);
/// Jobs of a batch as long as nothing is known of the device; and so many that they tell its rate, not what a job takes alone.
const TRIAL: usize = 16;
/// Numbers that jobs begin at a multiple of: a line of memory.
const LINE: usize = 16;

/// Jobs of one plan in one slot.
pub struct Batch {
    pub recipe: Arc<Recipe>,
    pub flights: Vec<Arc<InFlightJob>>,
}

/// Operations a second that batches reach on a device.
#[derive(Default)]
pub struct Rate(AtomicU64);

impl Rate {
    /// Learns that `jobs` jobs of `operations` each took so long together.
    pub fn learn(&self, jobs: usize, operations: u64, took: Duration) {
        let before = f64::from_bits(self.0.load(Ordering::Relaxed));
        let seen = jobs as f64 * operations as f64 / took.max(Duration::from_micros(1)).as_secs_f64();
        if jobs >= TRIAL || seen > before {
            self.0.store(seen.to_bits(), Ordering::Relaxed);
        }
    }

    /// How many jobs of `operations` each may share a slot; 0 if they are not small.
    pub fn room(&self, operations: u64) -> usize {
        let rate = f64::from_bits(self.0.load(Ordering::Relaxed));
        if rate == 0.0 {
            return TRIAL;
        }
        let job = operations as f64 / rate;
        if job > SMALL_TIME.as_secs_f64() { 0 } else { (LONGEST.as_secs_f64() / job) as usize }
    }
}

/// How many jobs of `recipe` a slot may hold that has `most_bytes` for input and output each; 0 if they are not small.
pub fn room(recipe: &Recipe, most_bytes: usize) -> usize {
    let job = 4 * strides(&recipe.problem).into_iter().max().unwrap_or(usize::MAX / 8);
    if job > SMALL || !variant::is_small(&recipe.problem) {
        return 0;
    }
    let fit = MOST_BYTES.min(most_bytes).saturating_sub(head_bytes(MOST_JOBS)) / job;
    fit.min(MOST_JOBS)
}

/// Elements from one job's input to the next, and from output to output.
pub fn strides(problem: &Conv2d) -> [usize; 2] {
    [problem.input_len(), problem.output_len()].map(|len| len.next_multiple_of(LINE))
}

/// Bytes of the slot's input and output with `jobs` jobs of `problem` in it.
fn bytes(problem: &Conv2d, jobs: usize) -> [usize; 2] {
    let [input, output] = strides(problem).map(|stride| 4 * stride * jobs);
    [head_bytes(jobs) + input, output]
}

impl Batch {
    /// Bytes of the slot's input and output that it takes.
    pub fn bytes(&self) -> [usize; 2] {
        bytes(&self.recipe.problem, self.flights.len())
    }

    /// What a slot needs for any batch of this plan's, so that it need not grow with each that is larger than those before.
    pub fn capacity(&self, max_room: usize) -> [usize; 2] {
        bytes(&self.recipe.problem, max_room.max(self.flights.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;
    use crate::shader::variant::Variant;

    fn recipe(desc: Conv2dDesc) -> Recipe {
        Recipe {
            problem: Conv2d::new(desc).unwrap(),
            variant: Variant::DIRECT,
            weights: vec![],
            bias: None,
            seconds: None,
        }
    }

    #[test]
    fn only_small_jobs_share_a_slot_and_as_many_as_fit() {
        let small =
            Conv2dDesc { c: 16, h: 16, w: 16, k: 16, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        assert_eq!(room(&recipe(small), usize::MAX), 255);
        let most = 100 << 10;
        let few = room(&recipe(small), most);
        let [input, output] = bytes(&recipe(small).problem, few);
        assert!(few == 6 && input <= most && output <= most, "{few}");
        assert_eq!(room(&recipe(small), 1), 0);
        let tiny = Conv2dDesc { h: 3, w: 3, c: 1, k: 1, ..small };
        assert_eq!(room(&recipe(tiny), usize::MAX), MOST_JOBS);
        let wide = Conv2dDesc { h: 130, w: 130, c: 1, k: 1, ..small };
        assert_eq!(room(&recipe(wide), usize::MAX), 0);
        let deep = Conv2dDesc { k: 64, ..small };
        assert_eq!(room(&recipe(deep), usize::MAX), 0);
    }

    #[test]
    fn a_slow_device_gets_jobs_one_by_one_and_a_fast_one_many() {
        let (rate, job) = (Rate::default(), 1_000_000);
        assert_eq!(rate.room(job), TRIAL);
        // One alone says that the device is no slower than that.
        rate.learn(1, job, Duration::from_micros(100));
        assert_eq!(rate.room(job), 200);
        rate.learn(1, job, Duration::from_millis(100));
        assert_eq!(rate.room(job), 200);
        rate.learn(TRIAL, job, Duration::from_micros(100));
        assert_eq!(rate.room(job), 3200);
        // Many say what it is.
        rate.learn(TRIAL, job, Duration::from_secs(1));
        assert_eq!((rate.room(job), rate.room(1000)), (0, 320));
        rate.learn(TRIAL, job, Duration::ZERO);
        assert!(rate.room(job) > 3200);
    }
}
