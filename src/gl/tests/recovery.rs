//! The next call replaces a lost context once. A context that is lost for good reports it at every call and blocks
//! no caller.

use super::faulty::{Fault, Faults, Machine};
use super::rig::{Rig, SMALL_BLOCK};
use crate::error::Error;
use crate::gl::device::session::Session;
use crate::gl::driver::egl::Egl as _;

const LOSSES: [Fault; 2] = [Fault::Lost, Fault::LostSilently];
const MACHINE: Machine = Machine {
    max_block: Some(SMALL_BLOCK),
    needs_surface: false,
    no_storage: false,
    binaries: false,
    lazy: None,
    compute_units: None,
};

fn is_lost<T>(result: crate::Result<T>) -> bool {
    matches!(result, Err(Error::DeviceLost { .. }))
}

/// The number of share groups that `work` creates.
fn groups_made(faults: &Faults, work: impl FnOnce()) -> u32 {
    let before = faults.groups();
    work();
    faults.groups() - before
}

#[test]
fn the_next_call_replaces_the_context_and_plans_upload_again() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    let (engine, faults) = (rig.open().unwrap(), &rig.faults);
    let cases = [&rig.square, &rig.direct, &rig.batch];
    let plans = cases.map(|case| case.plan(&engine).unwrap());
    let run_all =
        || cases.iter().zip(&plans).for_each(|(case, plan)| assert!(case.run(&**plan).unwrap() > 0));
    run_all();
    let healthy = faults.objects();
    let mut lost = 0;
    for fault in LOSSES.into_iter().cycle().take(10) {
        let made = groups_made(faults, || {
            faults.arm(fault, 12);
            assert!(is_lost(rig.batch.run(&*plans[2])), "{fault:?}");
            assert!(faults.disarm().is_some());
        });
        assert_eq!(made, 0, "a call that fails makes no new context");
        assert_eq!(groups_made(faults, run_all), 1, "the next one does, once");
        assert_eq!(groups_made(faults, run_all), 0);
        assert_eq!(faults.objects(), healthy);
        lost += 1;
    }
    assert_eq!(lost, 10);
    drop(plans);
    rig.product.run(&engine).unwrap();
    drop(engine);
    assert_eq!(faults.objects(), Default::default());
    assert_eq!(faults.violations(), Vec::<String>::new());
}

/// As after a suspend. No call was running, so none has to fail.
#[test]
fn a_context_lost_between_calls_costs_no_call() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    let (engine, faults) = (rig.open().unwrap(), &rig.faults);
    let plan = rig.square.plan(&engine).unwrap();
    rig.square.run(&*plan).unwrap();
    for fault in LOSSES {
        faults.arm(fault, 1);
        // No call checks for errors after this command.
        let flush = |session: &mut Session| {
            session.context().api().flush();
            Ok(())
        };
        engine.worker().call(flush).unwrap();
        assert_eq!(faults.disarm(), Some("flush"));
        let made = groups_made(faults, || assert!(rig.square.run(&*plan).is_ok()));
        assert_eq!(made, 1, "{fault:?}");
    }
}

#[test]
fn a_device_lost_again_and_again_says_so_each_time() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    let (engine, faults) = (rig.open().unwrap(), &rig.faults);
    let plan = rig.direct.plan(&engine).unwrap();
    rig.direct.run(&*plan).unwrap();
    let mut lost = 0;
    for fault in LOSSES {
        for round in 0..8 {
            // First during the setup of the new context, then later and later.
            faults.arm(fault, 1 + round * 5);
            let result =
                if round % 2 == 0 { rig.direct.run(&*plan).map(|_| ()) } else { rig.product.run(&engine) };
            assert!(is_lost(result.clone()), "{fault:?}, round {round}: {result:?}");
            assert!(faults.disarm().is_some());
            lost += 1;
        }
    }
    assert_eq!(lost, 16);
    rig.direct.run(&*plan).unwrap();
    rig.product.run(&engine).unwrap();
}

/// A reset that takes a while. Meanwhile no new context is available.
#[test]
fn a_device_without_contexts_for_a_while_reports_it_and_recovers() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    let (engine, faults) = (rig.open().unwrap(), &rig.faults);
    let plan = rig.square.plan(&engine).unwrap();
    faults.arm(Fault::Lost, 1);
    assert!(is_lost(rig.square.run(&*plan)));
    faults.arm(Fault::CreateContexts, 1);
    for _ in 0..5 {
        let error = rig.square.run(&*plan).unwrap_err();
        assert!(matches!(&error, Error::Driver { call, .. } if call.contains("eglCreateContext")), "{error}");
    }
    // Plans may be created and dropped meanwhile.
    drop(plan);
    assert!(rig.direct.plan(&engine).is_err());
    faults.disarm();
    rig.direct.run(&*rig.direct.plan(&engine).unwrap()).unwrap();
    drop(engine);
    assert_eq!(faults.objects(), Default::default());
}

/// A GPU that hangs. Each call ends at its time limit, even if the device has not recovered by the next call.
#[test]
fn a_device_that_hangs_blocks_no_caller() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    let (engine, faults) = (rig.open().unwrap(), &rig.faults);
    let plan = rig.batch.plan(&engine).unwrap();
    rig.batch.run(&*plan).unwrap();
    let healthy = faults.objects();
    faults.arm(Fault::NeverSignals, 1);
    for _ in 0..5 {
        let error = rig.batch.run(&*plan).unwrap_err();
        assert!(matches!(error, Error::Timeout { limit_ms: 20, .. }), "{error}");
    }
    assert_eq!(faults.disarm(), Some("client_wait_sync"));
    rig.batch.run(&*plan).unwrap();
    assert_eq!(faults.objects(), healthy);
}

#[test]
fn a_hundred_engines_leave_no_object_behind() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    for cycle in 0..100 {
        let engine = rig.open().unwrap();
        let plan = rig.square.plan(&engine).unwrap();
        rig.square.run(&*plan).unwrap();
        drop((plan, engine));
        assert_eq!(rig.faults.objects(), Default::default(), "cycle {cycle}");
    }
    assert_eq!(rig.faults.violations(), Vec::<String>::new());
}

/// Not even while a context is replaced.
#[test]
fn the_callers_thread_never_gets_our_context() {
    let Some(rig) = Rig::new(MACHINE) else { return };
    let engine = rig.open().unwrap();
    rig.faults.arm(Fault::Lost, 5);
    assert!(is_lost(rig.product.run(&engine)));
    rig.product.run(&engine).unwrap();
    assert_eq!(rig.egl.current_context(), None);
}
