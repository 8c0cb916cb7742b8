//! Small jobs that share a slot, on healthy and on failing machines.
//!
//! The tests hold a pipeline's only slot until all jobs are submitted. So they share it, however fast the machine is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faulty::{Fault, Machine};
use super::pipeline::{OPTIONS, PendingJob, machine, start, submit};
use super::rig::{Case, Rig};
use crate::backend::{Contexts, PipelineOptions, Plan, Queue, Run, WhenFull};
use crate::error::{Error, Result};
use crate::gl::driver::context::Target;
use crate::gl::driver::egl::Egl;
use crate::gl::pipeline::Pipeline;
use crate::problem::{Algorithm, Conv2dDesc};
use crate::report::Source;

const ONE_SLOT: PipelineOptions = PipelineOptions { slots: 1, queue: 64, ..OPTIONS };

/// Submits `count` jobs while the only slot is held. Then releases it.
fn submit_together<'a>(
    pipeline: &Pipeline,
    case: &'a Case,
    plan: &dyn Plan,
    count: usize,
) -> Vec<PendingJob<'a>> {
    let held = pipeline.acquire(plan.recipe().unwrap(), WhenFull::Wait).unwrap();
    let jobs = (0..count).map(|_| submit(pipeline, case, plan)).collect();
    drop(held);
    jobs
}

fn results_of(jobs: Vec<PendingJob>) -> Vec<Result<Run>> {
    jobs.into_iter().map(PendingJob::end).collect()
}

#[test]
fn jobs_that_wait_go_through_the_device_together_and_cancelled_ones_do_not() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let mut ran = 0;
    for contexts in [Contexts::One, Contexts::Three] {
        for case in [&rig.square, &rig.direct] {
            let plan = case.piped(&engine).unwrap();
            let pipeline = start(&rig, PipelineOptions { contexts, ..ONE_SLOT }).unwrap();
            let held = pipeline.acquire(plan.recipe().unwrap(), WhenFull::Wait).unwrap();
            let jobs: Vec<PendingJob> = (0..12).map(|_| submit(&pipeline, case, &*plan)).collect();
            assert!(jobs[5].ticket.cancel());
            drop(held);
            for (number, result) in results_of(jobs).into_iter().enumerate() {
                match result {
                    Ok(run) => assert_eq!(&*run.kernel, "conv_queue_64"),
                    Err(error) => assert_eq!((number, error), (5, Error::Cancelled)),
                }
            }
            let stats = pipeline.stats();
            assert_eq!((stats.completed, stats.cancelled, stats.pieces), (11, 1, 1));
            ran += stats.completed;
        }
    }
    assert_eq!((ran, rig.faults.violations()), (44, vec![]));
}

/// NaN and infinities give the defined results and affect no other job.
#[test]
fn jobs_with_nan_and_infinities_share_a_batch() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let desc =
        Conv2dDesc { n: 2, c: 4, h: 6, w: 5, k: 4, r: 3, s: 2, pad_h: 1, pad_w: 1, ..Default::default() };
    let desc = Conv2dDesc { groups: 2, dilation_h: 2, bias: true, relu: true, pad_h: 3, ..desc };
    let mut not_finite = 0;
    for seed in 0..4 {
        let case = Case::spoilt(desc, seed);
        let plan = case.piped(&engine).unwrap();
        // A new engine each time, since an engine learns.
        let pipeline = start(&rig, ONE_SLOT).unwrap();
        for run in results_of(submit_together(&pipeline, &case, &*plan, 6)) {
            assert_eq!(&*run.unwrap().kernel, "conv_queue_64");
        }
        assert_eq!(pipeline.stats().pieces, 1);
        not_finite += case.expected.iter().filter(|value| !value.is_finite()).count();
    }
    assert!(not_finite > 50, "{not_finite}");
}

/// A workgroup of the queue could not finish these sums. Such jobs run one by one, in several passes.
#[test]
fn jobs_with_deep_sums_run_one_by_one() {
    let Some(mut rig) = Rig::new(machine()) else { return };
    rig.target.max_iterations = rig.target.max_iterations.min(10_000);
    let engine = rig.open().unwrap();
    let desc = Conv2dDesc { c: 500, h: 2, w: 2, k: 1, algorithm: Algorithm::Direct, ..Default::default() };
    let mut pieces = 0;
    for (desc, kernel) in [
        (desc, "conv_reference_64"),
        (Conv2dDesc { c: 2000, w: 1, ..desc }, "conv_direct_64_parts"),
        (Conv2dDesc { c: 100, relu: true, ..desc }, "conv_queue_64"),
    ] {
        let case = Case::new(desc, 3);
        let plan = case.piped(&engine).unwrap();
        // A new engine each time, since an engine learns.
        let pipeline = start(&rig, ONE_SLOT).unwrap();
        for run in results_of(submit_together(&pipeline, &case, &*plan, 5)) {
            assert_eq!(&*run.unwrap().kernel, kernel);
        }
        pieces += pipeline.stats().pieces;
    }
    assert_eq!(pieces, 5 + 5 + 1);
}

