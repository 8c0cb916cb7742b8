//! Small jobs that share a slot, on machines that work and on machines that fail.
//!
//! A pipeline's only slot is held until all jobs are there: so they go together, however fast anything is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faulty::{Fault, Machine};
use super::pipeline::{OPTIONS, Sent, machine, send, start};
use super::rig::{Case, Rig};
use crate::backend::{Contexts, PipelineOptions, Plan, Queue, Run, WhenFull};
use crate::error::{Error, Result};
use crate::gl::driver::context::Target;
use crate::gl::driver::egl::Egl;
use crate::gl::pipeline::Pipeline;
use crate::problem::{Algorithm, Conv2dDesc};

const ONE_SLOT: PipelineOptions = PipelineOptions { slots: 1, queue: 64, ..OPTIONS };

/// Sends `jobs` jobs while the only slot is held, and lets it go.
fn send_together<'a>(pipeline: &Pipeline, case: &'a Case, plan: &dyn Plan, jobs: usize) -> Vec<Sent<'a>> {
    let held = pipeline.acquire(plan.recipe().unwrap(), WhenFull::Wait).unwrap();
    let sent = (0..jobs).map(|_| send(pipeline, case, plan)).collect();
    drop(held);
    sent
}

fn ends(sent: Vec<Sent>) -> Vec<Result<Run>> {
    sent.into_iter().map(Sent::end).collect()
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
            let sent: Vec<Sent> = (0..12).map(|_| send(&pipeline, case, &*plan)).collect();
            assert!(sent[5].ticket.cancel());
            drop(held);
            for (number, result) in ends(sent).into_iter().enumerate() {
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

/// NaN and infinities reach what the definition says, and no other job.
#[test]
fn jobs_with_numbers_that_are_none_go_together() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let desc =
        Conv2dDesc { n: 2, c: 4, h: 6, w: 5, k: 4, r: 3, s: 2, pad_h: 1, pad_w: 1, ..Default::default() };
    let desc = Conv2dDesc { groups: 2, dilation_h: 2, bias: true, relu: true, pad_h: 3, ..desc };
    let mut not_finite = 0;
    for seed in 0..4 {
        let case = Case::spoilt(desc, seed);
        let plan = case.piped(&engine).unwrap();
        // A new one each, since one learns.
        let pipeline = start(&rig, ONE_SLOT).unwrap();
        for run in ends(send_together(&pipeline, &case, &*plan, 6)) {
            assert_eq!(&*run.unwrap().kernel, "conv_queue_64");
        }
        assert_eq!(pipeline.stats().pieces, 1);
        not_finite += case.expected.iter().filter(|value| !value.is_finite()).count();
    }
    assert!(not_finite > 50, "{not_finite}");
}

/// Sums that a workgroup of the queue could not end: such jobs go one by one, in as many passes as it takes.
#[test]
fn jobs_with_deep_sums_go_one_by_one() {
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
        // A new one each, since one learns.
        let pipeline = start(&rig, ONE_SLOT).unwrap();
        for run in ends(send_together(&pipeline, &case, &*plan, 5)) {
            assert_eq!(&*run.unwrap().kernel, kernel);
        }
        pieces += pipeline.stats().pieces;
    }
    assert_eq!(pieces, 5 + 5 + 1);
}

/// Some drivers end loops after a number of iterations, all loops of an invocation together: a workgroup that drew all of this would
/// meet that.
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
    let pipeline = Pipeline::start(egl, "gl:faulty".into(), target, 1 << 20, options).unwrap();
    let results = ends(send_together(&pipeline, &case, &*plan, 16));
    assert!(results.iter().all(|it| it.as_ref().is_ok_and(|run| &*run.kernel == "conv_queue_64")));
    assert_eq!((results.len(), pipeline.stats().pieces), (16, 1));
}

#[test]
fn without_the_queue_s_shader_jobs_go_one_by_one() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let pipeline = start(&rig, ONE_SLOT).unwrap();
    rig.faults.arm(Fault::NoCompile, 1);
    for round in 1..3 {
        let results = ends(send_together(&pipeline, &rig.square, &*plan, 6));
        assert!(results.iter().all(|it| it.as_ref().is_ok_and(|run| &*run.kernel == "conv_reference_64")));
        assert_eq!((pipeline.stats().completed, pipeline.stats().pieces), (6 * round, 6 * round));
    }
    assert!(rig.faults.disarm().is_some());
}

#[test]
fn a_device_lost_under_a_batch_costs_none_of_its_jobs() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    let healthy = rig.faults.objects();
    let mut injected = 0;
    for number in (1..).step_by(9) {
        let pipeline = start(&rig, ONE_SLOT).unwrap();
        let held = pipeline.acquire(plan.recipe().unwrap(), WhenFull::Wait).unwrap();
        let sent: Vec<Sent> = (0..5).map(|_| send(&pipeline, &rig.square, &*plan)).collect();
        rig.faults.arm(Fault::Lost, number);
        drop(held);
        let failed = ends(sent).into_iter().filter(Result::is_err).count();
        let befell = rig.faults.disarm();
        assert_eq!((failed, pipeline.stats().completed), (0, 5), "at call {number}, {befell:?}");
        drop(pipeline);
        assert_eq!(rig.faults.objects(), healthy, "at call {number}, {befell:?}");
        if befell.is_none() {
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
    let stream = |jobs: usize| {
        let mut flying = std::collections::VecDeque::new();
        for _ in 0..jobs {
            flying.push_back(send(&pipeline, &rig.square, &*plan));
            if flying.len() == 40 {
                flying.pop_front().map(Sent::end).unwrap().unwrap();
            }
        }
        flying.into_iter().for_each(|sent| drop(sent.end().unwrap()));
        pipeline.flush().unwrap();
        rig.faults.objects().values().sum::<usize>()
    };
    // Slots and parameters for a new number of jobs are made when they are first needed, which may be late: a few dozen at most. Jobs
    // go 40 at a time or fewer, so one object left behind each time would make 125 of 5,000.
    let most = stream(300) + 64;
    let alive = stream(5000);
    let start = Instant::now();
    while rig.faults.objects().values().sum::<usize>() > most {
        assert!(start.elapsed() < Duration::from_secs(60), "{alive} objects, {most} at most after 300 jobs");
        std::thread::yield_now();
    }
    assert_eq!(pipeline.stats().completed, 5300);
}
