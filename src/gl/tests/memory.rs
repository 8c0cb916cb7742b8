//! The memory of plans: what they report is what they allocate, counted in the driver's buffers.

use super::faulty::Machine;
use super::pipeline::submit;
use super::rig::{Case, Rig};
use crate::backend::Backend;
use crate::gl::device::engine::Engine;
use crate::problem::{Algorithm, Conv2dDesc};

/// Small extra buffers: parameter blocks, empty buffers, and copies that a queue makes only to order its stages.
const SMALL: i64 = 2048;

fn case(desc: Conv2dDesc) -> Case {
    // Only the direct algorithm is exact on integers.
    if desc.algorithm == Algorithm::Direct { Case::new(desc, 5) } else { Case::blank(desc, 5) }
}

/// The host's copy of weights and bias.
fn copies(case: &Case) -> usize {
    4 * (case.weights.len() + case.bias.as_ref().map_or(0, Vec::len))
}

/// Waits until the worker has done all posted tasks.
fn settle(engine: &Engine) {
    engine.worker().call(|_| Ok(())).unwrap();
}

#[test]
fn plans_take_what_they_say() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let square = Conv2dDesc { n: 2, c: 32, h: 20, w: 20, k: 48, r: 3, s: 3, ..Default::default() };
    let shapes = [
        Conv2dDesc { algorithm: Algorithm::Direct, ..square },
        Conv2dDesc { bias: true, relu: true, algorithm: Algorithm::Winograd, pad_h: 1, pad_w: 1, ..square },
        Conv2dDesc { c: 128, k: 128, r: 1, s: 1, ..square },
        Conv2dDesc { groups: 16, bias: true, h: 60, w: 60, ..square },
        Conv2dDesc { c: 2, k: 3, h: 5, w: 6, ..square },
    ];
    for desc in shapes {
        let case = case(desc);
        // The first plan measures the device.
        case.run(&*case.plan(&engine).unwrap()).unwrap();
        settle(&engine);
        let before = rig.faults.bytes();
        let plan = case.plan(&engine).unwrap();
        case.run(&*plan).unwrap();
        let taken = rig.faults.bytes() - before;
        let host = copies(&case) + 4 * case.problem.output_len();
        let said = (plan.memory().packed + plan.memory().workspace - host) as i64;
        assert!((said..=said + SMALL).contains(&taken), "{}: {taken} bytes, not {said}", plan.kernel());
        drop(plan);
        settle(&engine);
        assert_eq!(rig.faults.bytes(), before);
    }
}

/// A plan that only runs in a caller's pipeline allocates nothing on the worker. Running the plan itself does.
#[test]
fn plans_in_pipelines_take_nothing_of_the_worker() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let engine = rig.open().unwrap();
    let case = case(Conv2dDesc { n: 2, c: 32, h: 20, w: 20, k: 48, r: 3, s: 3, ..Default::default() });
    // The first plan measures the device.
    case.run(&*case.plan(&engine).unwrap()).unwrap();
    settle(&engine);
    let before = rig.faults.bytes();
    let plan = case.plan(&engine).unwrap();
    assert!(plan.recipe().is_some());
    settle(&engine);
    assert_eq!(rig.faults.bytes(), before, "{}: held for runs that never come", plan.kernel());
    case.run(&*plan).unwrap();
    let held = rig.faults.bytes();
    assert!(held > before, "a plan that is run keeps what it runs with");
    assert!(plan.recipe().is_some());
    settle(&engine);
    assert_eq!(rig.faults.bytes(), held, "a plan that is used both ways is not prepared again and again");
}

/// The pipeline that serves their runs prepares them at the first run. Nothing else does.
#[test]
fn plans_that_stream_take_nothing_before_they_run_and_what_they_say_after() {
    let Some(rig) = Rig::new(Machine::default()) else { return };
    let wide = Conv2dDesc { n: 2, c: 16, h: 256, w: 256, k: 4, r: 1, s: 1, ..Default::default() };
    let shapes = [
        wide,
        Conv2dDesc { n: 9, h: 255, bias: true, ..wide },
        Conv2dDesc { groups: 4, r: 3, s: 3, ..wide },
        Conv2dDesc {
            n: 1,
            c: 32,
            h: 240,
            w: 240,
            k: 8,
            r: 3,
            s: 3,
            pad_h: 1,
            algorithm: Algorithm::Winograd,
            ..wide
        },
    ];
    for desc in shapes {
        // A new engine, so that the pipeline has served no other plan.
        let (engine, case) = (rig.open().unwrap(), case(desc));
        assert!(engine.streams(&case.problem));
        engine.gpu().unwrap();
        let before = rig.faults.bytes();
        let plan = case.plan(&engine).unwrap();
        assert_eq!(rig.faults.bytes(), before, "{}: made of what never runs", plan.kernel());
        let said = (plan.memory().packed + plan.memory().workspace - copies(&case)) as i64;
        let queue = engine.stream().unwrap();
        let before = rig.faults.bytes();
        let mut kernel = None;
        // Often enough to use each slot.
        for _ in 0..5 {
            kernel = Some(submit(&*queue, &case, &*plan).end().unwrap().kernel);
        }
        let taken = rig.faults.bytes() - before;
        assert!((said / 5..=said + SMALL).contains(&taken), "{}: {taken} bytes, not {said}", plan.kernel());
        assert_eq!(kernel.as_deref(), Some(plan.kernel()));
    }
}