/// Some drivers end an invocation's loops after a total number of iterations. A workgroup that drew all of these
/// jobs would exceed it.
#[test]
fn a_long_queue_is_drained_whole() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let sizes = Conv2dDesc { c: 16, h: 8, w: 8, k: 64, r: 3, s: 3, ..Default::default() };
    let case = Case::new(Conv2dDesc { pad_h: 1, pad_w: 1, algorithm: Algorithm::Direct, ..sizes }, 9);
    let plan = case.piped(&engine).unwrap();
    let (egl, options): (Arc<dyn Egl>, _) =
        (rig.egl.clone(), PipelineOptions { contexts: Contexts::One, piece_bytes: 1 << 20, ..ONE_SLOT });
    let target = Target { wait_limit: Duration::from_secs(30), ..rig.target };
    let pipeline =
        Pipeline::start((egl, "gl:faulty".into()), target, 1 << 20, options, Source::Nobody).unwrap();
    let results = results_of(submit_together(&pipeline, &case, &*plan, 16));
    assert!(results.iter().all(|it| it.as_ref().is_ok_and(|run| &*run.kernel == "conv_queue_64")));
    assert_eq!((results.len(), pipeline.stats().pieces), (16, 1));
}

#[test]
fn without_the_queue_shader_jobs_run_one_by_one() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let pipeline = start(&rig, ONE_SLOT).unwrap();
    rig.faults.arm(Fault::NoCompile, 1);
    for round in 1..3 {
        let results = results_of(submit_together(&pipeline, &rig.square, &*plan, 6));
        assert!(results.iter().all(|it| it.as_ref().is_ok_and(|run| &*run.kernel == "conv_reference_64")));
        assert_eq!((pipeline.stats().completed, pipeline.stats().pieces), (6 * round, 6 * round));
    }
    assert!(rig.faults.disarm().is_some());
}

#[test]
fn a_device_lost_during_a_batch_costs_none_of_its_jobs() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let healthy = rig.faults.objects();
    let mut injected = 0;
    for number in (1..).step_by(9) {
        let pipeline = start(&rig, ONE_SLOT).unwrap();
        let held = pipeline.acquire(plan.recipe().unwrap(), WhenFull::Wait).unwrap();
        let jobs: Vec<PendingJob> = (0..5).map(|_| submit(&pipeline, &rig.square, &*plan)).collect();
        rig.faults.arm(Fault::Lost, number);
        drop(held);
        let failed = results_of(jobs).into_iter().filter(Result::is_err).count();
        let hit = rig.faults.disarm();
        assert_eq!((failed, pipeline.stats().completed), (0, 5), "at call {number}, {hit:?}");
        drop(pipeline);
        assert_eq!(rig.faults.objects(), healthy, "at call {number}, {hit:?}");
        if hit.is_none() {
            break;
        }
        injected += 1;
    }
    assert!(injected > 3, "{injected}");
}

#[test]
fn objects_of_the_driver_do_not_grow_with_jobs() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let pipeline = start(&rig, PipelineOptions { slots: 3, queue: 64, ..OPTIONS }).unwrap();
    let stream = |count: usize| {
        let mut in_flight = std::collections::VecDeque::new();
        for _ in 0..count {
            in_flight.push_back(submit(&pipeline, &rig.square, &*plan));
            if in_flight.len() == 40 {
                in_flight.pop_front().map(PendingJob::end).unwrap().unwrap();
            }
        }
        in_flight.into_iter().for_each(|job| drop(job.end().unwrap()));
        pipeline.flush().unwrap();
        rig.faults.objects().values().sum::<usize>()
    };
    // Slots and parameters for a new number of jobs are allocated at first use, which may be late: a few dozen at
    // most. Up to 40 jobs share a slot. So a leak of one object per batch would leave 125 objects for 5,000 jobs.
    let max_objects = stream(300) + 64;
    let alive = stream(5000);
    let start = Instant::now();
    while rig.faults.objects().values().sum::<usize>() > max_objects {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{alive} objects, at most {max_objects} after 300 jobs"
        );
        std::thread::yield_now();
    }
    assert_eq!(pipeline.stats().completed, 5300);
}
