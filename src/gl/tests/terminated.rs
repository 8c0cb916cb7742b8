//! Another library terminates the display. Contexts that are current continue. Code that needs a new object creates
//! a new share group, and no caller notices. (`faults` tests the reference interface.)

use super::faulty::Fault;
use super::pipeline::{OPTIONS, machine, start, submit};
use super::rig::Rig;
use crate::backend::{Contexts, PipelineOptions, Queue as _, Ticket, WhenFull};

const CONTEXTS: [Contexts; 3] = [Contexts::One, Contexts::Two, Contexts::Three];

/// Before the first job, when the pipeline has a share group but no contexts, and later.
#[test]
fn between_a_pipelines_beginning_and_its_jobs() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    rig.square.run(&*plan).unwrap();
    rig.product.run(&engine).unwrap();
    let healthy = rig.faults.objects();
    for contexts in CONTEXTS {
        let pipeline = start(&rig, PipelineOptions { contexts, ..OPTIONS }).unwrap();
        for _ in 0..3 {
            rig.faults.terminate();
            submit(&pipeline, &rig.square, &*plan).end().unwrap();
            rig.faults.terminate();
            rig.square.run(&*plan).unwrap();
            rig.product.run(&engine).unwrap();
        }
        let stats = pipeline.stats();
        assert_eq!((stats.completed, stats.failed), (3, 0), "{contexts:?}");
        drop(pipeline);
        assert_eq!(rig.faults.objects(), healthy, "{contexts:?}");
    }
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// The same with slots that callers fill.
#[test]
fn between_a_pipelines_beginning_and_its_slots() {
    let Some(rig) = Rig::new(machine()) else { return };
    let engine = rig.open().unwrap();
    let plan = rig.square.piped(&engine).unwrap();
    for when_full in [WhenFull::Wait, WhenFull::Refuse] {
        let pipeline = start(&rig, OPTIONS).unwrap();
        rig.faults.terminate();
        let mut slot = pipeline.acquire(plan.recipe().unwrap(), when_full).unwrap();
        // SAFETY: the memory is as long as the problem says and lives as long as the slot. No job runs in the slot.
        let input = unsafe { std::slice::from_raw_parts_mut(slot.input(), rig.square.input.len()) };
        input.copy_from_slice(&rig.square.input);
        let ticket = Ticket::new();
        slot.submit(&ticket).unwrap();
        ticket.wait().unwrap();
        // SAFETY: as above.
        rig.square
            .assert_right(unsafe { std::slice::from_raw_parts(slot.output(), rig.square.expected.len()) });
    }
}

/// Before every EGL call that the fault can hit, from the creation of an engine to the end of a pipeline's job.
#[test]
fn at_every_call() {
    let Some(rig) = Rig::new(machine()) else { return };
    let mut hit = vec![];
    for contexts in CONTEXTS {
        for number in 1.. {
            rig.faults.arm(Fault::Terminated, number);
            let engine = rig.open().unwrap();
            let plan = rig.square.piped(&engine).unwrap();
            rig.square.run(&*plan).unwrap();
            let pipeline = start(&rig, PipelineOptions { contexts, ..OPTIONS }).unwrap();
            submit(&pipeline, &rig.square, &*plan).end().unwrap();
            drop((pipeline, plan, engine));
            match rig.faults.disarm() {
                Some(call) => hit.push(call),
                None => break,
            }
            assert_eq!(rig.faults.objects(), Default::default(), "{hit:?}");
        }
    }
    // For the worker and for each thread of the pipelines: a root, a context, and making it current.
    assert!(hit.len() >= 3 * 6, "{hit:?}");
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}
