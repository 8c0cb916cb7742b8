//! Pipelines of `multi` over two displays of the machine's GL driver and the CPU.

use super::tests::{Case, device, displays_alone};
use crate::backend::{PipelineOptions, WhenFull};
use crate::device::{Conv2dPlan, Device};
use crate::error::Error;
use crate::gl::tests::displays::{Fault, TwoDisplays};
use crate::problem::exact::Random;

/// Cases of all kinds with their plans.
fn cases(device: &Device, count: usize) -> Vec<(Case, Conv2dPlan)> {
    let mut random = Random::new(77);
    let case = |_| {
        let case = Case::random(&mut random);
        let plan = case.plan(device);
        (case, plan)
    };
    (0..count).map(case).collect()
}

fn options() -> PipelineOptions {
    PipelineOptions { slots: 2, queue: 4, ..Default::default() }
}

#[test]
fn jobs_and_slots_are_exact_on_any_device() {
    let Some(displays) = TwoDisplays::open() else { return };
    let device = device(&displays, None);
    let cases = cases(&device, 12);
    let pipeline = device.pipeline(options()).unwrap();
    assert_eq!(pipeline.device(), Some("multi"));
    let mut outputs: Vec<Vec<f32>> =
        cases.iter().map(|(case, _)| vec![f32::NAN; case.expected.len()]).collect();
    pipeline.scope(|scope| {
        let mut tickets = vec![];
        for ((case, plan), output) in cases.iter().zip(&mut outputs) {
            tickets.push(scope.submit(plan, &case.input, output, WhenFull::Wait).unwrap());
        }
        for (ticket, (case, _)) in tickets.into_iter().zip(&cases) {
            assert!(ticket.wait().unwrap().output == case.expected);
        }
    });
    for (case, plan) in &cases {
        let output = vec![f32::NAN; case.expected.len()];
        let job = pipeline.submit(plan, case.input.clone(), output, WhenFull::Wait).unwrap();
        let done = job.wait().unwrap();
        assert!(done.output == case.expected && done.input == case.input);
        let mut slot = pipeline.acquire(plan, WhenFull::Wait).unwrap();
        slot.input().copy_from_slice(&case.input);
        let (_, slot) = slot.submit().unwrap().wait().unwrap();
        assert!(slot.output() == case.expected);
    }
    pipeline.flush().unwrap();
    let stats = pipeline.stats();
    assert_eq!((stats.completed, stats.failed, stats.cancelled), (36, 0, 0));
    // A plan of another device runs as well.
    let (case, _) = &cases[0];
    let other =
        Device::open("cpu").unwrap().plan(&case.problem, &case.weights, case.bias.as_deref()).unwrap();
    let output = vec![f32::NAN; case.expected.len()];
    let done = pipeline.submit(&other, case.input.clone(), output, WhenFull::Wait).unwrap().wait().unwrap();
    assert!(done.output == case.expected && &*done.run.device == "cpu");
}

#[test]
fn slots_of_all_devices_can_be_held() {
    let Some(displays) = TwoDisplays::open() else { return };
    let device = device(&displays, None);
    let cases = cases(&device, 1);
    let (case, plan) = &cases[0];
    let pipeline = device.pipeline(options()).unwrap();
    let mut slots = vec![];
    let full = loop {
        match pipeline.acquire(plan, WhenFull::Refuse) {
            Ok(slot) => slots.push(slot),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Busy { .. }) && slots.len() == 6, "{full}, {} slots", slots.len());
    let submitted = slots.into_iter().map(|mut slot| {
        slot.input().copy_from_slice(&case.input);
        slot.submit().unwrap()
    });
    let mut devices: Vec<_> = submitted
        .map(|job| {
            let (run, slot) = job.wait().unwrap();
            assert!(slot.output() == case.expected);
            run.device
        })
        .collect();
    devices.sort();
    devices.dedup();
    assert_eq!(devices.len(), 3, "{devices:?}");
}

/// Each job either ends as cancelled, with its output untouched, or is right; and the counters agree.
#[test]
fn jobs_can_be_cancelled_while_others_run() {
    let Some(displays) = TwoDisplays::open() else { return };
    let device = device(&displays, None);
    let cases = cases(&device, 6);
    let pipeline = device.pipeline(PipelineOptions { queue: 64, ..options() }).unwrap();
    let (mut cancelled, mut completed) = (0, 0);
    let jobs: Vec<_> = (0..60)
        .map(|index| {
            let (case, plan) = &cases[index % cases.len()];
            let output = vec![7.5; case.expected.len()];
            (case, pipeline.submit(plan, case.input.clone(), output, WhenFull::Wait).unwrap())
        })
        .collect();
    let asked: Vec<bool> = jobs.iter().rev().step_by(2).map(|(_, job)| job.ticket().cancel()).collect();
    for (case, job) in jobs {
        match job.wait() {
            Ok(done) => {
                assert!(done.output == case.expected);
                completed += 1;
            }
            Err(error) => {
                assert_eq!(error, Error::Cancelled);
                cancelled += 1;
            }
        }
    }
    assert_eq!((cancelled, completed), (asked.iter().filter(|it| **it).count(), 60 - cancelled));
    pipeline.flush().unwrap();
    let stats = pipeline.stats();
    assert_eq!((stats.completed, stats.failed, stats.cancelled), (completed as u64, 0, cancelled as u64));
}

/// One device is lost at some call of its driver: no job is lost.
#[test]
fn no_job_is_lost_with_a_device() {
    let Some(displays) = TwoDisplays::open() else { return };
    let (mut replaced, mut hits) = (0, 0);
    for fault in [Fault::Lost, Fault::CreateContexts] {
        for number in [1, 5, 20, 60, 150] {
            let device = displays_alone(&displays);
            let cases = cases(&device, 5);
            let pipeline = device.pipeline(options()).unwrap();
            displays.faults.arm(fault, number);
            let jobs: Vec<_> = (0..20)
                .map(|index| {
                    let (case, plan) = &cases[index % cases.len()];
                    let output = vec![f32::NAN; case.expected.len()];
                    (case, pipeline.submit(plan, case.input.clone(), output, WhenFull::Wait).unwrap())
                })
                .collect();
            for (case, job) in jobs {
                let done = job.wait().unwrap();
                assert!(done.output == case.expected, "{fault:?} at {number}");
                replaced += usize::from(done.run.fallback.is_some());
            }
            hits += usize::from(displays.faults.disarm().is_some());
            drop(pipeline);
        }
    }
    println!("{hits} faults, {replaced} jobs on other devices");
    assert!(hits >= 3, "{hits}");
}
