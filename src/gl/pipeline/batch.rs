//! Small jobs that share a slot.
//!
//! Any piece costs three command submissions, three fences and the threads' attention: some tens of microseconds.
//! That is too much for a job of a few kilobytes. So small jobs of one plan share a slot, with one upload, one
//! dispatch and one download. In the dispatch, workgroups draw jobs from a queue (`gl::convolution::queue`). A
//! batch does not wait to fill up: jobs that wait when a slot is free form a batch. While another batch is in
//! flight, the ring holds back a small number of jobs ([`super::ring`]).
//!
//! ```text
//!   the slot's input   │ counters │ where job 0, 1, ... begin │ input 0 │ input 1 │ ...
//!   the slot's output  │ output 0 │ output 1 │ ...
//! ```
//!
//! Jobs are small if they take the device little time. [`Rate`] learns the device's speed from the first ones. A
//! slow device, such as a software renderer, computes them one by one.
//!
//! Each job keeps its own ticket and its own result. If a batch fails because memory or a shader is missing, its
//! jobs are resubmitted individually.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::job::InFlightJob;
use crate::backend::Recipe;
use crate::gl::convolution::queue::head_bytes;
use crate::gl::tunables::{
    MAX_BATCH_BYTES, MAX_BATCH_JOBS, MAX_BATCH_TIME, SMALL_JOB_BYTES, SMALL_JOB_TIME, TRIAL_JOBS,
};
use crate::problem::Conv2d;
use crate::shader::variant;

/// Jobs begin at multiples of this many elements: a cache line.
const ALIGNMENT: usize = 16;

/// Jobs of one plan in one slot.
pub struct Batch {
    pub recipe: Arc<Recipe>,
    pub jobs: Vec<Arc<InFlightJob>>,
}

/// Operations per second that batches reach on a device.
#[derive(Default)]
pub struct Rate(AtomicU64);

impl Rate {
    /// Records that `jobs` jobs of `operations` operations each took `took` together.
    pub fn learn(&self, jobs: usize, operations: u64, took: Duration) {
        let before = f64::from_bits(self.0.load(Ordering::Relaxed));
        let seen = jobs as f64 * operations as f64 / took.max(Duration::from_micros(1)).as_secs_f64();
        if jobs >= TRIAL_JOBS || seen > before {
            self.0.store(seen.to_bits(), Ordering::Relaxed);
        }
    }

    /// How many jobs of `operations` operations each may share a slot; 0 if they are not small.
    pub fn max_jobs(&self, operations: u64) -> usize {
        let rate = f64::from_bits(self.0.load(Ordering::Relaxed));
        if rate == 0.0 {
            return TRIAL_JOBS;
        }
        let job = operations as f64 / rate;
        if job > SMALL_JOB_TIME.as_secs_f64() { 0 } else { (MAX_BATCH_TIME.as_secs_f64() / job) as usize }
    }
}

/// How many jobs of `recipe` fit into a slot with `max_bytes` each for input and output; 0 if they are not small.
pub fn max_jobs(recipe: &Recipe, max_bytes: usize) -> usize {
    let job = 4 * strides(&recipe.problem).into_iter().max().unwrap_or(usize::MAX / 8);
    if job > SMALL_JOB_BYTES || !variant::is_small(&recipe.problem) {
        return 0;
    }
    let fit = MAX_BATCH_BYTES.min(max_bytes).saturating_sub(head_bytes(MAX_BATCH_JOBS)) / job;
    fit.min(MAX_BATCH_JOBS)
}

/// Distance in elements between the jobs' inputs, and between their outputs.
pub fn strides(problem: &Conv2d) -> [usize; 2] {
    [problem.input_len(), problem.output_len()].map(|len| len.next_multiple_of(ALIGNMENT))
}

/// Bytes of a slot's input and output with `jobs` jobs of `problem`.
fn bytes(problem: &Conv2d, jobs: usize) -> [usize; 2] {
    let [input, output] = strides(problem).map(|stride| 4 * stride * jobs);
    [head_bytes(jobs) + input, output]
}

impl Batch {
    /// Bytes of the slot's input and output that it takes.
    pub fn bytes(&self) -> [usize; 2] {
        bytes(&self.recipe.problem, self.jobs.len())
    }

    /// Bytes that hold any batch of this plan. The slot then need not grow for larger batches.
    pub fn capacity(&self, batch_limit: usize) -> [usize; 2] {
        bytes(&self.recipe.problem, batch_limit.max(self.jobs.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Conv2dDesc;

    fn recipe(desc: Conv2dDesc) -> Recipe {
        Recipe { problem: Conv2d::new(desc).unwrap(), weights: vec![], bias: None, choice: Box::new(()) }
    }

    #[test]
    fn only_small_jobs_share_a_slot_and_as_many_as_fit() {
        let small =
            Conv2dDesc { c: 16, h: 16, w: 16, k: 16, r: 3, s: 3, pad_h: 1, pad_w: 1, ..Default::default() };
        assert_eq!(max_jobs(&recipe(small), usize::MAX), 255);
        let max_bytes = 100 << 10;
        let few = max_jobs(&recipe(small), max_bytes);
        let [input, output] = bytes(&recipe(small).problem, few);
        assert!(few == 6 && input <= max_bytes && output <= max_bytes, "{few}");
        assert_eq!(max_jobs(&recipe(small), 1), 0);
        let tiny = Conv2dDesc { h: 3, w: 3, c: 1, k: 1, ..small };
        assert_eq!(max_jobs(&recipe(tiny), usize::MAX), MAX_BATCH_JOBS);
        let wide = Conv2dDesc { h: 130, w: 130, c: 1, k: 1, ..small };
        assert_eq!(max_jobs(&recipe(wide), usize::MAX), 0);
        let deep = Conv2dDesc { k: 64, ..small };
        assert_eq!(max_jobs(&recipe(deep), usize::MAX), 0);
    }

    #[test]
    fn a_slow_device_gets_jobs_one_by_one_and_a_fast_one_many() {
        let (rate, job) = (Rate::default(), 1_000_000);
        assert_eq!(rate.max_jobs(job), TRIAL_JOBS);
        // A single job gives a lower bound of the device's speed.
        rate.learn(1, job, Duration::from_micros(100));
        assert_eq!(rate.max_jobs(job), 200);
        rate.learn(1, job, Duration::from_millis(100));
        assert_eq!(rate.max_jobs(job), 200);
        rate.learn(TRIAL_JOBS, job, Duration::from_micros(100));
        assert_eq!(rate.max_jobs(job), 3200);
        // Many jobs give the speed itself.
        rate.learn(TRIAL_JOBS, job, Duration::from_secs(1));
        assert_eq!((rate.max_jobs(job), rate.max_jobs(1000)), (0, 320));
        rate.learn(TRIAL_JOBS, job, Duration::ZERO);
        assert!(rate.max_jobs(job) > 3200);
    }
}
